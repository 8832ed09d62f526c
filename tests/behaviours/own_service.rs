//! What cannot be told in context of a subject: readiness driven by hand, the caller's own bodies, the outcome's types.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Fault, RecordedRequest};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthLayer, AuthOutcome, BoxError, ClientAuth, Recorded, RefreshFailed, Replay, Token,
    TokenErrorKind, TokenRequest,
};
use tower_test::mock::{Handle, Mock, SendResponse, pair};

use crate::cases;
use crate::subject::{API, CLIENT_ID, SECRET, TOKEN_URL, World};

type Request1 = Request<Full<Bytes>>;
type Response1 = Response<Full<Bytes>>;

/// A layer over the world's authorization server.
fn layer(world: &World) -> AuthLayer {
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET));
    AuthLayer::builder(cfg.origin(API).clock(world.clock.clone()).build().unwrap())
        .http_client(world.auth.clone())
        .build()
        .unwrap()
}

/// A layer whose tokens are `token-1`, `token-2`, … and take no time.
fn counted() -> AuthLayer {
    let count = std::sync::atomic::AtomicUsize::new(1);
    let count = std::sync::Arc::new(count);
    let source = tower::service_fn(move |_: TokenRequest| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { Ok::<_, BoxError>(Token::bearer(&format!("token-{number}"))?) }
    });
    AuthLayer::with_source(AuthConfig::external().origin(API).build().unwrap(), source)
}

fn get() -> Request1 {
    Request::get(API).body(Full::default()).unwrap()
}

fn status(status: u16) -> Response1 {
    Response::builder().status(status).body(Full::default()).unwrap()
}

/// A mock under the layer, which has a token already.
async fn warm_mock() -> (Auth<Mock<Request1, Response1>>, Handle<Request1, Response1>) {
    let (mock, handle) = pair();
    let layer = counted();
    layer.handle().warm_up().await.unwrap();
    (layer.layer(mock), handle)
}

fn received(handle: &mut Handle<Request1, Response1>) -> Option<(String, SendResponse<Response1>)> {
    match handle.poll_request() {
        Poll::Ready(Some((request, respond))) => {
            Some((request.headers()["authorization"].to_str().unwrap().to_owned(), respond))
        }
        _ => None,
    }
}

/// Lets spawned token requests run.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Behaviour 115.
#[tokio::test(start_paused = true)]
async fn the_second_sending_waits_for_readiness_and_calls_what_became_ready() {
    // The mock panics when it is called without having been ready.
    let (service, mut handle) = warm_mock().await;
    handle.allow(1);
    let mut service = tokio_test::task::spawn(service);
    assert_ready_ok!(service.enter(|cx, mut service| service.poll_ready(cx)));
    let mut response = tokio_test::task::spawn(service.call(get()));
    assert_pending!(response.poll());
    let (authorization, respond) = received(&mut handle).unwrap();
    assert_eq!(authorization, "Bearer token-1");

    respond.send_response(status(401));
    assert_pending!(response.poll());
    settle().await;
    assert_pending!(response.poll());
    assert!(received(&mut handle).is_none(), "the second sending did not wait for readiness");

    handle.allow(1);
    assert!(response.is_woken());
    assert_pending!(response.poll());
    let (authorization, respond) = received(&mut handle).unwrap();
    assert_eq!(authorization, "Bearer token-2");
    respond.send_response(status(200));
    assert_eq!(assert_ready_ok!(response.poll()).status(), 200);
}

/// Behaviour 115.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_token_gives_its_readiness_back_and_acquires_it_again() {
    let (mock, mut handle) = pair::<Request1, Response1>();
    let mut service = counted().layer(mock);
    handle.allow(1);
    service.ready().await.unwrap();
    let mut response = tokio_test::task::spawn(service.call(get()));
    handle.allow(0);
    assert_pending!(response.poll());
    settle().await;
    assert_pending!(response.poll());
    assert!(received(&mut handle).is_none());
    handle.allow(1);
    assert_pending!(response.poll());
    let (authorization, respond) = received(&mut handle).unwrap();
    assert_eq!(authorization, "Bearer token-1");
    respond.send_response(status(200));
    assert_eq!(assert_ready_ok!(response.poll()).status(), 200);
    // The service itself is as good as new: not ready until it is asked.
    handle.allow(1);
    service.ready().await.unwrap();
    drop(service.call(get()));
    assert!(received(&mut handle).is_some());
}

/// Behaviours 50 and 115.
#[tokio::test(start_paused = true)]
async fn a_service_that_lives_on_holds_no_permit_while_its_request_waits_for_a_token() {
    let world = World::new();
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET));
    let cfg = cfg.origin(API).clock(world.clock.clone()).build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(limit.layer(world.auth.clone())).build().unwrap();
    let mut service = layer.layer(limit.layer(world.api.clone()));
    let start = Instant::now();
    for _ in 0..3 {
        // Not `oneshot`, which would drop the service and with it the permit.
        let response = ServiceExt::<Request1>::ready(&mut service).await.unwrap().call(get());
        assert_eq!(response.await.unwrap().status(), 200);
        world.auth.revoke_all();
    }
    assert_eq!((world.auth.token_requests(), start.elapsed()), (3, Duration::ZERO));
}

/// Behaviour 115.
#[tokio::test(start_paused = true)]
async fn the_instance_that_was_ready_is_the_one_that_is_called() {
    /// Ready once, by being asked; a clone is not.
    #[derive(Default)]
    struct Picky {
        ready: bool,
    }

    impl Clone for Picky {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<Request1> for Picky {
        type Response = Response1;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response1, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request1) -> Self::Future {
            assert!(std::mem::take(&mut self.ready), "called without having been ready");
            let old = request.headers()["authorization"] == "Bearer token-1";
            std::future::ready(Ok(status(if old { 401 } else { 200 })))
        }
    }

    // Cold, rejected and sent again, and warm.
    let mut service = counted().layer(Picky::default());
    for _ in 0..3 {
        assert_eq!(service.ready().await.unwrap().call(get()).await.unwrap().status(), 200);
        assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), 200);
    }
}

#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the pool is gone")
    }
}

impl std::error::Error for Gone {}

/// Behaviour 116.
#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_before_the_second_sending_surfaces() {
    let (mut service, mut handle) = warm_mock().await;
    handle.allow(1);
    service.ready().await.unwrap();
    let mut response = tokio_test::task::spawn(service.call(get()));
    assert_pending!(response.poll());
    received(&mut handle).unwrap().1.send_response(status(401));
    assert_pending!(response.poll());
    settle().await;
    assert_pending!(response.poll());
    handle.send_error(Gone);
    assert!(response.is_woken());
    let error = assert_ready_err!(response.poll());
    assert!(error.service_ref::<Gone>().is_some(), "{error:?}");
}

/// Behaviour 116.
#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_after_the_wait_for_a_token_surfaces_and_so_does_one_before_all() {
    let (mock, mut handle) = pair::<Request1, Response1>();
    let mut service = counted().layer(mock);
    handle.allow(1);
    service.ready().await.unwrap();
    let mut response = tokio_test::task::spawn(service.call(get()));
    assert_pending!(response.poll());
    handle.send_error(Gone);
    settle().await;
    let error = assert_ready_err!(response.poll());
    assert!(error.service_ref::<Gone>().is_some(), "{error:?}");

    handle.send_error(Gone);
    assert!(service.ready().await.unwrap_err().service_ref::<Gone>().is_some());
}

/// Behaviour 117.
#[tokio::test(start_paused = true)]
async fn it_works_among_towers_layers_unboxed_and_boxed() {
    let world = World::new();
    let service = ServiceBuilder::new()
        .buffer(8)
        .timeout(Duration::from_secs(30))
        .layer(layer(&world))
        .concurrency_limit(1)
        .timeout(Duration::from_secs(10))
        .buffer(8)
        .service(world.api.clone());
    let service: BoxCloneSyncService<Request1, _, BoxError> = BoxCloneSyncService::new(service);
    let requests = || (0..20).map(|_| service.clone().oneshot(get()));
    for requests in [requests(), requests()] {
        for response in futures_util::future::join_all(requests).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        world.auth.revoke_all();
    }
    assert_eq!(world.auth.token_requests(), 2);

    let boxed = BoxCloneSyncService::new(layer(&world).layer(world.api.clone()));
    assert_eq!(boxed.oneshot(get()).await.unwrap().status(), 200);
}

/// Behaviour 117.
#[tokio::test(start_paused = true)]
async fn errors_of_layers_below_keep_their_types_and_those_of_tokens_say_whether_to_retry() {
    let world = World::new();
    let inner = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(world.api.clone());
    let service = layer(&world).layer(inner);
    world.api.always(Fault::Hang);
    let error = service.clone().oneshot(get()).await.unwrap_err();
    assert!(error.service_ref::<tower::timeout::error::Elapsed>().is_some());
    assert!(!error.is_retryable());

    let service = layer(&world).layer(world.api.clone());
    world.auth.script([Fault::RetryAfter(503, 30)]);
    let error = service.clone().oneshot(get()).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
}

/// A body that this crate does not know.
fn stream_of(parts: &'static [&'static str]) -> StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>> {
    let frames = parts.iter().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    StreamBody::new(Box::pin(stream::iter(frames)))
}

/// Sends a body with a token that has just been revoked; the authorization server takes 5 s for a new one. Gives the
/// status, how long it took, and what reached the API.
async fn send_revoked<B>(world: &World, layer: AuthLayer, body: B) -> (StatusCode, Duration, Vec<RecordedRequest>)
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError> + Send,
{
    layer.handle().warm_up().await.unwrap();
    world.auth.revoke_all();
    let _ = world.auth.clone().latency(Duration::from_secs(5));
    let start = Instant::now();
    let request = Request::post(API).body(body).unwrap();
    let response = layer.layer(world.api.clone()).oneshot(request).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert!(outcome.rejected && outcome.refreshed);
    assert_eq!((outcome.resent, outcome.not_replayable), (response.status() == 200, response.status() == 401));
    (response.status(), start.elapsed(), world.api.requests())
}

/// Behaviour 62.
#[tokio::test(start_paused = true)]
async fn a_stream_of_an_unknown_type_is_sent_once_and_the_token_is_refreshed_behind_its_401() {
    let world = World::new();
    let layer = layer(&world);
    let body = stream_of(&["one", "two"]);
    assert!(!layer.can_replay::<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>());
    let (status, took, requests) = send_revoked(&world, layer.clone(), body).await;
    assert_eq!((status.as_u16(), took), (401, Duration::ZERO), "the 401 waits for nothing");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body, "onetwo");

    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.auth.token_requests(), 2);
    let next = Request::post(API).body(stream_of(&["next"])).unwrap();
    assert_eq!(layer.layer(world.api.clone()).oneshot(next).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 2);
}

/// Behaviour 62.
#[tokio::test(start_paused = true)]
async fn a_registered_body_is_sent_twice() {
    /// The user's own, cheap to clone.
    #[derive(Clone)]
    struct Words(stream::Iter<std::vec::IntoIter<&'static str>>);

    impl http_body::Body for Words {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            use futures_util::StreamExt;
            self.0.poll_next_unpin(cx).map(|word| Some(Ok(Frame::data(Bytes::from(word?)))))
        }
    }

    let words = || Words(stream::iter(vec!["one", "two"]));
    let world = World::new();
    let (status, _, requests) = send_revoked(&world, layer(&world), words()).await;
    assert_eq!((status.as_u16(), requests.len()), (401, 1));

    let world = World::new();
    let layer = layer(&world).replay_clone::<Words>();
    assert!(layer.can_replay::<Words>());
    let (status, took, requests) = send_revoked(&world, layer, words()).await;
    assert_eq!((status.as_u16(), took), (200, Duration::from_secs(5)));
    assert_eq!([&requests[0].body[..], &requests[1].body[..]], [b"onetwo", b"onetwo"]);
}

/// One that holds a buffer can be cloned, one that holds a stream cannot.
///
/// Behaviour 62.
#[tokio::test(start_paused = true)]
async fn a_body_is_sent_twice_where_its_own_function_clones_it() {
    type Upload = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

    fn try_clone(body: &Upload) -> Option<Upload> {
        match body {
            Either::Left(buffer) => Some(Either::Left(buffer.clone())),
            Either::Right(_) => None,
        }
    }

    let buffer = || Full::new(Bytes::from("body"));
    let world = World::new();
    let (status, _, requests) = send_revoked(&world, layer(&world), Upload::Left(buffer())).await;
    assert_eq!((status.as_u16(), requests.len()), (401, 1), "nobody told how");

    for (body, sendings) in [(Upload::Left(buffer()), 2), (Upload::Right(UnsyncBoxBody::new(buffer())), 1)] {
        let world = World::new();
        let layer = layer(&world).replay_with(try_clone);
        assert!(layer.can_replay::<Upload>());
        let (status, _, requests) = send_revoked(&world, layer, body).await;
        assert_eq!((status.as_u16(), requests.len()), (if sendings == 2 { 200 } else { 401 }, sendings));
        assert!(requests.iter().all(|sent| sent.body == "body"));
    }
}

/// Behaviour 62.
#[tokio::test(start_paused = true)]
async fn a_registered_type_erased_body_is_recorded_and_sent_twice() {
    /// The user's own, able to hold any body.
    struct Erased(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Infallible> + Send>>);

    impl Erased {
        fn new(body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
            Self(Box::pin(body))
        }
    }

    impl http_body::Body for Erased {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.as_mut().poll_frame(cx)
        }
    }

    let world = World::new();
    let erase: fn(Recorded<Erased>) -> Erased = Erased::new;
    let layer = layer(&world).replay_recorded(erase);
    assert!(layer.can_replay::<Erased>());
    let (status, _, requests) = send_revoked(&world, layer, Erased::new(stream_of(&["one", "two"]))).await;
    assert_eq!(status, 200);
    assert_eq!([&requests[0].body[..], &requests[1].body[..]], [b"onetwo", b"onetwo"]);
}

/// Behaviours 45 and 123.
#[tokio::test(start_paused = true)]
async fn the_outcome_tells_generations_and_why_a_refresh_failed() {
    let world = World::new();
    let service = layer(&world).layer(world.api.clone());
    let send = |request| {
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap() }
    };
    let outcome = |response: &Response<_>| response.extensions().get::<AuthOutcome>().cloned();

    for state in ["it waited for the first token", "the token was there"] {
        let response = send(get()).await;
        assert!(outcome(&response).is_none(), "{state}: sent once, with the current token, not rejected");
    }

    world.auth.revoke_all();
    let resent = outcome(&send(get()).await).unwrap();
    assert_eq!((resent.generation, resent.waited), (2, false));
    assert!(resent.rejected && resent.refreshed && resent.resent);

    world.auth.revoke_all();
    world.auth.script([Fault::RetryAfter(503, 30)]);
    for refreshed in [true, false] {
        let response = send(get()).await;
        let failed = outcome(&response).unwrap();
        assert_eq!(failed.generation, 2);
        assert!(failed.rejected && !failed.resent && failed.refreshed == refreshed, "{failed:?}");
        let RefreshFailed(error) = response.extensions().get().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "unauthorized");
    }
    assert_eq!(world.auth.token_requests(), 3);

    // What lies behind counts no more.
    tokio::time::sleep(Duration::from_secs(31)).await;
    let healed = outcome(&send(get()).await).unwrap();
    assert_eq!((healed.generation, healed.resent), (3, true));

    // Where there is an outcome it tells of a wait too.
    let denied = layer(&world).layer(world.api.clone().deny_path("/"));
    let waited = outcome(&denied.oneshot(get()).await.unwrap()).unwrap();
    assert!(waited.waited && waited.rejected && waited.resent, "{waited:?}");
}

/// Behaviours 4 and 123.
#[tokio::test(start_paused = true)]
async fn a_straggler_says_that_it_was_sent_again_without_a_refresh() {
    let (service, mut handle) = warm_mock().await;
    let send = || tokio_test::task::spawn(service.clone().oneshot(get()));
    let (mut first, mut straggler) = (send(), send());
    assert_pending!(first.poll());
    assert_pending!(straggler.poll());
    let (_, respond) = received(&mut handle).unwrap();
    let (_, respond_late) = received(&mut handle).unwrap();
    respond.send_response(status(401));
    assert_pending!(first.poll());
    settle().await;
    assert_pending!(first.poll());
    received(&mut handle).unwrap().1.send_response(status(200));
    assert!(assert_ready_ok!(first.poll()).extensions().get::<AuthOutcome>().unwrap().refreshed);

    respond_late.send_response(status(401));
    assert_pending!(straggler.poll());
    let (authorization, respond) = received(&mut handle).unwrap();
    assert_eq!(authorization, "Bearer token-2");
    respond.send_response(status(200));
    let response = assert_ready_ok!(straggler.poll());
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert!(outcome.rejected && outcome.resent && !outcome.refreshed, "{outcome:?}");
}

/// Behaviours 67 and 123.
#[tokio::test(start_paused = true)]
async fn a_policy_that_forbids_a_second_sending_is_told_as_such() {
    let world = World::new();
    let layer = layer(&world);
    layer.handle().warm_up().await.unwrap();
    world.auth.revoke_all();
    let mut request = get();
    request.extensions_mut().insert(Replay::Never);
    let response = layer.layer(world.api.clone()).oneshot(request).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert!(outcome.not_replayable && outcome.refreshed && !outcome.resent, "{outcome:?}");
}

/// Behaviour 122.
#[test]
fn the_suite_never_waits_for_a_real_clock() {
    let hours = cases::all().find(|case| case.number == 122).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        crate::hold(hours);
    }
    assert!(start.elapsed() < Duration::from_secs(60), "2000 hours took {:?}", start.elapsed());

    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviours"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let sleeps = std::fs::read_to_string(&path).unwrap().contains(concat!("thread::", "sleep("));
                assert!(!sleeps, "{}", path.display());
            }
        }
    }
}
