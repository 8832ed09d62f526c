//! `Api`: the protected API that accepts live tokens and refuses all others.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use tower_service::Service;

use super::AuthServer;
use super::body::{self, Answer, Body};
use super::dpop::{DPOP_NONCE, Problem, Proofs};
use super::fault::{Fault, Script};
use super::record::{RecordedRequest, Recorder, form, lock};
use crate::types::{BoxError, Clock};

/// An API for tests: a tower service that accepts requests with a token that is live at its [`AuthServer`].
///
/// An accepted request is answered 200 with its own body; a token that is expired, revoked or unknown gets 401 with
/// `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750 §3.1), no token at all a plain `Bearer` challenge. The
/// token is judged when the request arrives, however long the answer takes then.
///
/// It is a handle: clones are the same API. Options (the methods that take `self`) act on that API whenever they are
/// called; they are meant for its construction.
///
/// ```
/// use tower::ServiceExt;
/// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
///
/// # tokio_test::block_on(async {
/// let api = Api::new(&AuthServer::new(TestClock::new())).tenant_header("tenant-id");
/// let request = http::Request::get("/items").header("authorization", "Bearer forged").body(String::new());
/// let response = api.clone().oneshot(request.unwrap()).await.unwrap();
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
/// assert_eq!((api.hits(), api.unauthorized()), (1, 1));
/// # });
/// ```
#[derive(Clone)]
#[must_use]
pub struct Api {
    auth: AuthServer,
    recorder: Recorder,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: Script,
    latency: Duration,
    refusal: RefusalStyle,
    tenant_from: Option<TenantFrom>,
    accept_required: bool,
    denied_paths: Vec<String>,
    early: bool,
    proofs: Proofs,
    unauthorized: usize,
    tenant_mismatches: usize,
}

/// How a request without a live token is turned down.
#[derive(Clone, Default)]
enum RefusalStyle {
    #[default]
    Challenge,
    Status(u16),
    GrpcHeaders,
    GrpcTrailers,
}

enum TenantFrom {
    Header(String),
    Query(String),
}

/// What the API thinks of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    NoToken,
    DeadToken,
    /// The same, of a token that goes with proofs.
    DeadBoundToken,
    BadProof(&'static str),
    NonceWanted,
    DeniedPath,
    BadRequest(&'static str),
    WrongTenant,
}

impl Verdict {
    fn is_refusal(self) -> bool {
        !matches!(self, Verdict::Accepted | Verdict::BadRequest(_) | Verdict::WrongTenant)
    }
}

/// The API and its options.
impl Api {
    /// An API that accepts the live tokens of `auth`.
    pub fn new(auth: &AuthServer) -> Self {
        Self { auth: auth.clone(), recorder: Recorder::default(), state: Arc::default() }
    }

    /// VIP's rules: `Tenant-Id` and `Accept: application/json` on each request, a 401 without challenge.
    pub fn vip(auth: &AuthServer) -> Self {
        Self::new(auth).tenant_header("tenant-id").require_accept_json().bare_401()
    }

    /// Refuses tokens by 401 without `WWW-Authenticate`.
    pub fn bare_401(self) -> Self {
        self.refuse_with(401)
    }

    /// Refuses tokens by this status, without `WWW-Authenticate`.
    pub fn refuse_with(self, status: u16) -> Self {
        self.set(|state| state.refusal = RefusalStyle::Status(status))
    }

    /// Speaks gRPC; refuses tokens by 200 with `grpc-status: 16` in the headers (Trailers-Only).
    pub fn grpc_unauthenticated_in_headers(self) -> Self {
        self.set(|state| state.refusal = RefusalStyle::GrpcHeaders)
    }

    /// Speaks gRPC; refuses tokens by 200, an empty message and `grpc-status: 16` in the trailers.
    pub fn grpc_unauthenticated_in_trailers(self) -> Self {
        self.set(|state| state.refusal = RefusalStyle::GrpcTrailers)
    }

    /// Requires this header, 400 without it. Where tokens belong to tenants, the token's must be the header's: 403 if
    /// not, and [`tenant_mismatches`](Self::tenant_mismatches) counts it.
    pub fn tenant_header(self, name: impl Into<String>) -> Self {
        self.set(|state| state.tenant_from = Some(TenantFrom::Header(name.into())))
    }

    /// As [`tenant_header`](Self::tenant_header), for a parameter of the query.
    pub fn tenant_query(self, name: impl Into<String>) -> Self {
        self.set(|state| state.tenant_from = Some(TenantFrom::Query(name.into())))
    }

    /// Requires `Accept: application/json`, 400 without it.
    pub fn require_accept_json(self) -> Self {
        self.set(|state| state.accept_required = true)
    }

    /// Paths that begin so get a 401 without challenge even with a live token: the scope is missing, and nothing says so.
    pub fn deny_path(self, prefix: impl Into<String>) -> Self {
        self.set(|state| state.denied_paths.push(prefix.into()))
    }

    /// Refuses tokens before the request's body is read.
    pub fn refuse_early(self) -> Self {
        self.set(|state| state.early = true)
    }

    /// The proofs of bound tokens must hold this API's nonce (RFC 9449 §9). Tokens that the authorization server has bound to
    /// a key ([`AuthServer::require_dpop`]) always need a proof.
    pub fn require_dpop_nonce(self) -> Self {
        self.set(|state| state.proofs.new_nonce())
    }

    /// As [`require_dpop_nonce`](Self::require_dpop_nonce); each 200 brings the nonce for the next request (§8.2).
    pub fn rotate_dpop_nonces(self) -> Self {
        self.set(|state| state.proofs.rotate())
    }

    /// How long every answer takes. Default: none.
    pub fn latency(self, latency: Duration) -> Self {
        self.set(|state| state.latency = latency)
    }

    fn set<T>(self, change: impl FnOnce(&mut State) -> T) -> Self {
        change(&mut lock(&self.state));
        self
    }
}

/// Trouble.
impl Api {
    /// The next requests meet these faults, one each, in order of arrival.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state).script.push(faults);
    }

    /// Every request meets this fault once the script is used up, until [`heal`](Self::heal).
    pub fn always(&self, fault: Fault) {
        lock(&self.state).script.always(fault);
    }

    /// From now on proofs must hold another nonce.
    pub fn new_dpop_nonce(&self) {
        lock(&self.state).proofs.new_nonce();
    }

    /// No more faults: ends `always` and forgets the rest of the script.
    pub fn heal(&self) {
        lock(&self.state).script.heal();
    }
}

/// What happened.
impl Api {
    /// How many requests arrived.
    pub fn hits(&self) -> usize {
        self.recorder.count()
    }

    /// All requests in order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.recorder.requests()
    }

    /// How many requests are in flight now: arrived, not answered, not given up by the client.
    pub fn in_flight(&self) -> usize {
        self.recorder.in_flight()
    }

    /// The most requests that were in flight at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.recorder.max_in_flight()
    }

    /// How many requests were turned down because they had no live token, by whatever status, or got a scripted 401.
    pub fn unauthorized(&self) -> usize {
        lock(&self.state).unauthorized
    }

    /// How many requests carried one tenant's token and another tenant's name. Anything but zero is a leak.
    pub fn tenant_mismatches(&self) -> usize {
        lock(&self.state).tenant_mismatches
    }
}

impl Api {
    async fn respond<B>(self, request: Request<B>) -> Result<Response<Body>, BoxError>
    where
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let arrival = self.recorder.arrive(&head, self.auth.clock().now());
        let (fault, latency, verdict, early) = {
            let mut state = lock(&self.state);
            let verdict = state.judge(&head, &self.auth);
            (state.script.next(), state.latency, verdict, state.early && verdict.is_refusal())
        };
        let body = if early { Bytes::new() } else { body::read(body).await? };
        arrival.body(body.clone());
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }

        let mut refused = false;
        let usual = || {
            refused = verdict.is_refusal();
            lock(&self.state).answer(verdict, &head, body)
        };
        let response = fault.play(usual, scripted_challenge).await;
        if refused || response.as_ref().is_ok_and(|response| response.status() == 401) {
            lock(&self.state).unauthorized += 1;
        }
        response
    }
}

impl State {
    fn judge(&mut self, head: &Parts, auth: &AuthServer) -> Verdict {
        if head.headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Verdict::BadRequest("more than one Authorization header");
        }
        let (token, key) = match text(&head.headers, AUTHORIZATION.as_str()).and_then(|value| value.split_once(' ')) {
            Some(("Bearer", token)) => (token, None),
            Some(("DPoP", token)) => match self.proofs.check(head, Some(token), auth.clock().server_time()) {
                Ok(key) => (token, Some(key)),
                Err(Problem::NonceWanted) => return Verdict::NonceWanted,
                Err(Problem::Invalid(what)) => return Verdict::BadProof(what),
            },
            _ => return Verdict::NoToken,
        };
        // A bound token without a proof is as dead as one with another key's (RFC 9449 §7.2).
        if !auth.is_live(token) || auth.key_of(token) != key {
            return if key.is_some() { Verdict::DeadBoundToken } else { Verdict::DeadToken };
        }
        if self.denied_paths.iter().any(|prefix| head.uri.path().starts_with(prefix)) {
            return Verdict::DeniedPath;
        }
        if self.accept_required && text(&head.headers, ACCEPT.as_str()) != Some("application/json") {
            return Verdict::BadRequest("the Accept header is not application/json");
        }
        self.judge_tenant(head, auth.tenant_of(token))
    }

    fn judge_tenant(&mut self, head: &Parts, owner: Option<String>) -> Verdict {
        let tenant = match &self.tenant_from {
            None => return Verdict::Accepted,
            Some(TenantFrom::Header(name)) => text(&head.headers, name).map(str::to_owned),
            Some(TenantFrom::Query(name)) => {
                let query = form(head.uri.query().unwrap_or_default().as_bytes());
                query.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
        };
        match tenant {
            None => Verdict::BadRequest("the tenant is missing"),
            Some(tenant) if owner.is_some_and(|owner| owner != tenant) => {
                self.tenant_mismatches += 1;
                Verdict::WrongTenant
            }
            Some(_) => Verdict::Accepted,
        }
    }

    fn answer(&mut self, verdict: Verdict, head: &Parts, body: Bytes) -> Answer {
        let nonce = self.proofs.nonce_to_tell(verdict == Verdict::Accepted);
        let answer = self.answer_without_nonce(verdict, head, body);
        match nonce {
            Some(nonce) => answer.header(DPOP_NONCE, &nonce),
            None => answer,
        }
    }

    fn answer_without_nonce(&self, verdict: Verdict, head: &Parts, body: Bytes) -> Answer {
        match verdict {
            Verdict::Accepted => self.accept(head, body),
            Verdict::NoToken => self.refuse("Bearer"),
            Verdict::DeadToken => self.refuse(r#"Bearer error="invalid_token""#),
            Verdict::DeadBoundToken => self.refuse(r#"DPoP error="invalid_token", algs="ES256 EdDSA PS256""#),
            Verdict::BadProof(what) => {
                self.refuse(&format!(r#"DPoP error="invalid_dpop_proof", error_description="{what}""#))
            }
            Verdict::NonceWanted => self.refuse(r#"DPoP error="use_dpop_nonce""#),
            Verdict::DeniedPath => self.refuse(""),
            Verdict::BadRequest(reason) => Answer::new(400, "text/plain", reason),
            Verdict::WrongTenant => Answer::new(403, "text/plain", "the token belongs to another tenant"),
        }
    }

    fn accept(&self, head: &Parts, body: Bytes) -> Answer {
        match self.refusal {
            RefusalStyle::Challenge | RefusalStyle::Status(_) => {
                let answer = Answer::new(200, "application/octet-stream", body);
                match text(&head.headers, CONTENT_TYPE.as_str()) {
                    Some(content_type) => answer.header(CONTENT_TYPE, content_type),
                    None => answer,
                }
            }
            RefusalStyle::GrpcHeaders | RefusalStyle::GrpcTrailers => {
                Answer::new(200, "application/grpc", body).trailers(grpc_status("0"))
            }
        }
    }

    /// `challenge`: empty for none.
    fn refuse(&self, challenge: &str) -> Answer {
        match self.refusal {
            RefusalStyle::Challenge if challenge.is_empty() => Answer::new(401, "text/plain", "unauthorized"),
            RefusalStyle::Challenge => {
                Answer::new(401, "text/plain", "unauthorized").header(WWW_AUTHENTICATE, challenge)
            }
            RefusalStyle::Status(status) => Answer::new(status, "text/plain", "unauthorized"),
            RefusalStyle::GrpcHeaders => {
                let answer = Answer::new(200, "application/grpc", "").header(GRPC_STATUS, "16");
                // Nothing else would say that a nonce is wanted.
                if challenge.starts_with("DPoP") { answer.header(WWW_AUTHENTICATE, challenge) } else { answer }
            }
            RefusalStyle::GrpcTrailers => Answer::new(200, "application/grpc", &[0; 5][..]).trailers(grpc_status("16")),
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn grpc_status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static(code))])
}

fn scripted_challenge(code: &str) -> Answer {
    let answer = Answer::new(401, "text/plain", "unauthorized");
    answer.header(WWW_AUTHENTICATE, &format!(r#"Bearer error="{code}""#))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl<B> Service<Request<B>> for Api
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().respond(request))
    }
}

/// Counts; never a token or a tenant.
impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Api");
        debug.field("hits", &self.hits()).field("unauthorized", &self.unauthorized()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::super::{TestClock, both};
    use super::*;

    async fn token(auth: &AuthServer, tenant: &str) -> String {
        let request = Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
        let body = format!("grant_type=client_credentials&account={tenant}");
        auth.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        auth.last_token().unwrap()
    }

    async fn call(api: &Api, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::post(path).header("content-type", "text/plain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.clone().oneshot(request.body(String::from("hello")).unwrap()).await.unwrap()
    }

    async fn with_token(api: &Api, token: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let bearer = format!("Bearer {token}");
        call(api, "/items", &[&[("authorization", bearer.as_str())], headers].concat()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_token_is_let_in_and_the_body_comes_back() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth);
        let response = with_token(&api, &token(&auth, "").await, &[]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/plain".parse().unwrap())
        );
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!((api.hits(), api.unauthorized()), (1, 0));
        let seen = &api.requests()[0];
        assert_eq!(
            (seen.uri.path(), seen.bearer(), &seen.body[..]),
            ("/items", auth.last_token().as_deref(), &b"hello"[..])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_and_a_dead_token_are_told_apart() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth);
        assert_eq!(call(&api, "/items", &[]).await.headers()["www-authenticate"], "Bearer");
        let token = token(&auth, "").await;
        auth.revoke(&token);
        let refused = with_token(&api, &token, &[]).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
        let bare = with_token(&api.clone().bare_401(), &token, &[]).await;
        assert_eq!((bare.status().as_u16(), bare.headers().contains_key("www-authenticate")), (401, false));
        assert_eq!(with_token(&api.clone().refuse_with(403), &token, &[]).await.status(), 403);
        assert_eq!((api.hits(), api.unauthorized()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_authorization_header_is_a_bad_request() {
        let auth = AuthServer::new(TestClock::new());
        let response = with_token(&Api::new(&auth), &token(&auth, "").await, &[("authorization", "Bearer x")]).await;
        assert_eq!(response.status(), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn another_tenants_token_is_noticed() {
        let auth = AuthServer::new(TestClock::new()).tenant_param("account");
        let api = Api::new(&auth).tenant_header("x-tenant");
        let blue = token(&auth, "blue").await;
        assert_eq!(with_token(&api, &blue, &[]).await.status(), 400);
        assert_eq!(with_token(&api, &blue, &[("x-tenant", "blue")]).await.status(), 200);
        assert_eq!(api.tenant_mismatches(), 0);
        assert_eq!(with_token(&api, &blue, &[("x-tenant", "red")]).await.status(), 403);
        assert_eq!((api.tenant_mismatches(), api.unauthorized()), (1, 0));

        let api = Api::new(&auth).tenant_query("tenant");
        let bearer = format!("Bearer {blue}");
        for (path, expected) in [("/?tenant=blue", 200), ("/?a=b&tenant=red", 403), ("/", 400)] {
            assert_eq!(call(&api, path, &[("authorization", &bearer)]).await.status(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn vip_wants_three_headers_and_explains_nothing() {
        let auth = AuthServer::vip(TestClock::new());
        let api = Api::vip(&auth);
        let request = Request::post("/oauth/token").header("content-type", "application/json");
        let request = request.body(String::from(r#"{"client_id":"id","client_secret":"s"}"#)).unwrap();
        assert_eq!(both(&auth, &api).oneshot(request).await.unwrap().status(), 200);
        let token = auth.last_token().unwrap();

        let (tenant, accept) = (("Tenant-Id", "7c1e"), ("Accept", "application/json"));
        assert_eq!(with_token(&api, &token, &[tenant, accept]).await.status(), 200);
        assert_eq!(with_token(&api, &token, &[tenant]).await.status(), 400);
        assert_eq!(with_token(&api, &token, &[accept]).await.status(), 400);
        auth.revoke_all();
        let refused = with_token(&api, &token, &[tenant, accept]).await;
        assert_eq!((refused.status().as_u16(), refused.headers().contains_key("www-authenticate")), (401, false));
        assert_eq!((auth.token_requests(), api.hits()), (1, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_path_refuses_a_live_token_without_a_word() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth).deny_path("/admin");
        let bearer = format!("Bearer {}", token(&auth, "").await);
        let refused = call(&api, "/admin/users", &[("authorization", &bearer)]).await;
        assert_eq!((refused.status().as_u16(), refused.headers().contains_key("www-authenticate")), (401, false));
        assert_eq!(call(&api, "/items", &[("authorization", &bearer)]).await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_is_judged_on_arrival() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth).latency(Duration::from_secs(2 * 3600));
        assert_eq!(with_token(&api, &token(&auth, "").await, &[]).await.status(), 200);
        assert!(!auth.is_live(&auth.last_token().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn scripts_come_before_judgement() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth);
        let token = token(&auth, "").await;
        let hour = Duration::from_secs(3600);
        api.script([Fault::error("insufficient_scope"), Fault::Status(401), Fault::Status(503), Fault::Slow(hour)]);
        let challenged = with_token(&api, &token, &[]).await;
        assert_eq!(challenged.headers()["www-authenticate"], r#"Bearer error="insufficient_scope""#);
        assert_eq!(with_token(&api, &token, &[]).await.status(), 401);
        assert_eq!(with_token(&api, &token, &[]).await.status(), 503);
        let start = Instant::now();
        assert_eq!(with_token(&api, &token, &[]).await.status(), 200);
        assert_eq!((start.elapsed(), api.unauthorized()), (hour, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_refusal_leaves_the_body_unread() {
        let api = Api::new(&AuthServer::new(TestClock::new())).refuse_early();
        let endless = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let response = api.clone().oneshot(Request::post("/").body(endless).unwrap()).await.unwrap();
        assert_eq!(response.status(), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_says_16_in_headers_or_in_trailers() {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth).grpc_unauthenticated_in_headers();
        let only = call(&api, "/pkg.Service/Method", &[]).await;
        assert_eq!((only.status().as_u16(), &only.headers()["grpc-status"]), (200, &"16".parse().unwrap()));
        assert!(only.into_body().collect().await.unwrap().to_bytes().is_empty());

        let api = api.grpc_unauthenticated_in_trailers();
        let late = call(&api, "/pkg.Service/Method", &[]).await;
        assert!(!late.headers().contains_key("grpc-status"));
        let late = late.into_body().collect().await.unwrap();
        assert_eq!(late.trailers().unwrap()["grpc-status"], "16");
        assert_eq!(api.unauthorized(), 2);

        let fine = with_token(&api, &token(&auth, "").await, &[]).await.into_body().collect().await.unwrap();
        assert_eq!(fine.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(fine.to_bytes(), "hello");
    }

    #[tokio::test(start_paused = true)]
    async fn any_body_will_do() {
        let api = Api::new(&AuthServer::new(TestClock::new()));
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(api.clone().oneshot(request).await.unwrap().status(), 401);
        let broken = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(std::io::Error::other("cut"))]));
        let error = api.clone().oneshot(Request::post("/").body(broken).unwrap()).await.unwrap_err();
        assert!(error.is::<std::io::Error>());
        assert_eq!((api.hits(), api.in_flight(), api.max_in_flight()), (2, 0, 1));
    }
}
