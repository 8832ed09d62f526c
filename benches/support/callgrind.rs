//! Counts instructions: runs this very program again under callgrind, once for each case.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::cases::cases;
use super::ours::background;
use super::requests::{KINDS, Kind};
use super::waiters::Waiters;

const ASKED: &str = "COUNT_INSTRUCTIONS_OF";
const REQUESTS: u64 = 5000;
const WAITING: &str = "tasks that wait";
const READY: &str = "tasks with a token at hand";

/// To be called first in `main`: in the program that callgrind runs, it runs the one case asked for and returns `true`.
pub(crate) fn run_if_asked() -> bool {
    let Ok(asked) = std::env::var(ASKED) else { return false };
    if let Some(wait) =
        [(WAITING, true), (READY, false)].into_iter().find_map(|(name, wait)| (asked == name).then_some(wait))
    {
        Waiters::new(wait).measured_run(REQUESTS);
        return true;
    }
    let (kind, name) = asked.split_once(' ').unwrap();
    let kind = KINDS.into_iter().find(|k| k.name() == kind).unwrap();
    let runtime = background();
    let _guard = runtime.enter();
    let mut case = cases(&runtime, kind).into_iter().find(|case| case.name == name).unwrap();
    // The first two requests of a clone cost more; among so many they do not count.
    case.run(REQUESTS);
    true
}

/// Why nothing can be counted here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    if cfg!(debug_assertions) {
        return Some("not run: the build is not optimised");
    }
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) { None } else { Some("not run: there is no valgrind") }
}

/// Instructions a request.
pub(crate) fn count(kind: Kind, name: &str) -> f64 {
    count_asked(&format!("{} {name}", kind.name()))
}

/// Instructions that a request costs more if it has to wait for its token, with a task for each.
pub(crate) fn count_waiter() -> f64 {
    count_asked(WAITING) - count_asked(READY)
}

fn count_asked(asked: &str) -> f64 {
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
    let total = read_total(&out);
    let _ = std::fs::remove_file(&out);
    total / REQUESTS as f64
}

fn read_total(file: &std::path::Path) -> f64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind's totals");
    line.trim().parse().unwrap()
}
