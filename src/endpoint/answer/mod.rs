//! What the token endpoint answered, to a token or an error: all the quirks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use http::Uri;

use super::exchange::Answer;
use super::grant::{AskedType, GrantKind};
use crate::telemetry::Telemetry;
use crate::token::{Failed, RefreshToken, Token};
use crate::types::{ConfigError, Scopes, Secret, TokenError, TokenErrorKind, check_line};

mod device;
mod expiry;
mod members;
mod redactor;
mod refusal;
pub(super) mod retry_after;
#[cfg(test)]
mod tests;

pub(crate) use device::DeviceCodes;
pub(crate) use redactor::Redactor;
pub(crate) use refusal::is_registered;

use members::{Class, Member, Members};

/// How the answers of one authorization server differ from RFC 6749 §5.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerSettings {
    /// Values of `token_type` that mean `Bearer`, besides that word itself.
    pub(crate) token_types: Vec<String>,
    /// Names of members: theirs, and the standard one it stands for.
    pub(crate) fields: Vec<(String, String)>,
    /// An answer without `token_type` is an error instead of `Bearer`.
    pub(crate) require_token_type: bool,
    /// A token that is not bound to our key is an error.
    pub(crate) require_dpop: bool,
    /// An assertion for another server is wanted, which is no access token (`N_A`, RFC 8693 §2.2.1).
    pub(crate) takes_assertions: bool,
}

impl AnswerSettings {
    /// The members that are read, so that another name for one of them means something.
    const MEMBERS: [&str; 18] = [
        "access_token",
        "device_code",
        "error",
        "error_description",
        "expires",
        "expires_at",
        "expires_in",
        "expires_on",
        "interval",
        "issued_token_type",
        "refresh_in",
        "refresh_token",
        "scope",
        "token_type",
        "user_code",
        "verification_uri",
        "verification_uri_complete",
        "verification_url",
    ];

    /// # Errors
    /// A name that is empty, or stands for a member that nothing reads.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.token_types.iter().try_for_each(|token_type| check_line("token type that means `Bearer`", token_type))?;
        self.fields.iter().try_for_each(|(theirs, _)| check_line("name of a response field", theirs))?;
        if self.fields.iter().any(|(_, standard)| !Self::MEMBERS.contains(&standard.as_str())) {
            return Err(ConfigError::new(
                "a response field is renamed to one that is never read",
                "the second name is the standard one, such as `access_token`, `expires_in` or `refresh_token`",
            ));
        }
        Ok(())
    }
}

/// The members of a good answer, or why it has none.
type ReadMembers<'m, 'a> = Result<&'m Members<'a>, String>;

/// What was found among them, or what is wrong with them.
type Taken<T> = Result<T, String>;

/// Reads the answer of one exchange.
pub(crate) struct Reader<'a> {
    pub(crate) settings: &'a AnswerSettings,
    /// A `token_type` of `DPoP` is of use.
    pub(crate) binds_tokens: bool,
    pub(crate) asking: GrantKind,
    pub(crate) dead_refresh_codes: &'a [String],
    pub(crate) asked_scopes: Option<&'a Scopes>,
    /// Fewer granted scopes than those asked for are an error.
    pub(crate) require_granted: bool,
    /// There if an answer that does not name the kind of its token is an error (RFC 8693 §2.2.1).
    pub(crate) asked_type: Option<AskedType<'a>>,
    /// Where the exchange went.
    pub(crate) url: &'a Uri,
    pub(crate) sent: Redactor<'a>,
    pub(crate) now: SystemTime,
    pub(crate) warned: &'a AtomicBool,
    pub(crate) telemetry: &'a Telemetry,
}

impl Reader<'_> {
    /// The token of an answer, or why there is none.
    pub(crate) fn read(&self, answer: &Answer) -> Result<Token, Failed> {
        self.judge(answer, |members| self.token(members?))
    }

    /// Whether another endpoint did what it was asked for; what else it says is not looked at.
    pub(crate) fn acknowledge(&self, answer: &Answer) -> Result<(), Failed> {
        self.judge(answer, |_| Ok(()))
    }

    fn judge<T>(&self, answer: &Answer, take: impl FnOnce(ReadMembers<'_, '_>) -> Taken<T>) -> Result<T, Failed> {
        let complete = |error: TokenError| {
            let error = error.with_status(answer.status);
            match retry_after::read(&answer.headers, self.now) {
                Some(pause) => error.with_retry_after(pause),
                None => error,
            }
        };
        self.sift(answer, take).map_err(|failed| failed.map(complete))
    }

    /// Lets nothing but a 2xx answer that names no error through to `take`.
    fn sift<T>(&self, answer: &Answer, take: impl FnOnce(ReadMembers<'_, '_>) -> Taken<T>) -> Result<T, Failed> {
        if answer.status.is_redirection() {
            return Err(refusal::redirected(&answer.headers, &self.sent).into());
        }
        let text = String::from_utf8_lossy(&answer.body);
        let members = Members::parse(&text, &answer.headers, &self.settings.fields);
        if let Some(refused) = members.as_ref().ok().and_then(|members| self.refused(answer.status, members)) {
            return Err(refused);
        }
        if !answer.status.is_success() {
            return Err(self.bare_status(answer.status, members.err()));
        }
        let is_page = matches!(&members, Err(unreadable) if unreadable.class == Class::Page);
        take(members.as_ref().map_err(|unreadable| unreadable.detail.clone())).map_err(|detail| {
            let detail = if is_page { format!("{detail}; {}", self.suspect()) } else { detail };
            // It was answered: a refresh token may have been spent for nothing.
            Failed::maybe_spent(TokenError::new(TokenErrorKind::Malformed).with_detail(detail))
        })
    }

    /// The token of a 2xx answer, or what is wrong with it.
    fn token(&self, members: &Members<'_>) -> Result<Token, String> {
        if let Some(name) = members.repeated(&["access_token", "token_type", "expires_in"]) {
            return Err(format!("`{name}` occurs more than once"));
        }
        let scheme = self.scheme(members)?;
        let access_token = match members.get("access_token") {
            Some(Member::Text(text)) => text,
            Some(_) => return Err("`access_token` is not a string".into()),
            None => return Err("there is no `access_token`".into()),
        };
        if let Some(asked) = self.asked_type {
            let issued = members.text("issued_token_type").ok_or("there is no `issued_token_type`")?;
            if !asked.takes(issued, self.settings.takes_assertions) {
                let wanted = if self.settings.takes_assertions { "an assertion" } else { "a token for API requests" };
                return Err(format!(
                    "`issued_token_type` is not that of {wanted}; see what the client may have exchanged, or say what is \
                     wanted with `requested_token_type`"
                ));
            }
        }
        let mut token = Token::with_scheme(scheme, access_token).map_err(|error| error.to_string())?;
        token.expires_in = self.known("expires_in", expiry::lifetime(members));
        token.expires_at = self.known("an absolute expiry", expiry::moment(members, self.now));
        token.refresh_in = self.known("refresh_in", expiry::refresh_in(members));
        if let Some(refresh_token) = members.text("refresh_token") {
            token.refresh_token = RefreshToken::Replace(Secret::from(refresh_token));
        }
        if let Some(granted) = members.scopes() {
            let granted = match self.asked_scopes {
                // A million tokens with the same scopes share them.
                Some(asked) if *asked == granted => asked.clone(),
                Some(asked) if self.require_granted && !granted.is_superset(asked) => {
                    return Err("fewer scopes were granted than asked for".into());
                }
                _ => granted,
            };
            token = token.with_scopes(granted);
        }
        Ok(token.with_extra(members.extra()))
    }

    /// What goes before the token in a request, which `token_type` says (RFC 6749 §7.1).
    fn scheme(&self, members: &Members<'_>) -> Result<&'static str, String> {
        let text = match members.get("token_type") {
            Some(Member::Text(text)) => text.trim(),
            Some(Member::Other(_)) => return Err("`token_type` is not a string".into()),
            None => "",
        };
        let means_bearer = |alias: &String| alias.eq_ignore_ascii_case(text);
        if text.eq_ignore_ascii_case("bearer") || self.settings.token_types.iter().any(means_bearer) {
            return self.unbound();
        }
        match text.to_ascii_lowercase().as_str() {
            "" if self.settings.require_token_type => Err("there is no `token_type`".into()),
            "" => self.unbound(),
            "dpop" if self.binds_tokens => Ok("DPoP"),
            "dpop" => Err("`token_type` is DPoP: the token needs a proof with each request".into()),
            "mac" => Err("`token_type` is MAC, which is not supported".into()),
            "n_a" if self.settings.takes_assertions => Ok("N_A"),
            "n_a" => Err("`token_type` is N_A: the token is not for API requests".into()),
            _ => Err("`token_type` is not known; if it means Bearer, configure it as an alias".into()),
        }
    }

    /// A server that knows no DPoP leaves the proof out of account (RFC 9449 §5).
    fn unbound(&self) -> Result<&'static str, String> {
        match self.settings.require_dpop {
            true => Err("the token is not bound to our key (its `token_type` is not DPoP)".into()),
            false => Ok("Bearer"),
        }
    }

    /// An expiry that is there but cannot be used counts as unknown, and is told once: some servers always send it so.
    fn known<T>(&self, what: &'static str, read: expiry::Read<T>) -> Option<T> {
        match read {
            expiry::Read::Known(value) => Some(value),
            expiry::Read::Absent => None,
            expiry::Read::Unusable => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    self.telemetry.unusable_member(what);
                }
                None
            }
        }
    }
}
