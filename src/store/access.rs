//! `Access`: a store as a layer uses it: each call in time, failures counted, and a pause after them.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::copies::Copies;
use super::lease_guard::LeaseGuard;
use super::record::Record;
use super::{Lease, Recall, StoreError, StoreErrorKind, StoreIdentity, StoreKey, TokenStore, Version};
use crate::telemetry::Telemetry;
use crate::token::{Backoff, Jitter, RefreshContext, TokenRequest};
use crate::types::Clock;

/// Cheap to clone; clones share store, pause and figures.
pub(super) struct Access<St> {
    pub(super) store: Arc<St>,
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
    pub(super) refresh_token_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { timeout: Duration::from_secs(1), lease: Duration::from_secs(10), refresh_token_ttl: 30 * day }
    }
}

#[derive(Default)]
struct Shared {
    pause: Mutex<Option<Pause>>,
    /// This process did not reach the authorization server.
    stands_back: Mutex<Option<Pause>>,
    copies: Arc<Copies>,
    /// Brings copies back when the store has lost them.
    listener: Mutex<Option<JoinHandle<()>>>,
    figures: Figures,
    /// Of the layer that asked first, where the identity does not name one.
    telemetry: OnceLock<Telemetry>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(Some(listener)) = self.listener.get_mut().map(|listener| listener.take()) {
            listener.abort();
        }
    }
}

/// Not before a moment; longer after each failure.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    failures: u32,
}

impl Pause {
    fn after(before: Option<Self>, backoff: &Backoff, now: Instant) -> Self {
        let failures = before.map_or(0, |before| before.failures.saturating_add(1));
        Self { until: now + backoff.pause(failures, 0.0), failures }
    }
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
    /// While a store fails, not every token request waits for its timeout.
    const PAUSE: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30), jitter: Jitter::None };
    /// Who cannot reach the authorization server lets others have the lease.
    const STAND_BACK: Backoff =
        Backoff { first: Duration::from_secs(15), longest: Duration::from_secs(120), jitter: Jitter::None };

    pub(super) fn new(store: St, identity: StoreIdentity) -> Self {
        Self { store: Arc::new(store), identity, settings: Settings::default(), shared: Arc::default() }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// A request of a layer: what happens to its tokens is told under its name.
    pub(super) fn asked_by(&self, request: &TokenRequest) {
        if let Some(context) = &request.context {
            self.shared.telemetry.get_or_init(|| context.telemetry.clone());
        }
    }

    pub(super) fn telemetry(&self) -> Telemetry {
        self.identity.telemetry().or_else(|| self.shared.telemetry.get()).cloned().unwrap_or_default()
    }

    pub(super) fn copies(&self) -> &Arc<Copies> {
        &self.shared.copies
    }

    /// Whether the store failed a moment ago.
    pub(super) fn is_paused(&self, clock: &dyn Clock) -> bool {
        let pause = *self.shared.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.is_some_and(|pause| clock.now().monotonic < pause.until)
    }

    /// Whether this process did not reach the authorization server lately.
    pub(super) fn stands_back(&self, clock: &dyn Clock) -> bool {
        let stands_back = *self.shared.stands_back.lock().unwrap_or_else(PoisonError::into_inner);
        stands_back.is_some_and(|pause| clock.now().monotonic < pause.until)
    }

    /// Whether the authorization server could be reached.
    pub(super) fn reached(&self, clock: &dyn Clock, reached: bool) {
        let mut stands_back = self.shared.stands_back.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now().monotonic;
        *stands_back = (!reached).then(|| Pause::after(*stands_back, &Self::STAND_BACK, now));
    }

    /// How long the others need to bring what they have: an operation of theirs may hang, and they may have to connect anew.
    pub(super) fn others_need(&self) -> Duration {
        const RECONNECTING: Duration = Duration::from_secs(1);
        self.settings.timeout.saturating_add(RECONNECTING)
    }

    pub(super) async fn load(&self, clock: &dyn Clock, key: &StoreKey) -> Result<StoredEntry, StoreError> {
        match self.in_time(clock, ("load", key), self.store.load(key)).await? {
            None => Ok(StoredEntry { version: Version::default(), record: None }),
            Some(stored) => {
                let record = Record::from_bytes(stored.bytes.expose()).inspect_err(|error| {
                    self.telemetry().store_failed("load", key, error.kind().as_str());
                })?;
                self.copies().note(key, &record);
                Ok(StoredEntry { version: stored.version, record: Some(record) })
            }
        }
    }

    /// The lease, or `None` while somebody else has it.
    pub(super) async fn lease(&self, clock: &dyn Clock, key: &StoreKey) -> Result<Option<LeaseGuard<St>>, StoreError> {
        // From before the call: the store counts from some moment of it.
        let now = clock.now();
        match self.in_time(clock, ("lease", key), self.store.lease(key, self.settings.lease)).await? {
            Lease::Held => Ok(None),
            Lease::Acquired { fence, abandoned } => {
                Ok(Some(LeaseGuard::new(self.clone(), *key, fence, abandoned, now)))
            }
        }
    }

    /// Removes whatever is stored, readable or not.
    pub(super) async fn remove(&self, clock: &dyn Clock, key: &StoreKey) -> Result<(), StoreError> {
        self.in_time(clock, ("remove", key), self.store.remove(key)).await
    }

    /// Waits until it is worth looking again.
    pub(super) async fn changed(&self, key: &StoreKey, since: Version) {
        /// A store that resolves at once each time must not make a loop.
        const SHORTEST: Duration = Duration::from_millis(5);
        // Whatever a store does: once the lease has had the time to end, look.
        let _ = timeout(self.settings.lease, self.store.changed(key, since)).await;
        sleep(SHORTEST).await;
    }

    /// Asks the other processes for younger copies of what the store has lost. Whether they may hear of it.
    pub(super) async fn recall(&self, clock: &dyn Clock, key: &StoreKey) -> Result<bool, StoreError> {
        self.in_time(clock, ("recall", key), self.store.recall(key)).await
    }

    /// Sees to it that somebody listens for others who miss what this process has a copy of.
    pub(super) fn listen(&self, context: &Arc<RefreshContext>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut listener = self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.as_ref().is_none_or(JoinHandle::is_finished) {
            // Without a share of what is shared, which would never be dropped.
            let (store, shared) = (self.store.clone(), Arc::downgrade(&self.shared));
            let (identity, settings, clock) = (self.identity.clone(), self.settings, context.clock.clone());
            *listener = Some(runtime.spawn(async move {
                loop {
                    let recall = store.recalled().await;
                    let Some(shared) = shared.upgrade() else { return };
                    Access { store: store.clone(), identity: identity.clone(), settings, shared }
                        .bring(&*clock, recall)
                        .await;
                }
            }));
        }
    }

    /// Saves the copies of this process that are younger than what the store has. If it fails, all of them a little later.
    async fn bring(&self, clock: &dyn Clock, recall: Recall) {
        const TRIES: u32 = 4;
        const PAUSE: Duration = Duration::from_millis(250);
        /// A process of many tenants must not be late with the last of them.
        const AT_A_TIME: usize = 32;
        let mut keys = match recall {
            Recall::Key(key) => vec![key],
            Recall::All => self.copies().keys(),
        };
        for _ in 0..TRIES {
            // A process that is redeeming one takes its lease anew at once, before the others come.
            keys.retain(|key| !self.copies().is_redeemed(key));
            if keys.is_empty() {
                return;
            }
            sleep(Duration::from_millis(fastrand::u64(100..150))).await;
            let bringing = stream::iter(&keys).map(Ok::<_, StoreError>);
            if bringing.try_for_each_concurrent(AT_A_TIME, |key| self.bring_back(clock, key)).await.is_ok() {
                return;
            }
            sleep(PAUSE).await;
            keys = self.copies().keys();
        }
    }

    /// The same for one. An error: the store fails, and so it would for the next one.
    async fn bring_back(&self, clock: &dyn Clock, key: &StoreKey) -> Result<(), StoreError> {
        match self.bring_back_readable(clock, key).await {
            Err(error) if matches!(error.kind(), StoreErrorKind::Unreadable | StoreErrorKind::Newer) => Ok(()),
            result => result,
        }
    }

    async fn bring_back_readable(&self, clock: &dyn Clock, key: &StoreKey) -> Result<(), StoreError> {
        const ATTEMPTS: u32 = 20;
        let Some(copy) = self.copies().get(key) else { return Ok(()) };
        let is_older = |found: &StoredEntry| match &found.record {
            Some(record) => record.refresh_number < copy.number,
            None => copy.number > 0,
        };
        if !is_older(&self.load(clock, key).await?) {
            return Ok(());
        }
        // All who have a copy come at the same moment, and the youngest must not be the one that gives up.
        for _ in 0..ATTEMPTS {
            let Some(mut lease_guard) = self.lease(clock, key).await? else {
                sleep(Duration::from_millis(fastrand::u64(20..60))).await;
                if !is_older(&self.load(clock, key).await?) {
                    return Ok(());
                }
                continue;
            };
            let found = self.load(clock, key).await?;
            lease_guard.told();
            if is_older(&found) {
                let record = Record {
                    refresh_token: Some(copy.refresh_token),
                    refresh_number: copy.number,
                    single_use: copy.single_use,
                    // Somebody may have a younger one and be on the way with it.
                    answer_lost: copy.single_use,
                    ..Record::default()
                };
                lease_guard.save(clock, &record, self.settings.refresh_token_ttl, found.version).await?;
            }
            lease_guard.end().await;
            return Ok(());
        }
        Ok(())
    }

    pub(super) async fn in_time<T>(
        &self,
        clock: &dyn Clock,
        (call, key): (&'static str, &StoreKey),
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = clock.now().monotonic;
        let result =
            timeout(self.settings.timeout, work).await.unwrap_or(Err(StoreError::new(StoreErrorKind::Unavailable)));
        let (now, telemetry) = (clock.now().monotonic, self.telemetry());
        let failed = result.as_ref().err().map(|error| error.kind().as_str());
        telemetry.store_operation(call, failed, now.saturating_duration_since(began));
        if let Some(kind) = failed {
            telemetry.store_failed(call, key, kind);
        }
        let mut pause = self.shared.pause.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Err(error) if matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Refused) => {
                // Calls that fail during a pause do not make it longer: somebody could not wait.
                if pause.is_none_or(|pause| pause.until <= now) {
                    *pause = Some(Pause::after(*pause, &Self::PAUSE, now));
                }
            }
            // A value that cannot be read says nothing against the store.
            _ => *pause = None,
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

impl Figures {
    pub(super) fn count(figure: &AtomicU64) {
        figure.fetch_add(1, Ordering::Relaxed);
    }
}
