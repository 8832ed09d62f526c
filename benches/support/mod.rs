//! What the benches and the regression guards share: requests, baselines, cases, and the ways to measure them.
#![allow(dead_code, unused_imports, reason = "each binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

pub(crate) mod baselines;
pub(crate) mod callgrind;
pub(crate) mod cases;
pub(crate) mod figures;
pub(crate) mod ours;
pub(crate) mod paired;
pub(crate) mod requests;
