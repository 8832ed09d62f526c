//! What the authorization server says of itself (RFC 8414, OpenID Connect Discovery).

use http::Method;
use http::header::HOST;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::body::Answer;
use super::shapes::Refusal;

/// The metadata of the issuer whose well-known path was asked for, with `changes`.
pub(super) fn answer(head: &Parts, changes: &Map<String, Value>) -> Result<Answer, Refusal> {
    if head.method != Method::GET {
        return Err(Refusal::new(405, "invalid_request", "Metadata are read by GET (RFC 8414 §3.1)."));
    }
    let issuer = issuer(head).ok_or_else(|| Refusal::new(404, "not_found", "There are no metadata at this path."))?;
    let mut metadata = Map::new();
    for (name, path) in [
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("revocation_endpoint", "revoke"),
        ("device_authorization_endpoint", "device_authorization"),
    ] {
        metadata.insert(name.to_owned(), json!(format!("{}/{path}", issuer.trim_end_matches('/'))));
    }
    metadata.insert("issuer".to_owned(), json!(issuer));
    for (name, value) in changes {
        match value {
            Value::Null => drop(metadata.remove(name)),
            value => drop(metadata.insert(name.clone(), value.clone())),
        }
    }
    Ok(Answer::json(200, Value::Object(metadata).to_string()))
}

/// Over HTTP/1.1 the authority is in `Host`, and there is no TLS here.
fn issuer(head: &Parts) -> Option<String> {
    let path = head.uri.path();
    let path = match path.strip_prefix("/.well-known/oauth-authorization-server") {
        Some(path) => path,
        None => path.strip_suffix("/.well-known/openid-configuration")?,
    };
    let host = || head.headers.get(HOST)?.to_str().ok();
    let authority = head.uri.authority().map(|authority| authority.as_str()).or_else(host)?;
    Some(format!("{}://{authority}{path}", head.uri.scheme_str().unwrap_or("http")))
}
