//! The seam between the way of a request and the way of a token: *read*, *reject*, *outcome*.
//!
//! An engine is one configuration's tokens: one source, one policy, a slot for each partition. It knows neither HTTP
//! clients nor request bodies.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::flight::Landing;
use super::lifetime::LifetimePolicy;
use super::partition::Partition;
use super::slot::{Current, Read, Slot};
use super::slots::Slots;
use super::source::{DynTokenSource, Terms};
use super::{Token, TokenError, TokenErrorKind, TokenRequest};
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::extensions::TenantId;
use crate::secret::Secret;

/// When tokens are asked for, and for how long failures are remembered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnginePolicy {
    pub(crate) lifetime: LifetimePolicy,
    /// The whole of one flight, a fallback to another grant included. Longer than two exchanges of the endpoint.
    pub(crate) flight_deadline: Duration,
    /// First and longest pause after a transient failure; the pause itself is drawn between zero and that ("full jitter").
    pub(crate) backoff: (Duration, Duration),
    /// First and longest pause after a permanent failure: secrets get rotated, so it ends by itself.
    pub(crate) permanent_pause: (Duration, Duration),
    /// The longest `Retry-After` obeyed.
    pub(crate) retry_after_cap: Duration,
    /// How many requests may wait for a token while there is none.
    pub(crate) max_waiters: Option<usize>,
    pub(crate) max_partitions: usize,
}

impl Default for EnginePolicy {
    fn default() -> Self {
        Self {
            lifetime: LifetimePolicy::default(),
            flight_deadline: Duration::from_secs(30),
            backoff: (Duration::from_millis(500), Duration::from_secs(60)),
            permanent_pause: (Duration::from_secs(30), Duration::from_secs(600)),
            retry_after_cap: Duration::from_secs(300),
            max_waiters: None,
            max_partitions: 1024,
        }
    }
}

impl EnginePolicy {
    /// The shortest pause after a transient failure, so that full jitter cannot draw "at once".
    const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.lifetime.validate()?;
        if self.flight_deadline.is_zero() {
            return Err(ConfigError::new("the refresh deadline is zero", "30 s is the default"));
        }
        if self.backoff.0 > self.backoff.1 || self.permanent_pause.0 > self.permanent_pause.1 {
            return Err(ConfigError::new("the first pause is longer than the longest", "pass the shorter one first"));
        }
        if self.max_partitions == 0 || self.max_waiters == Some(0) {
            return Err(ConfigError::new("no partition or no waiter is allowed", "1024 partitions are the default"));
        }
        Ok(())
    }

    /// For how long a failure is remembered; `None`: not at all, since it is no word of the authorization server.
    pub(crate) fn pause_after(&self, error: &TokenError, in_a_row: u32, draw: f64) -> Option<Duration> {
        let doubled = |(first, longest): (Duration, Duration)| first.saturating_mul(1 << in_a_row.min(20)).min(longest);
        match error.kind() {
            TokenErrorKind::Aborted | TokenErrorKind::NoRuntime | TokenErrorKind::Overloaded => None,
            _ => Some(match error.retry_after() {
                Some(pause) if !pause.is_zero() => pause.min(self.retry_after_cap),
                _ if error.is_transient() => {
                    doubled(self.backoff).mul_f64(draw.clamp(0.0, 1.0)).max(Self::SHORTEST_PAUSE)
                }
                _ => doubled(self.permanent_pause),
            }),
        }
    }
}

pub(crate) struct Engine {
    pub(crate) source: Arc<dyn DynTokenSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: EnginePolicy,
    /// Uniform in `[0, 1)`; replaced in tests.
    pub(crate) draw: fn() -> f64,
    /// The tenant of every token request, where it cannot vary and so is no part of the partition.
    pub(crate) fixed_tenant: Option<TenantId>,
    main: Arc<Slot>,
    others: Slots,
}

impl Engine {
    pub(crate) fn new(
        source: Arc<dyn DynTokenSource>,
        clock: Arc<dyn Clock>,
        policy: EnginePolicy,
        refresh_token: Option<Secret<String>>,
        fixed_tenant: Option<TenantId>,
    ) -> Self {
        let main = Arc::new(Slot::new(Partition::default(), refresh_token));
        let others = Slots::new(policy.max_partitions);
        Self { source, clock, policy, draw: fastrand::f64, fixed_tenant, main, others }
    }

    /// The slot of the partition that needs no key.
    #[inline]
    pub(crate) fn main(&self) -> &Arc<Slot> {
        &self.main
    }

    /// The slot of a partition, made if there is none.
    pub(crate) fn slot(&self, partition: Partition) -> Arc<Slot> {
        if partition.is_main() { self.main.clone() } else { self.others.slot(partition) }
    }

    /// The slot of a partition, if there is one.
    pub(crate) fn existing_slot(&self, partition: &Partition) -> Option<Arc<Slot>> {
        if partition.is_main() { Some(self.main.clone()) } else { self.others.existing(partition) }
    }

    pub(crate) fn all_slots(&self) -> Vec<Arc<Slot>> {
        let mut slots = self.others.all();
        slots.push(self.main.clone());
        slots
    }

    /// What a source is asked for in this partition, as far as that does not change.
    pub(crate) fn request(&self, partition: &Partition) -> TokenRequest {
        TokenRequest {
            tenant: partition.tenant.as_ref().or(self.fixed_tenant.as_ref()).cloned(),
            scopes: partition.scopes.clone(),
            ..TokenRequest::default()
        }
    }

    /// What the engine judges a token by that is asked for now.
    pub(crate) fn terms(&self) -> Terms {
        let deadline = Instant::now() + self.policy.flight_deadline;
        Terms { clock: self.clock.clone(), lifetime: self.policy.lifetime.clone(), deadline }
    }

    /// A request outside of any flight.
    pub(crate) fn asking_now(&self, partition: &Partition) -> TokenRequest {
        TokenRequest { terms: Some(Arc::new(self.terms())), ..self.request(partition) }
    }

    /// What a waiter does with a landing: a token, an error, or look again (`None`).
    pub(crate) fn settle(
        &self,
        landing: Landing,
        fallback: Option<Arc<Current>>,
    ) -> Option<Result<Arc<Current>, Arc<TokenError>>> {
        match landing {
            Landing::New(current) | Landing::Same(current) => Some(Ok(current)),
            Landing::Failed(error) => Some(match fallback {
                Some(current) if current.lifetime.is_alive(&self.clock.now()) => Ok(current),
                _ => Err(error),
            }),
            Landing::Superseded => None,
        }
    }

    /// The token, waiting for it if need be.
    pub(crate) async fn token(self: &Arc<Self>, partition: Partition) -> Result<Token, Arc<TokenError>> {
        let slot = self.slot(partition);
        loop {
            let settled = match slot.read(self) {
                Read::Ready(current) => Some(Ok(current)),
                Read::Failed(error) => Some(Err(error)),
                Read::Wait { ticket, fallback } => self.settle(ticket.await, fallback),
            };
            if let Some(result) = settled {
                return result.map(|current| current.token.clone());
            }
        }
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
            assert_eq!(pause(Unavailable, in_a_row, 0.0), Some(EnginePolicy::SHORTEST_PAUSE));
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
