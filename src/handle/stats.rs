//! `Stats`: what happened so far.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::{Engine, Slot};
use crate::store::StoreStats;
use crate::types::TokenError;

/// What [`AuthHandle::stats`](crate::AuthHandle::stats) tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Partitions with a slot: one, plus one for each tenant or set of scopes with tokens of its own.
    pub partitions: usize,
    /// Token requests made; with a store, those that it answered among them.
    pub token_requests: u64,
    /// Token requests that brought no token.
    pub token_failures: u64,
    /// Refreshes that the storm rule forbade.
    pub suppressed_refreshes: u64,
    /// The generation of the current token; `None` if there is none.
    pub generation: Option<u64>,
    /// When the current token expires; `None` if there is none or its end is unknown.
    pub expires_at: Option<SystemTime>,
    /// Whether a token request is under way.
    pub refreshing: bool,
    /// The last failure, also if a later token request succeeded.
    pub last_error: Option<Arc<TokenError>>,
    /// How long no token request is made because of that failure; `None`: one is made when needed.
    pub next_attempt: Option<Duration>,
    /// What the store did, over all partitions, for a layer that was made with one.
    pub store: Option<StoreStats>,
}

impl Stats {
    pub(super) fn of(slot: &Slot, engine: &Engine) -> Self {
        let slot = slot.stats(engine);
        Self {
            partitions: 1,
            token_requests: slot.token_requests,
            token_failures: slot.failures,
            suppressed_refreshes: slot.suppressed,
            generation: slot.current.as_ref().map(|current| current.generation),
            expires_at: slot.current.as_ref().and_then(|current| current.lifetime.expires_at()),
            refreshing: slot.flying,
            last_error: slot.last_error,
            next_attempt: slot.next_attempt,
            store: None,
        }
    }
}
