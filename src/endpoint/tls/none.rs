//! No TLS: the built-in client speaks plain http, which is allowed on this machine only.

use crate::types::ConfigError;

/// There are none.
pub(in crate::endpoint) struct ExtraRoots(());

impl ExtraRoots {
    /// # Errors
    /// There are some, and nothing would use them.
    pub(in crate::endpoint) fn from_pem(all: &[Vec<u8>]) -> Result<Self, ConfigError> {
        if all.is_empty() {
            return Ok(Self(()));
        }
        Err(ConfigError::new(
            "root certificates are for TLS, which is not compiled in",
            "turn on the feature `rustls` or `native-tls`",
        ))
    }
}

/// # Errors
/// None here.
pub(in crate::endpoint) fn configure(
    builder: reqwest::ClientBuilder,
    _: &ExtraRoots,
) -> Result<reqwest::ClientBuilder, Option<&'static str>> {
    Ok(builder)
}
