//! Answers that are no token: which class of error they are (RFC 6749 §5.2, and what is seen besides).

use http::header::LOCATION;
use http::uri::{Authority, Uri};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::members::{Class, Member, Members, Unreadable};
use super::redactor::Redactor;
use super::{GrantKind, Reader};
use crate::token::Failed;
use crate::types::{TokenError, TokenErrorKind};

impl Reader<'_> {
    /// The error that the answer names, whatever its status: some servers send 200 with it.
    pub(super) fn refused(&self, status: StatusCode, members: &Members<'_>) -> Option<Failed> {
        let named = named(members)?;
        let dead = self.asking == GrantKind::RefreshToken && self.is_dead_refresh_code(&named.code);
        let kind = if dead { TokenErrorKind::SignInAgain } else { kind(status, &named.code) };
        let mut error = TokenError::new(kind);
        let is_known = is_registered(&named.code) || self.dead_refresh_codes.contains(&named.code);
        if let Some(code) = self.sent.code(&named.code, is_known) {
            error = error.with_code(code);
        }
        if let Some(description) = &named.description {
            let description = self.sent.mask(description);
            self.telemetry.described_refusal(error.code(), &description);
            error = error.with_description(description);
        }
        if kind == TokenErrorKind::EndpointNotFound {
            error = error.with_detail(self.suspect());
        }
        // A server error may have come after the refresh token was spent; a named refusal came instead.
        let maybe_spent = kind == TokenErrorKind::Unavailable && self.may_have_spent(status);
        Some(match (dead, maybe_spent) {
            (true, _) => Failed::dead(error),
            (false, true) => Failed::maybe_spent(error),
            (false, false) => error.into(),
        })
    }

    /// The error of an answer that names none.
    pub(super) fn bare_status(&self, status: StatusCode, unreadable: Option<Unreadable>) -> Failed {
        let class = unreadable.as_ref().map(|unreadable| unreadable.class);
        let kind = match (kind(status, ""), class) {
            (TokenErrorKind::EndpointNotFound, _) => TokenErrorKind::EndpointNotFound,
            // A page in between: of a proxy, a firewall, a login. The server itself has refused nothing.
            (_, Some(Class::Page)) => TokenErrorKind::Unavailable,
            (TokenErrorKind::Refused, Some(Class::Other)) => TokenErrorKind::Unavailable,
            (kind, _) => kind,
        };
        let error = TokenError::new(kind);
        let error = match unreadable {
            Some(unreadable) if class == Some(Class::Page) || kind == TokenErrorKind::EndpointNotFound => {
                error.with_detail(format!("{}; {}", unreadable.detail, self.suspect()))
            }
            None if kind == TokenErrorKind::EndpointNotFound => error.with_detail(self.suspect()),
            Some(unreadable) if class != Some(Class::Empty) => error.with_detail(unreadable.detail),
            _ => error,
        };
        if self.may_have_spent(status) { Failed::maybe_spent(error) } else { error.into() }
    }

    /// The URL that was asked, without its query, where it may be the wrong one.
    pub(super) fn suspect(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority = self.url.authority().map_or("", Authority::as_str);
        let url = format!("{scheme}://{authority}{}", self.url.path());
        // A part of the path may be a key that goes elsewhere too.
        match self.sent.is_in(&url) {
            true => "check the URL".to_owned(),
            false => format!("is {url} the right URL?"),
        }
    }

    fn is_dead_refresh_code(&self, code: &str) -> bool {
        code == "invalid_grant" || self.dead_refresh_codes.iter().any(|dead| dead == code)
    }

    fn may_have_spent(&self, status: StatusCode) -> bool {
        self.asking != GrantKind::Primary && status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE
    }
}

/// A redirect, of which only the origin is told: the rest of the URL may hold anything.
pub(super) fn redirected(headers: &HeaderMap, sent: &Redactor<'_>) -> TokenError {
    let error = TokenError::new(TokenErrorKind::Redirected);
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return error };
    let Ok(uri) = location.parse::<Uri>() else { return error };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return error.with_detail("it leads to another path of the same host");
    };
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("{scheme}://{host}{port}");
    if sent.is_in(&origin) { error } else { error.with_detail(format!("it leads to {origin}")) }
}

struct Named {
    code: String,
    /// It may hold what was sent.
    description: Option<Zeroizing<String>>,
}

fn named(members: &Members<'_>) -> Option<Named> {
    if let Some(code) = members.text("error") {
        let description = members.text("error_description").map(|text| Zeroizing::new(text.to_owned()));
        return Some(Named { code: code.to_owned(), description });
    }
    let Some(Member::Other(raw)) = members.get("errors") else { return None };
    let errors = serde_json::from_str::<Value>(raw).ok()?;
    let first = errors.get(0)?;
    let text = |name: &str| first.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Named { code: text("errorType")?, description: text("message").map(Zeroizing::new) })
}

/// The code decides where it is one of the known ones, the status otherwise. A server that says "slow down" by status is
/// believed first: asking on would make it worse.
fn kind(status: StatusCode, code: &str) -> TokenErrorKind {
    use TokenErrorKind::*;
    match (status.as_u16(), code) {
        (429, _) => Unavailable,
        (_, "invalid_client") => BadCredentials,
        (_, "unsupported_token_type") => Unsupported,
        (_, "temporarily_unavailable" | "server_error" | "slow_down" | "authorization_pending" | "use_dpop_nonce") => {
            Unavailable
        }
        (_, code) if is_registered(code) => Refused,
        (404 | 405 | 410, _) => EndpointNotFound,
        (408 | 425 | 500..=599, _) => Unavailable,
        (401, _) => BadCredentials,
        _ => Refused,
    }
}

/// Whether any server says it: nobody gains from being told.
pub(crate) fn is_registered(code: &str) -> bool {
    const CODES: [&str; 17] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
        "temporarily_unavailable",
        "server_error",
        "slow_down",
        "authorization_pending",
        "expired_token",
        "unsupported_token_type",
        "invalid_dpop_proof",
        "use_dpop_nonce",
    ];
    CODES.contains(&code)
}
