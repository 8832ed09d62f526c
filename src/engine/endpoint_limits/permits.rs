//! Permits for token requests: so many at the same time, first come, first served. Knows neither time nor tasks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Of so many permits, partitions whose last request timed out hold one at most.
const SLOW_SHARE: usize = 4;

/// Who holds a permit, and who waits for one. `W` is how a waiter is told.
///
/// A partition whose last request timed out is *slow*: all of them together hold one permit in four, so that authorities
/// that hang leave three quarters to the others. A permit that was not returned in time is taken back: its task is on a
/// runtime that nobody drives.
#[derive(Debug)]
pub(super) struct Permits<W> {
    max: usize,
    longest: Duration,
    /// In the order of their numbers, which is that of time.
    held: VecDeque<Held>,
    slow_held: usize,
    /// In the order of arrival.
    waiting: VecDeque<(u64, W)>,
    waiting_slow: VecDeque<(u64, W)>,
    /// The number of the next permit or place; one sequence, so that it tells who came first.
    next: u64,
}

#[derive(Debug)]
struct Held {
    number: u64,
    since: Instant,
    slow: bool,
}

/// A place among those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    number: u64,
    slow: bool,
}

/// A permit by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PermitNumber(u64);

impl<W> Permits<W> {
    /// `longest`: after so long a permit is taken back.
    pub(super) fn new(max: usize, longest: Duration) -> Self {
        Self {
            max,
            longest,
            held: VecDeque::new(),
            slow_held: 0,
            waiting: VecDeque::new(),
            waiting_slow: VecDeque::new(),
            next: 0,
        }
    }

    /// A permit, unless somebody who came before waits for one.
    pub(super) fn take(&mut self, slow: bool, now: Instant) -> Option<PermitNumber> {
        self.take_back(now);
        let nobody_before = if slow { self.waiting_slow.is_empty() } else { self.waiting.is_empty() };
        (nobody_before && self.has_room(slow)).then(|| self.hold(slow, now))
    }

    /// A place at the end of the queue.
    pub(super) fn wait(&mut self, slow: bool, waiter: W) -> Place {
        let place = Place { number: self.number(), slow };
        self.queue(slow).push_back((place.number, waiter));
        place
    }

    /// The task that is next in the queue, if there is a permit for them.
    pub(super) fn next(&mut self, now: Instant) -> Option<(PermitNumber, W)> {
        self.take_back(now);
        let first = |queue: &VecDeque<(u64, W)>, has_room: bool| Some(queue.front()?.0).filter(|_| has_room);
        let normal = first(&self.waiting, self.has_room(false));
        let slow = first(&self.waiting_slow, self.has_room(true));
        let slow = match (normal, slow) {
            (Some(normal), Some(slow)) => slow < normal,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return None,
        };
        let (_, waiter) = self.queue(slow).pop_front()?;
        Some((self.hold(slow, now), waiter))
    }

    /// Leaves the queue. Nothing happens where the place was called already.
    pub(super) fn give_up(&mut self, place: Place) {
        let queue = self.queue(place.slow);
        if let Ok(at) = queue.binary_search_by_key(&place.number, |(number, _)| *number) {
            queue.remove(at);
        }
    }

    /// Gives a permit back. Nothing happens where it was taken back already.
    pub(super) fn give_back(&mut self, permit: PermitNumber) {
        if let Ok(at) = self.held.binary_search_by_key(&permit.0, |held| held.number)
            && let Some(held) = self.held.remove(at)
        {
            self.slow_held = self.slow_held.saturating_sub(usize::from(held.slow));
        }
    }

    /// Nobody holds a permit and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty() && self.waiting_slow.is_empty()
    }

    fn has_room(&self, slow: bool) -> bool {
        self.held.len() < self.max && (!slow || self.slow_held < (self.max / SLOW_SHARE).max(1))
    }

    fn hold(&mut self, slow: bool, since: Instant) -> PermitNumber {
        let number = self.number();
        self.held.push_back(Held { number, since, slow });
        self.slow_held = self.slow_held.saturating_add(usize::from(slow));
        PermitNumber(number)
    }

    fn take_back(&mut self, now: Instant) {
        while let Some(oldest) = self.held.front()
            && now.saturating_duration_since(oldest.since) > self.longest
        {
            self.give_back(PermitNumber(oldest.number));
        }
    }

    fn queue(&mut self, slow: bool) -> &mut VecDeque<(u64, W)> {
        if slow { &mut self.waiting_slow } else { &mut self.waiting }
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Behaviour 139 (in order of arrival).
    #[test]
    fn whoever_came_first_is_served_first() {
        let now = Instant::now();
        let mut permits = Permits::new(2, 30 * SECOND);
        let first = permits.take(false, now).unwrap();
        let second = permits.take(false, now).unwrap();
        assert!(permits.take(false, now).is_none());
        let places: Vec<_> = (0..4).map(|n| permits.wait(false, n)).collect();
        assert!(permits.next(now).is_none());
        permits.give_back(second);
        assert!(permits.take(false, now).is_none(), "others were there before");
        let (third, waiter) = permits.next(now).unwrap();
        assert_eq!(waiter, 0);
        permits.give_up(places[1]);
        permits.give_up(places[0]);
        permits.give_back(first);
        permits.give_back(first);
        let (fourth, waiter) = permits.next(now).unwrap();
        assert_eq!(waiter, 2, "who has left is passed over");
        assert!(permits.next(now).is_none());
        permits.give_back(third);
        permits.give_back(fourth);
        let (fifth, waiter) = permits.next(now).unwrap();
        assert_eq!(waiter, 3);
        assert!(permits.next(now).is_none() && !permits.is_idle());
        permits.give_back(fifth);
        assert!(permits.is_idle());
    }

    /// Behaviour 139 (partitions that time out).
    #[test]
    fn slow_partitions_hold_one_permit_in_four_and_keep_nobody_else_waiting() {
        let now = Instant::now();
        for (max, slow_ones) in [(64, 16), (8, 2), (5, 1), (1, 1)] {
            let mut permits = Permits::new(max, 30 * SECOND);
            let held: Vec<_> = std::iter::from_fn(|| permits.take(true, now)).collect();
            assert_eq!(held.len(), slow_ones, "of {max}");
            permits.wait(true, "slow");
            let others: Vec<_> = std::iter::from_fn(|| permits.take(false, now)).collect();
            assert_eq!(others.len(), max - slow_ones);
            permits.wait(false, "other");
            // A slow permit is free: the slow one came first.
            permits.give_back(held[0]);
            assert_eq!(permits.next(now).unwrap().1, "slow");
            assert!(permits.next(now).is_none());
            if let Some(permit) = others.first() {
                permits.wait(true, "slow too");
                permits.give_back(*permit);
                assert_eq!(permits.next(now).unwrap().1, "other");
                assert!(permits.next(now).is_none());
            }
        }
    }

    /// Behaviour 139 (in order of arrival, also among both kinds).
    #[test]
    fn a_slow_partition_waits_for_its_turn() {
        let now = Instant::now();
        let mut permits = Permits::new(4, 30 * SECOND);
        let held: Vec<_> = std::iter::from_fn(|| permits.take(false, now)).collect();
        permits.wait(false, "first");
        permits.wait(true, "slow");
        permits.wait(false, "third");
        for (permit, waiter) in held.into_iter().zip(["first", "slow", "third"]) {
            permits.give_back(permit);
            assert_eq!(permits.next(now).unwrap().1, waiter);
        }
    }

    #[test]
    fn a_permit_that_does_not_come_back_is_taken_back() {
        let start = Instant::now();
        let mut permits = Permits::new(4, 30 * SECOND);
        let lost = permits.take(true, start).unwrap();
        for _ in 0..3 {
            permits.take(false, start + SECOND).unwrap();
        }
        permits.wait(false, ());
        assert!(permits.next(start + 30 * SECOND).is_none());
        assert!(permits.next(start + 30 * SECOND + SECOND / 2).is_some());
        assert!(permits.take(true, start + 30 * SECOND + SECOND / 2).is_none());
        permits.give_back(lost);
        assert!(permits.take(true, start + 30 * SECOND + SECOND / 2).is_none(), "it is gone already");
        assert_eq!(permits.slow_held, 0);
    }
}
