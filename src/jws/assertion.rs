//! What an assertion says (RFC 7523 §3): made anew for each exchange, signed and written as a JWT (feature `jwt`).

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

use super::certificate::Thumbprints;
use super::encode::{complete, encode};
use super::signer::{SigningKey, hmac_sha256};
use crate::types::{ConfigError, Secret, TokenError, random};

/// The `typ` in the header of an assertion: what kind of JWT it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AssertionTyp {
    /// `client-authentication+jwt` (rfc7523bis): no server takes it for another kind of JWT.
    ClientAuthentication,
    /// `JWT`, as Entra and older servers want it.
    Jwt,
    /// No `typ` at all.
    None,
}

/// What of an assertion the user decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AssertionOptions {
    pub(crate) typ: Option<AssertionTyp>,
    /// Further claims.
    pub(crate) claims: Vec<(String, Value)>,
}

impl AssertionOptions {
    /// # Errors
    /// There are some and no assertion is made; a claim that is made anyway or twice.
    pub(crate) fn validate(&self, is_made: bool) -> Result<(), ConfigError> {
        const OWN: [&str; 6] = ["iss", "sub", "aud", "jti", "iat", "exp"];
        if !is_made && *self != Self::default() {
            return Err(ConfigError::new(
                "there is no assertion to put a `typ` or a claim into",
                "leave them out, or use `ClientAuth::private_key_jwt` or `client_secret_jwt`",
            ));
        }
        if is_wrong(&self.claims, &OWN) {
            return Err(ConfigError::new(
                "a claim of the client's assertions has no name, is there twice, or is one that is made anyway",
                "leave `iss`, `sub`, `aud`, `jti`, `iat` and `exp` out; the audience has a setting, `assertion_audience`",
            ));
        }
        Ok(())
    }
}

/// Whether a claim has no name, is there twice, or has the name of one that is made anyway.
pub(super) fn is_wrong(claims: &[(String, Value)], own: &[&str]) -> bool {
    let mut names: Vec<&str> = claims.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let is_repeated = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
    is_repeated || names.iter().any(|name| name.is_empty() || own.contains(name))
}

/// What an assertion says.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: Option<&'a str>,
    pub(crate) audience: &'a str,
    /// The scopes asked for, where the server wants them in here.
    pub(crate) scope: Option<&'a str>,
    pub(crate) now: SystemTime,
    pub(crate) lifetime: Duration,
    pub(crate) typ: AssertionTyp,
    /// Further claims.
    pub(crate) claims: &'a [(String, Value)],
}

impl<'a> Statement<'a> {
    /// Long enough for a slow network, short enough that a stolen one is worth little.
    pub(crate) const LIFETIME: Duration = Duration::from_secs(60);

    /// That of a client about itself.
    pub(crate) fn of_client(
        client_id: &'a str,
        audience: &'a str,
        now: SystemTime,
        options: &'a AssertionOptions,
    ) -> Self {
        Self {
            issuer: client_id,
            subject: Some(client_id),
            audience,
            scope: None,
            now,
            lifetime: Self::LIFETIME,
            typ: options.typ.unwrap_or(AssertionTyp::ClientAuthentication),
            claims: &options.claims,
        }
    }

    /// With a private key.
    pub(crate) async fn signed(
        self,
        key: &SigningKey,
        pem: Option<&Secret<String>>,
    ) -> Result<Secret<String>, TokenError> {
        let certificate = match key.certificate() {
            Some(certificate) => certificate.read().await?,
            None => Thumbprints::default(),
        };
        let input = self.signing_input(key.algorithm().as_str(), key.key_id(), &certificate)?;
        let signature = key.sign(input.as_bytes(), pem).await?;
        Ok(Secret::new(complete(input, &signature)))
    }

    /// With a secret that the server has, too.
    pub(crate) fn authenticated(self, secret: &Secret<String>) -> Result<Secret<String>, TokenError> {
        let input = self.signing_input("HS256", None, &Thumbprints::default())?;
        let signature = hmac_sha256(secret, input.as_bytes())?;
        Ok(Secret::new(complete(input, &signature)))
    }

    /// There is no `nbf`: a client whose clock is a second ahead would be refused.
    fn signing_input(
        self,
        algorithm: &str,
        key_id: Option<&str>,
        certificate: &Thumbprints,
    ) -> Result<String, TokenError> {
        let issued = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let typ = match self.typ {
            AssertionTyp::ClientAuthentication => Some("client-authentication+jwt"),
            AssertionTyp::Jwt => Some("JWT"),
            AssertionTyp::None => None,
        };
        let header = Header { typ, alg: algorithm, kid: key_id, certificate };
        let claims = Claims {
            iss: self.issuer,
            sub: self.subject,
            aud: self.audience,
            scope: self.scope,
            jti: &random::text::<16>()?,
            iat: issued,
            exp: issued.saturating_add(self.lifetime.as_secs()),
            further: Further(self.claims),
        };
        Ok(format!("{}.{}", encode(&header)?, encode(&claims)?))
    }
}

#[derive(Serialize)]
struct Header<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'static str>,
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(flatten)]
    certificate: &'a Thumbprints,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    /// One string, not a list: some servers take nothing else.
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    jti: &'a str,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    further: Further<'a>,
}

/// The claims of the user's, in the order given.
struct Further<'a>(&'a [(String, Value)]);

impl Serialize for Further<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
