//! `AuthServer`: the scriptable authorization server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, LOCATION};
use http::request::Parts;
use http::{Request, Response};
use serde_json::{Map, Value, json};
use tower_service::Service;

use super::body::{self, Answer, Body};
use super::codes::{Authorization, Codes, Rejected};
use super::devices::{self, Devices};
use super::dpop::{DPOP_NONCE, Problem, Proofs};
use super::fault::{Fault, Script};
use super::record::{RecordedRequest, Recorder, lock};
use super::shapes::{ACCESS_TOKEN, Announce, Asked, Granted, Place, Refusal, Shape};
use super::tokens::{Format, Identity, Tokens};
use super::{TestClock, metadata};
use crate::types::{BoxError, Clock};

/// An authorization server for tests: a tower service from token requests to token answers.
///
/// It is a handle: clones are the same server, seen from the client's side and from the test's. Options (the methods
/// that take `self`) act on that server whenever they are called; they are meant for its construction.
///
/// A new server hands out a new token for every request, to any client, for an hour. A token's life starts when its
/// answer is made, that is after [`latency`](Self::latency).
///
/// ```
/// use tower::ServiceExt;
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
///
/// # tokio_test::block_on(async {
/// let auth = AuthServer::new(TestClock::new()).single_live_token();
/// for _ in 0..2 {
///     let request = http::Request::post("https://auth.example.com/oauth2/token")
///         .header("content-type", "application/x-www-form-urlencoded")
///         .body(String::from("grant_type=client_credentials&client_id=id&client_secret=secret"));
///     assert_eq!(auth.clone().oneshot(request.unwrap()).await.unwrap().status(), 200);
/// }
/// let token = auth.last_token().unwrap();
/// assert!(auth.is_live(&token));
/// auth.revoke(&token);
/// assert!(!auth.is_live(&token));
/// assert_eq!(auth.requests()[1].param("client_id").as_deref(), Some("id"));
/// # });
/// ```
#[derive(Clone)]
#[must_use]
pub struct AuthServer {
    clock: TestClock,
    shape: Shape,
    recorder: Recorder,
    /// Of requests to all endpoints but the token endpoint.
    other_recorder: Recorder,
    sign_ins: Recorder,
    state: Arc<Mutex<State>>,
}

struct State {
    script: Script,
    /// For all endpoints but the token endpoint.
    other_script: Script,
    tokens: Tokens,
    codes: Codes,
    devices: Devices,
    /// What differs from the truth.
    metadata: Map<String, Value>,
    device_code_lifetime: Duration,
    clients: HashMap<String, String>,
    lifetime: Duration,
    latency: Duration,
    announce: Announce,
    jwts: bool,
    clock_ahead: i64,
    one_live: bool,
    same_until_expiry: bool,
    refresh_tokens: bool,
    rotation: bool,
    tenant_from: Option<TenantFrom>,
    sign_in_error: Option<Cow<'static, str>>,
    issuer: Option<String>,
    pkce_required: bool,
    /// Tokens are bound to keys; `None`: proofs are left out of account.
    proofs: Option<Proofs>,
}

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

enum TenantFrom {
    Header(String),
    Param(String),
}

/// The servers.
impl AuthServer {
    /// Plain OAuth 2.0 at any path that ends in `/token`: a form, any grant, client authentication by Basic or in the
    /// body, opaque tokens, a true `expires_in`. People sign in at any path that ends in `/authorize`, and agree at once; on
    /// other devices (RFC 8628) they begin at `/device_authorization`. Tokens are revoked (RFC 7009) at `/revoke`. The
    /// metadata (RFC 8414, OpenID) name as issuer what they were asked for as.
    pub fn new(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::Generic)
    }

    /// `POST /oauth/token` with a JSON body of client id and secret and nothing else. The token is a JWT and the
    /// **same one until it has expired or is revoked**, while `expires_in` says 86400 each time; lifetime a day. Errors
    /// have a body without OAuth members.
    pub fn vip(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::Vip).same_token_until_expiry()
    }

    /// `POST /apis/v2/oauth/token` with a form; refreshes go to `/apis/v1/oauth/token`, if
    /// [`issue_refresh_tokens`](Self::issue_refresh_tokens) is on. Scopes are `read` and `write`. The answer carries
    /// members about the user. People sign in at `/apis/v2/oauth/authorize`, and agree at once.
    pub fn spry(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::Spry)
    }

    /// `POST /v2.0/oauth2/token` with a form; the `token_type` is `bearer`, in lower case.
    pub fn vectorcare(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::VectorCare)
    }

    /// `POST /oauth2/token` with raw Basic, a form, `X-ACCOUNT` (lower case, no spaces) and at least one of the three
    /// appointment scopes; an `x-account` parameter must say the same as the header. Tokens are opaque and belong to
    /// the account: [`tenant_of`](Self::tenant_of) gives it.
    pub fn qmatic(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::Qmatic)
    }

    /// `POST /vlive/hpca/oauth/token` with a form. The answer has no `expires_in` and a `refresh_token` of `null`; when
    /// the token expires, only its `exp` says.
    pub fn graphnet(clock: TestClock) -> Self {
        Self::with_shape(clock, Shape::Graphnet)
    }

    fn with_shape(clock: TestClock, shape: Shape) -> Self {
        let state = State {
            script: Script::default(),
            other_script: Script::default(),
            tokens: Tokens::new(),
            codes: Codes::default(),
            devices: Devices::default(),
            metadata: Map::new(),
            device_code_lifetime: Duration::from_secs(600),
            clients: HashMap::new(),
            lifetime: shape.lifetime(),
            latency: Duration::ZERO,
            announce: Announce::default(),
            jwts: shape.has_jwts(),
            clock_ahead: 0,
            one_live: false,
            same_until_expiry: false,
            refresh_tokens: false,
            rotation: true,
            tenant_from: None,
            sign_in_error: None,
            issuer: None,
            pkce_required: false,
            proofs: None,
        };
        let (recorder, other_recorder, sign_ins): (Recorder, Recorder, Recorder) = Default::default();
        Self { clock, shape, recorder, other_recorder, sign_ins, state: Arc::new(Mutex::new(state)) }
    }
}

/// Options.
impl AuthServer {
    /// Knows this client, and from now on only those named so; others get `invalid_client`.
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.set(|state| state.clients.insert(id.into(), secret.into()))
    }

    /// How long access tokens live. Default: an hour; VIP a day.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.set(|state| state.lifetime = lifetime)
    }

    /// What `expires_in` says, as JSON text: `"0"`, `"\"3600\""`, `"1e18"`, `"null"`. Default: the truth, in whole
    /// seconds, or what the provider says instead of it.
    pub fn announce_expires_in(self, json: impl Into<String>) -> Self {
        self.set(|state| state.announce = Announce::Json(json.into()))
    }

    /// Answers without `expires_in`.
    pub fn omit_expires_in(self) -> Self {
        self.set(|state| state.announce = Announce::Nothing)
    }

    /// Access tokens are JWTs with `iat` and `exp`. Their signature is a fixed text; nothing verifies it.
    pub fn jwt_tokens(self) -> Self {
        self.set(|state| state.jwts = true)
    }

    /// The clock that writes `iat` and `exp` is this many seconds ahead of the true time, or behind if negative.
    pub fn clock_ahead(self, seconds: i64) -> Self {
        self.set(|state| state.clock_ahead = seconds)
    }

    /// A new token revokes the former one of the same client, scopes and tenant.
    pub fn single_live_token(self) -> Self {
        self.set(|state| state.one_live = true)
    }

    /// Hands out the same token to the same client, scopes and tenant until it has expired or is revoked.
    pub fn same_token_until_expiry(self) -> Self {
        self.set(|state| state.same_until_expiry = true)
    }

    /// Adds a refresh token to each answer, that to a code included. A refresh token can be redeemed once and is replaced by a new one; redeemed
    /// a second time, it takes all tokens that descend from it with it (RFC 9700 §4.14.2). Plain servers and Spry only.
    pub fn issue_refresh_tokens(self) -> Self {
        self.set(|state| state.refresh_tokens = true)
    }

    /// Refresh tokens can be redeemed any number of times, and the answer to a refresh carries none.
    pub fn without_rotation(self) -> Self {
        self.set(|state| state.rotation = false)
    }

    /// Tokens belong to the tenant that this header of the token request names; without it `invalid_request`.
    pub fn tenant_header(self, name: impl Into<String>) -> Self {
        self.set(|state| state.tenant_from = Some(TenantFrom::Header(name.into())))
    }

    /// Tokens belong to the tenant that this parameter of the token request names; without it `invalid_request`.
    pub fn tenant_param(self, name: impl Into<String>) -> Self {
        self.set(|state| state.tenant_from = Some(TenantFrom::Param(name.into())))
    }

    /// Each person who is asked to sign in says no: the browser is sent back with `access_denied`.
    pub fn deny_sign_ins(self) -> Self {
        self.refuse_sign_ins("access_denied")
    }

    /// The browser of a person who signs in is sent back with this error (RFC 6749 §4.1.2.1).
    pub fn refuse_sign_ins(self, error: impl Into<Cow<'static, str>>) -> Self {
        self.set(|state| state.sign_in_error = Some(error.into()))
    }

    /// The browser comes back with this `iss` (RFC 9207). Default: with none.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.set(|state| state.issuer = Some(issuer.into()))
    }

    /// Refuses sign-ins without a code challenge (RFC 7636). One that is given always counts.
    pub fn require_pkce(self) -> Self {
        self.set(|state| state.pkce_required = true)
    }

    /// A member of the metadata, in the place of the true one; `null` leaves it out.
    pub fn metadata(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(|state| state.metadata.insert(name.into(), value.into()))
    }

    /// How long the codes of a sign-in on another device are good. Default: ten minutes.
    pub fn device_code_lifetime(self, lifetime: Duration) -> Self {
        self.set(|state| state.device_code_lifetime = lifetime)
    }

    /// Binds each token to the key whose proof comes with the token request (RFC 9449 §5), and refuses requests without one.
    /// By default proofs are left out of account, as by a server that does not know them.
    ///
    /// Everything of a proof is checked (§4.3), also that it is new; only its signature is not.
    pub fn require_dpop(self) -> Self {
        self.set(|state| state.proofs = Some(state.proofs.take().unwrap_or_default()))
    }

    /// As [`require_dpop`](Self::require_dpop), and proofs must hold this server's nonce (RFC 9449 §8).
    pub fn require_dpop_nonce(self) -> Self {
        self.set(|state| state.proofs.get_or_insert_default().new_nonce())
    }

    /// As [`require_dpop_nonce`](Self::require_dpop_nonce); each token answer brings the nonce for the next request (§8.2).
    pub fn rotate_dpop_nonces(self) -> Self {
        self.set(|state| state.proofs.get_or_insert_default().rotate())
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
impl AuthServer {
    /// The next token requests meet these faults, one each, in order of arrival.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state).script.push(faults);
    }

    /// The same for requests to all endpoints but the token endpoint.
    pub fn script_other(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state).other_script.push(faults);
    }

    /// Every token request meets this fault once the script is used up, until [`heal`](Self::heal).
    pub fn always(&self, fault: Fault) {
        lock(&self.state).script.always(fault);
    }

    /// No more faults: ends `always` and forgets the rest of the scripts.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.script.heal();
        state.other_script.heal();
    }

    /// Revokes an access token. Whether there was such a token.
    pub fn revoke(&self, token: &str) -> bool {
        lock(&self.state).tokens.revoke(token)
    }

    /// Revokes all access tokens; refresh tokens live on.
    pub fn revoke_all(&self) {
        lock(&self.state).tokens.revoke_all();
    }

    /// Revokes all refresh tokens; access tokens live on.
    pub fn revoke_refresh_tokens(&self) {
        lock(&self.state).tokens.revoke_refresh();
    }

    /// The person enters this code on their device, signs in and agrees. Whether there is such a code.
    pub fn approve_device(&self, user_code: &str) -> bool {
        lock(&self.state).devices.answer(user_code, devices::Answer::Approved)
    }

    /// The person enters this code and says no. Whether there is such a code.
    pub fn deny_device(&self, user_code: &str) -> bool {
        lock(&self.state).devices.answer(user_code, devices::Answer::Denied)
    }

    /// From now on proofs must hold another nonce.
    pub fn new_dpop_nonce(&self) {
        lock(&self.state).proofs.get_or_insert_default().new_nonce();
    }

    /// A refresh token for `client`, as from a sign-in that happened elsewhere.
    pub fn sign_in(&self, client: &str, scope: &str) -> String {
        let identity = Identity { client: client.to_owned(), scope: scope.to_owned(), tenant: None };
        lock(&self.state).tokens.issue_refresh(&identity, None).0
    }
}

/// What happened.
impl AuthServer {
    /// What a browser does with an authorization URL, and its owner in it: they agree. Gives the URI that the browser is sent
    /// back to, with a code that can be exchanged once within ten minutes; `None` if the server shows an error page instead.
    ///
    /// ```
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    ///
    /// let auth = AuthServer::new(TestClock::new());
    /// let url = "https://auth.example.com/authorize?response_type=code&client_id=id&state=s&redirect_uri=app:/back";
    /// let redirect = auth.browse(url).unwrap();
    /// assert!(redirect.starts_with("app:/back?code=") && redirect.ends_with("&state=s"));
    /// ```
    pub fn browse(&self, authorization_url: &str) -> Option<String> {
        let (head, ()) = Request::get(authorization_url).body(()).ok()?.into_parts();
        let answer = self.sign_in_page(&head);
        Some(answer.response.headers().get(LOCATION)?.to_str().ok()?.to_owned())
    }

    /// All requests of browsers for somebody to sign in, in order of arrival.
    pub fn sign_in_requests(&self) -> Vec<RecordedRequest> {
        self.sign_ins.requests()
    }

    /// The clock that tokens expire by.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// How many token requests arrived, answered or not.
    pub fn token_requests(&self) -> usize {
        self.recorder.count()
    }

    /// All token requests in order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.recorder.requests()
    }

    /// All requests to other endpoints in order of arrival.
    pub fn other_requests(&self) -> Vec<RecordedRequest> {
        self.other_recorder.requests()
    }

    /// How many token requests are in flight now: arrived, not answered, not given up by the client.
    pub fn in_flight(&self) -> usize {
        self.recorder.in_flight()
    }

    /// The most token requests that were in flight at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.recorder.max_in_flight()
    }

    /// Whether an access token is this server's, not expired and not revoked.
    pub fn is_live(&self, token: &str) -> bool {
        lock(&self.state).tokens.is_live(token, self.clock.server_time())
    }

    /// The tenant that an access token belongs to, if it belongs to one.
    pub fn tenant_of(&self, token: &str) -> Option<String> {
        lock(&self.state).tokens.tenant(token).cloned()
    }

    /// The thumbprint of the key (RFC 7638) that an access token is bound to, if it is bound to one.
    pub fn key_of(&self, token: &str) -> Option<String> {
        lock(&self.state).tokens.key(token).cloned()
    }

    /// The access token that was issued last.
    pub fn last_token(&self) -> Option<String> {
        lock(&self.state).tokens.last().cloned()
    }

    /// How often a refresh token was redeemed after it had been replaced.
    pub fn refresh_token_reuses(&self) -> usize {
        lock(&self.state).tokens.reuses()
    }

    /// Whether there is an endpoint of this server at a path.
    pub(super) fn serves(&self, path: &str) -> bool {
        self.shape.place(path).is_some()
    }
}

impl AuthServer {
    async fn respond<B>(self, request: Request<B>) -> Result<Response<Body>, BoxError>
    where
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let place = self.shape.place(head.uri.path());
        if place == Some(Place::SignIn) {
            return Ok(self.sign_in_page(&head).into_response());
        }
        let is_other = place.is_some_and(|place| place != Place::Token);
        let recorder = if is_other { &self.other_recorder } else { &self.recorder };
        let arrival = recorder.arrive(&head, self.clock.now());
        let (fault, latency) = {
            let mut state = lock(&self.state);
            let script = if is_other { &mut state.other_script } else { &mut state.script };
            (script.next(), state.latency)
        };
        let body = body::read(body).await?;
        arrival.body(body.clone());
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let same = matches!(fault, Fault::SameToken);
        let shape = self.shape;
        fault.play(|| self.usual(place, &head, &body, same), |code| shape.refuse(&Refusal::of_code(code))).await
    }

    /// The authorization endpoint (RFC 6749 §3.1), without a page: everybody agrees.
    fn sign_in_page(&self, head: &Parts) -> Answer {
        drop(self.sign_ins.arrive(head, self.clock.now()));
        let authorization = match Authorization::read(head.uri.query().unwrap_or_default()) {
            Ok(authorization) => authorization,
            Err(problem) => return Answer::new(400, "text/html", problem),
        };
        let mut state = lock(&self.state);
        if !state.clients.is_empty() && !state.clients.contains_key(&authorization.client) {
            return Answer::new(400, "text/html", "There is no such client.");
        }
        let unknown_scope = (!self.shape.knows_scopes(&authorization.scope)).then_some("invalid_scope");
        let wrong = authorization.problem(state.pkce_required).or(unknown_scope).map(Cow::Borrowed);
        let error = state.sign_in_error.clone().or(wrong);
        let issuer = state.issuer.clone();
        let location = match error {
            Some(error) => authorization.redirect(&[("error", &error)], issuer.as_deref()),
            None => {
                let (code, family) = state.tokens.new_code();
                let location = authorization.redirect(&[("code", &code)], issuer.as_deref());
                state.codes.add(code, &authorization, family, self.clock.server_time());
                location
            }
        };
        Answer::new(302, "text/plain", "").header(LOCATION, &location)
    }

    fn usual(&self, place: Option<Place>, head: &Parts, body: &[u8], same: bool) -> Answer {
        let answer = match place {
            Some(place) => self.answer(place, head, body, same),
            None => Err(Refusal::new(404, "not_found", "There is no endpoint at this path.")),
        };
        answer.unwrap_or_else(|refusal| self.shape.refuse(&refusal))
    }

    fn answer(&self, place: Place, head: &Parts, body: &[u8], same: bool) -> Result<Answer, Refusal> {
        let asked = || self.shape.read(place, head, body);
        match place {
            Place::Token => Ok(self.token_answer(asked(), head, same)),
            Place::SignIn => Ok(self.sign_in_page(head)),
            Place::Revocation => lock(&self.state).revoke(&asked()?),
            Place::DeviceAuthorization => lock(&self.state).begin_device_sign_in(&asked()?, self.clock.server_time()),
            Place::Metadata => metadata::answer(head, &lock(&self.state).metadata),
        }
    }

    fn token_answer(&self, asked: Result<Asked, Refusal>, head: &Parts, same: bool) -> Answer {
        let granted = asked.and_then(|asked| lock(&self.state).grant(self, head, &asked, same));
        let nonce = lock(&self.state).proofs.as_mut().and_then(|proofs| proofs.nonce_to_tell(granted.is_ok()));
        let answer = match granted {
            Ok(granted) => self.shape.answer(&granted),
            Err(refusal) => self.shape.refuse(&refusal),
        };
        match nonce {
            Some(nonce) => answer.header(DPOP_NONCE, &nonce),
            None => answer,
        }
    }
}

impl State {
    fn grant(&mut self, server: &AuthServer, head: &Parts, asked: &Asked, same: bool) -> Result<Granted, Refusal> {
        let now = server.clock.server_time();
        let key = match &mut self.proofs {
            Some(proofs) => Some(proofs.check(head, None, now).map_err(dpop_refusal)?),
            None => None,
        };
        let client = self.authenticate(asked)?;
        let (identity, family) = match asked.grant.as_str() {
            "refresh_token" => self.redeem(asked, &client)?,
            DEVICE_CODE => {
                let tenant = self.tenant(head, asked)?;
                let scope = self.devices.poll(asked.param("device_code").unwrap_or_default(), &client, now)?;
                (Identity { client, scope, tenant }, None)
            }
            "authorization_code" => {
                let tenant = self.tenant(head, asked)?;
                let (scope, family) = self.redeem_code(asked, &client, now)?;
                (Identity { client, scope, tenant }, Some(family))
            }
            _ => {
                let scope = asked.param("scope").unwrap_or_default().to_owned();
                (Identity { client, scope, tenant: self.tenant(head, asked)? }, None)
            }
        };

        let wanted = match asked.grant.as_str() {
            "refresh_token" => self.rotation,
            _ => self.refresh_tokens && server.shape.has_refresh_tokens(),
        };
        let refresh_token = wanted.then(|| self.tokens.issue_refresh(&identity, family));
        let family = family.or(refresh_token.as_ref().map(|(_, family)| *family));

        let former = self.tokens.current(&identity).cloned();
        let reusable = |former: &String| {
            same || (self.same_until_expiry
                && self.tokens.is_live(former, now)
                && self.tokens.key(former) == key.as_ref())
        };
        let token = match former.clone().filter(reusable) {
            Some(token) => token,
            None => {
                if let Some(former) = former.filter(|_| self.one_live) {
                    self.tokens.revoke(&former);
                }
                let format = if self.jwts { Format::Jwt { ahead: self.clock_ahead } } else { Format::Opaque };
                self.tokens.issue(&identity, family, &format, now, self.lifetime)
            }
        };
        let bound = key.is_some();
        self.tokens.bind(&token, key);
        let exchanged = asked.grant == "urn:ietf:params:oauth:grant-type:token-exchange";
        let requested = || asked.param("requested_token_type").unwrap_or(ACCESS_TOKEN).to_owned();
        Ok(Granted {
            issued: exchanged.then(requested),
            bound,
            remaining: self.tokens.remaining(&token, now),
            token,
            scope: identity.scope,
            refresh_token: refresh_token.map(|(token, _)| token),
            announce: self.announce.clone(),
        })
    }

    fn begin_device_sign_in(&mut self, asked: &Asked, now: SystemTime) -> Result<Answer, Refusal> {
        let client = self.authenticate(asked)?;
        let scope = asked.param("scope").unwrap_or_default().to_owned();
        let lifetime = self.device_code_lifetime;
        let (device_code, user_code) = self.devices.begin(client, scope, now, lifetime);
        let body = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": "https://auth.example.com/device",
            "verification_uri_complete": format!("https://auth.example.com/device?user_code={user_code}"),
            "expires_in": lifetime.as_secs(),
            "interval": Devices::INTERVAL.as_secs(),
        });
        Ok(Answer::json(200, body.to_string()).header(CACHE_CONTROL, "no-store"))
    }

    fn revoke(&mut self, asked: &Asked) -> Result<Answer, Refusal> {
        let client = self.authenticate(asked)?;
        let token = asked.param("token").ok_or_else(|| Refusal::invalid_request("token is missing."))?;
        self.tokens.revoke_for(token, &client);
        Ok(Answer::new(200, "text/plain", ""))
    }

    /// The client's id. A server that knows no clients takes any.
    fn authenticate(&self, asked: &Asked) -> Result<String, Refusal> {
        let known = |(id, secret): &&(String, String)| self.clients.is_empty() || self.clients.get(id) == Some(secret);
        let credentials = asked.credentials.iter().find(known);
        credentials.map(|(id, _)| id.clone()).ok_or_else(Refusal::invalid_client)
    }

    fn redeem(&mut self, asked: &Asked, client: &str) -> Result<(Identity, Option<u64>), Refusal> {
        let token =
            asked.param("refresh_token").ok_or_else(|| Refusal::invalid_request("refresh_token is missing."))?;
        let (identity, family) = self
            .tokens
            .redeem(token, client, self.rotation)
            .ok_or_else(|| Refusal::new(400, "invalid_grant", "The refresh token is not valid any more."))?;
        Ok((identity, Some(family)))
    }

    /// The scope that a person agreed to, and the family of the tokens that come of it.
    fn redeem_code(&mut self, asked: &Asked, client: &str, now: SystemTime) -> Result<(String, u64), Refusal> {
        self.codes.redeem(asked, client, now).map_err(|rejected| {
            if let Rejected::SecondUse { family } = rejected {
                self.tokens.revoke_family(family);
            }
            Refusal::new(400, "invalid_grant", "The code is not valid, or not any more.")
        })
    }

    fn tenant(&self, head: &Parts, asked: &Asked) -> Result<Option<String>, Refusal> {
        let tenant = match &self.tenant_from {
            None => return Ok(asked.tenant.clone()),
            Some(TenantFrom::Header(name)) => head.headers.get(name).and_then(|value| value.to_str().ok()),
            Some(TenantFrom::Param(name)) => asked.param(name),
        };
        tenant.map(|tenant| Some(tenant.to_owned())).ok_or_else(|| Refusal::invalid_request("The tenant is missing."))
    }
}

fn dpop_refusal(problem: Problem) -> Refusal {
    match problem {
        Problem::NonceWanted => Refusal::new(400, "use_dpop_nonce", "A nonce is required in the DPoP proof."),
        Problem::Invalid(what) => Refusal::new(400, "invalid_dpop_proof", what),
    }
}

impl<B> Service<Request<B>> for AuthServer
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

/// The provider and the number of requests; never a token.
impl fmt::Debug for AuthServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AuthServer");
        debug.field("shape", &self.shape).field("token_requests", &self.token_requests()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tokio::time::{advance, timeout};
    use tower::ServiceExt;

    use super::super::jwt;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn request(body: &str) -> Request<String> {
        let request = Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
        request.body(format!("client_id=id&client_secret=s&{body}")).unwrap()
    }

    async fn post(auth: &AuthServer, body: &str) -> Value {
        let response = auth.clone().oneshot(request(body)).await.unwrap();
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    async fn token(auth: &AuthServer) -> String {
        let answer = post(auth, "grant_type=client_credentials").await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn refresh(auth: &AuthServer, token: &Value) -> Value {
        post(auth, &format!("grant_type=refresh_token&refresh_token={}", token.as_str().unwrap())).await
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_new_each_time_and_live_until_they_expire() {
        let auth = AuthServer::new(TestClock::new());
        let (first, second) = (token(&auth).await, token(&auth).await);
        assert_ne!(first, second);
        assert_ne!(first, token(&AuthServer::new(TestClock::new())).await);
        advance(HOUR - Duration::from_secs(1)).await;
        assert!(auth.is_live(&first) && auth.is_live(&second) && !auth.is_live("forged"));
        advance(Duration::from_secs(1)).await;
        assert!(!auth.is_live(&first) && !auth.is_live(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_expire_by_the_servers_time_not_by_a_client_clock_that_was_set_back() {
        let auth = AuthServer::new(TestClock::new());
        let first = token(&auth).await;
        auth.clock().set_wall_back(HOUR);
        auth.clock().suspend(HOUR);
        assert!(!auth.is_live(&first));
        let second = token(&auth).await;
        auth.clock().advance(HOUR);
        assert!(!auth.is_live(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn revoked_tokens_are_dead() {
        let auth = AuthServer::new(TestClock::new());
        let (first, second) = (token(&auth).await, token(&auth).await);
        assert!(auth.revoke(&first) && !auth.revoke("forged"));
        assert!(!auth.is_live(&first) && auth.is_live(&second));
        auth.revoke_all();
        assert!(!auth.is_live(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_single_live_token_each_kills_the_former_of_its_kind() {
        let auth = AuthServer::new(TestClock::new()).single_live_token();
        let first = token(&auth).await;
        post(&auth, "grant_type=client_credentials&scope=other").await;
        assert!(auth.is_live(&first));
        let second = token(&auth).await;
        assert!(!auth.is_live(&first) && auth.is_live(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_token_is_handed_out_with_what_is_left_of_its_life() {
        let auth = AuthServer::new(TestClock::new()).same_token_until_expiry().latency(Duration::from_secs(600));
        let first = post(&auth, "grant_type=client_credentials").await;
        let second = post(&auth, "grant_type=client_credentials").await;
        assert_eq!(first["access_token"], second["access_token"]);
        assert_eq!((&first["expires_in"], &second["expires_in"]), (&3600.into(), &3000.into()));
        auth.revoke_all();
        assert_ne!(post(&auth, "grant_type=client_credentials").await["access_token"], first["access_token"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_announced_lifetime_may_lie() {
        let auth = AuthServer::new(TestClock::new()).announce_expires_in("\"7\"");
        assert_eq!(post(&auth, "grant_type=client_credentials").await["expires_in"], "7");
        let auth = auth.omit_expires_in();
        assert_eq!(post(&auth, "grant_type=client_credentials").await.get("expires_in"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_clock_is_off_writes_it_into_its_tokens_only() {
        let exp = |token: &str| jwt::payload(token)["exp"].as_u64().unwrap();
        let auth = AuthServer::new(TestClock::new()).jwt_tokens();
        let punctual = exp(&token(&auth).await);
        let behind = token(&auth.clone().clock_ahead(-300)).await;
        assert_eq!(exp(&behind), punctual - 300);
        advance(HOUR - Duration::from_secs(1)).await;
        assert!(auth.is_live(&behind));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_token_is_replaced_and_its_reuse_kills_the_family() {
        let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
        let first = post(&auth, "grant_type=client_credentials&scope=a").await;
        let second = refresh(&auth, &first["refresh_token"]).await;
        assert_eq!(second["scope"], "a");
        assert_ne!(first["refresh_token"], second["refresh_token"]);
        let bystander = token(&auth).await;

        assert_eq!(refresh(&auth, &first["refresh_token"]).await["error"], "invalid_grant");
        assert_eq!(auth.refresh_token_reuses(), 1);
        assert_eq!(refresh(&auth, &second["refresh_token"]).await["error"], "invalid_grant");
        assert!(!auth.is_live(second["access_token"].as_str().unwrap()));
        assert!(auth.is_live(&bystander));
    }

    #[tokio::test(start_paused = true)]
    async fn without_rotation_a_refresh_token_lasts() {
        let auth = AuthServer::new(TestClock::new()).without_rotation();
        let signed_in = Value::from(auth.sign_in("id", "a"));
        for _ in 0..2 {
            let answer = refresh(&auth, &signed_in).await;
            assert!(answer["access_token"].is_string() && answer.get("refresh_token").is_none(), "{answer}");
        }
        let stolen = Value::from(auth.sign_in("another", ""));
        assert_eq!(refresh(&auth, &stolen).await["error"], "invalid_grant");
        auth.revoke_refresh_tokens();
        assert_eq!(refresh(&auth, &signed_in).await["error"], "invalid_grant");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_asks_too_often_is_told_to_slow_down() {
        const POLL: &str = "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=";
        let auth = AuthServer::new(TestClock::new());
        let begin = Request::post("/device_authorization").header("content-type", "application/x-www-form-urlencoded");
        let response = auth.clone().oneshot(begin.body("client_id=id&scope=a".to_owned()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let codes: Value = serde_json::from_slice(&body).unwrap();
        let poll = format!("{POLL}{}", codes["device_code"].as_str().unwrap());
        for (after, error) in [(4, "slow_down"), (9, "slow_down"), (15, "authorization_pending")] {
            advance(Duration::from_secs(after)).await;
            assert_eq!(post(&auth, &poll).await["error"], error, "{after}");
        }
        assert!(auth.approve_device(codes["user_code"].as_str().unwrap()) && !auth.approve_device("another"));
        advance(Duration::from_secs(15)).await;
        assert_eq!(post(&auth, &poll).await["scope"], "a");
        advance(Duration::from_secs(15)).await;
        assert_eq!(post(&auth, &poll).await["error"], "invalid_grant", "it is good once");
        assert_eq!(post(&auth, &format!("{POLL}forged")).await["error"], "invalid_grant");
    }

    #[tokio::test(start_paused = true)]
    async fn only_its_own_client_revokes_a_token_and_a_refresh_token_takes_all_with_it() {
        let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
        let granted = post(&auth, "grant_type=client_credentials").await;
        let text = |name: &str| granted[name].as_str().unwrap().to_owned();
        let revoke = async |client: &str, token: String| {
            let request = Request::post("/revoke").header("content-type", "application/x-www-form-urlencoded");
            let request = request.body(format!("client_id={client}&token={token}")).unwrap();
            assert_eq!(auth.clone().oneshot(request).await.unwrap().status(), 200);
        };
        revoke("another", text("refresh_token")).await;
        revoke("id", "forged".into()).await;
        assert!(auth.is_live(&text("access_token")));
        revoke("id", text("refresh_token")).await;
        assert!(!auth.is_live(&text("access_token")));
        assert_eq!((auth.token_requests(), auth.other_requests().len()), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_has_spent_the_refresh_token() {
        let auth = AuthServer::new(TestClock::new());
        let signed_in = Value::from(auth.sign_in("id", ""));
        auth.script([Fault::LoseAnswer]);
        let body = format!("grant_type=refresh_token&refresh_token={}", signed_in.as_str().unwrap());
        auth.clone().oneshot(request(&body)).await.unwrap_err();
        assert!(auth.last_token().is_some());
        assert_eq!(refresh(&auth, &signed_in).await["error"], "invalid_grant");
        assert_eq!(auth.refresh_token_reuses(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn scripted_faults_come_first() {
        let auth = AuthServer::new(TestClock::new());
        let first = token(&auth).await;
        auth.revoke(&first);
        auth.script([Fault::SameToken, Fault::error("invalid_client"), Fault::Status(503)]);
        assert_eq!(token(&auth).await, first);
        for expected in [401, 503, 200] {
            let response = auth.clone().oneshot(request("grant_type=client_credentials")).await.unwrap();
            assert_eq!(response.status(), expected);
        }
        auth.always(Fault::Hang);
        assert!(timeout(HOUR, token(&auth)).await.is_err());
        assert_eq!(auth.in_flight(), 0);
        auth.heal();
        token(&auth).await;
        assert_eq!(auth.token_requests(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_belong_to_the_tenant_that_was_asked_for() {
        let auth = AuthServer::new(TestClock::new()).tenant_param("account");
        assert_eq!(post(&auth, "grant_type=client_credentials").await["error"], "invalid_request");
        let answer = post(&auth, "grant_type=client_credentials&account=blue").await;
        assert_eq!(auth.tenant_of(answer["access_token"].as_str().unwrap()).as_deref(), Some("blue"));

        let auth = auth.tenant_header("x-tenant");
        let mut with_header = request("grant_type=client_credentials");
        with_header.headers_mut().insert("x-tenant", "red".parse().unwrap());
        auth.clone().oneshot(with_header).await.unwrap();
        assert_eq!(auth.tenant_of(&auth.last_token().unwrap()).as_deref(), Some("red"));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_recorded_with_time_and_company() {
        let auth = AuthServer::new(TestClock::new()).latency(HOUR);
        let start = auth.clock().now();
        tokio::join!(token(&auth), token(&auth));
        token(&auth).await;
        let requests = auth.requests();
        let seen: Vec<_> = requests.iter().map(|seen| (seen.in_flight, seen.at.wall)).collect();
        assert_eq!(seen, [(1, start.wall), (2, start.wall), (1, start.wall + HOUR)]);
        assert_eq!((auth.in_flight(), auth.max_in_flight()), (0, 2));
        assert_eq!(requests[0].param("grant_type").as_deref(), Some("client_credentials"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_is_good_once_and_its_second_use_takes_its_tokens_with_it() {
        let auth = AuthServer::new(TestClock::new()).issue_refresh_tokens();
        let page = "https://a.example/authorize?response_type=code&client_id=id&redirect_uri=app:/b&scope=a";
        let code = |url: &str| auth.browse(url).unwrap().split_once("code=").unwrap().1.replace("%2D", "-");
        let exchange = |code: &str| format!("grant_type=authorization_code&redirect_uri=app:/b&code={code}");
        let first = code(page);
        let answer = post(&auth, &exchange(&first)).await;
        assert_eq!(answer["scope"], "a");
        let renewed = refresh(&auth, &answer["refresh_token"]).await;
        assert!(auth.is_live(renewed["access_token"].as_str().unwrap()));
        assert_eq!(post(&auth, &exchange(&first)).await["error"], "invalid_grant");
        assert!(!auth.is_live(renewed["access_token"].as_str().unwrap()));
        assert_eq!(refresh(&auth, &renewed["refresh_token"]).await["error"], "invalid_grant");

        let late = code(page);
        advance(Duration::from_secs(600)).await;
        assert_eq!(post(&auth, &exchange(&late)).await["error"], "invalid_grant");
        let elsewhere = exchange(&code(page)).replace("app:/b", "app:/c");
        assert_eq!(post(&auth, &elsewhere).await["error"], "invalid_grant");
        assert_eq!((auth.sign_in_requests().len(), auth.token_requests()), (3, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_with_a_challenge_needs_its_verifier() {
        let auth = AuthServer::new(TestClock::new()).require_pkce();
        let page = "https://a.example/authorize?response_type=code&client_id=id&redirect_uri=app:/b";
        // RFC 7636, Appendix B.
        let challenge = "&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let verifier = "&code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let code = auth.browse(&format!("{page}{challenge}")).unwrap().split_once("code=").unwrap().1.to_owned();
        let exchange = format!("grant_type=authorization_code&redirect_uri=app:/b&code={code}");
        for wrong in ["", "&code_verifier=another"] {
            assert_eq!(post(&auth, &format!("{exchange}{wrong}")).await["error"], "invalid_grant");
        }
        assert!(post(&auth, &format!("{exchange}{verifier}")).await["access_token"].is_string());
        assert_eq!(auth.browse(page).as_deref(), Some("app:/b?error=invalid%5Frequest"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_may_be_denied_and_a_strangers_is_not_redirected() {
        let auth = AuthServer::new(TestClock::new()).client("id", "s").issuer("i").deny_sign_ins();
        let page = "https://a.example/authorize?response_type=code&redirect_uri=app:/b?x&state=1&client_id=";
        let redirect = auth.browse(&format!("{page}id"));
        assert_eq!(redirect.as_deref(), Some("app:/b?x&error=access%5Fdenied&state=1&iss=i"));
        assert_eq!(auth.browse(&format!("{page}stranger")), None);
        assert_eq!(auth.browse(&page.replace("redirect_uri", "x")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn debug_shows_no_token() {
        let auth = AuthServer::new(TestClock::new()).client("id", "s");
        let token = token(&auth).await;
        let printed = format!("{auth:?}");
        assert!(printed.contains("token_requests: 1") && !printed.contains(&token), "{printed}");
    }
}
