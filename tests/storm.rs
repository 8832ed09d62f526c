//! The storm rule through the real service: a minute of traffic whose rejections no token request heals.
//!
//! Times are those of a network: a request arrives at the API a while after it was sent, and a token reaches the client
//! a while after the authorization server has made it (and has ended the one before).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Body, Fault, TestClock};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, BoxError, ClientAuth};

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
        let layer = AuthLayer::with_client(
            cfg,
            service_fn(move |request: Request<Full<Bytes>>| {
                let server = server.clone();
                async move {
                    sleep(25 * MS).await;
                    let answer = server.oneshot(request).await;
                    sleep(25 * MS).await;
                    answer
                }
            }),
        );
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
