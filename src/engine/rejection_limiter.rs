//! The rejection limiter: when a rejected token may be refreshed.

use std::time::{Duration, Instant};

/// Decides whether a rejection of the current token starts a token request.
///
/// A 401 may mean a revoked token, which a refresh heals, or a missing scope, which it does not: then every rejection
/// would make a token request for ever. Two rules together bound that without going blind to revocations.
///
/// **The wait.** A refresh after a rejection arms a wait: 1 s at first, doubled each time, up to 60 s. Outside a wait, one
/// rejection is enough. Only the request that started the refresh can clear the wait, by being accepted when it is sent again.
/// Other requests that succeed prove nothing: where the server keeps one live token, each refresh kills the tokens of
/// requests in flight, whose resends succeed because tokens keep being replaced, not because that has ended. What is cleared is this refresh: the
/// wait that ran before it goes on. Otherwise each revocation healed beside a missing scope would begin the doubling anew.
///
/// **The run.** Inside a wait a revoked token shows as nothing but rejections, where others were accepted before. So a
/// run of rejections refreshes if it is too long for chance: where half of the traffic is always rejected, eight in a row
/// come up twice a second; the run needed therefore grows with the share of rejections seen. (The acceptances may
/// be of an older generation: the new one may be revoked before anybody could use it.) A mistaken run still costs a token
/// request, so runs are paid from a bucket of two, refilled one every 15 s.
///
/// Together at most 13 token requests a minute with the very first, and one more for each genuine revocation. That is for one
/// partition; over all of them the permits of the [endpoint](super::endpoint_limits) are the bound.
#[derive(Debug, Default)]
pub(crate) struct RejectionLimiter {
    limits: Limits,
    /// As they were before the last refresh after a rejection.
    before: Limits,
    /// The refresh in flight was started by a run and is paid for when it ends.
    run_started_it: bool,
    /// Rejections in a row.
    run: u32,
    share: Share,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    wait: Option<Wait>,
    bucket: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    ends: Instant,
    step: Duration,
}

impl RejectionLimiter {
    /// The current generation was rejected, and neither a refresh nor a remembered failure answers for it: `true` starts
    /// a refresh.
    pub(crate) fn may_refresh(&mut self, now: Instant) -> bool {
        self.run = self.run.saturating_add(1);
        let in_wait = self.is_watching(now);
        let may = !in_wait || (self.is_beyond_chance() && self.limits.bucket.can_pay(now));
        self.run_started_it = in_wait && may;
        may
    }

    /// The current generation was rejected, and a refresh is in flight already.
    pub(crate) fn joined(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// The current generation was accepted. Needed only while [`is_watching`](Self::is_watching).
    pub(crate) fn accepted(&mut self) {
        self.share.count(self.run);
        self.run = 0;
    }

    /// Whether a wait runs, so that acceptances count too.
    pub(crate) fn is_watching(&self, now: Instant) -> bool {
        self.wait_ends().is_some_and(|ends| now < ends)
    }

    /// A new generation was published, by a refresh (after a rejection or not) or from outside.
    pub(crate) fn published(&mut self) {
        self.run = 0;
    }

    /// A refresh after a rejection got a token, a new one or the same. One that failed arms nothing: its failure is remembered.
    pub(crate) fn ended(&mut self, now: Instant) {
        self.before = self.limits;
        if std::mem::take(&mut self.run_started_it) {
            self.limits.bucket.pay(now);
        }
        self.run = 0;
        let step = match self.limits.wait {
            Some(Wait { ends, step }) if now < later(ends, MAX_WAIT) => step.saturating_mul(2).min(MAX_WAIT),
            // The last run of rejections is over: nobody needed a token for a minute after it was allowed again.
            _ => FIRST_WAIT,
        };
        self.limits.wait = Some(Wait { ends: later(now, step), step });
    }

    /// The request that started the last refresh after a rejection was accepted on its resend, with the generation that the
    /// refresh published and that is still current: the refresh was worth it and costs nothing.
    pub(crate) fn cleared(&mut self) {
        self.limits = self.before;
    }

    /// Forgets everything, because the token was invalidated from outside.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// When the last wait armed ends, or ended.
    pub(crate) fn wait_ends(&self) -> Option<Instant> {
        self.limits.wait.map(|wait| wait.ends)
    }

    fn is_beyond_chance(&self) -> bool {
        self.share.has_acceptances() && self.run >= self.share.run_beyond_chance()
    }
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);

fn later(moment: Instant, span: Duration) -> Instant {
    moment.checked_add(span).unwrap_or(moment)
}

/// A bucket of two, refilled one every 15 s.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    const REFILL: Duration = Duration::from_secs(15);

    fn can_pay(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= later(now, Self::REFILL))
    }

    fn pay(&mut self, now: Instant) {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(later(full_at, Self::REFILL));
    }
}

/// The share of rejections among the responses seen in waits, over all generations. The run going on is left out: if it
/// is a revocation it says nothing of the usual traffic.
#[derive(Debug, Default)]
struct Share {
    rejected: u32,
    seen: u32,
}

impl Share {
    /// Older responses count half each time this many were seen, so that the share follows the traffic.
    const WINDOW: u32 = 1024;

    fn has_acceptances(&self) -> bool {
        // Only an acceptance makes a run count.
        self.seen > 0
    }

    /// A run of rejections was ended by an acceptance. Of one beyond chance, such as an outage, no more is counted than
    /// chance allows, or the next revocation would be taken for usual traffic.
    fn count(&mut self, run: u32) {
        let run = run.min(self.run_beyond_chance());
        self.rejected = self.rejected.saturating_add(run);
        self.seen = self.seen.saturating_add(run).saturating_add(1);
        while self.seen > Self::WINDOW {
            self.rejected /= 2;
            self.seen /= 2;
        }
    }

    /// The length of a run that has a chance of at most one in a billion at each response, and at least eight. (One in a
    /// million comes up every half an hour at 1 000 requests a second.)
    fn run_beyond_chance(&self) -> u32 {
        const SHORTEST: f64 = 8.0;
        let share = (f64::from(self.rejected) + 1.0) / (f64::from(self.seen) + 2.0);
        // Cannot overflow: the share is at most 1024/1025.
        (1e-9_f64.ln() / share.ln()).ceil().max(SHORTEST) as u32
    }
}

#[cfg(test)]
mod tests;
