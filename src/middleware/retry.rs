//! `RetryTokenErrors`: a `tower::retry` policy for requests that were not sent since there was no token.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::time::{Sleep, sleep};
use tower::retry::Policy;
use tower::retry::budget::{Budget, TpsBudget};

use crate::types::{BoxError, Error, TokenError};

/// A [`tower::retry`] policy for token failures that may pass by themselves (feature `retry`).
///
/// It repeats a request that was *not sent*, since there was no token to send it with, where
/// [`Error::is_retryable`](crate::Error::is_retryable) says that there may be one later. So it repeats any method safely. It
/// waits as long as [`retry_after`](crate::Error::retry_after) says, since an attempt before that gets the same error without a
/// token request. It leaves everything else alone: responses of any status, and errors of the HTTP client.
///
/// It goes outside of `AuthLayer`, inside of the total timeout:
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::time::Duration;
/// use tower::retry::RetryLayer;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_oauth2_client::RetryTokenErrors;
/// use tower_oauth2_client::test_util::{Fault, World};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth2_client::BoxError> {
/// let world = World::new();
/// world.auth.script([Fault::RetryAfter(503, 3)]); // the authorization server restarts
/// let client = ServiceBuilder::new()
///     .timeout(Duration::from_secs(30))
///     .layer(RetryLayer::new(RetryTokenErrors::new()))
///     .layer(world.layer(world.config())?)
///     .service(world.api.clone());
/// let request = http::Request::post("https://api.example.com/items").body(String::from("an item"))?;
/// assert_eq!(client.oneshot(request).await?.status(), 200);
/// # Ok(()) }
/// # }
/// ```
///
/// Each request is attempted three times at most, no pause is longer than 10 s, and retries of all requests together stay
/// within a budget: tower's default, one retry for five requests and ten a second besides.
///
/// **Bodies.** tower clones a request before it is sent, so that this policy needs `B: Clone` (and sends a `reqwest::Request`
/// with a stream once). In front of tonic there is none: its bodies cannot be cloned, and a stack of `Retry` over a tonic
/// client does not compile. There the caller repeats the call, whose message it still has: without a token a call ends with
/// the code `Unavailable`, and [`TokenError::retry_after`](crate::TokenError::retry_after) is in the status' sources.
pub struct RetryTokenErrors<Bu = TpsBudget> {
    /// Of this request.
    retries: u32,
    max_retries: u32,
    max_pause: Duration,
    budget: Arc<Bu>,
}

impl RetryTokenErrors {
    /// Two retries, pauses of up to 10 s, tower's default budget.
    pub fn new() -> Self {
        Self { retries: 0, max_retries: 2, max_pause: Duration::from_secs(10), budget: Arc::default() }
    }
}

impl<Bu> RetryTokenErrors<Bu> {
    /// How often a request is tried again, beside its first attempt.
    #[must_use]
    pub fn max_retries(self, retries: u32) -> Self {
        Self { max_retries: retries, ..self }
    }

    /// The longest pause before a retry; where a longer one is needed the caller gets the error at once.
    #[must_use]
    pub fn max_pause(self, pause: Duration) -> Self {
        Self { max_pause: pause, ..self }
    }

    /// A budget of your own, or one that other policies share. Requests that need no token retry are its deposits.
    #[must_use]
    pub fn budget<Other>(self, budget: Arc<Other>) -> RetryTokenErrors<Other> {
        let Self { retries, max_retries, max_pause, .. } = self;
        RetryTokenErrors { retries, max_retries, max_pause, budget }
    }
}

impl<Bu: Budget> RetryTokenErrors<Bu> {
    /// The pause before the next attempt; `None`: the caller gets the result.
    fn pause(&mut self, error: Option<&TokenError>) -> Option<Duration> {
        let Some(error) = error.filter(|error| error.is_transient()) else {
            self.budget.deposit();
            return None;
        };
        // Where nobody knows: 0.5 s, 1 s, 2 s, ...
        let unknown = Duration::from_millis(500).saturating_mul(1_u32 << self.retries.min(16));
        let pause = error.retry_after().unwrap_or(unknown);
        if self.retries >= self.max_retries || pause > self.max_pause || !self.budget.withdraw() {
            return None;
        }
        self.retries = self.retries.saturating_add(1);
        Some(pause)
    }
}

/// Clones what can be cloned.
#[allow(private_bounds, reason = "the private bound is the seal")]
impl<B: Clone, Res, E: Failure, Bu: Budget> Policy<Request<B>, Res, E> for RetryTokenErrors<Bu> {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<Res, E>) -> Option<Sleep> {
        self.pause(result.as_ref().err().and_then(Failure::token_error)).map(sleep)
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// A request whose body is a stream is sent once.
#[cfg(feature = "reqwest")]
#[allow(private_bounds, reason = "the private bound is the seal")]
impl<Res, E: Failure, Bu: Budget> Policy<reqwest::Request, Res, E> for RetryTokenErrors<Bu> {
    type Future = Sleep;

    fn retry(&mut self, _: &mut reqwest::Request, result: &mut Result<Res, E>) -> Option<Sleep> {
        self.pause(result.as_ref().err().and_then(Failure::token_error)).map(sleep)
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}

/// [`Error`], or the same boxed by a layer between: a timeout, a buffer, a limit.
trait Failure {
    fn token_error(&self) -> Option<&TokenError>;
}

impl Failure for Error {
    fn token_error(&self) -> Option<&TokenError> {
        self.token()
    }
}

impl Failure for BoxError {
    fn token_error(&self) -> Option<&TokenError> {
        let mut source: Option<&(dyn StdError + 'static)> = Some(&**self);
        while let Some(error) = source {
            if let Some(ours) = error.downcast_ref::<Error>() {
                return ours.token();
            }
            source = error.source();
        }
        None
    }
}

impl Default for RetryTokenErrors {
    fn default() -> Self {
        Self::new()
    }
}

/// Clones share the budget.
impl<Bu> Clone for RetryTokenErrors<Bu> {
    fn clone(&self) -> Self {
        let Self { retries, max_retries, max_pause, ref budget } = *self;
        Self { retries, max_retries, max_pause, budget: budget.clone() }
    }
}

impl<Bu> fmt::Debug for RetryTokenErrors<Bu> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryTokenErrors")
            .field("max_retries", &self.max_retries)
            .field("max_pause", &self.max_pause)
            .finish_non_exhaustive()
    }
}
