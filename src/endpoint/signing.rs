//! `SigningKey`: what signs the assertions of a client (feature `jwt`): a private key in PEM, or a signer of yours.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner};

use crate::error::{BoxError, ConfigError};
use crate::secret::Secret;
use crate::secret_source::{SecretSource, unavailable};
use crate::token::TokenError;

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
pub struct SigningKey {
    key: Key,
    key_id: Option<String>,
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
        Self { key: Key::Pem(algorithm, pem.into()), key_id: None }
    }

    /// A signer of yours, for keys that never leave a KMS or an HSM.
    pub fn from_signer(signer: impl Signer) -> Self {
        Self { key: Key::Signer(Arc::new(signer)), key_id: None }
    }

    /// The `kid` of the assertions: which of the client's keys this is. Left out by default.
    pub fn with_key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
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

    /// Where the PEM is read from; `None` for a signer.
    pub(crate) fn pem(&self) -> Option<&SecretSource> {
        match &self.key {
            Key::Pem(_, pem) => Some(pem),
            Key::Signer(_) => None,
        }
    }

    /// # Errors
    /// A key that cannot sign, as far as it is known already; PEM without a backend to read it.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Key::Pem(algorithm, pem) = &self.key else { return Ok(()) };
        backend()?;
        algorithm.of_pem()?;
        pem.fixed().map_or(Ok(()), |pem| pem_signer(*algorithm, pem).map(drop))
    }

    /// Whether both sign in the same way; keys are not compared.
    pub(crate) fn is_like(&self, other: &SigningKey) -> bool {
        let same_place = match (self.pem(), other.pem()) {
            (Some(one), Some(other)) => one.is_like(other),
            (None, None) => true,
            _ => false,
        };
        same_place && self.algorithm() == other.algorithm() && self.key_id == other.key_id
    }

    /// The signature, not encoded. `pem` is what [`pem`](Self::pem) gave.
    pub(crate) async fn sign(&self, input: &[u8], pem: Option<&Secret<String>>) -> Result<Vec<u8>, TokenError> {
        match (&self.key, pem) {
            (Key::Signer(signer), _) => signer
                .sign_boxed(input)
                .await
                .map_err(|error| TokenError::from_box_or(error, || unavailable("the signer failed"))),
            (Key::Pem(algorithm, _), Some(pem)) => {
                let signer = pem_signer(*algorithm, pem).map_err(|error| unavailable(error.to_string()))?;
                sign_with(&*signer, input)
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

/// How an assertion is signed with a private key (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// ECDSA with P-521 and SHA-512; with a [`Signer`] only.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl SigningAlgorithm {
    /// Its name in a JWT's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    fn of_pem(self) -> Result<jsonwebtoken::Algorithm, ConfigError> {
        use jsonwebtoken::Algorithm;
        Ok(match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Es512 => {
                return Err(ConfigError::new("no backend signs ES512 with a key in PEM", "use ES256, or a `Signer`"));
            }
        })
    }
}

/// HMAC with SHA-256, for `client_secret_jwt`.
pub(super) fn hmac_sha256(secret: &Secret<String>, input: &[u8]) -> Result<Vec<u8>, TokenError> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    let backend = backend().map_err(|error| unavailable(error.to_string()))?;
    let signer = (backend.signer_factory)(&jsonwebtoken::Algorithm::HS256, &key)
        .map_err(|_| unavailable("the client secret cannot sign"))?;
    sign_with(&*signer, input)
}

/// What does the cryptography. `jsonwebtoken`'s own choice is not used: it panics where there are none or two, and asking
/// for it would fix it for the whole process.
///
/// # Errors
/// None is there.
pub(super) fn backend() -> Result<&'static CryptoProvider, ConfigError> {
    #[cfg(feature = "jwt-aws-lc-rs")]
    return Ok(&jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER);
    #[cfg(all(feature = "jwt-rust-crypto", not(feature = "jwt-aws-lc-rs")))]
    return Ok(&jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER);
    #[cfg(not(any(feature = "jwt-aws-lc-rs", feature = "jwt-rust-crypto")))]
    return Err(ConfigError::new(
        "there is no cryptography to sign with",
        "enable the feature `jwt-aws-lc-rs` or `jwt-rust-crypto` of tower-oauth2-client, or use a `Signer` of yours",
    ));
}

/// # Errors
/// What is no private key for that algorithm. What the parser says is not told: it may quote the key.
fn pem_signer(algorithm: SigningAlgorithm, pem: &Secret<String>) -> Result<Box<dyn JwtSigner>, ConfigError> {
    let wrong = || {
        ConfigError::new(
            format!("the signing key is not a private key for {}", algorithm.as_str()),
            "it is PEM that begins with `-----BEGIN PRIVATE KEY-----` (PKCS#8), of the algorithm's kind and curve; RSA from \
             2048 bits",
        )
    };
    let backend = backend()?;
    let signs = algorithm.of_pem()?;
    let pem = pem.expose().as_bytes();
    let key = match algorithm {
        SigningAlgorithm::Es256 | SigningAlgorithm::Es384 | SigningAlgorithm::Es512 => EncodingKey::from_ec_pem(pem),
        SigningAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem),
        _ => EncodingKey::from_rsa_pem(pem),
    };
    let key = key.map_err(|_| wrong())?;
    if key.family() == jsonwebtoken::AlgorithmFamily::Rsa {
        let (modulus, _) =
            (backend.key_utils.rsa_pub_components_from_private_key)(key.as_bytes()).map_err(|_| wrong())?;
        require_2048_bits(&modulus)?;
    }
    (backend.signer_factory)(&signs, &key).map_err(|_| wrong())
}

/// Shorter ones are not allowed (RFC 7518 §3.3), and the shortest have no room for the hash, which some signers meet with
/// a panic.
fn require_2048_bits(modulus: &[u8]) -> Result<(), ConfigError> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    if modulus.len() - zeros < 256 {
        return Err(ConfigError::new("the RSA key has fewer than 2048 bits", "make a longer one (RFC 7518 §3.3)"));
    }
    Ok(())
}

fn sign_with(signer: &dyn JwtSigner, input: &[u8]) -> Result<Vec<u8>, TokenError> {
    signer.try_sign(input).map_err(|_| unavailable("the assertion cannot be signed with this key"))
}
