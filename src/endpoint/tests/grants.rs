//! The grants that bring an assertion or a token, byte for byte.

use super::*;
use crate::types::SecretSource;

const JWT_BEARER: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
const TOKEN_EXCHANGE: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A";
const EXCHANGED: &str = r#"{"access_token":"T","token_type":"Bearer",
    "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;

fn with_grant(grant: Grant) -> EndpointSettings {
    EndpointSettings::new("https://a.example/t".parse().unwrap(), grant)
}

/// A source that gives `1`, `2`, `3`, ….
fn counting() -> SecretSource {
    let count = Arc::new(Mutex::new(0));
    SecretSource::provider(move || {
        let count = count.clone();
        async move {
            *count.lock().unwrap() += 1;
            Ok::<_, BoxError>(Secret::from(count.lock().unwrap().to_string()))
        }
    })
}

#[tokio::test]
async fn jwt_bearer() {
    let server = Server::default().answers(200, TOKEN).answers(200, TOKEN);
    let mut settings = with_grant(Grant::JwtBearer("eyJh.eyJi.c-_2".into()));
    settings.scopes = Some(Scopes::new(["read"]).unwrap());
    server.ask(&settings, &ClientAuth::anonymous(), TokenRequest::default()).await.unwrap();
    server.ask(&settings, &ClientAuth::basic("my-id", "s"), TokenRequest::default()).await.unwrap();
    let [anonymous, with_basic] = server.seen().try_into().unwrap();
    assert_eq!(
        anonymous,
        Seen {
            line: "POST https://a.example/t".into(),
            headers: FORM_HEADERS.into(),
            body: format!("{JWT_BEARER}&assertion=eyJh.eyJi.c-_2&scope=read"),
        }
    );
    assert_eq!(with_basic.body, anonymous.body);
    assert!(with_basic.headers.contains("authorization: Basic bXktaWQ6cw=="));
}

/// Behaviour 112.
#[tokio::test]
async fn an_assertion_is_read_for_each_exchange() {
    let server = Server::default().answers(400, r#"{"error":"invalid_grant"}"#).answers(200, TOKEN);
    let settings = with_grant(Grant::JwtBearer(counting().into()));
    let error = server.ask(&settings, &ClientAuth::none("my-id"), TokenRequest::default()).await.unwrap_err();
    // An assertion that has expired, for one.
    assert_eq!(error.kind(), TokenErrorKind::Refused);
    assert_eq!(error.code().map(|code| code.as_str()), Some("invalid_grant"));
    server.ask(&settings, &ClientAuth::none("my-id"), TokenRequest::default()).await.unwrap();
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [1, 2].map(|n| format!("{JWT_BEARER}&assertion={n}&client_id=my-id")));
}

#[tokio::test]
async fn token_exchange() {
    let server = Server::default().answers(200, EXCHANGED).answers(200, EXCHANGED);
    let exchange = TokenExchange::new(TokenExchange::ACCESS_TOKEN, counting());
    let simple = with_grant(Grant::TokenExchange(exchange.clone()));
    let token = server.ask(&simple, &body_auth(), TokenRequest::default()).await.unwrap();
    assert_eq!(token.extra().get("issued_token_type"), Some(&json!(TokenExchange::ACCESS_TOKEN)));

    let exchange = exchange.actor(TokenExchange::JWT, "a.b.c").requested_token_type("urn:example:custom");
    let mut full = with_grant(Grant::TokenExchange(exchange));
    full.resources = vec!["https://api.example/1".into(), "urn:example:2".into()];
    full.audiences = vec!["payments".into(), "ledger".into()];
    full.scopes = Some(Scopes::new(["read"]).unwrap());
    server.ask(&full, &ClientAuth::anonymous(), TokenRequest::default()).await.unwrap();

    let [simple, full] = server.seen().try_into().unwrap();
    assert_eq!(
        simple.body,
        format!("{TOKEN_EXCHANGE}&subject_token=1&subject_token_type={TYPE}access_token&{ENCODED_AUTH}")
    );
    assert_eq!(
        full.body,
        format!(
            "{TOKEN_EXCHANGE}&subject_token=2&subject_token_type={TYPE}access_token\
             &actor_token=a.b.c&actor_token_type={TYPE}jwt&requested_token_type=urn%3Aexample%3Acustom\
             &scope=read&resource=https%3A%2F%2Fapi.example%2F1&resource=urn%3Aexample%3A2\
             &audience=payments&audience=ledger"
        )
    );
    assert_eq!((simple.headers, full.headers), (FORM_HEADERS.into(), FORM_HEADERS.into()));
}

#[tokio::test]
async fn a_refresh_is_for_the_same_resource_and_audience() {
    let server = Server::default().answers(200, TOKEN);
    let mut settings = with_grant(Grant::JwtBearer("a.b.c".into()));
    settings.resources = vec!["urn:example:1".into()];
    settings.audiences = vec!["payments".into()];
    server.ask(&settings, &ClientAuth::none("my-id"), with_refresh_token("R")).await.unwrap();
    assert_eq!(
        server.seen()[0].body,
        "grant_type=refresh_token&refresh_token=R&client_id=my-id&resource=urn%3Aexample%3A1&audience=payments"
    );
}

#[tokio::test]
async fn parameters_that_repeat_are_a_list_in_json() {
    let server = Server::default().answers(200, TOKEN);
    let mut settings = with_grant(Grant::JwtBearer("a.b.c".into()));
    settings.encoding = BodyEncoding::Json;
    settings.resources = vec!["urn:example:1".into(), "urn:example:2".into()];
    server.ask(&settings, &ClientAuth::anonymous(), TokenRequest::default()).await.unwrap();
    assert_eq!(
        server.seen()[0].body,
        r#"{"grant_type":"urn:ietf:params:oauth:grant-type:jwt-bearer","assertion":"a.b.c","resource":["urn:example:1","urn:example:2"]}"#
    );
}

#[tokio::test]
async fn an_exchanged_token_must_be_named_and_usable() {
    let unusable = [
        TOKEN,
        r#"{"access_token":"T","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:jwt"}"#,
        r#"{"access_token":"T","token_type":"Bearer","issued_token_type":null}"#,
    ];
    let settings = with_grant(Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, "a.b.c")));
    for answer in unusable {
        let server = Server::default().answers(200, answer);
        let error = server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Malformed);
    }
    let server = Server::default().answers(200, TOKEN);
    server.ask(&settings, &body_auth(), with_refresh_token("R")).await.expect("a refresh names nothing");
}

#[test]
fn what_a_grant_sends_itself_is_no_extra_parameter() {
    let mut settings = with_grant(Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, "a.b.c")));
    settings.params.push(Param { name: "actor_token".into(), value: Secret::from("x") });
    assert!(settings.validate(&body_auth()).is_err());
    settings.grant = Grant::ClientCredentials;
    assert!(settings.validate(&body_auth()).is_ok());
}

#[test]
fn what_cannot_be_an_assertion_or_a_type_is_refused_without_quoting_it() {
    let wrong = [
        Grant::JwtBearer("".into()),
        Grant::JwtBearer("canary\n".into()),
        Grant::TokenExchange(TokenExchange::new("", "canary")),
        Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, "cana ry canary\n")),
        Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, "canary").actor(TokenExchange::JWT, "")),
        Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, "canary").requested_token_type(" ")),
    ];
    for grant in wrong {
        let error = with_grant(grant.clone()).validate(&body_auth()).unwrap_err();
        assert!(!format!("{error:?} {grant:?}").contains("canary"), "{error}");
    }
}

/// Behaviour 103. Behaviour 104.
#[tokio::test]
async fn no_error_tells_an_assertion_or_a_token() {
    let exchange = TokenExchange::new(TokenExchange::JWT, "canary-subject").actor(TokenExchange::JWT, "canary-actor");
    for grant in [Grant::JwtBearer("canary-assertion".into()), Grant::TokenExchange(exchange)] {
        let echo = r#"{"error":"invalid_grant","error_description":
            "canary-subject canary-actor canary-assertion of type urn:ietf:params:oauth:token-type:jwt"}"#;
        let server = Server::default().answers(400, echo);
        let error = server.ask(&with_grant(grant.clone()), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert!(!format!("{error} {error:?} {grant:?}").contains("canary"));
        let description = error.error_description().unwrap();
        assert!(description.contains("[redacted]") && description.contains("token-type:jwt"), "{description}");
        let own = if matches!(grant, Grant::JwtBearer(_)) { "canary-assertion" } else { "canary-actor" };
        assert!(!description.contains(own), "{description}");
    }
}
