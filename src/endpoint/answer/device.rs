//! The answer of a device authorization endpoint (RFC 8628 §3.2).

use std::time::Duration;

use http::Uri;

use super::expiry::{self, Read};
use super::members::Members;
use crate::endpoint::exchange::Answer;
use crate::types::{Secret, TokenError, TokenErrorKind};

/// What the server gives out for one sign-in.
#[derive(Debug)]
pub(crate) struct DeviceCodes {
    pub(crate) device_code: Secret<String>,
    pub(crate) user_code: Secret<String>,
    pub(crate) verification_uri: String,
    /// Holds the user code.
    pub(crate) verification_uri_complete: Option<Secret<String>>,
    pub(crate) expires_in: Duration,
    pub(crate) interval: Option<Duration>,
}

impl DeviceCodes {
    /// # Errors
    /// `Malformed`: a member is missing, or could not be shown to a person.
    pub(crate) fn read(answer: &Answer) -> Result<Self, TokenError> {
        let text = String::from_utf8_lossy(&answer.body);
        let codes = match Members::parse(&text, &answer.headers, &[]) {
            Ok(members) => Self::of(&members),
            Err(unreadable) => Err(unreadable.detail),
        };
        codes
            .map_err(|detail| TokenError::new(TokenErrorKind::Malformed).with_detail(detail).with_status(answer.status))
    }

    fn of(members: &Members<'_>) -> Result<Self, String> {
        let text = |name: &str| members.text(name).ok_or_else(|| format!("there is no `{name}`"));
        // Google's spelling, from before the RFC.
        let verification_uri = members.text("verification_url").map_or_else(|| text("verification_uri"), Ok)?;
        let complete = members.text("verification_uri_complete");
        if ![Some(verification_uri), complete].into_iter().flatten().all(is_web_page) {
            return Err("the verification URI is no web page".into());
        }
        let user_code = text("user_code")?;
        if user_code.chars().any(char::is_control) || user_code.len() > LONGEST_USER_CODE {
            return Err("`user_code` cannot be shown".into());
        }
        let Read::Known(expires_in) = expiry::lifetime(members) else {
            return Err("`expires_in` is missing or no number of seconds".into());
        };
        Ok(Self {
            device_code: Secret::from(text("device_code")?),
            user_code: Secret::from(user_code),
            verification_uri: verification_uri.to_owned(),
            verification_uri_complete: complete.map(Secret::from),
            expires_in,
            interval: expiry::interval(members),
        })
    }
}

/// In bytes; people are to type it.
const LONGEST_USER_CODE: usize = 128;

/// It is shown on a terminal and opened in a browser: neither escape sequences nor other schemes.
fn is_web_page(uri: &str) -> bool {
    let Ok(parsed) = uri.parse::<Uri>() else { return false };
    uri.bytes().all(|b| b.is_ascii_graphic())
        && matches!(parsed.scheme_str(), Some("https" | "http"))
        && parsed.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}
