//! What is drained of a rejected body, and when draining gives up.

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
    assert_eq!(drained(body(async |_| Some(Ok(Frame::trailers(HeaderMap::new()))))).await.0, MAX_BYTES as usize + 1);
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
