//! What everything is held against: the bare inner service, the floor and the layer that people write first.

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::{self, AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::sync::Mutex;
use tower::Service;
use tower_http::set_header::SetRequestHeader;

use super::requests::Body;

pub(crate) const TENANT: &str = "7c1e0e5a-41f0-4a6b-9d0c-2f4b1c8c7a11";
pub(crate) static TENANT_HEADER: HeaderName = HeaderName::from_static("x-tenant-id");

/// 900 bytes, as a JWT with some claims has.
pub(crate) fn access_token() -> String {
    "t".repeat(900)
}

/// Takes the request, answers 200; resolves at once, or after `yields` wake-ups.
#[derive(Clone)]
pub(crate) struct Inner {
    yields: u8,
    /// Six headers on each answer.
    headers: bool,
}

impl Inner {
    pub(crate) fn new(yields: u8) -> Self {
        Self { yields, headers: false }
    }

    pub(crate) fn with_headers(self) -> Self {
        Self { headers: true, ..self }
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Answer {
        drop(black_box(request));
        Answer { yields: self.yields, headers: self.headers, status: StatusCode::OK }
    }
}

#[inline(never)]
fn answer_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("300"));
    headers.insert(header::DATE, HeaderValue::from_static("Fri, 27 Nov 2026 00:00:00 GMT"));
    headers.insert(header::SERVER, HeaderValue::from_static("bench"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-request-id", HeaderValue::from_static("2f1e0a52-7d9e-4b6b-8f4e-6d7f7f0f8d11"));
    headers
}

pub(crate) struct Answer {
    yields: u8,
    headers: bool,
    pub(crate) status: StatusCode,
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.yields > 0 {
            self.yields -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut response = Response::new(Body::default());
        *response.status_mut() = self.status;
        if self.headers {
            *response.headers_mut() = answer_headers();
        }
        Poll::Ready(Ok(response))
    }
}

pub(crate) type Floor<S> = SetRequestHeader<SetRequestHeader<S, HeaderValue>, HeaderValue>;

/// FLOOR: two static headers, put in by tower-http.
pub(crate) fn floor<S>(inner: S) -> Floor<S> {
    let tenant = SetRequestHeader::overriding(inner, TENANT_HEADER.clone(), HeaderValue::from_static(TENANT));
    let token = HeaderValue::from_str(&format!("Bearer {}", access_token())).unwrap();
    SetRequestHeader::overriding(tenant, AUTHORIZATION, token)
}

/// The layer that people write first: a lock across the await, a formatted header, a boxed future; with `retry` also a
/// clone of the request for the 401.
#[derive(Clone)]
pub(crate) struct Naive<S> {
    inner: S,
    retry: bool,
    tenant: Arc<str>,
    cache: Arc<Mutex<Cached>>,
}

struct Cached {
    token: String,
    expires: Instant,
    issuer: Issuer,
}

impl Cached {
    async fn token(&mut self) -> String {
        if self.expires <= Instant::now() {
            self.refresh().await;
        }
        self.token.clone()
    }

    async fn refresh(&mut self) {
        self.token = self.issuer.fetch().await;
        self.expires = Instant::now() + Duration::from_secs(3600);
    }
}

/// Issues tokens within 5 ms and counts them; each ends in the number of the newest life, which an API may compare.
#[derive(Clone, Default)]
pub(crate) struct Issuer {
    /// Lower numbers are revoked.
    pub(crate) life: Arc<AtomicU64>,
    pub(crate) token_requests: Arc<AtomicU64>,
}

impl Issuer {
    pub(crate) async fn fetch(&self) -> String {
        self.token_requests.fetch_add(1, Ordering::Relaxed);
        let life = self.life.load(Ordering::Acquire);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Self::token(life)
    }

    pub(crate) fn token(life: u64) -> String {
        format!("{}.{life:020}", access_token())
    }

    pub(crate) fn is_revoked(&self, authorization: &HeaderValue) -> bool {
        let token = authorization.to_str().unwrap();
        let life: u64 = token[token.len() - 20..].parse().unwrap();
        life < self.life.load(Ordering::Acquire)
    }
}

pub(crate) fn naive<S>(inner: S, retry: bool) -> Naive<S> {
    naive_of(inner, retry, Issuer::default())
}

/// The same with an issuer that a bench looks at.
pub(crate) fn naive_of<S>(inner: S, retry: bool, issuer: Issuer) -> Naive<S> {
    let cached = Cached { token: Issuer::token(0), expires: Instant::now() + Duration::from_secs(3600), issuer };
    Naive { inner, retry, tenant: TENANT.into(), cache: Arc::new(Mutex::new(cached)) }
}

impl<S, R> Service<Request<Body>> for Naive<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    R: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (cache, tenant, retry) = (self.cache.clone(), self.tenant.clone(), self.retry);
        Box::pin(async move {
            let put = |request: &mut Request<Body>, token: &str| {
                let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
                request.headers_mut().insert(AUTHORIZATION, value);
                request.headers_mut().insert("x-tenant-id", HeaderValue::from_str(&tenant).unwrap());
            };
            let kept = retry.then(|| request.clone());
            let token = cache.lock().await.token().await;
            put(&mut request, &token);
            let response = inner.call(request).await?;
            match kept {
                Some(mut kept) if response.status() == StatusCode::UNAUTHORIZED => {
                    let mut cache = cache.lock().await;
                    // Somebody else may have been faster.
                    if cache.token == token {
                        cache.refresh().await;
                    }
                    put(&mut kept, &cache.token);
                    drop(cache);
                    inner.call(kept).await
                }
                _ => Ok(response),
            }
        })
    }
}
