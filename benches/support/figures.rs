//! Where the benches leave their figures for the report: one line each, name and value.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Writes figures to the file of one bench, and shows them.
pub(crate) struct Figures(File);

impl Figures {
    pub(crate) fn of(bench: &str) -> Self {
        let folder = folder();
        // `_lto` for another build of the same benches.
        let bench = format!("{bench}{}", std::env::var("FIGURES").unwrap_or_default());
        std::fs::create_dir_all(&folder).unwrap();
        Self(File::create(folder.join(bench).with_extension("tsv")).unwrap())
    }

    pub(crate) fn put(&mut self, name: impl Display, value: f64) {
        println!("{name:60} {value:12.2}");
        writeln!(self.0, "{name}\t{value}").unwrap();
    }
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("figures")
}
