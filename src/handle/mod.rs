//! `AuthHandle`: looks after the tokens of a layer.

mod failing;
mod stats;

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::endpoint::{ClientAuth, Direct, Revoked, revoke};
use crate::engine::{Cell, Partition, Revocable};
use crate::setup::Setup;
use crate::store::{StoreError, StoredToken};
use crate::token::{RefreshOwner, Token, TokenRequest};
use crate::types::{ConfigError, Scopes, Secret, TenantId, TokenError, TokenErrorKind};

pub use failing::Failing;
pub use stats::Stats;

/// The handle to a layer's tokens: look at them, renew them, replace them. Cheap to clone.
///
/// A layer may have several tokens: one for each tenant, where [`Tenant`](crate::Tenant) says so, and one for each set of
/// [`Scopes`] that requests ask for. [`for_tenant`](AuthHandle::for_tenant) and [`for_scopes`](AuthHandle::for_scopes)
/// narrow a handle to one of them. What is not named is as the configuration says.
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
    /// The tenant that this handle is narrowed to.
    tenant: Option<TenantId>,
    /// The scopes that this handle is narrowed to.
    pub(crate) scopes: Option<Scopes>,
}

impl AuthHandle {
    pub(crate) fn new(setup: Arc<Setup>) -> Self {
        Self { setup, tenant: None, scopes: None }
    }

    /// The layer's [`name`](crate::AuthConfigBuilder::name).
    #[must_use]
    pub fn name(&self) -> &str {
        self.setup.table.env().telemetry.name()
    }

    /// This handle, narrowed to one tenant's token, in place of the tenant that it was narrowed to.
    ///
    /// Where all tenants share a token, the narrowed handle is for that one. Nothing is kept for a tenant before its token
    /// is asked for.
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
    /// let clinic = auth.for_tenant(&TenantId::new("clinic")?);
    /// assert_eq!(clinic.token().await?.access_token(), "token-of-clinic");
    /// clinic.invalidate(); // the other tenants keep theirs
    /// assert_eq!(clinic.stats().token_requests, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        Self { tenant: Some(tenant.clone()), ..self.clone() }
    }

    /// This handle, narrowed to the token of a request with these scopes in its extensions, in place of the scopes that it
    /// was narrowed to.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Scopes, Token, TokenError, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|request: TokenRequest| async move {
    /// #     let scopes = request.scopes.map_or("all".to_owned(), |scopes| scopes.as_str().to_owned());
    /// #     Token::bearer(&format!("token-to-{scopes}")).map_err(TokenError::permanent)
    /// # });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let reports = layer.handle().for_scopes(&Scopes::new(["reports"])?);
    /// assert_eq!(reports.token().await?.access_token(), "token-to-reports");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_scopes(&self, scopes: &Scopes) -> Self {
        Self { scopes: Some(scopes.clone()), ..self.clone() }
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
    /// As for a request: the failure of the token request, or the remembered one. Where each tenant has its own token,
    /// [`Refused`](TokenErrorKind::Refused) on a handle that is not narrowed by [`for_tenant`](AuthHandle::for_tenant).
    pub async fn token(&self) -> Result<Token, TokenError> {
        self.names_one_token()?;
        self.setup.table.token(self.partition()).await
    }

    /// Fetches the token before the first request needs it; returns at once if there is one.
    ///
    /// # Errors
    /// As [`token`](AuthHandle::token): a good place to find a wrong secret at start-up.
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        self.token().await.map(drop)
    }

    /// Forgets the tokens, the remembered failures and the pauses after them: no request that starts after this uses an
    /// old token. On a narrowed handle it is one token, otherwise all of them.
    ///
    /// A token request in flight goes on and its token is used, since it is newer. Refresh tokens are kept. The next
    /// request fetches a token, and takes it even if it is the same one. With a store it gets one that is newer than what was
    /// forgotten, whichever process asked for it; a failure that the store remembers stands, since it belongs to all processes.
    ///
    /// Where an API has rejected a token, use [`reject`](AuthHandle::reject): however many callers say so,
    /// one token request is made.
    pub fn invalidate(&self) {
        if self.is_narrowed() {
            self.existing_cell().iter().for_each(|cell| cell.invalidate());
        } else {
            self.setup.limits.probe_now();
            self.setup.table.all_cells().iter().for_each(|cell| cell.invalidate());
        }
    }

    /// Says that an API has rejected this token, where it was used without the layer: the next call of
    /// [`token`](AuthHandle::token) waits for a newer one.
    ///
    /// It is what the layer does after a 401 that names the token. However many callers reject the same token, one token
    /// request is made, and none if there is a newer token already. Rejections that refreshing does not heal are limited as
    /// for requests (at most 13 token requests a minute). The refresh starts at once; outside of a tokio runtime it starts
    /// with the next call of `token`.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # static N: AtomicUsize = AtomicUsize::new(0);
    /// # let source = tower::service_fn(|_: TokenRequest| async {
    /// #     Token::bearer(&N.fetch_add(1, Ordering::Relaxed).to_string()).map_err(TokenError::permanent)
    /// # });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let auth = layer.handle();
    /// let token = auth.token().await?;
    /// // A WebSocket server, say, closes the connection with "token revoked".
    /// auth.reject(&token);
    /// auth.reject(&token); // somebody else with the same token: no further token request
    /// assert_ne!(auth.token().await?.access_token(), token.access_token());
    /// assert_eq!(auth.stats().token_requests, 2);
    /// # Ok(()) }
    /// ```
    pub fn reject(&self, token: &Token) {
        if let Some(cell) = self.existing_cell() {
            drop(cell.reject_token(self.setup.table.env(), token));
        }
    }

    /// Replaces the client credentials, as after a rotation of the secret.
    ///
    /// A new epoch begins: every token is forgotten, and a token request in flight with the old credentials does not
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
    /// Credentials that are malformed; a layer made by [`AuthLayer::with_source`](crate::AuthLayer::with_source), where the
    /// source has the credentials.
    pub fn replace_credentials(&self, client_auth: ClientAuth) -> Result<(), ConfigError> {
        let Some(endpoint) = &self.setup.endpoint else {
            return Err(ConfigError::new(
                "this layer's tokens come from your own source",
                "replace the credentials there and call `invalidate()`",
            ));
        };
        let same_client = endpoint.credentials().replace(client_auth)?;
        self.setup.limits.credentials_replaced();
        self.setup.table.all_cells().iter().for_each(|cell| cell.new_epoch(self.setup.table.env(), same_client));
        Ok(())
    }

    /// Sets a token from elsewhere, such as a sign-in of your own: the very next request uses it.
    ///
    /// With [`Token::with_refresh_token`] it brings the refresh token that later renewals use. A token request in flight
    /// does not publish; requests that wait for it go on with the token that was set. On a handle for a tenant or for scopes
    /// whose source cannot fetch another token, bring a refresh token with it: without one, the token goes with its
    /// partition when that is [dropped](crate::AuthConfigBuilder::max_partitions).
    ///
    /// With a store the token is stored first, so that it survives a crash and other processes have it, then used. It waits
    /// while another process asks for this token, at most for the
    /// [`refresh_deadline`](crate::AuthConfigBuilder::refresh_deadline). Dropping the future leaves the token stored or not,
    /// and not in use here. Without a store the future is ready at once.
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
    ///     .with_expires_in(Duration::from_secs(3600))
    ///     .with_refresh_token(RefreshToken::Replace(Secret::from("its-refresh-token")));
    /// layer.handle().set_token(signed_in).await?;
    /// assert_eq!(layer.handle().token().await?.access_token(), "from-the-sign-in");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// - [`NotStored`](TokenErrorKind::NotStored): the store did not take it. The token is used nevertheless, and its
    ///   refresh token's successor is stored at the next renewal.
    /// - [`ClockSkew`](TokenErrorKind::ClockSkew): it has expired already, and such tokens are to be
    ///   [discarded](crate::AuthConfigBuilder::discard_expired).
    /// - [`Refused`](TokenErrorKind::Refused): it is of the scheme `DPoP` and no key is configured, so that no API would take
    ///   it; or each tenant has its own token and this handle names none.
    pub async fn set_token(&self, token: Token) -> Result<(), TokenError> {
        self.names_one_token()?;
        self.can_be_proved(&token)?;
        let (table, partition) = (&self.setup.table, self.partition());
        let stored = match &self.setup.store {
            Some(store) => Some(store.store_token(table.env().asking_now(&partition), token.clone()).await),
            None => None,
        };
        let (token, number, owner, result) = match stored {
            Some(Ok(StoredToken { token, number, owner })) => (token, Some(number), owner, Ok(())),
            Some(Err(error)) => {
                let error = self.failed(TokenError::new(TokenErrorKind::NotStored).caused_by(error.into()));
                (token, None, RefreshOwner::Cell, Err(error))
            }
            // A store that this handle does not know returned it: its refresh token is a copy.
            None if token.asked_at.is_some() => (token, None, RefreshOwner::Store { single_use: true }, Ok(())),
            None => (token, None, RefreshOwner::Cell, Ok(())),
        };
        table.cell(partition).set(table.env(), token, number, owner)?;
        result
    }

    /// Ends the grant at the authorization server (RFC 7009): revokes the refresh token, if there is one, then the access
    /// token, and forgets both. Nothing else in this crate revokes anything.
    ///
    /// It waits for a token request in flight, so that what that one brings is revoked too. A request made later gets a new
    /// token where the grant needs no person, and fails with [`SignInAgain`](TokenErrorKind::SignInAgain) otherwise. Call it
    /// when no more requests come, such as on signing out. Dropping the future leaves what was not revoked by then.
    ///
    /// Where there is a store, what it has is revoked too, and taken out. Other processes have their copies of the access
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
    /// let auth = AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle();
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
    pub async fn revoke(&self) -> Result<(), TokenError> {
        self.names_one_token()?;
        let endpoint = self.endpoint()?;
        let (held, asking) = self.held().await;
        let (refresh_token, token) = match &self.setup.store {
            Some(store) => store
                .stored(asking.clone())
                .await
                .map_err(|error| self.store_failed("the store cannot be read; nothing was revoked", error))?,
            None => (None, None),
        };
        // First what could bring more tokens; most servers let the access tokens die with it. Another process may have
        // renewed both.
        for refresh_token in different(refresh_token, held.refresh_token.clone()) {
            revoke(endpoint, refresh_token, Revoked::RefreshToken, asking.tenant.clone()).await?;
        }
        let cell = self.setup.table.cell(self.partition());
        cell.forget_refresh_token(&held);
        let of = |token: &Token| Secret::from(token.access_token());
        for token in different(token.as_ref().map(of), held.current.as_ref().map(|current| of(&current.token))) {
            revoke(endpoint, token, Revoked::AccessToken, asking.tenant.clone()).await?;
        }
        cell.forget(self.setup.table.env(), &held);
        self.forget_stored(asking)
            .await
            .map_err(|error| self.store_failed("all was revoked, but the store has it still", error))?;
        Ok(())
    }

    /// Signs out here, whether or not the server can revoke anything: forgets the token and its refresh token, and takes
    /// both out of the store.
    ///
    /// It waits for a token request in flight, so that what that one brings is forgotten too. Nothing is sent to the
    /// authorization server, where both tokens stay good until they expire: use [`revoke`](AuthHandle::revoke) where there is
    /// a revocation endpoint. A request made later gets a new token where the grant needs no person, and fails with
    /// [`SignInAgain`](TokenErrorKind::SignInAgain) otherwise. A refresh token that the configuration itself names is
    /// forgotten until the next start of the program. Other processes that share the store have their copies of the access
    /// token until it is due for renewal.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenErrorKind, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let auth = layer.handle();
    /// auth.set_token(Token::bearer("from-the-sign-in")?).await?;
    /// auth.forget().await?;
    /// assert_eq!(auth.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The store cannot be written: it has both tokens still, and this process has forgotten them. Call it again. Where each
    /// tenant has its own token, [`Refused`](TokenErrorKind::Refused) on a handle that is not narrowed by
    /// [`for_tenant`](AuthHandle::for_tenant).
    pub async fn forget(&self) -> Result<(), TokenError> {
        self.names_one_token()?;
        let (held, asking) = self.held().await;
        self.setup.table.cell(self.partition()).forget(self.setup.table.env(), &held);
        self.forget_stored(asking)
            .await
            .map_err(|error| self.store_failed("forgotten here, but the store has it still", error))?;
        Ok(())
    }

    /// What happened so far. On a narrowed handle that is one partition; nothing, if no token was ever asked for it or if it
    /// was evicted. Otherwise the counters are those of all partitions, those included that were evicted, and generation,
    /// expiry, failure and pause are those of the partition without tenant and scopes.
    ///
    /// It takes a short lock for each partition: cheap enough for a scrape, and not meant for each request.
    pub fn stats(&self) -> Stats {
        let table = &self.setup.table;
        if self.is_narrowed() {
            return self.existing_cell().map_or_else(Stats::default, |cell| Stats::of(&cell, table.env()));
        }
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

    /// Who gets no new token now: partitions whose last token request failed, those that have failed for the longest first, at
    /// most 100 of them. On a narrowed handle at most that one.
    ///
    /// One that has a token still is among them too: it fails when that expires. It leaves the list with its next token, or
    /// when it is dropped as [idle](crate::AuthConfigBuilder::partition_idle). As [`stats`](AuthHandle::stats) it takes a short
    /// lock for each partition.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenErrorKind, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// let auth = layer.handle();
    /// auth.token().await.unwrap_err();
    /// for failing in auth.failing() {
    ///     println!("tenant {:?} since {:?}: {}", failing.tenant, failing.since, failing.error);
    /// }
    /// # assert_eq!(auth.failing()[0].error.kind(), TokenErrorKind::SignInAgain);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn failing(&self) -> Vec<Failing> {
        let cells =
            if self.is_narrowed() { self.existing_cell().into_iter().collect() } else { self.setup.table.all_cells() };
        failing::of(cells, self.setup.table.env())
    }

    /// Waits until the token requests in flight have ended, of all partitions, and what they brought is in the store, so that
    /// a refresh token that was replaced is not lost with the process.
    ///
    /// Await it at the end of `main`, after the last request: a renewal in the background may have begun with a request that
    /// returned long ago. From then on no other begins in the background; a request that needs a token still asks for one.
    /// It ends within twice the deadline of a token request (30 s by default). Nothing else waits: dropping a layer or a
    /// handle never blocks.
    ///
    /// ```no_run
    /// # use tower_oauth2_client::AuthHandle;
    /// # async fn run(_: &AuthHandle) -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
    /// # async fn end_of_main(auth: AuthHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let result = run(&auth).await; // everything the program does
    /// auth.shutdown().await; // also after an error
    /// result
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        let table = &self.setup.table;
        table.env().close();
        join_all(table.all_cells().iter().map(|cell| cell.refresh_ended(table.env()))).await;
        if let Some(store) = &self.setup.store {
            // What is not stored by then is lost; the event that told of it has said so.
            let _ = tokio::time::timeout(table.env().policy.refresh_deadline, store.all_saved()).await;
        }
    }

    /// What this partition holds, once a token request in flight has ended, and a request to ask a store for it.
    async fn held(&self) -> (Revocable, TokenRequest) {
        let (table, partition) = (&self.setup.table, self.partition());
        let (cell, asking) = (table.cell(partition.clone()), table.env().asking_now(&partition));
        cell.refresh_ended(table.env()).await;
        (cell.revocable(), asking)
    }

    async fn forget_stored(&self, asking: TokenRequest) -> Result<(), StoreError> {
        match &self.setup.store {
            Some(store) => store.forget(asking).await,
            None => Ok(()),
        }
    }

    /// # Errors
    /// The layer's tokens come from a source of the user's.
    fn endpoint(&self) -> Result<&dyn Direct, TokenError> {
        self.setup.endpoint.as_deref().ok_or_else(|| {
            let detail = "this layer's tokens come from your own source";
            self.failed(TokenError::new(TokenErrorKind::Unsupported).with_detail(detail))
        })
    }

    fn can_be_proved(&self, token: &Token) -> Result<(), TokenError> {
        if !token.is_bound() || self.setup.can_prove() {
            return Ok(());
        }
        let mend = "the token is bound to a key (DPoP), and none is configured (`.dpop(..)`)";
        Err(self.failed(TokenError::new(TokenErrorKind::Refused).with_detail(mend)))
    }

    /// There is no default tenant: where each tenant has its own token, the handle must say which.
    pub(crate) fn names_one_token(&self) -> Result<(), TokenError> {
        match &self.setup.requests.tenant {
            Some(policy) if policy.tokens_need_tenant() && self.tenant.is_none() => {
                let mend = "each tenant has its own token here; name the tenant with `for_tenant`";
                Err(self.failed(TokenError::new(TokenErrorKind::Refused).with_detail(mend)))
            }
            _ => Ok(()),
        }
    }

    fn is_narrowed(&self) -> bool {
        self.tenant.is_some() || self.scopes.is_some()
    }

    fn partition(&self) -> Partition {
        let policy = self.setup.requests.tenant.as_ref();
        let tenant = self.tenant.as_ref().and_then(|tenant| policy?.partition_of(tenant));
        Partition { tenant, scopes: self.scopes.clone(), ..Partition::default() }
    }

    /// The tenant that token requests for this partition name, if they name one.
    pub(crate) fn tenant_of_token_requests(&self) -> Option<TenantId> {
        self.partition().tenant.or_else(|| self.setup.table.env().fixed_tenant.clone())
    }

    fn existing_cell(&self) -> Option<Arc<Cell>> {
        self.setup.table.existing_cell(&self.partition())
    }

    /// With the layer's name.
    fn failed(&self, error: TokenError) -> TokenError {
        self.setup.table.env().telemetry.named(error)
    }

    fn store_failed(&self, detail: &'static str, error: StoreError) -> TokenError {
        self.failed(TokenError::new(TokenErrorKind::SourceTransient).with_detail(detail).caused_by(error.into()))
    }
}

/// Both, or one where they are the same.
fn different(one: Option<Secret<String>>, other: Option<Secret<String>>) -> impl Iterator<Item = Secret<String>> {
    let is_same = matches!((&one, &other), (Some(one), Some(other)) if one.expose() == other.expose());
    one.into_iter().chain(other.filter(|_| !is_same))
}

/// Takes no lock, and tells no tenant.
impl fmt::Debug for AuthHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthHandle").field("tenant", &self.tenant).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}
