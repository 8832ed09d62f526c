//! `Prover`: makes the proofs of one key and keeps the nonces they need (RFC 9449 §4.2).

use std::fmt;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;

use super::nonces::Nonces;
use super::{DpopKey, hash};
use crate::jws::{complete, encode};
use crate::types::{TokenError, random, unavailable};

/// The header that a proof goes into.
pub(crate) const PROOF: HeaderName = HeaderName::from_static("dpop");
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// A key at work for one half: the endpoint has one, the requests of a layer have another.
pub(crate) struct Prover {
    key: DpopKey,
    nonces: Nonces,
}

/// The request that a proof is for.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) method: &'a Method,
    /// Scheme and authority of the URI; nonces are kept by it.
    pub(crate) origin: &'a str,
    /// Without query and fragment.
    pub(crate) path: &'a str,
    /// The token that goes with it.
    pub(crate) token: Option<&'a str>,
    pub(crate) now: SystemTime,
}

impl Prover {
    pub(crate) fn new(key: DpopKey) -> Self {
        Self { key, nonces: Nonces::default() }
    }

    /// A proof, good for one sending, with an id of its own. `nonce`: the server's answer to this very request; else the
    /// newest one of the server, which another request may have used up meanwhile.
    ///
    /// # Errors
    /// There is no randomness.
    pub(crate) fn prove(&self, about: About<'_>, nonce: Option<Box<str>>) -> Result<HeaderValue, TokenError> {
        let key = &*self.key.0;
        let issued = about.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            jti: &random::text::<16>()?,
            htm: about.method.as_str(),
            htu: &format!("{}{}", about.origin, about.path),
            iat: issued,
            ath: about.token.map(|token| hash(token.as_bytes())),
            nonce: nonce.or_else(|| self.nonces.of(about.origin)),
        };
        let input = format!("{}.{}", key.header, encode(&claims)?);
        let signature = key.key.sign(input.as_bytes()).map_err(|error| unavailable(error.to_string()))?;
        let mut proof = HeaderValue::try_from(complete(input, &signature))
            .map_err(|_| unavailable("the proof cannot be a header value"))?;
        // New each time: HTTP/2 should not waste its table on it.
        proof.set_sensitive(true);
        Ok(proof)
    }

    /// Remembers the nonce of an answer, if there is one, for the next proof to the same server (RFC 9449 §8.2).
    pub(crate) fn learn(&self, origin: &str, headers: &HeaderMap) -> Option<Box<str>> {
        let nonce = nonce_of(headers)?;
        self.remember(origin, &nonce);
        Some(nonce)
    }

    /// For the next proof to the same server.
    pub(crate) fn remember(&self, origin: &str, nonce: &str) {
        self.nonces.remember(origin, nonce);
    }
}

/// The nonce that an answer brings.
pub(crate) fn nonce_of(headers: &HeaderMap) -> Option<Box<str>> {
    headers.get(NONCE).and_then(|nonce| Nonces::read(nonce.as_bytes()))
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Box<str>>,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("key", &self.key).finish_non_exhaustive()
    }
}
