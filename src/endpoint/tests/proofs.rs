//! Token requests with a proof (RFC 9449 §5); the proofs themselves are tested where they are made.

use serde_json::Value;

use super::*;
use crate::dpop::DpopKey;
use crate::jws::SigningAlgorithm;
use crate::jws::SigningKey;

const WANTS_NONCE: &str = r#"{"error":"use_dpop_nonce"}"#;

fn bound(settings: EndpointSettings) -> EndpointSettings {
    EndpointSettings { dpop: Some(DpopKey::generate().unwrap()), ..settings }
}

/// The claims of the proof, and the other headers.
fn split(seen: &Seen) -> (Value, String) {
    let (proofs, rest): (Vec<&str>, Vec<&str>) = seen.headers.lines().partition(|line| line.starts_with("dpop: "));
    let [proof] = proofs[..] else { panic!("{} proofs", proofs.len()) };
    let claims = proof.split('.').nth(1).unwrap();
    (serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap(), rest.join("\n"))
}

fn wants_nonce(nonce: &'static str) -> impl FnOnce() -> Answered + Send + 'static {
    move || answered(400, &[("dpop-nonce", nonce)], WANTS_NONCE.into())
}

#[tokio::test]
async fn a_token_request_differs_by_its_proof_only() {
    let settings = settings("https://a.example:8443/oauth/token?x=1");
    let answer = r#"{"access_token":"T","token_type":"DPoP"}"#;
    let server = Server::default().answers(200, TOKEN).answers(200, answer);
    server.ask(&settings, &ClientAuth::body("id", "secret"), TokenRequest::default()).await.unwrap();
    let token = server.ask(&bound(settings), &ClientAuth::body("id", "secret"), TokenRequest::default()).await.unwrap();
    assert_eq!(token.header_value(), "DPoP T");
    let [plain, proved] = server.seen().try_into().unwrap();
    let (claims, rest) = split(&proved);
    assert_eq!(Seen { headers: rest, ..proved }, plain);
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!("https://a.example:8443/oauth/token")));
    assert!(claims.get("ath").is_none(), "there is no token yet");
}

/// Behaviour 155.
#[tokio::test]
async fn the_url_of_a_proof_is_normalised() {
    let normalised = [
        ("https://AUTH.Example.com:443/oauth/token?x=1", "https://auth.example.com/oauth/token"),
        ("https://auth.example.com", "https://auth.example.com/"),
        ("https://[2001:DB8:0::1]:8443/T", "https://[2001:db8::1]:8443/T"),
    ];
    for (written, expected) in normalised {
        let server = Server::default().answers(200, TOKEN);
        server
            .ask(&bound(settings(written)), &ClientAuth::body("id", "secret"), TokenRequest::default())
            .await
            .unwrap();
        assert_eq!(split(&server.seen()[0]).0["htu"], json!(expected), "{written}");
    }
}

/// Behaviours 110 and 112.
#[tokio::test]
async fn a_nonce_is_answered_at_once_with_a_new_proof_and_a_new_assertion() {
    let key = aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let pem = STANDARD.encode(key.unwrap().to_pkcs8v1().unwrap().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
    let auth = ClientAuth::private_key_jwt("id", SigningKey::from_pem(SigningAlgorithm::Es256, pem));
    let server = Server::default().then(wants_nonce("n1")).answers(200, TOKEN);
    server.ask(&bound(settings("https://a.example/t")), &auth, TokenRequest::default()).await.unwrap();
    let [first, second] = server.seen().try_into().unwrap();
    assert_ne!(first.body, second.body, "the assertion is another");
    let ((first, _), (second, _)) = (split(&first), split(&second));
    assert_ne!(first["jti"], second["jti"]);
    assert_eq!((first.get("nonce"), &second["nonce"]), (None, &json!("n1")));
}

/// Behaviour 110.
#[tokio::test]
async fn one_repeat_for_each_exchange_and_none_without_a_nonce() {
    let settings = bound(spry());
    // Both URLs are of one server: what it said at one is known at the other.
    let dead = || answered(400, &[("dpop-nonce", "n2")], br#"{"error":"invalid_grant"}"#.to_vec());
    let server = Server::default().then(wants_nonce("n1")).then(dead).then(wants_nonce("n3")).answers(200, TOKEN);
    server.ask(&settings, &body_auth(), with_refresh_token("R")).await.unwrap();
    let nonces: Vec<Value> = server.seen().iter().map(|seen| split(seen).0["nonce"].clone()).collect();
    assert_eq!(nonces, [Value::Null, json!("n1"), json!("n2"), json!("n3")]);

    // Each server has its own.
    let other_server =
        EndpointSettings { refresh_url: Some("https://b.example/t".parse().unwrap()), ..settings.clone() };
    let dead = || answered(400, &[("dpop-nonce", "b")], br#"{"error":"invalid_grant"}"#.to_vec());
    let server = Server::default().then(dead).then(wants_nonce("a")).answers(200, TOKEN);
    server.ask(&other_server, &body_auth(), with_refresh_token("R")).await.unwrap();
    let nonces: Vec<Value> = server.seen().iter().map(|seen| split(seen).0["nonce"].clone()).collect();
    assert_eq!(nonces, [Value::Null, Value::Null, json!("a")]);

    for (status, headers, body) in [
        (400, &[][..], WANTS_NONCE),
        (400, &[("dpop-nonce", "\"")], WANTS_NONCE),
        (403, &[("dpop-nonce", "n")], WANTS_NONCE),
        (400, &[("dpop-nonce", "n")], r#"{"error":"invalid_dpop_proof"}"#),
    ] {
        let server = Server::default().then(move || answered(status, headers, body.into()));
        server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(server.seen().len(), 1, "{status} {headers:?} {body}");
    }

    // Without a key it is none of our business.
    let server = Server::default().then(wants_nonce("n"));
    server.ask(&spry(), &body_auth(), TokenRequest::default()).await.unwrap_err();
    assert!(!server.seen()[0].headers.contains("dpop"));
}

/// Behaviour 103.
#[tokio::test]
async fn no_error_tells_a_proof() {
    let server = Server::default();
    let seen = server.clone();
    let echo = move || {
        let headers = seen.seen().last().unwrap().headers.clone();
        let proof = headers.lines().find_map(|line| line.strip_prefix("dpop: ")).unwrap().to_owned();
        let body = json!({"error": "invalid_dpop_proof", "error_description": format!("bad proof {proof}")});
        answered(400, &[], body.to_string().into_bytes())
    };
    let server = server.then(echo);
    let settings = bound(settings("https://a.example/t"));
    let error = server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.error_description(), Some("bad proof [redacted]"));
    assert!(!format!("{error} {error:?} {settings:?}").contains("eyJ"));
}

/// What a person brought, such as a code, is sent again for a nonce only.
///
/// Behaviour 110.
#[tokio::test]
async fn a_code_is_exchanged_with_a_proof_and_again_for_a_nonce() {
    use crate::endpoint::direct::Direct;

    for (status, body, sent) in [(400, WANTS_NONCE, 2), (400, r#"{"error":"invalid_grant"}"#, 1), (503, "", 1)] {
        let proofs = Arc::new(Mutex::new(Vec::new()));
        let seen = proofs.clone();
        let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let proof = request.headers()["dpop"].clone();
            let first = {
                let mut seen = seen.lock().unwrap();
                seen.push(proof);
                seen.len() == 1
            };
            let (status, body) = if first { (status, body) } else { (200, TOKEN) };
            std::future::ready(answered(status, &[("dpop-nonce", "n")], body.into()))
        });
        let settings = Arc::new(bound(settings("https://a.example/t")));
        let endpoint = TokenEndpoint::from_parts(
            client,
            settings,
            Credentials::new(body_auth()),
            Arc::new(SystemClock),
            Telemetry::default(),
        );
        let code = GrantParams::new("authorization_code").plain("code", "c");
        let result = Direct::exchange(&endpoint, code, None).await;
        let proofs = proofs.lock().unwrap();
        assert_eq!((proofs.len(), result.is_ok()), (sent, sent == 2), "{status} {body}");
        assert!(proofs.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
