//! The response futures are `Send` wherever they are awaited, with the bodies that people use.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth, Error};

type Erased = UnsyncBoxBody<Bytes, BoxError>;

/// A future that holds a response future of type-erased bodies across an `await` inside an `async` block: the compiler
/// then knows no lifetimes, and an impl that asks for `'static` is not found to hold.
#[tokio::test(start_paused = true)]
async fn a_response_future_is_send_inside_an_async_block() {
    let auth = AuthServer::new(TestClock::new());
    let api = Api::new(&auth);
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .build()
        .unwrap();
    let client = AuthLayer::with_client(cfg, auth).layer(api);
    let erased: Erased = Full::from("a").map_err(|never| match never {}).boxed_unsync();
    let boxed: BoxBody<Bytes, BoxError> = Full::from("b").map_err(|never| match never {}).boxed();
    let request = || Request::post("https://api.example.com/");
    let first = client.clone().oneshot(request().body(erased).unwrap());
    let second = client.clone().oneshot(request().body(boxed).unwrap());
    let third = client.oneshot(request().body(Full::<Bytes>::from("c")).unwrap());
    let task = tokio::spawn(async move { (first.await, second.await, third.await) });
    let ok = |response: Result<Response<Erased>, Error>| response.unwrap().status() == 200;
    let (first, second, third) = task.await.unwrap();
    assert!(ok(first) && ok(second) && ok(third));
}
