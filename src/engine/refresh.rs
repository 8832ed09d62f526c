//! The one token request under way for a cell, shared by everybody who needs its result.
//!
//! A refresh is a task of its own under a deadline of its own, so that it belongs to nobody who waits: a rotated refresh
//! token would be lost with a leader that is dropped. Those who wait hold a waiter, a shared future. Whatever ends the
//! task, a result, the deadline, a panic or the end of its runtime, completes the refresh exactly once, through
//! [`CompletionGuard`]'s `Drop` if need be; the cell is settled first and the waiters resolve after, so that whoever wakes
//! sees the cell as it now is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::current::Current;
use super::env::Env;
use super::rt::{self, Runtime};
use crate::token::{Asked, Failed, Granted, RefreshContext, TokenRequest};
use crate::types::{Now, TokenError, TokenErrorKind, events};

/// A place among those who wait for a refresh. Cheap to clone; dropping it cancels nothing.
#[derive(Clone, Debug)]
pub(crate) struct RefreshWaiter(rt::Shared<RefreshResult>);

impl RefreshWaiter {
    /// How many wait, the holder of this one included; the cell has one that waits for nothing.
    pub(crate) fn count(&self) -> usize {
        self.0.strong_count().unwrap_or(0).saturating_sub(1)
    }
}

#[cfg(test)]
impl RefreshWaiter {
    /// Whether both wait for the same refresh.
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Future for RefreshWaiter {
    type Output = RefreshResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RefreshResult> {
        // The cell itself is gone, and nobody is left who could say more.
        Pin::new(&mut self.0).poll(cx).map(|result| {
            result.unwrap_or_else(|_| RefreshResult::Failed(Arc::new(TokenError::new(TokenErrorKind::Aborted))))
        })
    }
}

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

impl RefreshResult {
    /// What a waiter does with it: a token, an error, or look again (`None`).
    pub(crate) fn resolve(
        self,
        fallback: Option<Arc<Current>>,
        now: impl FnOnce() -> Now,
    ) -> Option<Result<Arc<Current>, Arc<TokenError>>> {
        match self {
            RefreshResult::New(current) | RefreshResult::Same(current) => Some(Ok(current)),
            RefreshResult::Failed(error) => Some(match fallback {
                Some(current) if current.lifetime.is_alive(&now()) => Ok(current),
                _ => Err(error),
            }),
            RefreshResult::Superseded => None,
        }
    }
}

/// The other end of a refresh's waiters; the cell holds it.
pub(crate) type ResultSender = rt::Sender<RefreshResult>;

/// A place to wait for a result, and the end that tells it.
pub(crate) fn channel() -> (ResultSender, RefreshWaiter) {
    let (sender, receiver) = rt::shared_oneshot();
    (sender, RefreshWaiter(receiver))
}

/// What is to be done with the result, once: by the cell.
pub(crate) type Completion = Box<dyn FnOnce(Result<Granted, Failed>, Now) + Send>;

/// A refresh that has not begun: made under the cell's lock, spawned after it is released, since a runtime that has shut
/// down drops the task, and so ends the refresh, on the spot.
#[must_use]
pub(crate) struct PreparedRefresh {
    guard: CompletionGuard,
    runtime: Runtime,
    request: TokenRequest,
    after_rejection: bool,
}

/// Prepares a refresh on the current runtime.
///
/// # Errors
/// `NoRuntime` outside a tokio runtime.
pub(crate) fn prepare(
    env: &Arc<Env>,
    request: TokenRequest,
    after_rejection: bool,
    complete: Completion,
) -> Result<PreparedRefresh, TokenError> {
    let runtime = Runtime::current().ok_or_else(|| TokenError::new(TokenErrorKind::NoRuntime))?;
    let asked = Asked::of(&request);
    let guard = CompletionGuard { env: env.clone(), asked, context: None, complete: Some(complete) };
    Ok(PreparedRefresh { guard, runtime, request, after_rejection })
}

impl PreparedRefresh {
    pub(crate) fn spawn(self) {
        events::token_request(self.after_rejection);
        self.runtime.spawn(run(self.guard, self.request));
    }
}

async fn run(mut guard: CompletionGuard, mut request: TokenRequest) {
    let asked = guard.env.clock.now();
    let context = Arc::new(guard.env.context());
    guard.context = Some(context.clone());
    request.context = Some(context.clone());
    let env = guard.env.clone();
    let fetch = async { env.source.fetch_boxed(request).await };
    let result = match rt::timeout(env.policy.refresh_deadline, fetch).await {
        Ok(result) => result,
        Err(_) => {
            let error = TokenError::new(TokenErrorKind::Timeout);
            let error = error.with_detail("the deadline of the whole token request passed");
            Err(context.report.unfinished(&guard.asked, error))
        }
    };
    guard.complete(result, asked);
}

/// Sees to it that a refresh is completed, and once.
struct CompletionGuard {
    env: Arc<Env>,
    asked: Asked,
    /// From when the source is asked.
    context: Option<Arc<RefreshContext>>,
    complete: Option<Completion>,
}

impl CompletionGuard {
    fn complete(mut self, result: Result<Granted, Failed>, asked: Now) {
        if let Some(complete) = self.complete.take() {
            complete(result, asked);
        }
    }
}

/// A panic or a runtime that shuts down drops the task without a result.
impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if let Some(complete) = self.complete.take() {
            let error = TokenError::new(TokenErrorKind::Aborted);
            let failed = match &self.context {
                Some(context) => context.report.unfinished(&self.asked, error),
                None => error.into(),
            };
            complete(Err(failed), self.env.clock.now());
        }
    }
}
