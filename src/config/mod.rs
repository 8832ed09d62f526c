//! `AuthConfig` and its builder: assembles the settings, each of which lives in the room that obeys it.

pub mod presets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

#[cfg(feature = "dpop")]
use crate::dpop::{DpopKey, Prover};
use crate::endpoint::{
    AuthorizationCode, BodyEncoding, ClientAuth, Credentials, Direct, EndpointSettings, Grant, IdentityAssertion,
    OnBehalfOf, Param, TokenAt, TokenExchange, TokenUrl,
};
#[cfg(feature = "reqwest")]
use crate::endpoint::{BuiltInClient, BuiltInClientSettings};
use crate::engine::{EndpointLimits, EnginePolicy, Table};
#[cfg(feature = "reqwest")]
use crate::request::is_loopback;
use crate::request::{
    ExistingAuthorization, Foreign, Injection, OriginPolicy, ReplayPolicy, RequestPolicy, SubjectPolicy, Tenant,
    TenantPolicy, own_header_name, parse_endpoint_url,
};
#[cfg(feature = "dpop")]
use crate::request::{Origin, ProofOrigin};
use crate::response::{Forbidden, RejectionPolicy};
use crate::setup::Setup;
use crate::store::StoreAccess;
use crate::token::{Backoff, ExpirySource, UnknownExpiry};
use crate::types::{Clock, ConfigError, Replay, Scopes, Secret, SecretSource, SystemClock, TenantId};

/// A configuration that has been checked: what [`AuthLayer`](crate::AuthLayer) is made of.
///
/// Start with the grant ([`client_credentials`](AuthConfig::client_credentials),
/// [`refresh_token`](AuthConfig::refresh_token), [`authorization_code`](AuthConfig::authorization_code),
/// [`device`](AuthConfig::device), [`jwt_bearer`](AuthConfig::jwt_bearer),
/// [`token_exchange`](AuthConfig::token_exchange)), with [`external`](AuthConfig::external) or one of the
/// [`providers`](crate::providers), and end with
/// [`build`](AuthConfigBuilder::build). Two configurations are equal when they behave alike; secrets are not compared.
#[derive(Clone, PartialEq)]
pub struct AuthConfig {
    endpoint: Option<Endpoint>,
    engine: EnginePolicy,
    refresh_token: Option<Hidden<Secret<String>>>,
    origins: OriginPolicy,
    tenant: Option<TenantPolicy>,
    injection: Injection,
    replay: ReplayPolicy,
    rejection: RejectionPolicy,
    #[cfg(feature = "dpop")]
    binding: Option<Binding>,
    clock: Hidden<Arc<dyn Clock>>,
}

/// The key that tokens are bound to, and where requests go that do not say.
#[cfg(feature = "dpop")]
#[derive(Clone, PartialEq)]
struct Binding {
    key: DpopKey,
    assumed: Option<Origin>,
}

#[derive(Clone)]
struct Endpoint {
    settings: EndpointSettings,
    client_auth: ClientAuth,
    #[cfg(feature = "reqwest")]
    client: BuiltInClient,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.client_auth.is_like(&other.client_auth)
    }
}

/// Takes no part in comparisons: a secret, or a thing that cannot be compared.
#[derive(Clone)]
struct Hidden<T>(T);

impl<T> PartialEq for Hidden<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
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
    /// let token = AuthLayer::with_client(cfg, http_client.clone()).handle().token().await?;
    /// assert!(http_client.is_live(token.access_token()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn client_credentials(token_url: impl Into<TokenUrl>, client_auth: ClientAuth) -> AuthConfigBuilder {
        AuthConfigBuilder::new(Some(Grant::ClientCredentials), token_url.into(), Some(client_auth))
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
    /// let auth = AuthLayer::with_client(cfg, http_client.clone()).handle();
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
        AuthConfigBuilder {
            refresh_token: Some(refresh_token.into()),
            ..AuthConfigBuilder::new(Some(Grant::RefreshToken), token_url.into(), Some(client_auth))
        }
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
    /// let layer = AuthLayer::with_client(cfg, server.clone());
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
        AuthConfigBuilder::new(Some(Grant::AuthorizationCode(code)), token_url.into(), Some(client_auth))
    }

    /// Tokens for an assertion that somebody else has made (RFC 7523 §2.1): a JWT that names whom the token is for.
    ///
    /// The assertion is read for each token request, so give it as a file or a function where it expires, as it should.
    /// Where it says everything, the client need not name itself: [`ClientAuth::anonymous`].
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth, Secret, SecretSource};
    ///
    /// /// Signs claims such as `iss`, `sub`, `aud` and `exp` with the key of a service account.
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
    /// AuthLayer::with_client(cfg, http_client.clone()).handle().warm_up().await?;
    /// assert!(http_client.requests()[0].param("assertion").is_some());
    /// # Ok::<(), BoxError>(()) }).unwrap();
    /// # }
    /// ```
    pub fn jwt_bearer(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        assertion: impl Into<SecretSource>,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::new(Some(Grant::JwtBearer(assertion.into())), token_url.into(), Some(client_auth))
    }

    /// Tokens for another token (RFC 8693): on behalf of somebody, or for another audience. An example is at
    /// [`TokenExchange`].
    pub fn token_exchange(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        exchange: TokenExchange,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::new(Some(Grant::TokenExchange(exchange)), token_url.into(), Some(client_auth))
    }

    /// Tokens on behalf of each request's user, for gateways: the request brings the user's token
    /// ([`TokenParams`](crate::TokenParams) in its extensions, with a [`SubjectToken`](crate::SubjectToken)), which is exchanged
    /// for one that the API takes (RFC 8693, or Entra's on-behalf-of flow).
    ///
    /// Each user has a token of their own for each audience and set of scopes, which lives no longer than the token that it
    /// was had for. A request without a subject token is [`Error::Subject`](crate::Error::Subject); with any other grant one
    /// that has one is. Set [`max_partitions`](AuthConfigBuilder::max_partitions) to the number of users at a time. An example
    /// is at [`OnBehalfOf`].
    pub fn on_behalf_of(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        on_behalf_of: OnBehalfOf,
    ) -> AuthConfigBuilder {
        AuthConfigBuilder::new(Some(Grant::OnBehalfOf(on_behalf_of)), token_url.into(), Some(client_auth))
    }

    /// Tokens for an assertion of another authorization server's, such as an identity provider's (RFC 8693 and RFC 7523 one
    /// after the other). An example is at [`IdentityAssertion`].
    pub fn identity_assertion(
        token_url: impl Into<TokenUrl>,
        client_auth: ClientAuth,
        assertion: IdentityAssertion,
    ) -> AuthConfigBuilder {
        // Its place is kept by a grant that the builder knows before anything was parsed.
        let builder = AuthConfigBuilder::new(Some(Grant::ClientCredentials), token_url.into(), Some(client_auth));
        AuthConfigBuilder { identity_assertion: Some(assertion), ..builder }
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
    /// let auth = AuthLayer::with_client(cfg, http_client).handle();
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
        AuthConfigBuilder::new(Some(Grant::Device), token_url.into(), Some(client_auth))
    }

    /// Tokens from a source of yours, for [`AuthLayer::with_source`](crate::AuthLayer::with_source). Settings of the token
    /// endpoint are errors here, since nothing would obey them.
    ///
    /// The source is a [`TokenSource`](crate::TokenSource), a [`StaticToken`](crate::StaticToken), or an async function:
    ///
    /// ```
    /// use tower::service_fn;
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};
    ///
    /// async fn own_grant(request: TokenRequest) -> Result<Token, TokenError> {
    ///     let token = std::env::var("API_TOKEN").unwrap_or("a-token".into()); // ask whomever you like
    ///     Token::bearer(&token).map_err(TokenError::permanent)
    /// }
    ///
    /// # tokio_test::block_on(async {
    /// let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
    /// let layer = AuthLayer::with_source(cfg, service_fn(own_grant));
    /// layer.handle().warm_up().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn external() -> AuthConfigBuilder {
        AuthConfigBuilder::new(None, "".into(), None)
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.0.clone()
    }

    pub(crate) fn engine_policy(&self) -> EnginePolicy {
        self.engine.clone()
    }

    pub(crate) fn endpoint_limits(&self) -> Arc<EndpointLimits> {
        Arc::new(EndpointLimits::new(self.engine_policy(), self.clock()))
    }

    pub(crate) fn initial_refresh_token(&self) -> Option<Secret<String>> {
        self.refresh_token.as_ref().map(|token| token.0.clone())
    }

    pub(crate) fn fixed_token_tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()?.fixed_token_tenant()
    }

    /// The token endpoint's settings and the client's credentials; `None` for an external configuration.
    pub(crate) fn endpoint(&self) -> Option<(EndpointSettings, Credentials)> {
        let endpoint = self.endpoint.as_ref()?;
        Some((endpoint.settings.clone(), Credentials::new(endpoint.client_auth.clone())))
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn built_in_client(&self) -> Option<BuiltInClient> {
        self.endpoint.as_ref().map(|endpoint| endpoint.client.clone())
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
                subject: match &self.endpoint {
                    Some(endpoint) if endpoint.settings.grant.needs_subject() => SubjectPolicy::Required,
                    Some(_) => SubjectPolicy::Unused,
                    None => SubjectPolicy::Optional,
                },
                tenant: self.tenant,
                injection: self.injection,
                replay: self.replay,
                #[cfg(feature = "dpop")]
                proof_origin: self.binding.map(|binding| ProofOrigin { assumed: binding.assumed }),
            },
            rejection: self.rejection,
            endpoint,
            store,
        }
    }
}

/// Shows policies and the host of the token URL; no secret, tenant, URL path or parameter.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("endpoint", &self.endpoint.as_ref().map(|endpoint| &endpoint.settings))
            .field("engine", &self.engine)
            .field("origins", &self.origins)
            .field("tenant", &self.tenant)
            .field("replay", &self.replay)
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}

/// Collects settings; [`build`](AuthConfigBuilder::build) checks them all at once.
///
/// No setter fails, so that a chain reads as one sentence. Where nothing is set, the default stands with its reason at
/// the setter.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build()`"]
pub struct AuthConfigBuilder {
    grant: Option<Grant>,
    /// Takes the grant's place once it has been checked.
    identity_assertion: Option<IdentityAssertion>,
    /// The sign-in of a grant without one was to be changed.
    no_sign_in_to_change: bool,
    token_url: TokenUrl,
    client_auth: Option<ClientAuth>,
    refresh_url: Option<String>,
    revocation_url: Option<String>,
    device_url: Option<String>,
    refresh_token: Option<Secret<String>>,
    scopes: Vec<String>,
    resources: Vec<String>,
    audiences: Vec<String>,
    assertion_audience: Option<String>,
    params: Vec<(String, Secret<String>)>,
    token_headers: Vec<(String, Secret<String>)>,
    /// Changes to the endpoint's settings, made once the URL has been parsed.
    endpoint_edits: Vec<fn(&mut EndpointSettings)>,
    token_types: Vec<String>,
    answer_fields: Vec<(String, String)>,
    dead_refresh_codes: Vec<String>,
    token_timeout: Option<Duration>,
    max_token_answer: Option<usize>,
    #[cfg(feature = "reqwest")]
    client: BuiltInClientSettings,
    engine: EnginePolicy,
    origins: Vec<String>,
    foreign: Foreign,
    allow_http: bool,
    tenant: Option<Tenant>,
    existing: ExistingAuthorization,
    set_if_absent: Vec<(String, String)>,
    replay: ReplayPolicy,
    rejection: RejectionPolicy,
    #[cfg(feature = "dpop")]
    dpop: Option<DpopKey>,
    #[cfg(feature = "dpop")]
    dpop_origin: Option<String>,
    clock: Arc<dyn Clock>,
}

/// The token endpoint.
impl AuthConfigBuilder {
    /// Where refresh tokens go, if not to the token URL (RFC 6749 §6). If that place does not exist (404, 405, 410),
    /// the primary grant is used and the refresh token kept.
    pub fn refresh_url(mut self, url: impl Into<String>) -> Self {
        self.refresh_url = Some(url.into());
        self
    }

    /// Where tokens are revoked (RFC 7009), for [`AuthHandle::revoke`](crate::AuthHandle::revoke). Nowhere by default.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// Where a sign-in on another device begins (RFC 8628 §3.1), for
    /// [`AuthHandle::sign_in_on_device`](crate::AuthHandle::sign_in_on_device). Nowhere by default.
    pub fn device_authorization_url(mut self, url: impl Into<String>) -> Self {
        self.device_url = Some(url.into());
        self
    }

    /// The scopes to ask for (RFC 6749 §3.3); each call adds to the former. None by default: the server decides.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Repeats the scopes when refreshing. Off by default: leaving them out means "as before" (RFC 6749 §6), but some
    /// servers (Entra) then grant others.
    pub fn send_scopes_on_refresh(mut self) -> Self {
        self.endpoint_edits.push(|settings| settings.send_scopes_on_refresh = true);
        self
    }

    /// A token with fewer scopes than asked for is an error. Off by default: many servers do not say what they granted.
    pub fn require_granted_scopes(mut self) -> Self {
        self.endpoint_edits.push(|settings| settings.require_granted = true);
        self
    }

    /// What the token is for (RFC 8707 §2): an absolute URI without a fragment. Repeatable. None by default: the server
    /// decides. Two resources that need tokens of their own are two configurations, which share nothing.
    ///
    /// ```
    /// # use tower_oauth2_client::{AuthConfig, ClientAuth};
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .resource("https://api.example.com/orders")
    ///     .resource("https://api.example.com/stock")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self
    }

    /// For whom the token is, by a name that the server knows (RFC 8693 §2.1; Auth0 and others with every grant).
    /// Repeatable. None by default.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// For whom assertions of the client are (`aud`, RFC 7523 §3), where it authenticates by them: the issuer identifier of
    /// the authorization server.
    ///
    /// Default: the issuer where it is known ([`Discovery`](crate::Discovery)), the token URL otherwise. Say the issuer
    /// wherever you know it: an assertion that is addressed to a URL can be played to another server by whoever made you use
    /// that URL, and newer servers take nothing but the issuer.
    pub fn assertion_audience(mut self, audience: impl Into<String>) -> Self {
        self.assertion_audience = Some(audience.into());
        self
    }

    /// A further parameter of the token request. Repeatable; treated as a secret.
    ///
    /// The name of one that is sent anyway (`grant_type`, `client_secret`, `refresh_token`, `scope`) is an error: a
    /// parameter may be sent once only (RFC 6749 §3.2).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret<String>>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// A further header of the token request, such as an API key; treated as a secret. Headers that HTTP or this crate
    /// gives their value (`Authorization`, `Host`, `Connection`, …) are errors.
    pub fn token_header(mut self, name: impl Into<String>, value: impl Into<Secret<String>>) -> Self {
        self.token_headers.push((name.into(), value.into()));
        self
    }

    /// Changes where and how a person signs in, as with a preset. An error with any other grant.
    ///
    /// ```
    /// use tower_oauth2_client::providers;
    ///
    /// let redirect_uri = "https://app.example.com/callback";
    /// let cfg = providers::spry_authorization_code("clinic.example.com", redirect_uri, "id", "secret")
    ///     .change_sign_in(|code| code.without_pkce().param("prompt", "login"))
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn change_sign_in(mut self, change: impl FnOnce(AuthorizationCode) -> AuthorizationCode) -> Self {
        match self.grant {
            Some(Grant::AuthorizationCode(code)) => self.grant = Some(Grant::AuthorizationCode(change(code))),
            _ => self.no_sign_in_to_change = true,
        }
        self
    }

    /// How the parameters of the token request are encoded; a form by default (RFC 6749 §4.4.2).
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, BodyEncoding, ClientAuth};
    ///
    /// # tokio_test::block_on(async {
    /// let http_client = AuthServer::vip(TestClock::new());
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/oauth/token", ClientAuth::body("id", "secret"))
    ///     .encoding(BodyEncoding::Json)
    ///     .without_grant_type()
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// AuthLayer::with_client(cfg, http_client.clone()).handle().warm_up().await?;
    /// assert_eq!(http_client.requests()[0].body, r#"{"client_id":"id","client_secret":"secret"}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn encoding(mut self, encoding: BodyEncoding) -> Self {
        self.endpoint_edits.push(match encoding {
            BodyEncoding::Form => |settings| settings.encoding = BodyEncoding::Form,
            BodyEncoding::Json => |settings| settings.encoding = BodyEncoding::Json,
        });
        self
    }

    /// Leaves `grant_type` out of the primary grant's request, for servers that have but one.
    pub fn without_grant_type(mut self) -> Self {
        self.endpoint_edits.push(|settings| settings.send_grant_type = false);
        self
    }

    /// A value of `token_type` that means `Bearer`. Any other unknown value is an error (RFC 6749 §7.1).
    pub fn token_type_alias(mut self, token_type: impl Into<String>) -> Self {
        self.token_types.push(token_type.into());
        self
    }

    /// An answer without `token_type` is an error. Off by default: several servers leave it out and mean `Bearer`.
    pub fn require_token_type(mut self) -> Self {
        self.endpoint_edits.push(|settings| settings.answer.require_token_type = true);
        self
    }

    /// The server's name for a member of the answer: `.answer_field("accessToken", "access_token")`. Repeatable.
    pub fn answer_field(mut self, theirs: impl Into<String>, standard: impl Into<String>) -> Self {
        self.answer_fields.push((theirs.into(), standard.into()));
        self
    }

    /// An error code that, in answer to a refresh, means: this refresh token is dead. `invalid_grant` always does.
    pub fn dead_refresh_token_code(mut self, code: impl Into<String>) -> Self {
        self.dead_refresh_codes.push(code.into());
        self
    }

    /// For one exchange with the token endpoint, from sending to the last byte. Default: 10 s, so that a refresh and a
    /// fallback to the primary grant both fit into [`refresh_deadline`](AuthConfigBuilder::refresh_deadline).
    pub fn token_timeout(mut self, timeout: Duration) -> Self {
        self.token_timeout = Some(timeout);
        self
    }

    /// The longest answer of the token endpoint read, in bytes; a longer one is
    /// [`Malformed`](crate::TokenErrorKind::Malformed). Default: 256 KiB, several times the longest token taken (64
    /// KiB); at most 1 MiB.
    pub fn max_token_answer(mut self, bytes: usize) -> Self {
        self.max_token_answer = Some(bytes);
        self
    }

    /// A proxy for the built-in token client, such as `http://proxy.internal:3128`; user and password may be in it.
    /// Default: as the environment says (`HTTPS_PROXY`, `NO_PROXY`);
    /// none if an endpoint is on this machine.
    #[cfg(feature = "reqwest")]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.client.proxy = Some(Secret::new(url.into()));
        self
    }

    /// Further root certificates, in PEM, that the built-in token client trusts beside the system's. Repeatable.
    #[cfg(feature = "reqwest")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client.ca_pem.push(pem.into());
        self
    }

    /// How long the built-in token client takes to connect, TLS included. Default: 5 s.
    #[cfg(feature = "reqwest")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.client.connect_timeout = timeout;
        self
    }
}

/// When tokens are renewed.
impl AuthConfigBuilder {
    /// Where the end of a token's life is read from, in this order; the first usable source wins.
    /// Default: `expires_in` (RFC 6749 §5.1), then absolute members, then `exp` inside a JWT (RFC 7519 §4.1.4).
    pub fn expiry(mut self, sources: impl IntoIterator<Item = ExpirySource>) -> Self {
        self.engine.lifetime.sources = sources.into_iter().collect();
        self
    }

    /// What to make of a token whose end no source tells. Default: it lives for an hour, neither instantly dead nor
    /// eternal.
    pub fn unknown_expiry(mut self, unknown: UnknownExpiry) -> Self {
        self.engine.lifetime.unknown = unknown;
        self
    }

    /// Renew in the background at this fraction of a token's life. Default: 0.8, minus up to 5 % drawn once per token,
    /// so that processes do not renew in step; a process's first token is renewed anywhere between 35 % and this, so
    /// that processes that started together part at once. In (0, 1].
    pub fn refresh_at(mut self, fraction: f64) -> Self {
        self.engine.lifetime.fraction = fraction;
        self
    }

    /// Renew at expiry and not before: for servers that hand out the same token until then.
    pub fn refresh_at_expiry(mut self) -> Self {
        self.engine.lifetime.at_expiry = true;
        self
    }

    /// How long before expiry requests wait for a new token instead of going out with the old one, if it has not been
    /// renewed by then. Default: 30 s, and at most a tenth of the token's life.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.engine.lifetime.margin = margin;
        self
    }

    /// Never use a token that has expired on arrival. Off by default: it then means that a clock is wrong, and the
    /// token is used and renewed soon.
    pub fn discard_expired(mut self) -> Self {
        self.engine.lifetime.strict = true;
        self
    }

    /// How long one token request may take in all, a fallback to another grant included. Default: 30 s, which two
    /// exchanges of 10 s fit into. It bounds your own [`TokenSource`](crate::TokenSource) too.
    pub fn refresh_deadline(mut self, deadline: Duration) -> Self {
        self.engine.refresh_deadline = deadline;
        self
    }

    /// The first and the longest pause after a failure that may pass; doubled each time, and drawn between zero and
    /// that. Default: 0.5 s and 60 s; never less than 0.1 s. A `Retry-After` of the server counts instead.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.engine.backoff = Backoff { first, longest, ..self.engine.backoff };
        self
    }

    /// The first and the longest pause after a failure that will not pass by itself, such as a wrong secret.
    /// Default: 30 s and 10 min. [`AuthHandle::invalidate`](crate::AuthHandle::invalidate) ends it.
    pub fn permanent_failure_pause(mut self, first: Duration, longest: Duration) -> Self {
        self.engine.permanent_pause = Backoff { first, longest, ..self.engine.permanent_pause };
        self
    }

    /// The longest `Retry-After` (RFC 9110 §10.2.3) of the token endpoint obeyed. Default: 5 min: a server that says
    /// "tomorrow" by mistake would otherwise be believed.
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.engine.retry_after_cap = cap;
        self
    }

    /// How many requests may wait for a token while there is none; those beyond fail with
    /// [`Overloaded`](crate::TokenErrorKind::Overloaded). No limit by default: a limit belongs in front of the client.
    pub fn max_waiters(mut self, max: usize) -> Self {
        self.engine.max_waiters = Some(max);
        self
    }

    /// How many token requests there may be at a time for each token endpoint. Default: 64, which is more than a server
    /// answers well and far fewer than the tenants of a gateway that starts; zero is an error.
    ///
    /// Further ones wait, first come, first served, no longer than [`token_timeout`](Self::token_timeout) each, then they
    /// fail with [`Overloaded`](crate::TokenErrorKind::Overloaded). Partitions whose last token request timed out share one
    /// permit in four, so that tenants that hang leave the rest to the others. A source of yours counts as one endpoint.
    ///
    /// Token requests are held back too while the endpoint is down: after failures of three different tenants (or sets of
    /// scopes) with no success between, all requests without a token get the last of these errors, and one token request
    /// at a time finds out whether it is back, after the [`backoff`](Self::backoff). The same goes for credentials that are
    /// refused.
    pub fn max_concurrent_token_requests(mut self, max: usize) -> Self {
        self.engine.max_concurrent_token_requests = max;
        self
    }

    /// How many partitions (tenants with tokens of their own, sets of scopes) are kept. Default: 1024, which is half a
    /// megabyte and the tokens; zero is an error.
    ///
    /// Over it, each new partition takes the place of one that has gone unused for long: that one's next request fetches a
    /// token anew. Never dropped is one whose token request is under way, that a request or response in hand belongs to,
    /// or that holds a refresh token kept nowhere else. Where nearly all are such, there are more than `max` for a while.
    /// A remembered failure goes with its partition; so tenants that never had a token, which may be invented, are refused
    /// one at most `max` times in a minute, all of them together, and then fail with
    /// [`Overloaded`](crate::TokenErrorKind::Overloaded).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_oauth2_client::{AuthConfig, Tenant};
    /// let cfg = AuthConfig::external()
    ///     .origin("https://api.example.com")
    ///     .tenant(Tenant::header("x-account").per_tenant_tokens())
    ///     .max_partitions(1_000_000)
    ///     .partition_idle(Duration::from_secs(600))
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    #[doc(alias = "max_tenants")]
    pub fn max_partitions(mut self, max: usize) -> Self {
        self.engine.max_partitions = max;
        self
    }

    /// For how long a partition is kept that nobody uses. Default: an hour, after which most tokens have expired, so that
    /// nothing is lost with it; less than a second is an error.
    ///
    /// Those over their time go a few at a time, with each new partition and once a second while there are requests: a
    /// million within some minutes. The exceptions are those of [`max_partitions`](Self::max_partitions).
    #[doc(alias = "tenant_idle")]
    pub fn partition_idle(mut self, idle: Duration) -> Self {
        self.engine.partition_idle = idle;
        self
    }

    /// Another clock, for tests. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

/// Requests and responses.
impl AuthConfigBuilder {
    /// Allows tokens to go to this origin (`https://host[:port]`, RFC 6454); each call adds one, and at least one is
    /// needed. There is no default: deriving it from the token URL would either block everything or leak. Compared are
    /// scheme, host and port, in full: subdomains are origins of their own.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Requests to other origins are refused by default; this passes them on, with neither token nor tenant header.
    pub fn foreign_origins(mut self, foreign: Foreign) -> Self {
        self.foreign = foreign;
        self
    }

    /// Allows http without TLS to hosts other than this machine, for the token URL and the origins. Everybody on the
    /// way can read tokens and secrets then; for private networks only.
    pub fn danger_allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Where a request's tenant comes from and where it goes. None by default, and a [`TenantId`] in a request is then
    /// ignored.
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// A header that each request gets unless it has it already, such as `Accept`. Repeatable; the last value for a
    /// name counts.
    pub fn set_if_absent(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set_if_absent.push((name.into(), value.into()));
        self
    }

    /// What happens to an `Authorization` header that a request brings. Default: it is replaced.
    pub fn existing_authorization(mut self, existing: ExistingAuthorization) -> Self {
        self.existing = existing;
        self
    }

    /// Which requests are sent again after a rejection. Default: every one whose body can be sent twice.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay.replay = replay;
        self
    }

    /// How much of a streaming body is recorded for a second sending, in bytes. Default: 64 KiB. Bodies that can be
    /// cloned share their bytes and are not limited.
    pub fn max_replay_bytes(mut self, bytes: usize) -> Self {
        self.replay.cap = bytes;
        self
    }

    /// What a 403 means (RFC 9110 §15.5.4). Default: nothing that a new token could mend.
    pub fn forbidden(mut self, forbidden: Forbidden) -> Self {
        self.rejection.forbidden = forbidden;
        self
    }

    /// A further status that is treated like a 401, such as 419 or 440 of some APIs. Repeatable. Successes and 407
    /// never are.
    pub fn also_rejected(mut self, status: StatusCode) -> Self {
        self.rejection.also.push(status);
        self
    }

    /// Does not look at `grpc-status` in response headers. It is looked at by default, which costs one look-up.
    pub fn ignore_grpc_status(mut self) -> Self {
        self.rejection.grpc = false;
        self
    }

    /// Ignores 401 and gRPC's `UNAUTHENTICATED`: tokens are renewed by time only.
    pub fn ignore_unauthorized(mut self) -> Self {
        self.rejection.on_unauthorized = false;
        self
    }
}

/// Tokens that are bound to a key.
#[cfg(feature = "dpop")]
impl AuthConfigBuilder {
    /// Binds tokens to this key (DPoP, RFC 9449): the token request proves it, and so does each request with a token of
    /// the type `DPoP`. Off by default: few servers know it.
    ///
    /// A server that does not know it answers `Bearer`. Such a token is used as it is, unbound (RFC 9449 §5); see
    /// [`require_dpop`](AuthConfigBuilder::require_dpop).
    ///
    /// Servers may want a nonce of theirs in the proof (RFC 9449 §8, §9). It is remembered for each origin; a request that
    /// a server refuses for want of it is sent once more, with the same token, provided that it can be sent twice. That
    /// spends no resend: together with a rejected token a request may be sent three times.
    ///
    /// A runnable example is at [`DpopKey`].
    pub fn dpop(mut self, key: DpopKey) -> Self {
        self.dpop = Some(key);
        self
    }

    /// A token that the server did not bind to the key is an error. Off by default. Set it where a stolen token must be of
    /// no use: anybody between us and a server that answers `Bearer` could have taken the proof off the token request.
    pub fn require_dpop(mut self) -> Self {
        self.endpoint_edits.push(|settings| settings.answer.require_dpop = true);
        self
    }

    /// Which of several origins requests go to whose URI names no host (tonic, a bare hyper connection): a proof must say
    /// (`htu`, RFC 9449 §4.2). With one [`origin`](AuthConfigBuilder::origin) it is that one; with several such a request
    /// is [`Error::Origin`](crate::Error::Origin) until this is set. It must be one of them.
    pub fn dpop_origin(mut self, origin: impl Into<String>) -> Self {
        self.dpop_origin = Some(origin.into());
        self
    }
}

impl AuthConfigBuilder {
    fn new(grant: Option<Grant>, token_url: TokenUrl, client_auth: Option<ClientAuth>) -> Self {
        Self {
            grant,
            identity_assertion: None,
            no_sign_in_to_change: false,
            token_url,
            client_auth,
            refresh_url: None,
            revocation_url: None,
            device_url: None,
            refresh_token: None,
            scopes: Vec::new(),
            resources: Vec::new(),
            audiences: Vec::new(),
            assertion_audience: None,
            params: Vec::new(),
            token_headers: Vec::new(),
            endpoint_edits: Vec::new(),
            token_types: Vec::new(),
            answer_fields: Vec::new(),
            dead_refresh_codes: Vec::new(),
            token_timeout: None,
            max_token_answer: None,
            #[cfg(feature = "reqwest")]
            client: BuiltInClientSettings::default(),
            engine: EnginePolicy::default(),
            origins: Vec::new(),
            foreign: Foreign::default(),
            allow_http: false,
            tenant: None,
            existing: ExistingAuthorization::default(),
            set_if_absent: Vec::new(),
            replay: ReplayPolicy::default(),
            rejection: RejectionPolicy::default(),
            #[cfg(feature = "dpop")]
            dpop: None,
            #[cfg(feature = "dpop")]
            dpop_origin: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Checks everything, without I/O.
    ///
    /// # Errors
    /// The first thing that is wrong, and how to mend it. No secret is quoted.
    pub fn build(self) -> Result<AuthConfig, ConfigError> {
        let tenant = self.tenant.clone().map(Tenant::build).transpose()?;
        if self.origins.is_empty() {
            return Err(ConfigError::new(
                "no origin may receive tokens",
                "name the API's with `.origin(\"https://api.example.com\")`",
            ));
        }
        let origins = OriginPolicy::build(&self.origins, self.foreign, self.allow_http)?;
        let mut injection = Injection::new(self.existing);
        for (name, value) in &self.set_if_absent {
            injection.set_if_absent(name, value)?;
        }
        let endpoint = self.endpoint(tenant.as_ref())?;
        let mut engine = self.engine.clone();
        if let Some(endpoint) = &endpoint {
            engine.permit_timeout = endpoint.settings.timeout;
        }
        engine.validate()?;
        Ok(AuthConfig {
            #[cfg(feature = "dpop")]
            binding: self.binding(&origins)?,
            endpoint,
            engine,
            refresh_token: self.refresh_token.map(Hidden),
            origins,
            tenant,
            injection,
            replay: self.replay,
            rejection: self.rejection,
            clock: Hidden(self.clock),
        })
    }

    #[cfg(feature = "dpop")]
    fn binding(&self, origins: &OriginPolicy) -> Result<Option<Binding>, ConfigError> {
        let assumed = self.dpop_origin.as_ref().map(|origin| origins.listed(origin)).transpose()?;
        match &self.dpop {
            Some(key) => Ok(Some(Binding { key: key.clone(), assumed })),
            None if assumed.is_some() => Err(ConfigError::new(
                "there is an origin for proofs, and no key to prove",
                "set it with `.dpop(..)`, or leave `dpop_origin` out",
            )),
            None => Ok(None),
        }
    }

    fn endpoint(&self, tenant: Option<&TenantPolicy>) -> Result<Option<Endpoint>, ConfigError> {
        let (Some(grant), Some(client_auth)) = (&self.grant, &self.client_auth) else {
            return if self.has_endpoint_settings() {
                Err(ConfigError::new(
                    "an external configuration has settings of a token endpoint",
                    "leave them out, or start from `AuthConfig::client_credentials`",
                ))
            } else {
                Ok(None)
            };
        };
        self.check_sign_in(grant, client_auth)?;
        let mut settings = EndpointSettings::new(self.token_url.parse(self.allow_http)?, grant.clone());
        if let Some(assertion) = &self.identity_assertion {
            settings.grant = Grant::IdentityAssertion(Arc::new(assertion.build(self.allow_http)?));
        }
        let parse = |url: &Option<String>| url.as_ref().map(|url| parse_endpoint_url(url, self.allow_http)).transpose();
        settings.refresh_url = parse(&self.refresh_url)?;
        settings.revocation_url = parse(&self.revocation_url)?;
        settings.device_url = parse(&self.device_url)?;
        let is_configured = matches!(settings.url, TokenAt::Url(_));
        if *grant == Grant::Device && is_configured && settings.device_url.is_none() {
            return Err(ConfigError::new(
                "there is no place to ask for the codes that a person signs in with",
                "name it with `.device_authorization_url(..)`",
            ));
        }
        if !self.scopes.is_empty() {
            settings.scopes = Some(Scopes::new(&self.scopes)?);
        }
        settings.resources.clone_from(&self.resources);
        settings.audiences.clone_from(&self.audiences);
        settings.assertion_audience.clone_from(&self.assertion_audience);
        for (name, value) in &self.params {
            settings.params.push(Param { name: name.clone(), value: value.clone() });
        }
        for (name, value) in &self.token_headers {
            settings.headers.push(token_header(name, value)?);
        }
        settings.tenant_header = tenant.and_then(TenantPolicy::token_header).cloned();
        settings.tenant_param = tenant.and_then(TenantPolicy::token_param).map(str::to_owned);
        settings.answer.token_types.clone_from(&self.token_types);
        settings.answer.fields.clone_from(&self.answer_fields);
        settings.dead_refresh_codes.clone_from(&self.dead_refresh_codes);
        settings.timeout = self.token_timeout.unwrap_or(settings.timeout);
        settings.max_body = self.max_token_answer.unwrap_or(settings.max_body);
        #[cfg(feature = "dpop")]
        settings.dpop.clone_from(&self.dpop);
        self.endpoint_edits.iter().for_each(|edit| edit(&mut settings));
        settings.validate()?;
        client_auth.validate()?;
        if let Some(token) = &self.refresh_token
            && token.expose().trim().len() != token.expose().len()
        {
            return Err(ConfigError::new(
                "the refresh token begins or ends with white space",
                "trim it; a line break at the end often comes from a file",
            ));
        }
        #[cfg(feature = "reqwest")]
        let is_local = [&settings.refresh_url, &settings.revocation_url, &settings.device_url]
            .into_iter()
            .flatten()
            .chain([settings.url.uri()])
            .any(is_loopback);
        Ok(Some(Endpoint {
            settings,
            client_auth: client_auth.clone(),
            #[cfg(feature = "reqwest")]
            client: self.client.build(is_local)?,
        }))
    }

    fn check_sign_in(&self, grant: &Grant, client_auth: &ClientAuth) -> Result<(), ConfigError> {
        let Grant::AuthorizationCode(code) = grant else {
            return if self.no_sign_in_to_change {
                Err(ConfigError::new(
                    "there is no sign-in to change: the grant is another",
                    "leave `change_sign_in` out, or start from `AuthConfig::authorization_code`",
                ))
            } else {
                Ok(())
            };
        };
        if client_auth.client_id().is_none() {
            return Err(ConfigError::new(
                "a person cannot sign in for a client without an id",
                "name the client, for example with `ClientAuth::none(id)` if it has no secret",
            ));
        }
        code.browser_urls().try_for_each(|url| parse_endpoint_url(url, self.allow_http).map(drop))
    }

    fn has_endpoint_settings(&self) -> bool {
        self.refresh_url.is_some()
            || self.revocation_url.is_some()
            || self.device_url.is_some()
            || self.no_sign_in_to_change
            || !self.scopes.is_empty()
            || !self.resources.is_empty()
            || !self.audiences.is_empty()
            || self.assertion_audience.is_some()
            || !self.params.is_empty()
            || !self.token_headers.is_empty()
            || !self.endpoint_edits.is_empty()
            || !self.token_types.is_empty()
            || !self.answer_fields.is_empty()
            || !self.dead_refresh_codes.is_empty()
            || self.token_timeout.is_some()
            || self.max_token_answer.is_some()
            || self.has_client_settings()
    }

    #[cfg(feature = "reqwest")]
    fn has_client_settings(&self) -> bool {
        self.client.is_changed()
    }

    #[cfg(not(feature = "reqwest"))]
    fn has_client_settings(&self) -> bool {
        false
    }
}

fn token_header(name: &str, value: &Secret<String>) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let name = own_header_name(name, "the header of the token request")?;
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
        ConfigError::new(
            format!("the value of the token request's header {name} cannot be a header value"),
            "remove line breaks and control characters",
        )
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl fmt::Debug for AuthConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfigBuilder").finish_non_exhaustive()
    }
}
