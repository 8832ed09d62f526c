//! Two grants one after the other: an assertion from one server, and a token for it from another.

use std::fmt;

use super::{Grant, GrantParams, OnBehalfOf, TokenExchange, jwt_bearer};
use crate::endpoint::client_auth::ClientAuth;
use crate::endpoint::discovery::TokenUrl;
use crate::endpoint::settings::EndpointSettings;
use crate::engine::{Partition, Table};
use crate::token::TokenRequest;
use crate::types::{ConfigError, Digest, Scopes, Secret, TokenError, TokenErrorKind, TokenParams};

/// Where an identity assertion comes from, for [`AuthConfig::identity_assertion`](crate::AuthConfig::identity_assertion): a
/// token exchange (RFC 8693) whose answer is no access token but an assertion for another authorization server, such as an
/// identity provider's ID-JAG (draft-ietf-oauth-identity-assertion-authz-grant).
///
/// The assertion has a cache, an expiry and failures of its own: however many tenants and sets of scopes there are, it is
/// asked for once at a time and again when it ends. Where the other server refuses it (`invalid_grant`), another one is asked
/// for, once for each token request.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::{AuthConfig, ClientAuth, IdentityAssertion, SecretSource, TokenExchange};
///
/// let id_token = TokenExchange::new(TokenExchange::ID_TOKEN, SecretSource::file("/run/user/id_token"));
/// let client_auth = ClientAuth::basic("client-at-idp", "secret");
/// let assertion = IdentityAssertion::new("https://idp.example.com/token", client_auth, id_token)
///     .audience("https://auth.chat.example/");
/// let client_auth = ClientAuth::basic("client-at-chat", "secret");
/// let cfg = AuthConfig::identity_assertion("https://auth.chat.example/token", client_auth, assertion)
///     .scopes(["chat.read"])
///     .origin("https://api.chat.example")
///     .build()?;
/// # }
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct IdentityAssertion {
    token_url: TokenUrl,
    client_auth: ClientAuth,
    grant: Grant,
    audiences: Vec<String>,
    resources: Vec<String>,
    scopes: Vec<String>,
}

impl IdentityAssertion {
    /// For a token of one's own, or of a person for whom this program is. What is asked for is an
    /// [`ID_JAG`](TokenExchange::ID_JAG), unless the exchange says otherwise.
    pub fn new(token_url: impl Into<TokenUrl>, client_auth: ClientAuth, exchange: TokenExchange) -> Self {
        Self::of(token_url.into(), client_auth, Grant::TokenExchange(exchange.or_requested(TokenExchange::ID_JAG)))
    }

    /// For the token that each request brings ([`TokenParams::subject`](crate::TokenParams::subject)): each user has an
    /// assertion of their own.
    pub fn on_behalf_of(token_url: impl Into<TokenUrl>, client_auth: ClientAuth) -> Self {
        let grant = OnBehalfOf::token_exchange().requested_token_type(TokenExchange::ID_JAG);
        Self::of(token_url.into(), client_auth, Grant::OnBehalfOf(grant))
    }

    fn of(token_url: TokenUrl, client_auth: ClientAuth, grant: Grant) -> Self {
        Self { token_url, client_auth, grant, audiences: Vec::new(), resources: Vec::new(), scopes: Vec::new() }
    }

    /// For whom the assertion is: the issuer identifier of the other server. Repeatable.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// What the token will be for (RFC 8707 §2): an absolute URI without a fragment. Repeatable.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self
    }

    /// The scopes that the assertion is to allow, in place of those named so far. None by default: the server decides.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// # Errors
    /// What is wrong with it, as with any token endpoint.
    pub(crate) fn build(&self, allow_http: bool) -> Result<FirstLeg, ConfigError> {
        let mut settings = EndpointSettings::new(self.token_url.parse(allow_http)?, self.grant.clone());
        settings.audiences.clone_from(&self.audiences);
        settings.resources.clone_from(&self.resources);
        if !self.scopes.is_empty() {
            settings.scopes = Some(Scopes::new(&self.scopes)?);
        }
        settings.answer.takes_assertions = true;
        settings.validate(&self.client_auth)?;
        self.client_auth.validate()?;
        Ok(FirstLeg { settings, client_auth: self.client_auth.clone() })
    }
}

/// Tells what kind of grant it is.
impl fmt::Debug for IdentityAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityAssertion").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// The token endpoint that assertions come from.
#[derive(Clone)]
pub(crate) struct FirstLeg {
    pub(crate) settings: EndpointSettings,
    pub(crate) client_auth: ClientAuth,
}

impl FirstLeg {
    pub(crate) fn describe(&self, digest: &mut Digest) {
        digest.field("assertions of", self.settings.url.uri().to_string());
        self.settings.describe(digest);
        self.client_auth.describe(digest);
    }
}

impl fmt::Debug for FirstLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

/// Whose assertion a token request needs: with a subject token, theirs.
pub(crate) fn partition(request: &TokenRequest) -> Partition {
    let subject = request.params.as_ref().and_then(TokenParams::subject_token);
    Partition { params: subject.map(|subject| TokenParams::new().subject(subject.clone())), ..Partition::default() }
}

/// # Errors
/// There is no assertion now: why, and that it was the first of two servers.
pub(super) async fn params(assertions: Option<&Table>, request: &TokenRequest) -> Result<GrantParams, TokenError> {
    let missing =
        || TokenError::new(TokenErrorKind::Unsupported).with_detail("there is nowhere to get assertions from");
    let assertion = assertions.ok_or_else(missing)?.token(partition(request)).await.map_err(|error| {
        let told = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        error.clone().with_detail(format!("no identity assertion could be obtained{told}"))
    })?;
    Ok(jwt_bearer::params_of(Secret::from(assertion.access_token())))
}
