//! What every store must do, whatever it is made of.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};
use tower_oauth2_client::Secret;
use tower_oauth2_client::store::{Fence, FileStore, Lease, MemoryStore, Saved, StoreKey, TokenStore, Value, Version};

use crate::server::tempdir::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(5);

pub(crate) async fn conforms(store: &impl TokenStore) {
    saving(store, &key(1)).await;
    leasing(store, &key(2)).await;
    a_stale_holder(store, &key(3)).await;
    a_lease_ends(store, &key(4)).await;
    a_lease_is_renewed(store, &key(5)).await;
    a_value_ends(store, &key(6)).await;
    watching(store, &key(7)).await;
    one_of_many(store, &key(8)).await;
}

#[tokio::test]
async fn in_memory() {
    conforms(&MemoryStore::new()).await;
}

#[tokio::test]
async fn in_files() {
    let dir = TempDir::new();
    conforms(&FileStore::new(dir.path().join("tokens"))).await;
}

pub(crate) fn key(seed: u8) -> StoreKey {
    StoreKey::from([seed; 32])
}

pub(crate) fn value(text: &str, lives_for: Duration) -> Value {
    Value { bytes: Secret::new(text.as_bytes().to_vec()), lives_for }
}

pub(crate) async fn acquire(store: &impl TokenStore, key: &StoreKey, duration: Duration) -> (Fence, bool) {
    match store.lease(key, duration).await.unwrap() {
        Lease::Acquired { fence, abandoned } => (fence, abandoned),
        Lease::Held => panic!("somebody has the lease"),
    }
}

pub(crate) async fn save(
    store: &impl TokenStore,
    key: &StoreKey,
    text: &str,
    expected: Version,
    fence: Fence,
) -> Option<Version> {
    match store.save(key, &value(text, HOUR), expected, fence).await.unwrap() {
        Saved::Done(version) => Some(version),
        Saved::Conflict | Saved::Fenced => None,
    }
}

pub(crate) async fn text(store: &impl TokenStore, key: &StoreKey) -> Option<(String, Version)> {
    let stored = store.load(key).await.unwrap()?;
    Some((String::from_utf8(stored.bytes.expose().clone()).unwrap(), stored.version))
}

async fn saving(store: &impl TokenStore, key: &StoreKey) {
    assert_eq!(text(store, key).await, None);
    let (fence, _) = acquire(store, key, HOUR).await;
    let first = save(store, key, "one", Version::default(), fence).await.unwrap();
    assert!(first > Version::default());
    assert_eq!(text(store, key).await, Some(("one".to_owned(), first)));

    let again = store.save(key, &value("two", HOUR), Version::default(), fence).await.unwrap();
    assert_eq!(again, Saved::Conflict);
    assert_eq!(text(store, key).await, Some(("one".to_owned(), first)));

    let second = save(store, key, "two", first, fence).await.unwrap();
    assert!(second > first);
    assert_eq!(text(store, key).await, Some(("two".to_owned(), second)));
    store.release(key, fence).await.unwrap();
    assert_eq!(text(store, key).await, Some(("two".to_owned(), second)));
}

async fn leasing(store: &impl TokenStore, key: &StoreKey) {
    let (first, abandoned) = acquire(store, key, HOUR).await;
    assert!(!abandoned);
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held);
    assert_eq!(text(store, key).await, None, "a lease is no value");
    store.release(key, first).await.unwrap();
    store.release(key, first).await.unwrap();
    let (second, abandoned) = acquire(store, key, HOUR).await;
    assert!(second > first && !abandoned);
}

async fn a_stale_holder(store: &impl TokenStore, key: &StoreKey) {
    let (stale, _) = acquire(store, key, SHORT).await;
    ended(store, key, SHORT).await;
    let (fence, abandoned) = acquire(store, key, HOUR).await;
    assert!(fence > stale && abandoned);

    let late = store.save(key, &value("late", HOUR), Version::default(), stale).await.unwrap();
    assert_eq!(late, Saved::Fenced);
    let version = save(store, key, "good", Version::default(), fence).await.unwrap();
    let late = store.save(key, &value("late", HOUR), version, stale).await.unwrap();
    assert_eq!(late, Saved::Fenced);
    assert!(!store.renew(key, stale, HOUR).await.unwrap());
    store.release(key, stale).await.unwrap();
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held, "given back by somebody who has not got it");
    assert_eq!(text(store, key).await, Some(("good".to_owned(), version)));
}

async fn a_lease_ends(store: &impl TokenStore, key: &StoreKey) {
    let (first, _) = acquire(store, key, SHORT).await;
    ended(store, key, SHORT).await;
    assert!(!store.renew(key, first, HOUR).await.unwrap());
    let version = save(store, key, "one", Version::default(), first).await;
    assert!(version.is_some(), "nobody else took it: the late holder may still save");
}

async fn a_lease_is_renewed(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, SHORT * 2).await;
    assert!(store.renew(key, fence, HOUR).await.unwrap());
    sleep(SHORT * 3).await;
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held);
    store.release(key, fence).await.unwrap();
    assert!(!store.renew(key, fence, HOUR).await.unwrap(), "it was given back");
}

async fn a_value_ends(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, HOUR).await;
    let Saved::Done(version) = store.save(key, &value("one", SHORT), Version::default(), fence).await.unwrap() else {
        panic!("not saved");
    };
    sleep(SHORT + Duration::from_millis(20)).await;
    assert_eq!(text(store, key).await, None);
    let next = save(store, key, "two", Version::default(), fence).await.unwrap();
    assert!(next > version, "a version came twice");
}

async fn watching(store: &impl TokenStore, key: &StoreKey) {
    let none = Version::default();
    let soon = async |version| timeout(SOON, store.changed(key, version)).await.unwrap();
    let (fence, _) = acquire(store, key, HOUR).await;

    assert!(wakes(store, key, none).await <= 2, "nothing happened");
    let mut version = None;
    let (_, ()) = join(async { version = save(store, key, "one", none, fence).await }, soon(none)).await;
    let version = version.unwrap();
    soon(none).await;

    assert!(wakes(store, key, version).await <= 2, "nothing happened");
    join(async { store.release(key, fence).await.unwrap() }, soon(version)).await;

    acquire(store, key, SHORT).await;
    soon(version).await;
}

/// How often it is worth looking again while nothing happens. Once for no reason is allowed; all the time is not.
async fn wakes(store: &impl TokenStore, key: &StoreKey, since: Version) -> usize {
    let mut wakes = 0;
    let watching = async {
        loop {
            store.changed(key, since).await;
            wakes += 1;
        }
    };
    let _: Result<(), _> = timeout(SHORT * 2, watching).await;
    wakes
}

async fn one_of_many(store: &impl TokenStore, key: &StoreKey) {
    let leases = join_all((0..50).map(|_| store.lease(key, HOUR))).await;
    let acquired = leases.into_iter().filter(|lease| matches!(lease, Ok(Lease::Acquired { .. }))).count();
    assert_eq!(acquired, 1);
}

/// Waits until a lease that was taken just now has ended, in time rather than in the store's words.
async fn ended(store: &impl TokenStore, key: &StoreKey, duration: Duration) {
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held);
    sleep(duration + Duration::from_millis(20)).await;
}
