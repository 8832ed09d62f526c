//! What one has to write around a crate that only has tokens.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tower::Service;

use crate::support::baselines::{TENANT, TENANT_HEADER};
use crate::support::requests::Body;

/// Puts in the header that `value` makes, and the tenant.
#[derive(Clone)]
pub(crate) struct Glue<S, F> {
    pub(crate) inner: S,
    pub(crate) value: F,
}

impl<S, F, V> Service<Request<Body>> for Glue<S, F>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    F: Fn() -> V,
    V: Future<Output = HeaderValue> + Send + 'static,
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
        let value = (self.value)();
        Box::pin(async move {
            request.headers_mut().insert(AUTHORIZATION, value.await);
            request.headers_mut().insert(&TENANT_HEADER, HeaderValue::from_static(TENANT));
            inner.call(request).await
        })
    }
}
