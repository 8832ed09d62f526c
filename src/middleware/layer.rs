//! `AuthLayer`: puts a token on each request of the service it wraps.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use tower_layer::Layer;

use super::builder::AuthLayerBuilder;
use super::service::Auth;
use crate::config::{AuthConfig, External};
use crate::endpoint::Direct;
use crate::engine::{EndpointLimits, Env, Limited, Table};
use crate::handle::AuthHandle;
use crate::request::{Recorded, Registry, ReplayVtable, clone_vtable, record_vtable};
use crate::setup::Setup;
use crate::store::{StoreAccess, StoreService};
use crate::token::{BoxTokenSource, DynTokenSource, TokenSource, erase};
use crate::types::{ConfigError, Secret};

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
/// The origin check sees the URL of each request that comes through this layer. An HTTP client inside that follows redirects
/// by itself goes where nothing checks: reqwest takes `Authorization` off on the way to another host, but not a tenant
/// header. Turn that off (`reqwest::Client::builder().redirect(reqwest::redirect::Policy::none())`), and follow redirects in
/// a layer outside.
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
    /// It cannot fail: what can be wrong was checked by [`AuthConfigBuilder::build`](crate::AuthConfigBuilder::build), and
    /// the HTTP client is made by the first token request. If it cannot be made then, as in an image without CA
    /// certificates, requests fail with [`NoHttpClient`](crate::TokenErrorKind::NoHttpClient).
    /// [`AuthLayer::builder(cfg).build()`](AuthLayerBuilder::build) makes it at once and tells.
    #[cfg(feature = "reqwest")]
    pub fn new(cfg: AuthConfig) -> Self {
        let client = cfg.built_in_client();
        AuthLayerBuilder::new(cfg).assemble(client)
    }

    /// Makes a layer with your own HTTP client, store or tower layers.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use std::time::Duration;
    /// use tower::timeout::TimeoutLayer;
    /// use tower_oauth2_client::store::MemoryStore;
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// let http_client = AuthServer::new(TestClock::new());
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let layer = AuthLayer::builder(cfg)
    ///     .http_client(http_client)
    ///     .store(MemoryStore::new())
    ///     .token_layer(TimeoutLayer::new(Duration::from_secs(3)))
    ///     .build()?;
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn builder(cfg: AuthConfig) -> AuthLayerBuilder {
        AuthLayerBuilder::new(cfg)
    }

    /// A layer whose tokens come from your own [`TokenSource`], or any `Service<TokenRequest, Response = Token>`.
    ///
    /// [`AuthConfig::external`] makes a configuration without a token URL for it. To keep its tokens in a store, put a
    /// [`StoreLayer`](crate::store::StoreLayer) around it.
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
    pub fn with_source(cfg: AuthConfig<External>, source: impl TokenSource) -> Self {
        let (limits, store) = (cfg.endpoint_limits(), store_of(&source).map(|stored| stored.store().clone()));
        Self::assemble(cfg, erase(within(&limits, source)), limits, None, None, store)
    }

    /// Bodies of your type `B` can be sent twice, because `B` can be cloned.
    ///
    /// A clone must be the same body, unread, and cheap: one is made for each request, rejected or not. It is not
    /// bounded by [`max_replay_bytes`](crate::AuthConfigBuilder::max_replay_bytes). Types that are known already (see
    /// [`can_replay`](AuthLayer::can_replay)) need no registration; registering them changes nothing.
    ///
    /// It affects services made by this layer from now on.
    #[must_use]
    pub fn replay_clone<B: Body + Clone + 'static>(mut self) -> Self {
        self.registry.insert(clone_vtable::<B>());
        self
    }

    /// Bodies of your type `B` can be sent twice where `try_clone` gives a clone; one for which it gives `None` is sent once.
    ///
    /// For types that hold a buffer or a stream, such as `kube`'s: `.replay_with(kube::client::Body::try_clone)`. It is asked
    /// once for each request, before the body is sent. As with [`replay_clone`](AuthLayer::replay_clone), a clone must be the
    /// same body, unread, and cheap, and it affects services made by this layer from now on.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
    ///
    /// type Upload = Either<Full<Bytes>, UnsyncBoxBody<Bytes, std::io::Error>>;
    ///
    /// fn try_clone(body: &Upload) -> Option<Upload> {
    ///     match body {
    ///         Either::Left(buffer) => Some(Either::Left(buffer.clone())),
    ///         Either::Right(_) => None,
    ///     }
    /// }
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    /// # let source = tower::service_fn(|_: TokenRequest| async { Token::bearer("x").map_err(TokenError::permanent) });
    /// # let layer = AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build()?, source);
    /// # assert!(!layer.can_replay::<Upload>());
    /// let layer = layer.replay_with(try_clone);
    /// assert!(layer.can_replay::<Upload>());
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    #[must_use]
    pub fn replay_with<B: Body + 'static>(mut self, try_clone: fn(&B) -> Option<B>) -> Self {
        self.registry.insert(ReplayVtable::TryClone(try_clone));
        self
    }

    /// Bodies of your type-erased type `B` can be sent twice: they are recorded while they are sent, and `erase` makes
    /// a `B` of a recording (`.replay_recorded(MyBody::new)`, see [`Recorded`]).
    ///
    /// Up to [`max_replay_bytes`](crate::AuthConfigBuilder::max_replay_bytes) of each body is recorded (64 KiB by
    /// default); longer ones are sent once. It affects services made by this layer from now on.
    #[must_use]
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

    /// # Errors
    /// There is a store, and nothing says whose the tokens in it are.
    pub(super) fn with_checked_store(self) -> Result<Self, ConfigError> {
        self.setup.store.as_ref().map_or(Ok(()), |store| store.check())?;
        Ok(self)
    }

    pub(super) fn assemble<E>(
        cfg: AuthConfig<E>,
        source: Arc<dyn DynTokenSource>,
        limits: Arc<EndpointLimits>,
        refresh_token: Option<Secret<String>>,
        endpoint: Option<Arc<dyn Direct>>,
        store: Option<Arc<dyn StoreAccess>>,
    ) -> Self {
        let env = Env::new(source, cfg.clock(), cfg.engine_policy(), cfg.fixed_token_tenant().cloned())
            .with_telemetry(cfg.telemetry());
        let table = Table::new(env, refresh_token);
        let setup = cfg.into_setup(table, limits, endpoint, store);
        Self { setup: Arc::new(setup), registry: Registry::default() }
    }
}

/// The store that was put around a source, if it is the outermost layer.
fn store_of(source: &dyn Any) -> Option<&StoreService> {
    source.downcast_ref().map_or(source, |boxed: &BoxTokenSource| boxed.source()).downcast_ref()
}

/// A source that is asked within these bounds: below a store, whose answers need no permit.
pub(super) fn within<T: TokenSource>(limits: &Arc<EndpointLimits>, source: T) -> Limited<T> {
    match store_of(&source) {
        Some(stored) if stored.limit(limits) => Limited::not_yet(source),
        _ => Limited::new(source, limits.clone()),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::token::{Token, TokenRequest};
    use crate::types::{TenantId, TokenError};

    /// With many tenants it would hold up requests, and inside of a lock it would never end.
    #[test]
    fn debug_of_layers_services_and_handles_locks_nothing() {
        let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
        let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
        let layer = AuthLayer::with_source(cfg, source);
        let handle = layer.handle().for_tenant(&TenantId::new("canary").unwrap());
        let service = layer.layer(());
        let (tell, told) = mpsc::channel();
        let text = layer.setup.table.clone().while_locked(|| {
            std::thread::spawn(move || tell.send(format!("{layer:?} {handle:?} {service:?}")));
            told.recv_timeout(Duration::from_secs(30)).expect("it waits for a lock")
        });
        assert!(text.contains("AuthLayer") && text.contains("AuthHandle") && !text.contains("canary"), "{text}");
    }
}
