//! Instructions a request, counted by callgrind: the same on every run, whatever else the machine does. Those outside of
//! malloc are the same from one version of the code to the next too, where nothing was changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use support::callgrind::{count, count_waiter, missing, run_if_asked};
use support::cases::{
    BARE, FLOOR, LIMIT, LIMIT_REPLAY, NAIVE, NAIVE_RETRY, NEVER, ONESHOT_FLOOR, ONESHOT_NEVER, ONESHOT_REPLAY,
    PER_TENANT, REPLAY,
};
use support::figures::Figures;
use support::requests::{KINDS, SHAPES};

fn main() {
    if run_if_asked() {
        return;
    }
    if let Some(why) = missing() {
        println!("{why}");
        return;
    }
    let mut figures = Figures::of("instructions");
    for kind in KINDS.into_iter().chain(SHAPES) {
        let floor = count(kind, FLOOR);
        figures.put(format!("{} {FLOOR}", kind.name()), floor.all);
        for name in [
            BARE,
            LIMIT,
            LIMIT_REPLAY,
            NEVER,
            REPLAY,
            PER_TENANT,
            NAIVE,
            NAIVE_RETRY,
            ONESHOT_FLOOR,
            ONESHOT_NEVER,
            ONESHOT_REPLAY,
        ] {
            let counted = count(kind, name);
            figures.put(format!("{} {name}", kind.name()), counted.all);
            println!("{:60} {:+12.2}", "   over FLOOR", counted.all - floor.all);
            let outside = counted.outside_malloc - floor.outside_malloc;
            figures.put(format!("{} {name}, outside of malloc, over FLOOR", kind.name()), outside);
        }
    }
    figures.put("a waiter over a ready token", count_waiter());
}
