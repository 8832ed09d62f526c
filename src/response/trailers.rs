//! Watches the trailers of a gRPC call for a status that rejects its token.
//!
//! Such a call is committed and is not sent again, but the next one should not meet the same token. Only bodies that can be
//! erased again can be watched, which is tonic's; for every other type all this folds to nothing.

use http::Response;

/// Makes a response call back when its trailers or its end are there.
pub(crate) type TrailerWatch<T> = fn(T, OnEnd) -> T;

/// Told whether the trailers say `UNAUTHENTICATED`. Never called where the caller drops the response before its end.
pub(crate) type OnEnd = Box<dyn FnOnce(bool) + Send>;

/// How responses with bodies of this type are watched; `None` if they cannot be.
#[inline]
pub(crate) fn trailer_watch_of<B: 'static>() -> Option<TrailerWatch<Response<B>>> {
    #[cfg(feature = "tonic")]
    if std::any::TypeId::of::<B>() == std::any::TypeId::of::<tonic::body::Body>() {
        return Some(|response, on_end| response.map(|body| watch(body, on_end)));
    }
    None
}

#[cfg(feature = "tonic")]
fn watch<B: 'static>(mut body: B, on_end: OnEnd) -> B {
    if let Some(body) = (&mut body as &mut dyn std::any::Any).downcast_mut::<tonic::body::Body>() {
        let inner = std::mem::take(body);
        *body = tonic::body::Body::new(watched::Watched { inner, on_end: Some(on_end) });
    }
    body
}

#[cfg(feature = "tonic")]
mod watched {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use bytes::Bytes;
    use http_body::{Body, Frame, SizeHint};

    use super::OnEnd;
    use crate::response::grpc;

    pub(super) struct Watched<B> {
        pub(super) inner: B,
        pub(super) on_end: Option<OnEnd>,
    }

    impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
        type Data = Bytes;
        type Error = B::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
            let trailers = match &frame {
                Some(Ok(frame)) => frame.trailers_ref().map(grpc::trailers_only_status),
                Some(Err(_)) => None,
                None => Some(None),
            };
            if let Some(status) = trailers
                && let Some(on_end) = self.on_end.take()
            {
                on_end(status == Some(grpc::UNAUTHENTICATED));
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
}

#[cfg(test)]
#[cfg(feature = "tonic")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    async fn calls(status: &'static str) -> usize {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        let frames = [Frame::data(Bytes::from("x")), Frame::trailers(trailers)].map(Ok::<_, tonic::Status>);
        let body = tonic::body::Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let on_end = Box::new(move |rejected| {
            counter.fetch_add(if rejected { 1 } else { 100 }, Ordering::Relaxed);
        });
        let response = trailer_watch_of().unwrap()(Response::new(body), on_end);
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], status);
        assert_eq!(collected.to_bytes(), "x");
        count.load(Ordering::Relaxed)
    }

    /// Behaviour 145 (status 16 in trailers): what is accepted by its head counts when its trailers are there.
    #[tokio::test]
    async fn only_unauthenticated_counts_and_the_body_is_unchanged() {
        assert_eq!(calls("16").await, 1);
        assert_eq!(calls("7").await, 100);
        assert_eq!(calls("0").await, 100);
    }

    #[test]
    fn other_bodies_are_not_watched() {
        assert!(trailer_watch_of::<Full<Bytes>>().is_none());
    }
}
