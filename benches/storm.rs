//! Everybody waits for one token: ten thousand waiters, a refresh that fails, a leader that goes away.
//!
//! What ten thousand tasks cost that hold a request, wait for one shared future and send it then through the floor, with
//! no layer of ours, is measured beside it: much of a storm is memory that has gone cold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use support::baselines::{Inner, TENANT, access_token, floor};
use support::figures::Figures;
use support::paired::median;
use support::requests::Kind;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, Tenant, Token, TokenError, TokenRequest};

const FETCH: Duration = Duration::from_millis(50);
const WAITERS: usize = 10_000;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 5 } else { 21 };
    let mut figures = Figures::of("storm");
    for workers in [1, 2] {
        let runtime = Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap();
        let (mut released, mut cpu, mut fetches) = (Vec::new(), Vec::new(), 0_f64);
        let (mut bare_released, mut bare_cpu) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let waiting = bare_storm(&runtime, WAITERS, FETCH);
            let at_hand = bare_storm(&runtime, WAITERS, Duration::ZERO);
            bare_released.push(waiting.release_to_last.as_secs_f64() * 1e3);
            bare_cpu.push((waiting.cpu - at_hand.cpu) / WAITERS as f64 / 1e3);
            let storm = storm(&runtime, WAITERS, true, false);
            let ready = ready(&runtime, WAITERS);
            released.push(storm.release_to_last.as_secs_f64() * 1e3);
            cpu.push((storm.cpu - ready) / WAITERS as f64 / 1e3);
            fetches = fetches.max(storm.token_requests);
        }
        figures.put(format!("{WAITERS} waiters, {workers} workers: token requests"), fetches);
        figures.put(format!("{WAITERS} waiters, {workers} workers: ms from release to last"), median(released));
        figures
            .put(format!("{WAITERS} waiters, {workers} workers: µs of CPU a waiter over a ready token"), median(cpu));
        let name = format!("FLOOR behind a shared future, {WAITERS} waiters, {workers} workers");
        figures.put(format!("{name}: ms from release to last"), median(bare_released));
        figures.put(format!("{name}: µs of CPU a waiter over one without waiting"), median(bare_cpu));
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let failed: Vec<_> = (0..rounds).map(|_| storm(&runtime, 64, false, false)).collect();
    figures.put("failing refresh, 64 waiters: token requests", most(&failed, |storm| storm.token_requests));
    figures.put("failing refresh, 64 waiters: ms until all are told", most(&failed, |storm| storm.all_told));
    let dropped: Vec<_> = (0..rounds).map(|_| storm(&runtime, 64, true, true)).collect();
    figures.put("leader dropped at 30 of 50 ms: token requests", most(&dropped, |storm| storm.token_requests));
    figures
        .put("leader dropped at 30 of 50 ms: ms until the followers are done", most(&dropped, |storm| storm.all_told));
}

fn most(storms: &[Storm], what: impl Fn(&Storm) -> f64) -> f64 {
    storms.iter().map(what).fold(0.0, f64::max)
}

struct Storm {
    token_requests: f64,
    release_to_last: Duration,
    /// Milliseconds from the start.
    all_told: f64,
    /// Nanoseconds.
    cpu: f64,
}

/// `waiters` tasks with one request each, before there is a token.
fn storm(runtime: &Runtime, waiters: usize, succeeds: bool, drop_leader: bool) -> Storm {
    let released = Arc::new(Mutex::new(None));
    let releasing = released.clone();
    let source = tower::service_fn(move |_: TokenRequest| {
        let releasing = releasing.clone();
        async move {
            tokio::time::sleep(FETCH).await;
            *releasing.lock().unwrap() = Some(Instant::now());
            if !succeeds {
                return Err(TokenError::permanent(std::io::Error::other("refused")));
            }
            let token = Token::bearer(&access_token()).map_err(TokenError::permanent)?;
            Ok(token.with_expires_in(Duration::from_secs(3600)))
        }
    });
    let layer = layer(source);
    let service = layer.layer(Inner::new(0));
    let start = Instant::now();
    let last = Arc::new(AtomicU64::new(0));
    let before = cpu();
    runtime.block_on(async {
        let leader = tokio::spawn(service.clone().oneshot(Kind::P3.request()));
        tokio::task::yield_now().await;
        let followers: Vec<_> =
            (1..waiters).map(|_| tokio::spawn(request(service.clone(), start, last.clone()))).collect();
        if drop_leader {
            tokio::time::sleep_until((start + Duration::from_millis(30)).into()).await;
            leader.abort();
        }
        for follower in followers {
            assert_eq!(follower.await.unwrap(), succeeds);
        }
    });
    let cpu = cpu() - before;
    let last = Duration::from_nanos(last.load(Ordering::Relaxed));
    let released = released.lock().unwrap().unwrap() - start;
    Storm {
        token_requests: layer.handle().stats().token_requests as f64,
        release_to_last: last.saturating_sub(released),
        all_told: last.as_secs_f64() * 1e3,
        cpu,
    }
}

/// The same tasks without a layer of ours; none of them waits if `fetch` is nothing.
fn bare_storm(runtime: &Runtime, waiters: usize, fetch: Duration) -> Storm {
    let service = floor(Inner::new(0));
    let start = Instant::now();
    let last = Arc::new(AtomicU64::new(0));
    let before = cpu();
    let released = runtime.block_on(async {
        let fetched = async move {
            tokio::time::sleep(fetch).await;
            Instant::now()
        };
        let fetched = (!fetch.is_zero()).then(|| fetched.shared());
        let followers: Vec<_> = (0..waiters)
            .map(|_| {
                let (service, fetched, last) = (service.clone(), fetched.clone(), last.clone());
                let request = Kind::P3.request();
                tokio::spawn(async move {
                    if let Some(fetched) = fetched {
                        fetched.await;
                    }
                    service.oneshot(request).await.unwrap();
                    last.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                })
            })
            .collect();
        for follower in followers {
            follower.await.unwrap();
        }
        match fetched {
            Some(fetched) => fetched.await - start,
            None => Duration::ZERO,
        }
    });
    let last = Duration::from_nanos(last.load(Ordering::Relaxed));
    Storm {
        token_requests: 0.0,
        release_to_last: last.saturating_sub(released),
        all_told: last.as_secs_f64() * 1e3,
        cpu: cpu() - before,
    }
}

/// Nanoseconds of CPU for the same tasks with a token at hand.
fn ready(runtime: &Runtime, tasks: usize) -> f64 {
    let source =
        tower::service_fn(|_: TokenRequest| async { Token::bearer(&access_token()).map_err(TokenError::permanent) });
    let layer = layer(source);
    runtime.block_on(layer.handle().warm_up()).unwrap();
    let service = layer.layer(Inner::new(0));
    let (start, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let before = cpu();
    runtime.block_on(async {
        let running: Vec<_> = (0..tasks).map(|_| tokio::spawn(request(service.clone(), start, last.clone()))).collect();
        for task in running {
            task.await.unwrap();
        }
    });
    cpu() - before
}

async fn request(service: Auth<Inner>, start: Instant, last: Arc<AtomicU64>) -> bool {
    let answer = service.oneshot(Kind::P3.request()).await;
    last.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    answer.is_ok()
}

fn layer(source: impl tower_oauth2_client::TokenSource) -> AuthLayer {
    let tenant = Tenant::header("x-tenant-id").fixed(TENANT);
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).build().unwrap();
    AuthLayer::with_source(cfg, source)
}

/// Nanoseconds of CPU of all threads of this process; zero where the kernel does not tell.
fn cpu() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<f64>().ok())
        .sum()
}
