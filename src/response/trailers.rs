//! Watches the trailers of a gRPC call for a status that rejects its token.
//!
//! Such a call is committed and is not sent again, but the next one should not meet the same token. Only bodies that can be
//! erased again can be watched, which is tonic's; for every other type all this folds to nothing.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::grpc;

/// Whether bodies of this type can be watched.
#[inline]
pub(crate) fn can_watch<B: 'static>() -> bool {
    TypeId::of::<B>() == TypeId::of::<tonic::body::Body>()
}

/// The same body; it calls `on_rejected` when its trailers say `UNAUTHENTICATED`.
pub(crate) fn watch<B: 'static>(mut body: B, on_rejected: impl FnOnce() + Send + 'static) -> B {
    if let Some(body) = (&mut body as &mut dyn Any).downcast_mut::<tonic::body::Body>() {
        let inner = std::mem::take(body);
        *body = tonic::body::Body::new(Watched { inner, on_rejected: Some(on_rejected) });
    }
    body
}

struct Watched<B, F> {
    inner: B,
    on_rejected: Option<F>,
}

/// The closure is never pinned.
impl<B: Unpin, F> Unpin for Watched<B, F> {}

impl<B, F> Body for Watched<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: FnOnce(),
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && grpc::trailers_only_status(trailers) == Some(grpc::UNAUTHENTICATED)
            && let Some(on_rejected) = self.on_rejected.take()
        {
            on_rejected();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::HeaderMap;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    async fn calls(status: &'static str) -> usize {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        let frames = [Frame::data(Bytes::from("x")), Frame::trailers(trailers)].map(Ok::<_, tonic::Status>);
        let body = tonic::body::Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let body = watch(body, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], status);
        assert_eq!(collected.to_bytes(), "x");
        count.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn only_unauthenticated_counts_and_the_body_is_unchanged() {
        assert_eq!(calls("16").await, 1);
        assert_eq!(calls("7").await, 0);
        assert_eq!(calls("0").await, 0);
    }

    #[test]
    fn other_bodies_are_not_touched() {
        assert!(!can_watch::<Full<Bytes>>());
        let body = watch(Full::new(Bytes::from("x")), || panic!("never called"));
        assert_eq!(body.into_inner(), Some(Bytes::from("x")));
    }
}
