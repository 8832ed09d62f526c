//! Instructions a request, counted by callgrind and held against the floor: a guard where there is valgrind and the
//! build is optimised.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/support/mod.rs"]
mod support;

use support::callgrind::{count, count_waiter, missing, run_if_asked};
use support::cases::{
    FLOOR, LIMIT, LIMIT_REPLAY, NEVER, ONESHOT_FLOOR, ONESHOT_NEVER, ONESHOT_REPLAY, PER_TENANT, REPLAY,
};
use support::requests::Kind::{P3, P8, P8Answer, P8Host, P8Pending, P8Tenant, P12};

/// What is allowed over the floor, outside of malloc: 6 % more than was measured with rustc 1.95. The counts are the same on
/// every run of one binary; another compiler inlines differently, and another build places functions differently (1 to 3 %).
const LIMITS: [(support::requests::Kind, &str, &str, f64); 16] = [
    (P3, NEVER, FLOOR, 612.0),
    (P8, NEVER, FLOOR, 711.0),
    (P12, NEVER, FLOOR, 986.0),
    (P3, REPLAY, FLOOR, 1326.0),
    (P8, REPLAY, FLOOR, 2059.0),
    (P12, REPLAY, FLOOR, 3134.0),
    (P8, PER_TENANT, FLOOR, 1724.0),
    (P8, ONESHOT_NEVER, ONESHOT_FLOOR, 764.0),
    (P8, ONESHOT_REPLAY, ONESHOT_FLOOR, 2112.0),
    (P8Tenant, NEVER, FLOOR, 907.0),
    (P8Tenant, REPLAY, FLOOR, 2429.0),
    (P8Host, NEVER, FLOOR, 1038.0),
    (P8Answer, NEVER, FLOOR, 815.0),
    (P8Answer, REPLAY, FLOOR, 2139.0),
    (P8Pending, NEVER, FLOOR, 891.0),
    (P8Pending, REPLAY, FLOOR, 2234.0),
];
/// 500 of them are its span, its place among those who are counted, and the time that it waited (feature `metrics`).
const WAITER_LIMIT: f64 = 3742.0;

fn main() {
    if run_if_asked() {
        return;
    }
    if let Some(why) = missing() {
        println!("instructions: {why}");
        return;
    }
    for kind in [P3, P8, P12, P8Host, P8Answer, P8Pending] {
        let floor = count(kind, FLOOR).outside_malloc;
        for name in [LIMIT, LIMIT_REPLAY] {
            let over = count(kind, name).outside_malloc - floor;
            println!("instructions: {} {name}: {over:+.0} over {FLOOR}", kind.name());
        }
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
