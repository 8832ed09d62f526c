//! hyper-util's client over loopback: HTTP/1.1 and HTTP/2, every kind of body, connections that live on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use support::{World, outcome};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth2_client::AuthLayer;
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock, serve};

/// Far beyond what loopback takes: what is not over by then hangs.
const HANGS: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Http {
    One,
    Two,
}

fn client<B>(http: Http) -> Client<HttpConnector, B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    Client::builder(TokioExecutor::new()).http2_only(http == Http::Two).build_http()
}

/// Sends two bodies through `layer`, the first to have a token, the second with a token that has been revoked, and
/// checks that the second came through whole on its second sending.
async fn heals<B>(http: Http, layer: impl FnOnce(AuthLayer) -> AuthLayer, body: impl Fn() -> B, bytes: &str)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let world = World::new().await;
    let auth = layer(AuthLayer::new(world.config().build().unwrap())).layer(client::<B>(http));
    let post = || Request::post(world.server.uri("/items")).body(body()).unwrap();
    assert_eq!(auth.clone().oneshot(post()).await.unwrap().status(), 200);

    world.revoke();
    let response = auth.clone().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(outcome(&response).resent);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes);

    let [_, rejected, resent] = &world.api.requests()[..] else { panic!("three sendings") };
    assert_ne!(rejected.bearer(), resent.bearer());
    for sending in [rejected, resent] {
        assert_eq!(sending.body, bytes);
        assert_eq!(sending.header("content-length"), resent.header("content-length"));
        assert_eq!(sending.header("transfer-encoding"), resent.header("transfer-encoding"));
    }
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
}

/// Bodies whose length is known say it on both sendings.
///
/// Behaviours 61 and 66.
#[tokio::test]
async fn every_known_body_is_sent_twice() {
    for http in [Http::One, Http::Two] {
        heals(http, |layer| layer, || Full::from("full"), "full").await;
        heals(http, |layer| layer, Empty::<Bytes>::new, "").await;
        heals(http, |layer| layer, || String::from("text"), "text").await;
        heals(http, |layer| layer, || BoxBody::new(Full::from("boxed")), "boxed").await;
        heals(http, |layer| layer, || UnsyncBoxBody::new(Full::from("boxed")), "boxed").await;
        heals(http, |layer| layer, || UnsyncBoxBody::new(channel(["a", "stream"])), "astream").await;
    }
}

/// Behaviour 61.
#[tokio::test]
async fn both_sendings_tell_the_same_length() {
    let world = World::new().await;
    let auth = AuthLayer::new(world.config().build().unwrap()).layer(client(Http::One));
    let post = || Request::post(world.server.uri("/")).body(UnsyncBoxBody::new(Full::from("12345678"))).unwrap();
    auth.clone().oneshot(post()).await.unwrap();
    world.revoke();
    auth.oneshot(post()).await.unwrap();
    for sending in world.api.requests() {
        assert_eq!(sending.header("content-length"), Some("8"));
    }
}

#[tokio::test]
async fn bodies_of_the_users_own_are_sent_twice_once_told() {
    for http in [Http::One, Http::Two] {
        heals(http, AuthLayer::replay_clone::<OwnClone>, || OwnClone(Full::from("mine")), "mine").await;
        let own = || OwnErased::new(Full::from("mine"));
        heals(http, |layer| layer.replay_recorded(OwnErased::new), own, "mine").await;
    }
}

/// It goes out, its refusal comes back, and the token is renewed for the next request.
///
/// Behaviour 62.
#[tokio::test]
async fn a_stream_of_unknown_type_is_sent_once() {
    for http in [Http::One, Http::Two] {
        let world = World::new().await;
        let layer = AuthLayer::new(world.config().build().unwrap());
        let auth = layer.layer(client(http));
        let post = || Request::post(world.server.uri("/items")).body(channel(["once", "only"])).unwrap();
        let response = auth.clone().oneshot(post()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "onceonly");

        world.revoke();
        let response = auth.clone().oneshot(post()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(outcome(&response).not_replayable);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "unauthorized");

        assert_eq!(auth.oneshot(post()).await.unwrap().status(), 200);
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    }
}

/// The only connection that there will ever be carries the resend.
///
/// Behaviour 56.
#[tokio::test]
async fn a_rejected_response_is_read_so_that_its_connection_carries_the_resend() {
    for http in [Http::One, Http::Two] {
        let world = World::new().await;
        let only_one = Client::builder(TokioExecutor::new())
            .http2_only(http == Http::Two)
            .pool_max_idle_per_host(1)
            .build(connect_once());
        let auth = AuthLayer::new(world.config().build().unwrap()).layer(only_one);
        let post = || Request::post(world.server.uri("/items")).body(Full::<Bytes>::from("body")).unwrap();
        let response = timeout(HANGS, auth.clone().oneshot(post())).await.unwrap().unwrap();
        response.into_body().collect().await.unwrap();

        // Longer than what arrives together with the head.
        let refusal = Response::builder().status(401).body(vec![b'x'; 48 * 1024].into()).unwrap();
        world.api.script([Fault::Respond(refusal)]);
        let response = timeout(HANGS, auth.oneshot(post())).await.expect("the connection is free again").unwrap();
        assert_eq!(response.status(), 200);
        assert!(outcome(&response).resent);
        assert_eq!(world.server.connections(), 2, "one for the API, one for tokens");
    }
}

/// Token requests go through the same client, at a limit of one request at a time.
///
/// Behaviour 50.
#[tokio::test]
async fn a_client_shared_with_the_token_requests_does_not_deadlock() {
    for http in [Http::One, Http::Two] {
        let world = World::new().await;
        let shared = ServiceBuilder::new().concurrency_limit(1).service(client::<Full<Bytes>>(http));
        let mut auth = AuthLayer::builder(world.config().build().unwrap())
            .http_client(shared.clone())
            .build()
            .unwrap()
            .layer(shared);
        for round in 1..=2 {
            let get = Request::get(world.server.uri("/items")).body(Full::default()).unwrap();
            // Not `oneshot`, which would drop the service and whatever it holds.
            let call = async { auth.ready().await?.call(get).await };
            let response = timeout(HANGS, call).await.expect("no deadlock").unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!((world.auth.token_requests(), world.api.hits()), (round, 2 * round - 1));
            world.revoke();
        }
    }
}

/// Behaviour 64.
#[tokio::test]
async fn a_refusal_that_comes_before_the_upload_is_read_does_not_hang() {
    for http in [Http::One, Http::Two] {
        let world = World::with(Api::refuse_early).await;
        let auth = AuthLayer::new(world.config().build().unwrap()).layer(client(http));
        let upload = || Request::post(world.server.uri("/items")).body(Full::from(vec![b'x'; 48 * 1024])).unwrap();
        auth.clone().oneshot(upload()).await.unwrap();
        world.revoke();
        let response = timeout(HANGS, auth.oneshot(upload())).await.expect("no hang").unwrap();
        assert_eq!(response.status(), 200);
        let bytes = timeout(HANGS, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(bytes.len(), 48 * 1024, "the whole upload came with the second sending");
    }
}

/// An upload that has not ended when the refusal comes: the transport gives the rest back, and the second sending has
/// what was sent and the rest.
///
/// Behaviour 64.
#[tokio::test]
async fn an_upload_that_goes_on_after_the_refusal_is_resumed() {
    for http in [Http::One, Http::Two] {
        let world = World::with(Api::refuse_early).await;
        let auth = AuthLayer::new(world.config().build().unwrap()).layer(client(http));
        let (more, frames) = mpsc::unbounded_channel();
        more.send("first, ").unwrap();
        let warm = Request::get(world.server.uri("/")).body(UnsyncBoxBody::new(channel([]))).unwrap();
        auth.clone().oneshot(warm).await.unwrap();

        world.revoke();
        let upload = Request::post(world.server.uri("/items")).body(UnsyncBoxBody::new(frames_of(frames))).unwrap();
        let answered = tokio::spawn(auth.oneshot(upload));
        while world.auth.token_requests() < 2 {
            tokio::task::yield_now().await;
        }
        more.send("second").unwrap();
        drop(more);
        let response = timeout(HANGS, answered).await.expect("no hang").unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(outcome(&response).resent);
        let bytes = timeout(HANGS, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(bytes, "first, second");
    }
}

/// Behaviour 66.
#[tokio::test]
async fn trailers_go_with_both_sendings() {
    let auth = AuthServer::new(TestClock::new()).client("client", support::SECRET);
    let api = Api::new(&auth);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (inner, trailers) = (api.clone(), seen.clone());
    let with_trailers = service_fn(move |request: Request<Incoming>| {
        let (inner, trailers) = (inner.clone(), trailers.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?;
            trailers.lock().unwrap().push(body.trailers().cloned());
            inner.oneshot(Request::from_parts(head, Full::new(body.to_bytes()))).await
        }
    });
    let (tokens, server) = (serve(auth.clone()).await.unwrap(), serve(with_trailers).await.unwrap());
    let cfg = support::config(&auth, tokens.uri("/token"), server.origin()).build().unwrap();
    let layered = AuthLayer::new(cfg).layer(client(Http::Two));

    let checksum = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "c0ffee".parse().unwrap())]);
    let post = || {
        let frames = [Frame::data(Bytes::from("data")), Frame::trailers(checksum.clone())];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        Request::post(server.uri("/")).body(BoxBody::new(body)).unwrap()
    };
    layered.clone().oneshot(post()).await.unwrap();
    auth.revoke_all();
    assert_eq!(layered.oneshot(post()).await.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), vec![Some(checksum); 3]);
}

type FrameResult = Result<Frame<Bytes>, Infallible>;

/// A body over a channel that has been filled and closed.
fn channel<const N: usize>(chunks: [&'static str; N]) -> impl Body<Data = Bytes, Error = Infallible> + Send + Unpin {
    let (sender, receiver) = mpsc::unbounded_channel();
    for chunk in chunks {
        sender.send(chunk).unwrap();
    }
    frames_of(receiver)
}

/// A body over a channel.
fn frames_of(
    chunks: mpsc::UnboundedReceiver<&'static str>,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + Unpin {
    let frames = stream::unfold(chunks, |mut chunks| async {
        let chunk = chunks.recv().await?;
        Some((FrameResult::Ok(Frame::data(Bytes::from(chunk))), chunks))
    });
    StreamBody::new(frames.boxed())
}

#[derive(Clone)]
struct OwnClone(Full<Bytes>);

struct OwnErased(UnsyncBoxBody<Bytes, Infallible>);

impl OwnErased {
    fn new(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        Self(UnsyncBoxBody::new(body))
    }
}

macro_rules! is_body {
    ($own:ty) => {
        impl Body for $own {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameResult>> {
                Pin::new(&mut self.0).poll_frame(cx)
            }

            fn is_end_stream(&self) -> bool {
                self.0.is_end_stream()
            }

            fn size_hint(&self) -> SizeHint {
                self.0.size_hint()
            }
        }
    };
}

is_body!(OwnClone);
is_body!(OwnErased);

/// Connects once; every later attempt waits for ever.
fn connect_once() -> impl Connect + Clone + Send + Sync + 'static {
    let used = Arc::new(AtomicBool::new(false));
    service_fn(move |uri: Uri| {
        let used = used.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if used {
                std::future::pending::<()>().await;
            }
            HttpConnector::new().oneshot(uri).await
        })
    })
}
