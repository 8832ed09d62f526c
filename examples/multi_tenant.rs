//! A hundred tenants through one layer, both ways: one token for all (VIP), a token for each (Qmatic). Runs offline:
//! `cargo run --example multi_tenant`.
//!
//! The servers are as strict as the real ones and keep every request they saw. Afterwards it is counted there, not in the
//! client: token requests, and requests with another tenant's header or token. A wrong figure is exit code 1.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use http::Request;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, RecordedRequest, TestClock};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, BoxError, Tenant, TenantId, providers};

const TENANTS: usize = 100;
/// Tasks that send requests at the same time, each for one tenant after the other.
const TASKS: usize = 200;
const REQUESTS: usize = 100 * TASKS;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let trials = [vip().await?, qmatic().await?];
    println!("{}", table(&trials));
    let right = trials.iter().all(Trial::is_right);
    println!("{}", if right { "✓ every figure is as it must be" } else { "✗ a figure is not as it must be" });
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One token a day for all practices; each request names its practice in `Tenant-Id`.
async fn vip() -> Result<Trial, BoxError> {
    let clock = TestClock::new();
    let auth = AuthServer::vip(clock.clone()).client("id", "secret").latency(Duration::from_millis(20));
    let api = Api::vip(&auth).latency(Duration::from_millis(1));
    // The preset says `Tenant::header("tenant-id").per_request()`: every request must name its tenant.
    let cfg = providers::vip("id", "secret").clock(clock).build()?;
    let successes = send(cfg, &auth, &api, "https://api.vetspace.cloud").await?;
    let is_wrong = |request: &RecordedRequest| request.header("tenant-id") != tenant_meant(request);
    Ok(Trial { name: "VIP: one token for all", must_be: 1, ..Trial::of(successes, &auth, &api, is_wrong) })
}

/// A token for each account, asked for with the account in a header.
async fn qmatic() -> Result<Trial, BoxError> {
    let clock = TestClock::new();
    let auth = AuthServer::qmatic(clock.clone()).client("id", "secret").latency(Duration::from_millis(20));
    let api = Api::new(&auth).latency(Duration::from_millis(1));
    let scope = "com.qmatic.saas.appointments/external.appointment.book";
    let account = Tenant::without_header().token_header("x-account").token_param("x-account").normalized();
    let cfg = providers::qmatic("api.eu-west-1.qmatic.io", "any", [scope], "id", "secret")
        .tenant(account) // instead of the one account that the preset is for
        .clock(clock)
        .build()?;
    let successes = send(cfg, &auth, &api, "https://api.eu-west-1.qmatic.io").await?;
    let is_wrong = |request: &RecordedRequest| {
        let owner = request.bearer().and_then(|token| auth.tenant_of(token));
        owner.as_deref() != tenant_meant(request)
    };
    Ok(Trial { name: "Qmatic: a token for each", must_be: TENANTS, ..Trial::of(successes, &auth, &api, is_wrong) })
}

/// All requests, and how many succeeded. The tenant goes into the request's extensions, and nowhere else by our hand.
async fn send(cfg: AuthConfig, auth: &AuthServer, api: &Api, origin: &str) -> Result<usize, BoxError> {
    let client: Auth<Api> = AuthLayer::builder(cfg).http_client(auth.clone()).build()?.layer(api.clone());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, origin) = (client.clone(), origin.to_owned());
        tasks.spawn(async move {
            let mut successes = 0;
            for round in 0..REQUESTS / TASKS {
                let tenant = TenantId::new(format!("practice-{}", (task + round) % TENANTS))?;
                let mut request = Request::get(format!("{origin}/{}/appointments", tenant.as_str()));
                if let Some(extensions) = request.extensions_mut() {
                    extensions.insert(tenant);
                }
                let response = client.clone().oneshot(request.body(String::new())?).await?;
                successes += usize::from(response.status().is_success());
            }
            Ok::<_, BoxError>(successes)
        });
    }
    let mut successes = 0;
    while let Some(of_task) = tasks.join_next().await {
        successes += of_task??;
    }
    Ok(successes)
}

/// The tenant that the request's path is about.
fn tenant_meant(request: &RecordedRequest) -> Option<&str> {
    request.uri.path().split('/').nth(1)
}

struct Trial {
    name: &'static str,
    successes: usize,
    wrong_tenants: usize,
    token_requests: usize,
    must_be: usize,
}

impl Trial {
    /// By what the servers saw.
    fn of(successes: usize, auth: &AuthServer, api: &Api, is_wrong: impl Fn(&RecordedRequest) -> bool) -> Self {
        let wrong_tenants = api.requests().iter().filter(|request| is_wrong(request)).count();
        Self { name: "", successes, wrong_tenants, token_requests: auth.token_requests(), must_be: 0 }
    }

    fn is_right(&self) -> bool {
        self.successes == REQUESTS && self.wrong_tenants == 0 && self.token_requests == self.must_be
    }
}

fn table(trials: &[Trial]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header(["Provider", "Tenants", "Requests", "Successes", "Wrong header\nor token", "Token requests"]);
    for trial in trials {
        table.add_row([
            trial.name.to_owned(),
            TENANTS.to_string(),
            REQUESTS.to_string(),
            marked(trial.successes, REQUESTS),
            marked(trial.wrong_tenants, 0),
            marked(trial.token_requests, trial.must_be),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn marked(is: usize, must_be: usize) -> String {
    if is == must_be { is.to_string() } else { format!("✗ {is}, not {must_be}") }
}
