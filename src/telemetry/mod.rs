//! `Telemetry`: what operators see of a layer, under its name: events, spans, metrics, and the observer of failures.
//!
//! All of it is told from here, and nothing of it holds a secret, a tenant or a path: what comes from outside was masked before.
//! Subscribers, recorders and observers are foreign code, so nothing here is called while a lock is held.

mod events;
#[cfg_attr(not(feature = "metrics"), path = "no_metrics.rs")]
mod metrics;
mod repeats;
mod spans;
#[cfg(test)]
#[cfg(all(feature = "metrics", feature = "dpop"))]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::types::{AuthOutcome, Clock, SystemClock, TenantId, TokenError};
use metrics::Metrics;
use repeats::Repeats;

pub(crate) use spans::{Ended, TokenRequestSpan, Trigger, Wait};

/// The target of all events and spans.
const TARGET: &str = "tower_oauth2_client";

/// Called with each token request that failed, and whose it was.
pub(crate) type Observer = Arc<dyn Fn(Option<&TenantId>, &TokenError) + Send + Sync>;

/// One layer's. Cheap to clone; clones share the count of repeated warnings.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    /// Only to tell how long something took.
    clock: Arc<dyn Clock>,
    repeats: Repeats,
    observer: Option<Observer>,
    metrics: Metrics,
    /// Of a table within the layer.
    is_inner: bool,
}

impl Telemetry {
    pub(crate) fn new(name: &str, clock: Arc<dyn Clock>, observer: Option<Observer>) -> Self {
        Self::with(name.into(), clock, observer, false)
    }

    fn with(name: Arc<str>, clock: Arc<dyn Clock>, observer: Option<Observer>, is_inner: bool) -> Self {
        let metrics = Metrics::new(&name);
        Self(Arc::new(Inner { name, clock, repeats: Repeats::default(), observer, metrics, is_inner }))
    }

    /// The same for a table of tokens that a layer needs to have its own. Its partitions are not counted, and its failures
    /// are observed with those of the layer that they make fail.
    pub(crate) fn of_inner_table(&self) -> Self {
        Self::with(self.0.name.clone(), self.0.clock.clone(), None, true)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The error with the layer's name, unless it has one already: that of a layer within this one, which failed first.
    pub(crate) fn named(&self, error: TokenError) -> TokenError {
        error.in_layer(&self.0.name)
    }

    /// Partitions were made, and others went; of these some were dropped to keep the table in its bounds.
    pub(crate) fn partitions(&self, made: usize, gone: usize, evicted: usize) {
        if self.0.is_inner {
            return;
        }
        if made != gone {
            self.0.metrics.partitions(made, gone);
        }
        if evicted > 0 {
            self.0.metrics.evictions(evicted);
        }
    }

    /// A token was replaced by another that had so long to live still.
    pub(crate) fn token_replaced(&self, left: Option<Duration>) {
        self.0.metrics.token_remaining(left);
    }

    /// What came of a request whose token was rejected.
    pub(crate) fn request_rejected(&self, outcome: &AuthOutcome, failure: Option<&TokenError>) {
        self.0.metrics.rejected(match outcome {
            AuthOutcome { resent: true, .. } => "resent",
            AuthOutcome { suppressed: true, .. } => "suppressed",
            AuthOutcome { same_token: true, .. } => "same_token",
            AuthOutcome { not_replayable: true, .. } => "not_replayable",
            _ if failure.is_some() => "failed",
            _ => "passed_on",
        });
    }

    /// A call of the store. `error` is one of a few kinds.
    pub(crate) fn store_operation(&self, operation: &'static str, error: Option<&'static str>, took: Duration) {
        self.0.metrics.store_operation(operation, error, took);
    }

    /// `None` if the clock panics.
    fn now(&self) -> Option<Instant> {
        catch_unwind(AssertUnwindSafe(|| self.0.clock.now().monotonic)).ok()
    }

    /// A panic in it is its own affair.
    fn observe(&self, tenant: Option<&TenantId>, error: &TokenError) {
        if let Some(observer) = &self.0.observer {
            let _ = catch_unwind(AssertUnwindSafe(|| observer(tenant, error)));
        }
    }
}

/// Of what no layer has.
impl Default for Telemetry {
    fn default() -> Self {
        Self::new("unnamed", Arc::new(SystemClock), None)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("name", &self.0.name).finish_non_exhaustive()
    }
}
