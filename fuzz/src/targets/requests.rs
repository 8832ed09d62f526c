//! What is resent after a rejection equals what was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{AuthConfig, AuthLayer, Replay, Token, TokenError, TokenRequest};

use super::choices::Choices;
use super::run;

/// A body of these frames, some of which are not ready at once.
struct Scripted {
    frames: VecDeque<Step>,
    exact: Option<u64>,
}

#[derive(Clone)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Later,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Step::Later) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What arrived of one sending.
struct Sent {
    head: Parts,
    hint: Option<u64>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
}

/// Any request whose first sending is rejected, read by the server as far as it likes: if it is sent again, it is the same
/// request but for the token.
pub fn resent_request(data: &[u8]) {
    let mut choices = Choices::new(data);
    let reads = choices.pick(&[usize::MAX, usize::MAX, 0, 1, 2, 5]);
    let mut head = Request::builder()
        .method(
            Method::from_bytes(choices.pick(&["GET", "PUT", "POST", "DELETE", "PATCH", "QUERY"]).as_bytes()).unwrap(),
        )
        .uri(format!("https://api.example.com/{}", choices.text("ab/?&=%20", 12)))
        .version(choices.pick(&[Version::HTTP_11, Version::HTTP_2, Version::HTTP_10]));
    let names = ["x-a", "x-b", "accept", "cookie", "content-type", "expect", "te", "authorization", "traceparent"];
    for _ in 0..choices.below(12) {
        let (name, value) = (choices.pick(&names), choices.bytes(20));
        let Ok(mut value) = HeaderValue::from_bytes(value) else { continue };
        value.set_sensitive(choices.one_in(4));
        head = head.header(name, value);
    }
    let mut frames = VecDeque::new();
    for _ in 0..choices.below(8) {
        frames.push_back(match choices.below(4) {
            0 => Step::Later,
            1 => Step::Data(Bytes::new()),
            _ => Step::Data(Bytes::copy_from_slice(choices.bytes(40))),
        });
    }
    let total = frames.iter().map(|step| if let Step::Data(data) = step { data.len() as u64 } else { 0 }).sum();
    let exact = choices.one_in(2).then_some(total);
    if choices.one_in(3) {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
        frames.push_back(Step::Trailers(trailers));
    }
    let buffered = choices.one_in(3);
    let Ok(request) = head.body(()) else { return };

    run(async move {
        let whole: Vec<u8> = frames
            .iter()
            .flat_map(|step| if let Step::Data(data) = step { data.to_vec() } else { Vec::new() })
            .collect();
        let trailers = frames
            .iter()
            .find_map(|step| if let Step::Trailers(trailers) = step { Some(trailers.clone()) } else { None });
        let body = match buffered {
            true => Full::new(Bytes::from(whole.clone())).boxed(),
            false => BoxBody::new(Scripted { frames, exact }),
        };
        let trailers = trailers.filter(|_| !buffered);
        let original = request.map(|()| body);
        let given = clone_head(&original);

        let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let api = {
            let sent = sent.clone();
            service_fn(move |request: Request<BoxBody<Bytes, Infallible>>| {
                let sent = sent.clone();
                async move {
                    let (head, mut body) = request.into_parts();
                    let rejected = head.headers[AUTHORIZATION] == "Bearer 1";
                    let mut arrived =
                        Sent { head, hint: body.size_hint().exact(), data: Vec::new(), trailers: None, whole: false };
                    let most = if rejected { reads } else { usize::MAX };
                    for _ in 0..most {
                        let Some(frame) = body.frame().await else {
                            arrived.whole = true;
                            break;
                        };
                        match frame.unwrap().into_data() {
                            Ok(data) => arrived.data.extend_from_slice(&data),
                            Err(frame) => arrived.trailers = frame.into_trailers().ok(),
                        }
                    }
                    sent.lock().unwrap().push(arrived);
                    drop(body);
                    let status = if rejected { 401 } else { 200 };
                    Ok::<_, std::io::Error>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
                }
            })
        };
        let tokens = Arc::new(Mutex::new(0));
        let source = service_fn(move |_: TokenRequest| {
            let mut tokens = tokens.lock().unwrap();
            *tokens += 1;
            let token = Token::bearer(&tokens.to_string()).unwrap();
            async move { Ok::<_, TokenError>(token) }
        });
        let cfg =
            AuthConfig::external().origin("https://api.example.com").replay(Replay::AnyReplayable).build().unwrap();
        let client = AuthLayer::with_source(cfg, source).layer(api);
        let refused = client.oneshot(original).await.is_err();
        let sent = sent.lock().unwrap();
        assert!(sent.len() <= 2 && (refused || !sent.is_empty()));
        for (number, sent) in sent.iter().enumerate() {
            let again = number == 1;
            assert_eq!(
                (&sent.head.method, &sent.head.uri, sent.head.version),
                (&given.method, &given.uri, given.version)
            );
            assert_eq!(without_token(&sent.head.headers), without_token(&given.headers), "again: {again}");
            assert!(whole.starts_with(&sent.data), "other bytes");
            if sent.whole {
                assert_eq!(sent.data, whole, "again: {again}");
                assert_eq!(sent.trailers, trailers, "again: {again}");
            }
            if let Some(hint) = sent.hint {
                assert_eq!(hint, whole.len() as u64, "again: {again}");
            }
            assert!(sent.whole || !again);
            assert_eq!(sent.head.headers.get_all(AUTHORIZATION).iter().count(), 1);
        }
        if buffered && !refused {
            assert_eq!(sent.len(), 2, "a buffered body can be sent again");
        }
    });
}

fn clone_head<B>(request: &Request<B>) -> Parts {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy.into_parts().0
}

/// Names, values, their order within a name, and whether they are marked sensitive.
fn without_token(headers: &HeaderMap) -> Vec<(String, Vec<u8>, bool)> {
    let mut list: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != AUTHORIZATION)
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec(), value.is_sensitive()))
        .collect();
    list.sort_by(|one, other| one.0.cmp(&other.0));
    list
}
