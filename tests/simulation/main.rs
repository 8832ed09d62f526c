//! Whole layers in one process on paused time, every source of chance seeded, against servers, stores and clocks that fail.
//!
//! A seed makes a plan: processes that share a store, a server that rotates refresh tokens and detects reuse, an API that
//! revokes, and some hundred actions. After each run the invariants of `check.rs` must hold. A seed that fails prints itself,
//! is run again, and is shrunk to the shortest plan that still fails.
//!
//! `SIMULATE_SEEDS` says how many seeds are run, `SIMULATE_SECONDS` for how long at most, `SIMULATE_BASE` with which seed it
//! begins, `SIMULATE_TRACE` prints what one seed does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the report")]

mod books;
mod check;
mod clock;
mod plan;
mod run;
mod server;
mod store;

use std::env;
use std::time::{Duration, Instant};

use books::{FAULTS, STATES, Visits};
use plan::Plan;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn every_seed_keeps_the_promises() {
    let base = number("SIMULATE_BASE").unwrap_or(1);
    let seeds = number("SIMULATE_SEEDS");
    let seconds = number("SIMULATE_SECONDS").map(Duration::from_secs);
    // `cargo test` without any of them: a debug build has no time for more.
    let most = seeds.unwrap_or(if seconds.is_some() { u64::MAX } else { 12 });
    let began = Instant::now();
    let mut visits = Visits::default();
    let (mut done, mut requests) = (0, 0);
    for seed in base..base.saturating_add(most) {
        if seconds.is_some_and(|seconds| began.elapsed() >= seconds) {
            break;
        }
        let plan = Plan::of(seed);
        let report = run::run(&plan);
        visits.add(&report.visits);
        requests += report.requests;
        done += 1;
        if let Some(violation) = report.violation {
            eprintln!("after {done} seeds from {base}: seed {seed} fails: {violation}");
            let again = run::run(&plan).violation;
            eprintln!("once more: {}", again.as_deref().unwrap_or("it does not fail again"));
            if env::var_os("SIMULATE_UNSHRUNK").is_some() {
                panic!("seed {seed}: {violation}");
            }
            let short = plan.shrink(&violation);
            let (enough, all) = (short.actions.len(), plan.actions.len());
            let violation_of_short = run::run(&short).violation.unwrap_or_default();
            eprintln!("{enough} of {all} actions are enough ({violation_of_short}):\n{short}");
            panic!("seed {seed}: {violation}");
        }
    }
    let took = began.elapsed();
    let rate = done as f64 / took.as_secs_f64();
    println!("{done} seeds from {base}, {requests} requests, in {:.1} s: {rate:.0} seeds/s", took.as_secs_f64());
    print!("{}", visits.table());
    println!("{} of {} cells were visited less than 100 times", visits.rare(), FAULTS.len() * STATES.len());
}

/// The same seed does the same, step by step: otherwise a failing one could not be looked at.
#[test]
fn a_seed_is_reproducible() {
    for seed in 1..4 {
        let plan = Plan::of(seed);
        let (one, other) = (run::run(&plan), run::run(&plan));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}
