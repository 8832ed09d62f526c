//! `Env`: what the cells of one configuration have in common: source, clocks, policy, randomness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::coarse_clock::{CoarseClock, MAX_AGE};
use super::key::{Partition, PartitionHasher};
use super::os_clock::OsClock;
use super::rt;
use crate::telemetry::Telemetry;
use crate::token::{
    Backoff, DynTokenSource, LifetimePolicy, MIN_INTERVAL, RefreshContext, RefreshReport, TokenRequest,
};
use crate::types::{Clock, ConfigError, Draw, Now, TenantId, TokenError, TokenErrorKind};

/// When tokens are asked for, and for how long failures are remembered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnginePolicy {
    pub(crate) lifetime: LifetimePolicy,
    /// The whole of one refresh, a fallback to another grant included. Longer than two exchanges of the endpoint.
    pub(crate) refresh_deadline: Duration,
    /// After a failure that may pass.
    pub(crate) backoff: Backoff,
    /// After one that will not pass by itself.
    pub(crate) permanent_pause: Backoff,
    /// The longest `Retry-After` obeyed.
    pub(crate) retry_after_cap: Duration,
    /// The source has a grant besides the refresh token's.
    pub(crate) has_primary_grant: bool,
    /// The longest rest of a pause that a rejected request waits out.
    pub(crate) wait_out_pause: Duration,
    /// How many requests may wait for a token while there is none.
    pub(crate) max_waiters: Option<usize>,
    /// How many token requests there may be at a time for each token endpoint.
    pub(crate) max_concurrent_token_requests: usize,
    /// How long one of them waits for its turn.
    pub(crate) permit_timeout: Duration,
    /// How many cells there may be beside the main one.
    pub(crate) max_partitions: usize,
    /// For how long one of them is kept that nobody uses.
    pub(crate) partition_idle: Duration,
}

impl Default for EnginePolicy {
    fn default() -> Self {
        Self {
            lifetime: LifetimePolicy::default(),
            refresh_deadline: Duration::from_secs(30),
            backoff: Backoff::TRANSIENT,
            permanent_pause: Backoff::PERMANENT,
            retry_after_cap: Duration::from_secs(300),
            has_primary_grant: false,
            // The pauses after the first and second failure in a row, which most failures that pass are.
            wait_out_pause: Duration::from_secs(1),
            max_waiters: None,
            max_concurrent_token_requests: 64,
            permit_timeout: Duration::from_secs(10),
            max_partitions: 1024,
            partition_idle: Duration::from_secs(3600),
        }
    }
}

impl EnginePolicy {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.lifetime.validate()?;
        if self.refresh_deadline.is_zero() {
            return Err(ConfigError::new("the refresh deadline is zero", "30 s is the default"));
        }
        self.backoff.validate()?;
        self.permanent_pause.validate()?;
        if self.max_partitions == 0 || self.max_waiters == Some(0) {
            return Err(ConfigError::new("no partition or no waiter is allowed", "1024 partitions are the default"));
        }
        if self.max_concurrent_token_requests == 0 {
            return Err(ConfigError::new("no token request is allowed", "64 at a time are the default"));
        }
        if self.partition_idle < MAX_AGE {
            return Err(ConfigError::new("partitions are idle after less than a second", "an hour is the default"));
        }
        Ok(())
    }

    /// After so long a refresh has ended, or it is on a runtime that nobody drives.
    pub(crate) fn longest_refresh(&self) -> Duration {
        self.refresh_deadline.saturating_add(MIN_INTERVAL)
    }

    /// For how long a failure is remembered; `None`: not at all, since it is no word of the authorization server.
    pub(crate) fn pause_after(&self, error: &TokenError, in_a_row: u32, draw: f64) -> Option<Duration> {
        match error.kind() {
            TokenErrorKind::Aborted | TokenErrorKind::NoRuntime | TokenErrorKind::Overloaded => None,
            _ => Some(match error.retry_after() {
                Some(pause) if !pause.is_zero() && !self.retry_after_cap.is_zero() => pause.min(self.retry_after_cap),
                _ if error.is_transient() => self.backoff.pause(in_a_row, draw),
                _ => self.permanent_pause.pause(in_a_row, draw),
            }),
        }
    }
}

pub(crate) struct Env {
    pub(crate) source: Arc<dyn DynTokenSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: EnginePolicy,
    pub(crate) draw: Draw,
    pub(crate) hasher: PartitionHasher,
    /// The tenant of every token request, where it cannot vary and so is no part of the partition.
    pub(crate) fixed_tenant: Option<TenantId>,
    pub(crate) coarse_clock: CoarseClock,
    pub(crate) telemetry: Telemetry,
    /// No renewal begins in the background any more.
    is_closing: AtomicBool,
}

impl Env {
    pub(crate) fn new(
        source: Arc<dyn DynTokenSource>,
        clock: Arc<dyn Clock>,
        policy: EnginePolicy,
        fixed_tenant: Option<TenantId>,
    ) -> Self {
        let (coarse_clock, hasher) = (CoarseClock::new(OsClock::of(&clock)), PartitionHasher::of(&*clock));
        Self {
            source,
            clock,
            policy,
            draw: Draw::default(),
            hasher,
            fixed_tenant,
            coarse_clock,
            telemetry: Telemetry::default(),
            is_closing: AtomicBool::new(false),
        }
    }

    /// As the operating system's clocks stand still, so that a slow machine changes nothing.
    #[cfg(test)]
    pub(crate) fn still(source: Arc<dyn DynTokenSource>, clock: impl Clock, policy: EnginePolicy) -> Self {
        let coarse_clock = CoarseClock::new(OsClock::Set(Arc::default()));
        Self { coarse_clock, ..Self::new(source, Arc::new(clock), policy, None) }
    }

    pub(crate) fn with_telemetry(self, telemetry: Telemetry) -> Self {
        Self { telemetry, ..self }
    }

    /// When a refresh that has not ended cannot end any more where it runs: its own deadline is a second past.
    pub(crate) fn overdue_after(&self) -> Duration {
        self.policy.refresh_deadline.saturating_add(MIN_INTERVAL)
    }

    /// The time, or `last` if the clock panics: those who wait for a refresh must not hang for it.
    pub(crate) fn now_or(&self, last: Now) -> Now {
        catch_unwind(AssertUnwindSafe(|| self.clock.now())).unwrap_or(last)
    }

    /// From now on no renewal begins in the background: the program is about to end.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn draw(&self) -> f64 {
        self.draw.uniform()
    }

    /// What a source is asked for in this partition, as far as that does not change.
    pub(crate) fn request(&self, partition: &Partition) -> TokenRequest {
        TokenRequest {
            tenant: partition.tenant.as_ref().or(self.fixed_tenant.as_ref()).cloned(),
            scopes: partition.scopes.clone(),
            params: partition.params.clone(),
            ..TokenRequest::default()
        }
    }

    /// What a token is judged by that is asked for now.
    pub(crate) fn context(&self) -> RefreshContext {
        RefreshContext {
            clock: self.clock.clone(),
            lifetime: self.policy.lifetime.clone(),
            deadline: rt::deadline(self.policy.refresh_deadline),
            backoff: self.policy.backoff,
            report: RefreshReport::default(),
            may_send: None,
            telemetry: self.telemetry.clone(),
            span: None,
        }
    }

    /// A request outside of any refresh.
    pub(crate) fn asking_now(&self, partition: &Partition) -> TokenRequest {
        TokenRequest { context: Some(Arc::new(self.context())), ..self.request(partition) }
    }

    /// By the coarse clock, in milliseconds, at most [`MAX_AGE`] behind. The clocks are needed once in that time.
    pub(crate) fn coarse_time(&self, now: impl FnOnce() -> Now) -> u64 {
        self.coarse_clock.time().unwrap_or_else(|| self.coarse_clock.tick(&now(), MAX_AGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviours 31, 33 and 34.
    #[test]
    fn how_long_a_failure_is_remembered_depends_on_its_class() {
        let policy = EnginePolicy::default();
        let secs = Duration::from_secs;
        let pause = |kind, in_a_row, draw| policy.pause_after(&TokenError::new(kind), in_a_row, draw);
        use TokenErrorKind::*;

        // Transient: drawn between nothing, or nearly, and what doubles each time.
        for (in_a_row, longest) in [(0, 0.5), (1, 1.0), (5, 16.0), (7, 60.0), (1_000, 60.0)] {
            assert_eq!(pause(Unavailable, in_a_row, 0.0), Some(Backoff::SHORTEST));
            assert_eq!(pause(Unavailable, in_a_row, 0.5), Some(Duration::from_secs_f64(longest / 2.0)));
            assert_eq!(pause(Unavailable, in_a_row, 1.0), Some(Duration::from_secs_f64(longest)));
        }
        for (in_a_row, expected) in [(0, 30), (1, 60), (4, 480), (5, 600), (1_000, 600)] {
            assert_eq!(pause(BadCredentials, in_a_row, 0.5), Some(secs(expected)));
        }
        // No word of the authorization server.
        for kind in [Aborted, NoRuntime, Overloaded] {
            assert_eq!(pause(kind, 3, 0.5), None);
        }
        for (told, expected) in [(secs(30), secs(30)), (Duration::MAX, secs(300))] {
            let error = TokenError::new(Unavailable).with_retry_after(told);
            assert_eq!(policy.pause_after(&error, 9, 0.0), Some(expected));
        }
    }
}
