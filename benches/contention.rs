//! Many threads and many tasks through one layer: a valid token, an expiring one, and one that is revoked all the time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use support::baselines::{Answer, Inner, Issuer, TENANT, floor, naive, naive_of};
use support::cases::{FLOOR, NAIVE_RETRY, NEVER, ONESHOT_FLOOR, ONESHOT_REPLAY, REPLAY, measured_persistent};
use support::figures::Figures;
use support::ours::{background, ours, warm};
use support::paired::median;
use support::requests::{Body, Kind};
use support::tasks::run;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, Replay, Tenant, Token, TokenError, TokenRequest};

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let mut figures = Figures::of("contention");
    threads(&mut figures, if quick { 11 } else { 21 });
    tasks(&mut figures, if quick { 3 } else { 11 });
    let span = Duration::from_millis(if quick { 1_000 } else { 5_000 });
    for tasks in [64, 1_000] {
        expiring(&mut figures, tasks, span);
        for queue in [None, Some(7)] {
            revoked(&mut figures, tasks, queue, span);
        }
    }
}

/// Without a runtime in between: each thread has a clone and a loop of its own. The naive layer would have to wait for its
/// lock, which needs a runtime.
fn threads(figures: &mut Figures, rounds: usize) {
    let runtime = background();
    let inner = Inner::new(0);
    for kind in [Kind::P3, Kind::P8] {
        let replay = ours(&runtime, inner.clone(), Replay::AnyReplayable);
        let never = ours(&runtime, inner.clone(), Replay::Never);
        let mut taken = vec![Vec::new(); 15];
        for _ in 0..rounds {
            for (at, threads) in [1, 2, 4].into_iter().enumerate() {
                let runs: [f64; 5] = [
                    on_threads(&runtime, floor(inner.clone()), kind, threads),
                    on_threads(&runtime, never.clone(), kind, threads),
                    on_threads(&runtime, replay.clone(), kind, threads),
                    on_threads(&runtime, Fresh(floor(inner.clone())), kind, threads),
                    on_threads(&runtime, Fresh(replay.clone()), kind, threads),
                ];
                for (stack, run) in runs.into_iter().enumerate() {
                    taken[stack * 3 + at].push(run);
                }
            }
        }
        for (stack, name) in [FLOOR, NEVER, REPLAY, ONESHOT_FLOOR, ONESHOT_REPLAY].into_iter().enumerate() {
            for (at, threads) in [1, 2, 4].into_iter().enumerate() {
                let value = median(taken[stack * 3 + at].clone());
                figures.put(format!("{} {name}, {threads} threads: ns a request", kind.name()), value);
            }
        }
    }
}

/// Nanoseconds a request, of the whole process: half of what a request takes where two threads do not disturb each other.
fn on_threads<S>(runtime: &Runtime, service: S, kind: Kind, threads: usize) -> f64
where
    S: Service<Request<Body>> + Clone + Send + 'static,
{
    const BATCH: u64 = 64;
    const SPAN: Duration = Duration::from_millis(20);
    let barrier = Arc::new(Barrier::new(threads));
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (mut service, barrier, handle) = (service.clone(), barrier.clone(), runtime.handle().clone());
            thread::spawn(move || {
                let _guard = handle.enter();
                // What the spawning thread allocated for these threads lies side by side, and each thread that frees its part
                // gets it again for its own small things: two threads would write to one cache line, by malloc's chance.
                let _used_up: Vec<Vec<u8>> = (0..256).map(|at| Vec::with_capacity(16 + at % 32 * 16)).collect();
                measured_persistent(&mut service, kind, BATCH);
                barrier.wait();
                let (start, mut requests) = (Instant::now(), 0);
                while start.elapsed() < SPAN {
                    measured_persistent(&mut service, kind, BATCH);
                    requests += BATCH;
                }
                requests as f64 / start.elapsed().as_nanos() as f64
            })
        })
        .collect();
    let rate: f64 = running.into_iter().map(|thread| thread.join().unwrap()).sum();
    1.0 / rate
}

/// A fresh clone for each request.
#[derive(Clone)]
struct Fresh<S>(S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for Fresh<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut service = self.0.clone();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        service.call(request)
    }
}

/// Across an await, on a tokio runtime: the inner service yields once.
fn tasks(figures: &mut Figures, rounds: usize) {
    const REQUESTS: usize = 40_000;
    let inner = Inner::new(1);
    for (kind, workers, counts) in [
        (Kind::P3, 1, &[64, 1_000][..]),
        (Kind::P8, 1, &[1, 64, 1_000, 10_000][..]),
        (Kind::P8, 2, &[1, 64, 1_000, 10_000][..]),
        (Kind::P8, 4, &[1, 64, 1_000, 10_000][..]),
    ] {
        let runtime = Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap();
        let never = ours(&runtime, inner.clone(), Replay::Never);
        let replay = ours(&runtime, inner.clone(), Replay::AnyReplayable);
        let naive = naive(inner.clone(), true);
        for &tasks in counts {
            let mut taken = vec![Vec::new(); 6];
            for _ in 0..rounds {
                taken[0].push(run(&runtime, floor(inner.clone()), kind, tasks, REQUESTS, false));
                taken[1].push(run(&runtime, never.clone(), kind, tasks, REQUESTS, false));
                taken[2].push(run(&runtime, replay.clone(), kind, tasks, REQUESTS, false));
                taken[3].push(run(&runtime, naive.clone(), kind, tasks, REQUESTS, false));
                taken[4].push(run(&runtime, floor(inner.clone()), kind, tasks, REQUESTS, true));
                taken[5].push(run(&runtime, replay.clone(), kind, tasks, REQUESTS, true));
            }
            let names = [FLOOR, NEVER, REPLAY, NAIVE_RETRY, ONESHOT_FLOOR, ONESHOT_REPLAY];
            for (name, taken) in names.into_iter().zip(taken) {
                let name = format!("{} {name}, {workers} workers, {tasks} tasks: ns a request", kind.name());
                figures.put(name, median(taken));
            }
        }
    }
}

/// Tokens that live for a second, so that each is renewed in the background.
fn expiring(figures: &mut Figures, tasks: usize, span: Duration) {
    let runtime = two_workers(None);
    let issuer = Issuer::default();
    let (layer, service) = issued(&runtime, Api::new(&issuer), &issuer, Duration::from_secs(1));
    let served = serve(&runtime, service, tasks, span);
    figures.put(format!("2 workers, {tasks} tasks, expiring token: ns a request"), served.each);
    let token_requests = layer.handle().stats().token_requests as f64;
    figures.put(format!("2 workers, {tasks} tasks, expiring token: token requests"), token_requests);
}

/// A revocation every 100 ms: this crate, the mutex client, and FLOOR, whose token nobody revokes. Tasks that are woken all
/// at once go through tokio's shared queue, at which a busy worker looks once every 61 tasks, or `queue`.
fn revoked(figures: &mut Figures, tasks: usize, queue: Option<u32>, span: Duration) {
    const EACH: Duration = Duration::from_millis(100);
    for who in [FLOOR, REPLAY, NAIVE_RETRY] {
        let runtime = two_workers(queue);
        let issuer = Issuer::default();
        let api = Api::new(&issuer);
        let met = api.met.clone();
        let revoking = {
            let life = issuer.life.clone();
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(EACH).await;
                    life.fetch_add(1, Ordering::Release);
                }
            })
        };
        let served = match who {
            FLOOR => serve(&runtime, floor(Inner::new(1)), tasks, span),
            REPLAY => {
                let (_, service) = issued(&runtime, api, &issuer, Duration::from_secs(3600));
                serve(&runtime, service, tasks, span)
            }
            _ => serve(&runtime, naive_of(api, true, issuer.clone()), tasks, span),
        };
        revoking.abort();
        let queue = queue.map_or(String::new(), |every| format!("shared queue every {every}, "));
        let name = format!("2 workers, {tasks} tasks, a revocation every 100 ms, {queue}{who}");
        figures.put(format!("{name}: ns a request"), served.each);
        figures.put(format!("{name}: p99 in µs"), served.p99);
        if who != FLOOR {
            figures.put(format!("{name}: lives of a token"), (issuer.life.load(Ordering::Acquire) + 1) as f64);
            // The mutex client begins with a token.
            let token_requests = issuer.token_requests.load(Ordering::Relaxed) + u64::from(who == NAIVE_RETRY);
            figures.put(format!("{name}: token requests"), token_requests as f64);
            figures.put(format!("{name}: 401 met"), met.load(Ordering::Relaxed) as f64);
            figures.put(format!("{name}: 401 passed on"), served.passed_on as f64);
        }
    }
}

fn two_workers(queue: Option<u32>) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    if let Some(every) = queue {
        builder.global_queue_interval(every);
    }
    builder.worker_threads(2).enable_time().build().unwrap()
}

fn issued(runtime: &Runtime, api: Api, issuer: &Issuer, lifetime: Duration) -> (AuthLayer, Auth<Api>) {
    let issuer = issuer.clone();
    let source = tower::service_fn(move |_: TokenRequest| {
        let issuer = issuer.clone();
        async move {
            let token = Token::bearer(&issuer.fetch().await).map_err(TokenError::permanent)?;
            Ok::<_, TokenError>(token.with_expires_in(lifetime))
        }
    });
    let tenant = Tenant::header("x-tenant-id").fixed(TENANT);
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).build().unwrap();
    let layer = AuthLayer::with_source(cfg, source);
    let service = warm(runtime, layer.clone(), api);
    (layer, service)
}

struct Served {
    each: f64,
    p99: f64,
    passed_on: u64,
}

fn serve<S>(runtime: &Runtime, service: S, tasks: usize, span: Duration) -> Served
where
    S: Service<Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Send,
{
    let start = Instant::now();
    let end = start + span;
    let (mut taken, mut passed_on) = (Vec::new(), 0);
    runtime.block_on(async {
        let running: Vec<_> = (0..tasks)
            .map(|_| {
                let mut service = service.clone();
                tokio::spawn(async move {
                    let (mut taken, mut passed_on) = (Vec::new(), 0);
                    let mut now = Instant::now();
                    while now < end {
                        let response = service.ready().await.unwrap().call(Kind::P8.request()).await.unwrap();
                        passed_on += u64::from(response.status() == StatusCode::UNAUTHORIZED);
                        let before = std::mem::replace(&mut now, Instant::now());
                        taken.push((now - before).as_nanos() as f64);
                    }
                    (taken, passed_on)
                })
            })
            .collect();
        for task in running {
            let (some, unauthorized) = task.await.unwrap();
            taken.extend(some);
            passed_on += unauthorized;
        }
    });
    let each = start.elapsed().as_nanos() as f64 / taken.len() as f64;
    let at = taken.len() * 99 / 100;
    let p99 = *taken.select_nth_unstable_by(at, f64::total_cmp).1 / 1_000.0;
    Served { each, p99, passed_on }
}

/// Answers 401 to every token but the newest.
#[derive(Clone)]
struct Api {
    issuer: Issuer,
    met: Arc<AtomicU64>,
    inner: Inner,
}

impl Api {
    fn new(issuer: &Issuer) -> Self {
        Self { issuer: issuer.clone(), met: Arc::default(), inner: Inner::new(1) }
    }
}

impl Service<Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let revoked = self.issuer.is_revoked(&request.headers()[header::AUTHORIZATION]);
        let mut answer = self.inner.call(request);
        if revoked {
            self.met.fetch_add(1, Ordering::Relaxed);
            answer.status = StatusCode::UNAUTHORIZED;
        }
        answer
    }
}
