//! `Recovery`: a request whose token was rejected gets a newer one, if there is one, and is sent once more.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use tower_service::Service;

use super::{FirstAttempt, with_outcome};
use crate::engine::{Cell, Current, Read, RefreshResult, RefreshWaiter, Rejection};
use crate::middleware::prove::{Prove, ProveFuture};
use crate::middleware::shared::{BodySupport, Handle};
use crate::request::{HttpRequest, HttpResponse, Plan};
use crate::response::{Ahead, BoxReadAhead, Drain, Holding, Verdict};
use crate::setup::Setup;
use crate::types::{AuthOutcome, BoxError, Error, TokenError, TokenErrorKind};

/// A request whose token was rejected and that can be sent again.
pub(super) struct Recovery<S, R, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    handle: Arc<Handle<S>>,
    cell: Arc<Cell>,
    replay_copy: Option<R::ReplayCopy>,
    rejected: u64,
    outcome: AuthOutcome,
    /// Our rejection started the refresh.
    starter: bool,
    plan: Plan,
    body_support: BodySupport<R, T>,
    step: Step<S, R, T>,
}

enum Step<S, R, T: HttpResponse> {
    /// The original response is held until it is certain that there will be a better one.
    Refreshing {
        waiter: RefreshWaiter,
        response: T,
        held: Held<T>,
    },
    /// A newer token is there.
    Renewed {
        current: Arc<Current>,
        response: T,
        held: Held<T>,
    },
    Draining {
        drain: Pin<Box<Drain<T::Body>>>,
        request: R,
        current: Arc<Current>,
    },
    Readying {
        fresh: Prove<S>,
        request: R,
        current: Arc<Current>,
    },
    /// The newer token was gone before it could be sent. The original response is gone too.
    RefreshingAgain {
        waiter: RefreshWaiter,
        request: R,
    },
    Done,
}

pub(super) enum Recovered<S: Service<R>, R: HttpRequest>
where
    S::Response: HttpResponse,
{
    Resent(ProveFuture<S, R, S::Future, S::Response>, Box<Resent<S, R, S::Response>>),
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
    pub(super) fn begin(first: FirstAttempt<S, R, T>, response: T, says_invalid: bool) -> Result<Box<Self>, T> {
        let cell = first.cell().clone();
        let env = first.handle.env();
        let mut outcome = AuthOutcome {
            generation: first.generation,
            waited: first.waited,
            rejected: true,
            ..AuthOutcome::default()
        };
        // An inner layer of this crate has refreshed and resent already: a third sending would break its promise.
        if response.extensions().get::<AuthOutcome>().is_some_and(|inner| inner.resent) {
            return Err(response);
        }
        if first.plan.outer {
            return Err(with_outcome(&env.telemetry, response, outcome, None));
        }
        let rejection = cell.reject(env, first.generation, says_invalid);
        match &rejection {
            Rejection::Newer(_) => {}
            Rejection::Wait { .. } => outcome.refreshed = true,
            Rejection::Suppressed => {
                env.telemetry.refresh_suppressed(first.generation);
                outcome.suppressed = true;
                return Err(with_outcome(&env.telemetry, response, outcome, None));
            }
            Rejection::Failed(error) => {
                return Err(with_outcome(&env.telemetry, response, outcome, Some(error.clone())));
            }
        }
        if first.replay_copy.is_none() {
            // The refresh goes on behind the caller's back, for the next request.
            if R::is_body_unknown(&first.body_support().vtable) {
                first.handle.shared.warn_of_body(&env.telemetry, R::body_name());
            }
            outcome.not_replayable = true;
            return Err(with_outcome(&env.telemetry, response, outcome, None));
        }
        let (starter, step) = match rejection {
            Rejection::Wait { waiter, starter } => {
                let mut response = response;
                let held = Held::begin(&first, &mut response);
                (starter, Step::Refreshing { waiter, response, held })
            }
            Rejection::Newer(current) => (false, Step::Renewed { current, response, held: Held::Unread }),
            Rejection::Suppressed | Rejection::Failed(_) => return Err(response),
        };
        Ok(Box::new(Self {
            rejected: first.generation,
            plan: first.plan,
            body_support: first.body_support(),
            handle: first.handle,
            cell,
            replay_copy: first.replay_copy,
            outcome,
            starter,
            step,
        }))
    }

    #[inline(never)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Recovered<S, R>, Error>> {
        loop {
            // Whatever is waited for is polled in place, and the step taken over once there is something to do.
            match &mut self.step {
                Step::Draining { drain, .. } => ready!(drain.as_mut().poll(cx)),
                Step::Readying { fresh, .. } => ready!(fresh.poll_ready(cx))?,
                Step::Refreshing { waiter, response, held } => {
                    let Poll::Ready(result) = Pin::new(waiter).poll(cx) else {
                        held.poll(response, cx);
                        return Poll::Pending;
                    };
                    if let Step::Refreshing { response, held, .. } = std::mem::replace(&mut self.step, Step::Done) {
                        match self.look(result) {
                            Look::Newer(current) => self.step = Step::Renewed { current, response, held },
                            Look::Wait(waiter) => self.step = Step::Refreshing { waiter, response, held },
                            Look::Nothing(failure) => return Poll::Ready(Ok(self.original(response, held, failure))),
                        }
                    }
                    continue;
                }
                Step::RefreshingAgain { waiter, .. } => {
                    let result = ready!(Pin::new(waiter).poll(cx));
                    if let Step::RefreshingAgain { request, .. } = std::mem::replace(&mut self.step, Step::Done) {
                        match self.look(result) {
                            Look::Newer(current) => {
                                self.step =
                                    Step::Readying { fresh: self.handle.shared.fresh_clone(), request, current };
                            }
                            Look::Wait(waiter) => self.step = Step::RefreshingAgain { waiter, request },
                            Look::Nothing(failure) => return Poll::Ready(Err(self.none_left(failure))),
                        }
                    }
                    continue;
                }
                Step::Renewed { .. } => {}
                Step::Done => return Poll::Pending,
            }
            self.step = match std::mem::replace(&mut self.step, Step::Done) {
                Step::Renewed { current, mut response, held } => {
                    let Some(mut request) = self.replay_copy.take().and_then(R::rebuild) else {
                        self.outcome.not_replayable = true;
                        return Poll::Ready(Ok(self.original(response, held, None)));
                    };
                    held.end(&mut response);
                    request.mark_resend();
                    Step::Draining { drain: Box::pin(Drain::new(response.into_body())), request, current }
                }
                // The rejected response is dropped with this step, and with it its connection's reservation.
                Step::Draining { request, current, .. } => {
                    Step::Readying { fresh: self.handle.shared.fresh_clone(), request, current }
                }
                // Only now it is certain which token goes out: the wait for readiness may have been long.
                Step::Readying { fresh, request, current } => match self.still(current) {
                    Look::Newer(current) => return Poll::Ready(Ok(self.resend(fresh, request, &current))),
                    Look::Wait(waiter) => Step::RefreshingAgain { waiter, request },
                    Look::Nothing(failure) => return Poll::Ready(Err(self.none_left(failure))),
                },
                step => step,
            };
        }
    }

    /// What the end of a refresh means for us.
    fn look(&mut self, result: RefreshResult) -> Look {
        match result {
            RefreshResult::New(current) => Look::Newer(current),
            RefreshResult::Same(current) if current.generation != self.rejected => Look::Newer(current),
            RefreshResult::Same(_) => {
                self.outcome.same_token = true;
                Look::Nothing(None)
            }
            RefreshResult::Failed(error) => Look::Nothing(Some(error)),
            RefreshResult::Superseded => {
                // What comes now is not of the refresh that we started, and proves nothing for it.
                self.starter = false;
                self.newer()
            }
        }
    }

    /// Whether this token may be sent still.
    fn still(&mut self, current: Arc<Current>) -> Look {
        let may_send = self.cell.may_send(self.handle.env(), &current);
        if may_send { Look::Newer(current) } else { self.newer() }
    }

    /// A token newer than the rejected one, as things are now.
    fn newer(&mut self) -> Look {
        match self.cell.read_newer(self.handle.env(), self.rejected) {
            Read::Ready(current) => Look::Newer(current),
            Read::Wait { waiter, .. } => Look::Wait(waiter),
            Read::Failed(error) => Look::Nothing(Some(error)),
        }
    }

    fn resend(&mut self, mut fresh: Prove<S>, mut request: R, current: &Current) -> Recovered<S, R> {
        let token = Cow::Borrowed(current.token.header_value());
        self.handle.setup.requests.inject(&mut request, token, &self.handle.own, self.plan);
        let future = fresh.call(request, self.body_support.vtable, true);
        let outcome = AuthOutcome { generation: current.generation, resent: true, ..std::mem::take(&mut self.outcome) };
        let resent = Resent {
            handle: self.handle.clone(),
            cell: self.cell.clone(),
            body_support: self.body_support,
            outcome,
            starter: self.starter,
        };
        Recovered::Resent(future, Box::new(resent))
    }

    /// The original response went, for a token that was there and is gone.
    #[cold]
    fn none_left(&self, failure: Option<TokenError>) -> Error {
        let failure = failure.unwrap_or_else(|| TokenError::new(TokenErrorKind::Aborted));
        self.body_support.no_token(self.handle.env().telemetry.named(failure))
    }

    /// There is nothing better: the rejected response with what happened. It is whole, unless it had to be read.
    fn original(&mut self, mut response: T, held: Held<T>, failure: Option<TokenError>) -> Recovered<S, R> {
        let mut outcome = std::mem::take(&mut self.outcome);
        if held.end(&mut response) {
            outcome.body_discarded = true;
            for name in [CONTENT_LENGTH, CONTENT_ENCODING] {
                response.headers_mut().remove(name);
            }
        }
        Recovered::Original(with_outcome(&self.handle.env().telemetry, response, outcome, failure))
    }
}

/// What becomes of a response's body while we wait for a token.
enum Held<T> {
    /// Nothing, and it takes room in no window.
    Unread,
    /// Nothing. It takes one of the places that the layer has for such.
    InPlace(#[expect(dead_code, reason = "given back when it is dropped")] Place),
    /// It is read, to be handed out from memory.
    Reading(Box<Reading<T>>),
    /// It is read, since its place in its connection's window may be needed.
    Discarding { discard: Discard<T>, done: bool },
}

type Discard<T> = fn(&mut T, &mut Context<'_>) -> Poll<()>;

/// A place among the responses that a layer holds unread, and what it takes of a window.
struct Place(Arc<Setup>, usize);

impl Place {
    fn acquire(setup: &Arc<Setup>, bytes: usize) -> Option<Self> {
        setup.held.acquire(bytes).then(|| Self(setup.clone(), bytes))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.release(self.1);
    }
}

struct Reading<T> {
    ahead: BoxReadAhead<T>,
    /// So many bytes.
    read: Memory,
    /// If there is more than may be kept.
    then: Option<Discard<T>>,
    window: fn(&T) -> usize,
}

/// Bytes in memory, of those that a layer may have.
struct Memory(Arc<Setup>, usize);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.held.release_bytes(self.1);
    }
}

impl<T> Held<T> {
    fn begin<S, R: HttpRequest>(first: &FirstAttempt<S, R, T>, response: &mut T) -> Self {
        let setup = &first.handle.setup;
        let Some(Holding { read_ahead, discard, window }) = (first.body_support().holding)() else {
            return Self::Unread;
        };
        // Only for a request that can be sent again: another one's response is all that its caller will get.
        let discard = discard.filter(|_| first.replay_copy.as_ref().is_some_and(R::can_rebuild));
        match read_ahead {
            Some(take) => {
                let read = Memory(setup.clone(), 0);
                Self::Reading(Box::new(Reading { ahead: take(response), read, then: discard, window }))
            }
            None => Self::unread(setup, window(response), discard),
        }
    }

    fn unread(setup: &Arc<Setup>, bytes: usize, discard: Option<Discard<T>>) -> Self {
        match (Place::acquire(setup, bytes), discard) {
            (Some(place), _) => Self::InPlace(place),
            (None, Some(discard)) => Self::Discarding { discard, done: false },
            (None, None) => Self::Unread,
        }
    }

    fn poll(&mut self, response: &mut T, cx: &mut Context<'_>) {
        if let Self::Reading(reading) = self {
            let Memory(setup, read) = &mut reading.read;
            if reading.ahead.poll(&setup.held, read, cx) == Ahead::TooLong
                && let Self::Reading(reading) = std::mem::replace(self, Self::Unread)
            {
                let Reading { ahead, read, then, window } = *reading;
                ahead.put_back(response);
                *self = Self::unread(&read.0, window(response), then);
            }
        }
        if let Self::Discarding { discard, done } = self
            && !*done
        {
            *done = discard(response, cx).is_ready();
        }
    }

    /// The wait is over. Whether the response has lost its body.
    fn end(self, response: &mut T) -> bool {
        match self {
            Self::Unread | Self::InPlace(_) => false,
            Self::Discarding { .. } => true,
            Self::Reading(reading) => {
                reading.ahead.put_back(response);
                false
            }
        }
    }
}

/// What there is instead of a rejected token.
enum Look {
    Newer(Arc<Current>),
    Wait(RefreshWaiter),
    Nothing(Option<TokenError>),
}

/// What is remembered of a second sending.
pub(super) struct Resent<S, R: HttpRequest, T> {
    handle: Arc<Handle<S>>,
    cell: Arc<Cell>,
    body_support: BodySupport<R, T>,
    outcome: AuthOutcome,
    starter: bool,
}

impl<S, R: HttpRequest, T: HttpResponse> Resent<S, R, T> {
    /// Whatever the second response is, it goes out.
    pub(super) fn finish(&mut self, response: T, scheme: &[u8]) -> T {
        let (generation, starter) = (self.outcome.generation, self.starter);
        let verdict = self.handle.judge(&response, &self.cell, generation, scheme);
        let response =
            self.handle.watched(response, self.body_support.watch, &self.cell, generation, move |env, cell| {
                match verdict {
                    Verdict::Accepted if starter => cell.resend_accepted(env, generation),
                    Verdict::Accepted => cell.accepted(generation),
                    _ => {}
                }
            });
        with_outcome(&self.handle.env().telemetry, response, std::mem::take(&mut self.outcome), None)
    }
}
