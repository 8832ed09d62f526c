//! `AuthLayer` as a `reqwest_middleware::Middleware`: what comes after it in the chain is its inner service.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Extensions;
use reqwest_middleware::{Middleware, Next};
use tower_layer::Layer;
use tower_service::Service;

use super::layer::AuthLayer;
use super::shared::{Bodies, BodySupport};
use crate::request::{ExtendedRequest, Registry};
use crate::response::holding_of_reqwest;
use crate::types::{Error, Resend};

/// In a chain of `reqwest-middleware` (feature `reqwest-middleware`), for generated clients among others:
///
/// ```no_run
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/oauth2/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let client = reqwest_middleware::ClientBuilder::new(http).with(AuthLayer::new(cfg)).build();
/// let response = client.get("https://api.example.com/v1/items").send().await?;
/// # Ok(()) }
/// ```
///
/// - **Order.** Middlewares added before this one are outside and see one request; those added after are inside and see each
///   sending. Tracing and retries belong outside. `reqwest-retry` retries neither a 401 nor a token failure by itself.
/// - **Extensions.** [`TenantId`](crate::TenantId), [`Scopes`](crate::Scopes), [`TokenParams`](crate::TokenParams),
///   [`Replay`](crate::Replay) and [`SkipAuth`](crate::SkipAuth) are given with
///   `RequestBuilder::with_extension`. What inner middlewares put into the extensions is there for the second sending and for
///   the caller.
/// - **Bodies.** As with `Service<reqwest::Request>`: buffers and streams are sent twice, streams up to
///   [`max_replay_bytes`](crate::AuthConfigBuilder::max_replay_bytes). A longer one goes out once, and its 401 comes back.
/// - **Errors** of this crate are in [`reqwest_middleware::Error::Middleware`], whose `downcast_ref` finds [`Error`]; those of
///   the client and of inner middlewares come back as they are:
///
/// ```
/// use tower_oauth2_client::TokenError;
///
/// fn token_error(error: &reqwest_middleware::Error) -> Option<&TokenError> {
///     match error {
///         reqwest_middleware::Error::Middleware(error) => error.downcast_ref::<tower_oauth2_client::Error>()?.token(),
///         reqwest_middleware::Error::Reqwest(_) => None,
///     }
/// }
/// ```
impl Middleware for AuthLayer {
    fn handle<'layer, 'extensions, 'next, 'future>(
        &'layer self,
        request: reqwest::Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> BoxFuture<'future, reqwest_middleware::Result<reqwest::Response>>
    where
        Self: 'future,
        'layer: 'future,
        'extensions: 'future,
        'next: 'future,
    {
        let request = ExtendedRequest::new(request, extensions);
        let mut auth = self.layer(Rest { next, extensions: Arc::new(Mutex::new(Some(extensions))) });
        // The rest of a chain is always ready.
        let response = auth.start::<_, ReqwestBodies>(request);
        Box::pin(async move { response.await.map_err(to_middleware) })
    }
}

/// The error of the chain as it came, ours as one of a middleware.
fn to_middleware(error: Error) -> reqwest_middleware::Error {
    match error {
        Error::Service(error) => match error.downcast() {
            Ok(error) => *error,
            Err(error) => reqwest_middleware::Error::middleware(Error::Service(error)),
        },
        error => reqwest_middleware::Error::middleware(error),
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The rest of the chain. Both sendings go through it.
#[derive(Clone)]
struct Rest<'a> {
    next: Next<'a>,
    extensions: Arc<Lent<'a>>,
}

/// There are only these extensions. A sending has them while it is under way, and gives them back when it ends or is dropped;
/// there is never more than one.
type Lent<'a> = Mutex<Option<&'a mut Extensions>>;

impl<'a> Service<ExtendedRequest> for Rest<'a> {
    type Response = reqwest::Response;
    type Error = reqwest_middleware::Error;
    type Future = BoxFuture<'a, Result<reqwest::Response, reqwest_middleware::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ExtendedRequest) -> Self::Future {
        let Self { next, extensions: lent } = self.clone();
        Box::pin(async move {
            let mut borrowed = Borrowed::new(&lent, request.is_resend());
            next.run(request.into_request(), borrowed.extensions()).await
        })
    }
}

/// The extensions for one sending.
struct Borrowed<'l, 'a> {
    lent: &'l Lent<'a>,
    extensions: Option<&'a mut Extensions>,
    /// Used only if an earlier sending had not given the extensions back, which does not happen: sendings do not overlap.
    empty: Extensions,
    is_marked: bool,
}

impl<'l, 'a> Borrowed<'l, 'a> {
    fn new(lent: &'l Lent<'a>, is_resend: bool) -> Self {
        let extensions = lent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut borrowed = Self { lent, extensions, empty: Extensions::new(), is_marked: false };
        // Another layer of this crate further inside is told.
        borrowed.is_marked = is_resend && borrowed.extensions().insert(Resend).is_none();
        borrowed
    }

    fn extensions(&mut self) -> &mut Extensions {
        self.extensions.as_deref_mut().unwrap_or(&mut self.empty)
    }
}

impl Drop for Borrowed<'_, '_> {
    fn drop(&mut self) {
        if self.is_marked {
            // A retry further outside brings the same extensions, and is no resend.
            self.extensions().remove::<Resend>();
        }
        *self.lent.lock().unwrap_or_else(PoisonError::into_inner) = self.extensions.take();
    }
}

struct ReqwestBodies;

impl Bodies<ExtendedRequest, reqwest::Response> for ReqwestBodies {
    fn support(registry: &Registry) -> BodySupport<ExtendedRequest, reqwest::Response> {
        BodySupport { vtable: registry.vtable_of(), watch: None, holding: holding_of_reqwest }
    }
}
