//! What happens when whoever has the lease does not come to its end.

use std::future::pending;
use std::mem;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::store::StoreLayer;
use tower_oauth2_client::test_util::{AuthServer, Fault};
use tower_oauth2_client::{
    AuthConfigBuilder, AuthLayer, External, RefreshToken, Token, TokenEndpoint, TokenError, TokenErrorKind,
    TokenRequest,
};

use crate::world::{Call, HOUR, Process, SECOND, Trouble, World};

/// How long the others wait for a process that has died, and a little.
const LEASE: Duration = Duration::from_secs(11);

/// When a process comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has the lease, and nothing was sent.
    BeforeRedeem,
    /// The answer is on its way.
    BeforeSave,
    /// Everything but the lease is as it should be.
    AfterSave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As by `kill -9`: nothing is done any more.
    Killed,
    /// Its runtime ends.
    Dropped,
}

impl World {
    /// The token endpoint of a configuration.
    fn endpoint(&self, cfg: AuthConfigBuilder) -> TokenEndpoint<AuthServer> {
        TokenEndpoint::new(&cfg.build().unwrap(), self.auth.clone()).unwrap()
    }

    /// A process that gets the lease, and ends at that stage.
    async fn doomed(&self, cfg: AuthConfigBuilder, stage: Stage, end: End) {
        let endpoint = self.endpoint(cfg);
        let identity = endpoint.identity();
        let source = service_fn(move |request: TokenRequest| {
            let endpoint = endpoint.clone();
            async move {
                if stage == Stage::BeforeRedeem {
                    pending::<()>().await;
                }
                let token = endpoint.oneshot(request).await?;
                if stage == Stage::BeforeSave {
                    pending::<()>().await;
                }
                Ok::<_, TokenError>(token)
            }
        });
        if stage == Stage::AfterSave {
            self.store.trouble(Call::Release, Trouble::Hang);
        }
        let mut process = StoreLayer::new(self.store.clone(), identity).timeout(HOUR).layer(source);
        let mut call = process.call(TokenRequest::default());
        assert!(timeout(SECOND, &mut call).await.is_err());
        match end {
            End::Killed => mem::forget(call),
            End::Dropped => drop(call),
        }
        sleep(SECOND / 10).await;
        self.store.heal();
    }

    /// A process that has a refresh token to lose beside its primary grant: each answer brings one.
    fn with_primary(&self) -> Process {
        self.process(self.config())
    }
}

/// Behaviours 24 and 86.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_with_the_lease_costs_the_others_a_wait_and_no_refresh_token() {
    for end in [End::Killed, End::Dropped] {
        for (stage, requests, waits) in
            [(Stage::BeforeRedeem, 2, true), (Stage::BeforeSave, 3, true), (Stage::AfterSave, 2, false)]
        {
            let world = World::new();
            let auth = world.auth.clone().issue_refresh_tokens();
            world.with_primary().token().await;
            sleep(HOUR).await;
            world.doomed(world.config(), stage, end).await;

            let processes = world.processes(4, || world.config());
            let began = Instant::now();
            let tokens = join_all(processes.iter().map(|process| process.token())).await;
            assert!(tokens.iter().all(|token| *token == tokens[0]), "{stage:?} {end:?}");
            assert!(if waits { began.elapsed() < LEASE } else { began.elapsed() < SECOND }, "{stage:?} {end:?}");
            assert_eq!((auth.token_requests(), auth.refresh_token_reuses()), (requests, 0), "{stage:?} {end:?}");
            // The refresh token that may have been spent was not tried: the configured grant is there.
            if waits {
                assert_eq!(auth.requests().last().unwrap().param("grant_type").as_deref(), Some("client_credentials"));
            }
            // From here on it goes as ever.
            sleep(HOUR).await;
            join_all(processes.iter().map(|process| process.token())).await;
            assert_eq!((auth.token_requests(), auth.refresh_token_reuses()), (requests + 1, 0), "{stage:?} {end:?}");
        }
    }
}

/// Behaviour 86.
#[tokio::test(start_paused = true)]
async fn who_cannot_wait_for_a_dead_holder_gets_an_error_that_says_to_retry() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    world.doomed(world.signed_in(&first), Stage::BeforeRedeem, End::Killed).await;
    let hasty = world.process(world.signed_in(&first).refresh_deadline(3 * SECOND));
    let error = hasty.handle.token().await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (TokenErrorKind::Timeout, true));
    sleep(LEASE).await;
    // There is no other grant: the refresh token is sent once, and was not spent.
    hasty.token().await;
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (1, 0));
}

/// A holder whose request takes long renews its lease; nobody takes it away.
#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_the_token_request() {
    let world = World::new();
    world.auth.script([Fault::Slow(25 * SECOND)]);
    let first = world.auth.sign_in("id", "");
    let slow = || world.signed_in(&first).token_timeout(29 * SECOND);
    let processes = world.processes(4, slow);
    let tokens = join_all(processes.iter().map(|process| process.token())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(world.auth.token_requests(), 1);
}

/// Behaviour 87.
///
/// It wakes after its successor has stored a token, or while that one still asks.
#[tokio::test(start_paused = true)]
async fn what_a_holder_that_slept_through_its_lease_brings_is_not_stored() {
    for (wakes_after, successor_takes) in [(60, 0), (15, 9)] {
        let world = World::new();
        // A refresh token is in play: nobody asks beside the one who has the lease.
        let auth = world.auth.clone().issue_refresh_tokens();
        world.with_primary().token().await;
        sleep(HOUR).await;
        let auth = auth.latency(successor_takes * SECOND);
        let identity = world.endpoint(world.config()).identity();
        let source = service_fn(move |_: TokenRequest| async move {
            sleep(wakes_after * SECOND).await;
            let token = Token::bearer("stale").unwrap().with_expires_in(HOUR);
            Ok::<_, TokenError>(token.with_refresh_token(RefreshToken::Replace("stale-refresh-token".into_secret())))
        });
        world.store.trouble(Call::Renew, Trouble::Hang);
        let layer = StoreLayer::new(world.store.clone(), identity);
        let stopped = AuthLayer::with_source(external(&world), layer.layer(source)).handle();
        let stopped = tokio::spawn(async move { stopped.token().await });
        sleep(SECOND).await;

        let token = world.process(world.config()).token().await;
        assert_ne!(token, "stale");
        // The one who wakes late takes what is stored, or its own; in no case it stores that.
        let woken = stopped.await.unwrap().unwrap();
        assert_eq!(woken.access_token() == token, successor_takes == 0);
        assert_eq!(world.process(world.config()).token().await, token);
        assert_eq!((auth.token_requests(), auth.refresh_token_reuses()), (2, 0));
    }
}

/// Behaviour 168: it has the lease and is stopped before it sends anything; the other one renews meanwhile.
#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_ended_before_it_sends_looks_again() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    world.process(world.signed_in(&first)).token().await;
    sleep(HOUR).await;
    let endpoint = world.endpoint(world.signed_in(&first));
    let identity = endpoint.identity();
    let source = service_fn(move |request: TokenRequest| {
        let endpoint = endpoint.clone();
        async move {
            sleep(60 * SECOND).await;
            endpoint.oneshot(request).await
        }
    });
    world.store.trouble(Call::Renew, Trouble::Hang);
    let layer = StoreLayer::new(world.store.clone(), identity);
    let stopped = AuthLayer::with_source(external(&world), layer.layer(source)).handle();
    let (stopped, other) = tokio::join!(stopped.token(), async {
        sleep(SECOND).await;
        world.process(world.signed_in(&first)).token().await
    });
    assert_eq!(stopped.unwrap().access_token(), other);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}

trait IntoSecret {
    fn into_secret(self) -> tower_oauth2_client::Secret<String>;
}

impl IntoSecret for &str {
    fn into_secret(self) -> tower_oauth2_client::Secret<String> {
        self.into()
    }
}

/// Behaviour 83.
#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_is_not_the_end_while_the_store_has_another() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    // A token is set while the store fails. Its refresh token turns out dead; what the store has is good.
    let dead = Token::bearer("set").unwrap().with_expires_in(HOUR);
    world.store.down(Trouble::Fail);
    let set = process.handle.set_token(dead.with_refresh_token(RefreshToken::Replace("dead".into_secret()))).await;
    assert_eq!(set.unwrap_err().kind(), TokenErrorKind::NotStored);
    world.store.heal();
    sleep(2 * SECOND).await;
    process.handle.invalidate();
    process.token().await;
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
    process.handle.invalidate();
    process.token().await;
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (3, 0));
    let sent: Vec<_> = world.auth.requests().iter().map(|request| request.param("refresh_token")).collect();
    assert_eq!(sent[1].as_deref(), Some("dead"));
}

/// Behaviour 83.
///
/// What the store has turns out dead, and meanwhile somebody stores another, whose access token is or is not of use.
#[tokio::test(start_paused = true)]
async fn the_store_is_read_again_before_a_refresh_token_is_forgotten() {
    for lives in [HOUR, SECOND] {
        let world = World::new();
        let first = world.auth.sign_in("id", "");
        let cfg = || world.signed_in(&first);
        world.process(cfg()).token().await;
        sleep(HOUR).await;
        world.auth.revoke_refresh_tokens();
        let anew = RefreshToken::Replace(world.auth.sign_in("id", "").as_str().into_secret());
        let signed_in = Token::bearer("signed-in").unwrap().with_expires_in(lives).with_refresh_token(anew);
        let (endpoint, elsewhere) = (world.endpoint(cfg()), world.process(cfg()));
        let identity = endpoint.identity();
        let source = service_fn(move |request: TokenRequest| {
            let (endpoint, elsewhere, signed_in) = (endpoint.clone(), elsewhere.clone(), signed_in.clone());
            async move {
                let result = endpoint.oneshot(request).await;
                if result.is_err() {
                    // It waits until this lease has ended.
                    elsewhere.handle.set_token(signed_in).await.unwrap();
                    sleep(5 * SECOND).await;
                }
                result
            }
        });
        world.store.trouble(Call::Renew, Trouble::Hang);
        let layer = StoreLayer::new(world.store.clone(), identity);
        let process = AuthLayer::with_source(external(&world), layer.layer(source)).handle();
        let token = process.token().await.unwrap().access_token().to_owned();
        assert_eq!(token == "signed-in", lives == HOUR);
        let requests = if lives == HOUR { 2 } else { 3 };
        assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (requests, 0));
        // The others have it, too.
        assert_eq!(world.process(cfg()).token().await, token);
        assert_eq!(world.auth.token_requests(), requests);
    }
}

fn external(world: &World) -> tower_oauth2_client::AuthConfig<External> {
    let cfg = tower_oauth2_client::AuthConfig::external().origin(crate::world::API).clock(world.clock.clone());
    cfg.refresh_deadline(120 * SECOND).build().unwrap()
}

/// Behaviour 83.
#[tokio::test(start_paused = true)]
async fn only_a_refresh_token_that_is_dead_and_alone_is_forgotten() {
    let world = World::new();
    let processes = world.signed_in_processes(3);
    join_all(processes.iter().map(|process| process.token())).await;
    sleep(HOUR).await;
    // Behaviour 84: other refusals wipe nothing.
    world.auth.script([Fault::error("invalid_request")]);
    assert_eq!(processes[0].handle.token().await.unwrap_err().kind(), TokenErrorKind::Refused);
    sleep(31 * SECOND).await;
    processes[1].token().await;

    sleep(HOUR).await;
    world.auth.revoke_refresh_tokens();
    for process in &processes {
        assert_eq!(process.handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    }
    // It was tried once by all of them together.
    assert_eq!(world.auth.token_requests(), 4);
}
