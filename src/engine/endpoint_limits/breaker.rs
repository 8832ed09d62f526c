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
mod tests {
    use super::*;
    use crate::types::TokenErrorKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn known(origin: u64) -> Attempt {
        Attempt { origin, first: false, slow: false, credentials: None }
    }

    fn first(origin: u64) -> Attempt {
        Attempt { origin, first: true, slow: false, credentials: None }
    }

    fn down() -> TokenError {
        TokenError::new(TokenErrorKind::Unavailable)
    }

    /// A breaker whose pause is a second, two, three...
    struct World {
        breaker: Breaker,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { breaker: Breaker::new(30 * SECOND), now: Instant::now() }
        }

        fn may_go(&self, attempt: Attempt) -> bool {
            self.breaker.refusal(attempt, self.now).is_none()
        }

        fn pause_told(&self, attempt: Attempt) -> Option<Duration> {
            self.breaker.refusal(attempt, self.now).map(|(_, pause)| pause)
        }

        fn send(&mut self, attempt: Attempt) -> Option<Probe> {
            assert!(self.may_go(attempt));
            self.breaker.sent(attempt, self.now)
        }

        fn fail(&mut self, attempt: Attempt, probe: Option<Probe>) {
            self.fail_with(attempt, probe, down());
        }

        fn fail_with(&mut self, attempt: Attempt, probe: Option<Probe>, error: TokenError) {
            let told = error.retry_after();
            self.breaker.failed(attempt, probe, error, self.now, |in_a_row| told.unwrap_or(SECOND * (in_a_row + 1)));
        }

        fn go_down(&mut self) {
            (1..=3).for_each(|n| self.fail(known(n), None));
        }
    }

    /// Behaviour 138 (three different partitions).
    #[test]
    fn three_different_partitions_with_no_success_between() {
        let mut world = World::new();
        (0..100).for_each(|_| world.fail(known(1), None));
        assert!(world.may_go(known(1)) && world.may_go(first(2)), "one that fails alone touches no other");
        world.fail(known(2), None);
        world.breaker.succeeded();
        assert!(world.breaker.is_idle());
        world.fail(known(1), None);
        world.fail(known(3), None);
        assert!(world.may_go(known(4)), "two since the last success");
        world.fail(known(4), None);
        assert_eq!(world.pause_told(known(5)), Some(SECOND));
    }

    /// Behaviour 138 (one probe at a time).
    #[test]
    fn one_probe_at_a_time_with_a_growing_pause_until_one_succeeds() {
        let mut world = World::new();
        world.go_down();
        for round in 1..10 {
            world.now += SECOND * round - SECOND / 1000;
            assert!(!world.may_go(known(1)));
            world.now += SECOND / 1000;
            let probe = world.send(known(7));
            assert!(probe.is_some() && !world.may_go(known(8)), "one at a time");
            world.fail(known(7), probe);
            assert_eq!(world.pause_told(known(7)), Some(SECOND * (round + 1)));
        }
        world.now += 10 * SECOND;
        assert!(world.send(known(9)).is_some());
        world.breaker.succeeded();
        assert!(world.send(known(1)).is_none() && world.may_go(known(2)));
    }

    #[test]
    fn whoever_was_on_the_way_before_does_not_lengthen_the_pause() {
        let mut world = World::new();
        world.go_down();
        (10..100).for_each(|n| world.fail(known(n), None));
        assert_eq!(world.pause_told(known(5)), Some(SECOND));
        // Nor does a probe from before the last success.
        world.now += SECOND;
        let old = world.send(known(1));
        world.breaker.succeeded();
        world.go_down();
        world.fail(known(1), old);
        assert_eq!(world.pause_told(known(5)), Some(SECOND));
        world.now += SECOND;
        let probe = world.send(known(2));
        world.fail(known(1), old);
        assert!(!world.may_go(known(3)), "the probe is out still");
        world.fail(known(2), probe);
        assert_eq!(world.pause_told(known(5)), Some(2 * SECOND));
    }

    /// Behaviour 138 (`Retry-After`).
    #[test]
    fn the_longest_pause_that_the_server_asks_for_counts() {
        let mut world = World::new();
        let asks = |pause| down().with_retry_after(pause);
        world.fail_with(known(1), None, asks(60 * SECOND));
        world.fail(known(2), None);
        world.fail(known(3), None);
        assert_eq!(world.pause_told(known(4)), Some(60 * SECOND));
        world.fail_with(known(5), None, asks(90 * SECOND));
        assert_eq!(world.pause_told(known(4)), Some(90 * SECOND));
        world.breaker.probe_now(world.now);
        let probe = world.send(known(4));
        world.fail(known(4), probe);
        assert_eq!(world.pause_told(known(4)), Some(2 * SECOND));
    }

    #[test]
    fn invented_tenants_stop_only_their_like() {
        let mut world = World::new();
        (1..50).for_each(|n| world.fail(first(n), None));
        assert!(!world.may_go(first(60)) && world.may_go(known(60)));
        assert!(world.send(known(60)).is_none());
        world.fail(known(60), None);
        world.fail(known(61), None);
        assert!(world.may_go(known(62)));
        world.fail(known(62), None);
        assert!(!world.may_go(known(62)), "that makes three of those that had a token");
    }

    #[test]
    fn a_probe_that_says_nothing_or_never_ends_makes_room_for_another() {
        let mut world = World::new();
        world.go_down();
        world.now += SECOND;
        let probe = world.send(known(1));
        world.breaker.nothing_learned(None, world.now, |_| SECOND);
        assert!(!world.may_go(known(1)));
        world.breaker.nothing_learned(probe, world.now, |_| SECOND);
        assert_eq!(world.pause_told(known(1)), Some(SECOND));
        world.now += SECOND;
        assert!(world.send(known(1)).is_some());
        world.now += 30 * SECOND;
        assert!(!world.may_go(known(1)));
        world.now += SECOND;
        assert!(world.send(known(1)).is_some());
    }
}
