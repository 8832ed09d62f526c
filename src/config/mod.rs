//! `AuthConfig`: a checked configuration. It collects settings, each of which lives in the module that obeys it.

mod builder;
pub mod presets;
#[cfg(feature = "serde")]
mod settings;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

#[cfg(feature = "dpop")]
use crate::dpop::{DpopKey, Prover};
#[cfg(feature = "reqwest")]
use crate::endpoint::BuiltInClient;
use crate::endpoint::{
    AuthorizationCode, ClientAuth, Credentials, Direct, Directory, EndpointSettings, Grant, GrantAssertion,
    IdentityAssertion, OnBehalfOf, TokenEndpoint, TokenExchange, TokenUrl,
};
use crate::engine::{EndpointLimits, EnginePolicy, Table};
use crate::request::{Injection, OriginPolicy, ReplayPolicy, RequestPolicy, SubjectPolicy, TenantPolicy};
#[cfg(feature = "dpop")]
use crate::request::{Origin, ProofOrigin};
use crate::response::{HeldResponses, RejectionPolicy};
use crate::setup::Setup;
use crate::store::StoreAccess;
use crate::telemetry::Telemetry;
use crate::types::{BoxError, Clock, ConfigError, Secret, TenantId};

pub use builder::AuthConfigBuilder;
#[cfg(feature = "serde")]
pub use settings::{AuthSettings, NamedSettings};

/// A configuration that has been checked: what [`AuthLayer`](crate::AuthLayer) is made of.
///
/// Start with the grant ([`client_credentials`](AuthConfig::client_credentials),
/// [`refresh_token`](AuthConfig::refresh_token), [`authorization_code`](AuthConfig::authorization_code),
/// [`device`](AuthConfig::device), [`jwt_bearer`](AuthConfig::jwt_bearer),
/// [`token_exchange`](AuthConfig::token_exchange)), with [`external`](AuthConfig::external) or one of the
/// [`providers`](crate::providers), and end with [`build`](AuthConfigBuilder::build).
///
/// The type parameter says where tokens come from. `AuthConfig`, without one, is a configuration with a token endpoint, for
/// [`AuthLayer::new`](crate::AuthLayer::new) and [`AuthLayer::builder`](crate::AuthLayer::builder).
/// `AuthConfig<External>` is for [`AuthLayer::with_source`](crate::AuthLayer::with_source).
#[derive(Clone)]
pub struct AuthConfig<E = EndpointConfig> {
    endpoint: E,
    engine: EnginePolicy,
    origins: OriginPolicy,
    subject: SubjectPolicy,
    tenant: Option<TenantPolicy>,
    injection: Injection,
    replay: ReplayPolicy,
    rejection: RejectionPolicy,
    #[cfg(feature = "dpop")]
    binding: Option<Binding>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
}

/// The token endpoint's part of a configuration. You never name this type: it is what `AuthConfig` stands for without a
/// type parameter.
#[derive(Clone)]
pub struct EndpointConfig {
    settings: EndpointSettings,
    client_auth: ClientAuth,
    refresh_token: Option<Secret<String>>,
    #[cfg(feature = "reqwest")]
    client: BuiltInClient,
    /// Something was set that only the built-in client obeys.
    #[cfg(feature = "reqwest")]
    client_is_changed: bool,
}

impl EndpointConfig {
    /// Of the token URL or the issuer; `None` where each tenant has its own.
    fn host(&self) -> Option<String> {
        let url = self.settings.url.uri();
        url.host().filter(|_| self.settings.directory.is_none()).map(str::to_owned)
    }
}

/// The type parameter of a configuration without a token endpoint: tokens come from your own source.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, ConfigError, External};
///
/// fn config() -> Result<AuthConfig<External>, ConfigError> {
///     AuthConfig::external().origin("https://api.example.com").build()
/// }
/// # config().map(drop).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct External;

/// The key that tokens are bound to, and where requests go that do not say.
#[cfg(feature = "dpop")]
#[derive(Clone)]
struct Binding {
    key: DpopKey,
    assumed: Option<Origin>,
}

impl AuthConfig {
    /// Tokens for the client itself (RFC 6749 §4.4), from this token URL.
    ///
    /// How the client authenticates has no default: a wrong guess would show the secret in a second form.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # tokio_test::block_on(async {
    /// let http_client = AuthServer::new(TestClock::new()).client("id", "secret");
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .scopes(["read"])
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let token = AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle().token().await?;
    /// assert!(http_client.is_live(token.access_token()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn client_credentials(token_url: impl Into<TokenUrl>, client_auth: ClientAuth) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::ClientCredentials, token_url.into(), client_auth)
    }

    /// Tokens on behalf of somebody who has signed in already (RFC 6749 §6).
    ///
    /// The refresh token is kept in memory, and replaced when the server rotates it. When it dies, requests fail with
    /// [`TokenErrorKind::SignInAgain`](crate::TokenErrorKind::SignInAgain).
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, TokenErrorKind};
    ///
    /// # tokio_test::block_on(async {
    /// let http_client = AuthServer::new(TestClock::new());
    /// let refresh_token = http_client.sign_in("id", "read"); // happened elsewhere
    /// let cfg =
    ///     AuthConfig::refresh_token("https://auth.example.com/token", ClientAuth::basic("id", "secret"), refresh_token)
    ///         .origin("https://api.example.com")
    ///         .build()?;
    /// let auth = AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle();
    /// auth.token().await?;
    ///
    /// http_client.revoke_refresh_tokens();
    /// auth.invalidate();
    /// assert_eq!(auth.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn refresh_token(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        refresh_token: impl Into<Secret<String>>,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::RefreshToken, token_url.into(), client_auth)
            .starting_with(refresh_token.into())
    }

    /// Tokens on behalf of somebody who signs in with their browser (RFC 6749 §4.1, with PKCE, RFC 7636):
    /// [`AuthHandle::sign_in`](crate::AuthHandle::sign_in) begins it.
    ///
    /// Until then requests fail with [`TokenErrorKind::SignInAgain`](crate::TokenErrorKind::SignInAgain), at once and
    /// without a token request; afterwards the token is renewed as long as the server gives refresh tokens.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower::{Layer, ServiceExt};
    /// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, AuthorizationCode, ClientAuth, SignInErrorKind};
    ///
    /// # tokio_test::block_on(async {
    /// let server = AuthServer::new(TestClock::new()).client("id", "secret");
    /// let cfg = AuthConfig::authorization_code(
    ///     "https://auth.example.com/token",
    ///     ClientAuth::basic("id", "secret"),
    ///     AuthorizationCode::new("https://auth.example.com/authorize", "http://127.0.0.1:8976/callback"),
    /// )
    /// .scopes(["read"])
    /// .origin("https://api.example.com")
    /// .clock(server.clock().clone())
    /// .build()?;
    /// let layer = AuthLayer::builder(cfg).http_client(server.clone()).build()?;
    /// let client = layer.layer(Api::new(&server));
    ///
    /// let sign_in = layer.handle().sign_in()?;
    /// println!("please open {}", sign_in.url());
    /// // The person agrees, and the server sends their browser back to the redirect URI.
    /// let redirect = server.browse(sign_in.url()).unwrap();
    /// sign_in.finish(&redirect).await?;
    ///
    /// let get = http::Request::get("https://api.example.com/items").body(String::new())?;
    /// assert_eq!(client.oneshot(get).await?.status(), 200);
    ///
    /// // Somebody sends a link with a code of their own: nothing is sent to the server.
    /// let forged = layer.handle().sign_in()?.finish(&redirect).await.unwrap_err();
    /// assert_eq!(forged.kind(), SignInErrorKind::WrongState);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn authorization_code(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        code: AuthorizationCode,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::AuthorizationCode(code), token_url.into(), client_auth)
    }

    /// Tokens for an assertion (RFC 7523 §2.1): a JWT that names whom the token is for.
    ///
    /// One that is signed here is a `JwtAssertion` (feature `jwt`), made anew for each token request. One that somebody else
    /// has made is read for each token request, so give it as a file or a function where it expires, as it should.
    /// Where it says everything, the client need not name itself: [`ClientAuth::anonymous`].
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth, Secret, SecretSource};
    ///
    /// /// Signed elsewhere.
    /// async fn assertion() -> Result<Secret, BoxError> {
    ///     Ok(Secret::from("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.e30.c2ln"))
    /// }
    ///
    /// # tokio_test::block_on(async {
    /// let cfg = AuthConfig::jwt_bearer(
    ///     "https://auth.example.com/token",
    ///     ClientAuth::anonymous(),
    ///     SecretSource::provider(assertion),
    /// )
    /// .scopes(["read"])
    /// .origin("https://api.example.com")
    /// .build()?;
    /// let http_client = AuthServer::new(TestClock::new());
    /// AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle().warm_up().await?;
    /// assert!(http_client.requests()[0].param("assertion").is_some());
    /// # Ok::<(), BoxError>(()) }).unwrap();
    /// # }
    /// ```
    pub fn jwt_bearer(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        assertion: impl Into<GrantAssertion>,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::JwtBearer(assertion.into()), token_url.into(), client_auth)
    }

    /// Tokens for another token (RFC 8693): on behalf of somebody, or for another audience. An example is at
    /// [`TokenExchange`].
    pub fn token_exchange(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        exchange: TokenExchange,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::TokenExchange(exchange), token_url.into(), client_auth)
    }

    /// Tokens on behalf of each request's user, for gateways: the request brings the user's token
    /// ([`TokenParams`](crate::TokenParams) in its extensions, with a [`SubjectToken`](crate::SubjectToken)), which is exchanged
    /// for one that the API takes (RFC 8693, or Entra's on-behalf-of flow).
    ///
    /// Each user has a token of their own for each audience and set of scopes. It lives no longer than the token that it was
    /// exchanged for. A request without a subject token fails with [`Error::Subject`](crate::Error::Subject); with any other
    /// grant, a request that has one does. Set [`max_partitions`](AuthConfigBuilder::max_partitions) to the number of users at
    /// a time. An example is at [`OnBehalfOf`].
    pub fn on_behalf_of(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        on_behalf_of: OnBehalfOf,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::OnBehalfOf(on_behalf_of), token_url.into(), client_auth)
    }

    /// Tokens for the client itself (RFC 6749 §4.4), from an authorization server of each tenant's own, with credentials and
    /// scopes of its own. Further settings of the endpoint hold for all of them. An example is at [`Directory`].
    ///
    /// It needs a [`tenant`](AuthConfigBuilder::tenant) with tokens of its own in each request. There is no token before
    /// there is a tenant, and neither sign-in nor revocation. No [store](crate::store) keeps these tokens.
    pub fn per_tenant(directory: Directory) -> AuthConfigBuilder {
        // Never asked: the directory says where.
        let nowhere = "https://directory.invalid/token";
        AuthConfigBuilder::for_endpoint(Grant::ClientCredentials, nowhere.into(), ClientAuth::anonymous())
            .with_directory(directory)
    }

    /// Tokens for an assertion of another authorization server's, such as an identity provider's (RFC 8693 and RFC 7523 one
    /// after the other). An example is at [`IdentityAssertion`].
    pub fn identity_assertion(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        assertion: IdentityAssertion,
    ) -> AuthConfigBuilder {
        // Its place is kept by a grant that the builder knows before anything was parsed.
        AuthConfigBuilder::for_endpoint(Grant::ClientCredentials, token_url.into(), client_auth)
            .with_identity_assertion(assertion)
    }

    /// Tokens on behalf of somebody who signs in on another device (RFC 8628), for programs without a browser:
    /// [`AuthHandle::sign_in_on_device`](crate::AuthHandle::sign_in_on_device) begins it, at the
    /// [`device_authorization_url`](AuthConfigBuilder::device_authorization_url).
    ///
    /// Until then requests fail with [`TokenErrorKind::SignInAgain`](crate::TokenErrorKind::SignInAgain), at once and
    /// without a token request; afterwards the token is renewed as long as the server gives refresh tokens.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # tokio_test::block_on(async { tokio::time::pause();
    /// # let server = AuthServer::new(TestClock::new());
    /// # let http_client = server.clone();
    /// let cfg = AuthConfig::device("https://auth.example.com/token", ClientAuth::none("tv"))
    ///     .device_authorization_url("https://auth.example.com/device_authorization")
    ///     .scopes(["read"])
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let auth = AuthLayer::builder(cfg).http_client(http_client).build()?.handle();
    ///
    /// let sign_in = auth.sign_in_on_device().await?;
    /// println!("please open {} and enter {}", sign_in.verification_uri(), sign_in.user_code());
    /// # server.approve_device(sign_in.user_code());
    /// sign_in.wait().await?; // until the person has agreed
    /// auth.token().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn device(token_url: impl Into<TokenUrl>, client_auth: ClientAuth) -> AuthConfigBuilder {
        AuthConfigBuilder::for_endpoint(Grant::Device, token_url.into(), client_auth)
    }
}

impl AuthConfig<External> {
    /// Tokens from your own source, for [`AuthLayer::with_source`](crate::AuthLayer::with_source). The builder has no
    /// settings of a token endpoint (URLs, scopes, parameters, the HTTP client), since nothing would obey them.
    ///
    /// The source is a [`TokenSource`](crate::TokenSource), a [`StaticToken`](crate::StaticToken), or an async function:
    ///
    /// ```
    /// use tower::service_fn;
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    ///
    /// async fn own_grant(request: TokenRequest) -> Result<Token, TokenError> {
    ///     let token = std::env::var("API_TOKEN").unwrap_or("a-token".into()); // ask any service
    ///     Token::bearer(&token).map_err(TokenError::permanent)
    /// }
    ///
    /// # tokio_test::block_on(async {
    /// let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
    /// let layer = AuthLayer::with_source(cfg, service_fn(own_grant));
    /// layer.handle().warm_up().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn external() -> AuthConfigBuilder<External> {
        AuthConfigBuilder::new(External)
    }
}

impl<C, RB> TokenEndpoint<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    /// The token endpoint of a configuration, over this HTTP service.
    ///
    /// The service must not follow redirects, which would carry credentials elsewhere. What a configuration says about requests
    /// and renewal concerns a layer, and has no effect here.
    ///
    /// # Errors
    /// The configuration sets what only the built-in HTTP client obeys: a proxy, root certificates, the connect timeout. Or it
    /// has a [`Directory`] of tenants, which only a layer looks into.
    pub fn new(cfg: &AuthConfig, client: C) -> Result<Self, ConfigError> {
        cfg.check_own_client()?;
        if cfg.endpoint.settings.directory.is_some() {
            return Err(ConfigError::new(
                "each tenant has an authority of its own, so that there is no one token endpoint",
                "use `AuthLayer::builder(cfg)`, or make a configuration for each tenant",
            ));
        }
        Ok(Self::of_config(cfg, client))
    }

    pub(crate) fn of_config(cfg: &AuthConfig, client: C) -> Self {
        let EndpointConfig { settings, client_auth, .. } = &cfg.endpoint;
        let credentials = Credentials::new(client_auth.clone());
        Self::from_parts(client, Arc::new(settings.clone()), credentials, cfg.clock(), cfg.telemetry())
            .starting_with(cfg.initial_refresh_token())
            .with_assertions(&cfg.engine)
    }
}

impl AuthConfig {
    pub(crate) fn initial_refresh_token(&self) -> Option<Secret<String>> {
        self.endpoint.refresh_token.clone()
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn built_in_client(&self) -> BuiltInClient {
        self.endpoint.client.clone()
    }

    /// For a layer whose HTTP client is the user's.
    ///
    /// # Errors
    /// A setting of the built-in client, which nothing would obey.
    pub(crate) fn check_own_client(&self) -> Result<(), ConfigError> {
        #[cfg(feature = "reqwest")]
        if self.endpoint.client_is_changed {
            return Err(ConfigError::new(
                "proxy, root certificates and connect timeout are the built-in client's, and this layer has another",
                "leave them out and set them on the HTTP client that you bring",
            ));
        }
        Ok(())
    }
}

impl<E> AuthConfig<E> {
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub(crate) fn telemetry(&self) -> Telemetry {
        self.telemetry.clone()
    }

    pub(crate) fn engine_policy(&self) -> EnginePolicy {
        self.engine.clone()
    }

    pub(crate) fn endpoint_limits(&self) -> Arc<EndpointLimits> {
        Arc::new(EndpointLimits::new(self.engine_policy(), self.clock()))
    }

    pub(crate) fn fixed_token_tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()?.fixed_token_tenant()
    }

    pub(crate) fn into_setup(
        self,
        table: Arc<Table>,
        limits: Arc<EndpointLimits>,
        endpoint: Option<Arc<dyn Direct>>,
        store: Option<Arc<dyn StoreAccess>>,
    ) -> Setup {
        Setup {
            table,
            limits,
            #[cfg(feature = "dpop")]
            prover: self.binding.as_ref().map(|binding| Prover::new(binding.key.clone())),
            requests: RequestPolicy {
                origins: self.origins,
                subject: self.subject,
                tenant: self.tenant,
                injection: self.injection,
                replay: self.replay,
                #[cfg(feature = "dpop")]
                proof_origin: self.binding.map(|binding| ProofOrigin { assumed: binding.assumed }),
            },
            rejection: self.rejection,
            held: HeldResponses::default(),
            endpoint,
            store,
        }
    }
}

/// Shows policies and the host of the token URL; no secret, tenant, URL path or parameter.
impl<E: fmt::Debug> fmt::Debug for AuthConfig<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("name", &self.telemetry.name())
            .field("endpoint", &self.endpoint)
            .field("engine", &self.engine)
            .field("origins", &self.origins)
            .field("tenant", &self.tenant)
            .field("replay", &self.replay)
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
