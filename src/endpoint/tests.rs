//! The wire, byte for byte, and the flow of a token request.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::json;
use tower::ServiceExt;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::telemetry::Telemetry;
use crate::token::{self, Granted};
use crate::types::{Scopes, Secret, SystemClock, TenantId};

#[cfg(feature = "jwt")]
mod assertions;
mod device;
mod discovery;
mod grants;
mod on_behalf_of;
#[cfg(feature = "dpop")]
mod proofs;
mod revocation;
mod secrets;

type Answered = Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

type Answering = Box<dyn FnOnce() -> Answered + Send>;

/// What was sent, in the order of sending.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    headers: String,
    body: String,
}

/// An authorization server that answers from a list and remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<Answering>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// What the last failure means for the refresh token.
    fate: Arc<Mutex<RefreshFate>>,
}

impl Server {
    fn then(self, answer: impl FnOnce() -> Answered + Send + 'static) -> Self {
        self.answers.lock().unwrap().push(Box::new(answer));
        self
    }

    fn answers(self, status: u16, body: &str) -> Self {
        let body = body.to_owned();
        self.then(move || answered(status, &[], body.into_bytes()))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The first words of the bodies, which name the grants.
    fn grants(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.body.split('&').next().unwrap().to_owned()).collect()
    }

    async fn ask(
        &self,
        settings: &EndpointSettings,
        auth: &ClientAuth,
        request: TokenRequest,
    ) -> Result<Token, TokenError> {
        self.ask_at(SystemClock, settings, auth, request).await
    }

    async fn ask_at(
        &self,
        clock: impl Clock,
        settings: &EndpointSettings,
        auth: &ClientAuth,
        request: TokenRequest,
    ) -> Result<Token, TokenError> {
        match token::fetch(&self.endpoint(clock, settings, auth), request).await {
            Ok(Granted { token, refresh, .. }) => Ok(token.with_refresh_token(refresh.into())),
            Err(failed) => {
                *self.fate.lock().unwrap() = failed.refresh;
                Err(failed.error)
            }
        }
    }

    fn fate(&self) -> RefreshFate {
        *self.fate.lock().unwrap()
    }

    fn endpoint(
        &self,
        clock: impl Clock,
        settings: &EndpointSettings,
        auth: &ClientAuth,
    ) -> TokenEndpoint<impl Client> {
        let server = self.clone();
        let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let mut headers: Vec<String> = head
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                    .collect();
                headers.sort();
                server.seen.lock().unwrap().push(Seen {
                    line: format!("{} {}", head.method, head.uri),
                    headers: headers.join("\n"),
                    body: String::from_utf8(body.to_vec()).unwrap(),
                });
                let answer = {
                    let mut answers = server.answers.lock().unwrap();
                    (!answers.is_empty()).then(|| answers.remove(0))
                };
                match answer {
                    Some(answer) => answer(),
                    None => std::future::pending().await,
                }
            }
        });
        TokenEndpoint::from_parts(
            client,
            Arc::new(settings.clone()),
            Credentials::new(auth.clone()),
            Arc::new(clock),
            Telemetry::default(),
        )
    }
}

/// What a token endpoint needs of an HTTP client.
trait Client:
    Service<Request<Full<Bytes>>, Response = Response<UnsyncBoxBody<Bytes, BoxError>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> Client for C where
    C: Service<
            Request<Full<Bytes>>,
            Response = Response<UnsyncBoxBody<Bytes, BoxError>>,
            Error = BoxError,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

fn answered(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Answered {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    Ok(response.body(body).unwrap())
}

/// A body that sends `frames`, and then fails, ends or hangs.
fn streamed(status: u16, frames: Vec<Result<&'static str, BoxError>>, hang: bool) -> Answered {
    use futures_util::StreamExt as _;
    let frames = frames.into_iter().map(|frame| frame.map(|text| Frame::data(Bytes::from(text))));
    let stream = futures_util::stream::iter(frames);
    let body = if hang {
        StreamBody::new(stream.chain(futures_util::stream::pending())).boxed_unsync()
    } else {
        StreamBody::new(stream).boxed_unsync()
    };
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// Captured tracing output.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn start(&self) -> DefaultGuard {
        let log = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(url: &str) -> EndpointSettings {
    EndpointSettings::new(url.parse().unwrap(), Grant::ClientCredentials)
}

fn with_refresh_token(token: &str) -> TokenRequest {
    TokenRequest { refresh_token: Some(Secret::from(token)), ..Default::default() }
}

fn spry() -> EndpointSettings {
    let mut settings = settings("https://practice.example/apis/v2/oauth/token");
    settings.refresh_url = Some("https://practice.example/apis/v1/oauth/token".parse().unwrap());
    settings.scopes = Some(Scopes::new(["read", "write"]).unwrap());
    settings
}

const FORM_HEADERS: &str =
    "accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded";
const TOKEN: &str = r#"{"access_token":"T","token_type":"Bearer","expires_in":3600}"#;

fn body_auth() -> ClientAuth {
    ClientAuth::body("my-id", "my+secret&%=é /")
}

const ENCODED_AUTH: &str = "client_id=my-id&client_secret=my%2Bsecret%26%25%3D%C3%A9%20%2F";

mod wire {
    use super::*;

    /// Behaviour 114.
    #[tokio::test]
    async fn vip() {
        let server = Server::default()
            .answers(200, r#"{"access_token":"eyJz93a...k4laUWw","token_type":"Bearer","expires_in":86400}"#);
        let mut settings = settings("https://api.vetspace.cloud/oauth/token");
        settings.encoding = BodyEncoding::Json;
        settings.send_grant_type = false;
        let token =
            server.ask(&settings, &ClientAuth::body("9VdOrmi", "ZCR99cZ-q4b"), TokenRequest::default()).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://api.vetspace.cloud/oauth/token".into(),
                headers: "accept-encoding: identity\naccept: application/json\ncontent-type: application/json".into(),
                body: r#"{"client_id":"9VdOrmi","client_secret":"ZCR99cZ-q4b"}"#.into(),
            }]
        );
        assert_eq!(token.header_value().as_bytes(), b"Bearer eyJz93a...k4laUWw");
        assert_eq!(token.expires_in, Some(Duration::from_secs(86400)));
    }

    /// Behaviour 114. Behaviour 107.
    #[tokio::test]
    async fn spry_client_credentials() {
        let answer = r#"{
            "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...", "token_type": "Bearer", "expires_in": 3600,
            "scope": "read write", "organisation_id": 74, "user_id": 276, "roles": ["ADMIN", "DOCTOR"],
            "clinic_id_list": [44, 58], "name": "Sam Matthew"
        }"#;
        let server = Server::default().answers(200, answer);
        let token = server.ask(&spry(), &body_auth(), TokenRequest::default()).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://practice.example/apis/v2/oauth/token".into(),
                headers: FORM_HEADERS.into(),
                body: format!("grant_type=client_credentials&{ENCODED_AUTH}&scope=read%20write"),
            }]
        );
        assert_eq!(token.access_token(), "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...");
        assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(token.scopes(), Some(&Scopes::new(["read", "write"]).unwrap()));
        assert_eq!(token.extra().get("clinic_id_list"), Some(&json!([44, 58])));
        let names: Vec<&str> = token.extra().names().collect();
        assert_eq!(names, ["clinic_id_list", "name", "organisation_id", "roles", "user_id"]);
        assert!(!format!("{token:?} {:?}", token.extra()).contains("Sam"));
    }

    /// Behaviour 79.
    #[tokio::test]
    async fn spry_refresh() {
        let server =
            Server::default().answers(200, r#"{"access_token":"T","refresh_token":"new"}"#).answers(200, TOKEN);
        let token = server.ask(&spry(), &body_auth(), with_refresh_token("old/1")).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://practice.example/apis/v1/oauth/token".into(),
                headers: FORM_HEADERS.into(),
                body: format!("grant_type=refresh_token&refresh_token=old%2F1&{ENCODED_AUTH}"),
            }]
        );
        assert!(matches!(token.refresh_token, RefreshToken::Replace(new) if new.expose() == "new"));
        let kept = server.ask(&spry(), &body_auth(), with_refresh_token("old/1")).await.unwrap();
        assert!(matches!(kept.refresh_token, RefreshToken::Keep));
    }

    #[tokio::test]
    async fn vectorcare() {
        let server = Server::default()
            .answers(
                200,
                r#"{"access_token":"eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9...","token_type":"bearer","expires_in":3600}"#,
            )
            .answers(401, r#"{"error_description":"Client authentication failed.","error":"invalid_client"}"#);
        let settings = settings("https://auth.vectorcare.com/v2.0/oauth2/token");
        let token = server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://auth.vectorcare.com/v2.0/oauth2/token".into(),
                headers: FORM_HEADERS.into(),
                body: format!("grant_type=client_credentials&{ENCODED_AUTH}"),
            }]
        );
        assert_eq!(token.header_value().as_bytes(), b"Bearer eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9...");
        let error = server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::BadCredentials);
        assert_eq!(error.error_description(), Some("Client authentication failed."));
    }

    /// Behaviour 114.
    #[tokio::test]
    async fn qmatic() {
        let server =
            Server::default().answers(200, r#"{"access_token":"...","expires_in":3600,"token_type":"Bearer"}"#);
        let mut settings = settings("https://api.eu-west-1.qmatic.io/oauth2/token");
        settings.scopes = Some(
            Scopes::new([
                "com.qmatic.saas.appointments/external.appointment.book",
                "com.qmatic.saas.appointments/external.appointment.cancel",
            ])
            .unwrap(),
        );
        settings.tenant_header = Some(HeaderName::from_static("x-account"));
        settings.tenant_param = Some("x-account".into());
        let request = TokenRequest { tenant: Some(TenantId::new("myclinic").unwrap()), ..Default::default() };
        let token = server.ask(&settings, &ClientAuth::basic_raw("my/id", "my=secret"), request).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://api.eu-west-1.qmatic.io/oauth2/token".into(),
                headers:
                    "accept-encoding: identity\naccept: application/json\nauthorization: Basic bXkvaWQ6bXk9c2VjcmV0\n\
                    content-type: application/x-www-form-urlencoded\nx-account: myclinic"
                        .into(),
                body: "grant_type=client_credentials\
                    &scope=com.qmatic.saas.appointments%2Fexternal.appointment.book\
                    %20com.qmatic.saas.appointments%2Fexternal.appointment.cancel&x-account=myclinic"
                    .into(),
            }]
        );
        assert_eq!(token.access_token(), "...");
        assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
    }

    #[tokio::test]
    async fn graphnet() {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let jwt = format!("{}.{}.c2ln", part(json!({"alg":"RS256"})), part(json!({"exp":1_736_951_400})));
        let server = Server::default()
            .answers(200, &format!(r#"{{"token_type": "Bearer", "access_token": "{jwt}", "refresh_token": null}}"#));
        let settings = settings("https://coret1.syhapp.com/vlive/hpca/oauth/token");
        let token = server.ask(&settings, &body_auth(), TokenRequest::default()).await.unwrap();
        assert_eq!(
            server.seen(),
            [Seen {
                line: "POST https://coret1.syhapp.com/vlive/hpca/oauth/token".into(),
                headers: FORM_HEADERS.into(),
                body: format!("grant_type=client_credentials&{ENCODED_AUTH}"),
            }]
        );
        assert_eq!(token.access_token(), jwt);
        assert_eq!(token.expires_in, None, "its `exp` is read by the engine");
        assert!(matches!(token.refresh_token, RefreshToken::Keep));
    }

    #[tokio::test]
    async fn everything_else_a_user_can_set() {
        let server = Server::default().answers(200, TOKEN).answers(200, TOKEN);
        let mut settings = spry();
        settings.url = "https://a.example/token?version=2".parse().unwrap();
        settings.send_scopes_on_refresh = true;
        settings.headers = vec![
            (HeaderName::from_static("x-key"), HeaderValue::from_static("k")),
            (HeaderName::from_static("accept"), HeaderValue::from_static("application/vnd.x+json")),
            (HeaderName::from_static("accept-encoding"), HeaderValue::from_static("gzip")),
        ];
        for value in ["https://a.example/", "", "https://b.example/"] {
            settings.params.push(Param { name: "resource".into(), value: Secret::from(value) });
        }
        let other_scopes = TokenRequest { scopes: Some(Scopes::new(["other"]).unwrap()), ..Default::default() };
        server.ask(&settings, &ClientAuth::none("my-id"), other_scopes.clone()).await.unwrap();
        let refresh = TokenRequest { refresh_token: Some(Secret::from("R")), ..other_scopes };
        server.ask(&settings, &ClientAuth::none("my-id"), refresh).await.unwrap();
        let [primary, refresh] = server.seen().try_into().unwrap();
        assert_eq!(primary.line, "POST https://a.example/token?version=2");
        assert_eq!(
            primary.body,
            "grant_type=client_credentials&client_id=my-id&scope=other\
             &resource=https%3A%2F%2Fa.example%2F&resource=https%3A%2F%2Fb.example%2F"
        );
        assert_eq!(
            primary.headers,
            "accept-encoding: identity\naccept: application/vnd.x+json\n\
             content-type: application/x-www-form-urlencoded\nx-key: k"
        );
        assert!(refresh.body.starts_with("grant_type=refresh_token&refresh_token=R&client_id=my-id&scope=other&"));
    }
}

mod flow {
    use super::*;

    const PRIMARY: &str = "grant_type=client_credentials";
    const REFRESH: &str = "grant_type=refresh_token";

    async fn ask(server: &Server, settings: &EndpointSettings) -> Result<Token, TokenError> {
        server.ask(settings, &body_auth(), with_refresh_token("R")).await
    }

    #[tokio::test]
    async fn a_dead_refresh_token_gives_way_to_the_primary_grant() {
        let dead = || Server::default().answers(400, r#"{"error":"invalid_grant"}"#);
        let server = dead().answers(200, TOKEN);
        let token = ask(&server, &spry()).await.unwrap();
        assert_eq!(server.grants(), [REFRESH, PRIMARY]);
        assert!(matches!(token.refresh_token, RefreshToken::Drop));

        let server = dead().answers(200, r#"{"access_token":"T","refresh_token":"new"}"#);
        assert!(matches!(ask(&server, &spry()).await.unwrap().refresh_token, RefreshToken::Replace(_)));

        let server = dead().answers(503, "");
        let error = ask(&server, &spry()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable);
        assert_eq!(server.fate(), RefreshFate::Dead, "whatever became of the primary grant");

        let only_refresh = EndpointSettings { grant: Grant::RefreshToken, ..spry() };
        let server = dead();
        let error = ask(&server, &only_refresh).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::SignInAgain);
        assert_eq!(server.fate(), RefreshFate::Dead);
        assert_eq!(server.grants(), [REFRESH]);
    }

    #[tokio::test]
    async fn invalid_grant_on_the_primary_grant_is_a_refusal() {
        let server = Server::default().answers(400, r#"{"error":"invalid_grant"}"#);
        let error = server.ask(&spry(), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Refused);
        assert_eq!(server.fate(), RefreshFate::Untouched);
    }

    /// Behaviour 124 (a task that was not driven until after its deadline).
    #[tokio::test]
    async fn nothing_is_sent_after_the_deadline() {
        let server = Server::default();
        let context = RefreshContext { deadline: tokio::time::Instant::now(), ..RefreshContext::default() };
        let late = TokenRequest { context: Some(Arc::new(context)), ..with_refresh_token("R") };
        let error = server.ask(&spry(), &body_auth(), late).await.unwrap_err();
        assert_eq!((error.kind(), server.fate()), (TokenErrorKind::Timeout, RefreshFate::Untouched));
        assert!(server.seen().is_empty());
    }

    #[tokio::test]
    async fn without_any_grant_a_person_must_sign_in() {
        let only_refresh = EndpointSettings { grant: Grant::RefreshToken, ..spry() };
        let error = Server::default().ask(&only_refresh, &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::SignInAgain);
    }

    #[tokio::test]
    async fn a_missing_refresh_url_gives_way_and_keeps_the_refresh_token() {
        for status in [404, 405, 410] {
            let server = Server::default().answers(status, "<html>").answers(200, TOKEN);
            let token = ask(&server, &spry()).await.unwrap();
            assert_eq!(server.grants(), [REFRESH, PRIMARY]);
            assert!(matches!(token.refresh_token, RefreshToken::Keep));
        }
        let one_url = EndpointSettings { refresh_url: None, ..spry() };
        let server = Server::default().answers(404, "");
        assert!(ask(&server, &one_url).await.is_err());
        assert_eq!(server.grants(), [REFRESH]);
    }

    /// Behaviour 84.
    #[tokio::test]
    async fn any_other_refusal_of_a_refresh_is_told_and_changes_nothing() {
        for (status, body) in [(400, r#"{"error":"invalid_request"}"#), (403, "<html>"), (429, ""), (503, "")] {
            let server = Server::default().answers(status, body);
            let error = ask(&server, &spry()).await.unwrap_err();
            assert_eq!(server.fate(), RefreshFate::Untouched, "{status} {error}");
            assert_eq!(server.grants(), [REFRESH]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_to_a_refresh_is_not_repeated() {
        let reset = || Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        let cut = || streamed(200, vec![Ok("{\"access"), Err("connection closed".into())], false);
        let lost = [
            Server::default(),
            Server::default().then(reset),
            Server::default().then(cut),
            Server::default().answers(500, ""),
        ];
        for server in lost {
            let error = ask(&server, &spry()).await.unwrap_err();
            assert_eq!(server.fate(), RefreshFate::MaybeSpent, "{error:?}");
            assert_eq!(server.grants(), [REFRESH]);
        }
        let refused = Server::default().then(|| Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()));
        ask(&refused, &spry()).await.unwrap_err();
        assert_eq!(refused.fate(), RefreshFate::Untouched, "it was never sent");
        let primary = Server::default();
        primary.ask(&spry(), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(primary.fate(), RefreshFate::Untouched, "there was no refresh");
    }

    #[tokio::test]
    async fn after_a_lost_answer_the_primary_grant_comes_first() {
        let request = || TokenRequest { refresh_answer_lost: true, ..with_refresh_token("R") };
        let server = Server::default().answers(200, TOKEN);
        let token = server.ask(&spry(), &body_auth(), request()).await.unwrap();
        assert_eq!(server.grants(), [PRIMARY]);
        assert!(matches!(token.refresh_token, RefreshToken::Drop));
        let server = Server::default().answers(503, "");
        server.ask(&spry(), &body_auth(), request()).await.unwrap_err();
        assert_eq!(
            (server.grants(), server.fate()),
            (vec![PRIMARY.into()], RefreshFate::Untouched),
            "nor is it sent then"
        );

        let only_refresh = EndpointSettings { grant: Grant::RefreshToken, ..spry() };
        let server = Server::default().answers(200, TOKEN);
        server.ask(&only_refresh, &body_auth(), request()).await.unwrap();
        assert_eq!(server.grants(), [REFRESH], "there is nothing else");
    }

    /// Behaviour 48.
    #[tokio::test]
    async fn a_401_of_the_token_endpoint_is_an_error_and_no_more() {
        let server = Server::default().answers(401, "");
        let error =
            server.ask(&settings("https://a.example/t"), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (TokenErrorKind::BadCredentials, Some(StatusCode::UNAUTHORIZED)));
        assert_eq!(server.seen().len(), 1);
    }

    /// Behaviour 102.
    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let location = [("location", "https://elsewhere.example/x?y")];
        let server = Server::default().then(move || answered(308, &location, Vec::new()));
        let error =
            server.ask(&settings("https://a.example/t"), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Redirected);
        assert!(error.to_string().ends_with("it leads to https://elsewhere.example"));
        assert_eq!(server.seen().len(), 1);
    }

    /// Behaviour 38.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_bounded_in_size_and_time() {
        let small = EndpointSettings { max_body: 20, ..settings("https://a.example/t") };
        let ask = |server: Server| async move {
            let start = tokio::time::Instant::now();
            let error = server.ask(&small.clone(), &body_auth(), TokenRequest::default()).await.unwrap_err();
            (error.kind(), start.elapsed())
        };
        let endless = || {
            let stream = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"aaaaaaa"))));
            Ok(Response::new(StreamBody::new(stream).boxed_unsync()))
        };
        assert_eq!(ask.clone()(Server::default().then(endless)).await, (TokenErrorKind::Malformed, Duration::ZERO));
        let declared = Server::default().answers(200, TOKEN);
        assert_eq!(ask.clone()(declared).await, (TokenErrorKind::Malformed, Duration::ZERO));
        let drip = Server::default().then(|| streamed(200, vec![Ok("{")], true));
        assert_eq!(ask.clone()(drip).await, (TokenErrorKind::Timeout, Duration::from_secs(10)));
        assert_eq!(ask(Server::default()).await, (TokenErrorKind::Timeout, Duration::from_secs(10)));
    }

    /// A declared length is no reason to reserve it.
    #[tokio::test(start_paused = true)]
    async fn an_absurd_declared_length_is_refused_before_reading() {
        struct Absurd;

        impl Body for Absurd {
            type Data = Bytes;
            type Error = BoxError;

            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                Poll::Pending
            }

            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(u64::MAX)
            }
        }

        let server = Server::default().then(|| Ok(Response::new(Absurd.boxed_unsync())));
        let error =
            server.ask(&settings("https://a.example/t"), &body_auth(), TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Malformed);
    }

    #[tokio::test]
    async fn replaced_credentials_count_from_the_next_exchange() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let log = log.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                log.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
                answered(200, &[], TOKEN.into())
            }
        });
        let credentials = Credentials::new(ClientAuth::body("id", "old"));
        let settings = Arc::new(settings("https://a.example/t"));
        let endpoint = TokenEndpoint::from_parts(
            client,
            settings,
            credentials.clone(),
            Arc::new(SystemClock),
            Telemetry::default(),
        );
        endpoint.clone().oneshot(TokenRequest::default()).await.unwrap();
        credentials.replace(ClientAuth::body("id", "new")).unwrap();
        endpoint.oneshot(TokenRequest::default()).await.unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen[0].ends_with("client_secret=old") && seen[1].ends_with("client_secret=new"));
    }

    /// The service is asked for readiness before each of the two exchanges, not once.
    #[tokio::test]
    async fn readiness_is_asked_before_each_exchange() {
        let (client, mut handle) = tower_test::mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
        handle.allow(2);
        let credentials = Credentials::new(body_auth());
        let endpoint = TokenEndpoint::from_parts(
            client,
            Arc::new(spry()),
            credentials,
            Arc::new(SystemClock),
            Telemetry::default(),
        );
        let call = tokio::spawn(endpoint.oneshot(with_refresh_token("R")));
        for (status, body) in [(400, r#"{"error":"invalid_grant"}"#), (200, TOKEN)] {
            let (_, send) = handle.next_request().await.unwrap();
            send.send_response(Response::builder().status(status).body(Full::from(body)).unwrap());
        }
        assert!(call.await.unwrap().is_ok());
    }
}

/// Behaviour 103. Behaviour 104.
#[tokio::test(start_paused = true)]
async fn no_error_and_no_event_tells_a_secret() {
    const CANARIES: [&str; 6] = [
        "canary-secret+1",
        "canary-refresh/2",
        "canary-tenant-3",
        "canary-param-4",
        "canary-header-5",
        "canary-token-6",
    ];
    let mut settings = spry();
    settings.tenant_header = Some(HeaderName::from_static("x-account"));
    settings.tenant_param = Some("account".into());
    settings.params.push(Param { name: "key".into(), value: Secret::from(CANARIES[3]) });
    settings.headers.push((HeaderName::from_static("x-key"), HeaderValue::from_static(CANARIES[4])));
    settings.max_body = 4096;

    let everything = CANARIES.join(" ");
    let mut bodies: Vec<String> = vec![
        everything.clone(),
        format!("<html>{everything}"),
        format!("{{\"{everything}\""),
        format!("{{\"access_token\":\"{everything}\"}}"),
        format!("{{\"access_token\":[\"{everything}\"]}}"),
        format!("{{\"access_token\":\"a\",\"access_token\":\"{everything}\"}}"),
        format!("{{\"access_token\":\"a\",\"token_type\":\"{everything}\"}}"),
        format!("{{\"error\":\"{everything}\"}}"),
        format!("{{\"error\":\"invalid_grant\",\"error_description\":\"{everything}\"}}"),
        format!("error=x&error_description={everything}"),
        everything.repeat(100),
        String::new(),
    ];
    let basic = ["my-id:canary-secret%2B1", "my-id:canary-secret+1"].map(|pair| STANDARD.encode(pair));
    bodies.push(format!("{{\"error\":\"x\",\"error_description\":\"Basic {} {}\"}}", basic[0], basic[1]));
    bodies.extend(CANARIES[2..5].iter().map(|canary| format!("{{\"error\":\"{canary}\"}}")));

    let log = Log::default();
    let guard = log.start();
    let (mut told, mut described) = (String::new(), String::new());
    let auths = [
        (ClientAuth::basic("my-id", CANARIES[0]), Some(&basic[0])),
        (ClientAuth::basic_raw("my-id", CANARIES[0]), Some(&basic[1])),
        (ClientAuth::body("my-id", CANARIES[0]), None),
    ];
    for (auth, basic) in auths {
        told.push_str(&format!("{auth:?} {settings:?}"));
        let mut servers: Vec<Server> = Vec::new();
        for status in [200, 302, 400, 401, 404, 429, 500] {
            for body in &bodies {
                let body = body.clone();
                let answer = move || {
                    let location = format!("https://{}.example/{}", CANARIES[2], CANARIES[5]);
                    let headers = [
                        ("content-type", CANARIES[5]),
                        ("location", &*location),
                        ("retry-after", CANARIES[5]),
                        ("x-echo", CANARIES[0]),
                    ];
                    answered(status, &headers, body.into_bytes())
                };
                servers.push(Server::default().then(answer.clone()).then(answer));
            }
        }
        servers.push(Server::default());
        servers.push(Server::default().then(|| Err("reset".into())));
        servers.push(Server::default().then(|| streamed(200, vec![Ok("canary-token-6"), Err("cut".into())], false)));
        for server in servers {
            let tenant = Some(TenantId::new(CANARIES[2]).unwrap());
            let request = TokenRequest { tenant, ..with_refresh_token(CANARIES[1]) };
            told.push_str(&format!("{request:?}"));
            let error = server.ask(&settings, &auth, request).await.expect_err("no answer holds a token");
            let mut next: Option<&dyn StdError> = Some(&error);
            while let Some(error) = next {
                told.push_str(&format!("{error} {error:?} {error:#?}\n"));
                next = error.source();
            }
            let description = error.error_description().unwrap_or_default();
            assert!(!basic.is_some_and(|basic| description.contains(basic.as_str())));
            described.push_str(description);
        }
    }
    drop(guard);
    // One event has the server's own words in it.
    let text = log.text();
    let (descriptions, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains("error_description="));
    assert!(!descriptions.is_empty());
    described.push_str(&descriptions.join("\n"));
    told.push_str(&others.join("\n"));
    for canary in CANARIES {
        assert!(!told.contains(canary), "{canary}");
        assert!(!described.contains(canary) || canary == CANARIES[5], "{canary}: it was sent");
    }
}
