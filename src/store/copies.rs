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
    /// Of these keys a refresh token is being redeemed, whether or not the store ever had it: who does it is told, and sees to
    /// its lease.
    redeeming: HashMap<StoreKey, Arc<Notify>>,
    /// Failures that were found in the store, and when they were seen first.
    failures: HashMap<StoreKey, (Version, Instant)>,
    unsaved: usize,
}

#[derive(Clone)]
pub(super) struct Copy {
    pub(super) refresh_token: Secret<String>,
    pub(super) number: u64,
    pub(super) single_use: bool,
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
        let state = self.lock();
        state.of.keys().chain(state.redeeming.keys().filter(|key| !state.of.contains_key(key))).copied().collect()
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
        let (number, single_use) = (record.refresh_number, record.single_use);
        if state.of.len() >= MOST && !state.of.contains_key(key) {
            let some = state.of.keys().find(|key| !state.redeeming.contains_key(key)).copied();
            some.map(|key| state.of.remove(&key));
        }
        state.of.insert(*key, Copy { refresh_token: refresh_token.clone(), number, single_use });
    }

    /// A refresh token of a key is being redeemed, or is not any more.
    pub(super) fn redeeming(&self, key: &StoreKey, told: Option<Arc<Notify>>) {
        let mut state = self.lock();
        match told {
            Some(told) => drop(state.redeeming.insert(*key, told)),
            None => drop(state.redeeming.remove(key)),
        }
    }

    /// Whether one is being redeemed; if so, who does it is told that somebody misses it.
    pub(super) fn is_redeemed(&self, key: &StoreKey) -> bool {
        let redeeming = self.lock().redeeming.get(key).cloned();
        redeeming.inspect(|told| told.notify_one()).is_some()
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
