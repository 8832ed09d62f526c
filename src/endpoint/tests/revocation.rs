//! Revocation (RFC 7009), byte for byte, and what is made of its answers.

use super::*;

fn settings() -> EndpointSettings {
    let mut settings = EndpointSettings::new("https://a.example/t".parse().unwrap(), Grant::ClientCredentials);
    settings.revocation_url = Some("https://a.example/revoke?v=1".parse().unwrap());
    // For token requests only.
    settings.encoding = BodyEncoding::Json;
    settings.scopes = Some(Scopes::new(["read"]).unwrap());
    settings.audiences = vec!["payments".into()];
    settings.params.push(Param { name: "extra".into(), value: Secret::from("x") });
    settings
}

async fn revoke(server: &Server, auth: &ClientAuth, token: &str, kind: Revoked) -> Result<(), TokenError> {
    let endpoint = server.endpoint(SystemClock, &settings(), auth);
    super::super::revoke(&endpoint, Secret::from(token), kind, None).await
}

#[tokio::test]
async fn the_wire() {
    let server = Server::default().answers(200, "").answers(200, "not looked at");
    revoke(&server, &ClientAuth::basic("my-id", "s"), "a+b", Revoked::RefreshToken).await.unwrap();
    revoke(&server, &body_auth(), "T", Revoked::AccessToken).await.unwrap();
    let [refresh_token, access_token] = server.seen().try_into().unwrap();
    assert_eq!(
        refresh_token,
        Seen {
            line: "POST https://a.example/revoke?v=1".into(),
            headers: "accept-encoding: identity\naccept: application/json\nauthorization: Basic bXktaWQ6cw==\n\
                      content-type: application/x-www-form-urlencoded"
                .into(),
            body: "token=a%2Bb&token_type_hint=refresh_token".into(),
        }
    );
    assert_eq!(access_token.body, format!("token=T&token_type_hint=access_token&{ENCODED_AUTH}"));
}

/// Behaviour 103. Behaviour 104.
#[tokio::test]
async fn a_refusal_is_typed_and_quotes_nothing() {
    let echo = r#"{"error":"unsupported_token_type","error_description":"canary-token of canary-secret"}"#;
    let table = [
        (400, echo, TokenErrorKind::Unsupported),
        (401, r#"{"error":"invalid_client"}"#, TokenErrorKind::BadCredentials),
        (503, "", TokenErrorKind::Unavailable),
        (200, r#"{"error":"invalid_request"}"#, TokenErrorKind::Refused),
        (404, "<html>canary-token", TokenErrorKind::EndpointNotFound),
        (302, "", TokenErrorKind::Redirected),
    ];
    for (status, body, kind) in table {
        let server = Server::default().answers(status, body);
        let auth = ClientAuth::body("my-id", "canary-secret");
        let error = revoke(&server, &auth, "canary-token", Revoked::RefreshToken).await.unwrap_err();
        assert_eq!((error.kind(), error.status().map(|status| status.as_u16())), (kind, Some(status)));
        assert!(!format!("{error} {error:?} {:?}", error.error_description()).contains("canary"), "{error:?}");
        assert!(error.to_string().ends_with("the refresh token may still be good"), "{error}");
        assert_eq!(server.seen().len(), 1, "it is not sent twice");
    }
}

#[tokio::test]
async fn the_pause_that_the_server_asks_for_is_told() {
    let server = Server::default().then(|| answered(503, &[("retry-after", "120")], Vec::new()));
    let error = revoke(&server, &body_auth(), "T", Revoked::AccessToken).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
}
