//! Counts instructions: runs this very program again under callgrind, once for each case.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::cases::cases;
use super::ours::background;
use super::requests::{KINDS, Kind, SHAPES};
use super::waiters::Waiters;

const ASKED: &str = "COUNT_INSTRUCTIONS_OF";
const REQUESTS: u64 = 5000;
const WAITING: &str = "tasks that wait";
const READY: &str = "tasks with a token at hand";

/// To be called first in `main`: in the program that callgrind runs, it runs the one case asked for and returns `true`.
pub(crate) fn run_if_asked() -> bool {
    let Some(asked) = asked() else { return false };
    if let Some(wait) =
        [(WAITING, true), (READY, false)].into_iter().find_map(|(name, wait)| (asked == name).then_some(wait))
    {
        Waiters::new(wait).measured_run(REQUESTS);
        return true;
    }
    let (kind, name) = asked.split_once(' ').unwrap();
    let kind = KINDS.into_iter().chain(SHAPES).find(|k| k.name() == kind).unwrap();
    let runtime = background();
    let _guard = runtime.enter();
    let mut case = cases(&runtime, kind).into_iter().find(|case| case.name == name).unwrap();
    // The first two requests of a clone cost more; among so many they do not count.
    case.run(REQUESTS);
    true
}

/// What the program that callgrind runs is asked for.
pub(crate) fn asked() -> Option<String> {
    std::env::var(ASKED).ok()
}

/// Why nothing can be counted here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    if cfg!(debug_assertions) {
        return Some("not run: the build is not optimised");
    }
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) { None } else { Some("not run: there is no valgrind") }
}

/// Instructions a request: all, and those outside of malloc.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) all: f64,
    pub(crate) outside_malloc: f64,
}

pub(crate) fn count(kind: Kind, name: &str) -> Counted {
    count_asked(&format!("{} {name}", kind.name()), REQUESTS)
}

/// Instructions outside of malloc that a request costs more if it has to wait for its token, with a task for each.
pub(crate) fn count_waiter() -> f64 {
    count_asked(WAITING, REQUESTS).outside_malloc - count_asked(READY, REQUESTS).outside_malloc
}

/// Runs what is asked for, which is so many requests.
pub(crate) fn count_asked(asked: &str, requests: u64) -> Counted {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{}", std::process::id()));
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_*", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .env(ASKED, asked)
        // Keeps freed blocks of all our sizes at hand: else a block more or less elsewhere changes the way through malloc.
        .env("GLIBC_TUNABLES", "glibc.malloc.tcache_max=4096:glibc.malloc.tcache_count=64")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "callgrind failed for {asked}");
    let (total, allocator) = read_totals(&out);
    let _ = std::fs::remove_file(&out);
    Counted { all: total / requests as f64, outside_malloc: (total - allocator) / requests as f64 }
}

/// Instructions of a whole run, and of these the ones inside malloc.
///
/// Those depend on what lies beside a block that is freed, so that a change elsewhere moves them by hundreds.
fn read_totals(file: &std::path::Path) -> (f64, f64) {
    let text = std::fs::read_to_string(file).unwrap();
    let (mut names, mut allocator) = (HashMap::new(), 0.0);
    let (mut is_allocator, mut is_call) = (false, false);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            // A name is written out where it comes first, and is a number from then on.
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            let is_of_malloc = names.entry(number).or_insert_with(|| is_of_malloc(name));
            if line.starts_with("fn=") {
                is_allocator = *is_of_malloc;
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line after a call tells what the called function took.
            if !std::mem::take(&mut is_call) && is_allocator {
                allocator += line.split(' ').nth(1).map_or(0.0, |cost| cost.parse().unwrap());
            }
        }
    }
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind's totals");
    (totals.trim().parse().unwrap(), allocator)
}

fn is_of_malloc(name: &str) -> bool {
    let name = name.split(['.', '\'', '@']).next().unwrap_or_default();
    ["malloc", "_int_malloc", "malloc_consolidate", "unlink_chunk", "free", "_int_free", "realloc", "_int_realloc"]
        .contains(&name)
}
