//! `Retry-After` (RFC 9110 §10.2.3): seconds or a date.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, HeaderName, RETRY_AFTER};

/// The pause that the server asks for. A date is compared with the server's own clock where it tells it.
pub(in crate::endpoint) fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    const LONGEST: u64 = 365 * 24 * 3600;
    let value = text(headers, RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long pause all the same.
        return Some(Duration::from_secs(value.parse().unwrap_or(LONGEST).min(LONGEST)));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = text(headers, DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default().min(Duration::from_secs(LONGEST)))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests;
