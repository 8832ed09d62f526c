//! `Waiting`: a request that waits for its first token and then for readiness, holding neither a permit nor a connection.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{FirstAttempt, State};
use crate::engine::{Cell, Current, Read, RefreshResult, RefreshWaiter};
use crate::middleware::prove::Prove;
use crate::middleware::shared::{BodySupport, BodySupportOf, Handle};
use crate::request::{HttpRequest, HttpResponse, Plan, ReplayAttempt};
use crate::types::{BoxError, Error};

/// A request that waits for its first token.
pub(crate) struct Waiting<S, R: HttpRequest, T> {
    handle: Arc<Handle<S>>,
    cell: Option<Arc<Cell>>,
    request: R,
    plan: Plan,
    support: BodySupportOf<R, T>,
    step: Step<S>,
}

enum Step<S> {
    /// Look at the cell (again).
    Reading,
    Refreshing {
        waiter: RefreshWaiter,
        fallback: Option<Arc<Current>>,
    },
    /// There was a token, and the inner service is not ready.
    Readying {
        fresh: Prove<S>,
        /// The refresh failed, and the token from before it is to be used.
        fallback: Option<Arc<Current>>,
    },
}

/// A service that is ready, and the token to send with.
type Ready<S> = Result<(Prove<S>, Arc<Current>), Error>;

impl<S, R: HttpRequest, T: HttpResponse> Waiting<S, R, T> {
    /// Inlined, or the request would be copied once more.
    #[inline(always)]
    pub(crate) fn new(
        handle: Arc<Handle<S>>,
        cell: Option<Arc<Cell>>,
        request: R,
        plan: Plan,
        support: BodySupportOf<R, T>,
        read: Read,
    ) -> Box<Self> {
        let step = match read {
            Read::Wait { waiter, fallback } => Step::Refreshing { waiter, fallback },
            Read::Ready(_) | Read::Failed(_) => Step::Reading,
        };
        Box::new(Self { handle, cell, request, plan, support, step })
    }

    /// A clone of the inner service that is ready, and the token to send with.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ready<S>>
    where
        S: Service<R, Response = T> + Clone,
        S::Error: Into<BoxError>,
    {
        let (handle, env) = (&self.handle, self.handle.env());
        let no_token = |error| Poll::Ready(Err((self.support)(&handle.shared.registry).no_token(error)));
        let cell = self.cell.as_ref().unwrap_or(&handle.default_cell);
        loop {
            let (mut fresh, finished, mut fallback) = match std::mem::replace(&mut self.step, Step::Reading) {
                Step::Reading => match cell.read(env) {
                    Read::Ready(current) => (handle.shared.fresh_clone(), Some(current), None),
                    Read::Wait { waiter, fallback } => {
                        self.step = Step::Refreshing { waiter, fallback };
                        continue;
                    }
                    Read::Failed(error) => return no_token(error),
                },
                Step::Refreshing { mut waiter, fallback } => {
                    let Poll::Ready(result) = Pin::new(&mut waiter).poll(cx) else {
                        self.step = Step::Refreshing { waiter, fallback };
                        return Poll::Pending;
                    };
                    let failed = matches!(result, RefreshResult::Failed(_));
                    match result.resolve(fallback, || env.clock.now()) {
                        Some(Ok(current)) if failed => (handle.shared.fresh_clone(), None, Some(current)),
                        Some(Ok(current)) => (handle.shared.fresh_clone(), Some(current), None),
                        Some(Err(error)) => return no_token(error),
                        None => continue,
                    }
                }
                Step::Readying { fresh, fallback } => (fresh, None, fallback),
            };
            let Poll::Ready(ready) = fresh.poll_ready(cx) else {
                self.step = Step::Readying { fresh, fallback };
                return Poll::Pending;
            };
            ready?;
            // Readiness may have been long in coming, and so may this poll: another token may be there, or this one have
            // expired.
            let read = match finished {
                Some(current) if cell.may_send(env, &current) => Read::Ready(current),
                _ => cell.read(env),
            };
            // A token that the refresh did not replace is good until its end, and while nobody takes it back.
            let usable = |current: &Arc<Current>| {
                Current::generation_of(cell.word()) == current.generation && current.lifetime.is_alive(&env.clock.now())
            };
            match (read, fallback.take().filter(usable)) {
                (Read::Ready(current), _) | (_, Some(current)) => return Poll::Ready(Ok((fresh, current))),
                (Read::Wait { waiter, fallback }, None) => self.step = Step::Refreshing { waiter, fallback },
                (Read::Failed(error), None) => return no_token(error),
            }
        }
    }

    #[expect(clippy::boxed_local, reason = "taken apart where it is: out of the box it would be copied once more")]
    pub(super) fn send(self: Box<Self>, mut fresh: Prove<S>, current: &Current) -> State<S, R, S::Future, T>
    where
        S: Service<R, Response = T> + Clone,
    {
        let Self { handle, cell, mut request, plan, support, .. } = *self;
        let token = current.token.header_value();
        let token = match cell {
            None => handle.shared.header_cache.get_or_copy(current.word(), token),
            Some(_) => token.clone(),
        };
        let BodySupport { vtable, watch, .. } = support(&handle.shared.registry);
        let requests = &handle.setup.requests;
        let replay_copy = match requests.copy_for_replay(&request, plan, vtable) {
            ReplayAttempt::Done(copy) => copy,
            ReplayAttempt::ByRecording => {
                let copy;
                (request, copy) = requests.record(request, vtable);
                copy
            }
        };
        requests.inject(&mut request, Cow::Owned(token), &handle.own, plan);
        let future = fresh.call(request, vtable, plan.may_replay);
        let (generation, is_watched) = (current.generation, watch.is_some());
        let first = FirstAttempt { handle, cell, generation, replay_copy, support, is_watched, plan, waited: true };
        State::Sent { future, first }
    }
}
