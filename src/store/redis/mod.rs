//! `RedisStore`: tokens shared by processes through Redis or Valkey.

mod builder;
mod connection;
mod fault;
mod link;
mod script;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{FromRedisValue, RedisError, Script};
use futures_util::future::{Either, select};

pub use builder::RedisStoreBuilder;

use self::fault::unavailable;
use self::link::Link;
use super::{
    Encrypted, EncryptionKeys, Fence, Lease, Recall, Saved, StoreError, StoreKey, Stored, TokenStore, Value, Version,
};
use crate::types::{ConfigError, Secret};

/// Tokens shared by processes through Redis (6 or newer) or Valkey, encrypted there.
///
/// ```
/// use tower_oauth2_client::store::{EncryptionKeys, RedisStore};
///
/// # let from_environment = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
/// let keys = EncryptionKeys::from_base64(from_environment)?;
/// let store = RedisStore::new("rediss://tokens:password@redis.example.com", keys)?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
///
/// # In Redis
/// Each key of the store is one hash, `oauth2-client:{…}`, with an expiry, and one notification channel of the same name.
/// The braces make a cluster keep it in one slot ([`RedisStoreBuilder::cluster`]). Each operation is one script, which is
/// atomic. Fences and versions follow Redis' clock, so that they never start again, even if Redis lost all its data.
///
/// The user needs: `~oauth2-client:* resetchannels &oauth2-client:* +eval +evalsha +script|load +time +hmget +hset +hdel
/// +del +pexpireat +publish +subscribe +unsubscribe +hello +auth +select`; in a cluster `+cluster|slots` too. This is for
/// Redis 6.2 and newer and Valkey; Redis 6.0 has no permissions for channels, so leave out `resetchannels` and `&…`.
///
/// Set `maxmemory-policy` to `noeviction` (the default) where refresh tokens are stored. Redis replicates asynchronously:
/// a failover may forget the last lease or save. Processes that live bring back the newest copy (over the channel
/// `oauth2-client:{recall}`); where none lives, it is gone. `appendonly yes` with `appendfsync always` is what survives a
/// restart of Redis, `WAIT` is not used; a reuse leeway of the authorization server that is longer than the lease helps most.
///
/// # Connection
/// One for each store and its clones, opened when it is first needed and again when it broke; at once where refresh tokens
/// are involved, since Redis may have lost what this process has a copy of. An operation takes at most
/// the [timeout](RedisStoreBuilder::timeout) with everything it needs, and is repeated once if the connection it met was
/// dead. It must be used within a tokio runtime.
///
/// # Waiting
/// [`changed`](TokenStore::changed) subscribes to the key's channel over the same connection while somebody waits, looks
/// once at what is there, and then costs nothing: a save or a lease given back is told at once, the end of a lease is
/// known in advance. Since Redis does not repeat a notification that was lost, it looks again after 1 to 2 s. A process that
/// waits for another's token request costs Redis five operations and one message, and four operations more for each 1 to
/// 2 s that it takes.
///
/// # TLS
/// `rediss://` and `valkeys://` verify the certificate by the system's roots or by
/// [those you give](RedisStoreBuilder::root_certificates). The process-wide default of rustls is used; where there is
/// none, AWS-LC is made it. Without TLS the password goes over the wire as it is; tokens are encrypted either way.
#[derive(Clone)]
pub struct RedisStore(Kept);

/// Tokens go into Redis encrypted, unless somebody said otherwise at length.
#[derive(Clone)]
enum Kept {
    Encrypted(Encrypted<Hashes>),
    Clear(Hashes),
}

impl RedisStore {
    /// A store at that address, `redis://user:password@host:port/database`, with everything else as it is by default.
    /// Opens no connection.
    ///
    /// # Errors
    /// An address that is none. The error does not quote it.
    pub fn new(url: &str, keys: EncryptionKeys) -> Result<Self, ConfigError> {
        Self::builder(url).build(keys)
    }

    /// Whether Redis can be reached and takes writes: a replica, or a user who may only read, is an error. Ask at
    /// start-up: when a store fails later, the process goes on without it, and only a warning says so.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<(), StoreError> {
        // Nobody else's: a replica knows of the leases that its master gave.
        let key = StoreKey::new(std::array::from_fn(|_| fastrand::u8(..)));
        match self.lease(&key, Duration::from_secs(1)).await? {
            Lease::Acquired { fence, .. } => self.release(&key, fence).await,
            Lease::Held => Err(unavailable("a key that nobody knows is leased")),
        }
    }

    /// A store with a prefix, a timeout or certificates of its own.
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }
}

macro_rules! either {
    ($self:expr, $store:ident => $call:expr) => {
        match &$self.0 {
            Kept::Encrypted($store) => $call.await,
            Kept::Clear($store) => $call.await,
        }
    };
}

impl TokenStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        either!(self, store => store.load(key))
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        either!(self, store => store.save(key, value, expected, fence))
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        either!(self, store => store.lease(key, duration))
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        either!(self, store => store.renew(key, fence, duration))
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        either!(self, store => store.release(key, fence))
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        either!(self, store => store.remove(key))
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        either!(self, store => store.changed(key, since));
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        either!(self, store => store.recall(key))
    }

    async fn recalled(&self) -> Recall {
        either!(self, store => store.recalled())
    }
}

/// Tells whether it encrypts, nothing of the address.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encrypted = matches!(self.0, Kept::Encrypted(_));
        f.debug_struct("RedisStore").field("encrypted", &encrypted).finish_non_exhaustive()
    }
}

/// For how long it is remembered that a lease was not given back. A process that died is back within minutes; a refresh
/// token that it may have spent is asked about when the next one looks for it.
const ABANDONED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time that Redis is told: its arithmetic must not overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

static LOAD: LazyLock<Script> = LazyLock::new(|| Script::new(script::LOAD));
static SAVE: LazyLock<Script> = LazyLock::new(|| Script::new(script::SAVE));
static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(script::LEASE));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(script::RENEW));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(script::RELEASE));
static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(script::REMOVE));
static RECALL: LazyLock<Script> = LazyLock::new(|| Script::new(script::RECALL));
static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(script::LOOK));

/// The store as Redis sees it: bytes in hashes.
#[derive(Clone)]
struct Hashes {
    link: Arc<Link>,
    prefix: Arc<str>,
    /// The number of the connection over which recalls were heard last.
    heard_over: Arc<AtomicU64>,
}

impl Hashes {
    /// The key of the hash, and the name of its channel.
    fn name(&self, key: &StoreKey) -> String {
        format!("{}{{{key}}}", self.prefix)
    }

    async fn run<T: FromRedisValue>(&self, script: &Script, key: &StoreKey, args: &[Arg<'_>]) -> Result<T, StoreError> {
        let mut call = script.key(self.name(key));
        for arg in args {
            match arg {
                Arg::Bytes(bytes) => call.arg(*bytes),
                Arg::Number(number) => call.arg(*number),
                Arg::Time(time) => call.arg(milliseconds(*time)),
            };
        }
        self.link.run(&call).await
    }

    /// The channel over which processes are asked for copies. The braces make it one of the cluster's slots.
    fn recall_channel(&self) -> String {
        format!("{}{{recall}}", self.prefix)
    }

    /// Resolves when somebody asks for copies, or when a new connection stands: what Redis had may be gone.
    async fn heard(&self) -> Result<Recall, RedisError> {
        let mut connected = self.link.connected().await?;
        let channel = self.recall_channel();
        let watch = connected.watches.watch(channel.clone(), connected.connection.clone());
        let subscribed = connected.connection.subscribe(&channel).await;
        subscribed.inspect_err(|error| self.link.failed(connected.number, error))?;
        let before = self.heard_over.swap(connected.number, Ordering::AcqRel);
        if before != connected.number && before != 0 {
            return Ok(Recall::All);
        }
        loop {
            let told = watch.changed().notified();
            if let Some(key) = watch.take_key() {
                return Ok(Recall::Key(key));
            }
            // It may have ended before anybody could be told.
            if watch.is_gone() {
                let gone = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                self.link.failed(connected.number, &gone);
                return Err(gone);
            }
            told.await;
        }
    }

    /// Resolves when something happened to the key, or its lease ends.
    async fn happened(&self, key: &StoreKey, since: Version) -> Result<(), RedisError> {
        let mut connected = self.link.connected().await?;
        let name = self.name(key);
        let watch = connected.watches.watch(name.clone(), connected.connection.clone());
        let told = std::pin::pin!(watch.changed().notified());
        let subscribed = connected.connection.subscribe(&name).await;
        subscribed.inspect_err(|error| self.link.failed(connected.number, error))?;

        // What happened before is looked for now, what happens from now on is told.
        let look = LOOK.key(name).invoke_async(&mut connected.connection).await;
        let (version, left): (u64, u64) = look.inspect_err(|error| self.link.failed(connected.number, error))?;
        if version > since.0 || left == 0 {
            return Ok(());
        }
        // All who wait would ask for the lease at the same instant.
        let spread = Duration::from_millis(fastrand::u64(0..100));
        let ended = std::pin::pin!(tokio::time::sleep(Duration::from_millis(left) + spread));
        select(told, ended).await;
        Ok(())
    }
}

enum Arg<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Time(Duration),
}

impl TokenStore for Hashes {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let found: Option<(u64, Vec<u8>)> = self.run(&LOAD, key, &[]).await?;
        Ok(found.map(|(version, bytes)| Stored { version: Version(version), bytes: Secret::new(bytes) }))
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let args = [
            Arg::Bytes(value.bytes.expose()),
            Arg::Number(expected.0),
            Arg::Number(fence.0),
            Arg::Time(value.lives_for),
        ];
        let (word, version): (String, u64) = self.run(&SAVE, key, &args).await?;
        match &*word {
            "done" => Ok(Saved::Done(Version(version))),
            "conflict" => Ok(Saved::Conflict),
            "fenced" => Ok(Saved::Fenced),
            _ => Err(unavailable("what answers is not Redis")),
        }
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let mut owner = [0; 16];
        getrandom::fill(&mut owner).map_err(|_| unavailable("the operating system gives no random numbers"))?;
        let args = [Arg::Bytes(&owner), Arg::Time(duration), Arg::Time(ABANDONED_FOR)];
        let lease: Option<(u64, u8)> = self.run(&LEASE, key, &args).await?;
        Ok(lease.map_or(Lease::Held, |(fence, abandoned)| Lease::Acquired {
            fence: Fence(fence),
            abandoned: abandoned == 1,
        }))
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let args = [Arg::Number(fence.0), Arg::Time(duration), Arg::Time(ABANDONED_FOR)];
        Ok(self.run::<u8>(&RENEW, key, &args).await? == 1)
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.run::<u8>(&RELEASE, key, &[Arg::Number(fence.0)]).await?;
        Ok(())
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.run::<u8>(&REMOVE, key, &[]).await?;
        Ok(())
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        let at_last = std::pin::pin!(tokio::time::sleep(Duration::from_millis(fastrand::u64(1000..2000))));
        let happened = std::pin::pin!(self.happened(key, since));
        if let Either::Left((Err(_), at_last)) = select(happened, at_last).await {
            // Whether Redis is there is for the other operations to say.
            at_last.await;
        }
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let channel = self.recall_channel();
        let mut call = RECALL.key(channel);
        call.arg(key.to_string());
        self.link.run::<u8>(&call).await?;
        Ok(true)
    }

    async fn recalled(&self) -> Recall {
        loop {
            match self.heard().await {
                Ok(recall) => return recall,
                Err(_) => tokio::time::sleep(Duration::from_millis(fastrand::u64(150..300))).await,
            }
        }
    }
}

/// At least one: Redis takes no shorter life.
fn milliseconds(time: Duration) -> u64 {
    time.min(LONGEST).as_millis().try_into().unwrap_or(u64::MAX).max(1)
}
