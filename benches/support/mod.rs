//! What the benches and the regression guards share: requests, baselines, cases, and the ways to measure them.
#![allow(dead_code, unused_imports, reason = "each binary uses a part")]

pub(crate) mod baselines;
pub(crate) mod callgrind;
pub(crate) mod cases;
pub(crate) mod end_to_end;
pub(crate) mod figures;
pub(crate) mod limit;
pub(crate) mod memory;
pub(crate) mod ours;
pub(crate) mod paired;
pub(crate) mod requests;
pub(crate) mod reqwests;
pub(crate) mod tasks;
pub(crate) mod waiters;
