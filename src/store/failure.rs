//! `Failure`: a token request that failed, as processes tell each other of it, so that not each repeats it in turn.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::millis::{millis, moment, since_epoch};
use crate::token::Backoff;
use crate::types::{ErrorCode, TokenError, TokenErrorKind};

/// Nobody asks before it is over.
///
/// How long that is is stored as a length, and each process counts it from when it saw the failure first: a clock that is
/// wrong on one process must not stop others. The time of day shortens it, for those who come late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// In milliseconds.
    pause: u64,
    /// By the writer's clock, in milliseconds since 1970.
    at: u64,
    in_a_row: u32,
    /// The credentials that were refused, where they are known: who has others asks for himself.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
    /// Which process did not reach the server.
    #[serde(default)]
    process: u64,
    /// Another process did not reach it either: it is not the network of one.
    #[serde(default)]
    confirmed: bool,
}

/// Who failed, as far as others must tell.
pub(crate) struct Who {
    /// The credentials that were used; `None`: none, or such as nobody knows.
    pub(crate) made_by: Option<String>,
    /// Credentials were used, and nobody knows which: they come from a file or a function.
    pub(crate) has_unknown_credentials: bool,
    /// Of this process.
    pub(crate) process: u64,
}

impl Failure {
    /// Of a server that refuses: short, since `invalidate()` does not end it for the others.
    const REFUSED: Duration = Duration::from_secs(30);
    /// The longest `Retry-After` that binds others.
    pub(super) const LONGEST: Duration = Duration::from_secs(300);

    /// What others are to know of a failure; `None` where it says nothing of the server.
    pub(super) fn of(
        error: &TokenError,
        before: Option<&Failure>,
        who: Who,
        now: SystemTime,
        backoff: &Backoff,
    ) -> Option<Self> {
        // What was not sent says nothing new.
        let kind = name(error.kind()).filter(|_| !error.is_held_back())?;
        let of_credentials = !error.is_transient();
        if of_credentials && who.has_unknown_credentials {
            return None;
        }
        let in_a_row = before.map_or(0, |before| before.in_a_row.saturating_add(1));
        let pause = match error.retry_after() {
            Some(told) if !told.is_zero() => told.min(Self::LONGEST),
            // Without jitter: the others wait for the same moment, and only one of them gets the lease.
            _ if error.is_transient() => backoff.undrawn(in_a_row).min(Self::LONGEST),
            _ => Self::REFUSED,
        };
        let by_another = |before: &Failure| before.confirmed || before.process != who.process;
        let confirmed = before.filter(|before| before.is_of_network()).is_some_and(by_another);
        Some(Self {
            kind: kind.into(),
            code: error.code().map(|code| code.as_str().into()),
            pause: millis(pause),
            at: since_epoch(now),
            in_a_row,
            made_by: who.made_by,
            process: who.process,
            confirmed,
        })
    }

    fn is_of_network(&self) -> bool {
        let kind = KINDS.iter().find(|(_, name)| *name == self.kind).map(|(kind, _)| *kind);
        matches!(kind, Some(TokenErrorKind::Unreachable | TokenErrorKind::Timeout))
    }

    /// For how long nobody asks.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.pause).min(Self::LONGEST)
    }

    /// The error for who comes before it is over, with these credentials. `seen`: for how long we know of it.
    pub(super) fn error_at(&self, who: &Who, seen: Duration, now: SystemTime) -> Option<TokenError> {
        let kind = KINDS.iter().find(|(_, name)| *name == self.kind)?.0;
        let other_credentials = match (&who.made_by, &self.made_by) {
            (Some(ours), Some(theirs)) => ours != theirs,
            // What nobody knows may be better.
            _ => who.has_unknown_credentials && self.made_by.is_some() && !TokenError::new(kind).is_transient(),
        };
        if other_credentials || (self.is_of_network() && !self.confirmed) {
            return None;
        }
        let age = now.duration_since(moment(self.at)?).unwrap_or_default().max(seen);
        let left = self.pause().checked_sub(age).filter(|left| !left.is_zero())?;
        let error = TokenError::new(kind).with_retry_after(left).with_detail("as another process was told just now");
        Some(match self.code.as_deref().and_then(ErrorCode::new) {
            Some(code) => error.with_code(code),
            None => error,
        })
    }
}

/// What is said of the server or of a source that all share. The rest concerns one process.
const KINDS: [(TokenErrorKind, &str); 10] = [
    (TokenErrorKind::Unreachable, "unreachable"),
    (TokenErrorKind::Timeout, "timeout"),
    (TokenErrorKind::Unavailable, "unavailable"),
    (TokenErrorKind::Malformed, "malformed"),
    (TokenErrorKind::BadCredentials, "bad_credentials"),
    (TokenErrorKind::Refused, "refused"),
    (TokenErrorKind::Redirected, "redirected"),
    (TokenErrorKind::EndpointNotFound, "endpoint_not_found"),
    (TokenErrorKind::SourceTransient, "source_transient"),
    (TokenErrorKind::SourcePermanent, "source_permanent"),
];

fn name(kind: TokenErrorKind) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

#[cfg(test)]
impl Failure {
    /// For tests of records.
    pub(super) fn refused() -> Self {
        let who = Who { made_by: None, has_unknown_credentials: false, process: 1 };
        let error = TokenError::new(TokenErrorKind::Refused);
        Self::of(&error, None, who, SystemTime::UNIX_EPOCH, &Backoff::TRANSIENT).unwrap_or_else(|| unreachable!())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn who(made_by: Option<&str>, process: u64) -> Who {
        Who { made_by: made_by.map(str::to_owned), has_unknown_credentials: false, process }
    }

    fn of(error: &TokenError, before: Option<&Failure>, who: Who) -> Option<Failure> {
        let backoff = Backoff { first: SECOND, ..Backoff::TRANSIENT };
        Failure::of(error, before, who, NOW + HOUR, &backoff)
    }

    fn pause(error: &TokenError, in_a_row: u32) -> Option<Duration> {
        let mut before = None;
        for _ in 0..in_a_row.min(20) {
            before = of(&TokenError::new(TokenErrorKind::Unavailable), before.as_ref(), who(None, 1));
        }
        of(error, before.as_ref(), who(None, 1))?.error_at(&who(None, 2), Duration::ZERO, NOW + HOUR)?.retry_after()
    }

    /// Behaviours 25, 33 and 34.
    #[test]
    fn how_long_nobody_asks_depends_on_the_class() {
        let error = TokenError::new;
        for (in_a_row, seconds) in [(0, 1), (1, 2), (5, 32), (6, 60), (1_000, 60)] {
            assert_eq!(pause(&error(TokenErrorKind::Unavailable), in_a_row), Some(SECOND * seconds));
            assert_eq!(pause(&error(TokenErrorKind::BadCredentials), in_a_row), Some(30 * SECOND));
        }
        for (told, obeyed) in [(7 * SECOND, 7 * SECOND), (Duration::MAX, 300 * SECOND)] {
            assert_eq!(pause(&error(TokenErrorKind::Unavailable).with_retry_after(told), 0), Some(obeyed));
        }
        for own in [TokenErrorKind::CredentialsUnavailable, TokenErrorKind::SignInAgain, TokenErrorKind::Aborted] {
            assert_eq!(pause(&error(own), 0), None);
        }
    }

    /// Behaviour 160.
    #[test]
    fn a_server_that_one_process_does_not_reach_is_not_down() {
        for kind in [TokenErrorKind::Unreachable, TokenErrorKind::Timeout] {
            let error = TokenError::new(kind);
            let binds = |failure: &Failure| failure.error_at(&who(None, 3), Duration::ZERO, NOW + HOUR).is_some();
            let first = of(&error, None, who(None, 1)).unwrap();
            let again = of(&error, Some(&first), who(None, 1)).unwrap();
            assert!(!binds(&first) && !binds(&again), "one process only");
            let confirmed = of(&error, Some(&again), who(None, 2)).unwrap();
            assert!(binds(&confirmed));
            assert!(binds(&of(&error, Some(&confirmed), who(None, 2)).unwrap()));
        }
    }

    /// Behaviour 161: an hour ahead or behind, the writer or the reader.
    #[test]
    fn a_wrong_clock_makes_no_pause_longer() {
        let failure = of(&TokenError::new(TokenErrorKind::Unavailable), None, who(None, 1)).unwrap();
        let left = |seen, now| {
            let error = failure.error_at(&who(None, 2), seen, now)?;
            error.retry_after()
        };
        assert_eq!(left(Duration::ZERO, NOW + HOUR), Some(SECOND));
        // The writer is an hour ahead: it lasts as long as it is, from when we saw it.
        assert_eq!(left(SECOND / 2, NOW), Some(SECOND / 2));
        assert_eq!(left(SECOND, NOW), None);
        // Or an hour behind: then we ask, which costs a token request.
        assert_eq!(left(Duration::ZERO, NOW + 2 * HOUR), None);
    }

    /// Behaviour 162.
    #[test]
    fn a_refusal_binds_those_with_the_same_secret() {
        let error = TokenError::new(TokenErrorKind::BadCredentials);
        let error = error.with_code(ErrorCode::new("invalid_client").unwrap());
        let failure = of(&error, None, who(Some("one"), 1)).unwrap();
        let at = |who: &Who, seen| failure.error_at(who, seen, NOW + HOUR);
        let told = at(&who(Some("one"), 2), 20 * SECOND).unwrap();
        assert_eq!((told.kind(), told.retry_after()), (TokenErrorKind::BadCredentials, Some(10 * SECOND)));
        assert_eq!(told.code().map(ErrorCode::as_str), Some("invalid_client"));
        assert!(at(&who(Some("one"), 2), 30 * SECOND).is_none(), "it is over");
        assert!(at(&who(Some("other"), 2), Duration::ZERO).is_none());
        // From a file: nobody knows which secret it was, or is.
        let unknown = || Who { made_by: None, has_unknown_credentials: true, process: 3 };
        assert!(at(&unknown(), Duration::ZERO).is_none());
        assert!(of(&error, None, unknown()).is_none());
        assert!(of(&TokenError::new(TokenErrorKind::Unavailable), None, unknown()).is_some());
        let later = Failure { kind: "of a later version".into(), ..failure.clone() };
        assert!(later.error_at(&who(None, 2), Duration::ZERO, NOW + HOUR).is_none());
    }
}
