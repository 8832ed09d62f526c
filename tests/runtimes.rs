//! Runtimes that are driven now and then, are parked, or end: renewal and waiting depend on none of them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use tower_oauth2_client::test_util::{AuthServer, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, Token, TokenError, TokenErrorKind, TokenRequest,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn config() -> AuthConfigBuilder {
    AuthConfig::client_credentials("https://auth.example.com/oauth2/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
}

fn handle(auth: &AuthServer) -> AuthHandle {
    let cfg = config().clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle()
}

/// Behaviour 129.
#[test]
fn a_runtime_that_is_driven_for_each_request_only() {
    let auth = AuthServer::new(TestClock::new()).lifetime(3 * SECOND);
    let handle = handle(&auth);
    let runtime = current_thread();
    for requests in 1..=2 {
        for _ in 0..2 {
            let token = runtime.block_on(handle.token()).unwrap();
            assert!(auth.is_live(token.access_token()), "expired");
        }
        assert_eq!(auth.token_requests(), requests);
        auth.clock().advance(5 * SECOND);
    }
}

/// Behaviour 130.
#[test]
fn a_parked_runtime_beside_a_busy_one() {
    let auth = AuthServer::new(TestClock::new()).lifetime(3 * SECOND);
    let handle = handle(&auth);
    let parked = current_thread();
    for _ in 0..3 {
        parked.block_on(handle.token()).unwrap();
    }
    let busy = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    auth.clock().advance(5 * SECOND);
    busy.block_on(async {
        let token = handle.token().await.unwrap();
        assert!(auth.is_live(token.access_token()), "expired");
    });
    assert_eq!(auth.token_requests(), 2);
}

/// The first token request is never answered.
fn hangs_once(clock: &TestClock) -> AuthHandle {
    let asked = Arc::new(AtomicUsize::new(0));
    let source = tower::service_fn(move |_: TokenRequest| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0 => pending().await,
                _ => Ok::<_, TokenError>(Token::bearer(&number.to_string()).unwrap()),
            }
        }
    });
    let cfg = AuthConfig::external().origin("https://api.example.com").clock(clock.clone()).refresh_deadline(SECOND);
    AuthLayer::with_source(cfg.build().unwrap(), source).handle()
}

/// Behaviour 131.
#[test]
fn a_request_that_joins_a_refresh_on_a_runtime_that_nobody_drives() {
    let handle = hangs_once(&TestClock::new());
    let parked = current_thread();
    parked.block_on(async { timeout(MS, handle.token()).await.unwrap_err() });
    current_thread().block_on(async {
        let joined =
            timeout(2 * SECOND + MS, handle.token()).await.expect("it waits no longer than the deadline and a second");
        assert_eq!(joined.unwrap_err().kind(), TokenErrorKind::Timeout);
        sleep(SECOND).await;
        assert_eq!(handle.token().await.unwrap().access_token(), "1");
    });
    drop(parked);
}

/// Behaviour 131.
#[test]
fn the_end_of_a_program_does_not_wait_for_a_runtime_that_nobody_drives() {
    let handle = hangs_once(&TestClock::new());
    let parked = current_thread();
    parked.block_on(async { timeout(MS, handle.token()).await.unwrap_err() });
    current_thread().block_on(async {
        timeout(2 * SECOND + MS, handle.shutdown()).await.expect("no longer than the deadline and a second");
    });
    drop(parked);
}

/// Behaviour 132.
#[test]
fn a_runtime_that_ends_under_a_refresh_that_others_wait_for() {
    let handle = hangs_once(&TestClock::new());
    let ends = current_thread();
    ends.block_on(async { timeout(MS, handle.token()).await.unwrap_err() });
    current_thread().block_on(async {
        let joined: Vec<_> = (0..100)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.token().await })
            })
            .collect();
        sleep(MS).await;
        ends.shutdown_background();
        for joined in joined {
            assert_eq!(joined.await.unwrap().unwrap().access_token(), "1", "another refresh answers for it");
        }
    });
}
