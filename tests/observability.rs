//! What operators see: each event, span and error names its layer, repeated warnings are counted, and waiting is visible.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/capture.rs"]
mod capture;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/recorder.rs"]
mod recorder;
mod support;

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use capture::{Capture, PerThread};
use http::Request;
use recorder::Recorder;
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::store::{
    Fence, Lease, MemoryStore, Saved, StoreError, StoreErrorKind, StoreKey, Stored, TokenStore, Value, Version,
};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthLayer, Authority, BoxError, ClientAuth, Clock, ConfigError, Directory,
    Discovery, Tenant, TenantId, Token, TokenError, TokenErrorKind, TokenRequest,
};
use tracing::{Instrument, Level};
use tracing_subscriber::layer::SubscriberExt;

const SECOND: Duration = Duration::from_secs(1);
const API: &str = "https://api.example.com";

fn get(uri: &str) -> Request<String> {
    Request::get(uri).body(String::new()).unwrap()
}

/// What is told on this thread; the runtime of each test is there too.
fn listen() -> Capture {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(PerThread);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    PerThread::listen()
}

fn layer_of(auth: &AuthServer, secret: &str, name: Option<&str>) -> AuthLayer {
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("client", secret));
    let cfg = match name {
        Some(name) => cfg.name(name),
        None => cfg,
    };
    let cfg = cfg.origin(API).clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap()
}

/// A token for each tenant.
fn per_tenant(auth: &AuthServer) -> AuthConfigBuilder {
    AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("client", "secret"))
        .tenant(Tenant::header("x-tenant").per_tenant_tokens())
        .origin(API)
        .clock(auth.clock().clone())
}

/// Behaviour 171.
#[tokio::test(start_paused = true)]
async fn of_three_layers_everything_names_the_one_that_fails() {
    let told = listen();
    let auth = AuthServer::new(TestClock::new()).client("client", "secret");
    let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("t").map_err(TokenError::permanent) });
    let own = AuthConfig::external().origin("https://ledger.example.com").clock(auth.clock().clone()).build().unwrap();
    let layers = [
        layer_of(&auth, "secret", None),
        layer_of(&auth, "canary-wrong", Some("billing")),
        AuthLayer::with_source(own, source),
    ];
    let mut errors = Vec::new();
    for (layer, uri) in layers.iter().zip([API, API, "https://ledger.example.com"]) {
        if let Err(error) = layer.clone().layer(Api::new(&auth)).oneshot(get(uri)).await {
            errors.push(error);
        }
    }
    assert_eq!(
        layers.each_ref().map(|layer| layer.handle().name().to_owned()),
        ["auth.example.com", "billing", "ledger.example.com"]
    );
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(error.token().unwrap().layer_name(), Some("billing"));
    let text = error.source().unwrap().to_string();
    assert!(text.starts_with("billing: the authorization server refuses the client credentials"), "{text}");

    let events = told.events();
    assert!(events.iter().all(|event| event.fields.contains_key("layer")), "{events:#?}");
    let failed: Vec<_> = events.iter().filter(|event| event.level == Level::WARN).collect();
    assert!(!failed.is_empty() && failed.iter().all(|event| event.fields["layer"] == "billing"), "{failed:#?}");
    assert!(!format!("{events:?}{errors:?}").contains("canary"));
    for (layer, outcome) in
        [("auth.example.com", "new_token"), ("billing", "failed"), ("ledger.example.com", "new_token")]
    {
        let spans = told.spans("token_request");
        let span = spans.iter().find(|span| span.fields["layer"] == layer).unwrap();
        assert_eq!(span.fields["outcome"], outcome);
    }
}

/// Behaviour 171.
#[tokio::test(start_paused = true)]
async fn errors_that_no_refresh_brought_name_the_layer_too() {
    let auth = AuthServer::new(TestClock::new());
    let named = |error: TokenError| assert_eq!(error.layer_name(), Some("auth.example.com"), "{error:?}");
    let handle = layer_of(&auth, "secret", None).handle();
    handle.token().await.unwrap();
    named(handle.revoke().await.unwrap_err());
    let bound = Token::with_scheme("DPoP", "t").unwrap();
    named(handle.set_token(bound).await.unwrap_err());
    let outside = layer_of(&auth, "secret", None).handle();
    let elsewhere = std::thread::spawn(move || futures_util::future::FutureExt::now_or_never(outside.token()));
    named(elsewhere.join().unwrap().unwrap().unwrap_err());

    // Remembered, too.
    auth.always(Fault::Status(503));
    handle.invalidate();
    named(handle.token().await.unwrap_err());
    named(handle.token().await.unwrap_err());
    assert_eq!(auth.token_requests(), 2);
    named(handle.stats().last_error.unwrap());
}

/// Behaviour 171.
#[test]
fn a_layer_is_named_by_where_its_tokens_come_from() {
    let of = |cfg: Result<AuthConfig, ConfigError>| {
        AuthLayer::builder(cfg.unwrap()).http_client(AuthServer::new(TestClock::new())).build().unwrap().handle()
    };
    let discovered =
        AuthConfig::client_credentials(Discovery::of("https://id.example.com/realm"), ClientAuth::none("c"));
    assert_eq!(of(discovered.origin(API).build()).name(), "id.example.com");
    let directory = Directory::from_fn(|_| async { Ok::<Option<Authority>, BoxError>(None) });
    let tenants = AuthConfig::per_tenant(directory).tenant(Tenant::without_header().per_tenant_tokens());
    assert_eq!(of(tenants.origin(API).build()).name(), "api.example.com");
    for bad in ["", " billing", "bill\ning", &"x".repeat(65)] {
        let error = AuthConfig::external().name(bad).origin(API).build().unwrap_err();
        assert!(error.to_string().contains("name"), "{error}");
    }
    AuthConfig::external().name("x".repeat(64)).origin(API).build().unwrap();
}

/// Behaviour 172.
#[tokio::test(start_paused = true)]
async fn a_warning_that_repeats_is_written_once_a_second_and_counted() {
    let told = listen();
    let auth = AuthServer::new(TestClock::new()).client("client", "secret");
    let api = Api::new(&auth).bare_401();
    api.always(Fault::Status(401));
    let [one, other] = [layer_of(&auth, "secret", Some("one")), layer_of(&auth, "secret", Some("other"))]
        .map(|layer| layer.layer(api.clone()));
    for _ in 0..30 {
        for client in [&one, &other] {
            assert_eq!(client.clone().oneshot(get(API)).await.unwrap().status(), 401);
        }
        sleep(SECOND / 10).await;
    }
    let of = |layer: &str| {
        let mut warnings = told.warnings("token rejected, not refreshed");
        warnings.retain(|event| event.fields["layer"] == layer);
        warnings
    };
    for layer in ["one", "other"] {
        let warnings = of(layer);
        assert!((3..=4).contains(&warnings.len()), "30 requests in 3 s, {} warnings", warnings.len());
    }
    // What was not written is told with the next one.
    sleep(10 * SECOND).await;
    while of("one").iter().filter(|event| event.fields["skipped"] != "0").count() == 0 {
        one.clone().oneshot(get(API)).await.unwrap();
    }
    let counted: usize = of("one").iter().map(|event| 1 + event.fields["skipped"].parse::<usize>().unwrap()).sum();
    assert!(counted >= 20, "{counted} of the 30 were held back");
}

/// A failing token endpoint, asked by many tenants at once.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_hundred_tenants_is_one_warning_a_second() {
    let told = listen();
    let auth = AuthServer::new(TestClock::new());
    auth.always(Fault::Status(503));
    let cfg = per_tenant(&auth).build().unwrap();
    let handle = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle();
    for number in 0..100 {
        handle.for_tenant(&TenantId::new(number.to_string()).unwrap()).token().await.unwrap_err();
    }
    assert_eq!(told.warnings("token request failed").len(), 1);
    sleep(SECOND).await;
    handle.for_tenant(&TenantId::new("late").unwrap()).token().await.unwrap_err();
    let [_, second] = &told.warnings("token request failed")[..] else { panic!("{:#?}", told.events()) };
    assert_eq!(second.fields["skipped"], "99");
    assert_eq!(second.fields["error.type"], "unavailable");
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_token_request_follows_from_those_who_wait_for_it() {
    let told = listen();
    let auth = AuthServer::new(TestClock::new()).client("client", "secret").latency(2 * SECOND);
    let api = Api::new(&auth);
    let client = layer_of(&auth, "secret", None).layer(api.clone());
    let requests = ["a request", "another"].map(|name| {
        let span = match name {
            "another" => tracing::info_span!("another"),
            _ => tracing::info_span!("a request"),
        };
        tokio::spawn(client.clone().oneshot(get(API)).instrument(span))
    });
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let [span] = &told.spans("token_request")[..] else { panic!("one token request") };
    let field = |name: &str| span.fields[name].as_str();
    assert_eq!(
        ["layer", "trigger", "grant", "outcome", "duration_ms"].map(field),
        ["auth.example.com", "first", "client_credentials", "new_token", "2000"]
    );
    assert!(!span.fields.contains_key("error.type") && span.inside.is_empty());
    assert_eq!(
        span.follows_from.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["a request", "another"])
    );
    let waits = told.spans("token_wait");
    assert_eq!(waits.len(), 2);
    for wait in &waits {
        assert_eq!((wait.fields["layer"].as_str(), wait.fields["duration_ms"].as_str()), ("auth.example.com", "2000"));
        assert_eq!(wait.follows_from, ["token_request"]);
    }
    // What happens while it runs is told inside of it.
    let events = told.events();
    let new = events.iter().find(|event| event.message == "new token").unwrap();
    assert_eq!(new.inside, ["token_request"]);

    // Nobody waits for the renewal, and for a resend somebody does.
    api.script([Fault::error("invalid_token")]);
    assert_eq!(client.clone().oneshot(get(API)).await.unwrap().status(), 200);
    let spans = told.spans("token_request");
    assert_eq!((spans.len(), spans[1].fields["trigger"].as_str()), (2, "rejection"));
    assert_eq!(told.spans("token_wait").len(), 3);
    sleep(Duration::from_secs(3500)).await;
    assert_eq!(client.clone().oneshot(get(API)).await.unwrap().status(), 200);
    sleep(3 * SECOND).await;
    let spans = told.spans("token_request");
    assert_eq!((spans.len(), spans[2].fields["trigger"].as_str()), (3, "renewal"));
    assert_eq!(told.spans("token_wait").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_the_observer_once_with_its_tenant() {
    let auth = AuthServer::new(TestClock::new()).client("client", "secret").latency(SECOND);
    let seen: Arc<Mutex<Vec<(String, TokenErrorKind)>>> = Arc::default();
    let observed = seen.clone();
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("client", "wrong"))
        .tenant(Tenant::header("x-tenant").per_tenant_tokens())
        .on_token_failure(move |tenant, error| {
            observed.lock().unwrap().push((tenant.unwrap().as_str().to_owned(), error.kind()));
            panic!("the observer's mistake");
        })
        .origin(API)
        .clock(auth.clock().clone())
        .build()
        .unwrap();
    let handle = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle();
    let clinic = handle.for_tenant(&TenantId::new("clinic").unwrap());
    let results = futures_util::future::join_all((0..10).map(|_| clinic.token())).await;
    assert!(results.iter().all(|result| result.is_err()));
    assert_eq!(*seen.lock().unwrap(), [("clinic".to_owned(), TokenErrorKind::BadCredentials)]);
}

#[tokio::test(start_paused = true)]
async fn who_fails_now_is_listed_and_no_longer_than_it_fails() {
    let auth = AuthServer::new(TestClock::new()).client("client", "secret");
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("client", "secret"))
        .tenant(Tenant::header("x-tenant").per_tenant_tokens())
        .origin(API)
        .max_partitions(10_000)
        .clock(auth.clock().clone())
        .build()
        .unwrap();
    let handle = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle();
    let of = |number: usize| handle.for_tenant(&TenantId::new(number.to_string()).unwrap());
    of(0).token().await.unwrap();
    assert!(handle.failing().is_empty());
    auth.script([Fault::error("unauthorized_client")]);
    of(1).token().await.unwrap_err();
    let since = auth.clock().now().wall;
    sleep(10 * SECOND).await;
    let failing = handle.failing();
    let [one] = &failing[..] else { panic!("{failing:?}") };
    assert_eq!((one.tenant.as_ref().unwrap().as_str(), one.error.kind()), ("1", TokenErrorKind::Refused));
    assert_eq!((one.since, one.next_attempt), (since, Some(20 * SECOND)));
    // Still failing, since then; and others after it.
    sleep(30 * SECOND).await;
    auth.script([Fault::error("unauthorized_client")]);
    of(1).token().await.unwrap_err();
    assert_eq!(handle.failing()[0].since, since);
    sleep(120 * SECOND).await;
    of(1).token().await.unwrap();
    assert!(handle.failing().is_empty());
    auth.always(Fault::error("unauthorized_client"));
    for number in 2..200 {
        of(number).token().await.unwrap_err();
    }
    let failing = handle.failing();
    assert_eq!(failing.len(), 100, "bounded");
    assert!(failing.iter().all(|one| one.since >= SystemTime::UNIX_EPOCH));
    assert_eq!(of(7).failing().len(), 1, "a narrowed handle tells of one");
}

/// Tenants and paths of any number make no more series than one; a request that is accepted at once makes none.
#[tokio::test(start_paused = true)]
async fn what_is_counted_does_not_grow_with_tenants_and_accepted_requests_count_nothing() {
    let recorder = Recorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let auth = AuthServer::new(TestClock::new()).client("client", "secret").latency(SECOND);
    let api = Api::new(&auth);
    let cfg = per_tenant(&auth).build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap();
    let client = layer.clone().layer(api.clone());
    let send = async |number: usize| {
        let mut request = get(&format!("{API}/items/{number}"));
        request.extensions_mut().insert(TenantId::new(format!("tenant-{number}")).unwrap());
        client.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(send(0).await, 200);
    let after_one = recorder.series();
    for number in 1..300 {
        assert_eq!(send(number).await, 200);
    }
    let after_all = recorder.series();
    assert_eq!(after_one.keys().collect::<Vec<_>>(), after_all.keys().collect::<Vec<_>>());
    assert!(!format!("{after_all:?}").contains("tenant"));
    let of = |name: &str, labels: &[(&str, &str)]| recorder.values(name, labels);
    let first = [("trigger", "first"), ("outcome", "new_token"), ("grant", "client_credentials")];
    assert_eq!(of("oauth2.client.token.request.duration", &first), vec![1.0; 300]);
    assert_eq!(of("oauth2.client.token.wait.duration", &[]), vec![1.0; 300]);
    assert_eq!(of("oauth2.client.token.waiters", &[]), [0.0]);
    assert_eq!(of("oauth2.client.partitions", &[]), [301.0]);
    assert_eq!(of("oauth2.client.token.lifetime", &[]).len(), 300);

    // With a token that is there.
    let before = recorder.total();
    for number in 0..300 {
        assert_eq!(send(number).await, 200);
    }
    assert_eq!(recorder.total(), before);

    // What can become of a rejected one.
    api.script([Fault::error("invalid_token")]);
    assert_eq!(send(7).await, 200);
    assert_eq!(of("oauth2.client.rejected_requests", &[("outcome", "resent")]), [1.0]);
    assert_eq!(of("oauth2.client.token.request.duration", &[("trigger", "rejection")]), [1.0]);
    let [left] = of("oauth2.client.token.remaining_lifetime", &[])[..] else { panic!("one was replaced") };
    assert!((2500.0..3600.0).contains(&left), "{left}");
    api.always(Fault::Status(401));
    for _ in 0..5 {
        assert_eq!(send(8).await, 401);
    }
    assert!(of("oauth2.client.rejected_requests", &[("outcome", "suppressed")])[0] >= 3.0);
}

/// A store that is never there.
struct Broken;

impl Broken {
    async fn fail<T>() -> Result<T, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unavailable))
    }
}

impl TokenStore for Broken {
    async fn load(&self, _: &StoreKey) -> Result<Option<Stored>, StoreError> {
        Self::fail().await
    }

    async fn save(&self, _: &StoreKey, _: &Value, _: Version, _: Fence) -> Result<Saved, StoreError> {
        Self::fail().await
    }

    async fn lease(&self, _: &StoreKey, _: Duration) -> Result<Lease, StoreError> {
        Self::fail().await
    }

    async fn renew(&self, _: &StoreKey, _: Fence, _: Duration) -> Result<bool, StoreError> {
        Self::fail().await
    }

    async fn release(&self, _: &StoreKey, _: Fence) -> Result<(), StoreError> {
        Self::fail().await
    }

    async fn remove(&self, _: &StoreKey) -> Result<(), StoreError> {
        Self::fail().await
    }

    async fn changed(&self, _: &StoreKey, _: Version) {}
}

/// What a store did, and that it failed.
#[tokio::test(start_paused = true)]
async fn calls_of_the_store_are_counted_with_their_errors() {
    let recorder = Recorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let auth = AuthServer::new(TestClock::new()).client("client", "secret");
    let cfg = || {
        AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("client", "secret"))
            .origin(API)
            .clock(auth.clock().clone())
            .build()
            .unwrap()
    };
    let store = MemoryStore::new();
    for _ in 0..2 {
        let layer = AuthLayer::builder(cfg()).http_client(auth.clone()).store(store.clone()).build().unwrap();
        layer.handle().token().await.unwrap();
    }
    let of = |name: &str, labels: &[(&str, &str)]| recorder.values(name, labels);
    for operation in ["load", "lease", "save"] {
        assert!(!of("oauth2.client.store.operation.duration", &[("operation", operation)]).is_empty(), "{operation}");
    }
    assert!(of("oauth2.client.store.operation.duration", &[("error.type", "unavailable")]).is_empty());
    assert_eq!(of("oauth2.client.token.request.duration", &[("outcome", "stored_token")]).len(), 1);

    let told = listen();
    let layer = AuthLayer::builder(cfg()).http_client(auth.clone()).store(Broken).build().unwrap();
    layer.handle().token().await.unwrap();
    assert!(!of("oauth2.client.store.operation.duration", &[("error.type", "unavailable")]).is_empty());
    let failed = told.warnings("the token store failed");
    assert_eq!((failed[0].fields["layer"].as_str(), failed[0].fields["call"].as_str()), ("auth.example.com", "load"));
}
