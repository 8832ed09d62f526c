//! `LocalKey`: a key in this process's memory, and what signs with it (feature `jwt`).

use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner};

#[cfg(feature = "dpop")]
use zeroize::Zeroizing;

use crate::types::{ConfigError, Secret};

/// A key that is here, rather than with a [`Signer`](crate::Signer). It is wiped when dropped.
#[derive(Clone)]
pub(crate) struct LocalKey {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
}

impl LocalKey {
    /// A private key in PEM. Whether it can sign is told by [`check`](Self::check).
    ///
    /// # Errors
    /// What is no private key for that algorithm. What the parser says is not told: it may quote the key.
    pub(crate) fn from_pem(algorithm: SigningAlgorithm, pem: &Secret<String>) -> Result<Self, ConfigError> {
        let backend = backend()?;
        let signs = algorithm.of_local_key()?;
        let pem = pem.expose().as_bytes();
        let key = match algorithm {
            SigningAlgorithm::Es256 | SigningAlgorithm::Es384 | SigningAlgorithm::Es512 => {
                EncodingKey::from_ec_pem(pem)
            }
            SigningAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        };
        let key = Self { algorithm: signs, key: key.map_err(|_| not_a_key(signs))? };
        if key.key.family() == jsonwebtoken::AlgorithmFamily::Rsa {
            let components = (backend.key_utils.rsa_pub_components_from_private_key)(key.key.as_bytes());
            require_2048_bits(&components.map_err(|_| not_a_key(signs))?.0)?;
        }
        Ok(key)
    }

    pub(crate) fn hmac_sha256(secret: &Secret<String>) -> Self {
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        Self { algorithm: jsonwebtoken::Algorithm::HS256, key }
    }

    /// A new key on P-256 (FIPS 186-5 A.2.2: random bits, drawn again if they are out of range).
    ///
    /// # Errors
    /// There is no randomness, or nothing to compute the public half with.
    #[cfg(feature = "dpop")]
    pub(crate) fn generate_es256() -> Result<Self, ConfigError> {
        // Out of range is one in four thousand million.
        Self::draw_es256().or_else(|_| Self::draw_es256())
    }

    #[cfg(feature = "dpop")]
    fn draw_es256() -> Result<Self, ConfigError> {
        /// PKCS#8 around a `ECPrivateKey` without its public half (RFC 5915 §3), up to the private one.
        const HEAD: [u8; 35] = [
            0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
            0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
        ];
        let mut der = Zeroizing::new([0; HEAD.len() + 32]);
        let (head, private) = der.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        getrandom::fill(private)
            .map_err(|_| ConfigError::new("the operating system gives no random numbers", "bring a key of your own"))?;
        let key = Self { algorithm: jsonwebtoken::Algorithm::ES256, key: EncodingKey::from_ec_der(&*der) };
        key.check()?;
        Ok(key)
    }

    /// Its public half as a JWK: the required members and no others, in the order of RFC 7638 §3.
    ///
    /// # Errors
    /// It has none.
    #[cfg(feature = "dpop")]
    pub(crate) fn jwk(&self) -> Result<String, ConfigError> {
        use base64::Engine as _;
        use jsonwebtoken::Algorithm;
        use jsonwebtoken::jwk::EllipticCurve;

        let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let number = |bytes: &[u8]| text(bytes.get(leading_zeros(bytes)..).unwrap_or_default());
        let utils = &backend()?.key_utils;
        let der = self.key.as_bytes();
        let jwk = match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if self.algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
                (utils.ec_pub_components_from_private_key)(der, self.algorithm)
                    .map(|(_, x, y)| format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, text(&x), text(&y)))
            }
            Algorithm::EdDSA => (utils.ed_pub_components_from_private_key)(der, &EllipticCurve::Ed25519)
                .map(|x| format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(&x))),
            _ => (utils.rsa_pub_components_from_private_key)(der)
                .map(|(n, e)| format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, number(&e), number(&n))),
        };
        jwk.map_err(|_| not_a_key(self.algorithm))
    }

    /// # Errors
    /// It cannot sign.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.signer().map(drop)
    }

    /// The signature, not encoded.
    ///
    /// # Errors
    /// It cannot sign.
    pub(crate) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, ConfigError> {
        self.signer()?.try_sign(input).map_err(|_| not_a_key(self.algorithm))
    }

    /// Made for each signature: a signer may not leave its thread.
    fn signer(&self) -> Result<Box<dyn JwtSigner>, ConfigError> {
        (backend()?.signer_factory)(&self.algorithm, &self.key).map_err(|_| not_a_key(self.algorithm))
    }
}

/// How an assertion or a proof is signed with a private key (RFC 7518 §3.1, RFC 8037 §3.1).
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
    /// ECDSA with P-521 and SHA-512; with a [`Signer`](crate::Signer) only.
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

    pub(crate) fn of_local_key(self) -> Result<jsonwebtoken::Algorithm, ConfigError> {
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

/// What does the cryptography. `jsonwebtoken`'s own choice is not used: it panics where there are none or two, and asking
/// for it would fix it for the whole process.
///
/// # Errors
/// None is there.
pub(crate) fn backend() -> Result<&'static CryptoProvider, ConfigError> {
    #[cfg(feature = "jwt-aws-lc-rs")]
    return Ok(&jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER);
    #[cfg(all(feature = "jwt-rust-crypto", not(feature = "jwt-aws-lc-rs")))]
    return Ok(&jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER);
    #[cfg(not(any(feature = "jwt-aws-lc-rs", feature = "jwt-rust-crypto")))]
    return Err(ConfigError::new(
        "there is no cryptography to sign with",
        "enable the feature `jwt-aws-lc-rs` or `jwt-rust-crypto` of tower-oauth2-client, or use your own `Signer`",
    ));
}

fn not_a_key(algorithm: jsonwebtoken::Algorithm) -> ConfigError {
    ConfigError::new(
        format!("the signing key is not a private key for {algorithm:?}"),
        "it is PEM that begins with `-----BEGIN PRIVATE KEY-----` (PKCS#8), of the algorithm's kind and curve; RSA from \
         2048 bits",
    )
}

/// Shorter ones are not allowed (RFC 7518 §3.3), and the shortest have no room for the hash, which some signers meet with
/// a panic.
fn require_2048_bits(modulus: &[u8]) -> Result<(), ConfigError> {
    if modulus.len() - leading_zeros(modulus) < 256 {
        return Err(ConfigError::new("the RSA key has fewer than 2048 bits", "make a longer one (RFC 7518 §3.3)"));
    }
    Ok(())
}

fn leading_zeros(number: &[u8]) -> usize {
    number.iter().take_while(|byte| **byte == 0).count()
}
