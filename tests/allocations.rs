//! Allocations a request, counted and held against the floor: a guard, since a count is the same on every machine.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/support/mod.rs"]
mod support;

use allocation_counter::measure;
use support::baselines::Inner;
use support::cases::{Case, FLOOR, NEVER, ONESHOT_FLOOR, ONESHOT_NEVER, ONESHOT_REPLAY, REPLAY, cases};
use support::ours::{background, ours};
use support::requests::{KINDS, Kind};
use support::waiters::Waiters;
use tower::Service;
use tower_oauth2_client::Replay;

const REQUESTS: u64 = 1000;

fn allocations(cases: &mut [Case], name: &str) -> f64 {
    let case = cases.iter_mut().find(|case| case.name == name).unwrap();
    case.run(10);
    measure(|| case.run(REQUESTS)).count_total as f64 / REQUESTS as f64
}

fn over_floor(kind: Kind, name: &str) -> f64 {
    let runtime = background();
    let _guard = runtime.enter();
    let mut cases = cases(&runtime, kind);
    let floor = if [ONESHOT_NEVER, ONESHOT_REPLAY].contains(&name) { ONESHOT_FLOOR } else { FLOOR };
    let over = allocations(&mut cases, name) - allocations(&mut cases, floor);
    println!("{} {name}: {over:+} allocations over FLOOR", kind.name());
    over
}

/// Once a second a request arms a timer, which allocates; the slack is for that.
fn assert_at_most(kind: Kind, name: &str, limit: f64) {
    let over = over_floor(kind, name);
    assert!(over < limit + 0.1, "{} {name}: {over} allocations over FLOOR, {limit} are allowed", kind.name());
}

#[test]
fn without_a_replay_copy_nothing_is_allocated() {
    for kind in KINDS {
        assert_at_most(kind, NEVER, 0.0);
    }
}

#[test]
fn a_replay_copy_is_one_allocation_one_for_the_body_and_one_for_each_part_of_the_extensions() {
    assert_at_most(Kind::P3, REPLAY, 1.0);
    assert_at_most(Kind::P8, REPLAY, 2.0);
    assert_at_most(Kind::P12, REPLAY, 5.0);
}

#[test]
fn a_clone_for_each_request_allocates_no_more() {
    for kind in KINDS {
        assert_at_most(kind, ONESHOT_NEVER, 0.0);
    }
    assert_at_most(Kind::P3, ONESHOT_REPLAY, 1.0);
    assert_at_most(Kind::P8, ONESHOT_REPLAY, 2.0);
    assert_at_most(Kind::P12, ONESHOT_REPLAY, 5.0);
}

/// With a task for each, so that what tokio allocates for a task is in both counts.
#[test]
fn waiting_for_a_token_allocates_nothing() {
    const TASKS: u64 = 2_000;
    let [waiting, ready] = [true, false].map(|wait| {
        let waiters = Waiters::new(wait);
        measure(|| waiters.measured_run(TASKS)).count_total as f64 / TASKS as f64
    });
    println!("{:+} allocations a waiter", waiting - ready);
    assert!(waiting - ready < 0.1);
}

/// Tasks are as large as their futures: memory for each request under way.
#[test]
fn the_future_is_small() {
    let runtime = background();
    let _guard = runtime.enter();
    let mut inner = Inner { yields: 0 };
    let bare = size_of_val(&inner.call(Kind::P8.request()));
    let wrapped = size_of_val(&ours(&runtime, inner, Replay::default()).call(Kind::P8.request()));
    println!("the future has {} bytes more than the inner one", wrapped - bare);
    assert!(wrapped - bare <= 400);
}
