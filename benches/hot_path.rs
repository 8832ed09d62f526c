//! One request through each stack, for comparing two versions of the code: `cargo bench --bench hot_path`.
//!
//! The figures of RESULTS.md come from `paired` and `contention`, which interleave the stacks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::time::{Duration, Instant};

use criterion::Criterion;
use http::Request;
use support::baselines::{Inner, floor, naive};
use support::cases::{Case, FLOOR, NAIVE_RETRY, NEVER, REPLAY, cases};
use support::ours::{background, ours};
use support::requests::{Body, KINDS, Kind};
use support::{reqwests, tasks};
use tokio::runtime::{Builder, Runtime};
use tower::Service;
use tower_oauth2_client::Replay;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let runtime = background();
    {
        let _guard = runtime.enter();
        for kind in KINDS {
            group(&mut criterion, kind.name(), cases(&runtime, kind));
        }
        group(&mut criterion, "reqwest", reqwests::cases(&runtime));
    }
    let worker = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    for kind in [Kind::P3, Kind::P8] {
        for count in [64, 1_000] {
            across_an_await(&mut criterion, &worker, kind, count);
        }
    }
    criterion.final_summary();
}

fn group(criterion: &mut Criterion, name: &str, cases: Vec<Case>) {
    let mut group = criterion.benchmark_group(name);
    for mut case in cases {
        group.bench_function(case.name, |bencher| {
            bencher.iter_custom(|requests| {
                let start = Instant::now();
                case.run(requests);
                start.elapsed()
            });
        });
    }
    group.finish();
}

/// The inner service yields once; one worker.
fn across_an_await(criterion: &mut Criterion, worker: &Runtime, kind: Kind, count: usize) {
    let inner = Inner::new(1);
    let mut group = criterion.benchmark_group(format!("{}, {count} tasks", kind.name()));
    let mut bench = |name, run: &dyn Fn(usize) -> f64| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|requests| Duration::from_nanos((run(requests as usize) * requests as f64) as u64));
        });
    };
    bench(FLOOR, &|requests| run(worker, floor(inner.clone()), kind, count, requests));
    let never = ours(worker, inner.clone(), Replay::Never);
    bench(NEVER, &|requests| run(worker, never.clone(), kind, count, requests));
    let replay = ours(worker, inner.clone(), Replay::AnyReplayable);
    bench(REPLAY, &|requests| run(worker, replay.clone(), kind, count, requests));
    let naive = naive(inner.clone(), true);
    bench(NAIVE_RETRY, &|requests| run(worker, naive.clone(), kind, count, requests));
    group.finish();
}

fn run<S>(worker: &Runtime, service: S, kind: Kind, count: usize, requests: usize) -> f64
where
    S: Service<Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug,
{
    tasks::run(worker, service, kind, count, requests, false)
}
