//! Secrets that change: read for each exchange, and once more when the server refuses the client.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::types::SecretSource;

const REFUSED: &str = r#"{"error":"invalid_client","error_description":"no"}"#;

/// A source that gives these in turn, and then the last one for ever; and how often it was read.
fn in_turn(values: &'static [&'static str]) -> (SecretSource, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let count = reads.clone();
    let source = SecretSource::provider(move || {
        let at = count.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, BoxError>(Secret::from(*values.get(at).or(values.last()).unwrap())) }
    });
    (source, reads)
}

fn secrets_sent(server: &Server) -> Vec<String> {
    let secret = |seen: Seen| seen.body.split("client_secret=").nth(1).map(str::to_owned);
    server.seen().into_iter().filter_map(secret).collect()
}

async fn ask(server: &Server, auth: &ClientAuth) -> Result<Token, TokenError> {
    server.ask(&settings("https://a.example/t"), auth, TokenRequest::default()).await
}

#[tokio::test]
async fn a_secret_is_read_for_each_exchange() {
    let (source, reads) = in_turn(&["one", "two"]);
    let server = Server::default().answers(200, TOKEN).answers(200, TOKEN);
    let auth = ClientAuth::body("my-id", source);
    ask(&server, &auth).await.unwrap();
    ask(&server, &auth).await.unwrap();
    assert_eq!(secrets_sent(&server), ["one", "two"]);
    assert_eq!(reads.load(Ordering::SeqCst), 2, "no more often than needed");
}

#[tokio::test]
async fn a_file_is_read_for_each_exchange() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-endpoint", std::process::id()));
    let server = Server::default().answers(200, TOKEN).answers(200, TOKEN);
    let auth = ClientAuth::body("my-id", SecretSource::file(&path));
    for secret in ["one\n", "two"] {
        std::fs::write(&path, secret).unwrap();
        ask(&server, &auth).await.unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(secrets_sent(&server), ["one", "two"]);
    let error = ask(&server, &auth).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
    assert_eq!(server.fate(), RefreshFate::Untouched);
    assert_eq!(server.seen().len(), 2, "nothing was sent");
}

#[tokio::test]
async fn a_refused_secret_is_read_again_and_sent_again_if_it_is_another() {
    let server = Server::default().answers(401, REFUSED).answers(200, TOKEN);
    let (source, _) = in_turn(&["old", "new"]);
    ask(&server, &ClientAuth::body("my-id", source)).await.unwrap();
    assert_eq!(secrets_sent(&server), ["old", "new"]);
}

#[tokio::test]
async fn it_is_sent_again_once_only() {
    let server = Server::default().answers(401, REFUSED).answers(400, REFUSED).answers(200, TOKEN);
    let (source, reads) = in_turn(&["one", "two", "three"]);
    let error = ask(&server, &ClientAuth::body("my-id", source)).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (TokenErrorKind::BadCredentials, Some(StatusCode::BAD_REQUEST)));
    assert_eq!(secrets_sent(&server), ["one", "two"]);
    assert_eq!(reads.load(Ordering::SeqCst), 2);

    // One for the whole token request, though it has two grants to try.
    let server = Server::default()
        .answers(401, REFUSED)
        .answers(400, r#"{"error":"invalid_grant"}"#)
        .answers(401, REFUSED)
        .answers(200, TOKEN);
    let (source, _) = in_turn(&["one", "two", "three", "four"]);
    server.ask(&spry(), &ClientAuth::body("my-id", source), with_refresh_token("R")).await.unwrap_err();
    assert_eq!(server.seen().len(), 3);
}

/// Behaviour 108.
#[tokio::test]
async fn a_refused_client_is_not_tried_in_another_way() {
    let (same, _) = in_turn(&["same"]);
    let auths = [
        ClientAuth::basic("my-id", "fixed"),
        ClientAuth::body("my-id", "fixed"),
        ClientAuth::none("my-id"),
        ClientAuth::mtls("my-id"),
        ClientAuth::anonymous(),
        ClientAuth::body("my-id", same),
    ];
    for auth in auths {
        let server = Server::default().answers(401, REFUSED).answers(200, TOKEN);
        let error = ask(&server, &auth).await.unwrap_err();
        assert_eq!(server.seen().len(), 1, "{auth:?}");
        assert_eq!(error.code().map(|code| code.as_str()), Some("invalid_client"));
        assert_eq!(error.error_description(), Some("no"));
    }
    let server = Server::default().answers(401, REFUSED).answers(401, REFUSED);
    let (changing, _) = in_turn(&["one", "two"]);
    ask(&server, &ClientAuth::basic("my-id", changing)).await.unwrap_err();
    for seen in server.seen() {
        assert!(
            seen.headers.contains("authorization: Basic ") && !seen.body.contains("client_id"),
            "the same way twice"
        );
    }
}

/// To read it twice may cost somebody a signature.
#[tokio::test]
async fn an_assertion_is_not_read_again_for_a_client_that_cannot_change() {
    let (assertion, reads) = in_turn(&["one", "two"]);
    let settings = EndpointSettings::new("https://a.example/t".parse().unwrap(), Grant::JwtBearer(assertion.into()));
    let server = Server::default().answers(401, REFUSED);
    server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap_err();
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_leaves_the_refusal_standing() {
    let reads = AtomicUsize::new(0);
    let source = SecretSource::provider(move || {
        let first = reads.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Ok(Secret::from("one")) } else { Err("vault sealed") } }
    });
    let server = Server::default().answers(401, REFUSED);
    let error = ask(&server, &ClientAuth::body("my-id", source)).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::BadCredentials);
}

#[tokio::test(start_paused = true)]
async fn a_secret_has_the_time_of_one_exchange() {
    let never = SecretSource::provider(std::future::pending::<Result<Secret, BoxError>>);
    let start = tokio::time::Instant::now();
    let server = Server::default();
    let auth = ClientAuth::body("my-id", never);
    let error = server.ask(&spry(), &auth, with_refresh_token("R")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
    assert_eq!(server.fate(), RefreshFate::Untouched, "the refresh token was not sent");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

/// The function may need the very place in a concurrency limit that a ready client would hold.
#[tokio::test]
async fn no_place_is_held_while_a_secret_is_waited_for() {
    use tower::limit::GlobalConcurrencyLimitLayer;
    use tower::{Layer, service_fn};

    let limit = GlobalConcurrencyLimitLayer::new(1);
    let vault = limit.layer(service_fn(|_: ()| async { Ok::<_, BoxError>(Secret::from("from the vault")) }));
    let source = SecretSource::provider(move || vault.clone().oneshot(()));
    let client = limit.layer(service_fn(|_: Request<Full<Bytes>>| async { answered(200, &[], TOKEN.into()) }));
    let credentials = Credentials::new(ClientAuth::body("my-id", source));
    let mut settings = settings("https://a.example/t");
    settings.timeout = Duration::from_millis(200);
    let endpoint =
        TokenEndpoint::from_parts(client, Arc::new(settings), credentials, Arc::new(SystemClock), Telemetry::default());
    endpoint.oneshot(TokenRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_secret_sends_its_id_and_nothing_else() {
    let server = Server::default().answers(200, TOKEN).answers(200, TOKEN).answers(200, TOKEN);
    for auth in [ClientAuth::mtls("my-id"), ClientAuth::none("my-id"), ClientAuth::anonymous()] {
        ask(&server, &auth).await.unwrap();
    }
    let grant = "grant_type=client_credentials";
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [format!("{grant}&client_id=my-id"), format!("{grant}&client_id=my-id"), grant.to_owned()]);
    assert!(server.seen().iter().all(|seen| seen.headers == FORM_HEADERS));
}
