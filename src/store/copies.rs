//! `Copies`: the refresh tokens of a process that are in its store too, or should be.
//!
//! A store can be emptied or set back in time. Then the copy with the highest number among all processes is the newest that
//! anybody has, and the process that has it brings it back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::record::Record;
use super::{StoreKey, Version};
use crate::types::Secret;

/// How many are remembered. A process with more partitions forgets some, and then cannot bring those back.
const MOST: usize = 65_536;

pub(super) struct Copies {
    /// Tells this process from others.
    process: u64,
    state: Mutex<State>,
    /// One of those that were not saved is now, or was given up.
    saved: Notify,
}

#[derive(Default)]
struct State {
    of: HashMap<StoreKey, Copy>,
    /// Failures that were found in the store, and when they were seen first.
    failures: HashMap<StoreKey, (Version, Instant)>,
    unsaved: usize,
}

#[derive(Clone)]
pub(super) struct Copy {
    pub(super) refresh_token: Secret<String>,
    pub(super) number: u64,
    pub(super) single_use: bool,
    /// A refresh with it is under way: who does it is told, and sees to its lease.
    pub(super) redeeming: Option<Arc<Notify>>,
}

impl Default for Copies {
    fn default() -> Self {
        Self { process: fastrand::u64(1..), state: Mutex::default(), saved: Notify::new() }
    }
}

impl Copies {
    pub(super) fn process(&self) -> u64 {
        self.process
    }

    pub(super) fn get(&self, key: &StoreKey) -> Option<Copy> {
        self.lock().of.get(key).cloned()
    }

    pub(super) fn keys(&self) -> Vec<StoreKey> {
        self.lock().of.keys().copied().collect()
    }

    /// Notes what a record says of the refresh token. An older one changes nothing.
    pub(super) fn note(&self, key: &StoreKey, record: &Record) {
        let mut state = self.lock();
        let known = state.of.get(key);
        if known.is_some_and(|known| known.number > record.refresh_number) {
            return;
        }
        let Some(refresh_token) = &record.refresh_token else {
            if record.refresh_dead {
                state.of.remove(key);
            }
            return;
        };
        let redeeming = known.and_then(|known| known.redeeming.clone());
        let (number, single_use) = (record.refresh_number, record.single_use);
        if state.of.len() >= MOST && !state.of.contains_key(key) {
            let some = state.of.iter().find(|(_, copy)| copy.redeeming.is_none()).map(|(key, _)| *key);
            some.map(|key| state.of.remove(&key));
        }
        state.of.insert(*key, Copy { refresh_token: refresh_token.clone(), number, single_use, redeeming });
    }

    /// The copy of a key is being redeemed, or is not any more.
    pub(super) fn redeeming(&self, key: &StoreKey, told: Option<Arc<Notify>>) {
        if let Some(copy) = self.lock().of.get_mut(key) {
            copy.redeeming = told;
        }
    }

    /// One more refresh token that the store does not have yet; until the guard is dropped.
    pub(super) fn unsaved(self: &Arc<Self>) -> Unsaved {
        self.lock().unsaved += 1;
        Unsaved(self.clone())
    }

    /// Waits until none is left that the store does not have.
    pub(super) async fn all_saved(&self) {
        loop {
            let saved = self.saved.notified();
            if self.lock().unsaved == 0 {
                return;
            }
            saved.await;
        }
    }

    /// When this process saw that failure first.
    pub(super) fn failure_seen(&self, key: &StoreKey, version: Version, now: Instant) -> Instant {
        let mut state = self.lock();
        if state.failures.len() >= MOST {
            state.failures.clear();
        }
        let seen = state.failures.entry(*key).or_insert((version, now));
        if seen.0 != version {
            *seen = (version, now);
        }
        seen.1
    }

    /// There is no failure any more.
    pub(super) fn failure_over(&self, key: &StoreKey) {
        self.lock().failures.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Unsaved(Arc<Copies>);

impl Drop for Unsaved {
    fn drop(&mut self) {
        {
            let mut state = self.0.lock();
            state.unsaved = state.unsaved.saturating_sub(1);
        }
        self.0.saved.notify_waiters();
    }
}
