//! The ready policy for `tower::retry`, on paused time.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::time::Instant;
use tower::retry::budget::Budget;
use tower::retry::{Policy, RetryLayer};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Fault, World};
use tower_oauth2_client::{BoxError, Error, RetryTokenErrors, TokenErrorKind};

const RETRY: fn() -> RetryTokenErrors = RetryTokenErrors::new;

/// A POST through the policy, what came of it, and how long it took.
async fn send<Bu>(world: &World, policy: RetryTokenErrors<Bu>) -> (Result<StatusCode, Error>, Duration)
where
    Bu: Budget,
{
    let layer = world.layer(world.config()).unwrap();
    let client = ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(layer).service(world.api.clone());
    let start = Instant::now();
    let request = Request::post("https://api.example.com/items").body(String::from("body")).unwrap();
    let result = client.oneshot(request).await.map(|response| response.status());
    (result, start.elapsed())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn it_waits_as_long_as_the_server_says() {
    let world = World::new();
    world.auth.script([Fault::RetryAfter(503, 3), Fault::RetryAfter(429, 5)]);
    let (result, took) = send(&world, RETRY()).await;
    assert_eq!(result.unwrap(), 200);
    assert!(took >= seconds(8) && took < seconds(10), "{took:?}");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (3, 1));
    assert_eq!(world.api.requests()[0].body, "body");
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_so_many_retries_and_before_so_long_a_pause() {
    let world = World::new();
    world.auth.always(Fault::RetryAfter(503, 2));
    let (result, _) = send(&world, RETRY()).await;
    assert_eq!(result.unwrap_err().token().unwrap().kind(), TokenErrorKind::Unavailable);
    assert_eq!(world.auth.token_requests(), 3);
    let (result, _) = send(&world, RETRY().max_retries(0)).await;
    assert!(result.is_err());
    assert_eq!(world.auth.token_requests(), 4);

    world.auth.always(Fault::RetryAfter(503, 60));
    let (result, took) = send(&world, RETRY()).await;
    assert!(result.is_err() && took < seconds(1), "{took:?}");
    let (result, took) = send(&world, RETRY().max_pause(seconds(60)).max_retries(1)).await;
    assert!(result.is_err() && took >= seconds(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_waiting_mends_is_not_retried() {
    let world = World::new();
    world.auth.always(Fault::error("invalid_client"));
    let (result, took) = send(&world, RETRY()).await;
    assert_eq!(result.unwrap_err().token().unwrap().kind(), TokenErrorKind::BadCredentials);
    assert!(took < seconds(1));
    assert_eq!(world.auth.token_requests(), 1);

    // Nor what is no token failure: a request that was sent is none of its business.
    world.auth.heal();
    for fault in [Fault::Status(503), Fault::Status(403), Fault::Drop] {
        let world = World::new();
        world.api.always(fault);
        let _ = send(&world, RETRY()).await;
        assert_eq!(world.api.hits(), 1);
    }
}

/// A budget of so many retries.
struct Purse(AtomicI32);

impl Budget for Purse {
    fn deposit(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn withdraw(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_a_budget_that_all_clones_share() {
    let purse = Arc::new(Purse(AtomicI32::new(1)));
    let policy = RETRY().budget(purse.clone());
    let world = World::new();
    world.auth.always(Fault::RetryAfter(503, 1));
    let (result, _) = send(&world, policy.clone()).await;
    assert!(result.is_err());
    assert_eq!(world.auth.token_requests(), 2, "one retry");
    let (result, _) = send(&world, policy.clone()).await;
    assert!(result.is_err());
    assert_eq!(world.auth.token_requests(), 3, "none");
    // What needs no retry pays in.
    world.auth.heal();
    let before = purse.0.load(Ordering::SeqCst);
    let (result, _) = send(&World::new(), policy).await;
    assert_eq!((result.unwrap(), purse.0.load(Ordering::SeqCst)), (StatusCode::OK, before + 1));
}

/// Layers between the policy and ours box the error.
#[tokio::test(start_paused = true)]
async fn an_error_that_was_boxed_is_found() {
    let world = World::new();
    world.auth.script([Fault::RetryAfter(503, 3)]);
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RETRY()))
        .timeout(seconds(30))
        .buffer(4)
        .layer(world.layer(world.config()).unwrap())
        .service(world.api.clone());
    let request = Request::post("https://api.example.com/items").body(String::from("body")).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 2);
}

#[cfg(feature = "reqwest")]
#[test]
fn a_stream_of_reqwest_is_sent_once() {
    let mut request = reqwest::Request::new(reqwest::Method::PUT, "https://api.example.com/".parse().unwrap());
    let clone = |request: &reqwest::Request| Policy::<_, (), BoxError>::clone_request(&mut RETRY(), request).is_some();
    *request.body_mut() = Some("buffer".into());
    assert!(clone(&request));
    *request.body_mut() = Some(reqwest::Body::wrap(http_body_util::Full::<bytes::Bytes>::from("stream")));
    assert!(!clone(&request));
}
