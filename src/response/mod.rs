//! What a response tells about the token it was sent with: pure functions over status and headers.

mod auth_challenge;
mod challenge;
mod drain;
mod grpc;
mod held;
mod trailers;
mod verdict;

pub use auth_challenge::AuthChallenge;
pub(crate) use drain::Drain;
pub(crate) use grpc::has_status as has_grpc_status;
#[cfg(feature = "reqwest")]
pub(crate) use held::holding_of_reqwest;
pub(crate) use held::{Ahead, BoxReadAhead, HeldResponses, Holding, holding_of};
pub(crate) use trailers::{TrailerWatch, trailer_watch_of};
pub use verdict::Forbidden;
pub(crate) use verdict::{RejectionPolicy, Verdict, is_success, judge};
#[cfg(feature = "dpop")]
pub(crate) use verdict::{rejects_proof, wants_nonce};
