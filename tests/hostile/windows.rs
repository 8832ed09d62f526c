//! Rejections in flight over one HTTP/2 connection, on which the token comes too, with windows of every size.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Served, TestClock, both, serve};
use tower_oauth2_client::{AuthConfigBuilder, AuthLayer, BoxError, ReqwestClient};

use crate::support::{self, SECRET};
use crate::{PATIENCE, each};

/// More than are kept unread, and so few that their answers of four bytes, unread all at once, are no flood for h2 (130 are).
const REQUESTS: usize = 100;

/// In bytes, of a stream; that of the connection is at least 64 KiB. With less the client takes it for an attack.
const WINDOWS: [u32; 7] = [256, 1000, 16_384, 65_535, 65_536, 1 << 20, (1 << 31) - 1];

/// Both servers behind one port, where each refusal of the API is longer than a small window.
struct World {
    auth: AuthServer,
    api: Api,
    server: Served,
}

impl World {
    async fn new() -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = Api::new(&auth).bare_401();
        let inner = both(&auth, &api);
        let long = service_fn(move |request: Request<Incoming>| {
            let answered = inner.clone().oneshot(request);
            async move {
                let answer = answered.await?;
                Ok::<_, BoxError>(match answer.status().as_u16() {
                    401 => Response::builder().status(401).body(Either::Right(Full::from(vec![b'x'; 4096]))).unwrap(),
                    _ => answer.map(Either::Left),
                })
            }
        });
        Self { server: serve(long).await.unwrap(), auth, api }
    }

    fn config(&self) -> AuthConfigBuilder {
        support::config(&self.auth, self.server.uri("/oauth2/token"), self.server.origin())
    }

    /// hyper's client with these windows, and a layer whose token requests go through it too.
    fn hyper(&self, window: u32) -> (Client<HttpConnector, Full<Bytes>>, AuthLayer) {
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(true).http2_initial_stream_window_size(window);
        let client = client.http2_initial_connection_window_size(window.max(65_535)).build_http();
        let layer = AuthLayer::builder(self.config().build().unwrap()).http_client(client.clone()).build().unwrap();
        (client, layer)
    }
}

/// All have the token that is not good any more.
async fn all_are_welcomed(world: &World, window: u32, layer: &AuthLayer, send: impl AsyncFn(String) -> (u16, Bytes)) {
    layer.handle().token().await.unwrap();
    world.auth.revoke_all();
    let calls = (0..REQUESTS).map(|_| send(world.server.uri("/items")));
    let answers = tokio::time::timeout(20 * PATIENCE, join_all(calls)).await.expect("no window is full for ever");
    let welcomed = answers.iter().filter(|(status, body)| (*status, &body[..]) == (200, b"body"));
    assert_eq!(welcomed.count(), REQUESTS, "window of {window}");
    // The first token, and one more for all.
    assert_eq!(world.auth.token_requests(), 2, "window of {window}");
    assert!((REQUESTS + 1..=2 * REQUESTS).contains(&world.api.hits()));
    assert_eq!(world.server.connections(), 1);
}

/// Behaviour 134 (HTTP/2 windows): bodies that cannot be made again.
#[test]
fn any_window_with_bodies_that_cannot_be_made_again() {
    each(
        WINDOWS.to_vec(),
        |_| "a window",
        async |window| {
            let world = World::new().await;
            let (client, layer) = world.hyper(window);
            let auth = layer.layer(client);
            all_are_welcomed(&world, window, &layer, async |uri| {
                let request = Request::post(uri).body(Full::from("body")).unwrap();
                let response = auth.clone().oneshot(request).await.unwrap();
                (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
            })
            .await;
        },
    );
}

/// Bodies that can be made again, and so are read ahead.
///
/// Behaviour 134 (HTTP/2 windows).
#[test]
fn any_window_with_bodies_that_can_be_made_again() {
    each(
        WINDOWS.to_vec(),
        |_| "a window",
        async |window| {
            let world = World::new().await;
            let (client, layer) = world.hyper(window);
            let auth = layer.layer(service_fn(move |request| {
                let response = client.request(request);
                async move { response.await.map(|response| response.map(BoxBody::new)) }
            }));
            all_are_welcomed(&world, window, &layer, async |uri| {
                let request = Request::post(uri).body(Full::from("body")).unwrap();
                let response = auth.clone().oneshot(request).await.unwrap();
                (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
            })
            .await;
        },
    );
}

/// Behaviour 134 (HTTP/2 windows).
#[test]
fn any_window_with_reqwest() {
    each(
        WINDOWS.to_vec(),
        |_| "a window",
        async |window| {
            let world = World::new().await;
            let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(window);
            let client = client.http2_initial_connection_window_size(window.max(65_535)).build().unwrap();
            let cfg = world.config().build().unwrap();
            let layer = AuthLayer::builder(cfg).http_client(ReqwestClient::new(client.clone())).build().unwrap();
            let auth = layer.layer(client);
            all_are_welcomed(&world, window, &layer, async |uri| {
                let mut request = reqwest::Request::new(reqwest::Method::POST, uri.parse().unwrap());
                *request.body_mut() = Some("body".into());
                let response = auth.clone().oneshot(request).await.unwrap();
                (response.status().as_u16(), response.bytes().await.unwrap())
            })
            .await;
        },
    );
}
