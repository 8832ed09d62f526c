//! `both`: the authorization server and the API on one origin.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::{Api, AuthServer, Body};
use crate::types::BoxError;

/// One service of the two: token endpoint paths go to `auth`, all others to `api`.
///
/// Some providers have both behind one host, and then a client's token requests may pass through the same layer,
/// connection pool or limit as everything else.
pub fn both(auth: &AuthServer, api: &Api) -> Both {
    Both { auth: auth.clone(), api: api.clone() }
}

/// An [`AuthServer`] and an [`Api`] behind one origin; see [`both`].
#[derive(Clone, Debug)]
pub struct Both {
    auth: AuthServer,
    api: Api,
}

impl<B> Service<Request<B>> for Both
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.auth.serves(request.uri().path()) { self.auth.call(request) } else { self.api.call(request) }
    }
}
