//! `Auth<S>`: the service; starts a request on its way.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;
use tower_service::Service;

use super::future::{FirstAttempt, ResponseFuture, Waiting};
use super::prove::Prove;
use super::shared::{BodySupport, Shared, SharedHandle};
use crate::engine::{Cell, Current, Partition, Read};
use crate::request::{HttpRequest, HttpResponse, Own, Prepared, Registry, Resending};
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
    tenant: Option<TenantId>,
    params: Option<TokenParams>,
    shared: SharedHandle<S>,
}

/// This clone's own copies of header values, so that threads do not share their reference counts.
#[derive(Default)]
struct Local {
    /// The cell's word for which `header` is good; zero: none yet.
    word: u64,
    header: Option<HeaderValue>,
    /// The word of the request before, to copy on the second request only.
    seen: u64,
    /// The tenant of every request that does not name one itself.
    tenant: Option<TenantId>,
}

impl<S: Clone> Auth<S> {
    pub(crate) fn new(inner: S, setup: Arc<Setup>, registry: Registry) -> Self {
        let inner = Prove::new(inner, &setup);
        let shared = Shared::new(inner.clone(), setup, registry);
        Self { inner, local: Local::default(), tenant: None, params: None, shared: Arc::new(Arc::new(shared)) }
    }

    /// A clone for one tenant: the way to choose the tenant where requests carry no extensions (reqwest).
    ///
    /// It wins over nothing: a request that names another tenant as well is refused with [`Error::Tenant`]. So is every
    /// request where [`AuthConfigBuilder::tenant`](crate::AuthConfigBuilder::tenant) is not set: nobody would hear it.
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
    /// let practice = client.for_tenant(TenantId::new("practice-1")?);
    /// let request = http::Request::get("https://api.example.com/v1/items").body(Empty::new())?;
    /// let response = practice.oneshot(request).await?; // sent with `Tenant-Id: practice-1`
    /// # assert_eq!(response.headers()["seen"], "practice-1");
    /// # Ok(()) }
    /// ```
    pub fn for_tenant(&self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self.clone() }
    }

    /// A clone whose requests bring these parameters for their token requests: the way to say so where requests carry no
    /// extensions (reqwest), and to say it once for many requests.
    ///
    /// It wins over nothing: a request that brings others as well is refused with [`Error::Subject`].
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
    /// let orders = client.for_params(TokenParams::new().audience("orders")?);
    /// let request = http::Request::get("https://api.example.com/v1/orders").body(Empty::new())?;
    /// let response = orders.oneshot(request).await?; // with a token for the audience `orders`
    /// # assert_eq!(response.headers()["seen"], "Bearer for-orders");
    /// # Ok(()) }
    /// ```
    pub fn for_params(&self, params: TokenParams) -> Self {
        Self { params: Some(params), ..self.clone() }
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
            tenant: self.tenant.clone(),
            params: self.params.clone(),
            shared: self.shared.clone(),
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
        self.start(request, |registry| BodySupport {
            vtable: registry.vtable_of::<B>(),
            watch: trailer_watch_of::<RB>(),
            holding: holding_of::<RB>(),
        })
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
        self.start(request, |registry| BodySupport {
            vtable: registry.vtable_of(),
            watch: None,
            holding: Some(holding_of_reqwest),
        })
    }
}

/// What becomes of a request `R` through `S`.
type Answer<S, R> = ResponseFuture<S, R, <S as Service<R>>::Future, <S as Service<R>>::Response>;

impl<S> Auth<S> {
    /// Out of line, or the request would be copied once more on its way in here (30 instructions).
    #[inline(never)]
    fn start<R>(
        &mut self,
        mut request: R,
        body_support: impl FnOnce(&Registry) -> BodySupport<R, S::Response>,
    ) -> Answer<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        let body_support = body_support(&self.shared.registry);
        let requests = &self.shared.setup.requests;
        let own = Own {
            tenant: self.tenant.as_ref(),
            agreed_tenant: self.local.tenant.as_ref(),
            params: self.params.as_ref(),
        };
        let (cell, resending) = match requests.prepare(&mut request, own) {
            // Nearly every request: of the default cell.
            Ok(Prepared::WithToken { tenant: None, scopes: None, params: None, resending }) => (None, resending),
            Ok(Prepared::WithToken { tenant, scopes, params, resending }) => {
                (Some(self.shared.setup.table.cell(Partition { tenant, scopes, params })), resending)
            }
            Ok(Prepared::Bare) => return ResponseFuture::bare(self.inner.get_mut().call(request)),
            Err(error) => return self.refuse(error),
        };
        let (token, generation) = match self.token(cell.as_ref()) {
            Ok(token) => token,
            Err(read) => return self.wait(request, cell, resending, body_support, read),
        };
        let (vtable, Resending { may_replay, outer }) = (body_support.vtable, resending);
        let (shared, inner) = (&self.shared, &mut self.inner);
        shared.setup.requests.send(request, token, vtable, may_replay, |request, replay_copy| {
            let future = inner.call(request, vtable, may_replay);
            let shared = shared.clone();
            let first = FirstAttempt { shared, cell, generation, replay_copy, body_support, outer, waited: false };
            ResponseFuture::sent(future, first)
        })
    }

    /// The token's header value and generation, or why there is none. `None`: of the default cell.
    fn token(&mut self, cell: Option<&Arc<Cell>>) -> Result<(HeaderValue, u64), Read> {
        let table = &self.shared.setup.table;
        let Some(cell) = cell else {
            let mut word = table.default_cell().word_now(table.env());
            if let Some(header) = self.local.lookup(word) {
                return Ok((header, Current::generation_of(word)));
            }
            let header = match self.shared.header_cache.lookup(word) {
                Some(header) => header,
                None => {
                    let current = ready(table.default_cell().read(table.env()))?;
                    word = current.word();
                    self.shared.header_cache.get_or_copy(word, current.token.header_value())
                }
            };
            if self.local.is_second(word) {
                self.adopt(word, &header);
            }
            return Ok((header, Current::generation_of(word)));
        };
        let current = ready(cell.read(table.env()))?;
        Ok((current.token.header_value().clone(), current.generation))
    }

    /// Copies what is shared by reference count; a clone made for one request would pay for nothing.
    #[cold]
    fn adopt(&mut self, word: u64, header: &HeaderValue) {
        self.local.header = Some(deep_clone(header));
        self.local.word = word;
        if self.local.tenant.is_none() {
            let agreed = self.shared.setup.requests.own_tenant(self.tenant.as_ref());
            self.local.tenant = agreed.as_ref().map(TenantId::deep_clone);
            self.shared = Arc::new(Arc::clone(&self.shared));
        }
    }

    /// There is no token: the readiness acquired for this request goes back to whom it belongs while we wait. Holding it
    /// would block bystanders, and deadlock where the token client shares the limit.
    #[cold]
    fn wait<R>(
        &mut self,
        request: R,
        cell: Option<Arc<Cell>>,
        resending: Resending,
        body_support: BodySupport<R, S::Response>,
        read: Read,
    ) -> Answer<S, R>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        match read {
            Read::Failed(error) => self.refuse(body_support.no_token(error)),
            read => {
                self.inner = self.shared.fresh_clone();
                ResponseFuture::waiting(Waiting::new(self.shared.clone(), cell, request, resending, body_support, read))
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
        self.inner = self.shared.fresh_clone();
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
    fn lookup(&self, word: u64) -> Option<HeaderValue> {
        if self.word == word { self.header.clone() } else { None }
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
        assert!(matches!(service.for_tenant(tenant).oneshot(request()).await, Err(Error::Tenant { .. })));
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
