//! Settings of the token endpoint, and of the HTTP client for token requests.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderName, HeaderValue};

use super::AuthConfigBuilder;
use crate::config::EndpointConfig;
#[cfg(feature = "reqwest")]
use crate::endpoint::BuiltInClientSettings;
use crate::endpoint::{
    AuthorizationCode, BodyEncoding, ClientAuth, Directory, DirectorySettings, EndpointSettings, Grant,
    IdentityAssertion, Param, TokenAt, TokenUrl,
};
#[cfg(feature = "reqwest")]
use crate::request::is_loopback;
use crate::request::{TenantPolicy, own_header_name, parse_endpoint_url};
use crate::types::{ConfigError, Scopes, Secret};

/// The token endpoint's part of a builder. You never name this type: it is what `AuthConfigBuilder` stands for without a
/// type parameter.
#[derive(Clone)]
pub struct EndpointDraft {
    /// What needs no parsing; [`build`](AuthConfigBuilder::build) adds the rest.
    settings: EndpointSettings,
    /// Takes the grant's place once it has been checked.
    identity_assertion: Option<IdentityAssertion>,
    token_url: TokenUrl,
    client_auth: ClientAuth,
    refresh_url: Option<String>,
    revocation_url: Option<String>,
    device_url: Option<String>,
    refresh_token: Option<Secret<String>>,
    scopes: Vec<String>,
    token_headers: Vec<(String, Secret<String>)>,
    /// The sign-in of a grant without one was to be edited.
    no_code_to_edit: bool,
    /// The token URL or the client was named where a directory says both.
    named_beside_directory: bool,
    #[cfg(feature = "reqwest")]
    client: BuiltInClientSettings,
}

/// The token endpoint.
impl AuthConfigBuilder {
    /// Where refresh tokens go, if not to the token URL (RFC 6749 §6). If that place does not exist (404, 405, 410),
    /// the primary grant is used and the refresh token kept.
    pub fn refresh_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint.refresh_url = Some(url.into());
        self
    }

    /// Where tokens are revoked (RFC 7009), for [`AuthHandle::revoke`](crate::AuthHandle::revoke). Nowhere by default.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint.revocation_url = Some(url.into());
        self
    }

    /// Where a sign-in on another device begins (RFC 8628 §3.1), for
    /// [`AuthHandle::sign_in_on_device`](crate::AuthHandle::sign_in_on_device). Nowhere by default.
    pub fn device_authorization_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint.device_url = Some(url.into());
        self
    }

    /// The token endpoint, in place of the one named at the beginning, such as a test system's for a preset's.
    pub fn token_url(mut self, url: impl Into<TokenUrl>) -> Self {
        self.endpoint.token_url = url.into();
        self.endpoint.named_beside_directory |= self.endpoint.settings.directory.is_some();
        self
    }

    /// How the client authenticates, in place of what was said at the beginning.
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.endpoint.client_auth = client_auth;
        self.endpoint.named_beside_directory |= self.endpoint.settings.directory.is_some();
        self
    }

    /// The scopes to ask for (RFC 6749 §3.3), in place of those named so far, a preset's among them. None by default: the
    /// server decides.
    ///
    /// ```
    /// use tower_oauth2_client::providers;
    ///
    /// // The preset asks for `read` and `write`.
    /// let read_only = providers::spry("clinic.example.com", "id", "secret").scopes(["read"]).build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.endpoint.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Further scopes to ask for, beside those named so far.
    pub fn add_scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.endpoint.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Repeats the scopes when refreshing. Off by default: leaving them out means "as before" (RFC 6749 §6), but some
    /// servers (Entra) then grant others.
    pub fn send_scopes_on_refresh(mut self) -> Self {
        self.endpoint.settings.send_scopes_on_refresh = true;
        self
    }

    /// A token with fewer scopes than asked for is an error. Off by default: many servers do not say what they granted.
    pub fn require_granted_scopes(mut self) -> Self {
        self.endpoint.settings.require_granted = true;
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
        self.endpoint.settings.resources.push(resource.into());
        self
    }

    /// For whom the token is, by a name that the server knows (RFC 8693 §2.1; Auth0 and others with every grant).
    /// Repeatable. None by default.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.endpoint.settings.audiences.push(audience.into());
        self
    }

    /// For whom the token is, in place of the names given so far, a preset's among them.
    pub fn audiences<I>(mut self, audiences: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.endpoint.settings.audiences = audiences.into_iter().map(Into::into).collect();
        self
    }

    /// For whom assertions are (`aud`, RFC 7523 §3), where the client authenticates by them or they are what it exchanges: the
    /// issuer identifier of the authorization server.
    ///
    /// Default: the issuer where it is known ([`Discovery`](crate::Discovery)), the token URL otherwise. Say the issuer
    /// wherever you know it: an assertion that is addressed to a URL can be replayed at another server by an attacker who made
    /// you use that URL, and newer servers take nothing but the issuer. An error where none are made.
    pub fn assertion_audience(mut self, audience: impl Into<String>) -> Self {
        self.endpoint.settings.assertion_audience = Some(audience.into());
        self
    }

    /// Whose tokens these are, for a store: the account of who signs in, or the workload whose assertions a function or a file
    /// holds. It is not sent; tokens of two accounts are kept apart.
    ///
    /// Where people sign in ([`authorization_code`](crate::AuthConfig::authorization_code),
    /// [`device`](crate::AuthConfig::device)), or an assertion that says who the client or the person is comes from a function
    /// or a file ([`SecretSource`](crate::SecretSource); platforms mount it at the same path for everybody), nothing else in a
    /// configuration says whose its tokens are, and the next person would get the last one's. With a store the account must be
    /// named there, unless each tenant has its own tokens. Without a store it means nothing.
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, ClientAuth};
    ///
    /// # let signed_in_here = "anna";
    /// let cfg = AuthConfig::device("https://auth.example.com/token", ClientAuth::none("my-tool"))
    ///     .device_authorization_url("https://auth.example.com/device")
    ///     .account(signed_in_here)
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.endpoint.settings.account = Some(account.into());
        self
    }

    /// A further parameter of the token request. Repeatable; treated as a secret.
    ///
    /// The name of one that is sent anyway (`grant_type`, `client_secret`, `refresh_token`, `scope`) is an error: a
    /// parameter may be sent once only (RFC 6749 §3.2). So is one that is set twice; `resource` and `audience` may be, if
    /// nothing else sets them.
    pub fn token_param(mut self, name: impl Into<String>, value: impl Into<Secret<String>>) -> Self {
        self.endpoint.settings.params.push(Param { name: name.into(), value: value.into() });
        self
    }

    /// A further header of the token request, such as an API key; treated as a secret. Headers that HTTP or this crate
    /// gives their value (`Authorization`, `Host`, `Accept-Encoding`, …) are errors, and so is one that is set twice.
    pub fn token_header(mut self, name: impl Into<String>, value: impl Into<Secret<String>>) -> Self {
        self.endpoint.token_headers.push((name.into(), value.into()));
        self
    }

    /// Changes where and how a person signs in, as with a preset. An error with any other grant.
    ///
    /// ```
    /// use tower_oauth2_client::providers;
    ///
    /// let redirect_uri = "https://app.example.com/callback";
    /// let cfg = providers::spry_authorization_code("clinic.example.com", redirect_uri, "id", "secret")
    ///     .edit_authorization_code(|code| code.without_pkce().param("prompt", "login"))
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn edit_authorization_code(mut self, edit: impl FnOnce(AuthorizationCode) -> AuthorizationCode) -> Self {
        let settings = &mut self.endpoint.settings;
        match &settings.grant {
            Grant::AuthorizationCode(code) => settings.grant = Grant::AuthorizationCode(edit(code.clone())),
            _ => self.endpoint.no_code_to_edit = true,
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
    ///     .send_grant_type(false)
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle().warm_up().await?;
    /// assert_eq!(http_client.requests()[0].body, r#"{"client_id":"id","client_secret":"secret"}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn encoding(mut self, encoding: BodyEncoding) -> Self {
        self.endpoint.settings.encoding = encoding;
        self
    }

    /// Whether the primary grant's request names it (`grant_type`). Default: `true`, as RFC 6749 §4.4.2 asks. Some servers
    /// have but one grant and no parameter for it.
    pub fn send_grant_type(mut self, send: bool) -> Self {
        self.endpoint.settings.send_grant_type = send;
        self
    }

    /// A value of `token_type` that means `Bearer`. Any other unknown value is an error (RFC 6749 §7.1).
    pub fn token_type_alias(mut self, token_type: impl Into<String>) -> Self {
        self.endpoint.settings.answer.token_types.push(token_type.into());
        self
    }

    /// An answer without `token_type` is an error. Off by default: several servers leave it out and mean `Bearer`.
    pub fn require_token_type(mut self) -> Self {
        self.endpoint.settings.answer.require_token_type = true;
        self
    }

    /// The server's name for a member of the answer: `.rename_response_field("accessToken", "access_token")`. Repeatable. A
    /// standard name that is never read, such as a misspelt one, is an error.
    pub fn rename_response_field(mut self, theirs: impl Into<String>, standard: impl Into<String>) -> Self {
        self.endpoint.settings.answer.fields.push((theirs.into(), standard.into()));
        self
    }

    /// An error code that, in answer to a refresh, means: this refresh token is dead. `invalid_grant` always does.
    pub fn invalid_refresh_token_code(mut self, code: impl Into<String>) -> Self {
        self.endpoint.settings.dead_refresh_codes.push(code.into());
        self
    }

    /// For one exchange with the token endpoint, from sending to the last byte. Default: 10 s, so that a refresh and a
    /// fallback to the primary grant both fit into [`refresh_deadline`](AuthConfigBuilder::refresh_deadline). One that is
    /// longer than that deadline is an error.
    pub fn token_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.settings.timeout = timeout;
        self
    }

    /// The longest answer of the token endpoint read, in bytes; a longer one is
    /// [`Malformed`](crate::TokenErrorKind::Malformed). Default: 256 KiB, several times the longest token taken (64
    /// KiB); at most 1 MiB.
    pub fn max_token_response_bytes(mut self, bytes: usize) -> Self {
        self.endpoint.settings.max_body = bytes;
        self
    }

    /// A proxy for the built-in token client, such as `http://proxy.internal:3128`; user and password may be in it.
    /// Default: as the environment says (`HTTPS_PROXY`, `NO_PROXY`);
    /// none if an endpoint is on this machine.
    #[cfg(feature = "reqwest")]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.endpoint.client.proxy = Some(Secret::new(url.into()));
        self
    }

    /// Further root certificates, one or more in PEM, that the built-in token client trusts beside the system's. Repeatable.
    /// An HTTP client that you bring has its own: this is an error of
    /// [`AuthLayerBuilder::build`](crate::AuthLayerBuilder::build) then, and so are `proxy` and `connect_timeout`.
    #[cfg(feature = "reqwest")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.endpoint.client.ca_pem.push(pem.into());
        self
    }

    /// How long the built-in token client takes to connect, TLS included. Default: 5 s; zero is an error.
    #[cfg(feature = "reqwest")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.client.connect_timeout = Some(timeout);
        self
    }

    /// A token that the server did not bind to the key is an error. Off by default. Set it where a stolen token must be of
    /// no use: anybody between us and a server that answers `Bearer` could have taken the proof off the token request.
    #[cfg(feature = "dpop")]
    pub fn require_dpop(mut self) -> Self {
        self.endpoint.settings.answer.require_dpop = true;
        self
    }
}

impl AuthConfigBuilder {
    pub(in crate::config) fn for_endpoint(grant: Grant, token_url: TokenUrl, client_auth: ClientAuth) -> Self {
        Self::new(EndpointDraft {
            settings: EndpointSettings::unlocated(grant),
            identity_assertion: None,
            token_url,
            client_auth,
            refresh_url: None,
            revocation_url: None,
            device_url: None,
            refresh_token: None,
            scopes: Vec::new(),
            token_headers: Vec::new(),
            no_code_to_edit: false,
            named_beside_directory: false,
            #[cfg(feature = "reqwest")]
            client: BuiltInClientSettings::default(),
        })
    }

    pub(in crate::config) fn starting_with(mut self, refresh_token: Secret<String>) -> Self {
        self.endpoint.refresh_token = Some(refresh_token);
        self
    }

    pub(in crate::config) fn with_identity_assertion(mut self, assertion: IdentityAssertion) -> Self {
        self.endpoint.identity_assertion = Some(assertion);
        self
    }

    pub(in crate::config) fn with_directory(mut self, directory: Directory) -> Self {
        let directory = DirectorySettings { directory, allow_http: false };
        self.endpoint.settings.directory = Some(directory);
        self
    }

    pub(super) fn endpoint(&self, tenant: Option<&TenantPolicy>) -> Result<EndpointConfig, ConfigError> {
        self.check_sign_in()?;
        let draft = &self.endpoint;
        let parse = |url: &Option<String>| url.as_ref().map(|url| parse_endpoint_url(url, self.allow_http)).transpose();
        let grant = match &draft.identity_assertion {
            Some(assertion) => {
                let mut first_leg = assertion.build(self.allow_http)?;
                first_leg.settings.timeout = draft.settings.timeout;
                first_leg.settings.max_body = draft.settings.max_body;
                Grant::IdentityAssertion(Arc::new(first_leg))
            }
            None => draft.settings.grant.clone(),
        };
        if draft.settings.directory.is_some() && !tenant.is_some_and(TenantPolicy::tokens_need_tenant) {
            return Err(ConfigError::new(
                "each tenant has an authority of its own, and tenants have no tokens of their own",
                "add `.tenant(..)` with `per_tenant_tokens()`, and leave `optional()` and `fixed(..)` out",
            ));
        }
        self.check_directory()?;
        let directory = draft.settings.directory.clone();
        let settings = EndpointSettings {
            directory: directory.map(|directory| DirectorySettings { allow_http: self.allow_http, ..directory }),
            grant,
            url: draft.token_url.parse(self.allow_http)?,
            refresh_url: parse(&draft.refresh_url)?,
            revocation_url: parse(&draft.revocation_url)?,
            device_url: parse(&draft.device_url)?,
            scopes: if draft.scopes.is_empty() { None } else { Some(Scopes::new(&draft.scopes)?) },
            headers: draft
                .token_headers
                .iter()
                .map(|(name, value)| token_header(name, value))
                .collect::<Result<_, _>>()?,
            per_tenant: tenant.is_some_and(TenantPolicy::has_own_tokens),
            tenant_header: tenant.and_then(TenantPolicy::token_header).cloned(),
            tenant_param: tenant.and_then(TenantPolicy::token_param).map(str::to_owned),
            #[cfg(feature = "dpop")]
            dpop: self.dpop.clone(),
            ..draft.settings.clone()
        };
        if settings.grant.is_device() && matches!(settings.url, TokenAt::Url(_)) && settings.device_url.is_none() {
            return Err(ConfigError::new(
                "there is no place to ask for the codes that a person signs in with",
                "name it with `.device_authorization_url(..)`",
            ));
        }
        settings.validate(&draft.client_auth)?;
        draft.client_auth.validate()?;
        self.check_obeyed(&settings)?;
        if let Some(token) = &draft.refresh_token
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
        Ok(EndpointConfig {
            settings,
            client_auth: draft.client_auth.clone(),
            refresh_token: draft.refresh_token.clone(),
            #[cfg(feature = "reqwest")]
            client: draft.client.build(is_local)?,
            #[cfg(feature = "reqwest")]
            client_is_changed: draft.client.is_changed(),
        })
    }

    /// # Errors
    /// A setting whose place is taken by what the directory says of each tenant, or that needs a refresh token or a person:
    /// with a directory there is neither.
    fn check_directory(&self) -> Result<(), ConfigError> {
        let draft = &self.endpoint;
        let urls = [&draft.refresh_url, &draft.revocation_url, &draft.device_url];
        if draft.settings.directory.is_some() && (draft.named_beside_directory || urls.into_iter().any(Option::is_some))
        {
            return Err(ConfigError::new(
                "a URL or a client is set beside the directory, which says both for each tenant",
                "leave `token_url`, `client_auth`, `refresh_url`, `revocation_url` and `device_authorization_url` out",
            ));
        }
        Ok(())
    }

    /// # Errors
    /// A setting that is right by itself, and that something else keeps from having an effect.
    fn check_obeyed(&self, settings: &EndpointSettings) -> Result<(), ConfigError> {
        let makes_assertions = settings.directory.is_some()
            || self.endpoint.client_auth.makes_assertions()
            || settings.grant.makes_assertions();
        if settings.assertion_audience.is_some() && !makes_assertions {
            return Err(ConfigError::new(
                "`assertion_audience` says for whom assertions are, and none are made",
                "leave it out, authenticate by `private_key_jwt` or `client_secret_jwt`, or give `jwt_bearer` a `JwtAssertion`",
            ));
        }
        // A deadline may well be shorter than the default.
        if settings.timeout > self.engine.refresh_deadline && settings.timeout != EndpointSettings::TIMEOUT {
            return Err(ConfigError::new(
                "`token_timeout` is longer than `refresh_deadline`, which ends a token request before",
                "raise the deadline, too: twice the timeout leaves time for a fallback to another grant",
            ));
        }
        Ok(())
    }

    fn check_sign_in(&self) -> Result<(), ConfigError> {
        let Grant::AuthorizationCode(code) = &self.endpoint.settings.grant else {
            return if self.endpoint.no_code_to_edit {
                Err(ConfigError::new(
                    "there is no sign-in to change: the grant is another",
                    "leave `edit_authorization_code` out, or start from `AuthConfig::authorization_code`",
                ))
            } else {
                Ok(())
            };
        };
        if self.endpoint.client_auth.client_id().is_none() {
            return Err(ConfigError::new(
                "a person cannot sign in for a client without an id",
                "name the client, for example with `ClientAuth::none(id)` if it has no secret",
            ));
        }
        if self.endpoint.client_auth.is_public() && !code.has_pkce() {
            return Err(ConfigError::new(
                "a client without a secret signs people in without PKCE (RFC 9700 §2.1.1)",
                "leave `without_pkce` out, or register a client with a secret",
            ));
        }
        if code.authorize_url().is_none() && !self.endpoint.token_url.is_discovered() {
            return Err(ConfigError::new(
                "the authorization endpoint is to be found, and the token endpoint is not",
                "give a `Discovery` in the place of the token URL, or use `AuthorizationCode::new`",
            ));
        }
        code.browser_urls().try_for_each(|url| parse_endpoint_url(url, self.allow_http).map(drop))
    }
}

fn token_header(name: &str, value: &Secret<String>) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let name = own_header_name(name, "the header of the token request")?;
    if name == ACCEPT_ENCODING {
        return Err(ConfigError::new(
            "the header of the token request cannot be accept-encoding",
            "answers are read as they come; `identity` is asked for",
        ));
    }
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
        ConfigError::new(
            format!("the value of the token request's header {name} cannot be a header value"),
            "remove line breaks and control characters",
        )
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
