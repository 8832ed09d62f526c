//! Single flight: however many wait, one token request.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneSyncService;
use tower_oauth2_client::test_util::Fault;

use crate::cases;
use crate::subject::{
    NotOffered, Offered, Settings, Subject, Tenancy, World, bearer_of, for_tenant, get, send, send_all, start,
};

cases! {
    /// Behaviour 1.
    1, "cold herd: 1000 requests without a token make one token request", cold_herd;
    /// Behaviour 2.
    2, "expired herd: 1000 requests with an expired token make one token request", expired_herd;
    /// Behaviour 3.
    3, "simultaneous 401s: one refresh, each request sent at most twice", simultaneous_401s;
    /// Behaviour 4.
    4, "a 401 for the token before the current one: no refresh, resent with the current one", staggered_401s;
    /// Behaviour 5.
    5, "401s for two older tokens: no refresh, both resent with the current one", staggered_across_generations;
    /// Behaviour 6.
    6, "a 401 while a background refresh runs joins it", rejected_during_a_background_refresh;
    /// Behaviour 7.
    7, "refreshes by 401 and by expiry at the same time are one token request", forced_and_ordinary_share_a_refresh;
    /// Behaviour 9.
    9, "a request that was held up is judged by the token in its header", stamp_is_the_snapshot;
    /// Behaviour 11.
    11, "the end of an older refresh does not remove a newer one", older_refresh_leaves_the_newer_alone;
    /// Behaviour 12.
    12, "a token request that hangs for one tenant does not delay another", tenants_fly_in_parallel;
    /// Behaviour 13.
    13, "while a background refresh runs requests go out at once", background_refresh_delays_nobody;
    /// Behaviour 13.
    13, "while a refresh after a bare 401 runs requests go out at once", bare_401_delays_nobody_else;
    /// Behaviour 13.
    13, "after `invalid_token` requests wait for the one refresh", invalid_token_holds_requests_back;
    /// Behaviour 14.
    14, "a response without an end keeps nobody from sending or refreshing", endless_response;
    /// Behaviour 15.
    15, "clones, and services made for each request, share one refresh", clones_share_a_refresh;
}

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// Past every point of background renewal of a token that lives an hour, and before its margin.
const STALE: Duration = Duration::from_secs(3100);

async fn cold_herd(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(SECOND));
    let client = world.client(&subject)?;
    for response in send_all(&client, (0..1000).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 1000));
    Ok(())
}

async fn expired_herd(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(SECOND));
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.pass(2 * HOUR).await;
    for response in send_all(&client, (0..1000).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1001));
    assert_eq!(world.api.unauthorized(), 0, "the expired token was sent");
    Ok(())
}

async fn simultaneous_401s(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(SECOND)).api(|api| api.latency(Duration::from_millis(10)));
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.revoke_all();
    for response in send_all(&client, (0..100).map(|n| get(&format!("/{n}")))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(world.auth.token_requests(), 2);
    assert_eq!(world.api.unauthorized(), 100);
    for n in 0..100 {
        let path = format!("/{n}");
        let sendings = world.api.requests().iter().filter(|request| request.uri.path() == path).count();
        assert_eq!(sendings, 2, "{path}");
    }
    Ok(())
}

async fn staggered_401s(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(SECOND));
    let setup = world.subject(&subject, Settings::default())?;
    send(&setup.client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.api.script([Fault::Slow(5 * SECOND)]);
    let b = start(&setup.client, get("/b"));
    let a = start(&setup.client, get("/a"));
    assert_eq!(a.await.unwrap().unwrap().status(), 200);
    assert!(!b.is_finished());
    assert_eq!(world.auth.token_requests(), 2);

    let b = b.await.unwrap().unwrap();
    assert_eq!(b.status(), 200);
    assert_eq!(world.auth.token_requests(), 2);
    assert_eq!((world.api.hits(), world.api.unauthorized()), (5, 2));
    if let Ok(outcome) = setup.control.outcome(&b) {
        assert!(outcome.resent && !outcome.refreshed, "{outcome:?}");
    }
    Ok(())
}

async fn staggered_across_generations(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    let mut stragglers = Vec::new();
    for path in ["/first", "/second"] {
        world.auth.revoke_all();
        world.api.script([Fault::Slow(HOUR / 4)]);
        stragglers.push(start(&client, get(path)));
        world.pass(SECOND).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        world.pass(SECOND).await;
    }
    assert_eq!(world.auth.token_requests(), 3);
    let current = world.auth.last_token();
    for straggler in stragglers {
        assert!(!straggler.is_finished());
        assert_eq!(straggler.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.auth.token_requests(), 3);
    let sent = |path: &str| bearer_of(&world, path);
    assert_eq!((sent("/first").len(), sent("/second").len()), (2, 2));
    assert_ne!(sent("/first")[0], sent("/second")[0]);
    assert_eq!((sent("/first").last().cloned(), sent("/second").last().cloned()), (current.clone(), current));
    Ok(())
}

async fn rejected_during_a_background_refresh(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.pass(STALE).await;
    world.auth.script([Fault::Slow(5 * SECOND)]);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    world.pass(SECOND).await;
    if world.auth.in_flight() == 0 {
        return Err(NotOffered);
    }
    world.auth.revoke_all();
    let rejected = Instant::now();
    assert_eq!(send(&client, get("/rejected")).await.unwrap().status(), 200);
    assert_eq!(rejected.elapsed(), 4 * SECOND);
    assert_eq!(bearer_of(&world, "/rejected").len(), 2);
    assert_eq!((world.auth.token_requests(), world.auth.max_in_flight()), (2, 1));
    Ok(())
}

async fn forced_and_ordinary_share_a_refresh(subject: Arc<dyn Subject>) -> Offered {
    // Expiry first, then a 401.
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.api.script([Fault::Slow(HOUR + 100 * SECOND)]);
    let rejected = start(&client, get("/"));
    world.pass(HOUR + 99 * SECOND).await;
    world.auth.script([Fault::Slow(5 * SECOND)]);
    let expired = start(&client, get("/"));
    world.pass(3 * SECOND).await;
    assert_eq!((world.api.unauthorized(), world.auth.in_flight()), (1, 1));
    assert_eq!(rejected.await.unwrap().unwrap().status(), 200);
    assert_eq!(expired.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 2);

    // A 401 first, then expiry.
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.api.script([Fault::Slow(HOUR - 2 * SECOND)]);
    let rejected = start(&client, get("/"));
    world.auth.script([Fault::Slow(5 * SECOND)]);
    world.pass(HOUR).await;
    assert_eq!((world.api.unauthorized(), world.auth.in_flight()), (1, 1));
    let expired = start(&client, get("/"));
    assert_eq!(expired.await.unwrap().unwrap().status(), 200);
    assert_eq!(rejected.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 2);
    Ok(())
}

async fn stamp_is_the_snapshot(subject: Arc<dyn Subject>) -> Offered {
    for revoked_meanwhile in [false, true] {
        let world = World::with(|auth| auth.latency(2 * SECOND));
        let inner = BoxCloneSyncService::new(ConcurrencyLimit::new(world.api.clone(), 1));
        let setup = subject.client_over(inner.clone(), &world, &Settings::default()).ok_or(NotOffered)?;
        // It has its token after 2 s, and then waits for its turn behind another request.
        let queued = start(&setup.client, get("/queued"));
        world.pass(SECOND).await;
        world.api.script([Fault::Slow(20 * SECOND)]);
        let blocker = start(&inner, get("/blocker"));
        world.pass(5 * SECOND).await;
        assert_eq!(world.auth.token_requests(), 1);
        // Meanwhile another token lands.
        let first = world.auth.last_token().unwrap();
        let other = world.token_from_elsewhere().await;
        world.auth.revoke(&first);
        setup.control.hand_in(&other, None)?;
        if revoked_meanwhile {
            world.auth.revoke(&other);
        }
        assert_eq!(blocker.await.unwrap().unwrap().status(), 401);
        assert_eq!(queued.await.unwrap().unwrap().status(), 200);
        let sent = bearer_of(&world, "/queued");
        assert_eq!(sent[0], other, "the newest token is the one to send");
        // Judged by the older stamp, the rejection would resend the very token that was rejected.
        assert_eq!(sent.len(), 1 + usize::from(revoked_meanwhile));
        assert_eq!(world.auth.token_requests(), 2 + usize::from(revoked_meanwhile), "one of them is the test's own");
    }
    Ok(())
}

async fn older_refresh_leaves_the_newer_alone(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    world.auth.script([Fault::Slow(8 * SECOND), Fault::Slow(8 * SECOND)]);
    let began = Instant::now();
    let first = start(&setup.client, get("/first"));
    let leaves = start(&setup.client, get("/leaves"));
    world.pass(2 * SECOND).await;
    setup.control.replace_secret(crate::subject::SECRET)?;
    let second = start(&setup.client, get("/second"));
    // The first refresh has landed in vain; the second has another second to go.
    world.pass(7 * SECOND).await;
    assert_eq!((world.auth.token_requests(), world.auth.in_flight()), (2, 1));
    world.auth.revoke(&world.auth.last_token().unwrap());
    leaves.abort();
    let third = start(&setup.client, get("/third"));
    for request in [first, second, third] {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (2, 0));
    Ok(())
}

async fn tenants_fly_in_parallel(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.tenant_header("x-tenant")).api(|api| api.tenant_header("x-tenant"));
    let settings = Settings { tenant: Tenancy::TokenPerTenant("x-tenant"), ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    world.auth.script([Fault::Hang]);
    let hanging = start(&client, for_tenant(get("/"), "a"));
    world.pass(SECOND).await;
    assert_eq!(world.auth.in_flight(), 1);

    let began = Instant::now();
    assert_eq!(send(&client, for_tenant(get("/"), "b")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(!hanging.is_finished());
    assert_eq!(world.auth.token_requests(), 2);
    assert!(hanging.await.unwrap().is_err(), "and what hangs ends in an error");
    Ok(())
}

async fn background_refresh_delays_nobody(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.pass(STALE).await;
    world.auth.script([Fault::Slow(5 * SECOND)]);
    let began = Instant::now();
    for response in send_all(&client, (0..100).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    tokio::task::yield_now().await;
    if world.auth.in_flight() == 0 {
        return Err(NotOffered);
    }
    world.pass(10 * SECOND).await;
    send(&client, get("/after")).await.unwrap();
    assert_eq!(bearer_of(&world, "/after")[0], world.auth.last_token().unwrap());
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (2, 0));
    Ok(())
}

async fn bare_401_delays_nobody_else(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(|api| api.deny_path("/denied"));
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.script([Fault::Slow(5 * SECOND)]);
    let denied = start(&client, get("/denied"));
    world.pass(SECOND).await;
    assert_eq!(world.auth.in_flight(), 1);
    let began = Instant::now();
    for response in send_all(&client, (0..100).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(denied.await.unwrap().unwrap().status(), 401);
    assert_eq!(world.auth.token_requests(), 2);
    Ok(())
}

async fn invalid_token_holds_requests_back(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.auth.script([Fault::Slow(5 * SECOND)]);
    let began = Instant::now();
    let rejected = start(&client, get("/"));
    world.pass(SECOND).await;
    for response in send_all(&client, (0..100).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(rejected.await.unwrap().unwrap().status(), 200);
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!(world.api.unauthorized(), 1, "the dead token was sent again");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 103));
    Ok(())
}

async fn endless_response(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    world.api.script([Fault::HangInBody, Fault::Hang]);
    let stream = send(&client, get("/events")).await.unwrap();
    let hanging = start(&client, get("/long-poll"));
    world.pass(SECOND).await;
    assert_eq!(world.api.hits(), 2);

    let began = Instant::now();
    for response in send_all(&client, (0..10).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.pass(2 * HOUR).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 2);
    assert!(!hanging.is_finished());
    drop(stream);
    Ok(())
}

async fn clones_share_a_refresh(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(SECOND));
    let setup = world.subject(&subject, Settings::default())?;
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.push(start(&setup.client.clone(), get("/")));
        requests.push(start(&setup.control.another_client(world.inner())?, get("/")));
    }
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.auth.token_requests(), 1);
    // And afterwards they share the token.
    send(&setup.control.another_client(world.inner())?, get("/")).await.unwrap();
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}
