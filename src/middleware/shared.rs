//! What the clones of a service share: a configuration at work, a clone of the inner service, and what both need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::header_cache::HeaderCache;
use super::prove::Prove;
use crate::engine::{Cell, Env};
use crate::request::{HttpRequest, HttpResponse, Own, Registry, is_known_by_name};
use crate::response::{Holding, TrailerWatch, Verdict, has_grpc_status, judge};
use crate::setup::Setup;
use crate::telemetry::Telemetry;
use crate::types::{Error, TokenError};

/// What a service says for all its requests, and its way to what all clones share. From its second request on, a clone has
/// a handle of its own, so that threads with a clone each do not write to one counter.
pub(crate) struct Handle<S> {
    pub(crate) own: Own,
    pub(crate) setup: Arc<Setup>,
    /// That of `setup`, two steps nearer.
    pub(crate) default_cell: Arc<Cell>,
    pub(crate) shared: Arc<Shared<S>>,
}

impl<S> Handle<S> {
    pub(crate) fn new(inner: Prove<S>, setup: Arc<Setup>, registry: Registry) -> Self {
        let own = Own::new(&setup.requests, None, None);
        let shared = Shared {
            fresh: Mutex::new(inner),
            registry,
            header_cache: HeaderCache::default(),
            warned: AtomicBool::new(false),
        };
        Self { own, default_cell: setup.table.default_cell().clone(), setup, shared: Arc::new(shared) }
    }

    /// The same for requests of which something else is said.
    pub(crate) fn with(&self, own: Own) -> Self {
        Self { own, setup: self.setup.clone(), default_cell: self.default_cell.clone(), shared: self.shared.clone() }
    }

    #[inline]
    pub(crate) fn env(&self) -> &Arc<Env> {
        self.setup.table.env()
    }
}

/// What all clones of a service share.
pub(crate) struct Shared<S> {
    /// Cloned for a second sending and after a wait for a token; never called itself.
    fresh: Mutex<Prove<S>>,
    pub(crate) registry: Registry,
    /// For clones that have no header value of their own yet.
    pub(crate) header_cache: HeaderCache,
    warned: AtomicBool,
}

impl<S> Shared<S> {
    pub(crate) fn fresh_clone(&self) -> Prove<S>
    where
        S: Clone,
    {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says once that requests with bodies of this type are never sent twice.
    pub(crate) fn warn_of_body(&self, telemetry: &Telemetry, name: &'static str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            if is_known_by_name(name) {
                telemetry.body_of_another_version(name)
            } else {
                telemetry.body_not_replayable(name)
            }
        }
    }
}

impl<S> Handle<S> {
    /// `scheme`: what was sent before the token.
    pub(crate) fn judge<T: HttpResponse>(
        &self,
        response: &T,
        cell: &Arc<Cell>,
        generation: u64,
        scheme: &[u8],
    ) -> Verdict {
        judge(response.status(), response.headers(), scheme, &self.setup.rejection, || {
            cell.is_past_margin(self.env(), generation)
        })
    }

    /// Hands out a response that was `accepted`, or not, by its head. A gRPC call may yet reject its token in its trailers: too
    /// late to send it again, but the next call gets another token. So it is accepted when they are there.
    pub(crate) fn watched<T: HttpResponse>(
        &self,
        response: T,
        watch: Option<TrailerWatch<T>>,
        cell: &Arc<Cell>,
        generation: u64,
        accepted: impl FnOnce(&Env, &Cell) + Send + 'static,
    ) -> T {
        let env = self.env();
        let is_watching = self.setup.rejection.grpc && self.setup.rejection.on_unauthorized;
        match watch.filter(|_| is_watching && !has_grpc_status(response.headers())) {
            Some(watch) => {
                let (env, cell) = (env.clone(), cell.clone());
                let on_end = move |rejected| {
                    if rejected { drop(cell.reject(&env, generation, false)) } else { accepted(&env, &cell) }
                };
                watch(response, Box::new(on_end))
            }
            None => {
                accepted(env, cell);
                response
            }
        }
    }
}

/// What is known by the types of request and response.
///
/// A request carries only the function that finds it out, which is smaller.
pub(crate) struct BodySupport<R: HttpRequest, T> {
    /// How the request's body is sent twice.
    pub(crate) vtable: R::ReplayVtable,
    /// How the response's trailers are watched; `None` where they cannot be.
    pub(crate) watch: Option<TrailerWatch<T>>,
    /// What can be done with the response's body while it waits; `None`: nothing. Asked for when one does: to find it
    /// takes many comparisons, which a request that only waits for its token must not pay for.
    pub(crate) holding: fn() -> Option<Holding<T>>,
}

pub(crate) type BodySupportOf<R, T> = fn(&Registry) -> BodySupport<R, T>;

/// The types of the bodies of request and response.
pub(crate) trait Bodies<R: HttpRequest, T> {
    fn support(registry: &Registry) -> BodySupport<R, T>;
}

impl<R: HttpRequest, T> Copy for BodySupport<R, T> {}

impl<R: HttpRequest, T> Clone for BodySupport<R, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: HttpRequest, T> BodySupport<R, T> {
    /// There is no token. A tonic client, which has such responses only, is told in its own way.
    #[cold]
    pub(crate) fn no_token(&self, error: TokenError) -> Error {
        #[cfg(feature = "tonic")]
        if self.watch.is_some() {
            return Error::grpc_token(error);
        }
        Error::Token(error)
    }
}
