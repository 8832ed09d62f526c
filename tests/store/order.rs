//! Of two refresh tokens the newer one wins, whoever has it: after a save that failed, in a store that lost what it had, at
//! the end of a program.

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tower_oauth2_client::store::{Lease, TokenStore};
use tower_oauth2_client::test_util::Fault;
use tower_oauth2_client::{RefreshToken, Secret, Tenant, TenantId, Token};

use crate::world::{Call, HOUR, SECOND, Trouble, World};

/// The refresh tokens that were sent, in order.
fn sent(world: &World) -> Vec<String> {
    world.auth.requests().iter().filter_map(|request| request.param("refresh_token")).collect()
}

fn assert_none_was_sent_twice(world: &World) {
    let mut sent = sent(world);
    let all = sent.len();
    sent.sort();
    sent.dedup();
    assert_eq!((sent.len(), world.auth.refresh_token_reuses()), (all, 0), "{sent:?}");
}

/// Behaviour 158.
#[tokio::test(start_paused = true)]
async fn what_was_saved_late_is_the_stores_again() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let processes = world.processes(2, || world.signed_in(&first));
    processes[0].token().await;
    processes[1].token().await;
    for round in 0..10 {
        let (one, other) = (&processes[round % 2], &processes[(round + 1) % 2]);
        sleep(HOUR).await;
        world.store.trouble(Call::Save, Trouble::Fail);
        one.token().await;
        world.store.heal();
        sleep(SECOND).await;
        // The save that came late has succeeded: the other one renews, then the first one again.
        for process in [other, one] {
            sleep(HOUR).await;
            process.token().await;
        }
        assert_none_was_sent_twice(&world);
    }
    assert_eq!(world.auth.token_requests(), 1 + 30);
}

/// Behaviour 158: a short lease, and the others want a token meanwhile.
#[tokio::test(start_paused = true)]
async fn the_first_retry_comes_before_the_lease_ends() {
    for trouble in [Trouble::Fail, Trouble::LoseAnswer] {
        let world = World::new();
        let first = world.auth.sign_in("id", "");
        let processes: Vec<_> = (0..3).map(|_| world.process_with_lease(world.signed_in(&first), SECOND)).collect();
        processes[0].token().await;
        sleep(HOUR).await;
        // Away for a moment, while the answer is saved; renewals of the lease fail with it.
        let away = async {
            world.store.down(trouble);
            sleep(SECOND * 2 / 3).await;
            world.store.heal();
        };
        world.auth.script([Fault::Slow(SECOND / 10)]);
        let (_, ()) = tokio::join!(processes[0].handle.token(), async {
            sleep(SECOND / 20).await;
            away.await;
        });
        let tokens = join_all(processes.iter().map(|process| process.token())).await;
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{trouble:?}");
        assert_none_was_sent_twice(&world);
    }
}

/// Behaviour 158: a token that could not be saved is rejected in its turn. What the store has is older, and was rejected before;
/// and when it is saved at last, it is no news.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_saved_is_newer_than_what_is_stored() {
    let world = World::new();
    let process = world.process(world.signed_in(&world.auth.sign_in("id", "")));
    let mut former = vec![process.token().await];
    world.store.trouble(Call::Save, Trouble::Fail);
    for _ in 0..2 {
        process.handle.invalidate();
        let (token, ()) = tokio::join!(process.token(), async {
            sleep(SECOND * 3).await;
            world.store.heal();
        });
        assert!(!former.contains(&token), "{token} of {former:?}");
        former.push(token);
        world.store.trouble(Call::Save, Trouble::Fail);
    }
    assert_none_was_sent_twice(&world);
}

/// Behaviour 158: the store is away for longer than a lease, keeps what it has, and another process asks at once when it is
/// back. Who has the successor lives, and can be asked.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_longer_than_a_lease_while_a_refresh_token_is_redeemed() {
    for away in [SECOND * 3 / 2, SECOND * 2, SECOND * 3, SECOND * 20, SECOND * 50] {
        let world = World::new();
        let first = world.auth.sign_in("id", "");
        let process = || world.process_with_lease(world.signed_in(&first), SECOND);
        let processes = [process(), process(), process()];
        join_all(processes.iter().map(|process| process.token())).await;
        sleep(HOUR).await;
        world.auth.script([Fault::Slow(SECOND / 10)]);
        let (renewed, others) = tokio::join!(processes[0].token(), async {
            sleep(SECOND / 20).await;
            world.store.down(Trouble::Fail);
            sleep(away).await;
            world.store.heal();
            tokio::join!(processes[1].token(), async {
                sleep(SECOND / 10).await;
                processes[2].token().await
            })
        });
        assert_none_was_sent_twice(&world);
        assert_eq!([&renewed, &renewed], [&others.0, &others.1], "{away:?}");
        sleep(HOUR).await;
        join_all(processes.iter().map(|process| process.token())).await;
        assert_none_was_sent_twice(&world);
    }
}

/// Behaviour 159: (a) who slept through three rotations asks first.
#[tokio::test(start_paused = true)]
async fn an_emptied_store_gets_the_youngest_copy_back() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let processes = world.processes(2, || world.signed_in(&first));
    let (idle, busy) = (&processes[0], &processes[1]);
    idle.token().await;
    for _ in 0..3 {
        sleep(HOUR).await;
        busy.token().await;
    }
    world.store.forget_everything();
    sleep(HOUR).await;
    idle.token().await;
    assert_none_was_sent_twice(&world);
    // (b) One that starts, with what its configuration brought.
    world.store.forget_everything();
    world.process(world.signed_in(&first)).token().await;
    assert_none_was_sent_twice(&world);
    sleep(HOUR).await;
    assert_eq!(idle.token().await, busy.token().await);
    assert_none_was_sent_twice(&world);
}

/// Behaviour 159: all miss their refresh token at the same moment and ask each other. Nobody keeps his own copy to himself.
#[tokio::test(start_paused = true)]
async fn processes_that_ask_each_other_at_the_same_moment_answer_too() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    let (idle, busy) = (&processes[0], &processes[1]);
    idle.token().await;
    sleep(HOUR).await;
    busy.token().await;
    sleep(HOUR).await;
    world.store.forget_everything();
    let (one, other) = tokio::join!(idle.token(), busy.token());
    assert_none_was_sent_twice(&world);
    assert_eq!(one, other);
}

/// Behaviour 159: the configured refresh token is being redeemed, the store has never had it, and loses the lease.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_with_the_first_redemption_is_taken_anew() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    world.auth.script([Fault::Slow(4 * SECOND)]);
    let emptied = async {
        sleep(SECOND * 3).await;
        world.store.forget_everything();
    };
    let (one, other, ()) = tokio::join!(processes[0].token(), processes[1].token(), emptied);
    assert_none_was_sent_twice(&world);
    assert_eq!(one, other);
}

/// Behaviour 159: who has the youngest copy needs a moment to connect to a store that was away and is empty now.
#[tokio::test(start_paused = true)]
async fn whoever_connects_late_to_a_store_that_comes_back_empty_is_waited_for() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let idle = world.process(world.signed_in(&first));
    let late = world.process_over(world.store.heard_after(SECOND * 3 / 2), world.signed_in(&first));
    idle.token().await;
    sleep(HOUR).await;
    late.token().await;
    sleep(HOUR).await;
    world.store.down(Trouble::Fail);
    idle.handle.token().await.unwrap_err();
    world.store.forget_everything();
    world.store.heal();
    sleep(SECOND * 2).await;
    idle.token().await;
    assert_none_was_sent_twice(&world);
}

/// Behaviour 159: emptied after a process has looked, and before it has the lease.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_emptied_between_two_looks() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    join_all(processes.iter().map(|process| process.token())).await;
    sleep(HOUR).await;
    world.auth.script([Fault::Slow(6 * SECOND)]);
    let later = async {
        sleep(SECOND / 10).await;
        world.store.slow_lease(SECOND);
        let emptied = async {
            sleep(SECOND / 2).await;
            world.store.forget_everything();
            world.store.slow_lease(SECOND / 1000);
        };
        tokio::join!(processes[1].token(), emptied).0
    };
    let (one, other) = tokio::join!(processes[0].token(), later);
    assert_none_was_sent_twice(&world);
    assert_eq!(one, other);
}

/// Behaviour 159: while the store hangs nobody hears that a refresh token is missed, so that nobody can have answered.
#[tokio::test(start_paused = true)]
async fn what_was_asked_of_a_store_that_hangs_was_not_asked() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    for process in [&processes[0], &processes[1]] {
        process.token().await;
        sleep(HOUR).await;
    }
    // The other one has the younger copy, and nothing to do.
    world.store.forget_everything();
    let (asked, ()) = tokio::join!(processes[0].handle.token(), async {
        sleep(SECOND / 20).await;
        world.store.down(Trouble::Hang);
        world.store.forget_everything();
        sleep(SECOND * 19 / 10).await;
        world.store.heal();
    });
    let _ = asked;
    sleep(SECOND * 3).await;
    processes[0].token().await;
    assert_none_was_sent_twice(&world);
}

/// Behaviour 159: a process of many people brings the copies of all in time, not one after the other.
#[tokio::test(start_paused = true)]
async fn many_copies_are_brought_in_time() {
    const PEOPLE: usize = 300;
    let world = World::new();
    let layers: Vec<_> = (0..2)
        .map(|_| {
            let cfg = world.signed_in("none").tenant(Tenant::header("x-account").per_tenant_tokens());
            world.process(cfg)
        })
        .collect();
    let person = |number: usize| TenantId::new(format!("p{number}")).unwrap();
    for number in 0..PEOPLE {
        let token = Token::bearer(&format!("t{number}")).unwrap().with_expires_in(HOUR);
        let token = token.with_refresh_token(RefreshToken::Replace(Secret::from(world.auth.sign_in("id", ""))));
        layers[0].handle.for_tenant(&person(number)).set_token(token).await.unwrap();
        layers[1].handle.for_tenant(&person(number)).token().await.unwrap();
    }
    // The other one redeems them all, so that it has the younger copies.
    sleep(HOUR).await;
    for number in 0..PEOPLE {
        layers[1].handle.for_tenant(&person(number)).token().await.unwrap();
    }
    sleep(HOUR).await;
    world.store.forget_everything();
    let asking = (0..PEOPLE).map(|number| {
        let handle = layers[0].handle.for_tenant(&person(number));
        async move { handle.token().await.map(drop) }
    });
    assert!(join_all(asking).await.iter().all(Result::is_ok));
    assert_none_was_sent_twice(&world);
}

/// Behaviour 159: (c) emptied while a refresh token is redeemed; a waiter must not send the former one.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_emptied_during_a_token_request() {
    for after in [SECOND / 2, SECOND * 2, SECOND * 5] {
        let world = World::new();
        let first = world.auth.sign_in("id", "");
        let processes = world.processes(3, || world.signed_in(&first));
        processes[0].token().await;
        join_all(processes.iter().map(|process| process.token())).await;
        sleep(HOUR).await;
        world.auth.script([Fault::Slow(6 * SECOND)]);
        let emptied = async {
            sleep(after).await;
            world.store.forget_everything();
        };
        let tokens = join_all(processes.iter().map(|process| process.token()));
        let (tokens, ()) = tokio::join!(tokens, emptied);
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{after:?}");
        assert_none_was_sent_twice(&world);
        sleep(HOUR).await;
        processes[2].token().await;
        assert_none_was_sent_twice(&world);
    }
}

/// Behaviour 159: (d) an older record is put back, as by a restart from a snapshot.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_gets_the_youngest_copy_back() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    let key = world.store.last_key();
    let snapshot = world.store.inner.load(&key).await.unwrap().unwrap().bytes;
    for _ in 0..3 {
        sleep(HOUR).await;
        process.token().await;
    }
    world.store.overwrite(&key, snapshot.expose()).await;
    sleep(HOUR).await;
    process.token().await;
    assert_none_was_sent_twice(&world);
    assert_eq!(world.auth.token_requests(), 5);
}

/// A sign-in outranks what came before it, also where the store was emptied meanwhile.
#[tokio::test(start_paused = true)]
async fn a_sign_in_is_newer_than_any_rotation() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    for _ in 0..5 {
        processes[1].token().await;
        sleep(HOUR).await;
    }
    processes[0].token().await;
    let second = RefreshToken::Replace(Secret::from(world.auth.sign_in("id", "")));
    let token = Token::bearer("signed-in").unwrap().with_expires_in(HOUR).with_refresh_token(second);
    processes[0].handle.set_token(token).await.unwrap();
    sleep(HOUR).await;
    processes[1].token().await;
    world.store.forget_everything();
    sleep(HOUR).await;
    processes[0].token().await;
    assert_none_was_sent_twice(&world);
}

/// Behaviour 127.
#[tokio::test(start_paused = true)]
async fn shutdown_waits_until_a_refresh_token_is_stored() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    // Past the refresh point: the request goes out at once, and the program ends behind it.
    sleep(HOUR * 9 / 10).await;
    world.auth.script([Fault::Slow(SECOND / 2)]);
    world.store.trouble(Call::Save, Trouble::Fail);
    assert_eq!(process.get().await, 200);
    let healed = async {
        sleep(3 * SECOND).await;
        world.store.heal();
    };
    let begin = Instant::now();
    tokio::join!(process.handle.shutdown(), healed);
    assert!((3 * SECOND..4 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    drop(process);
    // The next run has it.
    sleep(HOUR).await;
    world.process(world.signed_in(&first)).token().await;
    assert_none_was_sent_twice(&world);
    assert_eq!(world.auth.token_requests(), 3);
}

/// Behaviour 127.
#[tokio::test(start_paused = true)]
async fn after_shutdown_nothing_begins_in_the_background() {
    let world = World::new();
    let process = world.process(world.config());
    process.token().await;
    process.handle.shutdown().await;
    sleep(HOUR * 9 / 10).await;
    assert_eq!(process.get().await, 200);
    sleep(SECOND).await;
    assert_eq!(world.auth.token_requests(), 1);
    // Who has none gets one.
    sleep(HOUR).await;
    assert_eq!(process.get().await, 200);
    assert_eq!(world.auth.token_requests(), 2);
}

/// Behaviour 127: a store that does not come back holds nobody for ever.
#[tokio::test(start_paused = true)]
async fn shutdown_is_bounded() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    sleep(HOUR).await;
    world.store.trouble(Call::Save, Trouble::Hang);
    process.token().await;
    assert!(timeout(31 * SECOND, process.handle.shutdown()).await.is_ok());
}

/// RT-only recovery: the store is asked again as soon as somebody needs a token.
#[tokio::test(start_paused = true)]
async fn the_only_grant_is_back_a_second_after_its_store() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    world.store.down(Trouble::Fail);
    sleep(HOUR).await;
    for _ in 0..300 {
        let _ = process.handle.token().await.unwrap_err();
        sleep(SECOND).await;
    }
    world.store.heal();
    let begin = Instant::now();
    while process.handle.token().await.is_err() {
        sleep(SECOND / 10).await;
    }
    assert!(begin.elapsed() <= 2 * SECOND, "{:?}", begin.elapsed());
    assert_none_was_sent_twice(&world);
}

/// Behaviour 163.
#[tokio::test(start_paused = true)]
async fn what_only_failed_leaves_nothing_after_its_pause() {
    use tower_oauth2_client::{Tenant, TenantId};
    let world = World::new();
    world.auth.always(Fault::error("invalid_scope"));
    let tenants = Tenant::header("x-account").per_tenant_tokens();
    let process = world.process(world.config().tenant(tenants).max_partitions(2000));
    let mut keys = Vec::new();
    for number in 0..1000 {
        let tenant = TenantId::new(number.to_string()).unwrap();
        let _ = process.handle.for_tenant(&tenant).token().await.unwrap_err();
        keys.push(world.store.last_key());
    }
    sleep(120 * SECOND).await;
    for key in keys {
        assert!(world.store.inner.load(&key).await.unwrap().is_none());
        assert!(matches!(world.store.inner.lease(&key, SECOND).await, Ok(Lease::Acquired { .. })));
    }
}

/// Behaviour 164.
#[tokio::test(start_paused = true)]
async fn a_sign_in_replaces_what_cannot_be_read_and_nothing_newer() {
    let token = |world: &World| {
        let refresh_token = RefreshToken::Replace(Secret::from(world.auth.sign_in("id", "")));
        Token::bearer("signed-in").unwrap().with_expires_in(HOUR).with_refresh_token(refresh_token)
    };
    let of_a_newer_version: &[u8] = b"{\"v\":2,\"sealed\":true}";
    for (bytes, replaced) in [(&b"of a key that was dropped"[..], true), (of_a_newer_version, false)] {
        let world = World::new();
        let first = world.auth.sign_in("id", "");
        let process = world.process(world.signed_in(&first));
        process.token().await;
        let key = world.store.last_key();
        world.store.overwrite(&key, bytes).await;
        assert_eq!(process.handle.set_token(token(&world)).await.is_ok(), replaced);
        let stored = world.store.inner.load(&key).await.unwrap().unwrap();
        assert_eq!(stored.bytes.expose() != bytes, replaced);
        if !replaced {
            // By hand, with the key that an event named.
            world.store.remove(&key).await.unwrap();
            process.handle.set_token(token(&world)).await.unwrap();
        }
        sleep(HOUR).await;
        world.process(world.signed_in(&first)).token().await;
        assert_none_was_sent_twice(&world);
    }
}

/// Behaviour 158 (the answer to the very first redemption was lost: nobody knows whether the server replaces refresh tokens).
#[tokio::test(start_paused = true)]
async fn a_refresh_token_of_which_nothing_is_known_is_good_once() {
    let world = World::new();
    let processes = world.signed_in_processes(2);
    world.auth.script([Fault::LoseAnswer]);
    let _ = processes[0].handle.token().await.unwrap_err();
    processes[1].handle.set_token(Token::bearer("given").unwrap().with_expires_in(60 * SECOND)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(processes[0].token().await, "given");
    world.store.down(Trouble::Hang);
    sleep(60 * SECOND).await;
    join_all(processes.iter().map(|process| process.handle.token())).await;
    assert_eq!(sent(&world).len(), 1, "without the store nobody knows what became of it");
}

/// Behaviour 159 (what is put into an emptied store says nothing of the refresh token that it had).
#[tokio::test(start_paused = true)]
async fn a_token_that_is_set_after_a_store_was_emptied_does_not_hide_that() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let holder = world.process_over(world.store.heard_after(SECOND), world.signed_in(&first));
    let other = world.process(world.signed_in(&first));
    holder.token().await;
    world.store.forget_everything();
    other.handle.set_token(Token::bearer("given").unwrap().with_expires_in(60 * SECOND)).await.unwrap();
    other.handle.invalidate();
    other.token().await;
    assert_none_was_sent_twice(&world);
}

/// Behaviour 127 (what `shutdown` itself waits for).
#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_save_that_is_tried_again() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let process = world.process(world.signed_in(&first));
    process.token().await;
    sleep(HOUR * 9 / 10).await;
    world.auth.script([Fault::Slow(SECOND / 2)]);
    world.store.trouble(Call::Save, Trouble::Fail);
    assert_eq!(process.get().await, 200);
    let begin = Instant::now();
    let ended = async {
        process.handle.shutdown().await;
        begin.elapsed()
    };
    let healed = async {
        sleep(3 * SECOND).await;
        world.store.heal();
    };
    let (ended, ()) = tokio::join!(ended, healed);
    assert!(
        (3 * SECOND..4 * SECOND).contains(&ended),
        "shutdown() returned after {ended:?}, the store was back after 3 s"
    );
}

/// Behaviour 158 (a short lease that cannot be renewed meanwhile).
#[tokio::test(start_paused = true)]
async fn a_save_is_tried_again_before_a_lease_ends_that_cannot_be_renewed() {
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let processes: Vec<_> = (0..3).map(|_| world.process_with_lease(world.signed_in(&first), SECOND)).collect();
    processes[0].token().await;
    sleep(HOUR).await;
    world.store.trouble(Call::Renew, Trouble::Fail);
    world.store.trouble(Call::Save, Trouble::Fail);
    world.auth.script([Fault::Slow(SECOND / 10)]);
    let (_, ()) = tokio::join!(processes[0].handle.token(), async {
        sleep(SECOND * 2 / 3).await;
        world.store.heal();
        world.store.trouble(Call::Renew, Trouble::Fail);
    });
    let tokens = join_all(processes.iter().map(|process| process.token())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_none_was_sent_twice(&world);
}
