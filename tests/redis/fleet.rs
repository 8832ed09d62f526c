//! Many processes, one Redis: one token request for all of them, whoever of them dies.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;
use tower_oauth2_client::test_util::{AuthServer, Fault, Served, TestClock, serve};

use crate::server::{Redis, wait_until};
use crate::worker::{Done, LEASE, Setup, Worker};

/// One fleet at a time: their times are compared with those of leases.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());

struct World {
    auth: AuthServer,
    redis: Redis,
    served: Served,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Tokens live for a second as far as the processes are told, until [`World::long_lived`].
    async fn new() -> Option<Self> {
        let alone = ALONE.lock().await;
        let redis = Redis::start().await?;
        let auth = AuthServer::new(TestClock::new()).client("id", "secret").announce_expires_in("1");
        let served = serve(auth.clone()).await.unwrap();
        Some(Self { auth, redis, served, _alone: alone })
    }

    fn setup(&self) -> Setup {
        Setup { store: self.redis.url(), token_url: self.served.uri("/token"), ..Setup::default() }
    }

    fn long_lived(&self) {
        let _ = self.auth.clone().announce_expires_in("3600");
    }
}

const PROCESSES: usize = 8;
const REQUESTS: usize = 10_000;

pub(crate) async fn expire() {
    sleep(Duration::from_millis(1050)).await;
}

/// A fleet whose processes all have a token, which has expired; then each makes ten thousand requests. What they got.
async fn expire_and_storm(world: &World, setup: &Setup) -> Vec<Done> {
    let mut fleet = join_all((0..PROCESSES).map(|_| Worker::spawn(setup))).await;
    for done in join_all(fleet.iter_mut().map(|worker| worker.requests(1))).await {
        assert_eq!(done.ok, 1, "{done:?}");
    }
    expire().await;

    world.long_lived();
    let (before, operations, start) = (world.auth.token_requests(), world.redis.operations().await, Instant::now());
    let done = join_all(fleet.iter_mut().map(|worker| worker.requests(REQUESTS))).await;
    let requests: usize = done.iter().map(|done| done.ok).sum();
    let token_requests = world.auth.token_requests() - before;
    let took = start.elapsed();
    let operations = world.redis.operations().await - operations;
    println!(
        "{PROCESSES} processes, {requests} requests with an expired token: {token_requests} token request, {took:?}; \
         Redis: {operations} operations, {} bytes",
        world.redis.bytes().await
    );
    assert_eq!((requests, token_requests), (PROCESSES * REQUESTS, 1));
    done
}

fn tokens(done: &[Done]) -> Vec<&String> {
    let mut tokens: Vec<_> = done.iter().flat_map(|done| &done.tokens).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

/// Behaviour 89.
#[tokio::test]
async fn a_fleet_with_an_expired_token_makes_one_token_request() {
    let Some(world) = World::new().await else { return };
    let done = expire_and_storm(&world, &world.setup()).await;
    assert_eq!(tokens(&done), [&world.auth.last_token().unwrap()]);
}

/// Behaviour 89.
#[tokio::test]
async fn a_fleet_spends_each_refresh_token_once() {
    let Some(world) = World::new().await else { return };
    let setup = Setup { refresh_token: world.auth.sign_in("id", ""), ..world.setup() };
    let done = expire_and_storm(&world, &setup).await;
    assert_eq!(tokens(&done), [&world.auth.last_token().unwrap()]);
    assert_eq!(world.auth.refresh_token_reuses(), 0);
}

/// A store with a refresh token and an expired access token, a process that waits for the lease of another, and the
/// other, which stands still where it was told to.
async fn one_holds_and_one_waits(world: &World, setup: &Setup, pause: &'static str) -> (Worker, Worker) {
    let _ = world.auth.clone().issue_refresh_tokens();
    let mut waiting = Worker::spawn(setup).await;
    assert_eq!(waiting.requests(1).await.ok, 1);
    let mut holding = Worker::spawn(&Setup { pause, ..setup.clone() }).await;
    expire().await;
    world.long_lived();
    if pause.is_empty() {
        world.auth.script([Fault::HangInBody]);
    }
    holding.say("requests 1").await;
    match pause {
        "" => wait_until(async || world.auth.token_requests() == 2).await,
        _ => {
            holding.hear("paused").await;
        }
    }
    waiting.say("requests 100").await;
    (holding, waiting)
}

async fn kill_the_holder(pause: &'static str) {
    let Some(world) = World::new().await else { return };
    let (mut holding, mut waiting) = one_holds_and_one_waits(&world, &world.setup(), pause).await;
    let start = Instant::now();
    holding.signal("KILL").await;
    let done = waiting.done().await;
    println!("holder killed ({pause:?}): the next one had a token after {:?}", start.elapsed());
    assert_eq!((done.ok, done.failed), (100, 0));
    assert_eq!(tokens(&[done]), [&world.auth.last_token().unwrap()]);
    assert!(start.elapsed() < LEASE * 4, "{:?}", start.elapsed());
    assert_eq!(world.auth.refresh_token_reuses(), 0);
}

/// Behaviour 86: the refresh token was not sent.
#[tokio::test]
async fn the_holder_dies_before_the_token_request() {
    kill_the_holder("before").await;
}

/// Behaviour 86: the refresh token is spent, and the answer on its way.
#[tokio::test]
async fn the_holder_dies_during_the_token_request() {
    kill_the_holder("").await;
}

/// Behaviour 86: the answer came, and was not stored.
#[tokio::test]
async fn the_holder_dies_after_the_token_request() {
    kill_the_holder("after").await;
}

/// Behaviour 86: nobody knows whether the only refresh token is spent. It was not.
#[tokio::test]
async fn the_holder_dies_before_the_token_request_and_there_is_no_other_grant() {
    let Some(world) = World::new().await else { return };
    let setup = Setup { refresh_token: world.auth.sign_in("id", ""), ..world.setup() };
    let (mut holding, mut waiting) = one_holds_and_one_waits(&world, &setup, "before").await;
    holding.signal("KILL").await;
    let done = waiting.done().await;
    assert_eq!((done.ok, done.failed), (100, 0));
    assert_eq!(world.auth.refresh_token_reuses(), 0);
}

/// Behaviour 86: the refresh token is spent, what replaced it died with its holder, and there is no other grant. That is
/// found out once, for all who wait, and said in a way that nobody retries.
#[tokio::test]
async fn the_holder_dies_with_the_only_refresh_token() {
    let Some(world) = World::new().await else { return };
    let setup = Setup { refresh_token: world.auth.sign_in("id", ""), ..world.setup() };
    let (mut holding, mut waiting) = one_holds_and_one_waits(&world, &setup, "after").await;
    let before = world.auth.token_requests();
    holding.signal("KILL").await;
    let done = waiting.done().await;
    assert_eq!((done.ok, done.failed, done.retryable), (0, 100, 0));
    assert_eq!(world.auth.token_requests() - before, 1);
}

/// Behaviour 87.
#[tokio::test]
async fn a_holder_that_slept_through_its_lease_stores_nothing() {
    let Some(world) = World::new().await else { return };
    let (mut sleeping, mut waiting) = one_holds_and_one_waits(&world, &world.setup(), "after").await;
    sleeping.signal("STOP").await;
    sleeping.say("continue").await;
    let taken_over = waiting.done().await;
    assert_eq!((taken_over.ok, taken_over.failed), (100, 0));
    let of_the_successor = world.auth.last_token().unwrap();

    sleeping.signal("CONT").await;
    let late = sleeping.done().await;
    assert_eq!(late.ok, 1);
    assert_eq!(tokens(&[late]), [&of_the_successor], "it goes on with what is stored");
    let newcomer = Worker::spawn(&world.setup()).await.requests(1).await;
    assert_eq!(tokens(&[newcomer]), [&of_the_successor], "the late holder has overwritten it");
    assert_eq!(world.auth.refresh_token_reuses(), 0);
}

/// Behaviour 83: its refresh token is dead, since its successor has spent it; there is another one in the store.
#[tokio::test]
async fn a_holder_that_slept_before_its_token_request_takes_what_is_stored() {
    let Some(world) = World::new().await else { return };
    let setup = Setup { refresh_token: world.auth.sign_in("id", ""), ..world.setup() };
    let (mut sleeping, mut waiting) = one_holds_and_one_waits(&world, &setup, "before").await;
    sleeping.signal("STOP").await;
    sleeping.say("continue").await;
    assert_eq!(waiting.done().await.ok, 100);
    let of_the_successor = world.auth.last_token().unwrap();

    // A server that takes nothing else with a refresh token that comes twice.
    world.auth.script([Fault::error("invalid_grant")]);
    sleeping.signal("CONT").await;
    let late = sleeping.done().await;
    assert_eq!(late.ok, 1, "{late:?}");
    let newcomer = Worker::spawn(&setup).await.requests(1).await;
    assert_eq!(tokens(&[late, newcomer]), [&of_the_successor]);
}
