//! Device authorization (RFC 8628): codes for a person to sign in with elsewhere, and asking the server until they have.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Direct;
use super::answer::DeviceCodes;
use super::endpoints::AuxiliaryEndpoint;
use super::grant::GrantParams;
use crate::token::{Failed, Token};
use crate::types::{Scopes, Secret, TenantId, TokenError, TokenErrorKind};

/// A sign-in that the server waits for.
pub(crate) struct DeviceAuthorization {
    pub(crate) codes: DeviceCodes,
    expires: Instant,
}

impl DeviceAuthorization {
    /// Asks for the codes (§3.1).
    ///
    /// # Errors
    /// No such endpoint, a server that does not answer or says no.
    pub(crate) async fn begin(endpoint: &dyn Direct, tenant: Option<TenantId>) -> Result<Self, TokenError> {
        let settings = endpoint.settings();
        let mut params = GrantParams::new("").plain("scope", settings.scopes.as_ref().map_or("", Scopes::as_str));
        for resource in &settings.resources {
            params = params.plain("resource", resource);
        }
        for audience in &settings.audiences {
            params = params.plain("audience", audience);
        }
        // The server counts from its answer: what is on the way is lost to us, never gained.
        let asked = Instant::now();
        let answer = endpoint.post(AuxiliaryEndpoint::DeviceAuthorization, params, tenant).await;
        // Nothing was sent that could be lost.
        let codes = DeviceCodes::read(&answer.map_err(|failed| failed.error)?)?;
        Ok(Self { expires: later(asked, codes.expires_in), codes })
    }

    /// Asks whether the person has signed in until they have, have not, or it is too late (§3.4, §3.5).
    pub(crate) async fn wait(self, endpoint: &dyn Direct, tenant: Option<TenantId>) -> Result<Token, DeviceError> {
        let mut pace = Pace::new(self.codes.interval);
        let mut pause = pace.interval;
        let mut trouble = None;
        loop {
            sleep_until(self.expires.min(later(Instant::now(), pause))).await;
            if Instant::now() >= self.expires {
                return Err(DeviceError::Expired { trouble });
            }
            let failed = match endpoint.exchange(grant(&self.codes.device_code), tenant.clone()).await {
                Ok(token) => return Ok(token),
                Err(failed) => failed,
            };
            match pace.after(&failed.error) {
                Next::Ask { slower, after } => (pace, pause) = (slower, after),
                Next::Stop(End::Denied) => return Err(DeviceError::Denied(failed.error)),
                Next::Stop(End::Expired) => return Err(DeviceError::Expired { trouble: None }),
                Next::Stop(End::Failed) => return Err(DeviceError::Failed(failed)),
            }
            trouble = pace.in_trouble().then_some(failed.error);
        }
    }
}

/// A span that no clock can hold is cut to a day, which no device code lives.
fn later(moment: Instant, span: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    moment.checked_add(span).or_else(|| moment.checked_add(DAY)).unwrap_or(moment)
}

/// Why a sign-in brought no token.
#[derive(Debug)]
pub(crate) enum DeviceError {
    /// The person said no.
    Denied(TokenError),
    /// The person did not answer in time, or in the end the server did not.
    Expired { trouble: Option<TokenError> },
    /// To go on asking would change nothing.
    Failed(Failed),
}

fn grant(device_code: &Secret<String>) -> GrantParams {
    GrantParams::new("urn:ietf:params:oauth:grant-type:device_code").secret("device_code", device_code.clone())
}

/// How often the server is asked (§3.5).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    interval: Duration,
    /// Attempts in a row that were not answered.
    unanswered: u32,
}

/// What follows an attempt that brought no token.
#[derive(Debug, PartialEq)]
enum Next {
    Ask { slower: Pace, after: Duration },
    Stop(End),
}

#[derive(Debug, PartialEq)]
enum End {
    Denied,
    Expired,
    Failed,
}

impl Pace {
    const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
    const SLOW_DOWN: Duration = Duration::from_secs(5);

    fn new(interval: Option<Duration>) -> Self {
        Self { interval: interval.unwrap_or(Self::DEFAULT_INTERVAL), unanswered: 0 }
    }

    fn after(self, error: &TokenError) -> Next {
        use TokenErrorKind::*;
        let answered = |interval| Next::Ask { slower: Pace { interval, unanswered: 0 }, after: interval };
        match (error.code().map(|code| code.as_str()), error.kind()) {
            (Some("authorization_pending"), _) => answered(self.interval),
            // For this sign-in, from now on.
            (Some("slow_down"), _) => answered(self.interval.saturating_add(Self::SLOW_DOWN)),
            (Some("expired_token"), _) => Next::Stop(End::Expired),
            (Some("access_denied"), _) => Next::Stop(End::Denied),
            (_, Unreachable | Timeout | Unavailable | CredentialsUnavailable) => {
                let slower = Pace { unanswered: self.unanswered.saturating_add(1), ..self };
                let doubled = self.interval.saturating_mul(1 << slower.unanswered.min(20));
                Next::Ask { slower, after: doubled.max(error.retry_after().unwrap_or_default()) }
            }
            _ => Next::Stop(End::Failed),
        }
    }

    fn in_trouble(&self) -> bool {
        self.unanswered > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ErrorCode;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The interval and the attempts without an answer; what was heard; what follows.
    #[test]
    fn how_often_the_server_is_asked() {
        use TokenErrorKind::*;
        let code = |code, kind| TokenError::new(kind).with_code(ErrorCode::new(code).unwrap());
        let bare = TokenError::new;
        let ask = |interval, unanswered, after| Next::Ask {
            slower: Pace { interval: secs(interval), unanswered },
            after: secs(after),
        };
        let table = [
            ((5, 0), code("authorization_pending", Unavailable), ask(5, 0, 5)),
            ((7, 3), code("authorization_pending", Unavailable), ask(7, 0, 7)),
            ((5, 0), code("slow_down", Unavailable), ask(10, 0, 10)),
            ((10, 2), code("slow_down", Unavailable), ask(15, 0, 15)),
            ((5, 0), bare(Unreachable), ask(5, 1, 10)),
            ((5, 1), bare(Timeout), ask(5, 2, 20)),
            ((5, 2), bare(Unavailable), ask(5, 3, 40)),
            ((5, 0), bare(Unavailable).with_retry_after(secs(60)), ask(5, 1, 60)),
            ((5, 3), bare(Unavailable).with_retry_after(secs(60)), ask(5, 4, 80)),
            ((5, 0), code("server_error", Unavailable), ask(5, 1, 10)),
            ((5, 0), bare(CredentialsUnavailable), ask(5, 1, 10)),
            ((5, 0), code("expired_token", Refused), Next::Stop(End::Expired)),
            ((5, 9), code("access_denied", Refused), Next::Stop(End::Denied)),
            ((5, 0), code("invalid_grant", Refused), Next::Stop(End::Failed)),
            ((5, 0), code("invalid_client", BadCredentials), Next::Stop(End::Failed)),
            ((5, 0), bare(Malformed), Next::Stop(End::Failed)),
            ((5, 0), bare(Redirected), Next::Stop(End::Failed)),
        ];
        for ((interval, unanswered), heard, expected) in table {
            let pace = Pace { interval: secs(interval), unanswered };
            assert_eq!(pace.after(&heard), expected, "{pace:?} {heard:?}");
        }
        assert_eq!(Pace::new(None), Pace { interval: secs(5), unanswered: 0 });
        assert_eq!(Pace::new(Some(secs(2))).interval, secs(2));
        let at_its_end = Pace { interval: Duration::MAX, unanswered: u32::MAX };
        assert!(matches!(at_its_end.after(&bare(Timeout)), Next::Ask { .. }), "no overflow");
    }
}
