//! The response futures are `Send` inside `async` blocks, with the clients and bodies that people use.
//!
//! Inside an `async` block the compiler knows no lifetimes: a future whose type leads through an impl that asks for
//! `'static` is not found to be `Send` there, although it is everywhere else.

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};
use tower_oauth2_client::test_util::{Api, AuthServer, Body, TestClock};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, BoxError, ClientAuth};

type Inner = BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>;

#[allow(clippy::redundant_async_block, reason = "the block is the point")]
#[tokio::test(start_paused = true)]
async fn a_call_can_be_spawned_from_an_async_block() {
    let auth = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .build()
        .unwrap();
    let mut client =
        AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().layer(Inner::new(Api::new(&auth)));
    let body = Full::<Bytes>::from("a").map_err(|never| match never {}).boxed_unsync();
    let request = Request::post("https://api.example.com/").body(body).unwrap();
    let future = client.call(request);
    let response = tokio::spawn(async move { future.await }).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
}

/// Compiles, or does not.
#[allow(dead_code, reason = "the type checker is the test")]
mod compiles {
    use super::*;

    fn is_send(_: impl Send) {}

    fn over_hyper_with_a_boxed_body(
        mut client: Auth<Client<HttpConnector, BoxBody<Bytes, BoxError>>>,
        request: Request<BoxBody<Bytes, BoxError>>,
    ) {
        is_send(async move { client.call(request).await });
    }

    fn over_hyper_with_an_unsync_body(
        mut client: Auth<Client<HttpConnector, UnsyncBoxBody<Bytes, BoxError>>>,
        request: Request<UnsyncBoxBody<Bytes, BoxError>>,
    ) {
        is_send(async move { client.call(request).await });
    }

    fn over_reqwest(mut client: Auth<reqwest::Client>, request: reqwest::Request) {
        is_send(async move { client.call(request).await });
    }
}
