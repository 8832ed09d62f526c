//! The cases, by subject matter; one file for each heading of the contract.

mod single_flight;

use crate::subject::Case;

/// Every case of the suite, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [single_flight::CASES].into_iter().flatten()
}
