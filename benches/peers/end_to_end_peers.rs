//! What other crates that hold tokens take of a whole request, beside ours: hyper-util's client over loopback, HTTP/1.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says so")]

mod glue;
mod huskarl_peer;
mod middle_peer;
#[path = "../support/mod.rs"]
mod support;
mod token_endpoint;

use glue::Glue;
use huskarl_peer::Authorized;
use support::baselines::floor;
use support::cases::{BARE, Case, FLOOR, NEVER, REPLAY};
use support::end_to_end::{Ends, Version, measure};
use support::ours::ours;
use tower_oauth2_client::Replay;

fn main() {
    let url = token_endpoint::start();
    measure("end_to_end_peers", &[Version::H1], |ends| stacks(ends, &url));
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
