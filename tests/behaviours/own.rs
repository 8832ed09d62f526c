//! Behaviours that need this crate's own types: token sources, runtimes, the kinds of its errors.

use std::collections::HashMap;
use std::future::pending;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};
use tower::retry::{Policy, Retry};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, Body, Fault};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthLayer, AuthOutcome, BoxError, ClientAuth, Error, Replay, Token, TokenError, TokenErrorKind,
    TokenRequest, TokenSource,
};

use crate::subject::{API, CLIENT_ID, SECRET, TOKEN_URL, World};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Behaviours 8 and 9.
///
/// Threads send, some requests are rejected, tokens are invalidated in between. Each response that tells a generation
/// echoes its request's token: no generation may come with two tokens, no token with two generations, and none that was
/// invalidated before a request began may go out with it.
#[test]
fn a_generation_and_its_token_are_never_seen_apart() {
    const TASKS: usize = 4;
    const INVALIDATIONS: usize = 500;
    const REQUESTS_BETWEEN: usize = 20;
    /// Tokens with smaller numbers were invalidated.
    static FLOOR: AtomicUsize = AtomicUsize::new(0);

    let runtime = Builder::new_multi_thread().worker_threads(TASKS + 1).enable_time().build().unwrap();
    let issued = Arc::new(AtomicUsize::new(0));
    let source = service_fn(move |_: TokenRequest| {
        let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Token::bearer(&number.to_string()).map_err(TokenError::permanent) }
    });
    let cfg = AuthConfig::external().origin(API).replay(Replay::Never).build().unwrap();
    let layer = AuthLayer::with_source(cfg, source);
    let handle = layer.handle();
    let arrivals = Arc::new(AtomicUsize::new(0));
    let counted = arrivals.clone();
    let api = service_fn(move |request: Request<Full<Bytes>>| {
        let rejects = counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(7);
        async move {
            let status = if rejects { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            let token = request.headers()["authorization"].clone();
            let response = Response::builder().status(status).header("echo", token);
            Ok::<_, BoxError>(response.body(Full::<Bytes>::default()).unwrap())
        }
    });
    let client = layer.layer(api);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let mut own = client.clone();
            runtime.spawn(async move {
                let mut seen = Vec::new();
                loop {
                    // A clone that lives on has a token of its own, one made for a request has none.
                    let mut fresh = (task % 2 == 0).then(|| own.clone());
                    let service = fresh.as_mut().unwrap_or(&mut own);
                    let floor = FLOOR.load(Ordering::Acquire);
                    if floor == usize::MAX {
                        break;
                    }
                    let response = service.ready().await.unwrap().call(get("/")).await.unwrap();
                    let echo = response.headers()["echo"].to_str().unwrap();
                    let token: usize = echo.strip_prefix("Bearer ").unwrap().parse().unwrap();
                    assert!(token >= floor, "{token} was invalidated, as were all before {floor}");
                    if let Some(outcome) = response.extensions().get::<AuthOutcome>() {
                        seen.push((outcome.generation, token));
                    }
                    tokio::task::yield_now().await;
                }
                seen
            })
        })
        .collect();
    runtime.block_on(async {
        for _ in 0..INVALIDATIONS {
            let token: usize = handle.token().await.unwrap().access_token().parse().unwrap();
            handle.invalidate();
            FLOOR.fetch_max(token + 1, Ordering::Release);
            let next = arrivals.load(Ordering::Relaxed) + REQUESTS_BETWEEN;
            while arrivals.load(Ordering::Relaxed) < next {
                tokio::task::yield_now().await;
            }
        }
        FLOOR.store(usize::MAX, Ordering::Release);
    });

    let (mut tokens, mut generations) = (HashMap::new(), HashMap::new());
    for task in tasks {
        for (generation, token) in runtime.block_on(task).unwrap() {
            assert_eq!(*tokens.entry(generation).or_insert(token), token, "generation {generation}");
            assert_eq!(*generations.entry(token).or_insert(generation), generation, "token {token}");
        }
    }
    assert!(tokens.len() > INVALIDATIONS / 10, "only {} generations were seen", tokens.len());
}

/// Behaviour 20.
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_an_error_and_is_asked_again_after_a_pause() {
    for at_once in [true, false] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let source = service_fn(move |_: TokenRequest| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            if first && at_once {
                panic_any("on purpose");
            }
            async move {
                sleep(SECOND).await;
                if first {
                    panic_any("on purpose");
                }
                Token::bearer("t").map_err(TokenError::permanent)
            }
        });
        let client = over_source(source);
        let waiters: Vec<_> = (0..10).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
        for waiter in waiters {
            assert_eq!(kind(waiter.await.unwrap()), TokenErrorKind::Aborted);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        // After the pause of a failure that may pass.
        sleep(SECOND).await;
        assert_eq!(client.oneshot(get("/")).await.unwrap().status(), 200);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}

/// Behaviour 21.
#[tokio::test(start_paused = true)]
async fn a_source_that_never_resolves_meets_the_deadline() {
    struct HangsOnce(AtomicUsize);

    impl TokenSource for HangsOnce {
        async fn fetch(&self, _: TokenRequest) -> Result<Token, TokenError> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                pending::<()>().await;
            }
            Token::bearer("t").map_err(TokenError::permanent)
        }
    }

    let client = over_source(HangsOnce(AtomicUsize::new(0)));
    let began = Instant::now();
    let waiters: Vec<_> = (0..10).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    for waiter in waiters {
        assert_eq!(kind(waiter.await.unwrap()), TokenErrorKind::Timeout);
    }
    assert_eq!(began.elapsed(), 30 * SECOND);
    sleep(SECOND).await;
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), 200);
}

/// Behaviour 22.
#[test]
fn a_runtime_that_shuts_down_under_a_token_request_fails_nobody_on_another() {
    let world = World::new();
    let client = over(&world);
    let (doomed, runtime) = (paused(), paused());
    world.auth.script([Fault::Hang]);
    let leader = doomed.spawn(client.clone().oneshot(get("/")));
    doomed.block_on(async { sleep(SECOND).await });
    assert_eq!(world.auth.in_flight(), 1);

    runtime.block_on(async {
        let follower = tokio::spawn(client.clone().oneshot(get("/")));
        sleep(SECOND).await;
        assert!(!follower.is_finished());
        doomed.shutdown_background();
        assert!(leader.await.unwrap_err().is_cancelled());
        // It looks again, and there is no pause: it was no word of the authorization server.
        assert_eq!(follower.await.unwrap().unwrap().status(), 200);
        assert_eq!(client.oneshot(get("/")).await.unwrap().status(), 200);
    });
    assert_eq!(world.auth.token_requests(), 2);
}

/// Behaviour 23.
#[test]
fn a_service_goes_on_on_another_runtime() {
    let world = World::new();
    let client = over(&world);
    let first = paused();
    first.block_on(async {
        for _ in 0..3 {
            assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
        }
        sleep(SECOND / 10).await;
    });
    drop(first);

    // The timer that would have noticed the expiry is gone with its runtime.
    world.clock.advance(2 * HOUR);
    let second = paused();
    second.block_on(async {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
        assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (2, 0));
        sleep(2 * HOUR).await;
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
        assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (3, 0));
    });

    // Two runtimes at once, one of them the starter of the token request.
    world.auth.script([Fault::Slow(5 * SECOND)]);
    let third = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    #[allow(clippy::async_yields_async, reason = "it is awaited on another runtime")]
    let follower = second.block_on(async {
        sleep(2 * HOUR).await;
        let leader = tokio::spawn(client.clone().oneshot(get("/")));
        sleep(SECOND).await;
        assert_eq!(world.auth.in_flight(), 1);
        let follower = third.spawn(client.clone().oneshot(get("/")));
        assert_eq!(leader.await.unwrap().unwrap().status(), 200);
        follower
    });
    assert_eq!(third.block_on(follower).unwrap().unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (4, 0));
}

/// Behaviour 41.
#[tokio::test(start_paused = true)]
async fn a_retry_layer_outside_sees_which_errors_are_terminal() {
    let world = World::new();
    let client = Retry::new(Patient, over(&world));
    world.auth.always(Fault::error("invalid_client"));
    let began = Instant::now();
    for _ in 0..10 {
        let result = timeout(HOUR, client.clone().oneshot(get("/"))).await;
        assert_eq!(kind(result.expect("a terminal error is retried")), TokenErrorKind::BadCredentials);
    }
    assert_eq!((world.auth.token_requests(), began.elapsed()), (1, Duration::ZERO));

    let world = World::new();
    let client = Retry::new(Patient, over(&world));
    world.auth.script([Fault::RetryAfter(503, 30), Fault::RetryAfter(429, 10)]);
    let began = Instant::now();
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), began.elapsed()), (3, 40 * SECOND));
}

/// Retries what the error calls retryable, when it says so.
#[derive(Clone)]
struct Patient;

impl Policy<Request<Full<Bytes>>, Response<Body>, Error> for Patient {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Body>, Error>,
    ) -> Option<Self::Future> {
        let error = result.as_ref().err().filter(|error| error.is_retryable())?;
        Some(Box::pin(sleep(error.retry_after().unwrap_or_default())))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

fn over(world: &World) -> Auth<Api> {
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET));
    let cfg = cfg.origin(API).clock(world.clock.clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(world.auth.clone()).build().unwrap().layer(world.api.clone())
}

/// A client of an API that takes any token.
fn over_source(
    source: impl TokenSource,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Error, Future: Send> + Clone + Send {
    let api = service_fn(|request: Request<Full<Bytes>>| async move {
        assert!(request.headers().contains_key("authorization"));
        Ok::<_, BoxError>(Response::new(Full::default()))
    });
    AuthLayer::with_source(AuthConfig::external().origin(API).build().unwrap(), source).layer(api)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("{API}{path}")).body(Full::default()).unwrap()
}

fn kind<T>(result: Result<T, Error>) -> TokenErrorKind {
    match result {
        Err(Error::Token(error)) => error.kind(),
        Err(other) => panic!("not the token's fault: {other}"),
        Ok(_) => panic!("it succeeded"),
    }
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}
