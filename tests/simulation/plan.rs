//! `Plan`: what a seed makes, all of it decided before it runs, so that it can be shortened.

use std::fmt;
use std::time::Duration;

use crate::run;

/// How the authorization server behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerWeather {
    Fine,
    Slow,
    TooSlow,
    Hangs,
    Unavailable,
    Busy,
    Drops,
    LosesAnswers,
    Garbage,
    Refuses,
    /// Answers each refresh token late, with `invalid_grant`.
    RefusesTokens,
    /// Knows no client but those with the new secret.
    RefusesOldSecret,
    /// Fails one request in three, in any of these ways.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiWeather {
    Fine,
    Slow,
    Unavailable,
    /// Every token, for ever: a scope is missing and nothing says so.
    RejectsAll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreWeather {
    Fine,
    Fails,
    /// Only saves.
    FailsToSave,
    LosesAnswers,
    Hangs,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// So many requests of one process, for one tenant each from there on.
    Requests {
        process: usize,
        tenant: usize,
        count: usize,
        body: bool,
    },
    /// The caller of one of the requests goes away.
    Cancel(usize),
    Wait(u64),
    Server(ServerWeather),
    Api(ApiWeather),
    Store(StoreWeather),
    Revoke {
        tenant: usize,
    },
    RevokeAll,
    Invalidate {
        process: usize,
        tenant: usize,
    },
    ReplaceCredentials {
        process: usize,
    },
    /// This process does not reach the authorization server from now on, or it does again.
    CutOff {
        process: usize,
        cut_off: bool,
    },
    /// Something is wrong with the first process, and the second one has its token all the same.
    OneIsSick(Sickness),
    SetToken {
        process: usize,
    },
    Restart {
        process: usize,
    },
    Suspend(u64),
    SetBack(u64),
    EmptyStore,
    /// It is out of reach for so long, and then has what it had, or nothing.
    StoreDies {
        away: u64,
        empty: bool,
    },
    /// The other runtime runs for so long, this one stands still.
    OtherRuntime(u64),
}

/// What is wrong with one process among others over a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sickness {
    CutOff,
    ClockAhead,
    OldSecret,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    /// Partitions; one: a person who has signed in, or a client without tenants.
    pub(crate) tenants: usize,
    pub(crate) max_partitions: usize,
    /// Only a refresh token brings tokens; otherwise client credentials.
    pub(crate) signed_in: bool,
    pub(crate) store: bool,
    /// Over which processes hear of each other when it has lost something, as Redis; files tell nobody.
    pub(crate) tells: bool,
    /// Client credentials bring a refresh token besides.
    pub(crate) refresh_tokens: bool,
    pub(crate) lifetime: Duration,
    pub(crate) latency: Duration,
    /// How many requests the connection takes at a time.
    pub(crate) concurrency: usize,
    /// With what the run begins.
    pub(crate) sickness: Option<Sickness>,
    pub(crate) actions: Vec<Action>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let signed_in = random.u8(..3) == 0;
        let processes = if random.bool() { 1 } else { random.usize(2..5) };
        let store = processes > 1 && random.bool() || processes == 1 && random.u8(..4) == 0;
        // Processes that share a refresh token without a store have no way to know of each other.
        let processes = if signed_in && !store { 1 } else { processes };
        let tenants = if signed_in { 1 } else { [1, 3, 20, 300][random.usize(..4)] };
        let two_runtimes = random.u8(..5) == 0;
        let mut plan = Self {
            seed,
            processes,
            tenants,
            max_partitions: if random.bool() { 1024 } else { 50 },
            signed_in,
            store,
            tells: store && random.u8(..3) > 0,
            refresh_tokens: !signed_in && !store && random.u8(..3) == 0,
            lifetime: Duration::from_secs([8, 20, 60, 600][random.usize(..4)]),
            latency: Duration::from_millis([0, 5, 300, 900][random.usize(..4)]),
            concurrency: [1, 2, 8, 1000][random.usize(..4)],
            sickness: None,
            actions: Vec::new(),
        };
        let is_quick = plan.latency <= Duration::from_millis(300);
        if plan.store && processes > 1 && !signed_in && is_quick && random.u8(..3) == 0 {
            let sickness = [Sickness::CutOff, Sickness::ClockAhead, Sickness::OldSecret][random.usize(..3)];
            plan.sickness = Some(sickness);
            plan.actions.push(Action::OneIsSick(sickness));
        }
        for _ in 0..random.usize(20..120) {
            if random.u8(..12) == 0 {
                plan.meet(&mut random);
            } else if tenants == 300 && random.u8(..50) == 0 {
                plan.flood(&mut random);
            } else if random.u8(..40) == 0 {
                plan.scene(&mut random);
            } else {
                let action = plan.action(&mut random, two_runtimes);
                plan.actions.push(action);
            }
        }
        plan
    }

    /// A fault that meets a state which chance alone seldom makes: a token that is stale or has just ended, or a token
    /// request that is on its way.
    fn meet(&mut self, random: &mut fastrand::Rng) {
        let (process, tenant) = (random.usize(..self.processes), random.usize(..self.tenants.min(3)));
        let request = |count| Action::Requests { process, tenant, count, body: false };
        let millis = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let fault = self.fault(random, process, tenant);
        let fine = [
            Action::Server(ServerWeather::Fine),
            Action::Api(ApiWeather::Fine),
            Action::Store(StoreWeather::Fine),
            Action::CutOff { process, cut_off: false },
            request(1),
            // After what went before.
            Action::Wait(2_500),
            request(1),
        ];
        self.actions.extend(fine);
        if random.u8(..3) > 0 {
            let share = if random.u8(..5) > 0 { random.u64(82..97) } else { random.u64(101..130) };
            self.actions.extend([Action::Wait(millis / 100 * share), fault, request(2), Action::Cancel(0)]);
        } else {
            let slow = [ServerWeather::Slow, ServerWeather::Hangs][random.usize(..2)];
            let invalidate = Action::Invalidate { process, tenant };
            self.actions.extend([Action::Server(slow), invalidate, request(2), Action::Wait(50), fault, request(1)]);
            // It is asked anew while the former token request hangs.
            self.actions.extend([Action::ReplaceCredentials { process }, request(1), Action::Cancel(1)]);
        }
        self.actions.push(Action::Wait(random.u64(1..3_000)));
    }

    /// Many tenants that nobody knows, one after the other.
    fn flood(&mut self, random: &mut fastrand::Rng) {
        self.actions.push(Action::Server([ServerWeather::Refuses, ServerWeather::Unavailable][random.usize(..2)]));
        for tenant in (0..self.tenants).step_by(30) {
            self.actions.extend([Action::Requests { process: 0, tenant, count: 30, body: false }, Action::Wait(700)]);
        }
        self.actions.push(Action::Server(ServerWeather::Fine));
    }

    /// What chance alone hardly ever brings about: several things in the right order.
    fn scene(&mut self, random: &mut fastrand::Rng) {
        let process = random.usize(..self.processes);
        let other = (process + 1) % self.processes;
        if self.refresh_tokens {
            self.overtaken(random, process);
        } else if self.signed_in && self.store && process != other && self.tells && random.bool() {
            self.emptied(random, process, other);
        } else if self.signed_in && self.store && process != other {
            self.unsaved(random, process, other);
        } else if self.concurrency <= 2 {
            self.queue(random, process);
        }
    }

    /// Everything works, and these processes have a token that was just asked for.
    fn fine(&mut self, processes: &[usize]) {
        let fine = [
            Action::Server(ServerWeather::Fine),
            Action::Api(ApiWeather::Fine),
            Action::Store(StoreWeather::Fine),
            Action::Wait(2_500),
        ];
        self.actions.extend(fine);
        for process in processes.iter().copied() {
            self.actions.push(Action::CutOff { process, cut_off: false });
            self.anew(process);
            self.actions.push(Action::Wait(1_500));
        }
    }

    /// The process asks for another token.
    fn anew(&mut self, process: usize) {
        let request = Action::Requests { process, tenant: 0, count: 1, body: false };
        self.actions.extend([Action::Invalidate { process, tenant: 0 }, request]);
    }

    /// The answer to a refresh token comes late, when another grant has brought a newer one.
    fn overtaken(&mut self, random: &mut fastrand::Rng, process: usize) {
        self.fine(&[process]);
        let late = [ServerWeather::Slow, ServerWeather::RefusesTokens][random.usize(..2)];
        self.actions.push(Action::Server(late));
        self.anew(process);
        self.actions.extend([
            Action::Wait(50),
            Action::Server(ServerWeather::Fine),
            Action::ReplaceCredentials { process },
            Action::Requests { process, tenant: 0, count: 1, body: false },
            Action::Wait(12_500),
        ]);
        self.anew(process);
        self.actions.push(Action::Wait(1_000));
    }

    /// The store loses everything while one process has a younger refresh token than another, or redeems one.
    fn emptied(&mut self, random: &mut fastrand::Rng, process: usize, other: usize) {
        self.fine(&[process, other, process]);
        match random.u8(..3) {
            0 => {
                self.actions.extend([Action::EmptyStore, Action::Invalidate { process, tenant: 0 }]);
                self.anew(other);
                self.actions.push(Action::Requests { process, tenant: 0, count: 1, body: false });
            }
            1 => {
                self.actions.push(Action::Server(ServerWeather::Hangs));
                self.anew(process);
                self.actions.extend([Action::Wait(100), Action::EmptyStore]);
                self.anew(other);
            }
            _ => {
                // A process that has not heard of what the store had.
                let restart = Action::Restart { process: other };
                self.actions.extend([restart, Action::EmptyStore, Action::SetToken { process: other }]);
                self.anew(other);
            }
        }
        self.actions.extend([Action::Wait(6_000), Action::Server(ServerWeather::Fine)]);
    }

    /// A new refresh token cannot be saved at first, and another process asks when the lease would have ended.
    fn unsaved(&mut self, random: &mut fastrand::Rng, process: usize, other: usize) {
        self.fine(&[process, other]);
        let latency = u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX);
        if random.bool() {
            self.actions.push(Action::Store(StoreWeather::FailsToSave));
            self.anew(process);
        } else {
            self.anew(process);
            self.actions.extend([Action::Wait(latency / 2), Action::Store(StoreWeather::Fails)]);
        }
        let away = latency + random.u64(100..1_000);
        self.actions.extend([Action::Wait(away), Action::Store(StoreWeather::Fine), Action::Wait(13_000)]);
        self.anew(other);
        self.actions.push(Action::Wait(5_000));
    }

    /// Many requests wait for one token, and then one after the other for longer than it lives.
    fn queue(&mut self, random: &mut fastrand::Rng, process: usize) {
        self.fine(&[process]);
        let count = random.usize(3..6);
        self.actions.extend([
            Action::Api(ApiWeather::Slow),
            Action::Invalidate { process, tenant: 0 },
            Action::Requests { process, tenant: 0, count, body: false },
            Action::Requests { process, tenant: 0, count, body: true },
            Action::Wait(35_000),
            Action::Api(ApiWeather::Fine),
        ]);
    }

    fn fault(&self, random: &mut fastrand::Rng, process: usize, tenant: usize) -> Action {
        use ServerWeather::*;
        let server = [Slow, TooSlow, Hangs, Unavailable, Busy, Drops, LosesAnswers, Garbage, Refuses];
        let store = [StoreWeather::Fails, StoreWeather::FailsToSave, StoreWeather::LosesAnswers, StoreWeather::Hangs];
        match random.usize(..24) {
            20 | 21 => Action::CutOff { process, cut_off: true },
            22 | 23 if self.refresh_tokens => Action::Server(RefusesTokens),
            22 | 23 => Action::CutOff { process, cut_off: true },
            which @ 0..=8 => Action::Server(server[which]),
            9 | 10 => Action::Server(server[random.usize(..server.len())]),
            11 => Action::Api(ApiWeather::RejectsAll),
            12 => Action::Api(ApiWeather::Unavailable),
            13 | 14 if self.store => Action::Store(store[random.usize(..store.len())]),
            13 | 14 => Action::Api(ApiWeather::Slow),
            15 => Action::Revoke { tenant },
            16 => Action::Invalidate { process, tenant },
            17 => Action::ReplaceCredentials { process },
            18 => Action::Suspend(random.u64(1..20)),
            _ => Action::SetBack(random.u64(1..20)),
        }
    }

    /// Nobody answers on a runtime that stands still.
    pub(crate) fn has_other_runtime(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::OtherRuntime(_)))
    }

    /// Where nobody can be asked, a refresh token is lost with its store.
    fn may_be_emptied(&self) -> bool {
        !self.signed_in || self.tells
    }

    fn action(&self, random: &mut fastrand::Rng, two_runtimes: bool) -> Action {
        let process = random.usize(..self.processes);
        // Few of many tenants come often.
        let tenant = if random.bool() { random.usize(..self.tenants.min(3)) } else { random.usize(..self.tenants) };
        let requests = |random: &mut fastrand::Rng| {
            let count = [1, 1, 1, 2, 5, 30][random.usize(..6)];
            Action::Requests { process, tenant, count, body: random.bool() }
        };
        match random.u8(..100) {
            0..=44 => requests(random),
            45..=62 => {
                let longest = [20, 400, 2_500, 9_000, 40_000][random.usize(..5)];
                Action::Wait(random.u64(1..longest))
            }
            63..=66 => Action::Cancel(random.usize(..1000)),
            67..=75 => {
                use ServerWeather::*;
                let all = [Slow, TooSlow, Hangs, Unavailable, Busy, Drops, LosesAnswers, Garbage, Refuses, Mixed];
                let fine = random.u8(..2) == 0;
                Action::Server(if fine { Fine } else { all[random.usize(..all.len())] })
            }
            76..=79 => {
                use ApiWeather::*;
                Action::Api([Fine, Fine, Slow, Unavailable, RejectsAll][random.usize(..5)])
            }
            80 if self.store => {
                let longest = [50, 500, 2_500, 15_000][random.usize(..4)];
                let away = random.u64(1..longest);
                Action::StoreDies { away, empty: self.may_be_emptied() && random.bool() }
            }
            81..=83 if self.store => {
                use StoreWeather::*;
                Action::Store([Fine, Fine, Fails, FailsToSave, LosesAnswers, Hangs][random.usize(..6)])
            }
            84..=88 => Action::Revoke { tenant },
            89 => Action::RevokeAll,
            90 | 91 => Action::Invalidate { process, tenant },
            92 | 93 => Action::ReplaceCredentials { process },
            98 | 99 if !two_runtimes => Action::CutOff { process, cut_off: random.bool() },
            94 => Action::SetToken { process },
            95 if self.store => match random.u8(..3) {
                0 if self.may_be_emptied() => Action::EmptyStore,
                _ => Action::Restart { process },
            },
            95 if !self.signed_in => Action::Restart { process },
            96 => Action::Suspend(random.u64(1..2_000)),
            97 => Action::SetBack(random.u64(1..2_000)),
            98 | 99 if two_runtimes => Action::OtherRuntime(random.u64(100..6_000)),
            _ => requests(random),
        }
    }

    /// The shortest plan that still violates the same promise, found by leaving out ever smaller parts.
    pub(crate) fn shrink(&self, violation: &str) -> Self {
        let promise = |text: &str| text.split(':').next().map(str::to_owned);
        let still = |plan: &Plan| {
            let found = run::run(plan).violation;
            found.is_some_and(|found| promise(&found) == promise(violation))
        };
        let mut best = self.clone();
        let mut part = best.actions.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < best.actions.len() {
                let mut shorter = best.clone();
                shorter.actions.drain(at..(at + part).min(best.actions.len()));
                if still(&shorter) { best = shorter } else { at += part }
            }
            part /= 2;
        }
        best
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} processes, {} tenants (room for {}), signed in: {}, store: {} (tells: {}), refresh tokens: {}, tokens of {:?}, latency {:?}, {} at a time, sickness: {:?}",
            self.seed,
            self.processes,
            self.tenants,
            self.max_partitions,
            self.signed_in,
            self.store,
            self.tells,
            self.refresh_tokens,
            self.lifetime,
            self.latency,
            self.concurrency,
            self.sickness
        )?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action:?}"))
    }
}
