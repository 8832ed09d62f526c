//! `Telemetry`: what operators see of a layer, under its name: events, spans, metrics, and the observer of failures.
//!
//! All of it is told from here, and nothing of it holds a secret, a tenant or a path: what comes from outside was masked before.
//! Subscribers, recorders and observers are foreign code, so nothing here is called while a lock is held.

mod events;
mod repeats;
mod spans;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::types::{Clock, SystemClock, TenantId, TokenError};
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
}

impl Telemetry {
    pub(crate) fn new(name: &str, clock: Arc<dyn Clock>, observer: Option<Observer>) -> Self {
        Self(Arc::new(Inner { name: name.into(), clock, repeats: Repeats::default(), observer }))
    }

    /// The same for a table of tokens that a layer needs to have its own. Its failures are told with those of the others.
    pub(crate) fn of_inner_table(&self) -> Self {
        Self::new(self.name(), self.0.clock.clone(), None)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The error with the layer's name, unless it has one already: that of a layer within this one, which failed first.
    pub(crate) fn named(&self, error: TokenError) -> TokenError {
        error.in_layer(&self.0.name)
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
