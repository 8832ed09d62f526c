//! Models of the shipped cell under loom: every interleaving of a few threads, up to three preemptions. `make model`.
//!
//! A model is a handful of threads over one cell. Tasks that the cell spawns wait in the model's runtime until a thread of
//! the model runs them or drops them, as a runtime that ends does. Time stands still: a deadline that passes is a task
//! that is dropped.

mod world;

use loom::future::block_on;
use loom::thread;

use super::cell::{Read, Rejection};
use super::refresh::RefreshResult;
use crate::token::{RefreshToken, Token};
use crate::types::{Secret, TokenErrorKind};
use world::{World, check};

/// The token that a request would be sent with, waiting for it if need be; `None`: an error.
fn token(world: &World) -> Option<u64> {
    world.runtime.enter();
    for _ in 0..4 {
        match world.cell().read(world.env()) {
            Read::Ready(current) => return Some(current.generation),
            Read::Failed(_) => return None,
            Read::Wait { waiter, fallback } => match block_on(waiter) {
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

/// Behaviour 1 (a cold herd makes one token request).
#[test]
fn two_readers_start_one_refresh() {
    check(|| {
        let world = World::new(None);
        let other = {
            let world = world.clone();
            thread::spawn(move || token(&world))
        };
        world.run_one_task();
        let mine = token(&world);
        assert_eq!((mine, other.join().unwrap()), (Some(1), Some(1)));
        assert_eq!(world.token_requests(), 1);
    });
}

/// Behaviour 8 (no torn state: value and generation change together).
#[test]
fn a_reader_never_sees_a_word_without_its_token() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        let reader = {
            let world = world.clone();
            thread::spawn(move || {
                let word = world.cell().word();
                let Some(current) = world.cell().ready(world.env()) else { return };
                // The hot path remembers the word and takes the token's own generation.
                assert!(current.word() >= word & !0b11, "an older token under a newer word");
                assert_eq!(current.token.access_token(), format!("t{}", current.generation));
            })
        };
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        world.set_token("t2");
        reader.join().unwrap();
    });
}

/// Behaviours 20 and 22 (whatever ends the task, nobody hangs).
#[test]
fn a_task_that_is_dropped_wakes_those_who_wait() {
    check(|| {
        let world = World::new(None);
        let other = {
            let world = world.clone();
            thread::spawn(move || token(&world))
        };
        world.runtime.enter();
        let Read::Wait { waiter, .. } = world.cell().read(world.env()) else { panic!("there is no token") };
        drop(world.take_task());
        let result = block_on(waiter);
        assert!(matches!(result, RefreshResult::Failed(error) if error.kind() == TokenErrorKind::Aborted));
        // The other one joined that refresh, or started the next one.
        if let Some(task) = world.runtime.take() {
            block_on(task);
        }
        let _ = other.join().unwrap();
    });
}

/// Behaviour 82 (a late answer does not overwrite a newer token).
#[test]
fn a_token_that_was_set_outlives_an_older_answer() {
    check(|| {
        let world = World::new(None);
        world.runtime.enter();
        let Read::Wait { waiter, .. } = world.cell().read(world.env()) else { panic!("there is no token") };
        let task = world.take_task();
        let runner = thread::spawn(move || block_on(task));
        world.set_token("set");
        runner.join().unwrap();
        block_on(waiter);
        let Read::Ready(current) = world.cell().read(world.env()) else { panic!("a token was set") };
        assert_eq!(current.token.access_token(), "set");
    });
}

/// Behaviour 85 (no read that starts after `invalidate` returns the token from before it).
#[test]
fn an_invalidated_token_is_not_read_again() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                world.runtime.enter();
                let _ = world.cell().read(world.env());
            })
        };
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

/// Behaviour 133 (a rejected generation is never handed out for its resend).
#[test]
fn a_rejection_gets_something_newer() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                world.runtime.enter();
                world.cell().new_epoch(world.env(), true);
            })
        };
        world.runtime.enter();
        match world.cell().reject(world.env(), 1, true) {
            Rejection::Newer(current) => assert!(current.generation > 1),
            Rejection::Wait { waiter, .. } => {
                while let Some(task) = world.runtime.take() {
                    block_on(task);
                }
                match block_on(waiter) {
                    RefreshResult::New(current) | RefreshResult::Same(current) => assert!(current.generation > 1),
                    RefreshResult::Failed(_) | RefreshResult::Superseded => {}
                }
            }
            Rejection::Suppressed | Rejection::Failed(_) => panic!("the first rejection may refresh"),
        }
        other.join().unwrap();
        let current = world.cell().ready(world.env());
        assert!(current.is_none_or(|current| current.generation > 1));
    });
}

/// The mark that a token is known to be invalid ends with the refresh that it waits for.
#[test]
fn the_end_of_a_refresh_clears_the_invalid_mark() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        world.runtime.enter();
        assert!(matches!(world.cell().read(world.env()), Read::Ready(_)));
        let Rejection::Wait { .. } = world.cell().reject(world.env(), 1, true) else { panic!("a refresh begins") };
        let task = world.take_task();
        let runner = thread::spawn(move || block_on(task));
        let _ = world.cell().read(world.env());
        runner.join().unwrap();
        let Read::Ready(current) = world.cell().read(world.env()) else { panic!("the new token may be used") };
        assert_eq!(current.generation, 2);
    });
}

/// A timer that fires while a reader clears `CHECK_CLOCK` is not lost.
#[test]
fn a_timer_asks_for_a_look_at_the_clock() {
    check(|| {
        let world = World::new(None);
        world.set_token("t1");
        world.runtime.enter();
        let reader = {
            let world = world.clone();
            thread::spawn(move || {
                world.runtime.enter();
                let _ = world.cell().read(world.env());
            })
        };
        reader.join().unwrap();
        // Its timer is one of the tasks: dropped, as when its runtime ends, while another reader looks.
        let timers: Vec<_> = std::iter::from_fn(|| world.runtime.take()).collect();
        let dropper = thread::spawn(move || drop(timers));
        let _ = world.cell().read(world.env());
        dropper.join().unwrap();
        let has_timer = world.runtime.take().is_some();
        assert!(has_timer || world.cell().ready(world.env()).is_none(), "asleep, and nobody will wake it");
    });
}

/// Behaviour 124 (a refresh token that a running refresh has sent is not sent by another one).
#[test]
fn a_refresh_token_is_with_the_server_once() {
    check(|| {
        let world = World::new(Some("r0"));
        world.runtime.enter();
        let Read::Wait { .. } = world.cell().read(world.env()) else { panic!("there is no token") };
        let first = world.take_task();
        let runner = thread::spawn(move || block_on(first));
        // As a secret watcher does, with the same credentials.
        world.cell().new_epoch(world.env(), true);
        let _ = world.cell().read(world.env());
        if let Some(task) = world.runtime.take() {
            block_on(task);
        }
        runner.join().unwrap();
        world.assert_each_refresh_token_was_sent_once();
    });
}

/// Behaviour 125 (an answer replaces the refresh token only if it was begun later).
#[test]
fn a_late_answer_keeps_the_newer_refresh_token() {
    check(|| {
        let world = World::new(Some("r0"));
        world.runtime.enter();
        let Read::Wait { .. } = world.cell().read(world.env()) else { panic!("there is no token") };
        let first = world.take_task();
        let runner = thread::spawn(move || block_on(first));
        let signed_in = Token::bearer("signed-in").unwrap();
        let refresh_token = RefreshToken::Replace(Secret::from("r-signed-in"));
        let _ = world.cell().hand_in(world.env(), signed_in.with_refresh_token(refresh_token));
        runner.join().unwrap();
        let held = world.cell().revocable().refresh_token;
        assert_eq!(held.map(|token| token.expose().clone()).as_deref(), Some("r-signed-in"));
    });
}
