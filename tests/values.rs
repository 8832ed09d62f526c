//! Values that users hold: tokens, errors, ids, and sources and stores of a type that is chosen at run time.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::error::Error;
use std::time::Duration;

use tower_oauth2_client::store::{BoxTokenStore, MemoryStore};
use tower_oauth2_client::test_util::{AuthServer, TestClock, store_conforms};
use tower_oauth2_client::{
    AuthConfig, AuthLayer, BoxTokenSource, ClientAuth, Clock, RefreshToken, Scopes, Secret, Token, TokenError,
    TokenErrorKind, TokenRequest,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_token_tells_what_it_was_given() {
    let at = std::time::UNIX_EPOCH + SECOND;
    let refresh_token = RefreshToken::Replace(Secret::from("refresh"));
    let scopes = Scopes::new(["read"]).unwrap();
    let token = Token::with_scheme("token", "abc").unwrap();
    assert_eq!((token.expires_in(), token.expires_at(), token.scopes()), (None, None, None));
    assert!(token.refresh_token().is_none());
    let token = token.with_expires_in(60 * SECOND).with_expires_at(at).with_scopes(scopes.clone());
    let token = token.with_refresh_token(refresh_token);
    assert_eq!((token.expires_in(), token.expires_at(), token.scopes()), (Some(60 * SECOND), Some(at), Some(&scopes)));
    assert_eq!((token.scheme(), token.access_token()), ("token", "abc"));
    assert_eq!(token.refresh_token().unwrap().expose(), "refresh");
    assert!(token.with_refresh_token(RefreshToken::Drop).refresh_token().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_from_the_handle_tells_what_is_left_of_it_by_each_clock() {
    let auth = AuthServer::new(TestClock::new());
    let clock = auth.clock().clone();
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"));
    let cfg = cfg.origin("https://api.example.com").clock(clock.clone()).build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(auth).store(MemoryStore::new()).build().unwrap();
    let token = layer.handle().token().await.unwrap();
    let end = clock.now().wall + 3600 * SECOND;
    assert_eq!((token.expires_in(), token.expires_at()), (Some(3600 * SECOND), Some(end)));
    clock.advance(600 * SECOND);
    let token = layer.handle().token().await.unwrap();
    assert_eq!((token.expires_in(), token.expires_at()), (Some(3000 * SECOND), Some(end)));

    // Handed on, it is as old as it is.
    let cfg = AuthConfig::external().origin("https://api.example.com").clock(clock.clone()).build().unwrap();
    let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
    let other = AuthLayer::with_source(cfg, source).handle();
    other.set_token(token).await.unwrap();
    assert_eq!(other.token().await.unwrap().expires_in(), Some(3000 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_source_is_chosen_at_run_time() {
    async fn token(name: &str) -> Result<Token, TokenError> {
        Token::bearer(name).map_err(TokenError::permanent)
    }

    for name in ["one", "another"] {
        let source = match name {
            "one" => BoxTokenSource::new(tower::service_fn(|_: TokenRequest| token("one"))),
            _ => BoxTokenSource::new(tower::service_fn(|_: TokenRequest| token("another"))),
        };
        let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
        let handle = AuthLayer::with_source(cfg, source.clone()).handle();
        assert_eq!(handle.token().await.unwrap().access_token(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_behind_a_pointer_conforms_as_it_does_without() {
    store_conforms(&BoxTokenStore::new(MemoryStore::new())).await;
}

#[test]
fn a_token_error_is_a_pointer_and_tells_its_cause_by_type() {
    assert_eq!(size_of::<TokenError>(), size_of::<usize>());
    let error = TokenError::transient(std::io::Error::other("sealed"));
    let later = error.clone().with_retry_after(SECOND);
    assert_eq!((error.retry_after(), later.retry_after()), (None, Some(SECOND)), "a clone is a value of its own");
    assert_eq!(later.kind(), TokenErrorKind::SourceTransient);
    assert!(later.source().unwrap().downcast_ref::<std::io::Error>().is_some());
}
