//! Tokens outside the process: so that they survive a restart, and so that a fleet makes one token request.
//!
//! [`AuthLayerBuilder::store`](crate::AuthLayerBuilder::store) puts a store around the token endpoint, and [`StoreLayer`]
//! around any token source. [`FileStore`] is for tools and restarts, [`MemoryStore`] for tests, `RedisStore` (feature
//! `redis`) for processes on many machines; [`TokenStore`] is the trait for your own. `Encrypted` (feature `encryption`)
//! keeps from a store what it stores.
//!
//! # What happens
//! A token that is needed is looked up. If there is a good one, nobody is asked. Otherwise one process gets the *lease*,
//! looks again, asks the authorization server, stores the answer, and only then uses it; the others wait for the store to
//! change. Tokens are renewed at 65 % to 80 % of their life; the first process to come asks for all, and the others find
//! its token when their turn comes.
//!
//! Refresh tokens are numbered: each one that a server returns has the number of the one that was sent, plus one, in the
//! store and in each process's copy. The higher number wins. A sign-in
//! ([`AuthHandle::set_token`](crate::AuthHandle::set_token)) begins with the number of its lease, which is higher than any
//! before. A store that was emptied or set back gets the newest copy from the processes that have one.
//!
//! # What failures cost
//! | failure | what happens |
//! |---|---|
//! | the store cannot be reached, or takes longer than a second | tokens that are alive stay in use; new ones are asked for by each process for itself, as without a store, and the store is left alone for 1 s, doubling to 30 s |
//! | the same, and only a refresh token would bring a new token | the token request fails and is repeated after a second: a copy that another process has redeemed would end the grant for all. One that the server is known not to replace, or that was set here, is sent |
//! | the store comes back empty, or older than it was | a process that misses a refresh token asks all for their copies and waits 2 s (the timeout of a call and a second, to connect anew); the one with the highest number is stored |
//! | a process dies with the lease, or cannot reach the store until it ends | the others wait for its lease to end (10 s), and ask those that live for what replaced the refresh token (2 s). If it may have redeemed the refresh token, the configured grant is used instead; where there is none, the refresh token is sent once more |
//! | a process sleeps through the end of its lease | it sends no refresh token any more; what it brings is stored if it is newer than what is there |
//! | a process cannot reach the authorization server | where no refresh token is involved the others ask for themselves after 2 to 2.5 s; it stands back for 15 s, doubling to two minutes |
//! | a refresh token's successor cannot be stored | it is used by this process, which tries again every 250 ms for a minute. Who takes the lease in that time asks for it as above. If it dies in that time, the others see a process that died with the lease |
//! | the refresh token is dead | the store is read again: one that somebody else has stored is tried, once; only then it is forgotten |
//! | a value is damaged or of another key | as if the store could not be reached, for this token only; a sign-in replaces it, and [`TokenStore::remove`] removes it |
//! | a value is of a newer version of this crate | the same, and nothing replaces it |
//! | the authorization server fails | the failure is remembered in the store, so that the others do not repeat it in turn: as long as the server says, or the configured backoff (0.5 s doubling to 60 s); 30 s where it refuses, for those with the same credentials; a server that cannot be reached once a second process has not reached it either |
//!
//! Each is told by an event (`WARN`, with the store key) and counted ([`StoreStats`]). None costs a token that is alive.
//! docs/fleet.md of the repository has what each costs as measured, and what to do.

mod access;
mod boxed;
mod copies;
#[cfg(feature = "encryption")]
mod encryption;
mod failure;
mod fetch;
mod file;
mod identity;
mod layer;
mod lease_guard;
mod memory;
mod millis;
mod record;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{BoxError, ConfigError, Secret};

pub use boxed::BoxTokenStore;
#[cfg(feature = "encryption")]
pub use encryption::{Encrypted, EncryptionKeys};
pub use file::FileStore;
pub use identity::StoreIdentity;
pub use layer::{StoreLayer, StoreService, StoreStats};
pub use memory::MemoryStore;
#[cfg(feature = "redis")]
pub use redis::{RedisStore, RedisStoreBuilder};

pub(crate) use identity::{Client, KnownStore};
pub(crate) use layer::{StoreAccess, StoredToken};

/// A place outside the process where tokens are kept: so that they survive a restart, and so that many processes make
/// one token request.
///
/// It knows nothing of OAuth2: opaque values under opaque keys, each with a version, and one lease a key. A value holds
/// secrets; a store that others can read must encrypt it.
///
/// # Concurrency
/// Processes share a store, so every method is atomic over all of them. A lease says who may redeem and save. Its
/// [`Fence`] grows with each lease of a key, and a save under an older one is refused: a holder that slept through the end
/// of its lease cannot overwrite what its successor saved.
///
/// # Cancellation
/// Each future may be dropped at any point. Dropping a [`save`](TokenStore::save) leaves the old value or the new one;
/// a lease acquired by a future that was dropped ends by itself.
pub trait TokenStore: Send + Sync + 'static {
    /// What is stored under this key.
    ///
    /// # Errors
    /// The store cannot be reached or the value cannot be read. Requests then go on without it.
    fn load(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Stores a value, if what is stored is still of the version `expected` and the lease still the newest one.
    ///
    /// # Errors
    /// As [`load`](TokenStore::load). The value may have been stored nevertheless.
    fn save(
        &self,
        key: &StoreKey,
        value: &Value,
        expected: Version,
        fence: Fence,
    ) -> impl Future<Output = Result<Saved, StoreError>> + Send;

    /// Takes the lease of a key for this long, unless somebody has it.
    ///
    /// The holder is about to spend a refresh token whose successor must then be saved: a store that can tell now that it
    /// could not hold it (it is full, or takes no writes) fails here.
    ///
    /// # Errors
    /// The store cannot be reached, or takes no writes.
    fn lease(&self, key: &StoreKey, duration: Duration) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// Extends a lease, counted from now. `false`: it has ended, and somebody else may have it.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn renew(
        &self,
        key: &StoreKey,
        fence: Fence,
        duration: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives a lease back; not an error if it has ended.
    ///
    /// # Errors
    /// The store cannot be reached. The lease then ends by itself.
    fn release(&self, key: &StoreKey, fence: Fence) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes whatever is stored under a key, readable or not, and its lease: a save of its holder is refused from then
    /// on. Not an error if there is nothing.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn remove(&self, key: &StoreKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Resolves when it is worth looking again: something was saved after the version `since`, the lease was given back
    /// or has ended, or some time has passed. It may resolve for no reason, but not at once each time, and it must resolve
    /// some time after each of these.
    fn changed(&self, key: &StoreKey, since: Version) -> impl Future<Output = ()> + Send;

    /// Asks the other processes for their copies of what was stored under a key: a process has found it gone, or may be
    /// about to use what another has replaced. Each that has one hears of it through [`recalled`](TokenStore::recalled).
    /// `false`: this store tells nobody, so that waiting for them is of no use.
    ///
    /// Only stores that can be out of reach, or lose what they have, while processes live need this. Default: `false`.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn recall(&self, key: &StoreKey) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let _ = key;
        std::future::ready(Ok(false))
    }

    /// Resolves when copies may be missed: another process asks, or the store is back and may have lost some. Default:
    /// never.
    fn recalled(&self) -> impl Future<Output = Recall> + Send {
        std::future::pending()
    }
}

/// A store that several layers share.
impl<S: TokenStore> TokenStore for Arc<S> {
    fn load(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send {
        S::load(self, key)
    }

    fn save(
        &self,
        key: &StoreKey,
        value: &Value,
        expected: Version,
        fence: Fence,
    ) -> impl Future<Output = Result<Saved, StoreError>> + Send {
        S::save(self, key, value, expected, fence)
    }

    fn lease(&self, key: &StoreKey, duration: Duration) -> impl Future<Output = Result<Lease, StoreError>> + Send {
        S::lease(self, key, duration)
    }

    fn renew(
        &self,
        key: &StoreKey,
        fence: Fence,
        duration: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        S::renew(self, key, fence, duration)
    }

    fn release(&self, key: &StoreKey, fence: Fence) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::release(self, key, fence)
    }

    fn remove(&self, key: &StoreKey) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::remove(self, key)
    }

    fn changed(&self, key: &StoreKey, since: Version) -> impl Future<Output = ()> + Send {
        S::changed(self, key, since)
    }

    fn recall(&self, key: &StoreKey) -> impl Future<Output = Result<bool, StoreError>> + Send {
        S::recall(self, key)
    }

    fn recalled(&self) -> impl Future<Output = Recall> + Send {
        S::recalled(self)
    }
}

/// Which copies may be missed: see [`TokenStore::recalled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recall {
    /// Those of this key.
    Key(StoreKey),
    /// Those of any key.
    All,
}

/// Under what a token is stored: a digest of everything that makes one token differ from another. It tells nothing of
/// what it was made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    pub(crate) fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// For tests of a store of your own; the layer makes its own.
impl From<[u8; 32]> for StoreKey {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

/// In hexadecimal: 64 characters that any file system and any database takes.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// As it is displayed: what an event names can be given to [`TokenStore::remove`].
///
/// ```
/// use tower_oauth2_client::store::StoreKey;
///
/// let text = "00ff".repeat(16);
/// assert_eq!(text.parse::<StoreKey>().unwrap().to_string(), text);
/// assert!("00fg".repeat(16).parse::<StoreKey>().is_err());
/// ```
impl FromStr for StoreKey {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let malformed =
            || ConfigError::new("a store key is not 64 hexadecimal digits", "copy it from the event or file name");
        let mut digest = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(malformed());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(malformed()) };
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({self})")
    }
}

/// What is stored under a key. The bytes are the crate's own business and hold secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Value {
    /// Opaque; some hundred bytes to some tens of kilobytes.
    pub bytes: Secret<Vec<u8>>,
    /// After this time the value is of no use to anybody, and may be dropped.
    pub lives_for: Duration,
}

impl Value {
    /// A value, for a store around another one and for tests.
    pub fn new(bytes: Secret<Vec<u8>>, lives_for: Duration) -> Self {
        Self { bytes, lives_for }
    }
}

/// A value as it was loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// Its version, for [`TokenStore::save`].
    pub version: Version,
    /// The bytes of the [`Value`].
    pub bytes: Secret<Vec<u8>>,
}

impl Stored {
    /// A value of this version.
    pub fn new(version: Version, bytes: Secret<Vec<u8>>) -> Self {
        Self { version, bytes }
    }
}

/// Counts what was saved under a key. Grows with each save; zero while nothing is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Counts the leases of a key. Grows with each lease, and never starts again while a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// The answer to [`TokenStore::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lease {
    /// It is ours.
    Acquired {
        /// To be shown with each save.
        fence: Fence,
        /// The lease before was never given back: its holder may have died between the authorization server's answer and
        /// the save, so that the refresh token stored may be spent.
        abandoned: bool,
    },
    /// Somebody else has it.
    Held,
}

/// The answer to [`TokenStore::save`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Saved {
    /// It is stored, as this version.
    Done(Version),
    /// Nothing was stored: somebody else saved meanwhile.
    Conflict,
    /// Nothing was stored: the lease is not the newest one any more.
    Fenced,
}

/// Why a store could not do what it was asked. It holds no value and no password.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<BoxError>,
}

/// What a program can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, or does not answer in time.
    Unavailable,
    /// The store refuses us: a password, a permission.
    Refused,
    /// The value is none of ours, or no key decrypts it.
    Unreadable,
    /// The value was written by a newer version of this crate.
    Newer,
}

impl StoreErrorKind {
    /// A name for logs and metrics, such as `unavailable`. It is the `error.type` of the crate's own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Newer => "newer",
        }
    }
}

impl StoreError {
    /// An error of that kind.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Names the cause, which must not quote a value or a password.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What happened.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the token store cannot be reached",
            StoreErrorKind::Refused => "the token store refuses access",
            StoreErrorKind::Unreadable => "the stored token cannot be read: it is damaged, or of another key",
            StoreErrorKind::Newer => "the stored token was written by a newer version of this crate",
        })
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
