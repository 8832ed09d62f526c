//! The token of a sending is chosen when it is sent, after whatever had to be waited for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{
    Auth, AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, Error, External, Tenant, TenantId, Token, TokenError,
    TokenRequest,
};

const SECOND: Duration = Duration::from_secs(1);
const API: &str = "https://api.example.com/";

type Sent = Arc<Mutex<Vec<String>>>;

fn get() -> Request<Full<Bytes>> {
    Request::get(API).body(Full::default()).unwrap()
}

/// A layer whose `n`th token is `token-n`, as `grant` says, after a second.
fn layer(clock: &TestClock, grant: impl Fn(usize) -> Result<Token, TokenError> + Send + Sync + 'static) -> AuthLayer {
    layer_with(clock, |cfg| cfg, grant)
}

fn layer_with(
    clock: &TestClock,
    change: impl FnOnce(AuthConfigBuilder<External>) -> AuthConfigBuilder<External>,
    grant: impl Fn(usize) -> Result<Token, TokenError> + Send + Sync + 'static,
) -> AuthLayer {
    let (count, grant) = (Arc::new(AtomicUsize::new(0)), Arc::new(grant));
    let source = service_fn(move |_: TokenRequest| {
        let (number, grant) = (count.fetch_add(1, Ordering::SeqCst), grant.clone());
        async move {
            tokio::time::sleep(SECOND).await;
            grant(number)
        }
    });
    let cfg = change(AuthConfig::external().origin(API).clock(clock.clone()));
    AuthLayer::with_source(cfg.build().unwrap(), source)
}

fn token(number: usize, lifetime: Duration) -> Result<Token, TokenError> {
    Ok(Token::bearer(&format!("token-{number}")).map_err(TokenError::permanent)?.with_expires_in(lifetime))
}

/// Writes down the tokens it sees, and rejects `rejects`.
fn api(
    sent: &Sent,
    rejects: &'static str,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
+ use<> {
    let sent = sent.clone();
    service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        let status = if token == format!("Bearer {rejects}") { 401 } else { 200 };
        sent.lock().unwrap().push(token);
        async move { Ok(Response::builder().status(status).body(Full::default()).unwrap()) }
    })
}

/// A client behind a limit of one, whose only permit is held for `held` from the moment `after` on.
async fn with_held_permit<S>(
    layer: &AuthLayer,
    inner: S,
    after: Duration,
    held: Duration,
) -> Auth<
    impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + use<S>,
>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let limited = limit.layer(inner);
    let mut holder = limited.clone();
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        holder.ready().await.unwrap();
        tokio::time::sleep(held).await;
        drop(holder);
    });
    layer.layer(limited)
}

/// Behaviour 135 (the token of a sending).
#[tokio::test(start_paused = true)]
async fn a_token_that_died_while_the_resend_waited_for_readiness_is_not_sent() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    // The second token lives 30 s; the permit is held for a minute.
    let layer = layer(&clock, |number| token(number, if number == 1 { 30 * SECOND } else { 3600 * SECOND }));
    let client = with_held_permit(&layer, api(&sent, "token-0"), SECOND + SECOND / 2, 60 * SECOND).await;
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(*sent.lock().unwrap(), ["Bearer token-0", "Bearer token-2"]);
}

/// Behaviour 135 (of a tenant's own token).
#[tokio::test(start_paused = true)]
async fn a_tenants_token_that_died_while_the_resend_waited_for_readiness_is_not_sent() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let lifetime = |number| if number == 1 { 30 * SECOND } else { 3600 * SECOND };
    let tenants = Tenant::header("x-account").per_tenant_tokens();
    let layer = layer_with(&clock, |cfg| cfg.tenant(tenants), move |number| token(number, lifetime(number)));
    let request = || {
        let mut request = get();
        request.extensions_mut().insert(TenantId::new("a").unwrap());
        request
    };
    let client = with_held_permit(&layer, api(&sent, "token-0"), SECOND + SECOND / 2, 60 * SECOND).await;
    // Another one of the same tenant has it first, and looks until when it is good.
    let another = layer.layer(api(&sent, "token-0"));
    tokio::spawn(async move {
        tokio::time::sleep(3 * SECOND).await;
        another.oneshot(request()).await.unwrap();
    });
    assert_eq!(client.oneshot(request()).await.unwrap().status(), 200);
    assert_eq!(*sent.lock().unwrap(), ["Bearer token-0", "Bearer token-1", "Bearer token-2"]);
}

/// Behaviour 135 (the token of a sending).
#[tokio::test(start_paused = true)]
async fn a_fallback_past_its_end_is_not_sent() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let layer = layer(&clock, |number| match number {
        0 => token(0, 100 * SECOND),
        _ => Err(TokenError::permanent("no more")),
    });
    layer.handle().warm_up().await.unwrap();
    // Near its end: the request waits for a renewal, which fails, and then for a permit until long after that end.
    tokio::time::sleep(95 * SECOND).await;
    let client = with_held_permit(&layer, api(&sent, ""), Duration::ZERO, 60 * SECOND).await;
    let error = client.oneshot(get()).await.unwrap_err();
    assert!(matches!(error, Error::Token(_)), "{error:?}");
    assert!(sent.lock().unwrap().is_empty(), "{sent:?}");
}

/// Behaviour 135 (the token that a handle gives): a renewal that fails after the end of the token before leaves none.
#[tokio::test(start_paused = true)]
async fn a_fallback_past_its_end_is_not_given() {
    let count = Arc::new(AtomicUsize::new(0));
    let source = service_fn(move |_: TokenRequest| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                return token(0, 100 * SECOND);
            }
            tokio::time::sleep(10 * SECOND).await;
            Err(TokenError::permanent("no more"))
        }
    });
    let cfg = AuthConfig::external().origin(API).clock(TestClock::new()).build().unwrap();
    let handle = AuthLayer::with_source(cfg, source).handle();
    handle.warm_up().await.unwrap();
    tokio::time::sleep(95 * SECOND).await;
    assert_eq!(handle.token().now_or_never().map(|token| token.is_ok()), None, "near its end it waits for a renewal");
    assert!(handle.token().await.is_err());
}

/// Behaviour 135 (the token of a sending): a refresh ended long before its request was polled again, and its token has died.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_before_its_request_was_polled_again_is_not_sent() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let layer = layer(&clock, |number| token(number, if number == 0 { 30 * SECOND } else { 3600 * SECOND }));
    let mut request = Box::pin(layer.layer(api(&sent, "")).oneshot(get()));
    assert!((&mut request).now_or_never().is_none(), "it waits for its token");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(request.await.unwrap().status(), 200);
    assert_eq!(*sent.lock().unwrap(), ["Bearer token-1"]);
}

/// Behaviour 135 (the token of a sending): who went on with the token that a failed renewal has left sends it while it is alive,
/// and does not wait for the next renewal.
#[tokio::test(start_paused = true)]
async fn a_fallback_before_its_end_is_sent_though_another_renewal_may_begin() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let layer = layer(&clock, |number| match number {
        1 => Err(TokenError::transient("not now").with_retry_after(SECOND / 2)),
        _ => token(number, 100 * SECOND),
    });
    layer.handle().warm_up().await.unwrap();
    // Near its end the request waits for a renewal, which fails; when it has a permit, the pause after that is over.
    tokio::time::sleep(92 * SECOND).await;
    let client = with_held_permit(&layer, api(&sent, ""), Duration::ZERO, 3 * SECOND).await;
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(*sent.lock().unwrap(), ["Bearer token-0"]);
}

/// Behaviour 133 (rejected and superseded).
#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_never_sent_again_when_its_refresh_is_superseded() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let layer = layer(&clock, |number| token(number, 3600 * SECOND));
    layer.handle().warm_up().await.unwrap();
    let handle: AuthHandle = layer.handle();
    // While the refresh is on its way somebody sets the very token that was rejected.
    tokio::spawn(async move {
        tokio::time::sleep(SECOND / 2).await;
        handle.set_token(Token::bearer("token-0").unwrap()).await.unwrap();
    });
    let response = layer.layer(api(&sent, "token-0")).oneshot(get()).await.unwrap();
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.iter().filter(|token| *token == "Bearer token-0").count(), 1, "{sent:?}");
    assert_eq!(response.status(), 200);
}

/// Behaviour 174.
#[tokio::test(start_paused = true)]
async fn a_rejected_request_waits_for_an_attempt_that_is_less_than_a_second_away() {
    let (clock, sent) = (TestClock::new(), Sent::default());
    let layer = layer(&clock, |number| match number {
        0 => Err(TokenError::transient("not now").with_retry_after(SECOND * 4 / 5)),
        _ => token(number, 3600 * SECOND),
    });
    layer.handle().set_token(Token::bearer("old").unwrap()).await.unwrap();
    let client = layer.layer(api(&sent, "old"));
    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), 401, "its own attempt failed");
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 200, "the next attempt is 800 ms away");
    assert_eq!(*sent.lock().unwrap(), ["Bearer old", "Bearer old", "Bearer token-1"]);
}
