//! Answers of the token endpoint and metadata: what becomes a token, what an error tells, how long a token is used.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::Instant;
use tower::service_fn;
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, Clock, Discovery, TokenError};

use super::choices::Choices;
use super::{json, run};

const TOKEN_URL: &str = "https://auth.example.com/token";
const API: &str = "https://api.example.com";
const SECRET: &str = "canary-Secret-0123456789abcdef";
const REFRESH: &str = "canary-Refresh-fedcba9876543210";

/// What a generated answer must become.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Token(String),
    Fails,
    /// It is odd; only what holds for every answer is checked.
    Either,
}

/// An answer of the token endpoint, of any shape.
struct Generated {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    expected: Expected,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
enum Pause {
    Exactly(u64),
    None,
}

const NAMES: [&str; 14] = [
    "access_token",
    "token_type",
    "expires_in",
    "refresh_token",
    "scope",
    "error",
    "error_description",
    "expires_at",
    "expires",
    "refresh_in",
    "errors",
    "issued_token_type",
    "x",
    "",
];

/// One JSON value as text, and the string that it is, if it is one.
fn value(choices: &mut Choices<'_>) -> (String, Option<String>) {
    let text = match choices.below(12) {
        0 | 1 => choices.text("abcXYZ019-._~+/=", 12),
        2 => choices.pick(&["Bearer", "bearer", "BEARER", "DPoP", "N_A", "mac"]).into(),
        3 => choices.pick(&["invalid_grant", "invalid_client", "server_error", "slow_down", "nonsense"]).into(),
        4 => echo(choices),
        5 => choices.text("a \"\\\n\u{e9}\u{1f511}\0", 6),
        6 => choices.number().to_string(),
        7 => return (choices.number().to_string(), None),
        8 => {
            return (choices.pick(&["-1", "0", "1e400", "1.5", "-0.0", "1e18", "3600.9", "0.1e1"]).into(), None);
        }
        9 => return (choices.pick(&["null", "true", "[]", "{}", "[[[[1]]]]", "[\"a\",\"b\"]"]).into(), None),
        10 => {
            return ("[{\"errorType\":\"invalid_client\",\"message\":\"m\"}]".into(), None);
        }
        _ => choices.pick(&["2026-01-01T00:30:00Z", "Thu, 01 Jan 2026 00:30:00 GMT", "2026-13-01", "1e3"]).into(),
    };
    (Value::from(text.as_str()).to_string(), Some(text))
}

/// Something sent, as a server may repeat it.
fn echo(choices: &mut Choices<'_>) -> String {
    let secret = choices.pick(&[SECRET, REFRESH]);
    match choices.below(8) {
        kind if !super::DISGUISED && kind < 7 => secret.to_owned(),
        0 => secret.to_owned(),
        1 => secret[..secret.len() - 1].to_owned(),
        2 => secret[1..].to_owned(),
        3 => secret.to_lowercase(),
        4 => URL_SAFE_NO_PAD.encode(secret),
        5 => secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        6 => secret.chars().rev().collect(),
        _ => format!("no {secret} here"),
    }
}

fn generate(choices: &mut Choices<'_>) -> Generated {
    let status = choices.pick(&[200, 200, 200, 200, 201, 400, 400, 401, 403, 404, 429, 500, 502, 503, 307, 204]);
    let mut headers = Vec::new();
    let content_type = choices.below(8);
    if content_type < 6 {
        let types = [
            "application/json",
            "application/json;charset=utf-8",
            "text/html",
            "text/plain",
            "x",
            "application/x-www-form-urlencoded",
        ];
        headers.push(("content-type", types[content_type].to_owned()));
    }
    let mut encoded = false;
    if choices.one_in(16) {
        encoded = true;
        headers.push(("content-encoding", choices.pick(&["gzip", "br", "canary-encoding"]).to_owned()));
    }
    let pause = retry_after(choices, &mut headers);

    let mut members = Vec::new();
    if !choices.one_in(4) {
        let token = choices.text("abcXYZ019-._~+/", 12) + "t";
        members.push(("access_token", Value::from(token.as_str()).to_string(), Some(token)));
    }
    for _ in 0..choices.below(8) {
        let name = choices.pick(&NAMES);
        let (text, string) = value(choices);
        members.push((name, text, string));
    }
    let body = match choices.below(8) {
        0 => {
            return Generated { status, headers, body: choices.bytes(400).to_vec(), expected: Expected::Either, pause };
        }
        1 => {
            let pairs = members.iter().map(|(name, text, string)| {
                let value = string.as_deref().unwrap_or(text);
                format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC))
            });
            let body = pairs.collect::<Vec<_>>().join("&");
            return Generated { status, headers, body: body.into(), expected: Expected::Either, pause };
        }
        _ => {
            members.iter().map(|(name, text, _)| format!("{}:{text}", Value::from(*name))).collect::<Vec<_>>().join(",")
        }
    };
    let expected = if encoded { Expected::Fails } else { expect(status, &members) };
    Generated { status, headers, body: format!("{{{body}}}").into(), expected, pause }
}

fn retry_after(choices: &mut Choices<'_>, headers: &mut Vec<(&'static str, String)>) -> Option<Pause> {
    const YEAR: u64 = 365 * 24 * 3600;
    let (text, pause) = match choices.below(8) {
        0..=2 => return Some(Pause::None),
        3 => {
            let seconds = choices.number();
            (seconds.to_string(), Pause::Exactly(seconds.min(YEAR)))
        }
        4 => ("99999999999999999999999999".into(), Pause::Exactly(YEAR)),
        5 => {
            headers.push(("date", "Wed, 15 Jan 2025 14:00:50 GMT".into()));
            ("Wed, 15 Jan 2025 14:01:00 GMT".into(), Pause::Exactly(10))
        }
        6 => (choices.pick(&["-5", "1.5", "soon", "1 2", "0x10", "+3"]).into(), Pause::None),
        _ => {
            headers.push(("retry-after", choices.text("0123456789: ,GMTJanWed", 30)));
            return None;
        }
    };
    headers.push(("retry-after", text));
    Some(pause)
}

/// RFC 6749 §5.1 and §5.2, by another reader than the crate's.
fn expect(status: u16, members: &[(&'static str, String, Option<String>)]) -> Expected {
    let count = |name: &str| members.iter().filter(|(own, ..)| *own == name).count();
    let find = |name: &str| members.iter().find(|(own, ..)| *own == name);
    let repeated = ["access_token", "token_type", "expires_in"].iter().any(|name| count(name) > 1);
    if status >= 300 || repeated || find("access_token").is_none() {
        return Expected::Fails;
    }
    if count("error") > 0 || count("errors") > 0 || count("issued_token_type") > 0 {
        return match find("error") {
            Some((_, _, Some(code))) if !code.is_empty() => Expected::Fails,
            _ => Expected::Either,
        };
    }
    let bearer = match find("token_type") {
        None => true,
        Some((_, text, None)) => text == "null",
        Some((_, _, Some(text))) => text.trim().is_empty() || text.trim().eq_ignore_ascii_case("bearer"),
    };
    match find("access_token") {
        Some((_, _, Some(token)))
            if bearer && !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Expected::Token(token.clone())
        }
        _ => Expected::Fails,
    }
}

/// Any answer: it becomes the token that it names or an error of some class, and the error tells nothing that was sent.
pub fn token_answer(data: &[u8]) {
    let mut choices = Choices::new(data);
    let refreshes = choices.one_in(2);
    let generated = generate(&mut choices);
    let mut response = Response::builder().status(generated.status);
    for (name, value) in &generated.headers {
        let Ok(value) = http::HeaderValue::from_str(value) else { return };
        response = response.header(*name, value);
    }
    let response = response.body(Full::new(Bytes::from(generated.body.clone()))).unwrap();
    let (expected, pause) = (generated.expected.clone(), generated.pause);
    run(async move {
        let client_auth = ClientAuth::basic("id", SECRET);
        let cfg = match refreshes {
            true => AuthConfig::refresh_token(TOKEN_URL, client_auth, REFRESH),
            false => AuthConfig::client_credentials(TOKEN_URL, client_auth),
        };
        let cfg = cfg.origin(API).clock(TestClock::new()).build().unwrap();
        let told = response.clone();
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            let told = told.clone();
            async move { Ok::<_, std::io::Error>(told) }
        });
        let handle = AuthLayer::builder(cfg).http_client(client).build().unwrap().handle();
        match handle.token().await {
            Ok(token) => {
                assert_ne!(expected, Expected::Fails, "it became a token");
                if let Expected::Token(expected) = &expected {
                    assert_eq!(token.access_token(), expected);
                }
                assert!((200..300).contains(&response.status().as_u16()), "a token out of an error");
                let told = format!("{token:?} {:?}", handle.stats());
                // A short token may be part of a word that is told anyway, or the name of a scope.
                let scope =
                    token.scopes().is_some_and(|scopes| scopes.iter().any(|scope| scope == token.access_token()));
                assert!(
                    scope || !told.contains(token.access_token()) || token.access_token().len() < 4,
                    "{told} tells {}",
                    token.access_token()
                );
                is_named(&generated.body, token.access_token());
            }
            Err(error) => {
                assert!(!matches!(expected, Expected::Token(_)), "{error} instead of a token");
                let sent: &[&str] = if refreshes { &[SECRET, REFRESH] } else { &[SECRET] };
                check_error(&error, response.status().as_u16(), pause, sent);
            }
        }
    });
}

/// The token stands in the body, whatever kind of body that is.
fn is_named(body: &[u8], token: &str) {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('{')
        && let Ok(Value::Object(members)) = serde_json::from_str::<Value>(text)
    {
        assert_eq!(members.get("access_token").and_then(Value::as_str), Some(token));
    }
}

fn check_error(error: &TokenError, status: u16, pause: Option<Pause>, sent: &[&str]) {
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        told.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    // Nothing that was sent, nor what is left of it when a letter is cut off or its case changed.
    let told = told.to_lowercase();
    for secret in sent {
        let middle = &secret[1..secret.len() - 1];
        for part in [middle.to_lowercase(), middle.to_lowercase().chars().rev().collect()] {
            assert!(!told.contains(&part), "an error tells what was sent: {told}");
        }
        let coded =
            [URL_SAFE_NO_PAD.encode(secret).to_lowercase(), secret.bytes().map(|byte| format!("{byte:02x}")).collect()];
        for coded in coded {
            assert!(!told.contains(&coded), "an error tells what was sent, encoded: {told}");
        }
    }
    if let Some(description) = error.error_description() {
        assert!(!sent.iter().any(|secret| description.contains(secret)), "a description tells what was sent");
        assert!(description.chars().count() <= 256 && !description.chars().any(char::is_control));
    }
    assert_eq!(error.status().map(|status| status.as_u16()), Some(status));
    match pause {
        Some(Pause::Exactly(seconds)) if seconds > 0 => {
            // The engine obeys five minutes at most.
            assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds.min(300))));
        }
        // Otherwise the pause is the engine's own, drawn or of the class.
        Some(Pause::None) => assert!(error.retry_after() <= Some(Duration::from_secs(30))),
        _ => {}
    }
}

/// Tokens whose end is told in every way there is: they are not asked for more than once a second, nor used after it.
pub fn lifetime(data: &[u8]) {
    let mut choices = Choices::new(data);
    let exact = choices.one_in(2);
    // What each token's answer says besides, and how long it then lives at most.
    let seconds = 1 + choices.number() % 4000;
    let extra = if exact { format!(",\"expires_in\":{seconds}") } else { stated(&mut choices) };
    let jwt = (!exact && choices.one_in(2)).then(|| {
        let (text, _) = value(&mut choices);
        URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{text}}}"))
    });
    let steps: Vec<_> = (0..choices.below(40)).map(|_| (choices.below(5), choices.number() % 100_000)).collect();
    run(async move {
        let clock = TestClock::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let client = {
            let asked = asked.clone();
            service_fn(move |_: Request<Full<Bytes>>| {
                let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
                let token = match &jwt {
                    Some(claims) => format!("{number}.{claims}.x"),
                    None => number.to_string(),
                };
                let body = format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\"{extra}}}");
                async move { Ok::<_, std::io::Error>(json(body)) }
            })
        };
        let cfg =
            AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "s")).origin(API).clock(clock.clone());
        let handle = AuthLayer::builder(cfg.build().unwrap()).http_client(client).build().unwrap().handle();
        let began = clock.now();
        let started = Instant::now();
        let mut arrived = Vec::new();
        let mut jumps = 0;
        for (kind, amount) in steps {
            match kind {
                0 => tokio::time::sleep(Duration::from_millis(amount)).await,
                1 => tokio::time::sleep(Duration::from_secs(amount)).await,
                2 => {
                    clock.suspend(Duration::from_secs(amount));
                    jumps += 1;
                }
                3 => {
                    clock.set_wall_back(Duration::from_secs(amount));
                    jumps += 1;
                }
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
            // A jump may be noticed a second late, a dead token never.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let Ok(token) = handle.token().await else { panic!("a server that answers, and no token") };
            let number: usize = token.access_token().split('.').next().unwrap().parse().unwrap();
            let now = clock.now();
            if arrived.len() < number {
                arrived.resize(number, now);
            }
            let then = arrived[number - 1];
            if exact {
                let age = now.monotonic.duration_since(then.monotonic);
                assert!(age <= Duration::from_secs(seconds + 1), "a token of {seconds} s is used after {age:?}");
            }
        }
        let passed = started.elapsed().as_secs() as usize;
        let _ = began;
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked <= 2 + passed + jumps, "{asked} token requests in {passed} s");
    });
}

fn stated(choices: &mut Choices<'_>) -> String {
    let mut members = String::new();
    for name in ["expires_in", "expires_at", "expires_on", "expires", "refresh_in"] {
        if choices.one_in(2) {
            members.push_str(&format!(",\"{name}\":{}", value(choices).0));
        }
    }
    members
}

/// Metadata of any shape: whatever is sent afterwards goes to an https URL that they name, of the issuer that was
/// configured, and never without the two.
pub fn discovery(data: &[u8]) {
    const ISSUER: &str = "https://auth.example.com";
    let mut choices = Choices::new(data);
    let url = |choices: &mut Choices<'_>| -> String {
        let scheme = choices.pick(&["https", "https", "https", "http", "HTTPS", "ftp", ""]);
        let host = choices.pick(&[
            "auth.example.com",
            "other.example",
            "127.0.0.1",
            "user@auth.example.com",
            "[::1]:8443",
            "a b",
            "",
        ]);
        format!("{scheme}://{host}/{}", choices.text("abc/?#=%&", 8))
    };
    let mut members = vec![format!(
        "\"issuer\":\"{}\"",
        choices.pick(&[ISSUER, ISSUER, ISSUER, ISSUER, "https://auth.example.com/", "https://other.example", ""])
    )];
    for _ in 0..choices.below(6) {
        let name = choices.pick(&[
            "token_endpoint",
            "token_endpoint",
            "revocation_endpoint",
            "device_authorization_endpoint",
            "issuer",
            "mtls_endpoint_aliases",
            "token_endpoint_auth_methods_supported",
        ]);
        let value = match name {
            "mtls_endpoint_aliases" => format!("{{\"token_endpoint\":\"{}\"}}", url(&mut choices)),
            "token_endpoint_auth_methods_supported" => {
                choices.pick(&["[\"client_secret_basic\"]", "[\"private_key_jwt\"]", "[]", "null", "1"]).to_owned()
            }
            _ if choices.one_in(8) => value(&mut choices).0,
            _ => Value::from(url(&mut choices)).to_string(),
        };
        members.push(format!("\"{name}\":{value}"));
    }
    let metadata = match choices.below(10) {
        0 => choices.rest().to_vec(),
        _ => format!("{{{}}}", members.join(",")).into_bytes(),
    };
    run(async move {
        let called = Arc::new(Mutex::new(Vec::new()));
        let client = {
            let (called, metadata) = (called.clone(), metadata.clone());
            service_fn(move |request: Request<Full<Bytes>>| {
                let is_metadata =
                    request.uri().path().contains("/.well-known/") && request.method() == http::Method::GET;
                let answer = if is_metadata {
                    assert!(!request.headers().contains_key("authorization"), "credentials for metadata");
                    json(metadata.clone())
                } else {
                    called.lock().unwrap().push(request.uri().clone());
                    json("{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":3600}")
                };
                async move { Ok::<_, std::io::Error>(answer) }
            })
        };
        let cfg = AuthConfig::client_credentials(Discovery::of(ISSUER), ClientAuth::basic("id", SECRET));
        let cfg = cfg.origin(API).clock(TestClock::new()).build().unwrap();
        let result = AuthLayer::builder(cfg).http_client(client).build().unwrap().handle().token().await;
        let called = called.lock().unwrap().clone();
        match result {
            Ok(_) => {
                let document: Value = serde_json::from_slice(&metadata).unwrap();
                assert_eq!(document["issuer"].as_str(), Some(ISSUER));
                let named = document["token_endpoint"].as_str().unwrap();
                let [uri] = &called[..] else { panic!("{called:?}") };
                assert_eq!(uri.to_string(), named.parse::<http::Uri>().unwrap().to_string());
                let read_again: crate::Url = named.parse().unwrap();
                let local = matches!(uri.host(), Some("127.0.0.1" | "[::1]"));
                assert!(uri.scheme_str() == Some("https") || local, "{uri}");
                assert_eq!(read_again.host_str(), uri.host(), "two readings of {named}");
                assert!(read_again.username().is_empty() && read_again.fragment().is_none());
            }
            Err(error) => {
                assert!(called.is_empty(), "{error}, and yet the secret went to {called:?}");
                assert!(!format!("{error} {error:?}").contains(SECRET));
            }
        }
    });
}
