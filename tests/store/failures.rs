//! What happens when the store fails.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower_oauth2_client::store::TokenStore;
use tower_oauth2_client::test_util::Fault;
use tower_oauth2_client::{AuthConfig, ClientAuth, RefreshToken, Secret, Token, TokenErrorKind};

use crate::world::{Call, HOUR, Process, SECOND, TOKEN_URL, Trouble, World};

const CALLS: [Call; 6] = [Call::Load, Call::Save, Call::Lease, Call::Renew, Call::Release, Call::Changed];
const TROUBLES: [Trouble; 3] = [Trouble::Fail, Trouble::LoseAnswer, Trouble::Hang];

/// Behaviours 80 and 88.
#[tokio::test(start_paused = true)]
async fn whatever_call_fails_however_requests_go_on() {
    for call in CALLS {
        for trouble in TROUBLES {
            let world = World::new();
            world.store.trouble(call, trouble);
            let processes = world.processes(3, || world.config());
            for _ in 0..3 {
                let began = Instant::now();
                let statuses = join_all(processes.iter().map(Process::get)).await;
                assert_eq!(statuses, [200; 3], "{call:?} {trouble:?}");
                assert!(began.elapsed() <= 25 * SECOND, "{call:?} {trouble:?} took {:?}", began.elapsed());
                sleep(HOUR).await;
            }
            let requests = world.auth.token_requests();
            assert!((3..=9).contains(&requests), "{call:?} {trouble:?}: {requests}");
            world.store.heal();
            sleep(HOUR).await;
            join_all(processes.iter().map(Process::get)).await;
            assert_eq!(world.auth.token_requests(), requests + 1, "{call:?} {trouble:?}: healed");
        }
    }
}

/// Behaviours 80 and 88.
#[tokio::test(start_paused = true)]
async fn one_process_and_a_rotating_refresh_token_survive_whatever_fails() {
    for call in CALLS {
        for trouble in TROUBLES {
            let world = World::new();
            let first = world.auth.sign_in("id", "");
            let process = world.process(world.signed_in(&first));
            assert_eq!(process.get().await, 200);
            for _ in 0..3 {
                sleep(HOUR).await;
                world.store.trouble(call, trouble);
                let result = process.handle.token().await;
                // Without looking or without the lease nobody knows whether the copy is spent.
                let blind = matches!(call, Call::Load | Call::Lease);
                let kind = result.err().map(|error| (error.kind(), error.is_transient()));
                let expected = blind.then_some((TokenErrorKind::CredentialsUnavailable, true));
                assert_eq!(kind, expected, "{call:?} {trouble:?}");
                world.store.heal();
                sleep(60 * SECOND).await;
                assert_eq!(process.get().await, 200, "{call:?} {trouble:?}");
            }
            assert_eq!(world.auth.refresh_token_reuses(), 0, "{call:?} {trouble:?}");
        }
    }
}

/// Behaviour 88.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_costs_no_live_token_and_little_time() {
    let world = World::new();
    let processes = world.signed_in_processes(3);
    join_all(processes.iter().map(Process::get)).await;
    world.store.down(Trouble::Hang);
    // Through the refresh point, to shortly before the token's end.
    for _ in 0..58 {
        sleep(60 * SECOND).await;
        let began = Instant::now();
        assert_eq!(join_all(processes.iter().map(Process::get)).await, [200; 3]);
        assert!(began.elapsed() <= 2 * SECOND);
    }
    assert_eq!(world.auth.token_requests(), 1);
    // Nobody has spent the refresh token.
    world.store.heal();
    sleep(60 * SECOND).await;
    assert_eq!(join_all(processes.iter().map(Process::get)).await, [200; 3]);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_left_alone_for_a_while() {
    let world = World::new();
    world.store.down(Trouble::Hang);
    let process = world.process(world.config());
    let began = Instant::now();
    for _ in 0..100 {
        process.handle.invalidate();
        process.token().await;
    }
    assert_eq!((began.elapsed(), world.store.calls(Call::Load)), (SECOND, 1));
    for _ in 0..600 {
        sleep(SECOND).await;
        process.handle.invalidate();
        process.token().await;
    }
    let loads = world.store.calls(Call::Load);
    assert!((20..=30).contains(&loads), "{loads} in ten minutes");
    let stats = process.handle.stats().store.unwrap();
    assert_eq!((stats.without_store, stats.stored), (700, 0));
}

/// A store that forgets everything, as one that was restarted without a disk.
#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_empty_is_filled_again() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    world.store.forget_everything();
    sleep(HOUR).await;
    process.token().await;
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
    assert_eq!(process.handle.stats().store.unwrap().stored, 2);
}

#[tokio::test(start_paused = true)]
async fn values_that_cannot_be_read_are_gone_without_and_left_as_they_are() {
    let of_a_newer_version: &[u8] = b"{\"v\":2,\"sealed\":true}";
    for bytes in [of_a_newer_version, b"garbage"] {
        let world = World::new();
        let process = world.process(world.config());
        process.token().await;
        let key = world.store.last_key();
        world.store.overwrite(&key, bytes).await;
        for _ in 0..3 {
            sleep(HOUR).await;
            assert_eq!(process.get().await, 200);
        }
        assert_eq!(world.store.inner.load(&key).await.unwrap().unwrap().bytes.expose(), bytes);
        assert_eq!(process.handle.stats().store.unwrap().without_store, 3);
    }
}

/// Behaviour 81.
#[tokio::test(start_paused = true)]
async fn nobody_sees_a_token_that_is_not_stored_yet() {
    let world = World::new();
    world.store.slow_save(SECOND / 2);
    let process = world.process(world.config());
    let began = Instant::now();
    join_all((0..10).map(|_| process.get())).await;
    assert_eq!(began.elapsed(), SECOND / 2);
    assert_eq!(world.store.calls(Call::Save), 1);
}

/// Behaviour 80.
#[tokio::test(start_paused = true)]
async fn a_sign_in_that_cannot_be_stored_says_so_and_counts() {
    let world = World::new();
    world.store.down(Trouble::Fail);
    let process = world.process(world.signed_in("dead"));
    let refresh_token = RefreshToken::Replace(Secret::from(world.auth.sign_in("id", "")));
    let token = Token::bearer("signed-in").unwrap().with_expires_in(HOUR).with_refresh_token(refresh_token);
    assert_eq!(process.handle.set_token(token).await.unwrap_err().kind(), TokenErrorKind::NotStored);
    assert_eq!(process.token().await, "signed-in");
    world.store.heal();
    sleep(HOUR).await;
    // It reaches the store with its first renewal.
    process.token().await;
    let stats = process.handle.stats().store.unwrap();
    assert_eq!((stats.stored, stats.not_stored, world.auth.refresh_token_reuses()), (1, 1, 0));
}

/// Behaviour 25, for a fleet: who waited for somebody else's token request in vain does not repeat it in turn.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_asked_by_one_process_a_pause() {
    let world = World::new();
    world.auth.always(Fault::Status(500));
    let processes = world.processes(20, || world.config());
    for _ in 0..600 {
        for result in join_all(processes.iter().map(|process| process.handle.token())).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Unavailable);
            assert!(error.retry_after().is_some_and(|pause| pause <= 60 * SECOND));
        }
        sleep(SECOND).await;
    }
    // 1, 2, 4, … seconds, then one a minute.
    let requests = world.auth.token_requests();
    assert!((12..=17).contains(&requests), "{requests} token requests in ten minutes");
    world.auth.always(Fault::Pass);
    sleep(61 * SECOND).await;
    assert_eq!(join_all(processes.iter().map(Process::get)).await, [200; 20]);
    assert_eq!(world.auth.token_requests(), requests + 1);
    // What is over is forgotten: the next failure begins with a short pause.
    world.auth.always(Fault::Status(500));
    sleep(HOUR).await;
    let error = processes[0].handle.token().await.unwrap_err();
    assert!(error.retry_after().is_some_and(|pause| pause <= SECOND));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_refused_stop_nobody_who_has_others() {
    let world = World::new();
    let wrong = world.process(
        AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "wrong"))
            .origin("https://api.example.com")
            .clock(world.clock.clone()),
    );
    world.auth.script([Fault::error("invalid_client")]);
    assert_eq!(wrong.handle.token().await.unwrap_err().kind(), TokenErrorKind::BadCredentials);
    let same = world.process(
        AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "wrong"))
            .origin("https://api.example.com")
            .clock(world.clock.clone()),
    );
    assert_eq!(same.handle.token().await.unwrap_err().kind(), TokenErrorKind::BadCredentials);
    assert_eq!(world.auth.token_requests(), 1, "whoever has the same secret need not try it");
    assert_eq!(world.process(world.config()).get().await, 200);
}

/// Behaviour 80.
#[tokio::test(start_paused = true)]
async fn a_redeemed_refresh_token_reaches_the_store_as_soon_as_it_is_back() {
    let world = World::new();
    let processes = world.signed_in_processes(3);
    join_all(processes.iter().map(Process::get)).await;
    sleep(HOUR).await;
    world.store.trouble(Call::Save, Trouble::Fail);
    let renewed = processes[0].token().await;
    sleep(20 * SECOND).await;
    world.store.heal();
    // The others wait for it, rather than spend the former one a second time.
    assert_eq!(processes[1].token().await, renewed);
    assert_eq!(processes[2].token().await, renewed);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}

/// Behaviour 158 (granted just before the deadline of the token request, and the store hangs).
#[tokio::test(start_paused = true)]
async fn what_is_granted_is_not_lost_with_a_save_that_outlasts_the_deadline() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first).refresh_deadline(9 * SECOND));
    // Before that the others are asked, for two seconds: the store has never heard of this sign-in.
    let _ = world.auth.clone().latency(6 * SECOND + SECOND / 4);
    world.store.trouble(Call::Save, Trouble::Hang);
    let renewed = process.token().await;
    assert_eq!(world.auth.last_token(), Some(renewed));
    world.store.heal();
    sleep(HOUR).await;
    process.token().await;
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}
