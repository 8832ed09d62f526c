//! What a day brought: token requests by the second, and what is promised of them.

use std::ops::Range;

use crate::fleet::Scenario;

pub(crate) const HOUR: usize = 3600;
pub(crate) const DAY: usize = 24 * HOUR;
/// When the authorization server is away.
pub(crate) const OUTAGE: Range<usize> = 12 * HOUR..12 * HOUR + 20 * 60;
/// What is reported apart: until the longest pause after a failure (a minute) is over everywhere.
const RECOVERY: Range<usize> = OUTAGE.end..OUTAGE.end + 3 * 60;
/// "From the second hour".
const STEADY_FROM: usize = HOUR;
/// How far the rate of a minute may be above the mean one: restarts and the outage leave waves that jitter levels in hours.
const WAVE: f64 = 1.75;
/// How many standard deviations the fullest of a day's minutes may be above its rate by chance: in a small fleet, most of it.
const CHANCE: f64 = 5.0;

/// Token requests of one day, by the second.
pub(crate) struct Day {
    pub(crate) scenario: Scenario,
    pub(crate) answered: Vec<u32>,
    pub(crate) failed: Vec<u32>,
    /// Both.
    pub(crate) all: u32,
}

impl Day {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self { scenario, answered: vec![0; DAY], failed: vec![0; DAY], all: 0 }
    }

    /// Requests in each minute of steady life: neither the start, nor the outage, nor the recovery from it.
    fn steady(&self) -> impl Iterator<Item = u32> {
        let minutes = (STEADY_FROM / 60..DAY / 60).filter(|minute| {
            let second = minute * 60;
            !OUTAGE.contains(&second) && !RECOVERY.contains(&second)
        });
        minutes.map(|minute| self.answered[minute * 60..(minute + 1) * 60].iter().sum())
    }

    pub(crate) fn mean(&self) -> f64 {
        f64::from(self.steady().sum::<u32>()) / self.steady().count() as f64
    }

    pub(crate) fn peak(&self) -> u32 {
        self.steady().max().unwrap_or(0)
    }

    /// `None`: too few for a ratio to mean anything.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.mean() >= 1.0).then(|| f64::from(self.peak()) / self.mean())
    }

    pub(crate) fn peak_at_start(&self) -> u32 {
        self.answered[..STEADY_FROM].iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn failed_a_minute(&self) -> f64 {
        f64::from(self.failed.iter().sum::<u32>()) * 60.0 / OUTAGE.len() as f64
    }

    pub(crate) fn peak_at_recovery(&self) -> u32 {
        self.answered[RECOVERY].iter().copied().max().unwrap_or(0)
    }

    /// The most requests that a minute may have. Each process draws for itself, so that a minute with a rate of `n` has `n` give
    /// or take its root.
    fn most_allowed(&self) -> f64 {
        let rate = WAVE * self.mean();
        // The distribution of a small number is not quite symmetrical: one more for each standard deviation.
        rate + CHANCE * rate.sqrt() + CHANCE
    }

    /// What the crate promises of such a day and this one did not keep.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.ratio().is_some() && self.scenario.jitter && f64::from(self.peak()) > self.most_allowed() {
            let (peak, most) = (self.peak(), self.most_allowed());
            broken
                .push(format!("{}: {peak} token requests in the fullest minute, and {most:.0} at most", self.scenario));
        }
        // A token of an hour is renewed after 39 to 48 minutes: 37 a day at most, the outage's included.
        if self.scenario.store && self.answered.iter().sum::<u32>() > 38 {
            broken.push(format!("{}: more than one token request for each expiry", self.scenario));
        }
        broken
    }
}
