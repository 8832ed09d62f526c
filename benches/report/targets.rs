//! The targets, each with its figure and whether it is reached.

use std::fmt::Write as _;

use crate::read::{Figures, number};
use crate::tables::{instructions, plural, revoked, two_threads};

pub(crate) fn targets(figures: &Figures) -> String {
    let mut rows = Rows("| what | target | measured | reached |\n|---|---|---|---|\n".to_owned());
    for (stack, name, ns, with_lto, counts, allocations) in [
        ("ours, Replay::Never", "`Never`", [25.0, 35.0, 80.0], [15.0, 15.0, 60.0], [350.0, 350.0, 550.0], [0.0; 3]),
        ("ours", "all on", [75.0, 130.0, 340.0], [55.0, 105.0, 310.0], [950.0, 1550.0, 2400.0], [1.0, 2.0, 4.0]),
    ] {
        for (at, kind) in ["P3", "P8", "P12"].into_iter().enumerate() {
            let of = |bench: &str| figures.get(&format!("{bench}/{kind} {stack}, over FLOOR"));
            rows.at_most(&format!("{name}, {kind}: ns"), of("paired"), ns[at]);
            rows.at_most(&format!("{name}, {kind}: ns with LTO"), of("paired_lto"), with_lto[at]);
            rows.at_most(&format!("{name}, {kind}: instructions"), instructions(figures, "", kind, stack), counts[at]);
            let lto = instructions(figures, "_lto", kind, stack);
            rows.at_most(&format!("{name}, {kind}: instructions with LTO"), lto, counts[at]);
            // A timer now and then allocates.
            let counted = of("allocations").round();
            rows.at_most(&format!("{name}, {kind}: allocations"), counted, allocations[at]);
        }
    }
    for (kind, what, ns, counts) in [
        ("P8+tenant", "tenant in the extensions", [50.0, 140.0], [550.0, 1800.0]),
        ("P8+Host", "matching `Host`", [f64::NAN, f64::NAN], [400.0, f64::NAN]),
        ("P8+pending", "answer with six headers, pending once", [30.0, f64::NAN], [400.0, f64::NAN]),
    ] {
        for (at, (stack, name)) in [("ours, Replay::Never", "`Never`"), ("ours", "all on")].into_iter().enumerate() {
            let over = figures.get(&format!("paired_lto/{kind} {stack}, over FLOOR"));
            rows.at_most(&format!("{what}, {name}: ns with LTO"), over, ns[at]);
            let counted = instructions(figures, "", kind, stack);
            rows.at_most(&format!("{what}, {name}: instructions"), counted, counts[at]);
        }
    }
    for (stack, name, ns) in [("ours, Replay::Never", "`Never`", 0.0), ("ours", "all on", 60.0)] {
        let over = figures.get(&format!("paired_lto/P8 oneshot: {stack}, over FLOOR"));
        rows.at_most(&format!("a clone for each request, P8, {name}: ns with LTO"), over, ns);
    }
    let size = figures.get("allocations/future: bytes over the inner one");
    rows.at_most("future: bytes over the inner one", size, 168.0);
    for kind in ["P3", "P8"] {
        let kept = two_threads(figures, kind, "ours") / two_threads(figures, kind, "FLOOR");
        rows.at_most(&format!("1 → 2 threads, {kind}, a clone each: over FLOOR's ratio"), kept, 1.02);
        let fresh = two_threads(figures, kind, "oneshot: ours") / two_threads(figures, kind, "oneshot: FLOOR");
        rows.at_most(&format!("1 → 2 threads, {kind}, a clone a request: over FLOOR's ratio"), fresh, 1.05);
    }
    for (stack, name, target) in [("ours, Replay::Never", "`Never`", 450.0), ("ours", "all on", 1700.0)] {
        let counted = figures.get(&format!("end_to_end/h1 {stack}, instructions over FLOOR"));
        rows.at_most(&format!("HTTP/1 from end to end, {name}: instructions over FLOOR"), counted, target);
    }
    for workers in [1, 2] {
        let of = |what: &str| figures.get(&format!("storm/{what}"));
        let name = format!("10000 waiters, {workers} workers");
        let ours = of(&format!("{name}: µs of CPU a waiter over a ready token"));
        let bare = of(&format!("FLOOR behind a shared future, {name}: µs of CPU a waiter over one without waiting"));
        let name = format!("storm, {}: CPU over FLOOR behind a shared future", plural(workers));
        rows.at_most(&name, ours / bare, 1.1);
    }
    let waiter = figures.get("allocations/allocations a waiter over a ready token");
    rows.at_most("storm: allocations a waiter", waiter.round(), 1.0);
    for kind in ["P3", "P8"] {
        let times = figures.get(&format!("tenants/{kind} any of a million tenants, times one tenant"));
        rows.at_most(&format!("any of a million tenants, {kind}: times one tenant"), times, 3.0);
    }
    let by_hand = figures.get("paired_lto/reqwest: two headers set by hand, over bare");
    for (stack, name, ns) in [("ours, Replay::Never", "`Never`", 100.0), ("ours", "all on", 430.0)] {
        let over = figures.get(&format!("paired_lto/reqwest: {stack}, over bare")) - by_hand;
        rows.at_most(&format!("reqwest, {name}: ns over two headers by hand, with LTO"), over, ns);
    }
    for tasks in ["64", "1000"] {
        let of = |stack: &str, what: &str| revoked(figures, tasks, stack, what);
        let name = format!("a revocation every 100 ms, {tasks} tasks");
        let asked = of("ours", "token requests") - of("ours", "lives of a token");
        rows.at_most(&format!("{name}: token requests over tokens issued"), asked, 0.0);
        let times = of("naive", "ns a request") / of("ours", "ns a request");
        rows.at_least(&format!("{name}: times the mutex layer's throughput"), times, 4.0);
        // One token request takes 5 ms.
        let most = 5.0 + 1.5 * of("FLOOR", "p99 in µs") / 1_000.0;
        rows.at_most(&format!("{name}: p99 in ms"), of("ours", "p99 in µs") / 1_000.0, most);
    }
    rows.0
}

struct Rows(String);

impl Rows {
    /// `NaN`: without a target.
    fn at_most(&mut self, what: &str, value: f64, target: f64) {
        let reached = if value <= target { "yes".to_owned() } else { format!("no, by {}", number(value - target)) };
        self.row(what, "≤", target, value, &reached);
    }

    fn at_least(&mut self, what: &str, value: f64, target: f64) {
        let reached = if value >= target { "yes".to_owned() } else { format!("no, by {}", number(target - value)) };
        self.row(what, "≥", target, value, &reached);
    }

    fn row(&mut self, what: &str, bound: &str, target: f64, value: f64, reached: &str) {
        let reached = if value.is_nan() { "not run" } else { reached };
        if !target.is_nan() {
            let _ = writeln!(self.0, "| {what} | {bound} {} | {} | {reached} |", number(target), number(value));
        }
    }
}
