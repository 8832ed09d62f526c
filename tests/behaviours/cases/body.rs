//! Request bodies: which are sent twice, and how the others fare.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tower_oauth2_client::test_util::{Api, Body};
use tower_oauth2_client::{BoxError, Replay};

use crate::cases;
use crate::subject::{
    API, Client, NotOffered, Offered, Setting, Settings, Subject, World, empty, full, get, post, send, text,
};

cases! {
    /// Behaviour 61.
    61, "a buffered body is sent twice byte for byte, with the same length", buffered;
    /// Behaviour 62.
    62, "a one-shot stream is not sent twice, its 401 comes at once, and the token is refreshed behind it", one_shot;
    /// Behaviour 63.
    63, "a body beyond the cap is not held in memory, and arrives whole", beyond_the_cap;
    /// Behaviour 63.
    63, "a body that says that it is beyond the cap is not touched", says_beyond_the_cap;
    /// Behaviour 64.
    64, "a 401 before the body has been read: the second sending has all of it", early_rejection;
    /// Behaviour 64.
    64, "a 401 while the transport keeps the body: no second sending, no hang", early_rejection_body_kept;
    /// Behaviour 65.
    65, "an error in the body surfaces once", broken_body;
    /// Behaviour 65.
    65, "an error in the rest of a body surfaces on the second sending", broken_rest;
    /// Behaviour 66.
    66, "empty bodies are always sent twice", nothing_to_keep;
    /// Behaviour 66.
    66, "trailers are sent twice", trailers;
    /// Behaviour 67.
    67, "the policy says which methods are sent twice", policy;
    /// Behaviour 67.
    67, "a request's own policy wins over the layer's", policy_of_a_request;
    /// Behaviour 68.
    68, "a duplex stream is never sent twice", duplex;
    /// Behaviour 69.
    69, "`Expect: 100-continue` is on both sendings", expect_continue;
}

/// A sending as it arrived.
#[derive(Debug, PartialEq)]
struct Seen {
    exact: Option<u64>,
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

/// The world's API, and all of what reached it.
fn spy(world: &World) -> (Client, Arc<Mutex<Vec<Seen>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let (seen, api) = (all.clone(), world.inner());
    let client = service_fn(move |request: Request<Body>| {
        let (seen, api) = (seen.clone(), api.clone());
        async move {
            let (head, body) = request.into_parts();
            let exact = body.size_hint().exact();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned();
            let bytes = body.to_bytes();
            seen.lock().unwrap().push(Seen { exact, bytes: bytes.clone(), trailers });
            send(&api, Request::from_parts(head, full(bytes))).await
        }
    });
    (BoxCloneSyncService::new(client), all)
}

fn over(subject: &Arc<dyn Subject>, inner: Client, world: &World, settings: Settings) -> Offered<Client> {
    Ok(subject.client_over(inner, world, &settings).ok_or(NotOffered)?.client)
}

fn capped(bytes: usize) -> Settings {
    Settings { more: vec![Setting::MaxReplayBytes(bytes)], ..Settings::default() }
}

fn streaming(frames: impl stream::Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

fn post_body(body: Body) -> Request<Body> {
    Request::post(format!("{API}/")).body(body).unwrap()
}

/// The client has a token, and the server has just revoked it.
async fn revoked(client: &Client, world: &World) {
    assert_eq!(send(client, get("/warm")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 1));
    world.auth.revoke_all();
}

/// What follows a request that could not be sent twice: its own 401, and a good token for the next one.
async fn refreshed_behind(client: &Client, world: &World) {
    // The token request goes on behind the answer.
    world.pass(Duration::from_millis(1)).await;
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 2));
    assert_eq!(send(client, get("/next")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
}

async fn buffered(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (inner, seen) = spy(&world);
    let client = over(&subject, inner, &world, Settings::default())?;
    revoked(&client, &world).await;
    let payload: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let mut request = post("/", payload.clone());
    request.headers_mut().insert("content-length", 10_000.into());
    let response = send(&client, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), payload);
    let expected = || Seen { exact: Some(10_000), bytes: payload.clone().into(), trailers: None };
    assert_eq!(seen.lock().unwrap()[1..], [expected(), expected()]);
    let mut requests = world.api.requests();
    let lengths: Vec<_> = requests[1..].iter().map(|request| request.header("content-length")).collect();
    assert_eq!(lengths, [Some("10000"); 2]);
    for request in &mut requests {
        request.headers.remove("authorization");
    }
    assert_eq!(requests[1].headers, requests[2].headers);
    assert_eq!((&requests[1].method, &requests[1].uri), (&requests[2].method, &requests[2].uri));
    Ok(())
}

async fn one_shot(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = over(&subject, world.inner(), &world, capped(16))?;
    revoked(&client, &world).await;
    let _ = world.auth.clone().latency(Duration::from_secs(10));
    let start = Instant::now();
    let chunk = |text: &'static str| Ok(Bytes::from(text));
    let body = streaming(stream::iter([chunk("this is "), chunk("much more "), chunk("than the cap")]));
    let response = send(&client, post_body(body)).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await), (401, "unauthorized".to_owned()));
    assert_eq!(start.elapsed(), Duration::ZERO, "it waited for the token request");
    assert_eq!(world.api.requests()[1].body, "this is much more than the cap");
    world.pass(Duration::from_secs(11)).await;
    refreshed_behind(&client, &world).await;
    Ok(())
}

async fn beyond_the_cap(subject: Arc<dyn Subject>) -> Offered {
    const CHUNK: usize = 1024;
    let world = World::new();
    let pulled = Arc::new(AtomicUsize::new(0));
    let at_sending = Arc::new(AtomicUsize::new(0));
    let (before, counter, api) = (at_sending.clone(), pulled.clone(), world.inner());
    let inner = service_fn(move |request: Request<Body>| {
        before.store(counter.load(Ordering::SeqCst), Ordering::SeqCst);
        let api = api.clone();
        async move { send(&api, request).await }
    });
    let client = over(&subject, BoxCloneSyncService::new(inner), &world, capped(4 * CHUNK))?;
    revoked(&client, &world).await;
    let frames = stream::iter(0..1000).map(move |n| {
        pulled.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::from(vec![n as u8; CHUNK]))
    });
    assert_eq!(send(&client, post_body(streaming(frames))).await.unwrap().status(), 401);
    let pulled = at_sending.load(Ordering::SeqCst);
    assert!(pulled <= 5, "{pulled} frames were taken out of the body before it was sent");
    let body = &world.api.requests()[1].body;
    assert_eq!(body.len(), 1000 * CHUNK);
    assert!(body.chunks(CHUNK).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));
    refreshed_behind(&client, &world).await;
    Ok(())
}

async fn says_beyond_the_cap(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (inner, seen) = spy(&world);
    let client = over(&subject, inner, &world, capped(99_999))?;
    revoked(&client, &world).await;
    assert_eq!(send(&client, post("/", vec![7; 100_000])).await.unwrap().status(), 401);
    assert_eq!(seen.lock().unwrap()[1].exact, Some(100_000));
    refreshed_behind(&client, &world).await;
    Ok(())
}

/// A body whose first part is there, and whose rest comes when it is sent; the end of it is when the sender is dropped.
fn in_parts(first: &'static str) -> (Body, mpsc::UnboundedSender<Result<Bytes, BoxError>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(Ok(Bytes::from(first))).unwrap();
    let rest = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) });
    (streaming(rest), sender)
}

async fn early_rejection(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::refuse_early);
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let (body, rest) = in_parts("hello ");
    let response = tokio::spawn(async move { send(&client, post_body(body)).await });
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.api.hits(), 3, "the second sending does not wait for the body's end");
    rest.send(Ok(Bytes::from("world"))).unwrap();
    drop(rest);
    let response = response.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), text(response).await), (200, "hello world".to_owned()));
    assert_eq!(world.api.requests()[2].body, "hello world");
    Ok(())
}

/// A transport that goes on reading a body after the answer has come, as HTTP/2 does.
fn keeps_bodies(world: &World) -> Client {
    let api = world.inner();
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (head, body) = request.into_parts();
            tokio::spawn(body.collect());
            send(&api, Request::from_parts(head, empty())).await
        }
    }))
}

async fn early_rejection_body_kept(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = over(&subject, keeps_bodies(&world), &world, Settings::default())?;
    revoked(&client, &world).await;
    let (body, _rest) = in_parts("hello ");
    let response = send(&client, post_body(body)).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await), (401, "unauthorized".to_owned()));
    refreshed_behind(&client, &world).await;
    Ok(())
}

#[derive(Debug)]
struct Torn;

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the file is torn")
    }
}

impl std::error::Error for Torn {}

fn is_torn(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if error.is::<Torn>() {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn broken_body(subject: Arc<dyn Subject>) -> Offered {
    for at_once in [true, false] {
        let world = World::new();
        let client = world.client(&subject)?;
        revoked(&client, &world).await;
        let (body, rest) = in_parts("half");
        let response = {
            let client = client.clone();
            if at_once {
                rest.send(Err(Torn.into())).unwrap();
            }
            tokio::spawn(async move { send(&client, post_body(body)).await })
        };
        world.pass(Duration::from_secs(1)).await;
        if !at_once {
            rest.send(Err(Torn.into())).unwrap();
        }
        let error = response.await.unwrap().unwrap_err();
        assert!(is_torn(&error), "{error:?}");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2));
    }
    Ok(())
}

async fn broken_rest(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::refuse_early);
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let (body, rest) = in_parts("half");
    let response = tokio::spawn(async move { send(&client, post_body(body)).await });
    world.pass(Duration::from_secs(1)).await;
    rest.send(Err(Torn.into())).unwrap();
    assert!(is_torn(&response.await.unwrap().unwrap_err()));
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    Ok(())
}

async fn nothing_to_keep(subject: Arc<dyn Subject>) -> Offered {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::PUT, Method::POST] {
        let world = World::new();
        // Nothing may be kept of a body, and nothing needs to be.
        let client = over(&subject, world.inner(), &world, capped(0))?;
        revoked(&client, &world).await;
        let request = Request::builder().method(&method).uri(format!("{API}/")).body(empty()).unwrap();
        assert_eq!(send(&client, request).await.unwrap().status(), 200, "{method}");
        assert_eq!(world.api.hits(), 3);
    }
    Ok(())
}

async fn trailers(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (inner, seen) = spy(&world);
    let client = over(&subject, inner, &world, Settings::default())?;
    revoked(&client, &world).await;
    let checksum = HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), "f00".parse().unwrap())]);
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(checksum.clone())];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>))).boxed_unsync();
    assert_eq!(send(&client, post_body(body)).await.unwrap().status(), 200);
    let expected = || Seen { exact: None, bytes: "hello".into(), trailers: Some(checksum.clone()) };
    assert_eq!(seen.lock().unwrap()[1..], [expected(), expected()]);
    Ok(())
}

async fn policy(subject: Arc<dyn Subject>) -> Offered {
    let table = [
        (Replay::AnyReplayable, Method::POST, true),
        (Replay::Idempotent, Method::POST, false),
        (Replay::Idempotent, Method::PATCH, false),
        (Replay::Idempotent, Method::PUT, true),
        (Replay::Idempotent, Method::DELETE, true),
        (Replay::Safe, Method::PUT, false),
        (Replay::Safe, Method::GET, true),
        (Replay::Never, Method::GET, false),
    ];
    for (replay, method, twice) in table {
        let world = World::new();
        let client = over(&subject, world.inner(), &world, Settings { replay, ..Settings::default() })?;
        revoked(&client, &world).await;
        let request = Request::builder().method(&method).uri(format!("{API}/")).body(full("x")).unwrap();
        let status = send(&client, request).await.unwrap().status();
        assert_eq!(status, if twice { 200 } else { 401 }, "{replay:?} {method}");
        if !twice {
            refreshed_behind(&client, &world).await;
        }
    }
    Ok(())
}

async fn policy_of_a_request(subject: Arc<dyn Subject>) -> Offered {
    for (layers, requests, twice) in [
        (Replay::AnyReplayable, Replay::Idempotent, false),
        (Replay::AnyReplayable, Replay::Never, false),
        (Replay::Never, Replay::AnyReplayable, true),
    ] {
        let world = World::new();
        let client = over(&subject, world.inner(), &world, Settings { replay: layers, ..Settings::default() })?;
        revoked(&client, &world).await;
        let mut request = post("/", "x");
        request.extensions_mut().insert(requests);
        let status = send(&client, request).await.unwrap().status();
        assert_eq!(status, if twice { 200 } else { 401 }, "{requests:?} in {layers:?}");
        assert_eq!(world.api.hits(), if twice { 3 } else { 2 });
    }
    Ok(())
}

async fn duplex(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::grpc_unauthenticated_in_headers);
    let client = over(&subject, keeps_bodies(&world), &world, Settings::default())?;
    revoked(&client, &world).await;
    let (body, outgoing) = in_parts("\0\0\0\0\x05first");
    let mut request = post_body(body);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = send(&client, request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "16");
    // The call is the transport's still: what the caller sends goes to the first sending, and to no other.
    outgoing.send(Ok(Bytes::from("\0\0\0\0\x06second"))).unwrap();
    refreshed_behind(&client, &world).await;
    Ok(())
}

async fn expect_continue(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let mut request = post("/", "large");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    assert_eq!(send(&client, request).await.unwrap().status(), 200);
    let expected: Vec<_> = world.api.requests()[1..].iter().map(|r| r.header("expect").map(str::to_owned)).collect();
    assert_eq!(expected, [Some("100-continue".to_owned()), Some("100-continue".to_owned())]);
    Ok(())
}
