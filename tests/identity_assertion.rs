//! Two authorization servers one after the other: each leg has its own cache, expiry and failures.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{ServiceExt, service_fn};
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, IdentityAssertion, TokenErrorKind, TokenExchange,
};

/// The identity provider, the API's authorization server, and a handle to the tokens of the latter.
fn world(exchange: TokenExchange) -> (AuthServer, AuthServer, AuthHandle) {
    world_with(exchange, |cfg| cfg)
}

fn world_with(
    exchange: TokenExchange,
    edit: impl FnOnce(AuthConfigBuilder) -> AuthConfigBuilder,
) -> (AuthServer, AuthServer, AuthHandle) {
    let clock = TestClock::new();
    let idp = AuthServer::new(clock.clone()).lifetime(Duration::from_secs(7200));
    let auth = AuthServer::new(clock.clone()).lifetime(Duration::from_secs(600));
    let assertion =
        IdentityAssertion::new("https://idp.example.com/token", ClientAuth::basic("at-idp", "one"), exchange)
            .audience("https://auth.example.com");
    let client_auth = ClientAuth::basic("at-auth", "two");
    let cfg = AuthConfig::identity_assertion("https://auth.example.com/token", client_auth, assertion)
        .scopes(["chat.read"])
        .origin("https://api.example.com")
        .clock(clock);
    let cfg = edit(cfg).build().unwrap();
    let servers = (idp.clone(), auth.clone());
    let http = service_fn(move |request: Request<Full<Bytes>>| {
        let server = if request.uri().host() == Some("idp.example.com") { &servers.0 } else { &servers.1 };
        let server = server.clone();
        async move { server.oneshot(request).await }
    });
    (idp, auth, AuthLayer::builder(cfg).http_client(http).build().unwrap().handle())
}

fn id_token() -> TokenExchange {
    TokenExchange::new(TokenExchange::ID_TOKEN, "eyJ-id-token")
}

/// <https://datatracker.ietf.org/doc/html/draft-ietf-oauth-identity-assertion-authz-grant-03> (2026-04-22), read 2026-11-26
/// as far as it was available: which parameters go where.
///
/// Behaviour 186.
#[tokio::test(start_paused = true)]
async fn an_assertion_of_one_server_is_a_grant_at_the_other() {
    let (idp, auth, handle) = world(id_token());
    let token = handle.token().await.unwrap();
    assert!(auth.is_live(token.access_token()));
    let first = idp.requests().remove(0);
    let sent = |name: &str| first.param(name).unwrap_or_default();
    assert_eq!(sent("grant_type"), "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(sent("requested_token_type"), "urn:ietf:params:oauth:token-type:id-jag");
    assert_eq!((sent("subject_token"), sent("audience")), ("eyJ-id-token".into(), "https://auth.example.com".into()));
    let second = auth.requests().remove(0);
    assert_eq!(second.param("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    assert_eq!(second.param("assertion"), idp.last_token());
    assert_eq!(second.param("scope").as_deref(), Some("chat.read"));
    assert_ne!(first.header("authorization"), second.header("authorization"), "a client of each server's");
}

/// Behaviour 187.
#[tokio::test(start_paused = true)]
async fn each_leg_has_its_own_cache_and_expiry() {
    let (idp, auth, handle) = world(id_token());
    // Four tokens of ten minutes for one assertion of two hours, which is renewed after 35 % of its life at the earliest.
    for _ in 0..4 {
        handle.token().await.unwrap();
        auth.clock().advance(Duration::from_secs(601));
    }
    assert_eq!((idp.token_requests(), auth.token_requests()), (1, 4));
    auth.clock().advance(Duration::from_secs(7200));
    // The clock is looked at once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    handle.token().await.unwrap();
    assert_eq!((idp.token_requests(), auth.token_requests()), (2, 5));
}

/// Behaviour 187.
#[tokio::test(start_paused = true)]
async fn each_leg_has_its_own_failures() {
    let (idp, auth, handle) = world(id_token());
    idp.script([Fault::Status(503)]);
    let error = handle.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    assert!(error.to_string().contains("no identity assertion"), "{error}");
    assert_eq!((idp.token_requests(), auth.token_requests()), (1, 0), "nothing is sent to the other server");
    tokio::time::sleep(Duration::from_secs(120)).await;
    auth.clock().advance(Duration::from_secs(120));
    handle.token().await.unwrap();

    // The other server's trouble costs no assertion.
    handle.invalidate();
    auth.script([Fault::Status(503)]);
    let error = handle.token().await.unwrap_err();
    assert!(!error.to_string().contains("no identity assertion"), "{error}");
    assert_eq!(idp.token_requests(), 2);
}

/// Behaviour 187.
#[tokio::test(start_paused = true)]
async fn an_assertion_that_is_refused_is_replaced_once() {
    let (idp, auth, handle) = world(id_token());
    auth.script([Fault::error("invalid_grant")]);
    handle.token().await.expect("used up, or revoked: another one was accepted");
    assert_eq!((idp.token_requests(), auth.token_requests()), (2, 2));
    handle.invalidate();
    auth.script([Fault::error("invalid_grant"), Fault::error("invalid_grant")]);
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::Refused);
    assert_eq!((idp.token_requests(), auth.token_requests()), (3, 4));
}

/// Behaviour 184.
#[tokio::test(start_paused = true)]
async fn an_exchange_without_a_kind_is_no_assertion() {
    let (idp, auth, handle) = world(id_token());
    idp.script([Fault::Body(Bytes::from_static(br#"{"access_token":"canary","token_type":"N_A"}"#))]);
    let error = handle.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Malformed);
    assert!(error.to_string().contains("issued_token_type") && !format!("{error:?}").contains("canary"), "{error}");
    assert_eq!(auth.token_requests(), 0);

    // An access token of the first server is none of the other's business.
    let (idp, auth, handle) = world(id_token());
    let access = br#"{"access_token":"canary","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;
    idp.script([Fault::Body(Bytes::from_static(access))]);
    let error = handle.token().await.unwrap_err();
    assert!(
        error.to_string().contains("not that of an assertion") && !format!("{error:?}").contains("canary"),
        "{error}"
    );
    assert_eq!(auth.token_requests(), 0);
}

/// Behaviour 187.
#[tokio::test(start_paused = true)]
async fn timeouts_and_pauses_are_those_of_the_configuration_in_both_legs() {
    let second = Duration::from_secs(1);
    let settings = |cfg: AuthConfigBuilder| cfg.token_timeout(20 * second).permanent_failure_pause(second, second);
    let (idp, auth, handle) = world_with(id_token(), settings);
    idp.always(Fault::error("invalid_client"));
    for expected in 1..=3 {
        assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::BadCredentials);
        assert_eq!((idp.token_requests(), auth.token_requests()), (expected, 0));
        tokio::time::sleep(2 * second).await;
    }
    let (idp, _, handle) = world_with(id_token(), settings);
    idp.script([Fault::Slow(15 * second)]);
    handle.token().await.expect("an answer after 15 s, of 20");
}
