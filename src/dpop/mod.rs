//! `DpopKey`: the key that tokens are bound to (RFC 9449), and the proofs that it is ours (feature `dpop`).
//!
//! Both halves prove: the endpoint on a token request, the service on each request with a token. This module knows neither.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::jws::{LocalKey, SigningAlgorithm};
use crate::types::{ConfigError, Secret};

mod nonces;
mod proof;
#[cfg(test)]
mod tests;

pub(crate) use proof::{About, PROOF, Prover, nonce_of};

/// The key that tokens are bound to by DPoP (RFC 9449): a stolen token cannot be used without this key.
///
/// A configuration has one key, [`AuthConfigBuilder::dpop`](crate::AuthConfigBuilder::dpop). Its tokens are asked for and
/// used with that key and with no other, so a key lives as long as its tokens: one made when the program starts
/// is enough where tokens are kept in memory, and one of your own where a refresh token outlives the process (the refresh
/// tokens of a public client are bound to the key too, RFC 9449 §5).
///
/// It signs where it is used, in the middle of `call`, once for each sending: for ES256 that is in the order of 0.1 ms of
/// computing, far more than all else that happens to a request here. So the key must be in memory. Clones share it.
///
/// Where a server answers that it wants its nonce in the proof (§9), the request is sent again with the same token, once for
/// each sending: with the resend after a rejected token that is four times at worst. For that, head and body of each request
/// are copied once more than without a key.
///
/// ```
/// # #[cfg(all(feature = "test-util", feature = "jwt-rust-crypto"))] {
/// use tower::{Layer, ServiceExt};
/// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, DpopKey};
///
/// # tokio_test::block_on(async {
/// # let clock = TestClock::new();
/// # let auth = AuthServer::new(clock.clone()).require_dpop();
/// # let api = Api::new(&auth);
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .dpop(DpopKey::generate()?)
///     .origin("https://api.example.com")
/// #   .clock(clock)
///     .build()?;
/// let client = AuthLayer::builder(cfg).http_client(auth.clone()).build()?.layer(api.clone());
///
/// let request = http::Request::get("https://api.example.com/items").body(String::new())?;
/// assert_eq!(client.oneshot(request).await?.status(), 200);
/// let sent = &api.requests()[0];
/// assert!(sent.header("authorization").is_some_and(|value| value.starts_with("DPoP ")));
/// assert!(sent.header("dpop").is_some(), "the proof");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct DpopKey(Arc<Inner>);

struct Inner {
    key: LocalKey,
    algorithm: SigningAlgorithm,
    /// The header of every proof, encoded: it names algorithm and public key.
    header: String,
    thumbprint: String,
}

impl DpopKey {
    /// A new key for ES256, the algorithm that servers with DPoP have in common, from the random numbers of the operating
    /// system. It is gone with its last clone.
    ///
    /// # Errors
    /// The features `jwt-aws-lc-rs` and `jwt-rust-crypto` are both off: there is nothing to sign with. The operating
    /// system gives no random numbers.
    pub fn generate() -> Result<Self, ConfigError> {
        Self::of(LocalKey::generate_es256()?, SigningAlgorithm::Es256)
    }

    /// Your own key in PEM, written as for [`SigningKey::from_pem`](crate::SigningKey::from_pem). The text must not come
    /// from a file that may change: with another key the tokens are worth nothing.
    ///
    /// ```
    /// # #[cfg(any(feature = "jwt-aws-lc-rs", feature = "jwt-rust-crypto"))] {
    /// use tower_oauth2_client::{DpopKey, SigningAlgorithm};
    ///
    /// // openssl genpkey -algorithm ed25519
    /// let pem = "-----BEGIN PRIVATE KEY-----\n\
    ///     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    ///     -----END PRIVATE KEY-----\n";
    /// let key = DpopKey::from_pem(SigningAlgorithm::EdDsa, pem)?;
    /// assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// What is no private key for that algorithm, or an RSA key of fewer than 2048 bits; no backend to read it.
    pub fn from_pem(algorithm: SigningAlgorithm, pem: impl Into<Secret<String>>) -> Result<Self, ConfigError> {
        let key = LocalKey::from_pem(algorithm, &pem.into())?;
        key.check()?;
        Self::of(key, algorithm)
    }

    fn of(key: LocalKey, algorithm: SigningAlgorithm) -> Result<Self, ConfigError> {
        let jwk = key.jwk()?;
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"{}","jwk":{jwk}}}"#, algorithm.as_str());
        let thumbprint = hash(jwk.as_bytes());
        Ok(Self(Arc::new(Inner { key, algorithm, header: URL_SAFE_NO_PAD.encode(header), thumbprint })))
    }

    pub(crate) fn algorithm(&self) -> SigningAlgorithm {
        self.0.algorithm
    }

    /// The public key's SHA-256 thumbprint (RFC 7638): what servers write into a token as `cnf.jkt`, and what an
    /// authorization request names as `dpop_jkt` (RFC 9449 §10). It is no secret.
    pub fn thumbprint(&self) -> &str {
        &self.0.thumbprint
    }
}

/// SHA-256, in the alphabet of JWTs.
fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

/// Two are equal when they are the same key.
impl PartialEq for DpopKey {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint() == other.thumbprint()
    }
}

/// Tells the thumbprint only.
impl fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DpopKey({})", self.thumbprint())
    }
}
