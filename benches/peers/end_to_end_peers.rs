//! What other crates that hold tokens take of a whole request, beside ours: hyper-util's client over loopback, HTTP/1.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says so")]

mod glue;
mod huskarl_peer;
mod middle_peer;
#[path = "../support/mod.rs"]
mod support;
mod token_endpoint;

use std::net::SocketAddr;
use std::thread;

use glue::Glue;
use huskarl_peer::Authorized;
use support::baselines::floor;
use support::cases::{BARE, Case, FLOOR, NEVER, REPLAY};
use support::end_to_end::{Ends, Version, measure};
use support::ours::ours;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tower_oauth2_client::Replay;

fn main() {
    let url = token_endpoint::start();
    measure("end_to_end_peers", &[Version::H1], server(), |ends| stacks(ends, &url));
}

/// The peers need tokio's clock and their tasks on the clients' runtime, as ours has them.
fn stacks(ends: &Ends, url: &url::Url) -> Vec<Case> {
    let middle = ends.runtime.block_on(middle_peer::value(url.clone()));
    let authorizer = ends.runtime.block_on(huskarl_peer::authorizer());
    vec![
        ends.case(BARE, ends.client()),
        ends.case(FLOOR, floor(ends.client())),
        ends.case(NEVER, ours(&ends.runtime, ends.client(), Replay::Never)),
        ends.case(REPLAY, ours(&ends.runtime, ends.client(), Replay::AnyReplayable)),
        ends.case("middle", Glue { inner: ends.client(), value: middle }),
        ends.case("huskarl", Authorized { inner: ends.client(), authorizer }),
    ]
}

/// As long as the process runs. By hand, since hyper's server is in no peer; one thread for all connections, or it would
/// depend on the core of each what its stack takes.
fn server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                tokio::spawn(answer(listener.accept().await.unwrap().0));
            }
        });
    });
    addr
}

/// One request after the other, each with a body of 300 bytes.
async fn answer(stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300\r\n";
    let answer = format!("{head}date: Fri, 27 Nov 2026 00:00:00 GMT\r\n\r\n{}", "x".repeat(300));
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            stream.read_exact(&mut [0; 300]).await.unwrap();
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
        line.clear();
    }
}
