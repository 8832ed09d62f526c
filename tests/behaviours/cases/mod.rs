//! The cases, by subject matter; one file for each heading of the contract.

mod body;
mod rejection;
mod single_flight;
mod tower;

use crate::subject::Case;

/// Every case of the suite, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [single_flight::CASES, rejection::CASES, body::CASES, tower::CASES].into_iter().flatten()
}
