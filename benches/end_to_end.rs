//! What the layer takes of a whole request: hyper-util's client over loopback, HTTP/1 and HTTP/2.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use support::baselines::{floor, naive};
use support::cases::{BARE, Case, FLOOR, NAIVE_RETRY, NEVER, REPLAY};
use support::end_to_end::{Ends, Version, measure};
use support::ours::ours;
use tokio::runtime::Builder;
use tower_oauth2_client::Replay;
use tower_oauth2_client::test_util::serve;

fn main() {
    measure("end_to_end", &[Version::H1, Version::H2], server(), stacks);
}

fn stacks(ends: &Ends) -> Vec<Case> {
    vec![
        ends.case(BARE, ends.client()),
        ends.case(FLOOR, floor(ends.client())),
        ends.case(NEVER, ours(&ends.runtime, ends.client(), Replay::Never)),
        ends.case(REPLAY, ours(&ends.runtime, ends.client(), Replay::AnyReplayable)),
        ends.case(NAIVE_RETRY, naive(ends.client(), true)),
    ]
}

/// hyper on a thread of its own, as long as the process runs.
fn server() -> SocketAddr {
    let (sender, addr) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let served = serve(tower::service_fn(answer)).await.unwrap();
            sender.send(served.addr()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    addr.recv().unwrap()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut response = Response::new(Full::from(vec![b'x'; 300]));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
