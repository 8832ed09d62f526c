//! Cancellation, deadlines, panics: whoever leads, leaves or breaks, the others get their token.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::Fault;

use crate::cases;
use crate::subject::{CLIENT_ID, Client, Offered, Settings, Subject, World, get, send, start};

cases! {
    /// Behaviour 16.
    16, "the leader is dropped: the followers succeed with its token request", leader_cancelled;
    /// Behaviour 17.
    17, "the leader's own timeout does not end the refresh", leader_times_out;
    /// Behaviour 18.
    18, "a follower leaves by its own deadline and the refresh goes on", followers_deadline_is_its_own;
    /// Behaviour 19.
    19, "all waiters gone: the refresh completes and its token is used", all_waiters_gone;
    /// Behaviour 19.
    19, "all waiters gone: a rotated refresh token is kept", all_waiters_gone_with_a_refresh_token;
    /// Behaviour 20.
    20, "the leader's task panics: the followers are served", leader_panics;
    /// Behaviour 20.
    20, "the token client panics: the followers get an error, and it is called again after a pause", token_client_panics;
    /// Behaviour 21.
    21, "a token request that hangs ends in an error for all, and the next call works", token_request_hangs;
    /// Behaviour 24.
    24, "cancelled while the answer arrives: the token is kept", cancelled_while_the_answer_arrives;
}

const SECOND: Duration = Duration::from_secs(1);

async fn leader_cancelled(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let client = world.client(&subject)?;
    let began = Instant::now();
    let leader = start(&client, get("/leader"));
    world.pass(SECOND / 2).await;
    let followers: Vec<_> = (0..10).map(|_| start(&client, get("/"))).collect();
    world.pass(SECOND / 2).await;
    assert_eq!(world.auth.in_flight(), 1);
    leader.abort();
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 10));
    Ok(())
}

async fn leader_times_out(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let client = world.client(&subject)?;
    let began = Instant::now();
    let leader = start(&within(SECOND, &client), get("/"));
    world.pass(Duration::from_millis(1)).await;
    let follower = start(&within(5 * SECOND, &client), get("/"));
    assert!(leader.await.unwrap().unwrap_err().is::<tower::timeout::error::Elapsed>());
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(follower.await.unwrap().unwrap().status(), 200);
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}

async fn followers_deadline_is_its_own(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let client = world.client(&subject)?;
    let leader = start(&client, get("/"));
    world.pass(SECOND / 2).await;
    let began = Instant::now();
    assert!(send(&within(SECOND / 10, &client), get("/")).await.is_err());
    assert_eq!(began.elapsed(), SECOND / 10);
    world.pass(Duration::from_millis(1)).await;
    assert_eq!(world.auth.in_flight(), 1);
    assert_eq!(leader.await.unwrap().unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 1));
    Ok(())
}

async fn all_waiters_gone(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let client = world.client(&subject)?;
    abandon(&world, &client).await;
    assert!(world.auth.last_token().is_some(), "the token request was given up");

    let began = Instant::now();
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}

async fn all_waiters_gone_with_a_refresh_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let refresh_token = Some(world.auth.sign_in(CLIENT_ID, ""));
    let client = world.subject(&subject, Settings { refresh_token, ..Settings::default() })?.client;
    abandon(&world, &client).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 1);
    // The next refresh redeems what the first one brought.
    world.pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
    Ok(())
}

async fn leader_panics(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(2 * SECOND));
    let client = world.client(&subject)?;
    let leads = timeout(SECOND, client.clone().oneshot(get("/"))).map(|_| quiet_panic());
    let leader = tokio::spawn(leads);
    world.pass(SECOND / 2).await;
    let followers: Vec<_> = (0..10).map(|_| start(&client, get("/"))).collect();
    assert!(leader.await.unwrap_err().is_panic());
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}

async fn token_client_panics(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, auth) = (calls.clone(), world.auth.clone());
    let token_client = service_fn(move |request| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        let answer = auth.clone().call(request);
        async move {
            if first {
                tokio::time::sleep(SECOND).await;
                quiet_panic();
            }
            answer.await
        }
    });
    let token_client = Some(BoxCloneSyncService::new(token_client));
    let client = world.subject(&subject, Settings { token_client, ..Settings::default() })?.client;

    let leader = start(&client, get("/"));
    world.pass(SECOND / 2).await;
    let followers: Vec<_> = (0..10).map(|_| start(&client, get("/"))).collect();
    // A subject that has no task of its own for it takes the leader down; the others must not notice.
    let _ = leader.await;
    for follower in followers {
        let result = timeout(60 * SECOND, follower).await.expect("a follower hangs");
        assert!(result.expect("a follower panicked").is_err());
    }
    assert_eq!((calls.load(Ordering::Relaxed), world.api.hits()), (1, 0));
    // After the pause of a failure that may pass.
    world.pass(SECOND).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    Ok(())
}

async fn token_request_hangs(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    for fault in [Fault::Hang, Fault::HangInBody] {
        world.auth.script([fault]);
        let requests = world.auth.token_requests();
        let began = Instant::now();
        let waiters: Vec<_> = (0..10).map(|_| start(&client, get("/"))).collect();
        for waiter in waiters {
            assert!(waiter.await.unwrap().is_err());
        }
        assert!(began.elapsed() <= 30 * SECOND, "it took {:?}", began.elapsed());
        assert_eq!(world.auth.token_requests(), requests + 1);
        world.pass(2 * SECOND).await;
    }
    assert_eq!(world.api.hits(), 0);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 3);
    Ok(())
}

async fn cancelled_while_the_answer_arrives(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let refresh_token = Some(world.auth.sign_in(CLIENT_ID, ""));
    let client = world.subject(&subject, Settings { refresh_token, ..Settings::default() })?.client;
    world.auth.script([Fault::Drip(Duration::from_millis(20))]);
    let waiters: Vec<_> = (0..10).map(|_| start(&client, get("/"))).collect();
    world.pass(SECOND).await;
    assert!(world.auth.last_token().is_some() && !waiters[0].is_finished());
    waiters.iter().for_each(|waiter| waiter.abort());
    world.pass(9 * SECOND).await;

    let began = Instant::now();
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(world.auth.token_requests(), 1);
    world.pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
    Ok(())
}

/// Some wait for the first token, and all give up before it comes.
async fn abandon(world: &World, client: &Client) {
    let waiters: Vec<_> = (0..3).map(|_| start(client, get("/"))).collect();
    world.pass(SECOND).await;
    assert_eq!(world.auth.in_flight(), 1);
    waiters.iter().for_each(|waiter| waiter.abort());
    world.pass(5 * SECOND).await;
    assert_eq!((world.auth.in_flight(), world.api.hits()), (0, 0));
}

fn within(limit: Duration, client: &Client) -> Client {
    BoxCloneSyncService::new(Timeout::new(client.clone(), limit))
}

/// A panic on purpose, recognisable in the output.
fn quiet_panic() {
    panic_any("on purpose");
}
