//! A corpus of answers, each with what is made of it.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use super::*;
use crate::token::RefreshFate;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const HTML: &str = "text/html; charset=utf-8";
/// 2025-01-15T14:30:00Z.
const NOW: u64 = 1_736_951_400;

struct Setup {
    settings: AnswerSettings,
    binds_tokens: bool,
    asking: GrantKind,
    dead: Vec<String>,
    required: Option<Scopes>,
    sent: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: AnswerSettings::default(),
            binds_tokens: false,
            asking: GrantKind::Primary,
            dead: Vec::new(),
            required: None,
            sent: Vec::new(),
        }
    }
}

impl Setup {
    fn judge(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<Token, Failed> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut sent = Redactor::default();
        self.sent.iter().for_each(|value| sent.push(Some(value)));
        let status = StatusCode::from_u16(status).unwrap();
        let reader = Reader {
            settings: &self.settings,
            binds_tokens: self.binds_tokens,
            asking: self.asking,
            dead_refresh_codes: &self.dead,
            asked_scopes: self.required.as_ref(),
            require_granted: self.required.is_some(),
            asked_type: None,
            url: &Uri::from_static("https://auth.example.com/token?key=canary"),
            sent,
            now: UNIX_EPOCH + Duration::from_secs(NOW),
            warned: &AtomicBool::new(false),
            telemetry: &Telemetry::default(),
        };
        reader.read(&Answer { status, headers: map, body: Zeroizing::new(body.to_vec()) })
    }

    fn read(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<Token, TokenError> {
        self.judge(status, headers, body).map_err(|failed| failed.error)
    }

    fn json(&self, body: &str) -> String {
        summary(&self.read(200, &[("content-type", JSON)], body.as_bytes()))
    }
}

/// What can be seen of a result, in one line.
fn summary(result: &Result<Token, TokenError>) -> String {
    match result {
        Ok(token) => {
            let mut line = token.access_token().to_owned();
            let mut add = |name: &str, value: Option<String>| {
                if let Some(value) = value {
                    line.push_str(&format!(" {name}={value}"));
                }
            };
            add("in", token.expires_in.map(|span| span.as_secs().to_string()));
            add("at", token.expires_at.map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string()));
            add("soft", token.refresh_in.map(|span| span.as_secs().to_string()));
            if let RefreshToken::Replace(token) = &token.refresh_token {
                add("refresh", Some(token.expose().clone()));
            }
            add("scope", token.scopes().map(|scopes| scopes.as_str().replace(' ', ",")));
            let extra: Vec<&str> = token.extra().names().collect();
            add("extra", (!extra.is_empty()).then(|| extra.join(",")));
            line
        }
        Err(error) => {
            let code = error.code().map(|code| format!(" {code}")).unwrap_or_default();
            let pause = error.retry_after().map(|pause| format!(" after {}", pause.as_secs())).unwrap_or_default();
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{:?}{code}{pause}{detail}", error.kind())
        }
    }
}

fn check(corpus: &[(u16, &str, &str, &str)]) {
    for (status, content_type, body, expected) in corpus {
        let got = summary(&Setup::default().read(*status, &[("content-type", content_type)], body.as_bytes()));
        assert_eq!(got, *expected, "{status} {content_type} {body}");
    }
}

/// Behaviour 70.
#[test]
fn lifetimes() {
    for (value, expected) in [
        ("3600", "T in=3600"),
        ("\"3600\"", "T in=3600"),
        ("\" 3599 \"", "T in=3599"),
        ("3600.0", "T in=3600"),
        ("\"3600.5\"", "T in=3600"),
        ("3.6e3", "T in=3600"),
        ("0", "T"),
        ("0.5", "T"),
        ("\"0\"", "T"),
        ("-1", "T"),
        ("null", "T"),
        ("\"\"", "T"),
        ("\"abc\"", "T"),
        ("\"NaN\"", "T"),
        ("\"inf\"", "T"),
        ("\"3600s\"", "T"),
        ("true", "T"),
        ("{\"seconds\":3600}", "T"),
        ("[3600]", "T"),
        ("9223372036854775808", "T in=31536000"),
        ("1e18", "T in=31536000"),
        ("1e400", "T in=31536000"),
    ] {
        assert_eq!(
            Setup::default().json(&format!(r#"{{"access_token":"T","expires_in":{value}}}"#)),
            expected,
            "{value}"
        );
    }
    assert_eq!(Setup::default().json(r#"{"access_token":"T"}"#), "T");
}

#[test]
fn moments() {
    for (member, expected) in [
        (r#""expires_on":"1736955000""#, "T at=1736955000 extra=expires_on"),
        (r#""expires_at":1736955000"#, "T at=1736955000 extra=expires_at"),
        (r#""expires_at":1736955000.75"#, "T at=1736955000 extra=expires_at"),
        (r#""expires_at":1736955000123"#, "T at=1736955000 extra=expires_at"),
        (r#""expires_at":"2025-01-15T15:30:00Z""#, "T at=1736955000 extra=expires_at"),
        (r#""expires_at":1000000001"#, "T at=1000000001 extra=expires_at"),
        (r#""expires_at":1e300"#, "T at=1768487400 extra=expires_at"),
        (r#""expires_at":3600"#, "T extra=expires_at"),
        (r#""expires_at":"soon""#, "T extra=expires_at"),
        (r#""expires":5183999"#, "T in=5183999 extra=expires"),
        (r#""expires":1736955000"#, "T at=1736955000 extra=expires"),
        (r#""expires":"Wed, 15 Jan 2025 15:30:00 GMT""#, "T at=1736955000 extra=expires"),
        (r#""expires_in":60,"ext_expires_in":7200"#, "T in=60 extra=ext_expires_in"),
        (r#""expires_in":86399,"refresh_in":43199"#, "T in=86399 soft=43199 extra=refresh_in"),
        (r#""expires_in":3600,"refresh_in":"x","not_before":0"#, "T in=3600 extra=not_before,refresh_in"),
    ] {
        assert_eq!(Setup::default().json(&format!(r#"{{"access_token":"T",{member}}}"#)), expected, "{member}");
    }
}

/// Behaviour 109.
#[test]
fn a_token_type_of_dpop_is_of_use_with_a_key() {
    let answer = |token_type: &str| format!(r#"{{"access_token":"T"{token_type}}}"#);
    let header = |setup: &Setup, token_type: &str| {
        let result = setup.read(200, &[("content-type", JSON)], answer(token_type).as_bytes());
        result.map(|token| token.header_value().to_str().unwrap().to_owned()).map_err(|error| error.kind())
    };
    let with_key = Setup { binds_tokens: true, ..Setup::default() };
    for spelling in [r#","token_type":"DPoP""#, r#","token_type":"dpop""#, r#","token_type":" DPOP ""#] {
        assert_eq!(header(&with_key, spelling).unwrap(), "DPoP T");
        assert_eq!(header(&Setup::default(), spelling), Err(TokenErrorKind::Malformed));
    }
    let strict = AnswerSettings { require_dpop: true, ..AnswerSettings::default() };
    let strict = Setup { settings: strict, binds_tokens: true, ..Setup::default() };
    assert_eq!(header(&strict, r#","token_type":"DPoP""#).unwrap(), "DPoP T");
    for unbound in ["", r#","token_type":"Bearer""#] {
        assert_eq!(header(&with_key, unbound).unwrap(), "Bearer T");
        assert_eq!(header(&strict, unbound), Err(TokenErrorKind::Malformed));
    }
}

#[test]
fn errors_about_proofs() {
    let kind = |status: u16, code: &str| {
        let body = format!(r#"{{"error":"{code}"}}"#);
        let error = Setup::default().read(status, &[("content-type", JSON)], body.as_bytes()).unwrap_err();
        assert_eq!(error.code().map(|told| told.as_str()), Some(code));
        error.kind()
    };
    for status in [400, 401] {
        assert_eq!(kind(status, "use_dpop_nonce"), TokenErrorKind::Unavailable, "the next request has it");
        assert_eq!(kind(status, "invalid_dpop_proof"), TokenErrorKind::Refused, "no fault of the secret");
    }
}

/// Behaviour 109.
#[test]
fn token_types() {
    for (value, expected) in [
        (r#""Bearer""#, "T"),
        (r#""bearer""#, "T"),
        (r#""BEARER""#, "T"),
        (r#"" Bearer ""#, "T"),
        (r#""""#, "T"),
        ("null", "T"),
        ("7", "Malformed: `token_type` is not a string"),
        (r#""mac""#, "Malformed: `token_type` is MAC, which is not supported"),
        (r#""DPoP""#, "Malformed: `token_type` is DPoP: the token needs a proof with each request"),
        (r#""N_A""#, "Malformed: `token_type` is N_A: the token is not for API requests"),
        (
            r#""Application Access Token""#,
            "Malformed: `token_type` is not known; if it means Bearer, configure it as an alias",
        ),
    ] {
        assert_eq!(
            Setup::default().json(&format!(r#"{{"access_token":"T","token_type":{value}}}"#)),
            expected,
            "{value}"
        );
    }
    let settings = AnswerSettings {
        token_types: vec!["Application Access Token".into()],
        require_token_type: true,
        ..Default::default()
    };
    let ebay = Setup { settings, ..Default::default() };
    assert_eq!(ebay.json(r#"{"access_token":"T","token_type":"application access token"}"#), "T");
    assert_eq!(ebay.json(r#"{"access_token":"T"}"#), "Malformed: there is no `token_type`");
    let token = ebay.read(200, &[], br#"{"access_token":"T","token_type":"bearer"}"#).unwrap();
    assert_eq!(token.header_value().as_bytes(), b"Bearer T", "some APIs compare the scheme by case");
}

/// Behaviour 37.
#[test]
fn answers_without_a_usable_token() {
    check(&[
        (200, JSON, "{}", "Malformed: there is no `access_token`"),
        (200, JSON, r#"{"access_token":null}"#, "Malformed: there is no `access_token`"),
        (200, JSON, r#"{"access_token":7}"#, "Malformed: `access_token` is not a string"),
        (200, JSON, r#"{"access_token":{"t":"T"}}"#, "Malformed: `access_token` is not a string"),
        (
            200,
            JSON,
            r#"{"access_token":""}"#,
            "Malformed: the access token is empty: check what the token source returns",
        ),
        (200, JSON, "", "Malformed: the body is empty"),
        (204, JSON, " \n", "Malformed: the body is empty"),
        (
            200,
            JSON,
            r#"{"access_token":"T""#,
            "Malformed: the JSON ends too early at line 1 column 19, sent as application/json",
        ),
        (
            200,
            JSON,
            r#"{"access_token":"T"}}"#,
            "Malformed: the JSON is malformed at line 1 column 21, sent as application/json",
        ),
        (200, JSON, r#"["T"]"#, "Malformed: the body is neither a JSON object nor a form, sent as application/json"),
        (200, JSON, r#""T""#, "Malformed: the body is neither a JSON object nor a form, sent as application/json"),
        (200, "x/canary", "T", "Malformed: the body is neither a JSON object nor a form"),
        (200, HTML, "<html>Sign in", &page("Malformed")),
        (
            200,
            JSON,
            "\n <!doctype html>",
            &format!("Malformed: the body is an HTML or XML page, sent as application/json; {SUSPECT}"),
        ),
        (200, JSON, r#"{"ok":true}"#, "Malformed: there is no `access_token`"),
        (200, JSON, r#"{"access_token":"a","access_token":"b"}"#, "Malformed: `access_token` occurs more than once"),
        (
            200,
            JSON,
            r#"{"access_token":"a","expires_in":1,"expires_in":2}"#,
            "Malformed: `expires_in` occurs more than once",
        ),
        (
            200,
            JSON,
            r#"{"access_token":"a","token_type":"x","token_type":"Bearer"}"#,
            "Malformed: `token_type` occurs more than once",
        ),
        (200, FORM, "access_token=a&access_token=b", "Malformed: `access_token` occurs more than once"),
    ]);
    for illegal in ["a b", "a\\n", "a\\r\\nX: y", "\\u0000", "\\u007f", "é", "T "] {
        let result = Setup::default().json(&format!(r#"{{"access_token":"{illegal}"}}"#));
        assert!(result.starts_with("Malformed: the access token ("), "{result}");
    }
    let long = |len: usize| Setup::default().json(&format!(r#"{{"access_token":"{}"}}"#, "x".repeat(len)));
    assert_eq!(long(Token::MAX_LEN).len(), Token::MAX_LEN);
    assert!(long(Token::MAX_LEN + 1).starts_with("Malformed: the access token has 65537 bytes"));
}

#[test]
fn encodings_of_the_answer() {
    check(&[
        (200, "text/plain", r#"{"access_token":"T"}"#, "T"),
        (200, FORM, r#"{"access_token":"T"}"#, "T"),
        (200, "", "\r\n {\"access_token\":\"T\"}\n", "T"),
        (200, JSON, "\u{feff}{\"access_token\":\"T\"}", "T"),
        (
            200,
            JSON,
            "\u{feff}\u{feff}{\"access_token\":\"T\"}",
            "Malformed: the body is neither a JSON object nor a form, sent as application/json",
        ),
        (200, FORM, "access_token=T&scope=repo%2Cgist&token_type=bearer", "T scope=repo,gist"),
        (200, "text/plain", "access_token=T&expires=5183999\n", "T in=5183999 extra=expires"),
        (200, HTML, "access_token=T&expires_in=60", "T in=60"),
        (200, FORM, "access_token=a%2Bb&name=Sam+Matthew", "a+b extra=name"),
        (200, FORM, "error=bad_verification_code&error_description=x", "Refused bad_verification_code"),
    ]);
    let latin1 = Setup::default().read(200, &[], b"{\"access_token\":\"T\",\"name\":\"Zo\xeb\"}").unwrap();
    assert_eq!(latin1.extra().get("name").unwrap(), "Zo\u{fffd}");
    for encoding in ["gzip", "br"] {
        let result = Setup::default().read(200, &[("content-encoding", encoding)], b"\x1f\x8b");
        assert_eq!(
            summary(&result),
            format!("Malformed: the body is encoded ({encoding}) though `identity` was asked for; {SUSPECT}")
        );
    }
    assert_eq!(
        summary(&Setup::default().read(200, &[("content-encoding", "identity")], br#"{"access_token":"T"}"#)),
        "T"
    );
}

#[test]
fn further_members() {
    check(&[
        (200, JSON, r#"{"access_token":"T","refresh_token":null,"scope":null}"#, "T"),
        (200, JSON, r#"{"access_token":"T","refresh_token":"","scope":""}"#, "T"),
        (200, JSON, r#"{"access_token":"T","refresh_token":"R"}"#, "T refresh=R"),
        (200, JSON, r#"{"access_token":"T","scope":"write  read"}"#, "T scope=write,read"),
        (200, JSON, r#"{"access_token":"T","scope":["write","read"]}"#, "T scope=write,read"),
        (200, JSON, r#"{"access_token":"T","scope":"a\"b"}"#, "T"),
        (200, JSON, r#"{"access_token":"T","error":null}"#, "T extra=error"),
        (200, JSON, r#"{"access_token":"T","error":"","errors":[]}"#, "T extra=error,errors"),
        (200, JSON, r#"{"access_token":"T","huge":1e400,"bad":"\ud800","x":1}"#, "T extra=x"),
    ]);
    let deep = format!(r#"{{"access_token":"T","deep":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(Setup::default().json(&deep), "T");
}

#[test]
fn members_by_other_names() {
    let fields = [("accessToken", "access_token"), ("expiresIn", "expires_in"), ("token", "access_token")];
    let fields = fields.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned())).to_vec();
    let setup = Setup { settings: AnswerSettings { fields, ..Default::default() }, ..Default::default() };
    assert_eq!(setup.json(r#"{"accessToken":"T","expiresIn":"60"}"#), "T in=60");
    assert_eq!(setup.json(r#"{"token":"T"}"#), "T");
    assert_eq!(setup.json(r#"{"accessToken":"theirs","access_token":"ours"}"#), "ours");
    assert_eq!(
        setup.json(r#"{"accessToken":"a","accessToken":"b"}"#),
        "Malformed: `access_token` occurs more than once"
    );
}

#[test]
fn fewer_scopes_than_required() {
    let required = Some(Scopes::new(["read", "write"]).unwrap());
    let setup = Setup { required, ..Default::default() };
    assert_eq!(setup.json(r#"{"access_token":"T","scope":"write read x"}"#), "T scope=write,read,x");
    assert_eq!(setup.json(r#"{"access_token":"T"}"#), "T");
    let fewer = setup.json(r#"{"access_token":"T","scope":"read"}"#);
    assert_eq!(fewer, "Malformed: fewer scopes were granted than asked for");
}

#[test]
fn errors_by_code() {
    check(&[
        (400, JSON, r#"{"error":"invalid_grant"}"#, "Refused invalid_grant"),
        (
            401,
            JSON,
            r#"{"error_description":"Client authentication failed.","error":"invalid_client"}"#,
            "BadCredentials invalid_client",
        ),
        (400, JSON, r#"{"error":"invalid_client"}"#, "BadCredentials invalid_client"),
        (400, JSON, r#"{"error":"unauthorized_client"}"#, "Refused unauthorized_client"),
        (400, JSON, r#"{"error":"unsupported_grant_type"}"#, "Refused unsupported_grant_type"),
        (400, JSON, r#"{"error":"invalid_scope"}"#, "Refused invalid_scope"),
        (401, JSON, r#"{"error":"invalid_request"}"#, "Refused invalid_request"),
        (400, JSON, r#"{"error":"invalid_target"}"#, "Refused invalid_target"),
        (400, JSON, r#"{"error":"temporarily_unavailable"}"#, "Unavailable temporarily_unavailable"),
        (500, JSON, r#"{"error":"invalid_grant"}"#, "Refused invalid_grant"),
        (500, JSON, r#"{"error":"oops"}"#, "Unavailable oops"),
        (401, JSON, r#"{"error":"oops"}"#, "BadCredentials oops"),
        (429, JSON, r#"{"error":"invalid_request"}"#, "Unavailable invalid_request"),
        (200, JSON, r#"{"error":"bad_verification_code"}"#, "Refused bad_verification_code"),
        (200, JSON, r#"{"ok":false,"error":"invalid_client"}"#, "BadCredentials invalid_client"),
        (200, JSON, r#"{"access_token":"T","error":"invalid_scope"}"#, "Refused invalid_scope"),
        (
            400,
            JSON,
            r#"{"errors":[{"errorType":"invalid_client","message":"m"}],"success":false}"#,
            "BadCredentials invalid_client",
        ),
        (400, JSON, r#"{"error":"no code at all"}"#, "Refused"),
        (400, JSON, r#"{"error":{"code":190}}"#, "Refused"),
        (400, JSON, "\u{feff}{\"error\":\"invalid_scope\"}", "Refused invalid_scope"),
    ]);
}

/// Behaviour 36.
#[test]
fn a_page_in_between_is_no_refusal() {
    check(&[
        (403, HTML, "<html>blocked", &page("Unavailable")),
        (401, HTML, "<html>sign in", &page("Unavailable")),
        (
            400,
            JSON,
            r#"{"error":"#,
            "Unavailable: the JSON ends too early at line 1 column 9, sent as application/json",
        ),
        (502, HTML, "<html>bad gateway", &page("Unavailable")),
    ]);
}

fn page(kind: &str) -> String {
    format!("{kind}: the body is an HTML or XML page, sent as text/html; {SUSPECT}")
}

/// Without its query.
const SUSPECT: &str = "is https://auth.example.com/token the right URL?";

/// Behaviour 157.
#[test]
fn a_url_that_is_likely_to_be_the_wrong_one_is_named() {
    for status in [404, 405, 410] {
        let other = "the body is neither a JSON object nor a form, sent as text/plain";
        check(&[
            (status, "", "", &format!("EndpointNotFound: the body is empty; {SUSPECT}")),
            (status, HTML, "<html>no such page", &page("EndpointNotFound")),
            (status, "text/plain", "404 page not found", &format!("EndpointNotFound: {other}; {SUSPECT}")),
            (status, JSON, r#"{"message":"no route"}"#, &format!("EndpointNotFound: {SUSPECT}")),
            (status, JSON, r#"{"error":"not_found"}"#, &format!("EndpointNotFound not_found: {SUSPECT}")),
            (status, JSON, r#"{"error":"invalid_client"}"#, "BadCredentials invalid_client"),
        ]);
    }
    check(&[(200, HTML, "<html>welcome", &page("Malformed"))]);
    let told = Setup::default().read(404, &[], b"").unwrap_err();
    assert!(told.is_transient(), "a deployment passes");
    assert_eq!(
        told.to_string(),
        format!("nothing answers token requests at this URL; check it (status 404): the body is empty; {SUSPECT}")
    );
    let with_a_key_in_the_path = Setup { sent: vec!["com/token"], ..Default::default() };
    assert_eq!(
        with_a_key_in_the_path.read(404, &[], b"").unwrap_err().detail(),
        Some("the body is empty; check the URL")
    );
}

/// Behaviours 150 and 157.
#[test]
fn why_a_server_refuses_is_one_event_without_what_was_sent() {
    let log = crate::endpoint::tests::Log::default();
    let guard = log.start();
    let body = br#"{"error":"invalid_client","error_description":"AADSTS7000215: s3cret value+ is no secret"}"#;
    let setup = Setup { sent: vec!["s3cret value+"], ..Default::default() };
    setup.read(401, &[("content-type", JSON)], body).unwrap_err();
    drop(guard);
    assert_eq!(log.text().matches("AADSTS7000215: [redacted] is no secret").count(), 1, "{}", log.text());
    assert!(!log.text().contains("s3cret"));
}

#[test]
fn errors_by_status() {
    check(&[
        (401, "", "", "BadCredentials"),
        (
            401,
            "text/plain",
            "Unauthorized",
            "BadCredentials: the body is neither a JSON object nor a form, sent as text/plain",
        ),
        (401, JSON, r#"{"message":"Unauthorised"}"#, "BadCredentials"),
        (400, JSON, r#"{"message":"Bad request"}"#, "Refused"),
        (403, "", "", "Refused"),
        (402, "", "", "Refused"),
        (408, "", "", "Unavailable"),
        (425, "", "", "Unavailable"),
        (429, "", "", "Unavailable"),
        (500, "", "", "Unavailable"),
        (503, JSON, "{}", "Unavailable"),
    ]);
    for (header, expected) in [
        ("30", "Unavailable after 30"),
        ("Wed, 15 Jan 2025 14:31:00 GMT", "Unavailable after 60"),
        ("99999999999999999999", "Unavailable after 31536000"),
        ("soon", "Unavailable"),
    ] {
        assert_eq!(summary(&Setup::default().read(503, &[("retry-after", header)], b"")), expected);
    }
}

/// Behaviour 84.
#[test]
fn only_some_codes_kill_a_refresh_token() {
    let setup = Setup { asking: GrantKind::RefreshToken, dead: vec!["token_inactive".into()], ..Default::default() };
    let outcome = |status, body: &str| {
        let failed = setup.judge(status, &[], body.as_bytes()).unwrap_err();
        (failed.error.kind(), failed.refresh == RefreshFate::Dead, failed.refresh == RefreshFate::MaybeSpent)
    };
    use TokenErrorKind::*;
    assert_eq!(outcome(400, r#"{"error":"invalid_grant"}"#), (SignInAgain, true, false));
    assert_eq!(outcome(200, r#"{"error":"invalid_grant"}"#), (SignInAgain, true, false));
    assert_eq!(outcome(500, r#"{"error":"invalid_grant"}"#), (SignInAgain, true, false));
    assert_eq!(outcome(400, r#"{"errors":[{"errorType":"invalid_grant"}]}"#), (SignInAgain, true, false));
    assert_eq!(outcome(400, r#"{"error":"token_inactive"}"#), (SignInAgain, true, false));
    for code in ["invalid_request", "unauthorized_client", "invalid_client", "invalid_scope", "invalid_grant_type"] {
        let (_, dead, lost) = outcome(400, &format!(r#"{{"error":"{code}"}}"#));
        assert!(!dead && !lost, "{code}");
    }
    assert_eq!(outcome(403, "<html>"), (Unavailable, false, false));
    assert_eq!(outcome(429, ""), (Unavailable, false, false));
    assert_eq!(outcome(503, ""), (Unavailable, false, false));
    assert_eq!(outcome(500, ""), (Unavailable, false, true));
    assert_eq!(outcome(504, "<html>"), (Unavailable, false, true));
    assert_eq!(outcome(200, "<html>"), (Malformed, false, true));
}

/// Behaviour 102.
#[test]
fn a_redirect_tells_its_origin_only() {
    let to =
        |location: &str| summary(&Setup::default().read(307, &[("location", location)], b"{\"access_token\":\"T\"}"));
    assert_eq!(to("https://u:p@b.example:8443/x?k=canary#f"), "Redirected: it leads to https://b.example:8443");
    assert_eq!(to("/canary"), "Redirected: it leads to another path of the same host");
    assert_eq!(to("\\\\canary"), "Redirected");
    assert_eq!(summary(&Setup::default().read(302, &[], b"")), "Redirected");
}

/// Behaviour 104.
#[test]
fn an_echoed_secret_is_masked() {
    let setup = Setup { sent: vec!["s3cret value+", "tenant-1"], ..Default::default() };
    let error = |body: &str| setup.read(400, &[], body.as_bytes()).unwrap_err();
    let told = error(
        r#"{"error":"invalid_client","error_description":"no s3cret\u0007 value+, s3cret%20value%2B, s3cret+value%2B of tenant-1"}"#,
    );
    let masked = "no [redacted], [redacted], [redacted] of [redacted]";
    assert_eq!(told.error_description(), Some(masked));
    assert!(!format!("{told} {told:?}").contains("redacted"), "the server's text is not printed at all");
    let echoed = error(r#"{"error":"client_tenant-1_unknown"}"#);
    assert!(echoed.code().is_none());
    let long = error(&format!(r#"{{"error":"x","error_description":"{}"}}"#, "é\u{7f}".repeat(1000)));
    assert_eq!(long.error_description().unwrap().chars().count(), 256);
    assert!(long.error_description().unwrap().chars().all(|c| c == 'é'));
}

#[test]
fn an_unusable_expiry_is_told_once_without_its_value() {
    let log = crate::endpoint::tests::Log::default();
    let guard = log.start();
    let warned = AtomicBool::new(false);
    let settings = AnswerSettings::default();
    for _ in 0..3 {
        let reader = Reader {
            settings: &settings,
            binds_tokens: false,
            asking: GrantKind::Primary,
            dead_refresh_codes: &[],
            asked_scopes: None,
            require_granted: false,
            asked_type: None,
            url: &Uri::from_static("https://auth.example.com/token"),
            sent: Redactor::default(),
            now: UNIX_EPOCH,
            warned: &warned,
            telemetry: &Telemetry::default(),
        };
        let body = Zeroizing::new(br#"{"access_token":"T","expires_in":"canary"}"#.to_vec());
        reader.read(&Answer { status: StatusCode::OK, headers: HeaderMap::new(), body }).unwrap();
    }
    drop(guard);
    assert_eq!(log.text().matches("expires_in").count(), 1, "{}", log.text());
    assert!(!log.text().contains("canary"));
}

/// Nothing that a server can send makes the reader panic, or shows up in an error.
#[test]
fn nonsense_never_panics() {
    let pieces = [
        "{",
        "}",
        "\"access_token\"",
        ":",
        "\"",
        ",",
        "[",
        "]",
        "1e999",
        "-",
        "\\u",
        "\\ud800",
        "null",
        "\u{feff}",
        "%",
        "&",
        "=",
        "canary",
        "é",
        "\0",
        "<",
        "access_token=",
        "\"expires_at\":",
        "\"2025-01-15T14:30:0\"",
        "\"errors\":",
        "\"error\":",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let body: String = (0..random.usize(..12)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let status = [200, 302, 400, 401, 500][random.usize(..5)];
        let setup = Setup { sent: vec!["canary"], ..Default::default() };
        if let Err(error) = setup.read(status, &[], body.as_bytes()) {
            assert!(!format!("{error} {error:?} {:?}", error.error_description()).contains("canary"), "{body}");
        }
    }
}
