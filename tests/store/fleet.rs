//! What a fleet asks for while everything works.

use futures_util::future::join_all;
use tokio::time::sleep;
use tower_oauth2_client::test_util::Fault;
use tower_oauth2_client::{ClientAuth, RefreshToken, Secret, Tenant, TenantId, Token, TokenErrorKind};

use crate::world::{Call, HOUR, SECOND, Trouble, World};

#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_at_once_makes_one_token_request() {
    let world = World::new();
    let auth = world.auth.clone().latency(SECOND);
    let processes = world.processes(8, || world.config());
    let requests = processes.iter().flat_map(|process| (0..1000).map(|_| process.get()));
    assert!(join_all(requests).await.into_iter().all(|status| status == 200));
    assert_eq!((auth.token_requests(), world.api.unauthorized()), (1, 0));
    // Those that wait are woken; they do not poll.
    assert!(world.store.calls(Call::Load) <= 8 * 4, "{} loads", world.store.calls(Call::Load));
    // Whoever comes later asks nobody.
    let late = world.process(world.config());
    assert_eq!(late.get().await, 200);
    assert_eq!(auth.token_requests(), 1);
    assert_eq!(late.handle.stats().store.map(|store| (store.found, store.stored)), Some((1, 0)));
}

/// Behaviour 89.
#[tokio::test(start_paused = true)]
async fn a_rotating_refresh_token_is_redeemed_once_an_expiry_however_many_share_it() {
    const EXPIRIES: usize = 100;
    let world = World::new();
    let processes = world.signed_in_processes(8);
    for round in 1..=EXPIRIES {
        // By turns all at once, one after the other, and with a process that slept through some rounds.
        let awake = if round % 3 == 0 { &processes[..5] } else { &processes[..] };
        if round % 2 == 0 {
            assert!(join_all(awake.iter().map(|process| process.get())).await.iter().all(|status| *status == 200));
        } else {
            for process in awake {
                assert_eq!(process.get().await, 200, "round {round}");
            }
        }
        assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (round, 0));
        sleep(2 * HOUR).await;
    }
}

/// Behaviour 89.
#[tokio::test(start_paused = true)]
async fn whoever_gets_the_lease_late_looks_again_before_it_asks() {
    let world = World::new();
    world.store.slow_lease(SECOND / 2);
    let processes = world.processes(2, || world.config());
    let (one, other) = tokio::join!(processes[0].token(), async {
        // It finds nothing, and gets the lease after the other has given it back.
        sleep(SECOND / 4).await;
        processes[1].token().await
    });
    assert_eq!((one == other, world.auth.token_requests()), (true, 1));
}

/// All the same at the refresh point, where nobody waits.
#[tokio::test(start_paused = true)]
async fn a_fleet_renews_once_before_expiry_and_counts_from_when_the_token_was_issued() {
    let world = World::new();
    let processes = world.processes(4, || world.config());
    assert_eq!(processes[0].get().await, 200);
    // Half an hour later the others start: the token is as old for them.
    sleep(HOUR / 2).await;
    for _ in 0..60 {
        assert!(join_all(processes.iter().map(|process| process.get())).await.iter().all(|status| *status == 200));
        let age = world.clock_minutes();
        if world.auth.token_requests() == 2 {
            assert!((38..=49).contains(&age), "renewed after {age} min");
            break;
        }
        assert!(age < 49, "not renewed after {age} min");
        sleep(60 * SECOND).await;
    }
    // The others learn of it at their own refresh points, without a token request.
    sleep(HOUR / 6).await;
    for _ in 0..2 {
        for process in &processes {
            assert_eq!(process.get().await, 200);
        }
        sleep(SECOND).await;
    }
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (2, 0));
    let tokens = join_all(processes.iter().map(|process| process.token())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
}

/// Behaviour 73: they have one token, and the store is gone before it is renewed.
#[tokio::test(start_paused = true)]
async fn processes_that_share_a_token_do_not_renew_it_together_when_the_store_is_gone() {
    const PROCESSES: usize = 200;
    let world = World::new();
    let processes = world.processes(PROCESSES, || world.config());
    join_all(processes.iter().map(|process| process.token())).await;
    assert_eq!(world.auth.token_requests(), 1);
    world.store.down(Trouble::Fail);
    let mut each_minute = Vec::new();
    for _ in 0..150 {
        let before = world.auth.token_requests();
        sleep(60 * SECOND).await;
        join_all(processes.iter().map(|process| process.token())).await;
        each_minute.push(world.auth.token_requests() - before);
    }
    // The shared one within nine minutes, those after it within 27: by chance some more in one than in another.
    let (shared, own) = each_minute.split_at(50);
    let most = |minutes: &[usize]| minutes.iter().max().copied().unwrap_or_default();
    assert_eq!(shared.iter().sum::<usize>(), PROCESSES, "{each_minute:?}");
    assert!(most(shared) <= 45 && most(own) <= 20, "{each_minute:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_rejected_everywhere_is_renewed_once() {
    let world = World::new();
    let processes = world.processes(8, || world.config());
    join_all(processes.iter().map(|process| process.get())).await;
    world.auth.revoke_all();
    assert!(join_all(processes.iter().map(|process| process.get())).await.iter().all(|status| *status == 200));
    assert_eq!(world.auth.token_requests(), 2);
    // The store has the one that is good, also for whoever was invalidated by hand.
    processes[0].handle.invalidate();
    assert_eq!(processes[0].get().await, 200);
    assert_eq!(world.auth.token_requests(), 3);
}

/// Behaviour 133 (the store has the rejected token still, and a failure beside it that is news).
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_saved_makes_no_news_of_a_rejected_token() {
    let world = World::new();
    let process = world.process(world.config());
    assert_eq!(process.get().await, 200);
    let _ = world.auth.clone().latency(SECOND);
    world.auth.revoke_all();
    world.auth.always(Fault::Status(429));
    let (status, ()) = tokio::join!(process.get(), async {
        sleep(SECOND / 2).await;
        process.handle.replace_credentials(ClientAuth::basic("id", "secret")).unwrap();
    });
    assert_eq!((status, world.api.unauthorized()), (401, 1));
}

/// Behaviour 133 (a token that was set and not stored is newer than what the store has).
#[tokio::test(start_paused = true)]
async fn what_the_store_has_is_older_than_a_token_that_was_set() {
    let world = World::new();
    let process = world.process(world.config());
    assert_eq!(process.get().await, 200);
    world.auth.revoke_all();
    world.store.trouble(Call::Save, Trouble::Fail);
    sleep(SECOND).await;
    let set = Token::bearer("set").unwrap().with_expires_in(HOUR);
    assert_eq!(process.handle.set_token(set).await.unwrap_err().kind(), TokenErrorKind::NotStored);
    world.store.heal();
    sleep(10 * SECOND).await;
    process.handle.invalidate();
    assert_eq!(process.get().await, 200);
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_repeats_its_token_is_asked_once_for_all() {
    let world = World::new();
    let _ = world.auth.clone().same_token_until_expiry().latency(SECOND);
    let processes = world.processes(4, || world.config());
    join_all(processes.iter().map(|process| process.get())).await;
    processes.iter().for_each(|process| process.handle.invalidate());
    join_all(processes.iter().map(|process| process.get())).await;
    assert_eq!(world.auth.token_requests(), 2);
}

/// Behaviours 91 and 98.
#[tokio::test(start_paused = true)]
async fn what_is_not_the_same_is_not_shared() {
    let world = World::new();
    let (anna, berta) = (world.auth.sign_in("id", ""), world.auth.sign_in("id", ""));
    let processes = [
        world.process(world.config()),
        world.process(world.config().audience("a")),
        world.process(world.config().scopes(["a"])),
        world.process(world.signed_in(&anna)),
        world.process(world.signed_in(&berta)),
    ];
    let mut tokens = join_all(processes.iter().map(|process| process.token())).await;
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), processes.len());
}

/// Behaviour 97.
#[tokio::test(start_paused = true)]
async fn a_token_of_the_former_secret_is_not_used_and_its_refresh_token_is() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let before = world.process(world.signed_in(&first));
    let token = before.token().await;
    let rotated = world.process(world.signed_in(&first));
    rotated.handle.replace_credentials(ClientAuth::basic("id", "rotated")).unwrap();
    assert_ne!(rotated.token().await, token);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
    assert_eq!(world.auth.requests()[1].param("grant_type").as_deref(), Some("refresh_token"));
    // One that has the new secret from its start takes what the other has stored.
    let client_auth = ClientAuth::basic("id", "rotated");
    let cfg = tower_oauth2_client::AuthConfig::refresh_token(crate::world::TOKEN_URL, client_auth, first.as_str());
    let third = world.process(cfg.origin(crate::world::API).clock(world.clock.clone()));
    assert_eq!(third.token().await, rotated.token().await);
    assert_eq!(world.auth.token_requests(), 2);
}

/// Behaviours 81 and 120.
#[tokio::test(start_paused = true)]
async fn a_sign_in_is_stored_before_it_is_used_and_other_processes_hear_of_it() {
    let world = World::new();
    let dead = "long-dead";
    let processes = world.processes(2, || world.signed_in(dead));
    for _ in 0..5 {
        for process in &processes {
            assert_eq!(process.handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
        }
        sleep(2 * SECOND).await;
    }
    // One has tried what the configuration brought, for all.
    assert_eq!(world.auth.token_requests(), 1);
    let signed_in = Token::bearer("signed-in").unwrap().with_expires_in(HOUR);
    let refresh_token = world.auth.sign_in("id", "");
    let signed_in = signed_in.with_refresh_token(RefreshToken::Replace(Secret::from(refresh_token)));
    processes[0].handle.set_token(signed_in).await.unwrap();
    assert_eq!(processes[0].token().await, "signed-in");
    sleep(SECOND).await;
    assert_eq!(processes[1].token().await, "signed-in");
    // Both go on with its refresh token.
    sleep(HOUR).await;
    assert_eq!(processes[1].token().await, processes[0].token().await);
    assert_eq!(world.auth.refresh_token_reuses(), 0);
}

/// Behaviour 120.
#[tokio::test(start_paused = true)]
async fn what_is_handed_in_outranks_the_store_until_it_is_stored() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    join_all(processes.iter().map(|process| process.get())).await;
    let second = RefreshToken::Replace(Secret::from(world.auth.sign_in("id", "")));
    let signed_in = Token::bearer("signed-in").unwrap().with_expires_in(HOUR).with_refresh_token(second);
    processes[0].handle.set_token(signed_in).await.unwrap();
    assert_eq!(processes[0].token().await, "signed-in");
    processes[0].handle.invalidate();
    let renewed = processes[0].token().await;
    // The other one hears of it when it needs a token.
    processes[1].handle.invalidate();
    assert_eq!(processes[1].token().await, renewed);
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}

impl World {
    fn clock_minutes(&self) -> u64 {
        use tower_oauth2_client::Clock;
        let start = std::time::Duration::from_secs(1_767_225_600);
        self.clock.now().wall.duration_since(std::time::SystemTime::UNIX_EPOCH + start).unwrap().as_secs() / 60
    }
}

/// Behaviour 93.
#[tokio::test(start_paused = true)]
async fn tenants_whose_refresh_tokens_are_stored_can_be_forgotten_and_come_back() {
    const TENANTS: usize = 500;
    let world = World::new();
    let tenant = |number: usize| TenantId::new(number.to_string()).unwrap();
    let tenants = Tenant::header("x-account").per_tenant_tokens();
    let process = world.process(world.signed_in("none").tenant(tenants).max_partitions(16));
    for number in 0..TENANTS {
        let refresh_token = RefreshToken::Replace(Secret::from(world.auth.sign_in("id", "")));
        let token =
            Token::bearer(&format!("of-{number}")).unwrap().with_expires_in(HOUR).with_refresh_token(refresh_token);
        process.handle.for_tenant(&tenant(number)).set_token(token).await.unwrap();
    }
    assert!(process.handle.stats().partitions < 100, "{}", process.handle.stats().partitions);
    for number in 0..TENANTS {
        let token = process.handle.for_tenant(&tenant(number)).token().await.unwrap();
        assert_eq!(token.access_token(), format!("of-{number}"));
    }
    assert_eq!(world.auth.token_requests(), 0);
    sleep(HOUR).await;
    process.handle.for_tenant(&tenant(7)).token().await.unwrap();
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (1, 0));
}
