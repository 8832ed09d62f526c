//! What the browser brought back: read, checked against what was asked, and believed only then (RFC 6749 §4.1.2).

use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

use super::{Secrets, SignInError, SignInErrorKind};
use crate::endpoint::{Issuer, Redactor, is_registered};
use crate::types::Secret;

/// The parameters that concern us; an empty value counts as absent (RFC 6749 §3.1).
#[derive(Default)]
pub(super) struct Redirect {
    state: Option<Secret<String>>,
    issuer: Option<Secret<String>>,
    error: Option<Secret<String>>,
    description: Option<Secret<String>>,
    code: Option<Secret<String>>,
}

/// What the server knows besides, and could send along in the words of an error.
pub(super) enum ClientSecret {
    None,
    Known(Secret<String>),
    /// It could not be read now: what is like it cannot be told from what is not.
    Unknown,
}

impl Redirect {
    /// `text` is a URI, a path with a query as servers see it, or a query alone.
    ///
    /// # Errors
    /// A parameter that occurs twice (RFC 6749 §3.1).
    pub(super) fn parse(text: &str) -> Result<Self, SignInError> {
        let mut redirect = Self::default();
        for pair in query(text).split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let parameter = match name {
                "state" => &mut redirect.state,
                "iss" => &mut redirect.issuer,
                "error" => &mut redirect.error,
                "error_description" => &mut redirect.description,
                "code" => &mut redirect.code,
                _ => continue,
            };
            if !value.is_empty() && parameter.replace(form_decoded(value)).is_some() {
                let detail = format!("`{name}` occurs more than once");
                return Err(SignInError::new(SignInErrorKind::Malformed).with_detail(detail));
            }
        }
        Ok(redirect)
    }

    /// Whether it belongs to the sign-in. Before that nothing in it is anybody's word.
    ///
    /// # Errors
    /// `WrongState`.
    pub(super) fn check_state(&self, expected: &Secrets) -> Result<(), SignInError> {
        let Some(state) = &self.state else {
            return Err(SignInError::new(SignInErrorKind::WrongState).with_detail("there is no `state`"));
        };
        // An attacker who may try often and measure must not find it out byte by byte; its length is no secret.
        if bool::from(state.expose().as_bytes().ct_eq(expected.state.expose().as_bytes())) {
            Ok(())
        } else {
            Err(SignInError::new(SignInErrorKind::WrongState))
        }
    }

    /// Whether it is no answer to anything.
    #[cfg(feature = "loopback")]
    pub(super) fn is_empty(&self) -> bool {
        self.state.is_none() && self.code.is_none() && self.error.is_none()
    }

    /// Whether it says that there is no code.
    pub(super) fn names_error(&self) -> bool {
        self.error.is_some()
    }

    /// The code, if all is well. Whose answer it is comes first: before that nothing in it is the server's word.
    pub(super) fn into_code(
        self,
        expected: &Secrets,
        issuer: &Issuer,
        client_secret: &ClientSecret,
    ) -> Result<Secret<String>, SignInError> {
        self.check_state(expected)?;
        self.check_issuer(issuer)?;
        if let Some(error) = &self.error {
            return Err(self.refused(error.expose(), expected, client_secret));
        }
        let missing = "there is neither `code` nor `error`";
        self.code.ok_or_else(|| SignInError::new(SignInErrorKind::Malformed).with_detail(missing))
    }

    /// Compared as it is written, nothing normalised (RFC 9207 §2.4).
    fn check_issuer(&self, expected: &Issuer) -> Result<(), SignInError> {
        let is_right = match (expected, &self.issuer) {
            (Issuer::Unknown, _) | (Issuer::Known(_), None) => true,
            (Issuer::Known(expected) | Issuer::Required(expected), Some(issuer)) => issuer.expose() == expected,
            (Issuer::Required(_), None) => {
                return Err(SignInError::new(SignInErrorKind::WrongIssuer).with_detail("there is no `iss`"));
            }
        };
        if is_right { Ok(()) } else { Err(SignInError::new(SignInErrorKind::WrongIssuer)) }
    }

    fn refused(&self, error: &str, expected: &Secrets, client_secret: &ClientSecret) -> SignInError {
        let kind = match error {
            "access_denied" => SignInErrorKind::Denied,
            "temporarily_unavailable" | "server_error" => SignInErrorKind::Unavailable,
            _ => SignInErrorKind::Refused,
        };
        let mut sent = Redactor::default();
        let client_secret = match client_secret {
            ClientSecret::Known(secret) => Some(secret),
            ClientSecret::None => None,
            ClientSecret::Unknown if is_registered(error) => {
                return SignInError::new(kind).with_code(sent.code(error, true), None);
            }
            ClientSecret::Unknown => return SignInError::new(kind),
        };
        for secret in [Some(&expected.state), Some(&expected.verifier), self.code.as_ref(), client_secret] {
            sent.push(secret.map(|secret| secret.expose().as_str()));
        }
        let code = sent.code(error, is_registered(error));
        let description = self.description.as_ref().map(|description| sent.mask(description.expose()));
        SignInError::new(kind).with_code(code, description)
    }
}

/// Everything after the first question mark of a URI or a path; the whole of what is a query alone, which may have one in a
/// value. Without a fragment.
fn query(text: &str) -> &str {
    let text = text.split('#').next().unwrap_or_default();
    match text.split_once('?') {
        Some((before, query)) if is_place(before) => query,
        _ => text,
    }
}

/// A scheme and a colon, or a path; a query begins with the name of a parameter.
fn is_place(text: &str) -> bool {
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| scheme.bytes().all(in_scheme));
    has_scheme || text.starts_with('/') || !text.contains('=')
}

/// What is not UTF-8 is made so: a description may be in any encoding, and a code that is not ASCII is none (RFC 6749
/// Appendix A.11).
fn form_decoded(value: &str) -> Secret<String> {
    let spaced = Secret::new(value.replace('+', " "));
    Secret::new(percent_decode_str(spaced.expose()).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests;
