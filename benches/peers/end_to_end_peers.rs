//! What other crates that hold tokens take of a whole request, beside ours: hyper-util's client over loopback, HTTP/1.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says so")]

mod glue;
mod huskarl_peer;
mod middle_peer;
#[path = "../support/mod.rs"]
mod support;
mod token_endpoint;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use glue::Glue;
use huskarl_peer::Authorized;
use support::baselines::floor;
use support::cases::{BARE, Case, FLOOR, NEVER, REPLAY};
use support::end_to_end::{Ends, Version, measure};
use support::ours::ours;
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

/// As long as the process runs. By hand, since hyper's server is in no peer: only the client's thread is measured.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| answer(stream.unwrap()));
        }
    });
    addr
}

/// One request after the other, each with a body of 300 bytes.
fn answer(mut stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300\r\n";
    let answer = format!("{head}date: Fri, 27 Nov 2026 00:00:00 GMT\r\n\r\n{}", "x".repeat(300));
    let mut requests = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while requests.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            requests.read_exact(&mut [0; 300]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        line.clear();
    }
}
