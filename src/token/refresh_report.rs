//! `RefreshReport`: what a source tells of the refresh token beside its result, however many tower layers stand between.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::granted::{Failed, Granted, HeldRefreshToken, RefreshChange, RefreshDigest, RefreshFate, RefreshOwner};
use super::{RefreshToken, Token, TokenRequest};
use crate::types::{Secret, TokenError, TokenErrorKind};

/// What became of the refresh token of one token request.
///
/// `Token` and `TokenError` are what users write and layers pass on; this goes round them. So it is right too where a layer
/// drops the request, replaces its error or makes it again.
#[derive(Debug, Default)]
pub(crate) struct RefreshReport(Mutex<Reported>);

#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    /// The source tells what it sends. Others may send whatever they are given.
    told: bool,
    sent: Option<RefreshDigest>,
    /// It was sent and there is no answer yet.
    unanswered: bool,
    fate: RefreshFate,
    /// One that the server said is dead, whatever was sent after it.
    dead: Option<RefreshDigest>,
    /// A store has the token that is returned, and with it a refresh token of this number.
    stored: Option<Stored>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    number: u64,
    single_use: bool,
}

impl RefreshReport {
    /// What is sent will be told.
    pub(crate) fn begin(&self) {
        self.lock().told = true;
    }

    /// What is sent is up to the source again, which may tell or not.
    pub(crate) fn passed_on(&self) {
        self.lock().told = false;
    }

    /// This refresh token goes out now.
    pub(crate) fn sending(&self, refresh_token: &Secret<String>) {
        let mut reported = self.lock();
        let sent = RefreshDigest::of(refresh_token);
        if reported.sent != Some(sent) {
            reported.fate = RefreshFate::Untouched;
        }
        *reported = Reported { told: true, sent: Some(sent), unanswered: true, ..*reported };
    }

    /// What came of it. A later answer does not mend what an earlier one may have spent.
    pub(crate) fn answered(&self, fate: RefreshFate) {
        let mut reported = self.lock();
        reported.unanswered = false;
        reported.fate = reported.fate.max(fate);
        if fate == RefreshFate::Dead {
            reported.dead = reported.sent;
        }
    }

    /// The result is as a store has it. Its refresh token, if it comes with one, is a copy.
    pub(crate) fn stored(&self, number: u64, single_use: bool) {
        self.lock().stored = Some(Stored { number, single_use });
    }

    /// The result as the crate knows it. `request`: what the source was asked for.
    pub(crate) fn judge(&self, asked: &Asked, result: Result<Token, TokenError>) -> Result<Granted, Failed> {
        let reported = *self.lock();
        let sent = if reported.told { reported.sent } else { asked.carried };
        let mut token = match result {
            Ok(token) => token,
            Err(error) => {
                let dead = error.kind() == TokenErrorKind::SignInAgain && sent.is_some();
                let refresh = if dead { RefreshFate::Dead } else { reported.without_answer() };
                return Err(Failed { error, refresh, sent });
            }
        };
        let refresh = match std::mem::take(&mut token.refresh_token) {
            RefreshToken::Keep => RefreshChange::Unchanged,
            RefreshToken::Drop => RefreshChange::Removed,
            RefreshToken::Replace(secret) => {
                let (number, owner) = match reported.stored {
                    Some(Stored { number, single_use }) => (number, RefreshOwner::Store { single_use }),
                    None => (asked.number.saturating_add(1), RefreshOwner::Cell),
                };
                RefreshChange::Replaced(HeldRefreshToken { secret, number, owner })
            }
        };
        Ok(Granted { token, refresh, sent, dead: reported.dead, from_store: reported.stored.is_some() })
    }

    /// The request ended without a result: its deadline passed, it panicked, or its runtime ended.
    pub(crate) fn unfinished(&self, asked: &Asked, error: TokenError) -> Failed {
        let reported = *self.lock();
        if !reported.told {
            let refresh = if asked.carried.is_some() { RefreshFate::MaybeSpent } else { RefreshFate::Untouched };
            return Failed { error, refresh, sent: asked.carried };
        }
        Failed { error, refresh: reported.without_answer(), sent: reported.sent }
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reported {
    fn without_answer(&self) -> RefreshFate {
        if self.unanswered { self.fate.max(RefreshFate::MaybeSpent) } else { self.fate }
    }
}

/// What a report must know of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    carried: Option<RefreshDigest>,
    number: u64,
}

impl Asked {
    pub(crate) fn of(request: &TokenRequest) -> Self {
        Self { carried: request.refresh_token.as_ref().map(RefreshDigest::of), number: request.refresh_number }
    }
}
