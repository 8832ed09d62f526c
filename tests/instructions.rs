//! Instructions a request, counted by callgrind and held against the floor: a guard where there is valgrind and the
//! build is optimised.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/support/mod.rs"]
mod support;

use support::callgrind::{count, count_waiter, missing, run_if_asked};
use support::cases::{FLOOR, NEVER, ONESHOT_FLOOR, ONESHOT_NEVER, PER_TENANT, REPLAY};
use support::requests::Kind::{P3, P8, P12};

/// What is allowed over the floor, outside of malloc: 6 % more than was measured with rustc 1.95. The counts are the same on
/// every run of one binary, but another compiler inlines differently.
const LIMITS: [(support::requests::Kind, &str, &str, f64); 8] = [
    (P3, NEVER, FLOOR, 656.0),
    (P8, NEVER, FLOOR, 760.0),
    (P12, NEVER, FLOOR, 1034.0),
    (P3, REPLAY, FLOOR, 1330.0),
    (P8, REPLAY, FLOOR, 2065.0),
    (P12, REPLAY, FLOOR, 3342.0),
    (P8, PER_TENANT, FLOOR, 1799.0),
    (P8, ONESHOT_NEVER, ONESHOT_FLOOR, 801.0),
];
const WAITER_LIMIT: f64 = 2889.0;

fn main() {
    if run_if_asked() {
        return;
    }
    if let Some(why) = missing() {
        println!("instructions: {why}");
        return;
    }
    for (kind, name, floor, limit) in LIMITS {
        let over = count(kind, name).outside_malloc - count(kind, floor).outside_malloc;
        println!("instructions: {} {name}: {over:+.0} over {floor}, at most {limit}", kind.name());
        assert!(over <= limit);
    }
    let waiter = count_waiter();
    println!("instructions: a waiter: {waiter:+.0} over a ready token, at most {WAITER_LIMIT}");
    assert!(waiter <= WAITER_LIMIT);
}
