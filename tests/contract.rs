//! Every behaviour of `docs/behaviours.md` has a test, and every link holds.

#![allow(unreachable_pub, reason = "shared with an example by path")]

#[allow(dead_code, reason = "shared with an example, which writes it")]
#[path = "behaviours/document.rs"]
mod document;
#[path = "behaviours/proofs.rs"]
mod proofs;

use std::collections::BTreeSet;

use document::{COMMAND, Document, PATH};

const LAST: u32 = 199;
/// Up to here all are there; the others are added as they are proven.
const ALL_UP_TO: u32 = 123;

#[test]
fn the_contract_has_every_number_once_and_in_order() {
    let numbers: Vec<_> = Document::read().unwrap().entries.iter().map(|entry| entry.number).collect();
    let (all, further) = numbers.split_at(ALL_UP_TO as usize);
    assert_eq!(all, (1..=ALL_UP_TO).collect::<Vec<_>>());
    assert!(
        further.is_sorted_by(|one, next| one < next) && further.iter().all(|number| *number <= LAST),
        "{further:?}"
    );
}

#[test]
fn every_behaviour_has_a_test() {
    let proven: BTreeSet<u32> = proofs::all().unwrap().iter().map(|proof| proof.number).collect();
    let document = Document::read().unwrap();
    let missing: Vec<_> =
        document.entries.iter().filter(|entry| !proven.contains(&entry.number)).map(|entry| entry.number).collect();
    assert!(missing.is_empty(), "behaviours without a test: {missing:?}");
}

#[test]
fn no_test_names_a_behaviour_that_does_not_exist() {
    let there_are: BTreeSet<u32> = Document::read().unwrap().entries.iter().map(|entry| entry.number).collect();
    let unknown: Vec<_> =
        proofs::all().unwrap().into_iter().filter(|proof| !there_are.contains(&proof.number)).collect();
    assert!(unknown.is_empty(), "not in {PATH}: {unknown:?}");
}

#[test]
fn every_link_is_up_to_date() {
    let document = Document::read().unwrap();
    let fresh = document.with_tests(&proofs::all().unwrap());
    for (written, expected) in document.text().lines().zip(fresh.text().lines()) {
        assert_eq!(written, expected, "{PATH} is out of date; run `{COMMAND}`");
    }
    assert_eq!(document.text(), fresh.text(), "{PATH} is out of date; run `{COMMAND}`");
}
