//! One request through each stack, for comparing two versions of the code: `cargo bench --bench hot_path`.
//!
//! The figures of RESULTS.md come from `paired`, which interleaves the stacks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::time::{Duration, Instant};

use criterion::Criterion;
use support::cases::cases;
use support::ours::background;
use support::requests::KINDS;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let runtime = background();
    let _guard = runtime.enter();
    for kind in KINDS {
        let mut group = criterion.benchmark_group(kind.name());
        for mut case in cases(&runtime, kind) {
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
    criterion.final_summary();
}
