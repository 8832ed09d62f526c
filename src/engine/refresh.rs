//! The one token request in flight for a cell, shared by everybody who needs its result.
//!
//! A refresh is a task of its own under a deadline of its own, so that it belongs to nobody who waits: a rotated refresh
//! token would be lost with a leader that is dropped. Those who wait hold a waiter, a shared future. Whatever ends the
//! task, a result, the deadline, a panic or the end of its runtime, completes the refresh exactly once, through
//! [`CompletionGuard`]'s `Drop` if need be; the cell is settled first and the waiters resolve after, so that a request that wakes
//! sees the cell as it now is.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::current::Current;
use super::env::Env;
use super::rt::{self, Runtime, RuntimeId};
use crate::telemetry::{Telemetry, TokenRequestSpan, Wait};
use crate::token::{Asked, Failed, Granted, RefreshContext, TokenRequest};
use crate::types::{Now, TokenError, TokenErrorKind};

/// How a refresh ended.
#[derive(Clone, Debug)]
pub(crate) enum RefreshResult {
    /// With a token other than the one before.
    New(Arc<Current>),
    /// With the same token again.
    Same(Arc<Current>),
    Failed(TokenError),
    /// Its credentials were replaced meanwhile: its token is not used. Look at the cell again.
    Superseded,
}

impl RefreshResult {
    /// What a waiter does with it: a token, an error, or look again (`None`).
    pub(crate) fn resolve(
        self,
        fallback: Option<Arc<Current>>,
        now: impl FnOnce() -> Now,
    ) -> Option<Result<Arc<Current>, TokenError>> {
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

/// How a refresh is told to have ended.
#[derive(Clone)]
struct Ending {
    result: RefreshResult,
    /// The runtime that it ran on is gone: that says nothing to those who wait on others.
    runtime_ended: bool,
}

/// The other end of a refresh's waiters; the cell holds it.
pub(crate) struct ResultSender(rt::Sender<Ending>);

impl ResultSender {
    pub(crate) fn send(self, result: RefreshResult) {
        // Nobody waiting is fine: the cell has the token.
        let _ = self.0.send(Ending { result, runtime_ended: false });
    }

    pub(crate) fn send_runtime_ended(self, error: TokenError) {
        let _ = self.0.send(Ending { result: RefreshResult::Failed(error), runtime_ended: true });
    }
}

/// Those who wait for a refresh; the cell holds it.
pub(crate) struct Waiters {
    shared: rt::Shared<Ending>,
    /// Where the refresh runs.
    runtime: RuntimeId,
    span: Arc<TokenRequestSpan>,
}

/// A place to wait for a result, and the end that tells it.
pub(crate) fn channel(runtime: RuntimeId, span: Arc<TokenRequestSpan>) -> (ResultSender, Waiters) {
    let (sender, shared) = rt::shared_oneshot();
    (ResultSender(sender), Waiters { shared, runtime, span })
}

impl Waiters {
    /// A place among them, for a task of the current runtime.
    pub(crate) fn join(&self, now: &Now) -> RefreshWaiter {
        let elsewhere = Runtime::current().is_none_or(|here| here.id() != self.runtime);
        let wait = Wait::for_request(&self.span, now.monotonic);
        RefreshWaiter { waiting: Waiting::Refresh(self.shared.clone()), elsewhere, wait }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.strong_count().unwrap_or(0).saturating_sub(1)
    }

    pub(crate) fn runtime(&self) -> RuntimeId {
        self.runtime
    }

    pub(crate) fn span(&self) -> &Arc<TokenRequestSpan> {
        &self.span
    }
}

/// A place among those who wait for a refresh. Dropping it cancels nothing.
#[must_use = "it is a future"]
pub(crate) struct RefreshWaiter {
    waiting: Waiting,
    /// Made on another runtime than the refresh's.
    elsewhere: bool,
    wait: Wait,
}

enum Waiting {
    Refresh(rt::Shared<Ending>),
    /// Until it is worth looking at the cell again.
    Pause(rt::Shared<()>),
}

impl RefreshWaiter {
    /// Waits for the end of a pause, and says to look again.
    ///
    /// # Errors
    /// `NoRuntime` outside a tokio runtime.
    pub(crate) fn pause(pause: Duration, telemetry: &Telemetry, now: &Now) -> Result<Self, TokenError> {
        let runtime = Runtime::current().ok_or_else(|| TokenError::new(TokenErrorKind::NoRuntime))?;
        let (over, waiting) = rt::shared_oneshot();
        // A task, so that a runtime without timers drops it instead of panicking in the caller.
        runtime.spawn(async move {
            rt::sleep(pause).await;
            let _ = over.send(());
        });
        let wait = Wait::for_pause(telemetry, now.monotonic);
        Ok(Self { waiting: Waiting::Pause(waiting), elsewhere: false, wait })
    }
}

impl Future for RefreshWaiter {
    type Output = RefreshResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RefreshResult> {
        let Self { waiting, elsewhere, wait } = &mut *self;
        let polled = match waiting {
            Waiting::Refresh(shared) => Pin::new(shared).poll(cx).map(|ending| match ending {
                // Once: the refresh that is started next runs where this one waits.
                Ok(Ending { runtime_ended: true, .. }) if *elsewhere => RefreshResult::Superseded,
                Ok(Ending { result, .. }) => result,
                // The cell itself is gone, and nobody is left who could say more.
                Err(_) => RefreshResult::Failed(wait.telemetry().named(TokenError::new(TokenErrorKind::Aborted))),
            }),
            Waiting::Pause(over) => Pin::new(over).poll(cx).map(|_| RefreshResult::Superseded),
        };
        match &polled {
            Poll::Pending => wait.pending(),
            Poll::Ready(_) => wait.ended(),
        }
        polled
    }
}

impl fmt::Debug for RefreshWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshWaiter").field("elsewhere", &self.elsewhere).finish_non_exhaustive()
    }
}

/// How the task of a refresh ended.
#[expect(clippy::large_enum_variant, reason = "there is one for each refresh, and it is moved twice")]
pub(crate) enum TaskEnd {
    Finished(Result<Granted, Failed>),
    /// The source panicked.
    Panicked(Failed),
    /// The runtime dropped the task.
    RuntimeEnded(Failed),
}

impl TaskEnd {
    /// The same, with an error that names its layer.
    pub(crate) fn named(self, telemetry: &Telemetry) -> Self {
        let named = |failed: Failed| failed.map(|error| telemetry.named(error));
        match self {
            Self::Finished(result) => Self::Finished(result.map_err(named)),
            Self::Panicked(failed) => Self::Panicked(named(failed)),
            Self::RuntimeEnded(failed) => Self::RuntimeEnded(named(failed)),
        }
    }
}

/// The cell, as the task of its refresh knows it.
pub(crate) trait Owner: Send {
    /// The task is driven for the first time: whether its refresh is still wanted. It may have waited for long on a runtime
    /// that nobody drove, and its refresh token may have been sent by another one since.
    fn begin(&self, now: &Now) -> bool;

    /// Takes in the end, once. `asked`: when the source was.
    fn complete(self: Box<Self>, end: TaskEnd, asked: Now);
}

/// A refresh that has not begun: made under the cell's lock, spawned after it is released, since a runtime that has shut
/// down drops the task, and so ends the refresh, on the spot.
#[must_use]
pub(crate) struct PreparedRefresh {
    guard: CompletionGuard,
    runtime: Runtime,
    /// Boxed: a future that takes it by value has room for it twice.
    request: Box<TokenRequest>,
    span: Arc<TokenRequestSpan>,
}

/// A refresh for this runtime. `now`: when it was decided.
pub(crate) fn prepare(
    runtime: Runtime,
    env: &Arc<Env>,
    request: TokenRequest,
    now: Now,
    span: Arc<TokenRequestSpan>,
    owner: Box<dyn Owner>,
) -> PreparedRefresh {
    let carried = Asked::of(&request);
    let guard = CompletionGuard { env: env.clone(), carried, context: None, asked: now, owner: Some(owner) };
    PreparedRefresh { guard, runtime, request: Box::new(request), span }
}

impl PreparedRefresh {
    pub(crate) fn spawn(self) {
        let Self { guard, runtime, request, span } = self;
        let entered = span.begin();
        runtime.spawn(run(guard, request, span.clone(), entered));
        span.begun();
    }
}

async fn run(mut guard: CompletionGuard, mut request: Box<TokenRequest>, span: Arc<TokenRequestSpan>, entered: Span) {
    guard.asked = guard.env.now_or(guard.asked);
    if !guard.begin() {
        return guard.complete(TaskEnd::Finished(Err(TokenError::new(TokenErrorKind::Aborted).into())));
    }
    let context = Arc::new(RefreshContext { span: Some(span), ..guard.env.context() });
    guard.context = Some(context.clone());
    request.context = Some(context);
    let env = guard.env.clone();
    let fetch = AssertUnwindSafe(async { env.source.fetch_boxed(request).await }.instrument(entered)).catch_unwind();
    let end = match rt::timeout(env.policy.refresh_deadline, fetch).await {
        Ok(Ok(result)) => TaskEnd::Finished(result),
        Ok(Err(_)) => {
            let error = TokenError::new(TokenErrorKind::Aborted).with_detail("the token source panicked");
            TaskEnd::Panicked(guard.unfinished(error))
        }
        Err(_) => TaskEnd::Finished(Err(guard.unfinished(deadline_passed()))),
    };
    guard.complete(end);
}

pub(crate) fn deadline_passed() -> TokenError {
    TokenError::new(TokenErrorKind::Timeout).with_detail("the deadline of the whole token request passed")
}

/// Sees to it that a refresh is completed, and once.
struct CompletionGuard {
    env: Arc<Env>,
    carried: Asked,
    /// From when the source is asked.
    context: Option<Arc<RefreshContext>>,
    asked: Now,
    owner: Option<Box<dyn Owner>>,
}

impl CompletionGuard {
    fn begin(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.begin(&self.asked))
    }

    fn complete(mut self, end: TaskEnd) {
        if let Some(owner) = self.owner.take() {
            owner.complete(end, self.asked);
        }
    }

    /// There is no result. What became of the refresh token is known nevertheless.
    fn unfinished(&self, error: TokenError) -> Failed {
        match &self.context {
            Some(context) => context.report.unfinished(&self.carried, error),
            None => error.into(),
        }
    }
}

/// A runtime that shuts down drops the task without a result.
impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            let failed = self.unfinished(TokenError::new(TokenErrorKind::Aborted));
            owner.complete(TaskEnd::RuntimeEnded(failed), self.asked);
        }
    }
}
