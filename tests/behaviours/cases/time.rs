//! Time: how long tokens live, and when they are renewed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tower_oauth2_client::test_util::{Body, Fault};
use tower_oauth2_client::{BoxError, Clock};

use crate::cases;
use crate::subject::{Client, Offered, Setting, Settings, Subject, World, get, send_all, succeed};

cases! {
    /// Behaviour 70.
    70, "whatever `expires_in` says, requests are served by few tokens", whatever_expires_in_says;
    /// Behaviour 71.
    71, "tokens for 30 s make about two token requests a minute", tokens_for_half_a_minute;
    /// Behaviour 72.
    72, "tokens for a second make no tight loop", tokens_for_a_second;
    /// Behaviour 73.
    73, "clients that start together do not renew together", renewals_spread;
    /// Behaviour 74.
    74, "a token that expired in a suspend is not used", suspended_for_two_hours;
    /// Behaviour 74.
    74, "a clock that is set back does not lengthen a token's life", clock_set_back;
    /// Behaviour 75.
    75, "a token that expires between readiness and sending is not sent", stamped_when_sent;
    /// Behaviour 75.
    75, "a token that expires below is recovered", expired_below;
    /// Behaviour 76.
    76, "the expiry inside the token counts where it is configured", expiry_inside_the_token;
    /// Behaviour 76.
    76, "opaque tokens are passed on untouched", opaque_tokens_are_untouched;
    /// Behaviour 77.
    77, "a server whose clock is off by five minutes is no trouble", server_clock_off;
    /// Behaviour 78.
    78, "a hundred requests in the renewal window: one refresh, no waits", renewal_window;
}

const HOUR: Duration = Duration::from_secs(3600);

/// Sends requests that must succeed, one every so often.
async fn traffic(world: &World, client: &Client, every: Duration, span: Duration) {
    let ends = Instant::now() + span;
    while Instant::now() < ends {
        succeed(client, get("/")).await;
        world.pass(every).await;
    }
}

async fn whatever_expires_in_says(subject: Arc<dyn Subject>) -> Offered {
    for json in ["3600", r#""3600""#, "3600.0", r#""3600.5""#, "null", "0", "-1", "1e18", r#""abc""#, "{}", ""] {
        let world = World::with(|auth| match json {
            "" => auth.omit_expires_in(),
            json => auth.announce_expires_in(json),
        });
        let client = world.client(&subject)?;
        for _ in 0..10 {
            succeed(&client, get("/")).await;
        }
        assert_eq!(world.auth.token_requests(), 1, "{json}");
        traffic(&world, &client, Duration::from_millis(100), Duration::from_secs(10)).await;
        assert!(world.auth.token_requests() <= 12, "{json}: {}", world.auth.token_requests());
        world.auth.revoke_all();
        succeed(&client, get("/")).await;
    }
    Ok(())
}

async fn tokens_for_half_a_minute(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.lifetime(Duration::from_secs(30)));
    let client = world.client(&subject)?;
    traffic(&world, &client, Duration::from_millis(250), Duration::from_secs(600)).await;
    let requests = world.auth.token_requests();
    assert!((20..=30).contains(&requests), "{requests} token requests in ten minutes");
    Ok(())
}

async fn tokens_for_a_second(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.lifetime(Duration::from_secs(1)));
    let client = world.client(&subject)?;
    traffic(&world, &client, Duration::from_millis(10), Duration::from_secs(20)).await;
    let requests = world.auth.token_requests();
    assert!(requests <= 25, "{requests} token requests in 20 s");
    Ok(())
}

async fn renewals_spread(subject: Arc<dyn Subject>) -> Offered {
    const CLIENTS: usize = 50;
    let world = World::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(world.client(&subject)?);
    }
    let start = world.clock.now().monotonic;
    for _ in 0..120 {
        for client in &clients {
            succeed(client, get("/")).await;
        }
        world.pass(Duration::from_secs(30)).await;
    }
    let renewals = world.auth.requests().split_off(CLIENTS);
    assert!(renewals.len() >= CLIENTS, "{} renewals", renewals.len());
    let mut a_minute = [0; 60];
    for renewal in renewals {
        a_minute[(renewal.at.monotonic - start).as_secs() as usize / 60] += 1;
    }
    assert!(a_minute.iter().all(|count| *count < CLIENTS / 3), "{a_minute:?}");
    Ok(())
}

async fn suspended_for_two_hours(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    world.clock.suspend(2 * HOUR);
    // A client may take a second to look at its clocks.
    world.pass(Duration::from_millis(1_100)).await;
    succeed(&client, get("/")).await;
    assert_eq!((world.api.unauthorized(), world.auth.token_requests()), (0, 2));
    Ok(())
}

async fn clock_set_back(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    world.clock.set_wall_back(HOUR);
    traffic(&world, &client, Duration::from_secs(60), 2 * HOUR).await;
    assert_eq!(world.api.unauthorized(), 0);
    Ok(())
}

async fn stamped_when_sent(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let mut client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    client.ready().await.unwrap();
    world.pass(2 * HOUR).await;
    assert_eq!(client.call(get("/")).await.unwrap().status(), 200);
    assert_eq!(world.api.unauthorized(), 0);
    Ok(())
}

async fn expired_below(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = subject.client_over(queued(&world, 2 * HOUR), &world, &Settings::default());
    let client = setup.ok_or(crate::subject::NotOffered)?.client;
    succeed(&client, get("/")).await;
    assert_eq!((world.api.unauthorized(), world.api.hits()), (1, 2));
    Ok(())
}

/// The API behind a queue in which the first request spends this long.
fn queued(world: &World, wait: Duration) -> Client {
    let api = world.api.clone();
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| -> Answer {
        let wait = if api.hits() == 0 { wait } else { Duration::ZERO };
        let answer = api.clone().oneshot(request).boxed();
        tokio::time::sleep(wait).then(|()| answer).boxed()
    }))
}

type Answer = BoxFuture<'static, Result<Response<Body>, BoxError>>;

async fn expiry_inside_the_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.jwt_tokens().announce_expires_in("86400"));
    let settings = Settings { more: vec![Setting::JwtExpOnly], ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    traffic(&world, &client, Duration::from_secs(10), 4 * HOUR).await;
    assert_eq!(world.api.unauthorized(), 0);
    assert!((4..=10).contains(&world.auth.token_requests()), "{}", world.auth.token_requests());
    Ok(())
}

async fn opaque_tokens_are_untouched(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    // Looks like a JWT and is none.
    for token in ["a.b.c", "ZXlK.e30.", "...", "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.", "-._~+/="] {
        let answer = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":60}}"#);
        world.auth.script([Fault::Body(answer.into())]);
        world.api.script([Fault::Status(200)]);
        succeed(&client, get("/")).await;
        assert_eq!(world.shown_tokens().last().map(String::as_str), Some(token));
        world.pass(HOUR).await;
    }
    Ok(())
}

async fn server_clock_off(subject: Arc<dyn Subject>) -> Offered {
    for seconds in [300, -300] {
        for lifetime in [240, 3600] {
            for more in [vec![], vec![Setting::JwtExpOnly]] {
                let lifetime = Duration::from_secs(lifetime);
                let world = World::with(|auth| auth.jwt_tokens().clock_ahead(seconds).lifetime(lifetime));
                let settings = Settings { more: more.clone(), ..Settings::default() };
                let client = match world.subject(&subject, settings) {
                    Ok(setup) => setup.client,
                    Err(_) if !more.is_empty() => continue,
                    Err(not_offered) => return Err(not_offered),
                };
                traffic(&world, &client, Duration::from_millis(100), Duration::from_secs(1000)).await;
                let requests = world.auth.requests();
                for pair in requests.windows(2) {
                    let between = pair[1].at.monotonic - pair[0].at.monotonic;
                    assert!(between >= Duration::from_millis(900), "{seconds} s, {more:?}: {between:?}");
                }
            }
        }
    }
    Ok(())
}

async fn renewal_window(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    world.pass(Duration::from_secs(3400)).await;
    world.auth.script([Fault::Slow(Duration::from_secs(5))]);
    let sent = Instant::now();
    for response in send_all(&client, (0..100).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(sent.elapsed(), Duration::ZERO, "nobody waits");
    world.pass(Duration::from_secs(10)).await;
    succeed(&client, get("/")).await;
    assert_eq!(world.auth.token_requests(), 2);
    assert_eq!(world.shown_tokens().last(), world.auth.last_token().as_ref());
    Ok(())
}
