//! `Drain`: empties a rejected response's body, within bounds, so that its connection lives on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

/// Reading more than this costs more than a new connection.
const MAX_BYTES: u64 = 64 * 1024;
/// So does waiting longer.
const MAX_WAIT: Duration = Duration::from_millis(100);

pin_project! {
    /// Reads a body to its end, 64 KiB or 100 ms, whichever comes first, and drops it.
    ///
    /// An HTTP/1 connection can be used again only once its response has been read; a body that is dropped early
    /// closes it (or, with HTTP/2, resets its stream).
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Drain<B> {
        #[pin]
        body: Option<B>,
        // Armed when the body first has nothing ready: most rejections have arrived whole.
        #[pin]
        deadline: Option<Sleep>,
        left: u64,
    }
}

impl<B: Body> Drain<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body: Some(body), deadline: None, left: MAX_BYTES }
    }
}

impl<B: Body> Future for Drain<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let done = self.as_mut().poll_drained(cx);
        if done.is_ready() {
            let mut this = self.project();
            this.body.set(None);
            this.deadline.set(None);
        }
        done
    }
}

impl<B: Body> Drain<B> {
    fn poll_drained(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        loop {
            if body.is_end_stream() || body.size_hint().lower() > *this.left {
                return Poll::Ready(());
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A frame without data counts too: there may be no end of them.
                    let length = frame.data_ref().map_or(1, |data| data.remaining().max(1));
                    match this.left.checked_sub(length as u64) {
                        Some(left) => *this.left = left,
                        None => return Poll::Ready(()),
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if this.deadline.is_none() {
            // Without a runtime nothing would bound the wait.
            if tokio::runtime::Handle::try_current().is_err() {
                return Poll::Ready(());
            }
            this.deadline.set(Some(tokio::time::sleep(MAX_WAIT)));
        }
        this.deadline.as_pin_mut().map_or(Poll::Ready(()), |deadline| deadline.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::stream::unfold;
    use http::HeaderMap;
    use http_body::{Frame, SizeHint};
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep};

    use super::*;

    type Item = Option<std::io::Result<Frame<Bytes>>>;

    /// A body (not `Unpin`) that makes its frames from their numbers, counts them, and tells when it is dropped.
    fn body<F, S>(frame: F) -> (impl Body<Data = Bytes>, Arc<AtomicUsize>)
    where
        F: Fn(usize) -> S + Clone,
        S: Future<Output = Item>,
    {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let frames = unfold(counter, move |counter| {
            let frame = frame.clone();
            async move {
                let item = frame(counter.fetch_add(1, Ordering::Relaxed)).await?;
                Some((item, counter))
            }
        });
        (StreamBody::new(frames), count)
    }

    fn data(length: usize) -> Item {
        Some(Ok(Frame::data(Bytes::from(vec![0; length]))))
    }

    /// How many frames were asked for, and how long that took; the body is dropped by then though the future lives.
    async fn drained<B: Body>((body, count): (B, Arc<AtomicUsize>)) -> (usize, Duration) {
        let start = Instant::now();
        let mut drain = std::pin::pin!(Drain::new(body));
        drain.as_mut().await;
        assert_eq!(Arc::strong_count(&count), 1, "the body is dropped");
        drain.as_mut().await;
        (count.load(Ordering::Relaxed), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_to_its_end() {
        assert_eq!(drained(body(async |n| if n < 3 { data(100) } else { None })).await, (4, Duration::ZERO));
        let slow = async |n| {
            sleep(Duration::from_millis(30)).await;
            if n < 2 { data(100) } else { None }
        };
        assert_eq!(drained(body(slow)).await, (3, Duration::from_millis(90)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_dropped_at_the_cap() {
        assert_eq!(drained(body(async |n| if n < 65_536 { data(16 * 1024) } else { None })).await.0, 5);
        assert_eq!(drained(body(async |_| data(1024 * 1024 * 1024))).await.0, 1);
        let exact = async |n| if n < 4 { data(16 * 1024) } else { None };
        assert_eq!(drained(body(exact)).await.0, 5, "64 KiB and the end");
    }

    #[tokio::test]
    async fn a_body_that_has_ended_or_announces_too_much_is_not_read() {
        struct Unread {
            ended: bool,
            size: u64,
        }
        impl Body for Unread {
            type Data = Bytes;
            type Error = std::io::Error;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Item> {
                panic!("nobody needs it");
            }
            fn is_end_stream(&self) -> bool {
                self.ended
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(self.size)
            }
        }
        Drain::new(Unread { ended: true, size: 0 }).await;
        Drain::new(Unread { ended: false, size: MAX_BYTES + 1 }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_data_come_to_an_end_too() {
        assert_eq!(drained(body(async |_| data(0))).await.0, MAX_BYTES as usize + 1);
        assert_eq!(
            drained(body(async |_| Some(Ok(Frame::trailers(HeaderMap::new()))))).await.0,
            MAX_BYTES as usize + 1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_dropped_after_the_wait() {
        let (frames, time) = drained(body(async |_| std::future::pending().await)).await;
        assert_eq!((frames, time.as_millis()), (1, 100));
        // Dripping does not extend it.
        let drip = async |_| {
            sleep(Duration::from_millis(30)).await;
            data(1)
        };
        let (frames, time) = drained(body(drip)).await;
        assert_eq!((frames, time.as_millis()), (4, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_it() {
        let failing = async |n| if n < 2 { data(1) } else { Some(Err(std::io::Error::other("reset"))) };
        assert_eq!(drained(body(failing)).await, (3, Duration::ZERO));
    }

    #[test]
    fn without_a_runtime_it_does_not_wait() {
        let (body, count) = body(async |n| if n < 2 { data(1) } else { std::future::pending().await });
        let mut drain = tokio_test::task::spawn(Drain::new(body));
        assert!(drain.poll().is_ready());
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert_eq!(Arc::strong_count(&count), 1, "the body is dropped");
    }
}
