//! Replicas, nodes that were promoted, and hashes that are damaged: of each version that `REDIS_SERVER` names.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tower_oauth2_client::store::{Lease, RedisStore, StoreErrorKind, TokenStore, Version};

use crate::conformance::{acquire, key, save, text};
use crate::server::{Redis, wait_until};
use crate::store::keys;
use crate::way::Way;

const HOUR: Duration = Duration::from_secs(3600);

fn store(url: &str) -> RedisStore {
    RedisStore::builder(url).timeout(Duration::from_millis(500)).build(keys(1)).unwrap()
}

async fn command(connection: &mut MultiplexedConnection, words: &str) -> redis::Value {
    let mut command = redis::Cmd::new();
    words.split(' ').for_each(|word| {
        command.arg(word);
    });
    command.query_async(connection).await.unwrap()
}

async fn become_replica_of(replica: &Redis, master: &Redis) {
    let (ip, port) = (master.addr().ip(), master.addr().port());
    command(&mut replica.connection().await, &format!("REPLICAOF {ip} {port}")).await;
}

/// Behaviour 165: the name leads to another node, and the former one, to which the connection stands, is a replica now.
#[tokio::test]
async fn a_failover_behind_one_name_costs_one_operation() {
    let (Some(one), Some(other)) = (Redis::start().await, Redis::start().await) else { return };
    let way = Way::to(&one).await;
    let store = store(&way.url());
    let (fence, _) = acquire(&store, &key(1), HOUR).await;
    save(&store, &key(1), "before", Version::default(), fence).await.unwrap();

    way.lead_to(&other);
    become_replica_of(&one, &other).await;
    // Read-only from now on: the first write finds it out, the next one is made where the name leads.
    let mut refused = 0;
    while let Err(error) = store.lease(&key(2), HOUR).await {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        refused += 1;
        assert!(refused <= 2, "it stays with the former master: {error:?}");
    }
    let (fence, _) = acquire(&store, &key(3), HOUR).await;
    assert!(save(&store, &key(3), "after", Version::default(), fence).await.is_some());
}

/// Behaviour 165.
#[tokio::test]
async fn a_replica_does_not_pass_the_check() {
    let (Some(one), Some(other)) = (Redis::start().await, Redis::start().await) else { return };
    let store = store(&one.url());
    store.check().await.unwrap();
    assert_eq!(command(&mut one.connection().await, "DBSIZE").await, redis::Value::Int(0), "the check leaves nothing");
    become_replica_of(&one, &other).await;
    let error = store.check().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        (error.kind(), cause.as_str()),
        (StoreErrorKind::Unavailable, "this Redis is a replica and takes no writes")
    );
}

/// Behaviour 166: the lease was written by a node whose clock is an hour ahead of the promoted one's.
#[tokio::test]
async fn a_promoted_node_with_a_slow_clock_lengthens_no_lease() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis.url()), redis.connection().await);
    let length = Duration::from_millis(400);
    let (dead, _) = acquire(&store, &key(1), length).await;
    let name = format!("oauth2-client:{{{}}}", key(1));
    let ends: u64 = redis::cmd("HGET").arg(&name).arg("lease").query_async(&mut connection).await.unwrap();
    let ahead = ends + u64::try_from(HOUR.as_millis()).unwrap();
    let _: () = redis::cmd("HSET").arg(&name).arg("lease").arg(ahead).query_async(&mut connection).await.unwrap();

    assert_eq!(store.lease(&key(1), HOUR).await.unwrap(), Lease::Held, "it may go on, though not for an hour");
    let begin = std::time::Instant::now();
    store.changed(&key(1), Version::default()).await;
    wait_until(async || matches!(store.lease(&key(1), HOUR).await.unwrap(), Lease::Acquired { abandoned: true, .. }))
        .await;
    assert!(begin.elapsed() < length * 10, "{:?}", begin.elapsed());
    assert!(!store.renew(&key(1), dead, HOUR).await.unwrap());
}

/// One damaged hash is one tenant's trouble: the store is not paused for the others.
#[tokio::test]
async fn a_damaged_hash_is_told_apart_and_can_be_removed() {
    let Some(redis) = Redis::start().await else { return };
    let (store, mut connection) = (store(&redis.url()), redis.connection().await);
    let name = format!("oauth2-client:{{{}}}", key(1));
    let fields = ["until", "version", "lease", "fence", "length"];
    let wrong = ["x", "", "inf", "nan", "-1", "1e300", "99999999999999999999"];
    for (field, wrong) in fields.into_iter().flat_map(|field| wrong.map(|wrong| (field, wrong))) {
        let (fence, _) = acquire(&store, &key(1), HOUR).await;
        save(&store, &key(1), "one", Version::default(), fence).await.unwrap();
        let _: () = redis::cmd("HSET").arg(&name).arg(field).arg(wrong).query_async(&mut connection).await.unwrap();
        for error in [
            store.load(&key(1)).await.unwrap_err(),
            store.lease(&key(1), HOUR).await.unwrap_err(),
            store.renew(&key(1), fence, HOUR).await.unwrap_err(),
            store.release(&key(1), fence).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unreadable, "{field} {wrong}");
        }
        store.remove(&key(1)).await.unwrap();
        assert_eq!(text(&store, &key(1)).await, None);
    }
    // Something else altogether.
    let _: () = redis::cmd("SET").arg(&name).arg("x").query_async(&mut connection).await.unwrap();
    assert_eq!(store.load(&key(1)).await.unwrap_err().kind(), StoreErrorKind::Unreadable);
    store.remove(&key(1)).await.unwrap();
    acquire(&store, &key(1), HOUR).await;
}
