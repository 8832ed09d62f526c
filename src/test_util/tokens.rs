//! The authorization server's books: which tokens it issued, to whom, and which of them live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::jwt;

/// For whom a token is: tokens of equal identities can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) client: String,
    /// In the order in which it was asked for.
    pub(super) scope: String,
    pub(super) tenant: Option<String>,
}

/// How access tokens are written.
pub(super) enum Format {
    Opaque,
    /// The clock that writes `iat` and `exp` is this many seconds ahead of the true time.
    Jwt {
        ahead: i64,
    },
}

/// All tokens of one server. None is ever forgotten, so that a test may ask for any of them.
pub(super) struct Tokens {
    /// Tells the tokens of two servers apart.
    server: u64,
    issued: u64,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    current: HashMap<Identity, String>,
    last: Option<String>,
    reuses: usize,
}

struct Access {
    identity: Identity,
    family: Option<u64>,
    expires: SystemTime,
    revoked: bool,
    /// The thumbprint of the key that it is bound to.
    key: Option<String>,
}

struct Refresh {
    identity: Identity,
    family: u64,
    state: RefreshState,
}

#[derive(PartialEq, Eq)]
enum RefreshState {
    Live,
    Spent,
    Revoked,
}

impl Tokens {
    pub(super) fn new() -> Self {
        static SERVERS: AtomicU64 = AtomicU64::new(1);
        Self {
            server: SERVERS.fetch_add(1, Ordering::Relaxed),
            issued: 0,
            access: HashMap::new(),
            refresh: HashMap::new(),
            current: HashMap::new(),
            last: None,
            reuses: 0,
        }
    }

    /// A new access token; `family` ties it to a refresh token.
    pub(super) fn issue(
        &mut self,
        identity: &Identity,
        family: Option<u64>,
        format: &Format,
        now: SystemTime,
        lifetime: Duration,
    ) -> String {
        let id = self.next_id();
        let expires = now.checked_add(lifetime).unwrap_or(now);
        let token = match *format {
            Format::Opaque => format!("access-{id}"),
            Format::Jwt { ahead } => jwt::mint(&jwt::Claims {
                subject: &identity.client,
                scope: &identity.scope,
                id: &id,
                issued: shift(now, ahead),
                expires: shift(expires, ahead),
            }),
        };
        let access = Access { identity: identity.clone(), family, expires, revoked: false, key: None };
        self.access.insert(token.clone(), access);
        self.current.insert(identity.clone(), token.clone());
        self.last = Some(token.clone());
        token
    }

    /// The newest token for `identity`, dead or alive.
    pub(super) fn current(&self, identity: &Identity) -> Option<&String> {
        self.current.get(identity)
    }

    /// The newest token of all.
    pub(super) fn last(&self) -> Option<&String> {
        self.last.as_ref()
    }

    pub(super) fn is_live(&self, token: &str, now: SystemTime) -> bool {
        self.access.get(token).is_some_and(|access| !access.revoked && now < access.expires)
    }

    pub(super) fn remaining(&self, token: &str, now: SystemTime) -> Duration {
        let expires = self.access.get(token).map(|access| access.expires);
        expires.and_then(|expires| expires.duration_since(now).ok()).unwrap_or_default()
    }

    pub(super) fn tenant(&self, token: &str) -> Option<&String> {
        self.access.get(token)?.identity.tenant.as_ref()
    }

    /// Only who has this key may use the token.
    pub(super) fn bind(&mut self, token: &str, key: Option<String>) {
        if let Some(access) = self.access.get_mut(token) {
            access.key = key;
        }
    }

    pub(super) fn key(&self, token: &str) -> Option<&String> {
        self.access.get(token)?.key.as_ref()
    }

    /// Whether there was such a token.
    pub(super) fn revoke(&mut self, token: &str) -> bool {
        let access = self.access.get_mut(token);
        access.map(|access| access.revoked = true).is_some()
    }

    pub(super) fn revoke_all(&mut self) {
        self.access.values_mut().for_each(|access| access.revoked = true);
    }

    pub(super) fn revoke_refresh(&mut self) {
        self.refresh.values_mut().for_each(|refresh| refresh.state = RefreshState::Revoked);
    }

    /// A new refresh token in `family`, or in a family of its own; gives the family too.
    pub(super) fn issue_refresh(&mut self, identity: &Identity, family: Option<u64>) -> (String, u64) {
        let token = format!("refresh-{}", self.next_id());
        let family = family.unwrap_or(self.issued);
        self.refresh.insert(token.clone(), Refresh { identity: identity.clone(), family, state: RefreshState::Live });
        (token, family)
    }

    /// For whom a refresh token is, and its family. With `rotate` it can be redeemed once; a second time kills the
    /// whole family (RFC 9700 §4.14.2).
    pub(super) fn redeem(&mut self, token: &str, client: &str, rotate: bool) -> Option<(Identity, u64)> {
        let refresh = self.refresh.get_mut(token).filter(|refresh| refresh.identity.client == client)?;
        let family = refresh.family;
        match refresh.state {
            RefreshState::Revoked => None,
            RefreshState::Spent => {
                self.reuses += 1;
                self.revoke_family(family);
                None
            }
            RefreshState::Live => {
                if rotate {
                    refresh.state = RefreshState::Spent;
                }
                Some((refresh.identity.clone(), family))
            }
        }
    }

    pub(super) fn reuses(&self) -> usize {
        self.reuses
    }

    /// A code for a person's sign-in, and the family of the tokens that will come of it.
    pub(super) fn new_code(&mut self) -> (String, u64) {
        (format!("code-{}", self.next_id()), self.issued)
    }

    pub(super) fn revoke_family(&mut self, family: u64) {
        for refresh in self.refresh.values_mut().filter(|refresh| refresh.family == family) {
            refresh.state = RefreshState::Revoked;
        }
        for access in self.access.values_mut().filter(|access| access.family == Some(family)) {
            access.revoked = true;
        }
    }

    fn next_id(&mut self) -> String {
        self.issued += 1;
        format!("{}-{}", self.server, self.issued)
    }
}

fn shift(time: SystemTime, seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { time.checked_sub(span) } else { time.checked_add(span) };
    shifted.unwrap_or(time)
}
