//! The grants and ways to authenticate through a whole layer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, BoxError, ClientAuth, Secret, SecretSource, SigningAlgorithm,
    SigningKey, StaticToken, Token, TokenError, TokenErrorKind, TokenRequest,
};

const TOKEN_URL: &str = "https://auth.example.com/oauth2/token";

fn handle(auth: &AuthServer, cfg: AuthConfigBuilder) -> AuthHandle {
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle()
}

fn for_audience(audience: &str) -> AuthConfigBuilder {
    AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "secret")).audience(audience)
}

/// Behaviour 98.
#[tokio::test(start_paused = true)]
async fn trouble_with_one_audience_does_not_block_another() {
    let auth = AuthServer::new(TestClock::new()).client("id", "secret");
    let (blocked, free) = (handle(&auth, for_audience("blocked")), handle(&auth, for_audience("free")));
    auth.script([Fault::RetryAfter(429, 60)]);
    let error = blocked.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    assert!(blocked.stats().next_attempt.is_some());
    free.token().await.unwrap();
    assert_eq!(free.stats().next_attempt, None);
    assert!(blocked.token().await.is_err(), "it keeps to the pause");
    assert_eq!(auth.token_requests(), 2);
    let audiences: Vec<_> = auth.requests().iter().map(|request| request.param("audience").unwrap()).collect();
    assert_eq!(audiences, ["blocked", "free"]);
}

/// Two layers share nothing, so a server that hangs for one is not waited for by the other.
#[tokio::test(start_paused = true)]
async fn a_resource_that_hangs_holds_up_no_other() {
    let auth = AuthServer::new(TestClock::new());
    let of = |resource: &str| {
        let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")).resource(resource);
        handle(&auth, cfg)
    };
    let (hanging, free) = (of("https://api.example.com/a"), of("https://api.example.com/b"));
    auth.script([Fault::Hang]);
    let waiting = tokio::spawn(async move { hanging.token().await });
    while auth.token_requests() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(1), free.token()).await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_has_expired_is_told_and_the_next_one_is_used() {
    let auth = AuthServer::new(TestClock::new());
    let assertion = SecretSource::provider(|| async { Ok::<_, BoxError>(Secret::from("header.payload.signature")) });
    let handle = handle(&auth, AuthConfig::jwt_bearer(TOKEN_URL, ClientAuth::anonymous(), assertion));
    auth.script([Fault::Error("invalid_grant".into())]);
    let error = handle.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Refused);
    assert_eq!(error.code().unwrap().as_str(), "invalid_grant");
    assert!(!format!("{error} {error:?}").contains("payload"));
    handle.invalidate();
    handle.token().await.unwrap();
}

/// A file that is missing when a token is due: the token that is alive goes on, and without one the error is typed.
#[tokio::test(start_paused = true)]
async fn a_secret_that_is_missing_is_a_typed_error_and_comes_back() {
    let auth = AuthServer::new(TestClock::new()).client("id", "secret");
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-missing", std::process::id()));
    let client_auth = ClientAuth::basic("id", SecretSource::file(&path));
    let handle = handle(&auth, AuthConfig::client_credentials(TOKEN_URL, client_auth));
    let error = handle.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(auth.token_requests(), 0);

    std::fs::write(&path, "secret\n").unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    handle.token().await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_static_token_that_was_replaced_is_found_after_a_401() {
    let auth = AuthServer::new(TestClock::new());
    let api = Api::new(&auth);
    let issue = || async {
        let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id"));
        handle(&auth, cfg).token().await.unwrap().access_token().to_owned()
    };
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-static", std::process::id()));
    std::fs::write(&path, issue().await).unwrap();
    let cfg = AuthConfig::external().origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    let client = AuthLayer::with_source(cfg, StaticToken::new(SecretSource::file(&path))).layer(api);
    let get = || Request::get("https://api.example.com/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 200);

    auth.revoke_all();
    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 401, "the same token again");
    std::fs::write(&path, issue().await).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 200);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_users_own_async_function_is_a_grant() {
    async fn own_grant(request: TokenRequest) -> Result<Token, TokenError> {
        let scopes = request.scopes.map(|scopes| scopes.as_str().to_owned()).unwrap_or_default();
        Token::bearer(&format!("own-{scopes}")).map_err(TokenError::permanent)
    }

    let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
    let client =
        AuthLayer::with_source(cfg, service_fn(own_grant)).layer(service_fn(|request: Request<_>| async move {
            let header = request.headers()["authorization"].to_str().unwrap().to_owned();
            let _: Full<Bytes> = request.into_body();
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(header)))
        }));
    let response =
        client.oneshot(Request::get("https://api.example.com/").body(Full::default()).unwrap()).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "Bearer own-");
}

#[test]
fn what_is_wrong_is_told_when_it_is_built() {
    let build = |builder: AuthConfigBuilder| builder.origin("https://api.example.com").build();
    let key = SigningKey::from_pem(SigningAlgorithm::Es256, "canary");
    let wrong = [
        AuthConfig::client_credentials(TOKEN_URL, ClientAuth::private_key_jwt("id", key)),
        AuthConfig::client_credentials(TOKEN_URL, ClientAuth::client_secret_jwt("id", "canary\n")),
        AuthConfig::jwt_bearer(TOKEN_URL, ClientAuth::anonymous(), "canary\n"),
        for_audience(""),
        for_audience("a\nb"),
        for_audience("a").resource("https://api.example.com/#canary"),
        for_audience("a").resource("canary"),
        for_audience("a").assertion_audience(""),
    ];
    for builder in wrong {
        let error = build(builder).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
