//! `ResponseFuture`: send, judge, wait, resend. The whole rule of the one resend can be read here.
//!
//! ```text
//! Waiting --token--> Sent --rejected--> Recovering --newer token--> Resent --> response
//!    |                 |                     |
//!    +--> error        +--> response         +--> the original response
//! ```
//!
//! A request is resent at most once by construction: nothing leads from `Resent` back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::{BoxError, Error};
use crate::extensions::{AuthOutcome, RefreshFailed};
use crate::message::sealed::Response as _;
use crate::message::{HttpRequest, HttpResponse};
use crate::observe;
use crate::response::{Drain, Verdict};
use crate::shared::{Resending, SharedHandle};
use crate::token::{Current, Landing, Read, Rejection, Slot, Ticket, TokenError};

pin_project! {
    /// The response future of [`Auth`](crate::Auth).
    ///
    /// Dropping it cancels the request, never a token request that it started or joined.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, R>
    where
        S: Service<R>,
        S::Response: HttpResponse,
        R: HttpRequest,
    {
        #[pin]
        state: State<S, R>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<S, R>
    where
        S: Service<R>,
        S::Response: HttpResponse,
        R: HttpRequest,
    {
        /// Not our business: no token, no verdict.
        Bare { #[pin] future: S::Future },
        /// Never sent.
        Failed { error: Option<Error> },
        /// Waits for a token and then for readiness, before the first sending.
        Waiting { waiting: Box<Waiting<S, R>> },
        /// The first sending.
        Sent { #[pin] future: S::Future, sent: Sent<S, R> },
        /// Rejected: waits for another token, then for readiness.
        Recovering { recovery: Box<Recovery<S, R>> },
        /// The second sending.
        Resent { #[pin] future: S::Future, resent: Resent<S> },
        Done,
    }
}

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R>,
    S::Response: HttpResponse,
    R: HttpRequest,
{
    pub(crate) fn bare(future: S::Future) -> Self {
        Self { state: State::Bare { future } }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self { state: State::Failed { error: Some(error) } }
    }

    pub(crate) fn waiting(waiting: Waiting<S, R>) -> Self {
        Self { state: State::Waiting { waiting: Box::new(waiting) } }
    }

    pub(crate) fn sent(future: S::Future, sent: Sent<S, R>) -> Self {
        Self { state: State::Sent { future, sent } }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    S::Response: HttpResponse,
    R: HttpRequest,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Bare { future } => return future.poll(cx).map_err(service_error),
                StateProj::Failed { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => State::Done,
                },
                StateProj::Waiting { waiting } => match ready!(waiting.poll(cx)) {
                    Ok((future, sent)) => State::Sent { future, sent },
                    Err(error) => return Poll::Ready(Err(error)),
                },
                StateProj::Sent { future, sent } => {
                    let response = ready!(future.poll(cx)).map_err(service_error)?;
                    match sent.judge(&response) {
                        Verdict::Accepted => sent.slot().accept(sent.generation),
                        Verdict::Unknown => {}
                        Verdict::Rejected { says_invalid } => {
                            // The first future goes *before* we wait for a token: its permit, at a limit of one, may be
                            // the one that the token request or the resend needs.
                            let StateOwned::Sent { sent, .. } = state.as_mut().project_replace(State::Done) else {
                                continue;
                            };
                            match Recovery::begin(sent, response, says_invalid) {
                                Ok(recovery) => {
                                    state.set(State::Recovering { recovery: Box::new(recovery) });
                                    continue;
                                }
                                Err(response) => return Poll::Ready(Ok(response)),
                            }
                        }
                    }
                    let response = sent.shared.watch(response, sent.slot(), sent.generation);
                    if sent.waited {
                        let outcome =
                            AuthOutcome { generation: sent.generation, waited: true, ..AuthOutcome::default() };
                        return Poll::Ready(Ok(with_outcome(response, outcome, None)));
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Recovering { recovery } => match ready!(recovery.poll(cx)) {
                    Ok(Recovered::Resent(future, resent)) => State::Resent { future, resent },
                    Ok(Recovered::Original(response)) => return Poll::Ready(Ok(response)),
                    Err(error) => return Poll::Ready(Err(error)),
                },
                StateProj::Resent { future, resent } => {
                    let response = ready!(future.poll(cx)).map_err(service_error)?;
                    return Poll::Ready(Ok(resent.finish(response)));
                }
                // Polled after completion: a caller's mistake, answered by never answering, not by a panic.
                StateProj::Done => return Poll::Pending,
            };
            state.set(next);
        }
    }
}

/// What is remembered of a first sending.
pub(crate) struct Sent<S, R: HttpRequest> {
    shared: SharedHandle<S>,
    /// `None`: the main slot, which needs no reference of its own.
    slot: Option<Arc<Slot>>,
    generation: u64,
    kept: Option<R::Kept>,
    /// This is the second sending of an outer layer of this crate.
    outer: bool,
    waited: bool,
}

impl<S, R: HttpRequest> Sent<S, R> {
    pub(crate) fn new(
        shared: SharedHandle<S>,
        slot: Option<Arc<Slot>>,
        generation: u64,
        kept: Option<R::Kept>,
        outer: bool,
    ) -> Self {
        Self { shared, slot, generation, kept, outer, waited: false }
    }

    fn slot(&self) -> &Arc<Slot> {
        self.slot.as_ref().unwrap_or_else(|| self.shared.setup.engine.main())
    }

    fn judge<T: HttpResponse>(&self, response: &T) -> Verdict {
        self.shared.judge(response, self.slot(), self.generation)
    }
}

/// A first sending on its way.
type Sending<S, R> = (<S as Service<R>>::Future, Sent<S, R>);

/// A request that waits for its first token.
pub(crate) struct Waiting<S, R> {
    shared: SharedHandle<S>,
    slot: Option<Arc<Slot>>,
    request: Option<R>,
    resend: Resending,
    step: WaitStep<S>,
}

enum WaitStep<S> {
    /// Look at the slot (again).
    Reading,
    Flying {
        ticket: Ticket,
        fallback: Option<Arc<Current>>,
    },
    Readying {
        spare: S,
        current: Arc<Current>,
    },
}

impl<S, R> Waiting<S, R> {
    pub(crate) fn new(
        shared: SharedHandle<S>,
        slot: Option<Arc<Slot>>,
        request: R,
        resend: Resending,
        read: Read,
    ) -> Self {
        let step = match read {
            Read::Wait { ticket, fallback } => WaitStep::Flying { ticket, fallback },
            Read::Ready(_) | Read::Failed(_) => WaitStep::Reading,
        };
        Self { shared, slot, request: Some(request), resend, step }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending<S, R>, Error>>
    where
        S: Service<R> + Clone,
        S::Error: Into<BoxError>,
        R: HttpRequest,
    {
        let engine = &self.shared.setup.engine;
        let slot = self.slot.as_ref().unwrap_or_else(|| engine.main());
        loop {
            self.step = match &mut self.step {
                WaitStep::Reading => match slot.read(engine) {
                    Read::Ready(current) => WaitStep::Readying { spare: self.shared.spare(), current },
                    Read::Wait { ticket, fallback } => WaitStep::Flying { ticket, fallback },
                    Read::Failed(error) => return Poll::Ready(Err(Error::Token(error))),
                },
                WaitStep::Flying { ticket, fallback } => {
                    let landing = ready!(Pin::new(ticket).poll(cx));
                    match engine.settle(landing, fallback.take()) {
                        Some(Ok(current)) => WaitStep::Readying { spare: self.shared.spare(), current },
                        Some(Err(error)) => return Poll::Ready(Err(Error::Token(error))),
                        None => WaitStep::Reading,
                    }
                }
                WaitStep::Readying { spare, current } => {
                    ready!(spare.poll_ready(cx)).map_err(service_error)?;
                    // Readiness may have been long in coming: stamp the newest token.
                    let current = slot.ready().unwrap_or_else(|| current.clone());
                    let header = current.token.header_value().clone();
                    let Some(request) = self.request.take() else { return Poll::Pending };
                    let (request, kept) = self.resend.dispatch(request, header, &self.shared);
                    let future = spare.call(request);
                    let (shared, slot) = (self.shared.clone(), self.slot.take());
                    let generation = current.generation;
                    let sent = Sent { shared, slot, generation, kept, outer: self.resend.outer, waited: true };
                    return Poll::Ready(Ok((future, sent)));
                }
            }
        }
    }
}

/// A request whose token was rejected and that can be sent again.
struct Recovery<S, R>
where
    S: Service<R>,
    S::Response: HttpResponse,
    R: HttpRequest,
{
    shared: SharedHandle<S>,
    slot: Arc<Slot>,
    kept: Option<R::Kept>,
    /// The original response, until it is certain that there will be a better one.
    response: Option<S::Response>,
    rejected: u64,
    outcome: AuthOutcome,
    /// Our rejection started the flight.
    starter: bool,
    step: RecoveryStep<S, R, <S::Response as crate::message::sealed::Response>::Body>,
}

enum RecoveryStep<S, R, B> {
    Flying(Ticket),
    /// A newer token is there.
    Renewed(Arc<Current>),
    Draining {
        drain: Pin<Box<Drain<B>>>,
        request: Option<R>,
    },
    Readying {
        spare: S,
        request: Option<R>,
    },
}

enum Recovered<S: Service<R>, R> {
    Resent(S::Future, Resent<S>),
    Original(S::Response),
}

impl<S, R> Recovery<S, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    S::Response: HttpResponse,
    R: HttpRequest,
{
    /// Asks for another token; the response comes straight back if there is no point in waiting for one.
    fn begin(sent: Sent<S, R>, response: S::Response, says_invalid: bool) -> Result<Self, S::Response> {
        let slot = sent.slot().clone();
        let engine = &sent.shared.setup.engine;
        let mut outcome =
            AuthOutcome { generation: sent.generation, waited: sent.waited, rejected: true, ..AuthOutcome::default() };
        // An inner layer of this crate has refreshed and resent already: a third sending would break its promise.
        if response.extensions().get::<AuthOutcome>().is_some_and(|inner| inner.resent) {
            return Err(response);
        }
        if sent.outer {
            return Err(with_outcome(response, outcome, None));
        }
        let mut starter = false;
        let step = match slot.reject(engine, sent.generation, says_invalid) {
            Rejection::Newer(current) => RecoveryStep::Renewed(current),
            Rejection::Wait { ticket, starter: started } => {
                (outcome.refreshed, starter) = (true, started);
                RecoveryStep::Flying(ticket)
            }
            Rejection::Suppressed => {
                observe::refresh_suppressed(sent.generation);
                outcome.suppressed = true;
                return Err(with_outcome(response, outcome, None));
            }
            Rejection::Failed(error) => return Err(with_outcome(response, outcome, Some(error))),
        };
        if sent.kept.is_none() {
            // The flight goes on behind the caller's back, for the next request.
            sent.shared.warn_if_unknown::<R>();
            outcome.not_replayable = true;
            return Err(with_outcome(response, outcome, None));
        }
        let rejected = sent.generation;
        Ok(Self {
            shared: sent.shared,
            slot,
            kept: sent.kept,
            response: Some(response),
            rejected,
            outcome,
            starter,
            step,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Recovered<S, R>, Error>> {
        loop {
            self.step = match &mut self.step {
                RecoveryStep::Flying(ticket) => match ready!(Pin::new(ticket).poll(cx)) {
                    Landing::New(current) => RecoveryStep::Renewed(current),
                    Landing::Same(current) if current.generation != self.rejected => RecoveryStep::Renewed(current),
                    Landing::Same(_) => {
                        self.outcome.same_token = true;
                        return self.original(None);
                    }
                    Landing::Failed(error) => return self.original(Some(error)),
                    Landing::Superseded => {
                        // What comes now is not of the flight that we started, and proves nothing for it.
                        self.starter = false;
                        match self.slot.read(&self.shared.setup.engine) {
                            Read::Ready(current) => RecoveryStep::Renewed(current),
                            Read::Wait { ticket, .. } => RecoveryStep::Flying(ticket),
                            Read::Failed(error) => return self.original(Some(error)),
                        }
                    }
                },
                RecoveryStep::Renewed(current) => {
                    let Some(mut request) = self.kept.take().and_then(R::rebuild) else {
                        self.outcome.not_replayable = true;
                        return self.original(None);
                    };
                    request.mark_resend();
                    self.shared.setup.injection.apply(current.token.header_value().clone(), request.headers_mut());
                    self.outcome.generation = current.generation;
                    let Some(response) = self.response.take() else { return Poll::Pending };
                    RecoveryStep::Draining { drain: Box::pin(Drain::new(response.into_body())), request: Some(request) }
                }
                RecoveryStep::Draining { drain, request } => {
                    ready!(drain.as_mut().poll(cx));
                    // The rejected response is dropped with this step, and with it its connection's reservation.
                    RecoveryStep::Readying { spare: self.shared.spare(), request: request.take() }
                }
                RecoveryStep::Readying { spare, request } => {
                    ready!(spare.poll_ready(cx)).map_err(service_error)?;
                    let Some(request) = request.take() else { return Poll::Pending };
                    let future = spare.call(request);
                    self.outcome.resent = true;
                    let outcome = std::mem::take(&mut self.outcome);
                    let (shared, slot) = (self.shared.clone(), self.slot.clone());
                    let resent = Resent { shared, slot, outcome, starter: self.starter };
                    return Poll::Ready(Ok(Recovered::Resent(future, resent)));
                }
            }
        }
    }

    /// Nothing better can be had: the rejected response, whole, with what happened.
    fn original(&mut self, failure: Option<Arc<TokenError>>) -> Poll<Result<Recovered<S, R>, Error>> {
        let Some(response) = self.response.take() else { return Poll::Pending };
        let response = with_outcome(response, std::mem::take(&mut self.outcome), failure);
        Poll::Ready(Ok(Recovered::Original(response)))
    }
}

/// What is remembered of a second sending.
struct Resent<S> {
    shared: SharedHandle<S>,
    slot: Arc<Slot>,
    outcome: AuthOutcome,
    starter: bool,
}

impl<S> Resent<S> {
    /// Whatever the second response is, it goes out.
    fn finish<T: HttpResponse>(&mut self, response: T) -> T {
        let response = self.shared.watch(response, &self.slot, self.outcome.generation);
        if matches!(self.shared.judge(&response, &self.slot, self.outcome.generation), Verdict::Accepted) {
            if self.starter {
                self.slot.proved(&self.shared.setup.engine, self.outcome.generation);
            } else {
                self.slot.accept(self.outcome.generation);
            }
        }
        with_outcome(response, std::mem::take(&mut self.outcome), None)
    }
}

/// Tells the caller what happened.
#[cold]
fn with_outcome<T: HttpResponse>(mut response: T, outcome: AuthOutcome, failure: Option<Arc<TokenError>>) -> T {
    response.extensions_mut().insert(outcome);
    if let Some(error) = failure {
        response.extensions_mut().insert(RefreshFailed(error));
    }
    response
}

fn service_error<E: Into<BoxError>>(error: E) -> Error {
    Error::Service(error.into())
}

impl<S, R> fmt::Debug for ResponseFuture<S, R>
where
    S: Service<R>,
    S::Response: HttpResponse,
    R: HttpRequest,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
