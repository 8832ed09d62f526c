//! What a response tells about the token it was sent with: pure functions over status and headers.

mod challenge;
mod drain;
mod grpc;
#[cfg(feature = "tonic")]
mod trailers;
mod verdict;

pub(crate) use drain::Drain;
#[cfg(feature = "tonic")]
pub(crate) use trailers::{can_watch, watch};
pub use verdict::Forbidden;
pub(crate) use verdict::{RejectionPolicy, Verdict, judge};
