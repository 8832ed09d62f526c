//! `SigningKey`: what signs assertions (feature `jwt`): a private key in PEM, or your own signer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::certificate::Certificate;
use super::key::{LocalKey, SigningAlgorithm, backend};
use crate::types::{BoxError, ConfigError, Secret, SecretSource, TokenError, unavailable};

/// A private key that signs assertions, or somebody who has one.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, ClientAuth, SecretSource, SigningAlgorithm, SigningKey};
///
/// let key = SigningKey::from_pem(SigningAlgorithm::Es256, SecretSource::file("/run/secrets/client.pem"))
///     .with_key_id("2026-01");
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::private_key_jwt("id", key))
///     .assertion_audience("https://auth.example.com")
///     .origin("https://api.example.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct SigningKey {
    key: Key,
    key_id: Option<String>,
    certificate: Option<Certificate>,
}

#[derive(Clone)]
enum Key {
    Pem(SigningAlgorithm, SecretSource),
    Signer(Arc<dyn DynSigner>),
}

impl SigningKey {
    /// A private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`), for RSA also PKCS#1 (`BEGIN RSA PRIVATE KEY`).
    ///
    /// A key given as text is checked by [`build`](crate::AuthConfigBuilder::build): it must fit the algorithm, and an RSA
    /// key must have 2048 bits (RFC 7518 §3.3). One from a file or a function is read and checked for each assertion, so
    /// that it can be replaced. An older EC key (`BEGIN EC PRIVATE KEY`) is converted by `openssl pkcs8 -topk8 -nocrypt`.
    ///
    /// It needs the feature `jwt-aws-lc-rs` or `jwt-rust-crypto`; with both, AWS-LC signs. Prefer it for RSA keys: the RSA
    /// of RustCrypto is not constant in time (RUSTSEC-2023-0071).
    pub fn from_pem(algorithm: SigningAlgorithm, pem: impl Into<SecretSource>) -> Self {
        Self { key: Key::Pem(algorithm, pem.into()), key_id: None, certificate: None }
    }

    /// Your own signer, for keys that never leave a KMS or an HSM.
    pub fn from_signer(signer: impl Signer) -> Self {
        Self { key: Key::Signer(Arc::new(signer)), key_id: None, certificate: None }
    }

    /// The `kid` of the assertions: which of the client's keys this is. Left out by default.
    pub fn with_key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Whose certificate this key is: its thumbprint goes into the header of the assertions (`x5t#S256`), as Entra knows
    /// a client's keys by.
    pub fn with_certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    pub(crate) fn algorithm(&self) -> SigningAlgorithm {
        match &self.key {
            Key::Pem(algorithm, _) => *algorithm,
            Key::Signer(signer) => signer.algorithm(),
        }
    }

    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Where the PEM is read from; `None` for a signer.
    pub(crate) fn pem(&self) -> Option<&SecretSource> {
        match &self.key {
            Key::Pem(_, pem) => Some(pem),
            Key::Signer(_) => None,
        }
    }

    /// Whether signing may have to wait for somebody else.
    pub(crate) fn may_wait(&self) -> bool {
        self.pem().is_none_or(|pem| pem.fixed().is_none())
    }

    /// # Errors
    /// A key that cannot sign, as far as it is known already; PEM without a backend to read it.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.certificate.as_ref().map_or(Ok(()), Certificate::validate)?;
        let Key::Pem(algorithm, pem) = &self.key else { return Ok(()) };
        backend()?;
        algorithm.of_local_key()?;
        pem.check_set("signing key")?;
        pem.fixed().map_or(Ok(()), |pem| LocalKey::from_pem(*algorithm, pem)?.check())
    }

    /// The signature, not encoded. `pem` is what [`pem`](Self::pem) gave.
    pub(crate) async fn sign(&self, input: &[u8], pem: Option<&Secret<String>>) -> Result<Vec<u8>, TokenError> {
        match (&self.key, pem) {
            (Key::Signer(signer), _) => signer
                .sign_boxed(input)
                .await
                .map_err(|error| TokenError::from_box_or(error, || unavailable("the signer failed"))),
            (Key::Pem(algorithm, _), Some(pem)) => {
                LocalKey::from_pem(*algorithm, pem).and_then(|key| key.sign(input)).map_err(cannot_sign)
            }
            (Key::Pem(..), None) => Err(unavailable("the signing key was not read")),
        }
    }
}

/// Tells the algorithm and where the key is.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("pem", &self.pem())
            .field("key_id", &self.key_id)
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// Signs with a key that is elsewhere: in a KMS, an HSM, an agent.
///
/// It is asked once for each exchange with the authorization server and has the time of one exchange (10 s by default).
///
/// ```
/// use tower_oauth2_client::{BoxError, ClientAuth, Signer, SigningAlgorithm, SigningKey};
///
/// struct Kms;
/// # impl Kms { async fn sign_sha256(&self, _: &[u8]) -> Result<Vec<u8>, BoxError> { Ok(vec![0; 256]) } }
///
/// impl Signer for Kms {
///     fn algorithm(&self) -> SigningAlgorithm {
///         SigningAlgorithm::Ps256
///     }
///
///     async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, BoxError> {
///         self.sign_sha256(signing_input).await
///     }
/// }
///
/// let auth = ClientAuth::private_key_jwt("id", SigningKey::from_signer(Kms).with_key_id("kms-1"));
/// ```
pub trait Signer: Send + Sync + 'static {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SigningAlgorithm;

    /// Signs `header.payload`, and returns the signature's bytes, not encoded.
    ///
    /// An ECDSA signature is `R` and `S` of fixed length one after the other (RFC 7518 §3.4). Many KMS return DER instead,
    /// which must be converted.
    fn sign(&self, signing_input: &[u8]) -> impl Future<Output = Result<Vec<u8>, BoxError>> + Send;
}

/// `Signer` behind a pointer.
trait DynSigner: Send + Sync {
    fn algorithm(&self) -> SigningAlgorithm;
    fn sign_boxed<'a>(&'a self, input: &'a [u8]) -> BoxSign<'a>;
}

type BoxSign<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, BoxError>> + Send + 'a>>;

impl<T: Signer> DynSigner for T {
    fn algorithm(&self) -> SigningAlgorithm {
        Signer::algorithm(self)
    }

    fn sign_boxed<'a>(&'a self, input: &'a [u8]) -> BoxSign<'a> {
        Box::pin(self.sign(input))
    }
}

/// HMAC with SHA-256, for `client_secret_jwt`.
pub(super) fn hmac_sha256(secret: &Secret<String>, input: &[u8]) -> Result<Vec<u8>, TokenError> {
    LocalKey::hmac_sha256(secret).sign(input).map_err(cannot_sign)
}

fn cannot_sign(error: ConfigError) -> TokenError {
    unavailable(error.to_string())
}
