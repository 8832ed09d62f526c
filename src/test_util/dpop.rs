//! Proofs as a server sees them (RFC 9449 §4.3): everything but the signature.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The header that tells the next nonce.
pub(super) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What one server remembers of proofs and nonces.
#[derive(Default)]
pub(super) struct Proofs {
    /// The `jti` of every proof that was seen.
    seen: HashSet<String>,
    /// The nonce that proofs must hold; `None`: they need none.
    nonce: Option<String>,
    issued: u64,
    rotates: bool,
    /// The nonce is to be told.
    news: bool,
}

/// Why a proof is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Invalid(&'static str),
    NonceWanted,
}

impl Proofs {
    /// How far a proof's `iat` may be from the server's time.
    const WINDOW: Duration = Duration::from_secs(60);

    /// Proofs must hold another nonce from now on.
    pub(super) fn new_nonce(&mut self) {
        self.issued += 1;
        self.nonce = Some(format!("nonce-{}", self.issued));
    }

    /// Each success brings a new nonce.
    pub(super) fn rotate(&mut self) {
        self.rotates = true;
        self.new_nonce();
    }

    /// What `DPoP-Nonce` says in the answer to the request that was checked last.
    pub(super) fn nonce_to_tell(&mut self, accepted: bool) -> Option<String> {
        if accepted && self.rotates {
            self.new_nonce();
            self.news = true;
        }
        if std::mem::take(&mut self.news) { self.nonce.clone() } else { None }
    }

    /// Checks the proof of a request; gives the thumbprint of its key.
    pub(super) fn check(&mut self, head: &Parts, token: Option<&str>, now: SystemTime) -> Result<String, Problem> {
        let invalid = Problem::Invalid;
        let mut proofs = head.headers.get_all("dpop").iter();
        let (Some(proof), None) = (proofs.next(), proofs.next()) else {
            return Err(invalid("there is not exactly one DPoP header"));
        };
        let (header, claims) = parse(proof.as_bytes()).ok_or(invalid("the proof is not a JWT"))?;
        let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);

        if text(&header, "typ").as_deref() != Some("dpop+jwt") {
            return Err(invalid("typ is not dpop+jwt"));
        }
        const ALGORITHMS: [&str; 9] = ["ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
        if !ALGORITHMS.iter().any(|algorithm| header["alg"] == *algorithm) {
            return Err(invalid("alg is not an asymmetric algorithm"));
        }
        let thumbprint = thumbprint(&header["jwk"]).ok_or(invalid("jwk is not a public key"))?;
        if text(&claims, "htm").as_deref() != Some(head.method.as_str()) {
            return Err(invalid("htm is not the method"));
        }
        if !text(&claims, "htu").is_some_and(|htu| is_target(&htu, head)) {
            return Err(invalid("htu is not the URI without its query"));
        }
        let issued = claims["iat"].as_u64().ok_or(invalid("there is no iat"))?;
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(issued);
        let off = now.duration_since(issued).or_else(|_| issued.duration_since(now)).unwrap_or_default();
        if off > Self::WINDOW {
            return Err(invalid("iat is not about now"));
        }
        if text(&claims, "ath") != token.map(hash) {
            return Err(invalid("ath is not the hash of the token"));
        }
        let id = text(&claims, "jti").filter(|id| id.len() >= 16).ok_or(invalid("there is no jti of 96 bits"))?;
        if !self.seen.insert(id) {
            return Err(invalid("the proof was used before"));
        }
        if self.nonce.is_some() && text(&claims, "nonce") != self.nonce {
            self.news = true;
            return Err(Problem::NonceWanted);
        }
        Ok(thumbprint)
    }
}

fn parse(proof: &[u8]) -> Option<(Value, Value)> {
    let mut parts = std::str::from_utf8(proof).ok()?.split('.');
    let mut part = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
    let (header, claims, signature) = (part()?, part()?, part()?);
    if parts.next().is_some() || signature.is_empty() {
        return None;
    }
    Some((serde_json::from_slice(&header).ok()?, serde_json::from_slice(&claims).ok()?))
}

/// RFC 7638 §3; `None` for what is no public key.
fn thumbprint(jwk: &Value) -> Option<String> {
    let private = ["d", "p", "q", "dp", "dq", "qi", "k"];
    if private.iter().any(|name| jwk.get(name).is_some()) {
        return None;
    }
    let names: &[&str] = match jwk["kty"].as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let members: Option<Vec<String>> =
        names.iter().map(|name| Some(format!(r#""{name}":{}"#, Value::from(jwk[*name].as_str()?)))).collect();
    Some(hash(&format!("{{{}}}", members?.join(","))))
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

/// Whether `htu` names the target of a request: the whole URI where it is there, else path and `Host` as far as they are.
fn is_target(htu: &str, head: &Parts) -> bool {
    let Ok(named) = htu.parse::<http::Uri>() else { return false };
    if named.query().is_some() || htu.contains(['?', '#']) || named.scheme().is_none() {
        return false;
    }
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(|authority| authority.as_str()).or(host);
    named.path() == head.uri.path()
        && head.uri.scheme().is_none_or(|scheme| named.scheme() == Some(scheme))
        && authority.is_none_or(|authority| named.authority().is_some_and(|own| own.as_str() == authority))
}
