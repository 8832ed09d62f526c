//! `Auth<S>`: the service; starts a request on its way.

use std::borrow::Cow;
use std::fmt;
#[cfg(feature = "reqwest")]
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;
use tower_service::Service;

use super::future::{FirstAttempt, ResponseFuture, Waiting};
use super::prove::{Prove, ProveFuture};
use super::shared::{Bodies, BodySupport, BodySupportOf, Handle};
use crate::engine::{Cell, Current, Partition, Read};
use crate::request::{HttpRequest, HttpResponse, Identity, Own, Plan, Prepared, Registry, ReplayAttempt};
#[cfg(feature = "reqwest")]
use crate::response::holding_of_reqwest;
use crate::response::{holding_of, trailer_watch_of};
use crate::setup::Setup;
use crate::types::{BoxError, Error, TenantId, TokenParams, deep_clone};

/// An HTTP client service with OAuth2: what [`AuthLayer`](crate::AuthLayer) makes of `S`.
///
/// It is a `Service` for `http::Request<B>` with any body `B`, over any inner service for the same, and (feature
/// `reqwest`) for `reqwest::Request`. The inner service's error comes back inside [`Error::Service`].
///
/// **Readiness.** A request is sent by the very instance that was polled ready. A request that must wait for a token
/// first gives that readiness back, so that it holds no permit and no connection while it waits, and acquires it again;
/// so does a request that is sent a second time. Both use a clone of `S`.
///
/// **Clones** are cheap and share tokens. A long-lived clone is a little faster than a new one for each request: it
/// keeps a header value of its own from its second request on.
///
/// **Cancellation.** Dropping the response future at any point costs nobody else anything: a token request it started
/// goes on.
///
/// `B` must implement `http_body::Body`; the compiler tells that indirectly ("the method `call` exists but its trait
/// bounds were not satisfied"): `Request<()>` is such a case, use `Empty<Bytes>`.
pub struct Auth<S> {
    inner: Prove<S>,
    local: Local,
    handle: Arc<Handle<S>>,
}

/// This clone's own copy of the token's header value, so that threads do not share its reference count.
#[derive(Default)]
struct Local {
    /// The cell's word for which `header` is good; zero: none yet.
    word: u64,
    header: Option<HeaderValue>,
    /// The word of the request before, to copy on the second request only.
    seen: u64,
    /// The handle is this clone's own.
    has_handle: bool,
}

impl<S: Clone> Auth<S> {
    pub(crate) fn new(inner: S, setup: Arc<Setup>, registry: Registry) -> Self {
        let inner = Prove::new(inner, &setup);
        let handle = Handle::new(inner.clone(), setup, registry);
        Self { inner, local: Local::default(), handle: Arc::new(handle) }
    }

    fn with(&self, own: Own) -> Self {
        Self { inner: self.inner.clone(), local: Local::default(), handle: Arc::new(self.handle.with(own)) }
    }

    /// A clone for one tenant: the way to choose the tenant where requests carry no extensions (reqwest).
    ///
    /// It overrides nothing: a request that names another tenant as well is refused with [`Error::Tenant`]. So is every
    /// request where [`AuthConfigBuilder::tenant`](crate::AuthConfigBuilder::tenant) is not set, since nothing would use the tenant.
    ///
    /// ```
    /// # use http_body_util::Empty;
    /// # use tower::{Layer, ServiceExt};
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Tenant, TenantId, Token, TokenError, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("x").map_err(TokenError::permanent) });
    /// # let cfg = AuthConfig::external().origin("https://api.example.com").tenant(Tenant::header("Tenant-Id")).build()?;
    /// # let inner = tower::service_fn(|request: http::Request<Empty<bytes::Bytes>>| async move {
    /// #     let tenant = request.headers()["tenant-id"].clone();
    /// #     Ok::<_, std::io::Error>(http::Response::builder().header("seen", tenant).body(String::new()).unwrap())
    /// # });
    /// # let client = AuthLayer::with_source(cfg, source).layer(inner);
    /// let practice = client.for_tenant(&TenantId::new("practice-1")?);
    /// let request = http::Request::get("https://api.example.com/v1/items").body(Empty::new())?;
    /// let response = practice.oneshot(request).await?; // sent with `Tenant-Id: practice-1`
    /// # assert_eq!(response.headers()["seen"], "practice-1");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        self.with(self.handle.own.with_tenant(&self.handle.setup.requests, tenant.clone()))
    }

    /// A clone whose requests bring these parameters for their token requests: the way to say so where requests carry no
    /// extensions (reqwest), and to say it once for many requests.
    ///
    /// It overrides nothing: a request that brings others as well is refused with [`Error::Subject`].
    ///
    /// ```
    /// # use http_body_util::Empty;
    /// # use tower::{Layer, ServiceExt};
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenParams, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|request: TokenRequest| async move {
    /// #     let audience = request.params.unwrap().audiences()[0].clone();
    /// #     Token::bearer(&format!("for-{audience}")).map_err(TokenError::permanent)
    /// # });
    /// # let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
    /// # let inner = tower::service_fn(|request: http::Request<Empty<bytes::Bytes>>| async move {
    /// #     let token = request.headers()["authorization"].clone();
    /// #     Ok::<_, std::io::Error>(http::Response::builder().header("seen", token).body(String::new()).unwrap())
    /// # });
    /// # let client = AuthLayer::with_source(cfg, source).layer(inner);
    /// let orders = client.for_params(&TokenParams::new().audience("orders")?);
    /// let request = http::Request::get("https://api.example.com/v1/orders").body(Empty::new())?;
    /// let response = orders.oneshot(request).await?; // with a token for the audience `orders`
    /// # assert_eq!(response.headers()["seen"], "Bearer for-orders");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_params(&self, params: &TokenParams) -> Self {
        self.with(self.handle.own.with_params(params.clone()))
    }
}

impl<S> Auth<S> {
    /// The inner service, as for its own figures. Requests sent through it carry no token.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref()
    }

    /// The same, to be changed. Requests that wait or are sent a second time use a clone made before.
    pub fn get_mut(&mut self) -> &mut S {
        self.inner.get_mut()
    }

    /// The inner service, out of this clone.
    pub fn into_inner(self) -> S {
        self.inner.into_inner()
    }
}

impl<S: Clone> Clone for Auth<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            // Not copied: a clone made for one request would pay for a copy that it never uses.
            local: Local::default(),
            handle: self.handle.clone(),
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
    type Future = ResponseFuture<S, http::Request<B>, S::Future, http::Response<RB>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.start::<_, HttpBodies<B, RB>>(request)
    }
}

/// `http::Request<B>` and `http::Response<RB>`.
struct HttpBodies<B, RB>(PhantomData<(B, RB)>);

impl<B, RB> Bodies<http::Request<B>, http::Response<RB>> for HttpBodies<B, RB>
where
    B: http_body::Body + 'static,
    B::Error: Send,
    RB: http_body::Body + 'static,
{
    #[inline]
    fn support(registry: &Registry) -> BodySupport<http::Request<B>, http::Response<RB>> {
        BodySupport { vtable: registry.vtable_of::<B>(), watch: trailer_watch_of::<RB>(), holding: holding_of::<RB> }
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
    type Future = ResponseFuture<S, reqwest::Request, S::Future, reqwest::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        self.start::<_, ReqwestBodies>(request)
    }
}

#[cfg(feature = "reqwest")]
impl Auth<reqwest::Client> {
    /// Sends a request as [`reqwest::Client::execute`] does, with a token: without `&mut`, and without tower's traits.
    ///
    /// The same as `auth.clone().oneshot(request)`. The future borrows nothing, so that it can be spawned.
    ///
    /// ```no_run
    /// use tower::Layer;
    /// use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/oauth2/token", ClientAuth::basic("id", "secret"))
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let client: Auth<reqwest::Client> = AuthLayer::new(cfg).layer(http.clone());
    ///
    /// let request = http.get("https://api.example.com/v1/items").header("accept", "text/plain").build()?;
    /// println!("{}", client.execute(request).await?.text().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`Error`]: there was no token, the request must not carry one, or the client failed
    /// (`error.service_ref::<reqwest::Error>()`). A 401 that no other token heals is a response.
    pub fn execute(
        &self,
        request: reqwest::Request,
    ) -> impl Future<Output = Result<reqwest::Response, Error>> + Send + use<> {
        let mut auth = self.clone();
        async move {
            poll_fn(|cx| Service::<reqwest::Request>::poll_ready(&mut auth, cx)).await?;
            auth.call(request).await
        }
    }
}

#[cfg(feature = "reqwest")]
struct ReqwestBodies;

#[cfg(feature = "reqwest")]
impl Bodies<reqwest::Request, reqwest::Response> for ReqwestBodies {
    fn support(registry: &Registry) -> BodySupport<reqwest::Request, reqwest::Response> {
        BodySupport { vtable: registry.vtable_of(), watch: None, holding: holding_of_reqwest }
    }
}

/// What becomes of a request `R` through `S`.
pub(super) type Answer<S, R> = ResponseFuture<S, R, <S as Service<R>>::Future, <S as Service<R>>::Response>;

impl<S> Auth<S> {
    /// Out of line, or the request would be copied once more on its way in here.
    #[inline(never)]
    pub(super) fn start<R, B>(&mut self, mut request: R) -> Answer<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
        B: Bodies<R, S::Response>,
    {
        let (requests, own) = (&self.handle.setup.requests, &self.handle.own);
        let plan = match requests.prepare(&mut request, own) {
            Ok(Prepared::WithToken(plan)) => plan,
            Ok(Prepared::Bare) => return ResponseFuture::bare(self.inner.get_mut().call(request)),
            Err(error) => return self.refuse(*error),
        };
        // Nearly every request is of the default cell.
        let mut cell = None;
        if plan.has_identity {
            match requests.identity(&request, own, plan) {
                Ok(Identity { tenant, scopes, params }) => {
                    cell = Some(self.handle.setup.table.cell(Partition { tenant, scopes, params }));
                }
                Err(error) => return self.refuse(error),
            }
        }
        let ready = if cell.is_none() { self.own_token() } else { None };
        let (token, generation) = match ready {
            Some((token, generation)) => (Cow::Borrowed(token), generation),
            None => match self.token(cell.as_ref()) {
                Ok((token, generation)) => (Cow::Owned(token), generation),
                Err(read) => return self.wait(request, cell, plan, B::support, read),
            },
        };
        // Step by step, here and in `Waiting`: a request that is handed on after it was looked at is copied, each time.
        let (handle, BodySupport { vtable, watch, .. }) = (&self.handle, B::support(&self.handle.shared.registry));
        let requests = &handle.setup.requests;
        let replay_copy = match requests.copy_for_replay(&request, plan, vtable) {
            ReplayAttempt::Done(copy) => copy,
            ReplayAttempt::ByRecording => {
                let copy;
                (request, copy) = requests.record(request, vtable);
                copy
            }
        };
        requests.inject(&mut request, token, &handle.own, plan);
        let future = match self.inner.without_proof() {
            Some(inner) => ProveFuture::of(inner.call(request)),
            None => self.inner.call(request, vtable, plan.may_replay),
        };
        let (handle, support, is_watched) = (handle.clone(), B::support as BodySupportOf<_, _>, watch.is_some());
        let first = FirstAttempt { handle, cell, generation, replay_copy, support, is_watched, plan, waited: false };
        ResponseFuture::sent(future, first)
    }

    /// The token of the default cell, if this clone's own copy is good as things are now.
    #[inline]
    fn own_token(&self) -> Option<(&HeaderValue, u64)> {
        let word = self.handle.default_cell.word_now(self.handle.env());
        Some((self.local.lookup(word)?, Current::generation_of(word)))
    }

    /// The token's header value and generation, or why there is none. `None`: of the default cell.
    #[inline(never)]
    fn token(&mut self, cell: Option<&Arc<Cell>>) -> Result<(HeaderValue, u64), Read> {
        let env = self.handle.env();
        if let Some(cell) = cell {
            let current = ready(cell.read(env))?;
            return Ok((current.token.header_value().clone(), current.generation));
        }
        let header_cache = &self.handle.shared.header_cache;
        let mut word = self.handle.default_cell.word_now(env);
        let header = match header_cache.lookup(word) {
            Some(header) => header,
            None => {
                let current = ready(self.handle.default_cell.read(env))?;
                word = current.word();
                header_cache.get_or_copy(word, current.token.header_value())
            }
        };
        if self.local.is_second(word) {
            self.adopt(word, &header);
        }
        Ok((header, Current::generation_of(word)))
    }

    /// Copies what is shared by reference count; a clone made for one request would pay for nothing.
    #[cold]
    fn adopt(&mut self, word: u64, header: &HeaderValue) {
        self.local.header = Some(deep_clone(header));
        self.local.word = word;
        if !std::mem::replace(&mut self.local.has_handle, true) {
            self.handle = Arc::new(self.handle.with(self.handle.own.deep_clone()));
        }
    }

    /// There is no token: the readiness acquired for this request goes back to whom it belongs while we wait. Holding it
    /// would block bystanders, and deadlock where the token client shares the limit.
    #[cold]
    fn wait<R>(
        &mut self,
        request: R,
        cell: Option<Arc<Cell>>,
        plan: Plan,
        support: BodySupportOf<R, S::Response>,
        read: Read,
    ) -> Answer<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        match read {
            Read::Failed(error) => self.refuse(support(&self.handle.shared.registry).no_token(error)),
            read => {
                self.inner = self.handle.shared.fresh_clone();
                let handle = self.handle.clone();
                ResponseFuture::waiting(Waiting::new(handle, cell, request, plan, support, read))
            }
        }
    }

    /// Not sent: the readiness acquired for this request goes back here too. A clone that lives on would keep a permit
    /// that nobody uses, and as many of them as there are permits would stop everybody.
    #[cold]
    fn refuse<R>(&mut self, error: Error) -> Answer<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        self.inner = self.handle.shared.fresh_clone();
        ResponseFuture::failed(error)
    }
}

fn ready(read: Read) -> Result<Arc<Current>, Read> {
    match read {
        Read::Ready(current) => Ok(current),
        read => Err(read),
    }
}

impl Local {
    /// The private copy, if it is good for the cell as it is now.
    #[inline]
    fn lookup(&self, word: u64) -> Option<&HeaderValue> {
        if self.word == word { self.header.as_ref() } else { None }
    }

    /// Whether the request before met the same token.
    fn is_second(&mut self, word: u64) -> bool {
        std::mem::replace(&mut self.seen, word) == word
    }
}

/// Neither the inner service nor anything of the token is shown.
impl<S> fmt::Debug for Auth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::Empty;
    use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};

    /// Behaviour 96.
    #[tokio::test]
    async fn a_tenant_that_nobody_would_hear_is_refused() {
        let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
        let source = service_fn(|_: TokenRequest| async { Token::bearer("t").map_err(TokenError::permanent) });
        let api = service_fn(|_| async { Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())) });
        let service = AuthLayer::with_source(cfg, source).layer(api);
        let tenant = TenantId::new("practice-1").unwrap();
        let request = || http::Request::get("https://api.example.com/").body(Empty::<Bytes>::new()).unwrap();
        let mut named = request();
        named.extensions_mut().insert(tenant.clone());
        assert!(matches!(service.clone().oneshot(named).await, Err(Error::Tenant { .. })));
        assert!(matches!(service.for_tenant(&tenant).oneshot(request()).await, Err(Error::Tenant { .. })));
        assert!(service.oneshot(request()).await.is_ok());
    }

    /// Found by the quickstart: a failing provider stopped all callers at a concurrency limit.
    #[tokio::test]
    async fn a_clone_whose_request_was_not_sent_holds_no_readiness() {
        let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
        let source = service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::permanent("none today")) });
        let api = service_fn(|_| async { Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())) });
        let layer = AuthLayer::with_source(cfg, source);
        let mut service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(api);
        let first = "https://api.example.com/waits-for-a-token";
        for uri in [first, "https://api.example.com/remembered-failure", "https://elsewhere.example/foreign-origin"] {
            let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
            service.ready().await.unwrap().call(request).await.unwrap_err();
            let mut other = service.clone();
            assert!(other.ready().now_or_never().is_some(), "{uri}");
        }
    }
}
