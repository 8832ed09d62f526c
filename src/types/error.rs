//! What a request can fail with, and what a configuration can be wrong in.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use super::TokenError;

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What a request through [`Auth`](crate::Auth) can fail with.
///
/// A token that was rejected is not an error: the response is handed out as it came. An error means that there is no
/// response.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The inner service failed. [`service_ref`](Error::service_ref) gives its error by type.
    Service(BoxError),
    /// There was no token to send the request with; the request was not sent.
    Token(TokenError),
    /// The same for a tonic client, which finds the `Status` in the chain of sources.
    #[cfg(feature = "tonic")]
    #[non_exhaustive]
    GrpcToken {
        /// Why there was none.
        error: TokenError,
        /// The same as generated clients return it: of code `Unavailable`.
        status: tonic::Status,
    },
    /// The request names a host that may not receive tokens, or names its host ambiguously; it was not sent.
    #[non_exhaustive]
    Origin {
        /// Scheme, host and port of the request, as far as it names them. Never its path or query.
        origin: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The request's tenant is missing, malformed or contradicts itself; it was not sent.
    #[non_exhaustive]
    Tenant {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The request's subject token is missing where one is needed, or there where nothing would use it; it was not sent.
    #[non_exhaustive]
    Subject {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The request itself cannot carry credentials; it was not sent.
    Request(BoxError),
}

impl Error {
    /// The inner service's error, if it was that and is of type `E`.
    ///
    /// ```
    /// use tower_oauth2_client::Error;
    ///
    /// let error = Error::Service(Box::new(std::io::Error::other("connection reset")));
    /// assert!(error.service_ref::<std::io::Error>().is_some());
    /// ```
    pub fn service_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match self {
            Error::Service(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// The token failure, if it was that.
    pub fn token(&self) -> Option<&TokenError> {
        match self {
            Error::Token(error) => Some(error),
            #[cfg(feature = "tonic")]
            Error::GrpcToken { error, .. } => Some(error),
            _ => None,
        }
    }

    /// [`Token`](Error::Token) as a tonic client needs it: `Status::from_error` makes any other error `Unknown`.
    #[cfg(feature = "tonic")]
    pub(crate) fn grpc_token(error: TokenError) -> Self {
        let status = error.to_status();
        Error::GrpcToken { error, status }
    }

    /// Whether the same request may succeed later without anybody mending anything.
    ///
    /// A retry layer outside should ask this: a token failure is remembered here, so that a retry before
    /// [`retry_after`](Error::retry_after) makes no token request and gets the same error again. Errors of the inner
    /// service are not judged (`false`): whether *they* may be retried depends on what was sent.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth2_client::Error;
    ///
    /// /// How long a retry layer outside waits; `None`: the caller gets the error.
    /// fn pause_before_retry(error: &Error) -> Option<Duration> {
    ///     error.is_retryable().then(|| error.retry_after().unwrap_or(Duration::from_secs(1)))
    /// }
    /// # assert_eq!(pause_before_retry(&Error::Request("a header".into())), None);
    /// ```
    pub fn is_retryable(&self) -> bool {
        self.token().is_some_and(TokenError::is_transient)
    }

    /// How long to wait before a retry makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.token().and_then(TokenError::retry_after)
    }
}

const NO_TOKEN: &str = "no token to send the request with";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Service(_) => f.write_str("the HTTP service failed"),
            Error::Token(_) => f.write_str(NO_TOKEN),
            #[cfg(feature = "tonic")]
            Error::GrpcToken { .. } => f.write_str(NO_TOKEN),
            Error::Origin { origin, reason } => write!(f, "{origin} {reason}; the request was not sent"),
            Error::Tenant { reason } | Error::Subject { reason } => write!(f, "{reason}; the request was not sent"),
            Error::Request(_) => f.write_str("the request cannot carry credentials and was not sent"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Service(error) | Error::Request(error) => Some(&**error),
            Error::Token(error) => Some(error),
            #[cfg(feature = "tonic")]
            Error::GrpcToken { status, .. } => Some(status),
            Error::Origin { .. } | Error::Tenant { .. } | Error::Subject { .. } => None,
        }
    }
}

/// What is wrong with a configuration, and how to mend it. It never quotes a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    what: Cow<'static, str>,
    mend: &'static str,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<Cow<'static, str>>, mend: &'static str) -> Self {
        Self { what: what.into(), mend }
    }

    /// The same, said of one of several configurations.
    #[cfg(feature = "serde")]
    pub(crate) fn of(self, whose: impl fmt::Display) -> Self {
        Self { what: format!("{whose}: {}", self.what).into(), mend: self.mend }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.mend)
    }
}

/// The same as `Display`, so that `unwrap()` in a `main` prints something to act on.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError({self})")
    }
}

impl StdError for ConfigError {}
