//! Tokens that look like JWTs: real claims, no real signature.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What the token says. Times are written in whole seconds, as NumericDate (RFC 7519 §2).
pub(super) struct Claims<'a> {
    pub(super) subject: &'a str,
    pub(super) scope: &'a str,
    pub(super) id: &'a str,
    pub(super) issued: SystemTime,
    pub(super) expires: SystemTime,
}

/// A token of three parts whose signature is a fixed text: nobody can verify it, and nobody should.
pub(super) fn mint(claims: &Claims<'_>) -> String {
    let payload = serde_json::json!({
        "sub": claims.subject,
        "scope": claims.scope,
        "jti": claims.id,
        "iat": numeric_date(claims.issued),
        "exp": numeric_date(claims.expires),
    });
    let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"RS256"}"#);
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    let signature = URL_SAFE_NO_PAD.encode("not a signature");
    format!("{header}.{payload}.{signature}")
}

fn numeric_date(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

/// The payload, for tests.
#[cfg(test)]
pub(super) fn payload(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_can_be_read_back() {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let expires = issued + Duration::from_millis(60_900);
        let token = mint(&Claims { subject: "id", scope: "a \"b\"", id: "7", issued, expires });
        assert!(token.starts_with("eyJ") && token.split('.').count() == 3);
        let payload = payload(&token);
        assert_eq!((&payload["iat"], &payload["exp"]), (&1000.into(), &1060.into()));
        assert_eq!((&payload["sub"], &payload["scope"]), (&"id".into(), &"a \"b\"".into()));
    }
}
