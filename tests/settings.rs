//! Every setting is obeyed or refused, as somebody would find out who tries them one by one.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use tower::ServiceExt;
use tower::util::MapRequestLayer;
use tower_oauth2_client::store::MemoryStore;
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock, World};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthLayer, AuthorizationCode, ClientAuth, Directory, JwtAssertion, Renew,
    SecretSource, SigningAlgorithm, SigningKey, Tenant, TokenEndpoint, TokenErrorKind, TokenRequest,
};

const TOKEN_URL: &str = "https://auth.example.com/token";

fn plain() -> AuthConfigBuilder {
    AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "secret")).origin("https://api.example.com")
}

fn per_tenant() -> AuthConfigBuilder {
    let directory = Directory::from_map([]);
    AuthConfig::per_tenant(directory)
        .tenant(Tenant::without_header().per_tenant_tokens())
        .origin("https://api.example.com")
}

fn zero() -> Duration {
    Duration::ZERO
}

/// What nothing would obey, or no two readers would understand alike.
#[test]
fn what_nothing_would_obey_is_refused() {
    let status = |code| StatusCode::from_u16(code).unwrap();
    let account = || Tenant::without_header().fixed("a").token_header("x-account").token_param("account");
    let rows: Vec<(&str, AuthConfigBuilder)> = vec![
        ("a success", plain().unauthorized_status(status(200))),
        ("a success", plain().unauthorized_status(status(204))),
        ("407", plain().unauthorized_status(status(407))),
        ("an informational status", plain().unauthorized_status(status(101))),
        ("no time to connect", plain().connect_timeout(zero())),
        ("no time for a token request", plain().token_timeout(zero())),
        ("no time for a refresh", plain().refresh_deadline(zero())),
        ("no such standard name", plain().rename_response_field("accessToken", "acces_token")),
        ("no name", plain().rename_response_field("", "access_token")),
        ("no token type", plain().token_type_alias("")),
        ("no code", plain().invalid_refresh_token_code("")),
        ("no assertion to address", plain().assertion_audience("https://auth.example.com")),
        ("a deadline before the timeout", plain().token_timeout(Duration::from_secs(60))),
        ("a parameter twice", plain().token_param("mode", "a").token_param("mode", "b")),
        ("a parameter twice", plain().token_param("audience", "a").audience("b")),
        ("a header twice", plain().token_header("x-key", "a").token_header("X-Key", "b")),
        ("the tenant's header", plain().token_header("x-account", "a").tenant(account())),
        ("the tenant's parameter", plain().token_param("account", "a").tenant(account())),
        ("the tenant's header", plain().default_header("tenant-id", "a").tenant(Tenant::header("Tenant-Id"))),
        ("our header", plain().default_header("authorization", "a")),
        ("accept-encoding", plain().token_header("accept-encoding", "gzip")),
        ("the directory says where", per_tenant().token_url("https://auth.example.com/token")),
        ("the directory says who", per_tenant().client_auth(ClientAuth::none("id"))),
        ("no refresh token", per_tenant().refresh_url("https://auth.example.com/refresh")),
        ("no revocation", per_tenant().revocation_url("https://auth.example.com/revoke")),
        ("no sign-in", per_tenant().device_authorization_url("https://auth.example.com/device")),
        ("no fraction", plain().renew(Renew::Fraction(1.5))),
        ("longer first", plain().backoff(Duration::from_secs(2), Duration::from_secs(1))),
        ("nobody may wait", plain().max_waiters(0)),
        ("no partition", plain().max_partitions(0)),
        ("no token request", plain().max_concurrent_token_requests(0)),
        ("an empty answer", plain().max_token_response_bytes(0)),
        ("idle at once", plain().partition_idle(zero())),
        ("no sign-in", plain().edit_authorization_code(AuthorizationCode::without_pkce)),
    ];
    let taken: Vec<_> = rows
        .into_iter()
        .filter_map(|(what, cfg)| match cfg.build() {
            Ok(_) => Some(what.to_owned()),
            Err(error) => {
                println!("{what}: {error}");
                None
            }
        })
        .collect();
    assert_eq!(taken, [""; 0], "taken, and obeyed by nothing");
}

/// The same names with a meaning.
#[test]
fn what_something_obeys_is_taken() {
    let signed = AuthConfig::client_credentials(
        TOKEN_URL,
        ClientAuth::client_secret_jwt("id", "a secret of at least thirty-two bytes"),
    );
    let key = SigningKey::from_pem(SigningAlgorithm::Es256, SecretSource::file("/key"));
    let exchanged = AuthConfig::jwt_bearer(TOKEN_URL, ClientAuth::anonymous(), JwtAssertion::new("app", key));
    for cfg in [
        signed.assertion_audience("https://auth.example.com").origin("https://api.example.com"),
        exchanged.assertion_audience("https://auth.example.com").origin("https://api.example.com"),
        per_tenant().assertion_audience("https://auth.example.com"),
        plain().token_param("audience", "a").token_param("audience", "b"),
        plain().token_timeout(Duration::from_secs(60)).refresh_deadline(Duration::from_secs(60)),
        plain().rename_response_field("accessToken", "access_token").rename_response_field("validUntil", "expires_at"),
        plain().rename_response_field("code", "error").rename_response_field("text", "error_description"),
        plain().token_header("user-agent", "mine").token_header("accept", "*/*"),
        plain().device_authorization_url("https://auth.example.com/device"),
        plain().refresh_deadline(Duration::from_secs(5)),
        plain().retry_after_cap(zero()).wait_out_pause(zero()).expiry_margin(zero()),
    ] {
        cfg.build().unwrap();
    }
}

/// No time is so long that reckoning with it fails.
#[tokio::test(start_paused = true)]
async fn a_time_without_end_is_a_time() {
    let ever = Duration::MAX;
    let world = World::new();
    let cfg = world
        .config()
        .token_timeout(ever)
        .refresh_deadline(ever)
        .expiry_margin(ever)
        .backoff(ever, ever)
        .permanent_failure_pause(ever, ever)
        .wait_out_pause(ever)
        .retry_after_cap(ever)
        .partition_idle(ever)
        .max_partitions(usize::MAX)
        .max_concurrent_token_requests(usize::MAX)
        .max_waiters(usize::MAX);
    let handle = world.layer(cfg).unwrap().handle();
    handle.token().await.unwrap();
    world.auth.revoke_all();
    world.auth.script([Fault::RetryAfter(503, u64::MAX / 2)]);
    handle.invalidate();
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::Unavailable);
}

/// A pause of zero would send a token request for each request while the secret is wrong.
#[tokio::test(start_paused = true)]
async fn no_pause_is_shorter_than_a_tenth_of_a_second() {
    for retry_after in [false, true] {
        let world = World::new();
        world.auth.always(if retry_after { Fault::RetryAfter(503, 30) } else { Fault::error("invalid_client") });
        let cfg =
            world.config().permanent_failure_pause(zero(), zero()).backoff(zero(), zero()).retry_after_cap(zero());
        let handle = world.layer(cfg).unwrap().handle();
        for _ in 0..100 {
            handle.token().await.unwrap_err();
        }
        assert_eq!(world.auth.token_requests(), 1, "Retry-After: {retry_after}");
    }
}

/// From the outside in: the store, the layers in the order in which they were added, the endpoint, the client.
#[tokio::test(start_paused = true)]
async fn one_builder_takes_a_client_a_store_and_tower_layers() {
    let (world, store, passed) = (World::new(), MemoryStore::new(), Arc::new(Mutex::new(Vec::new())));
    let noting = |name: &'static str| {
        let passed = passed.clone();
        MapRequestLayer::new(move |request: TokenRequest| {
            passed.lock().unwrap().push(name);
            request
        })
    };
    let handle = || {
        let builder = AuthLayer::builder(world.config().build().unwrap()).http_client(world.auth.clone());
        builder.token_layer(noting("outer")).store(store.clone()).token_layer(noting("inner")).build().unwrap().handle()
    };
    let (one, other) = (handle(), handle());
    one.token().await.unwrap();
    other.token().await.unwrap();
    assert_eq!(world.auth.token_requests(), 1);
    assert_eq!(*passed.lock().unwrap(), ["outer", "inner"], "the second token came from the store");
    assert_eq!(other.stats().store.unwrap().found, 1);
}

/// A token endpoint by itself obeys its part of a configuration, or says that it cannot.
#[tokio::test]
async fn a_token_endpoint_by_itself_obeys_or_refuses() {
    let auth = AuthServer::new(TestClock::new()).client("id", "secret");
    for cfg in
        [plain().proxy("http://proxy.example:3128"), plain().connect_timeout(Duration::from_secs(9)), per_tenant()]
    {
        assert!(TokenEndpoint::new(&cfg.build().unwrap(), auth.clone()).is_err());
    }
    let endpoint = TokenEndpoint::new(&plain().build().unwrap(), auth.clone()).unwrap();
    endpoint.oneshot(TokenRequest::default()).await.unwrap();
}

const WITHOUT_CERTIFICATES: &str = "SETTINGS_TEST_WITHOUT_CERTIFICATES";

/// As in an image without CA certificates: this test runs once more as a program of its own.
#[test]
fn a_client_that_cannot_be_made_is_told_when_it_is_needed() {
    if std::env::var_os(WITHOUT_CERTIFICATES).is_some() {
        return;
    }
    let nowhere = std::env::temp_dir().join(format!("tower-oauth2-client-no-certificates-{}", std::process::id()));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_an_image_without_certificates", "--nocapture"])
        .env("SSL_CERT_FILE", nowhere.join("none.pem"))
        .env("SSL_CERT_DIR", &nowhere)
        .env(WITHOUT_CERTIFICATES, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Behind [`a_client_that_cannot_be_made_is_told_when_it_is_needed`]; by itself it does nothing.
#[tokio::test]
async fn in_an_image_without_certificates() {
    if std::env::var_os(WITHOUT_CERTIFICATES).is_none() {
        return;
    }
    // A configuration needs none, nor does a layer.
    let cfg = plain().build().unwrap();
    let handle = AuthLayer::new(cfg.clone()).handle();
    // At its first request, by a kind of its own, and not for a moment only.
    let error = handle.token().await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (TokenErrorKind::NoHttpClient, false));
    // The builder tells at once, and does not need them where another client is brought.
    let error = AuthLayer::builder(cfg.clone()).build().unwrap_err();
    assert!(error.to_string().contains("ca-certificates"), "{error}");
    let auth = AuthServer::new(TestClock::new()).client("id", "secret");
    AuthLayer::builder(cfg).http_client(auth).build().unwrap().handle().token().await.unwrap();
}
