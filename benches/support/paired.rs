//! Times cases against each other: all of them in each round, in rotating order, so that a busy machine hurts all alike.

use std::time::{Duration, Instant};

use super::cases::Case;

/// Nanoseconds a request: of each case its median and its lowest decile, which other work of the machine hardly moves.
pub(crate) struct Timing {
    pub(crate) name: &'static str,
    pub(crate) median: f64,
    pub(crate) lowest_decile: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    rounds: Vec<f64>,
}

impl Timing {
    /// The median over the rounds of what this case took more than `other`.
    pub(crate) fn over(&self, other: &Timing) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a - b).collect())
    }

    /// Of the lowest deciles: the lowest decile of the differences would be that of rounds in which `other` was disturbed.
    pub(crate) fn lowest_decile_over(&self, other: &Timing) -> f64 {
        self.lowest_decile - other.lowest_decile
    }
}

/// A tenth of the rounds took less.
fn lowest_decile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 10).copied().unwrap_or(f64::NAN)
}

const SLICE: Duration = Duration::from_millis(1);

pub(crate) fn time(cases: &mut [Case], rounds: usize) -> Vec<Timing> {
    let start = Instant::now();
    time_with(cases, rounds, SLICE, || start.elapsed())
}

/// By another clock, in slices of such a length.
pub(crate) fn time_with(cases: &mut [Case], rounds: usize, slice: Duration, now: impl Fn() -> Duration) -> Vec<Timing> {
    let slices: Vec<u64> = cases.iter_mut().map(|case| calibrate(case, slice, &now)).collect();
    let mut taken = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..rounds {
        for step in 0..cases.len() {
            let at = (round + step) % cases.len();
            cases[at].run(slices[at] / 8 + 1);
            let start = now();
            cases[at].run(slices[at]);
            taken[at].push((now() - start).as_nanos() as f64 / slices[at] as f64);
        }
    }
    cases.iter().zip(taken).map(|(case, rounds)| timing(case.name, rounds)).collect()
}

fn calibrate(case: &mut Case, slice: Duration, now: impl Fn() -> Duration) -> u64 {
    case.run(1000);
    let start = now();
    case.run(1000);
    let each = (now() - start) / 1000;
    (slice.as_nanos() / each.as_nanos().max(1)).max(1) as u64
}

fn timing(name: &'static str, rounds: Vec<f64>) -> Timing {
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.iter().copied().fold(0.0, f64::max);
    let (median, lowest_decile) = (median(rounds.clone()), lowest_decile(rounds.clone()));
    Timing { name, median, lowest_decile, least, most, rounds }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
