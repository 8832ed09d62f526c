//! `Stats`: what happened so far.

use std::time::{Duration, SystemTime};

use crate::engine::{Cell, Env};
use crate::store::StoreStats;
use crate::types::TokenError;

/// What [`AuthHandle::stats`](crate::AuthHandle::stats) tells.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Partitions with a cell: one, plus one for each tenant or set of scopes with tokens of its own.
    pub partitions: usize,
    /// Token requests made; with a store, those that it answered among them. Not among them are those that the bounds of the
    /// token endpoint held back ([`Overloaded`](crate::TokenErrorKind::Overloaded), an endpoint that is down).
    pub token_requests: u64,
    /// Token requests that brought no token.
    pub token_failures: u64,
    /// Refreshes that the rejection limiter forbade; its bound, 13 a minute, is for each partition.
    pub suppressed_refreshes: u64,
    /// The generation of the current token; `None` if there is none.
    pub generation: Option<u64>,
    /// When the current token expires; `None` if there is none or its end is unknown.
    pub expires_at: Option<SystemTime>,
    /// Whether a token request is in flight.
    pub refreshing: bool,
    /// The last failure, also if a later token request succeeded.
    pub last_error: Option<TokenError>,
    /// How long no token request is made because of that failure; `None`: one is made when needed.
    pub next_attempt: Option<Duration>,
    /// What the store did, over all partitions, for a layer that was made with one.
    pub store: Option<StoreStats>,
}

impl Stats {
    pub(super) fn of(cell: &Cell, env: &Env) -> Self {
        let cell = cell.stats(env);
        Self {
            partitions: 1,
            token_requests: cell.token_requests,
            token_failures: cell.failures,
            suppressed_refreshes: cell.suppressed,
            generation: cell.current.as_ref().map(|current| current.generation),
            expires_at: cell.current.as_ref().and_then(|current| current.lifetime.expires_at()),
            refreshing: cell.refreshing,
            last_error: cell.last_error,
            next_attempt: cell.next_attempt,
            store: None,
        }
    }
}
