//! `Certificate`: what the header of an assertion says of the key's certificate (RFC 7515 §4.1.6 to §4.1.8, feature `jwt`).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::types::{ConfigError, SecretSource, TokenError, unavailable};

/// The certificate of a [`SigningKey`](crate::SigningKey), in PEM, for servers that know a client's keys by it (Entra).
///
/// By default the header of the assertions has its SHA-256 thumbprint (`x5t#S256`). It is read for each assertion, as the
/// key is, so that both can be replaced. Whether it is the key's certificate is for the server to find out.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::{Certificate, SecretSource, SigningAlgorithm, SigningKey, providers};
///
/// let key = SigningKey::from_pem(SigningAlgorithm::Ps256, SecretSource::file("/run/secrets/client.key"))
///     .with_certificate(Certificate::from_pem(SecretSource::file("/run/secrets/client.crt")));
/// let scopes = ["https://graph.microsoft.com/.default"];
/// let cfg = providers::entra_certificate("contoso.onmicrosoft.com", "application-id", scopes, key)
///     .origin("https://graph.microsoft.com")
///     .build()?;
/// # }
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Certificate {
    pem: SecretSource,
    sha1: bool,
    sha256: bool,
    chain: bool,
}

const WHAT: &str = "certificate";

impl Certificate {
    /// One certificate or a chain, the client's own first.
    pub fn from_pem(pem: impl Into<SecretSource>) -> Self {
        Self { pem: pem.into(), sha1: false, sha256: true, chain: false }
    }

    /// Adds the SHA-1 thumbprint (`x5t`), which Entra's older documentation asks for.
    pub fn x5t(mut self) -> Self {
        self.sha1 = true;
        self
    }

    /// Leaves the SHA-256 thumbprint (`x5t#S256`) out.
    pub fn without_x5t_s256(mut self) -> Self {
        self.sha256 = false;
        self
    }

    /// Adds all certificates of the PEM (`x5c`), for servers that trust their issuer (Entra: subject name and issuer).
    pub fn x5c(mut self) -> Self {
        self.chain = true;
        self
    }

    /// # Errors
    /// A text that holds no certificate; a certificate of which nothing is said. The error does not quote it.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.sha1 || self.sha256 || self.chain) {
            return Err(ConfigError::new(
                "nothing of the certificate goes into the assertions",
                "leave `without_x5t_s256` out, or add `x5t` or `x5c`",
            ));
        }
        self.pem.check_set(WHAT)?;
        self.pem.fixed().map_or(Ok(()), |pem| self.thumbprints(pem.expose()).map(drop))
    }

    /// # Errors
    /// It is not there now, or is no certificate.
    pub(super) async fn read(&self) -> Result<Thumbprints, TokenError> {
        let pem = self.pem.read(WHAT).await?;
        self.thumbprints(pem.expose()).map_err(|error| unavailable(error.to_string()))
    }

    fn thumbprints(&self, pem: &str) -> Result<Thumbprints, ConfigError> {
        let chain = certificates(pem)?;
        let first = chain.first().map_or(&[][..], Vec::as_slice);
        Ok(Thumbprints {
            x5t: self.sha1.then(|| URL_SAFE_NO_PAD.encode(Sha1::digest(first))),
            x5t_s256: self.sha256.then(|| URL_SAFE_NO_PAD.encode(Sha256::digest(first))),
            x5c: if self.chain { chain.iter().map(|der| STANDARD.encode(der)).collect() } else { Vec::new() },
        })
    }
}

/// What goes into the header.
#[derive(Default, Serialize)]
pub(super) struct Thumbprints {
    #[serde(skip_serializing_if = "Option::is_none")]
    x5t: Option<String>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    x5t_s256: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

/// The certificates of a PEM (RFC 7468 §5), as DER; a private key beside them is passed over.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, ConfigError> {
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let (text, after) = after.split_once("-----END CERTIFICATE-----").ok_or_else(not_a_certificate)?;
        let text: String = text.split_ascii_whitespace().collect();
        let der = STANDARD.decode(text).map_err(|_| not_a_certificate())?;
        // A SEQUENCE whose length takes two bytes at least: no certificate is shorter.
        if der.len() < 128 || der.first() != Some(&0x30) {
            return Err(not_a_certificate());
        }
        found.push(der);
        rest = after;
    }
    if found.is_empty() { Err(not_a_certificate()) } else { Ok(found) }
}

fn not_a_certificate() -> ConfigError {
    ConfigError::new(
        "the certificate is not one in PEM",
        "it begins with `-----BEGIN CERTIFICATE-----`; convert DER with `openssl x509 -inform der`",
    )
}
