//! `ResponseFuture`: send, judge, wait, resend. The whole rule of the one resend can be read here.
//!
//! ```text
//! Waiting --token--> FirstAttempt --rejected--> Recovering --newer token--> Resent --> response
//!    |                 |                     |
//!    +--> error        +--> response         +--> the original response
//! ```
//!
//! A request is resent at most once by construction: nothing leads from `Resent` back.
//!
//! A request whose token is bound to a key is `Proved` instead of `FirstAttempt`, which costs all others nothing. Its server may want
//! a nonce in the proof; then the sending is made once more, in [`Repeat`]. That is no resend: the token is the same, and
//! `Proved` comes back as `Proved`, `Resent` as `Resent`. A request has one chance to do that, which its `ProofSent` carries
//! along and which is gone once spent.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::shared::{BodySupport, Resending, SharedHandle};
use crate::engine::{Cell, Current, Read, RefreshResult, RefreshWaiter, Rejection};
use crate::request::{HttpRequest, HttpResponse, ProofSent, ReplayAttempt};
use crate::response::{Drain, Verdict};
use crate::types::{AuthOutcome, BoxError, Error, RefreshFailed, TokenError, events};

#[cfg_attr(not(feature = "dpop"), path = "no_repeat.rs")]
mod repeat;

use repeat::{Repeat, Repeated};

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
        Sent { #[pin] future: F, sent: FirstAttempt<S, R, T> },
        /// The same, of a token that is bound to a key.
        Proved { #[pin] future: F, proved: Box<Proved<S, R, T>> },
        /// Rejected: waits for another token, then for readiness.
        Recovering { recovery: Box<Recovery<S, R, T>> },
        /// The server wants a nonce in the proof: waits for readiness, and sends with the same token.
        Repeating { repeat: Box<Repeat<S, R, T>> },
        /// The second sending.
        Resent { #[pin] future: F, resent: Resent<S, R, T> },
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

    pub(crate) fn sent(future: F, sent: FirstAttempt<S, R, T>) -> Self {
        Self { state: State::Sent { future, sent } }
    }

    #[cold]
    pub(crate) fn proved(future: F, sent: FirstAttempt<S, R, T>, proof: ProofSent) -> Self {
        Self { state: State::Proved { future, proved: Box::new(Proved { sent, proof }) } }
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
                    let (future, sent, proof) = waiting.send(spare, &current)?;
                    State::first(future, sent, proof)
                }
                StateProj::Sent { future, sent } => {
                    let response = ready!(future.poll(cx)).map_err(service_error)?;
                    match sent.shared.judge(&response, sent.cell(), sent.generation, BEARER) {
                        Verdict::Accepted => sent.cell().accepted(sent.generation),
                        Verdict::Unknown | Verdict::NonceWanted => {}
                        Verdict::Rejected { says_invalid } => {
                            // The first future goes *before* we wait for a token: its permit, at a limit of one, may be
                            // the one that the token request or the resend needs.
                            let StateOwned::Sent { sent, .. } = state.as_mut().project_replace(State::Done) else {
                                continue;
                            };
                            match Recovery::begin(sent, ProofSent::default(), response, says_invalid) {
                                Ok(recovery) => {
                                    state.set(State::Recovering { recovery: Box::new(recovery) });
                                    continue;
                                }
                                Err(response) => return Poll::Ready(Ok(response)),
                            }
                        }
                    }
                    if let Some(watch) = sent.shared.watcher(sent.body_support.watch, sent.cell(), sent.generation) {
                        return Poll::Ready(Ok(watch(response)));
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Proved { future, .. } => {
                    let response = ready!(future.poll(cx)).map_err(service_error)?;
                    match state.as_mut().answered(response) {
                        Ok(()) => continue,
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Recovering { recovery } => match ready!(recovery.poll(cx)) {
                    Ok(Recovered::Resent(future, resent)) => State::Resent { future, resent },
                    Ok(Recovered::Original(response)) => return Poll::Ready(Ok(response)),
                    Err(error) => return Poll::Ready(Err(error)),
                },
                StateProj::Resent { future, resent } => {
                    let response = ready!(future.poll(cx)).map_err(service_error)?;
                    if !resent.proof.is_some() {
                        return Poll::Ready(Ok(resent.finish(response)));
                    }
                    match state.as_mut().answered(response) {
                        Ok(()) => continue,
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Repeating { repeat } => match ready!(repeat.poll(cx)) {
                    Ok(Repeated::FirstAttempt(future, proved)) => State::Proved { future, proved },
                    Ok(Repeated::Resent(future, resent)) => State::Resent { future, resent },
                    Err(error) => return Poll::Ready(Err(error)),
                },
                // Polled after completion: a caller's mistake, answered by never answering, not by a panic.
                StateProj::Done => return Poll::Pending,
            };
            state.set(next);
        }
    }
}

impl<S, R, F, T> State<S, R, F, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    fn first(future: F, sent: FirstAttempt<S, R, T>, proof: ProofSent) -> Self {
        if proof.is_some() {
            State::Proved { future, proved: Box::new(Proved { sent, proof }) }
        } else {
            State::Sent { future, sent }
        }
    }
}

impl<S, R, F, T> State<S, R, F, T>
where
    S: Service<R, Response = T> + Clone,
    S::Error: Into<BoxError>,
    R: HttpRequest,
    T: HttpResponse,
{
    /// A sending with a proof was answered: it goes on, or the response is to be handed out.
    #[cold]
    #[inline(never)]
    fn answered(mut self: Pin<&mut Self>, response: T) -> Result<(), T> {
        let next = match self.as_mut().project_replace(State::Done) {
            StateOwned::Proved { mut proved, .. } => {
                let Proved { sent, proof } = &mut *proved;
                sent.shared.setup.proofs.learn(proof, response.headers());
                match sent.shared.judge(&response, sent.cell(), sent.generation, DPOP) {
                    Verdict::Rejected { says_invalid } => {
                        let Proved { sent, proof } = *proved;
                        let recovery = Recovery::begin(sent, proof, response, says_invalid)?;
                        State::Recovering { recovery: Box::new(recovery) }
                    }
                    Verdict::NonceWanted if sent.replay_copy.is_some() && proof.may_repeat() => {
                        State::Repeating { repeat: Box::new(Repeat::of_proved(proved, response)?) }
                    }
                    verdict => {
                        if verdict == Verdict::Accepted {
                            sent.cell().accepted(sent.generation);
                        }
                        let mut response = response;
                        if let Some(watch) = sent.shared.watcher(sent.body_support.watch, sent.cell(), sent.generation)
                        {
                            response = watch(response);
                        }
                        return Err(response);
                    }
                }
            }
            StateOwned::Resent { mut resent, .. } => {
                resent.shared.setup.proofs.learn(&mut resent.proof, response.headers());
                let may_repeat = resent.replay_copy.is_some() && resent.proof.may_repeat();
                if !may_repeat || resent.judge(&response) != Verdict::NonceWanted {
                    return Err(resent.finish(response));
                }
                State::Repeating { repeat: Box::new(Repeat::of_resent(resent, response)?) }
            }
            _ => return Err(response),
        };
        self.set(next);
        Ok(())
    }
}

/// The schemes whose challenges concern us, by what was sent.
const BEARER: &[u8] = b"Bearer";
const DPOP: &[u8] = b"DPoP";

/// What is remembered of a first sending.
pub(crate) struct FirstAttempt<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    /// `None`: the default cell, which needs no reference of its own.
    cell: Option<Arc<Cell>>,
    generation: u64,
    replay_copy: Option<R::ReplayCopy>,
    body_support: BodySupport<R, T>,
    /// An outer layer of this crate sends the second time.
    outer: bool,
    waited: bool,
}

/// The same, with its proof.
struct Proved<S, R: HttpRequest, T> {
    sent: FirstAttempt<S, R, T>,
    proof: ProofSent,
}

impl<S, R: HttpRequest, T: HttpResponse> FirstAttempt<S, R, T> {
    pub(crate) fn new(
        shared: SharedHandle<S>,
        cell: Option<Arc<Cell>>,
        generation: u64,
        replay_copy: Option<R::ReplayCopy>,
        outer: bool,
        body_support: BodySupport<R, T>,
    ) -> Self {
        Self { shared, cell, generation, replay_copy, body_support, outer, waited: false }
    }

    fn cell(&self) -> &Arc<Cell> {
        self.cell.as_ref().unwrap_or_else(|| self.shared.setup.table.default_cell())
    }
}

/// A first sending on its way.
type Sending<S, R> = (<S as Service<R>>::Future, FirstAttempt<S, R, <S as Service<R>>::Response>, ProofSent);

/// A request that waits for its first token.
pub(crate) struct Waiting<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    cell: Option<Arc<Cell>>,
    request: R,
    resending: Resending,
    body_support: BodySupport<R, T>,
    step: WaitStep<S>,
}

enum WaitStep<S> {
    /// Look at the cell (again).
    Reading,
    Refreshing {
        waiter: RefreshWaiter,
        fallback: Option<Arc<Current>>,
    },
    /// There was a token, and the inner service is not ready. Boxed, so that it makes no future larger.
    Readying {
        spare: Box<S>,
        /// The refresh failed, and the token from before it is to be used.
        fallback: Option<Arc<Current>>,
    },
}

impl<S, R: HttpRequest, T: HttpResponse> Waiting<S, R, T> {
    /// Inlined, or the request would be copied once more.
    #[inline(always)]
    pub(crate) fn new(
        shared: SharedHandle<S>,
        cell: Option<Arc<Cell>>,
        request: R,
        resending: Resending,
        body_support: BodySupport<R, T>,
        read: Read,
    ) -> Self {
        let step = match read {
            Read::Wait { waiter, fallback } => WaitStep::Refreshing { waiter, fallback },
            Read::Ready(_) | Read::Failed(_) => WaitStep::Reading,
        };
        Self { shared, cell, request, resending, body_support, step }
    }

    /// A clone of the inner service that is ready, and the token to send with.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(S, Arc<Current>), Error>>
    where
        S: Service<R, Response = T> + Clone,
        S::Error: Into<BoxError>,
    {
        let (table, body_support) = (&self.shared.setup.table, &self.body_support);
        let cell = self.cell.as_ref().unwrap_or_else(|| table.default_cell());
        loop {
            let (mut spare, finished, mut fallback) = match std::mem::replace(&mut self.step, WaitStep::Reading) {
                WaitStep::Reading => match cell.read(table.env()) {
                    Read::Ready(current) => (self.shared.fresh_clone(), Some(current), None),
                    Read::Wait { waiter, fallback } => {
                        self.step = WaitStep::Refreshing { waiter, fallback };
                        continue;
                    }
                    Read::Failed(error) => return Poll::Ready(Err(body_support.no_token(error))),
                },
                WaitStep::Refreshing { mut waiter, fallback } => {
                    let Poll::Ready(result) = Pin::new(&mut waiter).poll(cx) else {
                        self.step = WaitStep::Refreshing { waiter, fallback };
                        return Poll::Pending;
                    };
                    let failed = matches!(result, RefreshResult::Failed(_));
                    match result.resolve(fallback, || table.env().clock.now()) {
                        Some(Ok(current)) if failed => (self.shared.fresh_clone(), None, Some(current)),
                        Some(Ok(current)) => (self.shared.fresh_clone(), Some(current), None),
                        Some(Err(error)) => return Poll::Ready(Err(body_support.no_token(error))),
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
            // expired. Where the cell's word says that it is current still, nothing that others share is touched.
            let read = match finished {
                Some(current) if cell.word() == current.word() => Read::Ready(current),
                _ => cell.read(table.env()),
            };
            match (read, fallback.take()) {
                (Read::Ready(current), _) | (_, Some(current)) => return Poll::Ready(Ok((spare, current))),
                (Read::Wait { waiter, fallback }, None) => self.step = WaitStep::Refreshing { waiter, fallback },
                (Read::Failed(error), None) => return Poll::Ready(Err(body_support.no_token(error))),
            }
        }
    }

    fn send(self, mut spare: S, current: &Current) -> Result<Sending<S, R>, Error>
    where
        S: Service<R, Response = T>,
    {
        let Self { shared, cell, mut request, resending, body_support, .. } = self;
        let replay_copy = match body_support.copy_for_replay(&request, resending) {
            ReplayAttempt::Done(replay_copy) => replay_copy,
            ReplayAttempt::ByRecording => {
                let replay_copy;
                (request, replay_copy) = request.record(body_support.vtable, shared.setup.replay.cap);
                replay_copy
            }
        };
        let header = current.token.header_value();
        let header =
            if cell.is_none() { shared.header_cache.get_or_copy(current.word(), header) } else { header.clone() };
        let setup = &shared.setup;
        let proof = setup.proofs.put(&mut request, &header, &setup.origins, ProofSent::default(), None)?;
        setup.injection.apply(header, request.headers_mut());
        let future = spare.call(request);
        let sent = FirstAttempt::new(shared, cell, current.generation, replay_copy, resending.outer, body_support);
        Ok((future, FirstAttempt { waited: true, ..sent }, proof))
    }
}

/// A request whose token was rejected and that can be sent again.
struct Recovery<S, R, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    shared: SharedHandle<S>,
    cell: Arc<Cell>,
    replay_copy: Option<R::ReplayCopy>,
    /// The original response, until it is certain that there will be a better one.
    response: Option<T>,
    rejected: u64,
    outcome: AuthOutcome,
    /// Our rejection started the refresh.
    starter: bool,
    body_support: BodySupport<R, T>,
    proof: ProofSent,
    step: RecoveryStep<S, R, T::Body>,
}

enum RecoveryStep<S, R, B> {
    Refreshing(RefreshWaiter),
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

enum Recovered<S: Service<R>, R: HttpRequest> {
    Resent(S::Future, Resent<S, R, S::Response>),
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
    fn begin(sent: FirstAttempt<S, R, T>, proof: ProofSent, response: T, says_invalid: bool) -> Result<Self, T> {
        let cell = sent.cell().clone();
        let env = sent.shared.setup.table.env();
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
        let step = match cell.reject(env, sent.generation, says_invalid) {
            Rejection::Newer(current) => RecoveryStep::Renewed(current),
            Rejection::Wait { waiter, starter: started } => {
                (outcome.refreshed, starter) = (true, started);
                RecoveryStep::Refreshing(waiter)
            }
            Rejection::Suppressed => {
                events::refresh_suppressed(sent.generation);
                outcome.suppressed = true;
                return Err(with_outcome(response, outcome, None));
            }
            Rejection::Failed(error) => return Err(with_outcome(response, outcome, Some(error))),
        };
        if sent.replay_copy.is_none() {
            // The refresh goes on behind the caller's back, for the next request.
            if R::is_body_unknown(&sent.body_support.vtable) {
                sent.shared.warn_of_body(R::body_name());
            }
            outcome.not_replayable = true;
            return Err(with_outcome(response, outcome, None));
        }
        Ok(Self {
            rejected: sent.generation,
            body_support: sent.body_support,
            proof,
            shared: sent.shared,
            cell,
            replay_copy: sent.replay_copy,
            response: Some(response),
            outcome,
            starter,
            step,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Recovered<S, R>, Error>> {
        loop {
            self.step = match &mut self.step {
                RecoveryStep::Refreshing(waiter) => match ready!(Pin::new(waiter).poll(cx)) {
                    RefreshResult::New(current) => RecoveryStep::Renewed(current),
                    RefreshResult::Same(current) if current.generation != self.rejected => {
                        RecoveryStep::Renewed(current)
                    }
                    RefreshResult::Same(_) => {
                        self.outcome.same_token = true;
                        return self.original(None);
                    }
                    RefreshResult::Failed(error) => return self.original(Some(error)),
                    RefreshResult::Superseded => {
                        // What comes now is not of the refresh that we started, and proves nothing for it.
                        self.starter = false;
                        match self.cell.read(self.shared.setup.table.env()) {
                            Read::Ready(current) => RecoveryStep::Renewed(current),
                            Read::Wait { waiter, .. } => RecoveryStep::Refreshing(waiter),
                            Read::Failed(error) => return self.original(Some(error)),
                        }
                    }
                },
                RecoveryStep::Renewed(current) => {
                    let Some(mut request) = self.replay_copy.take().and_then(R::rebuild) else {
                        self.outcome.not_replayable = true;
                        return self.original(None);
                    };
                    request.mark_resend();
                    let setup = &self.shared.setup;
                    if setup.proofs.is_on() {
                        (request, self.replay_copy) = self.body_support.copy_again(request, setup.replay.cap);
                    }
                    let header = current.token.header_value().clone();
                    let former = std::mem::take(&mut self.proof);
                    match setup.proofs.put(&mut request, &header, &setup.origins, former, None) {
                        Ok(proof) => self.proof = proof,
                        Err(_) => return self.original(None),
                    }
                    setup.injection.apply(header, request.headers_mut());
                    self.outcome.generation = current.generation;
                    let Some(response) = self.response.take() else { return Poll::Pending };
                    RecoveryStep::Draining { drain: Box::pin(Drain::new(response.into_body())), request: Some(request) }
                }
                RecoveryStep::Draining { drain, request } => {
                    ready!(drain.as_mut().poll(cx));
                    // The rejected response is dropped with this step, and with it its connection's reservation.
                    RecoveryStep::Readying { spare: self.shared.fresh_clone(), request: request.take() }
                }
                RecoveryStep::Readying { spare, request } => {
                    ready!(spare.poll_ready(cx)).map_err(service_error)?;
                    let Some(request) = request.take() else { return Poll::Pending };
                    let future = spare.call(request);
                    self.outcome.resent = true;
                    let resent = Resent {
                        shared: self.shared.clone(),
                        cell: self.cell.clone(),
                        replay_copy: self.replay_copy.take(),
                        body_support: self.body_support,
                        proof: std::mem::take(&mut self.proof),
                        outcome: std::mem::take(&mut self.outcome),
                        starter: self.starter,
                    };
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
struct Resent<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    cell: Arc<Cell>,
    /// For a proof with a nonce only.
    replay_copy: Option<R::ReplayCopy>,
    body_support: BodySupport<R, T>,
    proof: ProofSent,
    outcome: AuthOutcome,
    starter: bool,
}

impl<S, R: HttpRequest, T: HttpResponse> Resent<S, R, T> {
    fn judge(&self, response: &T) -> Verdict {
        let scheme = if self.proof.is_some() { DPOP } else { BEARER };
        self.shared.judge(response, &self.cell, self.outcome.generation, scheme)
    }

    /// Whatever the second response is, it goes out.
    fn finish(&mut self, mut response: T) -> T {
        if let Some(watch) = self.shared.watcher(self.body_support.watch, &self.cell, self.outcome.generation) {
            response = watch(response);
        }
        if matches!(self.judge(&response), Verdict::Accepted) {
            if self.starter {
                self.cell.resend_accepted(self.shared.setup.table.env(), self.outcome.generation);
            } else {
                self.cell.accepted(self.outcome.generation);
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
