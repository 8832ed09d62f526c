//! Half an hour over real connections with tokens of some seconds, while everything goes wrong now and then: do memory,
//! connections and errors stay what they were?
//!
//! Servers are a process of their own. `cargo run --release --example soak`; `-- --minutes 5` for another time.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock, both, serve};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, BoxError, ClientAuth, Error, Tenant, TenantId};

/// At the same time, half of them over HTTP/1 and half over HTTP/2; each ends after some time, and another takes its place.
const LAYERS: u64 = 8;
/// Of each layer, each with tokens of its own.
const TENANTS: u64 = 4;
const BETWEEN_REQUESTS: Duration = Duration::from_millis(80);
/// Memory, connections and figures from before are not looked at.
const WARM_UP: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let run = match &arguments[..] {
        [flag] if flag == "--servers" => runtime.block_on(servers()),
        [] => runtime.block_on(soak(Duration::from_secs(30 * 60))),
        [flag, minutes] if flag == "--minutes" => match minutes.parse::<u64>() {
            Ok(minutes) => runtime.block_on(soak(Duration::from_secs(minutes.saturating_mul(60)))),
            Err(error) => return failed(&error),
        },
        _ => {
            eprintln!("usage: soak [--minutes N]");
            return ExitCode::from(2);
        }
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &(dyn StdError + 'static)) -> ExitCode {
    eprintln!("soak: {error}");
    ExitCode::FAILURE
}

/// Both servers, with a day's troubles in each minute, until nobody wants them any more.
async fn servers() -> Result<(), BoxError> {
    let auth = AuthServer::new(TestClock::new()).client("client", "secret").tenant_header("x-tenant");
    let api = Api::new(&auth).tenant_header("x-tenant");
    let served = serve(both(&auth, &api)).await?;
    println!("{}", served.origin());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut revocations = 0_u64;
    for round in 0_u64.. {
        if ended.is_finished() {
            break;
        }
        sleep(Duration::from_millis(250)).await;
        let _ = auth.clone().lifetime(Duration::from_millis(fastrand::u64(2000..4000)));
        if round % 20 == 0 {
            auth.revoke_all();
            revocations = revocations.saturating_add(1);
        }
        match fastrand::u8(0..10) {
            0 | 1 => auth.script([token_fault()]),
            2 | 3 => api.script([api_fault()]),
            // An outage of some seconds.
            4 if round % 240 < 20 => auth.script((0..20).map(|_| Fault::Status(503))),
            _ => {}
        }
    }
    println!("token requests answered {}", auth.token_requests());
    println!("requests at the API {}", api.hits());
    println!("revocations of all tokens {revocations}");
    println!("requests with another tenant's token {}", api.tenant_mismatches());
    println!("connections accepted {}", served.connections());
    Ok(())
}

fn token_fault() -> Fault {
    let faults = [
        Fault::Status(503),
        Fault::RetryAfter(429, 1),
        Fault::Drop,
        Fault::DropInBody,
        Fault::LoseAnswer,
        Fault::Hang,
        Fault::HangInBody,
        Fault::Huge,
        Fault::Garbage,
        Fault::Html,
        Fault::Slow(Duration::from_millis(300)),
        Fault::SameToken,
        Fault::error("temporarily_unavailable"),
        Fault::error("invalid_client"),
    ];
    faults[fastrand::usize(..faults.len())].clone()
}

fn api_fault() -> Fault {
    let faults = [
        Fault::Status(503),
        Fault::Status(401),
        Fault::error("invalid_token"),
        Fault::Drop,
        Fault::DropInBody,
        Fault::Hang,
        Fault::HangInBody,
        Fault::Slow(Duration::from_millis(300)),
    ];
    faults[fastrand::usize(..faults.len())].clone()
}

/// The servers' process; it ends with this one, whose end it hears on its standard input.
struct Servers {
    process: Child,
    origin: String,
    says: BufReader<std::process::ChildStdout>,
}

impl Servers {
    fn start() -> Result<Self, BoxError> {
        let own = std::env::current_exe()?;
        let mut process = Command::new(own).arg("--servers").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut origin = String::new();
        says.read_line(&mut origin)?;
        Ok(Self { process, origin: origin.trim().to_owned(), says })
    }

    /// What they have seen.
    fn end(mut self) -> Result<Vec<(String, u64)>, BoxError> {
        drop(self.process.stdin.take());
        let lines = self.says.lines().collect::<Result<Vec<_>, _>>()?;
        self.process.wait()?;
        let figures = lines.iter().filter_map(|line| line.rsplit_once(' '));
        Ok(figures.filter_map(|(name, figure)| Some((name.to_owned(), figure.parse().ok()?))).collect())
    }
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    answers: BTreeMap<String, u64>,
    lives: u64,
    token_requests: u64,
}

type Shared = Arc<Mutex<Seen>>;

fn seen(shared: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn soak(time: Duration) -> Result<(), BoxError> {
    let servers = Servers::start()?;
    let (shared, end) = (Shared::default(), Instant::now() + time);
    let mut layers = JoinSet::new();
    for number in 0..LAYERS {
        layers.spawn(lives(number, servers.origin.clone(), shared.clone(), end));
    }
    sleep(WARM_UP.min(time / 2)).await;
    let first = Machine::now();
    let (mut largest, mut last_minute) = (first, 0);
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        largest = largest.max(Machine::now());
        if end.saturating_duration_since(Instant::now()) > Duration::from_secs(20) {
            last_minute = seen(&shared).answers.get("200").copied().unwrap_or_default();
        }
    }
    let last = Machine::now();
    while let Some(life) = layers.join_next().await {
        life??;
    }
    let figures = servers.end()?;
    let seen = seen(&shared);
    report(time, &seen, &figures, [first, largest, last]);
    let unanswered = seen.answers.get("unanswered").copied().unwrap_or_default();
    let mismatches = figures.iter().find(|(name, _)| name.contains("another tenant")).map(|(_, figure)| *figure);
    let is_well = unanswered == 0
        && mismatches == Some(0)
        && seen.answers.get("200").is_some_and(|answers| *answers > last_minute)
        && last.kib <= first.kib.saturating_mul(3) / 2
        && last.files <= first.files.saturating_mul(2);
    println!("{}", if is_well { "All is well." } else { "NOT well." });
    if is_well { Ok(()) } else { Err("see above".into()) }
}

/// One layer after the other.
async fn lives(number: u64, origin: String, shared: Shared, end: Instant) -> Result<(), BoxError> {
    while Instant::now() < end {
        let cfg =
            AuthConfig::client_credentials(format!("{origin}/oauth2/token"), ClientAuth::basic("client", "secret"))
                .origin(&origin)
                .tenant(Tenant::header("x-tenant").per_tenant_tokens().token_header("x-tenant"))
                .token_timeout(Duration::from_secs(1))
                .refresh_deadline(Duration::from_secs(3))
                .backoff(Duration::from_millis(100), Duration::from_secs(2))
                .permanent_failure_pause(Duration::from_secs(1), Duration::from_secs(4))
                .build()?;
        let layer = AuthLayer::new(cfg);
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(number % 2 == 1).timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let client = layer.layer(client.build_http());
        seen(&shared).lives += 1;
        let ends = end.min(Instant::now() + Duration::from_secs(fastrand::u64(20..60)));
        let mut requests = JoinSet::new();
        let mut sent = 0_u64;
        while Instant::now() < ends {
            sleep(BETWEEN_REQUESTS).await;
            while requests.try_join_next().is_some() {}
            let tenant = TenantId::new(format!("tenant-{number}-{}", sent % TENANTS))?;
            requests.spawn(request(client.clone(), format!("{origin}/items"), tenant, shared.clone()));
            sent = sent.wrapping_add(1);
        }
        while requests.join_next().await.is_some() {}
        seen(&shared).token_requests += layer.handle().stats().token_requests;
        layer.handle().shutdown().await;
    }
    Ok(())
}

async fn request(client: Auth<Client<HttpConnector, Full<Bytes>>>, uri: String, tenant: TenantId, shared: Shared) {
    let Ok(mut request) = Request::post(uri).body(Full::from("body")) else { return };
    request.extensions_mut().insert(tenant);
    let answer = async {
        match timeout(PATIENCE, client.oneshot(request)).await {
            Ok(Ok(response)) => {
                let status = response.status().as_str().to_owned();
                match timeout(PATIENCE, response.into_body().collect()).await {
                    Ok(Ok(_)) => status,
                    _ => format!("{status}, body not complete"),
                }
            }
            Ok(Err(Error::Token(error))) => format!("no token: {}", error.kind().as_str()),
            Ok(Err(Error::Service(_))) => "the API's connection failed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the caller's patience ended".to_owned(),
        }
    };
    // Whatever hangs has a bound inside; this one says that the crate has not answered.
    let answer = timeout(3 * PATIENCE, answer).await.unwrap_or_else(|_| "unanswered".to_owned());
    *seen(&shared).answers.entry(answer).or_default() += 1;
}

/// What this process has, where the system tells.
#[derive(Clone, Copy, Default)]
struct Machine {
    kib: u64,
    /// Connections, for the most part.
    files: u64,
}

impl Machine {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        Self { kib, files }
    }

    fn max(self, other: Self) -> Self {
        Self { kib: self.kib.max(other.kib), files: self.files.max(other.files) }
    }
}

/// In 80 columns.
fn report(time: Duration, seen: &Seen, figures: &[(String, u64)], [first, largest, last]: [Machine; 3]) {
    let requests: u64 = seen.answers.values().sum();
    println!("{:<62} {:>12}", "minutes", time.as_secs() / 60);
    println!("{:<62} {:>12}", "layers that lived", seen.lives);
    println!("{:<62} {:>12}", "token requests made", seen.token_requests);
    println!("{:<62} {:>12}", "requests", requests);
    for (answer, count) in &seen.answers {
        println!("  {answer:<60} {count:>12}");
    }
    println!("seen by the servers");
    for (name, figure) in figures {
        println!("  {name:<60} {figure:>12}");
    }
    println!("{:<36} {:>12} {:>12} {:>12}", "", "after 30 s", "largest", "at the end");
    println!("{:<36} {:>12} {:>12} {:>12}", "memory, KiB", first.kib, largest.kib, last.kib);
    println!("{:<36} {:>12} {:>12} {:>12}", "open files (connections)", first.files, largest.files, last.files);
}
