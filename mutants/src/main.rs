//! Mutants and planted defects in one build: a copy of the package gets all of them at once, each behind a switch, and an
//! environment variable turns one on while tests or the simulation run.
//!
//! ```text
//! cargo run --manifest-path mutants/Cargo.toml -- check              do all definitions still apply?
//! cargo run --manifest-path mutants/Cargo.toml -- mutants [NAME..]   which tests notice which mutant?
//! cargo run --manifest-path mutants/Cargo.toml -- planted [NAME..]   after how many seeds is a planted defect found?
//! ```
//!
//! A definition is a name, a file, what stands there and what stands there instead; in that, `MUTANT` is the switch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// A mutant that no test notices within this time is one that hangs, which is noticed.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tests that say nothing of the engine, or measure.
const NOT_RUN: [&str; 4] = ["allocations", "instructions", "msrv", "contract"];

struct Definition {
    name: String,
    file: String,
    before: String,
    after: String,
}

fn main() {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let wanted: Vec<String> = arguments.collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").to_owned();
    match command.as_str() {
        "check" => {
            let mut broken = 0;
            for list in ["mutants.txt", "planted.txt"] {
                let (applied, failed) = instrument(&root, list);
                println!("{list}: {applied} apply");
                broken += failed.len();
                failed.iter().for_each(|name| println!("  does not apply any more: {name}"));
            }
            exit(i32::from(broken > 0));
        }
        "mutants" => mutants(&root, &wanted),
        "planted" => planted(&root, &wanted),
        _ => {
            eprintln!("check, mutants or planted?");
            exit(2);
        }
    }
}

fn copy_of(root: &Path) -> PathBuf {
    root.join("target/mutants")
}

/// Copies the package and puts every definition of `list` into the copy. How many, and the names of those that do not fit.
fn instrument(root: &Path, list: &str) -> (usize, Vec<String>) {
    let copy = copy_of(root);
    let files =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root).output();
    for file in String::from_utf8(files.expect("git").stdout).expect("names of files").lines() {
        let (from, to) = (root.join(file), copy.join(file));
        let Ok(text) = fs::read(&from) else { continue };
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        if fs::read(&to).ok().as_deref() != Some(&text) {
            fs::write(&to, text).expect("a copy");
        }
    }
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut failed = Vec::new();
    let definitions = read(&root.join("mutants").join(list));
    for definition in &definitions {
        let text = texts
            .entry(definition.file.clone())
            .or_insert_with(|| fs::read_to_string(root.join(&definition.file)).unwrap_or_default());
        let switch = format!("crate::mutant(\"{}\")", definition.name);
        if text.matches(&definition.before).count() != 1 {
            failed.push(definition.name.clone());
            continue;
        }
        *text = text.replacen(&definition.before, &definition.after.replace("MUTANT", &switch), 1);
    }
    let library = texts
        .entry("src/lib.rs".into())
        .or_insert_with(|| fs::read_to_string(root.join("src/lib.rs")).expect("lib.rs"));
    library.push_str(
        "\n/// Whether this mutant is on.\n#[allow(dead_code)]\npub(crate) fn mutant(name: &str) -> bool {\n    \
         static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();\n    \
         ON.get_or_init(|| std::env::var(\"MUTANT\").ok()).as_deref() == Some(name)\n}\n",
    );
    for (file, text) in texts {
        if fs::read_to_string(copy.join(&file)).ok().as_deref() != Some(&text) {
            fs::write(copy.join(&file), text).expect("a mutated file");
        }
    }
    (definitions.len() - failed.len(), failed)
}

fn read(path: &Path) -> Vec<Definition> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut definitions: Vec<Definition> = Vec::new();
    let mut file = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("file ") {
            name.trim().clone_into(&mut file);
        } else if let Some(name) = line.strip_prefix("mutant ") {
            let (name, file) = (name.trim().to_owned(), file.clone());
            definitions.push(Definition { name, file, before: String::new(), after: String::new() });
        } else if let Some(definition) = definitions.last_mut() {
            // A line that begins so is kept as it is, its indentation too.
            if let Some(line) = line.strip_prefix("-|") {
                definition.before.push_str(&format!("{line}\n"));
            } else if let Some(line) = line.strip_prefix("+|") {
                definition.after.push_str(&format!("{line}\n"));
            }
        }
    }
    definitions
}

/// Builds the copy, and gives the test programs by name.
fn build(root: &Path, arguments: &[&str]) -> Vec<(String, PathBuf)> {
    let output = Command::new("cargo")
        .args(["test", "--no-run"])
        .args(arguments)
        .current_dir(copy_of(root))
        .env("CARGO_TARGET_DIR", root.join("target"))
        .output()
        .expect("cargo");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        eprintln!("{told}");
        exit(1);
    }
    let programs = told.lines().filter_map(|line| {
        let (_, path) = line.trim().strip_prefix("Executable ")?.rsplit_once('(')?;
        let path = PathBuf::from(path.trim_end_matches(')'));
        let name = path.file_name()?.to_str()?.rsplit_once('-')?.0.to_owned();
        Some((name, if path.is_absolute() { path } else { root.join(path) }))
    });
    programs.collect()
}

fn mutants(root: &Path, wanted: &[String]) {
    let (_, failed) = instrument(root, "mutants.txt");
    failed.iter().for_each(|name| println!("does not apply any more: {name}"));
    let programs: Vec<_> =
        build(root, &["--lib", "--tests"]).into_iter().filter(|(name, _)| !NOT_RUN.contains(&name.as_str())).collect();
    // What fails without any mutant says nothing.
    let programs: Vec<_> = programs
        .into_iter()
        .filter(|(name, program)| {
            let good = run(root, program, "", PATIENCE) == Outcome::Passed;
            if !good {
                println!("{name} fails by itself and is left out");
            }
            good
        })
        .collect();
    let (mut caught, mut missed) = (0, Vec::new());
    for definition in read(&root.join("mutants/mutants.txt")) {
        if failed.contains(&definition.name) || !(wanted.is_empty() || wanted.contains(&definition.name)) {
            continue;
        }
        let noticed =
            programs.iter().find(|(_, program)| run(root, program, &definition.name, PATIENCE) != Outcome::Passed);
        match noticed {
            Some((test, _)) => {
                caught += 1;
                println!("caught  {:<44} by {test}", definition.name);
            }
            None => {
                println!("MISSED  {}", definition.name);
                missed.push(definition.name);
            }
        }
    }
    println!("{caught} caught, {} missed", missed.len());
}

/// The bases of the five series of seeds, far apart.
const BASES: [u64; 5] = [1, 1_000_000, 2_000_000, 3_000_000, 4_000_000];
const SEEDS: u64 = 2_000;

fn planted(root: &Path, wanted: &[String]) {
    let (_, failed) = instrument(root, "planted.txt");
    failed.iter().for_each(|name| println!("does not apply any more: {name}"));
    let programs = build(root, &["--release", "--test", "simulation"]);
    let (_, simulation) = programs.first().expect("the simulation");
    for definition in read(&root.join("mutants/planted.txt")) {
        if failed.contains(&definition.name) || !(wanted.is_empty() || wanted.contains(&definition.name)) {
            continue;
        }
        let mut found: Vec<u64> =
            BASES.iter().map(|base| seeds_until_found(root, simulation, &definition.name, *base)).collect();
        let told: Vec<_> =
            found.iter().map(|seeds| if *seeds > SEEDS { "not".to_owned() } else { seeds.to_string() }).collect();
        found.sort_unstable();
        let median = if found[2] > SEEDS { format!("not within {SEEDS}") } else { found[2].to_string() };
        println!("{:<44} median {median} ({})", definition.name, told.join(", "));
    }
}

fn seeds_until_found(root: &Path, simulation: &Path, name: &str, base: u64) -> u64 {
    let output = Command::new(simulation)
        .args(["every_seed", "--nocapture"])
        .current_dir(root)
        .env("MUTANT", name)
        .env("SIMULATE_SEEDS", SEEDS.to_string())
        .env("SIMULATE_BASE", base.to_string())
        .env("SIMULATE_UNSHRUNK", "1")
        .output()
        .expect("the simulation");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let after = told.lines().find_map(|line| line.strip_prefix("after ")?.split(' ').next()?.parse().ok());
    if output.status.success() { SEEDS + 1 } else { after.unwrap_or(0) }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Hung,
}

fn run(root: &Path, program: &Path, mutant: &str, patience: Duration) -> Outcome {
    let child = Command::new(program)
        .current_dir(root)
        .env("MUTANT", mutant)
        .env("PROPTEST_CASES", "64")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("a test program");
    let began = Instant::now();
    loop {
        match child.try_wait().expect("a child") {
            Some(status) if status.success() => return Outcome::Passed,
            Some(_) => return Outcome::Failed,
            None if began.elapsed() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                return Outcome::Hung;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}
