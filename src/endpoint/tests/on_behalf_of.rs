//! Token requests with parameters of each request's own, byte for byte.

use std::time::SystemTime;

use super::*;
use crate::types::{Now, SecretSource, SubjectToken, TokenParams};

const EXCHANGED: &str = r#"{"access_token":"T","token_type":"Bearer","expires_in":3600,
    "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;

/// A clock that stands still.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Now {
        Now { wall: time(self.0), ..SystemClock.now() }
    }
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn on_behalf_of(grant: OnBehalfOf) -> EndpointSettings {
    EndpointSettings::new(
        "https://login.microsoftonline.com/t/oauth2/v2.0/token".parse().unwrap(),
        Grant::OnBehalfOf(grant),
    )
}

fn with(params: TokenParams) -> TokenRequest {
    TokenRequest { params: Some(params), ..Default::default() }
}

fn of(subject: &str) -> TokenParams {
    TokenParams::new().subject(SubjectToken::access_token(subject).unwrap())
}

fn jwt(exp: u64) -> String {
    format!("e30.{}.canary", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
}

/// RFC 8693 §2.1, with what the request says in place of what is configured.
///
/// Behaviour 181.
#[tokio::test]
async fn a_token_exchange_of_the_requests_own_subject() {
    let server = Server::default().answers(200, EXCHANGED).answers(200, EXCHANGED);
    let mut settings = on_behalf_of(OnBehalfOf::token_exchange());
    settings.audiences = vec!["configured".into()];
    settings.params = vec![Param { name: "claims".into(), value: Secret::from("configured") }];
    server.ask(&settings, &body_auth(), with(of("S1"))).await.unwrap();
    let full = of("S2").audience("orders").unwrap().audience("stock").unwrap().resource("urn:example:1").unwrap();
    let full =
        TokenRequest { scopes: Some(Scopes::new(["read"]).unwrap()), ..with(full.claims(r#"{"a":1}"#).unwrap()) };
    let actor = OnBehalfOf::token_exchange().actor(TokenExchange::JWT, SecretSource::from("A"));
    settings.grant = Grant::OnBehalfOf(actor.requested_token_type(TokenExchange::ACCESS_TOKEN));
    server.ask(&settings, &ClientAuth::anonymous(), full).await.unwrap();

    const EXCHANGE: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
    const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A";
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(
        bodies,
        [
            format!(
                "{EXCHANGE}&subject_token=S1&subject_token_type={TYPE}access_token&{ENCODED_AUTH}\
                 &audience=configured&claims=configured"
            ),
            format!(
                "{EXCHANGE}&subject_token=S2&subject_token_type={TYPE}access_token&actor_token=A&actor_token_type={TYPE}jwt\
                 &requested_token_type={TYPE}access_token&scope=read&resource=urn%3Aexample%3A1\
                 &audience=orders&audience=stock&claims=%7B%22a%22%3A1%7D"
            ),
        ]
    );
}

/// <https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-on-behalf-of-flow#first-case-access-token-request-with-a-shared-secret>
/// (2024-01-10), read 2026-11-26 in the source of that page (MicrosoftDocs/entra-docs), without its `offline_access`.
///
/// Behaviour 181.
#[tokio::test]
async fn entra_on_behalf_of() {
    let server = Server::default().answers(200, TOKEN);
    let mut settings = on_behalf_of(OnBehalfOf::entra());
    settings.scopes = Some(Scopes::new(["https://graph.microsoft.com/user.read"]).unwrap());
    let auth = ClientAuth::body("535fb089-9ff3-47b6-9bfb-4f1264799865", "sampleCredentia1s");
    server.ask(&settings, &auth, with(of("eyJ0eXAi.eyJhdWQi.x"))).await.unwrap();
    assert_eq!(
        server.seen()[0].body,
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ0eXAi.eyJhdWQi.x\
         &requested_token_use=on_behalf_of\
         &client_id=535fb089-9ff3-47b6-9bfb-4f1264799865&client_secret=sampleCredentia1s\
         &scope=https%3A%2F%2Fgraph.microsoft.com%2Fuser.read"
    );
    let with_actor = on_behalf_of(OnBehalfOf::entra().actor(TokenExchange::JWT, "a"));
    assert!(with_actor.validate(&body_auth()).is_err());
}

/// Behaviour 182.
#[tokio::test]
async fn an_exchanged_token_ends_with_its_subject() {
    let settings = on_behalf_of(OnBehalfOf::token_exchange());
    let given = SubjectToken::access_token("opaque").unwrap().with_expires_at(time(1_000_500));
    let both = SubjectToken::access_token(jwt(1_000_400)).unwrap().with_expires_at(time(1_000_500));
    let cases = [
        (of("opaque"), None),
        (of(&jwt(1_000_600)), Some(1_000_600)),
        (TokenParams::new().subject(given), Some(1_000_500)),
        (TokenParams::new().subject(both), Some(1_000_400)),
    ];
    for (params, end) in cases {
        let server = Server::default().answers(200, EXCHANGED);
        let token = server.ask_at(At(1_000_000), &settings, &body_auth(), with(params)).await.unwrap();
        assert_eq!(token.not_after, end.map(time));
    }
}

/// Behaviour 183.
#[tokio::test]
async fn without_a_subject_that_is_good_nothing_is_sent() {
    let settings = on_behalf_of(OnBehalfOf::token_exchange());
    let expired = SubjectToken::access_token("canary").unwrap().with_expires_at(time(1_000_000));
    let cases = [
        (TokenRequest::default(), TokenErrorKind::Refused, "no subject token"),
        (with(TokenParams::new().audience("a").unwrap()), TokenErrorKind::Refused, "no subject token"),
        (with(of(&jwt(1_000_000))), TokenErrorKind::SignInAgain, "has expired"),
        (with(TokenParams::new().subject(expired)), TokenErrorKind::SignInAgain, "has expired"),
    ];
    for (request, kind, told) in cases {
        let server = Server::default();
        let error = server.ask_at(At(1_000_000), &settings, &body_auth(), request).await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(told) && server.seen().is_empty(), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}

/// Behaviour 184. Behaviour 104.
#[tokio::test]
async fn an_exchange_that_brings_another_kind_of_token_is_told_and_quotes_nothing() {
    let settings = on_behalf_of(OnBehalfOf::token_exchange());
    let unusable = [
        TOKEN,
        r#"{"access_token":"T","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:jwt"}"#,
    ];
    for answer in unusable {
        let server = Server::default().answers(200, answer);
        let error = server.ask(&settings, &body_auth(), with(of("S"))).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Malformed, "{error}");
    }
    // What is asked for is taken, and what is not known to be anything else.
    let kinds = [
        ("access_token", "access_token", true),
        ("access_token", "jwt", true),
        ("id_token", "id_token", true),
        ("access_token", "id_token", false),
        ("access_token", "refresh_token", false),
        ("jwt", "saml2", false),
        ("jwt", "id-jag", false),
    ];
    for (asked, issued, is_taken) in kinds {
        let urn = |kind: &str| format!("urn:ietf:params:oauth:token-type:{kind}");
        let settings = on_behalf_of(OnBehalfOf::token_exchange().requested_token_type(urn(asked)));
        let answer = json!({"access_token": "T", "token_type": "Bearer", "issued_token_type": urn(issued)});
        let server = Server::default().answers(200, &answer.to_string());
        let result = server.ask(&settings, &body_auth(), with(of("S"))).await;
        assert_eq!(result.is_ok(), is_taken, "{asked} {issued}");
    }
    let echo = r#"{"error":"invalid_grant","error_description":"canary-subject was not accepted"}"#;
    let server = Server::default().answers(400, echo);
    let error = server.ask(&settings, &body_auth(), with(of("canary-subject"))).await.unwrap_err();
    assert_eq!(error.error_description(), Some("[redacted] was not accepted"));
    assert!(!format!("{error} {error:?} {:?}", with(of("canary-subject"))).contains("canary"));
}
