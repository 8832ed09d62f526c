//! `AuthHandle`: looks after the tokens of a layer.

mod stats;

use std::fmt;
use std::sync::Arc;

use crate::endpoint::{ClientAuth, Direct, Revoked, revoke};
use crate::engine::{Cell, Partition};
use crate::setup::Setup;
use crate::store::{StoreError, StoredToken};
use crate::token::{RefreshOwner, Token};
use crate::types::{ConfigError, Secret, TenantId, TokenError, TokenErrorKind};

pub use stats::Stats;

/// The handle to a layer's tokens: look, renew, replace. Cheap to clone.
///
/// ```
/// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("x").map_err(TokenError::permanent) });
/// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
/// let auth = layer.handle();
/// auth.warm_up().await?;
/// assert_eq!(auth.stats().token_requests, 1);
/// auth.invalidate();
/// auth.token().await?;
/// assert_eq!(auth.stats().token_requests, 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AuthHandle {
    pub(crate) setup: Arc<Setup>,
}

impl AuthHandle {
    pub(crate) fn new(setup: Arc<Setup>) -> Self {
        Self { setup }
    }

    /// The current token, waiting for one if there is none.
    ///
    /// It is what a request sent now would carry, for protocols that are not HTTP (a WebSocket's first message, a
    /// database that takes tokens). Ask each time: a token kept is a token that expires. Dropping the future cancels no
    /// token request.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("x").map_err(TokenError::permanent) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let token = layer.handle().token().await?;
    /// assert_eq!(token.header_value(), "Bearer x");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for a request: the failure of the token request, or the remembered one. Where each tenant has its token,
    /// there is none without one: use [`tenant_token`](AuthHandle::tenant_token).
    pub async fn token(&self) -> Result<Token, Arc<TokenError>> {
        self.without_tenant()?;
        self.setup.table.token(Partition::default()).await
    }

    /// The current token for a tenant; where tokens are shared, the one token.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Tenant, TenantId, Token, TokenError, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let source = tower::service_fn(|request: TokenRequest| async move {
    ///     let tenant = request.tenant.ok_or_else(TokenError::sign_in_again)?;
    ///     Token::bearer(&format!("token-of-{}", tenant.as_str())).map_err(TokenError::permanent)
    /// });
    /// let tenant = Tenant::header("x-account").per_tenant_tokens();
    /// let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).build()?;
    /// let auth = AuthLayer::with_source(cfg, source).handle();
    ///
    /// let clinic = TenantId::new("clinic")?;
    /// assert_eq!(auth.tenant_token(&clinic).await?.access_token(), "token-of-clinic");
    /// auth.invalidate_tenant(&clinic); // the other tenants keep theirs
    /// assert_eq!(auth.tenant_stats(&clinic).map(|stats| stats.token_requests), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`token`](AuthHandle::token).
    pub async fn tenant_token(&self, tenant: &TenantId) -> Result<Token, Arc<TokenError>> {
        self.setup.table.token(self.partition(tenant)).await
    }

    /// Fetches the token before the first request needs it; returns at once if there is one.
    ///
    /// # Errors
    /// As [`token`](AuthHandle::token): a good place to find a wrong secret at start-up.
    pub async fn warm_up(&self) -> Result<(), Arc<TokenError>> {
        self.token().await.map(drop)
    }

    /// Forgets every token, every remembered failure and every pause: no request that starts after this uses an old
    /// token.
    ///
    /// A token request under way goes on and its token is used, since it is newer. Refresh tokens are kept. The next
    /// request fetches a token, and takes it even if it is the same one. With a store it gets one that is newer than what was
    /// forgotten, whoever asked for it; a failure that the store remembers still counts, as it is everybody's.
    pub fn invalidate(&self) {
        self.setup.limits.probe_now();
        self.setup.table.all_cells().iter().for_each(|cell| cell.invalidate());
    }

    /// The same for one tenant's token, where tokens are per tenant; where they are shared, for the one token.
    pub fn invalidate_tenant(&self, tenant: &TenantId) {
        if let Some(cell) = self.existing_cell(tenant) {
            cell.invalidate();
        }
    }

    /// Replaces the client credentials, as after a rotation of the secret.
    ///
    /// A new epoch begins: every token is forgotten, and a token request under way with the old credentials does not
    /// publish. Refresh tokens are kept if the client id is the same. Requests already sent are not touched: where the
    /// old secret's tokens die with it, their 401 is answered with a token of the new one.
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_oauth2_client::{AuthLayer, ClientAuth, providers};
    ///
    /// let auth = AuthLayer::new(providers::vectorcare("id", "old secret").build()?).handle();
    /// auth.replace_credentials(ClientAuth::body("id", "new secret"))?;
    /// assert!(auth.replace_credentials(ClientAuth::body("id", "with a line break\n")).is_err());
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Credentials that are malformed; a layer made by [`AuthLayer::with_source`], whose credentials are the source's.
    pub fn replace_credentials(&self, client_auth: ClientAuth) -> Result<(), ConfigError> {
        let Some(endpoint) = &self.setup.endpoint else {
            return Err(ConfigError::new(
                "this layer's tokens come from a source of yours",
                "replace the credentials there and call `invalidate()`",
            ));
        };
        let same_client = endpoint.credentials().replace(client_auth)?;
        self.setup.limits.credentials_replaced();
        self.setup.table.all_cells().iter().for_each(|cell| cell.new_epoch(same_client));
        Ok(())
    }

    /// Hands in a token from elsewhere, such as an interactive sign-in: the very next request uses it.
    ///
    /// With [`Token::with_refresh_token`] it brings the refresh token that later renewals use. A token request under
    /// way does not publish; who waits for it goes on with the token handed in.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, TokenError, TokenRequest};
    /// use std::time::Duration;
    /// use tower_oauth2_client::{RefreshToken, Secret, Token};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let signed_in = Token::bearer("from-the-sign-in")?
    ///     .expires_in(Duration::from_secs(3600))
    ///     .with_refresh_token(RefreshToken::Replace(Secret::from("its-refresh-token")));
    /// layer.handle().hand_in(signed_in)?;
    /// assert_eq!(layer.handle().token().await?.access_token(), "from-the-sign-in");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A token that has expired already, where such tokens must be discarded. A token of the scheme `DPoP` where no key is
    /// configured: no API would take it without a proof.
    pub fn hand_in(&self, token: Token) -> Result<(), Arc<TokenError>> {
        self.without_tenant()?;
        self.can_be_proved(&token)?;
        self.setup.table.default_cell().hand_in(self.setup.table.env(), token)
    }

    /// The same for one tenant. Where the source cannot fetch another, bring a refresh token with it: without one, the
    /// token goes with its partition when that is [dropped](crate::AuthConfigBuilder::max_partitions).
    ///
    /// # Errors
    /// As [`hand_in`](AuthHandle::hand_in).
    pub fn hand_in_tenant(&self, tenant: &TenantId, token: Token) -> Result<(), Arc<TokenError>> {
        self.can_be_proved(&token)?;
        self.setup.table.cell(self.partition(tenant)).hand_in(self.setup.table.env(), token)
    }

    /// As [`hand_in`](AuthHandle::hand_in), for a layer with a store: stored first, so that it survives a crash and other
    /// processes have it, then used.
    ///
    /// Without a store it is `hand_in`. A store that the layer was not made with, but that is somewhere around its token
    /// source, is not known here: hand in what [`StoreLayer::keep`] returns.
    ///
    /// It waits while another process is asking for this token, at most as long as a token request may take. Dropping the
    /// future leaves the token stored or not, and not handed in.
    ///
    /// # Errors
    /// [`NotStored`](TokenErrorKind::NotStored): the token could not be stored. It is used nevertheless, and its refresh
    /// token's successor is stored at the next renewal. Otherwise as [`hand_in`](AuthHandle::hand_in).
    pub async fn keep(&self, token: Token) -> Result<(), Arc<TokenError>> {
        self.without_tenant()?;
        self.keep_in(Partition::default(), token).await
    }

    /// The same for one tenant.
    ///
    /// # Errors
    /// As [`keep`](AuthHandle::keep).
    pub async fn keep_tenant(&self, tenant: &TenantId, token: Token) -> Result<(), Arc<TokenError>> {
        self.keep_in(self.partition(tenant), token).await
    }

    async fn keep_in(&self, partition: Partition, token: Token) -> Result<(), Arc<TokenError>> {
        let table = &self.setup.table;
        let kept = match &self.setup.store {
            Some(store) => Some(store.keep(table.env().asking_now(&partition), token.clone()).await),
            None => None,
        };
        let (token, number, owner, result) = match kept {
            Some(Ok(StoredToken { token, number, owner })) => (token, Some(number), owner, Ok(())),
            Some(Err(error)) => {
                let error = TokenError::new(TokenErrorKind::NotStored).caused_by(error.into());
                (token, None, RefreshOwner::Cell, Err(Arc::new(error)))
            }
            None => (token, None, RefreshOwner::Cell, Ok(())),
        };
        table.cell(partition).set(table.env(), token, number, owner)?;
        result
    }

    /// Ends the grant at the authorization server (RFC 7009): revokes the refresh token, if there is one, then the access
    /// token, and forgets both. Nothing else in this crate revokes anything.
    ///
    /// It waits for a token request under way, so that what that one brings is revoked too. A request made later gets a new
    /// token where the grant needs no person, and fails with [`SignInAgain`](TokenErrorKind::SignInAgain) otherwise. Call it
    /// when no more requests come, such as on signing out. Dropping the future leaves what was not revoked by then.
    ///
    /// Where there is a store, what it has is revoked too, and taken out. AuxiliaryEndpoint processes have their copies of the access
    /// token: the API rejects those that the server could revoke.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # tokio_test::block_on(async {
    /// let http_client = AuthServer::new(TestClock::new());
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .revocation_url("https://auth.example.com/revoke")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let auth = AuthLayer::with_client(cfg, http_client.clone()).handle();
    /// let token = auth.token().await?;
    /// auth.revoke().await?;
    /// assert!(!http_client.is_live(token.access_token()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    /// No revocation URL, a server that does not answer or says no. The token in question may be good still and is kept,
    /// so that it can be tried again (after [`retry_after`](TokenError::retry_after), if the server asks for that). Many
    /// servers cannot revoke access tokens: the error is [`Unsupported`](TokenErrorKind::Unsupported) then, the refresh
    /// token is revoked and forgotten, and [`invalidate`](AuthHandle::invalidate) forgets the rest.
    pub async fn revoke(&self) -> Result<(), Arc<TokenError>> {
        self.without_tenant()?;
        self.revoke_in(Partition::default()).await
    }

    /// The same for one tenant's tokens, where tokens are per tenant; where they are shared, for the one token.
    ///
    /// # Errors
    /// As [`revoke`](AuthHandle::revoke).
    pub async fn revoke_tenant(&self, tenant: &TenantId) -> Result<(), Arc<TokenError>> {
        self.revoke_in(self.partition(tenant)).await
    }

    /// What happened so far: counters over all partitions, those included that were evicted; generation, expiry, failure
    /// and pause of the main one.
    ///
    /// It is cheap enough for a scrape (a short lock for each partition) and not meant for each request.
    pub fn stats(&self) -> Stats {
        let table = &self.setup.table;
        let mut stats = Stats::of(table.default_cell(), table.env());
        let (others, evicted_totals) = table.others_and_evicted_totals();
        stats.token_requests += evicted_totals.token_requests;
        stats.token_failures += evicted_totals.failures;
        stats.suppressed_refreshes += evicted_totals.suppressed;
        for cell in others {
            let other = cell.stats(table.env());
            stats.partitions += 1;
            stats.token_requests += other.token_requests;
            stats.token_failures += other.failures;
            stats.suppressed_refreshes += other.suppressed;
        }
        stats.store = self.setup.store.as_ref().map(|store| store.stats());
        stats
    }

    /// The same for one tenant's partition alone; `None` if no token was ever asked for it, or if it was evicted.
    pub fn tenant_stats(&self, tenant: &TenantId) -> Option<Stats> {
        self.existing_cell(tenant).map(|cell| Stats::of(&cell, self.setup.table.env()))
    }

    /// Waits until the token requests under way have ended, so that a rotated refresh token is not lost with the
    /// process.
    ///
    /// It ends within the deadline of a token request (30 s by default), and forbids nothing: a request made later
    /// starts another. Call it when no more requests come.
    pub async fn shutdown(&self) {
        let waiters: Vec<_> = self.setup.table.all_cells().iter().filter_map(|cell| cell.waiter()).collect();
        for waiter in waiters {
            waiter.await;
        }
    }

    async fn revoke_in(&self, partition: Partition) -> Result<(), Arc<TokenError>> {
        let endpoint = self.endpoint()?;
        let table = &self.setup.table;
        let (cell, asking) = (table.cell(partition.clone()), table.env().asking_now(&partition));
        if let Some(waiter) = cell.waiter() {
            waiter.await;
        }
        let held = cell.revocable();
        let (refresh_token, token) = match &self.setup.store {
            Some(store) => store
                .stored(asking.clone())
                .await
                .map_err(|error| store_failed("the store cannot be read; nothing was revoked", error))?,
            None => (None, None),
        };
        // First what could bring more tokens; most servers let the access tokens die with it. Another process may have
        // renewed both.
        for refresh_token in different(refresh_token, held.refresh_token.clone()) {
            revoke(endpoint, refresh_token, Revoked::RefreshToken, asking.tenant.clone()).await?;
        }
        cell.forget_refresh_token(&held);
        let of = |token: &Token| Secret::from(token.access_token());
        for token in different(token.as_ref().map(of), held.current.as_ref().map(|current| of(&current.token))) {
            revoke(endpoint, token, Revoked::AccessToken, asking.tenant.clone()).await?;
        }
        cell.forget(&held);
        match &self.setup.store {
            Some(store) => Ok(store
                .forget(asking)
                .await
                .map_err(|error| store_failed("all was revoked, but the store has it still", error))?),
            None => Ok(()),
        }
    }

    /// # Errors
    /// The layer's tokens come from a source of the user's.
    fn endpoint(&self) -> Result<&dyn Direct, TokenError> {
        self.setup.endpoint.as_deref().ok_or_else(|| {
            TokenError::new(TokenErrorKind::Unsupported).with_detail("this layer's tokens come from a source of yours")
        })
    }

    fn can_be_proved(&self, token: &Token) -> Result<(), Arc<TokenError>> {
        if !token.is_bound() || self.setup.can_prove() {
            return Ok(());
        }
        let mend = "the token is bound to a key (DPoP), and none is configured (`.dpop(..)`)";
        Err(Arc::new(TokenError::new(TokenErrorKind::Refused).with_detail(mend)))
    }

    /// Never a default tenant: where each tenant has its token, somebody must say which.
    pub(crate) fn without_tenant(&self) -> Result<(), Arc<TokenError>> {
        match &self.setup.requests.tenant {
            Some(policy) if policy.tokens_need_tenant() => {
                let mend = "each tenant has its own token here; name the tenant (`tenant_token`, `hand_in_tenant`)";
                Err(Arc::new(TokenError::new(TokenErrorKind::Refused).with_detail(mend)))
            }
            _ => Ok(()),
        }
    }

    fn partition(&self, tenant: &TenantId) -> Partition {
        let tenant = self.setup.requests.tenant.as_ref().and_then(|policy| policy.partition_of(tenant));
        Partition { tenant, ..Partition::default() }
    }

    /// The tenant that token requests for this partition name, if they name one.
    pub(crate) fn tenant_of_token_requests(&self, tenant: Option<&TenantId>) -> Option<TenantId> {
        let varying = tenant.and_then(|tenant| self.partition(tenant).tenant);
        varying.or_else(|| self.setup.table.env().fixed_tenant.clone())
    }

    fn existing_cell(&self, tenant: &TenantId) -> Option<Arc<Cell>> {
        self.setup.table.existing_cell(&self.partition(tenant))
    }
}

fn store_failed(detail: &'static str, error: StoreError) -> TokenError {
    TokenError::new(TokenErrorKind::SourceTransient).with_detail(detail).caused_by(error.into())
}

/// Both, or one where they are the same.
fn different(one: Option<Secret<String>>, other: Option<Secret<String>>) -> impl Iterator<Item = Secret<String>> {
    let is_same = matches!((&one, &other), (Some(one), Some(other)) if one.expose() == other.expose());
    one.into_iter().chain(other.filter(|_| !is_same))
}

impl fmt::Debug for AuthHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
