//! The one token request under way for a cell, shared by everybody who needs its result.
//!
//! A refresh is a task of its own under a deadline of its own, so that it belongs to nobody who waits: a rotated refresh
//! token would be lost with a leader that is dropped. Waiters hold a waiter, a shared future. Whatever ends the
//! task, a result, the deadline, a panic or the end of its runtime, ends the refresh exactly once, through [`CompletionGuard`]'s `Drop` if need be;
//! the cell is settled first and the waiters resolve after, so that whoever wakes sees the cell as it now is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::cell::{Cell, Current, RefreshId};
use super::env::Engine;
use crate::token::{Token, TokenRequest};
use crate::types::{Now, TokenError, TokenErrorKind, events};

/// A place among those who wait for a refresh. Cheap to clone; dropping it cancels nothing.
pub(crate) type RefreshWaiter = Shared<RefreshReceiver>;

/// How a refresh ended.
#[derive(Clone, Debug)]
pub(crate) enum RefreshResult {
    /// With a token other than the one before.
    New(Arc<Current>),
    /// With the same token again.
    Same(Arc<Current>),
    Failed(Arc<TokenError>),
    /// Its credentials were replaced meanwhile: its token is not used. Look at the cell again.
    Superseded,
}

/// The other end of a refresh's waiters; the cell holds it.
pub(crate) type ResultSender = oneshot::Sender<RefreshResult>;

/// Resolves when the refresh has finished.
pub(crate) struct RefreshReceiver(oneshot::Receiver<RefreshResult>);

impl Future for RefreshReceiver {
    type Output = RefreshResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RefreshResult> {
        // The cell itself is gone, and nobody is left who could say more.
        Pin::new(&mut self.0).poll(cx).map(|result| {
            result.unwrap_or_else(|_| RefreshResult::Failed(Arc::new(TokenError::new(TokenErrorKind::Aborted))))
        })
    }
}

/// A refresh that is not in the air yet: made under the cell's lock, spawned after it is released, since a runtime that
/// has shut down drops the task, and so ends the refresh, on the spot.
#[must_use]
pub(crate) struct PreparedRefresh {
    guard: CompletionGuard,
    runtime: Handle,
    request: TokenRequest,
    after_rejection: bool,
}

/// Prepares a refresh on the current runtime: the prepared, the end for the cell, the waiter for those who wait.
///
/// # Errors
/// `NoRuntime` outside a tokio runtime.
pub(crate) fn prepare(
    engine: &Arc<Engine>,
    cell: &Arc<Cell>,
    id: RefreshId,
    request: TokenRequest,
    after_rejection: bool,
) -> Result<(PreparedRefresh, ResultSender, RefreshWaiter), TokenError> {
    let runtime = Handle::try_current().map_err(|_| TokenError::new(TokenErrorKind::NoRuntime))?;
    let (sender, receiver) = oneshot::channel();
    let carries_refresh_token = request.refresh_token.is_some();
    let guard =
        CompletionGuard { engine: engine.clone(), cell: cell.clone(), id, carries_refresh_token, finished: false };
    Ok((PreparedRefresh { guard, runtime, request, after_rejection }, sender, RefreshReceiver(receiver).shared()))
}

impl PreparedRefresh {
    pub(crate) fn spawn(self) {
        events::token_request(self.after_rejection);
        self.runtime.spawn(run(self.guard, self.request));
    }
}

async fn run(guard: CompletionGuard, mut request: TokenRequest) {
    let asked = guard.engine.clock.now();
    request.context = Some(Arc::new(guard.engine.context()));
    let fetch = async { guard.engine.source.fetch_boxed(request).await };
    let result = match tokio::time::timeout(guard.engine.policy.refresh_deadline, fetch).await {
        Ok(result) => result,
        Err(_) => {
            let error = TokenError::new(TokenErrorKind::Timeout);
            Err(guard.without_answer(error.with_detail("the deadline of the whole token request passed")))
        }
    };
    guard.finish(result, asked);
}

/// Sees to it that a refresh ends, and ends once.
struct CompletionGuard {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    id: RefreshId,
    carries_refresh_token: bool,
    finished: bool,
}

impl CompletionGuard {
    fn finish(mut self, result: Result<Token, TokenError>, asked: Now) {
        self.finished = true;
        self.cell.finish(&self.engine, self.id, result, asked);
    }

    /// The refresh token that was sent may be spent.
    fn without_answer(&self, mut error: TokenError) -> TokenError {
        error.refresh_answer_lost = self.carries_refresh_token;
        error
    }
}

/// A panic or a runtime that shuts down drops the task without a result.
impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if !self.finished {
            let error = self.without_answer(TokenError::new(TokenErrorKind::Aborted));
            self.cell.finish(&self.engine, self.id, Err(error), self.engine.clock.now());
        }
    }
}
