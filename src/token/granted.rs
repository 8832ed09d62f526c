//! `Granted` and `Failed`: what a source returns inside the crate, with what became of the refresh token.

use std::fmt;

use super::{RefreshToken, Token};
use crate::types::{Digest, Secret, TokenError};

/// A token, and what its answer means for the refresh token.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Without a refresh token: that is in `refresh`.
    pub(crate) token: Token,
    pub(crate) refresh: RefreshChange,
    /// The refresh token that was sent.
    pub(crate) sent: Option<RefreshDigest>,
    /// One that was sent before it and turned out dead.
    pub(crate) dead: Option<RefreshDigest>,
    /// A store had the token, or has it now.
    pub(crate) from_store: bool,
}

/// What an answer means for the refresh token (RFC 6749 §6).
#[derive(Debug)]
pub(crate) enum RefreshChange {
    /// The one held stays good.
    Unchanged,
    /// It is replaced.
    Replaced(HeldRefreshToken),
    /// It is dead, and there is no other.
    Removed,
}

/// As a token is told it that goes through layers once more.
impl From<RefreshChange> for RefreshToken {
    fn from(change: RefreshChange) -> Self {
        match change {
            RefreshChange::Unchanged => RefreshToken::Keep,
            RefreshChange::Replaced(new) => RefreshToken::Replace(new.secret),
            RefreshChange::Removed => RefreshToken::Drop,
        }
    }
}

/// Why there is no token, and what that means for the refresh token.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) error: TokenError,
    pub(crate) refresh: RefreshFate,
    /// The refresh token that was sent.
    pub(crate) sent: Option<RefreshDigest>,
}

/// What a failure means for the refresh token that was sent. The worse is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefreshFate {
    /// It is as good as before.
    #[default]
    Untouched,
    /// It was sent and no usable answer came: the server may have replaced it.
    MaybeSpent,
    /// The server says that it is dead.
    Dead,
}

impl Failed {
    pub(crate) fn maybe_spent(error: TokenError) -> Self {
        Self { refresh: RefreshFate::MaybeSpent, ..Self::from(error) }
    }

    pub(crate) fn dead(error: TokenError) -> Self {
        Self { refresh: RefreshFate::Dead, ..Self::from(error) }
    }

    /// What the failure is told as, and nothing else of it changes.
    pub(crate) fn map(self, tell: impl FnOnce(TokenError) -> TokenError) -> Self {
        Self { error: tell(self.error), ..self }
    }
}

/// Nothing was sent, or nothing came of it.
impl From<TokenError> for Failed {
    fn from(error: TokenError) -> Self {
        Self { error, refresh: RefreshFate::Untouched, sent: None }
    }
}

/// A refresh token as its cell holds it.
#[derive(Clone, Debug)]
pub(crate) struct HeldRefreshToken {
    pub(crate) secret: Secret<String>,
    /// The predecessor's plus one: of two, the one with the higher number is newer.
    pub(crate) number: u64,
    pub(crate) owner: RefreshOwner,
}

impl HeldRefreshToken {
    pub(crate) fn digest(&self) -> RefreshDigest {
        RefreshDigest::of(&self.secret)
    }
}

/// Who keeps the refresh token of a cell, and so has the newest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RefreshOwner {
    /// The cell: it was set, or came with a token that no store keeps.
    #[default]
    Cell,
    /// The configuration brought it. Whatever a store has came later.
    Configuration,
    /// A store outside the process; the cell has a copy, which may be old. `single_use`: the server replaces it each time,
    /// as far as is known, so that a copy must not be used.
    Store { single_use: bool },
}

/// Tells refresh tokens apart and shows none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshDigest([u8; 32]);

impl RefreshDigest {
    pub(crate) fn of(refresh_token: &Secret<String>) -> Self {
        let mut digest = Digest::new("refresh token");
        digest.field("token", refresh_token.expose());
        Self(digest.finish())
    }
}

/// Nothing of it: a short refresh token could be guessed from its digest.
impl fmt::Debug for RefreshDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshDigest")
    }
}
