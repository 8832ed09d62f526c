//! What a competent user writes by hand in an afternoon, as a subject: a mutex, an expiry check, one retry on 401.
//!
//! It is meant to be honest, not to lose: the lock is held over the token request, so that a herd makes one; tokens are
//! renewed a little before they expire; form parameters are encoded; rotated refresh tokens are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Mutex;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_oauth2_client::test_util::{Body, TestClock};
use tower_oauth2_client::{BoxError, Clock, Replay, TenantId};

use crate::subject::{
    CLIENT_ID, Client, Control, Offered, SECRET, Setting, Settings, Setup, Subject, TOKEN_URL, Tenancy, World, full,
};

pub struct Naive;

impl Subject for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn client_over(&self, inner: Client, world: &World, settings: &Settings) -> Option<Setup> {
        let is_strange = |setting: &Setting| *setting != Setting::SecretInBody;
        if settings.more.iter().any(is_strange) || settings.replay != Replay::default() {
            return None;
        }
        let tenant_header = match settings.tenant {
            Tenancy::None => None,
            Tenancy::SharedToken(header) => Some(header),
            Tenancy::TokenPerTenant(_) => return None,
        };
        let client = AuthClient {
            inner,
            token_client: settings.token_client.clone().unwrap_or_else(|| BoxCloneSyncService::new(world.auth.clone())),
            clock: world.clock.clone(),
            tenant_header,
            secret: settings.secret.clone().unwrap_or_else(|| SECRET.to_owned()),
            state: Arc::new(Mutex::new(State { token: None, refresh_token: settings.refresh_token.clone() })),
        };
        let control = Arc::new(Handle(client.clone()));
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = client.clone();
            async move { client.send(request).await }
        });
        Some(Setup { client: BoxCloneSyncService::new(service), control })
    }
}

#[derive(Clone)]
struct AuthClient {
    inner: Client,
    token_client: Client,
    clock: TestClock,
    tenant_header: Option<&'static str>,
    secret: String,
    state: Arc<Mutex<State>>,
}

struct State {
    token: Option<Token>,
    refresh_token: Option<String>,
}

struct Token {
    value: String,
    expires: Instant,
}

#[derive(serde::Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl AuthClient {
    /// Renewed so long before it expires.
    const MARGIN: Duration = Duration::from_secs(30);

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (mut head, body) = request.into_parts();
        if let Some(name) = self.tenant_header
            && let Some(tenant) = head.extensions.get::<TenantId>()
        {
            let value = HeaderValue::from_str(tenant.as_str())?;
            head.headers.insert(name, value);
        }
        let body = body.collect().await?.to_bytes();
        let response = self.attempt(head.clone(), body.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.state.lock().await.token = None;
        self.attempt(head, body).await
    }

    async fn attempt(&self, mut head: http::request::Parts, body: Bytes) -> Result<Response<Body>, BoxError> {
        let token = self.token().await?;
        head.headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
        exchange(&self.inner, Request::from_parts(head, full(body))).await
    }

    async fn token(&self) -> Result<String, BoxError> {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && self.clock.now().monotonic + Self::MARGIN < token.expires
        {
            return Ok(token.value.clone());
        }
        let answer = self.fetch(state.refresh_token.as_deref()).await?;
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(3600));
        let expires = self.clock.now().monotonic.checked_add(lifetime).ok_or("expires_in is too large")?;
        if answer.refresh_token.is_some() {
            state.refresh_token = answer.refresh_token;
        }
        state.token = Some(Token { value: answer.access_token.clone(), expires });
        Ok(answer.access_token)
    }

    async fn fetch(&self, refresh_token: Option<&str>) -> Result<Answer, BoxError> {
        let mut form = vec![("client_id", CLIENT_ID), ("client_secret", self.secret.as_str())];
        match refresh_token {
            None => form.push(("grant_type", "client_credentials")),
            Some(token) => form.extend([("grant_type", "refresh_token"), ("refresh_token", token)]),
        }
        let request = Request::post(TOKEN_URL)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(full(encode(&form)))?;
        let response = exchange(&self.token_client, request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("token request failed: {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

fn exchange(client: &Client, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
    client.clone().oneshot(request).boxed()
}

fn encode(form: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        form.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
    pairs.join("&")
}

struct Handle(AuthClient);

impl Control for Handle {
    fn invalidate(&self) -> Offered {
        // Does not wait: a token request under way holds the lock, and its token will be new anyway.
        if let Ok(mut state) = self.0.state.try_lock() {
            state.token = None;
        }
        Ok(())
    }
}
