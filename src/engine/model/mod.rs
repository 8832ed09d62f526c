//! Models of the shipped cell under loom: every interleaving of a few threads, up to three preemptions. `make model`.
//!
//! A model is a handful of threads over one table of cells. What they spawn waits in a runtime of the model's own until
//! one of the threads drives it, fires its timers, or drops it as a runtime that ends does. A thread that waits for a result
//! drives its runtime meanwhile: a task that another thread has prepared and not yet spawned is run by the thread that is there. A
//! waiter that nobody wakes is a deadlock, which loom reports.
//!
//! What is not modelled: tokio, `futures_util::Shared` and `arc_swap`, which have tests and models of their own; in their
//! place stand a lock and a queue (`rt.rs`, `sync.rs`). No name of a behaviour is given here, since `cargo test` does
//! not run the models. That they see anything is shown by planted defects (`make model-planted`).

mod world;

use super::cell::{Read, Rejection};
use super::env::EnginePolicy;
use super::refresh::RefreshResult;
use super::rt::Runtime;
use crate::types::TokenErrorKind;
use world::{Answer, World, check, drive};

/// The generation that a request would be sent with, waiting for it in this runtime if need be; `None`: an error.
fn token(world: &World, runtime: &Runtime) -> Option<u64> {
    runtime.enter();
    for _ in 0..4 {
        match world.cell().read(world.env()) {
            Read::Ready(current) => return Some(current.generation),
            Read::Failed(_) => return None,
            Read::Wait { waiter, fallback } => match runtime.block_on(waiter) {
                RefreshResult::New(current) | RefreshResult::Same(current) => {
                    // Publish before wake: who wakes finds that token, or a newer one.
                    if let Read::Ready(found) = world.cell().read(world.env()) {
                        assert!(found.generation >= current.generation, "published after the waiters were woken");
                    }
                    return Some(current.generation);
                }
                RefreshResult::Failed(_) => return fallback.map(|current| current.generation),
                RefreshResult::Superseded => {}
            },
        }
    }
    panic!("superseded again and again")
}

/// The generation that a request is resent with whose token was rejected; `None`: the response is handed out.
fn resend(world: &World, rejected: u64, between: impl Fn()) -> Option<u64> {
    world.runtime.enter();
    let mut waiter = match world.cell().reject(world.env(), rejected, true) {
        Rejection::Newer(current) => return Some(current.generation),
        Rejection::Wait { waiter, .. } => waiter,
        Rejection::Suppressed | Rejection::Failed(_) => return None,
    };
    for _ in 0..4 {
        between();
        match world.runtime.block_on(waiter) {
            RefreshResult::New(current) | RefreshResult::Same(current) => return Some(current.generation),
            RefreshResult::Failed(_) => return None,
            RefreshResult::Superseded => match world.cell().read_newer(world.env(), rejected) {
                Read::Ready(current) => return Some(current.generation),
                Read::Failed(_) => return None,
                Read::Wait { waiter: next, .. } => waiter = next,
            },
        }
    }
    panic!("superseded again and again")
}

fn with_primary_grant() -> EnginePolicy {
    EnginePolicy { has_primary_grant: true, ..EnginePolicy::default() }
}

/// One refresh a partition, and all who wait wake to its token.
#[test]
fn two_readers_start_one_refresh() {
    check(|| {
        let world = World::new(None);
        let other = world.thread(|world| token(&world, &world.runtime));
        let mine = token(&world, &world.runtime);
        assert_eq!((mine, other.join().unwrap()), (Some(1), Some(1)));
        assert_eq!(world.token_requests(), 1);
    });
}

/// Generation and value are never torn.
#[test]
fn a_reader_never_sees_a_word_without_its_token() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        let reader = world.thread(|world| {
            let word = world.cell().word();
            let Some(current) = world.cell().ready(world.env()) else { return };
            // The hot path remembers the word and takes the token's own generation.
            assert!(current.word() >= word & !0b11, "an older token under a newer word");
            assert_eq!(current.token.access_token(), format!("t{}", current.generation));
        });
        // Inside of a runtime: without a timer nothing is handed out unlooked at.
        world.runtime.enter();
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        world.set_token("t2");
        reader.join().unwrap();
    });
}

/// Nobody hangs where a runtime ends and drops the task, and the next request starts another one.
#[test]
fn a_task_that_is_dropped_wakes_those_who_wait() {
    check(|| {
        let world = World::new(None);
        let (waiter, task) = world.start_refresh();
        let other = world.thread(|world| token(&world, &world.runtime));
        drop(task);
        let result = Runtime::default().block_on(waiter);
        assert!(matches!(result, RefreshResult::Failed(error) if error.kind() == TokenErrorKind::Aborted));
        let other = other.join().unwrap();
        assert!(world.token_requests() == u64::from(other.is_some()), "it joined that one, or started its own");
    });
}

/// Those who wait on another runtime look again.
#[test]
fn a_runtime_that_ends_fails_nobody_elsewhere() {
    check(|| {
        let world = World::new(None);
        let (_, task) = world.start_refresh();
        let other = world.thread(|world| token(&world, &world.elsewhere));
        drop(task);
        assert_eq!(other.join().unwrap(), Some(1));
        assert_eq!(world.token_requests(), 1);
    });
}

/// Nor where the source panics, which is asked once and then has a pause.
#[test]
fn a_source_that_panics_wakes_those_who_wait() {
    check(|| {
        let world = World::new(None);
        world.will_answer([Answer::Panic]);
        let other = world.thread(|world| token(&world, &world.runtime));
        assert_eq!(token(&world, &world.runtime), None);
        assert_eq!(other.join().unwrap(), None);
        assert_eq!(world.token_requests(), 1);
    });
}

/// No wake-up is lost with somebody who is dropped.
#[test]
fn a_waiter_that_is_dropped_takes_nobody_with_it() {
    check(|| {
        let world = World::new(None);
        let (waiter, task) = world.start_refresh();
        let leaver = world.thread(|world| {
            world.runtime.enter();
            let read = world.cell().read(world.env());
            if let Read::Wait { mut waiter, .. } = read {
                let nobody = std::task::Waker::noop();
                let _ = std::pin::Pin::new(&mut waiter).poll(&mut std::task::Context::from_waker(nobody));
            }
        });
        let runner = world.thread(|_| drive(task));
        assert!(matches!(Runtime::default().block_on(waiter), RefreshResult::New(_)));
        leaver.join().unwrap();
        runner.join().unwrap();
    });
}

/// Nor does anybody wait for ever for a task that is never polled: two join it from elsewhere, and one watchdog does.
#[test]
fn nobody_waits_for_a_runtime_that_nobody_drives() {
    check(|| {
        let world = World::new(Some("r0"));
        let (_, task) = world.start_refresh();
        world.pass(31);
        let join = |world: &World| {
            world.elsewhere.enter();
            let read = world.cell().read(world.env());
            world.elsewhere.fire_timers();
            match read {
                Read::Wait { waiter, .. } => {
                    Runtime::default().block_on(waiter);
                }
                Read::Ready(_) | Read::Failed(_) => {}
            }
        };
        let other = world.thread(move |world| join(&world));
        join(&world);
        other.join().unwrap();
        // It is not wanted any more, and sends nothing.
        drive(task);
        assert!(world.sent().is_empty());
        assert_eq!(world.held_refresh_token().as_deref(), Some("r0"));
    });
}

/// The same where its runtime is driven again just then.
#[test]
fn a_late_answer_and_the_watchdog_lose_no_refresh_token() {
    check(|| {
        let world = World::new(Some("r0"));
        let (_, task) = world.start_refresh();
        let late = world.thread(|_| drive(task));
        world.elsewhere.enter();
        if let Read::Wait { waiter, .. } = world.cell().read(world.env()) {
            world.elsewhere.fire_timers();
            world.elsewhere.block_on(waiter);
        }
        late.join().unwrap();
        let held = world.held_refresh_token();
        assert!(held.as_deref() == if world.sent().is_empty() { Some("r0") } else { Some("r1") }, "{held:?}");
    });
}

/// A late answer does not overwrite a newer token.
#[test]
fn a_token_that_was_set_outlives_an_older_answer() {
    check(|| {
        let world = World::new(None);
        let (waiter, task) = world.start_refresh();
        let runner = world.thread(|_| drive(task));
        world.set_token("set");
        runner.join().unwrap();
        Runtime::default().block_on(waiter);
        let Read::Ready(current) = world.cell().read(world.env()) else { panic!("a token was set") };
        assert_eq!(current.token.access_token(), "set");
    });
}

/// No read that starts after `invalidate` returns the token from before it.
#[test]
fn an_invalidated_token_is_not_read_again() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        let other = world.thread(|world| {
            world.runtime.enter();
            let _ = world.cell().read(world.env());
        });
        world.cell().invalidate();
        world.runtime.enter();
        match world.cell().read(world.env()) {
            Read::Wait { fallback, .. } => assert!(fallback.is_none()),
            read => panic!("an old token: {read:?}"),
        }
        assert!(world.cell().ready(world.env()).is_none());
        other.join().unwrap();
    });
}

/// A rejected generation is never what its request is resent with, though credentials are replaced meanwhile.
#[test]
fn a_rejection_gets_something_newer() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        let other = world.thread(|world| {
            world.runtime.enter();
            world.cell().new_epoch(world.env(), true);
        });
        let resent = resend(&world, 1, || {});
        assert!(resent.is_none_or(|generation| generation > 1));
        other.join().unwrap();
        let current = world.cell().ready(world.env());
        assert!(current.is_none_or(|current| current.generation > 1));
    });
}

/// Nor where a short pause is waited out, after which the rejected token is still the current one.
#[test]
fn whoever_waits_out_a_pause_gets_something_newer() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        world.will_answer([Answer::Unavailable]);
        let other = world.thread(|world| resend(&world, 1, || world.runtime.fire_timers()));
        let mine = resend(&world, 1, || world.runtime.fire_timers());
        for resent in [mine, other.join().unwrap()] {
            assert_ne!(resent, Some(1), "resent with the token that was rejected");
        }
    });
}

/// The mark that a token is known to be invalid ends with the refresh that it waits for: who was rejected as well has the
/// new token, and asks for no other.
#[test]
fn the_end_of_a_refresh_clears_the_invalid_mark() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        world.runtime.enter();
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        world.runtime.settle();
        let Rejection::Wait { .. } = world.cell().reject(world.env(), 1, true) else { panic!("a refresh begins") };
        let task = world.take_refresh();
        let runner = world.thread(|_| drive(task));
        assert_eq!(resend(&world, 1, || {}), Some(2));
        runner.join().unwrap();
        let Read::Ready(current) = world.cell().read(world.env()) else { panic!("the new token may be used") };
        assert_eq!((current.generation, current.word()), (2, world.cell().word()));
        assert_eq!(world.token_requests(), 1);
    });
}

/// A timer that goes off or is dropped while a reader clears `CHECK_CLOCK` is not lost.
#[test]
fn a_timer_asks_for_a_look_at_the_clock() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        let driver = world.thread(|world| {
            drop(world.runtime.take());
            world.runtime.fire_timers();
        });
        world.runtime.enter();
        let Read::Ready(current) = world.cell().read(world.env()) else { panic!("it is good") };
        let _ = world.cell().read(world.env());
        driver.join().unwrap();
        let is_asleep = world.cell().word() == current.word();
        assert!(!is_asleep || world.runtime.has_tasks(), "asleep, and nobody will wake it");
    });
}

/// A timer on a runtime that nobody drives holds no renewal up.
#[test]
fn time_passes_though_nobody_drives_the_timer() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        world.runtime.enter();
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        world.pass(7200);
        let other = world.thread(|world| token(&world, &world.elsewhere));
        let ready = world.cell().ready(world.env());
        assert!(ready.is_none_or(|current| current.generation > 1), "two hours old");
        assert_eq!(other.join().unwrap(), Some(2));
        assert_eq!(world.token_requests(), 1);
    });
}

/// A refresh token is with the server once, whatever supersedes the refresh that sent it.
#[test]
fn a_refresh_token_is_with_the_server_once() {
    fn replace_credentials(world: &World) {
        // As a secret watcher does, with the same ones.
        world.cell().new_epoch(world.env(), true);
    }

    fn set_token(world: &World) {
        world.set_token("set");
        world.cell().invalidate();
    }

    for supersede in [replace_credentials, set_token] {
        check(move || {
            let world = World::new(Some("r0"));
            let (_, task) = world.start_refresh();
            let runner = world.thread(|_| drive(task));
            supersede(&world);
            world.elsewhere.enter();
            if let Read::Wait { waiter, .. } = world.cell().read(world.env()) {
                // Waits for the answer of the one that sent it, and looks again.
                world.elsewhere.block_on(waiter);
            }
            let _ = world.cell().read(world.env());
            world.elsewhere.settle();
            runner.join().unwrap();
            world.sent();
            assert!(world.held_refresh_token().is_some_and(|held| held != "r0"));
        });
    }
}

/// Nor by a task that was held up on a runtime that nobody drove, and begins when another one may have taken its place.
#[test]
fn a_task_that_begins_late_sends_nothing_that_was_sent() {
    check(|| {
        let world = World::new(Some("r0"));
        let (_, task) = world.start_refresh();
        world.pass(32);
        let runner = world.thread(|_| drive(task));
        for _ in 0..2 {
            world.elsewhere.enter();
            if let Read::Wait { waiter, .. } = world.cell().read(world.env()) {
                world.elsewhere.settle();
                world.elsewhere.fire_timers();
                world.elsewhere.block_on(waiter);
            }
        }
        runner.join().unwrap();
        let sent = world.sent();
        assert_eq!(world.held_refresh_token(), Some(format!("r{}", sent.len())));
    });
}

/// An answer replaces the refresh token only if it was begun later than the one that brought the current one.
#[test]
fn a_late_answer_keeps_the_newer_refresh_token() {
    check(|| {
        let world = World::with(Some("r0"), with_primary_grant());
        let (_, task) = world.start_refresh();
        let late = world.thread(|_| drive(task));
        for _ in 0..2 {
            world.cell().new_epoch(world.env(), true);
            assert!(token(&world, &world.runtime).is_some());
        }
        late.join().unwrap();
        let newest = format!("r{}", world.token_requests());
        let (sent, held) = (world.sent(), world.held_refresh_token());
        assert!(held.as_deref().is_some_and(|held| !sent.iter().any(|sent| sent == held)), "{held:?} after {sent:?}");
        // Unless the late one's request was the last.
        assert!(held.as_deref() == Some(&newest) || held.as_deref() == Some("r2"), "{held:?} of {newest}");
    });
}

/// A sign-in meanwhile is newer than all that the former one brings.
#[test]
fn a_late_answer_leaves_a_later_sign_in() {
    check(|| {
        let world = World::new(Some("r0"));
        let (_, task) = world.start_refresh();
        let late = world.thread(|_| drive(task));
        world.sign_in("signed-in", "r-signed-in");
        late.join().unwrap();
        assert_eq!(world.held_refresh_token().as_deref(), Some("r-signed-in"));
    });
}

/// `invalid_grant` speaks of what was sent.
#[test]
fn a_refusal_leaves_the_refresh_token_that_came_in_meanwhile() {
    check(|| {
        let world = World::with(Some("r0"), with_primary_grant());
        world.will_refuse("r0");
        let (_, task) = world.start_refresh();
        let late = world.thread(|_| drive(task));
        world.cell().new_epoch(world.env(), true);
        let new = token(&world, &world.runtime);
        late.join().unwrap();
        // The one that was superseded had sent it, and the primary grant brought another.
        if new.is_some() {
            assert!(world.held_refresh_token().is_some_and(|held| held != "r0"));
        }
    });
}

/// The same of a look at the clocks for another partition.
#[test]
fn time_passes_though_another_partition_has_looked() {
    check(|| {
        let world = World::new(None);
        world.runtime.enter();
        for cell in [world.cell().clone(), world.tenant("a"), world.tenant("b")] {
            world.set_token_of(&cell, "t1");
            assert!(matches!(cell.read(world.env()), Read::Ready(_)));
        }
        world.pass(7200);
        let other = world.thread(|world| {
            world.elsewhere.enter();
            assert!(matches!(world.tenant("a").read(world.env()), Read::Wait { .. }));
        });
        for cell in [world.cell().clone(), world.tenant("b")] {
            assert!(cell.ready(world.env()).is_none(), "two hours old");
        }
        other.join().unwrap();
        for cell in [world.cell().clone(), world.tenant("b")] {
            assert!(cell.ready(world.env()).is_none(), "two hours old");
        }
    });
}

/// A cell whose refresh is in flight is not evicted: its refresh would be forked.
#[test]
fn an_eviction_forks_no_refresh() {
    check(|| {
        let world = World::with(None, EnginePolicy { max_partitions: 1, ..EnginePolicy::default() });
        let others = world.thread(|world| {
            drop(world.tenant("b"));
            drop(world.tenant("c"));
        });
        world.runtime.enter();
        let Read::Wait { waiter, .. } = world.tenant("a").read(world.env()) else { panic!("there is no token") };
        others.join().unwrap();
        let Read::Wait { waiter: second, .. } = world.tenant("a").read(world.env()) else { panic!("it ended") };
        for waiter in [waiter, second] {
            assert!(matches!(world.runtime.block_on(waiter), RefreshResult::New(_)));
        }
        assert_eq!(world.token_requests(), 1);
    });
}
