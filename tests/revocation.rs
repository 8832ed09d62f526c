//! Revocation through a whole layer: what the server forgets, what the client forgets, and what stays when it fails.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use tower::layer::layer_fn;
use tower::{Layer, ServiceBuilder};
use tower_oauth2_client::store::{MemoryStore, StoreIdentity, StoreLayer};
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, BoxTokenSource, ClientAuth, RefreshToken, Secret, Tenant,
    TenantId, Token, TokenEndpoint, TokenError, TokenErrorKind, TokenRequest,
};

const TOKEN_URL: &str = "https://auth.example.com/oauth2/token";
const REVOCATION_URL: &str = "https://auth.example.com/oauth2/revoke";

fn handle(auth: &AuthServer, cfg: AuthConfigBuilder) -> AuthHandle {
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle()
}

/// Signed in elsewhere, with an access token and a rotated refresh token.
async fn signed_in(auth: &AuthServer) -> (AuthHandle, Token) {
    let refresh_token = auth.sign_in("id", "");
    let client_auth = ClientAuth::basic("id", "canary-secret");
    let cfg = AuthConfig::refresh_token(TOKEN_URL, client_auth, refresh_token).revocation_url(REVOCATION_URL);
    let handle = handle(auth, cfg);
    let token = handle.token().await.unwrap();
    (handle, token)
}

fn hints(auth: &AuthServer) -> Vec<String> {
    auth.other_requests().iter().map(|request| request.param("token_type_hint").unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn both_tokens_end_at_the_server_and_here() {
    let auth = AuthServer::new(TestClock::new());
    let (handle, token) = signed_in(&auth).await;
    assert_eq!(auth.other_requests().len(), 0, "only when told to");
    handle.revoke().await.unwrap();
    assert_eq!(hints(&auth), ["refresh_token", "access_token"]);
    assert!(!auth.is_live(token.access_token()));
    let error = handle.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::SignInAgain);
    assert_eq!(auth.token_requests(), 1, "the refresh token was not sent again");
    handle.revoke().await.expect("nothing is left to revoke");
    assert_eq!(auth.other_requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_a_primary_grant_the_next_request_gets_a_new_token() {
    let auth = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")).revocation_url(REVOCATION_URL);
    let handle = handle(&auth, cfg);
    let token = handle.token().await.unwrap();
    handle.revoke().await.unwrap();
    assert_eq!(hints(&auth), ["access_token"]);
    assert!(!auth.is_live(token.access_token()));
    assert!(auth.is_live(handle.token().await.unwrap().access_token()));
}

/// RFC 7009 §2.2.1: after a 503 the token still exists.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_revoked_is_kept() {
    let auth = AuthServer::new(TestClock::new());
    let (handle, token) = signed_in(&auth).await;
    auth.script_other([Fault::RetryAfter(503, 30)]);
    let error = handle.revoke().await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (TokenErrorKind::Unavailable, Some(Duration::from_secs(30))));
    assert_eq!(handle.token().await.unwrap().access_token(), token.access_token());
    handle.invalidate();
    handle.token().await.expect("the refresh token is still here, and still good");

    // The refresh token goes, the access token does not.
    auth.script_other([Fault::Pass, Fault::error("unsupported_token_type")]);
    let error = handle.revoke().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Unsupported);
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    handle.token().await.expect("the access token is kept");
    handle.invalidate();
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}

#[tokio::test(start_paused = true)]
async fn what_a_token_request_under_way_brings_is_revoked_too() {
    let auth = AuthServer::new(TestClock::new());
    let (handle, first) = signed_in(&auth).await;
    handle.invalidate();
    auth.script([Fault::Slow(Duration::from_secs(5))]);
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.token().await }
    });
    while auth.token_requests() < 2 {
        tokio::task::yield_now().await;
    }
    handle.revoke().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert_ne!(first.access_token(), second.access_token());
    assert!(!auth.is_live(second.access_token()));
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}

/// A sign-in that happens meanwhile is not undone.
#[tokio::test(start_paused = true)]
async fn a_later_sign_in_stays() {
    let auth = AuthServer::new(TestClock::new());
    let (handle, _) = signed_in(&auth).await;
    auth.script_other([Fault::Slow(Duration::from_secs(5))]);
    let revoking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.revoke().await }
    });
    while auth.other_requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let another = Token::bearer("another").unwrap().with_expires_in(Duration::from_secs(60));
    let another = another.with_refresh_token(RefreshToken::Replace(Secret::from(auth.sign_in("id", ""))));
    handle.set_token(another).await.unwrap();
    revoking.await.unwrap().unwrap();
    assert_eq!(handle.token().await.unwrap().access_token(), "another");
    handle.invalidate();
    handle.token().await.expect("its refresh token is here");
}

#[tokio::test(start_paused = true)]
async fn one_tenant_of_many() {
    let auth = AuthServer::new(TestClock::new()).tenant_param("account");
    let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id"))
        .revocation_url(REVOCATION_URL)
        .tenant(Tenant::header("x-account").token_param("account"));
    let handle = handle(&auth, cfg);
    let [blue, red] = ["blue", "red"].map(|name| TenantId::new(name).unwrap());
    handle.for_tenant(&blue).revoke().await.expect("there is nothing to revoke");
    let (of_blue, of_red) =
        (handle.for_tenant(&blue).token().await.unwrap(), handle.for_tenant(&red).token().await.unwrap());
    handle.for_tenant(&blue).revoke().await.unwrap();
    assert!(!auth.is_live(of_blue.access_token()) && auth.is_live(of_red.access_token()));
    assert_eq!(handle.revoke().await.unwrap_err().kind(), TokenErrorKind::Refused, "somebody must say which");
}

#[tokio::test(start_paused = true)]
async fn without_a_place_to_revoke_at_it_says_so() {
    let auth = AuthServer::new(TestClock::new());
    let without_url = handle(&auth, AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")));
    without_url.token().await.unwrap();
    let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
    let source = tower::service_fn(|_| async { Token::bearer("T").map_err(TokenError::permanent) });
    let external = AuthLayer::with_source(cfg, source).handle();
    for handle in [without_url, external] {
        assert_eq!(handle.revoke().await.unwrap_err().kind(), TokenErrorKind::Unsupported);
        handle.token().await.unwrap();
    }
    for url in ["http://auth.example.com/revoke", "https://auth.example.com/#x", "revoke"] {
        let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")).revocation_url(url);
        assert!(cfg.origin("https://api.example.com").build().is_err(), "{url}");
    }
}

/// What another process has renewed meanwhile is in the store, and is revoked there.
#[tokio::test(start_paused = true)]
async fn what_is_stored_is_revoked_too() {
    let auth = AuthServer::new(TestClock::new());
    let (store, refresh_token) = (MemoryStore::new(), auth.sign_in("id", ""));
    let process = || {
        let cfg = AuthConfig::refresh_token(TOKEN_URL, ClientAuth::none("id"), refresh_token.clone())
            .revocation_url(REVOCATION_URL)
            .origin("https://api.example.com")
            .clock(auth.clock().clone());
        AuthLayer::builder(cfg.build().unwrap())
            .http_client(auth.clone())
            .store(store.clone())
            .build()
            .unwrap()
            .handle()
    };
    let (one, other) = (process(), process());
    one.token().await.unwrap();
    other.token().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let renewed = one.token().await.unwrap();
    assert_eq!(auth.token_requests(), 2);

    other.revoke().await.unwrap();
    assert!(!auth.is_live(renewed.access_token()));
    one.invalidate();
    assert_eq!(one.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    assert_eq!(other.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    let restarted = process().token().await.unwrap_err();
    assert_eq!(restarted.kind(), TokenErrorKind::SignInAgain, "nothing is left in the store");
}

/// Behaviour 169 (signing out here).
#[tokio::test(start_paused = true)]
async fn signing_out_needs_no_revocation_endpoint() {
    let auth = AuthServer::new(TestClock::new());
    let (store, refresh_token) = (MemoryStore::new(), auth.sign_in("id", ""));
    let process = || {
        let cfg = AuthConfig::refresh_token(TOKEN_URL, ClientAuth::none("id"), refresh_token.clone())
            .origin("https://api.example.com")
            .clock(auth.clock().clone());
        let layer = AuthLayer::builder(cfg.build().unwrap()).http_client(auth.clone()).store(store.clone());
        layer.build().unwrap().handle()
    };
    let (one, other) = (process(), process());
    let token = one.token().await.unwrap();
    other.token().await.unwrap();

    one.forget().await.unwrap();
    assert!(auth.is_live(token.access_token()), "nothing was sent");
    assert_eq!(auth.token_requests(), 1);
    assert_eq!(one.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    other.invalidate();
    assert_eq!(other.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain, "it has no copy that is sent");
    assert_eq!(auth.refresh_token_reuses(), 0);
}

/// A store in a layer of the user's is the layer's store: what is revoked is not left there for the next process.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_put_in_by_hand_is_seen() {
    let auth = AuthServer::new(TestClock::new());
    let (store, refresh_token) = (MemoryStore::new(), auth.sign_in("id", ""));
    let process = || {
        let cfg = AuthConfig::refresh_token(TOKEN_URL, ClientAuth::none("id"), refresh_token.clone())
            .revocation_url(REVOCATION_URL)
            .origin("https://api.example.com")
            .clock(auth.clock().clone());
        let store = store.clone();
        let by_hand = layer_fn(move |endpoint: TokenEndpoint<_>| {
            let store = StoreLayer::new(store.clone(), endpoint.identity());
            ServiceBuilder::new().concurrency_limit(10).layer(store).service(endpoint)
        });
        let layer = AuthLayer::builder(cfg.build().unwrap()).http_client(auth.clone()).token_layer(by_hand);
        layer.build().unwrap().handle()
    };
    let one = process();
    one.token().await.unwrap();
    assert_eq!(one.stats().store.unwrap().stored, 1);

    // Before its first token request.
    process().revoke().await.unwrap();
    one.invalidate();
    assert_eq!(one.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);

    let anew = RefreshToken::Replace(Secret::from(auth.sign_in("id", "")));
    one.set_token(Token::bearer("signed-in").unwrap().with_refresh_token(anew)).await.unwrap();
    assert_eq!(process().token().await.unwrap().access_token(), "signed-in");
}

/// The handle sees a store around a source that is no token endpoint, boxed or not.
#[tokio::test(start_paused = true)]
async fn a_store_around_another_source_is_seen() {
    let source = tower::service_fn(|request: TokenRequest| async move {
        match request.refresh_token {
            Some(_) => Token::bearer("renewed").map_err(TokenError::permanent),
            None => Err(TokenError::sign_in_again()),
        }
    });
    for is_boxed in [false, true] {
        let store = MemoryStore::new();
        let process = || {
            let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
            let stored = StoreLayer::new(store.clone(), StoreIdentity::named("anna")).layer(source);
            if is_boxed {
                AuthLayer::with_source(cfg, BoxTokenSource::new(stored)).handle()
            } else {
                AuthLayer::with_source(cfg, stored).handle()
            }
        };
        let one = process();
        let refresh_token = RefreshToken::Replace(Secret::from("refresh"));
        one.set_token(Token::bearer("signed-in").unwrap().with_refresh_token(refresh_token)).await.unwrap();
        assert_eq!(one.stats().store.unwrap().stored, 1);
        assert_eq!(process().token().await.unwrap().access_token(), "signed-in");

        process().forget().await.unwrap();
        assert_eq!(process().token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    }
}

/// Behaviour 144 (rejections by hand).
#[tokio::test(start_paused = true)]
async fn fifty_holders_who_reject_a_token_make_one_token_request() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth, AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")));
    let rejected = handle.token().await.unwrap();
    let holders = (0..50).map(|_| {
        let (handle, rejected) = (handle.clone(), rejected.clone());
        async move {
            handle.reject(&rejected);
            handle.token().await.unwrap().access_token().to_owned()
        }
    });
    let tokens = futures_util::future::join_all(holders).await;
    assert!(tokens.iter().all(|token| token != rejected.access_token()));
    // Those who come late have a newer one already.
    handle.reject(&rejected);
    handle.token().await.unwrap();
    assert_eq!(auth.token_requests(), 2);
}

/// Behaviour 144 (rejections by hand). An API that rejects whatever it gets is bounded, as it is for requests.
#[tokio::test(start_paused = true)]
async fn a_holder_who_rejects_each_token_is_limited() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth, AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")));
    for _ in 0..240 {
        handle.reject(&handle.token().await.unwrap());
        auth.clock().advance(Duration::from_millis(250));
    }
    assert!(auth.token_requests() <= 13, "{} token requests in a minute", auth.token_requests());
    assert!(handle.stats().suppressed_refreshes > 200);
}

/// Behaviour 144 (rejections by hand). Where there is no runtime, the next call of `token` refreshes, within the same bound.
#[test]
fn a_rejection_outside_of_a_runtime_is_not_lost_and_limited_too() {
    let auth = AuthServer::new(TestClock::new());
    let handle = handle(&auth, AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let token = || runtime.block_on(handle.token()).unwrap();
    let first = token();
    handle.reject(&first);
    assert_ne!(token().access_token(), first.access_token());
    for _ in 0..240 {
        handle.reject(&token());
        auth.clock().advance(Duration::from_millis(250));
    }
    assert!(auth.token_requests() <= 13, "{} token requests in a minute", auth.token_requests());
}

/// A setting that nothing would obey is an error.
#[test]
fn settings_of_the_built_in_client_need_it() {
    let auth = AuthServer::new(TestClock::new());
    let plain = || AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id")).origin("https://api.example.com");
    for cfg in [plain().proxy("http://proxy.example:3128"), plain().connect_timeout(Duration::from_secs(5))] {
        let error = AuthLayer::builder(cfg.build().unwrap()).http_client(auth.clone()).build().unwrap_err();
        assert!(error.to_string().contains("built-in client"), "{error}");
    }
}
