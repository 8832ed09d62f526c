//! The async runtime as the engine uses it: where tasks go, and timers. No other file of the engine names tokio's.

#[cfg(not(model))]
mod tokio_runtime {
    use std::future::Future;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    pub(crate) use tokio::time::{Instant, sleep, timeout};

    pub(crate) use tokio::runtime::Id as RuntimeId;

    /// Where a task goes: the runtime in which the request is polled that needs it.
    pub(crate) struct Runtime(Handle);

    impl Runtime {
        /// `None` outside of a runtime.
        pub(crate) fn current() -> Option<Self> {
            Handle::try_current().ok().map(Self)
        }

        pub(crate) fn id(&self) -> RuntimeId {
            self.0.id()
        }

        /// Whether nobody turns its timers but the thread that blocks on it.
        pub(crate) fn is_current_thread(&self) -> bool {
            self.0.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread
        }

        /// A runtime that has shut down drops the task on the spot.
        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            self.0.spawn(task);
        }
    }

    pub(crate) type Sender<T> = oneshot::Sender<T>;
    /// `Err`: the sender was dropped.
    pub(crate) type Shared<T> = futures_util::future::Shared<oneshot::Receiver<T>>;

    /// One value, told once, to everybody who has a clone of the receiver.
    pub(crate) fn shared_oneshot<T: Clone>() -> (Sender<T>, Shared<T>) {
        let (sender, receiver) = oneshot::channel();
        (sender, receiver.shared())
    }

    /// By the runtime's timers.
    pub(crate) fn deadline(after: Duration) -> Instant {
        /// More than anybody waits, and less than the clock counts to.
        const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        let now = Instant::now();
        now.checked_add(after.min(LONGEST)).unwrap_or(now)
    }
}

#[cfg(not(model))]
pub(crate) use tokio_runtime::*;

#[cfg(model)]
#[path = "model/rt.rs"]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests drive it"))]
mod model_runtime;
#[cfg(model)]
pub(crate) use model_runtime::*;
