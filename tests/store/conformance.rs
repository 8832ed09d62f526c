//! The conformance suite notices stores that do something else, and hangs for none.

use std::time::Duration;

use tokio::task::JoinHandle;
use tower_oauth2_client::store::{
    Fence, Lease, MemoryStore, Saved, StoreError, StoreKey, Stored, TokenStore, Value, Version,
};
use tower_oauth2_client::test_util::{TestClock, store_conforms};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    ChangedReturnsAtOnce,
    ChangedNeverReturns,
    FenceIsNotLookedAt,
    VersionIsNotLookedAt,
    LeaseIsGivenTwice,
    LeaseDoesNotEnd,
    AbandonedIsNotTold,
    RenewSaysYes,
    RemoveDoesNothing,
    BytesAreCutAtALineBreak,
}

struct Mutant {
    inner: MemoryStore,
    wrong: Wrong,
}

impl TokenStore for Mutant {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let mut stored = self.inner.load(key).await?;
        if let (Wrong::BytesAreCutAtALineBreak, Some(stored)) = (self.wrong, &mut stored) {
            let bytes = stored.bytes.expose().split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
            stored.bytes = tower_oauth2_client::Secret::new(bytes);
        }
        Ok(stored)
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let saved = self.inner.save(key, value, expected, fence).await?;
        match (self.wrong, saved) {
            (Wrong::FenceIsNotLookedAt, Saved::Fenced) => Ok(Saved::Done(Version(expected.0 + 1))),
            (Wrong::VersionIsNotLookedAt, Saved::Conflict) => {
                let version = self.inner.load(key).await?.map_or(Version(0), |stored| stored.version);
                self.inner.save(key, value, version, fence).await
            }
            _ => Ok(saved),
        }
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let hour = Duration::from_secs(3600);
        let duration = if self.wrong == Wrong::LeaseDoesNotEnd { hour } else { duration };
        Ok(match (self.wrong, self.inner.lease(key, duration).await?) {
            (Wrong::LeaseIsGivenTwice, Lease::Held) => Lease::Acquired { fence: Fence(1), abandoned: false },
            (Wrong::AbandonedIsNotTold, Lease::Acquired { fence, .. }) => Lease::Acquired { fence, abandoned: false },
            (_, lease) => lease,
        })
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        Ok(self.inner.renew(key, fence, duration).await? || self.wrong == Wrong::RenewSaysYes)
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.inner.release(key, fence).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        if self.wrong == Wrong::RemoveDoesNothing { Ok(()) } else { self.inner.remove(key).await }
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        match self.wrong {
            Wrong::ChangedReturnsAtOnce => {}
            Wrong::ChangedNeverReturns => std::future::pending().await,
            _ => self.inner.changed(key, since).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_conform_fails_and_does_not_hang() {
    let conforms = |wrong| -> JoinHandle<()> {
        let store = Mutant { inner: MemoryStore::with_clock(TestClock::new()), wrong };
        tokio::spawn(async move { store_conforms(&store).await })
    };
    conforms(Wrong::Nothing).await.unwrap();
    for wrong in [
        Wrong::ChangedReturnsAtOnce,
        Wrong::ChangedNeverReturns,
        Wrong::FenceIsNotLookedAt,
        Wrong::VersionIsNotLookedAt,
        Wrong::LeaseIsGivenTwice,
        Wrong::LeaseDoesNotEnd,
        Wrong::AbandonedIsNotTold,
        Wrong::RenewSaysYes,
        Wrong::RemoveDoesNothing,
        Wrong::BytesAreCutAtALineBreak,
    ] {
        assert!(conforms(wrong).await.unwrap_err().is_panic(), "{wrong:?} was not noticed");
    }
}

/// A store in memory forgets what nobody looks up any more.
#[tokio::test(start_paused = true)]
async fn a_store_in_memory_forgets() {
    let store = MemoryStore::with_clock(TestClock::new());
    let key = |number: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        StoreKey::from(bytes)
    };
    let second = Duration::from_secs(1);
    for number in 0..10_000 {
        let Lease::Acquired { fence, .. } = store.lease(&key(number), second).await.unwrap() else { panic!("held") };
        let value = Value::new(tower_oauth2_client::Secret::new(vec![1]), second);
        store.save(&key(number), &value, Version(0), fence).await.unwrap();
        store.release(&key(number), fence).await.unwrap();
        tokio::time::sleep(second / 10).await;
    }
    let keys: usize = format!("{store:?}").split(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse().ok()).unwrap();
    assert!(keys < 100, "{keys} keys, of which ten live");
}
