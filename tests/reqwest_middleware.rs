//! The layer in a chain of `reqwest-middleware`, on loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Extensions;
use http_body_util::StreamBody;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use support::{World, told};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault};
use tower_oauth2_client::{
    AuthConfigBuilder, AuthLayer, AuthOutcome, DpopKey, Error, Replay, SkipAuth, Tenant, TenantId, TokenError,
    TokenErrorKind,
};

fn layer(cfg: AuthConfigBuilder) -> AuthLayer {
    AuthLayer::new(cfg.build().unwrap())
}

fn http() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

fn client(cfg: AuthConfigBuilder) -> ClientWithMiddleware {
    ClientBuilder::new(http()).with(layer(cfg)).build()
}

fn outcome(response: &Response) -> AuthOutcome {
    response.extensions().get().cloned().unwrap_or_default()
}

/// Counts what passes, and how often it did for the same extensions.
#[derive(Clone, Default)]
struct Count {
    passed: Arc<AtomicUsize>,
    of_one: Arc<Mutex<Vec<u32>>>,
}

#[derive(Clone, Copy, Default)]
struct Seen(u32);

impl Count {
    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Middleware for Count {
    fn handle<'a, 'b, 'c, 'f>(
        &'a self,
        request: Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> reqwest_middleware_future::Handled<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        self.passed.fetch_add(1, Ordering::SeqCst);
        let seen = extensions.get_or_insert_default::<Seen>();
        seen.0 += 1;
        self.of_one.lock().unwrap().push(seen.0);
        Box::pin(next.run(request, extensions))
    }
}

/// Sends again what fails with a 503, two seconds later: what a retry middleware does.
struct RetryUnavailable(AuthServer);

impl Middleware for RetryUnavailable {
    fn handle<'a, 'b, 'c, 'f>(
        &'a self,
        request: Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> reqwest_middleware_future::Handled<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        Box::pin(async move {
            loop {
                let response = next.clone().run(request.try_clone().unwrap(), extensions).await?;
                if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                    return Ok(response);
                }
                self.0.clock().advance(Duration::from_secs(2));
            }
        })
    }
}

mod reqwest_middleware_future {
    //! What `async_trait` makes of the method.
    use std::pin::Pin;

    pub(crate) type Handled<'f> =
        Pin<Box<dyn Future<Output = reqwest_middleware::Result<reqwest::Response>> + Send + 'f>>;
}

/// Behaviours 1, 15.
#[tokio::test]
async fn one_token_request_for_many() {
    let world = World::new().await;
    let client = client(world.config());
    let sending = (0..20).map(|_| {
        let sent = client.post(world.server.uri("/items")).body("body").send();
        tokio::spawn(sent)
    });
    for response in futures_util::future::join_all(sending).await {
        assert_eq!(response.unwrap().unwrap().text().await.unwrap(), "body");
    }
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 20));
}

/// Both sendings go through what is inside, one request through what is outside.
///
/// Behaviour 61.
#[tokio::test]
async fn a_401_is_healed_once_through_the_rest_of_the_chain() {
    let world = World::new().await;
    let (outside, inside) = (Count::default(), Count::default());
    let chain = ClientBuilder::new(http()).with(outside.clone()).with(layer(world.config())).with(inside.clone());
    let client = chain.build();
    client.get(world.server.uri("/items")).send().await.unwrap();
    world.revoke();
    let response = client.post(world.server.uri("/items")).body("body").send().await.unwrap();
    assert!(outcome(&response).resent);
    assert_eq!(response.text().await.unwrap(), "body");
    assert_eq!((outside.passed(), inside.passed(), world.auth.token_requests()), (2, 3, 2));
    assert_eq!(*inside.of_one.lock().unwrap(), [2, 2, 3], "the same extensions, also for the second sending");

    world.api.always(Fault::Status(401));
    let response = client.get(world.server.uri("/items")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(inside.passed() <= 5, "never sent more than twice");
}

/// A retry outside is another request with the same extensions: it has a resend of its own.
#[tokio::test]
async fn a_retry_outside_has_a_resend_of_its_own() {
    let world = World::new().await;
    let chain = ClientBuilder::new(http()).with(RetryUnavailable(world.auth.clone()));
    let client = chain.with(layer(world.config())).build();
    client.get(world.server.uri("/items")).send().await.unwrap();
    world.revoke();
    world.api.script([Fault::Pass, Fault::Status(503), Fault::error("invalid_token")]);
    let response = client.post(world.server.uri("/items")).body("body").send().await.unwrap();
    assert_eq!((response.status().as_u16(), outcome(&response).resent), (200, true));
    assert_eq!((world.api.hits(), world.auth.token_requests()), (5, 3));
}

/// Resends and retries do not get in each other's way.
#[tokio::test]
async fn retries_outside_and_inside_are_requests_of_their_own() {
    for outside in [true, false] {
        let world = World::new().await;
        let (retry, auth) = (RetryUnavailable(world.auth.clone()), layer(world.config()));
        let chain = ClientBuilder::new(http());
        let chain = if outside { chain.with(retry).with(auth) } else { chain.with(auth).with(retry) };
        let client = chain.build();
        client.get(world.server.uri("/items")).send().await.unwrap();
        // 401, 503 after the resend, 401 again, and then well.
        world.api.script([Fault::Pass, Fault::Status(503)]);
        world.revoke();
        let response = client.post(world.server.uri("/items")).body("body").send().await.unwrap();
        assert_eq!(response.status(), 200, "retries outside: {outside}");
        world.revoke();
        world.api.script([Fault::Status(503)]);
        let response = client.post(world.server.uri("/items")).body("body").send().await.unwrap();
        assert_eq!((response.status().as_u16(), outcome(&response).resent), (200, true), "retries outside: {outside}");
        assert!(world.api.requests().iter().skip(1).all(|sent| sent.body == "body"));
        assert_eq!(world.auth.token_requests(), 3);
    }
}

/// Behaviour 63.
#[tokio::test]
async fn a_body_that_cannot_be_kept_passes_its_401_on() {
    let world = World::new().await;
    let client = client(world.config().max_replay_bytes(4));
    client.get(world.server.uri("/items")).send().await.unwrap();
    world.revoke();
    let body = || {
        let frames = [Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from("longer")))];
        reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(frames)))
    };
    let response = client.put(world.server.uri("/items")).body(body()).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(outcome(&response).not_replayable && !outcome(&response).resent);
    let response = client.put(world.server.uri("/items")).body(body()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), world.auth.token_requests()), (200, 2), "the next one has the new token");
}

/// Tokens are per tenant here.
///
/// Behaviours 90, 95.
#[tokio::test]
async fn tenants_and_other_options_come_from_the_extensions() {
    let world = World::with(|api| api.tenant_header("tenant-id")).await;
    let world = World { auth: world.auth.clone().tenant_header("tenant-id"), ..world };
    let tenant = Tenant::header("Tenant-Id").per_request().token_header("Tenant-Id");
    let client = client(world.config().tenant(tenant));
    let get = || client.get(world.server.uri("/items"));
    for _ in 0..2 {
        for practice in ["one", "two"] {
            let response = get().with_extension(TenantId::new(practice).unwrap()).send().await.unwrap();
            assert_eq!(response.status(), 200);
        }
        world.revoke();
    }
    assert_eq!((world.auth.token_requests(), world.api.tenant_mismatches()), (4, 0));
    let error = get().send().await.unwrap_err();
    assert!(matches!(of_ours(&error), Some(Error::Tenant { .. })), "{error}");

    let one = || get().with_extension(TenantId::new("one").unwrap());
    world.revoke();
    let response = one().with_extension(Replay::Never).send().await.unwrap();
    assert_eq!((response.status().as_u16(), outcome(&response).resent), (401, false));
    let response = get().with_extension(SkipAuth).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let sent = world.api.requests().pop().unwrap();
    assert_eq!((sent.bearer(), sent.header("tenant-id")), (None, None));
}

fn of_ours(error: &reqwest_middleware::Error) -> Option<&Error> {
    match error {
        reqwest_middleware::Error::Middleware(error) => error.downcast_ref(),
        reqwest_middleware::Error::Reqwest(_) => None,
    }
}

#[tokio::test]
async fn errors_keep_their_types() {
    let world = World::new().await;
    world.auth.always(Fault::error("invalid_client"));
    let client = client(world.config());
    let error = client.get(world.server.uri("/items")).send().await.unwrap_err();
    let token_error = of_ours(&error).and_then(Error::token).unwrap();
    assert_eq!(token_error.kind(), TokenErrorKind::BadCredentials);
    let reqwest_middleware::Error::Middleware(chain) = &error else { panic!("{error}") };
    assert!(chain.chain().any(|cause| cause.is::<TokenError>()));
    assert!(told(&error).contains("invalid_client"), "{}", told(&error));
    assert_eq!(world.api.hits(), 0);

    let error = client.get("https://elsewhere.example/").send().await.unwrap_err();
    assert!(matches!(of_ours(&error), Some(Error::Origin { .. })), "{error}");

    // The client's own come back as they were.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = self::client(world.config().origin(format!("http://{closed}")));
    world.auth.heal();
    let error = client.get(format!("http://{closed}/")).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

/// Behaviour 110.
#[tokio::test]
async fn a_bound_token_has_its_proof_in_a_chain_too() {
    let world = World::with(Api::rotate_dpop_nonces).await;
    let _ = world.auth.clone().rotate_dpop_nonces();
    let client = client(world.config().dpop(DpopKey::generate().unwrap()));
    for _ in 0..2 {
        let response = client.post(world.server.uri("/items")).body("body").send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "body".to_owned()));
        world.revoke();
    }
    assert!(world.api.requests().iter().all(|sent| sent.dpop_token().is_some() && sent.body == "body"));
}

/// Two layers of this crate in one chain: the inner one does not send a third time.
///
/// Behaviour 55.
#[tokio::test]
async fn two_layers_in_one_chain_send_twice() {
    let world = World::new().await;
    let inside = Count::default();
    let chain = ClientBuilder::new(http()).with(layer(world.config())).with(layer(world.config()));
    let client = chain.with(inside.clone()).build();
    client.get(world.server.uri("/items")).send().await.unwrap();
    world.api.always(Fault::Status(401));
    let response = client.get(world.server.uri("/items")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(inside.passed(), 3);
}
