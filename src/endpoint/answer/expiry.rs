//! The expiry members of an answer: numbers, strings, moments, nonsense.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::members::{Member, Members};

/// What a member says.
#[derive(Debug, PartialEq)]
pub(super) enum Read<T> {
    Known(T),
    Absent,
    Unusable,
}

/// Longer than any token lives; keeps sums of times representable.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Below this a number cannot be a moment (2001-09-09), above it no lifetime.
const FIRST_MOMENT: f64 = 1e9;

/// From here on a number counts milliseconds: as seconds it would be the year 33658, as milliseconds it is 2001.
const FIRST_MILLIS: f64 = 1e12;

/// `expires_in`, or an `expires` too small to be a moment (Facebook, Stack Exchange).
pub(super) fn lifetime(members: &Members<'_>) -> Read<Duration> {
    if members.has("expires_in") {
        return read(members.get("expires_in").and_then(number).and_then(span));
    }
    match members.get("expires").and_then(number) {
        Some(seconds) if seconds < FIRST_MOMENT => read(span(seconds)),
        _ => Read::Absent,
    }
}

/// `expires_at`, `expires_on`, or an `expires` that is a moment; at most a year from `now`.
pub(super) fn moment(members: &Members<'_>, now: SystemTime) -> Read<SystemTime> {
    let Some(name) = ["expires_at", "expires_on", "expires"].into_iter().find(|name| members.has(name)) else {
        return Read::Absent;
    };
    let member = members.get(name);
    let at = match member.and_then(number) {
        Some(seconds) if name == "expires" && seconds < FIRST_MOMENT => return Read::Absent,
        Some(seconds) => epoch(seconds),
        None => match member {
            Some(Member::Text(text)) => rfc3339(text.trim()).or_else(|| httpdate::parse_http_date(text.trim()).ok()),
            _ => None,
        },
    };
    read(at.map(|at| now.checked_add(YEAR).map_or(at, |latest| at.min(latest))))
}

/// `refresh_in`, which Entra sends with long-lived tokens.
pub(super) fn refresh_in(members: &Members<'_>) -> Read<Duration> {
    if members.has("refresh_in") {
        read(members.get("refresh_in").and_then(number).and_then(span))
    } else {
        Read::Absent
    }
}

/// `interval`, between two polls (RFC 8628 §3.2).
pub(super) fn interval(members: &Members<'_>) -> Option<Duration> {
    members.get("interval").and_then(number).and_then(span)
}

fn read<T>(value: Option<T>) -> Read<T> {
    value.map_or(Read::Unusable, Read::Known)
}

/// A JSON number, or a string that holds one.
fn number(member: &Member<'_>) -> Option<f64> {
    let text = match member {
        Member::Text(text) => text.trim(),
        Member::Other(raw) => raw,
    };
    // `parse` also knows words such as `inf`.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    numeric.then(|| text.parse::<f64>().ok()).flatten()
}

/// Whole seconds, rounded down; zero and less mean nothing.
fn span(seconds: f64) -> Option<Duration> {
    (seconds >= 1.0).then(|| Duration::from_secs(seconds.min(YEAR.as_secs_f64()) as u64))
}

fn epoch(number: f64) -> Option<SystemTime> {
    let seconds = if number >= FIRST_MILLIS { number / 1000.0 } else { number };
    if seconds < FIRST_MOMENT {
        return None;
    }
    // Nothing real is later than the year 9999; a float beyond would not fit.
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(253_402_300_799.0) as u64))
}

/// `2025-01-15T14:30:00Z`, with fraction and offset. Without an offset it could be any of 26 hours.
fn rfc3339(text: &str) -> Option<SystemTime> {
    let digits = |from: usize, len: usize| -> Option<i64> {
        let part = text.get(from..from + len)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let is_at = |at: usize, any_of: &[u8]| text.as_bytes().get(at).is_some_and(|b| any_of.contains(b));
    if !(is_at(4, b"-") && is_at(7, b"-") && is_at(10, b"Tt ") && is_at(13, b":") && is_at(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = offset(rest)?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    in_range.then(|| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))).flatten()
}

/// `Z` or `+01:00`, in seconds.
fn offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |part: &str| if part.len() == 2 { part.parse::<u8>().ok() } else { None };
    Some(sign * (i64::from(two(hours)?) * 3600 + i64::from(two(minutes)?) * 60))
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(at: SystemTime) -> u64 {
        at.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn rfc3339_is_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2025-01-15T14:30:00Z", 1_736_951_400),
            ("2025-01-15t14:30:00.123z", 1_736_951_400),
            ("2025-01-15 15:30:00+01:00", 1_736_951_400),
            ("2025-01-15T09:00:00-05:30", 1_736_951_400),
            ("2400-12-31T00:00:00Z", 13_601_001_600),
        ] {
            assert_eq!(rfc3339(text).map(unix), Some(expected), "{text}");
        }
        for text in [
            "",
            "2025-01-15",
            "2025-01-15T14:30:00",
            "2025-13-15T14:30:00Z",
            "2025-01-15T24:30:00Z",
            "2025-01-15T14:30Z",
            "1969-12-31T23:59:59Z",
            "+025-01-15T14:30:00Z",
            "2025-01-15T14:30:00+1:00",
            "é025-01-15T14:30:00Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
