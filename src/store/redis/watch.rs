//! Who waits for which key: told by Redis' notifications, over the connection that everything else goes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

/// The keys that somebody waits for, over one connection.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<String, Watched>>>);

#[derive(Default)]
struct Watched {
    waiting: usize,
    changed: Arc<Notify>,
}

impl Watches {
    /// Begins to watch a channel: what is told from now on is not missed, once the connection has subscribed to it.
    pub(super) fn watch(&self, channel: String, connection: MultiplexedConnection) -> Watch {
        let mut all = self.lock();
        let watched = all.entry(channel.clone()).or_default();
        watched.waiting += 1;
        let changed = Arc::clone(&watched.changed);
        drop(all);
        Watch { watches: self.clone(), channel, connection, changed }
    }

    /// Takes what Redis says unasked. Called by the connection's task: must not block.
    pub(super) fn told(&self, push: &PushInfo) {
        match push.kind {
            // `Unsubscribe` confirms an unsubscription that may have been overtaken by a new watch: it looks again.
            PushKind::Message | PushKind::Unsubscribe => {
                if let Some(Value::BulkString(channel)) = push.data.first()
                    && let Ok(channel) = std::str::from_utf8(channel)
                    && let Some(watched) = self.lock().get(channel)
                {
                    watched.changed.notify_waiters();
                }
            }
            // With the connection its subscriptions are gone: all look again, over the next one.
            PushKind::Disconnection => self.lock().values().for_each(|watched| watched.changed.notify_waiters()),
            _ => {}
        }
    }

    /// One less; whether that was the last one.
    fn leave(&self, channel: &str) -> bool {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(channel) else { return false };
        watched.waiting -= 1;
        let last = watched.waiting == 0;
        if last {
            all.remove(channel);
        }
        last
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a key until it is dropped.
pub(super) struct Watch {
    watches: Watches,
    channel: String,
    connection: MultiplexedConnection,
    changed: Arc<Notify>,
}

impl Watch {
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }
}

/// The last one unsubscribes, behind everybody's back. Outside of a runtime the subscription stays until the connection
/// ends, and what comes over it is thrown away.
impl Drop for Watch {
    fn drop(&mut self) {
        if !self.watches.leave(&self.channel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (mut connection, channel) = (self.connection.clone(), std::mem::take(&mut self.channel));
        runtime.spawn(async move { connection.unsubscribe(channel).await });
    }
}
