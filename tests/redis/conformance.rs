//! Every store is held to what every store must do.

use std::time::Duration;

use tower_oauth2_client::Secret;
use tower_oauth2_client::store::{Fence, FileStore, Lease, MemoryStore, Saved, StoreKey, TokenStore, Value, Version};
use tower_oauth2_client::test_util::{store_conforms, store_conforms_across_processes};

use crate::server::Redis;
use crate::server::tempdir::TempDir;
use crate::store::keys;

#[tokio::test]
async fn in_memory() {
    store_conforms(&MemoryStore::new()).await;
}

#[tokio::test]
async fn in_files() {
    let dir = TempDir::new();
    store_conforms(&FileStore::new(dir.path().join("tokens"))).await;
}

#[tokio::test]
async fn in_files_of_two_processes() {
    let dir = TempDir::new();
    let path = dir.path().join("tokens");
    let test = "conformance::in_files_of_two_processes";
    store_conforms_across_processes(test, path.to_str().unwrap(), |path| FileStore::new(path)).await;
}

#[tokio::test]
async fn in_redis_of_two_processes() {
    let redis = Redis::start().await;
    let open = |url: &str| tower_oauth2_client::store::RedisStore::new(url, keys(1)).unwrap();
    let Some(redis) = redis else { return };
    store_conforms_across_processes("conformance::in_redis_of_two_processes", &redis.url(), open).await;
}

pub(crate) fn key(seed: u8) -> StoreKey {
    StoreKey::from([seed; 32])
}

pub(crate) fn value(text: &str, lives_for: Duration) -> Value {
    Value::new(Secret::new(text.as_bytes().to_vec()), lives_for)
}

pub(crate) async fn acquire(store: &impl TokenStore, key: &StoreKey, duration: Duration) -> (Fence, bool) {
    match store.lease(key, duration).await.unwrap() {
        Lease::Acquired { fence, abandoned } => (fence, abandoned),
        _ => panic!("somebody has the lease"),
    }
}

pub(crate) async fn save(
    store: &impl TokenStore,
    key: &StoreKey,
    text: &str,
    expected: Version,
    fence: Fence,
) -> Option<Version> {
    match store.save(key, &value(text, Duration::from_secs(3600)), expected, fence).await.unwrap() {
        Saved::Done(version) => Some(version),
        _ => None,
    }
}

pub(crate) async fn text(store: &impl TokenStore, key: &StoreKey) -> Option<(String, Version)> {
    let stored = store.load(key).await.unwrap()?;
    Some((String::from_utf8(stored.bytes.expose().clone()).unwrap(), stored.version))
}
