//! The cases, by subject matter; one file for each heading of the contract.

mod body;
mod cancellation;
mod failure;
mod leaks;
mod protocol;
mod rejection;
mod rotation;
mod single_flight;
mod tenancy;
mod time;
mod tower;

use crate::subject::Case;

/// Every case of the suite, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        single_flight::CASES,
        cancellation::CASES,
        failure::CASES,
        rejection::CASES,
        body::CASES,
        time::CASES,
        rotation::CASES,
        tenancy::CASES,
        leaks::CASES,
        protocol::CASES,
        tower::CASES,
    ]
    .into_iter()
    .flatten()
}
