//! `StoreLayer`: puts a store around a token source.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout_at;
use tower_layer::Layer;
use tower_service::Service;

use super::access::{Access, Figures, StoredEntry};
use super::fetch::{self, Fetch, NotStored};
use super::lease_guard::LeaseGuard;
use super::record::Record;
use super::{Fence, Saved, StoreError, StoreErrorKind, StoreIdentity, StoreKey, TokenStore};
use crate::engine::{EndpointLimits, Limited, LimitsSlot};
use crate::token::{RefreshOwner, RefreshToken, Token, TokenRequest, TokenSource};
use crate::types::{Clock, ConfigError, Secret, SystemClock, TenantId, TokenError};

/// Puts a [`TokenStore`] around a token source: what is stored and good is the answer, else one process asks for all.
///
/// [`AuthLayerBuilder::store`](crate::AuthLayerBuilder::store) makes one. By hand it is a tower layer like any other, for a
/// [`TokenSource`] or a `Service<TokenRequest, Response = Token>`. The handle of the layer sees the store, so that
/// [`set_token`](crate::AuthHandle::set_token), [`forget`](crate::AuthHandle::forget),
/// [`revoke`](crate::AuthHandle::revoke) and [`stats`](crate::AuthHandle::stats) mean it too: wherever it was put around a
/// token endpoint; around another source only where it is the outermost layer (put timeouts and the like inside). Where it
/// is the outermost one, what is stored is not counted among the
/// [token requests at the same time](crate::AuthConfigBuilder::max_concurrent_token_requests); further out, a layer holds a
/// place among them while the store is asked.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use std::time::Duration;
/// use tower::layer::layer_fn;
/// use tower::{Layer, ServiceBuilder};
/// use tower_oauth2_client::store::{MemoryStore, StoreLayer};
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, TokenEndpoint};
///
/// # tokio_test::block_on(async {
/// let http_client = AuthServer::new(TestClock::new());
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let store = MemoryStore::new();
/// let layered = layer_fn(move |endpoint: TokenEndpoint<_>| {
///     let store = StoreLayer::new(store.clone(), endpoint.identity()).timeout(Duration::from_millis(200));
///     ServiceBuilder::new().layer(store).concurrency_limit(10).service(endpoint)
/// });
/// let layer = AuthLayer::builder(cfg).http_client(http_client).token_layer(layered).build()?;
/// layer.handle().warm_up().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[must_use]
pub struct StoreLayer<St>(Access<St>);

impl<St: TokenStore> StoreLayer<St> {
    /// A layer that keeps the tokens of this identity in this store.
    pub fn new(store: St, identity: StoreIdentity) -> Self {
        Self(Access::new(store, identity))
    }

    /// How long one call of the store may take. Default: 1 s, far more than a store in the same network needs and far
    /// less than a caller waits for a response. A store that takes longer has failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.settings.timeout = timeout;
        self
    }

    /// How long a lease lasts, at least a second. Default: 10 s.
    ///
    /// While a token request is in flight the lease is renewed at a third of that, so it does not bound the request. It is how
    /// long the others wait for a process that has died.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.0.settings.lease = lease.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        self
    }

    /// How long an unused refresh token stays in the store; each save begins anew. Default: 30 days. Without a refresh token a
    /// value stays for as long as its access token is of use.
    pub fn refresh_token_ttl(mut self, ttl: Duration) -> Self {
        self.0.settings.refresh_token_ttl = ttl;
        self
    }

    /// Stores a token from elsewhere, such as a sign-in, in place of what is stored. Pass what it returns
    /// to [`AuthHandle::set_token`](crate::AuthHandle::set_token), so that this process uses it at once; a handle whose layer
    /// has this store around its token endpoint does both.
    ///
    /// `tenant`: whose token it is, where the configuration knows tenants, a fixed one among them.
    ///
    /// # Errors
    /// It is not stored.
    pub async fn store_token(&self, tenant: Option<&TenantId>, token: Token) -> Result<Token, StoreError> {
        let request = TokenRequest { tenant: tenant.cloned(), ..TokenRequest::default() };
        Ok(self.store_token_for(request, token).await?.token)
    }

    /// Figures of this layer and its clones.
    pub fn stats(&self) -> StoreStats {
        let figures = self.0.figures();
        StoreStats {
            found: figures.found.load(Ordering::Relaxed),
            stored: figures.stored.load(Ordering::Relaxed),
            not_stored: figures.not_stored.load(Ordering::Relaxed),
            without_store: figures.without_store.load(Ordering::Relaxed),
        }
    }

    async fn store_token_for(&self, request: TokenRequest, mut token: Token) -> Result<StoredToken, StoreError> {
        self.0.asked_by(&request);
        token.asked_at = token.asked_at.or(Some(request.context().clock.now().wall));
        let made_by = self.0.identity.made_by();
        let known = self.0.copies().get(&self.key_of(&request)).map_or(0, |copy| copy.number);
        let record = |before: Option<Record>, fence: Fence| {
            let before = before.unwrap_or_default();
            let record = Record { token: Some(token.clone()), made_by: made_by.clone(), failure: None, ..before };
            // A sign-in begins a family of its own: with the number of its lease, which is higher than any before.
            let number = record.refresh_number.max(known).saturating_add(1).max(fence.0);
            match &token.refresh_token {
                RefreshToken::Keep => record,
                RefreshToken::Replace(new) => Record {
                    refresh_token: Some(new.clone()),
                    refresh_number: number,
                    refresh_dead: false,
                    single_use: true,
                    answer_lost: false,
                    ..record
                },
                RefreshToken::Drop => Record { refresh_token: None, refresh_dead: true, answer_lost: false, ..record },
            }
        };
        let record = self.put(&request, record).await.inspect_err(|_| {
            Figures::count(&self.0.figures().not_stored);
            self.0.telemetry().not_stored(self.key_of(&request), NotStored::StoreFailed);
        })?;
        let owner = RefreshOwner::Store { single_use: record.single_use };
        Ok(StoredToken { token: fetch::with_copy(token, &record), number: record.refresh_number, owner })
    }

    /// Under which key the token of a tenant is kept, where the configuration knows tenants: what events name.
    pub fn key(&self, tenant: Option<&TenantId>) -> StoreKey {
        self.0.identity.key(tenant, None)
    }

    /// Removes what is stored for a tenant, readable or not. Processes that have a copy of its refresh token bring that back
    /// when they next need a token: to sign out, [`AuthHandle::revoke`](crate::AuthHandle::revoke).
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn remove(&self, tenant: Option<&TenantId>) -> Result<(), StoreError> {
        self.0.remove(&SystemClock, &self.key(tenant)).await
    }

    fn key_of(&self, request: &TokenRequest) -> StoreKey {
        self.0.identity.key(request.tenant.as_ref(), request.scopes.as_ref())
    }

    /// Puts a record in place of what is stored, under the lease. What cannot be read is replaced, too: somebody asks for it
    /// by hand. What a newer version has written is not.
    async fn put(
        &self,
        request: &TokenRequest,
        make: impl FnOnce(Option<Record>, Fence) -> Record,
    ) -> Result<Record, StoreError> {
        self.0.identity.check().map_err(refused)?;
        let (context, key) = (request.context(), self.key_of(request));
        let clock = &*context.clock;
        let taken = async {
            match self.take(&key, clock).await {
                Err(error) if error.kind() == StoreErrorKind::Unreadable => {
                    self.0.remove(clock, &key).await?;
                    self.0.telemetry().record_replaced(key);
                    self.take(&key, clock).await
                }
                result => result,
            }
        };
        let taken = timeout_at(context.deadline, taken).await;
        let (mut lease_guard, found) = taken.unwrap_or(Err(StoreError::new(StoreErrorKind::Unavailable)))?;
        let record = make(found.record, lease_guard.fence());
        let lives_for = fetch::lives_for(&record, &context, self.0.settings.refresh_token_ttl);
        match lease_guard.save(clock, &record, lives_for, found.version).await? {
            Saved::Done(_) => {
                Figures::count(&self.0.figures().stored);
                lease_guard.told();
                lease_guard.end().await;
                Ok(record)
            }
            Saved::Conflict | Saved::Fenced => Err(StoreError::new(StoreErrorKind::Unavailable)),
        }
    }

    /// The lease, waiting for it, and what is stored.
    async fn take(&self, key: &StoreKey, clock: &dyn Clock) -> Result<(LeaseGuard<St>, StoredEntry), StoreError> {
        loop {
            if let Some(mut lease_guard) = self.0.lease(clock, key).await? {
                let found = self.0.load(clock, key).await.inspect_err(|_| lease_guard.told())?;
                return Ok((lease_guard, found));
            }
            let StoredEntry { version, .. } = self.0.load(clock, key).await?;
            self.0.changed(key, version).await;
        }
    }
}

impl<St: TokenStore, T: TokenSource> Layer<T> for StoreLayer<St> {
    type Service = StoreService;

    fn layer(&self, source: T) -> StoreService {
        self.0.identity.announce(self.clone());
        let source = Limited::not_yet(source);
        let limits = source.limits().clone();
        let stored = Arc::new(Stored { source, access: self.0.clone() });
        StoreService { stored, store: Arc::new(self.clone()), limits }
    }
}

impl<St> Clone for StoreLayer<St> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<St> fmt::Debug for StoreLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreLayer").field(&self.0).finish()
    }
}

/// A token source with a store around it; made by [`StoreLayer`].
///
/// # Cancellation
/// The engine never drops a token request before its deadline. If you drop its future yourself, the lease is
/// given back, unless a refresh token may have been spent: then it ends by itself.
#[derive(Clone)]
pub struct StoreService {
    stored: Arc<dyn StoredSource>,
    store: Arc<dyn StoreAccess>,
    limits: LimitsSlot,
}

impl StoreService {
    /// For the handle of a layer whose source this is.
    pub(crate) fn store(&self) -> &Arc<dyn StoreAccess> {
        &self.store
    }

    /// Asks the source within these bounds from now on; `false`: it has others, those of another layer.
    pub(crate) fn limit(&self, limits: &Arc<EndpointLimits>) -> bool {
        self.limits.set(limits.clone()).is_ok()
    }
}

impl Service<TokenRequest> for StoreService {
    type Response = Token;
    type Error = TokenError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send>>;

    /// Always ready: most answers come from the store, and need no place in the source.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        self.stored.clone().fetch(request)
    }
}

impl fmt::Debug for StoreService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreService").finish_non_exhaustive()
    }
}

/// A source and the store around it. Behind a pointer, so that [`StoreService`] is one type, which
/// [`AuthLayer::with_source`](crate::AuthLayer::with_source) can tell from other sources.
struct Stored<T, St> {
    source: Limited<T>,
    access: Access<St>,
}

trait StoredSource: Send + Sync {
    fn fetch(self: Arc<Self>, request: TokenRequest) -> <StoreService as Service<TokenRequest>>::Future;
}

impl<T: TokenSource, St: TokenStore> StoredSource for Stored<T, St> {
    fn fetch(self: Arc<Self>, request: TokenRequest) -> <StoreService as Service<TokenRequest>>::Future {
        Box::pin(async move {
            let Self { source, access } = &*self;
            access.identity.check().map_err(TokenError::permanent)?;
            if request.params.is_some() || request.authority.is_some() {
                // One person's, made for one request, or of a server that only this process knows: no key tells such tokens
                // apart.
                return source.fetch(request).await;
            }
            Fetch::new(access, source, request).run().await
        })
    }
}

/// What [`StoreLayer::stats`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Token requests that the store answered: nobody was asked.
    pub found: u64,
    /// Tokens stored.
    pub stored: u64,
    /// Tokens that are used and could not be stored.
    pub not_stored: u64,
    /// Token requests made without the store, since it failed.
    pub without_store: u64,
}

/// A token that is stored, for the cell whose it is.
pub(crate) struct StoredToken {
    /// With a copy of the refresh token.
    pub(crate) token: Token,
    /// Of the refresh token.
    pub(crate) number: u64,
    pub(crate) owner: RefreshOwner,
}

fn refused(error: ConfigError) -> StoreError {
    StoreError::new(StoreErrorKind::Refused).caused_by(error)
}

pub(crate) type BoxStore<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store behind a pointer, so that [`AuthHandle`](crate::AuthHandle) needs no type parameter.
pub(crate) trait StoreAccess: Send + Sync {
    /// # Errors
    /// Nothing says whose the tokens are.
    fn check(&self) -> Result<(), ConfigError>;

    /// Stores a token in place of what is stored.
    fn store_token(&self, request: TokenRequest, token: Token) -> BoxStore<'_, StoredToken>;

    /// Stores that there is no token.
    fn forget(&self, request: TokenRequest) -> BoxStore<'_, ()>;

    /// The refresh token and the token that are stored.
    fn stored(&self, request: TokenRequest) -> BoxStore<'_, (Option<Secret<String>>, Option<Token>)>;

    fn stats(&self) -> StoreStats;

    /// Resolves when the store has every refresh token that was replaced.
    fn all_saved(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<St: TokenStore> StoreAccess for StoreLayer<St> {
    fn check(&self) -> Result<(), ConfigError> {
        self.0.identity.check()
    }

    fn store_token(&self, request: TokenRequest, token: Token) -> BoxStore<'_, StoredToken> {
        Box::pin(self.store_token_for(request, token))
    }

    fn forget(&self, request: TokenRequest) -> BoxStore<'_, ()> {
        Box::pin(async move {
            let known = self.0.copies().get(&self.key_of(&request)).map_or(0, |copy| copy.number);
            // Kept for long, so that no process brings a copy back.
            let record = |before: Option<Record>, _| Record {
                refresh_number: before.map_or(0, |before| before.refresh_number).max(known),
                refresh_dead: true,
                ..Record::default()
            };
            self.put(&request, record).await.map(drop)
        })
    }

    fn stored(&self, request: TokenRequest) -> BoxStore<'_, (Option<Secret<String>>, Option<Token>)> {
        Box::pin(async move {
            self.0.identity.check().map_err(refused)?;
            let key = self.0.identity.key(request.tenant.as_ref(), request.scopes.as_ref());
            let record = self.0.load(&*request.context().clock, &key).await?.record.unwrap_or_default();
            Ok((record.refresh_token, record.token))
        })
    }

    fn stats(&self) -> StoreStats {
        StoreLayer::stats(self)
    }

    fn all_saved(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.copies().all_saved())
    }
}
