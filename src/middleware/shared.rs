//! What all clones of a service share: a configuration at work, a spare of the inner service, and what both need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::header_cache::Copies;
use crate::engine::Slot;
use crate::request::{HttpRequest, HttpResponse, Keeping, Registry};
use crate::response::{Verdict, Watch, judge};
use crate::setup::Setup;
use crate::types::events;

/// The way of a request to what all clones share. The outer count is a clone's own from its second request on, so that
/// threads with a clone each do not write to one counter.
pub(crate) type SharedHandle<S> = Arc<Arc<Shared<S>>>;

/// What all clones of a service share.
pub(crate) struct Shared<S> {
    /// Cloned for a second sending and after a wait for a token; never called itself.
    spare: Mutex<S>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) registry: Registry,
    /// For clones that have no header value of their own yet.
    pub(crate) copies: Copies,
    warned: AtomicBool,
}

impl<S> Shared<S> {
    pub(crate) fn new(inner: S, setup: Arc<Setup>, registry: Registry) -> Self {
        Self { spare: Mutex::new(inner), setup, registry, copies: Copies::default(), warned: AtomicBool::new(false) }
    }

    pub(crate) fn spare(&self) -> S
    where
        S: Clone,
    {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says once that requests with bodies of this type are never sent twice.
    pub(crate) fn warn_of_body(&self, name: &'static str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            events::body_not_replayable(name);
        }
    }

    /// `scheme`: what was sent before the token.
    #[inline]
    pub(crate) fn judge<T: HttpResponse>(
        &self,
        response: &T,
        slot: &Arc<Slot>,
        generation: u64,
        scheme: &[u8],
    ) -> Verdict {
        judge(response.status(), response.headers(), scheme, &self.setup.rejection, || {
            slot.is_past_margin(&self.setup.engine, generation)
        })
    }

    /// A gRPC call may reject its token in its trailers: too late to send it again, but the next call gets another token.
    /// `None` where nobody is to watch for that.
    #[inline]
    pub(crate) fn watcher<T>(
        &self,
        watch: Option<Watch<T>>,
        slot: &Arc<Slot>,
        generation: u64,
    ) -> Option<impl FnOnce(T) -> T + use<S, T>> {
        let watch = watch.filter(|_| self.setup.rejection.grpc && self.setup.rejection.on_unauthorized)?;
        let (engine, slot) = (self.setup.engine.clone(), slot.clone());
        Some(move |response| watch(response, Box::new(move || drop(slot.reject(&engine, generation, false)))))
    }
}

/// How often a request may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Resending {
    /// It may be sent twice, if its body can be.
    pub(crate) may_keep: bool,
    /// This already is a second sending, by an outer layer of this crate.
    pub(crate) outer: bool,
}

/// What is known by the types of request and response.
///
/// Apart from what is known by the request, so that the compiler sees constants: 60 instructions a request.
pub(crate) struct ByType<R: HttpRequest, T> {
    /// How the request's body is sent twice.
    pub(crate) ops: R::Ops,
    /// How the response's trailers are watched; `None` where they cannot be.
    pub(crate) watch: Option<Watch<T>>,
}

impl<R: HttpRequest, T> Copy for ByType<R, T> {}

impl<R: HttpRequest, T> Clone for ByType<R, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: HttpRequest, T> ByType<R, T> {
    /// Keeps what a second sending needs; to be done before the token is put in.
    #[inline]
    pub(crate) fn keep(&self, request: &R, resending: Resending) -> Keeping<R::Kept> {
        if resending.may_keep { request.keep(self.ops) } else { Keeping::Done(None) }
    }

    /// The same for a sending after the first, of a request that was kept. What comes back is to be sent.
    pub(crate) fn keep_again(&self, request: R, cap: usize) -> (R, Option<R::Kept>) {
        match request.keep(self.ops) {
            Keeping::Done(kept) => (request, kept),
            Keeping::ByRecording => request.record(self.ops, cap),
        }
    }
}
