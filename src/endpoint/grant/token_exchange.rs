//! The token exchange grant (RFC 8693).

use super::GrantParams;
use crate::types::{ConfigError, Digest, Secret, SecretSource, TokenError, check_line};

/// What is exchanged for a token (RFC 8693 §2.1): somebody's token, and perhaps that of the one who acts for them.
///
/// Both are read for each exchange, so give them as a file or a function where they expire. For whom the new token is
/// meant, say [`audience`](crate::AuthConfigBuilder::audience) or [`resource`](crate::AuthConfigBuilder::resource).
///
/// An answer must name the kind of token it holds (`issued_token_type`, which [`Token::extra`](crate::Token::extra) has
/// then); one whose `token_type` is `N_A` is not for requests, and is an error.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, ClientAuth, SecretSource, TokenExchange};
///
/// // The token that Kubernetes gives a pod, for one that the API takes.
/// let pod = SecretSource::file("/var/run/secrets/tokens/pod");
/// let cfg = AuthConfig::token_exchange(
///     "https://auth.example.com/token",
///     ClientAuth::basic("id", "secret"),
///     TokenExchange::new(TokenExchange::JWT, pod),
/// )
/// .audience("payments")
/// .origin("https://api.example.com")
/// .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenExchange {
    subject: Typed,
    actor: Option<Typed>,
    requested: Option<String>,
}

/// A token never goes without its type.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) token_type: String,
    pub(super) token: SecretSource,
}

impl Typed {
    pub(super) fn describe(&self, label: &'static str, digest: &mut Digest) {
        digest.field(label, &self.token_type);
        self.token.describe(digest);
    }
}

/// The kinds of token that RFC 8693 §3 names; others are URIs, too.
impl TokenExchange {
    /// An access token of this authorization server.
    pub const ACCESS_TOKEN: &'static str = "urn:ietf:params:oauth:token-type:access_token";
    /// A refresh token of this authorization server.
    pub const REFRESH_TOKEN: &'static str = "urn:ietf:params:oauth:token-type:refresh_token";
    /// An ID token (OpenID Connect).
    pub const ID_TOKEN: &'static str = "urn:ietf:params:oauth:token-type:id_token";
    /// An identity assertion for another authorization server (draft-ietf-oauth-identity-assertion-authz-grant §3).
    pub const ID_JAG: &'static str = "urn:ietf:params:oauth:token-type:id-jag";
    /// Any JWT.
    pub const JWT: &'static str = "urn:ietf:params:oauth:token-type:jwt";
    /// A SAML 1.1 assertion, base64url-encoded.
    pub const SAML1: &'static str = "urn:ietf:params:oauth:token-type:saml1";
    /// A SAML 2.0 assertion, base64url-encoded.
    pub const SAML2: &'static str = "urn:ietf:params:oauth:token-type:saml2";
}

impl TokenExchange {
    /// On behalf of whom the new token is asked for (`subject_token_type` and `subject_token`).
    pub fn new(token_type: impl Into<String>, token: impl Into<SecretSource>) -> Self {
        let subject = Typed { token_type: token_type.into(), token: token.into() };
        Self { subject, actor: None, requested: None }
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

    pub(super) fn requested(&self) -> Option<&str> {
        self.requested.as_deref()
    }

    pub(super) fn or_requested(mut self, token_type: &str) -> Self {
        self.requested.get_or_insert_with(|| token_type.to_owned());
        self
    }

    pub(super) fn may_wait(&self) -> bool {
        self.tokens().any(|typed| typed.token.fixed().is_none())
    }

    pub(super) fn is_nameless(&self) -> bool {
        self.tokens().any(|typed| typed.token.is_nameless())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.subject.token.validate(SUBJECT_TOKEN)?;
        if let Some(actor) = &self.actor {
            actor.token.validate(ACTOR_TOKEN)?;
        }
        let types = self.tokens().map(|typed| &typed.token_type).chain(&self.requested);
        types.into_iter().try_for_each(|token_type| check_line("token type", token_type))
    }

    pub(super) fn describe(&self, digest: &mut Digest) {
        for (label, typed) in [("subject", Some(&self.subject)), ("actor", self.actor.as_ref())] {
            if let Some(typed) = typed {
                typed.describe(label, digest);
            }
        }
        if let Some(requested) = &self.requested {
            digest.field("requested", requested);
        }
    }

    fn tokens(&self) -> impl Iterator<Item = &Typed> {
        [&self.subject].into_iter().chain(&self.actor)
    }
}

pub(super) const SENDS: [&str; 5] =
    ["subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"];

const SUBJECT_TOKEN: &str = "subject token";
pub(super) const ACTOR_TOKEN: &str = "actor token";

/// # Errors
/// A token is not there now.
pub(super) async fn params(exchange: &TokenExchange) -> Result<GrantParams, TokenError> {
    let TokenExchange { subject, actor, requested } = exchange;
    let token = subject.token.read_line(SUBJECT_TOKEN).await?;
    params_of(token, &subject.token_type, actor.as_ref(), requested.as_deref()).await
}

/// The parameters for a subject token that was read already.
pub(super) async fn params_of(
    token: Secret<String>,
    token_type: &str,
    actor: Option<&Typed>,
    requested: Option<&str>,
) -> Result<GrantParams, TokenError> {
    let mut params = GrantParams::new("urn:ietf:params:oauth:grant-type:token-exchange")
        .secret("subject_token", token)
        .plain("subject_token_type", token_type);
    if let Some(actor) = actor {
        params = params
            .secret("actor_token", actor.token.read_line(ACTOR_TOKEN).await?)
            .plain("actor_token_type", &actor.token_type);
    }
    if let Some(requested) = requested {
        params = params.plain("requested_token_type", requested);
    }
    Ok(params)
}
