//! The three plots.

use crate::plot::{Bar, Series, bars, groups};
use crate::read::Figures;
use crate::tables::plural;

/// Ours, what people write, and the peers.
pub(crate) fn overhead(figures: &Figures) -> String {
    let ours = [
        ("two static headers (FLOOR)", "FLOOR", false),
        ("this crate, Replay::Never", "ours, Replay::Never", true),
        ("this crate, everything on", "ours", true),
        ("mutex layer, no retry", "naive, no retry", false),
        ("mutex layer, retry", "naive", false),
    ];
    // Of the peers' own run, so that all bars are of one program.
    let mut all: Vec<Bar> = ours
        .into_iter()
        .map(|(name, stack, is_ours)| {
            let with_peers = figures.get(&format!("peers/here: P8 {stack}, over bare"));
            let alone =
                figures.get(&format!("paired/P8 {stack}, over FLOOR")) - figures.get("paired/P8 bare, over FLOOR");
            let value = if with_peers.is_nan() { alone } else { with_peers };
            Bar { name: name.to_owned(), value, is_ours }
        })
        .collect();
    let peers = figures.of("peers").iter().filter(|(name, _)| !name.starts_with("here: "));
    all.extend(peers.filter_map(|(name, value)| {
        Some(Bar { name: name.strip_suffix(", over bare")?.to_owned(), value: *value, is_ours: false })
    }));
    all.retain(|bar| bar.value.is_finite());
    all.sort_by(|a, b| a.value.total_cmp(&b.value));
    bars("What a layer adds to a POST with 8 headers and a body, ns (median)", &all)
}

pub(crate) fn throughput(figures: &Figures) -> String {
    let series = [("two static headers (FLOOR)", "FLOOR"), ("this crate", "ours"), ("mutex layer", "naive")];
    let series = series.map(|(name, stack)| {
        let points =
            [(1, 64), (2, 64), (4, 64), (1, 1000), (2, 1000), (4, 1000), (1, 10_000), (2, 10_000), (4, 10_000)];
        let points = points.map(|(workers, tasks)| {
            let name = format!("contention/P8 {stack}, {workers} workers, {tasks} tasks: ns a request");
            (format!("{workers} × {tasks}"), 1e3 / figures.get(&name))
        });
        Series { name: name.to_owned(), points: points.to_vec() }
    });
    groups("Million requests a second, by worker threads × tasks (higher is better)", &series)
}

pub(crate) fn storm(figures: &Figures) -> String {
    let mut all = Vec::new();
    for workers in [1, 2] {
        for (name, key, is_ours) in
            [("this crate", "", true), ("FLOOR behind a shared future", "FLOOR behind a shared future, ", false)]
        {
            let value = figures.get(&format!("storm/{key}10000 waiters, {workers} workers: ms from release to last"));
            all.push(Bar { name: format!("{name}, {}", plural(workers)), value, is_ours });
        }
    }
    all.retain(|bar| bar.value.is_finite());
    bars("10 000 requests wait for one token: ms from its arrival to the last answer", &all)
}
