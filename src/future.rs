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
use crate::message::{HttpRequest, HttpResponse};
use crate::observe;
use crate::request::Keeping;
use crate::response::{Drain, Verdict, Watch};
use crate::shared::{ByType, Resending, SharedHandle};
use crate::token::{Current, Landing, Read, Rejection, Slot, Ticket, TokenError};

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
        /// Waits for a token and then for readiness, before the first sending. Not boxed: with ten thousand waiters the
        /// allocation cost a tenth of the wait, and the state of the first sending needs most of the room anyway.
        Waiting { waiting: Waiting<S, R, T> },
        /// The first sending.
        Sent { #[pin] future: F, sent: Sent<S, R, T> },
        /// Rejected: waits for another token, then for readiness.
        Recovering { recovery: Box<Recovery<S, R, T>> },
        /// The second sending.
        Resent { #[pin] future: F, resent: Resent<S, T> },
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

    pub(crate) fn waiting(waiting: Waiting<S, R, T>) -> Self {
        Self { state: State::Waiting { waiting } }
    }

    pub(crate) fn sent(future: F, sent: Sent<S, R, T>) -> Self {
        Self { state: State::Sent { future, sent } }
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Bare { future } => return future.poll(cx).map_err(service_error),
                StateProj::Failed { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => State::Done,
                },
                StateProj::Waiting { waiting } => {
                    let ready = ready!(waiting.poll(cx));
                    let StateOwned::Waiting { waiting } = state.as_mut().project_replace(State::Done) else { continue };
                    let (spare, current) = ready?;
                    let (future, sent) = waiting.send(spare, &current);
                    State::Sent { future, sent }
                }
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
                    if let Some(watch) = sent.shared.watcher(sent.watch, sent.slot(), sent.generation) {
                        return Poll::Ready(Ok(watch(response)));
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
pub(crate) struct Sent<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    /// `None`: the main slot, which needs no reference of its own.
    slot: Option<Arc<Slot>>,
    generation: u64,
    kept: Option<R::Kept>,
    watch: Option<Watch<T>>,
    /// An outer layer of this crate sends the second time.
    outer: bool,
    is_body_unknown: bool,
    waited: bool,
}

impl<S, R: HttpRequest, T: HttpResponse> Sent<S, R, T> {
    pub(crate) fn new(
        shared: SharedHandle<S>,
        slot: Option<Arc<Slot>>,
        generation: u64,
        kept: Option<R::Kept>,
        resending: Resending,
        by_type: ByType<R, T>,
    ) -> Self {
        let is_body_unknown = R::is_body_unknown(&by_type.ops);
        Self {
            shared,
            slot,
            generation,
            kept,
            watch: by_type.watch,
            outer: resending.outer,
            is_body_unknown,
            waited: false,
        }
    }

    fn slot(&self) -> &Arc<Slot> {
        self.slot.as_ref().unwrap_or_else(|| self.shared.setup.engine.main())
    }

    fn judge(&self, response: &T) -> Verdict {
        self.shared.judge(response, self.slot(), self.generation)
    }
}

/// A first sending on its way.
type Sending<S, R> = (<S as Service<R>>::Future, Sent<S, R, <S as Service<R>>::Response>);

/// A request that waits for its first token.
pub(crate) struct Waiting<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    slot: Option<Arc<Slot>>,
    request: R,
    resending: Resending,
    by_type: ByType<R, T>,
    step: WaitStep<S>,
}

enum WaitStep<S> {
    /// Look at the slot (again).
    Reading,
    Flying {
        ticket: Ticket,
        fallback: Option<Arc<Current>>,
    },
    /// There was a token, and the inner service is not ready. Boxed, so that it makes no future larger.
    Readying {
        spare: Box<S>,
        /// The flight failed, and the token from before it is to be used.
        fallback: Option<Arc<Current>>,
    },
}

impl<S, R: HttpRequest, T: HttpResponse> Waiting<S, R, T> {
    /// Inlined, or the request would be copied once more.
    #[inline(always)]
    pub(crate) fn new(
        shared: SharedHandle<S>,
        slot: Option<Arc<Slot>>,
        request: R,
        resending: Resending,
        by_type: ByType<R, T>,
        read: Read,
    ) -> Self {
        let step = match read {
            Read::Wait { ticket, fallback } => WaitStep::Flying { ticket, fallback },
            Read::Ready(_) | Read::Failed(_) => WaitStep::Reading,
        };
        Self { shared, slot, request, resending, by_type, step }
    }

    /// A clone of the inner service that is ready, and the token to send with.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(S, Arc<Current>), Error>>
    where
        S: Service<R, Response = T> + Clone,
        S::Error: Into<BoxError>,
    {
        let engine = &self.shared.setup.engine;
        let slot = self.slot.as_ref().unwrap_or_else(|| engine.main());
        loop {
            let (mut spare, landed, mut fallback) = match std::mem::replace(&mut self.step, WaitStep::Reading) {
                WaitStep::Reading => match slot.read(engine) {
                    Read::Ready(current) => (self.shared.spare(), Some(current), None),
                    Read::Wait { ticket, fallback } => {
                        self.step = WaitStep::Flying { ticket, fallback };
                        continue;
                    }
                    Read::Failed(error) => return Poll::Ready(Err(Error::Token(error))),
                },
                WaitStep::Flying { mut ticket, fallback } => {
                    let Poll::Ready(landing) = Pin::new(&mut ticket).poll(cx) else {
                        self.step = WaitStep::Flying { ticket, fallback };
                        return Poll::Pending;
                    };
                    let failed = matches!(landing, Landing::Failed(_));
                    match engine.settle(landing, fallback) {
                        Some(Ok(current)) if failed => (self.shared.spare(), None, Some(current)),
                        Some(Ok(current)) => (self.shared.spare(), Some(current), None),
                        Some(Err(error)) => return Poll::Ready(Err(Error::Token(error))),
                        None => continue,
                    }
                }
                WaitStep::Readying { spare, fallback } => (*spare, None, fallback),
            };
            let Poll::Ready(ready) = spare.poll_ready(cx) else {
                self.step = WaitStep::Readying { spare: Box::new(spare), fallback };
                return Poll::Pending;
            };
            ready.map_err(service_error)?;
            // Readiness may have been long in coming, and so may this poll: another token may be there, or this one have
            // expired. Where the slot's word says that it is current still, nothing that others share is touched.
            let read = match landed {
                Some(current) if slot.word() == current.word() => Read::Ready(current),
                _ => slot.read(engine),
            };
            match (read, fallback.take()) {
                (Read::Ready(current), _) | (_, Some(current)) => return Poll::Ready(Ok((spare, current))),
                (Read::Wait { ticket, fallback }, None) => self.step = WaitStep::Flying { ticket, fallback },
                (Read::Failed(error), None) => return Poll::Ready(Err(Error::Token(error))),
            }
        }
    }

    fn send(self, mut spare: S, current: &Current) -> Sending<S, R>
    where
        S: Service<R, Response = T>,
    {
        let Self { shared, slot, mut request, resending, by_type, .. } = self;
        let kept = match by_type.keep(&request, resending) {
            Keeping::Done(kept) => kept,
            Keeping::ByRecording => {
                let kept;
                (request, kept) = request.record(by_type.ops, shared.setup.replay.cap);
                kept
            }
        };
        let header = current.token.header_value();
        let header = if slot.is_none() { shared.copies.copy_of(current.word(), header) } else { header.clone() };
        shared.setup.injection.apply(header, request.headers_mut());
        let future = spare.call(request);
        (future, Sent { waited: true, ..Sent::new(shared, slot, current.generation, kept, resending, by_type) })
    }
}

/// A request whose token was rejected and that can be sent again.
struct Recovery<S, R, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    shared: SharedHandle<S>,
    slot: Arc<Slot>,
    kept: Option<R::Kept>,
    /// The original response, until it is certain that there will be a better one.
    response: Option<T>,
    rejected: u64,
    outcome: AuthOutcome,
    /// Our rejection started the flight.
    starter: bool,
    watch: Option<Watch<T>>,
    step: RecoveryStep<S, R, T::Body>,
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
    Resent(S::Future, Resent<S, S::Response>),
    Original(S::Response),
}

impl<S, R, T> Recovery<S, R, T>
where
    S: Service<R, Response = T> + Clone,
    S::Error: Into<BoxError>,
    R: HttpRequest,
    T: HttpResponse,
{
    /// Asks for another token; the response comes straight back if there is no point in waiting for one.
    fn begin(sent: Sent<S, R, T>, response: T, says_invalid: bool) -> Result<Self, T> {
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
            if sent.is_body_unknown {
                sent.shared.warn_of_body(R::body_name());
            }
            outcome.not_replayable = true;
            return Err(with_outcome(response, outcome, None));
        }
        Ok(Self {
            rejected: sent.generation,
            watch: sent.watch,
            shared: sent.shared,
            slot,
            kept: sent.kept,
            response: Some(response),
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
                    let resent = Resent { shared, slot, outcome, starter: self.starter, watch: self.watch };
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
struct Resent<S, T> {
    shared: SharedHandle<S>,
    slot: Arc<Slot>,
    outcome: AuthOutcome,
    starter: bool,
    watch: Option<Watch<T>>,
}

impl<S, T: HttpResponse> Resent<S, T> {
    /// Whatever the second response is, it goes out.
    fn finish(&mut self, mut response: T) -> T {
        if let Some(watch) = self.shared.watcher(self.watch, &self.slot, self.outcome.generation) {
            response = watch(response);
        }
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

impl<S, R, F, T> fmt::Debug for ResponseFuture<S, R, F, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
