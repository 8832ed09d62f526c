//! huskarl: its authorizer makes a map of headers for each request, and reads each response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use huskarl::authorizer::HttpAuthorizer;
use huskarl::cache::{InMemoryTokenCache, TokenError, TokenSource};
use huskarl::core::platform::{MaybeSendBoxFuture, SystemTime};
use huskarl::core::secrets::SecretString;
use huskarl::grant::core::{RawTokenResponse, TokenResponse};
use tower::Service;

use crate::support::baselines::{TENANT, TENANT_HEADER, access_token};
use crate::support::requests::Body;

/// The authorizer with a token that lives ten hours.
pub(crate) async fn authorizer() -> Arc<HttpAuthorizer> {
    let cache = InMemoryTokenCache::builder().source(Source).build();
    let authorizer = HttpAuthorizer::builder().cache(cache).build();
    authorizer.get_headers(&http::Method::GET, &http::Uri::from_static("https://api.example.com/")).await.unwrap();
    Arc::new(authorizer)
}

struct Source;

impl TokenSource for Source {
    fn token(&self) -> MaybeSendBoxFuture<'_, Result<Arc<TokenResponse>, TokenError>> {
        let raw = RawTokenResponse::builder()
            .access_token(SecretString::new(access_token()))
            .token_type("bearer")
            .expires_in(36_000)
            .build();
        let response = raw.into_token_response(None, SystemTime::now()).unwrap();
        Box::pin(std::future::ready(Ok(Arc::new(response))))
    }
}

/// The service that its documentation tells to write: headers before, `process_response` after. It does not send twice.
#[derive(Clone)]
pub(crate) struct Authorized<S> {
    pub(crate) inner: S,
    pub(crate) authorizer: Arc<HttpAuthorizer>,
}

impl<S, RB> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send,
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
        let authorizer = self.authorizer.clone();
        Box::pin(async move {
            let headers = authorizer.get_headers(request.method(), request.uri()).await.unwrap();
            request.headers_mut().extend(headers);
            request.headers_mut().insert(&TENANT_HEADER, HeaderValue::from_static(TENANT));
            let uri = request.uri().clone();
            let response = inner.call(request).await?;
            authorizer.process_response(&uri, response.headers());
            Ok(response)
        })
    }
}
