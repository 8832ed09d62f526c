//! `LeaseGuard`: the time in which a lease is ours, and what is saved under it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::access::{Access, StoredEntry};
use super::copies::Unsaved;
use super::record::Record;
use super::{Fence, Lease, Saved, StoreError, StoreKey, TokenStore, Version};
use crate::token::elapsed;
use crate::types::{Clock, Now};

/// The time in which a lease is ours.
///
/// It is given back only when the store tells everything that its next holder must know. If a refresh token may have
/// been spent and the store does not say so, the lease is left to end by itself: its next holder then hears that it was
/// abandoned.
pub(super) struct LeaseGuard<St: TokenStore> {
    access: Access<St>,
    key: StoreKey,
    fence: AtomicU64,
    /// When it was taken or renewed last.
    since: Arc<Mutex<Now>>,
    /// It was not ours at some moment, whatever it is now.
    lost: Arc<AtomicBool>,
    /// The holder before never gave it back.
    pub(super) abandoned: bool,
    told: bool,
    ended: bool,
}

/// What became of a record that was to be stored.
#[expect(clippy::large_enum_variant, reason = "there is one for a token request, and it is taken apart at once")]
pub(super) enum Settled {
    Stored,
    /// The store has a newer one, or one that is as new.
    Newer(StoredEntry),
    /// Somebody else has the lease now.
    Busy,
}

impl<St: TokenStore> LeaseGuard<St> {
    pub(super) fn new(access: Access<St>, key: StoreKey, fence: Fence, abandoned: bool, now: Now) -> Self {
        let (fence, since) = (AtomicU64::new(fence.0), Arc::new(Mutex::new(now)));
        let lost = Arc::default();
        Self { access, key, fence, since, lost, abandoned, told: !abandoned, ended: false }
    }

    pub(super) fn fence(&self) -> Fence {
        Fence(self.fence.load(Ordering::Acquire))
    }

    /// Whether it may be ours still, by our own clocks: a process that was stopped does not know what came to pass.
    pub(super) fn may_be_ours(&self, now: Now) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        !self.lost.load(Ordering::Acquire) && elapsed(since, now) < self.access.settings.lease
    }

    /// The same, for a caller that is about to send what may be sent once only.
    pub(super) fn may_send(&self, clock: &Arc<dyn Clock>) -> impl Fn() -> bool + Send + Sync + 'static {
        let (since, lost) = (self.since.clone(), self.lost.clone());
        let (clock, lease) = (clock.clone(), self.access.settings.lease);
        move || {
            let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
            !lost.load(Ordering::Acquire) && elapsed(since, clock.now()) < lease
        }
    }

    /// Whether it is ours: renewed, where our own clocks say that most of it has passed.
    pub(super) async fn is_ours(&self, clock: &dyn Clock) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        elapsed(since, now) < self.access.settings.lease / 2 || self.renew(now).await == Some(true)
    }

    /// `None`: the store does not answer.
    async fn renew(&self, now: Now) -> Option<bool> {
        let settings = &self.access.settings;
        let renewed = timeout(settings.timeout, self.access.store.renew(&self.key, self.fence(), settings.lease)).await;
        let is_ours = renewed.ok()?.ok()?;
        if is_ours {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Some(is_ours)
    }

    /// Takes it once more, if nobody has it: it was lost with the store's memory, or ended while the store was away.
    async fn retake(&self, clock: &dyn Clock) -> Result<bool, StoreError> {
        let (access, now) = (&self.access, clock.now());
        let lease = access.store.lease(&self.key, access.settings.lease);
        match access.in_time(clock, ("lease", &self.key), lease).await? {
            Lease::Held => Ok(false),
            Lease::Acquired { fence, .. } => {
                self.fence.store(fence.0, Ordering::Release);
                *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
                Ok(true)
            }
        }
    }

    /// Renews the lease while the work goes on, and at once when told that somebody misses what is stored.
    pub(super) async fn during<T>(&self, clock: &dyn Clock, told: &Notify, work: impl Future<Output = T>) -> T {
        let settings = &self.access.settings;
        let renewing = async {
            loop {
                let _ = timeout(settings.lease / 3, told.notified()).await;
                if self.renew(clock.now()).await == Some(false) {
                    // Nothing that is under way can be taken back, and what it brings is to be saved.
                    self.lost.store(true, Ordering::Release);
                    self.access.telemetry().lease_lost(self.key);
                    let _ = self.retake(clock).await;
                }
            }
        };
        match select(pin!(work), pin!(renewing)).await {
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
        let save = self.access.store.save(&self.key, &value, expected, self.fence());
        let saved = self.access.in_time(clock, ("save", &self.key), save).await?;
        if matches!(saved, Saved::Done(_)) {
            self.access.copies().note(&self.key, record);
        }
        Ok(saved)
    }

    /// Stores a record, so that of two the one with the higher number is there in the end: also where the store has lost
    /// what it had, or has an older one.
    pub(super) async fn settle(
        &self,
        clock: &dyn Clock,
        record: &Record,
        lives_for: Duration,
        expected: Version,
    ) -> Result<Settled, StoreError> {
        let saved = self.save(clock, record, lives_for, expected).await?;
        if let Saved::Done(_) = saved {
            return Ok(Settled::Stored);
        }
        let found = self.access.load(clock, &self.key).await?;
        let is_older = match &found.record {
            Some(theirs) => record.refresh_token.is_some() && theirs.refresh_number < record.refresh_number,
            None => true,
        };
        if !is_older {
            return Ok(Settled::Newer(found));
        }
        // The lease may be ours, and only what is stored another.
        if saved == Saved::Fenced && !self.retake(clock).await? {
            return Ok(Settled::Busy);
        }
        let found = self.access.load(clock, &self.key).await?;
        if found.record.as_ref().is_some_and(|theirs| theirs.refresh_number >= record.refresh_number) {
            return Ok(Settled::Newer(found));
        }
        match self.save(clock, record, lives_for, found.version).await? {
            Saved::Done(_) => Ok(Settled::Stored),
            Saved::Conflict | Saved::Fenced => Ok(Settled::Busy),
        }
    }

    /// Goes on trying for a minute, and keeps the lease for so long.
    pub(super) async fn settle_later(
        mut self,
        clock: Arc<dyn Clock>,
        record: Record,
        lives_for: Duration,
        expected: Version,
        _unsaved: Unsaved,
    ) {
        const TRIES_FOR: Duration = Duration::from_secs(60);
        /// So that it is saved before somebody else has the lease, and before who asks for it gives up.
        const PAUSE: Duration = Duration::from_millis(250);
        let begin = Instant::now();
        let trying = async {
            while begin.elapsed() < TRIES_FOR {
                sleep(PAUSE).await;
                match self.settle(&*clock, &record, lives_for, expected).await {
                    Ok(Settled::Stored | Settled::Newer(_)) => return true,
                    Ok(Settled::Busy) | Err(_) => {}
                }
            }
            false
        };
        self.told = self.during(&*clock, &Notify::new(), trying).await;
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
            let _ = timeout(self.access.settings.timeout, self.access.store.release(&self.key, self.fence())).await;
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
            let (access, key, fence) = (self.access.clone(), self.key, self.fence());
            runtime.spawn(async move {
                let _ = timeout(access.settings.timeout, access.store.release(&key, fence)).await;
            });
        }
    }
}
