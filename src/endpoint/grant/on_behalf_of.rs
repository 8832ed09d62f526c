//! Grants on behalf of each request's user: the subject token comes with the request.

use std::time::SystemTime;

use super::token_exchange::{self, ACTOR_TOKEN, Typed};
use super::{AskedType, GrantParams};
use crate::token::{TokenRequest, jwt_exp};
use crate::types::{ConfigError, Digest, SecretSource, SubjectToken, TokenError, TokenErrorKind, check_line};

/// How the token of a request's user is exchanged, for [`AuthConfig::on_behalf_of`](crate::AuthConfig::on_behalf_of).
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower::{Layer, ServiceExt};
/// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, OnBehalfOf, SubjectToken, TokenParams};
///
/// # tokio_test::block_on(async {
/// let server = AuthServer::new(TestClock::new());
/// let client_auth = ClientAuth::basic("gateway", "secret");
/// let cfg = AuthConfig::on_behalf_of("https://auth.example.com/token", client_auth, OnBehalfOf::token_exchange())
///     .origin("https://api.example.com")
///     .max_partitions(100_000) // users times audiences
///     .build()?;
/// let client = AuthLayer::builder(cfg).http_client(server.clone()).build()?.layer(Api::new(&server));
///
/// // In the gateway's handler: the token that the caller has sent.
/// let caller = SubjectToken::access_token("eyJ-of-the-caller")?;
/// let mut request = http::Request::get("https://api.example.com/orders").body(String::new())?;
/// request.extensions_mut().insert(TokenParams::new().subject(caller).audience("orders")?);
/// assert_eq!(client.oneshot(request).await?.status(), 200);
/// assert_eq!(server.requests()[0].param("subject_token").as_deref(), Some("eyJ-of-the-caller"));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct OnBehalfOf {
    form: Form,
    actor: Option<Typed>,
    requested: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    TokenExchange,
    JwtBearer,
}

impl OnBehalfOf {
    /// A token exchange (RFC 8693 §2.1).
    pub fn token_exchange() -> Self {
        Self { form: Form::TokenExchange, actor: None, requested: None }
    }

    /// Entra's on-behalf-of flow: a JWT bearer grant with `requested_token_use=on_behalf_of`. Ask for the API's scopes with
    /// [`scopes`](crate::AuthConfigBuilder::scopes) or in the request's extensions; without `offline_access`, since the
    /// caller brings a token each time.
    pub fn entra() -> Self {
        Self { form: Form::JwtBearer, ..Self::token_exchange() }
    }

    /// Who acts (`actor_token_type` and `actor_token`). Nobody but the client by default.
    pub fn actor(mut self, token_type: impl Into<String>, token: impl Into<SecretSource>) -> Self {
        self.actor = Some(Typed { token_type: token_type.into(), token: token.into() });
        self
    }

    /// The kind of token asked for (`requested_token_type`). The server decides by default.
    pub fn requested_token_type(mut self, token_type: impl Into<String>) -> Self {
        self.requested = Some(token_type.into());
        self
    }

    pub(super) fn may_wait(&self) -> bool {
        self.actor.as_ref().is_some_and(|actor| actor.token.fixed().is_none())
    }

    pub(super) fn asked_type(&self) -> Option<AskedType<'_>> {
        (self.form == Form::TokenExchange).then_some(AskedType(self.requested.as_deref()))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.form == Form::JwtBearer && (self.actor.is_some() || self.requested.is_some()) {
            return Err(ConfigError::new(
                "Entra's on-behalf-of flow has neither an actor nor a requested token type",
                "leave them out, or use `OnBehalfOf::token_exchange`",
            ));
        }
        if let Some(actor) = &self.actor {
            actor.token.validate(ACTOR_TOKEN)?;
        }
        let types = self.actor.iter().map(|actor| &actor.token_type).chain(&self.requested);
        types.into_iter().try_for_each(|token_type| check_line("token type", token_type))
    }

    pub(super) fn describe(&self, digest: &mut Digest) {
        digest.field("form", if self.form == Form::TokenExchange { "token exchange" } else { "jwt bearer" });
        if let Some(actor) = &self.actor {
            actor.describe("actor", digest);
        }
        if let Some(requested) = &self.requested {
            digest.field("requested", requested);
        }
    }

    pub(super) fn sends(&self, name: &str) -> bool {
        match self.form {
            Form::TokenExchange => token_exchange::SENDS.contains(&name),
            Form::JwtBearer => name == "assertion" || name == "requested_token_use",
        }
    }
}

/// # Errors
/// The request brings no subject token, or one that has expired; an actor's token is not there now.
pub(super) async fn params(
    on_behalf_of: &OnBehalfOf,
    request: &TokenRequest,
    now: SystemTime,
) -> Result<GrantParams, TokenError> {
    let OnBehalfOf { form, actor, requested } = on_behalf_of;
    let subject = request.params.as_ref().and_then(|params| params.subject_token()).ok_or_else(no_subject)?;
    if expiry(subject).is_some_and(|end| end <= now) {
        return Err(subject_expired());
    }
    let token = subject.token().clone();
    match form {
        Form::TokenExchange => {
            token_exchange::params_of(token, subject.token_type(), actor.as_ref(), requested.as_deref()).await
        }
        Form::JwtBearer => Ok(GrantParams::new("urn:ietf:params:oauth:grant-type:jwt-bearer")
            .secret("assertion", token)
            .plain("requested_token_use", "on_behalf_of")),
    }
}

/// Until when a subject token is good, as far as that is known.
pub(crate) fn expiry(subject: &SubjectToken) -> Option<SystemTime> {
    let stated = jwt_exp(subject.token().expose());
    // The earlier one: neither is to be outlived.
    match (subject.given_expiry(), stated) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn no_subject() -> TokenError {
    let mend = "there is no subject token; put `TokenParams` with one into the request's extensions";
    TokenError::new(TokenErrorKind::Refused).with_detail(mend)
}

fn subject_expired() -> TokenError {
    let mend = "the subject token has expired and was not sent; the caller must bring a new one";
    TokenError::new(TokenErrorKind::SignInAgain).with_detail(mend)
}
