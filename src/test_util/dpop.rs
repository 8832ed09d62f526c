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

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn request(header: &Value, claims: &Value) -> Parts {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let proof = format!("{}.{}.c2ln", part(header), part(claims));
        Request::post("https://api.example.com/a?b").header("dpop", proof).body(()).unwrap().into_parts().0
    }

    fn good() -> (Value, Value) {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
        // The token and its hash are those of RFC 9449 §7.1.
        let claims = json!({
            "jti": "0123456789abcdef", "htm": "POST", "htu": "https://api.example.com/a", "iat": NOW,
            "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
        });
        (header, claims)
    }

    const TOKEN: Option<&str> = Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");

    fn check(proofs: &mut Proofs, head: &Parts) -> Result<String, Problem> {
        proofs.check(head, TOKEN, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 30))
    }

    #[test]
    fn a_good_proof_is_taken_once_and_tells_its_key() {
        let (header, claims) = good();
        let mut proofs = Proofs::default();
        // The thumbprint is that of RFC 8037 A.3.
        let thumbprint = check(&mut proofs, &request(&header, &claims)).unwrap();
        assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let again = check(&mut proofs, &request(&header, &claims)).unwrap_err();
        assert_eq!(again, Problem::Invalid("the proof was used before"));
    }

    #[test]
    fn whatever_is_wrong_with_a_proof_is_found() {
        let (header, claims) = good();
        let edits: [(&str, Value); 13] = [
            ("typ", json!("JWT")),
            ("alg", json!("HS256")),
            ("alg", json!("none")),
            ("jwk", json!({ "kty": "oct", "k": "x" })),
            ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": "x", "d": "private" })),
            ("htm", json!("GET")),
            ("htu", json!("https://api.example.com/a?b")),
            ("htu", json!("https://other.example.com/a")),
            ("iat", json!(NOW - 31)),
            ("iat", json!(NOW + 91)),
            ("ath", Value::Null),
            ("ath", json!(URL_SAFE_NO_PAD.encode([0; 32]))),
            ("jti", json!("short")),
        ];
        for (name, value) in edits {
            let (mut header, mut claims) = (header.clone(), claims.clone());
            let part = if header.get(name).is_some() { &mut header } else { &mut claims };
            part[name] = value.clone();
            let problem = check(&mut Proofs::default(), &request(&header, &claims));
            assert!(matches!(problem, Err(Problem::Invalid(_))), "{name} {value}");
        }
        let mut twice = request(&header, &claims);
        twice.headers.append("dpop", "x".parse().unwrap());
        assert!(check(&mut Proofs::default(), &twice).is_err());
        twice.headers.remove("dpop");
        assert!(check(&mut Proofs::default(), &twice).is_err());
    }

    #[test]
    fn a_nonce_is_wanted_until_it_is_there() {
        let (header, mut claims) = good();
        let mut proofs = Proofs::default();
        proofs.rotate();
        assert_eq!(check(&mut proofs, &request(&header, &claims)), Err(Problem::NonceWanted));
        let nonce = proofs.nonce_to_tell(false).unwrap();
        assert_eq!(proofs.nonce_to_tell(false), None, "it was told");
        (claims["nonce"], claims["jti"]) = (json!(nonce), json!("another-of-its-own"));
        check(&mut proofs, &request(&header, &claims)).unwrap();
        assert_ne!(proofs.nonce_to_tell(true), Some(nonce));
    }
}
