//! What is done to a request; knows nothing of how tokens are made.

mod body;
mod head;
mod replay;

pub use body::Recorded;
pub(crate) use body::{Ops, Registry, clone_ops, ops_of, record_ops};
pub(crate) use replay::{Kept, ReplayPolicy, keep};
