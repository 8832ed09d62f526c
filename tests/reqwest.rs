//! `reqwest::Client` under the layer, and the built-in token client, both on loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request};
use support::{World, told};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, serve};
use tower_oauth2_client::{Auth, AuthLayer, AuthOutcome, DpopKey, Error, Tenant, TenantId};

/// One line in your own code, and the one that matters for redirects.
fn client() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

fn request(method: Method, world: &World, body: Option<&'static str>) -> Request {
    let mut request = Request::new(method, world.server.uri("/items").parse().unwrap());
    *request.body_mut() = body.map(Into::into);
    request
}

fn auth(world: &World) -> Auth<Client> {
    AuthLayer::new(world.config().build().unwrap()).layer(client())
}

fn outcome(response: &reqwest::Response) -> AuthOutcome {
    response.extensions().get().cloned().unwrap_or_default()
}

/// Behaviour 61.
#[tokio::test]
async fn a_revoked_token_is_replaced_and_the_request_sent_again() {
    let world = World::new().await;
    let auth = auth(&world);
    let first = auth.clone().oneshot(request(Method::POST, &world, Some("body"))).await.unwrap();
    assert!(first.extensions().get::<AuthOutcome>().is_none(), "it only waited for the first token");
    assert_eq!(first.text().await.unwrap(), "body");
    let second = auth.clone().oneshot(request(Method::POST, &world, Some("body"))).await.unwrap();
    assert!(second.extensions().get::<AuthOutcome>().is_none(), "nothing happened");

    world.revoke();
    let healed = auth.clone().oneshot(request(Method::POST, &world, Some("body"))).await.unwrap();
    assert!(outcome(&healed).resent);
    assert_eq!(healed.text().await.unwrap(), "body");
    let sendings = world.api.requests();
    assert_eq!(sendings.len(), 4);
    assert!(sendings.iter().all(|sending| sending.body == "body" && sending.header("content-length") == Some("4")));
    assert_eq!(world.auth.token_requests(), 2);
}

/// Without `&mut` and without tower's traits, for many at once and from any task: one token request.
///
/// Behaviours 1, 61.
#[tokio::test]
async fn execute_sends_through_a_shared_reference() {
    let world = World::new().await;
    let auth = Arc::new(auth(&world));
    let sending = (0..20).map(|_| {
        let sent = auth.execute(request(Method::POST, &world, Some("body")));
        tokio::spawn(sent)
    });
    for response in futures_util::future::join_all(sending).await {
        assert_eq!(response.unwrap().unwrap().text().await.unwrap(), "body");
    }
    assert_eq!(world.auth.token_requests(), 1);
    world.revoke();
    let healed = auth.execute(request(Method::POST, &world, Some("body"))).await.unwrap();
    assert!(outcome(&healed).resent);

    let mut elsewhere = request(Method::GET, &world, None);
    *elsewhere.url_mut() = "https://elsewhere.example/".parse().unwrap();
    let error = auth.execute(elsewhere).await.unwrap_err();
    assert!(matches!(error, Error::Origin { .. }), "{error}");
}

#[tokio::test]
async fn a_streaming_body_is_recorded() {
    let world = World::new().await;
    let auth = auth(&world);
    auth.clone().oneshot(request(Method::GET, &world, None)).await.unwrap();
    world.revoke();
    let mut upload = request(Method::PUT, &world, None);
    *upload.body_mut() = Some(reqwest::Body::wrap(Full::<Bytes>::from("streamed")));
    let response = auth.oneshot(upload).await.unwrap();
    assert_eq!((outcome(&response).resent, response.text().await.unwrap()), (true, "streamed".to_owned()));
}

/// Behaviour 114.
#[tokio::test]
async fn the_built_in_token_client_asks_as_the_standard_says() {
    let world = World::new().await;
    auth(&world).oneshot(request(Method::GET, &world, None)).await.unwrap();
    let asked = &world.auth.requests()[0];
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(&asked.body[..], b"grant_type=client_credentials");
    assert!(asked.header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(asked.header("user-agent"), None);
}

/// The server would have got the credentials a second time.
///
/// Behaviour 102.
#[tokio::test]
async fn the_built_in_token_client_follows_no_redirect() {
    let (world, elsewhere) = (World::new().await, World::new().await);
    let location = elsewhere.server.uri("/oauth2/token");
    world.auth.script([tower_oauth2_client::test_util::Fault::Redirect(location.into())]);
    let error = auth(&world).oneshot(request(Method::GET, &world, None)).await.unwrap_err();
    let told = told(&error);
    assert!(told.contains("redirect, which is never followed; configure the URL it points to"), "{told}");
    assert!(told.contains(&elsewhere.server.origin()), "{told}");
    assert_eq!((elsewhere.auth.token_requests(), world.api.hits()), (0, 0));
}

/// reqwest keeps request extensions to itself: a clone of the service carries the tenant.
///
/// Behaviour 95.
#[tokio::test]
async fn a_tenant_for_each_request_by_a_clone_of_the_service() {
    let world = World::with(|api| api.tenant_header("tenant-id")).await;
    let cfg = world.config().tenant(Tenant::header("Tenant-Id").per_request()).build().unwrap();
    let auth = AuthLayer::new(cfg).layer(client());
    for practice in ["one", "two"] {
        let tenant = TenantId::new(practice).unwrap();
        let response = auth.for_tenant(&tenant).oneshot(request(Method::GET, &world, None)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let error = auth.oneshot(request(Method::GET, &world, None)).await.unwrap_err();
    assert!(matches!(error, Error::Tenant { .. }), "{error}");
    let sent: Vec<_> = world.api.requests().iter().map(|sent| sent.header("tenant-id").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("one".to_owned()), Some("two".to_owned())]);
    assert_eq!(world.auth.token_requests(), 1, "they share the token");
}

/// Or the request's own header does, where the configuration says so. Tokens are per tenant here.
///
/// Behaviour 90.
#[tokio::test]
async fn a_tenant_for_each_request_by_its_header() {
    let world = World::with(|api| api.tenant_header("tenant-id")).await;
    let world = World { auth: world.auth.clone().tenant_header("tenant-id"), ..world };
    let tenant = Tenant::header("Tenant-Id").from_request_header().token_header("Tenant-Id");
    let auth = AuthLayer::new(world.config().tenant(tenant).build().unwrap()).layer(client());
    let calls = ["one", "two"].map(|practice| {
        let mut get = request(Method::GET, &world, None);
        get.headers_mut().insert("tenant-id", practice.parse().unwrap());
        auth.clone().oneshot(get)
    });
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!((world.auth.token_requests(), world.api.tenant_mismatches()), (2, 0));
    for sent in world.api.requests() {
        assert_eq!(world.auth.tenant_of(sent.bearer().unwrap()).as_deref(), sent.header("tenant-id"));
    }
}

/// What a client that follows redirects does below this layer: reqwest takes `Authorization` off on the way to another
/// host, and leaves a tenant header on. So redirects belong outside, or off.
///
/// Behaviour 100.
#[tokio::test]
async fn a_client_that_follows_redirects_takes_the_tenant_to_another_host() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let elsewhere = serve(service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let headers = request.headers();
        record.lock().unwrap().push((headers.contains_key("authorization"), headers.contains_key("tenant-id")));
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    }));
    let elsewhere = elsewhere.await.unwrap();
    let world = World::with(|api: Api| api).await;
    let redirect = tower_oauth2_client::test_util::Fault::Redirect(elsewhere.uri("/").into());
    world.api.always(redirect);
    let cfg = world.config().tenant(Tenant::header("Tenant-Id").fixed("practice")).build().unwrap();
    let layer = AuthLayer::new(cfg);

    let careful = layer.layer(client());
    let response = careful.oneshot(request(Method::GET, &world, None)).await.unwrap();
    assert_eq!(response.status(), 307, "the redirect comes back as it is");
    assert!(seen.lock().unwrap().is_empty());

    let careless = layer.layer(Client::new());
    careless.oneshot(request(Method::GET, &world, None)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(false, true)], "no token, but the tenant");
}

/// Behaviour 110.
#[tokio::test]
async fn a_bound_token_has_its_proof_and_the_nonces_that_both_servers_want() {
    let world = World::with(Api::rotate_dpop_nonces).await;
    let _ = world.auth.clone().rotate_dpop_nonces();
    let cfg = world.config().dpop(DpopKey::generate().unwrap()).build().unwrap();
    let auth = AuthLayer::new(cfg).layer(client());
    for _ in 0..2 {
        let response = auth.clone().oneshot(request(Method::POST, &world, Some("body"))).await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "body".to_owned()));
    }
    assert_eq!((world.auth.token_requests(), world.api.hits(), world.api.unauthorized()), (2, 3, 1));
    world.revoke();
    let response = auth.oneshot(request(Method::POST, &world, Some("body"))).await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "body".to_owned()));
    assert!(world.api.requests().iter().all(|sent| sent.dpop_token().is_some() && sent.body == "body"));
}
