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
mod tests;
