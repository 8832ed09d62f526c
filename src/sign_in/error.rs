//! `SignInError`: why a person's sign-in brought no token, told without a secret.

use std::error::Error as StdError;
use std::fmt;

use crate::token::{Failed, RefreshFate};
use crate::types::{ErrorCode, TokenError};

/// Why a sign-in brought no token. The next attempt is a new [`SignIn`](crate::SignIn) or
/// [`DeviceSignIn`](crate::DeviceSignIn), whatever the reason: a code is never sent twice.
///
/// It never holds the code, the `state`, the code verifier or a part of the redirect other than a checked error code. Its
/// `Display` says what to do.
#[derive(Clone)]
pub struct SignInError {
    kind: SignInErrorKind,
    code: Option<ErrorCode>,
    description: Option<Box<str>>,
    detail: Option<Box<str>>,
    cause: Option<TokenError>,
}

/// The class of a [`SignInError`]: what a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignInErrorKind {
    /// This layer cannot sign anybody in: its configuration has another grant, or each tenant has its own token and none was
    /// named.
    Unsupported,
    /// What came back is no answer of an authorization server, or what was saved is no sign-in.
    Malformed,
    /// What came back does not belong to this sign-in: its `state` is missing or another. Somebody may be trying to sign
    /// your user in as somebody else (RFC 6749 §10.12).
    WrongState,
    /// It came from another authorization server, or does not say from which although it must (RFC 9207 §2.4).
    WrongIssuer,
    /// The person, or the server on their behalf, said no (`access_denied`).
    Denied,
    /// The person did not sign in in time: on their device (`expired_token`, RFC 8628 §3.5), or in their browser.
    Expired,
    /// The authorization server refused to ask the person, for another reason (`invalid_scope`, `unauthorized_client`,
    /// `login_required`, …).
    Refused,
    /// The authorization server could not ask the person now (`temporarily_unavailable`, `server_error`).
    Unavailable,
    /// The client was replaced by another one since the sign-in began
    /// ([`replace_credentials`](crate::AuthHandle::replace_credentials)): a token for the former one is not used.
    ClientReplaced,
    /// The server does not take the code (`invalid_grant`): it was used already, took too long, or belongs to another client,
    /// redirect URI or verifier.
    CodeRefused,
    /// The code was sent and no usable answer came: it may be spent, and is not sent again.
    AnswerLost,
    /// A request to the authorization server failed in another way; [`token_error`](SignInError::token_error) says how.
    Failed,
}

impl SignInErrorKind {
    fn sentence(self) -> &'static str {
        match self {
            Self::Unsupported => "this layer cannot sign anybody in",
            Self::Malformed => "what came back from the sign-in cannot be read; pass the whole redirect, or its query",
            Self::WrongState => "what came back belongs to another sign-in, or is forged; nothing was sent",
            Self::WrongIssuer => "what came back is from another authorization server; nothing was sent",
            Self::Denied => "the sign-in was denied",
            Self::Expired => "nobody signed in in time; begin another sign-in",
            Self::Refused => {
                "the authorization server refuses the sign-in; check client id, redirect URI, scopes and parameters"
            }
            Self::Unavailable => "the authorization server cannot sign anybody in now; try again later",
            Self::ClientReplaced => "the client was replaced by another since this sign-in began; sign in again",
            Self::CodeRefused => {
                "the code is not taken: it was used before, is too old, or belongs to another client or redirect URI; \
                 sign in again"
            }
            Self::AnswerLost => "the code was sent and no usable answer came; it is not sent twice, sign in again",
            Self::Failed => "the sign-in brought no token; sign in again",
        }
    }
}

impl SignInError {
    /// The class.
    pub fn kind(&self) -> SignInErrorKind {
        self.kind
    }

    /// The `error` code of the redirect (RFC 6749 §4.1.2.1) or of the token endpoint's answer (§5.2), where there was one.
    pub fn code(&self) -> Option<&ErrorCode> {
        self.code.as_ref().or_else(|| self.token_error()?.code())
    }

    /// The server's `error_description`: at most 256 characters, control characters removed, the secrets that were sent
    /// masked. It is the server's text, not part of `Display`, and may tell more than you want in a log or on a page.
    pub fn error_description(&self) -> Option<&str> {
        self.description.as_deref().or_else(|| self.token_error()?.error_description())
    }

    /// What was wrong, in a few words, never what it said. Part of `Display`.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The failure of the exchange, if there was one.
    pub fn token_error(&self) -> Option<&TokenError> {
        self.cause.as_ref()
    }

    pub(super) fn new(kind: SignInErrorKind) -> Self {
        Self { kind, code: None, description: None, detail: None, cause: None }
    }

    pub(super) fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn with_code(mut self, code: Option<ErrorCode>, description: Option<String>) -> Self {
        self.code = code;
        self.description = description.map(Into::into);
        self
    }

    pub(super) fn caused_by(mut self, error: TokenError) -> Self {
        self.cause = Some(error);
        self
    }

    /// What went wrong before or after the exchange of a code.
    pub(super) fn failed(error: TokenError) -> Self {
        Self::new(SignInErrorKind::Failed).caused_by(error)
    }

    /// What went wrong in the exchange of a code.
    pub(super) fn exchange_failed(failed: Failed) -> Self {
        let kind = if failed.error.code().is_some_and(|code| code.as_str() == "invalid_grant") {
            SignInErrorKind::CodeRefused
        } else if failed.refresh == RefreshFate::MaybeSpent {
            SignInErrorKind::AnswerLost
        } else {
            SignInErrorKind::Failed
        };
        Self::new(kind).caused_by(failed.error)
    }
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.sentence())?;
        if let Some(code) = &self.code {
            write!(f, " (error {code})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// Leaves the server's description out: it is foreign text.
impl fmt::Debug for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInError")
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("detail", &self.detail)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl StdError for SignInError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
