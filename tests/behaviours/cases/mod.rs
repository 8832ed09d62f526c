//! The cases, by subject matter; one file for each heading of the contract.

mod leaks;
mod protocol;
mod rotation;
mod single_flight;
mod tenancy;
mod time;

use crate::subject::Case;

/// Every case of the suite, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [single_flight::CASES, time::CASES, rotation::CASES, tenancy::CASES, leaks::CASES, protocol::CASES]
        .into_iter()
        .flatten()
}
