//! Writes the tables of the README, RESULTS.md and EXPERIMENTS.md, and the plots, from the figures that the other benches
//! left: `make report`. One run, so that they agree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod charts;
mod plot;
mod read;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod targets;

use std::fmt::Write as _;
use std::path::Path;

use read::{Figures, number};

fn main() {
    let figures = Figures::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables = [
        ("machine", machine()),
        ("counts", tables::counts(&figures)),
        ("shapes", tables::shapes(&figures)),
        ("times", tables::times(&figures, "")),
        ("times with LTO", tables::times(&figures, "_lto")),
        ("counts with LTO", tables::counts_with_lto(&figures)),
        ("reqwest", tables::reqwest(&figures)),
        ("whole requests", tables::end_to_end(&figures, false)),
        ("end to end", tables::end_to_end(&figures, true)),
        ("threads", tables::threads(&figures)),
        ("revocations", tables::revocations(&figures)),
        ("storm", tables::storm(&figures)),
        ("scale", tables::scale(&figures)),
        ("targets", targets::targets(&figures)),
    ];
    for file in ["README.md", "benches/RESULTS.md", "benches/EXPERIMENTS.md"] {
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).expect("a file of the repository");
        std::fs::write(&path, filled(text, &tables)).expect("it can be written");
    }
    let all = format!("# All figures of the last run\n\nWritten by `make report`.\n\n{}\n{}", machine(), all(&figures));
    std::fs::write(root.join("benches/FIGURES.md"), all).expect("it can be written");
    let plots = root.join("benches/plots");
    std::fs::create_dir_all(&plots).expect("benches/plots can be made");
    for (name, plot) in [
        ("overhead", charts::overhead(&figures)),
        ("throughput", charts::throughput(&figures)),
        ("storm", charts::storm(&figures)),
    ] {
        std::fs::write(plots.join(name).with_extension("svg"), plot).expect("the plot can be written");
    }
    println!("README.md, benches/*.md and benches/plots/ are up to date");
}

/// The text, with each table between its marks.
fn filled(mut text: String, tables: &[(&str, String)]) -> String {
    const END: &str = "\n<!-- end -->";
    for (name, table) in tables {
        let begin = format!("<!-- table: {name}, written by `make report` -->\n");
        let Some((before, rest)) = text.split_once(&begin) else { continue };
        let (_, after) = rest.split_once(END).expect("the mark where a table ends");
        text = format!("{before}{begin}\n{}{END}{after}", table);
    }
    text
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rustc = std::process::Command::new("rustc").arg("--version").output();
    let rustc = rustc.map_or("rustc".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "Machine: {}, {cores} logical CPUs, {}, {rustc}.\n",
        model.trim_start_matches([' ', '\t', ':']),
        std::env::consts::OS
    )
}

fn all(figures: &Figures) -> String {
    let mut text = String::new();
    for (bench, lines) in &figures.in_order {
        let _ = write!(text, "<details><summary>All figures of <code>{bench}</code></summary>\n\n| | |\n|---|---:|\n");
        for (name, value) in lines {
            let _ = writeln!(text, "| {name} | {} |", number(*value));
        }
        let _ = write!(text, "\n</details>\n\n");
    }
    text
}
