//! Settings of where tokens come from: a preset, or a grant with what it needs.

use std::collections::BTreeMap;

use super::client::{AssertionKeys, ClientKeys, KeySettings, Method, Typ, take_client};
use super::keys::{choice, table};
use super::values::Many;
use super::{AuthSettings, Taken, missing, unneeded};
use crate::config::{AuthConfig, AuthConfigBuilder, presets};
use crate::endpoint::{
    Authority, AuthorizationCode, ClientAuth, Directory, Discovery, GrantAssertion, IdentityAssertion, OnBehalfOf,
    TokenExchange, TokenUrl,
};
use crate::types::{ConfigError, SecretSource, TenantId};

/// A preset, by the name of its function in [`presets`].
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ProviderName {
    Vip,
    Spry,
    SpryAuthorizationCode,
    Vectorcare,
    Qmatic,
    Graphnet,
    Kubernetes,
    EntraFederated,
    EntraCertificate,
    Spiffe,
    GoogleWorkloadIdentity,
    GoogleServiceAccount,
}

choice! {
    Provider: ProviderName {
        "vip" => ProviderName::Vip,
        "spry" => ProviderName::Spry,
        "spry_authorization_code" => ProviderName::SpryAuthorizationCode,
        "vectorcare" => ProviderName::Vectorcare,
        "qmatic" => ProviderName::Qmatic,
        "graphnet" => ProviderName::Graphnet,
        "kubernetes" => ProviderName::Kubernetes,
        "entra_federated" => ProviderName::EntraFederated,
        "entra_certificate" => ProviderName::EntraCertificate,
        "spiffe" => ProviderName::Spiffe,
        "google_workload_identity" => ProviderName::GoogleWorkloadIdentity,
        "google_service_account" => ProviderName::GoogleServiceAccount,
    }
}

/// A grant, by the name of its constructor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum GrantName {
    ClientCredentials,
    RefreshToken,
    AuthorizationCode,
    Device,
    JwtBearer,
    TokenExchange,
    OnBehalfOf,
    IdentityAssertion,
    PerTenant,
}

choice! {
    GrantChoice: GrantName {
        "client_credentials" => GrantName::ClientCredentials,
        "refresh_token" => GrantName::RefreshToken,
        "authorization_code" => GrantName::AuthorizationCode,
        "device" => GrantName::Device,
        "jwt_bearer" => GrantName::JwtBearer,
        "token_exchange" => GrantName::TokenExchange,
        "on_behalf_of" => GrantName::OnBehalfOf,
        "identity_assertion" => GrantName::IdentityAssertion,
        "per_tenant" => GrantName::PerTenant,
    }
}

/// How a user's token is exchanged.
#[derive(Clone, Copy)]
pub(super) enum FlowName {
    TokenExchange,
    Entra,
}

choice! {
    Flow: FlowName {
        "token_exchange" => FlowName::TokenExchange,
        "entra" => FlowName::Entra,
    }
}

table! {
    /// The server that identity assertions come from.
    pub(super) struct IdentityProvider {
        token_url: String,
        issuer: String,
        openid: bool,
        client_auth: Method,
        client_id: String,
        client_secret: SecretSource,
        client_assertion: SecretSource,
        client_assertion_type: String,
        signing_key: KeySettings,
        assertion_typ: Typ,
        assertion_claims: BTreeMap<String, serde_json::Value>,
        subject_token: SecretSource,
        subject_token_type: String,
        actor_token: SecretSource,
        actor_token_type: String,
        requested_token_type: String,
        on_behalf_of: bool,
        audiences: Many,
        resources: Many,
        scopes: Many,
    }
}

table! {
    /// One tenant's authorization server.
    pub(super) struct AuthorityKeys {
        token_url: String,
        issuer: String,
        openid: bool,
        client_auth: Method,
        client_id: String,
        client_secret: SecretSource,
        client_assertion: SecretSource,
        client_assertion_type: String,
        signing_key: KeySettings,
        assertion_typ: Typ,
        assertion_claims: BTreeMap<String, serde_json::Value>,
        audiences: Many,
        scopes: Many,
        token_params: BTreeMap<String, SecretSource>,
    }
}

/// Where the token endpoint is, if a table says so.
macro_rules! take_token_url {
    ($table:expr) => {
        token_url($table.token_url.take(), $table.issuer.take(), $table.openid.take())
    };
}

/// What is exchanged for a token.
macro_rules! take_exchange {
    ($table:expr) => {
        exchange(
            $table.subject_token_type.take().zip($table.subject_token.take()),
            $table.actor_token_type.take().zip($table.actor_token.take()),
            $table.requested_token_type.take(),
        )
    };
}

/// # Errors
/// Both a URL and an issuer.
fn token_url(
    url: Option<String>,
    issuer: Option<String>,
    openid: Option<bool>,
) -> Result<Option<TokenUrl>, ConfigError> {
    match (url, issuer) {
        (Some(_), Some(_)) => Err(ConfigError::new(
            "both `token_url` and `issuer` say where the token endpoint is",
            "name the issuer alone where the server publishes metadata, the URL alone otherwise",
        )),
        (None, Some(issuer)) => {
            let discovery = Discovery::of(issuer);
            Ok(Some(if openid == Some(true) { discovery.openid() } else { discovery }.into()))
        }
        (url, None) if openid.is_none() => Ok(url.map(TokenUrl::from)),
        (_, None) => Err(unneeded("openid", "no `issuer`")),
    }
}

#[cfg(feature = "jwt")]
fn signed_here(keys: AssertionKeys) -> Result<GrantAssertion, ConfigError> {
    keys.into_assertion().map(GrantAssertion::from)
}

#[cfg(not(feature = "jwt"))]
fn signed_here(_: AssertionKeys) -> Result<GrantAssertion, ConfigError> {
    Err(super::needs_feature("signed_assertion", "jwt"))
}

/// # Errors
/// There is no subject token.
fn exchange(
    subject: Option<(String, SecretSource)>,
    actor: Option<(String, SecretSource)>,
    requested: Option<String>,
) -> Result<TokenExchange, ConfigError> {
    let (token_type, token) =
        subject.ok_or_else(|| missing("subject_token` or `subject_token_type", "a token exchange"))?;
    let mut exchange = TokenExchange::new(token_type_uri(token_type), token);
    if let Some((token_type, token)) = actor {
        exchange = exchange.actor(token_type_uri(token_type), token);
    }
    Ok(match requested {
        Some(requested) => exchange.requested_token_type(token_type_uri(requested)),
        None => exchange,
    })
}

/// The names of RFC 8693 §3 without what is before them.
fn token_type_uri(name: String) -> String {
    match name.as_str() {
        "access_token" => TokenExchange::ACCESS_TOKEN.into(),
        "refresh_token" => TokenExchange::REFRESH_TOKEN.into(),
        "id_token" => TokenExchange::ID_TOKEN.into(),
        "id-jag" => TokenExchange::ID_JAG.into(),
        "jwt" => TokenExchange::JWT.into(),
        "saml1" => TokenExchange::SAML1.into(),
        "saml2" => TokenExchange::SAML2.into(),
        _ => name,
    }
}

impl AuthSettings {
    /// A builder for the preset or the grant, with what that needs and nothing else.
    pub(super) fn start(&mut self) -> Result<AuthConfigBuilder, ConfigError> {
        match (self.provider.take(), self.grant.take()) {
            (Some(_), Some(_)) => Err(ConfigError::new(
                "there are both `provider` and `grant`, and a preset has its grant",
                "leave one of the two out",
            )),
            (Some(Provider(provider)), None) => self.preset(provider),
            (None, grant) => self.granted(grant.map_or(GrantName::ClientCredentials, |GrantChoice(grant)| grant)),
        }
    }

    fn preset(&mut self, provider: ProviderName) -> Result<AuthConfigBuilder, ConfigError> {
        use ProviderName::*;
        // A preset may be told to authenticate in another way; then id and secret are that way's.
        let other_auth = if self.client_auth.is_some() { Some(take_client!(self).into_client()?) } else { None };
        let has_other = other_auth.is_some();
        let mut id = || if has_other { Ok("replaced".to_owned()) } else { self.client_id.take().need("client_id") };
        let builder = match provider {
            Vip => presets::vip(id()?, secret(&mut self.client_secret, has_other)?),
            Vectorcare => presets::vectorcare(id()?, secret(&mut self.client_secret, has_other)?),
            Spry => {
                let id = id()?;
                presets::spry(self.host.take().need("host")?, id, secret(&mut self.client_secret, has_other)?)
            }
            SpryAuthorizationCode => {
                let (id, host) = (id()?, self.host.take().need("host")?);
                let redirect_uri = self.redirect_uri.take().need("redirect_uri")?;
                presets::spry_authorization_code(host, redirect_uri, id, secret(&mut self.client_secret, has_other)?)
            }
            Qmatic => {
                let (id, host) = (id()?, self.host.take().need("host")?);
                let account = self.qmatic_account.take().need("qmatic_account")?;
                let scopes = self.scopes.take().need("scopes")?.into_words();
                presets::qmatic(host, account, scopes, id, secret(&mut self.client_secret, has_other)?)
            }
            Graphnet => {
                let (id, url) = (id()?, take_token_url!(self)?.need("token_url")?);
                if self.origins.is_none() {
                    return Err(missing("origins", "the preset `graphnet`"));
                }
                // Replaced by those that were named.
                presets::graphnet(url, "", id, secret(&mut self.client_secret, has_other)?)
            }
            Kubernetes | Spiffe => {
                let url = take_token_url!(self)?.need("token_url` or `issuer")?;
                let file = self.token_file.take().need("token_file")?;
                if provider == Kubernetes { presets::kubernetes(url, file) } else { presets::spiffe(url, file) }
            }
            EntraFederated => {
                let (id, tenant) = (id()?, self.entra_tenant.take().need("entra_tenant")?);
                let scopes = self.scopes.take().need("scopes")?.into_words();
                presets::entra_federated(tenant, id, scopes, self.token_file.take().need("token_file")?)
            }
            EntraCertificate => {
                let id = id()?;
                self.entra_certificate(id)?
            }
            GoogleServiceAccount => self.google_service_account()?,
            GoogleWorkloadIdentity => {
                let audiences = self.audiences.take().need("audiences")?.0;
                let scopes = self.scopes.take().need("scopes")?.into_words();
                let file = self.token_file.take().need("token_file")?;
                presets::google_workload_identity("", scopes, file).audiences(audiences)
            }
        };
        Ok(match other_auth {
            Some(auth) => builder.client_auth(auth),
            None => builder,
        })
    }

    #[cfg(feature = "jwt")]
    fn entra_certificate(&mut self, id: String) -> Result<AuthConfigBuilder, ConfigError> {
        let tenant = self.entra_tenant.take().need("entra_tenant")?;
        let scopes = self.scopes.take().need("scopes")?.into_words();
        let key = self.signing_key.take().need("signing_key")?.into_key()?;
        Ok(presets::entra_certificate(tenant, id, scopes, key))
    }

    #[cfg(not(feature = "jwt"))]
    fn entra_certificate(&mut self, _: String) -> Result<AuthConfigBuilder, ConfigError> {
        Err(super::needs_feature("provider", "jwt"))
    }

    #[cfg(feature = "jwt")]
    fn google_service_account(&mut self) -> Result<AuthConfigBuilder, ConfigError> {
        let account = self.service_account.take().need("service_account")?;
        let scopes = self.scopes.take().need("scopes")?.into_words();
        let key = self.signing_key.take().need("signing_key")?.into_key()?;
        Ok(presets::google_service_account(account, scopes, key))
    }

    #[cfg(not(feature = "jwt"))]
    fn google_service_account(&mut self) -> Result<AuthConfigBuilder, ConfigError> {
        Err(super::needs_feature("provider", "jwt"))
    }

    /// One that is given, or signed here.
    fn grant_assertion(&mut self) -> Result<GrantAssertion, ConfigError> {
        match (self.assertion.take(), self.signed_assertion.take()) {
            (Some(_), Some(_)) => Err(unneeded("signed_assertion", "an `assertion` that is given")),
            (Some(given), None) => Ok(given.into()),
            (None, Some(signed)) => signed_here(signed),
            (None, None) => Err(missing("assertion` or `signed_assertion", "this grant")),
        }
    }

    fn granted(&mut self, grant: GrantName) -> Result<AuthConfigBuilder, ConfigError> {
        if grant == GrantName::PerTenant {
            return Ok(AuthConfig::per_tenant(self.directory()?));
        }
        let url = take_token_url!(self)?.need("token_url` or `issuer")?;
        let auth = take_client!(self).into_client()?;
        Ok(match grant {
            GrantName::ClientCredentials | GrantName::PerTenant => AuthConfig::client_credentials(url, auth),
            GrantName::RefreshToken => {
                let token = self.refresh_token.take().need("refresh_token")?.read_now("refresh token")?;
                AuthConfig::refresh_token(url, auth, token)
            }
            GrantName::AuthorizationCode => {
                let redirect_uri = self.redirect_uri.take().need("redirect_uri")?;
                let code = match self.authorization_url.take() {
                    Some(authorization_url) => AuthorizationCode::new(authorization_url, redirect_uri),
                    None => AuthorizationCode::discovered(redirect_uri),
                };
                AuthConfig::authorization_code(url, auth, code)
            }
            GrantName::Device => AuthConfig::device(url, auth),
            GrantName::JwtBearer => AuthConfig::jwt_bearer(url, auth, self.grant_assertion()?),
            GrantName::TokenExchange => AuthConfig::token_exchange(url, auth, take_exchange!(self)?),
            GrantName::OnBehalfOf => AuthConfig::on_behalf_of(url, auth, self.on_behalf_of()?),
            GrantName::IdentityAssertion => {
                let assertion = self.identity_provider.take().need("identity_provider")?.into_assertion()?;
                AuthConfig::identity_assertion(url, auth, assertion)
            }
        })
    }

    fn on_behalf_of(&mut self) -> Result<OnBehalfOf, ConfigError> {
        let mut flow = match self.on_behalf_of.take().need("on_behalf_of")?.0 {
            FlowName::TokenExchange => OnBehalfOf::token_exchange(),
            FlowName::Entra => OnBehalfOf::entra(),
        };
        if let Some((token_type, token)) = self.actor_token_type.take().zip(self.actor_token.take()) {
            flow = flow.actor(token_type_uri(token_type), token);
        }
        Ok(match self.requested_token_type.take() {
            Some(requested) => flow.requested_token_type(token_type_uri(requested)),
            None => flow,
        })
    }

    fn directory(&mut self) -> Result<Directory, ConfigError> {
        let mut tenants = Vec::new();
        for (tenant, keys) in self.authorities.take().need("authorities")? {
            let named = |error: ConfigError| error.of("one of the `authorities`");
            tenants.push((TenantId::new(tenant).map_err(named)?, keys.into_authority().map_err(named)?));
        }
        Ok(Directory::from_map(tenants))
    }

    /// What a configuration says about its sign-in besides the two URLs, if it says anything.
    pub(super) fn edit_sign_in(&mut self, builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        let (params, pkce) = (self.authorization_params.take(), self.pkce.take());
        let (url, issuer) = (self.authorization_url.take(), self.sign_in_issuer.take());
        let required = self.require_sign_in_issuer.take();
        if required.is_some() && issuer.is_none() {
            return Err(unneeded("require_sign_in_issuer", "no `sign_in_issuer`"));
        }
        if url.is_some() {
            return Err(unneeded("authorization_url", "this grant or preset"));
        }
        if params.is_none() && pkce.is_none() && issuer.is_none() {
            return Ok(builder);
        }
        Ok(builder.edit_authorization_code(|mut code| {
            for (name, value) in params.unwrap_or_default() {
                code = code.param(name, value);
            }
            if let Some(issuer) = issuer {
                code = if required == Some(true) { code.require_issuer(issuer) } else { code.issuer(issuer) };
            }
            if pkce == Some(false) { code.without_pkce() } else { code }
        }))
    }

    /// A token URL that takes the place of a preset's.
    pub(super) fn other_token_url(&mut self) -> Result<Option<TokenUrl>, ConfigError> {
        take_token_url!(self)
    }
}

fn secret(given: &mut Option<SecretSource>, is_replaced: bool) -> Result<SecretSource, ConfigError> {
    if is_replaced { Ok("replaced".into()) } else { given.take().need("client_secret") }
}

impl IdentityProvider {
    fn into_assertion(mut self) -> Result<IdentityAssertion, ConfigError> {
        let url = take_token_url!(self)?.need("identity_provider.token_url")?;
        let auth: ClientAuth = take_client!(self).into_client().map_err(|error| error.of("`identity_provider`"))?;
        let mut assertion = if self.on_behalf_of.take() == Some(true) {
            IdentityAssertion::on_behalf_of(url, auth)
        } else {
            IdentityAssertion::new(url, auth, take_exchange!(self)?)
        };
        for audience in self.audiences.take().into_iter().flat_map(|many| many.0) {
            assertion = assertion.audience(audience);
        }
        for resource in self.resources.take().into_iter().flat_map(|many| many.0) {
            assertion = assertion.resource(resource);
        }
        if let Some(scopes) = self.scopes.take() {
            assertion = assertion.scopes(scopes.into_words());
        }
        match self.given().next() {
            Some(key) => Err(unneeded(key, "this `identity_provider`")),
            None => Ok(assertion),
        }
    }
}

impl AuthorityKeys {
    fn into_authority(mut self) -> Result<Authority, ConfigError> {
        let url = take_token_url!(self)?.need("token_url` or `issuer")?;
        let auth = ClientKeys::into_client(take_client!(self))?;
        let mut authority = Authority::new(url, auth);
        if let Some(scopes) = self.scopes {
            authority = authority.scopes(scopes.into_words());
        }
        for audience in self.audiences.into_iter().flat_map(|many| many.0) {
            authority = authority.audience(audience);
        }
        for (name, value) in self.token_params.into_iter().flatten() {
            authority = authority.token_param(name, value.read_now("parameter of the token request")?);
        }
        Ok(authority)
    }
}
