//! The locks and atomics of the engine: the standard library's, or loom's where the engine is model-checked (`--cfg model`).

#[cfg(not(model))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(model)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(not(model))]
pub(crate) use arc_swap::ArcSwapOption;

/// `arc_swap` is not known to loom: a lock stands in its place, which is never torn either and orders no less.
#[cfg(model)]
pub(crate) struct ArcSwapOption<T>(Mutex<Option<std::sync::Arc<T>>>);

#[cfg(model)]
impl<T> ArcSwapOption<T> {
    pub(crate) fn empty() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn load_full(&self) -> Option<std::sync::Arc<T>> {
        self.lock().clone()
    }

    pub(crate) fn load(&self) -> Option<std::sync::Arc<T>> {
        self.load_full()
    }

    pub(crate) fn store(&self, value: Option<std::sync::Arc<T>>) {
        *self.lock() = value;
    }

    pub(crate) fn swap(&self, value: Option<std::sync::Arc<T>>) -> Option<std::sync::Arc<T>> {
        std::mem::replace(&mut self.lock(), value)
    }

    fn lock(&self) -> MutexGuard<'_, Option<std::sync::Arc<T>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
