//! Rejected responses that are held while a token is fetched: how many of a layer may be held unread, and how others are read.
//!
//! An unread response takes room in the window of its HTTP/2 connection. If enough of them do, nothing else comes through
//! there, and that may be the very token they wait for.

use std::any::Any;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};

/// The responses of a layer that are held unread.
#[derive(Default)]
pub(crate) struct HeldResponses(AtomicUsize);

impl HeldResponses {
    /// At 64 KiB each they fill less than the 5 MiB that hyper's client lets a connection have unread.
    const MAX: usize = 64;

    /// Whether another one may be held; to be released then.
    pub(crate) fn acquire(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < Self::MAX).then_some(held + 1)).is_ok()
    }

    pub(crate) fn release(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a response's body to its end and drops what it reads. The body stays what it is, without its content: most bodies
/// cannot be made, only be had.
pub(crate) type Discard<T> = fn(&mut T, &mut Context<'_>) -> Poll<()>;

/// How responses with bodies of this type are read; `None` for bodies that must not be moved once they were read, as far as
/// is known.
#[inline]
pub(crate) fn discard_of<B: Body + 'static>() -> Option<Discard<Response<B>>> {
    let known = same_type(discard::<hyper::body::Incoming>)
        .or_else(|| same_type(discard::<BoxBody<Bytes, B::Error>>))
        .or_else(|| same_type(discard::<UnsyncBoxBody<Bytes, B::Error>>));
    #[cfg(feature = "tonic")]
    let known = known.or_else(|| same_type(discard::<tonic::body::Body>));
    #[cfg(feature = "axum")]
    let known = known.or_else(|| same_type(discard::<axum_core::body::Body>));
    known
}

#[inline]
fn same_type<A: 'static, B: 'static>(discard: Discard<Response<A>>) -> Option<Discard<Response<B>>> {
    (&discard as &dyn Any).downcast_ref::<Discard<Response<B>>>().copied()
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

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[test]
    fn so_many_are_held_and_no_more() {
        let held = HeldResponses::default();
        assert!((0..HeldResponses::MAX).all(|_| held.acquire()));
        assert!(!held.acquire());
        held.release();
        assert!(held.acquire() && !held.acquire());
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_empty() {
        let body = Full::new(Bytes::from("hello")).map_err(std::io::Error::other).boxed();
        let discard = discard_of::<BoxBody<Bytes, std::io::Error>>().unwrap();
        let mut response = Response::new(body);
        std::future::poll_fn(|cx| discard(&mut response, cx)).await;
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert!(discard_of::<Full<Bytes>>().is_none(), "it is in memory, and takes room in no window");
    }
}
