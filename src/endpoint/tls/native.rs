//! TLS by the operating system's library, through the crate `native-tls`.

use super::wrong_pem;
use crate::types::ConfigError;

/// Certificate authorities that are trusted beside the system's.
pub(in crate::endpoint) struct ExtraRoots(Vec<reqwest::Certificate>);

impl ExtraRoots {
    /// # Errors
    /// A text that holds no certificate in PEM.
    pub(in crate::endpoint) fn from_pem(all: &[Vec<u8>]) -> Result<Self, ConfigError> {
        let mut certificates = Vec::new();
        for pem in all {
            match reqwest::Certificate::from_pem_bundle(pem) {
                Ok(some) if !some.is_empty() => certificates.extend(some),
                _ => return Err(wrong_pem()),
            }
        }
        Ok(Self(certificates))
    }
}

/// # Errors
/// None here.
pub(in crate::endpoint) fn configure(
    builder: reqwest::ClientBuilder,
    roots: &ExtraRoots,
) -> Result<reqwest::ClientBuilder, Option<&'static str>> {
    Ok(builder.tls_backend_native().tls_certs_merge(roots.0.iter().cloned()))
}
