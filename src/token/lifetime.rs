//! When a token is fresh, stale, late and expired, by both clocks.

use std::time::{Duration, SystemTime};

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Token;
use crate::types::{ConfigError, Now};

/// Where the end of a token's life is read from. Sources are tried in the configured order; the first usable one wins.
///
/// The default order is [`ExpiresIn`](Self::ExpiresIn), [`ExpiresAt`](Self::ExpiresAt), [`JwtExp`](Self::JwtExp). Put
/// `JwtExp` first, or alone, where the server replays a cached answer and `expires_in` tells the lifetime of a new
/// token whatever the age of the one it hands out.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2_client::{AuthConfig, ClientAuth, ExpirySource, UnknownExpiry};
///
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .expiry([ExpirySource::JwtExp, ExpirySource::ExpiresIn])
///     .unknown_expiry(UnknownExpiry::Assume(Duration::from_secs(300)))
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpirySource {
    /// The lifetime in the answer (`expires_in`, RFC 6749 §5.1), counted from when the token was asked for. Zero counts
    /// as not told.
    ExpiresIn,
    /// The absolute expiry in the answer (`expires_at`, `expires_on`), by this machine's wall clock.
    ExpiresAt,
    /// The `exp` claim, if the access token happens to be a JWT (RFC 7519 §4.1.4), by this machine's wall clock.
    ///
    /// It says when to ask for a new token, nothing else: the JWT is not verified (that is the API's task), and its
    /// claims are never exposed. A forged `exp` can do no more than move the next token request within the limits that
    /// hold for every token: a second from now at the earliest, a year at the latest.
    JwtExp,
    /// The same lifetime for every token, whatever the server says; counted from when the token was asked for. Zero is
    /// a configuration error.
    Fixed(Duration),
}

impl ExpirySource {
    fn read(self, token: &Token) -> Option<Stated> {
        let span = |span: Duration| (!span.is_zero()).then_some(Stated::Lasts(span));
        match self {
            Self::ExpiresIn => token.expires_in.and_then(span),
            Self::ExpiresAt => token.expires_at.map(Stated::Ends),
            Self::JwtExp => jwt_exp(token.access_token()).map(Stated::Ends),
            Self::Fixed(lifetime) => span(lifetime),
        }
    }
}

enum Stated {
    Lasts(Duration),
    Ends(SystemTime),
}

/// What to make of a token whose end no [`ExpirySource`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnknownExpiry {
    /// It lives this long, counted from when it was asked for. The default, with one hour: the lifetime most servers
    /// give, short enough that a wrong guess is mended soon, and a 401 mends it at once.
    Assume(Duration),
    /// It lives until the API rejects it: for servers whose tokens do not expire.
    UntilRejected,
    /// It is not used: the token request counts as failed.
    Error,
}

impl Default for UnknownExpiry {
    fn default() -> Self {
        Self::Assume(Duration::from_secs(3600))
    }
}

/// The shortest time between a token's arrival and the next token request that its lifetime causes. However short the
/// lifetimes a server gives, they cannot make a loop.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// When a token that arrived expired is renewed. Either one of the clocks is wrong or the server replays a cached
/// answer; both last, so that asking again each second would hammer the server and change nothing.
const RENEW_SKEWED: Duration = Duration::from_secs(30);

/// No span of time that the crate reckons with is longer.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a token is renewed, for [`AuthConfigBuilder::renew`](crate::AuthConfigBuilder::renew).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Renew {
    /// In the background at this fraction of a token's life, in (0, 1]. The default is 0.8.
    ///
    /// Up to 5 % less is drawn for each token, so that processes do not renew in step. A process's first token is renewed
    /// anywhere between 44 % of this fraction and all of it (35 % to 80 % of the token's life by default), so that
    /// processes that started together part at once; one from a store up to 15 % earlier, in case the store fails.
    Fraction(f64),
    /// At expiry and not before: for servers that hand out the same token until then. Requests that come after expiry wait
    /// for the new token.
    AtExpiry,
}

impl Default for Renew {
    fn default() -> Self {
        Self::Fraction(0.8)
    }
}

/// From what is known of a token to its [`Lifetime`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LifetimePolicy {
    pub(crate) sources: Vec<ExpirySource>,
    pub(crate) unknown: UnknownExpiry,
    pub(crate) renew: Renew,
    /// How long before expiry requests begin to wait; at most 10 % of the life. `None`: 30 s.
    pub(crate) margin: Option<Duration>,
    /// A token that arrives expired is an error: the provider wants expired tokens discarded.
    pub(crate) strict: bool,
    /// No token is trusted for longer.
    pub(crate) max: Duration,
}

impl Default for LifetimePolicy {
    fn default() -> Self {
        Self {
            sources: vec![ExpirySource::ExpiresIn, ExpirySource::ExpiresAt, ExpirySource::JwtExp],
            unknown: UnknownExpiry::default(),
            renew: Renew::default(),
            margin: None,
            strict: false,
            max: YEAR,
        }
    }
}

impl LifetimePolicy {
    const MARGIN: Duration = Duration::from_secs(30);

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self.renew {
            Renew::Fraction(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                return Err(ConfigError::new(
                    "the fraction of a token's life after which it is renewed is not in (0, 1]",
                    "0.8 renews a token after 80 % of its life",
                ));
            }
            Renew::AtExpiry if self.margin.is_some() => {
                return Err(ConfigError::new(
                    "tokens are renewed at expiry, so that there is no margin before it",
                    "leave `expiry_margin` out, or use `Renew::Fraction`",
                ));
            }
            _ => {}
        }
        if self.sources.contains(&ExpirySource::Fixed(Duration::ZERO)) {
            return Err(ConfigError::new("the fixed lifetime is zero", "give the lifetime of a token"));
        }
        if self.unknown == UnknownExpiry::Assume(Duration::ZERO) {
            return Err(ConfigError::new(
                "the assumed lifetime is zero",
                "give a lifetime, or use `UnknownExpiry::UntilRejected`",
            ));
        }
        Ok(())
    }

    fn margin_of(&self, life: Duration) -> Duration {
        match self.renew {
            Renew::AtExpiry => Duration::ZERO,
            Renew::Fraction(_) => self.margin.unwrap_or(Self::MARGIN).min(life.checked_div(10).unwrap_or_default()),
        }
    }

    /// When the token is renewed, counted from when it was asked for.
    fn refresh_point(&self, life: Duration, refresh_in: Option<Duration>, spread: Spread, draw: f64) -> Duration {
        let hinted = |point: Duration| refresh_in.map_or(point, |hint| hint.min(point));
        match self.renew {
            Renew::AtExpiry => hinted(life),
            Renew::Fraction(fraction) => jitter(hinted(share(life, fraction)), life, spread, draw),
        }
    }
}

/// With how many others a token is renewed at the same time, if nothing is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Processes that started together, or waited out the same outage, have tokens of the same age. Spread over 35-80 % of
    /// the life (at the default fraction) they part at once; a few percent alone would take them hours.
    Wide,
    /// Processes with a store have the same token. One renews it for all, so that each that comes early costs token
    /// requests; but if the store fails meanwhile all renew it: 65-80 %.
    Shared,
    /// They have parted: a little keeps them apart.
    Narrow,
}

fn jitter(point: Duration, life: Duration, spread: Spread, draw: f64) -> Duration {
    const WIDE_FROM: f64 = 0.35 / 0.8;
    const SHARED: f64 = 0.15;
    const NARROW: f64 = 0.05;
    match spread {
        Spread::Wide => share(point, WIDE_FROM + (1.0 - WIDE_FROM) * draw),
        Spread::Shared => point.saturating_sub(share(life, SHARED * draw)),
        Spread::Narrow => point.saturating_sub(share(life, NARROW * draw)),
    }
}

pub(super) fn share(span: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * part).unwrap_or(span)
}

/// When a token is renewed, waited for, and dead: how long after it arrived. Small, since there may be a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    arrived: Now,
    refresh: Span,
    margin: Span,
    /// Never: it lives until it is rejected.
    expiry: Span,
}

/// In nanoseconds; `u64::MAX`, five centuries, is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(u64);

impl Span {
    const NEVER: Self = Self(u64::MAX);

    fn of(span: Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }

    fn after(self, arrived: &Now) -> Option<Now> {
        (self != Self::NEVER).then(|| arrived.after(Duration::from_nanos(self.0)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Use it.
    Fresh,
    /// Use it, and renew it in the background.
    Stale,
    /// Alive, but likely dead when the request arrives: wait for the renewal, and use it if that fails.
    NearExpiry,
    /// Do not use it.
    Expired,
}

impl Lifetime {
    /// When the token came.
    pub(crate) fn arrived(&self) -> Now {
        self.arrived
    }

    pub(crate) fn freshness(&self, now: &Now) -> Freshness {
        let reached = |span: Span| span.after(&self.arrived).is_some_and(|moment| now.reached(&moment));
        if reached(self.expiry) {
            Freshness::Expired
        } else if reached(self.margin) {
            Freshness::NearExpiry
        } else if reached(self.refresh) {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    pub(crate) fn is_alive(&self, now: &Now) -> bool {
        self.freshness(now) != Freshness::Expired
    }

    /// How long until [`freshness`](Self::freshness) changes next, if it ever does by itself.
    pub(crate) fn next_boundary(&self, now: &Now) -> Option<Duration> {
        let moments = [self.refresh, self.margin, self.expiry].into_iter().filter_map(|span| span.after(&self.arrived));
        moments.filter(|moment| !now.reached(moment)).map(|moment| now.until(&moment)).min()
    }

    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        self.expiry.after(&self.arrived).map(|expiry| expiry.wall)
    }

    /// How much of it is left, by the clock that went further.
    pub(crate) fn left(&self, now: &Now) -> Option<Duration> {
        self.expiry.after(&self.arrived).map(|expiry| now.until(&expiry))
    }

    /// The server handed out the identical token before its end: it will do so again until then, so ask at expiry.
    pub(crate) fn kept_until_expiry(self) -> Self {
        match self.expiry {
            Span::NEVER => self,
            expiry => Self { refresh: expiry, margin: expiry, ..self },
        }
    }
}

/// Why a token has no lifetime and must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLifetime {
    /// It had expired when it arrived, and the policy is strict.
    Expired,
    /// Nothing tells its end, and the policy forbids guessing.
    Unknown,
}

/// The lifetime of a token that was `asked` for (the request was sent) and `arrived` then.
///
/// `draw`: uniform in [0, 1), drawn once for this token.
pub(crate) fn lifetime_of(
    token: &Token,
    policy: &LifetimePolicy,
    asked: Now,
    arrived: Now,
    spread: Spread,
    draw: f64,
) -> Result<Lifetime, NoLifetime> {
    let age = elapsed(asked, arrived);
    let until_rejected = |refresh: Option<Duration>| {
        let refresh = refresh.map_or(Span::NEVER, Span::of);
        Ok(Lifetime { arrived, refresh, margin: Span::NEVER, expiry: Span::NEVER })
    };
    // Beside what is stated: the token that it was exchanged for ends then.
    let cap = token.not_after.map(|end| end.duration_since(arrived.wall).unwrap_or_default().saturating_add(age));
    let stated = match (policy.sources.iter().find_map(|source| source.read(token)), policy.unknown) {
        (Some(stated), _) => stated,
        (None, UnknownExpiry::Assume(lifetime)) => Stated::Lasts(lifetime),
        (None, UnknownExpiry::UntilRejected) if cap.is_some() => Stated::Lasts(policy.max),
        (None, UnknownExpiry::UntilRejected) => {
            let refresh = token.refresh_in.map(|after| jitter(after, after, spread, draw).saturating_sub(age));
            return until_rejected(refresh.map(|after| after.max(MIN_INTERVAL)));
        }
        (None, UnknownExpiry::Error) => return Err(NoLifetime::Unknown),
    };
    let life = match stated {
        Stated::Lasts(life) => life,
        Stated::Ends(end) => match end.duration_since(arrived.wall) {
            Ok(left) if !left.is_zero() => left.saturating_add(age),
            _ if policy.strict => return Err(NoLifetime::Expired),
            _ => match cap {
                Some(cap) => cap,
                None => return until_rejected(Some(RENEW_SKEWED)),
            },
        },
    };
    let life = life.min(policy.max).min(cap.unwrap_or(Duration::MAX));
    let left = life.saturating_sub(age).max(MIN_INTERVAL);
    let margin = left.saturating_sub(policy.margin_of(life)).max(MIN_INTERVAL);
    let refresh = policy.refresh_point(life, token.refresh_in, spread, draw);
    let refresh = refresh.saturating_sub(age).max(MIN_INTERVAL).min(margin);
    Ok(Lifetime { arrived, refresh: Span::of(refresh), margin: Span::of(margin), expiry: Span::of(left) })
}

/// How long a token that may be old, from a store, can be sent without waiting for a newer one: until its margin. Zero:
/// it is of no use any more. `None`: it lives until it is rejected.
pub(crate) fn useful_for(token: &Token, policy: &LifetimePolicy, now: &Now) -> Option<Duration> {
    let age = token.asked_at.and_then(|asked| now.wall.duration_since(asked).ok()).unwrap_or_default();
    let stated = match (policy.sources.iter().find_map(|source| source.read(token)), policy.unknown) {
        (Some(stated), _) => stated,
        (None, UnknownExpiry::Assume(lifetime)) => Stated::Lasts(lifetime),
        (None, UnknownExpiry::UntilRejected) => return None,
        (None, UnknownExpiry::Error) => return Some(Duration::ZERO),
    };
    let life = match stated {
        Stated::Lasts(life) => life,
        Stated::Ends(end) => end.duration_since(now.wall).unwrap_or_default().saturating_add(age),
    };
    let life = life.min(policy.max);
    Some(life.saturating_sub(age).saturating_sub(policy.margin_of(life)))
}

/// By whichever clock went further: the monotonic one may have slept meanwhile, the wall clock may have been set back.
pub(crate) fn elapsed(from: Now, to: Now) -> Duration {
    let monotonic = to.monotonic.saturating_duration_since(from.monotonic);
    monotonic.max(to.wall.duration_since(from.wall).unwrap_or_default())
}

/// The `exp` claim of a JWT (RFC 7519 §4.1.4), unverified; `None` for everything that is not a signed or unsigned JWT
/// with a sensible `exp`.
///
/// Not by a JWT library: those refuse algorithms they do not know, which is no business of a client's. Milliseconds and
/// numeric strings are mistakes that servers make.
pub(crate) fn jwt_exp(token: &str) -> Option<SystemTime> {
    const MAX_CLAIMS: usize = 32 * 1024;
    /// As seconds the year 33658, as milliseconds 2001: above it, milliseconds are meant.
    const MILLISECONDS_FROM: f64 = 1e12;

    #[derive(Deserialize)]
    struct Claims<'a> {
        #[serde(borrow)]
        exp: &'a RawValue,
    }

    // A token of more than three parts leaves a dot in the middle, which is not base64.
    let (_, rest) = token.split_once('.')?;
    let (claims, _) = rest.rsplit_once('.')?;
    if base64::decoded_len_estimate(claims.len()) > MAX_CLAIMS {
        return None;
    }
    let claims = LENIENT_BASE64.decode(claims).ok()?;
    let exp = serde_json::from_slice::<Claims<'_>>(&claims).ok()?.exp.get();
    let exp = exp.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(exp);
    let exp: f64 = exp.trim().parse().ok()?;
    let seconds = if exp < MILLISECONDS_FROM { exp } else { exp / 1000.0 };
    if seconds <= 0.0 {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests;
