//! The rejection limiter over simulated minutes, with seeds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const MINUTE: u64 = 60 * SECOND;

/// A client, an API with one endpoint that always rejects, and an authorization server that keeps one token alive.
/// Time is in microseconds.
struct World {
    rng: fastrand::Rng,
    rate: f64,
    /// The share of the traffic that goes to the endpoint that always rejects.
    bad: f64,
    /// When token `i` was issued and when it died.
    tokens: Vec<(u64, u64)>,
    /// The token the client holds.
    current: usize,
    refresh: Option<Refresh>,
    limiter: RejectionLimiter,
    start: Instant,
    sent: BinaryHeap<Reverse<Sending>>,
    requested: Vec<u64>,
    /// When healthy requests were accepted at last, and with which token.
    accepted: Vec<(u64, usize)>,
    /// When healthy requests that were handed a 401 had been sent first.
    failed: Vec<u64>,
}

struct Refresh {
    ends: u64,
    issued: bool,
    waiters: Vec<Sending>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sending {
    answered: u64,
    judged: u64,
    began: u64,
    token: usize,
    bad: bool,
    resend: bool,
    started_the_refresh: bool,
}

impl World {
    const FLIGHT: u64 = 50 * MS;

    fn new(seed: u64, rate: f64, bad: f64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            rate,
            bad,
            tokens: vec![(0, u64::MAX)],
            current: 0,
            refresh: None,
            limiter: RejectionLimiter::default(),
            start: Instant::now(),
            sent: BinaryHeap::new(),
            requested: vec![0],
            accepted: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn run(&mut self, until: u64, revocations: &[u64]) {
        let mut revocations = revocations.iter().copied().peekable();
        let mut next = self.pause();
        loop {
            let answer = self.sent.peek().map_or(u64::MAX, |Reverse(send)| send.answered);
            let revocation = revocations.peek().copied().unwrap_or(u64::MAX);
            let refresh = self.refresh.as_ref().map_or(u64::MAX, |refresh| match refresh.issued {
                false => refresh.ends - Self::FLIGHT / 2,
                true => refresh.ends,
            });
            let now = next.min(answer).min(revocation).min(refresh);
            if now >= until {
                return;
            } else if now == revocation {
                revocations.next();
                self.kill(now);
            } else if now == refresh {
                self.fly(now);
            } else if now == answer {
                let Reverse(send) = self.sent.pop().unwrap();
                self.answered(now, send);
            } else {
                next = now + self.pause();
                let bad = self.rng.f64() < self.bad;
                self.send(now, Sending { began: now, bad, ..Sending::NONE });
            }
        }
    }

    fn pause(&mut self) -> u64 {
        (-(1.0 - self.rng.f64()).ln() / self.rate * SECOND as f64) as u64 + 1
    }

    fn kill(&mut self, now: u64) {
        if let Some(token) = self.tokens.last_mut() {
            token.1 = token.1.min(now);
        }
    }

    fn send(&mut self, now: u64, send: Sending) {
        let latency = self.rng.u64(2 * MS..20 * MS);
        let (judged, answered) = (now + latency / 2, now + latency);
        self.sent.push(Reverse(Sending { judged, answered, token: self.current, ..send }));
    }

    fn fly(&mut self, now: u64) {
        let Some(mut refresh) = self.refresh.take() else { return };
        if !refresh.issued {
            self.kill(now);
            self.tokens.push((now, u64::MAX));
            refresh.issued = true;
            self.refresh = Some(refresh);
            return;
        }
        self.current = self.tokens.len() - 1;
        self.limiter.published();
        self.limiter.ended(self.instant(now));
        for waiter in refresh.waiters {
            self.send(now, Sending { resend: true, ..waiter });
        }
    }

    fn answered(&mut self, now: u64, send: Sending) {
        let (issued, died) = self.tokens[send.token];
        let is_current = send.token == self.current;
        if !send.bad && (issued..died).contains(&send.judged) {
            if is_current && send.started_the_refresh {
                self.limiter.cleared();
            }
            if is_current && self.limiter.is_watching(self.instant(now)) {
                self.limiter.accepted();
            }
            self.accepted.push((now, send.token));
        } else if send.resend {
            self.handed_out(send);
        } else if !is_current {
            self.send(now, Sending { resend: true, ..send });
        } else if let Some(refresh) = &mut self.refresh {
            self.limiter.joined();
            refresh.waiters.push(send);
        } else if self.limiter.may_refresh(self.instant(now)) {
            self.requested.push(now);
            let waiters = vec![Sending { started_the_refresh: true, ..send }];
            self.refresh = Some(Refresh { ends: now + Self::FLIGHT, issued: false, waiters });
        } else {
            self.handed_out(send);
        }
    }

    fn handed_out(&mut self, send: Sending) {
        if !send.bad {
            self.failed.push(send.began);
        }
    }

    fn instant(&self, now: u64) -> Instant {
        self.start + Duration::from_micros(now)
    }

    /// The most token requests in any minute.
    fn most_in_a_minute(&self) -> usize {
        let within = |from: u64| self.requested.iter().filter(|at| (from..from + MINUTE).contains(*at)).count();
        self.requested.iter().map(|from| within(*from)).max().unwrap_or(0)
    }

    /// How long after the revocation a healthy request was accepted with a token issued since.
    fn healed_after(&self, revocation: u64) -> u64 {
        let healed = self.accepted.iter().find(|(_, token)| self.tokens[*token].0 > revocation);
        healed.map_or(u64::MAX, |(at, _)| at - revocation)
    }
}

impl Sending {
    const NONE: Sending =
        Sending { answered: 0, judged: 0, began: 0, token: 0, bad: false, resend: false, started_the_refresh: false };
}

const RATES: [f64; 2] = [1_000.0, 100.0];
const SEEDS: std::ops::Range<u64> = 0..20;

/// Behaviour 47.
#[test]
fn when_everything_is_rejected_token_requests_are_bounded() {
    for (rate, seed) in RATES.into_iter().flat_map(|rate| SEEDS.map(move |seed| (rate, seed))) {
        let mut world = World::new(seed, rate, 1.0);
        world.run(MINUTE, &[]);
        assert!(world.most_in_a_minute() <= 13, "{rate}/s, seed {seed}: {:?}", world.requested);
    }
}

/// Behaviour 47.
#[test]
fn one_endpoint_that_always_rejects_is_bounded_beside_healthy_ones() {
    for (bad, rate, seed) in mixed_traffic() {
        let mut world = World::new(seed, rate, bad);
        world.run(MINUTE, &[]);
        assert!(world.most_in_a_minute() <= 13, "{bad} of {rate}/s, seed {seed}: {:?}", world.requested);
        assert!(world.failed.is_empty(), "{bad} of {rate}/s, seed {seed}");
    }
}

#[test]
fn a_revocation_during_a_storm_is_healed_in_under_a_second_and_so_is_the_next() {
    for (bad, rate, seed) in mixed_traffic() {
        let mut world = World::new(seed, rate, bad);
        let first = world.rng.u64(10 * SECOND..50 * SECOND);
        let revocations = [first, first + SECOND];
        world.run(MINUTE, &revocations);
        assert!(world.most_in_a_minute() <= 15, "{bad} of {rate}/s, seed {seed}: {:?}", world.requested);
        for revocation in revocations {
            let healed = world.healed_after(revocation);
            assert!(healed < SECOND, "{bad} of {rate}/s, seed {seed}: after {} ms", healed / MS);
        }
        let in_flight = 20 * MS;
        let hit = first - in_flight..first + 2 * SECOND;
        assert!(world.failed.iter().all(|began| hit.contains(began)), "{bad} of {rate}/s, seed {seed}");
    }
}

#[test]
fn each_genuine_revocation_costs_one_token_request_at_most() {
    for seed in SEEDS {
        let mut world = World::new(seed, 100.0, 0.1);
        let revocations = [10, 20, 30, 40, 50].map(|at| at * SECOND + seed * 50 * MS);
        world.run(MINUTE, &revocations);
        assert!(world.requested.len() <= 13 + revocations.len(), "seed {seed}: {:?}", world.requested);
    }
}

#[test]
fn rare_rejections_are_bounded_in_every_minute() {
    for (bad, seed) in [0.02, 0.1, 0.5].into_iter().flat_map(|bad| SEEDS.map(move |seed| (bad, seed))) {
        let mut world = World::new(seed, 10.0, bad);
        world.run(10 * MINUTE, &[]);
        assert!(world.most_in_a_minute() <= 13, "{bad}, seed {seed}: {:?}", world.requested);
    }
}

fn mixed_traffic() -> impl Iterator<Item = (f64, f64, u64)> {
    let traffic = [0.1, 0.5].into_iter().flat_map(|bad| RATES.map(|rate| (bad, rate)));
    traffic.flat_map(|(bad, rate)| SEEDS.map(move |seed| (bad, rate, seed)))
}

#[test]
fn the_wait_doubles_from_one_second_to_sixty() {
    let (mut limiter, mut now) = (RejectionLimiter::default(), Instant::now());
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(limiter.may_refresh(now), "the first rejection of a generation, before {seconds} s");
        assert!(!limiter.is_watching(now));
        limiter.published();
        limiter.ended(now);
        assert_eq!(limiter.wait_ends(), Some(now + Duration::from_secs(seconds)));
        assert!(limiter.is_watching(now));
        now += Duration::from_secs(seconds) - Duration::from_millis(1);
        assert!(!limiter.may_refresh(now), "within {seconds} s");
        now += Duration::from_millis(1);
    }
    now += MAX_WAIT;
    limiter.ended(now);
    assert_eq!(limiter.wait_ends(), Some(now + FIRST_WAIT), "after a quiet minute");
    limiter.reset();
    assert_eq!(limiter.wait_ends(), None);
    assert!(limiter.may_refresh(now));
}

#[test]
fn a_refresh_that_was_worth_it_is_forgotten() {
    let (mut limiter, now) = (RejectionLimiter::default(), Instant::now());
    force(&mut limiter, now);
    limiter.cleared();
    assert_eq!(limiter.wait_ends(), None);

    force(&mut limiter, now);
    let running = limiter.wait_ends();
    for _ in 0..10 {
        limiter.accepted();
        assert!(
            rejections_until_refresh(&mut limiter, now).is_some(),
            "an effective refresh takes nothing from the bucket"
        );
        force(&mut limiter, now);
        limiter.cleared();
        assert_eq!(limiter.wait_ends(), running, "other rejections go on");
    }
}

#[test]
fn a_run_refreshes_within_a_wait_if_others_were_accepted_and_the_bucket_pays() {
    let (mut limiter, mut now) = (RejectionLimiter::default(), Instant::now());
    for _ in 0..7 {
        limiter.ended(now);
    }
    assert_eq!(limiter.wait_ends(), Some(now + MAX_WAIT));
    assert_eq!(rejections_until_refresh(&mut limiter, now), None, "never accepted");
    limiter.published();
    limiter.ended(now);
    for _ in 0..2 {
        limiter.accepted();
        assert!(rejections_until_refresh(&mut limiter, now).is_some());
        assert!(limiter.may_refresh(now), "a refresh that failed has cost nothing");
        force(&mut limiter, now);
    }
    limiter.accepted();
    assert_eq!(rejections_until_refresh(&mut limiter, now), None, "the bucket is empty");
    now += Bucket::REFILL;
    assert!(limiter.may_refresh(now), "the run goes on, and the bucket has one again");
    force(&mut limiter, now);
}

#[test]
fn rejections_that_join_a_refresh_are_part_of_the_run() {
    let (mut limiter, now) = (RejectionLimiter::default(), Instant::now());
    force(&mut limiter, now);
    limiter.accepted();
    (0..29).for_each(|_| limiter.joined());
    assert!(limiter.may_refresh(now), "the refresh was no after_rejection one, and failed");
}

#[test]
fn the_run_needed_grows_with_the_share_of_rejections() {
    for (rejected_of_ten, least, most) in [(0, 8, 8), (1, 8, 10), (2, 12, 14), (5, 28, 32), (9, 180, 215)] {
        let mut share = Share::default();
        for _ in 0..1_000 {
            share.count(rejected_of_ten);
            (rejected_of_ten + 1..10).for_each(|_| share.count(0));
        }
        let run = share.run_beyond_chance();
        assert!((least..=most).contains(&run), "{rejected_of_ten} of 10: {run}");
    }
    let mut share = Share::default();
    share.count(u32::MAX);
    assert!(share.run_beyond_chance() < 1_000, "an outage is not the usual traffic");
    (0..1_000).for_each(|_| share.count(99));
    assert!((1_500..3_000).contains(&share.run_beyond_chance()));
    (0..10_000).for_each(|_| share.count(0));
    assert_eq!(share.run_beyond_chance(), 8, "it follows the traffic");
}

/// A refresh after a rejection, of no duration that publishes a new generation.
fn force(limiter: &mut RejectionLimiter, now: Instant) {
    limiter.may_refresh(now);
    limiter.published();
    limiter.ended(now);
}

fn rejections_until_refresh(limiter: &mut RejectionLimiter, now: Instant) -> Option<u32> {
    (1..1_000).find(|_| limiter.may_refresh(now))
}
