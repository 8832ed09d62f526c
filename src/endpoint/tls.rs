//! The TLS set-up of the built-in client, shared by all layers of a process: certificates are read once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::types::{BoxError, ConfigError, Digest};

/// Certificate authorities that are trusted beside the system's.
pub(super) struct ExtraRoots {
    certificates: Vec<CertificateDer<'static>>,
    digest: [u8; 32],
}

impl ExtraRoots {
    /// # Errors
    /// A text that holds no certificate in PEM.
    pub(super) fn from_pem(all: &[Vec<u8>]) -> Result<Self, ConfigError> {
        let (mut certificates, mut digest) = (Vec::new(), Digest::new("roots"));
        let wrong = || {
            ConfigError::new(
                "a certificate authority is not a certificate in PEM",
                "it begins with `-----BEGIN CERTIFICATE-----`",
            )
        };
        for pem in all {
            let before = certificates.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| wrong())?;
                RootCertStore::empty().add(certificate.clone()).map_err(|_| wrong())?;
                digest.field("certificate", &certificate);
                certificates.push(certificate);
            }
            if certificates.len() == before {
                return Err(wrong());
            }
        }
        Ok(Self { certificates, digest: digest.finish() })
    }
}

/// The TLS configuration that trusts the system's certificates and these.
///
/// The first call in a process reads the system's certificates, on systems where they are files. Later ones with the same
/// roots share what it made. A failure is not remembered.
///
/// # Errors
/// The system has no certificates.
pub(super) fn client_config(roots: &ExtraRoots) -> Result<ClientConfig, BoxError> {
    // A resumed session is as good for one layer as for another: a client is known by what it sends, not by its connection.
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    if roots.certificates.is_empty() {
        if let Some(shared) = SYSTEM.get() {
            return Ok(shared.clone());
        }
        let made = with_verifier(Arc::new(Verifier::new(provider())?))?;
        return Ok(SYSTEM.get_or_init(|| made).clone());
    }
    with_verifier(verifier(roots)?)
}

/// One for each set of roots that is in use.
fn verifier(roots: &ExtraRoots) -> Result<Arc<Verifier>, BoxError> {
    static BY_ROOTS: Mutex<BTreeMap<[u8; 32], Weak<Verifier>>> = Mutex::new(BTreeMap::new());
    let find = |known: &BTreeMap<_, Weak<Verifier>>| known.get(&roots.digest).and_then(Weak::upgrade);
    if let Some(shared) = find(&BY_ROOTS.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(shared);
    }
    // Two at once read the certificates twice, and nobody waits under a lock.
    #[cfg(any(all(unix, not(target_os = "android")), target_os = "windows"))]
    let made = Arc::new(Verifier::new_with_extra_roots(roots.certificates.iter().cloned(), provider())?);
    #[cfg(not(any(all(unix, not(target_os = "android")), target_os = "windows")))]
    let made = return Err("this system takes no further root certificates".into());
    let mut known = BY_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, verifier| verifier.strong_count() > 0);
    known.insert(roots.digest, Arc::downgrade(&made));
    Ok(made)
}

fn with_verifier(verifier: Arc<Verifier>) -> Result<ClientConfig, BoxError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The one that the program has installed, else AWS-LC.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> ExtraRoots {
        let authority = include_bytes!("../../tests/support/certificates/authority.pem");
        ExtraRoots::from_pem(&[authority.to_vec()]).unwrap()
    }

    #[test]
    fn a_verifier_is_shared_while_somebody_uses_it() {
        let roots = roots();
        let first = verifier(&roots).unwrap();
        assert!(Arc::ptr_eq(&first, &verifier(&roots).unwrap()));
        assert!(client_config(&roots).is_ok());
    }
}
