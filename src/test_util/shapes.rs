//! What a token endpoint asks and answers: plain OAuth 2.0 and five providers.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use serde_json::Value;

use super::body::Answer;
use super::record::{form, form_decode};

/// Whose wire format a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Generic,
    Vip,
    Spry,
    VectorCare,
    Qmatic,
    Graphnet,
}

/// An endpoint of an authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Token,
    /// Where people sign in (RFC 6749 §3.1).
    SignIn,
    /// RFC 7009.
    Revocation,
    /// RFC 8628.
    DeviceAuthorization,
    /// RFC 8414, OpenID Connect Discovery.
    Metadata,
}

/// A token request that was understood.
pub(super) struct Asked {
    pub(super) grant: String,
    pub(super) params: Vec<(String, String)>,
    /// Client id and secret; Basic may be read in two ways.
    pub(super) credentials: Vec<(String, String)>,
    /// The account, where the shape has one.
    pub(super) tenant: Option<String>,
}

impl Asked {
    /// An empty value counts as absent (RFC 6749 §3.2).
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        param(&self.params, name)
    }
}

/// A token request that is turned down.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    description: &'static str,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &str, description: &'static str) -> Self {
        Self { status, code: code.to_owned(), description }
    }

    pub(super) fn invalid_request(description: &'static str) -> Self {
        Self::new(400, "invalid_request", description)
    }

    pub(super) fn invalid_client() -> Self {
        Self::new(401, "invalid_client", "Client authentication failed.")
    }

    /// An error of RFC 6749 §5.2 by its code.
    pub(super) fn of_code(code: &str) -> Self {
        Self::new(if code == "invalid_client" { 401 } else { 400 }, code, "As scripted.")
    }
}

/// What goes into a token answer.
pub(super) struct Granted {
    pub(super) token: String,
    pub(super) scope: String,
    pub(super) refresh_token: Option<String>,
    pub(super) remaining: Duration,
    pub(super) announce: Announce,
    /// The token is bound to a key (RFC 9449 §5).
    pub(super) bound: bool,
    /// What kind of token it is, where one was exchanged for it (RFC 8693 §2.2.1).
    pub(super) issued: Option<String>,
}

/// What the answer says of the lifetime.
#[derive(Clone, Debug, Default)]
pub(super) enum Announce {
    /// What the provider says.
    #[default]
    Usual,
    Nothing,
    /// This JSON text.
    Json(String),
}

impl Shape {
    pub(super) fn lifetime(self) -> Duration {
        Duration::from_secs(if self == Shape::Vip { 86_400 } else { 3600 })
    }

    pub(super) fn has_jwts(self) -> bool {
        !matches!(self, Shape::Generic | Shape::Qmatic)
    }

    pub(super) fn has_refresh_tokens(self) -> bool {
        matches!(self, Shape::Generic | Shape::Spry)
    }

    /// The endpoint at a path.
    pub(super) fn place(self, path: &str) -> Option<Place> {
        if self.serves_tokens(path) {
            return Some(Place::Token);
        }
        match path.rsplit('/').next()? {
            _ if path == SPRY_SIGN_IN && self == Shape::Spry => Some(Place::SignIn),
            _ if self != Shape::Generic => None,
            "authorize" => Some(Place::SignIn),
            _ if path.contains("/.well-known/") => Some(Place::Metadata),
            "revoke" => Some(Place::Revocation),
            "device_authorization" => Some(Place::DeviceAuthorization),
            _ => None,
        }
    }

    fn serves_tokens(self, path: &str) -> bool {
        match self {
            Shape::Generic => path.ends_with("/token"),
            Shape::Vip => path == "/oauth/token",
            Shape::Spry => path == SPRY_TOKEN || path == SPRY_REFRESH,
            Shape::VectorCare => path == "/v2.0/oauth2/token",
            Shape::Qmatic => path == "/oauth2/token",
            Shape::Graphnet => path == "/vlive/hpca/oauth/token",
        }
    }

    /// Whether there are these scopes.
    pub(super) fn knows_scopes(self, scope: &str) -> bool {
        self != Shape::Spry || scope.split_whitespace().all(|scope| SPRY_SCOPES.contains(&scope))
    }

    /// Reads a request as strictly as the provider describes it.
    pub(super) fn read(self, place: Place, head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
        if head.method != Method::POST {
            return Err(Refusal::new(405, "invalid_request", "A token request is a POST (RFC 6749 §3.2)."));
        }
        if head.uri.query().is_some_and(|query| query.contains("client_secret")) {
            return Err(Refusal::invalid_request("Credentials must not be in the URI (RFC 6749 §2.3.1)."));
        }
        match self {
            _ if place != Place::Token => read_client(head, body),
            Shape::Vip => read_vip(head, body),
            Shape::Generic => read_generic(head, body),
            Shape::Spry => read_spry(head, body),
            Shape::VectorCare | Shape::Graphnet => {
                let params = read_form(head, body)?;
                let credentials = vec![body_credentials(head, &params)?];
                let grant = expect_grant(&params, "client_credentials")?;
                Ok(Asked { grant, params, credentials, tenant: None })
            }
            Shape::Qmatic => read_qmatic(head, body),
        }
    }

    /// The answer that grants a token, members in the provider's order.
    pub(super) fn answer(self, granted: &Granted) -> Answer {
        let token = ("access_token", quote(&granted.token));
        let is_for_requests = granted.issued.as_ref().is_none_or(|issued| issued == ACCESS_TOKEN);
        let bearer = match granted.bound {
            _ if !is_for_requests => ("token_type", quote("N_A")),
            true => ("token_type", quote("DPoP")),
            false => ("token_type", quote("Bearer")),
        };
        let issued = granted.issued.as_deref().map(|issued| ("issued_token_type", quote(issued)));
        let seconds = granted.remaining.as_secs();
        let expires = |usual: Option<u64>| match &granted.announce {
            Announce::Usual => usual.map(|seconds| ("expires_in", seconds.to_string())),
            Announce::Nothing => None,
            Announce::Json(json) => Some(("expires_in", json.clone())),
        };
        let refresh = granted.refresh_token.as_deref().map(|token| ("refresh_token", quote(token)));
        let scope = (!granted.scope.is_empty()).then(|| ("scope", quote(&granted.scope)));
        let members: Vec<Option<(&str, String)>> = match self {
            Shape::Generic => vec![Some(token), Some(bearer), expires(Some(seconds)), refresh, scope, issued],
            // A day, however little of it is left.
            Shape::Vip => vec![Some(token), Some(bearer), expires(Some(86_400))],
            Shape::Spry => vec![
                Some(token),
                Some(bearer),
                expires(Some(seconds)),
                scope,
                refresh,
                Some(("organisation_id", "74".into())),
                Some(("user_id", "276".into())),
                Some(("roles", r#"["ADMIN","DOCTOR"]"#.into())),
                Some(("clinic_id_list", "[44,58]".into())),
                Some(("name", quote("Sam Example"))),
            ],
            Shape::VectorCare => vec![Some(token), Some(("token_type", quote("bearer"))), expires(Some(seconds))],
            Shape::Qmatic => vec![Some(token), expires(Some(seconds)), Some(bearer)],
            Shape::Graphnet => vec![Some(bearer), Some(token), expires(None), Some(("refresh_token", "null".into()))],
        };
        let body = object(members.into_iter().flatten());
        Answer::json(200, body).header(CACHE_CONTROL, "no-store")
    }

    /// The answer that turns a request down.
    pub(super) fn refuse(self, refusal: &Refusal) -> Answer {
        let body = match self {
            // The provider documents the statuses and no body: RFC 6749 §5.2 is not to be relied on.
            Shape::Vip => object([("message", quote(refusal.description))]),
            _ => object([("error_description", quote(refusal.description)), ("error", quote(&refusal.code))]),
        };
        let answer = Answer::json(refusal.status, body).header(CACHE_CONTROL, "no-store");
        match refusal.status {
            401 if matches!(self, Shape::Generic | Shape::Qmatic) => {
                answer.header(WWW_AUTHENTICATE, r#"Basic realm="token""#)
            }
            405 => answer.header(ALLOW, "POST"),
            _ => answer,
        }
    }
}

pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const SPRY_TOKEN: &str = "/apis/v2/oauth/token";
const SPRY_SIGN_IN: &str = "/apis/v2/oauth/authorize";
const SPRY_REFRESH: &str = "/apis/v1/oauth/token";
const SPRY_SCOPES: [&str; 2] = ["read", "write"];
const QMATIC_SCOPES: [&str; 3] = [
    "com.qmatic.saas.appointments/external.appointment.book",
    "com.qmatic.saas.appointments/external.appointment.reschedule",
    "com.qmatic.saas.appointments/external.appointment.cancel",
];

/// Any grant, any scope, either client authentication; who the client is, is checked by the caller.
fn read_generic(head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
    let asked = read_client(head, body)?;
    let grant = asked.param("grant_type").ok_or_else(|| Refusal::invalid_request("grant_type is missing."))?.to_owned();
    Ok(Asked { grant, ..asked })
}

/// Parameters and client of a request to any endpoint.
fn read_client(head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
    let params = read_form(head, body)?;
    let credentials = match basic(head)? {
        Some(_) if param(&params, "client_secret").is_some() => {
            return Err(Refusal::invalid_request("Two client authentication methods (RFC 6749 §2.3)."));
        }
        Some((id, secret)) => vec![(form_decode(&id), form_decode(&secret)), (id, secret)],
        None => {
            let text = |name| param(&params, name).unwrap_or_default().to_owned();
            vec![(text("client_id"), text("client_secret"))]
        }
    };
    Ok(Asked { grant: String::new(), params, credentials, tenant: None })
}

fn read_vip(head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
    expect_content_type(head, "application/json")?;
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(Refusal::invalid_request("The body is no JSON object."));
    };
    let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
    let params: Option<Vec<_>> = members.into_iter().map(text).collect();
    let params = params.ok_or_else(|| Refusal::invalid_request("client_id and client_secret are strings."))?;
    if params.iter().any(|(name, _)| name != "client_id" && name != "client_secret") {
        return Err(Refusal::invalid_request("The body holds client_id and client_secret, nothing else."));
    }
    let credentials = vec![body_credentials(head, &params)?];
    Ok(Asked { grant: "client_credentials".into(), params, credentials, tenant: None })
}

/// Tokens at the one path, refreshes at the other.
fn read_spry(head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
    let params = read_form(head, body)?;
    let credentials = vec![body_credentials(head, &params)?];
    let refreshes = head.uri.path() == SPRY_REFRESH;
    let has_code = param(&params, "grant_type") == Some("authorization_code");
    let expected = match (refreshes, has_code) {
        (true, _) => "refresh_token",
        (false, true) => "authorization_code",
        (false, false) => "client_credentials",
    };
    let grant = expect_grant(&params, expected)?;
    expect_scopes(&params, &SPRY_SCOPES)?;
    Ok(Asked { grant, params, credentials, tenant: None })
}

fn read_qmatic(head: &Parts, body: &[u8]) -> Result<Asked, Refusal> {
    let params = read_form(head, body)?;
    let credentials = basic(head)?.ok_or_else(Refusal::invalid_client)?;
    if params.iter().any(|(name, _)| name == "client_id" || name == "client_secret") {
        return Err(Refusal::invalid_request("The client authenticates by Basic, not in the body."));
    }
    let account = head.headers.get("x-account").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if account.is_empty() || account.chars().any(|c| c.is_whitespace() || c.is_uppercase()) {
        return Err(Refusal::invalid_request("X-ACCOUNT is the account's name in lower case, without spaces."));
    }
    if param(&params, "x-account").is_some_and(|param| param != account) {
        return Err(Refusal::invalid_request("The x-account parameter is not the X-ACCOUNT header."));
    }
    let grant = expect_grant(&params, "client_credentials")?;
    if param(&params, "scope").is_none() {
        return Err(Refusal::new(400, "invalid_scope", "The scope is missing."));
    }
    expect_scopes(&params, &QMATIC_SCOPES)?;
    Ok(Asked { grant, credentials: vec![credentials], tenant: Some(account.to_owned()), params })
}

fn read_form(head: &Parts, body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    expect_content_type(head, "application/x-www-form-urlencoded")?;
    let params = form(body);
    let repeatable = |name: &str| name == "resource" || name == "audience";
    let mut seen = HashSet::new();
    if params.iter().any(|(name, _)| !repeatable(name) && !seen.insert(name)) {
        return Err(Refusal::invalid_request("A parameter is repeated (RFC 6749 §3.2)."));
    }
    Ok(params)
}

fn expect_content_type(head: &Parts, expected: &str) -> Result<(), Refusal> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Refusal::invalid_request("The Content-Type is not the one this endpoint reads."))
}

fn expect_grant(params: &[(String, String)], expected: &str) -> Result<String, Refusal> {
    match param(params, "grant_type") {
        Some(grant) if grant == expected => Ok(grant.to_owned()),
        Some(_) => Err(Refusal::new(400, "unsupported_grant_type", "This path does not serve this grant.")),
        None => Err(Refusal::invalid_request("grant_type is missing.")),
    }
}

fn expect_scopes(params: &[(String, String)], known: &[&str]) -> Result<(), Refusal> {
    let scope = param(params, "scope").unwrap_or_default();
    if scope.split_whitespace().all(|scope| known.contains(&scope)) {
        return Ok(());
    }
    Err(Refusal::new(400, "invalid_scope", "There is no such scope."))
}

/// Client id and secret as parameters, and no Basic beside them.
fn body_credentials(head: &Parts, params: &[(String, String)]) -> Result<(String, String), Refusal> {
    if head.headers.contains_key(AUTHORIZATION) {
        return Err(Refusal::invalid_request("The client authenticates in the body, not by a header."));
    }
    match (param(params, "client_id"), param(params, "client_secret")) {
        (Some(id), Some(secret)) => Ok((id.to_owned(), secret.to_owned())),
        _ => Err(Refusal::invalid_request("client_id or client_secret is missing.")),
    }
}

/// Both halves of a Basic header as they stand.
fn basic(head: &Parts) -> Result<Option<(String, String)>, Refusal> {
    let Some(value) = head.headers.get(AUTHORIZATION) else { return Ok(None) };
    let read = || {
        let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        pair.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
    };
    read().map(Some).ok_or_else(Refusal::invalid_client)
}

fn param<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// A JSON object with its members in the given order; values are JSON already.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{}:{value}", quote(name))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::super::{AuthServer, Body, TestClock, jwt};
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";
    const GOOD: &str = "grant_type=client_credentials&client_id=id&client_secret=s%2B1";

    struct Call {
        path: &'static str,
        content_type: &'static str,
        body: &'static str,
        headers: Vec<(&'static str, String)>,
    }

    fn form_call(path: &'static str, body: &'static str) -> Call {
        Call { path, content_type: FORM, body, headers: Vec::new() }
    }

    async fn send(auth: &AuthServer, call: Call) -> Response<Body> {
        let mut request = Request::post(call.path).header("content-type", call.content_type);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        auth.clone().oneshot(request.body(String::from(call.body)).unwrap()).await.unwrap()
    }

    async fn text(auth: &AuthServer, call: Call) -> (u16, String) {
        let response = send(auth, call).await;
        let status = response.status().as_u16();
        let body: Bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn basic_header(pair: &str) -> (&'static str, String) {
        ("authorization", format!("Basic {}", STANDARD.encode(pair)))
    }

    fn seconds(token: &str, claim: &str) -> u64 {
        jwt::payload(token)[claim].as_u64().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn plain_oauth_takes_either_client_authentication_but_not_both() {
        let auth = AuthServer::new(TestClock::new()).client("id", "s+1").client("a b", "c:d+e");
        let (status, body) = text(&auth, form_call("/oauth2/token", GOOD)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(body, format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#));

        for pair in ["id:s%2B1", "id:s+1", "a%20b:c%3Ad%2Be", "a+b:c%3Ad%2Be", "a b:c:d+e"] {
            let call = Call {
                headers: vec![basic_header(pair)],
                ..form_call("/token", "grant_type=client_credentials&scope=a+b")
            };
            let (status, body) = text(&auth, call).await;
            assert_eq!(status, 200, "{pair}: {body}");
            assert!(body.ends_with(r#""scope":"a b"}"#), "{body}");
        }

        let twice = Call { headers: vec![basic_header("id:s%2B1")], ..form_call("/token", GOOD) };
        assert_eq!(text(&auth, twice).await.0, 400);
        let wrong = form_call("/token", "grant_type=client_credentials&client_id=id&client_secret=guess");
        let response = send(&auth, wrong).await;
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_request_is_turned_down() {
        let auth = AuthServer::new(TestClock::new());
        assert_eq!(text(&auth, form_call("/items", GOOD)).await.0, 404);
        let get = Request::get("/token").body(String::new()).unwrap();
        assert_eq!(auth.clone().oneshot(get).await.unwrap().status(), 405);
        for call in [
            form_call("/token?client_secret=s", GOOD),
            form_call("/token", "client_id=id&client_secret=s"),
            form_call("/token", "grant_type=&client_id=id&client_secret=s"),
            form_call("/token", "grant_type=client_credentials&grant_type=client_credentials"),
            Call { content_type: "application/json", ..form_call("/token", GOOD) },
        ] {
            let (status, body) = text(&auth, call).await;
            assert!(status == 400 && body.contains("invalid_request"), "{body}");
        }
        assert_eq!((auth.token_requests(), auth.last_token()), (7, None));
    }

    #[tokio::test(start_paused = true)]
    async fn vip_takes_json_and_hands_out_one_token_a_day() {
        let auth = AuthServer::vip(TestClock::new()).client("id", "s");
        let call = |body| Call { path: "/oauth/token", content_type: "application/json", body, headers: Vec::new() };
        let good = r#"{"client_id":"id","client_secret":"s"}"#;
        let (status, first) = text(&auth, call(good)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(first, format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":86400}}"#));
        assert_eq!(seconds(&token, "exp") - seconds(&token, "iat"), 86_400);

        tokio::time::advance(Duration::from_secs(86_399)).await;
        assert_eq!(text(&auth, call(good)).await.1, first);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_ne!(text(&auth, call(good)).await.1, first);

        let second = auth.last_token().unwrap();
        auth.revoke(&second);
        text(&auth, call(good)).await;
        assert_ne!(auth.last_token().unwrap(), second);

        for (body, expected) in [
            (r#"{"client_id":"id","client_secret":"guess"}"#, 401),
            (r#"{"client_id":"id","client_secret":"s","grant_type":"client_credentials"}"#, 400),
            (r#"{"client_id":"id"}"#, 400),
            ("client_id=id", 400),
        ] {
            let (status, answer) = text(&auth, call(body)).await;
            assert_eq!(status, expected, "{body}");
            assert!(!answer.contains("\"error\""), "{answer}");
        }
        let form = form_call("/oauth/token", "client_id=id&client_secret=s");
        assert_eq!(text(&auth, form).await.0, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn spry_answers_with_an_identity_and_refreshes_at_another_path() {
        let auth = AuthServer::spry(TestClock::new());
        let body = "grant_type=client_credentials&client_id=id&client_secret=s&scope=read+write";
        let (status, answer) = text(&auth, form_call("/apis/v2/oauth/token", body)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(
            answer,
            format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600,"scope":"read write","#)
                + r#""organisation_id":74,"user_id":276,"roles":["ADMIN","DOCTOR"],"clinic_id_list":[44,58],"name":"Sam Example"}"#
        );
        assert_eq!(text(&auth, form_call("/apis/v1/oauth/token", body)).await.0, 400);
        let unknown = "grant_type=client_credentials&client_id=id&client_secret=s&scope=admin";
        assert!(text(&auth, form_call("/apis/v2/oauth/token", unknown)).await.1.contains("invalid_scope"));

        let auth = auth.issue_refresh_tokens();
        assert!(text(&auth, form_call("/apis/v2/oauth/token", body)).await.1.contains(r#""refresh_token":""#));
        let refresh = |path: &str| {
            let body = format!("grant_type=refresh_token&refresh_token={}", auth.sign_in("id", "read"));
            let request = Request::post(path).header("content-type", FORM);
            request.body(body + "&client_id=id&client_secret=s").unwrap()
        };
        for (path, expected) in [("/apis/v1/oauth/token", 200), ("/apis/v2/oauth/token", 400)] {
            assert_eq!(auth.clone().oneshot(refresh(path)).await.unwrap().status(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn vectorcare_writes_bearer_in_lower_case() {
        let auth = AuthServer::vectorcare(TestClock::new()).client("id", "s+1");
        let (status, body) = text(&auth, form_call("/v2.0/oauth2/token", GOOD)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(body, format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":3600}}"#));
        assert_eq!(seconds(&token, "exp") - seconds(&token, "iat"), 3600);

        let wrong = "grant_type=client_credentials&client_id=id&client_secret=guess";
        let (status, body) = text(&auth, form_call("/v2.0/oauth2/token", wrong)).await;
        assert_eq!(status, 401);
        assert_eq!(body, r#"{"error_description":"Client authentication failed.","error":"invalid_client"}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn qmatic_takes_raw_basic_and_an_account() {
        let auth = AuthServer::qmatic(TestClock::new()).client("i/d", "s+1%3A:");
        let call = |account: &str, body| Call {
            headers: vec![basic_header("i/d:s+1%3A:"), ("x-account", account.to_owned())],
            ..form_call("/oauth2/token", body)
        };
        let good = "grant_type=client_credentials&x-account=myclinic\
                    &scope=com.qmatic.saas.appointments%2Fexternal.appointment.book";
        let (status, body) = text(&auth, call("myclinic", good)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(body, format!(r#"{{"access_token":"{token}","expires_in":3600,"token_type":"Bearer"}}"#));
        assert_eq!(auth.tenant_of(&token).as_deref(), Some("myclinic"));

        let no_scope = "grant_type=client_credentials";
        let encoded = Call { headers: vec![basic_header("i%2Fd:s%2B1%253A%3A")], ..call("", good) };
        for (refused, expected) in [
            (call("My Clinic", good), "X-ACCOUNT"),
            (call("", good), "X-ACCOUNT"),
            (call("other", good), "x-account"),
            (call("myclinic", no_scope), "invalid_scope"),
            (call("myclinic", "grant_type=client_credentials&scope=admin"), "invalid_scope"),
            (call("myclinic", GOOD), "not in the body"),
            (form_call("/oauth2/token", GOOD), "invalid_client"),
            (
                Call { headers: [encoded.headers, vec![("x-account", "myclinic".into())]].concat(), ..encoded },
                "invalid_client",
            ),
        ] {
            let (status, body) = text(&auth, refused).await;
            assert!(status >= 400 && body.contains(expected), "{expected}: {body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn graphnet_says_its_lifetime_only_inside_the_token() {
        let auth = AuthServer::graphnet(TestClock::new()).lifetime(Duration::from_secs(90));
        let (status, body) = text(&auth, form_call("/vlive/hpca/oauth/token", GOOD)).await;
        let token = auth.last_token().unwrap();
        assert_eq!(status, 200);
        assert_eq!(body, format!(r#"{{"token_type":"Bearer","access_token":"{token}","refresh_token":null}}"#));
        assert_eq!(seconds(&token, "exp") - seconds(&token, "iat"), 90);
        let basic = Call { headers: vec![basic_header("id:s")], ..form_call("/vlive/hpca/oauth/token", GOOD) };
        assert_eq!(text(&auth, basic).await.0, 400);
    }
}
