//! The other side of each example: an authorization server, and an API that takes its tokens, on one port of this machine.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{ServiceExt, service_fn};
use tower_oauth2_client::test_util::{AuthServer, Served, TestClock, serve};
use tower_oauth2_client::{AuthConfig, AuthConfigBuilder, BoxError, ClientAuth};

/// A request that brought a live token.
pub(crate) struct Accepted {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct Server {
    pub(crate) auth: AuthServer,
    pub(crate) served: Served,
    /// Method, path and status of all that the API answered.
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer`: what the API says to who has a token.
    pub(crate) async fn start(answer: fn(Accepted) -> Response<Bytes>) -> Result<Self, BoxError> {
        let auth = AuthServer::new(TestClock::new()).client("id", "secret");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tokens, lines) = (auth.clone(), log.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (tokens, lines) = (tokens.clone(), lines.clone());
            async move {
                if request.uri().path() == "/oauth2/token" {
                    return Ok::<_, BoxError>(tokens.oneshot(request).await?.map(boxed));
                }
                let (head, body) = request.into_parts();
                let (path, headers) = (head.uri.path().to_owned(), head.headers);
                let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
                let line = format!("{} {path}", head.method);
                let response = match token {
                    Some(token) if tokens.is_live(token) => {
                        answer(Accepted { path, body: body.collect().await?.to_bytes(), headers })
                    }
                    _ => Response::builder().status(StatusCode::UNAUTHORIZED).body(Bytes::new())?,
                };
                if let Ok(mut lines) = lines.lock() {
                    lines.push(format!("{line}: {}", response.status().as_u16()));
                }
                Ok(response.map(|body| boxed(Full::new(body))))
            }
        });
        Ok(Self { auth, served: serve(service).await?, log })
    }

    /// A configuration for both.
    pub(crate) fn config(&self) -> AuthConfigBuilder {
        AuthConfig::client_credentials(self.served.uri("/oauth2/token"), ClientAuth::basic("id", "secret"))
            .origin(self.served.origin())
    }

    /// What the API answered so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().map(|lines| lines.clone()).unwrap_or_default()
    }
}

fn boxed<B>(body: B) -> UnsyncBoxBody<Bytes, BoxError>
where
    B: http_body_util::BodyExt<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A response in JSON.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
