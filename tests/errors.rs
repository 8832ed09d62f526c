//! What a user reads when something is wrong: the whole text, source by source, for the failures that happen most.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::{SECRET, World, told};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthLayer, ClientAuth, Discovery, Error, SignInErrorKind, SigningAlgorithm,
    SigningKey, Tenant, TenantId, TokenErrorKind,
};

/// Sends `request` with `config` through the built-in token client and hyper, and tells the error.
async fn failure(world: &World, config: AuthConfigBuilder, request: Request<Full<bytes::Bytes>>) -> (Error, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let auth = AuthLayer::new(config.build().unwrap()).layer(client);
    let error = auth.oneshot(request).await.unwrap_err();
    let told = told(&error);
    assert!(!format!("{told} {error:?}").contains("canary"), "a secret: {told} {error:?}");
    assert_eq!(world.api.hits(), 0, "nothing was sent");
    (error, told)
}

fn get(world: &World) -> Request<Full<bytes::Bytes>> {
    Request::get(world.server.uri("/items?patient=canary")).body(Full::default()).unwrap()
}

fn kind(error: &Error) -> TokenErrorKind {
    error.token().unwrap().kind()
}

#[tokio::test]
async fn the_authorization_server_is_down() {
    let world = World::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = support::config(&world.auth, format!("http://{nobody}/token?key=canary"), world.server.origin());
    let (error, told) = failure(&world, config, get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::Unreachable, true));
    let ours = "no token to send the request with: 127.0.0.1: the authorization server could not be reached; check its URL, DNS, \
                proxy and TLS trust: ";
    let theirs = told.strip_prefix(ours).unwrap_or_else(|| panic!("{told}"));
    assert!(theirs.to_lowercase().contains("refused"), "the system's own words: {theirs}");
}

#[tokio::test(start_paused = true)]
async fn the_authorization_server_hangs() {
    let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
    auth.always(Fault::Hang);
    let api = Api::new(&auth);
    let token_url = "https://auth.example.com/token?key=canary".to_owned();
    let config = support::config(&auth, token_url, "https://api.example.com".to_owned());
    let config = config.token_timeout(Duration::from_secs(2)).build().unwrap();
    let auth = AuthLayer::builder(config).http_client(auth).build().unwrap().layer(api.clone());
    let error = auth.oneshot(Request::get("https://api.example.com/").body(String::new()).unwrap()).await.unwrap_err();
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::Timeout, true));
    assert_eq!(
        told(&error),
        "no token to send the request with: auth.example.com: the authorization server did not answer in time; it may be overloaded, or a \
         proxy drops the connection: not complete after 2s"
    );
}

#[tokio::test]
async fn the_secret_is_wrong() {
    let world = World::new().await;
    let client_auth = ClientAuth::basic("client", "canary-wrong");
    let config = AuthConfig::client_credentials(world.server.uri("/oauth2/token"), client_auth);
    let (error, told) = failure(&world, config.origin(world.server.origin()), get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::BadCredentials, false));
    assert_eq!(
        told,
        "no token to send the request with: 127.0.0.1: the authorization server refuses the client credentials; check client id and \
         secret, and how they are sent (status 401, error invalid_client)"
    );
}

/// The server knows another public key.
#[tokio::test]
async fn the_key_is_wrong() {
    let world = World::new().await;
    let pem = include_str!("support/certificates/server.key");
    let key = SigningKey::from_pem(SigningAlgorithm::Es256, pem);
    let config =
        AuthConfig::client_credentials(world.server.uri("/oauth2/token"), ClientAuth::private_key_jwt("client", key));
    let (error, told) = failure(&world, config.origin(world.server.origin()), get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::BadCredentials, false));
    assert!(told.ends_with("(status 401, error invalid_client)"), "{told}");
    let assertion = world.auth.requests()[0].param("client_assertion").unwrap();
    assert!(!told.contains(&assertion) && !format!("{error:?}").contains(&assertion));
    let lines: Vec<_> = pem.lines().filter(|line| line.len() > 40).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| !format!("{told} {error:?}").contains(line)));
}

#[tokio::test]
async fn the_assertion_has_expired() {
    let world = World::new().await;
    world.auth.always(Fault::error("invalid_grant"));
    let client_auth = ClientAuth::basic("client", SECRET);
    let config = AuthConfig::jwt_bearer(world.server.uri("/oauth2/token"), client_auth, "canary.e30.c2ln");
    let (error, told) = failure(&world, config.origin(world.server.origin()), get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::Refused, false));
    assert_eq!(
        told,
        "no token to send the request with: 127.0.0.1: the authorization server refuses the token request; check grant, scopes and \
         parameters (status 400, error invalid_grant)"
    );
}

#[tokio::test(start_paused = true)]
async fn the_device_was_denied() {
    let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
    let cfg = AuthConfig::device("https://auth.example.com/token", ClientAuth::basic("client", SECRET));
    let cfg = cfg
        .device_authorization_url("https://auth.example.com/device_authorization")
        .origin("https://api.example.com")
        .clock(auth.clock().clone());
    let layer = AuthLayer::builder(cfg.build().unwrap()).http_client(auth.clone()).build().unwrap();
    let sign_in = layer.handle().sign_in_on_device().await.unwrap();
    let user_code = sign_in.user_code().to_owned();
    auth.deny_device(&user_code);
    let error = sign_in.wait().await.unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::Denied);
    assert_eq!(told(&error), "the sign-in was denied (error access_denied)");
    let error =
        layer.layer(Api::new(&auth)).oneshot(Request::get("https://api.example.com/").body(String::new()).unwrap());
    let error = error.await.unwrap_err();
    assert_eq!(
        told(&error),
        "no token to send the request with: auth.example.com: the grant has ended; a person must sign in again: there is no refresh token"
    );
    assert!(!format!("{error:?}").contains(&user_code));
}

/// Behaviour 113.
#[tokio::test]
async fn the_issuer_is_another() {
    let world = World::new().await;
    let _ = world.auth.clone().metadata("issuer", "https://canary.example");
    let client_auth = ClientAuth::basic("client", SECRET);
    let config = AuthConfig::client_credentials(Discovery::of(world.server.origin()), client_auth);
    let (error, told) = failure(&world, config.origin(world.server.origin()), get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::WrongIssuer, false));
    assert_eq!(
        told,
        "no token to send the request with: 127.0.0.1: the authorization server is not the configured issuer; write the issuer \
         exactly as the server does (status 200): its metadata name another issuer than the configured one (RFC 8414 §3.3)"
    );
    assert_eq!(world.auth.token_requests(), 0);
}

#[tokio::test]
async fn the_token_endpoint_answers_with_html() {
    let world = World::new().await;
    world.auth.always(Fault::Html);
    let (error, told) = failure(&world, world.config(), get(&world)).await;
    assert_eq!((kind(&error), error.is_retryable()), (TokenErrorKind::Malformed, true));
    assert_eq!(
        told,
        "no token to send the request with: 127.0.0.1: the answer of the token endpoint holds no usable token; check that the token \
         URL is the right one (status 200): the body is an HTML or XML page, sent as text/html; is "
            .to_owned()
            + &world.server.uri("/oauth2/token")
            + " the right URL?"
    );
}

#[tokio::test]
async fn the_answer_is_json_without_a_token() {
    let world = World::new().await;
    world.auth.always(Fault::Body("{\"token\": \"canary\"}".into()));
    let (error, told) = failure(&world, world.config(), get(&world)).await;
    assert_eq!(kind(&error), TokenErrorKind::Malformed);
    assert_eq!(
        told,
        "no token to send the request with: 127.0.0.1: the answer of the token endpoint holds no usable token; check that the token \
         URL is the right one (status 200): there is no `access_token`"
    );
}

/// Behaviour 96.
#[tokio::test]
async fn the_tenant_is_missing() {
    let world = World::new().await;
    let (error, told) = failure(&world, world.config().tenant(Tenant::header("Tenant-Id")), get(&world)).await;
    assert!(matches!(error, Error::Tenant { .. }));
    assert_eq!(
        told,
        "the request has no tenant (put a `TenantId` into its extensions, or use `Auth::for_tenant`); the request was not \
         sent"
    );
}

#[tokio::test]
async fn the_tenant_is_another_one() {
    let world = World::new().await;
    let mut request = get(&world);
    request.extensions_mut().insert(TenantId::new("canary-one").unwrap());
    request.headers_mut().insert("tenant-id", "canary-two".parse().unwrap());
    let (error, told) = failure(&world, world.config().tenant(Tenant::header("Tenant-Id")), request).await;
    assert!(matches!(error, Error::Tenant { .. }));
    assert_eq!(
        told,
        "the request carries a tenant header that is not its tenant (remove the header, or read it with \
         `Tenant::from_request_header`); the request was not sent"
    );
}

/// Behaviour 99.
#[tokio::test]
async fn the_origin_is_foreign() {
    let world = World::new().await;
    let request = Request::get("https://evil.example:8443/items?patient=canary").body(Full::default()).unwrap();
    let (error, told) = failure(&world, world.config(), request).await;
    assert!(matches!(error, Error::Origin { .. }));
    assert_eq!(
        told,
        "https://evil.example:8443 is not an allowed origin (if it is the API, add it with `.origin(..)`); the request was \
         not sent"
    );
}

/// The API is down: that is the inner service's error, reachable by its type.
#[tokio::test]
async fn the_api_is_down() {
    let world = World::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let request = Request::get(format!("http://{nobody}/items?patient=canary")).body(Full::default()).unwrap();
    let (error, told) = failure(&world, world.config().origin(format!("http://{nobody}")), request).await;
    assert!(error.service_ref::<hyper_util::client::legacy::Error>().unwrap().is_connect());
    assert!(told.starts_with("the HTTP service failed: client error (Connect): "), "{told}");
}
