//! Which test proves which behaviour: read from the doc comments of the tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A test whose doc comment names a behaviour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proof {
    pub number: u32,
    /// Relative to the project, with slashes.
    pub file: String,
    pub test: String,
}

/// Every proof in `src/`, `tests/` and `examples/`, in order.
///
/// # Errors
/// A doc comment that names a behaviour and stands on no test.
pub fn all() -> Result<Vec<Proof>, String> {
    let mut proofs = Vec::new();
    for file in rust_files(root()) {
        let text = fs::read_to_string(root().join(&file)).map_err(|error| format!("{file}: {error}"))?;
        read(&file, &text, &mut proofs)?;
    }
    proofs.sort();
    proofs.dedup();
    Ok(proofs)
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(root: &Path) -> Vec<String> {
    let mut folders: Vec<PathBuf> = ["src", "tests", "examples"].map(|folder| root.join(folder)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                // A package of its own may have been built where it is.
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).unwrap_or(&path);
                files.push(relative.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files
}

/// A test is what follows the comment: a function with a `test` attribute, in or out of `proptest!`, or a line of `cases!`.
fn read(file: &str, text: &str, proofs: &mut Vec<Proof>) -> Result<(), String> {
    let mut numbers = Vec::new();
    let mut is_test = false;
    let mut row = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("///") {
            numbers.extend(named_in(doc.strip_prefix(' ').unwrap_or(doc)));
        } else if numbers.is_empty() {
            continue;
        } else if line.starts_with("#[") {
            is_test |= line.contains("test");
        } else {
            row.push_str(line);
            if let Some(test) = name_in(&row, is_test) {
                proofs.extend(numbers.drain(..).map(|number| Proof {
                    number,
                    file: file.to_owned(),
                    test: test.to_owned(),
                }));
            } else if row.starts_with(|first: char| first.is_ascii_digit()) && !row.ends_with(';') {
                // A line of `cases!` that goes on.
                continue;
            } else {
                return Err(format!("{file}:{}: behaviours {numbers:?} are named above what is no test", at + 1));
            }
            (is_test, row) = (false, String::new());
        }
    }
    Ok(())
}

/// The numbers after "Behaviour" or "Behaviours", in a line of documentation that begins so.
fn named_in(doc: &str) -> Vec<u32> {
    if !doc.starts_with("Behaviour") {
        return Vec::new();
    }
    let mut numbers = Vec::new();
    for list in doc.split("Behaviour").skip(1) {
        for word in list.trim_start_matches('s').split([' ', ',']).filter(|word| !word.is_empty()) {
            match word.trim_end_matches(['.', ':', ';']).parse() {
                Ok(number) => numbers.push(number),
                Err(_) if word == "and" => {}
                Err(_) => break,
            }
        }
    }
    numbers
}

fn name_in(row: &str, is_test: bool) -> Option<&str> {
    if row.starts_with(|first: char| first.is_ascii_digit()) {
        return row.strip_suffix(';')?.rsplit([',', ' ']).next();
    }
    let (_, rest) = row.split_once("fn ")?;
    let (name, _) = rest.split_once('(')?;
    is_test.then_some(name)
}
