//! What a server remembers of the requests it saw.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::types::Now;

/// A request as a server saw it. `Debug` shows neither header values nor query nor body: they hold credentials.
#[derive(Clone)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// The URI as it came: with authority in-process, without it over HTTP/1.1.
    pub uri: Uri,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; empty until it has been read to its end.
    pub body: Bytes,
    /// When the request arrived, by the server's [`TestClock`](super::TestClock).
    pub at: Now,
    /// How many requests the server had in flight then, this one included.
    pub in_flight: usize,
}

impl RecordedRequest {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of an `Authorization: Bearer` header.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The token of an `Authorization: DPoP` header (RFC 9449 §7.1).
    pub fn dpop_token(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("DPoP ")
    }

    /// A parameter of a form body, decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        form(&self.body).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_len", &self.body.len())
            .field("at", &self.at)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}

/// Keeps the requests of one server and counts those in flight.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Records>>);

#[derive(Default)]
struct Records {
    requests: Vec<RecordedRequest>,
    in_flight: usize,
    max_in_flight: usize,
}

impl Recorder {
    /// A request has arrived; it is in flight until the returned guard is dropped.
    pub(super) fn arrive(&self, head: &Parts, at: Now) -> Arrival {
        let mut records = lock(&self.0);
        records.in_flight += 1;
        records.max_in_flight = records.max_in_flight.max(records.in_flight);
        let request = RecordedRequest {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            body: Bytes::new(),
            at,
            in_flight: records.in_flight,
        };
        records.requests.push(request);
        Arrival { recorder: self.clone(), index: records.requests.len() - 1 }
    }

    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.0).requests.clone()
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.0).requests.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        lock(&self.0).in_flight
    }

    pub(super) fn max_in_flight(&self) -> usize {
        lock(&self.0).max_in_flight
    }
}

/// One request in flight.
pub(super) struct Arrival {
    recorder: Recorder,
    index: usize,
}

impl Arrival {
    /// The request's body has been read.
    pub(super) fn body(&self, body: Bytes) {
        if let Some(request) = lock(&self.recorder.0).requests.get_mut(self.index) {
            request.body = body;
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        lock(&self.recorder.0).in_flight -= 1;
    }
}

/// Name-value pairs of a form, decoded; a value that is not UTF-8 is made so.
pub(super) fn form(body: &[u8]) -> Vec<(String, String)> {
    let body = String::from_utf8_lossy(body);
    let pairs = body.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decode(name), form_decode(value))
        })
        .collect()
}

pub(super) fn form_decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A test that panicked while it held the lock should not hide its own message behind another panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::TestClock;
    use crate::types::Clock;

    fn head(uri: &str) -> Parts {
        let request = http::Request::get(uri).header("authorization", "Bearer canary").body(()).unwrap();
        request.into_parts().0
    }

    #[test]
    fn in_flight_counts_what_is_in_hand_and_its_peak() {
        let recorder = Recorder::default();
        let now = TestClock::new().now();
        let first = recorder.arrive(&head("/a"), now);
        let second = recorder.arrive(&head("/b"), now);
        second.body(Bytes::from_static(b"x=1+%2B&y"));
        assert_eq!(recorder.in_flight(), 2);
        drop((first, second));
        assert_eq!((recorder.in_flight(), recorder.max_in_flight(), recorder.count()), (0, 2, 2));

        let requests = recorder.requests();
        assert_eq!(requests[1].in_flight, 2);
        assert_eq!(requests[1].param("x").as_deref(), Some("1 +"));
        assert_eq!(requests[1].param("y").as_deref(), Some(""));
        assert_eq!(requests[1].param("z"), None);
        assert_eq!(requests[0].bearer(), Some("canary"));
    }

    #[test]
    fn debug_shows_no_credentials() {
        let recorder = Recorder::default();
        recorder.arrive(&head("/a?access_token=canary"), TestClock::new().now()).body(Bytes::from_static(b"canary"));
        let printed = format!("{:?}", recorder.requests());
        assert!(printed.contains("authorization") && !printed.contains("canary"), "{printed}");
    }
}
