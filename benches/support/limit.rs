//! LIMIT: the checks and decisions of the hot path by hand, in safe code, with no way to refresh.
//!
//! What is left between it and the layer is the price of being general. Whatever it does not know, it panics at. With replay
//! it also copies what a second sending would need.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::uri::Scheme;
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Response, Version};
use tower::Service;

use super::baselines::{TENANT, TENANT_HEADER, access_token};
use super::requests::Body;

/// `K`: what is kept of each request.
pub(crate) struct Limit<S, K> {
    inner: S,
    token: HeaderValue,
    tenant: HeaderValue,
    /// Of the token.
    word: u64,
    shared: Arc<Shared>,
    kept: PhantomData<K>,
}

struct Shared {
    word: AtomicU64,
    is_watching: AtomicBool,
    authority: String,
    tenant_name: HeaderName,
}

pub(crate) fn limit<S>(inner: S) -> Limit<S, Nothing> {
    limit_that_keeps(inner)
}

pub(crate) fn limit_replay<S>(inner: S) -> Limit<S, Copied> {
    limit_that_keeps(inner)
}

fn limit_that_keeps<S, K>(inner: S) -> Limit<S, K> {
    Limit {
        inner,
        token: HeaderValue::from_str(&format!("Bearer {}", access_token())).unwrap(),
        tenant: HeaderValue::from_str(TENANT).unwrap(),
        word: 4,
        shared: Arc::new(Shared {
            word: AtomicU64::new(4),
            is_watching: AtomicBool::new(false),
            authority: "api.example.com".to_owned(),
            tenant_name: TENANT_HEADER.clone(),
        }),
        kept: PhantomData,
    }
}

impl<S, K> Service<Request<Body>> for Limit<S, K>
where
    K: Keep + Unpin,
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Judged<S::Future, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let uri = request.uri();
        let is_allowed = uri.scheme() == Some(&Scheme::HTTPS)
            && uri.authority().is_some_and(|authority| authority.as_str() == self.shared.authority)
            && uri.path_and_query().is_none_or(|path| path.as_str().starts_with(['/', '?']))
            && *request.method() != Method::CONNECT;
        let tenant_len = self.shared.tenant_name.as_str().len();
        let mut has_host = false;
        for name in request.headers().keys() {
            has_host |= *name == HOST;
            let is_alike = name.as_str().len() == tenant_len && name.as_str().starts_with('x');
            assert!(*name != CONNECTION && *name != UPGRADE && !is_alike, "not in these requests");
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let is_host = !has_host || hosts.next().is_some_and(|host| *host == *self.shared.authority);
        let is_current = self.shared.word.load(Ordering::Acquire) == self.word;
        assert!(is_allowed && is_host && is_current && request.headers().keys_len() < 16_384, "not in these requests");
        let kept = K::of(&request);
        let headers = request.headers_mut();
        headers.insert(&self.shared.tenant_name, self.tenant.clone());
        headers.insert(AUTHORIZATION, self.token.clone());
        Judged { future: self.inner.call(request), shared: self.shared.clone(), kept }
    }
}

/// What of a request outlives its sending.
pub(crate) trait Keep {
    fn of(request: &Request<Body>) -> Self;
}

pub(crate) struct Nothing;

impl Keep for Nothing {
    #[inline(always)]
    fn of(_: &Request<Body>) -> Self {
        Self
    }
}

/// What sending the request again needs, and this layer does not know: scheme and authority are those of the origin, token
/// and tenant are put in anew.
pub(crate) struct Copied {
    method: Method,
    version: Version,
    path_and_query: u32,
    /// Path and query; then of each header the lengths of name and value and whether it is sensitive, name and value.
    flat: Vec<u8>,
    extensions: Extensions,
    body: Body,
}

impl Keep for Copied {
    #[inline(always)]
    fn of(request: &Request<Body>) -> Self {
        let path_and_query = request.uri().path_and_query().map_or("", |path| path.as_str());
        // Room for headers of common length, without adding them up first.
        let mut flat = Vec::with_capacity(path_and_query.len() + request.headers().len() * 60 + 220);
        flat.extend_from_slice(path_and_query.as_bytes());
        for (name, value) in request.headers() {
            let (name, bytes) = (name.as_str().as_bytes(), value.as_bytes());
            assert!(name.len() < 1 << 12 && bytes.len() < 1 << 19, "not in these requests");
            let lengths = (name.len() << 19 | bytes.len()) as u32 | u32::from(value.is_sensitive()) << 31;
            flat.extend_from_slice(&lengths.to_ne_bytes());
            flat.extend_from_slice(name);
            flat.extend_from_slice(bytes);
        }
        // Cloning an empty map is free only where it was never used.
        let extensions = request.extensions();
        let extensions = if extensions.is_empty() { Extensions::new() } else { extensions.clone() };
        let (method, version, body) = (request.method().clone(), request.version(), request.body().clone());
        Self { method, version, path_and_query: path_and_query.len() as u32, flat, extensions, body }
    }
}

pub(crate) struct Judged<F, K> {
    future: F,
    shared: Arc<Shared>,
    kept: K,
}

impl<F, E, K> Future for Judged<F, K>
where
    K: Unpin,
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<Body>, E>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
        let polled = Pin::new(&mut self.future).poll(cx);
        if let Poll::Ready(Ok(response)) = &polled {
            let is_success = response.status().is_success();
            let is_watching = self.shared.is_watching.load(Ordering::Relaxed);
            let is_grpc = response.headers().keys().any(|name| *name == GRPC_STATUS);
            assert!(is_success && !is_grpc && !is_watching, "not in these answers");
        }
        polled
    }
}
