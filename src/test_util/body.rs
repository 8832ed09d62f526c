//! The body that the servers answer with, and the answers that are made of it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::types::BoxError;

/// The response body of [`AuthServer`](super::AuthServer) and [`Api`](super::Api).
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A whole answer, before a fault has had its way with it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// A status that is none (below 100, above 999) becomes 500.
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { response, trailers: None }
    }

    pub(super) fn json(status: u16, body: String) -> Self {
        Self::new(status, "application/json", body)
    }

    /// Leaves the header out when `value` cannot be one.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let trailers = self.trailers.map(|trailers| Ok::<_, Infallible>(Frame::trailers(trailers)));
        self.response.map(|bytes| match trailers {
            None => erase(Full::new(bytes)),
            Some(trailers) => {
                let data = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                erase(StreamBody::new(stream::iter(data.into_iter().chain([trailers]))))
            }
        })
    }

    /// The same answer, one byte every `pause`.
    pub(super) fn drip(self, pause: Duration) -> Response<Body> {
        self.response.map(|bytes| {
            let bytes = stream::unfold(bytes, move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                tokio::time::sleep(pause).await;
                let byte = rest.split_to(1);
                Some((Ok::<_, Infallible>(Frame::data(byte)), rest))
            });
            erase(StreamBody::new(bytes))
        })
    }

    /// The head of the answer and the first half of its body, then nothing, for ever.
    pub(super) fn stall(self) -> Response<Body> {
        self.response.map(|bytes| erase(StreamBody::new(first_half(bytes).chain(stream::pending()))))
    }

    /// The head of the answer and the first half of its body, then `error`.
    pub(super) fn break_off(self, error: BoxError) -> Response<Body> {
        // An error that comes without a pause overtakes what hyper has not flushed yet, the head included.
        let end = stream::once(async move {
            tokio::task::yield_now().await;
            Err(error)
        });
        self.response.map(|bytes| StreamBody::new(first_half(bytes).chain(end)).boxed_unsync())
    }
}

/// 200 with a JSON string that goes on for 16 MiB.
pub(super) fn huge() -> Response<Body> {
    static CHUNK: [u8; 64 * 1024] = [b'a'; 64 * 1024];
    let opening = stream::iter([Bytes::from_static(b"{\"access_token\":\"")]);
    let frames = opening.chain(stream::repeat(Bytes::from_static(&CHUNK)).take(256));
    let frames = frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    Answer::json(200, String::new()).response.map(|_| erase(StreamBody::new(frames)))
}

/// Reads a request's body to its end.
pub(super) async fn read<B>(body: B) -> Result<Bytes, BoxError>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    body.collect().await.map(|collected| collected.to_bytes()).map_err(Into::into)
}

fn first_half(mut bytes: Bytes) -> impl stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    bytes.truncate(bytes.len() / 2);
    stream::iter([Ok(Frame::data(bytes))])
}

pub(super) fn erase<E>(body: impl http_body::Body<Data = Bytes, Error = E> + Send + 'static) -> Body
where
    E: Into<BoxError> + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}
