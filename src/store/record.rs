//! `Record`: what is kept under a key, and its bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::failure::Failure;
use super::millis::{millis, moment, since_epoch};
use super::{StoreError, StoreErrorKind, Value};
use crate::token::{Extra, Token};
use crate::types::{Scopes, Secret};

/// The format written. Members may be added to it, as those unknown are passed over; a change that older versions of the
/// crate must not read gets the next number.
const FORMAT: u64 = 1;

/// What processes tell each other about one key.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) token: Option<Token>,
    /// The credentials that the token was made with, where they are known.
    pub(crate) made_by: Option<String>,
    pub(crate) refresh_token: Option<Secret<String>>,
    /// The predecessor's plus one.
    pub(crate) refresh_number: u64,
    /// The refresh token of that number is dead, or was taken out: no copy of it, or of an older one, is of use.
    pub(crate) refresh_dead: bool,
    /// The refresh token was sent, and the answer was lost: it may be spent.
    pub(crate) answer_lost: bool,
    /// The server replaces the refresh token each time, as far as is known.
    pub(crate) single_use: bool,
    /// The last token request failed.
    pub(crate) failure: Option<Failure>,
}

impl Default for Record {
    /// Nothing is known: a refresh token of which nobody knows better is good once.
    fn default() -> Self {
        Self {
            token: None,
            made_by: None,
            refresh_token: None,
            refresh_number: 0,
            refresh_dead: false,
            answer_lost: false,
            single_use: true,
            failure: None,
        }
    }
}

impl Record {
    /// The bytes for a store, and for how long they are worth keeping.
    ///
    /// # Errors
    /// None that is known of: what was read from JSON can be written as JSON.
    pub(crate) fn to_value(&self, lives_for: Duration) -> Result<Value, StoreError> {
        let unwritable = |_| StoreError::new(StoreErrorKind::Unreadable);
        let token = self.token.as_ref().map(|token| TokenRecord {
            scheme: token.scheme().into(),
            access_token: token.access_token().into(),
            asked_at: token.asked_at.map(since_epoch),
            expires_in: token.expires_in.map(millis),
            expires_at: token.expires_at.map(since_epoch),
            refresh_in: token.refresh_in.map(millis),
            scopes: token.scopes().map(|scopes| scopes.as_str().into()),
            extra: Cow::Borrowed(token.extra().members()),
        });
        let written = Written {
            v: FORMAT,
            token,
            made_by: self.made_by.as_deref().map(Into::into),
            refresh_token: self.refresh_token.as_ref().map(|token| token.expose().as_str().into()),
            refresh_number: self.refresh_number,
            refresh_dead: self.refresh_dead,
            answer_lost: self.answer_lost,
            single_use: self.single_use,
            failure: self.failure.clone(),
        };
        // Measured first: a buffer that grows leaves copies of secrets behind.
        let mut length = Count(0);
        serde_json::to_writer(&mut length, &written).map_err(unwritable)?;
        let mut bytes = Vec::with_capacity(length.0);
        serde_json::to_writer(&mut bytes, &written).map_err(unwritable)?;
        Ok(Value { bytes: Secret::new(bytes), lives_for })
    }

    /// # Errors
    /// Bytes that are none of ours, or of a newer version of the crate. The error quotes nothing.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Head {
            v: u64,
        }

        let unreadable = || StoreError::new(StoreErrorKind::Unreadable);
        let head: Head = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        if head.v > FORMAT {
            return Err(StoreError::new(StoreErrorKind::Newer));
        }
        let written: Written<'_> = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        let token = match written.token {
            Some(token) => Some(token.into_token().ok_or_else(unreadable)?),
            None => None,
        };
        Ok(Self {
            token,
            made_by: written.made_by.map(Cow::into_owned),
            refresh_token: written.refresh_token.map(|token| Secret::from(token.into_owned())),
            refresh_number: written.refresh_number,
            refresh_dead: written.refresh_dead,
            answer_lost: written.answer_lost,
            single_use: written.single_use,
            failure: written.failure,
        })
    }
}

/// Texts are borrowed from the bytes, which are wiped.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    v: u64,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    token: Option<TokenRecord<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    made_by: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    refresh_number: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refresh_dead: bool,
    #[serde(default)]
    answer_lost: bool,
    #[serde(default)]
    single_use: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Times in milliseconds.
#[derive(Serialize, Deserialize)]
struct TokenRecord<'a> {
    #[serde(borrow)]
    scheme: Cow<'a, str>,
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_in: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    scopes: Option<Cow<'a, str>>,
    #[serde(default)]
    extra: Cow<'a, BTreeMap<String, Json>>,
}

impl TokenRecord<'_> {
    fn into_token(self) -> Option<Token> {
        let mut token = Token::with_scheme(&self.scheme, &self.access_token).ok()?;
        if let Some(scopes) = &self.scopes {
            token = token.with_scopes(Scopes::new(scopes.split_ascii_whitespace()).ok()?);
        }
        token.asked_at = self.asked_at.and_then(moment);
        token.expires_in = self.expires_in.map(Duration::from_millis);
        token.expires_at = self.expires_at.and_then(moment);
        token.refresh_in = self.refresh_in.map(Duration::from_millis);
        Some(token.with_extra(Extra::from_iter(self.extra.into_owned())))
    }
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    fn full() -> Record {
        let second = Duration::from_secs(1);
        let mut token = Token::with_scheme("DPoP", "a\"b\\c~")
            .unwrap()
            .with_expires_in(3600 * second)
            .with_expires_at(SystemTime::UNIX_EPOCH + 5 * second)
            .with_refresh_in(7 * second)
            .with_scopes(Scopes::new(["write", "read"]).unwrap())
            .with_extra([("clinics".to_owned(), serde_json::json!(["a", {"b": 1.5}]))].into_iter().collect());
        token.asked_at = Some(SystemTime::UNIX_EPOCH + 3 * second);
        Record {
            token: Some(token),
            made_by: Some("0123456789abcdef".into()),
            refresh_token: Some(Secret::from("r\u{1F511}")),
            refresh_number: 7,
            refresh_dead: false,
            answer_lost: true,
            single_use: true,
            failure: Some(Failure::refused()),
        }
    }

    fn bytes(record: &Record) -> Secret<Vec<u8>> {
        record.to_value(Duration::ZERO).unwrap().bytes
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (before, empty) = (full(), Record::default());
        let after = Record::from_bytes(bytes(&before).expose()).unwrap();
        let (one, other) = (before.token.unwrap(), after.token.unwrap());
        assert!(one.is_same_as(&other) && other.scheme() == "DPoP");
        assert_eq!(
            (one.asked_at, one.expires_in, one.expires_at, one.refresh_in),
            (other.asked_at, other.expires_in, other.expires_at, other.refresh_in)
        );
        assert_eq!((one.scopes(), one.extra().get("clinics")), (other.scopes(), other.extra().get("clinics")));
        assert_eq!(after.refresh_token.unwrap().expose(), "r\u{1F511}");
        assert_eq!(after.refresh_number, 7);
        assert!(
            after.answer_lost && after.single_use && after.made_by == before.made_by && after.failure == before.failure
        );

        assert_eq!(bytes(&empty).expose(), br#"{"v":1,"answer_lost":false,"single_use":true}"#);
        assert!(Record::from_bytes(br#"{"v":1}"#).unwrap().token.is_none());
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over_and_what_it_changes_is_refused() {
        let kind = |bytes: &[u8]| Record::from_bytes(bytes).map(drop).map_err(|error| error.kind());
        assert_eq!(kind(br#"{"v":1,"news":{"x":[]},"token":{"scheme":"Bearer","access_token":"t","news":1}}"#), Ok(()));
        assert_eq!(kind(br#"{"v":2,"token":"sealed"}"#), Err(StoreErrorKind::Newer));
        let garbage: [&[u8]; 7] = [
            b"",
            b"canary",
            b"{}",
            b"{\"v\":\"1\"}",
            br#"{"v":1,"token":{"scheme":"Bearer","access_token":"two words"}}"#,
            br#"{"v":1,"token":{"access_token":"t"}}"#,
            b"{\"v\":1,\"refresh_token\":\"\xff\"}",
        ];
        for bytes in garbage {
            assert_eq!(kind(bytes), Err(StoreErrorKind::Unreadable), "{bytes:?}");
        }
    }

    /// Behaviour 103.
    #[test]
    fn neither_debug_nor_errors_quote() {
        let record = Record {
            token: Some(Token::bearer("canary").unwrap()),
            refresh_token: Some(Secret::from("canary")),
            ..Record::default()
        };
        let error = Record::from_bytes(b"{\"v\":1,\"refresh_token\":\"canary").unwrap_err();
        assert!(!format!("{record:?} {error:?} {error}").contains("canary"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in "(\\{\"v\":1,)?[ -~]{0,60}") {
            let _ = Record::from_bytes(bytes.as_bytes());
        }
    }
}
