//! `SqliteStore`: a [`TokenStore`] in one table of an SQLite database.
//!
//! Every call is one transaction, so that it is atomic over all processes that have the file open. Times are those of the
//! machine's clock: a step of it may end a lease early, after which the fence refuses the late save.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tower_oauth2_client::Secret;
use tower_oauth2_client::store::{
    Fence, Lease, Saved, StoreError, StoreErrorKind, StoreKey, Stored, TokenStore, Value, Version,
};

/// `lease_ends` is NULL when the lease was given back: one that has ended by itself was abandoned.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS token (
        key        BLOB PRIMARY KEY,
        fence      INTEGER NOT NULL,
        lease_ends INTEGER,
        version    INTEGER NOT NULL DEFAULT 0,
        expires    INTEGER NOT NULL DEFAULT 0,
        value      BLOB
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS token_expires ON token (expires);";

/// A handle: clones share the connection.
#[derive(Clone)]
pub struct SqliteStore(Arc<Mutex<Connection>>);

impl SqliteStore {
    /// Opens the database, and makes it, readable for its owner alone, if it is not there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).map_err(|error| StoreError::new(StoreErrorKind::Refused).caused_by(error))?;
        let open = || {
            let connection = Connection::open(&path)?;
            // Who waits is not served in order. A `StoreLayer` gives up earlier.
            connection.busy_timeout(Duration::from_secs(5))?;
            // Who reads waits for nobody. What was saved must survive a power cut. What was deleted is overwritten.
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;";
            connection.execute_batch(settings)?;
            connection.execute_batch(TABLE)?;
            Ok(connection)
        };
        Ok(Self(Arc::new(Mutex::new(open().map_err(store_error)?))))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transaction(TransactionBehavior::Deferred, work).await
    }

    /// The write lock is taken at once: a transaction that reads first and writes then may be refused.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transaction(TransactionBehavior::Immediate, work).await
    }

    /// One transaction, on a thread that may block.
    async fn transaction<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.0.clone();
        let run = move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(behavior)?;
            let result = work(&transaction, now())?;
            transaction.commit()?;
            Ok(result)
        };
        let done = spawn_blocking(run).await;
        done.map_err(|error| StoreError::new(StoreErrorKind::Unavailable).caused_by(error))?.map_err(store_error)
    }

    async fn is_worth_a_look(&self, key: StoreKey, since: Version) -> Result<bool, StoreError> {
        self.read(move |t, now| {
            let row = Row::of(t, &key)?.unwrap_or_default();
            Ok(row.live_version(now) > since.0.cast_signed() || !row.is_held(now))
        })
        .await
    }
}

#[derive(Default)]
struct Row {
    fence: i64,
    lease_ends: Option<i64>,
    version: i64,
    expires: i64,
}

impl Row {
    fn of(t: &Transaction<'_>, key: &StoreKey) -> rusqlite::Result<Option<Self>> {
        let mut select = t.prepare_cached("SELECT fence, lease_ends, version, expires FROM token WHERE key = ?")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Self { fence: row.get(0)?, lease_ends: row.get(1)?, version: row.get(2)?, expires: row.get(3)? })
        };
        select.query_row([key.as_bytes()], row).optional()
    }

    /// Zero where nothing is stored, or what is has expired.
    fn live_version(&self, now: i64) -> i64 {
        if now < self.expires { self.version } else { 0 }
    }

    fn is_held(&self, now: i64) -> bool {
        self.lease_ends.is_some_and(|ends| now < ends)
    }
}

impl TokenStore for SqliteStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let key = *key;
        self.read(move |t, now| {
            let stored = |row: &rusqlite::Row<'_>| {
                let (version, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
                Ok(Stored::new(Version(version.cast_unsigned()), Secret::new(bytes)))
            };
            let select = "SELECT version, value FROM token WHERE key = ? AND expires > ? AND value IS NOT NULL";
            t.prepare_cached(select)?.query_row(params![key.as_bytes(), now], stored).optional()
        })
        .await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let (key, value) = (*key, value.clone());
        self.write(move |t, now| {
            let row = Row::of(t, &key)?.unwrap_or_default();
            if row.fence != fence.0.cast_signed() {
                return Ok(Saved::Fenced);
            }
            if row.live_version(now) != expected.0.cast_signed() {
                return Ok(Saved::Conflict);
            }
            let version = next(row.version, now);
            let update = "UPDATE token SET version = ?, expires = ?, value = ? WHERE key = ?";
            let expires = now.saturating_add(millis(value.lives_for));
            t.prepare_cached(update)?.execute(params![version, expires, value.bytes.expose(), key.as_bytes()])?;
            Ok(Saved::Done(Version(version.cast_unsigned())))
        })
        .await
    }

    /// It writes: a disk that is full or takes no writes fails here, before a refresh token is spent.
    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let key = *key;
        self.write(move |t, now| {
            const DAY: i64 = 24 * 3600 * 1000;
            // What has expired holds secrets. That a lease was abandoned is remembered for a day.
            let delete = "DELETE FROM token WHERE expires <= ?1 AND coalesce(lease_ends, 0) <= ?1 - ?2 AND key <> ?3";
            t.prepare_cached(delete)?.execute(params![now, DAY, key.as_bytes()])?;
            let row = Row::of(t, &key)?.unwrap_or_default();
            if row.is_held(now) {
                return Ok(Lease::Held);
            }
            let fence = next(row.fence, now);
            let upsert = "INSERT INTO token (key, fence, lease_ends) VALUES (?1, ?2, ?3)
                ON CONFLICT (key) DO UPDATE SET fence = ?2, lease_ends = ?3";
            let ends = now.saturating_add(millis(duration));
            t.prepare_cached(upsert)?.execute(params![key.as_bytes(), fence, ends])?;
            Ok(Lease::Acquired { fence: Fence(fence.cast_unsigned()), abandoned: row.lease_ends.is_some() })
        })
        .await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let key = *key;
        self.write(move |t, now| {
            let update = "UPDATE token SET lease_ends = ? WHERE key = ? AND fence = ? AND lease_ends > ?";
            let ends = now.saturating_add(millis(duration));
            let renewed = params![ends, key.as_bytes(), fence.0.cast_signed(), now];
            Ok(t.prepare_cached(update)?.execute(renewed)? == 1)
        })
        .await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        let key = *key;
        self.write(move |t, _| {
            let update = "UPDATE token SET lease_ends = NULL WHERE key = ? AND fence = ?";
            t.prepare_cached(update)?.execute(params![key.as_bytes(), fence.0.cast_signed()]).map(drop)
        })
        .await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        let key = *key;
        self.write(move |t, _| t.execute("DELETE FROM token WHERE key = ?", [key.as_bytes()]).map(drop)).await
    }

    /// Looks now and then, ever more rarely: SQLite tells other processes of nothing.
    async fn changed(&self, key: &StoreKey, since: Version) {
        let mut pause = Duration::from_millis(20);
        loop {
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
            // An error: whether the store is there is for the other calls to say.
            if self.is_worth_a_look(*key, since).await.unwrap_or(true) {
                return;
            }
        }
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Numbers grow, and follow the clock as well, so that they do not start again with a row that was removed.
fn next(number: i64, now: i64) -> i64 {
    number.saturating_add(1).max(now.saturating_mul(1000))
}

fn store_error(error: rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => StoreErrorKind::Refused,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind).caused_by(error)
}
