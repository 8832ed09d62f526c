//! A stack of tower's and tower-http's layers: which go outside of the layer, and which inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, LOCATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::retry::RetryLayer;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::{Limited, PolicyExt, clone_body_fn};
use tower_http::set_header::SetRequestHeaderLayer;
use tower_http::trace::TraceLayer;
use tower_oauth2_client::{AuthLayer, BoxError, Error, RetryTokenErrors};

use crate::server::{Accepted, Server};

/// What the servers saw, and how many requests passed outside and inside of the layer.
pub async fn run() -> Result<Vec<String>, BoxError> {
    let server = Server::start(shop).await?;
    let (outside, inside) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (requests, sendings) = (outside.clone(), inside.clone());

    let client = ServiceBuilder::new()
        // Outside. A span for each request, however often it is sent:
        .layer(TraceLayer::new_for_http().on_request(move |_: &Request<Full<Bytes>>, _: &_| {
            requests.fetch_add(1, Ordering::SeqCst);
        }))
        // the total time, with waiting for tokens, resends, redirects and retries in it (tower's, whose error is one:
        // tower-http's answers 408);
        .timeout(Duration::from_secs(30))
        // decompression: the layer reads the body of a 401 only if it knows its type, which is that of the HTTP client;
        .layer(DecompressionLayer::new())
        // redirects: each step is a request of its own, so that its host is checked;
        .layer(FollowRedirectLayer::with_policy(
            Limited::new(5).and::<_, Full<Bytes>, BoxError>(clone_body_fn(|body: &Full<Bytes>| Some(body.clone()))),
        ))
        // retries.
        .layer(RetryLayer::new(RetryTokenErrors::new()))
        .layer(AuthLayer::new(server.config().build()?))
        // Inside. Headers of each sending;
        .layer(SetRequestHeaderLayer::overriding(USER_AGENT, HeaderValue::from_static("shop/1.0")))
        // the time of one sending, in which no token is waited for;
        .timeout(Duration::from_secs(5))
        .map_request(move |request: Request<Full<Bytes>>| {
            sendings.fetch_add(1, Ordering::SeqCst);
            request
        })
        // and the client, which follows no redirects itself.
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let send = async |method: Method, path: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(server.served.uri(path)).body(Full::from(body))?;
        let response = client.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>(format!("{}: {}", status.as_u16(), String::from_utf8_lossy(&body)))
    };
    let mut lines = vec![send(Method::GET, "/stock", "").await?];
    server.auth.revoke_all();
    lines.push(send(Method::POST, "/moved", "two bolts").await?);
    match send(Method::GET, "/elsewhere", "").await {
        Ok(line) => lines.push(line),
        Err(error) => lines.push(refusal(&*error)),
    }
    lines.extend(server.log());
    lines.push(format!("requests outside: {}", outside.load(Ordering::SeqCst)));
    lines.push(format!("sendings inside: {}", inside.load(Ordering::SeqCst)));
    lines.push(format!("token requests: {}", server.auth.token_requests()));
    Ok(lines)
}

/// A redirect to another host takes no token there: the layer refuses it.
fn refusal(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<Error>() {
        Some(Error::Origin { origin, .. }) => format!("refused: {origin}"),
        _ => format!("error: {error}"),
    }
}

/// `stock: 7 bolts`, by gzip.
const STOCK: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 43, 46, 201, 79, 206, 182, 82, 48, 87, 72, 202, 207, 41, 41, 6, 0, 52, 222, 43,
    236, 14, 0, 0, 0,
];

/// The API: one page that is compressed, one that has moved, one that points to another host.
fn shop(request: Accepted) -> Response<Bytes> {
    let answer = |status, header, value: &'static str, body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(header, HeaderValue::from_static(value));
        response
    };
    match (&*request.path, request.headers.get(USER_AGENT).map(HeaderValue::as_bytes)) {
        ("/stock", Some(b"shop/1.0")) => answer(StatusCode::OK, CONTENT_ENCODING, "gzip", Bytes::from_static(STOCK)),
        ("/moved", _) => answer(StatusCode::TEMPORARY_REDIRECT, LOCATION, "/orders", Bytes::new()),
        ("/elsewhere", _) => answer(StatusCode::FOUND, LOCATION, "https://elsewhere.example/", Bytes::new()),
        _ => Response::new(request.body),
    }
}
