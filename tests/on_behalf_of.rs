//! On behalf of each request's user, through a whole layer: whose token arrives, how many are asked for, and what is not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{
    Auth, AuthConfig, AuthConfigBuilder, AuthLayer, BoxError, ClientAuth, Clock as _, Error, OnBehalfOf, Scopes,
    SubjectToken, TokenErrorKind, TokenParams,
};

const TOKEN_URL: &str = "https://auth.example.com/token";

/// An authorization server whose tokens say whose they are and what for, and an API that holds each request to that.
#[derive(Clone, Default)]
struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    token_requests: AtomicUsize,
    api_requests: AtomicUsize,
    mix_ups: AtomicUsize,
    /// Which exchange of a subject and an audience this is.
    exchanges: Mutex<HashMap<String, usize>>,
    /// Tokens of earlier exchanges than this are rejected.
    revoked_below: AtomicUsize,
    fails_for: Mutex<Option<String>>,
    /// Whose exchange is answered with another kind of token.
    other_kind_for: Mutex<Option<String>>,
    /// Every so many users' requests are rejected, whatever their token; none if zero.
    rejects_every: AtomicUsize,
}

type Answer = Result<Response<Full<Bytes>>, BoxError>;

impl World {
    async fn token(self, request: Request<Full<Bytes>>) -> Answer {
        self.0.token_requests.fetch_add(1, Ordering::Relaxed);
        let body = request.into_body().collect().await?.to_bytes();
        let param = |name: &str| {
            let pair =
                body.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(format!("{name}=").as_bytes()));
            pair.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
        };
        let (subject, audience, scope) = (param("subject_token"), param("audience"), param("scope"));
        if self.0.fails_for.lock().unwrap().as_deref() == Some(subject.as_str()) {
            return Ok(Response::builder().status(503).body(Full::default())?);
        }
        let is_other = self.0.other_kind_for.lock().unwrap().as_deref() == Some(subject.as_str());
        let issued = if is_other { "refresh_token" } else { "access_token" };
        let whose = format!("{subject}.{audience}.{scope}");
        let times = {
            let mut exchanges = self.0.exchanges.lock().unwrap();
            let times = exchanges.entry(whose.clone()).or_default();
            *times += 1;
            *times
        };
        let answer = json!({
            "access_token": format!("{whose}.{times}"), "token_type": "Bearer", "expires_in": 3600,
            "issued_token_type": format!("urn:ietf:params:oauth:token-type:{issued}"),
        });
        Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
    }

    async fn api(self, request: Request<Full<Bytes>>) -> Answer {
        self.0.api_requests.fetch_add(1, Ordering::Relaxed);
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (token, expected) = (header("authorization"), header("expected"));
        let (whose, times) = token.trim_start_matches("Bearer ").rsplit_once('.').unwrap();
        if whose != expected {
            self.0.mix_ups.fetch_add(1, Ordering::Relaxed);
        }
        let is_revoked = times.parse::<usize>().unwrap() < self.0.revoked_below.load(Ordering::Relaxed);
        let number = whose.split(['-', '.']).nth(1).and_then(|number| number.parse::<usize>().ok());
        let is_rejected = is_among(number.unwrap_or(1), self.0.rejects_every.load(Ordering::Relaxed));
        Ok(Response::builder().status(if is_revoked || is_rejected { 401 } else { 200 }).body(Full::default())?)
    }

    fn layer(&self, cfg: AuthConfigBuilder) -> AuthLayer {
        let (world, cfg) = (self.clone(), cfg.origin("https://api.example.com").max_partitions(1_000_000));
        AuthLayer::builder(cfg.build().unwrap())
            .http_client(service_fn(move |request| world.clone().token(request)))
            .build()
            .unwrap()
    }

    fn client(&self, cfg: AuthConfigBuilder) -> Auth<impl Client> {
        let api = self.clone();
        self.layer(cfg).layer(service_fn(move |request| api.clone().api(request)))
    }

    fn token_requests(&self) -> usize {
        self.0.token_requests.load(Ordering::Relaxed)
    }

    fn mix_ups(&self) -> usize {
        self.0.mix_ups.load(Ordering::Relaxed)
    }
}

/// Whether a user is one of every so many.
fn is_among(user: usize, every: usize) -> bool {
    user.checked_rem(every) == Some(0)
}

trait Client:
    tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Client for S where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

fn cfg() -> AuthConfigBuilder {
    AuthConfig::on_behalf_of(TOKEN_URL, ClientAuth::basic("gateway", "secret"), OnBehalfOf::token_exchange())
}

fn subject(token: &str) -> TokenParams {
    TokenParams::new().subject(SubjectToken::access_token(token).unwrap())
}

/// A request on behalf of a user, to an audience.
fn request(user: &str, audience: &str) -> Request<Full<Bytes>> {
    let mut request = Request::get("https://api.example.com/").body(Full::default()).unwrap();
    request.headers_mut().insert("expected", format!("{user}.{audience}.").parse().unwrap());
    request.extensions_mut().insert(subject(user).audience(audience).unwrap());
    request
}

async fn status(client: &Auth<impl Client>, request: Request<Full<Bytes>>) -> u16 {
    client.clone().oneshot(request).await.unwrap().status().as_u16()
}

/// `ON_BEHALF_OF_USERS` says another number.
fn users() -> usize {
    let said = std::env::var("ON_BEHALF_OF_USERS").ok().and_then(|users| users.parse().ok());
    said.unwrap_or(if cfg!(debug_assertions) { 2_000 } else { 100_000 })
}

/// Behaviour 185.
#[tokio::test(start_paused = true)]
async fn many_users_and_two_audiences_never_mix() {
    let world = World::default();
    let client = world.client(cfg());
    let calls = |round: &'static str| {
        let (client, rejects_every) = (client.clone(), world.0.rejects_every.load(Ordering::Relaxed));
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            for worker in 0..8 {
                let client = client.clone();
                tasks.spawn(async move {
                    for user in (0..users()).filter(|user| user % 8 == worker) {
                        for audience in ["orders", "stock"] {
                            let expected = if is_among(user, rejects_every) { 401 } else { 200 };
                            let user = format!("user-{user}");
                            assert_eq!(status(&client, request(&user, audience)).await, expected, "{round}");
                        }
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        }
    };
    calls("first").await;
    calls("again").await;
    assert_eq!(world.token_requests(), users() * 2);

    // All tokens are revoked at once: each partition exchanges once more.
    world.0.revoked_below.store(2, Ordering::Relaxed);
    calls("revoked").await;
    assert_eq!(world.token_requests(), users() * 4);

    // Of some users everything is rejected, over and over: one more exchange for each, and none for the others.
    world.0.rejects_every.store(100, Ordering::Relaxed);
    for _ in 0..5 {
        calls("rejected").await;
    }
    assert_eq!(world.token_requests(), users() * 4 + users() / 100 * 2);
    assert_eq!(world.mix_ups(), 0);
    println!(
        "{} users x 2 audiences: {} requests, {} token requests, {} mix-ups",
        users(),
        world.0.api_requests.load(Ordering::Relaxed),
        world.token_requests(),
        world.mix_ups()
    );
}

/// Behaviour 185.
#[tokio::test(start_paused = true)]
async fn a_storm_of_401s_is_bounded_for_each_user() {
    let world = World::default();
    let client = world.client(cfg());
    world.0.revoked_below.store(usize::MAX, Ordering::Relaxed);
    for _ in 0..20 {
        for user in 0..50 {
            assert_eq!(status(&client, request(&format!("user-{user}"), "orders")).await, 401);
        }
    }
    // The first exchange, and one after the first rejection; then the limiter waits.
    assert_eq!(world.token_requests(), 50 * 2);
}

/// Behaviour 185.
#[tokio::test(start_paused = true)]
async fn whoever_shares_a_subject_shares_a_token_and_another_subject_has_another() {
    let world = World::default();
    let client = world.client(cfg());
    let herd: Vec<_> = (0..100).map(|_| client.clone().oneshot(request("anna", "orders"))).collect();
    for response in futures_util::future::join_all(herd).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(world.token_requests(), 1);
    // Anna's gateway session got a new access token.
    assert_eq!(status(&client, request("anna-2", "orders")).await, 200);
    assert_eq!(world.token_requests(), 2);
    // Scopes of the request's own are another partition, too.
    let mut scoped = request("anna", "orders");
    scoped.headers_mut().insert("expected", "anna.orders.read".parse().unwrap());
    scoped.extensions_mut().insert(Scopes::new(["read"]).unwrap());
    assert_eq!(status(&client, scoped).await, 200);
    assert_eq!((world.token_requests(), world.mix_ups()), (3, 0));
}

/// Behaviour 185.
#[tokio::test(start_paused = true)]
async fn one_users_failure_is_remembered_and_touches_no_other() {
    let world = World::default();
    let client = world.client(cfg());
    *world.0.fails_for.lock().unwrap() = Some("anna".into());
    for _ in 0..10 {
        let error = client.clone().oneshot(request("anna", "orders")).await.unwrap_err();
        assert_eq!(error.token().unwrap().kind(), TokenErrorKind::Unavailable);
    }
    assert_eq!(world.token_requests(), 1, "the others were told the first one's failure");
    assert_eq!(status(&client, request("berta", "orders")).await, 200);
}

/// Behaviour 184. What one user's exchange brings is no token for the API: it is not sent there, and nobody else notices.
#[tokio::test(start_paused = true)]
async fn another_kind_of_token_is_one_users_error_and_is_not_sent() {
    let world = World::default();
    let client = world.client(cfg());
    *world.0.other_kind_for.lock().unwrap() = Some("anna".into());
    for _ in 0..3 {
        let error = client.clone().oneshot(request("anna", "orders")).await.unwrap_err();
        let told = error.token().unwrap();
        assert_eq!(told.kind(), TokenErrorKind::Malformed);
        assert!(told.to_string().contains("`issued_token_type` is not that of a token for API requests"), "{told}");
        assert!(!format!("{error:?} {told:?}").contains("anna"));
        assert_eq!(status(&client, request("berta", "orders")).await, 200);
    }
    assert_eq!((world.token_requests(), world.0.api_requests.load(Ordering::Relaxed)), (2, 3));
}

/// Behaviour 182.
#[tokio::test(start_paused = true)]
async fn a_token_is_not_used_after_its_subjects_end_and_no_other_is_asked_for() {
    let (world, clock) = (World::default(), TestClock::new());
    let client = world.client(cfg().clock(clock.clone()));
    let until = clock.now().wall + Duration::from_secs(600);
    let of = |end: SystemTime| {
        let mut request = request("anna", "orders");
        let subject = SubjectToken::access_token("anna").unwrap().with_expires_at(end);
        request.extensions_mut().insert(TokenParams::new().subject(subject).audience("orders").unwrap());
        request
    };
    assert_eq!(status(&client, of(until)).await, 200);
    clock.advance(Duration::from_secs(601));
    // The clock is looked at once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = client.clone().oneshot(of(until)).await.unwrap_err();
    assert_eq!(error.token().unwrap().kind(), TokenErrorKind::SignInAgain);
    assert_eq!(world.token_requests(), 1);
}

/// Behaviour 185.
#[tokio::test(start_paused = true)]
async fn partitions_of_tokens_that_have_expired_leave_soon() {
    let (world, clock) = (World::default(), TestClock::new());
    let layer = world.layer(cfg().clock(clock.clone()).partition_idle(Duration::from_secs(24 * 3600)));
    let (api, handle) = (world.clone(), layer.handle());
    let client = layer.layer(service_fn(move |request| api.clone().api(request)));
    for user in 0..500 {
        assert_eq!(status(&client, request(&format!("user-{user}"), "orders")).await, 200);
    }
    let failing = Some("user-failing".to_owned());
    *world.0.fails_for.lock().unwrap() = failing;
    client.clone().oneshot(request("user-failing", "orders")).await.unwrap_err();
    // One user goes on meanwhile.
    let pass = async |time: Duration| {
        for _ in 0..time.as_secs() {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(status(&client, request("user-0", "orders")).await, 200);
        }
    };
    pass(Duration::from_secs(1800)).await;
    assert_eq!(handle.stats().partitions, 1 + 500, "nobody's token has expired; the one that failed is forgotten");
    // They live for an hour; a round through all partitions takes some seconds.
    pass(Duration::from_secs(1800 + 60)).await;
    assert_eq!(handle.stats().partitions, 2, "long before they have been idle for as long as others may be");
    assert_eq!(world.mix_ups(), 0);
}

/// Behaviour 183.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_subject_or_with_one_too_many_is_not_sent() {
    let world = World::default();
    let plain = || Request::get("https://api.example.com/").body(Full::<Bytes>::default()).unwrap();
    let missing = world.client(cfg()).oneshot(plain()).await.unwrap_err();
    assert!(matches!(missing, Error::Subject { .. }) && missing.to_string().contains("no subject token"), "{missing}");
    let credentials = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "secret"));
    let unused = world.client(credentials).oneshot(request("canary", "orders")).await.unwrap_err();
    assert!(matches!(unused, Error::Subject { .. }), "{unused}");
    assert!(!format!("{unused} {unused:?}").contains("canary"));
    assert_eq!((world.token_requests(), world.0.api_requests.load(Ordering::Relaxed)), (0, 0));
}

/// Behaviour 181.
#[tokio::test(start_paused = true)]
async fn a_service_can_bring_the_parameters_of_all_its_requests() {
    let world = World::default();
    let client = world.client(cfg());
    let annas = client.for_params(&subject("anna").audience("stock").unwrap());
    let mut plain = Request::get("https://api.example.com/").body(Full::default()).unwrap();
    plain.headers_mut().insert("expected", "anna.stock.".parse().unwrap());
    assert_eq!(status(&annas, plain).await, 200);
    let contradicting = annas.oneshot(request("berta", "stock")).await.unwrap_err();
    assert!(matches!(contradicting, Error::Subject { .. }));
    assert_eq!(world.mix_ups(), 0);
}

/// Behaviours 181 and 183. A request of reqwest's has no extensions.
#[tokio::test(start_paused = true)]
async fn reqwest_requests_are_on_behalf_of_whom_their_service_is_narrowed_to() {
    let world = World::default();
    let api = service_fn(|request: reqwest::Request| async move {
        let seen = Response::builder().header("seen", request.headers()["authorization"].clone());
        Ok::<_, BoxError>(reqwest::Response::from(seen.body("")?))
    });
    let client = world.layer(cfg()).layer(api);
    let get = || reqwest::Request::new(http::Method::GET, "https://api.example.com/".parse().unwrap());
    for user in ["anna", "berta"] {
        let theirs = client.for_params(&subject(user).audience("stock").unwrap());
        let response = theirs.oneshot(get()).await.unwrap();
        assert_eq!(response.headers()["seen"], format!("Bearer {user}.stock..1"));
    }
    assert!(matches!(client.oneshot(get()).await.unwrap_err(), Error::Subject { .. }));
    assert_eq!(world.token_requests(), 2);
}

/// A user who is idle costs their subject token, their token and a partition.
///
/// Behaviour 185.
#[test]
fn an_idle_user_is_small() {
    const SUBJECT: usize = 1024;
    let users = 1_000;
    let world = World::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let client = runtime.block_on(async { world.client(cfg()) });
    let call = |user: usize| {
        let user = format!("{user:0SUBJECT$}");
        runtime.block_on(async { assert_eq!(status(&client, request(&user, "orders")).await, 200) });
    };
    // What is made once.
    (0..200).for_each(call);
    world.0.exchanges.lock().unwrap().reserve(10 * users);
    let measured = allocation_counter::measure(|| (1_000..1_000 + users).for_each(call));
    // The server of the test remembers each subject, too.
    let server: usize =
        world.0.exchanges.lock().unwrap().keys().map(String::capacity).sum::<usize>() * users / (users + 200);
    let bytes = (usize::try_from(measured.bytes_current).unwrap() - server) / users;
    // The token is as long as the subject, in this world.
    println!("an idle user: {bytes} bytes, {SUBJECT} of them the subject token, {SUBJECT} the token");
    // Besides: a cell, the parameters, and the members of the answer that are kept (`Token::extra`).
    assert!(bytes < 2 * SUBJECT + 1700, "{bytes}");
}
