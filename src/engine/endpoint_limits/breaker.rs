//! The breaker: whether something that partitions share is taken to be down. Knows neither time nor tasks.

use std::time::{Duration, Instant};

use super::Attempt;
use crate::types::TokenError;

/// Failures of so many different partitions, with no success between, mean that it is not the partition.
const DIFFERENT: usize = 3;

/// Counts failures of different partitions. After three with no success between, requests are answered with the last error,
/// except for one probe at a time, after the pause of a failure; the first success ends it.
///
/// Partitions that never had a token may be invented, and a server that stumbles over them is not down: their failures
/// stop only others that never had one. Those that had one are stopped by three of their own.
#[derive(Debug)]
pub(super) struct Breaker {
    /// After so long a probe is given up: its task is on a runtime that nobody drives.
    longest: Duration,
    /// Whose requests failed since the last success; three are enough.
    failed: Vec<u64>,
    /// Those of them that had a token before.
    known_failed: Vec<u64>,
    /// No request before that moment: the longest of the pauses that the server asked for.
    not_before: Option<Instant>,
    down: Option<Down>,
    probes: u64,
}

#[derive(Debug)]
struct Down {
    error: TokenError,
    until: Instant,
    in_a_row: u32,
    probe: Option<(Probe, Instant)>,
}

/// A request that finds out whether it is down still, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe(u64);

impl Breaker {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, failed: Vec::new(), known_failed: Vec::new(), not_before: None, down: None, probes: 0 }
    }

    /// The remembered error and how long until the next probe, if this request may not be sent.
    pub(super) fn refusal(&self, attempt: Attempt, now: Instant) -> Option<(&TokenError, Duration)> {
        let down = self.down_for(attempt)?;
        let pause = down.until.saturating_duration_since(now);
        (!pause.is_zero() || down.is_probed(self.longest, now)).then_some((&down.error, pause))
    }

    /// To be called when a request is sent that is not refused: it may be the probe.
    pub(super) fn sent(&mut self, attempt: Attempt, now: Instant) -> Option<Probe> {
        self.down_for(attempt)?;
        self.probes = self.probes.wrapping_add(1);
        let probe = Probe(self.probes);
        self.down.as_mut()?.probe = Some((probe, now));
        Some(probe)
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self { probes: self.probes, ..Self::new(self.longest) };
    }

    /// `pause` says how long nobody asks after so many failures in a row.
    pub(super) fn failed(
        &mut self,
        attempt: Attempt,
        probe: Option<Probe>,
        error: TokenError,
        now: Instant,
        pause: impl FnOnce(u32) -> Duration,
    ) {
        note(&mut self.failed, attempt.origin);
        if !attempt.first {
            note(&mut self.known_failed, attempt.origin);
        }
        let in_a_row = self.down.as_ref().map_or(0, |down| down.in_a_row);
        let asked_for = error.retry_after().is_some();
        let until = now.checked_add(pause(in_a_row)).unwrap_or(now);
        if asked_for {
            self.not_before = self.not_before.max(Some(until));
        }
        match &mut self.down {
            // One that was on its way before says nothing new, unless the server asks for a longer pause.
            Some(down) if !down.is_probe(probe) => down.until = down.until.max(self.not_before.unwrap_or(down.until)),
            None if self.failed.len() < DIFFERENT => {}
            _ => {
                let until = until.max(self.not_before.unwrap_or(until));
                self.down = Some(Down { error, until, in_a_row: in_a_row.saturating_add(1), probe: None });
            }
        }
    }

    /// The request ended without a word on whether it is down. `pause`: how long until another probe.
    pub(super) fn nothing_learned(&mut self, probe: Option<Probe>, now: Instant, pause: impl FnOnce(u32) -> Duration) {
        if let Some(down) = &mut self.down
            && down.is_probe(probe)
        {
            down.probe = None;
            down.until = down.until.max(now.checked_add(pause(down.in_a_row)).unwrap_or(now));
        }
    }

    /// Ends the pause, not the caution: the next request is a probe.
    pub(super) fn probe_now(&mut self, now: Instant) {
        self.not_before = None;
        if let Some(down) = &mut self.down {
            down.until = down.until.min(now);
        }
    }

    /// Nothing is remembered.
    pub(super) fn is_idle(&self) -> bool {
        self.failed.is_empty() && self.down.is_none()
    }

    fn down_for(&self, attempt: Attempt) -> Option<&Down> {
        self.down.as_ref().filter(|_| attempt.first || self.known_failed.len() >= DIFFERENT)
    }
}

impl Down {
    fn is_probe(&self, probe: Option<Probe>) -> bool {
        probe.is_some() && self.probe.map(|(probe, _)| probe) == probe
    }

    fn is_probed(&self, longest: Duration, now: Instant) -> bool {
        self.probe.is_some_and(|(_, since)| now.saturating_duration_since(since) <= longest)
    }
}

fn note(failed: &mut Vec<u64>, origin: u64) {
    if failed.len() < DIFFERENT && !failed.contains(&origin) {
        failed.push(origin);
    }
}

#[cfg(test)]
mod tests;
