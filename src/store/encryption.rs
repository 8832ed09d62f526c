//! `Encrypted`: a store around another one, which sees ciphertext only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::{Fence, Lease, Recall, Saved, StoreError, StoreErrorKind, StoreKey, Stored, TokenStore, Value, Version};
use crate::types::{ConfigError, Secret};

/// Tokens encrypted on their way into another store, decrypted on their way out.
///
/// XChaCha20-Poly1305 with a random nonce for each value. A value is bound to its [`StoreKey`]: moved to another key it
/// does not decrypt. What this does not hide is that there is a value, its length, when it was written; and who can write
/// to the store can put an older value back.
///
/// A value that no key of the list decrypts, or that was altered, is [`StoreErrorKind::Unreadable`] and stays where it
/// is: processes that have its key go on using it.
#[derive(Clone, Debug)]
pub struct Encrypted<St> {
    store: St,
    keys: EncryptionKeys,
}

impl<St: TokenStore> Encrypted<St> {
    /// Encrypts what goes into `store`.
    pub fn new(store: St, keys: EncryptionKeys) -> Self {
        Self { store, keys }
    }
}

impl<St> Encrypted<St> {
    /// The store inside, with what is encrypted.
    pub fn get_ref(&self) -> &St {
        &self.store
    }

    /// The store inside, with what is encrypted.
    pub fn get_mut(&mut self) -> &mut St {
        &mut self.store
    }

    /// The store inside, with what is encrypted.
    pub fn into_inner(self) -> St {
        self.store
    }
}

impl<St: TokenStore> TokenStore for Encrypted<St> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let Some(stored) = self.store.load(key).await? else { return Ok(None) };
        Ok(Some(Stored { version: stored.version, bytes: self.keys.open(key, stored.bytes.expose())? }))
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let bytes = Secret::new(self.keys.seal(key, value.bytes.expose())?);
        self.store.save(key, &Value { bytes, lives_for: value.lives_for }, expected, fence).await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        self.store.lease(key, duration).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        self.store.renew(key, fence, duration).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.store.release(key, fence).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.store.remove(key).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        self.store.changed(key, since).await;
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.store.recall(key).await
    }

    async fn recalled(&self) -> Recall {
        self.store.recalled().await
    }
}

/// Keys for [`Encrypted`], 32 random bytes each: the first one encrypts, all of them decrypt.
///
/// To replace a key, give all processes the new one at the **end** of the list first, then move it to the front, and
/// drop the old one when the longest-lived value has been written anew or has expired. A process that meets a value of a
/// key that it does not have goes on without the store until then.
///
/// ```
/// use tower_oauth2_client::store::EncryptionKeys;
///
/// // `openssl rand -base64 32` makes one.
/// let keys = EncryptionKeys::from_base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")?;
/// assert!(!format!("{keys:?}").contains("q83v"));
/// assert!(EncryptionKeys::from_base64("c2hvcnQ=").is_err());
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct EncryptionKeys(Arc<[Key]>);

#[derive(Clone)]
struct Key {
    /// The beginning of a digest of the key, which tells nothing of a random key.
    id: [u8; ID_LEN],
    /// Wiped when dropped.
    cipher: XChaCha20Poly1305,
}

/// What a value begins with: whose it is, and in which format the rest is.
const MAGIC: &[u8; 3] = b"toc";
const FORMAT: u8 = 1;
const ID_LEN: usize = 4;
const HEADER_LEN: usize = MAGIC.len() + 1 + ID_LEN;
const NONCE_LEN: usize = 24;

const MEND: &str = "give keys of 32 random bytes each, as `openssl rand -base64 32` makes them";

impl EncryptionKeys {
    /// Keys from their bytes. They must be random: a password is no key.
    ///
    /// # Errors
    /// An empty list, or a key that is one byte repeated.
    pub fn new(keys: impl IntoIterator<Item = Secret<[u8; 32]>>) -> Result<Self, ConfigError> {
        let keys = keys.into_iter().map(|key| Key::new(&key)).collect::<Result<Arc<[_]>, _>>()?;
        if keys.is_empty() {
            return Err(ConfigError::new("there is no encryption key", MEND));
        }
        Ok(Self(keys))
    }

    /// Keys in base64 (RFC 4648 §4), separated by commas: as they come from an environment variable.
    ///
    /// # Errors
    /// As [`new`](EncryptionKeys::new); also what is not base64 of 32 bytes. The error does not quote it.
    pub fn from_base64(list: &str) -> Result<Self, ConfigError> {
        let decode = |key: &str| {
            let mut bytes = STANDARD.decode(key.trim()).ok().filter(|bytes| bytes.len() == 32)?;
            let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Secret::new);
            bytes.zeroize();
            key
        };
        let malformed = || ConfigError::new("an encryption key is not base64 of 32 bytes", MEND);
        Self::new(list.split(',').map(|key| decode(key).ok_or_else(malformed)).collect::<Result<Vec<_>, _>>()?)
    }

    fn seal(&self, key: &StoreKey, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = |why: &'static str| StoreError::new(StoreErrorKind::Unavailable).caused_by(why);
        let first = self.0.first().ok_or_else(|| failed("there is no encryption key"))?;
        let mut nonce = XNonce::default();
        getrandom::fill(&mut nonce).map_err(|_| failed("the operating system gives no random numbers"))?;

        let mut sealed = Vec::with_capacity(HEADER_LEN + NONCE_LEN + plain.len() + 16);
        sealed.extend_from_slice(MAGIC);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&first.id);
        let bound = bound_to(&sealed, key);
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: plain, aad: &bound };
        sealed.extend(first.cipher.encrypt(&nonce, payload).map_err(|_| failed("the token cannot be encrypted"))?);
        Ok(sealed)
    }

    fn open(&self, key: &StoreKey, sealed: &[u8]) -> Result<Secret<Vec<u8>>, StoreError> {
        let unreadable = |why: &'static str| StoreError::new(StoreErrorKind::Unreadable).caused_by(why);
        let rest =
            sealed.strip_prefix(MAGIC).ok_or_else(|| unreadable("it is not a value that this crate encrypted"))?;
        if rest.first().is_some_and(|format| *format > FORMAT) {
            return Err(StoreError::new(StoreErrorKind::Newer));
        }
        let parts = sealed.split_first_chunk::<HEADER_LEN>();
        let parts = parts.and_then(|(header, rest)| Some((header, rest.split_first_chunk::<NONCE_LEN>()?)));
        let Some((header, (nonce, cipher_text))) = parts else { return Err(unreadable("it is cut off")) };

        let bound = bound_to(header, key);
        let mut candidates = self.0.iter().filter(|key| header.ends_with(&key.id)).peekable();
        if candidates.peek().is_none() {
            return Err(unreadable("it was encrypted with a key that is not in the list"));
        }
        candidates
            .find_map(|key| key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: cipher_text, aad: &bound }).ok())
            .map(Secret::new)
            .ok_or_else(|| unreadable("it was altered, or stored under another key"))
    }
}

impl Key {
    fn new(bytes: &Secret<[u8; 32]>) -> Result<Self, ConfigError> {
        let bytes = bytes.expose();
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(ConfigError::new("an encryption key is one byte repeated", MEND));
        }
        let digest = Sha256::new_with_prefix(b"tower-oauth2-client encryption key").chain_update(bytes).finalize();
        let mut id = [0; ID_LEN];
        id.iter_mut().zip(digest).for_each(|(id, byte)| *id = byte);
        Ok(Self { id, cipher: XChaCha20Poly1305::new(bytes.into()) })
    }
}

/// What is authenticated with the ciphertext, without being part of it.
fn bound_to(header: &[u8], key: &StoreKey) -> Vec<u8> {
    [header, key.as_bytes().as_slice()].concat()
}

/// Tells how many keys there are, nothing of them.
impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: StoreKey = StoreKey([1; 32]);

    fn key(seed: u8) -> Secret<[u8; 32]> {
        Secret::new(std::array::from_fn(|at| seed.wrapping_add(at as u8)))
    }

    fn keys<const N: usize>(seeds: [u8; N]) -> EncryptionKeys {
        EncryptionKeys::new(seeds.map(key)).unwrap()
    }

    fn kind(opened: Result<Secret<Vec<u8>>, StoreError>) -> StoreErrorKind {
        opened.unwrap_err().kind()
    }

    #[test]
    fn what_was_sealed_opens_and_shows_nothing() {
        let sealed = keys([1]).seal(&HERE, b"refresh token").unwrap();
        assert_eq!(keys([1]).open(&HERE, &sealed).unwrap().expose(), b"refresh token");
        assert!(!sealed.windows(7).any(|window| window == b"refresh"));
        assert_ne!(keys([1]).seal(&HERE, b"refresh token").unwrap(), sealed, "the same nonce twice");
    }

    #[test]
    fn keys_rotate() {
        let old = keys([1]).seal(&HERE, b"t").unwrap();
        let rotated = keys([2, 1]);
        assert_eq!(rotated.open(&HERE, &old).unwrap().expose(), b"t");
        let new = rotated.seal(&HERE, b"t").unwrap();
        assert_eq!(kind(keys([1]).open(&HERE, &new)), StoreErrorKind::Unreadable);
        assert_eq!(keys([1, 2]).open(&HERE, &new).unwrap().expose(), b"t");
    }

    #[test]
    fn a_value_belongs_to_its_key() {
        let sealed = keys([1]).seal(&HERE, b"t").unwrap();
        assert_eq!(kind(keys([1]).open(&StoreKey([2; 32]), &sealed)), StoreErrorKind::Unreadable);
    }

    #[test]
    fn each_byte_counts() {
        let sealed = keys([1]).seal(&HERE, b"t").unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(kind(keys([1]).open(&HERE, &altered)), StoreErrorKind::Unreadable, "byte {at}");
            assert_eq!(kind(keys([1]).open(&HERE, &sealed[..at])), StoreErrorKind::Unreadable, "cut at {at}");
        }
        assert_eq!(kind(keys([1]).open(&HERE, b"{\"access_token\":\"t\"}")), StoreErrorKind::Unreadable);
    }

    #[test]
    fn a_newer_format_is_told_apart() {
        let mut sealed = keys([1]).seal(&HERE, b"t").unwrap();
        sealed[MAGIC.len()] = FORMAT + 1;
        assert_eq!(kind(keys([1]).open(&HERE, &sealed)), StoreErrorKind::Newer);
        assert_eq!(kind(keys([1]).open(&HERE, b"toc\x02")), StoreErrorKind::Newer);
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        assert!(EncryptionKeys::new([]).is_err());
        assert!(EncryptionKeys::new([Secret::new([0; 32])]).is_err());
        for list in ["", "c2hvcnQ=", "not base64, at all"] {
            let error = EncryptionKeys::from_base64(list).unwrap_err().to_string();
            assert!(list.is_empty() || !error.contains(list), "{error}");
        }
    }

    /// Behaviour 103.
    #[test]
    fn debug_and_errors_show_no_key() {
        let canary = STANDARD.encode(key(1).expose());
        let keys = EncryptionKeys::from_base64(&format!("{canary}, {canary}")).unwrap();
        assert_eq!(format!("{keys:?}"), "EncryptionKeys(2)");
        let error = EncryptionKeys::from_base64(&canary[1..]).unwrap_err();
        assert!(!format!("{error:?}").contains(&canary[1..9]));
    }
}
