//! `Waiting`: a request that waits for its first token and then for readiness, holding neither a permit nor a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::FirstAttempt;
use crate::engine::{Cell, Current, Read, RefreshResult, RefreshWaiter};
use crate::middleware::prove::{Prove, ProveFuture};
use crate::middleware::shared::{BodySupport, SharedHandle};
use crate::request::{HttpRequest, HttpResponse, Resending};
use crate::types::{BoxError, Error};

/// A request that waits for its first token.
pub(crate) struct Waiting<S, R: HttpRequest, T> {
    shared: SharedHandle<S>,
    cell: Option<Arc<Cell>>,
    request: R,
    resending: Resending,
    body_support: BodySupport<R, T>,
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

/// A first sending on its way.
type Sending<S, R> = (
    ProveFuture<S, R, <S as Service<R>>::Future, <S as Service<R>>::Response>,
    FirstAttempt<S, R, <S as Service<R>>::Response>,
);

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
    ) -> Box<Self> {
        let step = match read {
            Read::Wait { waiter, fallback } => Step::Refreshing { waiter, fallback },
            Read::Ready(_) | Read::Failed(_) => Step::Reading,
        };
        Box::new(Self { shared, cell, request, resending, body_support, step })
    }

    /// A clone of the inner service that is ready, and the token to send with.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ready<S>>
    where
        S: Service<R, Response = T> + Clone,
        S::Error: Into<BoxError>,
    {
        let (table, body_support) = (&self.shared.setup.table, &self.body_support);
        let cell = self.cell.as_ref().unwrap_or_else(|| table.default_cell());
        loop {
            let (mut fresh, finished, mut fallback) = match std::mem::replace(&mut self.step, Step::Reading) {
                Step::Reading => match cell.read(table.env()) {
                    Read::Ready(current) => (self.shared.fresh_clone(), Some(current), None),
                    Read::Wait { waiter, fallback } => {
                        self.step = Step::Refreshing { waiter, fallback };
                        continue;
                    }
                    Read::Failed(error) => return Poll::Ready(Err(body_support.no_token(error))),
                },
                Step::Refreshing { mut waiter, fallback } => {
                    let Poll::Ready(result) = Pin::new(&mut waiter).poll(cx) else {
                        self.step = Step::Refreshing { waiter, fallback };
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
                Some(current) if cell.may_send(table.env(), &current) => Read::Ready(current),
                _ => cell.read(table.env()),
            };
            // A token that the refresh did not replace is good until its end, and while nobody takes it back.
            let usable = |current: &Arc<Current>| {
                Current::generation_of(cell.word()) == current.generation
                    && current.lifetime.is_alive(&table.env().clock.now())
            };
            match (read, fallback.take().filter(usable)) {
                (Read::Ready(current), _) | (_, Some(current)) => return Poll::Ready(Ok((fresh, current))),
                (Read::Wait { waiter, fallback }, None) => self.step = Step::Refreshing { waiter, fallback },
                (Read::Failed(error), None) => return Poll::Ready(Err(body_support.no_token(error))),
            }
        }
    }

    #[expect(clippy::boxed_local, reason = "taken apart where it is: out of the box it would be copied once more")]
    pub(super) fn send(self: Box<Self>, mut fresh: Prove<S>, current: &Current) -> Sending<S, R>
    where
        S: Service<R, Response = T> + Clone,
    {
        let Self { shared, cell, request, resending, body_support, .. } = *self;
        let token = current.token.header_value();
        let token = match cell {
            None => shared.header_cache.get_or_copy(current.word(), token),
            Some(_) => token.clone(),
        };
        let (vtable, may_replay) = (body_support.vtable, resending.may_replay);
        let requests = &shared.setup.requests;
        let (future, replay_copy) = requests.send(request, token, vtable, may_replay, |request, replay_copy| {
            (fresh.call(request, vtable, may_replay), replay_copy)
        });
        let generation = current.generation;
        let outer = resending.outer;
        (future, FirstAttempt { shared, cell, generation, replay_copy, body_support, outer, waited: true })
    }
}
