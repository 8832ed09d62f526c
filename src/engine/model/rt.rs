//! The runtime of the models: tasks wait in a queue until the model runs or drops them, and time does not pass.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::{Mutex, MutexGuard};

pub(crate) use tokio::time::Instant;

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A runtime that nobody drives but the model.
#[derive(Clone, Default)]
pub(crate) struct Runtime(Arc<Mutex<VecDeque<Task>>>);

/// Where it is: no two that live are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RuntimeId(usize);

loom::thread_local! {
    /// Weak, since what a thread of the model leaves behind is dropped outside of it, where no lock of loom's may be taken.
    static CURRENT: std::cell::RefCell<Weak<Mutex<VecDeque<Task>>>> = std::cell::RefCell::new(Weak::new());
}

impl Runtime {
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().upgrade().map(Self))
    }

    pub(crate) fn id(&self) -> RuntimeId {
        RuntimeId(Arc::as_ptr(&self.0).addr())
    }

    pub(crate) fn is_current_thread(&self) -> bool {
        false
    }

    /// From now on this thread of the model is inside of this runtime.
    pub(crate) fn enter(&self) {
        CURRENT.with(|current| *current.borrow_mut() = Arc::downgrade(&self.0));
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push_back(Box::pin(task));
    }

    /// The oldest task that nobody has taken.
    pub(crate) fn take(&self) -> Option<Task> {
        lock(&self.0).pop_front()
    }
}

/// Never: a model that wants a deadline to pass drops the task.
pub(crate) async fn sleep(_: Duration) {
    pending().await
}

pub(crate) async fn timeout<T>(_: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    Ok(work.await)
}

/// Not in a model.
pub(crate) struct Elapsed;

pub(crate) fn deadline(_: Duration) -> Instant {
    Instant::now()
}

/// One value, told once, to everybody who has a clone of the receiver: as `futures_util`'s over tokio's, whose locks loom
/// does not know.
pub(crate) fn shared_oneshot<T: Clone>() -> (Sender<T>, Shared<T>) {
    let state = Arc::new(Mutex::new(State { value: None, closed: false, wakers: Vec::new() }));
    (Sender(state.clone()), Shared(state))
}

struct State<T> {
    value: Option<T>,
    closed: bool,
    wakers: Vec<Waker>,
}

pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

pub(crate) struct Shared<T>(Arc<Mutex<State<T>>>);

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed;

impl<T> Sender<T> {
    pub(crate) fn send(self, value: T) -> Result<(), T> {
        lock(&self.0).value = Some(value);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut state = lock(&self.0);
            state.closed = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Shared<T> {
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn strong_count(&self) -> Option<usize> {
        Some(Arc::strong_count(&self.0).saturating_sub(1))
    }
}

impl<T: Clone> Future for Shared<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        match (&state.value, state.closed) {
            (Some(value), true) => Poll::Ready(Ok(value.clone())),
            (None, true) => Poll::Ready(Err(Closed)),
            (_, false) => {
                state.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
