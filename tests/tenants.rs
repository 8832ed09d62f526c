//! Many tenants: what they cost their token endpoint when it is down, slow or refuses them, and what stays of them here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use tower::layer::layer_fn;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::store::{MemoryStore, StoreIdentity, StoreLayer};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, BoxTokenSource, ClientAuth, Tenant, TenantId, Token,
    TokenEndpoint, TokenError, TokenErrorKind, TokenRequest,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HEADER: &str = "x-tenant";

fn server() -> AuthServer {
    AuthServer::new(TestClock::new()).tenant_header(HEADER).latency(300 * MS)
}

fn layer(server: &AuthServer, edit: impl FnOnce(AuthConfigBuilder) -> AuthConfigBuilder) -> AuthLayer {
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .tenant(Tenant::header(HEADER).token_header(HEADER))
        .origin("https://api.example.com")
        .clock(server.clock().clone());
    AuthLayer::builder(edit(cfg).build().unwrap()).http_client(server.clone()).build().unwrap()
}

fn handle(server: &AuthServer, edit: impl FnOnce(AuthConfigBuilder) -> AuthConfigBuilder) -> AuthHandle {
    layer(server, edit).handle()
}

fn tenant(number: usize) -> TenantId {
    TenantId::new(format!("tenant-{number}")).unwrap()
}

async fn outcome(auth: &AuthHandle, number: usize) -> Result<(), TokenErrorKind> {
    auth.for_tenant(&tenant(number)).token().await.map(drop).map_err(|error| error.kind())
}

/// Each tenant asks for its token every five seconds, all through a minute. What became of the requests.
async fn a_minute(auth: &AuthHandle, tenants: usize) -> Vec<Result<(), TokenErrorKind>> {
    let start = Instant::now();
    let tenants = (0..tenants).map(|number| {
        let auth = auth.clone();
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for round in 0..12 {
                sleep_until(start + round * 5 * SECOND + number as u32 % 5_000 * MS).await;
                outcomes.push(outcome(&auth, number).await);
            }
            outcomes
        })
    });
    let outcomes = join_all(tenants).await.into_iter().flat_map(Result::unwrap).collect();
    sleep_until(start + 60 * SECOND).await;
    outcomes
}

/// Behaviour 138 (token requests do not grow with the number of tenants).
#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_asked_no_more_often_for_ten_thousand_tenants() {
    for (fault, many) in
        [(Fault::Status(503), 10_000), (Fault::Status(429), 1_000), (Fault::Hang, 1_000), (Fault::Drop, 1_000)]
    {
        let mut asked = Vec::new();
        for tenants in [100, many] {
            let server = server();
            server.always(fault.clone());
            let auth = handle(&server, |cfg| cfg.max_partitions(20_000));
            let outcomes = a_minute(&auth, tenants).await;
            assert!(outcomes.iter().all(Result::is_err));
            asked.push((server.token_requests(), server.max_in_flight()));
        }
        let [_, (requests, at_once)] = asked[..] else { unreachable!() };
        assert!(
            requests <= 100 && at_once <= 64,
            "{fault:?}: {asked:?} token requests in a minute and at once, for 100 tenants and for {many}"
        );
    }
}

/// Behaviour 138 (of those that had tokens).
#[tokio::test(start_paused = true)]
async fn tokens_that_expire_while_the_server_is_down_cost_no_more_and_are_renewed_when_it_is_back() {
    const TENANTS: usize = 2_000;
    let server = server().lifetime(600 * SECOND);
    let auth = handle(&server, |cfg| cfg.max_partitions(20_000));
    for number in 0..TENANTS {
        outcome(&auth, number).await.unwrap();
    }
    sleep(600 * SECOND).await;
    server.always(Fault::Status(503));
    let before = server.token_requests();
    assert!(a_minute(&auth, TENANTS).await.iter().all(|outcome| *outcome == Err(TokenErrorKind::Unavailable)));
    let asked = server.token_requests() - before;
    assert!(asked <= 100, "{asked} token requests in a minute");
    // The pause of the last probe is a minute at most, and the first success is everybody's.
    server.heal();
    sleep(60 * SECOND).await;
    let outcomes = a_minute(&auth, TENANTS).await;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed <= 300, "{failed} requests of {} failed, though only a probe of 300 ms was due", outcomes.len());
    assert_eq!(server.token_requests() - before - asked, TENANTS);
}

/// Behaviour 138 (one tenant that fails alone touches no other) and behaviour 12.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_fails_alone_or_with_another_touches_nobody() {
    let server = server();
    let auth = handle(&server, |cfg| cfg.backoff(MS, MS));
    for round in 0..20 {
        for broken in [0, 1] {
            server.script([Fault::Status(503)]);
            assert_eq!(outcome(&auth, broken).await, Err(TokenErrorKind::Unavailable));
        }
        sleep(SECOND).await;
        assert!(outcome(&auth, 2 + round).await.is_ok());
    }
}

/// Behaviour 138 (`Retry-After`, and what the others are told).
#[tokio::test(start_paused = true)]
async fn everybody_keeps_to_the_pause_that_three_were_told_and_hears_of_it() {
    let server = server();
    let auth = handle(&server, |cfg| cfg);
    server.always(Fault::RetryAfter(503, 20));
    for number in 0..3 {
        assert_eq!(outcome(&auth, number).await, Err(TokenErrorKind::Unavailable));
    }
    sleep(10 * SECOND).await;
    let told = auth.for_tenant(&tenant(7)).token().await.unwrap_err();
    assert_eq!(told.kind(), TokenErrorKind::Unavailable);
    assert_eq!(told.status().unwrap(), 503);
    assert_eq!(told.retry_after().unwrap().as_secs(), 10);
    assert_eq!(server.token_requests(), 3);
    assert_eq!(auth.stats().token_requests, 3, "what was not sent is no token request");
    server.heal();
    sleep(told.retry_after().unwrap()).await;
    assert!(outcome(&auth, 7).await.is_ok());
    assert!(outcome(&auth, 8).await.is_ok());
}

/// Behaviour 138 (`invalid_client`).
#[tokio::test(start_paused = true)]
async fn refused_credentials_are_refused_for_all_who_have_them_until_they_are_replaced() {
    let server = server().client("id", "rotated");
    let auth = handle(&server, |cfg| cfg);
    for number in 0..100 {
        assert_eq!(outcome(&auth, number).await, Err(TokenErrorKind::BadCredentials));
    }
    assert_eq!(server.token_requests(), 3);
    auth.replace_credentials(ClientAuth::basic("id", "rotated")).unwrap();
    for number in 0..100 {
        assert!(outcome(&auth, number).await.is_ok());
    }
    assert_eq!(server.token_requests(), 103);
}

/// Behaviour 139.
#[tokio::test(start_paused = true)]
async fn sixty_four_token_requests_at_a_time_in_order() {
    let server = server();
    let auth = handle(&server, |cfg| cfg);
    let outcomes = join_all((0..640).map(|number| {
        let auth = auth.clone();
        tokio::spawn(async move { outcome(&auth, number).await })
    }));
    assert_eq!(outcomes.await.into_iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count(), 640);
    assert_eq!(server.max_in_flight(), 64);
    let in_order: Vec<_> = server.requests().iter().map(|request| request.header(HEADER).unwrap().to_owned()).collect();
    assert_eq!(in_order, (0..640).map(|number| tenant(number).as_str().to_owned()).collect::<Vec<_>>());
}

/// Behaviour 139 (no longer than `token_timeout`).
#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_its_turn_is_told_so() {
    let server = server().latency(4 * SECOND);
    let auth = handle(&server, |cfg| cfg);
    let start = Instant::now();
    let outcomes = join_all((0..300).map(|number| {
        let auth = auth.clone();
        async move { (outcome(&auth, number).await, start.elapsed()) }
    }))
    .await;
    for (number, (outcome, took)) in outcomes.into_iter().enumerate() {
        if number < 3 * 64 {
            assert!(outcome.is_ok(), "{number}: {outcome:?}");
        } else {
            assert_eq!((outcome, took), (Err(TokenErrorKind::Overloaded), 10 * SECOND), "{number}");
        }
    }
    assert_eq!(server.token_requests(), 3 * 64);
}

/// Behaviour 139 (one permit in four).
#[tokio::test(start_paused = true)]
async fn tenants_that_hang_leave_three_permits_in_four_to_the_others() {
    const HANGING: usize = 40;
    let hangs = Arc::new(AtomicBool::new(true));
    let in_flight = Arc::new(AtomicU64::new(0));
    let source = {
        let (hangs, in_flight) = (hangs.clone(), in_flight.clone());
        tower::service_fn(move |request: TokenRequest| {
            let number: usize = request.tenant.unwrap().as_str().trim_start_matches("tenant-").parse().unwrap();
            let hangs = number < HANGING && hangs.load(Ordering::Relaxed);
            in_flight.fetch_add(u64::from(hangs), Ordering::Relaxed);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                sleep(10 * MS).await;
                Token::bearer("t").map_err(TokenError::permanent)
            }
        })
    };
    let cfg = AuthConfig::external()
        .tenant(Tenant::header(HEADER).per_tenant_tokens())
        .origin("https://api.example.com")
        .max_concurrent_token_requests(8)
        .refresh_deadline(5 * SECOND)
        .backoff(100 * MS, 100 * MS)
        .build()
        .unwrap();
    let auth = AuthLayer::with_source(cfg, source).handle();
    // Between them others have their tokens, so that nothing is taken to be down.
    for number in 0..HANGING {
        let (hanging, other) = tokio::join!(outcome(&auth, number), async {
            sleep(4 * SECOND).await;
            outcome(&auth, 1_000 + number).await
        });
        assert_eq!((hanging, other.is_ok()), (Err(TokenErrorKind::Timeout), true));
    }
    in_flight.store(0, Ordering::Relaxed);
    let hanging = join_all((0..HANGING).map(|number| outcome(&auth, number)));
    tokio::pin!(hanging);
    assert!((&mut hanging).now_or_never().is_none());
    sleep(MS).await;
    assert_eq!(in_flight.load(Ordering::Relaxed), 2);
    let start = Instant::now();
    assert!(join_all((0..60).map(|number| outcome(&auth, 2_000 + number))).await.iter().all(Result::is_ok));
    assert_eq!(start.elapsed(), 100 * MS, "six at a time, 10 ms each");
    assert!(hanging.await.into_iter().all(|outcome| outcome.is_err()));
}

/// Behaviour 139 (what a store has needs no permit, wherever the store was put).
#[tokio::test(start_paused = true)]
async fn a_token_that_is_stored_waits_for_no_permit() {
    fn edit<E>(cfg: AuthConfigBuilder<E>, server: &AuthServer, tenant: Tenant) -> AuthConfigBuilder<E> {
        cfg.tenant(tenant)
            .origin("https://api.example.com")
            .clock(server.clock().clone())
            .max_concurrent_token_requests(1)
    }
    fn endpoint(server: &AuthServer) -> AuthConfig {
        let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"));
        edit(cfg, server, Tenant::header(HEADER).token_header(HEADER)).build().unwrap()
    }
    fn as_usual(server: &AuthServer, store: MemoryStore) -> AuthLayer {
        AuthLayer::builder(endpoint(server)).http_client(server.clone()).store(store).build().unwrap()
    }
    fn by_hand(server: &AuthServer, store: MemoryStore) -> AuthLayer {
        let layer = layer_fn(move |endpoint: TokenEndpoint<_>| {
            StoreLayer::new(store.clone(), endpoint.identity()).layer(endpoint)
        });
        AuthLayer::builder(endpoint(server)).http_client(server.clone()).token_layer(layer).build().unwrap()
    }
    fn around_another_source(server: &AuthServer, store: MemoryStore) -> AuthLayer {
        let other = layer(server, |cfg| cfg).handle();
        let source = tower::service_fn(move |request: TokenRequest| {
            let other = other.for_tenant(&request.tenant.unwrap());
            async move { other.token().await }
        });
        let stored = StoreLayer::new(store, StoreIdentity::named("other")).layer(source);
        let cfg = edit(AuthConfig::external(), server, Tenant::header(HEADER).per_tenant_tokens());
        AuthLayer::with_source(cfg.build().unwrap(), BoxTokenSource::new(stored))
    }

    for process in [as_usual, by_hand, around_another_source] {
        let (server, store) = (server(), MemoryStore::new());
        process(&server, store.clone()).handle().for_tenant(&tenant(1)).token().await.unwrap();
        let auth = process(&server, store).handle();
        let asking = tokio::spawn({
            let auth = auth.clone();
            async move { outcome(&auth, 0).await }
        });
        sleep(MS).await;
        let start = Instant::now();
        outcome(&auth, 1).await.unwrap();
        assert!(start.elapsed() < 100 * MS, "it waited {:?} for a token request of another tenant", start.elapsed());
        asking.await.unwrap().unwrap();
        assert_eq!((server.token_requests(), server.max_in_flight()), (2, 1));
    }
}

/// Behaviour 140.
#[tokio::test(start_paused = true)]
async fn refused_tenants_beyond_the_bound_cannot_ask_again_and_again() {
    let server = server().latency(MS);
    server.always(Fault::error("unauthorized_client"));
    let auth = handle(&server, |cfg| cfg.max_partitions(1_000));
    let start = Instant::now();
    for round in 0..20 {
        sleep_until(start + round * 1_500 * MS).await;
        for chunk in 0..40 {
            join_all((0..50).map(|number| outcome(&auth, chunk * 50 + number))).await;
        }
    }
    assert!(start.elapsed() < 30 * SECOND, "within one pause");
    assert!(server.token_requests() <= 1_600, "{} token requests in one pause", server.token_requests());
    assert!(auth.stats().partitions <= 1 + 1_000);
}

/// Behaviour 140 (no tenant that there is suffers).
#[tokio::test(start_paused = true)]
async fn tenants_that_get_tokens_are_not_counted_among_the_invented() {
    let server = server().latency(MS);
    let auth = handle(&server, |cfg| cfg.max_partitions(50));
    for number in 0..3_000 {
        assert!(outcome(&auth, number).await.is_ok(), "{number}");
    }
}

/// Behaviour 143.
#[tokio::test(start_paused = true)]
async fn rejections_in_many_partitions_at_once_keep_to_the_permits() {
    const TENANTS: usize = 500;
    let server = server();
    let api = Api::new(&server).tenant_header(HEADER);
    let client = layer(&server, |cfg| cfg).layer(api);
    let send_all = || {
        join_all((0..TENANTS).map(|number| {
            let mut request = http::Request::get("https://api.example.com/").body(String::new()).unwrap();
            request.extensions_mut().insert(tenant(number));
            client.clone().oneshot(request)
        }))
    };
    for revoked in [false, true] {
        if revoked {
            server.revoke_all();
        }
        assert!(send_all().await.into_iter().all(|response| response.unwrap().status() == 200));
    }
    assert_eq!((server.token_requests(), server.max_in_flight()), (2 * TENANTS, 64));
}

/// Behaviour 141.
#[tokio::test(start_paused = true)]
async fn partitions_are_back_at_their_bound_within_seconds_though_nobody_asks() {
    for fault in [Fault::Pass, Fault::error("unauthorized_client"), Fault::Status(503)] {
        let server = server();
        server.always(fault.clone());
        let auth = handle(&server, |cfg| cfg);
        for number in 0..20_000 {
            // The caller gives up at once.
            let _ = auth.for_tenant(&tenant(number)).token().now_or_never();
        }
        let most = auth.stats().partitions;
        // All of them have ended: nobody waits for a permit longer than that.
        sleep(11 * SECOND).await;
        auth.shutdown().await;
        sleep(10 * SECOND).await;
        let partitions = auth.stats().partitions;
        assert!(partitions <= 1 + 1_024, "{fault:?}: {partitions} partitions at a bound of 1 024; there were {most}");
    }
}

/// Behaviour 142.
#[test]
fn counters_never_fall() {
    let source = tower::service_fn(|request: TokenRequest| async move {
        let tenant = request.tenant.unwrap();
        if tenant.as_str().ends_with('7') {
            return Err(TokenError::permanent("no such tenant"));
        }
        Token::bearer(tenant.as_str()).map_err(TokenError::permanent)
    });
    let cfg = AuthConfig::external()
        .tenant(Tenant::header(HEADER).per_tenant_tokens())
        .origin("https://api.example.com")
        .max_partitions(64)
        .build()
        .unwrap();
    let auth = AuthLayer::with_source(cfg, source).handle();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let churn: Vec<_> = (0..2)
        .map(|task| {
            let auth = auth.clone();
            runtime.spawn(async move {
                for number in 0..5_000 {
                    let _ = auth.for_tenant(&tenant(task * 10_000 + number)).token().await;
                }
            })
        })
        .collect();
    let (mut requests, mut failures, mut looks) = (0, 0, 0);
    // At least once, however busy the machine is.
    while looks == 0 || churn.iter().any(|task| !task.is_finished()) {
        let stats = auth.stats();
        assert!(stats.token_requests >= requests, "token requests fell from {requests} to {}", stats.token_requests);
        assert!(stats.token_failures >= failures, "failures fell from {failures} to {}", stats.token_failures);
        (requests, failures) = (stats.token_requests, stats.token_failures);
        looks += 1;
    }
    runtime.block_on(join_all(churn)).into_iter().for_each(Result::unwrap);
    let tenants: BTreeSet<_> = (0..2).flat_map(|task| (0..5_000).map(move |number| task * 10_000 + number)).collect();
    let refused = tenants.iter().filter(|number| *number % 10 == 7).count() as u64;
    let stats = auth.stats();
    assert!(looks > 0 && stats.token_failures <= refused, "{looks} looks, {} failures", stats.token_failures);
    assert!(stats.token_requests <= tenants.len() as u64, "{} token requests", stats.token_requests);
}
