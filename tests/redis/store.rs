//! The store itself: what it does and leaves in Redis, and how it says what is wrong.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::time::timeout;
use tower_oauth2_client::Secret;
use tower_oauth2_client::store::{
    EncryptionKeys, Fence, Lease, RedisStore, Saved, StoreErrorKind, TokenStore, Version,
};

use tower_oauth2_client::test_util::store_conforms;

use crate::conformance::{acquire, key, save, text, value};
use crate::server::{Redis, free_port, wait_until};
use crate::way::Way;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn keys(seed: u8) -> EncryptionKeys {
    EncryptionKeys::new([Secret::new(std::array::from_fn(|at| seed ^ at as u8))]).unwrap()
}

fn store(redis: &Redis) -> RedisStore {
    RedisStore::new(&redis.url(), keys(1)).unwrap()
}

/// The only hash that is there.
async fn only_key(connection: &mut MultiplexedConnection) -> String {
    let found: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

async fn milliseconds_left(connection: &mut MultiplexedConnection, key: &str) -> i64 {
    redis::cmd("PTTL").arg(key).query_async(connection).await.unwrap()
}

/// Behaviour 87.
#[tokio::test]
async fn it_conforms() {
    let Some(redis) = Redis::start().await else { return };
    store_conforms(&store(&redis)).await;
    let clear = RedisStore::builder(&redis.url()).prefix("clear:");
    store_conforms(&clear.danger_without_encryption().unwrap()).await;
}

/// What a script may do in a cluster is less: it names its keys, and they are in one slot. Here of two nodes.
#[tokio::test]
async fn it_conforms_in_a_cluster() {
    let node = async || {
        let arguments = format!("--cluster-enabled yes --cluster-port {}", free_port());
        Redis::with_arguments(arguments.split(' ').map(str::to_owned).collect()).await
    };
    let (Some(one), Some(other)) = (node().await, node().await) else { return };
    let builder = || RedisStore::builder(&one.url()).timeout(Duration::from_secs(3));
    let store = builder().cluster([&*other.url()]).build(keys(1)).unwrap();
    assert_eq!(store.check().await.unwrap_err().kind(), StoreErrorKind::Unavailable, "nobody has the slots");

    let cluster = async |node: &Redis, words: &str| {
        let mut command = redis::cmd("CLUSTER");
        words.split(' ').for_each(|word| {
            command.arg(word);
        });
        command.query_async::<redis::Value>(&mut node.connection().await).await.unwrap()
    };
    cluster(&one, "ADDSLOTSRANGE 0 8191").await;
    cluster(&other, "ADDSLOTSRANGE 8192 16383").await;
    let (ip, port) = (other.addr().ip(), other.addr().port());
    cluster(&one, &format!("MEET {ip} {port} {}", other.argument("--cluster-port"))).await;
    for node in [&one, &other] {
        let is_well = async || format!("{:?}", cluster(node, "INFO").await).contains("cluster_state:ok");
        wait_until(is_well).await;
    }
    wait_until(async || store.check().await.is_ok()).await;
    store_conforms(&store).await;

    // Told of one node only, half of the keys are elsewhere.
    let alone = builder().build(keys(1)).unwrap();
    let mut refused = 0;
    for seed in 0..20 {
        if let Err(error) = alone.load(&key(seed)).await {
            assert_eq!(error.kind(), StoreErrorKind::Refused);
            refused += 1;
        }
    }
    assert!((1..20).contains(&refused), "{refused}");
}

#[tokio::test]
async fn all_there_is_of_a_key_is_in_one_slot_and_ends() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis), redis.connection().await);
    let (fence, _) = acquire(&store, &key(1), Duration::from_secs(5)).await;
    let name = only_key(&mut connection).await;
    assert_eq!(name, format!("oauth2-client:{{{}}}", key(1)));
    let day = Duration::from_secs(24 * 3600).as_millis() as i64;
    let left = milliseconds_left(&mut connection, &name).await;
    assert!((day..day + 5001).contains(&left), "{left}: so long is it remembered that nobody gave it back");

    let long = value("one", HOUR * 1000);
    assert!(matches!(store.save(&key(1), &long, Version::default(), fence).await, Ok(Saved::Done(_))));
    assert!(milliseconds_left(&mut connection, &name).await > HOUR.as_millis() as i64 * 999);
    let (version, short) = (text(&store, &key(1)).await.unwrap().1, value("one", HOUR));
    assert!(matches!(store.save(&key(1), &short, version, fence).await, Ok(Saved::Done(_))));
    store.release(&key(1), fence).await.unwrap();
    let left = milliseconds_left(&mut connection, &name).await;
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");
    acquire(&store, &key(1), Duration::from_secs(5)).await;
    assert!(milliseconds_left(&mut connection, &name).await > day, "a lease shortens no life");
}

#[tokio::test]
async fn a_lease_given_back_without_a_value_leaves_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis), redis.connection().await);
    let (fence, _) = acquire(&store, &key(1), HOUR).await;
    store.release(&key(1), fence).await.unwrap();
    let size: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(size, 0);
    assert_eq!(store.save(&key(1), &value("late", HOUR), Version::default(), fence).await.unwrap(), Saved::Fenced);
}

/// Behaviour 103.
#[tokio::test]
async fn redis_sees_no_token() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis), redis.connection().await);
    let (fence, _) = acquire(&store, &key(1), HOUR).await;
    save(&store, &key(1), "canary", Version::default(), fence).await.unwrap();
    let name = only_key(&mut connection).await;
    let there: Vec<u8> = redis::cmd("HGET").arg(name).arg("value").query_async(&mut connection).await.unwrap();
    assert!(there.starts_with(b"toc") && !there.windows(6).any(|window| window == b"canary"));
}

/// Fences follow Redis' clock: they do not start again with it.
#[tokio::test]
async fn a_redis_that_lost_everything_does_not_take_old_leases_for_new_ones() {
    let Some(mut redis) = Redis::start().await else { return };
    let store = store(&redis);
    let (old, _) = acquire(&store, &key(1), HOUR).await;
    let version = save(&store, &key(1), "one", Version::default(), old).await.unwrap();
    redis.stop().await;
    assert_eq!(store.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    redis.restart().await;

    assert_eq!(text(&store, &key(1)).await, None);
    assert_eq!(store.save(&key(1), &value("two", HOUR), version, old).await.unwrap(), Saved::Fenced);
    let (new, _) = acquire(&store, &key(1), HOUR).await;
    assert!(new > old);
    assert!(save(&store, &key(1), "two", Version::default(), new).await.unwrap() > version);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis), redis.connection().await);
    let (fence, _) = acquire(&store, &key(1), HOUR).await;
    for expected in [true, false] {
        let _: u64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query_async(&mut connection).await.unwrap();
        assert_eq!(text(&store, &key(1)).await.is_none(), expected);
        save(&store, &key(1), "one", Version::default(), fence).await;
    }
}

/// Behaviour 88: a Redis that is silent takes as long as the timeout, and no longer.
#[tokio::test]
async fn a_silent_redis_is_given_up() {
    let Some(redis) = Redis::start().await else { return };
    let mut connection = redis.connection().await;
    let store = RedisStore::builder(&redis.url()).timeout(Duration::from_millis(200)).build(keys(1)).unwrap();
    acquire(&store, &key(1), HOUR).await;
    let _: () = redis::cmd("CLIENT").arg(&["PAUSE", "700", "ALL"]).query_async(&mut connection).await.unwrap();
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(store.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert!((200..1000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
    wait_until(async || store.load(&key(1)).await.is_ok()).await;
    assert_eq!(store.lease(&key(1), HOUR).await.unwrap(), Lease::Held);
}

/// What was done is not done again, and not taken for somebody else's doing.
#[tokio::test]
async fn an_answer_that_was_lost() {
    let Some(redis) = Redis::start().await else { return };
    let way = Way::to(&redis).await;
    let store = RedisStore::new(&way.url(), keys(1)).unwrap();
    // So that Redis knows the scripts: the answer that is cut must not be that it does not.
    let (fence, _) = acquire(&store, &key(2), HOUR).await;
    save(&store, &key(2), "one", Version::default(), fence).await.unwrap();
    store.release(&key(2), fence).await.unwrap();

    way.cut_answer();
    let (fence, abandoned) = acquire(&store, &key(1), HOUR).await;
    assert!(!abandoned);

    way.cut_answer();
    let version = save(&store, &key(1), "one", Version::default(), fence).await.unwrap();
    assert_eq!(text(&store, &key(1)).await, Some(("one".to_owned(), version)));
    way.cut_answer();
    store.release(&key(1), fence).await.unwrap();
    acquire(&store, &key(1), HOUR).await;
}

/// Partitions: what was sent over the connection never arrives, and nobody says so.
#[tokio::test]
async fn a_connection_that_died_in_silence_is_replaced() {
    let Some(redis) = Redis::start().await else { return };
    let way = Way::to(&redis).await;
    let store = RedisStore::builder(&way.url()).timeout(Duration::from_millis(200)).build(keys(1)).unwrap();
    store.check().await.unwrap();
    way.lose();
    assert_eq!(store.check().await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    store.check().await.unwrap();

    // The same for a caller who is less patient than the store.
    way.lose();
    assert!(timeout(Duration::from_millis(100), store.check()).await.is_err());
    store.check().await.unwrap();
}

#[tokio::test]
async fn who_waits_is_told_at_once_and_watches_no_longer_than_that() {
    let Some(redis) = Redis::start().await else { return };
    let (here, there, mut connection) = (store(&redis), store(&redis), redis.connection().await);
    let (fence, _) = acquire(&there, &key(1), HOUR).await;
    let channels = async |connection: &mut MultiplexedConnection| {
        let found: Vec<String> = redis::cmd("PUBSUB").arg(&["CHANNELS", "*"]).query_async(connection).await.unwrap();
        found.len()
    };

    let waiting = tokio::spawn(async move {
        let key = key(1);
        tokio::join!(here.changed(&key, Version::default()), here.changed(&key, Version::default()));
        (here, Instant::now())
    });
    wait_until(async || channels(&mut connection.clone()).await == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    save(&there, &key(1), "one", Version::default(), fence).await.unwrap();
    let (here, told) = waiting.await.unwrap();
    assert!(told - start < Duration::from_millis(900), "{:?}: that was no notification", told - start);
    wait_until(async || channels(&mut connection.clone()).await == 0).await;

    // With the connection the notifications are gone: whoever waits looks again.
    let version = text(&here, &key(1)).await.unwrap().1;
    let waiting = tokio::spawn(async move { here.changed(&key(1), version).await });
    wait_until(async || channels(&mut connection.clone()).await == 1).await;
    let _: u64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query_async(&mut connection).await.unwrap();
    timeout(Duration::from_millis(900), waiting).await.unwrap().unwrap();
}

async fn kind(store: &RedisStore) -> (StoreErrorKind, String) {
    let error = store.lease(&key(1), HOUR).await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    (error.kind(), format!("{error}: {cause} {error:?}"))
}

/// Behaviour 103: neither address nor password is in an error.
#[tokio::test]
async fn what_is_wrong_is_said_without_a_password() {
    let Some(redis) = Redis::with_password("canary").await else { return };
    let mut connection = redis.connection().await;
    let port = redis.url().rsplit(':').next().unwrap().to_owned();
    let at = |user: &str| RedisStore::new(&format!("redis://{user}127.0.0.1:{port}"), keys(1)).unwrap();
    at(":canary@").check().await.unwrap();
    acquire(&at(":canary@"), &key(2), HOUR).await;

    let acl = "ACL SETUSER reader on >canary ~other:* &* +@all";
    let mut command = redis::Cmd::new();
    acl.split(' ').for_each(|word| {
        command.arg(word);
    });
    let _: () = command.query_async(&mut connection).await.unwrap();
    for (user, words) in
        [("", "user name and password"), (":canary-wrong@", "user name and password"), ("reader:canary@", "permission")]
    {
        assert_eq!(at(user).check().await.unwrap_err().kind(), StoreErrorKind::Refused);
        let (kind, shown) = kind(&at(user)).await;
        assert_eq!(kind, StoreErrorKind::Refused, "{shown}");
        assert!(shown.contains(words) && !shown.contains("canary") && !shown.contains(&port), "{shown}");
    }

    let store = at(":canary@");
    for (name, value, back, words) in
        [("maxmemory", "1", "0", "out of memory"), ("replicaof", "127.0.0.1 1", "no one", "replica")]
    {
        let set = async |value: &str, connection: &mut MultiplexedConnection| {
            let mut command = redis::Cmd::new();
            match name {
                "replicaof" => value.split(' ').fold(command.arg(name), |command, word| command.arg(word)),
                _ => command.arg("CONFIG").arg("SET").arg(name).arg(value),
            };
            let _: () = command.query_async(connection).await.unwrap();
        };
        set(value, &mut connection).await;
        let (kind, shown) = kind(&store).await;
        assert_eq!(kind, StoreErrorKind::Unavailable, "{shown}");
        assert!(shown.contains(words), "{shown}");
        set(back, &mut connection).await;
    }
    acquire(&store, &key(1), HOUR).await;

    // The key holds something else.
    let name = format!("oauth2-client:{{{}}}", key(3));
    let _: () = redis::cmd("SET").arg(name).arg("x").query_async(&mut connection).await.unwrap();
    assert_eq!(store.load(&key(3)).await.unwrap_err().kind(), StoreErrorKind::Unreadable);
}

#[tokio::test]
async fn a_password_that_was_mended_is_tried_again() {
    let Some(redis) = Redis::with_password("old").await else { return };
    let mut connection = redis.connection().await;
    let store = RedisStore::new(&redis.url().replace("old", "new"), keys(1)).unwrap();
    assert_eq!(store.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Refused);
    let _: () = redis::cmd("CONFIG").arg(&["SET", "requirepass", "new"]).query_async(&mut connection).await.unwrap();
    assert!(store.load(&key(1)).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_read_stays_where_it_is() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis), redis.connection().await);
    let (fence, _) = acquire(&store, &key(1), HOUR).await;
    save(&store, &key(1), "one", Version::default(), fence).await.unwrap();

    let stranger = RedisStore::new(&redis.url(), keys(2)).unwrap();
    assert_eq!(stranger.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Unreadable);
    assert!(text(&store, &key(1)).await.is_some());

    let name = only_key(&mut connection).await;
    let mut newer: Vec<u8> = redis::cmd("HGET").arg(&name).arg("value").query_async(&mut connection).await.unwrap();
    newer[3] += 1;
    let _: () = redis::cmd("HSET").arg(&name).arg("value").arg(newer).query_async(&mut connection).await.unwrap();
    assert_eq!(store.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Newer);
}

/// Behaviour 165: the permissions that the documentation names are enough, for each version.
#[tokio::test]
async fn a_user_with_the_documented_permissions() {
    let Some(redis) = Redis::start().await else { return };
    let mut connection = redis.connection().await;
    let acl = "ACL SETUSER tokens on >secret ~oauth2-client:* resetchannels &oauth2-client:* +eval +evalsha \
               +script|load +time +hmget +hset +hdel +del +pexpireat +publish +subscribe +unsubscribe +hello +auth +select";
    let mut command = redis::Cmd::new();
    acl.split(' ').for_each(|word| {
        command.arg(word);
    });
    let _: () = command.query_async(&mut connection).await.unwrap();
    let url = redis.url().replace("redis://", "redis://tokens:secret@");
    store_conforms(&RedisStore::new(&url, keys(1)).unwrap()).await;
}

#[tokio::test]
async fn nobody_listens() {
    let store = RedisStore::new("redis://127.0.0.1:1", keys(1)).unwrap();
    let start = Instant::now();
    let (kind, shown) = kind(&store).await;
    assert_eq!(kind, StoreErrorKind::Unavailable);
    assert!(shown.contains("nobody listens") && !shown.contains("127.0.0.1"), "{shown}");
    assert!(store.renew(&key(1), Fence(1), HOUR).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn over_tls_with_certificates_that_are_checked() {
    let port = free_port();
    let authority = include_str!("../support/certificates/authority.pem");
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/support/certificates");
    let arguments = format!(
        "--tls-port {port} --tls-cert-file {files}/server.pem --tls-key-file {files}/server.key --tls-auth-clients no"
    );
    let Some(_redis) = Redis::with_arguments(arguments.split(' ').map(str::to_owned).collect()).await else { return };
    let at = |host: &str| RedisStore::builder(&format!("rediss://{host}:{port}"));

    let good = at("127.0.0.1").root_certificates(authority).build(keys(1)).unwrap();
    acquire(&good, &key(1), HOUR).await;
    let wrong_name = at("localhost").root_certificates(authority).build(keys(1)).unwrap();
    for store in [at("127.0.0.1").build(keys(1)).unwrap(), wrong_name] {
        let (kind, shown) = kind(&store).await;
        assert_eq!(kind, StoreErrorKind::Unavailable);
        assert!(shown.contains("TLS"), "{shown}");
    }
}
