//! `AuthLayer`: puts a token on each request of the service it wraps.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::service::Auth;
use crate::config::AuthConfig;
use crate::endpoint::{Direct, TokenEndpoint};
use crate::engine::{EndpointLimits, Env, Limited, Table};
use crate::handle::AuthHandle;
use crate::request::{Recorded, Registry, clone_vtable, record_vtable};
use crate::setup::Setup;
use crate::store::{StoreAccess, StoreLayer, TokenStore};
use crate::token::{DynTokenSource, Token, TokenRequest, TokenSource, erase};
use crate::types::{BoxError, TokenError, TokenErrorKind};

/// Puts an OAuth2 token and tenant header on each request of the service it wraps.
///
/// It keeps the token fresh, and answers a 401 by getting another token and sending the request once more. However many
/// requests wait, over all clones of the layer and of the services it made, the authorization server sees one token
/// request for each partition. Create one layer for each configuration and clone it: two layers share nothing.
///
/// Where it goes among other layers, from the outside in: tracing, total timeout, retries (of anything but 401),
/// `AuthLayer`, timeout of one attempt, concurrency limit, HTTP client. Layers outside see one request, layers inside
/// see each sending. A response cache belongs inside, or must key on the tenant.
///
/// The origin check sees the URL of each request that comes through here. A client inside that follows redirects by
/// itself goes on where nothing checks, with the tenant header at least: switch that off, as below, and follow
/// redirects outside.
///
/// An HTTP client that follows redirects by itself does so below this layer: reqwest then takes `Authorization` off on the
/// way to another host, but not a tenant header. Turn that off
/// (`reqwest::Client::builder().redirect(reqwest::redirect::Policy::none())`), or follow redirects in a layer outside.
///
/// ```no_run
/// # #[cfg(feature = "reqwest")] {
/// use tower::ServiceBuilder;
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/oauth2/token", ClientAuth::basic("id", "secret"))
///     .scopes(["read", "write"])
///     .origin("https://api.example.com")
///     .build()?;
/// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let client = ServiceBuilder::new().layer(AuthLayer::new(cfg)).service(http);
/// # Ok(()) }
/// # }
/// ```
#[derive(Clone)]
pub struct AuthLayer {
    setup: Arc<Setup>,
    registry: Registry,
}

impl AuthLayer {
    /// A layer whose token requests go through a built-in HTTP client: no redirects, no cookies, TLS by rustls.
    ///
    /// It cannot fail: what can be wrong was checked by [`build`](crate::AuthConfigBuilder::build). A configuration
    /// made by [`AuthConfig::external`] has no token endpoint: its requests fail, use
    /// [`with_source`](AuthLayer::with_source).
    #[cfg(feature = "reqwest")]
    pub fn new(cfg: AuthConfig) -> Self {
        match cfg.built_in_client() {
            Some(client) => Self::with_client(cfg, client),
            None => Self::without_endpoint(cfg),
        }
    }

    /// A layer whose token requests go through an HTTP service of yours: another TLS stack, a proxy, a mock.
    ///
    /// The service must not follow redirects, which would carry credentials elsewhere, and must not be wrapped in this
    /// layer. A configuration made by [`AuthConfig::external`] has no token endpoint: its requests fail.
    pub fn with_client<C, RB>(cfg: AuthConfig, client: C) -> Self
    where
        C: Service<http::Request<Full<Bytes>>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        RB: Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
    {
        Self::with_endpoint(cfg, client, |endpoint| endpoint)
    }

    /// As [`with_client`](AuthLayer::with_client), with tower layers of yours around the token endpoint.
    ///
    /// They see a `Service<TokenRequest, Response = Token>`: a timeout, a rate limit or a shared cache goes here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::ServiceBuilder;
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// let http_client = AuthServer::new(TestClock::new());
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let layer = AuthLayer::with_endpoint(cfg, http_client, |endpoint| {
    ///     ServiceBuilder::new().timeout(Duration::from_secs(3)).service(endpoint)
    /// });
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn with_endpoint<C, RB, T>(cfg: AuthConfig, client: C, wrap: impl FnOnce(TokenEndpoint<C>) -> T) -> Self
    where
        C: Service<http::Request<Full<Bytes>>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        RB: Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
        T: TokenSource,
    {
        let Some(endpoint) = endpoint(&cfg, client) else { return Self::without_endpoint(cfg) };
        let direct = Arc::new(endpoint.clone());
        let limits = cfg.endpoint_limits();
        let source = erase(Limited::new(wrap(endpoint), limits.clone()));
        Self::assemble(cfg, source, limits, Some(direct), None)
    }

    /// As [`new`](AuthLayer::new), with tokens kept in a store outside the process: they survive restarts, and all
    /// processes that share the store make one token request.
    ///
    /// Two layers share their tokens if their configurations agree in everything that makes one token differ from another
    /// (see [`StoreIdentity`](crate::store::StoreIdentity)). What a store promises and what its failures cost is told in
    /// the module [`store`](crate::store).
    ///
    /// ```no_run
    /// use tower_oauth2_client::store::FileStore;
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// let cfg = AuthConfig::refresh_token("https://auth.example.com/token", ClientAuth::none("my-tool"), "from-the-sign-in")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let layer = AuthLayer::with_store(cfg, FileStore::new("/home/anna/.cache/my-tool"));
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn with_store(cfg: AuthConfig, store: impl TokenStore) -> Self {
        match cfg.built_in_client() {
            Some(client) => Self::with_client_and_store(cfg, client, store),
            None => Self::without_endpoint(cfg),
        }
    }

    /// As [`with_client`](AuthLayer::with_client) and with a store. For a store with other settings, or with layers of yours
    /// below it, put a [`StoreLayer`] around the endpoint.
    pub fn with_client_and_store<C, RB>(cfg: AuthConfig, client: C, store: impl TokenStore) -> Self
    where
        C: Service<http::Request<Full<Bytes>>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        RB: Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
    {
        let Some(endpoint) = endpoint(&cfg, client) else { return Self::without_endpoint(cfg) };
        let store = StoreLayer::new(store, endpoint.identity());
        let limits = cfg.endpoint_limits();
        let source = erase(store.layer(Limited::new(endpoint.clone(), limits.clone())));
        Self::assemble(cfg, source, limits, Some(Arc::new(endpoint)), Some(Arc::new(store)))
    }

    /// A layer whose tokens come from a [`TokenSource`] of yours, or any `Service<TokenRequest, Response = Token>`.
    ///
    /// [`AuthConfig::external`] makes a configuration without a token URL for it.
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    ///
    /// let source = tower::service_fn(|_: TokenRequest| async {
    ///     Token::bearer("from-somewhere").map_err(TokenError::permanent)
    /// });
    /// let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
    /// let layer = AuthLayer::with_source(cfg, source);
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn with_source(cfg: AuthConfig, source: impl TokenSource) -> Self {
        let limits = cfg.endpoint_limits();
        Self::assemble(cfg, erase(Limited::new(source, limits.clone())), limits, None, None)
    }

    /// Bodies of your type `B` can be sent twice, because `B` can be cloned.
    ///
    /// A clone must be the same body, unread, and cheap: one is made for each request, rejected or not. It is not
    /// bounded by [`max_replay_bytes`](crate::AuthConfigBuilder::max_replay_bytes). Types that are known already (see
    /// [`can_replay`](AuthLayer::can_replay)) need no registration; registering them changes nothing.
    ///
    /// It affects services made by this layer from now on.
    pub fn replay_clone<B: Body + Clone + 'static>(mut self) -> Self {
        self.registry.insert(clone_vtable::<B>());
        self
    }

    /// Bodies of your type-erased type `B` can be sent twice: they are recorded while they are sent, and `erase` makes
    /// a `B` of a recording (`.replay_recorded(MyBody::new)`, see [`Recorded`]).
    ///
    /// Up to [`max_replay_bytes`](crate::AuthConfigBuilder::max_replay_bytes) of each body is recorded (64 KiB by
    /// default); longer ones are sent once. It affects services made by this layer from now on.
    pub fn replay_recorded<B>(mut self, erase: fn(Recorded<B>) -> B) -> Self
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        self.registry.insert(record_vtable(erase));
        self
    }

    /// Whether requests with bodies of type `B` can be sent twice.
    ///
    /// Known are `Full<Bytes>`, `Full<&'static [u8]>`, `Empty<Bytes>`, `String`, and the boxed bodies of
    /// `http-body-util` over `Bytes`; by feature the bodies of tonic, axum and reqwest. A test at start-up, rather than
    /// a warning in production.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    /// # let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("x").map_err(TokenError::permanent) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// assert!(layer.can_replay::<http_body_util::Full<bytes::Bytes>>());
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn can_replay<B>(&self) -> bool
    where
        B: Body + 'static,
        B::Error: Send,
    {
        self.registry.vtable_of::<B>().is_some()
    }

    /// The handle to the tokens of this layer and of all its clones and services.
    pub fn handle(&self) -> AuthHandle {
        AuthHandle::new(self.setup.clone())
    }

    /// `new` and `with_client` cannot fail, so the mistake is told where a token is needed.
    fn without_endpoint(cfg: AuthConfig) -> Self {
        struct Nowhere;

        impl TokenSource for Nowhere {
            async fn fetch(&self, _: TokenRequest) -> Result<Token, TokenError> {
                let mend = "this configuration has no token endpoint; use `AuthLayer::with_source`";
                Err(TokenError::new(TokenErrorKind::SourcePermanent).with_detail(mend))
            }
        }

        Self::with_source(cfg, Nowhere)
    }

    fn assemble(
        cfg: AuthConfig,
        source: Arc<dyn DynTokenSource>,
        limits: Arc<EndpointLimits>,
        endpoint: Option<Arc<dyn Direct>>,
        store: Option<Arc<dyn StoreAccess>>,
    ) -> Self {
        let env = Env::new(source, cfg.clock(), cfg.engine_policy(), cfg.fixed_token_tenant().cloned());
        let table = Table::new(env, cfg.initial_refresh_token());
        let setup = cfg.into_setup(table, limits, endpoint, store);
        Self { setup: Arc::new(setup), registry: Registry::default() }
    }
}

/// `None`: the configuration has no token endpoint.
fn endpoint<C, RB>(cfg: &AuthConfig, client: C) -> Option<TokenEndpoint<C>>
where
    C: Service<http::Request<Full<Bytes>>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    let (settings, credentials) = cfg.endpoint()?;
    let endpoint = TokenEndpoint::new(client, Arc::new(settings), credentials, cfg.clock());
    Some(endpoint.starting_with(cfg.initial_refresh_token()).with_assertions())
}

impl<S: Clone> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth::new(inner, self.setup.clone(), self.registry.clone())
    }
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer").finish_non_exhaustive()
    }
}
