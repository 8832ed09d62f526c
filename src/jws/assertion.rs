//! The assertion by which a client authenticates (RFC 7523 §2.2), made anew for each exchange (feature `jwt`).

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

use super::certificate::Thumbprints;
use super::encode::{complete, encode};
use super::signer::{SigningKey, hmac_sha256};
use crate::types::{ConfigError, Secret, TokenError, random};

/// The `typ` in the header of a client's assertion: what kind of JWT it says it is.
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
        let mut names: Vec<&str> = self.claims.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let is_repeated = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        if is_repeated || names.iter().any(|name| name.is_empty() || OWN.contains(name)) {
            return Err(ConfigError::new(
                "a claim of the client's assertions has no name, is there twice, or is one that is made anyway",
                "leave `iss`, `sub`, `aud`, `jti`, `iat` and `exp` out; the audience has a setting, `assertion_audience`",
            ));
        }
        Ok(())
    }
}

/// What an assertion says.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) audience: &'a str,
    pub(crate) now: SystemTime,
    pub(crate) options: &'a AssertionOptions,
}

impl Statement<'_> {
    /// Long enough for a slow network, short enough that a stolen one is worth little.
    const LIFETIME: Duration = Duration::from_secs(60);

    /// `private_key_jwt`.
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

    /// `client_secret_jwt`.
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
        let typ = match self.options.typ {
            None | Some(AssertionTyp::ClientAuthentication) => Some("client-authentication+jwt"),
            Some(AssertionTyp::Jwt) => Some("JWT"),
            Some(AssertionTyp::None) => None,
        };
        let header = Header { typ, alg: algorithm, kid: key_id, certificate };
        let claims = Claims {
            iss: self.client_id,
            sub: self.client_id,
            aud: self.audience,
            jti: &random::text::<16>()?,
            iat: issued,
            exp: issued.saturating_add(Self::LIFETIME.as_secs()),
            further: Further(&self.options.claims),
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
    sub: &'a str,
    /// One string, not a list: some servers take nothing else.
    aud: &'a str,
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
