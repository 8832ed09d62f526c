//! What came back, without showing it: kind, lifetime by each source, scopes, clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tower_oauth2_client::Token;

use crate::client::Watched;
use crate::file::Loaded;
use crate::report::Report;

/// More than this between two clocks breaks assertions and lifetimes.
const MOST_SKEW: i64 = 30;

pub(crate) fn describe(token: &Token, loaded: &Loaded, watched: &Watched, report: &Report) {
    let exchange = watched.last();
    let answer = exchange.as_ref().and_then(|exchange| exchange.json.as_ref());
    let claims = claims(token.access_token());
    let kind = if claims.is_some() { "a JWT" } else { "opaque" };
    report.ok(&format!("type {}, {kind}, {} bytes", token.scheme(), token.access_token().len()));
    lifetime(answer, claims.as_ref(), report);
    scopes(token, loaded, report);
    if let Some(skew) = exchange.as_ref().and_then(|exchange| exchange.skew) {
        let told = format!(
            "the server's clock is {} s {} this machine's",
            skew.abs(),
            if skew < 0 { "behind" } else { "ahead of" }
        );
        if skew.abs() > MOST_SKEW {
            report.note(&told, "set this machine's clock (NTP); if it is right, tell who runs the server");
        } else {
            report.ok("both clocks agree");
        }
    }
}

fn lifetime(answer: Option<&Value>, claims: Option<&Value>, report: &Report) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let announced = answer.and_then(|answer| answer.get("expires_in")).map(ToString::to_string);
    let exp = claims.and_then(|claims| claims.get("exp")).and_then(Value::as_f64).map(|exp| exp as i64 - now as i64);
    match (&announced, exp) {
        (None, None) if !names_an_end(answer) => report.note(
            "no lifetime is announced: an hour is assumed",
            "say what is known: expiry = { fixed = \"30m\" }, or unknown_expiry",
        ),
        (None, None) => report.ok("its lifetime is announced under another name"),
        (Some(announced), None) => report.ok(&format!("lifetime: {announced} s by `expires_in`")),
        (None, Some(exp)) => report.ok(&format!("lifetime: {exp} s by `exp` in the token")),
        (Some(announced), Some(exp)) => {
            let told = format!("lifetime: {announced} s by `expires_in`, {exp} s by `exp` in the token");
            let differs =
                announced.trim_matches('"').parse::<i64>().is_ok_and(|announced| (announced - exp).abs() > 60);
            if differs {
                report.note(&told, "they differ: where `expires_in` is a constant, use expiry = \"jwt_exp\"");
            } else {
                report.ok(&told);
            }
        }
    }
    if exp.is_some_and(|exp| exp <= 0) {
        report.note("by `exp` it has expired already", "one of the clocks is wrong, or a cache answers");
    }
}

/// Whether a member of the answer may be a lifetime by another name.
fn names_an_end(answer: Option<&Value>) -> bool {
    let mut names = answer.and_then(Value::as_object).into_iter().flat_map(|members| members.keys());
    names.any(|name| name.to_ascii_lowercase().contains("expir") || name.to_ascii_lowercase().contains("valid"))
}

fn scopes(token: &Token, loaded: &Loaded, report: &Report) {
    let asked = loaded.scopes();
    let Some(granted) = token.scopes() else {
        return if asked.is_empty() {
            report.ok("no scopes were asked for, and the answer names none")
        } else {
            report.ok(&format!("scopes asked for: {}; the answer names none, so all", asked.join(" ")))
        };
    };
    let missing: Vec<&str> =
        asked.iter().map(String::as_str).filter(|asked| !granted.iter().any(|one| one == *asked)).collect();
    if missing.is_empty() {
        report.ok(&format!("scopes granted: {}", granted.as_str()));
    } else {
        report.note(
            &format!("scopes granted: {}; asked for and not granted: {}", granted.as_str(), missing.join(" ")),
            "allow them for this client at the server; require_granted_scopes = true makes it an error",
        );
    }
}

/// What a token says, if it is a JWT.
pub(crate) fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    claims.is_object().then_some(claims)
}
