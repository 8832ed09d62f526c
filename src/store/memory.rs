//! `MemoryStore`: a store within the process, for tests and for several layers side by side.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::time::{sleep, timeout};

use super::{Fence, Lease, Recall, Saved, StoreError, StoreKey, Stored, TokenStore, Value, Version};
use crate::types::{Clock, Secret, SystemClock};

/// A [`TokenStore`] in memory: several layers of one process share their tokens, and tests have a store without a server.
///
/// A handle: clones are the same store. Its leases end by its clock.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::store::MemoryStore;
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
///
/// # tokio_test::block_on(async {
/// let http_client = AuthServer::new(TestClock::new());
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let store = MemoryStore::new();
/// for _ in 0..2 {
///     let layer = AuthLayer::builder(cfg.clone()).http_client(http_client.clone()).store(store.clone()).build()?;
///     layer.handle().warm_up().await?;
/// }
/// assert_eq!(http_client.token_requests(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    entries: Arc<Mutex<Entries>>,
    /// Something was saved, or a lease given back.
    news: Arc<Notify>,
    /// Copies that somebody misses.
    recalls: broadcast::Sender<Recall>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Entries {
    of: HashMap<StoreKey, Entry>,
    /// The last version and the last fence, of whatever key: an entry that is gone does not make them start again.
    number: u64,
    /// With so many entries, those that are over are removed.
    sweep_at: usize,
}

#[derive(Default)]
struct Entry {
    value: Option<Held>,
    /// Of the newest lease.
    fence: u64,
    /// When it ends; `None`: it was given back.
    lease_ends: Option<Instant>,
}

struct Held {
    bytes: Secret<Vec<u8>>,
    version: Version,
    /// `None`: never, as far as a clock can tell.
    expires: Option<Instant>,
}

impl Held {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Entry {
    fn stored(&self, now: Instant) -> Option<&Held> {
        self.value.as_ref().filter(|held| held.is_alive(now))
    }

    fn version(&self, now: Instant) -> Version {
        self.stored(now).map_or(Version::default(), |held| held.version)
    }

    /// Nobody would miss it. A lease that was not given back is remembered for a while after its end.
    fn is_over(&self, now: Instant) -> bool {
        self.stored(now).is_none()
            && self.lease_ends.is_none_or(|ends| now.saturating_duration_since(ends) > MemoryStore::ABANDONED_FOR)
    }
}

impl Entries {
    const FEWEST: usize = 64;

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The entry of a key, made if there is none. What is over is removed each time that there are twice as many as were
    /// left: an entry is looked at a bounded number of times.
    fn entry(&mut self, key: &StoreKey, now: Instant) -> &mut Entry {
        if self.of.len() >= self.sweep_at.max(Self::FEWEST) {
            self.of.retain(|_, entry| !entry.is_over(now));
            self.sweep_at = self.of.len().saturating_mul(2);
        }
        self.of.entry(*key).or_default()
    }
}

impl MemoryStore {
    /// The longest time without looking at the clock, which may jump.
    const LONGEST_NAP: Duration = Duration::from_secs(1);
    /// For how long it is remembered that a lease was not given back.
    const ABANDONED_FOR: Duration = Duration::from_secs(24 * 3600);

    /// An empty store.
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// An empty store whose leases and values end by another clock, for tests.
    pub fn with_clock(clock: impl Clock) -> Self {
        Self {
            entries: Arc::default(),
            news: Arc::default(),
            recalls: broadcast::Sender::new(64),
            clock: Arc::new(clock),
        }
    }

    /// Forgets everything, leases too, as a server that is restarted without a disk.
    pub fn clear(&self) {
        self.lock().of.clear();
        self.news.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.clock.now().monotonic
    }

    /// How long the lease of a key goes on; `None`: nobody has it.
    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        let ends = self.lock().of.get(key)?.lease_ends?;
        Some(ends.saturating_duration_since(self.now())).filter(|left| !left.is_zero())
    }
}

impl TokenStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let now = self.now();
        let mut entries = self.lock();
        let Some(entry) = entries.of.get_mut(key) else { return Ok(None) };
        entry.value.take_if(|held| !held.is_alive(now));
        Ok(entry.value.as_ref().map(|held| Stored { version: held.version, bytes: held.bytes.clone() }))
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let now = self.now();
        let mut entries = self.lock();
        let version = Version(entries.next());
        let Some(entry) = entries.of.get_mut(key).filter(|entry| entry.fence == fence.0) else {
            return Ok(Saved::Fenced);
        };
        if entry.version(now) != expected {
            return Ok(Saved::Conflict);
        }
        entry.value = Some(Held { bytes: value.bytes.clone(), version, expires: now.checked_add(value.lives_for) });
        self.news.notify_waiters();
        Ok(Saved::Done(version))
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let now = self.now();
        let mut entries = self.lock();
        let fence = entries.next();
        let entry = entries.entry(key, now);
        if entry.lease_ends.is_some_and(|ends| now < ends) {
            return Ok(Lease::Held);
        }
        let abandoned = entry.lease_ends.is_some();
        entry.fence = fence;
        entry.lease_ends = Some(now.checked_add(duration).unwrap_or(now));
        Ok(Lease::Acquired { fence: Fence(fence), abandoned })
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        let mut entries = self.lock();
        let Some(entry) = entries.of.get_mut(key).filter(|entry| entry.fence == fence.0) else { return Ok(false) };
        let goes_on = entry.lease_ends.is_some_and(|ends| now < ends);
        if goes_on {
            entry.lease_ends = now.checked_add(duration).or(entry.lease_ends);
        }
        Ok(goes_on)
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        let now = self.now();
        let mut entries = self.lock();
        if let Some(entry) = entries.of.get_mut(key).filter(|entry| entry.fence == fence.0) {
            entry.lease_ends = None;
            if entry.is_over(now) {
                entries.of.remove(key);
            }
        }
        self.news.notify_waiters();
        Ok(())
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.lock().of.remove(key);
        self.news.notify_waiters();
        Ok(())
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        loop {
            let news = self.news.notified();
            let now = self.now();
            if self.lock().of.get(key).is_some_and(|entry| entry.version(now) > since) {
                return;
            }
            let Some(left) = self.lease_left(key) else { return };
            if timeout(left.min(Self::LONGEST_NAP), news).await.is_err() {
                // So that waiters do not spin while a clock stands still that timers do not follow.
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        // An error means that nobody listens.
        let _ = self.recalls.send(Recall::Key(*key));
        Ok(true)
    }

    async fn recalled(&self) -> Recall {
        match self.recalls.subscribe().recv().await {
            Ok(recall) => recall,
            Err(RecvError::Lagged(_)) => Recall::All,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("keys", &self.lock().of.len()).finish_non_exhaustive()
    }
}
