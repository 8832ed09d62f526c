//! Discovery (RFC 8414), byte for byte, and what is believed of metadata.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::types::SecretSource;

const WELL_KNOWN: &str = "https://a.example/.well-known/oauth-authorization-server/b";
const OPENID: &str = "https://a.example/b/.well-known/openid-configuration";

fn settings(issuer: &str) -> EndpointSettings {
    let url = TokenUrl::from(Discovery::of(issuer)).parse(false).unwrap();
    let mut settings = EndpointSettings::new(url, Grant::ClientCredentials);
    // For token requests only.
    settings.headers.push((HeaderName::from_static("x-key"), HeaderValue::from_static("canary")));
    settings
}

fn document(members: serde_json::Value) -> String {
    let mut document = json!({ "issuer": "https://a.example/b", "token_endpoint": "https://t.example/t" });
    document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    document.to_string()
}

async fn ask(server: &Server, auth: &ClientAuth) -> Result<Token, TokenError> {
    server.ask(&settings("https://a.example/b"), auth, TokenRequest::default()).await
}

fn lines(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|seen| seen.line).collect()
}

/// Behaviour 113.
#[tokio::test]
async fn the_wire() {
    let server = Server::default().answers(404, "").answers(200, &document(json!({}))).answers(200, TOKEN);
    ask(&server, &body_auth()).await.unwrap();
    let [oauth, openid, token] = server.seen().try_into().unwrap();
    let get = |place: &str| Seen {
        line: format!("GET {place}"),
        headers: "accept-encoding: identity\naccept: application/json".into(),
        body: String::new(),
    };
    assert_eq!((oauth, openid), (get(WELL_KNOWN), get(OPENID)));
    assert_eq!(token.line, "POST https://t.example/t");
}

/// Behaviour 113.
#[tokio::test]
async fn metadata_that_cannot_be_used_are_told_and_no_secret_is_sent() {
    use TokenErrorKind::*;
    let issuer = |issuer: &str| document(json!({ "issuer": issuer }));
    let table = [
        (200, issuer("https://a.example/b/"), WrongIssuer),
        (200, issuer("https://A.example/b"), WrongIssuer),
        (200, issuer("https://canary.example"), WrongIssuer),
        (200, document(json!({ "token_endpoint": null })), BadMetadata),
        (200, document(json!({ "token_endpoint": "http://t.example/t" })), BadMetadata),
        (200, document(json!({ "token_endpoint": "http://127.0.0.1/t" })), BadMetadata),
        (200, document(json!({ "token_endpoint": "/canary" })), BadMetadata),
        (200, document(json!({ "token_endpoint": "https://canary@t.example/t" })), BadMetadata),
        (200, document(json!({ "revocation_endpoint": "http://t.example/canary" })), BadMetadata),
        (200, document(json!({ "mtls_endpoint_aliases": { "token_endpoint": "http://t.example" } })), BadMetadata),
        (200, document(json!({ "token_endpoint_auth_methods_supported": "canary" })), BadMetadata),
        (200, r#"{"issuer":"https://a.example/b","issuer":"canary"}"#.into(), BadMetadata),
        (200, "{\"issuer\": \"canary".into(), BadMetadata),
        (200, "<html>canary".into(), BadMetadata),
        (200, String::new(), BadMetadata),
        (200, " ".repeat(256 * 1024 + 1), BadMetadata),
        (403, "canary".into(), BadMetadata),
        (307, String::new(), Redirected),
        (503, String::new(), Unavailable),
    ];
    for (status, body, kind) in table {
        let server = Server::default().answers(status, &body);
        let error = ask(&server, &body_auth()).await.unwrap_err();
        let what = body.chars().take(100).collect::<String>();
        assert_eq!((error.kind(), server.fate()), (kind, RefreshFate::Untouched), "{status} {what}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        assert_eq!(lines(&server), [format!("GET {WELL_KNOWN}")], "{what}");
    }
    let server = Server::default().answers(404, "").answers(404, "");
    assert_eq!(ask(&server, &body_auth()).await.unwrap_err().kind(), BadMetadata);
    let server = Server::default().then(|| answered(429, &[("retry-after", "7")], Vec::new()));
    assert_eq!(ask(&server, &body_auth()).await.unwrap_err().retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_way_to_authenticate_that_the_server_does_not_list_shows_no_secret() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let secret = SecretSource::provider(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, BoxError>(Secret::from("canary")) }
    });
    let methods = |methods: &[&str]| document(json!({ "token_endpoint_auth_methods_supported": methods }));
    let excluded = [
        (ClientAuth::basic("id", secret.clone()), "client_secret_basic"),
        (ClientAuth::basic_raw("id", secret.clone()), "client_secret_basic"),
        (ClientAuth::body("id", secret.clone()), "client_secret_post"),
        (ClientAuth::mtls("id"), "tls_client_auth"),
    ];
    for (auth, name) in &excluded {
        let server = Server::default().answers(200, &methods(&["private_key_jwt", "none"]));
        let error = ask(&server, auth).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!((server.seen().len(), reads.load(Ordering::Relaxed)), (1, 0), "{name}");
    }
    // Listed, or nothing is said, or there is nothing to show.
    let listed = excluded.iter().map(|(auth, name)| (auth.clone(), methods(&[name])));
    let unsaid = excluded.iter().map(|(auth, _)| (auth.clone(), document(json!({}))));
    let silent = [ClientAuth::none("id"), ClientAuth::anonymous()].map(|auth| (auth, methods(&["private_key_jwt"])));
    let other_mtls = (ClientAuth::mtls("id"), methods(&["self_signed_tls_client_auth"]));
    for (auth, document) in listed.chain(unsaid).chain(silent).chain([other_mtls]) {
        let server = Server::default().answers(200, &document).answers(200, TOKEN);
        ask(&server, &auth).await.unwrap();
    }
}

/// Behaviour 188.
#[cfg(any(feature = "jwt-aws-lc-rs", feature = "jwt-rust-crypto"))]
#[tokio::test]
async fn an_algorithm_that_the_server_does_not_list_is_not_used() {
    const CLIENT: &str = "token_endpoint_auth_signing_alg_values_supported";
    let plain = || settings("https://a.example/b");
    let hmac = || ClientAuth::client_secret_jwt("id", "a secret of at least thirty-two bytes");
    let mut cases = vec![(plain(), hmac(), CLIENT, "HS256", "PS256")];
    #[cfg(feature = "dpop")]
    {
        let bound = EndpointSettings { dpop: Some(crate::dpop::DpopKey::generate().unwrap()), ..plain() };
        cases.push((bound, body_auth(), "dpop_signing_alg_values_supported", "ES256", "EdDSA"));
    }
    for (settings, auth, list, used, other) in cases {
        let excluded = Server::default().answers(200, &document(json!({ list: [other] })));
        let error = excluded.ask(&settings, &auth, with_refresh_token("R")).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Unsupported);
        assert!(error.to_string().contains(list) && error.to_string().contains(used), "{error}");
        assert_eq!(lines(&excluded).len(), 1, "the metadata and nothing else");
        for listed in [json!({ list: [other, used] }), json!({})] {
            let server = Server::default().answers(200, &document(listed)).answers(200, TOKEN);
            server.ask(&settings, &auth, with_refresh_token("R")).await.unwrap();
        }
    }
}

/// RFC 8705 §5.
#[tokio::test]
async fn endpoints_for_certificates_come_first_for_clients_that_have_one() {
    let document = document(json!({
        "revocation_endpoint": "https://t.example/revoke",
        "mtls_endpoint_aliases": { "token_endpoint": "https://mtls.example/t" },
    }));
    for (auth, place) in [(ClientAuth::mtls("id"), "mtls.example"), (ClientAuth::none("id"), "t.example")] {
        let server =
            Server::default().answers(200, &document).answers(200, TOKEN).answers(200, &document).answers(200, "");
        ask(&server, &auth).await.unwrap();
        let endpoint = server.endpoint(SystemClock, &settings("https://a.example/b"), &auth);
        revoke(&endpoint, Secret::from("T"), Revoked::AccessToken, None).await.unwrap();
        let lines = lines(&server);
        assert_eq!(lines[1], format!("POST https://{place}/t"));
        assert_eq!(lines[3], "POST https://t.example/revoke", "what has no alias is where it is");
    }
}

#[tokio::test]
async fn what_is_configured_comes_before_what_is_found() {
    let server = Server::default()
        .answers(200, &document(json!({ "revocation_endpoint": "https://t.example/revoke" })))
        .answers(404, "")
        .answers(200, TOKEN)
        .answers(200, "");
    let mut settings = settings("https://a.example/b");
    settings.refresh_url = Some("https://mine.example/refresh".parse().unwrap());
    settings.revocation_url = Some("https://mine.example/revoke".parse().unwrap());
    let endpoint = server.endpoint(SystemClock, &settings, &body_auth());
    endpoint.clone().oneshot(with_refresh_token("R")).await.unwrap();
    revoke(&endpoint, Secret::from("T"), Revoked::AccessToken, None).await.unwrap();
    let expected = ["https://mine.example/refresh", "https://t.example/t", "https://mine.example/revoke"];
    assert_eq!(lines(&server)[1..], expected.map(|place| format!("POST {place}")), "one fetch for all of them");
}

#[cfg(any(feature = "jwt-aws-lc-rs", feature = "jwt-rust-crypto"))]
#[tokio::test]
async fn assertions_are_addressed_to_the_issuer() {
    let auth = ClientAuth::client_secret_jwt("id", "a secret of at least thirty-two bytes");
    for (configured, audience) in [(None, "https://a.example/b"), (Some("other"), "other")] {
        let server = Server::default().answers(200, &document(json!({}))).answers(200, TOKEN);
        let mut settings = settings("https://a.example/b");
        settings.assertion_audience = configured.map(str::to_owned);
        server.ask(&settings, &auth, TokenRequest::default()).await.unwrap();
        let body = server.seen().remove(1).body;
        let assertion = body.split("client_assertion=").nth(1).unwrap().split('.').nth(1).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion).unwrap()).unwrap();
        assert_eq!(claims["aud"], audience);
    }
}

/// What was known of the refresh token before stays so.
#[tokio::test]
async fn a_failure_before_anything_is_sent_forgets_nothing() {
    for lost in [true, false] {
        let mut settings = settings("https://a.example/b");
        settings.grant = Grant::RefreshToken;
        let mut request = with_refresh_token("R");
        request.refresh_answer_lost = lost;
        let server = Server::default().answers(503, "");
        server.ask(&settings, &body_auth(), request).await.unwrap_err();
        assert_eq!(server.fate(), RefreshFate::Untouched);
    }
}
