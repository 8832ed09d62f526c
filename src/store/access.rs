//! `Access`: a store as a layer uses it: each call in time, failures counted, and a pause after them.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::record::Record;
use super::{Fence, Lease, Saved, StoreError, StoreErrorKind, StoreIdentity, StoreKey, TokenStore, Version};
use crate::token::{Backoff, Jitter};
use crate::types::{Clock, events};

/// Cheap to clone; clones share store, pause and figures.
pub(super) struct Access<St> {
    store: Arc<St>,
    pub(super) identity: StoreIdentity,
    pub(super) settings: Settings,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// For one call of the store.
    pub(super) timeout: Duration,
    pub(super) lease: Duration,
    /// For how long a refresh token is kept that nobody uses.
    pub(super) keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { timeout: Duration::from_secs(1), lease: Duration::from_secs(10), keep: 30 * day }
    }
}

#[derive(Default)]
struct Shared {
    rest: Mutex<Option<Rest>>,
    figures: Figures,
}

/// While a store fails, not every token request waits for its timeout.
#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    failures: u32,
}

#[derive(Default)]
pub(super) struct Figures {
    pub(super) found: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) not_stored: AtomicU64,
    pub(super) without_store: AtomicU64,
}

/// What was found under a key.
pub(super) struct StoredEntry {
    pub(super) version: Version,
    /// `None`: nothing.
    pub(super) record: Option<Record>,
}

impl<St: TokenStore> Access<St> {
    const PAUSE: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30), jitter: Jitter::None };

    pub(super) fn new(store: St, identity: StoreIdentity) -> Self {
        Self { store: Arc::new(store), identity, settings: Settings::default(), shared: Arc::default() }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Whether the store failed a moment ago.
    pub(super) fn is_resting(&self, clock: &dyn Clock) -> bool {
        let rest = *self.shared.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.is_some_and(|rest| clock.now().monotonic < rest.until)
    }

    pub(super) async fn load(&self, clock: &dyn Clock, key: &StoreKey) -> Result<StoredEntry, StoreError> {
        match self.in_time(clock, "load", self.store.load(key)).await? {
            None => Ok(StoredEntry { version: Version::default(), record: None }),
            Some(stored) => {
                let record = Record::from_bytes(stored.bytes.expose()).inspect_err(|error| {
                    events::store_failed("load", error.kind());
                })?;
                Ok(StoredEntry { version: stored.version, record: Some(record) })
            }
        }
    }

    /// The lease, or `None` while somebody else has it.
    pub(super) async fn lease(&self, clock: &dyn Clock, key: &StoreKey) -> Result<Option<LeaseGuard<St>>, StoreError> {
        match self.in_time(clock, "lease", self.store.lease(key, self.settings.lease)).await? {
            Lease::Held => Ok(None),
            Lease::Acquired { fence, abandoned } => Ok(Some(LeaseGuard {
                access: self.clone(),
                key: *key,
                fence,
                abandoned,
                told: !abandoned,
                ended: false,
            })),
        }
    }

    /// Waits until it is worth looking again.
    pub(super) async fn changed(&self, key: &StoreKey, since: Version) {
        /// A store that resolves at once each time must not make a loop.
        const SHORTEST: Duration = Duration::from_millis(5);
        // Whatever a store does: once the lease has had the time to end, look.
        let _ = timeout(self.settings.lease, self.store.changed(key, since)).await;
        sleep(SHORTEST).await;
    }

    async fn in_time<T>(
        &self,
        clock: &dyn Clock,
        call: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result =
            timeout(self.settings.timeout, work).await.unwrap_or(Err(StoreError::new(StoreErrorKind::Unavailable)));
        if let Err(error) = &result {
            events::store_failed(call, error.kind());
        }
        let now = clock.now().monotonic;
        let mut rest = self.shared.rest.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Err(error) if matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Refused) => {
                let failures = rest.map_or(0, |rest| rest.failures.saturating_add(1));
                *rest = Some(Rest { until: now + Self::PAUSE.pause(failures, 0.0), failures });
            }
            // A value that cannot be read says nothing against the store.
            _ => *rest = None,
        }
        result
    }
}

impl<St> Clone for Access<St> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            identity: self.identity.clone(),
            settings: self.settings,
            shared: self.shared.clone(),
        }
    }
}

impl<St> fmt::Debug for Access<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The time in which a lease is ours.
///
/// It is given back only when the store tells everything that its next holder must know. If a refresh token may have
/// been spent and the store does not say so, the lease is left to end by itself: its next holder then hears that it was
/// abandoned.
pub(super) struct LeaseGuard<St: TokenStore> {
    access: Access<St>,
    key: StoreKey,
    fence: Fence,
    /// The holder before never gave it back.
    pub(super) abandoned: bool,
    told: bool,
    ended: bool,
}

impl<St: TokenStore> LeaseGuard<St> {
    /// Renews the lease while the work goes on.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let Access { store, settings, .. } = &self.access;
        let renewing = async {
            loop {
                sleep(settings.lease / 3).await;
                // Whether it is ours still is told when something is saved.
                let _ = timeout(settings.timeout, store.renew(&self.key, self.fence, settings.lease)).await;
            }
        };
        match select(std::pin::pin!(work), std::pin::pin!(renewing)).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => never,
        }
    }

    pub(super) async fn save(
        &self,
        clock: &dyn Clock,
        record: &Record,
        lives_for: Duration,
        expected: Version,
    ) -> Result<Saved, StoreError> {
        let value = record.to_value(lives_for)?;
        self.access.in_time(clock, "save", self.access.store.save(&self.key, &value, expected, self.fence)).await
    }

    /// Goes on trying for a minute, and keeps the lease for so long.
    pub(super) async fn save_later(
        mut self,
        clock: Arc<dyn Clock>,
        record: Record,
        lives_for: Duration,
        expected: Version,
    ) {
        const ATTEMPTS: u32 = 30;
        const PAUSE: Duration = Duration::from_secs(2);
        let trying = async {
            for _ in 0..ATTEMPTS {
                sleep(PAUSE).await;
                // Refused is as good as done: the store has this one after all, or a newer one.
                if self.save(&*clock, &record, lives_for, expected).await.is_ok() {
                    return true;
                }
            }
            false
        };
        self.told = self.during(trying).await;
        self.end().await;
    }

    /// From now on the store does not tell everything.
    pub(super) fn untold(&mut self) {
        self.told = false;
    }

    /// The store tells everything again.
    pub(super) fn told(&mut self) {
        self.told = true;
    }

    /// Gives the lease back, or leaves it to end by itself.
    pub(super) async fn end(mut self) {
        if self.told {
            let _ = timeout(self.access.settings.timeout, self.access.store.release(&self.key, self.fence)).await;
        }
        self.ended = true;
    }
}

/// A token request that is dropped: its runtime ends, or its deadline has passed.
impl<St: TokenStore> Drop for LeaseGuard<St> {
    fn drop(&mut self) {
        if self.told
            && !self.ended
            && let Ok(runtime) = Handle::try_current()
        {
            let (access, key, fence) = (self.access.clone(), self.key, self.fence);
            runtime.spawn(async move {
                let _ = timeout(access.settings.timeout, access.store.release(&key, fence)).await;
            });
        }
    }
}

impl Figures {
    pub(super) fn count(figure: &AtomicU64) {
        figure.fetch_add(1, Ordering::Relaxed);
    }
}
