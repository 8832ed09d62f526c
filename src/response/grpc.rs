//! `grpc-status` in a response's headers, read without a gRPC library (whose parsers may panic on hostile details).

use http::{HeaderMap, HeaderName};

pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const UNAUTHENTICATED: u32 = 16;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The status of a call that ended in its headers ("Trailers-Only"); a value that is no number is `UNKNOWN`.
///
/// Only such a call may be sent again: with ordinary headers it is committed, and its status follows in the trailers.
pub(crate) fn trailers_only_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(&GRPC_STATUS).map(|value| number(value.as_bytes()).unwrap_or(UNKNOWN))
}

/// Whether a gRPC call ended in its headers, so that no trailers say more about it.
///
/// Comparing a name with a constant is cheaper than hashing one, and most answers have few headers.
#[inline]
pub(crate) fn has_status(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == GRPC_STATUS)
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_status_is_digits() {
        let table: &[(&[u8], u32)] = &[
            (b"0", 0),
            (b"7", 7),
            (b"16", UNAUTHENTICATED),
            (b"99", 99),
            (b"", UNKNOWN),
            (b" 16", UNKNOWN),
            (b"+16", UNKNOWN),
            (b"-1", UNKNOWN),
            (b"16;", UNKNOWN),
            (b"0x10", UNKNOWN),
            (b"4294967312", UNKNOWN),
            (b"\xff\xfe", UNKNOWN),
        ];
        for (value, expected) in table {
            let headers = HeaderMap::from_iter([(GRPC_STATUS.clone(), HeaderValue::from_bytes(value).unwrap())]);
            assert_eq!(trailers_only_status(&headers), Some(*expected), "{}", value.escape_ascii());
        }
        assert_eq!(trailers_only_status(&HeaderMap::new()), None);
    }
}
