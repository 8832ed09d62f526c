//! The one connection to Redis: opened when it is needed, shared by everybody, replaced when it breaks.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{FromRedisValue, RedisError, ScriptInvocation};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::connection::{Connection, Server};
use super::fault::{SILENT, code, store_error, unavailable};
use super::watch::Watches;
use crate::store::StoreError;

pub(super) struct Link {
    server: Server,
    timeout: Duration,
    newest: Mutex<Newest>,
}

/// The newest connection or the attempt to have it; nothing where none was wanted yet or the last one broke.
#[derive(Default)]
struct Newest {
    number: u64,
    connected: Option<Connecting>,
}

/// Each task that waits for it drives it: nobody else is held up if one of them goes away.
type Connecting = Shared<BoxFuture<'static, Result<Connected, RedisError>>>;

struct Attempt {
    number: u64,
    /// Nobody has used it before.
    fresh: bool,
    connected: Connecting,
}

impl Attempt {
    async fn connection(&self, link: &Link) -> Result<Connected, RedisError> {
        let connected = self.connected.clone().await;
        connected.inspect_err(|_| link.drop_attempt(self.number))
    }
}

/// An operation that nobody waits for any more: its time is over, or its caller has gone.
struct Unfinished<'a> {
    link: &'a Link,
    attempt: Attempt,
    since: Instant,
    done: bool,
}

/// What was silent for so long may be dead, and nobody would be told: a firewall has forgotten the connection, the other
/// machine has gone. A new connection costs little.
const SUSPICIOUS: Duration = Duration::from_millis(50);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let nobody_drives = self.attempt.connected.peek().is_none();
        if !self.done && (nobody_drives || self.since.elapsed() >= SUSPICIOUS) {
            self.link.drop_attempt(self.attempt.number);
        }
    }
}

/// A connection that stood when it was handed out.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) number: u64,
    pub(super) connection: Connection,
    pub(super) watches: Watches,
}

impl Link {
    pub(super) fn new(server: Server, timeout: Duration) -> Self {
        Self { server, timeout, newest: Mutex::default() }
    }

    /// Runs a script. Scripts do the same once or twice: if the connection turns out to be dead (servers and firewalls
    /// close idle ones), it is run again over a new one.
    ///
    /// # Errors
    /// All of it must be done within the timeout.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        let mut unfinished = Unfinished { link: self, attempt: self.attempt(), since: Instant::now(), done: false };
        let attempt = &mut unfinished.attempt;
        let twice = async {
            match self.run_over(attempt, script).await {
                Err(error) if !attempt.fresh && error.is_connection_dropped() => {
                    *attempt = self.attempt();
                    self.run_over(attempt, script).await
                }
                result => result,
            }
        };
        let result = tokio::time::timeout(self.timeout, twice).await.map_err(|_| unavailable(SILENT))?;
        unfinished.done = true;
        result.map_err(|error| store_error(&error))
    }

    /// The connection, opened if need be.
    ///
    /// # Errors
    /// It cannot be opened. The next call tries again.
    pub(super) async fn connected(&self) -> Result<Connected, RedisError> {
        self.attempt().connection(self).await
    }

    /// Says that something failed over a connection of that number.
    pub(super) fn failed(&self, number: u64, error: &RedisError) {
        // A replica that was the master does not become it again: what the name stands for is looked up anew.
        if error.is_unrecoverable_error() || error.is_io_error() || code(error) == "READONLY" {
            self.drop_attempt(number);
        }
    }

    async fn run_over<T: FromRedisValue>(
        &self,
        attempt: &Attempt,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisError> {
        let mut connected = attempt.connection(self).await?;
        let result = script.invoke_async(&mut connected.connection).await;
        result.inspect_err(|error| self.failed(attempt.number, error))
    }

    fn attempt(&self) -> Attempt {
        let mut newest = self.lock();
        match &newest.connected {
            Some(connected) => Attempt { number: newest.number, fresh: false, connected: connected.clone() },
            None => {
                newest.number += 1;
                let connected = self.open(newest.number);
                newest.connected = Some(connected.clone());
                Attempt { number: newest.number, fresh: true, connected }
            }
        }
    }

    fn open(&self, number: u64) -> Connecting {
        let (server, timeout, watches) = (self.server.clone(), self.timeout, Watches::default());
        let open = async move {
            let connection = server.open(timeout, watches.clone()).await?;
            Ok(Connected { number, connection, watches })
        };
        open.boxed().shared()
    }

    fn drop_attempt(&self, number: u64) {
        let mut newest = self.lock();
        if newest.number == number {
            newest.connected = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells nothing of the address.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
