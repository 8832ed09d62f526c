//! `docs/behaviours.md` as data: read, and rewritten from the tests.
//!
//! An entry is a numbered item. Its first line begins with a bold title; `   - Test: ` lists its tests and is generated.

use std::fs;

use crate::proofs::{Proof, root};

pub const PATH: &str = "docs/behaviours.md";
/// The command that brings the links and the table up to date.
pub const COMMAND: &str = "cargo run --release --features full --example behaviours_report -- --markdown";

const TEST: &str = "   - Test: ";
const TABLE_BEGINS: &str = "<!-- table begins -->";
const TABLE_ENDS: &str = "<!-- table ends -->";

pub struct Document {
    text: String,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Default)]
pub struct Entry {
    pub number: u32,
    pub title: String,
}

impl Document {
    pub fn read() -> std::io::Result<Self> {
        fs::read_to_string(root().join(PATH)).map(Self::parse)
    }

    pub fn write(&self) -> std::io::Result<()> {
        fs::write(root().join(PATH), &self.text)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn parse(text: String) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines() {
            if let Some((number, title)) = head(line) {
                entries.push(Entry { number, title: title.to_owned() });
            }
        }
        Self { text, entries }
    }

    /// The same with each entry's tests as they are now.
    pub fn with_tests(&self, proofs: &[Proof]) -> Self {
        let mut lines = Vec::new();
        let mut pending = None;
        for line in self.text.lines().filter(|line| !line.starts_with(TEST)) {
            let goes_on = line.starts_with("   ");
            if !goes_on && let Some(number) = pending.take() {
                lines.extend(links(number, proofs));
            }
            if let Some((number, _)) = head(line) {
                pending = Some(number);
            }
            lines.push(line.to_owned());
        }
        lines.extend(pending.and_then(|number| links(number, proofs)));
        Self::parse(lines.join("\n") + "\n")
    }

    /// The same with this table between the two marks.
    pub fn with_table(&self, table: &str) -> Self {
        let (before, rest) = self.text.split_once(TABLE_BEGINS).unwrap_or((&self.text, ""));
        let (_, after) = rest.split_once(TABLE_ENDS).unwrap_or(("", "\n"));
        Self::parse(format!("{before}{TABLE_BEGINS}\n\n{table}\n{TABLE_ENDS}{after}"))
    }
}

/// The number and the title of an entry's first line.
fn head(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.split_once(". **")?;
    let (title, _) = rest.split_once("**")?;
    Some((number.parse().ok()?, title.trim_end_matches('.')))
}

fn links(number: u32, proofs: &[Proof]) -> Option<String> {
    let of_this = proofs.iter().filter(|proof| proof.number == number);
    let links: Vec<_> = of_this.map(|proof| format!("[`{}`](../{})", proof.test, proof.file)).collect();
    (!links.is_empty()).then(|| format!("{TEST}{}", links.join(", ")))
}
