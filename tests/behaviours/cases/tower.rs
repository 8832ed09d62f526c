//! Among other tower layers, and over gRPC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::{Api, Body, Fault};

use crate::cases;
use crate::subject::{
    CLIENT_ID, Client, NotOffered, Offered, Outcome, Settings, Subject, World, empty, get, post, send, send_all, text,
};

cases! {
    /// Behaviour 117.
    117, "under `Timeout` a request that waits for a token ends in time, and the token request goes on", timeout_outside;
    /// Behaviour 117.
    117, "over `Timeout` each sending has its own time, and waiting for a token none", timeout_inside;
    /// Behaviour 117.
    117, "under and over `Buffer` and `ConcurrencyLimit(1)` everybody gets through with one refresh", queues;
    /// Behaviour 117.
    117, "under `Retry` a 401 is mended within one try", retry_outside;
    /// Behaviour 117.
    117, "over `Retry` each sending is tried again, and a 401 is not", retry_inside;
    /// Behaviour 118.
    118, "gRPC status 16 in the headers is a 401", grpc_headers;
    /// Behaviour 118.
    118, "gRPC status 16 in the trailers leaves the call alone", grpc_trailers;
    /// Behaviour 118.
    118, "an HTML 401 of a proxy before a gRPC server is a 401", grpc_proxy;
    /// Behaviour 119.
    119, "gRPC status 7 is not a 401", grpc_permission;
    /// Behaviour 120.
    120, "a token handed in is used by the very next request", handed_in;
    /// Behaviour 120.
    120, "a new secret is used by the very next request", new_secret;
    /// Behaviour 121.
    121, "a token that expires while a request is under way changes nothing for it", expires_on_the_way;
    /// Behaviour 122.
    122, "hours pass without waiting", hours;
    /// Behaviour 123.
    123, "the response tells what happened to its request", outcomes;
}

async fn revoked(client: &Client, world: &World) {
    assert_eq!(send(client, get("/warm")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 1));
    world.auth.revoke_all();
}

/// The client with a layer outside of it, and one with the layer inside.
fn outside_and_inside<L>(subject: &Arc<dyn Subject>, world: &World, layer: L) -> Offered<[Client; 2]>
where
    L: Layer<Client>,
    L::Service: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send,
{
    let outside = BoxCloneSyncService::new(layer.layer(world.client(subject)?));
    let inner = BoxCloneSyncService::new(layer.layer(world.inner()));
    let inside = subject.client_over(inner, world, &Settings::default()).ok_or(NotOffered)?.client;
    Ok([outside, inside])
}

fn is_elapsed(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if error.is::<Elapsed>() {
            return true;
        }
        cause = error.source();
    }
    false
}

const SECOND: Duration = Duration::from_secs(1);

async fn timeout_outside(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let [client, _] = outside_and_inside(&subject, &world, TimeoutLayer::new(SECOND))?;
    let start = Instant::now();
    assert!(is_elapsed(&send(&client, get("/")).await.unwrap_err()));
    assert_eq!((start.elapsed(), world.api.hits()), (SECOND, 0));
    world.pass(2 * SECOND).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}

async fn timeout_inside(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND)).api(|api| api.latency(SECOND * 6 / 10));
    let [_, client] = outside_and_inside(&subject, &world, TimeoutLayer::new(SECOND))?;
    let start = Instant::now();
    revoked(&client, &world).await;
    assert_eq!(start.elapsed(), SECOND * 26 / 10);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(start.elapsed(), SECOND * (26 + 6 + 20 + 6) / 10);

    world.api.always(Fault::Hang);
    assert!(is_elapsed(&send(&client, get("/")).await.unwrap_err()));
    assert_eq!(world.auth.token_requests(), 2);
    Ok(())
}

async fn queues(subject: Arc<dyn Subject>) -> Offered {
    async fn everybody_gets_through(client: Client, world: &World) {
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        let so_far = world.auth.token_requests();
        world.auth.revoke_all();
        for response in send_all(&client, (0..50).map(|_| post("/", "x"))).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(world.auth.token_requests(), so_far + 1);
    }

    let slow = || World::with(|auth| auth.latency(SECOND)).api(|api| api.latency(SECOND / 100));
    let world = slow();
    for client in outside_and_inside(&subject, &world, ConcurrencyLimitLayer::new(1))? {
        everybody_gets_through(client, &world).await;
    }
    assert_eq!(world.api.max_in_flight(), 1);
    let world = slow();
    for client in outside_and_inside(&subject, &world, BufferLayer::new(4))? {
        everybody_gets_through(client, &world).await;
    }
    Ok(())
}

/// Tries a request without a body again after 503.
#[derive(Clone)]
struct Unavailable;

impl Policy<Request<Body>, Response<Body>, BoxError> for Unavailable {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<std::future::Ready<()>> {
        let unavailable = result.as_ref().is_ok_and(|response| response.status() == 503);
        unavailable.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut clone = Request::new(empty());
        *clone.method_mut() = request.method().clone();
        *clone.uri_mut() = request.uri().clone();
        *clone.headers_mut() = request.headers().clone();
        *clone.extensions_mut() = request.extensions().clone();
        Some(clone)
    }
}

async fn retry_outside(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let [client, _] = outside_and_inside(&subject, &world, RetryLayer::new(Unavailable))?;
    revoked(&client, &world).await;
    // 401, then 503: the second sending's answer goes out; the retry is a request of its own, with the new token.
    world.api.script([Fault::Pass, Fault::Status(503)]);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1 + 3));
    Ok(())
}

async fn retry_inside(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let [_, client] = outside_and_inside(&subject, &world, RetryLayer::new(Unavailable))?;
    revoked(&client, &world).await;
    world.api.script([Fault::Status(503), Fault::Pass, Fault::Status(503)]);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1 + 4));
    for request in world.api.requests() {
        assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
    }
    Ok(())
}

fn call(message: &'static [u8]) -> Request<Body> {
    let mut request = post("/package.Service/Method", message);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

async fn grpc_status(response: Response<Body>) -> String {
    assert_eq!(response.status(), 200);
    let in_headers = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await.unwrap();
    let status = in_headers.or_else(|| body.trailers()?.get("grpc-status").cloned());
    status.unwrap().to_str().unwrap().to_owned()
}

async fn grpc_headers(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::grpc_unauthenticated_in_headers);
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let response = send(&client, call(b"\0\0\0\0\x01x")).await.unwrap();
    assert_eq!(grpc_status(response).await, "0");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    assert_eq!(world.api.requests()[2].body, &b"\0\0\0\0\x01x"[..]);
    assert_eq!(world.api.requests()[2].header("te"), Some("trailers"));
    Ok(())
}

async fn grpc_trailers(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::grpc_unauthenticated_in_trailers);
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let response = send(&client, call(b"\0\0\0\0\x01x")).await.unwrap();
    assert_eq!(grpc_status(response).await, "16");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2));
    Ok(())
}

async fn grpc_proxy(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::grpc_unauthenticated_in_headers);
    let client = world.client(&subject)?;
    revoked(&client, &world).await;
    let page = Response::builder().status(401).header("content-type", "text/html");
    world.api.script([Fault::Respond(page.body(Bytes::from("<title>Sign in</title>")).unwrap())]);
    let response = send(&client, call(b"\0\0\0\0\0")).await.unwrap();
    assert_eq!(grpc_status(response).await, "0");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    Ok(())
}

async fn grpc_permission(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::grpc_unauthenticated_in_headers);
    let client = world.client(&subject)?;
    assert_eq!(grpc_status(send(&client, call(b"\0\0\0\0\0")).await.unwrap()).await, "0");
    let refusal = Response::builder().header("content-type", "application/grpc").header("grpc-status", "7");
    world.api.script([Fault::Respond(refusal.body(Bytes::new()).unwrap())]);
    assert_eq!(grpc_status(send(&client, call(b"\0\0\0\0\0")).await.unwrap()).await, "7");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2));
    Ok(())
}

async fn handed_in(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    revoked(&setup.client, &world).await;
    // Signed in elsewhere.
    let elsewhere = world.client(&subject)?;
    assert_eq!(send(&elsewhere, get("/")).await.unwrap().status(), 200);
    let token = world.auth.last_token().unwrap();
    setup.control.hand_in(&token, None)?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    let requests = world.api.requests();
    assert_eq!((world.auth.token_requests(), requests.len()), (2, 3));
    assert_eq!(requests[2].bearer(), Some(token.as_str()));
    Ok(())
}

async fn new_secret(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    let old = world.auth.last_token();
    let _ = world.auth.clone().client(CLIENT_ID, "rotated");
    setup.control.replace_secret("rotated")?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    let requests = world.api.requests();
    assert_eq!((world.auth.token_requests(), requests.len()), (2, 2));
    assert_ne!(requests[1].bearer(), old.as_deref(), "a token of the old identity");
    Ok(())
}

async fn expires_on_the_way(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    let _ = world.api.clone().latency(2 * HOUR);
    let response = send(&setup.client, post("/", "a long one")).await.unwrap();
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2), "nothing is done behind a request's back");
    if let Ok(outcome) = setup.control.outcome(&response) {
        assert_eq!(outcome, Outcome::default());
    }
    assert_eq!((response.status().as_u16(), text(response).await), (200, "a long one".to_owned()));
    Ok(())
}

const HOUR: Duration = Duration::from_secs(3600);

async fn hours(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    let (start, real) = (Instant::now(), std::time::Instant::now());
    for _ in 0..10 {
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        world.pass(2 * HOUR).await;
    }
    assert_eq!(start.elapsed(), 20 * HOUR);
    assert!(real.elapsed() < HOUR);
    assert_eq!(world.auth.token_requests(), 10);
    Ok(())
}

async fn outcomes(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    let outcome = async |request| {
        let response = send(&setup.client, request).await.unwrap();
        setup.control.outcome(&response)
    };
    let cold = outcome(get("/")).await?;
    assert_eq!(cold, Outcome::default());
    assert_eq!(outcome(get("/")).await?, Outcome::default());

    world.auth.revoke_all();
    let refreshed = Outcome { refreshed: true, resent: true, ..Outcome::default() };
    assert_eq!(outcome(get("/")).await?, refreshed);

    world.api.script([Fault::Status(401), Fault::Status(401)]);
    assert_eq!(outcome(get("/")).await?, refreshed, "also if the second response is a 401 again");

    world.api.script([Fault::Status(401)]);
    assert_eq!(outcome(get("/")).await?, Outcome { suppressed: true, ..Outcome::default() });

    world.pass(3 * SECOND).await;
    world.auth.script([Fault::Status(503)]);
    world.api.script([Fault::Status(401)]);
    assert_eq!(outcome(get("/")).await?, Outcome { refreshed: true, failed: true, ..Outcome::default() });

    world.pass(120 * SECOND).await;
    world.auth.script([Fault::SameToken]);
    world.api.script([Fault::Status(401)]);
    assert_eq!(outcome(get("/")).await?, Outcome { refreshed: true, same_token: true, ..Outcome::default() });

    world.pass(240 * SECOND).await;
    world.api.script([Fault::Status(401)]);
    let mut request = get("/");
    request.extensions_mut().insert(tower_oauth2_client::Replay::Never);
    let once = outcome(request).await?;
    assert_eq!(once, Outcome { refreshed: true, not_replayable: true, ..Outcome::default() });
    Ok(())
}
