//! Sign-in on another device through a whole layer, to every end that it can come to.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, SignInError, SignInErrorKind, Tenant, TenantId,
    TokenErrorKind,
};

const TOKEN_URL: &str = "https://auth.example.com/token";
const DEVICE_URL: &str = "https://auth.example.com/device_authorization";

fn device() -> AuthConfigBuilder {
    AuthConfig::device(TOKEN_URL, ClientAuth::none("tv")).device_authorization_url(DEVICE_URL)
}

fn layer(auth: &AuthServer, cfg: AuthConfigBuilder) -> AuthLayer {
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap()
}

fn handle(auth: &AuthServer) -> AuthHandle {
    layer(auth, device()).handle()
}

/// Between one poll and the next, in seconds; the first counts from the beginning.
fn pauses(auth: &AuthServer, began: Instant) -> Vec<u64> {
    let mut last = began.into_std();
    let polls = auth.requests();
    let at = polls.iter().map(|poll| poll.at.monotonic);
    at.map(|at| (at - std::mem::replace(&mut last, at)).as_secs()).collect()
}

async fn fails(handle: &AuthHandle) -> SignInError {
    handle.sign_in_on_device().await.unwrap().wait().await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn from_the_code_to_the_call_and_on_by_refresh() {
    let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
    let api = Api::new(&auth);
    let layer = layer(&auth, device().scopes(["read"]));
    let client = layer.layer(api.clone());
    let get = || Request::get("https://api.example.com/items").body(String::new()).unwrap();

    let error = client.clone().oneshot(get()).await.unwrap_err();
    assert_eq!(error.token().unwrap().kind(), TokenErrorKind::SignInAgain);
    assert_eq!((auth.token_requests(), api.hits()), (0, 0), "nothing was sent");

    let began = Instant::now();
    let sign_in = layer.handle().sign_in_on_device().await.unwrap();
    assert_eq!(sign_in.verification_uri(), "https://auth.example.com/device");
    assert!(sign_in.verification_uri_complete().unwrap().ends_with(sign_in.user_code()));
    assert_eq!(sign_in.expires_in(), Duration::from_secs(600));
    assert!(!format!("{sign_in:?}").contains(sign_in.user_code()));
    let user_code = sign_in.user_code().to_owned();
    let waiting = tokio::spawn(sign_in.wait());
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(auth.approve_device(&user_code));
    waiting.await.unwrap().unwrap();
    assert_eq!(pauses(&auth, began), [5, 5, 5]);
    assert_eq!(auth.other_requests()[0].param("scope").as_deref(), Some("read"));

    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(auth.requests().last().unwrap().param("grant_type").as_deref(), Some("refresh_token"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_slow_down_is_asked_less_often_from_then_on() {
    let auth = AuthServer::new(TestClock::new());
    let sign_in = handle(&auth).sign_in_on_device().await.unwrap();
    let began = Instant::now();
    let slow_down = || Fault::error("slow_down");
    let pending = || Fault::error("authorization_pending");
    auth.script([pending(), slow_down(), pending(), slow_down(), pending()]);
    auth.approve_device(sign_in.user_code());
    sign_in.wait().await.unwrap();
    assert_eq!(pauses(&auth, began), [5, 5, 10, 10, 15, 15]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_half_as_often_each_time() {
    let auth = AuthServer::new(TestClock::new());
    let sign_in = handle(&auth).sign_in_on_device().await.unwrap();
    let began = Instant::now();
    let trouble = [Fault::Drop, Fault::Status(500), Fault::Hang, Fault::RetryAfter(429, 60)];
    auth.script(trouble.into_iter().chain([Fault::error("authorization_pending")]));
    auth.approve_device(sign_in.user_code());
    sign_in.wait().await.unwrap();
    // The third is given up after ten seconds.
    assert_eq!(pauses(&auth, began), [5, 10, 20, 10 + 40, 80, 5]);
}

#[tokio::test(start_paused = true)]
async fn denied_is_told_as_such() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth);
    let sign_in = handle.sign_in_on_device().await.unwrap();
    assert!(auth.deny_device(sign_in.user_code()));
    let error = sign_in.wait().await.unwrap_err();
    assert_eq!((error.kind(), error.code().unwrap().as_str()), (SignInErrorKind::Denied, "access_denied"));
    assert_eq!(error.to_string(), "the sign-in was denied (error access_denied)");
    assert_eq!(error.error_description(), Some("The person said no."));
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    assert_eq!(auth.token_requests(), 1);
}

/// By the server's word, or by our own count of its time.
#[tokio::test(start_paused = true)]
async fn nobody_signs_in_in_time() {
    let auth = AuthServer::new(TestClock::new());
    auth.script([Fault::error("expired_token")]);
    assert_eq!(fails(&handle(&auth)).await.kind(), SignInErrorKind::Expired);
    assert_eq!(auth.token_requests(), 1);

    let auth = AuthServer::new(TestClock::new()).device_code_lifetime(Duration::from_secs(62));
    let began = Instant::now();
    let error = fails(&handle(&auth)).await;
    assert_eq!(error.kind(), SignInErrorKind::Expired);
    assert!(error.token_error().is_none());
    assert_eq!((auth.token_requests(), began.elapsed().as_secs()), (12, 62));

    let auth = AuthServer::new(TestClock::new()).device_code_lifetime(Duration::from_secs(62));
    auth.always(Fault::Drop);
    let (handle, began) = (handle(&auth), Instant::now());
    let error = fails(&handle).await;
    assert_eq!((error.kind(), began.elapsed().as_secs()), (SignInErrorKind::Expired, 62));
    assert_eq!(error.token_error().unwrap().kind(), TokenErrorKind::Unreachable, "why nobody heard of it");
}

#[tokio::test(start_paused = true)]
async fn what_asking_on_would_not_change_ends_it() {
    let auth = AuthServer::new(TestClock::new());
    // A page with status 200: something else is at that URL, and may have taken the code.
    auth.script([Fault::Html]);
    let error = fails(&handle(&auth)).await;
    assert_eq!(error.kind(), SignInErrorKind::AnswerLost);
    assert_eq!(error.token_error().unwrap().kind(), TokenErrorKind::Malformed);
    for (code, kind) in [("invalid_client", SignInErrorKind::Failed), ("invalid_grant", SignInErrorKind::CodeRefused)] {
        let auth = AuthServer::new(TestClock::new());
        auth.script([Fault::error(code)]);
        let error = fails(&handle(&auth)).await;
        assert_eq!((error.kind(), error.code().unwrap().as_str()), (kind, code));
        assert!(!format!("{error} {error:?}").contains("device-code"));
        assert_eq!(auth.token_requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_cannot_begin_says_why() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth);
    let redirect = Fault::Redirect("https://b.c".into());
    auth.script_other([Fault::error("invalid_client"), Fault::RetryAfter(503, 9), redirect, Fault::Drop]);
    use TokenErrorKind::*;
    for kind in [BadCredentials, Unavailable, Redirected, Unreachable] {
        let error = handle.sign_in_on_device().await.unwrap_err();
        assert_eq!((error.kind(), error.token_error().unwrap().kind()), (SignInErrorKind::Failed, kind));
    }
    assert_eq!(auth.other_requests().len(), 4, "each was sent once");

    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id"));
    let error = layer(&auth, cfg).handle().sign_in_on_device().await.unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::Unsupported);
    assert!(error.to_string().contains("device authorization URL"), "{error}");
    let without_url = AuthConfig::device(TOKEN_URL, ClientAuth::none("tv")).origin("https://api.example.com").build();
    assert!(without_url.unwrap_err().to_string().contains("device_authorization_url"));
}

#[tokio::test(start_paused = true)]
async fn dropping_it_ends_the_asking() {
    let auth = AuthServer::new(TestClock::new());
    let sign_in = handle(&auth).sign_in_on_device().await.unwrap();
    tokio::time::timeout(Duration::from_secs(12), sign_in.wait()).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(auth.token_requests(), 2);
}

/// A refresh token of whoever signed in before does not outlive the sign-in of another.
#[tokio::test(start_paused = true)]
async fn another_person_takes_over_completely() {
    let auth = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::refresh_token(TOKEN_URL, ClientAuth::none("tv"), auth.sign_in("tv", ""));
    let handle = layer(&auth, cfg.device_authorization_url(DEVICE_URL)).handle();
    handle.token().await.unwrap();
    let sign_in = handle.sign_in_on_device().await.unwrap();
    auth.approve_device(sign_in.user_code());
    sign_in.wait().await.unwrap();
    handle.invalidate();
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}

#[tokio::test(start_paused = true)]
async fn each_tenant_signs_in_by_itself() {
    let auth = AuthServer::new(TestClock::new()).tenant_param("account");
    let handle = layer(&auth, device().tenant(Tenant::header("x-account").token_param("account"))).handle();
    let [blue, red] = ["blue", "red"].map(|name| TenantId::new(name).unwrap());
    assert_eq!(handle.sign_in_on_device().await.unwrap_err().kind(), SignInErrorKind::Unsupported);
    let sign_in = handle.for_tenant(&blue).sign_in_on_device().await.unwrap();
    auth.approve_device(sign_in.user_code());
    sign_in.wait().await.unwrap();
    let token = handle.for_tenant(&blue).token().await.unwrap();
    assert_eq!(auth.tenant_of(token.access_token()).as_deref(), Some("blue"));
    assert_eq!(handle.for_tenant(&red).token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_replaced_meanwhile_takes_no_token_of_the_former_one() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth);
    let sign_in = handle.sign_in_on_device().await.unwrap();
    auth.approve_device(sign_in.user_code());
    auth.script([Fault::Slow(Duration::from_secs(5))]);
    let waiting = tokio::spawn(sign_in.wait());
    while auth.token_requests() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    handle.replace_credentials(ClientAuth::none("another-tv")).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), SignInErrorKind::ClientReplaced);
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}
