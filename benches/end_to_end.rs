//! What the layer takes of a whole request: hyper-util's client over loopback, HTTP/1 and HTTP/2.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use support::baselines::{floor, naive};
use support::cases::{BARE, Case, FLOOR, NAIVE_RETRY, NEVER, REPLAY};
use support::end_to_end::{Ends, Version, measure};
use support::ours::ours;
use tower_oauth2_client::Replay;

fn main() {
    measure("end_to_end", &[Version::H1, Version::H2], stacks);
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
