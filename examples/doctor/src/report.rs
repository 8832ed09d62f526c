//! What is printed: findings in 80 columns, as they are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Stop;

const COLUMNS: usize = 80;
const INDENT: usize = 8;

/// Prints; a clone counts with it.
#[derive(Clone, Default)]
pub(crate) struct Report(Arc<AtomicUsize>);

impl Report {
    pub(crate) fn step(&self, name: &str) {
        println!("{name}");
    }

    pub(crate) fn line(&self, text: &str) {
        println!("{text}");
    }

    pub(crate) fn ok(&self, text: &str) {
        print("  ok    ", text);
    }

    /// Something that works and may surprise. `change` is empty where nothing need be done.
    pub(crate) fn note(&self, text: &str, change: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        print("  note  ", text);
        self.change(change);
    }

    /// Something that must be changed.
    pub(crate) fn wrong(&self, stop: Stop, text: &str, change: &str) -> Stop {
        print("  WRONG ", text);
        self.change(change);
        stop
    }

    pub(crate) fn more(&self, text: &str) {
        print("        ", text);
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            0 => "All is well.",
            _ => "It works; see the notes above.",
        }
    }

    fn change(&self, change: &str) {
        if !change.is_empty() {
            print("     ->", change);
        }
    }
}

/// The mark, and the text beside it. A word that is too long for a line is broken; no control character gets through.
fn print(mark: &str, text: &str) {
    let mut line = format!("{mark:<INDENT$}");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().filter(|character| !character.is_control()).collect();
        loop {
            let room = COLUMNS.saturating_sub(line.chars().count() + usize::from(!is_empty));
            if word.len() <= room {
                line.extend((!is_empty).then_some(' '));
                line.extend(word);
                is_empty = false;
                break;
            }
            if is_empty {
                line.extend(word.drain(..room));
            }
            println!("{line}");
            (line, is_empty) = (" ".repeat(INDENT), true);
        }
    }
    println!("{}", line.trim_end());
}
