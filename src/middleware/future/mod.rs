//! `ResponseFuture`: send, judge, wait, resend. The whole rule of the one resend can be read here.
//!
//! ```text
//! Waiting --token--> Sent --rejected--> Recovering --newer token--> Resent --> response
//!    |                 |                     |
//!    +--> error        +--> response         +--> the original response
//! ```
//!
//! A request is resent at most once by construction: nothing leads from `Resent` back. What happens within one sending,
//! such as a proof of possession for it, is the business of the service inside ([`Prove`](super::prove::Prove)).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::prove::{ProveFuture, service_error};
use super::shared::{BodySupport, BodySupportOf, Handle};
use crate::engine::Cell;
use crate::request::{HttpRequest, HttpResponse, Plan};
use crate::response::{AuthChallenge, Verdict, is_success};
use crate::telemetry::Telemetry;
use crate::types::{AuthOutcome, BoxError, Error, RefreshFailed, TokenError};

mod recover;
mod wait;

use recover::{Recovered, Recovery, Resent};
pub(crate) use wait::Waiting;

pin_project! {
    /// The response future of [`Auth`](crate::Auth).
    ///
    /// Dropping it cancels the request, never a token request that it started or joined.
    ///
    /// `F` and `T` are the future and the response of `S: Service<R>`. They stand for themselves, since a type that only
    /// names them through `S` could not be shown to be `Send` inside an `async` block, where lifetimes are erased.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R, F, T>
    where
        R: HttpRequest,
        T: HttpResponse,
    {
        #[pin]
        state: State<S, R, F, T>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<S, R, F, T>
    where
        R: HttpRequest,
        T: HttpResponse,
    {
        /// Not our business: no token, no verdict.
        Bare { #[pin] future: F },
        /// Never sent.
        Failed { error: Option<Error> },
        /// Waits for a token and then for readiness, before the first sending.
        Waiting { waiting: Box<Waiting<S, R, T>> },
        /// The first sending.
        Sent { #[pin] future: ProveFuture<S, R, F, T>, first: FirstAttempt<S, R, T> },
        /// Rejected: waits for another token, then for readiness.
        Recovering { recovery: Box<Recovery<S, R, T>> },
        /// The second sending.
        Resent { #[pin] future: ProveFuture<S, R, F, T>, resent: Box<Resent<S, R, T>> },
        Done,
    }
}

impl<S, R, F, T> ResponseFuture<S, R, F, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    pub(crate) fn bare(future: F) -> Self {
        Self { state: State::Bare { future } }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self { state: State::Failed { error: Some(error) } }
    }

    pub(crate) fn waiting(waiting: Box<Waiting<S, R, T>>) -> Self {
        Self { state: State::Waiting { waiting } }
    }

    pub(crate) fn sent(future: ProveFuture<S, R, F, T>, first: FirstAttempt<S, R, T>) -> Self {
        Self { state: State::Sent { future, first } }
    }
}

impl<S, R, F, T> Future for ResponseFuture<S, R, F, T>
where
    S: Service<R, Response = T, Future = F> + Clone,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<T, S::Error>>,
    R: HttpRequest,
    T: HttpResponse,
{
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            // Nearly every poll. The others are out of line, and the response is looked at where it lies.
            let StateProj::Sent { mut future, first } = state.as_mut().project() else {
                match ready!(state.as_mut().poll_rare(cx)) {
                    Some(done) => return Poll::Ready(done),
                    None => continue,
                }
            };
            let polled = future.as_mut().poll(cx);
            let Poll::Ready(Ok(response)) = &polled else { return polled };
            if !first.is_watched && first.is_success(response) {
                first.cell().accepted(first.generation);
                return polled;
            }
            let verdict = first.judge(response, future.scheme());
            if let Verdict::Rejected { says_invalid } = verdict {
                match state.as_mut().rejected(polled, says_invalid) {
                    Some(polled) => return polled,
                    None => continue,
                }
            }
            let is_proof_rejected = verdict != Verdict::Accepted && future.is_proof_rejected(response);
            return polled.map_ok(|response| first.let_through(response, verdict, is_proof_rejected));
        }
    }
}

impl<S, R, F, T> State<S, R, F, T>
where
    S: Service<R, Response = T, Future = F> + Clone,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<T, S::Error>>,
    R: HttpRequest,
    T: HttpResponse,
{
    /// All states but the first sending. `None`: goes on in another state.
    #[inline(never)]
    fn poll_rare(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let next = match self.as_mut().project() {
            StateProj::Bare { future } => return future.poll(cx).map_err(service_error).map(Some),
            StateProj::Failed { error } => match error.take() {
                Some(error) => return Poll::Ready(Some(Err(error))),
                None => State::Done,
            },
            StateProj::Waiting { waiting } => {
                let (fresh, current) = ready!(waiting.poll(cx))?;
                let StateOwned::Waiting { waiting } = self.as_mut().project_replace(State::Done) else {
                    return Poll::Pending;
                };
                waiting.send(fresh, &current)
            }
            StateProj::Recovering { recovery } => match ready!(recovery.poll(cx))? {
                Recovered::Resent(future, resent) => State::Resent { future, resent },
                Recovered::Original(response) => return Poll::Ready(Some(Ok(response))),
            },
            StateProj::Resent { mut future, resent } => {
                let response = ready!(future.as_mut().poll(cx))?;
                return Poll::Ready(Some(Ok(resent.finish(response, future.scheme()))));
            }
            // Polled after completion: a caller's mistake, answered by never answering, not by a panic.
            StateProj::Sent { .. } | StateProj::Done => return Poll::Pending,
        };
        self.set(next);
        Poll::Ready(None)
    }

    /// The first sending was rejected. The response comes back if there is no point in waiting for another token.
    #[cold]
    #[inline(never)]
    fn rejected(
        mut self: Pin<&mut Self>,
        polled: Poll<Result<T, Error>>,
        says_invalid: bool,
    ) -> Option<Poll<Result<T, Error>>> {
        // The first future goes *before* we wait for a token: its permit, at a limit of one, may be the one that the token
        // request or the resend needs.
        match (self.as_mut().project_replace(State::Done), polled) {
            (StateOwned::Sent { first, .. }, Poll::Ready(Ok(response))) => {
                match Recovery::begin(first, response, says_invalid) {
                    Ok(recovery) => self.set(State::Recovering { recovery }),
                    Err(response) => return Some(Poll::Ready(Ok(response))),
                }
                None
            }
            (_, polled) => Some(polled),
        }
    }
}

/// What is remembered of a first sending.
pub(crate) struct FirstAttempt<S, R: HttpRequest, T> {
    pub(crate) handle: Arc<Handle<S>>,
    /// `None`: the default cell, which needs no reference of its own.
    pub(crate) cell: Option<Arc<Cell>>,
    pub(crate) generation: u64,
    pub(crate) replay_copy: Option<R::ReplayCopy>,
    pub(crate) support: BodySupportOf<R, T>,
    /// The response's trailers are watched.
    pub(crate) is_watched: bool,
    pub(crate) plan: Plan,
    /// For its token.
    pub(crate) waited: bool,
}

impl<S, R: HttpRequest, T> FirstAttempt<S, R, T> {
    #[inline]
    fn cell(&self) -> &Arc<Cell> {
        self.cell.as_ref().unwrap_or(&self.handle.default_cell)
    }

    fn body_support(&self) -> BodySupport<R, T> {
        (self.support)(&self.handle.shared.registry)
    }
}

impl<S, R: HttpRequest, T: HttpResponse> FirstAttempt<S, R, T> {
    /// Nearly every response.
    #[inline]
    fn is_success(&self, response: &T) -> bool {
        is_success(response.status(), response.headers(), &self.handle.setup.rejection)
    }

    #[inline(never)]
    fn judge(&self, response: &T, scheme: &[u8]) -> Verdict {
        self.handle.judge(response, self.cell(), self.generation, scheme)
    }

    /// What was not rejected.
    #[inline(never)]
    fn let_through(&self, response: T, verdict: Verdict, is_proof_rejected: bool) -> T {
        let (generation, is_accepted) = (self.generation, verdict == Verdict::Accepted);
        let watch = self.body_support().watch;
        let response = self.handle.watched(response, watch, self.cell(), generation, move |_, cell| {
            if is_accepted {
                cell.accepted(generation);
            }
        });
        match is_accepted {
            true => response,
            // What there is to tell where the proof was refused, and the token may be good.
            false if is_proof_rejected => {
                let outcome = AuthOutcome {
                    generation,
                    waited: self.waited,
                    rejected: true,
                    not_replayable: self.replay_copy.is_none(),
                    ..AuthOutcome::default()
                };
                with_outcome(&self.handle.env().telemetry, response, outcome, None)
            }
            // Such as a 403.
            false => with_challenge(response),
        }
    }
}

/// Tells the caller what happened.
#[cold]
fn with_outcome<T: HttpResponse>(
    telemetry: &Telemetry,
    mut response: T,
    outcome: AuthOutcome,
    failure: Option<TokenError>,
) -> T {
    telemetry.request_rejected(&outcome, failure.as_ref());
    response.extensions_mut().insert(outcome);
    if let Some(error) = failure {
        response.extensions_mut().insert(RefreshFailed(error));
    }
    with_challenge(response)
}

/// Tells the caller what the API asks for, if it does.
#[cold]
fn with_challenge<T: HttpResponse>(mut response: T) -> T {
    if let Some(challenge) = AuthChallenge::of(response.headers()) {
        response.extensions_mut().insert(challenge);
    }
    response
}

impl<S, R, F, T> fmt::Debug for ResponseFuture<S, R, F, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
