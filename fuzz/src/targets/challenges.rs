//! `WWW-Authenticate`: challenges made by the grammar of RFC 9110 §11.6.1, whose meaning is known because they were made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenRequest};

use super::choices::Choices;
use super::run;

const SCHEMES: [&str; 9] = ["Bearer", "bearer", "BEARER", "Basic", "Negotiate", "DPoP", "Digest", "Bearerish", "x"];
const ERRORS: [&str; 8] = [
    "invalid_token",
    "insufficient_scope",
    "invalid_request",
    "insufficient_user_authentication",
    "invalid_dpop_proof",
    "Invalid_Token",
    "other",
    "",
];

/// A 401 with such challenges is taken for a rejected token exactly if RFC 6750 says so.
pub fn challenge(data: &[u8]) {
    let mut choices = Choices::new(data);
    let raw = choices.one_in(4);
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    if raw {
        lines.push(choices.bytes(600).to_vec());
        lines.push(choices.rest().to_vec());
    } else {
        for _ in 0..choices.below(4) {
            let mut line = String::new();
            for _ in 0..=choices.below(3) {
                if !line.is_empty() {
                    line.push_str(choices.pick(&[", ", ",", " , ,", ",\t"]));
                }
                errors.extend(make(&mut choices, &mut line));
            }
            lines.push(line.into_bytes());
        }
    }
    let Ok(lines) = lines.iter().map(|line| HeaderValue::from_bytes(line)).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    // Of several challenges of our scheme `invalid_token` wins, else the first error.
    let is = |error: &String, word: &str| error.eq_ignore_ascii_case(word);
    let decides = errors.iter().find(|error| is(error, "invalid_token")).or(errors.first());
    let keeps = ["insufficient_scope", "invalid_request", "insufficient_user_authentication", "invalid_dpop_proof"];
    let rejected = decides.is_none_or(|error| !keeps.iter().any(|word| is(error, word)));

    run(async move {
        let (tokens, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let source = {
            let tokens = tokens.clone();
            service_fn(move |_: TokenRequest| {
                let number = tokens.fetch_add(1, Ordering::Relaxed);
                async move { Ok::<_, TokenError>(Token::bearer(&format!("t{number}")).unwrap()) }
            })
        };
        let api = {
            let calls = calls.clone();
            let lines = lines.clone();
            service_fn(move |request: Request<Full<Bytes>>| {
                calls.fetch_add(1, Ordering::Relaxed);
                let mut response = Response::new(Full::<Bytes>::default());
                if request.headers()["authorization"] == "Bearer t0" {
                    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
                    for line in &lines {
                        response.headers_mut().append("www-authenticate", line.clone());
                    }
                }
                async move { Ok::<_, std::io::Error>(response) }
            })
        };
        let cfg = AuthConfig::external().origin("https://api.example.com").build().unwrap();
        let client = AuthLayer::with_source(cfg, source).layer(api);
        let get = Request::get("https://api.example.com/").body(Full::<Bytes>::default()).unwrap();
        let status = client.oneshot(get).await.unwrap().status();
        let (tokens, calls) = (tokens.load(Ordering::Relaxed), calls.load(Ordering::Relaxed));
        assert!(matches!((status.as_u16(), tokens, calls), (200, 2, 2) | (401, 1, 1)), "{status} {tokens} {calls}");
        if !raw {
            assert_eq!(status == 200, rejected, "{lines:?} says {errors:?}");
        }
    });
}

/// Writes one challenge, and tells its first error if it is of our scheme.
fn make(choices: &mut Choices<'_>, line: &mut String) -> Option<String> {
    let scheme = choices.pick(&SCHEMES);
    line.push_str(scheme);
    if choices.one_in(6) {
        // token68
        line.push(' ');
        line.push_str(&(choices.text("abYI09-._~+/", 8) + "Y"));
        line.push_str(choices.pick(&["", "=", "=="]));
        return None;
    }
    let mut error = None;
    let count = choices.below(4);
    for number in 0..count {
        line.push_str(if number == 0 {
            choices.pick(&[" ", "  ", "\t"])
        } else {
            choices.pick(&[", ", ",", " ,\t", ",,"])
        });
        let name = choices.pick(&["error", "ERROR", "realm", "error_description", "scope", "x-error", "error"]);
        line.push_str(name);
        line.push_str(choices.pick(&["=", "=", " = ", "= "]));
        let value = if name.eq_ignore_ascii_case("error") {
            choices.pick(&ERRORS).to_owned()
        } else {
            choices.text("ab ,=\"\\Bearer error=invalid_token", 24)
        };
        quote(choices, &value, line);
        if name.eq_ignore_ascii_case("error") && error.is_none() && !value.is_empty() {
            error = Some(value);
        }
    }
    error.filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

/// A token as it stands where it is one, or a quoted string, some of its characters as quoted-pairs.
fn quote(choices: &mut Choices<'_>, value: &str, line: &mut String) {
    let is_token = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_token && choices.one_in(2) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for letter in value.chars() {
        if matches!(letter, '"' | '\\') || choices.one_in(8) {
            line.push('\\');
        }
        line.push(letter);
    }
    line.push('"');
}
