//! Spans: one for each token request, and one for each request that waits for a token.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::Empty;

use super::{TARGET, Telemetry};
use crate::types::{TenantId, TokenError};

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The partition had none so far.
    First,
    /// Ahead of the expiry of the one that it has; nobody waits.
    Renewal,
    /// Of the one that it has, which is near or past.
    Expiry,
    /// An API rejected it.
    Rejection,
    /// It was invalidated, or the credentials were replaced.
    Invalidation,
}

impl Trigger {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Renewal => "renewal",
            Self::Expiry => "expiry",
            Self::Rejection => "rejection",
            Self::Invalidation => "invalidation",
        }
    }
}

/// How a token request ended.
pub(crate) enum Ended<'a> {
    NewToken { generation: u64, left: Option<Duration> },
    SameToken { generation: u64 },
    Failed(&'a TokenError),
    Superseded,
}

impl Ended<'_> {
    fn as_str(&self) -> &'static str {
        match self {
            Self::NewToken { .. } => "new_token",
            Self::SameToken { .. } => "same_token",
            Self::Failed(_) => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// One token request, as it is seen from outside. Made under a cell's lock, which [`begin`](Self::begin) is not.
pub(crate) struct TokenRequestSpan {
    telemetry: Telemetry,
    trigger: Trigger,
    tenant: Option<TenantId>,
    started: Instant,
    /// Not there before it has begun.
    span: OnceLock<Span>,
    /// Of the last exchange with the token endpoint.
    grant: Mutex<Option<&'static str>>,
    /// Nobody was asked: a store had what another process brought.
    is_stored: AtomicBool,
}

impl TokenRequestSpan {
    pub(crate) fn new(
        telemetry: &Telemetry,
        trigger: Trigger,
        tenant: Option<&TenantId>,
        started: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            telemetry: telemetry.clone(),
            trigger,
            tenant: tenant.cloned(),
            started,
            span: OnceLock::new(),
            grant: Mutex::default(),
            is_stored: AtomicBool::new(false),
        })
    }

    /// The span to run in. It is nobody's child: those who wait may be many, and may be gone before it ends.
    pub(crate) fn begin(&self) -> Span {
        let new = || {
            tracing::info_span!(
                target: TARGET,
                parent: None,
                "token_request",
                layer = self.telemetry.name(),
                trigger = self.trigger.as_str(),
                grant = Empty,
                outcome = Empty,
                "error.type" = Empty,
                duration_ms = Empty,
                "otel.status_code" = Empty,
            )
        };
        // The token must come whatever a subscriber does.
        let span = catch_unwind(AssertUnwindSafe(new)).unwrap_or_else(|_| Span::none());
        self.span.get_or_init(|| span).clone()
    }

    /// It is on its way.
    pub(crate) fn begun(&self) {
        self.in_scope(|| self.telemetry.token_request(self.trigger));
    }

    /// An exchange with the token endpoint: `grant_type`, as the standards name it.
    pub(crate) fn exchange(&self, grant_type: &'static str) {
        *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = Some(grant_type);
    }

    /// The token comes from a store.
    pub(crate) fn found_in_store(&self) {
        self.is_stored.store(true, Ordering::Relaxed);
    }

    /// The end, as those who wait were told.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let took = self.telemetry.now().map(|now| now.saturating_duration_since(self.started)).unwrap_or_default();
        let outcome = match ended {
            Ended::NewToken { .. } if self.is_stored.load(Ordering::Relaxed) => "stored_token",
            ended => ended.as_str(),
        };
        let grant = *self.grant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = self.span.get().filter(|span| !span.is_disabled()) {
            if let Some(grant) = grant {
                span.record("grant", grant);
            }
            span.record("outcome", outcome);
            span.record("duration_ms", millis(took));
            if let Ended::Failed(error) = ended {
                span.record("error.type", error.kind().as_str());
                span.record("otel.status_code", "ERROR");
            }
        }
        self.in_scope(|| match ended {
            Ended::NewToken { generation, .. } => self.telemetry.new_token(*generation),
            Ended::SameToken { generation } => self.telemetry.same_token(*generation),
            Ended::Failed(error) => self.telemetry.token_request_failed(error),
            Ended::Superseded => self.telemetry.token_request_superseded(),
        });
        let error = match ended {
            Ended::Failed(error) => Some(error.kind().as_str()),
            _ => None,
        };
        let metrics = &self.telemetry.0.metrics;
        metrics.token_request(self.trigger.as_str(), grant, outcome, error, took);
        match ended {
            Ended::NewToken { left, .. } => metrics.token_lifetime(*left),
            Ended::Failed(error) => self.telemetry.observe(self.tenant.as_ref(), error),
            Ended::SameToken { .. } | Ended::Superseded => {}
        }
    }

    fn in_scope(&self, tell: impl FnOnce()) {
        match self.span.get() {
            Some(span) => span.in_scope(tell),
            None => tell(),
        }
    }
}

/// The time that one request waits for a token.
pub(crate) struct Wait {
    waits_for: WaitsFor,
    since: Instant,
    /// Its span, once it is certain that it waits.
    span: Option<Span>,
}

enum WaitsFor {
    Request(Arc<TokenRequestSpan>),
    /// The rest of the pause after a failure.
    Pause(Telemetry),
}

impl Wait {
    pub(crate) fn for_request(request: &Arc<TokenRequestSpan>, since: Instant) -> Self {
        Self { waits_for: WaitsFor::Request(request.clone()), since, span: None }
    }

    pub(crate) fn for_pause(telemetry: &Telemetry, since: Instant) -> Self {
        Self { waits_for: WaitsFor::Pause(telemetry.clone()), since, span: None }
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        match &self.waits_for {
            WaitsFor::Request(request) => &request.telemetry,
            WaitsFor::Pause(telemetry) => telemetry,
        }
    }

    /// There is nothing yet. To be called in the request's own span, of which this one is a child.
    #[inline]
    pub(crate) fn pending(&mut self) {
        if self.span.is_none() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let name = self.telemetry().name();
        let span = tracing::info_span!(target: TARGET, "token_wait", layer = name, duration_ms = Empty);
        if let WaitsFor::Request(request) = &self.waits_for
            && let Some(of) = request.span.get()
            && !span.is_disabled()
        {
            of.follows_from(&span);
            span.follows_from(of);
        }
        self.telemetry().0.metrics.wait_begins();
        self.span = Some(span);
    }

    /// There is something.
    #[inline]
    pub(crate) fn ended(&mut self) {
        if let Some(span) = self.span.take() {
            self.end(&span);
        }
    }

    fn end(&self, span: &Span) {
        if span.is_disabled() && !cfg!(feature = "metrics") {
            return;
        }
        let took = self.telemetry().now().map(|now| now.saturating_duration_since(self.since)).unwrap_or_default();
        span.record("duration_ms", millis(took));
        self.telemetry().0.metrics.wait_ends(Some(took));
    }
}

/// It was given up.
impl Drop for Wait {
    fn drop(&mut self) {
        if self.span.is_some() {
            self.telemetry().0.metrics.wait_ends(None);
        }
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
