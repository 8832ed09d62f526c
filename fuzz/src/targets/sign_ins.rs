//! What comes back from a browser, and what a device authorization endpoint answers.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use tower::service_fn;
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthorizationCode, ClientAuth, SignInErrorKind};

use super::choices::Choices;
use super::{body_of, json, run};

const TOKEN_URL: &str = "https://auth.example.com/token";
const SECRET: &str = "canary-Secret-0123456789abcdef";
const TOKEN: &str = "{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":3600}";

fn written(choices: &mut Choices<'_>, value: &str) -> String {
    match choices.below(3) {
        0 => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
        1 => value.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        // As it stands, where that is the same.
        _ if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) => value.to_owned(),
        _ => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
    }
}

/// A code is exchanged exactly if the redirect is this sign-in's, says no error and is not ambiguous; and nothing of it
/// stands in an error.
pub fn redirect(data: &[u8]) {
    let mut choices = Choices::new(data);
    run(async move {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let client = {
            let asked = asked.clone();
            service_fn(move |request: Request<Full<Bytes>>| {
                let asked = asked.clone();
                async move {
                    let body = body_of(request).await;
                    asked.lock().unwrap().push(body);
                    Ok::<_, std::io::Error>(json(TOKEN))
                }
            })
        };
        let code = AuthorizationCode::new("https://auth.example.com/authorize", "http://127.0.0.1:8976/callback");
        let cfg = AuthConfig::authorization_code(TOKEN_URL, ClientAuth::basic("id", SECRET), code);
        let cfg = cfg.origin("https://api.example.com").clock(TestClock::new()).build().unwrap();
        let sign_in = AuthLayer::builder(cfg).http_client(client).build().unwrap().handle().sign_in().unwrap();
        let query = sign_in.url().split_once('?').unwrap().1.to_owned();
        let state = query.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap().to_owned();

        let raw = choices.one_in(8);
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if !choices.one_in(8) {
            pairs.push(("state", state.clone()));
        }
        for _ in 0..choices.below(5) {
            let name = choices.pick(&["code", "code", "state", "error", "error_description", "x", "Code"]);
            let value = match choices.below(6) {
                0 if super::DISGUISED => SECRET.to_owned(),
                1 => state.clone(),
                2 => state[1..].to_owned(),
                3 => choices.pick(&["access_denied", "server_error", "", "invalid_scope"]).to_owned(),
                _ => choices.text("abc+ /&=%?#", 8),
            };
            pairs.push((name, value));
        }
        let turn = choices.below(pairs.len().max(1));
        pairs.rotate_left(turn);
        let mut text = choices
            .pick(&[
                "http://127.0.0.1:8976/callback?",
                "/callback?",
                "?",
                "",
                "com.example.app:/back?",
                "http://127.0.0.1:8976/a=b?",
            ])
            .to_owned();
        let parameters: Vec<_> =
            pairs.iter().map(|(name, value)| format!("{name}={}", written(&mut choices, value))).collect();
        text.push_str(&parameters.join("&"));
        text.push_str(choices.pick(&["", "", "#", "#_=_", "&"]));
        if raw {
            text = String::from_utf8_lossy(choices.rest()).into_owned();
        }

        let told: Vec<&str> = pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| *name).collect();
        let once = |name: &str| told.iter().filter(|own| **own == name).count();
        let value = |name: &str| {
            pairs.iter().find(|(own, value)| *own == name && !value.is_empty()).map(|(_, value)| value.as_str())
        };
        let good = ["state", "code", "error", "error_description"].iter().all(|name| once(name) <= 1)
            && value("state") == Some(&state)
            && value("error").is_none()
            && value("code").is_some();

        let result = sign_in.finish(&text).await;
        let asked = asked.lock().unwrap();
        if !raw {
            assert_eq!(result.is_ok(), good, "{text}: {result:?}");
        }
        assert_eq!(asked.len(), usize::from(result.is_ok()), "{text}");
        if let Some(body) = asked.first() {
            let sent = body.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap();
            let sent = percent_decode_str(sent).decode_utf8().unwrap();
            assert!(raw || Some(&*sent) == value("code"), "{sent}");
        }
        if let Err(error) = result {
            let told = format!("{error} {error:?} {:?} {:?}", error.code(), error.error_description());
            assert!(!told.contains(&state) && !told.contains(SECRET), "{told}");
            if !raw && value("state") != Some(&state) && once("state") <= 1 && good_names(&told_once(&pairs)) {
                assert_eq!(error.kind(), SignInErrorKind::WrongState, "{text}");
            }
        }
    });
}

fn told_once(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| (*name).to_owned()).collect()
}

/// No parameter that concerns us occurs twice.
fn good_names(names: &[String]) -> bool {
    ["state", "code", "error", "error_description"]
        .iter()
        .all(|name| names.iter().filter(|own| own == name).count() <= 1)
}

/// What a person is shown can be shown and opened.
pub fn device_answer(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut members = Vec::new();
    let names = [
        "device_code",
        "user_code",
        "verification_uri",
        "expires_in",
        "interval",
        "verification_uri_complete",
        "verification_url",
    ];
    for name in names {
        if choices.one_in(6) {
            continue;
        }
        let value = match choices.below(8) {
            0..=3 => match name {
                "device_code" => Value::from("canary-device"),
                "user_code" => Value::from("ABCD-EFGH"),
                "expires_in" => Value::from(choices.number()),
                "interval" => Value::from(choices.number()),
                _ => Value::from("https://auth.example.com/device"),
            },
            4 => Value::from(choices.pick(&[
                "http://a.example/",
                "javascript:alert(1)",
                "https://u@a.example/",
                "https://a.example/\u{1b}[2J",
                "//a",
                "file:///etc",
            ])),
            5 => Value::from(choices.text("AB \n\u{1b}\u{202e}\u{e9}", 200)),
            6 => Value::from(choices.number()),
            _ => Value::Null,
        };
        members.push(format!("\"{name}\":{value}"));
    }
    let status = choices.pick(&[200, 200, 200, 400, 500]);
    let body = match choices.below(8) {
        7 => choices.rest().to_vec(),
        _ => format!("{{{}}}", members.join(",")).into_bytes(),
    };
    run(async move {
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            let mut answer = json(body.clone());
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            async move { Ok::<_, std::io::Error>(answer) }
        });
        let cfg = AuthConfig::device(TOKEN_URL, ClientAuth::none("tv"))
            .device_authorization_url("https://auth.example.com/device_authorization");
        let cfg = cfg.origin("https://api.example.com").clock(TestClock::new()).build().unwrap();
        match AuthLayer::builder(cfg).http_client(client).build().unwrap().handle().sign_in_on_device().await {
            Ok(sign_in) => {
                assert_eq!(status, 200);
                for uri in [Some(sign_in.verification_uri()), sign_in.verification_uri_complete()].into_iter().flatten()
                {
                    let read: crate::Url = uri.parse().expect("a URL that browsers read too");
                    assert!(matches!(read.scheme(), "http" | "https") && read.username().is_empty(), "{uri}");
                    assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()));
                }
                assert!(!sign_in.user_code().chars().any(char::is_control) && !sign_in.user_code().is_empty());
                assert!(!format!("{sign_in:?}").contains("canary"));
            }
            Err(error) => assert!(!format!("{error} {error:?}").contains("canary")),
        }
    });
}
