//! Round after round of processes that renew a token over one store, while something goes wrong: how many refresh tokens
//! were sent twice. `ROUNDS=200 cargo test -p fleet-example --test redis rounds -- --nocapture` for more of them, `PROCESSES=24` for
//! more processes where one is killed.

use std::env;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::MutexGuard;
use tower_oauth2_client::test_util::{AuthServer, Served, TestClock, serve};

use crate::fleet::{ALONE, expire};
use crate::server::Redis;
use crate::server::tempdir::TempDir;
use crate::worker::{Setup, Worker};

const PROCESSES: usize = 4;
/// With Redis dying in each round.
const MORE_PROCESSES: usize = 6;

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
        unhealed += usize::from(!heals(&mut fleet).await);
    }
    tell(world, name, (rounds, PROCESSES), failed, unhealed);
}

/// The figures of some rounds. No refresh token was sent twice, and every round healed.
fn tell(world: &World, name: &str, (rounds, processes): (usize, usize), failed: usize, unhealed: usize) {
    let (requests, reuses) = (world.auth.token_requests(), world.auth.refresh_token_reuses());
    println!(
        "{name}: {rounds} rounds of {processes} processes, {requests} token requests, {reuses} refresh tokens sent twice, \
         {failed} requests failed, {unhealed} rounds not healed"
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

/// A process is killed at any moment of a renewal, and another takes its place.
async fn a_process_is_killed_in_each_round(world: &World, store: String, name: &str) {
    let _ = world.auth.clone().latency(Duration::from_millis(50)).issue_refresh_tokens();
    let setup = world.setup(store, false);
    let processes = env::var("PROCESSES").ok().and_then(|processes| processes.parse().ok()).unwrap_or(8);
    let mut fleet = join_all((0..processes).map(|_| Worker::spawn(&setup))).await;
    let (rounds, mut failed, mut unhealed) = (rounds(), 0, 0);
    for _ in 0..rounds {
        expire().await;
        // The first one to ask is most likely the one that holds the lease.
        let dies = fastrand::usize(..fleet.len());
        fleet[dies].say("requests 5").await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
        for (_, worker) in fleet.iter_mut().enumerate().filter(|(at, _)| *at != dies) {
            worker.say("requests 5").await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..90))).await;
        fleet[dies].signal("KILL").await;
        for (_, worker) in fleet.iter_mut().enumerate().filter(|(at, _)| *at != dies) {
            failed += worker.done().await.failed;
        }
        fleet[dies] = Worker::spawn(&setup).await;
        unhealed += usize::from(!heals(&mut fleet).await);
    }
    tell(world, name, (rounds, processes), failed, unhealed);
    assert_eq!(failed, 0, "only the dead have no answer");
}

/// With another grant beside the refresh token: what a process that is killed may have spent is not sent again.
#[tokio::test]
async fn files_and_a_process_is_killed_in_each_round() {
    let (world, dir) = (World::new().await, TempDir::new());
    let path = dir.path().join("tokens").to_str().unwrap().to_owned();
    a_process_is_killed_in_each_round(&world, path, "files, one is killed").await;
}

#[tokio::test]
async fn redis_and_a_process_is_killed_in_each_round() {
    let Some(redis) = Redis::start().await else { return };
    let world = World::new().await;
    a_process_is_killed_in_each_round(&world, redis.url(), "Redis, one is killed").await;
}

/// Redis dies at any moment of a renewal and comes back after any time, with what it had or without.
async fn redis_dies_in_each_round(redis: Redis, name: &str) {
    let world = World::new().await;
    let _ = world.auth.clone().latency(Duration::from_millis(50));
    let setup = world.setup(redis.url(), true);
    let mut redis = redis;
    let mut fleet = join_all((0..MORE_PROCESSES).map(|_| Worker::spawn(&setup))).await;
    assert!(join_all(fleet.iter_mut().map(|worker| worker.requests(1))).await.iter().all(|done| done.failed == 0));
    let (rounds, mut failed, mut unhealed) = (rounds(), 0, 0);
    for _ in 0..rounds {
        expire().await;
        for worker in &mut fleet {
            worker.say("requests 5").await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..150))).await;
        redis.stop().await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1500))).await;
        redis.restart().await;
        for worker in &mut fleet {
            failed += worker.done().await.failed;
        }
        unhealed += usize::from(!heals(&mut fleet).await);
    }
    tell(&world, name, (rounds, MORE_PROCESSES), failed, unhealed);
}

/// Behaviour 159: Redis comes back empty, and a process that has just started, with what its configuration brought, asks
/// first.
#[tokio::test]
async fn redis_comes_back_empty_and_a_process_starts() {
    let Some(mut redis) = Redis::start().await else { return };
    let world = World::new().await;
    let setup = world.setup(redis.url(), true);
    let mut fleet = join_all((0..PROCESSES).map(|_| Worker::spawn(&setup))).await;
    let rounds = rounds();
    for round in 0..rounds {
        assert!(heals(&mut fleet).await, "round {round}");
        expire().await;
        redis.stop().await;
        redis.restart().await;
        let mut newcomer = vec![Worker::spawn(&setup).await];
        assert!(heals(&mut newcomer).await, "round {round}");
        expire().await;
    }
    let reuses = world.auth.refresh_token_reuses();
    println!("a process starts over an empty Redis: {rounds} rounds, {reuses} refresh tokens sent twice");
    assert_eq!(reuses, 0);
}

/// Whether all have a token again soon.
async fn heals(fleet: &mut [Worker]) -> bool {
    for _ in 0..40 {
        if join_all(fleet.iter_mut().map(|worker| worker.requests(1))).await.iter().all(|done| done.failed == 0) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    false
}

/// Behaviour 159.
#[tokio::test]
async fn redis_dies_while_a_refresh_token_is_redeemed_and_comes_back_empty() {
    let Some(redis) = Redis::start().await else { return };
    redis_dies_in_each_round(redis, "Redis dies, empty after it").await;
}

/// Behaviour 158.
#[tokio::test]
async fn redis_dies_while_a_refresh_token_is_redeemed_and_comes_back_with_what_it_had() {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
    let Some(redis) = Redis::with_arguments(arguments.to_vec()).await else { return };
    redis_dies_in_each_round(redis, "Redis dies, with its data after it").await;
}
