//! The targets by name, and what they share.

// What is made here is only ever wrong by a mistake of the target, and a panic is how a target reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod answers;
mod challenges;
mod choices;
mod requests;
mod sign_ins;
mod stores;
mod uris;

pub use answers::{discovery, lifetime, token_answer};
pub use challenges::challenge;
pub use requests::resent_request;
pub use sign_ins::{device_answer, redirect};
pub use stores::{encrypted_record, stored_record};
pub use uris::uri;

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};

/// A target: bytes in, a panic if something is wrong.
#[allow(dead_code, reason = "used by the replay on stable")]
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
#[allow(dead_code, reason = "used by the replay on stable")]
pub const ALL: [(&str, Target); 10] = [
    ("token_answer", token_answer),
    ("lifetime", lifetime),
    ("challenge", challenge),
    ("discovery", discovery),
    ("redirect", redirect),
    ("device_answer", device_answer),
    ("stored_record", stored_record),
    ("encrypted_record", encrypted_record),
    ("resent_request", resent_request),
    ("uri", uri),
];

/// Whether servers also repeat what was sent in part or in another spelling, and where nobody expects it.
const DISGUISED: bool = true;

/// Runs it on a paused clock of its own, the same way each time.
fn run(work: impl Future<Output = ()>) {
    fastrand::seed(7);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// The bytes of a token request's body.
async fn body_of(request: Request<Full<Bytes>>) -> String {
    String::from_utf8_lossy(&request.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().header("content-type", "application/json").body(Full::new(body.into())).unwrap()
}
