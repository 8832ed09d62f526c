//! The JWT bearer grant (RFC 7523 §2.1).

use super::GrantParams;
use crate::types::{ConfigError, Secret, SecretSource, TokenError};

const ASSERTION: &str = "assertion";

pub(super) fn validate(assertion: &SecretSource) -> Result<(), ConfigError> {
    assertion.validate(ASSERTION)
}

/// # Errors
/// The assertion is not there now.
pub(super) async fn params(assertion: &SecretSource) -> Result<GrantParams, TokenError> {
    Ok(params_of(assertion.read_line(ASSERTION).await?))
}

/// The parameters for an assertion that was read already.
pub(super) fn params_of(assertion: Secret<String>) -> GrantParams {
    GrantParams::new("urn:ietf:params:oauth:grant-type:jwt-bearer").secret(ASSERTION, assertion)
}
