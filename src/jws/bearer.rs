//! `JwtAssertion`: an assertion of ours that is exchanged for a token (RFC 7523 §2.1), and what it says (feature `jwt`).

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::assertion::{AssertionTyp, Statement, is_wrong};
use super::signer::SigningKey;
use crate::types::{ConfigError, Digest, Secret, TokenError, check_line};

/// A signed assertion that is exchanged for a token (RFC 7523 §2.1), as for service accounts of Google and with Salesforce and
/// DocuSign: for [`AuthConfig::jwt_bearer`](crate::AuthConfig::jwt_bearer).
///
/// Each exchange has an assertion of its own, with an id of its own (`jti`), signed when it is sent and valid for
/// [`lifetime`](Self::lifetime) from then on by the [`clock`](crate::AuthConfigBuilder::clock) of the configuration. There is no
/// `nbf`: a client whose clock is a second ahead would be refused.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::{AuthConfig, ClientAuth, JwtAssertion, SecretSource, SigningAlgorithm, SigningKey};
///
/// let key = SigningKey::from_pem(SigningAlgorithm::Rs256, SecretSource::file("/run/secrets/batch.pem"));
/// let assertion = JwtAssertion::new("client-id", key).subject("batch@example.com");
/// let cfg = AuthConfig::jwt_bearer("https://auth.example.com/token", ClientAuth::anonymous(), assertion)
///     .assertion_audience("https://auth.example.com")
///     .scopes(["read"])
///     .origin("https://api.example.com")
///     .build()?;
/// # }
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtAssertion {
    key: SigningKey,
    issuer: String,
    subject: Subject,
    audience: Option<String>,
    lifetime: Duration,
    scope_claim: bool,
    typ: AssertionTyp,
    claims: Vec<(String, Value)>,
}

/// Whose token is asked for (`sub`).
#[derive(Clone)]
enum Subject {
    Issuer,
    Named(String),
    None,
}

impl JwtAssertion {
    /// Servers take no assertion that lives longer.
    const LONGEST: Duration = Duration::from_secs(3600);

    /// Who makes it (`iss`), and the key that signs it. The key says which of the issuer's keys it is:
    /// [`SigningKey::with_key_id`].
    pub fn new(issuer: impl Into<String>, key: SigningKey) -> Self {
        Self {
            key,
            issuer: issuer.into(),
            subject: Subject::Issuer,
            audience: None,
            lifetime: Statement::LIFETIME,
            scope_claim: false,
            typ: AssertionTyp::Jwt,
            claims: Vec::new(),
        }
    }

    /// Whose token is asked for (`sub`): a person, an account. Default: the issuer's own.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Subject::Named(subject.into());
        self
    }

    /// Without `sub`, though RFC 7523 §3 asks for it: a service account of Google that acts for nobody else has none.
    pub fn without_subject(mut self) -> Self {
        self.subject = Subject::None;
        self
    }

    /// For whom it is (`aud`). Default: as for the client's own assertions
    /// ([`assertion_audience`](crate::AuthConfigBuilder::assertion_audience); without that the issuer identifier of the server
    /// where it is known, the token URL otherwise).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How long it is good for. Default: 60 s, long enough for a slow network and short enough that a stolen one is worth little.
    /// Less than a second and more than an hour are errors. Whole seconds count.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The scopes go into the assertion (claim `scope`), in place of the parameter of the token request: Google and DocuSign
    /// look for them there.
    pub fn scope_claim(mut self) -> Self {
        self.scope_claim = true;
        self
    }

    /// The `typ` in its header. Default: [`Jwt`](AssertionTyp::Jwt).
    pub fn typ(mut self, typ: AssertionTyp) -> Self {
        self.typ = typ;
        self
    }

    /// A further claim. Repeatable. One that is made anyway (`iss`, `sub`, `aud`, `jti`, `iat`, `exp`; with
    /// [`scope_claim`](Self::scope_claim) also `scope`) is an error.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }

    pub(crate) fn takes_scopes(&self) -> bool {
        self.scope_claim
    }

    /// Whether signing it may have to wait for somebody else.
    pub(crate) fn may_wait(&self) -> bool {
        self.key.may_wait()
    }

    /// # Errors
    /// A name that is none, a lifetime that no server takes, a claim that is made anyway, a key that cannot sign.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        check_line("issuer of the assertion", &self.issuer)?;
        if let Subject::Named(subject) = &self.subject {
            check_line("subject of the assertion", subject)?;
        }
        self.audience.iter().try_for_each(|audience| check_line("audience of the assertion", audience))?;
        if self.lifetime < Duration::from_secs(1) || self.lifetime > Self::LONGEST {
            return Err(ConfigError::new(
                "the lifetime of the assertion is not between a second and an hour",
                "60 s is the default; the lifetime of the token is for the server to say",
            ));
        }
        let own = ["iss", "sub", "aud", "jti", "iat", "exp", "scope"];
        let made = if self.scope_claim { &own[..] } else { own.split_last().map_or(&own[..], |(_, rest)| rest) };
        if is_wrong(&self.claims, made) {
            return Err(ConfigError::new(
                "a claim of the assertion has no name, is there twice, or is one that is made anyway",
                "leave it out, or use the method of that name",
            ));
        }
        self.key.validate()
    }

    /// What tells its tokens from those of another: everything that it says and that does not change by itself.
    pub(crate) fn describe(&self, digest: &mut Digest) {
        digest.field("issuer", &self.issuer);
        match &self.subject {
            Subject::Issuer => digest.field("subject", &self.issuer),
            Subject::Named(subject) => digest.field("subject", subject),
            Subject::None => {}
        }
        if let Some(audience) = &self.audience {
            digest.field("assertion audience", audience);
        }
        let claims: Vec<String> = self.claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
        digest.list("claims", claims.iter().map(String::as_str));
    }

    /// One for one exchange. `audience`: where none of its own was named.
    ///
    /// # Errors
    /// The key cannot be read, or does not sign.
    pub(crate) async fn sign(
        &self,
        audience: &str,
        scope: &str,
        now: SystemTime,
    ) -> Result<Secret<String>, TokenError> {
        let statement = Statement {
            issuer: &self.issuer,
            subject: match &self.subject {
                Subject::Issuer => Some(&self.issuer),
                Subject::Named(subject) => Some(subject),
                Subject::None => None,
            },
            audience: self.audience.as_deref().unwrap_or(audience),
            scope: (self.scope_claim && !scope.is_empty()).then_some(scope),
            now,
            lifetime: self.lifetime,
            typ: self.typ,
            claims: &self.claims,
        };
        let pem = match self.key.pem() {
            Some(source) => Some(source.read("signing key").await?),
            None => None,
        };
        statement.signed(&self.key, pem.as_ref()).await
    }
}

/// Tells how it is signed and how long it lives, not who is in it.
impl fmt::Debug for JwtAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAssertion")
            .field("key", &self.key)
            .field("lifetime", &self.lifetime)
            .field("scope_claim", &self.scope_claim)
            .field("typ", &self.typ)
            .finish_non_exhaustive()
    }
}
