//! `Token`: an access token ready to be injected, and what the authorization server said about it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use serde_json::Value;

use crate::types::{ConfigError, Scopes, Secret};

/// An access token ready to be injected, and what its issuer said about it.
///
/// A [`TokenSource`](crate::TokenSource) makes it; the engine gives it a lifetime and a generation. What the source
/// leaves out (an expiry, a refresh token) is unknown, never "instantly" and never "for ever".
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2_client::Token;
///
/// let token = Token::bearer("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.e30.c2ln")?.with_expires_in(Duration::from_secs(3600));
/// assert!(!format!("{token:?}").contains("eyJ0"));
/// assert!(Token::bearer("two words").is_err(), "would not survive as a header");
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Token {
    /// `scheme SP token`, sensitive. The token is kept nowhere else.
    header: HeaderValue,
    scheme_len: usize,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    /// When it ends whatever its issuer says: with the token that it was exchanged for.
    pub(crate) not_after: Option<SystemTime>,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) refresh_token: RefreshToken,
    /// When it was asked for, by the wall clock, where that was not just now: a store had it, or has it now.
    pub(crate) asked_at: Option<SystemTime>,
    scopes: Option<Scopes>,
    extra: Extra,
}

impl Token {
    /// The longest access token taken, in bytes. Group-heavy JWTs reach tens of kilobytes; beyond this it is a mistake.
    pub(crate) const MAX_LEN: usize = 64 * 1024;

    /// A token that goes out as `Authorization: Bearer …` (RFC 6750 §2.1).
    ///
    /// # Errors
    /// A token that is empty, longer than 64 KiB, or holds a character other than 0x21-0x7E. The error tells length and
    /// position, never the token.
    pub fn bearer(access_token: &str) -> Result<Self, ConfigError> {
        Self::with_scheme("Bearer", access_token)
    }

    /// A token that goes out as `Authorization: {scheme} …`, for APIs that spell the scheme in a way of their own.
    ///
    /// # Errors
    /// As [`bearer`](Token::bearer); also a scheme that is not an HTTP token (RFC 9110 §5.6.2).
    pub fn with_scheme(scheme: &str, access_token: &str) -> Result<Self, ConfigError> {
        if access_token.is_empty() {
            return Err(ConfigError::new("the access token is empty", "check what the token source returns"));
        }
        if access_token.len() > Self::MAX_LEN {
            return Err(ConfigError::new(
                format!("the access token has {} bytes, more than 65536", access_token.len()),
                "check what the token source returns",
            ));
        }
        if let Some(at) = access_token.bytes().position(|b| !(0x21..=0x7e).contains(&b)) {
            return Err(ConfigError::new(
                format!(
                    "the access token ({} bytes) has a character at {at} that no header may carry",
                    access_token.len()
                ),
                "a space or line break usually comes from a file or an environment variable",
            ));
        }
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
            return Err(ConfigError::new(
                "the authentication scheme is not an HTTP token",
                "use `Bearer` unless the API says otherwise",
            ));
        }
        let mut bytes = Vec::with_capacity(scheme.len().saturating_add(1).saturating_add(access_token.len()));
        bytes.extend_from_slice(scheme.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(access_token.as_bytes());
        let mut header = HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).map_err(|_| {
            ConfigError::new("the access token cannot be a header value", "check what the token source returns")
        })?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            scheme_len: scheme.len(),
            expires_in: None,
            expires_at: None,
            not_after: None,
            refresh_in: None,
            refresh_token: RefreshToken::Keep,
            asked_at: None,
            scopes: None,
            extra: Extra::default(),
        })
    }

    /// How long the token lives, counted from when it was asked for (`expires_in`, RFC 6749 §5.1).
    #[must_use]
    pub fn with_expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }

    /// Until when the token lives, by the wall clock. Where [`with_expires_in`](Token::with_expires_in) is given too, the order
    /// of [`AuthConfigBuilder::expiry`](crate::AuthConfigBuilder::expiry) decides.
    #[must_use]
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// When a new token should be asked for, counted from when this one was (`refresh_in` of some servers).
    #[must_use]
    pub fn with_refresh_in(mut self, after: Duration) -> Self {
        self.refresh_in = Some(after);
        self
    }

    /// What becomes of the cell's refresh token; [`RefreshToken::Keep`] unless set (RFC 6749 §6).
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: RefreshToken) -> Self {
        self.refresh_token = refresh_token;
        self
    }

    /// The scopes granted, where the server told them (RFC 6749 §5.1).
    #[must_use]
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// Further members of the server's answer.
    #[must_use]
    pub fn with_extra(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    /// The access token itself. It is a secret: do not log it.
    pub fn access_token(&self) -> &str {
        // 0x21-0x7E was checked when the header was made.
        self.header
            .as_bytes()
            .get(self.scheme_len.saturating_add(1)..)
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    /// The whole header value, `Bearer …`, marked sensitive (so that HTTP/2 never indexes it and `Debug` never shows
    /// it).
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// What stands before the token in the header: `Bearer`, mostly.
    pub fn scheme(&self) -> &str {
        self.header.as_bytes().get(..self.scheme_len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }

    /// How long the token lives, as its issuer said it or by [`with_expires_in`](Token::with_expires_in).
    ///
    /// Of a token that the [handle](crate::AuthHandle::token) returned it is what was left then, by the layer's clocks; `None`
    /// if it lives until it is rejected.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Until when the token lives, by the wall clock, as its issuer said it or by
    /// [`with_expires_at`](Token::with_expires_at).
    ///
    /// Of a token that the [handle](crate::AuthHandle::token) returned it is the end that the layer reckons with.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// The refresh token that came with it. A token that the [handle](crate::AuthHandle::token) returned has none: the layer
    /// keeps it.
    pub fn refresh_token(&self) -> Option<&Secret<String>> {
        match &self.refresh_token {
            RefreshToken::Replace(secret) => Some(secret),
            RefreshToken::Keep | RefreshToken::Drop => None,
        }
    }

    /// The scopes granted; `None` where the server did not say, which means as requested (RFC 6749 §3.3).
    pub fn scopes(&self) -> Option<&Scopes> {
        self.scopes.as_ref()
    }

    /// Further members of the server's answer, such as Spry's `clinic_id_list`.
    pub fn extra(&self) -> &Extra {
        &self.extra
    }

    /// As it is handed out: with what is left of its life.
    pub(crate) fn ending(&self, expires_in: Option<Duration>, expires_at: Option<SystemTime>) -> Self {
        Self { expires_in, expires_at, asked_at: None, ..self.clone() }
    }

    /// Whether a request with it needs a proof (RFC 9449 §7.1).
    pub(crate) fn is_bound(&self) -> bool {
        self.scheme().eq_ignore_ascii_case("DPoP")
    }

    /// Whether both are the same bytes on the wire.
    pub(crate) fn is_same_as(&self, other: &Token) -> bool {
        self.header.as_bytes() == other.header.as_bytes()
    }
}

/// Tells what kind of token it is, nothing of its value.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .field("expires_at", &self.expires_at)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// What an answer means for the refresh token that the cell holds (RFC 6749 §6).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum RefreshToken {
    /// None was returned: the one held, if any, stays good.
    #[default]
    Keep,
    /// A new one was returned: it replaces the one held, which must not be used again.
    Replace(Secret<String>),
    /// The one held is dead.
    Drop,
}

/// Members of a token answer that OAuth2 does not define. `Debug` tells the names only: the values may be personal
/// data.
#[derive(Clone, Default)]
#[allow(clippy::box_collection, reason = "each token has room for it, and most have none")]
pub struct Extra(Option<Box<BTreeMap<String, Value>>>);

impl Extra {
    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.as_ref()?.get(name)
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|members| members.keys()).map(String::as_str)
    }

    pub(crate) fn members(&self) -> &BTreeMap<String, Value> {
        static NONE: BTreeMap<String, Value> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl FromIterator<(String, Value)> for Extra {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        let members: BTreeMap<_, _> = members.into_iter().collect();
        Self(if members.is_empty() { None } else { Some(Box::new(members)) })
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_checked_once_and_kept_as_its_header() {
        let token = Token::bearer("abc.def!").unwrap();
        assert_eq!(token.access_token(), "abc.def!");
        assert_eq!(token.header_value().as_bytes(), b"Bearer abc.def!");
        assert!(token.header_value().is_sensitive());
        for bad in ["", "a b", "a\nb", "a\0", "\u{7f}", "é"] {
            assert!(Token::bearer(bad).is_err(), "{bad:?}");
        }
        assert!(Token::bearer(&"x".repeat(Token::MAX_LEN)).is_ok());
        assert!(Token::bearer(&"x".repeat(Token::MAX_LEN + 1)).is_err());
    }

    /// Behaviour 103.
    #[test]
    fn debug_and_errors_tell_no_value() {
        let token = Token::bearer("canary")
            .unwrap()
            .with_refresh_token(RefreshToken::Replace(Secret::from("canary")))
            .with_extra([("name".to_owned(), Value::from("canary"))].into_iter().collect());
        assert!(
            !format!("{token:?} {:?} {:?} {:?}", token.extra(), token.refresh_token, token.header_value())
                .contains("canary")
        );
        let error = Token::bearer("canary canary").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
