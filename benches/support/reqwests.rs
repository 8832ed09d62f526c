//! The same for `reqwest::Request`, whose layer has other limits: no extensions, and `try_clone` is the only copy.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderValue, Method, header};
use reqwest::{Request, Response, Url};
use tokio::runtime::Runtime;
use tower::Service;
use tower_oauth2_client::Replay;

use super::cases::Case;
use super::ours::ours;
use super::requests::Kind;

pub(crate) const BARE: &str = "reqwest: bare";
pub(crate) const BY_HAND: &str = "reqwest: two headers set by hand";
pub(crate) const NEVER: &str = "reqwest: ours, Replay::Never";
pub(crate) const REPLAY: &str = "reqwest: ours";

pub(crate) fn cases(runtime: &Runtime) -> Vec<Case> {
    let url: Url = "https://api.example.com/v1/appointments/4711/notes?expand=patient&limit=50".parse().unwrap();
    let [bare, by_hand, never, replay] = [false, true, false, false].map(|by_hand| {
        let url = url.clone();
        move || request(&url, by_hand)
    });
    vec![
        case(BARE, Inner, bare),
        case(BY_HAND, Inner, by_hand),
        case(NEVER, ours(runtime, Inner, Replay::Never), never),
        case(REPLAY, ours(runtime, Inner, Replay::AnyReplayable), replay),
    ]
}

fn case<S: Service<Request> + 'static>(
    name: &'static str,
    mut service: S,
    request: impl Fn() -> Request + 'static,
) -> Case {
    Case::new(name, Kind::P3, move |requests| {
        for _ in 0..requests {
            let mut context = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut context).is_ready());
            match pin!(service.call(request())).poll(&mut context) {
                Poll::Ready(Ok(response)) => drop(black_box(response)),
                _ => panic!("a request failed or waits"),
            }
        }
    })
}

/// GET with three static headers and the URL cloned, as `RequestBuilder` makes it.
fn request(url: &Url, by_hand: bool) -> Request {
    let mut request = Request::new(Method::GET, url.clone());
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1.0 (tower)"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    if by_hand {
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"));
        headers.insert("x-tenant-id", HeaderValue::from_static("t"));
    }
    request
}

#[derive(Clone)]
struct Inner;

impl Service<Request> for Inner {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        drop(black_box(request));
        ready(Ok(http::Response::new(Vec::<u8>::new()).into()))
    }
}
