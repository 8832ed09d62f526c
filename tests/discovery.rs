//! Discovery through a whole layer: how often metadata are fetched, and what becomes of requests when they cannot be.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock, serve};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, Discovery, SignInErrorKind, Tenant, TenantId,
    TokenErrorKind,
};

const ISSUER: &str = "https://auth.example.com";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn discovered() -> AuthConfigBuilder {
    AuthConfig::client_credentials(Discovery::of(ISSUER), ClientAuth::basic("id", "canary-secret"))
}

fn layer(auth: &AuthServer, cfg: AuthConfigBuilder) -> AuthLayer {
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap()
}

fn handle(auth: &AuthServer) -> AuthHandle {
    layer(auth, discovered()).handle()
}

fn fetches(auth: &AuthServer) -> usize {
    auth.other_requests().iter().filter(|request| request.uri.path().contains("well-known")).count()
}

/// Behaviour 113.
#[tokio::test(start_paused = true)]
async fn all_partitions_wait_for_one_fetch() {
    let auth = AuthServer::new(TestClock::new()).tenant_param("account");
    auth.script_other([Fault::Slow(Duration::from_secs(2))]);
    let handle = layer(&auth, discovered().tenant(Tenant::header("x-account").token_param("account"))).handle();
    let tenants = (0..20).map(|n| TenantId::new(n.to_string()).unwrap());
    let waiting: Vec<_> = tenants
        .map(|tenant| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.for_tenant(&tenant).token().await.map(drop) })
        })
        .collect();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!((fetches(&auth), auth.token_requests()), (1, 20));
}

/// Behaviour 113.
#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_not_remembered() {
    let auth = AuthServer::new(TestClock::new()).tenant_param("account");
    auth.script_other([Fault::Slow(Duration::from_secs(60))]);
    let handle = layer(&auth, discovered().tenant(Tenant::header("x-account").token_param("account"))).handle();
    let [blue, red] = ["blue", "red"].map(|name| TenantId::new(name).unwrap());
    let (blue, red) = (handle.for_tenant(&blue), handle.for_tenant(&red));
    let (of_blue, of_red) = tokio::join!(blue.token(), red.token());
    for error in [of_blue.unwrap_err(), of_red.unwrap_err()] {
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    assert_eq!((fetches(&auth), auth.token_requests()), (1, 0));
    // Another partition asks at once; those that failed keep to the engine's own pause.
    handle.for_tenant(&TenantId::new("green").unwrap()).token().await.unwrap();
    assert_eq!(fetches(&auth), 2);
    tokio::time::sleep(Duration::from_secs(60)).await;
    blue.token().await.unwrap();
    assert_eq!((fetches(&auth), auth.token_requests()), (2, 2));
}

/// Behaviour 113.
#[tokio::test(start_paused = true)]
async fn metadata_are_good_for_a_day_and_longer_if_they_cannot_be_had() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth);
    for (pause, expected) in [(Duration::ZERO, 1), (DAY - Duration::from_secs(1), 1), (Duration::from_secs(2), 2)] {
        tokio::time::sleep(pause).await;
        handle.invalidate();
        handle.token().await.unwrap();
        assert_eq!(fetches(&auth), expected);
    }
    // Two that fail, a minute apart; the token endpoint works on.
    auth.script_other([Fault::Status(503), Fault::Html]);
    for (pause, expected) in [(DAY, 3), (Duration::from_secs(59), 3), (Duration::from_secs(2), 4), (DAY, 5)] {
        tokio::time::sleep(pause).await;
        handle.invalidate();
        handle.token().await.unwrap();
        assert_eq!(fetches(&auth), expected);
    }
    // Not if the server turns out to be another one.
    tokio::time::sleep(DAY).await;
    handle.invalidate();
    let _ = auth.clone().metadata("issuer", "https://another.example");
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::WrongIssuer);
}

/// Behaviour 113.
#[tokio::test(start_paused = true)]
async fn another_issuer_gets_no_secret() {
    for issuer in ["https://auth.example.com/", "https://canary.example"] {
        let auth = AuthServer::new(TestClock::new()).metadata("issuer", issuer);
        let error = handle(&auth).token().await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (TokenErrorKind::WrongIssuer, false));
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        assert_eq!((fetches(&auth), auth.token_requests()), (1, 0));
    }
}

/// Behaviour 113.
#[tokio::test(start_paused = true)]
async fn redirects_and_floods_end_at_the_first_byte_too_many() {
    for (fault, kind) in [
        (Fault::Redirect("https://evil.example/canary".into()), TokenErrorKind::Redirected),
        (Fault::Huge, TokenErrorKind::BadMetadata),
        (Fault::Drip(Duration::from_secs(1)), TokenErrorKind::Timeout),
        (Fault::Hang, TokenErrorKind::Timeout),
        (Fault::Drop, TokenErrorKind::Unreachable),
    ] {
        let auth = AuthServer::new(TestClock::new());
        auth.script_other([fault]);
        let handle = handle(&auth);
        let error = handle.token().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert_eq!((auth.other_requests().len(), auth.token_requests()), (1, 0));
        handle.invalidate();
        handle.token().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_is_found_and_used_for_what_it_is() {
    let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
    let issuer = format!("{ISSUER}/realms/1");
    let cfg = AuthConfig::device(Discovery::of(issuer).openid(), ClientAuth::none("tv"));
    let handle = layer(&auth, cfg).handle();
    let sign_in = handle.sign_in_on_device().await.unwrap();
    auth.approve_device(sign_in.user_code());
    sign_in.wait().await.unwrap();
    handle.revoke().await.unwrap();
    let paths: Vec<_> = auth.other_requests().iter().map(|request| request.uri.path().to_owned()).collect();
    let realm = ["/.well-known/openid-configuration", "/device_authorization", "/revoke", "/revoke"];
    assert_eq!(paths, realm.map(|path| format!("/realms/1{path}")));
    assert_eq!(auth.requests()[0].uri.path(), "/realms/1/token");

    let auth = AuthServer::new(TestClock::new())
        .metadata("revocation_endpoint", None::<&str>)
        .metadata("device_authorization_endpoint", None::<&str>);
    let handle = self::handle(&auth);
    handle.token().await.unwrap();
    assert_eq!(handle.revoke().await.unwrap_err().kind(), TokenErrorKind::Unsupported);
    assert_eq!(handle.sign_in_on_device().await.unwrap_err().kind(), SignInErrorKind::Unsupported);
}

/// What an API says of its authorization server is not followed (RFC 9728 §7.7).
#[tokio::test(start_paused = true)]
async fn a_challenge_leads_nowhere() {
    let auth = AuthServer::new(TestClock::new());
    let api = Api::new(&auth);
    let challenge = r#"Bearer error="invalid_token", resource_metadata="https://evil.example/.well-known/x""#;
    let response = Response::builder().status(401).header("www-authenticate", challenge).body(Bytes::new()).unwrap();
    api.script([Fault::Respond(response)]);
    let client = layer(&auth, discovered()).layer(api.clone());
    let get = Request::get("https://api.example.com/").body(String::new()).unwrap();
    assert_eq!(client.oneshot(get).await.unwrap().status(), 200);
    let hosts = auth.other_requests().into_iter().chain(auth.requests()).chain(api.requests());
    assert!(hosts.into_iter().all(|request| request.uri.host() != Some("evil.example")));
    assert_eq!((fetches(&auth), auth.token_requests(), api.hits()), (1, 2, 2));
}

/// Over a socket, by the built-in client; `http` for this machine only.
#[tokio::test]
async fn over_loopback() {
    let auth = AuthServer::new(TestClock::new()).client("id", "canary-secret");
    let server = serve(auth.clone()).await.unwrap();
    let client_auth = ClientAuth::basic("id", "canary-secret");
    let cfg = AuthConfig::client_credentials(Discovery::of(server.uri("/realms/1")), client_auth);
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::new(cfg).handle().warm_up().await.unwrap();
    assert_eq!(auth.requests()[0].uri.path(), "/realms/1/token");
}

#[test]
fn what_is_no_issuer_is_told_when_it_is_built() {
    let build = |issuer: &str| {
        let cfg = AuthConfig::client_credentials(Discovery::of(issuer), ClientAuth::none("id"));
        cfg.origin("https://api.example.com").build()
    };
    for wrong in ["", "auth.example.com", "http://auth.example.com", "https://auth.example.com/?canary"] {
        let error = build(wrong).unwrap_err();
        assert!(!format!("{error:?}").contains("canary"), "{error}");
    }
}
