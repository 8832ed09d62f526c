//! `Retry-After` in all its forms, and nonsense.

use super::*;

fn pause(value: &str, date: Option<&str>) -> Option<u64> {
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, value.parse().unwrap());
    date.map(|date| headers.insert(DATE, date.parse().unwrap()));
    let now = httpdate::parse_http_date("Wed, 15 Jan 2025 14:00:00 GMT").unwrap();
    read(&headers, now).map(|pause| pause.as_secs())
}

#[test]
fn seconds_dates_and_nonsense() {
    let date = "Wed, 15 Jan 2025 14:01:00 GMT";
    assert_eq!(pause("120", None), Some(120));
    assert_eq!(pause(" 0 ", None), Some(0));
    assert_eq!(pause(date, None), Some(60));
    assert_eq!(pause(date, Some("Wed, 15 Jan 2025 14:00:50 GMT")), Some(10));
    assert_eq!(pause(date, Some("Wed, 15 Jan 2025 15:00:00 GMT")), Some(0));
    assert_eq!(pause(date, Some("yesterday")), Some(60));
    assert_eq!(pause("Fri, 31 Dec 9999 23:59:59 GMT", None), Some(365 * 24 * 3600));
    assert_eq!(pause("99999999999999999999999999", None), Some(365 * 24 * 3600));
    for nonsense in ["", "-5", "1.5", "soon", "1 2", "0x10"] {
        assert_eq!(pause(nonsense, None), None, "{nonsense}");
    }
}
