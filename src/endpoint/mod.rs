//! The token endpoint: a tower service from `TokenRequest` to `Token` over any HTTP service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "dpop")]
use http::Method;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

#[cfg(feature = "dpop")]
use crate::dpop::{About, Prover};
use crate::engine::{EnginePolicy, Env, Table};
#[cfg(feature = "dpop")]
use crate::request::Origin;
use crate::store::{KnownStore, StoreAccess};
use crate::telemetry::Telemetry;
use crate::token::{Failed, LifetimePolicy, RefreshContext, RefreshFate, RefreshToken, Token, TokenRequest, erase};
use crate::types::{BoxError, Clock, Secret, TokenError, TokenErrorKind, unavailable};

mod answer;
#[cfg(feature = "reqwest")]
mod client;
mod client_auth;
mod device;
mod direct;
mod directory;
mod discovery;
mod encode;
mod endpoints;
mod exchange;
mod grant;
mod identity;
mod revocation;
mod settings;
#[cfg(test)]
mod tests;
#[cfg(feature = "reqwest")]
mod tls;
mod transport;
mod wire;

#[cfg(feature = "reqwest")]
pub use client::{BuiltInClient, ReqwestClient};
pub use client_auth::ClientAuth;
pub use directory::{Authority, Directory};
pub use discovery::{Discovery, TokenUrl};
pub use encode::BodyEncoding;
pub use grant::{AuthorizationCode, GrantAssertion, IdentityAssertion, OnBehalfOf, TokenExchange};

pub(crate) use answer::{AnswerSettings, Redactor, is_registered};
#[cfg(feature = "reqwest")]
pub(crate) use client::BuiltInClientSettings;
pub(crate) use client_auth::Credentials;
pub(crate) use device::{DeviceAuthorization, DeviceError};
pub(crate) use direct::Direct;
pub(crate) use directory::DirectorySettings;
pub(crate) use discovery::TokenAt;
pub(crate) use endpoints::Endpoints;
pub(crate) use grant::{Grant, Issuer};
pub(crate) use revocation::{Revoked, revoke};
pub(crate) use settings::{EndpointSettings, Param};

use answer::Reader;
use discovery::MetadataCache;
use exchange::Exchanger;
use grant::{GrantKind, GrantParams, partition_of_assertion, subject_expiry};
use wire::Material;

/// The token endpoint of an authorization server (RFC 6749 §3.2) as a tower service over any HTTP client.
///
/// It holds no token: the refresh token comes with each [`TokenRequest`], and what the answer means for it goes back
/// with the [`Token`]. So it can be cloned, wrapped in tower layers and called from any task.
///
/// A refresh token is used where there is one. If it turns out dead (`invalid_grant`), or the refresh URL does not
/// exist (404, 405, 410), the configured grant is used within the same call.
///
/// [`AuthLayer`](crate::AuthLayer) makes one for itself. By itself it is for programs that want tokens and no middleware.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower::ServiceExt;
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, ClientAuth, TokenEndpoint, TokenRequest};
///
/// # tokio_test::block_on(async {
/// let http_client = AuthServer::new(TestClock::new());
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let token = TokenEndpoint::new(&cfg, http_client)?.oneshot(TokenRequest::default()).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
pub struct TokenEndpoint<C> {
    client: C,
    shared: Arc<Shared>,
    /// The one that the configuration starts with: whose tokens these are, where nothing else says it.
    first_refresh_token: Option<Secret<String>>,
}

struct Shared {
    settings: Arc<EndpointSettings>,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
    metadata: Arc<MetadataCache>,
    /// Where the assertions of the grant come from, if they do.
    assertions: OnceLock<Arc<Table>>,
    /// An unusable expiry was warned of already.
    warned: Arc<AtomicBool>,
    /// The store around this endpoint, if there is one.
    store: Arc<KnownStore>,
    telemetry: Telemetry,
    #[cfg(feature = "dpop")]
    prover: Option<Arc<Prover>>,
}

impl Shared {
    /// Whether there is something to wait for before a request can be made.
    fn may_wait(&self) -> bool {
        matches!(self.settings.url, TokenAt::Discovered(_))
            || self.settings.grant.may_wait()
            || self.credentials.load().may_wait()
    }

    /// For one exchange; `None` where tokens are not bound to a key.
    #[cfg(feature = "dpop")]
    fn proof(&self, url: &Uri, nonce: Option<Box<str>>) -> Result<Option<HeaderValue>, TokenError> {
        let Some(prover) = &self.prover else { return Ok(None) };
        let (origin, now) = (origin_of(url), self.clock.now().wall);
        let about = About { method: &Method::POST, origin: &origin, path: url.path(), token: None, now };
        prover.prove(about, nonce).map(Some)
    }

    #[cfg(not(feature = "dpop"))]
    fn proof(&self, _: &Uri, _: Option<Box<str>>) -> Result<Option<HeaderValue>, TokenError> {
        Ok(None)
    }

    /// The nonce that an answer brought for the next proof.
    #[cfg(feature = "dpop")]
    fn learn_nonce(&self, url: &Uri, headers: &HeaderMap) -> Option<Box<str>> {
        self.prover.as_ref()?.learn(&origin_of(url), headers)
    }

    #[cfg(not(feature = "dpop"))]
    fn learn_nonce(&self, _: &Uri, _: &HeaderMap) -> Option<Box<str>> {
        None
    }
}

#[cfg(feature = "dpop")]
fn origin_of(url: &Uri) -> String {
    // Both are there: the URL was checked when it was parsed.
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let written = format!("{}://{authority}", url.scheme_str().unwrap_or("https"));
    // As servers normalise it to compare (RFC 9449 §4.3).
    Origin::parse(&written).map_or(written, |origin| origin.to_string())
}

impl<C> TokenEndpoint<C> {
    pub(crate) fn from_parts(
        client: C,
        settings: Arc<EndpointSettings>,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Self {
        let shared = Shared {
            #[cfg(feature = "dpop")]
            prover: settings.dpop.clone().map(Prover::new).map(Arc::new),
            settings,
            credentials,
            clock,
            metadata: Arc::default(),
            assertions: OnceLock::new(),
            warned: Arc::default(),
            store: Arc::default(),
            telemetry,
        };
        Self { client, shared: Arc::new(shared), first_refresh_token: None }
    }

    /// The HTTP service inside.
    pub fn get_ref(&self) -> &C {
        &self.client
    }

    /// The HTTP service inside.
    pub fn get_mut(&mut self) -> &mut C {
        &mut self.client
    }

    /// The HTTP service inside.
    pub fn into_inner(self) -> C {
        self.client
    }

    /// The store that was put around this endpoint.
    pub(crate) fn store(&self) -> Option<Arc<dyn StoreAccess>> {
        self.shared.store.get()
    }

    pub(crate) fn starting_with(mut self, refresh_token: Option<Secret<String>>) -> Self {
        self.first_refresh_token = refresh_token;
        self
    }
}

impl<C, RB> TokenEndpoint<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    /// With the endpoint that its assertions come from, where there is one: cells of their own, with the pauses and bounds of
    /// this policy. When tokens are renewed is no setting for assertions.
    pub(crate) fn with_assertions(self, policy: &EnginePolicy) -> Self {
        if let Grant::IdentityAssertion(first_leg) = &self.shared.settings.grant {
            let credentials = Credentials::new(first_leg.client_auth.clone());
            let settings = Arc::new(first_leg.settings.clone());
            let (clock, telemetry) = (self.shared.clock.clone(), self.shared.telemetry.of_inner_table());
            let endpoint =
                TokenEndpoint::from_parts(self.client.clone(), settings, credentials, clock.clone(), telemetry.clone());
            let policy = EnginePolicy { lifetime: LifetimePolicy::default(), ..policy.clone() };
            let env = Env::new(erase(endpoint), clock, policy, None).with_telemetry(telemetry);
            let _ = self.shared.assertions.set(Table::new(env, None));
        }
        self
    }
}

impl<C, RB> Service<TokenRequest> for TokenEndpoint<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    type Response = Token;
    type Error = TokenError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        let failed = |error: BoxError| self.shared.telemetry.named(transport::failed(error, false).error);
        self.client.poll_ready(cx).map_err(|error| failed(error.into()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let fresh = self.client.clone();
        let ready = std::mem::replace(&mut self.client, fresh);
        // What has to be waited for may need the place that a ready client holds.
        let shared = directory::endpoint_of(&request, &self.shared);
        let (client, is_ready) = if shared.may_wait() { (self.client.clone(), false) } else { (ready, true) };
        let telemetry = shared.telemetry.clone();
        let mut call = Call::new(client, is_ready, shared, request);
        Box::pin(async move { call.run().await.map_err(|failed| telemetry.named(failed.error)) })
    }
}

/// One token request: up to two exchanges, and one more if the client's secret turns out to have been replaced.
struct Call<C> {
    exchanger: Exchanger<C>,
    shared: Arc<Shared>,
    request: TokenRequest,
    /// Told what becomes of the refresh token.
    context: Arc<RefreshContext>,
    /// The secret was read a second time.
    read_again: bool,
    /// A second assertion was asked for.
    assertion_again: bool,
    /// The last answer brought it.
    nonce: Option<Box<str>>,
}

impl<C> Call<C> {
    fn new(client: C, is_ready: bool, shared: Arc<Shared>, request: TokenRequest) -> Self {
        let (exchanger, context) = (Exchanger::new(client, is_ready), request.context());
        context.report.begin();
        Self { exchanger, shared, request, context, read_again: false, assertion_again: false, nonce: None }
    }

    /// The nonce that the last answer brought, if it is wanted in the proof: nothing else was looked at (RFC 9449 §8).
    fn nonce_wanted(&mut self, result: &Result<Token, Failed>) -> Option<Box<str>> {
        let nonce = self.nonce.take();
        nonce.filter(|_| matches!(result, Err(failed) if wants_nonce(&failed.error)))
    }

    /// How the client says who it is, for one exchange of a grant that is at hand.
    async fn present(
        &self,
        endpoints: Endpoints,
        grant: GrantParams,
        auth: &ClientAuth,
    ) -> Result<Material, TokenError> {
        let Shared { settings, clock, .. } = &*self.shared;
        let presenting = auth.present(&endpoints.audience_of_assertions, clock.now().wall);
        let presented = in_time(settings.timeout, presenting).await?;
        Ok(Material { endpoints, grant, presented, proof: None })
    }

    /// That we have the key which the token is to be bound to, where it is to be.
    fn prove(&self, material: Material, asking: GrantKind, nonce: Option<Box<str>>) -> Result<Material, TokenError> {
        let proof = self.shared.proof(material.endpoints.token_url(asking), nonce)?;
        Ok(Material { proof, ..material })
    }

    fn reader<'a>(&'a self, asking: GrantKind, url: &'a Uri, sent: Redactor<'a>) -> Reader<'a> {
        let Shared { settings, clock, warned, telemetry, .. } = &*self.shared;
        Reader {
            settings: &settings.answer,
            binds_tokens: settings.binds_tokens(),
            asking,
            dead_refresh_codes: &settings.dead_refresh_codes,
            asked_scopes: self.request.scopes.as_ref().or(settings.scopes.as_ref()),
            require_granted: settings.require_granted,
            asked_type: settings.grant.asked_type().filter(|_| asking == GrantKind::Primary),
            url,
            sent,
            now: clock.now().wall,
            warned,
            telemetry,
        }
    }
}

impl<C, RB> Call<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    async fn run(&mut self) -> Result<Token, Failed> {
        let has_primary = self.shared.settings.grant.is_primary();
        if self.request.refresh_token.is_none() {
            return if has_primary { self.ask(GrantKind::Primary).await } else { Err(no_refresh_token().into()) };
        }
        if has_primary && self.request.refresh_answer_lost {
            // It may be spent, and a second use of a spent one revokes what descends from it (RFC 9700 §4.14.2).
            return self.ask(GrantKind::Primary).await.map(drop_refresh_token);
        }
        match self.ask(GrantKind::RefreshToken).await {
            Err(failed) if has_primary && failed.refresh == RefreshFate::Dead => {
                self.ask(GrantKind::Primary).await.map(drop_refresh_token)
            }
            Err(failed) if has_primary && self.is_refresh_url_missing(&failed.error) => {
                self.ask(GrantKind::Primary).await
            }
            result => result,
        }
    }

    /// One exchange; another if the server wants its nonce in the proof, and another if it refuses the client and its
    /// secret is another by now.
    async fn ask(&mut self, asking: GrantKind) -> Result<Token, Failed> {
        // Loaded for each exchange, so that replaced credentials count at once.
        let auth = self.shared.credentials.load();
        let material = self.gather(asking, &auth, None).await?;
        let mut result = self.exchange(asking, &material).await;
        if let Some(nonce) = self.nonce_wanted(&result) {
            result = match self.gather(asking, &auth, Some(nonce)).await {
                Ok(again) => self.exchange(asking, &again).await,
                Err(_) => result,
            };
        }
        if self.is_assertion_refused(asking, &result)
            && let Ok(again) = self.gather(asking, &auth, None).await
            && !again.grant.is_same(&material.grant)
        {
            return self.exchange(asking, &again).await;
        }
        let refused = matches!(&result, Err(failed) if failed.error.kind() == TokenErrorKind::BadCredentials);
        if !refused || !auth.may_change() || std::mem::replace(&mut self.read_again, true) {
            return result;
        }
        match self.gather(asking, &auth, None).await {
            Ok(again) if !again.presented.is_made_like(&material.presented) => self.exchange(asking, &again).await,
            _ => result,
        }
    }

    /// Whether the server will have another assertion, which is then asked for: this one may have been used up.
    fn is_assertion_refused(&mut self, asking: GrantKind, result: &Result<Token, Failed>) -> bool {
        let Some(assertions) = self.shared.assertions.get().filter(|_| asking == GrantKind::Primary) else {
            return false;
        };
        let refused =
            matches!(result, Err(failed) if failed.error.code().is_some_and(|code| code.as_str() == "invalid_grant"));
        if !refused || std::mem::replace(&mut self.assertion_again, true) {
            return false;
        }
        if let Some(cell) = assertions.existing_cell(&partition_of_assertion(&self.request)) {
            cell.invalidate();
        }
        true
    }

    /// Reads and signs what goes into one exchange, and into no other.
    async fn gather(
        &self,
        asking: GrantKind,
        auth: &ClientAuth,
        nonce: Option<Box<str>>,
    ) -> Result<Material, TokenError> {
        let settings = &self.shared.settings;
        let endpoints = self.locate(auth).await?;
        let work = async {
            let (now, assertions) = (self.shared.clock.now().wall, self.shared.assertions.get().map(|table| &**table));
            let grant =
                GrantParams::read(asking, settings, &self.request, &endpoints.audience_of_assertions, now, assertions)
                    .await?;
            self.prove(self.present(endpoints, grant, auth).await?, asking, nonce)
        };
        in_time(settings.timeout, work).await
    }

    /// Where to go; a secret is read after that.
    async fn locate(&self, auth: &ClientAuth) -> Result<Endpoints, TokenError> {
        let Shared { settings, clock, metadata, .. } = &*self.shared;
        if settings.directory.is_some() {
            let detail = "each tenant has an authority of its own, which is found for token requests only";
            return Err(TokenError::new(TokenErrorKind::Unsupported).with_detail(detail));
        }
        let directory = match &settings.url {
            TokenAt::Url(url) => return Ok(Endpoints::configured(settings, url)),
            TokenAt::Discovered(directory) => directory.clone(),
        };
        let now = clock.now();
        let (timeout, max_body) = (settings.timeout, settings.max_body);
        let exchanger = Exchanger::new(self.exchanger.client(), false);
        let fetch = || async move { discovery::fetch(exchanger, &directory, timeout, max_body, now.wall).await };
        Endpoints::found(settings, &*metadata.get(now.monotonic, fetch).await?, auth)
    }

    async fn exchange(&mut self, asking: GrantKind, material: &Material) -> Result<Token, Failed> {
        let shared = self.shared.clone();
        let settings = &shared.settings;
        let outgoing = wire::Outgoing::new(asking, settings, material, &self.request)?;
        if self.context.is_over() {
            let error = TokenError::new(TokenErrorKind::Timeout);
            return Err(error.with_detail("its deadline had passed before it was sent").into());
        }
        let carried = self.request.refresh_token.as_ref().filter(|_| asking == GrantKind::RefreshToken);
        if let Some(refresh_token) = carried {
            if !self.context.may_send() {
                let error = TokenError::new(TokenErrorKind::Aborted);
                return Err(error.with_detail("the lease ended before the refresh token was sent").into());
            }
            self.context.report.sending(refresh_token);
        }
        if let Some(span) = &self.context.span {
            span.exchange(material.grant.grant_type);
        }
        let answer = self.exchanger.exchange(outgoing.request, settings.timeout, settings.max_body).await;
        let asked_at = material.endpoints.token_url(asking);
        self.nonce = answer.as_ref().ok().and_then(|answer| shared.learn_nonce(asked_at, &answer.headers));
        let reader = self.reader(asking, asked_at, outgoing.sent);
        let result = answer.and_then(|answer| reader.read(&answer)).map(|token| self.end_with_subject(token));
        let fate = result.as_ref().map_or_else(|failed| failed.refresh, |_| RefreshFate::Untouched);
        match asking {
            GrantKind::RefreshToken => self.context.report.answered(fate),
            // There is nothing to lose.
            GrantKind::Primary => return result.map_err(|failed| Failed::from(failed.error)),
            GrantKind::Once => {}
        }
        result
    }

    /// No token on somebody's behalf lives longer than the token that it was exchanged for.
    fn end_with_subject(&self, mut token: Token) -> Token {
        let subject = self.request.params.as_ref().and_then(|params| params.subject_token());
        token.not_after = subject.and_then(subject_expiry);
        token
    }

    fn is_refresh_url_missing(&self, error: &TokenError) -> bool {
        let settings = &self.shared.settings;
        let own_url = settings.refresh_url.as_ref().is_some_and(|url| url != settings.url.uri());
        let missing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::GONE];
        own_url && error.status().is_some_and(|status| missing.contains(&status))
    }
}

/// RFC 9449 §8.
fn wants_nonce(error: &TokenError) -> bool {
    let refused = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED];
    error.code().is_some_and(|code| code.as_str() == "use_dpop_nonce")
        && error.status().is_some_and(|status| refused.contains(&status))
}

async fn in_time<T>(timeout: Duration, work: impl Future<Output = Result<T, TokenError>>) -> Result<T, TokenError> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(unavailable(format!("a secret, an assertion or a signature took {timeout:?}"))))
}

fn drop_refresh_token(mut token: Token) -> Token {
    if matches!(token.refresh_token, RefreshToken::Keep) {
        token.refresh_token = RefreshToken::Drop;
    }
    token
}

fn no_refresh_token() -> TokenError {
    TokenError::new(TokenErrorKind::SignInAgain).with_detail("there is no refresh token")
}

impl<C: Clone> Clone for TokenEndpoint<C> {
    fn clone(&self) -> Self {
        let first_refresh_token = self.first_refresh_token.clone();
        Self { client: self.client.clone(), shared: self.shared.clone(), first_refresh_token }
    }
}

impl<C> fmt::Debug for TokenEndpoint<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}
