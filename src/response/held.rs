//! Rejected responses that are held while a token is fetched: what is read of them meanwhile, and how many of a layer may be held unread.
//!
//! An unread response takes room in the window of its HTTP/2 connection. If enough of them do, nothing else comes through
//! there, and that may be the very token they wait for. So a body that can be made again from what was read is read ahead,
//! up to 64 KiB. One that cannot be made, such as hyper's own, is held unread as long as few are and take little of a window,
//! and read and dropped then.

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};

use crate::types::BoxError;

/// The responses of a layer that are held.
#[derive(Default)]
pub(crate) struct HeldResponses {
    unread: AtomicUsize,
    /// What those take of windows.
    unread_bytes: AtomicUsize,
    /// In memory.
    bytes: AtomicUsize,
}

impl HeldResponses {
    /// How many may be held unread: at 64 KiB each they fill less than the 5 MiB that hyper's client lets a connection have
    /// unread.
    const MAX_UNREAD: usize = 64;
    /// How much of the windows of HTTP/2 connections they may take: half of the 64 KiB that a connection has which nobody
    /// configured (RFC 9113 §6.9.2).
    const MAX_UNREAD_BYTES: usize = 32 * 1024;
    /// A refusal whose length is not known. Most are shorter.
    const UNKNOWN_BYTES: usize = 1024;
    /// How much may have been read ahead, of one response and of all.
    const MAX_BYTES: usize = 64 * 1024;
    const MAX_BYTES_OF_ALL: usize = 64 * Self::MAX_BYTES;

    /// Whether another one may be held unread that takes so many bytes of a window; to be released then.
    pub(crate) fn acquire(&self, bytes: usize) -> bool {
        let next = |held: usize| held.checked_add(1).filter(|held| *held <= Self::MAX_UNREAD);
        if self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
            return false;
        }
        // One alone may be as long as it likes.
        let next = |held: usize| held.checked_add(bytes).filter(|all| held == 0 || *all <= Self::MAX_UNREAD_BYTES);
        let fits = self.unread_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !fits {
            self.unread.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.unread.fetch_sub(1, Ordering::Relaxed);
        self.unread_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether there is memory for so many bytes more of a response of which there are `read` already.
    fn acquire_bytes(&self, read: usize, more: usize) -> bool {
        let next = |bytes: usize| bytes.checked_add(more).filter(|bytes| *bytes <= Self::MAX_BYTES_OF_ALL);
        read.checked_add(more).is_some_and(|all| all <= Self::MAX_BYTES)
            && self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    pub(crate) fn release_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Reads a response's body to its end and drops what it reads. The body stays what it is, without its content.
pub(crate) type Discard<T> = fn(&mut T, &mut Context<'_>) -> Poll<()>;

/// What can be done with a response's body while it is held.
pub(crate) struct Holding<T> {
    /// Takes the body out, to be read ahead; `None` where it could not be put back.
    pub(crate) read_ahead: Option<fn(&mut T) -> BoxReadAhead<T>>,
    pub(crate) discard: Option<Discard<T>>,
    /// How much of its connection's window it takes if it is not read.
    pub(crate) window: fn(&T) -> usize,
}

/// Over HTTP/1 nothing: there each response has its connection to itself.
fn window(version: Version, length: Option<u64>) -> usize {
    match length {
        _ if version < Version::HTTP_2 => 0,
        Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
        None => HeldResponses::UNKNOWN_BYTES,
    }
}

fn window_of<B: Body>(response: &Response<B>) -> usize {
    window(response.version(), response.body().size_hint().upper())
}

pub(crate) type BoxReadAhead<T> = Box<dyn ReadAhead<T> + Send>;

/// A body that was taken out of its response and is read ahead.
pub(crate) trait ReadAhead<T> {
    /// Reads what has come. `read`: how many bytes are in memory.
    fn poll(&mut self, held: &HeldResponses, read: &mut usize, cx: &mut Context<'_>) -> Ahead;

    /// Puts it back: what was read first, then the rest.
    fn put_back(self: Box<Self>, response: &mut T);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// All is read, or there is more to come.
    Waits,
    /// There is more than may be kept.
    TooLong,
}

/// What can be done with bodies of this type; `None`: nothing, as far as is known.
pub(crate) fn holding_of<B: Body + 'static>() -> Option<Holding<Response<B>>> {
    let known = same_type(discarded::<hyper::body::Incoming>)
        .or_else(|| same_type(read_ahead::<BoxBody<Bytes, hyper::Error>>))
        .or_else(|| same_type(read_ahead::<BoxBody<Bytes, BoxError>>))
        .or_else(|| same_type(read_ahead::<BoxBody<Bytes, std::io::Error>>))
        .or_else(|| same_type(read_ahead::<BoxBody<Bytes, Infallible>>))
        .or_else(|| same_type(read_ahead::<UnsyncBoxBody<Bytes, hyper::Error>>))
        .or_else(|| same_type(read_ahead::<UnsyncBoxBody<Bytes, BoxError>>))
        .or_else(|| same_type(read_ahead::<UnsyncBoxBody<Bytes, std::io::Error>>))
        .or_else(|| same_type(read_ahead::<UnsyncBoxBody<Bytes, Infallible>>))
        .or_else(|| same_type(discarded::<BoxBody<Bytes, B::Error>>))
        .or_else(|| same_type(discarded::<UnsyncBoxBody<Bytes, B::Error>>));
    #[cfg(feature = "tonic")]
    let known = known.or_else(|| same_type(read_ahead::<tonic::body::Body>));
    #[cfg(feature = "axum")]
    let known = known.or_else(|| same_type(read_ahead::<axum_core::body::Body>));
    known.map(|holding| holding())
}

#[inline]
fn same_type<A: 'static, B: 'static>(holding: fn() -> Holding<Response<A>>) -> Option<fn() -> Holding<Response<B>>> {
    (&holding as &dyn Any).downcast_ref::<fn() -> Holding<Response<B>>>().copied()
}

fn discarded<B: Body + Unpin>() -> Holding<Response<B>> {
    Holding { read_ahead: None, discard: Some(discard), window: window_of }
}

fn discard<B: Body + Unpin>(response: &mut Response<B>, cx: &mut Context<'_>) -> Poll<()> {
    let body = response.body_mut();
    while !body.is_end_stream() {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    Poll::Ready(())
}

fn read_ahead<B: Remade>() -> Holding<Response<B>> {
    let take = |response: &mut Response<B>| -> BoxReadAhead<Response<B>> {
        let body = std::mem::replace(response.body_mut(), B::remake(ReadBody::empty()));
        Box::new(Reading::new(body))
    };
    Holding { read_ahead: Some(take), discard: Some(discard), window: window_of }
}

/// A body that hides what it is made of, so that it can be made again.
trait Remade: Body<Data = Bytes, Error: Send> + Sized + Unpin + Send + 'static {
    fn remake(body: ReadBody<Self>) -> Self;
}

impl<E: Send + Sync + 'static> Remade for BoxBody<Bytes, E> {
    fn remake(body: ReadBody<Self>) -> Self {
        Self::new(body)
    }
}

impl<E: Send + 'static> Remade for UnsyncBoxBody<Bytes, E> {
    fn remake(body: ReadBody<Self>) -> Self {
        Self::new(body)
    }
}

#[cfg(feature = "tonic")]
impl Remade for tonic::body::Body {
    fn remake(body: ReadBody<Self>) -> Self {
        Self::new(body)
    }
}

#[cfg(feature = "axum")]
impl Remade for axum_core::body::Body {
    fn remake(body: ReadBody<Self>) -> Self {
        Self::new(body)
    }
}

/// A body that was read in part: that part first.
struct ReadBody<B: Body> {
    read: VecDeque<Result<Frame<Bytes>, B::Error>>,
    rest: Option<B>,
}

impl<B: Body> ReadBody<B> {
    fn empty() -> Self {
        Self { read: VecDeque::new(), rest: None }
    }
}

/// Nothing of it is pinned.
impl<B: Body + Unpin> Unpin for ReadBody<B> {}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let read = read.fold(0_u64, |sum, data| sum.saturating_add(data.len() as u64));
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

struct Reading<B: Body> {
    body: ReadBody<B>,
    is_over: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Reading<B> {
    fn new(body: B) -> Self {
        let is_over = body.is_end_stream();
        Self { body: ReadBody { read: VecDeque::new(), rest: Some(body) }, is_over }
    }

    fn poll(&mut self, held: &HeldResponses, read: &mut usize, cx: &mut Context<'_>) -> Ahead {
        while !self.is_over
            && let Some(rest) = &mut self.body.rest
            && let Poll::Ready(frame) = Pin::new(&mut *rest).poll_frame(cx)
        {
            let Some(frame) = frame else {
                self.body.rest = None;
                break;
            };
            self.is_over = frame.is_err() || rest.is_end_stream();
            // A frame without data counts too: there may be no end of them.
            let len = frame.as_ref().ok().and_then(Frame::data_ref).map_or(1, |data| data.len().max(1));
            self.body.read.push_back(frame);
            if !held.acquire_bytes(*read, len) {
                return Ahead::TooLong;
            }
            *read = read.saturating_add(len);
        }
        Ahead::Waits
    }
}

impl<B: Remade> ReadAhead<Response<B>> for Reading<B> {
    fn poll(&mut self, held: &HeldResponses, read: &mut usize, cx: &mut Context<'_>) -> Ahead {
        self.poll(held, read, cx)
    }

    fn put_back(self: Box<Self>, response: &mut Response<B>) {
        *response.body_mut() = B::remake(self.body);
    }
}

/// The same for reqwest's responses, which have their body and their URL inside.
#[cfg(feature = "reqwest")]
pub(crate) fn holding_of_reqwest() -> Option<Holding<reqwest::Response>> {
    Some(Holding {
        read_ahead: Some(|response| Box::new(reqwest_response::ReadingWhole::new(response))),
        discard: None,
        window: |response| window(response.version(), response.content_length()),
    })
}

#[cfg(feature = "reqwest")]
mod reqwest_response {
    use reqwest::{Body, ResponseBuilderExt as _, Url};

    use super::*;

    pub(super) struct ReadingWhole {
        reading: Reading<Body>,
        url: Url,
    }

    impl ReadingWhole {
        pub(super) fn new(response: &mut reqwest::Response) -> Self {
            let url = response.url().clone();
            let whole = std::mem::replace(response, Response::new(Body::default()).into());
            let (parts, body) = Response::<Body>::from(whole).into_parts();
            *response = Response::from_parts(parts, Body::default()).into();
            Self { reading: Reading::new(body), url }
        }
    }

    impl ReadAhead<reqwest::Response> for ReadingWhole {
        fn poll(&mut self, held: &HeldResponses, read: &mut usize, cx: &mut Context<'_>) -> Ahead {
            self.reading.poll(held, read, cx)
        }

        fn put_back(self: Box<Self>, response: &mut reqwest::Response) {
            let hollow = std::mem::replace(response, Response::new(Body::default()).into());
            let (parts, _) = Response::<Body>::from(hollow).into_parts();
            // The URL is known by an extension that only a builder makes.
            let Ok(of_url) = Response::builder().url(self.url).body(()) else { return };
            let mut whole = Response::from_parts(parts, Body::wrap(self.reading.body));
            whole.extensions_mut().extend(of_url.into_parts().0.extensions);
            *response = whole.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Boxed = BoxBody<Bytes, std::io::Error>;

    #[test]
    fn so_many_are_held_unread_and_no_more() {
        let held = HeldResponses::default();
        assert!((0..HeldResponses::MAX_UNREAD).all(|_| held.acquire(0)));
        assert!(!held.acquire(0));
        held.release(0);
        assert!(held.acquire(0) && !held.acquire(0));
    }

    /// Behaviour 134 (HTTP/2 windows): what few long responses take of a window that nobody made larger.
    #[test]
    fn so_much_of_a_window_is_taken_and_no_more() {
        let held = HeldResponses::default();
        assert!(held.acquire(usize::MAX), "one alone may be as long as it likes");
        assert!(!held.acquire(1));
        held.release(usize::MAX);
        assert!((0..8).all(|_| held.acquire(4096)));
        assert!(!held.acquire(1) && !held.acquire(usize::MAX));
        assert!(held.acquire(0), "over HTTP/1");
        held.release(4096);
        assert!(held.acquire(4000));

        let mut response = Response::new(Full::new(Bytes::from("hello")));
        assert_eq!(window_of(&response), 0);
        *response.version_mut() = Version::HTTP_2;
        assert_eq!(window_of(&response), 5);
        let unknown = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let (head, _) = response.into_parts();
        assert_eq!(window_of(&Response::from_parts(head, unknown)), HeldResponses::UNKNOWN_BYTES);
    }

    #[test]
    fn so_much_is_read_ahead_and_no_more() {
        let held = HeldResponses::default();
        let most = HeldResponses::MAX_BYTES;
        assert!(!held.acquire_bytes(1, most) && !held.acquire_bytes(0, usize::MAX));
        assert!((0..64).all(|_| held.acquire_bytes(0, most)));
        assert!(!held.acquire_bytes(0, 1), "4 MiB of all");
        held.release_bytes(most);
        assert!(held.acquire_bytes(0, most));
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_empty() {
        let body = Full::new(Bytes::from("hello")).map_err(std::io::Error::other).boxed();
        let discard = holding_of::<Boxed>().unwrap().discard.unwrap();
        let mut response = Response::new(body);
        std::future::poll_fn(|cx| discard(&mut response, cx)).await;
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert!(holding_of::<Full<Bytes>>().is_none(), "it is in memory, and takes room in no window");
        assert!(holding_of::<hyper::body::Incoming>().unwrap().read_ahead.is_none());
    }

    fn chunks(sizes: &'static [usize], fails: bool) -> Boxed {
        let frames = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size]))));
        let end = fails.then(|| Err(std::io::Error::other("cut")));
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames.chain(end).collect::<Vec<_>>())))
    }

    /// Behaviour 134 (HTTP/2 windows): what is read ahead is handed out as it came.
    #[tokio::test]
    async fn a_body_that_was_read_ahead_is_whole() {
        for (sizes, fails, expected) in [
            (&[5, 0, 7][..], false, Ahead::Waits),
            (&[][..], false, Ahead::Waits),
            (&[5][..], true, Ahead::Waits),
            (&[60 * 1024, 5 * 1024, 3][..], false, Ahead::TooLong),
        ] {
            let held = HeldResponses::default();
            let mut response = Response::new(chunks(sizes, fails));
            let mut ahead = holding_of::<Boxed>().unwrap().read_ahead.unwrap()(&mut response);
            assert!(response.body().is_end_stream());
            let mut read = 0;
            let polled = std::future::poll_fn(|cx| Poll::Ready(ahead.poll(&held, &mut read, cx))).await;
            assert_eq!((polled, held.bytes.load(Ordering::Relaxed)), (expected, read));
            ahead.put_back(&mut response);
            let collected = response.into_body().collect().await;
            assert_eq!(collected.is_err(), fails);
            assert!(collected.is_err() || collected.unwrap().to_bytes().len() == sizes.iter().sum::<usize>());
        }
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn reqwests_response_keeps_its_url_and_its_body() {
        use reqwest::ResponseBuilderExt;

        let url = reqwest::Url::parse("https://api.example.com/x").unwrap();
        let whole = Response::builder().status(401).url(url.clone()).header("a", "b").body("hello").unwrap();
        let mut response = reqwest::Response::from(whole);
        let mut ahead = holding_of_reqwest().unwrap().read_ahead.unwrap()(&mut response);
        let held = HeldResponses::default();
        let mut read = 0;
        std::future::poll_fn(|cx| Poll::Ready(ahead.poll(&held, &mut read, cx))).await;
        assert_eq!(read, 5);
        ahead.put_back(&mut response);
        assert_eq!(
            (response.status().as_u16(), response.url(), &response.headers()["a"]),
            (401, &url, &"b".parse().unwrap())
        );
        assert_eq!(response.text().await.unwrap(), "hello");
    }
}
