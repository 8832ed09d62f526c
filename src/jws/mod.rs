//! Everything that signs: keys in memory, signers of the user's, the client's assertions (feature `jwt`).

mod assertion;
mod encode;
mod key;
mod signer;

pub use key::SigningAlgorithm;
pub use signer::{Signer, SigningKey};

pub(crate) use assertion::{Statement, TYPE};
pub(crate) use encode::{complete, encode};
pub(crate) use key::{LocalKey, backend};
