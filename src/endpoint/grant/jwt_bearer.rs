//! The JWT bearer grant (RFC 7523 §2.1).

use super::GrantParams;
use crate::types::{ConfigError, SecretSource, TokenError};

const ASSERTION: &str = "assertion";

pub(super) fn validate(assertion: &SecretSource) -> Result<(), ConfigError> {
    assertion.validate(ASSERTION)
}

/// # Errors
/// The assertion is not there now.
pub(super) async fn params(assertion: &SecretSource) -> Result<GrantParams, TokenError> {
    let assertion = assertion.read_line(ASSERTION).await?;
    Ok(GrantParams::new("urn:ietf:params:oauth:grant-type:jwt-bearer").secret(ASSERTION, assertion))
}
