//! LIMIT: the checks and decisions of the hot path by hand, in safe code, with no replay and no way to refresh.
//!
//! What is left between it and the layer is the price of being general. Whatever it does not know, it panics at.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use tower::Service;

use super::baselines::{TENANT, TENANT_HEADER, access_token};
use super::requests::Body;

#[derive(Clone)]
pub(crate) struct Limit<S> {
    inner: S,
    token: HeaderValue,
    tenant: HeaderValue,
    /// Of the token.
    word: u64,
    shared: Arc<Shared>,
}

struct Shared {
    word: AtomicU64,
    is_watching: AtomicBool,
    authority: String,
    tenant_name: HeaderName,
}

pub(crate) fn limit<S>(inner: S) -> Limit<S> {
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
    }
}

impl<S> Service<Request<Body>> for Limit<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Judged<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

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
        let headers = request.headers_mut();
        headers.insert(&self.shared.tenant_name, self.tenant.clone());
        headers.insert(AUTHORIZATION, self.token.clone());
        Judged { future: self.inner.call(request), shared: self.shared.clone() }
    }
}

pub(crate) struct Judged<F> {
    future: F,
    shared: Arc<Shared>,
}

impl<F, E> Future for Judged<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<Body>, E>;

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
