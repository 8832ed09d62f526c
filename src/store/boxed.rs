//! `BoxTokenStore`: a store of a type that is chosen at run time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Fence, Lease, Recall, Saved, StoreError, StoreKey, Stored, TokenStore, Value, Version};

/// A [`TokenStore`] whose type is not known before the program runs, as where a setting chooses between a directory and
/// Redis. Clones share the store.
///
/// ```
/// # #[cfg(all(feature = "redis", feature = "reqwest"))] {
/// use tower_oauth2_client::store::{BoxTokenStore, EncryptionKeys, FileStore, RedisStore};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, ConfigError, Secret};
///
/// fn store(place: &str, keys: EncryptionKeys) -> Result<BoxTokenStore, ConfigError> {
///     Ok(if place.starts_with("redis") {
///         BoxTokenStore::new(RedisStore::new(place, keys)?)
///     } else {
///         BoxTokenStore::new(FileStore::new(place))
///     })
/// }
///
/// # let keys = EncryptionKeys::new([Secret::new(std::array::from_fn(|n| n as u8))])?;
/// # let place = "/var/lib/my-service/tokens";
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let layer = AuthLayer::builder(cfg).store(store(place, keys)?).build()?;
/// # }
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct BoxTokenStore(Arc<dyn DynTokenStore>);

impl BoxTokenStore {
    /// Hides the type of a store.
    pub fn new(store: impl TokenStore) -> Self {
        Self(Arc::new(store))
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TokenStore`] with its futures in boxes.
trait DynTokenStore: Send + Sync {
    fn load<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<Option<Stored>, StoreError>>;

    fn save<'a>(
        &'a self,
        key: &'a StoreKey,
        value: &'a Value,
        expected: Version,
        fence: Fence,
    ) -> BoxFuture<'a, Result<Saved, StoreError>>;

    fn lease<'a>(&'a self, key: &'a StoreKey, duration: Duration) -> BoxFuture<'a, Result<Lease, StoreError>>;

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        fence: Fence,
        duration: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    fn release<'a>(&'a self, key: &'a StoreKey, fence: Fence) -> BoxFuture<'a, Result<(), StoreError>>;

    fn remove<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<(), StoreError>>;

    fn changed<'a>(&'a self, key: &'a StoreKey, since: Version) -> BoxFuture<'a, ()>;

    fn recall<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<bool, StoreError>>;

    fn recalled(&self) -> BoxFuture<'_, Recall>;
}

impl<S: TokenStore> DynTokenStore for S {
    fn load<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(TokenStore::load(self, key))
    }

    fn save<'a>(
        &'a self,
        key: &'a StoreKey,
        value: &'a Value,
        expected: Version,
        fence: Fence,
    ) -> BoxFuture<'a, Result<Saved, StoreError>> {
        Box::pin(TokenStore::save(self, key, value, expected, fence))
    }

    fn lease<'a>(&'a self, key: &'a StoreKey, duration: Duration) -> BoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(TokenStore::lease(self, key, duration))
    }

    fn renew<'a>(
        &'a self,
        key: &'a StoreKey,
        fence: Fence,
        duration: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(TokenStore::renew(self, key, fence, duration))
    }

    fn release<'a>(&'a self, key: &'a StoreKey, fence: Fence) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(TokenStore::release(self, key, fence))
    }

    fn remove<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(TokenStore::remove(self, key))
    }

    fn changed<'a>(&'a self, key: &'a StoreKey, since: Version) -> BoxFuture<'a, ()> {
        Box::pin(TokenStore::changed(self, key, since))
    }

    fn recall<'a>(&'a self, key: &'a StoreKey) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(TokenStore::recall(self, key))
    }

    fn recalled(&self) -> BoxFuture<'_, Recall> {
        Box::pin(TokenStore::recalled(self))
    }
}

impl TokenStore for BoxTokenStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        DynTokenStore::load(&*self.0, key).await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        DynTokenStore::save(&*self.0, key, value, expected, fence).await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        DynTokenStore::lease(&*self.0, key, duration).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        DynTokenStore::renew(&*self.0, key, fence, duration).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        DynTokenStore::release(&*self.0, key, fence).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        DynTokenStore::remove(&*self.0, key).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        DynTokenStore::changed(&*self.0, key, since).await
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        DynTokenStore::recall(&*self.0, key).await
    }

    async fn recalled(&self) -> Recall {
        DynTokenStore::recalled(&*self.0).await
    }
}

impl fmt::Debug for BoxTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTokenStore").finish_non_exhaustive()
    }
}
