//! The runtime of the models: tasks wait in a queue until a thread of the model drives it, and timers until they are told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use tokio::time::Instant;

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A runtime that nobody drives but the model.
#[derive(Clone, Default)]
pub(crate) struct Runtime(Arc<Inner>);

/// Where it is: no two that live are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RuntimeId(usize);

struct Inner {
    tasks: Mutex<Tasks>,
    changed: Condvar,
}

#[derive(Default)]
struct Tasks {
    /// Not polled yet.
    new: VecDeque<Task>,
    /// Polled once. In a model nothing but a timer is waited for.
    asleep: VecDeque<Task>,
    wakes: u32,
}

impl Default for Inner {
    fn default() -> Self {
        Self { tasks: Mutex::new(Tasks::default()), changed: Condvar::new() }
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        lock(&self.tasks).wakes += 1;
        self.changed.notify_all();
    }
}

loom::thread_local! {
    /// Weak, since what a thread of the model leaves behind is dropped outside of it, where no lock of loom's may be taken.
    static CURRENT: RefCell<Weak<Inner>> = RefCell::new(Weak::new());
    /// The task that is polled is one whose timer goes off.
    static GOES_OFF: Cell<bool> = Cell::new(false);
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
        lock(&self.0.tasks).new.push_back(Box::pin(task));
        self.0.changed.notify_all();
    }

    /// The oldest task that has not been polled.
    pub(crate) fn take_new(&self) -> Option<Task> {
        lock(&self.0.tasks).new.pop_front()
    }

    /// The oldest task, those that sleep first.
    pub(crate) fn take(&self) -> Option<Task> {
        let mut tasks = lock(&self.0.tasks);
        tasks.asleep.pop_front().or_else(|| tasks.new.pop_front())
    }

    /// Whether there is a task, asleep or new.
    pub(crate) fn has_tasks(&self) -> bool {
        let tasks = lock(&self.0.tasks);
        !(tasks.new.is_empty() && tasks.asleep.is_empty())
    }

    /// Polls whatever is new. All that is not over then waits for a timer.
    pub(crate) fn settle(&self) {
        while let Some(task) = self.take_new() {
            self.poll(task, false);
        }
    }

    /// All timers that there are now go off.
    pub(crate) fn fire_timers(&self) {
        let count = {
            let tasks = lock(&self.0.tasks);
            tasks.new.len() + tasks.asleep.len()
        };
        for _ in 0..count {
            let Some(task) = self.take() else { return };
            self.poll(task, true);
        }
    }

    /// Drives this runtime, as one of its workers, until the future is ready. No timer goes off.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(self.0.clone());
        loop {
            let seen = lock(&self.0.tasks).wakes;
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            if let Some(task) = self.take_new() {
                self.poll(task, false);
                continue;
            }
            let mut tasks = lock(&self.0.tasks);
            while tasks.wakes == seen && tasks.new.is_empty() {
                tasks = self.0.changed.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn poll(&self, mut task: Task, goes_off: bool) {
        GOES_OFF.with(|timer| timer.set(goes_off));
        let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        GOES_OFF.with(|timer| timer.set(false));
        if polled.is_pending() {
            lock(&self.0.tasks).asleep.push_back(task);
        }
    }
}

/// Until the model says that the timer goes off.
pub(crate) async fn sleep(_: Duration) {
    std::future::poll_fn(|_| if GOES_OFF.with(Cell::get) { Poll::Ready(()) } else { Poll::Pending }).await
}

/// A deadline that passes is a task that is dropped, or a watchdog elsewhere.
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
