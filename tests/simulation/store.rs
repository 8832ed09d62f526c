//! A store that several processes share, and that fails as the weather has it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tower_oauth2_client::Secret;
use tower_oauth2_client::store::{
    Fence, Lease, Recall, Saved, StoreError, StoreErrorKind, StoreKey, Stored, TokenStore, Value, Version,
};

use crate::plan::StoreWeather;
use crate::server::World;

/// As one process reaches it.
#[derive(Clone)]
pub(crate) struct SimStore {
    world: World,
    process: usize,
    start: usize,
    stored: Arc<Shared>,
    heard: Arc<Mutex<Heard>>,
}

/// What all processes have in common.
#[derive(Default)]
pub(crate) struct Shared {
    entries: Mutex<BTreeMap<StoreKey, Entry>>,
    listeners: Mutex<Vec<Arc<Mutex<Heard>>>>,
    /// A process asks for copies, or the weather has changed.
    news: Notify,
}

impl Shared {
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    pub(crate) fn weather_changed(&self) {
        self.news.notify_waiters();
    }
}

/// What one process hears of the others.
#[derive(Default)]
pub(crate) struct Heard {
    /// How many outages there had been when it connected last; after another one it must connect anew.
    connected: Option<u64>,
    keys: Vec<StoreKey>,
}

#[derive(Clone, Default)]
pub(crate) struct Entry {
    value: Option<Vec<u8>>,
    version: u64,
    fence: u64,
    lease_ends: Option<Duration>,
}

impl Entry {
    fn stored_version(&self) -> Version {
        Version(if self.value.is_some() { self.version } else { 0 })
    }
}

impl SimStore {
    pub(crate) fn new(world: &World, (process, start): (usize, usize), stored: &Arc<Shared>) -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        stored.listeners.lock().unwrap().push(heard.clone());
        Self { world: world.clone(), process, start, stored: stored.clone(), heard }
    }

    fn is_alive(&self) -> bool {
        self.world.books.lock().unwrap().is_alive(self.process, self.start)
    }

    async fn play<T>(
        &self,
        saves: bool,
        work: impl FnOnce(&mut BTreeMap<StoreKey, Entry>) -> T,
    ) -> Result<T, StoreError> {
        sleep(Duration::from_millis(1)).await;
        if !self.is_alive() {
            return pending().await;
        }
        let weather = self.world.weather.lock().unwrap().store;
        let now = self.world.clock.passed();
        let met = |what| self.world.books.lock().unwrap().met(what, self.process, 0, now);
        let failed = || Err(StoreError::new(StoreErrorKind::Unavailable));
        match weather {
            StoreWeather::Fails => {
                met("store fails");
                failed()
            }
            StoreWeather::FailsToSave if saves => {
                met("store fails");
                failed()
            }
            StoreWeather::LosesAnswers => {
                met("store loses answer");
                work(&mut self.stored.entries.lock().unwrap());
                failed()
            }
            StoreWeather::Hangs => {
                met("store hangs");
                pending().await
            }
            StoreWeather::Fine | StoreWeather::FailsToSave => Ok(work(&mut self.stored.entries.lock().unwrap())),
        }
    }
}

impl TokenStore for SimStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.play(false, |entries| {
            let entry = entries.get(key)?;
            let bytes = entry.value.clone()?;
            Some(Stored::new(entry.stored_version(), Secret::new(bytes)))
        })
        .await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        self.play(true, |entries| {
            let entry = entries.entry(*key).or_default();
            if entry.fence != fence.0 {
                return Saved::Fenced;
            }
            if entry.stored_version() != expected {
                return Saved::Conflict;
            }
            entry.version = entry.version.max(fence.0) + 1;
            entry.value = Some(value.bytes.expose().clone());
            Saved::Done(Version(entry.version))
        })
        .await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let now = self.world.clock.passed();
        self.play(false, |entries| {
            let entry = entries.entry(*key).or_default();
            if entry.lease_ends.is_some_and(|ends| now < ends) {
                return Lease::Held;
            }
            let abandoned = entry.lease_ends.is_some();
            // By the store's own clock, so that it counts on after everything was forgotten.
            entry.fence = entry.fence.max(u64::try_from(now.as_millis()).unwrap()) + 1;
            entry.lease_ends = Some(now + duration);
            Lease::Acquired { fence: Fence(entry.fence), abandoned }
        })
        .await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let now = self.world.clock.passed();
        self.play(false, |entries| match entries.get_mut(key).filter(|entry| entry.fence == fence.0) {
            Some(entry) if entry.lease_ends.is_some_and(|ends| now < ends) => {
                entry.lease_ends = Some(now + duration);
                true
            }
            _ => false,
        })
        .await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.play(false, |entries| {
            if let Some(entry) = entries.get_mut(key).filter(|entry| entry.fence == fence.0) {
                entry.lease_ends = None;
            }
        })
        .await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.play(true, |entries| drop(entries.remove(key))).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        for _ in 0..20 {
            let news = {
                let entries = self.stored.entries.lock().unwrap();
                let now = self.world.clock.passed();
                entries.get(key).is_none_or(|entry| {
                    entry.stored_version() > since || entry.lease_ends.is_none_or(|ends| ends <= now)
                })
            };
            if news {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        if !self.world.plan.tells {
            return Ok(false);
        }
        self.play(false, |_| ()).await?;
        let outages = self.world.weather.lock().unwrap().outages;
        for heard in &*self.stored.listeners.lock().unwrap() {
            let mut heard = heard.lock().unwrap();
            if heard.connected == Some(outages) && !heard.keys.contains(key) {
                heard.keys.push(*key);
            }
        }
        self.stored.news.notify_waiters();
        Ok(true)
    }

    async fn recalled(&self) -> Recall {
        if !self.world.plan.tells {
            return pending().await;
        }
        loop {
            if !self.is_alive() {
                return pending().await;
            }
            let news = self.stored.news.notified();
            let (fails, outages) = {
                let weather = self.world.weather.lock().unwrap();
                (weather.store == StoreWeather::Fails, weather.outages)
            };
            if fails {
                sleep(Duration::from_millis(fastrand::u64(150..300))).await;
                continue;
            }
            {
                let mut heard = self.heard.lock().unwrap();
                if heard.connected != Some(outages) {
                    heard.keys.clear();
                    if heard.connected.replace(outages).is_some() {
                        return Recall::All;
                    }
                }
                if let Some(key) = heard.keys.pop() {
                    return Recall::Key(key);
                }
            }
            news.await;
            // It takes its time to get here: who asks others may have been asked before.
            sleep(Duration::from_millis(fastrand::u64(..20))).await;
        }
    }
}
