//! `Failing`: a partition that gets no new token now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::{Cell, Env, Partition};
use crate::types::{Scopes, TenantId, TokenError};

/// So many are told of: who is called at night needs to know whether it is one or many.
const MOST: usize = 100;

/// One of those that [`AuthHandle::failing`](crate::AuthHandle::failing) tells of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failing {
    /// Whose token it is, where tenants have tokens of their own.
    pub tenant: Option<TenantId>,
    /// The scopes of the request, where they are not those of the configuration.
    pub scopes: Option<Scopes>,
    /// The last failure.
    pub error: TokenError,
    /// When the first failure came since there was a token last.
    pub since: SystemTime,
    /// How long no token request is made; `None`: one is made when needed.
    pub next_attempt: Option<Duration>,
}

/// Those that have failed for the longest.
pub(super) fn of(cells: Vec<Arc<Cell>>, env: &Env) -> Vec<Failing> {
    let now = env.clock.now();
    let mut failing = Vec::new();
    for cell in cells {
        let Some((error, since, pause)) = cell.failing(&now) else { continue };
        failing.push((since, cell, error, pause));
        // Never many more than are told of, though all of a million fail.
        if failing.len() >= 2 * MOST {
            failing.sort_by_key(|(since, ..)| *since);
            failing.truncate(MOST);
        }
    }
    failing.sort_by_key(|(since, ..)| *since);
    failing.truncate(MOST);
    let told = |(since, cell, error, pause): (_, Arc<Cell>, _, Duration)| {
        let Partition { tenant, scopes, .. } = cell.partition().whole();
        let ago = now.monotonic.saturating_duration_since(since);
        Failing {
            tenant: tenant.or_else(|| env.fixed_tenant.clone()),
            scopes,
            error,
            since: now.wall.checked_sub(ago).unwrap_or(now.wall),
            next_attempt: Some(pause).filter(|pause| !pause.is_zero()),
        }
    };
    failing.into_iter().map(told).collect()
}
