//! TLS by rustls. Its set-up is shared by all layers of a process: certificates are read once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::wrong_pem;
use crate::types::{BoxError, ConfigError, Digest};

/// Certificate authorities that are trusted beside the system's.
pub(in crate::endpoint) struct ExtraRoots {
    certificates: Vec<CertificateDer<'static>>,
    digest: [u8; 32],
}

impl ExtraRoots {
    /// # Errors
    /// A text that holds no certificate in PEM.
    pub(in crate::endpoint) fn from_pem(all: &[Vec<u8>]) -> Result<Self, ConfigError> {
        let (mut certificates, mut digest) = (Vec::new(), Digest::new("roots"));
        for pem in all {
            let before = certificates.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| wrong_pem())?;
                RootCertStore::empty().add(certificate.clone()).map_err(|_| wrong_pem())?;
                digest.field("certificate", &certificate);
                certificates.push(certificate);
            }
            if certificates.len() == before {
                return Err(wrong_pem());
            }
        }
        Ok(Self { certificates, digest: digest.finish() })
    }
}

/// Tells the builder to use rustls, whatever other features say.
///
/// # Errors
/// What is missing, where we know it.
pub(in crate::endpoint) fn configure(
    builder: reqwest::ClientBuilder,
    roots: &ExtraRoots,
) -> Result<reqwest::ClientBuilder, Option<&'static str>> {
    let provider = provider().ok_or(NO_PROVIDER)?;
    let config = client_config(roots, provider).map_err(|_| None)?;
    Ok(builder.tls_backend_preconfigured(config))
}

const NO_PROVIDER: &str = "rustls has no cryptography; install a provider at the start of `main` \
                           (`CryptoProvider::install_default`), or turn on this crate's feature `rustls`";

/// The TLS configuration that trusts the system's certificates and these.
///
/// The first call in a process reads the system's certificates, on systems where they are files. Later ones with the same
/// roots share what it made. A failure is not remembered.
///
/// # Errors
/// The system has no certificates.
fn client_config(roots: &ExtraRoots, provider: Arc<CryptoProvider>) -> Result<ClientConfig, BoxError> {
    // A resumed session is as good for one layer as for another: a client is known by what it sends, not by its connection.
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    if roots.certificates.is_empty() {
        if let Some(shared) = SYSTEM.get() {
            return Ok(shared.clone());
        }
        let verifier = Arc::new(Verifier::new(provider.clone())?);
        let made = with_verifier(verifier, provider)?;
        return Ok(SYSTEM.get_or_init(|| made).clone());
    }
    with_verifier(verifier(roots, provider.clone())?, provider)
}

/// One for each set of roots that is in use.
fn verifier(roots: &ExtraRoots, provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, BoxError> {
    static BY_ROOTS: Mutex<BTreeMap<[u8; 32], Weak<Verifier>>> = Mutex::new(BTreeMap::new());
    let find = |known: &BTreeMap<_, Weak<Verifier>>| known.get(&roots.digest).and_then(Weak::upgrade);
    if let Some(shared) = find(&BY_ROOTS.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(shared);
    }
    // Two at once read the certificates twice, and nobody waits under a lock.
    #[cfg(any(all(unix, not(target_os = "android")), target_os = "windows"))]
    let made = Arc::new(Verifier::new_with_extra_roots(roots.certificates.iter().cloned(), provider)?);
    #[cfg(not(any(all(unix, not(target_os = "android")), target_os = "windows")))]
    let made = return Err("this system takes no further root certificates".into());
    let mut known = BY_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, verifier| verifier.strong_count() > 0);
    known.insert(roots.digest, Arc::downgrade(&made));
    Ok(made)
}

fn with_verifier(verifier: Arc<Verifier>, provider: Arc<CryptoProvider>) -> Result<ClientConfig, BoxError> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The one that the program has installed, else AWS-LC.
#[cfg(feature = "rustls")]
fn provider() -> Option<Arc<CryptoProvider>> {
    let installed = CryptoProvider::get_default().cloned();
    installed.or_else(|| Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The one that the program has installed.
#[cfg(not(feature = "rustls"))]
fn provider() -> Option<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No other test installs one in this process.
    #[cfg(not(feature = "rustls"))]
    #[test]
    fn without_a_provider_the_client_cannot_be_made_and_says_why() {
        let missing = configure(reqwest::Client::builder(), &roots()).err().flatten();
        assert_eq!(missing, Some(NO_PROVIDER));
    }

    fn roots() -> ExtraRoots {
        let authority = include_bytes!("../../../tests/support/certificates/authority.pem");
        ExtraRoots::from_pem(&[authority.to_vec()]).unwrap()
    }

    #[test]
    fn a_verifier_is_shared_while_somebody_uses_it() {
        let roots = roots();
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let first = verifier(&roots, provider()).unwrap();
        assert!(Arc::ptr_eq(&first, &verifier(&roots, provider()).unwrap()));
        assert!(client_config(&roots, provider()).is_ok());
    }
}
