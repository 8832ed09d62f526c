//! Device authorization (RFC 8628), byte for byte, and what is made of its answers.

use super::*;

const CODES: &str = r#"{"device_code":"GmRhm/DnyEy","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device",
    "verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT","expires_in":1800,"interval":7}"#;

fn settings() -> EndpointSettings {
    let mut settings = EndpointSettings::new("https://a.example/t".parse().unwrap(), Grant::Device);
    settings.device_url = Some("https://a.example/device".parse().unwrap());
    settings.scopes = Some(Scopes::new(["read", "write"]).unwrap());
    settings.resources = vec!["urn:example:1".into()];
    settings.audiences = vec!["payments".into()];
    // For token requests only.
    settings.params.push(Param { name: "extra".into(), value: Secret::from("x") });
    settings
}

async fn begin(server: &Server, auth: &ClientAuth) -> Result<DeviceAuthorization, TokenError> {
    DeviceAuthorization::begin(&server.endpoint(SystemClock, &settings(), auth), None).await
}

#[tokio::test(start_paused = true)]
async fn the_wire() {
    let pending = r#"{"error":"authorization_pending"}"#;
    let server = Server::default().answers(200, CODES).answers(400, pending).answers(200, TOKEN);
    let auth = ClientAuth::none("my-id");
    let authorization = begin(&server, &auth).await.unwrap();
    let endpoint = server.endpoint(SystemClock, &settings(), &auth);
    let token = authorization.wait(&endpoint, None).await.unwrap();
    assert!(matches!(token.refresh_token, RefreshToken::Drop), "an older one may be another person's");
    let [asked, first, second] = server.seen().try_into().unwrap();
    let of_all = "client_id=my-id";
    assert_eq!(
        asked,
        Seen {
            line: "POST https://a.example/device".into(),
            headers: FORM_HEADERS.into(),
            body: format!("scope=read%20write&resource=urn%3Aexample%3A1&audience=payments&{of_all}"),
        }
    );
    assert_eq!(
        first,
        Seen {
            line: "POST https://a.example/t".into(),
            headers: FORM_HEADERS.into(),
            body: format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=GmRhm%2FDnyEy&{of_all}\
                 &resource=urn%3Aexample%3A1&audience=payments&extra=x"
            ),
        }
    );
    assert_eq!(second, first);
}

#[tokio::test]
async fn what_the_server_says_is_shown() {
    let server = Server::default().answers(200, CODES);
    let codes = begin(&server, &ClientAuth::basic("my-id", "s")).await.unwrap().codes;
    assert_eq!(codes.user_code.expose(), "WDJB-MJHT");
    assert_eq!(codes.verification_uri, "https://example.com/device");
    assert!(codes.verification_uri_complete.is_some_and(|uri| uri.expose().ends_with("?user_code=WDJB-MJHT")));
    assert_eq!((codes.expires_in, codes.interval), (Duration::from_secs(1800), Some(Duration::from_secs(7))));
    assert!(!server.seen()[0].body.contains("client_id"), "Basic names it");

    let sparse =
        r#"{"device_code":"d","user_code":"u","verification_url":"http://localhost/","expires_in":"60","interval":0}"#;
    let codes = begin(&Server::default().answers(200, sparse), &body_auth()).await.unwrap().codes;
    assert_eq!((codes.verification_uri.as_str(), codes.interval), ("http://localhost/", None));
    assert!(codes.verification_uri_complete.is_none());
}

#[tokio::test]
async fn what_cannot_be_shown_is_refused_without_quoting_it() {
    let with = |name: &str, value: serde_json::Value| {
        let mut answer: serde_json::Value = serde_json::from_str(CODES).unwrap();
        answer[name] = value;
        answer.to_string()
    };
    let wrong = [
        with("device_code", json!(null)),
        with("user_code", json!("")),
        with("user_code", json!("canary\u{1b}[2J")),
        with("user_code", json!("canary".repeat(30))),
        with("verification_uri", json!("javascript:canary")),
        with("verification_uri", json!("https://user:canary@example.com/")),
        with("verification_uri", json!("https://example.com/canary\u{202e}")),
        with("verification_uri_complete", json!("file:///canary")),
        with("expires_in", json!(0)),
        with("expires_in", json!("canary")),
        "<html>canary".into(),
        "canary".into(),
        String::new(),
    ];
    for body in wrong {
        let error = begin(&Server::default().answers(200, &body), &body_auth()).await.err().expect(&body);
        assert_eq!((error.kind(), error.status()), (TokenErrorKind::Malformed, Some(StatusCode::OK)), "{body}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
