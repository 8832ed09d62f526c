//! What to change after a token request that failed, in plain words.

use serde_json::Value;
use tower_oauth2_client::{TokenError, TokenErrorKind, TransportError};

use crate::client::Watched;
use crate::file::Loaded;

pub(crate) fn after(error: &TokenError, loaded: &Loaded, watched: &Watched) -> String {
    let last = watched.last();
    let seen = transport(error).unwrap_or_default();
    let code = error.code().map(|code| code.as_str());
    match (error.kind(), code) {
        (TokenErrorKind::BadCredentials, _) => credentials(loaded),
        (_, Some("invalid_scope")) => {
            format!("the server does not know or not allow one of these scopes: {}", listed(&loaded.scopes()))
        }
        (_, Some("unauthorized_client")) => {
            "allow this grant for the client at the server, or set another `grant`".into()
        }
        (_, Some("unsupported_grant_type")) => "the server has not got this grant: set another `grant`".into(),
        (_, Some("invalid_target")) => "check `resources` and `audiences`: the server does not know one of them".into(),
        (_, Some("invalid_grant")) => {
            "the assertion or code is not taken: check who made it, for whom (`audience`), its key and both clocks"
                .into()
        }
        (TokenErrorKind::Redirected, _) => match last.and_then(|exchange| exchange.location) {
            Some(location) => format!("set token_url to where it points, if that is the server's own: {location}"),
            None => "set token_url to where it points".into(),
        },
        (TokenErrorKind::EndpointNotFound, _) => {
            "check the path of token_url; with `issuer` in its place it is found by itself".into()
        }
        (TokenErrorKind::WrongIssuer, _) => {
            let theirs =
                last.and_then(|exchange| exchange.json?.get("issuer").and_then(Value::as_str).map(str::to_owned));
            theirs.map_or_else(String::new, |theirs| format!("the metadata say issuer = \"{theirs}\"; is that yours?"))
        }
        (TokenErrorKind::BadMetadata, _) => {
            "open ISSUER/.well-known/openid-configuration in a browser; without metadata set `token_url`".into()
        }
        (TokenErrorKind::Malformed | TokenErrorKind::Unavailable, _)
            if last.as_ref().is_some_and(|last| last.is_html) =>
        {
            "a page in HTML came: token_url is a page for people, or a proxy answers in the server's place".into()
        }
        (TokenErrorKind::Unreachable, _) if seen.contains("unknown authority") => {
            "name the authority's certificate: root_certificates = { file = \"ca.pem\" }".into()
        }
        (TokenErrorKind::Unreachable, _) if seen.contains("another host") => {
            "use the host name that is in the certificate".into()
        }
        (TokenErrorKind::Unreachable, _) if seen.contains("no TLS") => {
            "the port speaks no TLS: is it the one for http, or a proxy's?".into()
        }
        (TokenErrorKind::Unavailable, _) => match last {
            Some(exchange) => {
                format!("it answered with status {}: try again later, then ask who runs it", exchange.status)
            }
            None => String::new(),
        },
        _ => String::new(),
    }
}

/// What went wrong on the way.
pub(crate) fn transport(error: &TokenError) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<TransportError>()?;
    Some(cause.to_string())
}

fn credentials(loaded: &Loaded) -> String {
    let other = match loaded.text("client_auth") {
        Some("basic") => {
            "if both are right, the server may want client_auth = \"body\", or \"basic_raw\" where the secret has characters such as + or /"
        }
        Some("body") => "if both are right, the server may want client_auth = \"basic\"",
        Some("private_key_jwt") => {
            "if both are right, check that the server has the public key, and `assertion_audience`"
        }
        _ => "if both are right, check how this server wants clients to authenticate (`client_auth`)",
    };
    format!(
        "check client_id and what proves it (a secret copied with a blank, of another environment, expired); {other}"
    )
}

fn listed(scopes: &[String]) -> String {
    if scopes.is_empty() { "none are named in the file".into() } else { scopes.join(", ") }
}
