//! Sign-ins at the authorization server: what an authorization request asks, and the codes that were handed out for it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::record::form;
use super::shapes::Asked;

/// An authorization request that may be answered with a redirect (RFC 6749 §4.1.1).
pub(super) struct Authorization {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) scope: String,
    response_type: String,
    state: String,
    challenge: String,
    method: String,
}

impl Authorization {
    /// # Errors
    /// What is wrong, for a page of the server's own: where it is not sure whose request it is, it redirects nowhere
    /// (§4.1.2.1).
    pub(super) fn read(query: &str) -> Result<Self, &'static str> {
        let params = form(query.as_bytes());
        let text = |name: &str| {
            let mut values = params.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
            let value = values.next().unwrap_or_default();
            if values.next().is_some() { Err("A parameter is repeated (RFC 6749 §3.1).") } else { Ok(value) }
        };
        let authorization = Self {
            client: text("client_id")?,
            redirect_uri: text("redirect_uri")?,
            scope: text("scope")?,
            response_type: text("response_type")?,
            state: text("state")?,
            challenge: text("code_challenge")?,
            method: text("code_challenge_method")?,
        };
        if authorization.client.is_empty() || authorization.redirect_uri.is_empty() {
            return Err("client_id or redirect_uri is missing.");
        }
        Ok(authorization)
    }

    /// The error code for a request that is not served.
    pub(super) fn problem(&self, pkce_required: bool) -> Option<&'static str> {
        if self.response_type != "code" {
            return Some("unsupported_response_type");
        }
        let has_challenge = self.challenge.len() == 43 && self.method == "S256";
        let has_none = self.challenge.is_empty() && self.method.is_empty() && !pkce_required;
        (!has_challenge && !has_none).then_some("invalid_request")
    }

    /// Where the browser goes with this answer.
    pub(super) fn redirect(&self, answer: &[(&str, &str)], issuer: Option<&str>) -> String {
        let state = Some(("state", self.state.as_str())).filter(|(_, state)| !state.is_empty());
        let parameters = answer.iter().copied().chain(state).chain(issuer.map(|issuer| ("iss", issuer)));
        let query: Vec<String> = parameters
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let separator = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{separator}{}", self.redirect_uri, query.join("&"))
    }
}

/// All codes of one server. None is ever forgotten, so that a second use is noticed.
#[derive(Default)]
pub(super) struct Codes(HashMap<String, Code>);

struct Code {
    client: String,
    scope: String,
    redirect_uri: String,
    challenge: String,
    /// Of the tokens that come of it.
    family: u64,
    expires: SystemTime,
    spent: bool,
}

/// A code that is not taken.
pub(super) enum Rejected {
    Unknown,
    /// What came of its first use must go (RFC 6749 §4.1.2).
    SecondUse {
        family: u64,
    },
}

impl Codes {
    /// The longest life that RFC 6749 §4.1.2 recommends.
    const LIFETIME: Duration = Duration::from_secs(600);

    pub(super) fn add(&mut self, code: String, authorization: &Authorization, family: u64, now: SystemTime) {
        let code_of = Code {
            client: authorization.client.clone(),
            scope: authorization.scope.clone(),
            redirect_uri: authorization.redirect_uri.clone(),
            challenge: authorization.challenge.clone(),
            family,
            expires: now.checked_add(Self::LIFETIME).unwrap_or(now),
            spent: false,
        };
        self.0.insert(code, code_of);
    }

    /// The scope that was agreed on, and the family of its tokens.
    pub(super) fn redeem(&mut self, asked: &Asked, client: &str, now: SystemTime) -> Result<(String, u64), Rejected> {
        let code = asked.param("code").and_then(|code| self.0.get_mut(code)).ok_or(Rejected::Unknown)?;
        let verifier = asked.param("code_verifier").unwrap_or_default();
        let is_verified = match code.challenge.as_str() {
            "" => verifier.is_empty(),
            challenge => URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge,
        };
        let is_theirs = code.client == client && asked.param("redirect_uri") == Some(&code.redirect_uri);
        if !is_verified || !is_theirs || now >= code.expires {
            return Err(Rejected::Unknown);
        }
        if std::mem::replace(&mut code.spent, true) {
            return Err(Rejected::SecondUse { family: code.family });
        }
        Ok((code.scope.clone(), code.family))
    }
}
