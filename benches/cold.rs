//! Many tenants whose tokens are not there yet: 10^5 requests at once, one for each, and 164 000 tokens in one layer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use support::baselines::{Inner, access_token};
use support::figures::Figures;
use support::memory::memory;
use support::ours::layer_per_tenant;
use support::paired::median;
use support::requests::Kind;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::{
    AuthConfig, AuthHandle, AuthLayer, ClientAuth, Tenant, TenantId, Token, TokenError, TokenRequest,
};

const TENANTS: u64 = 100_000;
const FETCH: Duration = Duration::from_millis(5);
/// What the layer allows at a time, by default.
const AT_A_TIME: u64 = 64;
const MANY: u64 = 164_000;

/// Names the part that this program is to run, in a process of its own: peaks of memory are one for each process.
const ASKED: &str = "COLD_TENANTS";
/// The tasks and their requests only: all are for one tenant, whose token is there.
const REQUESTS: &str = "requests";
/// Each tenant has its token.
const AT_HAND: &str = "at hand";
const COLD: &str = "cold";
/// The same with a token source in place of the client of a token endpoint.
const COLD_SOURCE: &str = "cold, own source";

fn main() {
    if let Ok(asked) = std::env::var(ASKED) {
        return at_once(&asked);
    }
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1 } else { 3 };
    let mut figures = Figures::of("cold");
    let rounds: Vec<_> = (0..rounds).map(|_| [REQUESTS, AT_HAND, COLD, COLD_SOURCE].map(in_a_process)).collect();
    let of = |what: fn(&[Run; 4]) -> f64| median(rounds.iter().map(what).collect());
    let mut put = |what: &str, value: f64| figures.put(format!("{TENANTS} cold tenants at once: {what}"), value);
    put("ms until the last has its answer", of(|[_, _, cold, _]| cold.all));
    put("p50 of a request in ms", of(|[_, _, cold, _]| cold.p50));
    put("p99 of a request in ms", of(|[_, _, cold, _]| cold.p99));
    put("ms that 64 token requests at a time take at least", FETCH.as_secs_f64() * 1e3 * (TENANTS / AT_A_TIME) as f64);
    put("token requests", of(|[_, _, cold, _]| cold.token_requests));
    put("token requests at the same time", of(|[_, _, cold, _]| cold.at_the_same_time));
    let each = |bytes: f64| bytes / TENANTS as f64;
    put("peak resident bytes a tenant, with task and request", each(of(|[_, _, cold, _]| cold.peak)));
    let beside = of(|[requests, _, cold, _]| cold.peak - requests.peak);
    put("peak resident bytes a tenant beside its task and request", each(beside));
    let over = of(|[_, at_hand, cold, _]| cold.peak - at_hand.peak);
    put("peak resident bytes a tenant over tokens at hand", each(over));
    let beside = of(|[requests, _, _, source]| source.peak - requests.peak);
    put("peak resident bytes a tenant beside its task and request, own source", each(beside));
    many(&mut figures);
}

/// What one process tells: milliseconds, counts, bytes.
struct Run {
    all: f64,
    p50: f64,
    p99: f64,
    token_requests: f64,
    at_the_same_time: f64,
    peak: f64,
}

fn in_a_process(asked: &str) -> Run {
    let out = Command::new(std::env::current_exe().unwrap()).env(ASKED, asked).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let told: Vec<f64> =
        String::from_utf8(out.stdout).unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [all, p50, p99, token_requests, at_the_same_time, peak] = told[..] else { panic!("another number of figures") };
    Run { all, p50, p99, token_requests, at_the_same_time, peak }
}

/// A request in a task of its own for each tenant, all of them sent, and timed, from when the last task is there.
fn at_once(asked: &str) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let _guard = runtime.enter();
    let before = memory("VmRSS:");
    let endpoint = Endpoint::default();
    let layer = if asked == COLD_SOURCE { layer_with_source(&endpoint) } else { layer(&endpoint) };
    match asked {
        REQUESTS => sign_in(&layer.handle(), 0),
        AT_HAND => (0..TENANTS).for_each(|number| sign_in(&layer.handle(), number)),
        _ => {}
    }
    let service = layer.layer(Inner::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let tasks: Vec<_> = (0..TENANTS)
        .map(|number| {
            let (service, gate) = (service.clone(), gate.clone());
            let mut request = Kind::P3.request();
            request.extensions_mut().insert(tenant(if asked == REQUESTS { 0 } else { number }));
            runtime.spawn(async move {
                // Closed: go.
                let _ = gate.acquire().await;
                service.oneshot(request).await.unwrap();
                Instant::now()
            })
        })
        .collect();
    let start = Instant::now();
    gate.close();
    let mut taken: Vec<f64> = runtime.block_on(async {
        let mut taken = Vec::with_capacity(tasks.len());
        for task in tasks {
            taken.push((task.await.unwrap() - start).as_secs_f64() * 1e3);
        }
        taken
    });
    taken.sort_by(f64::total_cmp);
    let [p50, p99, all] = [TENANTS / 2, TENANTS * 99 / 100, TENANTS - 1].map(|at| taken[at as usize]);
    let [requests, most] = [&endpoint.requests, &endpoint.most].map(|count| count.load(Ordering::Relaxed));
    println!("{all} {p50} {p99} {requests} {most} {}", memory("VmHWM:") - before);
}

/// A token endpoint that takes its time, and counts.
#[derive(Clone, Default)]
struct Endpoint {
    requests: Arc<AtomicU64>,
    under_way: Arc<AtomicU64>,
    /// Under way at the same time.
    most: Arc<AtomicU64>,
}

impl Endpoint {
    async fn token(&self, takes: Duration) -> String {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.most.fetch_max(self.under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        tokio::time::sleep(takes).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        access_token()
    }

    async fn answer(self) -> Result<Response<Full<Bytes>>, Infallible> {
        let token = self.token(FETCH).await;
        let json = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#);
        Ok(Response::new(Full::from(json)))
    }
}

/// As it is set up, but for the time that a request may wait for its turn: the last one's comes after eight seconds.
fn layer(endpoint: &Endpoint) -> AuthLayer {
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .tenant(Tenant::header("x-tenant-id").per_tenant_tokens())
        .max_partitions(TENANTS as usize * 2)
        .refresh_deadline(Duration::from_secs(240))
        .token_timeout(Duration::from_secs(120));
    let endpoint = endpoint.clone();
    let client = tower::service_fn(move |_: Request<Full<Bytes>>| endpoint.clone().answer());
    AuthLayer::builder(cfg.build().unwrap()).http_client(client).build().unwrap()
}

/// A request waits ten seconds for its turn, so that the source is faster.
fn layer_with_source(endpoint: &Endpoint) -> AuthLayer {
    let cfg = AuthConfig::external()
        .origin("https://api.example.com")
        .tenant(Tenant::header("x-tenant-id").per_tenant_tokens())
        .max_partitions(TENANTS as usize * 2);
    let endpoint = endpoint.clone();
    let source = tower::service_fn(move |_: TokenRequest| {
        let endpoint = endpoint.clone();
        async move {
            let token =
                Token::bearer(&endpoint.token(Duration::from_millis(1)).await).map_err(TokenError::permanent)?;
            Ok::<_, TokenError>(token.with_expires_in(Duration::from_secs(3600)))
        }
    });
    AuthLayer::with_source(cfg.build().unwrap(), source)
}

fn sign_in(auth: &AuthHandle, number: u64) {
    let token = Token::bearer(&access_token()).unwrap().with_expires_in(Duration::from_secs(3600));
    auth.for_tenant(&tenant(number)).set_token(token).now_or_never().unwrap().unwrap();
}

fn tenant(number: u64) -> TenantId {
    TenantId::new(format!("{number:036}")).unwrap()
}

/// Tokens for many tenants, one after the other, from a source that answers at once.
fn many(figures: &mut Figures) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _guard = runtime.enter();
    let auth = layer_per_tenant(MANY as usize * 2).handle();
    let acquire = async |number: u64| {
        let auth = auth.for_tenant(&tenant(number));
        let start = Instant::now();
        auth.token().await.unwrap();
        start.elapsed().as_nanos() as f64
    };
    runtime.block_on(async {
        let mut first = Vec::new();
        let start = Instant::now();
        for number in 0..MANY {
            let taken = acquire(number).await;
            if number < 1_000 {
                first.push(taken);
            }
        }
        let all = start.elapsed();
        figures.put(format!("{MANY} tokens in one layer: ms to acquire all"), all.as_secs_f64() * 1e3);
        figures.put(format!("{MANY} tokens in one layer: ns a token"), all.as_nanos() as f64 / MANY as f64);
        let mut further = Vec::new();
        for number in MANY..MANY + 1_000 {
            further.push(acquire(number).await);
        }
        figures.put(format!("{MANY} tokens in one layer: ns for one more (median)"), median(further));
        figures.put("the first 1000 tokens of a layer: ns for one (median)", median(first));
    });
    assert_eq!(auth.stats().token_requests, MANY + 1_000);
}
