//! `Failure`: a token request that failed, as processes tell each other of it, so that not each repeats it in turn.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::millis::{moment, since_epoch};
use crate::token::Backoff;
use crate::types::{ErrorCode, TokenError, TokenErrorKind};

/// Nobody asks before it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Milliseconds since 1970.
    until: u64,
    in_a_row: u32,
    /// The credentials that were refused, where they are known: who has others asks for himself.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
}

impl Failure {
    /// Of a failure that may be the network of one process.
    const OWN_NETWORK: Duration = Duration::from_secs(1);
    /// Of a server that refuses: short, since `invalidate()` does not end it for the others.
    const REFUSED: Duration = Duration::from_secs(30);
    /// The longest `Retry-After` that binds others.
    pub(super) const LONGEST: Duration = Duration::from_secs(300);

    /// What others are to know of a failure; `None` where it says nothing of the server.
    pub(super) fn of(
        error: &TokenError,
        before: Option<&Failure>,
        made_by: Option<String>,
        now: SystemTime,
        backoff: &Backoff,
    ) -> Option<Self> {
        // What was not sent says nothing new.
        let kind = name(error.kind()).filter(|_| !error.is_held_back())?;
        let in_a_row = before.map_or(0, |before| before.in_a_row.saturating_add(1));
        let pause = match error.kind() {
            // It may be our own network that is down: soon somebody else tries.
            TokenErrorKind::Unreachable | TokenErrorKind::Timeout => Self::OWN_NETWORK.min(backoff.longest),
            _ => match error.retry_after() {
                Some(told) if !told.is_zero() => told.min(Self::LONGEST),
                // Without jitter: the others wait for the same moment, and only one of them gets the lease.
                _ if error.is_transient() => backoff.undrawn(in_a_row).min(Self::LONGEST),
                _ => Self::REFUSED,
            },
        };
        let until = since_epoch(now.checked_add(pause)?);
        Some(Self { kind: kind.into(), code: error.code().map(|code| code.as_str().into()), until, in_a_row, made_by })
    }

    /// The error for who comes before it is over, with these credentials. A pause that is too long to be one of ours is a wrong clock's.
    pub(super) fn error_at(&self, made_by: Option<&String>, now: SystemTime) -> Option<TokenError> {
        if made_by.is_some() && self.made_by.is_some() && made_by != self.made_by.as_ref() {
            return None;
        }
        let left =
            moment(self.until)?.duration_since(now).ok().filter(|left| !left.is_zero() && *left <= Self::LONGEST)?;
        let kind = KINDS.iter().find(|(_, name)| *name == self.kind)?.0;
        let error = TokenError::new(kind).with_retry_after(left).with_detail("as another process was told just now");
        Some(match self.code.as_deref().and_then(ErrorCode::new) {
            Some(code) => error.with_code(code),
            None => error,
        })
    }
}

/// What is said of the server or of a source that all share. The rest concerns one process.
const KINDS: [(TokenErrorKind, &str); 9] = [
    (TokenErrorKind::Unreachable, "unreachable"),
    (TokenErrorKind::Timeout, "timeout"),
    (TokenErrorKind::Unavailable, "unavailable"),
    (TokenErrorKind::Malformed, "malformed"),
    (TokenErrorKind::BadCredentials, "bad_credentials"),
    (TokenErrorKind::Refused, "refused"),
    (TokenErrorKind::Redirected, "redirected"),
    (TokenErrorKind::SourceTransient, "source_transient"),
    (TokenErrorKind::SourcePermanent, "source_permanent"),
];

fn name(kind: TokenErrorKind) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const SECOND: Duration = Duration::from_secs(1);

    fn pause(error: &TokenError, in_a_row: u32) -> Option<Duration> {
        let before = (in_a_row > 0).then(|| Failure {
            kind: "unavailable".into(),
            code: None,
            until: 0,
            in_a_row: in_a_row - 1,
            made_by: None,
        });
        Failure::of(error, before.as_ref(), None, NOW, &Backoff::TRANSIENT)?.error_at(None, NOW)?.retry_after()
    }

    /// Behaviours 25, 33 and 34.
    #[test]
    fn how_long_nobody_asks_depends_on_the_class() {
        let of = TokenError::new;
        for (in_a_row, halves) in [(0, 1), (1, 2), (5, 32), (6, 64), (7, 120), (1_000, 120)] {
            assert_eq!(pause(&of(TokenErrorKind::Unavailable), in_a_row), Some(SECOND * halves / 2));
            assert_eq!(pause(&of(TokenErrorKind::Unreachable), in_a_row), Some(SECOND));
            assert_eq!(pause(&of(TokenErrorKind::BadCredentials), in_a_row), Some(30 * SECOND));
        }
        for (told, obeyed) in [(7 * SECOND, 7 * SECOND), (Duration::MAX, 300 * SECOND)] {
            assert_eq!(pause(&of(TokenErrorKind::Unavailable).with_retry_after(told), 0), Some(obeyed));
        }
        for own in [TokenErrorKind::CredentialsUnavailable, TokenErrorKind::SignInAgain, TokenErrorKind::Aborted] {
            assert_eq!(pause(&of(own), 0), None);
        }
    }

    #[test]
    fn who_comes_later_hears_what_is_left_and_what_it_was() {
        let error = TokenError::new(TokenErrorKind::BadCredentials);
        let error = error.with_code(ErrorCode::new("invalid_client").unwrap());
        let failure = Failure::of(&error, None, Some("one".into()), NOW, &Backoff::TRANSIENT).unwrap();
        let told = failure.error_at(None, NOW + 20 * SECOND).unwrap();
        assert_eq!((told.kind(), told.retry_after()), (TokenErrorKind::BadCredentials, Some(10 * SECOND)));
        assert_eq!(told.code().map(ErrorCode::as_str), Some("invalid_client"));
        assert!(failure.error_at(None, NOW + 30 * SECOND).is_none(), "it is over");
        assert!(failure.error_at(Some(&"one".into()), NOW).is_some());
        assert!(failure.error_at(Some(&"other".into()), NOW).is_none());
        let far = Failure { until: u64::MAX, ..failure.clone() };
        assert!(far.error_at(None, NOW).is_none(), "somebody's clock is wrong");
        assert!(Failure { kind: "of a later version".into(), ..failure }.error_at(None, NOW).is_none());
    }
}
