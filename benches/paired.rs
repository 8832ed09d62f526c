//! Time a request through each stack, the stacks interleaved: the figures of RESULTS.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use support::cases::{FLOOR, cases};
use support::figures::Figures;
use support::ours::background;
use support::paired::time;
use support::requests::{KINDS, SHAPES};
use support::reqwests;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 31 } else { 301 };
    let runtime = background();
    let _guard = runtime.enter();
    let mut figures = Figures::of("paired");
    for kind in KINDS.into_iter().chain(SHAPES) {
        let timings = time(&mut cases(&runtime, kind), rounds);
        for timing in &timings {
            let prefix = if timing.name.starts_with("oneshot") { "oneshot: FLOOR" } else { FLOOR };
            let floor = timings.iter().find(|timing| timing.name == prefix).expect("the floor is there");
            figures.put(format!("{} {}", kind.name(), timing.name), timing.median);
            figures.put(format!("{} {}, over FLOOR", kind.name(), timing.name), timing.over(floor));
            figures.put(format!("{} {}, lowest decile", kind.name(), timing.name), timing.lowest_decile);
            let over = timing.lowest_decile_over(floor);
            figures.put(format!("{} {}, lowest decile over FLOOR", kind.name(), timing.name), over);
        }
    }
    let timings = time(&mut reqwests::cases(&runtime), rounds);
    for timing in &timings {
        let bare = timings.first().expect("the bare service is there");
        figures.put(timing.name, timing.median);
        figures.put(format!("{}, over bare", timing.name), timing.over(bare));
        figures.put(format!("{}, lowest decile", timing.name), timing.lowest_decile);
        figures.put(format!("{}, lowest decile over bare", timing.name), timing.lowest_decile_over(bare));
    }
}
