//! The rejection limiter through the real service: minutes of traffic whose rejections no token request heals, and, by
//! hand, what the limiter is told of.
//!
//! The times of the traffic are those of a network: a request arrives at the API a while after it was sent, and a token reaches the client
//! a while after the authorization server has made it (and has ended the one before).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Body, Fault, TestClock};
use tower_oauth2_client::{Auth, AuthConfig, AuthHandle, AuthLayer, BoxError, ClientAuth, Error, Token, TokenRequest};
use tower_test::mock::{Handle, Mock, SendResponse, pair};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Behaviour 47.
#[tokio::test(start_paused = true)]
async fn when_all_is_rejected_a_minute_costs_at_most_13_token_requests() {
    for challenged in [false, true] {
        let world = World::new(1.0);
        if challenged {
            world.api.always(Fault::error("invalid_token"));
        }
        let requests = world.minute(&[]).await;
        assert_eq!(requests.len(), 60_000);
        assert!(requests.iter().all(|request| request.status == 401));
        assert!(world.auth.token_requests() <= 13, "{} token requests", world.auth.token_requests());
        assert!(world.auth.token_requests() >= 5, "a wait that doubles to a minute leaves room for seven");
        assert!(world.api.hits() < 60_000 + 1_000, "{} sendings", world.api.hits());
    }
}

/// Behaviour 47.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_always_rejects_costs_at_most_13_a_minute_and_hurts_nobody() {
    for denied in [0.1, 0.5] {
        let world = World::new(denied);
        let requests = world.minute(&[]).await;
        assert!(world.auth.token_requests() <= 13, "{denied}: {} token requests", world.auth.token_requests());
        assert!(world.auth.token_requests() >= 5, "{denied}: a wait that doubles to a minute leaves room for seven");
        for request in requests {
            assert_eq!(request.status, if request.denied { 401 } else { 200 }, "{denied}: at {:?}", request.began);
        }
    }
}

/// Behaviour 47.
#[tokio::test(start_paused = true)]
async fn a_revocation_amid_that_is_healed_in_under_a_second_and_so_is_the_next() {
    for denied in [0.1, 0.5] {
        let world = World::new(denied);
        let revocations = [30 * SECOND + 377 * MS, 31 * SECOND + 377 * MS];
        let requests = world.minute(&revocations).await;
        assert!(world.auth.token_requests() <= 15, "{denied}: {} token requests", world.auth.token_requests());
        let healthy = || requests.iter().filter(|request| !request.denied);
        for revocation in revocations {
            let accepted = healthy().filter(|request| request.began >= revocation && request.status == 200);
            let healed = accepted.map(|request| request.ended - revocation).min().unwrap();
            assert!(healed < SECOND, "{denied}: healed after {healed:?}");
        }
        let hurt = revocations[0] - 20 * MS..revocations[1] + SECOND;
        for request in healthy().filter(|request| !hurt.contains(&request.began)) {
            assert_eq!(request.status, 200, "{denied}: at {:?}", request.began);
        }
    }
}

/// An API that refuses a share of the requests whatever the token, and an authorization server that keeps one token alive.
struct World {
    start: Instant,
    auth: AuthServer,
    api: Api,
    client: Auth<Network>,
    denied: f64,
}

struct Done {
    began: Duration,
    ended: Duration,
    denied: bool,
    status: u16,
}

type Network = tower::util::BoxCloneService<Request<Full<Bytes>>, Response<Body>, BoxError>;

impl World {
    fn new(denied: f64) -> Self {
        fastrand::seed(7);
        let clock = TestClock::new();
        let auth = AuthServer::new(clock.clone()).single_live_token();
        let api = Api::new(&auth).deny_path("/denied");
        let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "s"));
        let cfg = cfg.origin("https://api.example.com").clock(clock).build().unwrap();

        let server = auth.clone();
        let layer = AuthLayer::builder(cfg)
            .http_client(service_fn(move |request: Request<Full<Bytes>>| {
                let server = server.clone();
                async move {
                    sleep(25 * MS).await;
                    let answer = server.oneshot(request).await;
                    sleep(25 * MS).await;
                    answer
                }
            }))
            .build()
            .unwrap();
        let server = api.clone();
        let network = service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                let way = Duration::from_micros(fastrand::u64(1_000..10_000));
                sleep(way).await;
                let response = server.oneshot(request).await;
                sleep(way).await;
                response
            }
        });
        Self { start: Instant::now(), auth, api, client: layer.layer(Network::new(network)), denied }
    }

    /// 1 000 requests a second for a minute, with these moments at which every token is revoked.
    async fn minute(&self, revocations: &[Duration]) -> Vec<Done> {
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut client = self.client.clone();
        let mut revocations = revocations.iter().peekable();
        let start = self.start;
        for tick in 0..60_000 {
            let began = tick * MS;
            if revocations.next_if(|revocation| began >= **revocation).is_some() {
                self.auth.revoke_all();
            }
            let denied = fastrand::f64() < self.denied;
            let path = if denied { "denied" } else { "healthy" };
            let request = Request::get(format!("https://api.example.com/{path}")).body(Full::default()).unwrap();
            let response = client.ready().await.unwrap().call(request);
            let done = done.clone();
            tokio::spawn(async move {
                let status = response.await.unwrap().status().as_u16();
                done.lock().unwrap().push(Done { began, ended: start.elapsed(), denied, status });
            });
            sleep(MS).await;
        }
        // Nobody hangs: what was sent at the end of the minute is answered soon after it.
        sleep(SECOND).await;
        assert!(start.elapsed() < MINUTE + 2 * SECOND);
        let done = std::mem::take(&mut *done.lock().unwrap());
        assert_eq!(done.len(), 60_000, "some requests hang");
        done
    }
}

/// A client whose requests are answered by hand. Tokens are `token-1`, `token-2`, …, take 10 ms and live for an hour.
struct ByHand {
    client: Auth<MockApi>,
    api: Handle<Request<Full<Bytes>>, Response<Full<Bytes>>>,
    auth: AuthHandle,
    token_requests: Arc<AtomicUsize>,
}

impl ByHand {
    /// The last refresh did not help, so that a wait of a second has begun; the token has been accepted often since, and
    /// rejected seven times in a row just now. The straggler was sent before all that.
    async fn at_the_seventh_rejection() -> (Self, Straggler) {
        let mut this = Self::new();
        this.exchange(&[200]).await;
        let straggler = this.straggler().await;
        this.exchange(&[401, 401]).await;
        for _ in 0..30 {
            this.exchange(&[200]).await;
        }
        for _ in 0..7 {
            this.exchange(&[401]).await;
        }
        assert_eq!(this.token_requests(), 2);
        (this, straggler)
    }

    fn new() -> Self {
        let token_requests = Arc::new(AtomicUsize::new(0));
        let count = token_requests.clone();
        let source = service_fn(move |_: TokenRequest| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                sleep(10 * MS).await;
                Ok::<_, BoxError>(Token::bearer(&format!("token-{number}"))?)
            }
        });
        let cfg = AuthConfig::external().origin("https://api.example.com").clock(TestClock::new()).build().unwrap();
        let layer = AuthLayer::with_source(cfg, source);
        let (mock, api) = pair();
        Self { client: layer.layer(mock), api, auth: layer.handle(), token_requests }
    }

    /// One request, whose sendings are answered so; there must be as many, no more and no fewer.
    async fn exchange(&mut self, statuses: &[u16]) {
        let request = self.client.clone().oneshot(get());
        let answers = async {
            for status in statuses {
                self.api.next_request().await.unwrap().1.send_response(answer(*status));
            }
        };
        let (response, ()) = timeout(SECOND, async { tokio::join!(request, answers) }).await.expect("as many sendings");
        assert_eq!(response.unwrap().status(), statuses[statuses.len() - 1]);
    }

    /// A request that is under way.
    async fn straggler(&mut self) -> Straggler {
        let response = tokio::spawn(self.client.clone().oneshot(get()));
        Straggler { response, respond: self.sending().await }
    }

    /// The next sending, to be answered.
    async fn sending(&mut self) -> SendResponse<Response<Full<Bytes>>> {
        timeout(SECOND, self.api.next_request()).await.expect("a sending").unwrap().1
    }

    fn token_requests(&self) -> usize {
        self.token_requests.load(Ordering::SeqCst)
    }
}

type MockApi = Mock<Request<Full<Bytes>>, Response<Full<Bytes>>>;

struct Straggler {
    response: JoinHandle<Result<Response<Full<Bytes>>, Error>>,
    respond: SendResponse<Response<Full<Bytes>>>,
}

fn get() -> Request<Full<Bytes>> {
    Request::get("https://api.example.com/").body(Full::default()).unwrap()
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_old_token_that_is_accepted_ends_no_run_of_rejections() {
    let (mut world, straggler) = ByHand::at_the_seventh_rejection().await;
    straggler.respond.send_response(answer(200));
    assert_eq!(straggler.response.await.unwrap().unwrap().status(), 200);
    world.exchange(&[401, 200]).await;
    assert_eq!(world.token_requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_current_token_that_is_accepted_ends_a_run_of_rejections() {
    let (mut world, _straggler) = ByHand::at_the_seventh_rejection().await;
    world.exchange(&[200]).await;
    world.exchange(&[401]).await;
    assert_eq!(world.token_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_ends_a_run_of_rejections() {
    let (mut world, _straggler) = ByHand::at_the_seventh_rejection().await;
    world.auth.set_token(Token::bearer("handed-in").unwrap()).await.unwrap();
    world.exchange(&[401]).await;
    assert_eq!(world.token_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_request_that_proves_a_refresh_ends_a_run_too_and_the_wait_before_goes_on() {
    let (mut world, _straggler) = ByHand::at_the_seventh_rejection().await;
    let mut starter = world.straggler().await;
    starter.respond.send_response(answer(401));
    starter.respond = world.sending().await;
    assert_eq!(world.token_requests(), 3);
    for _ in 0..4 {
        world.exchange(&[401]).await;
    }
    starter.respond.send_response(answer(200));
    assert_eq!(starter.response.await.unwrap().unwrap().status(), 200);
    for _ in 0..7 {
        world.exchange(&[401]).await;
    }
    assert_eq!(world.token_requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_refresh_was_superseded_proves_nothing() {
    let (mut world, _straggler) = ByHand::at_the_seventh_rejection().await;
    let mut starter = world.straggler().await;
    starter.respond.send_response(answer(401));
    sleep(5 * MS).await;
    world.auth.set_token(Token::bearer("handed-in").unwrap()).await.unwrap();
    starter.respond = world.sending().await;
    starter.respond.send_response(answer(200));
    assert_eq!(starter.response.await.unwrap().unwrap().status(), 200);
    world.exchange(&[401]).await;
    assert_eq!(world.token_requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_old_token_that_is_rejected_when_the_current_one_has_expired_arms_no_wait() {
    let mut world = ByHand::new();
    world.exchange(&[200]).await;
    let mut straggler = world.straggler().await;
    world.exchange(&[401, 200]).await;
    sleep(120 * MINUTE).await;
    straggler.respond.send_response(answer(401));
    straggler.respond = world.sending().await;
    straggler.respond.send_response(answer(401));
    assert_eq!(straggler.response.await.unwrap().unwrap().status(), 401);
    assert_eq!(world.token_requests(), 3);
    world.exchange(&[401, 200]).await;
    assert_eq!(world.token_requests(), 4);
}
