//! Who waits for which key: told by Redis' notifications, over the connection that everything else goes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::connection::Connection;
use crate::store::StoreKey;

/// For how long a subscription outlives the last one who needed it. Who waits looks again and again.
const LINGERS: Duration = Duration::from_secs(1);

/// How many keys are remembered that nobody has taken yet. Who named one names it again.
const MOST_KEYS: usize = 1024;

fn named_key(message: &Value) -> Option<StoreKey> {
    let Value::BulkString(text) = message else { return None };
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The channels that somebody waits for, over one connection.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<String, Watched>>>);

#[derive(Default)]
struct Watched {
    waiting: usize,
    /// As Redis confirmed it.
    subscribed: bool,
    lingering: bool,
    changed: Arc<Notify>,
    /// What came over it that names a key, and was not taken yet.
    keys: Vec<StoreKey>,
    /// The connection has ended.
    gone: bool,
}

impl Watches {
    /// Begins to watch a channel: what is told from now on is not missed, once the connection has subscribed to it.
    pub(super) fn watch(&self, channel: String, connection: Connection) -> Watch {
        let mut all = self.lock();
        let watched = all.entry(channel.clone()).or_default();
        watched.waiting += 1;
        let changed = Arc::clone(&watched.changed);
        drop(all);
        Watch { watches: self.clone(), channel, connection, changed }
    }

    /// Takes what Redis says unasked. Called by the connection's task: must not block.
    pub(super) fn told(&self, push: &PushInfo) {
        let mut all = self.lock();
        if push.kind == PushKind::Disconnection {
            // With the connection its subscriptions are gone: all look again, over the next one.
            for watched in all.values_mut() {
                watched.gone = true;
                watched.changed.notify_waiters();
            }
            return;
        }
        let Some(Value::BulkString(channel)) = push.data.first() else { return };
        let Some(watched) = str::from_utf8(channel).ok().and_then(|channel| all.get_mut(channel)) else { return };
        match push.kind {
            PushKind::Subscribe => watched.subscribed = true,
            PushKind::Message => {
                if let Some(key) = push.data.get(1).and_then(named_key)
                    && watched.keys.len() < MOST_KEYS
                    && !watched.keys.contains(&key)
                {
                    watched.keys.push(key);
                }
                watched.changed.notify_waiters();
            }
            // The end of an earlier watch overtook the beginning of this one.
            PushKind::Unsubscribe if watched.subscribed => {
                watched.subscribed = false;
                watched.changed.notify_waiters();
            }
            _ => {}
        }
    }

    /// One less. Whether somebody must see to the end of the subscription.
    fn leave(&self, channel: &str) -> bool {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(channel) else { return false };
        watched.waiting -= 1;
        watched.waiting == 0 && !std::mem::replace(&mut watched.lingering, true)
    }

    /// Forgets the channel unless somebody waits for it again; whether it did.
    fn forget(&self, channel: &str) -> bool {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(channel) else { return false };
        watched.lingering = false;
        let unused = watched.waiting == 0;
        if unused {
            all.remove(channel);
        }
        unused
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a channel until it is dropped.
pub(super) struct Watch {
    watches: Watches,
    channel: String,
    connection: Connection,
    changed: Arc<Notify>,
}

impl Watch {
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Whether the connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.watches.lock().get(&self.channel).is_none_or(|watched| watched.gone)
    }

    /// A key that was named over the channel and not taken yet.
    pub(super) fn take_key(&self) -> Option<StoreKey> {
        self.watches.lock().get_mut(&self.channel)?.keys.pop()
    }
}

/// The last one unsubscribes, behind everybody's back. Outside of a runtime the subscription stays until the connection
/// ends, and what comes over it is thrown away.
impl Drop for Watch {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.watches.leave(&self.channel) {
            return;
        }
        let (watches, mut connection) = (self.watches.clone(), self.connection.clone());
        let channel = std::mem::take(&mut self.channel);
        runtime.spawn(async move {
            tokio::time::sleep(LINGERS).await;
            if watches.forget(&channel) {
                // Without a connection there is no subscription either.
                let _ = connection.unsubscribe(&channel).await;
            }
        });
    }
}
