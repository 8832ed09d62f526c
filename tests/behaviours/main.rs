//! The contract, held against this crate: one test a behaviour. `docs/behaviours.md` is the contract in words.

#![allow(dead_code, unreachable_pub, reason = "the suite is shared with an example by path; each uses its part")]

mod cases;
mod ours;
mod own;
mod own_dpop;
mod own_service;
mod subject;

use std::sync::Arc;

use subject::{Case, Verdict};

/// Runs one case against this crate; not to offer something is to fail here.
fn hold(case: &Case) {
    match case.run(Arc::new(ours::Ours)) {
        Verdict::Passed => {}
        Verdict::Failed(why) => panic!("behaviour {}: {why}", case.number),
        Verdict::NotOffered => panic!("behaviour {} is not offered", case.number),
    }
}
