//! Round after round of processes that renew a token over one store, while something goes wrong: how many refresh tokens
//! were sent twice. `ROUNDS=200 cargo test --test redis rounds -- --nocapture` for more of them.

use std::env;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::MutexGuard;
use tower_oauth2_client::test_util::{AuthServer, Served, TestClock, serve};

use crate::fleet::{ALONE, expire};
use crate::server::Redis;
use crate::server::tempdir::TempDir;
use crate::worker::{LEASE, Setup, Worker};

const PROCESSES: usize = 4;

fn rounds() -> usize {
    env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

struct World {
    auth: AuthServer,
    served: Served,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Tokens live for a second as far as the processes are told.
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let auth = AuthServer::new(TestClock::new()).client("id", "secret").announce_expires_in("1");
        let served = serve(auth.clone()).await.unwrap();
        Self { auth, served, _alone: alone }
    }

    fn setup(&self, store: String, only_refresh_token: bool) -> Setup {
        let refresh_token = if only_refresh_token { self.auth.sign_in("id", "") } else { String::new() };
        Setup { store, token_url: self.served.uri("/token"), refresh_token, ..Setup::default() }
    }
}

/// What goes wrong in a round, in turn.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Nothing,
    /// Redis ends and comes back empty before the round.
    RestartedEmpty,
    /// All it has is gone.
    Flushed,
    /// It ends while a token request is under way and comes back empty.
    RestartedMeanwhile,
    /// A process is killed while it does nothing, and another starts.
    ProcessReplaced,
}

async fn run(world: &World, setup: &Setup, wrong: &[Wrong], mut redis: Option<Redis>, name: &str) {
    let _ = world.auth.clone().latency(Duration::from_millis(50));
    let mut fleet = join_all((0..PROCESSES).map(|_| Worker::spawn(setup))).await;
    let (mut failed, mut unhealed) = (0, 0);
    let rounds = rounds();
    for round in 0..rounds {
        expire().await;
        let wrong = wrong[round % wrong.len()];
        match (wrong, &mut redis) {
            (Wrong::RestartedEmpty, Some(redis)) => {
                redis.stop().await;
                redis.restart().await;
            }
            (Wrong::Flushed, Some(redis)) => {
                let _: () = redis::cmd("FLUSHALL").query_async(&mut redis.connection().await).await.unwrap();
            }
            (Wrong::ProcessReplaced, _) => {
                fleet[round % PROCESSES] = Worker::spawn(setup).await;
            }
            _ => {}
        }
        // Not all at the same time, so that now the one and now the other asks for all.
        for (at, worker) in fleet.iter_mut().enumerate() {
            if (at + round) % 3 != 2 {
                worker.say("requests 5").await;
            }
        }
        if let (Wrong::RestartedMeanwhile, Some(redis)) = (wrong, &mut redis) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            redis.stop().await;
            redis.restart().await;
        }
        for (at, worker) in fleet.iter_mut().enumerate() {
            if (at + round) % 3 != 2 {
                failed += worker.done().await.failed;
            }
        }
        // What failed heals.
        let mut left = 40;
        loop {
            let done = join_all(fleet.iter_mut().map(|worker| worker.requests(1))).await;
            if done.iter().all(|done| done.failed == 0) {
                break;
            }
            left -= 1;
            if left == 0 {
                unhealed += 1;
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    let reuses = world.auth.refresh_token_reuses();
    println!(
        "{name}: {rounds} rounds of {PROCESSES} processes, {} token requests, {reuses} refresh tokens sent twice, \
         {failed} requests failed, {unhealed} rounds not healed",
        world.auth.token_requests()
    );
    assert_eq!((reuses, unhealed), (0, 0), "{name}");
}

const OF_REDIS: [Wrong; 5] =
    [Wrong::Nothing, Wrong::Flushed, Wrong::ProcessReplaced, Wrong::RestartedEmpty, Wrong::RestartedMeanwhile];
const OF_FILES: [Wrong; 2] = [Wrong::Nothing, Wrong::ProcessReplaced];

/// Behaviours 158 and 159.
#[tokio::test]
async fn redis_and_only_a_refresh_token() {
    let Some(redis) = Redis::start().await else { return };
    let world = World::new().await;
    run(&world, &world.setup(redis.url(), true), &OF_REDIS, Some(redis), "Redis, refresh token only").await;
}

#[tokio::test]
async fn redis_and_client_credentials() {
    let Some(redis) = Redis::start().await else { return };
    let world = World::new().await;
    let _ = world.auth.clone().issue_refresh_tokens();
    run(&world, &world.setup(redis.url(), false), &OF_REDIS, Some(redis), "Redis, client credentials").await;
}

#[tokio::test]
async fn files_and_only_a_refresh_token() {
    let (world, dir) = (World::new().await, TempDir::new());
    let path = dir.path().join("tokens").to_str().unwrap().to_owned();
    run(&world, &world.setup(path, true), &OF_FILES, None, "files, refresh token only").await;
}

#[tokio::test]
async fn files_and_client_credentials() {
    let (world, dir) = (World::new().await, TempDir::new());
    let _ = world.auth.clone().issue_refresh_tokens();
    let path = dir.path().join("tokens").to_str().unwrap().to_owned();
    run(&world, &world.setup(path, false), &OF_FILES, None, "files, client credentials").await;
}

/// Behaviours 86 and 87, with files: what a process that is killed or stopped at each step costs the others.
#[tokio::test]
async fn files_and_a_holder_that_is_killed_or_stopped() {
    // Where, by which signal, whether there is another grant; whether the others get a token, how often one is sent twice.
    for (pause, signal, only_refresh_token, heals, reuses) in [
        ("before", "KILL", false, true, 0),
        ("after", "KILL", false, true, 0),
        ("before", "STOP", false, true, 0),
        ("after", "STOP", false, true, 0),
        ("before", "KILL", true, true, 0),
        // Stopped between the look at its lease and the first byte on the wire: it sends what its successor has spent.
        ("before", "STOP", true, true, 1),
        // The successor died with its holder: nobody has it, and the server revokes the family.
        ("after", "KILL", true, false, 1),
    ] {
        let (world, dir) = (World::new().await, TempDir::new());
        let path = dir.path().join("tokens").to_str().unwrap().to_owned();
        let setup = world.setup(path, only_refresh_token);
        let _ = world.auth.clone().issue_refresh_tokens();
        let mut waiting = Worker::spawn(&setup).await;
        assert_eq!(waiting.requests(1).await.ok, 1);
        let mut holding = Worker::spawn(&Setup { pause, ..setup.clone() }).await;
        expire().await;
        let _ = world.auth.clone().announce_expires_in("3600");
        holding.say("requests 1").await;
        holding.hear("paused").await;
        waiting.say("requests 10").await;
        let begin = std::time::Instant::now();
        holding.signal(signal).await;
        let done = waiting.done().await;
        let took = begin.elapsed();
        if signal == "STOP" {
            holding.say("continue").await;
            holding.signal("CONT").await;
            assert_eq!(holding.done().await.ok, 1, "{pause} {signal}");
        }
        println!(
            "files, {pause} the answer, {signal}, other grant: {}: the next one after {took:?}, ok: {}, sent twice: {}",
            !only_refresh_token,
            done.failed == 0,
            world.auth.refresh_token_reuses()
        );
        let case = format!("{pause} {signal} {only_refresh_token}");
        assert_eq!((done.failed == 0, world.auth.refresh_token_reuses()), (heals, reuses), "{case}");
        assert!(took < LEASE * 6, "{case}: {took:?}");
    }
}
