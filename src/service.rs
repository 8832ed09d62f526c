//! `Auth<S>`: the service; starts a request on its way.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Extensions, HeaderValue};
use tower_service::Service;

use crate::error::{BoxError, Error};
use crate::extensions::{Replay, Resend, Scopes, SkipAuth, TenantId};
use crate::future::{ResponseFuture, Sent, Waiting};
use crate::layer::Setup;
use crate::message::{HttpRequest, HttpResponse};
use crate::observe;
use crate::request::{Admission, Registry, TenantPolicy, withhold};
use crate::token::{Current, Partition, Read, Slot};

/// An HTTP client service with OAuth2: what [`AuthLayer`](crate::AuthLayer) makes of `S`.
///
/// It is a `Service` for `http::Request<B>` with any body `B`, over any inner service for the same, and (feature
/// `reqwest`) for `reqwest::Request`. The inner service's error comes back inside [`Error::Service`].
///
/// **Readiness.** A request is sent by the very instance that was polled ready. A request that must wait for a token
/// first gives that readiness back, so that it holds no permit and no connection while it waits, and acquires it again;
/// so does a request that is sent a second time. Both use a clone of `S`.
///
/// **Clones** are cheap and share tokens. A long-lived clone is a little faster than a new one for each request: it keeps
/// a header value of its own from its second request on.
///
/// **Cancellation.** Dropping the response future at any point costs nobody else anything: a token request it started
/// goes on.
///
/// `B` must implement `http_body::Body`; the compiler tells that indirectly ("the method `call` exists but its trait
/// bounds were not satisfied"): `Request<()>` is such a case, use `Empty<Bytes>`.
pub struct Auth<S> {
    inner: S,
    local: LocalToken,
    tenant: Option<TenantId>,
    core: Arc<Core<S>>,
}

/// What all clones of a service share.
pub(crate) struct Core<S> {
    /// Cloned for a second sending and after a wait for a token; never called itself.
    spare: Mutex<S>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) registry: Registry,
    warned: AtomicBool,
}

/// This clone's own copy of the token's header value, so that threads do not share its reference count.
#[derive(Default)]
struct LocalToken {
    /// The slot's word for which `header` is good; zero: none yet.
    word: u64,
    header: Option<HeaderValue>,
    /// The word of the request before, to copy on the second request only.
    seen: u64,
}

impl<S: Clone> Auth<S> {
    pub(crate) fn new(inner: S, setup: Arc<Setup>, registry: Registry) -> Self {
        let core = Core { spare: Mutex::new(inner.clone()), setup, registry, warned: AtomicBool::new(false) };
        Self { inner, local: LocalToken::default(), tenant: None, core: Arc::new(core) }
    }

    /// A clone for one tenant: the way to choose the tenant where requests carry no extensions (reqwest).
    ///
    /// It wins over nothing: a request that names another tenant as well is refused with [`Error::Tenant`].
    pub fn for_tenant(&self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self.clone() }
    }
}

impl<S> Auth<S> {
    /// The inner service.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone> Clone for Auth<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            // Not copied: a clone made for one request would pay for a copy that it never uses.
            local: LocalToken::default(),
            tenant: self.tenant.clone(),
            core: self.core.clone(),
        }
    }
}

impl<S> Core<S> {
    pub(crate) fn spare(&self) -> S
    where
        S: Clone,
    {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says once that requests of this kind are never sent twice.
    pub(crate) fn warn_if_unknown<R: HttpRequest>(&self) {
        if let Some(body) = R::unknown_body(&self.registry)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            observe::body_not_replayable(body);
        }
    }
}

impl<S, B, RB> Service<http::Request<B>> for Auth<S>
where
    S: Service<http::Request<B>, Response = http::Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body + 'static,
    B::Error: Send,
    RB: http_body::Body + 'static,
{
    type Response = http::Response<RB>;
    type Error = Error;
    type Future = ResponseFuture<S, http::Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|error| Error::Service(error.into()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.start(request)
    }
}

#[cfg(feature = "reqwest")]
impl<S> Service<reqwest::Request> for Auth<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = reqwest::Response;
    type Error = Error;
    type Future = ResponseFuture<S, reqwest::Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|error| Error::Service(error.into()))
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        self.start(request)
    }
}

impl<S> Auth<S> {
    fn start<R>(&mut self, request: R) -> ResponseFuture<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        match self.prepare(request) {
            Ok(Prepared::Bare(request)) => ResponseFuture::bare(self.inner.call(request)),
            Ok(Prepared::Ours(request, slot, resend)) => self.send(request, slot, resend),
            Err(error) => ResponseFuture::failed(error),
        }
    }

    /// Everything that needs no token: checks, the tenant, the headers that are the same on both sendings.
    fn prepare<R: HttpRequest>(&self, mut request: R) -> Result<Prepared<R>, Error> {
        let setup = &self.core.setup;
        let extensions = request.extensions();
        if extensions.is_some_and(|extensions| extensions.get::<SkipAuth>().is_some()) {
            return Ok(Prepared::Bare(request));
        }
        let tenant_header = setup.tenant.as_ref().and_then(TenantPolicy::header);
        if matches!(request.admission(&setup.origins)?, Admission::NoCredentials) {
            withhold(request.headers_mut(), tenant_header);
            return Ok(Prepared::Bare(request));
        }
        let resend = Resending {
            policy: extensions.and_then(|extensions| extensions.get()).copied().unwrap_or(setup.replay.replay),
            outer: extensions.is_some_and(|extensions| extensions.get::<Resend>().is_some()),
        };
        let scopes = extensions.and_then(|extensions| extensions.get::<Scopes>()).cloned();
        let mut tenant = None;
        if let Some(policy) = &setup.tenant {
            let none = Extensions::new();
            tenant = policy.capture(self.tenant.as_ref(), extensions.unwrap_or(&none), request.headers())?;
        }
        let is_ours = setup.injection.admits(request.headers(), tenant_header)?;
        let mut partition = Partition { tenant: None, scopes };
        if let Some(policy) = &setup.tenant {
            policy.apply(tenant.as_ref(), request.headers_mut());
            partition.tenant = policy.partition(tenant.as_ref()).cloned();
        }
        if !is_ours {
            return Ok(Prepared::Bare(request));
        }
        let slot = (!partition.is_main()).then(|| setup.engine.slot(partition));
        Ok(Prepared::Ours(request, slot, resend))
    }

    fn send<R>(&mut self, request: R, slot: Option<Arc<Slot>>, resend: Resending) -> ResponseFuture<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        let engine = &self.core.setup.engine;
        let (header, generation) = match &slot {
            None => {
                let main = engine.main();
                match self.local.lookup(main.word()) {
                    Some(header) => (header, Current::generation_of(self.local.word)),
                    None => match main.read(engine) {
                        Read::Ready(current) => (self.local.learn(&current), current.generation),
                        read => return self.wait(request, slot, resend, read),
                    },
                }
            }
            Some(slot) => match slot.read(engine) {
                Read::Ready(current) => (current.token.header_value().clone(), current.generation),
                read => return self.wait(request, Some(slot.clone()), resend, read),
            },
        };
        let (request, kept) = resend.dispatch(request, header, &self.core);
        let future = self.inner.call(request);
        ResponseFuture::sent(future, Sent::new(self.core.clone(), slot, generation, kept, resend.outer))
    }

    /// There is no token: the readiness acquired for this request goes back to whom it belongs while we wait. Holding it
    /// would block bystanders, and deadlock where the token client shares the limit.
    fn wait<R>(&mut self, request: R, slot: Option<Arc<Slot>>, resend: Resending, read: Read) -> ResponseFuture<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        match read {
            Read::Failed(error) => ResponseFuture::failed(Error::Token(error)),
            read => {
                self.inner = self.core.spare();
                ResponseFuture::waiting(Waiting::new(self.core.clone(), slot, request, resend, read))
            }
        }
    }
}

enum Prepared<R> {
    /// Goes out as it is.
    Bare(R),
    /// Goes out with a token; of this slot, or of the main one.
    Ours(R, Option<Arc<Slot>>, Resending),
}

/// What may happen after a rejection.
#[derive(Clone, Copy)]
pub(crate) struct Resending {
    policy: Replay,
    /// This already is a second sending, by an outer layer of this crate.
    pub(crate) outer: bool,
}

impl Resending {
    /// Keeps what a second sending needs, then injects the token.
    pub(crate) fn dispatch<S, R: HttpRequest>(
        &self,
        request: R,
        header: HeaderValue,
        core: &Core<S>,
    ) -> (R, Option<R::Kept>) {
        let may_resend = !self.outer && self.policy.allows(request.method());
        let (mut request, kept) =
            if may_resend { request.keep(&core.registry, core.setup.replay.cap) } else { (request, None) };
        core.setup.injection.apply(header, request.headers_mut());
        (request, kept)
    }
}

impl LocalToken {
    /// The private copy, if it is good for the slot as it is now.
    #[inline]
    fn lookup(&self, word: u64) -> Option<HeaderValue> {
        if self.word == word { self.header.clone() } else { None }
    }

    /// The shared value the first time, a private copy from the second time on.
    fn learn(&mut self, current: &Current) -> HeaderValue {
        let word = current.word();
        let shared = current.token.header_value();
        if self.word != word {
            if self.seen == word {
                if let Ok(mut copy) = HeaderValue::from_bytes(shared.as_bytes()) {
                    copy.set_sensitive(true);
                    (self.word, self.header) = (word, Some(copy));
                }
            } else {
                (self.seen, self.header) = (word, None);
            }
        }
        shared.clone()
    }
}

/// Neither the inner service nor anything of the token is shown.
impl<S> fmt::Debug for Auth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}
