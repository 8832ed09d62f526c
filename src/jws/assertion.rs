//! The assertion by which a client authenticates (RFC 7523 §2.2), made anew for each exchange (feature `jwt`).

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::encode::{complete, encode};
use super::signer::{SigningKey, hmac_sha256};
use crate::types::{Secret, TokenError, random};

/// The value of `client_assertion_type`.
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What an assertion says.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) audience: &'a str,
    pub(crate) now: SystemTime,
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
        let input = self.signing_input(key.algorithm().as_str(), key.key_id())?;
        let signature = key.sign(input.as_bytes(), pem).await?;
        Ok(Secret::new(complete(input, &signature)))
    }

    /// `client_secret_jwt`.
    pub(crate) fn authenticated(self, secret: &Secret<String>) -> Result<Secret<String>, TokenError> {
        let input = self.signing_input("HS256", None)?;
        let signature = hmac_sha256(secret, input.as_bytes())?;
        Ok(Secret::new(complete(input, &signature)))
    }

    /// There is no `nbf`: a client whose clock is a second ahead would be refused.
    fn signing_input(self, algorithm: &str, key_id: Option<&str>) -> Result<String, TokenError> {
        let issued = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = Header { typ: "client-authentication+jwt", alg: algorithm, kid: key_id };
        let claims = Claims {
            iss: self.client_id,
            sub: self.client_id,
            aud: self.audience,
            jti: &random::text::<16>()?,
            iat: issued,
            exp: issued + Self::LIFETIME.as_secs(),
        };
        Ok(format!("{}.{}", encode(&header)?, encode(&claims)?))
    }
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
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
}
