//! Every behaviour of `docs/behaviours.md` has a test or belongs to an issue that is open, and every link holds.

#![allow(unreachable_pub, reason = "shared with an example by path")]

#[allow(dead_code, reason = "shared with an example, which writes it")]
#[path = "behaviours/document.rs"]
mod document;
#[path = "behaviours/proofs.rs"]
mod proofs;

use std::collections::BTreeSet;

use document::{COMMAND, Document, PATH};
use proofs::root;

const LAST: u32 = 123;

/// Issues that may be named as open, and the code that closes them.
const OPEN_ISSUES: [(&str, &[&str]); 2] = [
    ("Every grant, every way to prove who you are", &["src/dpop.rs", "src/dpop", "src/endpoint/discovery.rs"]),
    (
        "A million tenants, a thousand processes: bounded partitions, stores, and one refresh for the whole fleet",
        &["src/store", "src/store.rs"],
    ),
];

#[test]
fn the_contract_has_every_number_once_and_in_order() {
    let numbers: Vec<_> = Document::read().unwrap().entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=LAST).collect::<Vec<_>>());
}

#[test]
fn every_behaviour_has_a_test_or_an_open_issue() {
    let proven: BTreeSet<u32> = proofs::all().unwrap().iter().map(|proof| proof.number).collect();
    let document = Document::read().unwrap();
    let missing: Vec<_> = document
        .entries
        .iter()
        .filter(|entry| entry.open.is_none() && !proven.contains(&entry.number))
        .map(|entry| entry.number)
        .collect();
    assert!(missing.is_empty(), "behaviours without a test: {missing:?}");
}

#[test]
fn no_test_names_a_behaviour_that_does_not_exist() {
    for proof in proofs::all().unwrap() {
        assert!((1..=LAST).contains(&proof.number), "{proof:?}");
    }
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

#[test]
fn what_is_listed_as_open_is_not_built_yet() {
    for entry in Document::read().unwrap().entries {
        let Some(title) = entry.open else { continue };
        let number = entry.number;
        let issue = OPEN_ISSUES.iter().find(|(known, _)| *known == title);
        let (_, code) = issue.unwrap_or_else(|| panic!("behaviour {number}: no such issue is known: {title}"));
        for path in *code {
            assert!(!root().join(path).exists(), "behaviour {number}: {path} is there; write its test, drop `Open`");
        }
    }
}
