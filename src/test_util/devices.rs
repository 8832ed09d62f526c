//! Sign-ins on other devices (RFC 8628) at the authorization server: who waits for whom, and what came of it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::shapes::Refusal;

/// All sign-ins of one server. None is ever forgotten.
#[derive(Default)]
pub(super) struct Devices {
    begun: u64,
    /// By device code.
    sign_ins: HashMap<String, SignIn>,
}

struct SignIn {
    client: String,
    scope: String,
    user_code: String,
    expires: SystemTime,
    answer: Option<Answer>,
    last_poll: SystemTime,
    interval: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Approved,
    Denied,
    /// The token has been handed out.
    Spent,
}

impl Devices {
    pub(super) const INTERVAL: Duration = Duration::from_secs(5);

    /// A new device code and its user code.
    pub(super) fn begin(
        &mut self,
        client: String,
        scope: String,
        now: SystemTime,
        lifetime: Duration,
    ) -> (String, String) {
        self.begun += 1;
        let (device_code, user_code) = (format!("device-code-{}", self.begun), format!("WDJB-{:04}", self.begun));
        let sign_in = SignIn {
            client,
            scope,
            user_code: user_code.clone(),
            expires: now.checked_add(lifetime).unwrap_or(now),
            answer: None,
            last_poll: now,
            interval: Self::INTERVAL,
        };
        self.sign_ins.insert(device_code.clone(), sign_in);
        (device_code, user_code)
    }

    /// Whether there is such a code.
    pub(super) fn answer(&mut self, user_code: &str, answer: Answer) -> bool {
        let sign_in = self.sign_ins.values_mut().find(|sign_in| sign_in.user_code == user_code);
        sign_in.map(|sign_in| sign_in.answer = Some(answer)).is_some()
    }

    /// The scope that was agreed to (§3.5). A client that asks too soon is told to slow down, and must from then on.
    pub(super) fn poll(&mut self, device_code: &str, client: &str, now: SystemTime) -> Result<String, Refusal> {
        let refuse = |code, description| Err(Refusal::new(400, code, description));
        let Some(sign_in) = self.sign_ins.get_mut(device_code).filter(|sign_in| sign_in.client == client) else {
            return refuse("invalid_grant", "There is no such device code.");
        };
        let since = now.duration_since(sign_in.last_poll).unwrap_or_default();
        sign_in.last_poll = now;
        if since < sign_in.interval {
            sign_in.interval += Self::INTERVAL;
            return refuse("slow_down", "Not so fast.");
        }
        match sign_in.answer {
            Some(Answer::Spent) => refuse("invalid_grant", "The device code was used already."),
            _ if now >= sign_in.expires => refuse("expired_token", "The device code has expired."),
            Some(Answer::Denied) => refuse("access_denied", "The person said no."),
            None => refuse("authorization_pending", "The person has not answered yet."),
            Some(Answer::Approved) => {
                sign_in.answer = Some(Answer::Spent);
                Ok(sign_in.scope.clone())
            }
        }
    }
}
