//! When the breaker takes an endpoint to be down, and who may go then.

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
