//! Allocations a request and a waiter, and the size of the future: the same on every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use allocation_counter::measure;
use support::baselines::{Inner, floor};
use support::cases::{FLOOR, ONESHOT_FLOOR, cases};
use support::figures::Figures;
use support::ours::{background, ours};
use support::requests::{KINDS, Kind};
use support::waiters::Waiters;
use tower::Service;
use tower_oauth2_client::Replay;

fn main() {
    let runtime = background();
    let _guard = runtime.enter();
    let mut figures = Figures::of("allocations");
    for kind in KINDS {
        let counted: Vec<(&str, f64)> = cases(&runtime, kind)
            .iter_mut()
            .map(|case| {
                case.run(10);
                (case.name, measure(|| case.run(1000)).count_total as f64 / 1000.0)
            })
            .collect();
        for (name, count) in &counted {
            let reference = if name.starts_with("oneshot") { ONESHOT_FLOOR } else { FLOOR };
            let floor = counted.iter().find(|(name, _)| *name == reference).map_or(f64::NAN, |(_, count)| *count);
            figures.put(format!("{} {name}, over FLOOR", kind.name()), count - floor);
        }
    }
    let mut inner = Inner::new(0);
    let bare = size_of_val(&inner.call(Kind::P8.request()));
    let floor = size_of_val(&floor(inner.clone()).call(Kind::P8.request()));
    let wrapped = size_of_val(&ours(&runtime, inner, Replay::default()).call(Kind::P8.request()));
    figures.put("future: bytes over the inner one", (wrapped - bare) as f64);
    figures.put("future of FLOOR: bytes over the inner one", (floor - bare) as f64);
    let waiters = 10_000;
    figures.put(
        "allocations a waiter over a ready token",
        (of_tasks(waiters, true) - of_tasks(waiters, false)) / waiters as f64,
    );
}

/// Allocations of so many tasks with a request each, while the token is fetched or after.
fn of_tasks(tasks: u64, wait: bool) -> f64 {
    let waiters = Waiters::new(wait);
    measure(|| waiters.measured_run(tasks)).count_total as f64
}
