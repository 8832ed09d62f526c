//! Settings of when tokens are renewed, and for how long failures are remembered.

use std::sync::Arc;
use std::time::Duration;

use super::AuthConfigBuilder;
use crate::token::{Backoff, ExpirySource, Renew, UnknownExpiry};
use crate::types::Clock;

/// When tokens are renewed.
impl<E> AuthConfigBuilder<E> {
    /// Where the end of a token's life is read from, in this order; the first usable source wins.
    /// Default: `expires_in` (RFC 6749 §5.1), then absolute members, then `exp` inside a JWT (RFC 7519 §4.1.4).
    pub fn expiry(mut self, sources: impl IntoIterator<Item = ExpirySource>) -> Self {
        self.engine.lifetime.sources = sources.into_iter().collect();
        self
    }

    /// What to make of a token whose end no source tells. Default: it lives for an hour, neither instantly dead nor
    /// eternal.
    pub fn unknown_expiry(mut self, unknown: UnknownExpiry) -> Self {
        self.engine.lifetime.unknown = unknown;
        self
    }

    /// When a token is renewed. Default: [`Renew::Fraction(0.8)`](Renew::Fraction), in the background.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_oauth2_client::{AuthConfig, Renew};
    /// let cfg = AuthConfig::external().renew(Renew::Fraction(0.5)).origin("https://api.example.com").build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn renew(mut self, renew: Renew) -> Self {
        self.engine.lifetime.renew = renew;
        self
    }

    /// How long before expiry requests wait for a new token instead of going out with the old one, if it has not been
    /// renewed by then. Default: 30 s; never more than a tenth of the token's life. An error with [`Renew::AtExpiry`], which
    /// has no time before expiry.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.engine.lifetime.margin = Some(margin);
        self
    }

    /// Whether a token that has expired on arrival is an error
    /// ([`ClockSkew`](crate::TokenErrorKind::ClockSkew)). Default: `false`. It means that one of the clocks is wrong, so the
    /// token is used until it is rejected, and renewed after 30 s.
    pub fn discard_expired(mut self, discard: bool) -> Self {
        self.engine.lifetime.strict = discard;
        self
    }

    /// How long one token request may take in all, a fallback to another grant included. Default: 30 s, which two
    /// exchanges of 10 s fit into. It bounds your own [`TokenSource`](crate::TokenSource) too.
    pub fn refresh_deadline(mut self, deadline: Duration) -> Self {
        self.engine.refresh_deadline = deadline;
        self
    }

    /// The first and the longest pause after a failure that may pass; doubled each time, and drawn between zero and
    /// that. Default: 0.5 s and 60 s; never less than 0.1 s. A `Retry-After` of the server counts instead.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.engine.backoff = Backoff { first, longest, ..self.engine.backoff };
        self
    }

    /// The first and the longest pause after a failure that will not pass by itself, such as a wrong secret.
    /// Default: 30 s and 10 min; never less than 0.1 s. [`AuthHandle::invalidate`](crate::AuthHandle::invalidate) ends it.
    pub fn permanent_failure_pause(mut self, first: Duration, longest: Duration) -> Self {
        self.engine.permanent_pause = Backoff { first, longest, ..self.engine.permanent_pause };
        self
    }

    /// How long a rejected request waits for the next attempt at a token, instead of handing out its rejection, while the pause
    /// after a failure that may pass runs. Default: 1 s, in which most pauses after a first failure end; zero waits for none.
    pub fn wait_out_pause(mut self, longest: Duration) -> Self {
        self.engine.wait_out_pause = longest;
        self
    }

    /// The longest `Retry-After` (RFC 9110 §10.2.3) of the token endpoint obeyed. Default: 5 min: a server that says
    /// "tomorrow" by mistake would otherwise be believed. Zero obeys none.
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.engine.retry_after_cap = cap;
        self
    }

    /// How many requests may wait for a token while there is none; those beyond fail with
    /// [`Overloaded`](crate::TokenErrorKind::Overloaded). No limit by default: a limit belongs in front of the client.
    pub fn max_waiters(mut self, max: usize) -> Self {
        self.engine.max_waiters = Some(max);
        self
    }

    /// How many token requests there may be at a time for each token endpoint. Default: 64, which is more than a server
    /// answers well and far fewer than the tenants of a gateway that starts; zero is an error.
    ///
    /// Further ones wait, first come, first served, no longer than
    /// [`token_timeout`](crate::AuthConfigBuilder::token_timeout) each, then they fail with
    /// [`Overloaded`](crate::TokenErrorKind::Overloaded). Partitions whose last token request timed out share one permit in
    /// four, so that tenants that hang leave the rest to the others. Your own source counts as one endpoint.
    ///
    /// Token requests are held back too while the endpoint is down: after failures of three different tenants (or sets of
    /// scopes) with no success between, all requests without a token get the last of these errors, and one token request
    /// at a time finds out whether it is back, after the [`backoff`](Self::backoff). The same goes for credentials that are
    /// refused.
    pub fn max_concurrent_token_requests(mut self, max: usize) -> Self {
        self.engine.max_concurrent_token_requests = max;
        self
    }

    /// How many partitions (tenants with tokens of their own, sets of scopes) are kept. Default: 1024, which is half a
    /// megabyte and the tokens; zero is an error.
    ///
    /// Over it, each new partition takes the place of one that has gone unused for long, whose next request fetches a new
    /// token. A partition stays while a token request for it is in flight, while a request or response uses it, and while it
    /// holds a refresh token that is stored nowhere else. Where nearly all stay, there are more than `max` for a while.
    ///
    /// A remembered failure goes with its partition. So that invented tenants cannot make token requests without limit,
    /// tenants that never had a token may fail `max` times a minute, all of them together; after that they get
    /// [`Overloaded`](crate::TokenErrorKind::Overloaded).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_oauth2_client::{AuthConfig, Tenant};
    /// let cfg = AuthConfig::external()
    ///     .origin("https://api.example.com")
    ///     .tenant(Tenant::header("x-account").per_tenant_tokens())
    ///     .max_partitions(1_000_000)
    ///     .partition_idle(Duration::from_secs(600))
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    #[doc(alias = "max_tenants")]
    pub fn max_partitions(mut self, max: usize) -> Self {
        self.engine.max_partitions = max;
        self
    }

    /// For how long a partition is kept that nobody uses. Default: an hour, after which most tokens have expired, so that
    /// nothing is lost with it; less than a second is an error.
    ///
    /// Those over their time go a few at a time, with each new partition and once a second while there are requests: a
    /// million within some minutes. The exceptions are those of [`max_partitions`](Self::max_partitions).
    ///
    /// A partition with a token on somebody's behalf ([`SubjectToken`](crate::SubjectToken)) goes earlier: as soon as its token
    /// has expired and nobody has used it for a minute.
    #[doc(alias = "tenant_idle")]
    pub fn partition_idle(mut self, idle: Duration) -> Self {
        self.engine.partition_idle = idle;
        self
    }

    /// Another clock, for tests. Default: [`SystemClock`](crate::SystemClock).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}
