//! Refresh tokens: one owner, one order, whatever comes between a request and its answer.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthHandle, AuthLayer, ClientAuth, RefreshToken, Secret, Token, TokenError, TokenErrorKind,
    TokenRequest, TokenSource,
};

const TOKEN_URL: &str = "https://auth.example.com/oauth2/token";
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Signed in, at a server that replaces refresh tokens and revokes a family when one is sent twice.
fn signed_in(auth: &AuthServer) -> AuthHandle {
    let client_auth = ClientAuth::basic("id", "secret");
    let cfg = AuthConfig::refresh_token(TOKEN_URL, client_auth, auth.sign_in("id", ""))
        .origin("https://api.example.com")
        .clock(auth.clock().clone())
        .build()
        .unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle()
}

fn begin(handle: &AuthHandle) -> tokio::task::JoinHandle<Result<Token, TokenError>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.token().await })
}

/// Renewed three times more, nobody was signed out, and no refresh token was sent twice.
async fn still_signed_in(auth: &AuthServer, handle: &AuthHandle) {
    for _ in 0..3 {
        handle.invalidate();
        handle.token().await.unwrap();
    }
    assert_eq!(auth.refresh_token_reuses(), 0);
}

/// Behaviour 124.
#[tokio::test(start_paused = true)]
async fn credentials_replaced_by_the_same_during_a_refresh() {
    let auth = AuthServer::new(TestClock::new()).latency(300 * MS);
    let handle = signed_in(&auth);
    let first = begin(&handle);
    sleep(100 * MS).await;
    handle.replace_credentials(ClientAuth::basic("id", "secret")).unwrap();
    handle.token().await.expect("the refresh token is with the server, and its successor is waited for");
    first.await.unwrap().unwrap();
    still_signed_in(&auth, &handle).await;
}

/// Behaviour 124.
#[tokio::test(start_paused = true)]
async fn a_token_without_refresh_token_set_during_a_refresh() {
    let auth = AuthServer::new(TestClock::new()).latency(300 * MS);
    let handle = signed_in(&auth);
    let first = begin(&handle);
    sleep(100 * MS).await;
    handle.set_token(Token::bearer("set").unwrap().with_expires_in(3600 * SECOND)).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().access_token(), "set", "nobody waits for what is superseded");
    handle.invalidate();
    handle.token().await.unwrap();
    still_signed_in(&auth, &handle).await;
}

/// Behaviour 124.
#[test]
fn an_overdue_refresh_whose_answer_comes_with_the_next_turn_of_its_runtime() {
    let auth = AuthServer::new(TestClock::new()).latency(300 * MS);
    let handle = signed_in(&auth);
    let runtime = current_thread();
    runtime.block_on(async {
        timeout(100 * MS, handle.token()).await.unwrap_err();
    });
    // Nobody drives the runtime, for longer than a refresh may take.
    auth.clock().advance(60 * SECOND);
    runtime.block_on(async {
        handle.token().await.unwrap();
        still_signed_in(&auth, &handle).await;
    });
}

/// Behaviour 124.
#[tokio::test(start_paused = true)]
async fn with_a_primary_grant_nobody_waits_for_a_superseded_refresh() {
    let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .clock(auth.clock().clone())
        .build()
        .unwrap();
    let handle = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle();
    handle.token().await.unwrap();
    handle.invalidate();
    auth.script([Fault::Slow(5 * SECOND)]);
    let first = begin(&handle);
    sleep(100 * MS).await;
    handle.replace_credentials(ClientAuth::basic("id", "secret")).unwrap();
    let start = tokio::time::Instant::now();
    handle.token().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    first.await.unwrap().unwrap();
    sleep(10 * SECOND).await;
    let grants: Vec<_> = auth.requests().iter().map(|request| request.param("grant_type").unwrap()).collect();
    assert_eq!(grants, ["client_credentials", "refresh_token", "client_credentials"]);
    still_signed_in(&auth, &handle).await;
}

/// A source that is told what to answer, and when. It remembers which refresh tokens it was given, and whether one was
/// said to be lost.
#[derive(Clone, Default)]
struct Source(Arc<SourceState>);

#[derive(Default)]
struct SourceState {
    asked: Mutex<Vec<(Option<String>, bool)>>,
    answers: Mutex<Vec<Answer>>,
    open: Notify,
}

type Answer = Box<dyn FnOnce() -> Result<Token, TokenError> + Send>;

fn rotated(refresh_token: &'static str) -> Answer {
    Box::new(move || {
        let refresh_token = RefreshToken::Replace(Secret::from(refresh_token));
        Ok(Token::bearer(&format!("for-{}", fastrand::u64(..))).unwrap().with_refresh_token(refresh_token))
    })
}

impl Source {
    fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        let source = Self::default();
        source.0.answers.lock().unwrap().extend(answers);
        source
    }

    fn handle(&self, clock: &TestClock) -> AuthHandle {
        let cfg = AuthConfig::external()
            .origin("https://api.example.com")
            .clock(clock.clone())
            .refresh_deadline(5 * SECOND)
            .build()
            .unwrap();
        let handle = AuthLayer::with_source(cfg, self.clone()).handle();
        let r1 = RefreshToken::Replace(Secret::from("r1"));
        handle.set_token(Token::bearer("first").unwrap().with_refresh_token(r1)).now_or_never().unwrap().unwrap();
        handle.invalidate();
        handle
    }

    fn sent(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().iter().map(|(sent, _)| sent.clone().unwrap_or_default()).collect()
    }

    fn said_to_be_lost(&self) -> Vec<bool> {
        self.0.asked.lock().unwrap().iter().map(|(_, lost)| *lost).collect()
    }
}

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let refresh_token = request.refresh_token.map(|token| token.expose().clone());
        self.0.asked.lock().unwrap().push((refresh_token, request.refresh_answer_lost));
        let answer = self.0.answers.lock().unwrap().remove(0);
        self.0.open.notified().await;
        answer()
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// A refresh with r1 is left behind on `parked`, and another one, with r1 again, is under way on `driven`.
fn two_refreshes(source: &Source, clock: &TestClock) -> (AuthHandle, Runtime, Runtime) {
    let handle = source.handle(clock);
    let (parked, driven) = (current_thread(), current_thread());
    parked.block_on(async { timeout(MS, handle.token()).await.unwrap_err() });
    clock.advance(60 * SECOND);
    // After its second of grace.
    driven.block_on(async { timeout(2 * SECOND, handle.token()).await.unwrap_err() });
    assert_eq!(source.sent(), ["r1", "r1"]);
    (handle, parked, driven)
}

/// Behaviour 125.
#[test]
fn a_late_answer_does_not_replace_a_newer_refresh_token() {
    let clock = TestClock::new();
    let source = Source::with([rotated("r2"), rotated("r3"), rotated("r4")]);
    let (handle, parked, driven) = two_refreshes(&source, &clock);
    // The second to ask is the first to be answered.
    let wake_second = || {
        source.0.open.notify_one();
        source.0.open.notify_one();
    };
    wake_second();
    driven.block_on(async { handle.token().await.unwrap() });
    parked.block_on(async { sleep(MS).await });
    driven.block_on(async {
        handle.invalidate();
        source.0.open.notify_one();
        handle.token().await.unwrap();
    });
    assert_eq!(source.sent(), ["r1", "r1", "r3"]);
}

/// Behaviour 126.
#[test]
fn a_refusal_of_one_refresh_token_leaves_the_one_that_came_meanwhile() {
    let clock = TestClock::new();
    let dead: Answer = Box::new(|| Err(TokenError::sign_in_again()));
    let source = Source::with([rotated("r2"), dead, rotated("r3")]);
    let (handle, parked, driven) = two_refreshes(&source, &clock);
    // The answer to the first comes, late, before the refusal of the second.
    source.0.open.notify_one();
    parked.block_on(async { sleep(MS).await });
    source.0.open.notify_one();
    driven.block_on(async {
        let error = handle.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::SignInAgain);
        handle.invalidate();
        source.0.open.notify_one();
        handle.token().await.unwrap();
    });
    assert_eq!(source.sent(), ["r1", "r1", "r2"]);
}

/// Behaviour 175.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_stays_lost_until_a_success() {
    let clock = TestClock::new();
    let down: Answer = Box::new(|| Err(TokenError::transient("down")));
    let source = Source::with([rotated("never"), down, rotated("r2"), rotated("r3")]);
    let handle = source.handle(&clock);
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::Timeout, "nobody answers");
    for _ in 0..3 {
        handle.invalidate();
        source.0.open.notify_one();
        let _ = handle.token().await;
    }
    assert_eq!(source.sent(), ["r1", "r1", "r1", "r2"]);
    assert_eq!(source.said_to_be_lost(), [false, true, true, false]);
}

/// Behaviour 84.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_the_source_drops_is_not_sent_again() {
    let clock = TestClock::new();
    let dropped: Answer = Box::new(|| Ok(Token::bearer("t").unwrap().with_refresh_token(RefreshToken::Drop)));
    let source = Source::with([dropped, rotated("r2")]);
    let handle = source.handle(&clock);
    for _ in 0..2 {
        handle.invalidate();
        source.0.open.notify_one();
        handle.token().await.unwrap();
    }
    assert_eq!(source.sent(), ["r1", ""]);
}

/// Behaviour 175.
#[test]
fn a_refresh_that_is_thrown_away_may_have_spent_its_refresh_token() {
    let source = Source::with([rotated("never"), rotated("r2")]);
    let handle = source.handle(&TestClock::new());
    current_thread().block_on(async { timeout(MS, handle.token()).await.unwrap_err() });
    source.0.open.notify_one();
    current_thread().block_on(async { handle.token().await.unwrap() });
    assert_eq!(source.said_to_be_lost(), [false, true]);
}
