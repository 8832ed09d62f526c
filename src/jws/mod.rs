//! Everything that signs: keys in memory, signers of the user's, assertions (feature `jwt`).

mod assertion;
mod bearer;
mod certificate;
mod encode;
mod key;
mod signer;

pub use assertion::AssertionTyp;
pub use bearer::JwtAssertion;
pub use certificate::Certificate;
pub use key::SigningAlgorithm;
pub use signer::{Signer, SigningKey};

pub(crate) use assertion::{AssertionOptions, Statement};
#[cfg(feature = "dpop")]
pub(crate) use encode::{complete, encode};
#[cfg(feature = "dpop")]
pub(crate) use key::LocalKey;
pub(crate) use key::backend;
