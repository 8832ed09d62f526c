//! `AuthLayerBuilder`: a layer with an HTTP client, a store or tower layers of the user's.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;

use super::layer::{AuthLayer, within};
use crate::config::AuthConfig;
#[cfg(feature = "reqwest")]
use crate::endpoint::BuiltInClient;
use crate::endpoint::TokenEndpoint;
use crate::store::{StoreIdentity, StoreLayer, TokenStore};
use crate::token::{DynTokenSource, TokenSource, erase};
use crate::types::{BoxError, ConfigError};

/// Makes an [`AuthLayer`], from a configuration and what only some programs need: an HTTP client for token requests, a
/// store, tower layers around the token endpoint.
///
/// From the outside in: the store, the tower layers in the order in which they were added, the token endpoint, the HTTP
/// client. [`AuthLayer::builder`] has an example.
#[must_use = "a builder does nothing until `build()`"]
pub struct AuthLayerBuilder<C = DefaultClient, L = Identity, St = NoStore> {
    cfg: AuthConfig,
    client: C,
    token_layer: L,
    store: St,
}

/// The built-in HTTP client. You never name this type.
#[derive(Clone, Copy, Debug)]
pub struct DefaultClient(());

/// An HTTP client that was brought. You never name this type.
#[derive(Clone, Copy, Debug)]
pub struct OwnClient<C>(C);

/// No store. You never name this type.
#[derive(Clone, Copy, Debug)]
pub struct NoStore(());

/// A store. You never name this type.
#[derive(Clone, Copy, Debug)]
pub struct WithStore<F>(F);

impl AuthLayerBuilder {
    pub(super) fn new(cfg: AuthConfig) -> Self {
        Self { cfg, client: DefaultClient(()), token_layer: Identity::new(), store: NoStore(()) }
    }
}

impl<L, St> AuthLayerBuilder<DefaultClient, L, St> {
    /// Sends token requests through your own HTTP service: another TLS stack, a client certificate, a mock. A
    /// `reqwest::Client` goes into a `ReqwestClient` first.
    ///
    /// The service must not follow redirects, which would carry credentials elsewhere, and must not be wrapped in an
    /// `AuthLayer` of its own. It is cloned for each token request.
    pub fn http_client<C>(self, client: C) -> AuthLayerBuilder<OwnClient<C>, L, St> {
        let Self { cfg, token_layer, store, .. } = self;
        AuthLayerBuilder { cfg, client: OwnClient(client), token_layer, store }
    }
}

impl<C, L, St> AuthLayerBuilder<C, L, St> {
    /// Puts your own tower layer around the token endpoint. The first one added is the outermost, as with tower's
    /// `ServiceBuilder`.
    ///
    /// It sees a `Service<TokenRequest, Response = Token>`, once for each token request that the store has no answer for: a
    /// timeout, a concurrency limit or metrics go here. A sign-in's exchange and revocations do not pass it.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower::util::MapRequestLayer;
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, TokenRequest};
    ///
    /// # let http_client = AuthServer::new(TestClock::new());
    /// # let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    /// #     .origin("https://api.example.com")
    /// #     .build()?;
    /// let layer = AuthLayer::builder(cfg)
    ///     .http_client(http_client)
    ///     .token_layer(MapRequestLayer::new(|request: TokenRequest| {
    ///         println!("a token request");
    ///         request
    ///     }))
    ///     .build()?;
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn token_layer<T>(self, layer: T) -> AuthLayerBuilder<C, Stack<T, L>, St> {
        let Self { cfg, client, token_layer, store } = self;
        AuthLayerBuilder { cfg, client, token_layer: Stack::new(layer, token_layer), store }
    }
}

impl<C, L> AuthLayerBuilder<C, L, NoStore> {
    /// Keeps tokens in a store outside the process: they survive restarts, and all processes that share the store make one
    /// token request.
    ///
    /// Two layers share their tokens if their configurations agree in everything that makes one token differ from another
    /// (see [`StoreIdentity`]). What a store promises and what its failures cost is told in the module
    /// [`store`](crate::store).
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_oauth2_client::store::FileStore;
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// let cfg = AuthConfig::refresh_token("https://auth.example.com/token", ClientAuth::none("my-tool"), "from-the-sign-in")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let layer = AuthLayer::builder(cfg).store(FileStore::new("/home/anna/.cache/my-tool")).build()?;
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn store<T: TokenStore>(
        self,
        store: T,
    ) -> AuthLayerBuilder<C, L, WithStore<impl FnOnce(StoreIdentity) -> StoreLayer<T>>> {
        self.store_with(move |identity| StoreLayer::new(store, identity))
    }

    /// The same for a store with other settings, or with a further name in its [`StoreIdentity`].
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use std::time::Duration;
    /// use tower_oauth2_client::store::{MemoryStore, StoreLayer};
    /// # use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # let http_client = AuthServer::new(TestClock::new());
    /// # let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    /// #     .origin("https://api.example.com")
    /// #     .build()?;
    /// let store = MemoryStore::new();
    /// let layer = AuthLayer::builder(cfg)
    ///     .http_client(http_client)
    ///     .store_with(|identity| StoreLayer::new(store, identity.and("anna")).timeout(Duration::from_millis(200)))
    ///     .build()?;
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn store_with<T, F>(self, layer: F) -> AuthLayerBuilder<C, L, WithStore<F>>
    where
        T: TokenStore,
        F: FnOnce(StoreIdentity) -> StoreLayer<T>,
    {
        let Self { cfg, client, token_layer, .. } = self;
        AuthLayerBuilder { cfg, client, token_layer, store: WithStore(layer) }
    }
}

/// Without your own HTTP client: the built-in one.
#[cfg(feature = "reqwest")]
impl<L, St> AuthLayerBuilder<DefaultClient, L, St>
where
    L: Layer<TokenEndpoint<BuiltInClient>>,
    L::Service: TokenSource,
    St: StoreChoice,
{
    /// Makes the layer, and the HTTP client with it: it reads the system's certificates, once in a process.
    ///
    /// # Errors
    /// The HTTP client cannot be made, as in an image without CA certificates. There is a store, and nothing says whose the
    /// tokens in it are (see [`account`](crate::AuthConfigBuilder::account)).
    pub fn build(self) -> Result<AuthLayer, ConfigError> {
        let client = self.cfg.built_in_client();
        client.prepare()?;
        self.assemble(client).with_checked_store()
    }
}

/// With your own HTTP client.
impl<C, RB, L, St> AuthLayerBuilder<OwnClient<C>, L, St>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
    L: Layer<TokenEndpoint<C>>,
    L::Service: TokenSource,
    St: StoreChoice,
{
    /// Makes the layer.
    ///
    /// # Errors
    /// The configuration sets what only the built-in client obeys: a proxy, root certificates, the connect timeout. There is a
    /// store, and nothing says whose the tokens in it are (see [`account`](crate::AuthConfigBuilder::account)).
    pub fn build(self) -> Result<AuthLayer, ConfigError> {
        self.cfg.check_own_client()?;
        let Self { cfg, client: OwnClient(client), token_layer, store } = self;
        AuthLayerBuilder { cfg, client: (), token_layer, store }.assemble(client).with_checked_store()
    }
}

impl<X, L, St> AuthLayerBuilder<X, L, St> {
    pub(super) fn assemble<C, RB>(self, client: C) -> AuthLayer
    where
        C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        RB: Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
        L: Layer<TokenEndpoint<C>>,
        L::Service: TokenSource,
        St: StoreChoice,
    {
        let endpoint = TokenEndpoint::of_config(&self.cfg, client);
        let limits = self.cfg.endpoint_limits();
        let limited = within(&limits, self.token_layer.layer(endpoint.clone()));
        let source = self.store.around(limited, endpoint.identity());
        let source = endpoint.in_directory(source, &limits);
        // Wherever it is: a store in one of the token layers is found too.
        let store = endpoint.store();
        let refresh_token = self.cfg.initial_refresh_token();
        AuthLayer::assemble(self.cfg, source, limits, refresh_token, Some(Arc::new(endpoint)), store)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A store or none; sealed.
pub trait StoreChoice: sealed::Sealed {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "nobody else implements or calls it")]
    fn around(self, source: impl TokenSource, identity: StoreIdentity) -> Arc<dyn DynTokenSource>;
}

impl sealed::Sealed for NoStore {}

impl StoreChoice for NoStore {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn around(self, source: impl TokenSource, _: StoreIdentity) -> Arc<dyn DynTokenSource> {
        erase(source)
    }
}

impl<F> sealed::Sealed for WithStore<F> {}

impl<T: TokenStore, F: FnOnce(StoreIdentity) -> StoreLayer<T>> StoreChoice for WithStore<F> {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn around(self, source: impl TokenSource, identity: StoreIdentity) -> Arc<dyn DynTokenSource> {
        erase((self.0)(identity).layer(source))
    }
}

impl<C, L, St> fmt::Debug for AuthLayerBuilder<C, L, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayerBuilder").field("cfg", &self.cfg).finish_non_exhaustive()
    }
}
