//! Runs the suite of behaviours against this crate and against a client written by hand, and prints what holds.
//!
//! ```text
//! cargo run --release --features full --example behaviours_report
//! cargo run --release --features full --example behaviours_report -- --markdown   # rewrites docs/behaviours.md
//! ```

#![allow(dead_code, unreachable_pub, reason = "shared with the tests by path")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::type_complexity, reason = "a case fails by a panic")]

#[path = "../tests/behaviours/cases/mod.rs"]
mod cases;
#[path = "../tests/behaviours/document.rs"]
mod document;
#[path = "../tests/behaviours/naive.rs"]
mod naive;
#[path = "../tests/behaviours/ours.rs"]
mod ours;
#[path = "../tests/behaviours/proofs.rs"]
mod proofs;
#[path = "../tests/behaviours/subject.rs"]
mod subject;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use document::{COMMAND, Document};
use proofs::Proof;
use subject::{Subject, Verdict};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A case fails by a panic; the table tells it.
    std::panic::set_hook(Box::new(|_| {}));
    let proofs = proofs::all()?;
    let document = Document::read()?.with_tests(&proofs);
    let rows = rows(&document, &proofs);
    let subjects = [ours().name(), naive().name()];
    if std::env::args().any(|arg| arg == "--markdown") {
        document.with_table(&markdown(subjects, &rows)).write()?;
        println!("{} written", document::PATH);
    } else {
        print_table(subjects, &rows);
    }
    for row in &rows {
        for (subject, result) in subjects.iter().zip([&row.ours, &row.naive]) {
            if let Holds::No(why) = result {
                println!("{subject} fails {}: {}", row.number, why.lines().next().unwrap_or_default());
            }
        }
    }
    println!("\n{}", counts(subjects, &rows));
    Ok(())
}

fn ours() -> Arc<dyn Subject> {
    Arc::new(ours::Ours)
}

fn naive() -> Arc<dyn Subject> {
    Arc::new(naive::Naive)
}

struct Row {
    number: u32,
    title: String,
    ours: Holds,
    naive: Holds,
}

enum Holds {
    Yes,
    No(String),
    NotOffered,
    /// Proven by a test of this crate only, that no other subject can be put under.
    OwnTest,
    Untested,
    /// There is no case to put the subject under.
    NoCase,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Holds::Yes => "holds",
            Holds::No(_) => "FAILS",
            Holds::NotOffered => "not offered",
            Holds::OwnTest => "own test",
            Holds::Untested => "untested",
            Holds::NoCase => "–",
        })
    }
}

fn rows(document: &Document, proofs: &[Proof]) -> Vec<Row> {
    let own: BTreeSet<u32> = proofs.iter().map(|proof| proof.number).collect();
    let mut rows = Vec::new();
    for entry in &document.entries {
        let number = entry.number;
        let (ours, naive) = match (judge(number, ours()), judge(number, naive())) {
            (Some(ours), Some(naive)) => (ours, naive),
            _ if own.contains(&number) => (Holds::OwnTest, Holds::NoCase),
            _ => (Holds::Untested, Holds::NoCase),
        };
        rows.push(Row { number, title: entry.title.clone(), ours, naive });
    }
    rows
}

/// All cases of a number must hold; `None` if it has none.
fn judge(number: u32, subject: Arc<dyn Subject>) -> Option<Holds> {
    let cases = cases::all().filter(|case| case.number == number);
    cases.map(|case| case.run(subject.clone())).fold(None, |sum, verdict| {
        Some(match (sum, verdict) {
            (Some(Holds::No(why)), _) => Holds::No(why),
            (_, Verdict::Failed(why)) => Holds::No(why),
            (Some(Holds::NotOffered), _) | (_, Verdict::NotOffered) => Holds::NotOffered,
            (_, Verdict::Passed) => Holds::Yes,
        })
    })
}

fn print_table(subjects: [&str; 2], rows: &[Row]) {
    let width = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
    println!("  #  {:width$}  {:20} {}", "behaviour", subjects[0], subjects[1]);
    for row in rows {
        println!("{:3}  {:width$}  {:20} {}", row.number, row.title, row.ours.to_string(), row.naive);
    }
}

fn markdown(subjects: [&str; 2], rows: &[Row]) -> String {
    let mut table = format!("| # | behaviour | {} | {} |\n|--:|---|---|---|\n", subjects[0], subjects[1]);
    for row in rows {
        table += &format!("| {} | {} | {} | {} |\n", row.number, row.title, row.ours, row.naive);
    }
    format!("{table}\n{}\n\nMade by `{COMMAND}`.\n", counts(subjects, rows))
}

fn counts(subjects: [&str; 2], rows: &[Row]) -> String {
    let count = |results: Vec<&Holds>| {
        let of = |word: &str| results.iter().filter(|result| result.to_string() == word).count();
        let words = ["holds", "own test", "FAILS", "not offered", "untested", "–"];
        let parts: Vec<_> =
            words.into_iter().filter(|word| of(word) > 0).map(|word| format!("{word} {}", of(word))).collect();
        parts.join(", ")
    };
    format!(
        "{}: {}. {}: {}.",
        subjects[0],
        count(rows.iter().map(|row| &row.ours).collect()),
        subjects[1],
        count(rows.iter().map(|row| &row.naive).collect())
    )
}
