//! The grants: which parameters go out, and in which order.

mod authorization_code;
mod client_credentials;
mod identity_assertion;
mod jwt_bearer;
mod on_behalf_of;
mod refresh_token;
mod token_exchange;

pub use authorization_code::AuthorizationCode;
pub use identity_assertion::IdentityAssertion;
pub use jwt_bearer::GrantAssertion;
pub use on_behalf_of::OnBehalfOf;
pub use token_exchange::TokenExchange;

pub(crate) use authorization_code::Issuer;
pub(crate) use identity_assertion::{FirstLeg, partition as partition_of_assertion};
pub(crate) use on_behalf_of::expiry as subject_expiry;

use std::sync::Arc;
use std::time::SystemTime;

use super::client_auth::WireCredentials;
use super::encode::Params;
use super::settings::EndpointSettings;
use crate::engine::Table;
use crate::token::TokenRequest;
use crate::types::{ConfigError, Digest, Scopes, Secret, TokenError, TokenParams};

/// The grant that a configuration has without a refresh token.
#[derive(Clone, Debug)]
pub(crate) enum Grant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 7523 §2.1: an assertion.
    JwtBearer(GrantAssertion),
    /// RFC 8693.
    TokenExchange(TokenExchange),
    /// The same, of the token that each request brings.
    OnBehalfOf(OnBehalfOf),
    /// RFC 7523 §2.1 with an assertion of another server's.
    IdentityAssertion(Arc<FirstLeg>),
    /// None: a person signs in first (RFC 6749 §4.1), outside of any refresh.
    AuthorizationCode(AuthorizationCode),
    /// None: the first refresh token was obtained elsewhere, and without one a person must sign in.
    RefreshToken,
    /// RFC 8628: a person signs in on another device, and until then there is none.
    Device,
}

impl Grant {
    /// Whether it yields tokens without a refresh token.
    pub(crate) fn is_primary(&self) -> bool {
        !matches!(self, Grant::RefreshToken | Grant::AuthorizationCode(_) | Grant::Device)
    }

    /// Whether a person signs in on another device.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Grant::Device)
    }

    /// Whether what it sends may have to be waited for.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Grant::ClientCredentials | Grant::RefreshToken | Grant::AuthorizationCode(_) | Grant::Device => false,
            Grant::JwtBearer(assertion) => assertion.may_wait(),
            Grant::TokenExchange(exchange) => exchange.may_wait(),
            Grant::OnBehalfOf(on_behalf_of) => on_behalf_of.may_wait(),
            Grant::IdentityAssertion(_) => true,
        }
    }

    /// # Errors
    /// What is known already to be no assertion or no token.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Grant::ClientCredentials | Grant::RefreshToken | Grant::Device | Grant::IdentityAssertion(_) => Ok(()),
            Grant::JwtBearer(assertion) => assertion.validate(),
            Grant::TokenExchange(exchange) => exchange.validate(),
            Grant::OnBehalfOf(on_behalf_of) => on_behalf_of.validate(),
            Grant::AuthorizationCode(code) => code.validate(),
        }
    }

    /// What tells its tokens from those of another grant.
    pub(crate) fn describe(&self, digest: &mut Digest) {
        match self {
            Grant::ClientCredentials => digest.field("grant", "client credentials"),
            Grant::RefreshToken => digest.field("grant", "refresh token"),
            Grant::JwtBearer(assertion) => {
                digest.field("grant", "jwt bearer");
                assertion.describe(digest);
            }
            Grant::TokenExchange(exchange) => {
                digest.field("grant", "token exchange");
                exchange.describe(digest);
            }
            Grant::OnBehalfOf(on_behalf_of) => {
                digest.field("grant", "on behalf of");
                on_behalf_of.describe(digest);
            }
            Grant::IdentityAssertion(first_leg) => {
                digest.field("grant", "identity assertion");
                first_leg.describe(digest);
            }
            // Where the person signs in does not matter: the client and the token URL tell whose server it is.
            Grant::AuthorizationCode(_) => digest.field("grant", "authorization code"),
            Grant::Device => digest.field("grant", "device"),
        }
    }

    /// Whether nothing in it says whose tokens it brings: a person who signs in, or whose assertion a function
    /// or a file holds.
    pub(crate) fn is_nameless(&self) -> bool {
        match self {
            // Each request says on behalf of whom.
            Grant::ClientCredentials | Grant::RefreshToken | Grant::OnBehalfOf(_) => false,
            Grant::AuthorizationCode(_) | Grant::Device => true,
            Grant::JwtBearer(assertion) => assertion.is_nameless(),
            Grant::TokenExchange(exchange) => exchange.is_nameless(),
            Grant::IdentityAssertion(first_leg) => first_leg.settings.grant.is_nameless(),
        }
    }

    /// Whether each request must say on whose behalf it is made.
    pub(crate) fn needs_subject(&self) -> bool {
        match self {
            Grant::OnBehalfOf(_) => true,
            Grant::IdentityAssertion(first_leg) => first_leg.settings.grant.needs_subject(),
            _ => false,
        }
    }

    /// What kind of token is asked for, where an answer must say what kind it is.
    pub(crate) fn asked_type(&self) -> Option<AskedType<'_>> {
        match self {
            Grant::TokenExchange(exchange) => Some(AskedType(exchange.requested())),
            Grant::OnBehalfOf(on_behalf_of) => on_behalf_of.asked_type(),
            _ => None,
        }
    }

    /// Whether it makes assertions, which are addressed to somebody.
    pub(crate) fn makes_assertions(&self) -> bool {
        matches!(self, Grant::JwtBearer(assertion) if assertion.is_signed_here())
    }

    /// Whether the scopes are said in its assertion, and not by a parameter.
    fn takes_scopes(&self) -> bool {
        matches!(self, Grant::JwtBearer(assertion) if assertion.takes_scopes())
    }

    /// Whether it sends a parameter of that name.
    pub(crate) fn sends(&self, name: &str) -> bool {
        match self {
            Grant::ClientCredentials | Grant::RefreshToken | Grant::Device => false,
            Grant::JwtBearer(_) | Grant::IdentityAssertion(_) => name == "assertion",
            Grant::TokenExchange(_) => token_exchange::SENDS.contains(&name),
            Grant::OnBehalfOf(on_behalf_of) => on_behalf_of.sends(name),
            Grant::AuthorizationCode(_) => authorization_code::SENDS.contains(&name),
        }
    }
}

/// The kind of token that an exchange asks for (`requested_token_type`); `None`: the server decides (RFC 8693 §2.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedType<'a>(Option<&'a str>);

impl AskedType<'_> {
    /// Whether a token of that kind is of use: for API requests, or as an assertion for another server. Servers may issue
    /// another kind than the one asked for; what is never good for it is not sent there.
    pub(crate) fn takes(&self, issued: &str, as_assertion: bool) -> bool {
        use TokenExchange as Kind;
        let other: &[&str] = match as_assertion {
            true => &[Kind::ACCESS_TOKEN, Kind::REFRESH_TOKEN],
            false => &[Kind::REFRESH_TOKEN, Kind::ID_TOKEN, Kind::ID_JAG, Kind::SAML1, Kind::SAML2],
        };
        self.0 == Some(issued) || !other.contains(&issued)
    }
}

/// The grant of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantKind {
    /// The configured one.
    Primary,
    RefreshToken,
    /// One that a person's sign-in brought, such as a code: exchanged once, outside of any refresh.
    Once,
}

/// What a grant sends, read for one exchange: its name, and its parameters in order.
pub(crate) struct GrantParams {
    pub(crate) grant_type: &'static str,
    list: Vec<GrantParam>,
}

struct GrantParam {
    name: &'static str,
    value: Secret<String>,
    is_secret: bool,
}

impl GrantParams {
    /// Reads what there is to read, and signs what is to be signed. `audience`: for whom assertions are that are made here.
    ///
    /// # Errors
    /// An assertion or a token that is not there now.
    pub(crate) async fn read(
        asking: GrantKind,
        settings: &EndpointSettings,
        request: &TokenRequest,
        audience: &str,
        now: SystemTime,
        assertions: Option<&Table>,
    ) -> Result<Self, TokenError> {
        match (asking, &settings.grant) {
            (GrantKind::RefreshToken | GrantKind::Once, _)
            | (GrantKind::Primary, Grant::RefreshToken | Grant::AuthorizationCode(_) | Grant::Device) => {
                Ok(refresh_token::params(request))
            }
            (GrantKind::Primary, Grant::ClientCredentials) => Ok(client_credentials::params()),
            (GrantKind::Primary, Grant::JwtBearer(assertion)) => {
                jwt_bearer::params(assertion, audience, scope(settings, request), now).await
            }
            (GrantKind::Primary, Grant::TokenExchange(exchange)) => token_exchange::params(exchange).await,
            (GrantKind::Primary, Grant::OnBehalfOf(grant)) => on_behalf_of::params(grant, request, now).await,
            (GrantKind::Primary, Grant::IdentityAssertion(_)) => identity_assertion::params(assertions, request).await,
        }
    }

    pub(crate) fn new(grant_type: &'static str) -> Self {
        Self { grant_type, list: Vec::new() }
    }

    /// Adds a parameter that must not be found in an error.
    pub(crate) fn secret(mut self, name: &'static str, value: Secret<String>) -> Self {
        self.list.push(GrantParam { name, value, is_secret: true });
        self
    }

    /// Adds any other parameter.
    pub(crate) fn plain(mut self, name: &'static str, value: &str) -> Self {
        self.list.push(GrantParam { name, value: Secret::from(value), is_secret: false });
        self
    }

    pub(crate) fn push_params<'a>(&'a self, params: &mut Params<'a>) {
        for param in &self.list {
            params.push(param.name, param.value.expose());
        }
    }

    /// Whether both send the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.secrets().eq(other.secrets())
    }

    /// What must not be found in an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter(|param| param.is_secret).map(|param| param.value.expose().as_str())
    }
}

/// All parameters of one exchange.
pub(crate) fn params<'a>(
    asking: GrantKind,
    grant: &'a GrantParams,
    settings: &'a EndpointSettings,
    presented: &'a WireCredentials,
    request: &'a TokenRequest,
) -> Params<'a> {
    let mut params = Params::default();
    if settings.send_grant_type || asking != GrantKind::Primary {
        params.push("grant_type", grant.grant_type);
    }
    grant.push_params(&mut params);
    presented.push_params(&mut params);
    let sends_scope = match asking {
        GrantKind::Primary => !settings.grant.takes_scopes(),
        GrantKind::RefreshToken => settings.send_scopes_on_refresh,
        // They were agreed on before, when the person was asked.
        GrantKind::Once => false,
    };
    if sends_scope {
        params.push("scope", scope(settings, request));
    }
    let own = request.params.as_ref();
    for resource in own_or(own.map(TokenParams::resources), &settings.resources) {
        params.push("resource", resource);
    }
    for audience in own_or(own.map(TokenParams::audiences), &settings.audiences) {
        params.push("audience", audience);
    }
    let claims = own.and_then(TokenParams::claims_json);
    for param in settings.params.iter().filter(|param| claims.is_none() || param.name != "claims") {
        params.push(&param.name, param.value.expose());
    }
    if let Some(claims) = claims {
        params.push("claims", claims);
    }
    if let (Some(name), Some(tenant)) = (&settings.tenant_param, &request.tenant) {
        params.push(name, tenant.as_str());
    }
    params
}

/// What the request brings, else what is configured.
fn own_or<'a>(own: Option<&'a [String]>, configured: &'a [String]) -> &'a [String] {
    own.filter(|own| !own.is_empty()).unwrap_or(configured)
}

/// The scopes to ask for: the request's, else the configured ones.
fn scope<'a>(settings: &'a EndpointSettings, request: &'a TokenRequest) -> &'a str {
    request.scopes.as_ref().or(settings.scopes.as_ref()).map_or("", Scopes::as_str)
}
