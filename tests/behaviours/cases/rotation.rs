//! Rotation: refresh tokens, and tokens that change under way.

use std::sync::Arc;
use std::time::Duration;

use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};

use crate::cases;
use crate::subject::{CLIENT_ID, Offered, Settings, Subject, World, get, send, start, succeed};

cases! {
    /// Behaviour 79.
    79, "a new refresh token replaces the old one", rotated;
    /// Behaviour 79.
    79, "without a new refresh token the old one stays", kept;
    /// Behaviour 82.
    82, "an answer that comes too late does not replace a newer token", late_answer;
    /// Behaviour 83.
    83, "a refusal of the old refresh token leaves its successor in place", successor_survives;
    /// Behaviour 84.
    84, "only `invalid_grant` ends a grant", what_ends_a_grant;
    /// Behaviour 85.
    85, "the token of a refresh that is up when others are invalidated is used", invalidated_in_flight;
    /// Behaviour 85.
    85, "what was asked for with old credentials is thrown away", new_credentials_in_flight;
}

const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(700);

fn signed_in(world: &World) -> Settings {
    Settings { refresh_token: Some(world.auth.sign_in(CLIENT_ID, "")), ..Settings::default() }
}

fn refresh_tokens_sent(world: &World) -> Vec<String> {
    world.auth.requests().iter().filter_map(|request| request.param("refresh_token")).collect()
}

async fn rotated(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.issue_refresh_tokens());
    let client = world.subject(&subject, signed_in(&world))?.client;
    for _ in 0..5 {
        succeed(&client, get("/")).await;
        world.pass(HOUR).await;
    }
    let mut sent = refresh_tokens_sent(&world);
    sent.dedup();
    assert_eq!((sent.len(), world.auth.refresh_token_reuses()), (5, 0));
    Ok(())
}

async fn kept(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.without_rotation());
    let client = world.subject(&subject, signed_in(&world))?.client;
    for _ in 0..5 {
        succeed(&client, get("/")).await;
        world.pass(HOUR).await;
    }
    let mut sent = refresh_tokens_sent(&world);
    assert_eq!(sent.len(), 5);
    sent.dedup();
    assert_eq!(sent.len(), 1);
    Ok(())
}

async fn late_answer(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    let newer = world.token_from_elsewhere().await;
    world.auth.script([Fault::Slow(Duration::from_secs(10))]);
    let first = start(&setup.client, get("/"));
    world.pass(Duration::from_secs(1)).await;
    setup.control.hand_in(&newer, None)?;
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_ne!(world.auth.last_token().unwrap(), newer, "the late answer brought another token");
    succeed(&setup.client, get("/")).await;
    assert_eq!(world.shown_tokens().last(), Some(&newer));
    Ok(())
}

async fn successor_survives(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.without_rotation());
    let setup = world.subject(&subject, signed_in(&world))?;
    world.auth.script([Fault::Slow(Duration::from_secs(10))]);
    let first = start(&setup.client, get("/"));
    world.pass(Duration::from_secs(1)).await;
    world.auth.revoke_refresh_tokens();
    let successor = world.auth.sign_in(CLIENT_ID, "");
    setup.control.hand_in(&world.token_from_elsewhere().await, Some(&successor))?;
    world.pass(Duration::from_secs(20)).await;
    let _ = first.await;
    world.pass(HOUR).await;
    succeed(&setup.client, get("/")).await;
    assert_eq!(refresh_tokens_sent(&world).last(), Some(&successor));
    Ok(())
}

async fn what_ends_a_grant(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.without_rotation());
    let client = world.subject(&subject, signed_in(&world))?.client;
    succeed(&client, get("/")).await;
    for code in ["invalid_request", "unauthorized_client", "invalid_client", "invalid_scope", "access_denied"] {
        world.pass(2 * HOUR).await;
        world.auth.script([Fault::error(code)]);
        assert!(send(&client, get("/")).await.is_err(), "{code}");
        world.pass(LONG).await;
        succeed(&client, get("/")).await;
    }
    world.pass(2 * HOUR).await;
    world.auth.script([Fault::error("invalid_grant")]);
    assert!(send(&client, get("/")).await.is_err());
    let sent = refresh_tokens_sent(&world).len();
    world.pass(LONG).await;
    assert!(send(&client, get("/")).await.is_err(), "somebody has to sign in again");
    assert_eq!(refresh_tokens_sent(&world).len(), sent, "a dead refresh token is not sent again");
    Ok(())
}

async fn invalidated_in_flight(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(Duration::from_secs(5)));
    let setup = world.subject(&subject, Settings::default())?;
    let first = start(&setup.client, get("/"));
    world.pass(Duration::from_secs(1)).await;
    setup.control.invalidate()?;
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    succeed(&setup.client, get("/")).await;
    assert_eq!(world.auth.token_requests(), 1);
    setup.control.invalidate()?;
    succeed(&setup.client, get("/")).await;
    assert_eq!(world.auth.token_requests(), 2, "with no refresh up, the old token is forgotten");
    Ok(())
}

async fn new_credentials_in_flight(subject: Arc<dyn Subject>) -> Offered {
    // This server takes any secret, so that only the client can tell old tokens from new.
    let clock = TestClock::new();
    let auth = AuthServer::new(clock.clone());
    let world = World { api: Api::new(&auth), auth, clock };
    let setup = world.subject(&subject, Settings::default())?;
    world.auth.script([Fault::Slow(Duration::from_secs(10))]);
    let first = start(&setup.client, get("/"));
    world.pass(Duration::from_secs(1)).await;
    setup.control.replace_secret("another")?;
    succeed(&setup.client, get("/")).await;
    let with_new_secret = world.auth.last_token();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    world.pass(Duration::from_secs(20)).await;
    assert_ne!(world.auth.last_token(), with_new_secret, "the late answer brought another token");
    succeed(&setup.client, get("/")).await;
    assert!(world.shown_tokens().iter().all(|token| Some(token) == with_new_secret.as_ref()));
    assert_eq!(world.auth.token_requests(), 2);
    Ok(())
}
