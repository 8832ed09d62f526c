//! The JWT bearer grant (RFC 7523 §2.1), with an assertion of somebody else's or of our own.

use std::time::SystemTime;

use super::GrantParams;
#[cfg(feature = "jwt")]
use crate::jws::JwtAssertion;
use crate::types::{ConfigError, Digest, Secret, SecretSource, TokenError};

const ASSERTION: &str = "assertion";

/// The assertion that is exchanged for a token: somebody else's, or one that is signed here.
///
/// You never name this type: pass a text, a [`SecretSource`], or a `JwtAssertion` (feature `jwt`) to
/// [`AuthConfig::jwt_bearer`](crate::AuthConfig::jwt_bearer).
#[derive(Clone, Debug)]
pub struct GrantAssertion(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Given(SecretSource),
    #[cfg(feature = "jwt")]
    Signed(Box<JwtAssertion>),
}

impl<T: Into<SecretSource>> From<T> for GrantAssertion {
    fn from(assertion: T) -> Self {
        Self(Kind::Given(assertion.into()))
    }
}

#[cfg(feature = "jwt")]
impl From<JwtAssertion> for GrantAssertion {
    fn from(assertion: JwtAssertion) -> Self {
        Self(Kind::Signed(Box::new(assertion)))
    }
}

impl GrantAssertion {
    /// Whether it is made here, so that it is addressed to somebody.
    pub(crate) fn is_signed_here(&self) -> bool {
        match &self.0 {
            Kind::Given(_) => false,
            #[cfg(feature = "jwt")]
            Kind::Signed(_) => true,
        }
    }

    /// Whether the scopes go into it, and not beside it.
    pub(super) fn takes_scopes(&self) -> bool {
        match &self.0 {
            Kind::Given(_) => false,
            #[cfg(feature = "jwt")]
            Kind::Signed(assertion) => assertion.takes_scopes(),
        }
    }

    pub(super) fn may_wait(&self) -> bool {
        match &self.0 {
            Kind::Given(source) => source.fixed().is_none(),
            #[cfg(feature = "jwt")]
            Kind::Signed(assertion) => assertion.may_wait(),
        }
    }

    /// Whether nothing in it says whose tokens it brings.
    pub(super) fn is_nameless(&self) -> bool {
        match &self.0 {
            Kind::Given(source) => source.is_nameless(),
            #[cfg(feature = "jwt")]
            Kind::Signed(_) => false,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        match &self.0 {
            Kind::Given(source) => source.validate(ASSERTION),
            #[cfg(feature = "jwt")]
            Kind::Signed(assertion) => assertion.validate(),
        }
    }

    pub(super) fn describe(&self, digest: &mut Digest) {
        match &self.0 {
            Kind::Given(source) => source.describe(digest),
            #[cfg(feature = "jwt")]
            Kind::Signed(assertion) => assertion.describe(digest),
        }
    }
}

/// # Errors
/// The assertion is not there now, or cannot be signed.
#[cfg_attr(not(feature = "jwt"), expect(unused_variables, reason = "only what we sign says these"))]
pub(super) async fn params(
    assertion: &GrantAssertion,
    audience: &str,
    scope: &str,
    now: SystemTime,
) -> Result<GrantParams, TokenError> {
    let assertion = match &assertion.0 {
        Kind::Given(source) => source.read_line(ASSERTION).await?,
        #[cfg(feature = "jwt")]
        Kind::Signed(assertion) => assertion.sign(audience, scope, now).await?,
    };
    Ok(params_of(assertion))
}

/// The parameters for an assertion that is at hand.
pub(super) fn params_of(assertion: Secret<String>) -> GrantParams {
    GrantParams::new("urn:ietf:params:oauth:grant-type:jwt-bearer").secret(ASSERTION, assertion)
}
