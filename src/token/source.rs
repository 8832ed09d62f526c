//! `TokenSource`: where tokens come from, and what it is asked.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;
use tower_service::Service;

use super::granted::{Failed, Granted, RefreshOwner};
use super::lifetime::LifetimePolicy;
use super::refresh_report::{Asked, RefreshReport};
use super::{Backoff, Token};
use crate::telemetry::{Telemetry, TokenRequestSpan};
use crate::types::{BoxError, Clock, Scopes, Secret, SystemClock, TenantId, TokenError, TokenParams};

/// What a [`TokenSource`] is asked for: everything that can differ between two token requests of one layer.
///
/// It carries the refresh token, so that sources hold no state of their own: a source can be cloned, wrapped in tower
/// layers and called from any task.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The tenant, where tokens are per tenant.
    pub tenant: Option<TenantId>,
    /// The scopes asked for by the request; `None` means those of the configuration.
    pub scopes: Option<Scopes>,
    /// Further parameters that the request brings.
    pub params: Option<TokenParams>,
    /// The refresh token that the cell holds.
    pub refresh_token: Option<Secret<String>>,
    /// The refresh token was sent before and its answer was lost: it may be spent. Prefer another grant if there is
    /// one.
    pub refresh_answer_lost: bool,
    /// The number of the refresh token that the cell holds, carried or not.
    pub(crate) refresh_number: u64,
    /// Who keeps that refresh token.
    pub(crate) refresh_owner: RefreshOwner,
    pub(crate) previous: Option<Token>,
    /// A store had that token.
    pub(crate) previous_from_store: bool,
    /// What the bounds of the token endpoint must know of who asks.
    pub(crate) asker: Asker,
    /// The token endpoint, where that is not the one of the configuration.
    pub(crate) endpoint: Option<EndpointName>,
    /// Set once it is certain that the request is not held back.
    pub(crate) sent: Arc<AtomicBool>,
    /// The tenant's own authorization server, found in a directory: known to the endpoint only.
    pub(crate) authority: Option<Arc<dyn Any + Send + Sync>>,
    /// `None`: no engine asks.
    pub(crate) context: Option<Arc<RefreshContext>>,
}

/// A token endpoint besides the one of the configuration.
#[derive(Clone)]
pub(crate) struct EndpointName {
    /// Its URL, or its issuer.
    pub(crate) server: Arc<str>,
    /// Tells what the client authenticates with there from what others do. A digest.
    pub(crate) credentials: [u8; 32],
}

impl TokenRequest {
    /// The token that a newer one is wanted for: it is due, was rejected or was invalidated. `None`: there was none.
    ///
    /// It tells a cache that is shared with others whether one of them has renewed the token already.
    pub fn previous(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// What the token will be judged by.
    pub(crate) fn context(&self) -> Arc<RefreshContext> {
        self.context.clone().unwrap_or_default()
    }
}

/// What the engine that asks judges a token by, for sources that must judge alike.
pub(crate) struct RefreshContext {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lifetime: LifetimePolicy,
    /// When the engine stops waiting.
    pub(crate) deadline: Instant,
    /// The pauses after failures that may pass.
    pub(crate) backoff: Backoff,
    /// What becomes of the refresh token.
    pub(crate) report: RefreshReport,
    /// Asked just before a refresh token is sent; `None`: it may be.
    pub(crate) may_send: Option<MaySend>,
    pub(crate) telemetry: Telemetry,
    /// `None`: this is no refresh.
    pub(crate) span: Option<Arc<TokenRequestSpan>>,
}

pub(crate) type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

impl RefreshContext {
    /// The same for a source behind this one, which sends a refresh token of its own.
    fn inner(&self) -> Self {
        let Self { clock, lifetime, deadline, backoff, report: _, may_send, telemetry, span } = self;
        Self {
            clock: clock.clone(),
            lifetime: lifetime.clone(),
            deadline: *deadline,
            backoff: *backoff,
            report: RefreshReport::default(),
            may_send: may_send.clone(),
            telemetry: telemetry.clone(),
            span: span.clone(),
        }
    }

    /// The same for a source that must ask before it sends a refresh token.
    pub(crate) fn guarded(&self, may_send: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { may_send: Some(Arc::new(may_send)), ..self.inner() }
    }

    /// The engine has given this request up: another one may be on its way, with the same refresh token. A task that was
    /// not driven for long hears of its deadline only after it has gone on.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Whether a refresh token may be sent now.
    pub(crate) fn may_send(&self) -> bool {
        self.may_send.as_ref().is_none_or(|may_send| may_send())
    }
}

impl Default for RefreshContext {
    fn default() -> Self {
        let now = Instant::now();
        let deadline = now.checked_add(Duration::from_secs(30)).unwrap_or(now);
        Self {
            clock: Arc::new(SystemClock),
            lifetime: LifetimePolicy::default(),
            deadline,
            backoff: Backoff::TRANSIENT,
            report: RefreshReport::default(),
            may_send: None,
            telemetry: Telemetry::default(),
            span: None,
        }
    }
}

/// What a partition's past says about its token request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The partition never had a token.
    pub(crate) first: bool,
    /// Its last request timed out.
    pub(crate) slow: bool,
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .field("params", &self.params)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}

/// Where tokens come from. The token endpoint is one; write your own for anything else.
///
/// The crate calls it at most once at a time for each partition, on a task of its own, under a deadline (30 s by
/// default): a caller that goes away cancels nothing. A panic, a hang or a runtime that shuts down becomes an error for
/// everybody who waits.
///
/// Write `async fn fetch`, or bring any `tower::Service<TokenRequest, Response = Token>`: timeouts, rate limits and
/// caches of tower then wrap it like any other service.
///
/// ```
/// use tower_oauth2_client::{Token, TokenError, TokenRequest, TokenSource};
///
/// struct FromVault;
///
/// impl TokenSource for FromVault {
///     async fn fetch(&self, _: TokenRequest) -> Result<Token, TokenError> {
///         let secret = std::env::var("API_TOKEN").map_err(TokenError::permanent)?;
///         Token::bearer(&secret).map_err(TokenError::permanent)
///     }
/// }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches one token.
    ///
    /// # Errors
    /// [`TokenError::transient`] and [`TokenError::permanent`] decide when it is asked again,
    /// [`TokenError::sign_in_again`] drops the refresh token. A `Service`'s own error counts as transient, unless a
    /// `TokenError` is inside it.
    fn fetch(&self, request: TokenRequest) -> impl Future<Output = Result<Token, TokenError>> + Send;
}

impl<S> TokenSource for S
where
    S: Service<TokenRequest, Response = Token> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let mut service = self.clone();
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(|error| TokenError::from_box(error.into()))?;
        service.call(request).await.map_err(|error| TokenError::from_box(error.into()))
    }
}

/// Asks a source, and judges what its result means for the refresh token.
pub(crate) async fn fetch(source: &impl TokenSource, mut request: TokenRequest) -> Result<Granted, Failed> {
    let (context, asked) = (Arc::new(request.context().inner()), Asked::of(&request));
    request.context = Some(context.clone());
    let result = source.fetch(request).await;
    context.report.judge(&asked, result)
}

pub(crate) type BoxFetch<'a> = Pin<Box<dyn Future<Output = Result<Granted, Failed>> + Send + 'a>>;

/// `TokenSource` behind a pointer, so that `AuthLayer` needs no type parameter. One box a token request.
pub(crate) trait DynTokenSource: Send + Sync + 'static {
    /// Fetches one token. The request's context has the report, should the future be dropped.
    fn fetch_boxed(&self, request: Box<TokenRequest>) -> BoxFetch<'_>;
}

/// A [`TokenSource`] whose type is not known before the program runs, as where a setting chooses it. Clones share the source.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, AuthLayer, BoxTokenSource, Secret, StaticToken, Token, TokenError, TokenRequest};
///
/// fn source(given: Option<Secret>) -> BoxTokenSource {
///     match given {
///         Some(token) => BoxTokenSource::new(StaticToken::new(token)),
///         None => BoxTokenSource::new(tower::service_fn(|_: TokenRequest| async {
///             Token::bearer("from-a-vault").map_err(TokenError::permanent)
///         })),
///     }
/// }
///
/// # tokio_test::block_on(async {
/// let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
/// let layer = AuthLayer::with_source(cfg, source(None));
/// assert_eq!(layer.handle().token().await?.access_token(), "from-a-vault");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct BoxTokenSource {
    fetch: Arc<Fetch>,
    source: Arc<dyn Any + Send + Sync>,
}

type Fetch = dyn Fn(TokenRequest) -> Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send>> + Send + Sync;

impl BoxTokenSource {
    /// Hides the type of a source.
    pub fn new(source: impl TokenSource) -> Self {
        let source = Arc::new(source);
        let fetch = {
            let source = source.clone();
            move |request| -> Pin<Box<dyn Future<Output = _> + Send>> {
                let source = source.clone();
                Box::pin(async move { source.fetch(request).await })
            }
        };
        Self { fetch: Arc::new(fetch), source }
    }

    /// The source inside.
    pub(crate) fn source(&self) -> &(dyn Any + Send + Sync) {
        &*self.source
    }
}

impl TokenSource for BoxTokenSource {
    fn fetch(&self, request: TokenRequest) -> impl Future<Output = Result<Token, TokenError>> + Send {
        (self.fetch)(request)
    }
}

impl fmt::Debug for BoxTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTokenSource").finish_non_exhaustive()
    }
}

pub(crate) fn erase(source: impl TokenSource) -> Arc<dyn DynTokenSource> {
    struct Erased<T>(T);

    impl<T: TokenSource> DynTokenSource for Erased<T> {
        fn fetch_boxed(&self, mut request: Box<TokenRequest>) -> BoxFetch<'_> {
            let (context, asked) = (request.context(), Asked::of(&request));
            request.context = Some(context.clone());
            let fetch = self.0.fetch(*request);
            Box::pin(async move { context.report.judge(&asked, fetch.await) })
        }
    }

    Arc::new(Erased(source))
}
