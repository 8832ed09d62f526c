//! Allocations a request, counted and held against the floor: a guard, since a count is the same on every machine.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/support/mod.rs"]
mod support;

use allocation_counter::measure;
use support::baselines::{Inner, access_token};
use support::cases::{Case, FLOOR, NEVER, ONESHOT_FLOOR, ONESHOT_NEVER, ONESHOT_REPLAY, PER_TENANT, REPLAY, cases};
use support::ours::{background, layer_per_tenant, ours};
use support::requests::{KINDS, Kind};
use support::waiters::Waiters;
use tower::{Layer, Service};
use tower_oauth2_client::{Replay, TenantId};

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
fn waiting_for_a_token_is_one_allocation() {
    const TASKS: u64 = 2_000;
    let [waiting, ready] = [true, false].map(|wait| {
        let waiters = Waiters::new(wait);
        measure(|| waiters.measured_run(TASKS)).count_total as f64 / TASKS as f64
    });
    println!("{:+} allocations a waiter", waiting - ready);
    assert!(waiting - ready < 1.1);
}

#[test]
fn a_token_for_each_tenant_allocates_nothing_either() {
    for kind in KINDS {
        assert_at_most(kind, PER_TENANT, 0.0);
    }
}

/// A cell, its state, its place in the table, and what is known of its token; not the token's own text.
#[test]
fn an_idle_tenant_takes_at_most_512_bytes_and_its_token() {
    const TENANTS: usize = 10_000;
    // What other threads allocate is not counted, so the token requests run on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let layer = layer_per_tenant(TENANTS);
    let mut service = layer.clone().layer(Inner::new(0));
    let ids: Vec<TenantId> = (0..TENANTS).map(|number| TenantId::new(format!("{number:036}")).unwrap()).collect();
    let text = format!("Bearer {}", access_token()).len();
    let taken = measure(|| {
        for id in &ids {
            let mut request = Kind::P3.request();
            request.extensions_mut().insert(id.clone());
            runtime.block_on(async { service.call(request).await }).unwrap();
        }
    });
    let each = taken.bytes_current as f64 / TENANTS as f64 - text as f64;
    println!("an idle tenant takes {each:.0} bytes, and {text} for its token");
    assert_eq!(layer.handle().stats().token_requests, TENANTS as u64);
    assert!(each <= 512.0);
}

/// Tasks are as large as their futures: memory for each request under way.
#[test]
fn the_future_is_small() {
    let runtime = background();
    let _guard = runtime.enter();
    let mut inner = Inner::new(0);
    let bare = size_of_val(&inner.call(Kind::P8.request()));
    let wrapped = size_of_val(&ours(&runtime, inner, Replay::default()).call(Kind::P8.request()));
    println!("the future has {} bytes more than the inner one", wrapped - bare);
    assert!(wrapped - bare <= 168);
}
