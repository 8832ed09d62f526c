//! Keep what a request needs to be sent once more, and rebuild it.

use http::{Method, Request};
use http_body::Body;

use super::SpecialHeaders;
use super::body::{BodyCopy, ReplayVtable};
use super::head::Head;
use crate::types::Replay;

/// Which requests are copied, and how much of a recorded body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayPolicy {
    /// What holds for requests that do not say otherwise in their extensions.
    pub(crate) replay: Replay,
    /// How many bytes of a body are recorded before the recording is given up. Bodies that can be cloned share their
    /// bytes and are not counted.
    pub(crate) cap: usize,
}

impl Default for ReplayPolicy {
    fn default() -> Self {
        Self { replay: Replay::default(), cap: 64 * 1024 }
    }
}

/// Whether a request may be sent twice: the policy allows it, and it does not hand over its connection (CONNECT, `Upgrade`).
#[inline]
pub(crate) fn may_replay(policy: Replay, method: &Method, special: SpecialHeaders) -> bool {
    policy.allows(method) && !special.upgrade && *method != Method::CONNECT
}

/// What is kept of a request: its head, and a second body or the way to one.
pub(crate) struct ReplayCopy<B: Body> {
    head: Head,
    body: BodyCopy<B>,
}

/// What came of the attempt to keep a request by looking at it.
pub(crate) enum ReplayAttempt<K> {
    /// Copied, or not to be copied.
    Done(Option<K>),
    /// Its body must be recorded, for which it must be taken apart.
    ByRecording,
}

/// Keeps what is needed to send this request twice, unless its body must be recorded.
///
/// By reference, since a request that is handed on and back is copied twice.
///
/// Call it before a token is put in, and only for requests that [`may_replay`] allows. Never copied: bodies that nobody knows
/// how to send twice.
#[inline]
pub(crate) fn copy_for_replay<B: Body>(
    request: &Request<B>,
    vtable: Option<ReplayVtable<B>>,
) -> ReplayAttempt<ReplayCopy<B>> {
    match vtable {
        None => ReplayAttempt::Done(None),
        Some(ReplayVtable::Record { .. }) => ReplayAttempt::ByRecording,
        Some(ReplayVtable::TryClone(try_clone)) => ReplayAttempt::Done(try_clone(request.body()).and_then(|body| {
            let head = Head::copy_for_replay(request)?;
            Some(ReplayCopy { head, body: BodyCopy::Ready(body) })
        })),
        Some(ReplayVtable::Clone(clone)) => ReplayAttempt::Done(
            Head::copy_for_replay(request)
                .map(|head| ReplayCopy { head, body: BodyCopy::Ready(clone(request.body())) }),
        ),
    }
}

/// The same for a body that must be recorded: the request that comes back is to be sent instead of the one that went in.
pub(crate) fn record<B: Body>(
    request: Request<B>,
    vtable: Option<ReplayVtable<B>>,
    cap: usize,
) -> (Request<B>, Option<ReplayCopy<B>>) {
    let Some(ReplayVtable::Record { record, erase }) = vtable else { return (request, None) };
    let Some(head) = Head::copy_for_replay(&request) else { return (request, None) };
    let (parts, body) = request.into_parts();
    let (body, copy) = record(body, erase, cap);
    (Request::from_parts(parts, body), copy.map(|body| ReplayCopy { head, body }))
}

impl<B: Body> ReplayCopy<B> {
    /// Whether [`rebuild`](ReplayCopy::rebuild) gives a request by now.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_complete()
    }

    /// The request once more, as it was when it was copied. `None` if its body was too large to record, failed, or is
    /// still in the hands of the transport.
    pub(crate) fn rebuild(self) -> Option<Request<B>> {
        let body = self.body.rebuild()?;
        self.head.rebuild(body)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::request::body::vtable_of;

    const CAP: usize = 64 * 1024;

    fn copy_known<B>(request: Request<B>) -> (Request<B>, Option<ReplayCopy<B>>)
    where
        B: Body<Error: Send> + 'static,
    {
        match copy_for_replay(&request, vtable_of()) {
            ReplayAttempt::Done(copy) => (request, copy),
            ReplayAttempt::ByRecording => record(request, vtable_of(), CAP),
        }
    }

    async fn bytes<B: Body<Error: std::fmt::Debug>>(body: B) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    /// Behaviour 61.
    #[tokio::test]
    async fn a_buffered_body_is_sent_twice_byte_for_byte() {
        let full = Full::new(Bytes::from("hello"));
        let request = || Request::post("https://api.example.com/v1?x=1").header("content-length", "5");
        let (first, copy) = copy_known(request().body(full.clone()).unwrap());
        check(first, copy).await;
        let (first, copy) = copy_known(request().body(BoxBody::new(full)).unwrap());
        check(first, copy).await;

        async fn check<B: Body<Error: std::fmt::Debug>>(first: Request<B>, copy: Option<ReplayCopy<B>>) {
            let second = copy.unwrap().rebuild().unwrap();
            assert_eq!((first.method(), first.uri()), (second.method(), second.uri()));
            assert_eq!(first.headers(), second.headers());
            assert_eq!(first.body().size_hint().exact(), Some(5));
            assert_eq!(second.body().size_hint().exact(), Some(5));
            assert_eq!(bytes(first.into_body()).await, "hello");
            assert_eq!(bytes(second.into_body()).await, "hello");
        }
    }

    /// Behaviour 69.
    #[test]
    fn expect_is_kept() {
        let request = Request::post("/").header("expect", "100-continue").body(Full::new(Bytes::from("a"))).unwrap();
        let (first, copy) = copy_known(request);
        assert_eq!(first.headers()["expect"], "100-continue");
        assert_eq!(copy.unwrap().rebuild().unwrap().headers()["expect"], "100-continue");
    }

    #[test]
    fn a_request_that_hands_over_its_connection_is_not_kept() {
        let may = |request: Request<()>| {
            may_replay(Replay::AnyReplayable, request.method(), SpecialHeaders::find(request.headers(), None))
        };
        assert!(!may(Request::connect("api.example.com:443").body(()).unwrap()));
        assert!(!may(Request::get("/").header("upgrade", "websocket").body(()).unwrap()));
        assert!(may(Request::get("/").body(()).unwrap()));
    }

    /// Behaviour 62.
    #[test]
    fn an_unknown_body_is_sent_as_it_is() {
        let (first, copy) = copy_known(Request::post("/").body(Full::new(VecDeque::from([7]))).unwrap());
        assert!(copy.is_none());
        assert_eq!(first.into_body().into_inner(), Some(VecDeque::from([7])));
    }

    /// It lives in every request's future.
    #[test]
    fn what_is_kept_is_small() {
        assert!(
            size_of::<Option<ReplayCopy<Full<Bytes>>>>() <= 112,
            "{}",
            size_of::<Option<ReplayCopy<Full<Bytes>>>>()
        );
        assert!(size_of::<Option<ReplayCopy<BoxBody<Bytes, std::io::Error>>>>() <= 88);
    }
}
