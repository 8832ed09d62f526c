//! `TokenError`: why no token could be obtained, told without a secret.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::BoxError;

/// Why no token could be obtained.
///
/// It never holds a body, a parser's message or a secret. Everybody who waited for the same token request gets the same
/// error: a clone shares it. Its `Display` says what to do.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2_client::{TokenError, TokenErrorKind};
///
/// let error = TokenError::transient(std::io::Error::other("the vault is sealed")).with_retry_after(Duration::from_secs(5));
/// assert_eq!(error.kind(), TokenErrorKind::SourceTransient);
/// assert!(error.is_transient());
/// assert_eq!(error.to_string(), "the token source failed; it is asked again after a pause");
/// ```
#[derive(Clone)]
pub struct TokenError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: TokenErrorKind,
    status: Option<StatusCode>,
    code: Option<ErrorCode>,
    detail: Option<Box<str>>,
    description: Option<Box<str>>,
    retry_after: Option<Duration>,
    held_back: bool,
    /// The name of the layer that failed.
    layer: Option<Arc<str>>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The class of a [`TokenError`]: what a program decides by.
///
/// It also decides for how long the failure is remembered, and requests without a token fail at once: transient classes
/// by the [`backoff`](crate::AuthConfigBuilder::backoff) or the server's `Retry-After`, lasting ones by the
/// [`permanent_failure_pause`](crate::AuthConfigBuilder::permanent_failure_pause); `Overloaded`, `NoRuntime` and
/// `Aborted` not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The authorization server could not be reached: name, connection, TLS.
    Unreachable,
    /// The authorization server did not answer completely in time.
    Timeout,
    /// It answered, but cannot serve now: 408, 425, 429, 5xx, or a page that is no OAuth2 answer (a proxy's, often).
    Unavailable,
    /// It answered with something that holds no usable token.
    Malformed,
    /// It refuses these credentials (`invalid_client`, or 401 without more).
    BadCredentials,
    /// It refuses this request for another lasting reason (`invalid_scope`, `unauthorized_client`, …).
    Refused,
    /// The grant is dead and there is no other: a person must sign in again.
    SignInAgain,
    /// It does not offer what is needed: an endpoint, this way to authenticate, the revocation of this kind of token
    /// (`unsupported_token_type`, RFC 7009 §2.2.1).
    Unsupported,
    /// It was to be found by its issuer (RFC 8414), and its metadata are missing, cannot be read, or name no secure token
    /// endpoint.
    BadMetadata,
    /// Its metadata are those of another issuer than the configured one (RFC 8414 §3.3).
    WrongIssuer,
    /// There is no such endpoint at the URL (404, 405, 410): most likely it is the wrong one.
    EndpointNotFound,
    /// It answered with a redirect, which is never followed: credentials would go elsewhere.
    Redirected,
    /// The token had expired on arrival and the provider forbids using it: one of the clocks is wrong.
    ClockSkew,
    /// Too many requests wait for a token already
    /// ([`max_waiters`](crate::AuthConfigBuilder::max_waiters)); the token request did not get its turn within
    /// [`token_timeout`](crate::AuthConfigBuilder::token_timeout), since too many others are in flight
    /// ([`max_concurrent_token_requests`](crate::AuthConfigBuilder::max_concurrent_token_requests)); or too many tenants
    /// that never had a token were refused one ([`max_partitions`](crate::AuthConfigBuilder::max_partitions)). Nothing was
    /// sent.
    Overloaded,
    /// The request was made outside a tokio runtime, where no token can be fetched.
    NoRuntime,
    /// The token request ended without a result: its source panicked, or its runtime shut down.
    Aborted,
    /// What the client authenticates with, or the assertion that it brings, could not be read or signed: a file, a function
    /// or your own signer. Nothing was sent.
    CredentialsUnavailable,
    /// A token that was set is used, but the store did not take it
    /// ([`AuthHandle::set_token`](crate::AuthHandle::set_token)).
    NotStored,
    /// The built-in HTTP client cannot be made: this machine has no CA certificates, or TLS cannot be set up.
    NoHttpClient,
    /// A user's own source failed in a way that may pass.
    SourceTransient,
    /// A user's own source failed in a way that will not pass by itself.
    SourcePermanent,
}

impl TokenErrorKind {
    /// A name for logs and metrics, such as `bad_credentials`. It is the `error.type` of the crate's own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::BadCredentials => "bad_credentials",
            Self::Refused => "refused",
            Self::SignInAgain => "sign_in_again",
            Self::Unsupported => "unsupported",
            Self::BadMetadata => "bad_metadata",
            Self::WrongIssuer => "wrong_issuer",
            Self::EndpointNotFound => "endpoint_not_found",
            Self::Redirected => "redirected",
            Self::ClockSkew => "clock_skew",
            Self::Overloaded => "overloaded",
            Self::NoRuntime => "no_runtime",
            Self::Aborted => "aborted",
            Self::CredentialsUnavailable => "credentials_unavailable",
            Self::NotStored => "not_stored",
            Self::NoHttpClient => "no_http_client",
            Self::SourceTransient => "source_transient",
            Self::SourcePermanent => "source_permanent",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "the authorization server could not be reached; check its URL, DNS, proxy and TLS trust"
            }
            Self::Timeout => {
                "the authorization server did not answer in time; it may be overloaded, or a proxy drops the connection"
            }
            Self::Unavailable => {
                "the authorization server cannot serve token requests now; it is asked again after a pause"
            }
            Self::Malformed => {
                "the answer of the token endpoint holds no usable token; check that the token URL is the right one"
            }
            Self::BadCredentials => {
                "the authorization server refuses the client credentials; check client id and secret, and how they are sent"
            }
            Self::Refused => "the authorization server refuses the token request; check grant, scopes and parameters",
            Self::SignInAgain => "the grant has ended; a person must sign in again",
            Self::Unsupported => "the authorization server does not offer what is asked for; check the configuration",
            Self::BadMetadata => {
                "the authorization server's metadata are not there or cannot be used; check the issuer, or configure the URLs"
            }
            Self::WrongIssuer => {
                "the authorization server is not the configured issuer; write the issuer exactly as the server does"
            }
            Self::EndpointNotFound => "nothing answers token requests at this URL; check it",
            Self::Redirected => {
                "the token endpoint answered with a redirect, which is never followed; configure the URL it points to"
            }
            Self::ClockSkew => {
                "the token had expired when it arrived; check the clocks of this machine and of the authorization server"
            }
            Self::Overloaded => "too many requests or tenants want a token now; try again later",
            Self::NoRuntime => "no tokio runtime is running here; call the service inside one",
            Self::Aborted => "the token request ended without a result: its source panicked or its runtime shut down",
            Self::CredentialsUnavailable => {
                "what the client identifies itself with is not there now; check the file, function or key it comes from"
            }
            Self::NotStored => "the token is used, but it could not be stored and may be lost with this process",
            Self::NoHttpClient => {
                "the HTTP client for token requests cannot be made; check the system's certificates (`ca-certificates`)"
            }
            Self::SourceTransient => "the token source failed; it is asked again after a pause",
            Self::SourcePermanent => "the token source failed",
        }
    }
}

impl Inner {
    fn new(kind: TokenErrorKind) -> Self {
        Self {
            kind,
            status: None,
            code: None,
            detail: None,
            description: None,
            retry_after: None,
            held_back: false,
            layer: None,
            cause: None,
        }
    }
}

impl TokenError {
    /// A failure of your own [`TokenSource`](crate::TokenSource) that may pass: the next attempt follows after a
    /// backoff.
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::SourceTransient).caused_by(cause.into())
    }

    /// A failure of your own [`TokenSource`](crate::TokenSource) that will not pass by itself: the next attempt follows
    /// after 30 s at the earliest.
    pub fn permanent(cause: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::SourcePermanent).caused_by(cause.into())
    }

    /// The grant is dead: a person must sign in again. Drops the cell's refresh token.
    pub fn sign_in_again() -> Self {
        Self::new(TokenErrorKind::SignInAgain)
    }

    /// No token request is made before this much time has passed (capped at 5 minutes by default).
    #[must_use]
    pub fn with_retry_after(self, pause: Duration) -> Self {
        self.with(|inner| inner.retry_after = Some(pause))
    }

    /// The class.
    pub fn kind(&self) -> TokenErrorKind {
        self.0.kind
    }

    /// The [`name`](crate::AuthConfigBuilder::name) of the layer that failed; `None` before a layer has seen the error. Part
    /// of `Display`, at its beginning.
    pub fn layer_name(&self) -> Option<&str> {
        self.0.layer.as_deref()
    }

    /// The HTTP status of the token endpoint's answer, where there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The `error` code of the answer (RFC 6749 §5.2), where there was one.
    pub fn code(&self) -> Option<&ErrorCode> {
        self.0.code.as_ref()
    }

    /// The `error_description` of the answer: at most 256 characters, control characters removed, the secrets that were
    /// sent masked. It is the server's text, not part of `Display`, and may tell more than you want in a log.
    pub fn error_description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// What was wrong, in a few words: where in the answer, never what it said. Part of `Display`.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// How long until the next token request is made, counted from the failure, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the failure may pass by itself.
    pub fn is_transient(&self) -> bool {
        use TokenErrorKind::*;
        match self.0.kind {
            Unreachable
            | Timeout
            | Unavailable
            | Malformed
            | EndpointNotFound
            | BadMetadata
            | ClockSkew
            | Overloaded
            | Aborted
            | CredentialsUnavailable
            | NotStored
            | SourceTransient => true,
            BadCredentials | Refused | SignInAgain | Unsupported | WrongIssuer | Redirected | NoRuntime
            | NoHttpClient | SourcePermanent => false,
        }
    }

    pub(crate) fn new(kind: TokenErrorKind) -> Self {
        Self(Arc::new(Inner::new(kind)))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The same failure, of another class by what is known besides.
    pub(crate) fn of_kind(self, kind: TokenErrorKind) -> Self {
        self.with(|inner| inner.kind = kind)
    }

    /// Nothing was sent: the bounds of the token endpoint did not let the request through.
    pub(crate) fn held_back(self) -> Self {
        self.with(|inner| inner.held_back = true)
    }

    /// Unless a layer within this one has failed and given its name.
    pub(crate) fn in_layer(self, name: &Arc<str>) -> Self {
        if self.0.layer.is_some() { self } else { self.with(|inner| inner.layer = Some(name.clone())) }
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.0.held_back
    }

    /// The error as others are told it who did not ask themselves: without the server's words, which are not for them.
    pub(crate) fn for_others(&self, pause: Duration) -> Self {
        let Inner { kind, status, code, detail, layer, .. } = &*self.0;
        Self(Arc::new(Inner {
            status: *status,
            code: code.clone(),
            detail: detail.clone(),
            layer: layer.clone(),
            retry_after: Some(pause),
            held_back: true,
            ..Inner::new(*kind)
        }))
    }

    pub(crate) fn caused_by(self, cause: BoxError) -> Self {
        self.with(|inner| inner.cause = Some(Arc::from(cause)))
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        self.with(|inner| inner.status = Some(status))
    }

    pub(crate) fn with_code(self, code: ErrorCode) -> Self {
        self.with(|inner| inner.code = Some(code))
    }

    pub(crate) fn with_detail(self, detail: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.detail = Some(detail.into()))
    }

    pub(crate) fn with_description(self, description: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.description = Some(description.into()))
    }

    /// As tonic's generated clients tell it: code `Unavailable` (gRFC A97), the cause behind it.
    #[cfg(feature = "tonic")]
    pub(crate) fn to_status(&self) -> tonic::Status {
        let mut status = tonic::Status::unavailable(self.to_string());
        if let Some(cause) = &self.0.cause {
            status.set_source(cause.clone());
        }
        status
    }

    /// What a source's boxed error is: one of ours as it stands (also from below a tower layer), any other a transient
    /// one.
    pub(crate) fn from_box(error: BoxError) -> Self {
        Self::from_box_or(error, || Self::new(TokenErrorKind::SourceTransient))
    }

    /// As [`from_box`](Self::from_box), where another's error is the cause of `other`.
    pub(crate) fn from_box_or(error: BoxError, other: impl FnOnce() -> Self) -> Self {
        let mut source: Option<&(dyn StdError + 'static)> = Some(&*error);
        while let Some(inner) = source {
            if let Some(own) = inner.downcast_ref::<TokenError>() {
                return own.clone();
            }
            source = inner.source();
        }
        other().caused_by(error)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = &self.0.layer {
            write!(f, "{layer}: ")?;
        }
        f.write_str(self.0.kind.sentence())?;
        match (&self.0.status, &self.0.code) {
            (Some(status), Some(code)) => write!(f, " (status {}, error {code})", status.as_u16())?,
            (Some(status), None) => write!(f, " (status {})", status.as_u16())?,
            (None, Some(code)) => write!(f, " (error {code})")?,
            (None, None) => {}
        }
        if let Some(detail) = &self.0.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// Leaves the server's description out: it is foreign text.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("layer", &self.0.layer)
            .field("kind", &self.0.kind)
            .field("status", &self.0.status)
            .field("code", &self.0.code)
            .field("detail", &self.0.detail)
            .field("retry_after", &self.0.retry_after)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl StdError for TokenError {
    /// A [`TransportError`](crate::TransportError) where the authorization server could not be reached or did not answer, and
    /// the error of your own source, function or signer where that failed. No other error of an exchange is kept.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// The `error` code of a token endpoint's answer (RFC 6749 §5.2): at most 64 characters of `[A-Za-z0-9_.:/-]`.
///
/// Anything else is not a code, and is not kept: it could be a secret echoed back.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ErrorCode(Box<str>);

impl ErrorCode {
    pub(crate) fn new(code: &str) -> Option<Self> {
        let fits =
            (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b));
        fits.then(|| Self(code.into()))
    }

    /// The code as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({})", self.0)
    }
}
