//! A day of a fleet in half a minute: three thousand processes, restarts, an hour's tokens, an authorization server that is
//! away for twenty minutes; alone or with a store, with and without jitter.
//!
//! Nothing is modelled but the world: each process is a layer of this crate, on tokio's paused clock. So what is counted
//! is what the crate does.
//!
//! `cargo run --release --example fleet_simulation`; `-- --plot docs/plots` also writes the plot,
//! `-- --processes 10000` takes another fleet, which is that of docs/fleet.md.

mod day;
mod fleet;
mod plot;

use std::io::IsTerminal;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};

use day::Day;
use fleet::{Fleet, SCENARIOS};

fn main() -> ExitCode {
    let Some(options) = Options::read() else {
        eprintln!("usage: fleet_simulation [--processes N] [--plot FOLDER]");
        return ExitCode::from(2);
    };
    // Before the days, so that a folder that cannot be made costs none.
    if let Some(folder) = &options.plot
        && let Err(error) = std::fs::create_dir_all(folder)
    {
        eprintln!("{} cannot be made: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let days = live(options.processes);
    println!("{}", table(&days));
    println!("Token requests: a day; a minute of steady life; a second at the start; a minute");
    println!("of the outage, all of which fail; a second after it.");
    println!("A day of {} processes, {} times, in {:.0?}.", options.processes, days.len(), began.elapsed());
    if let Some(folder) = options.plot {
        let file = folder.join("fleet.svg");
        if let Err(error) = std::fs::write(&file, plot::requests(&days)) {
            eprintln!("{} cannot be written: {error}", file.display());
            return ExitCode::FAILURE;
        }
        println!("{} is written.", file.display());
    }
    let wrong: Vec<_> = days.iter().flat_map(Day::broken_promises).collect();
    wrong.iter().for_each(|promise| eprintln!("BROKEN: {promise}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The days at the same time, each on a thread of its own.
fn live(processes: usize) -> Vec<Day> {
    let hours = ProgressBar::new(24 * SCENARIOS.len() as u64);
    hours.set_style(
        ProgressStyle::with_template("{bar:40} {pos} of {len} hours, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    if !std::io::stderr().is_terminal() {
        eprintln!("three days of {processes} processes");
    }
    let days = std::thread::scope(|scope| {
        let days: Vec<_> = SCENARIOS
            .into_iter()
            .map(|scenario| {
                let hours = hours.clone();
                scope.spawn(move || Fleet { processes, scenario }.live_a_day(|| hours.inc(1)))
            })
            .collect();
        days.into_iter().map(|day| day.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    hours.finish_and_clear();
    days
}

struct Options {
    processes: usize,
    plot: Option<PathBuf>,
}

impl Options {
    fn read() -> Option<Self> {
        let mut options = Self { processes: 3_000, plot: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--processes" => options.processes = words.next()?.parse().ok().filter(|n| *n > 0)?,
                "--plot" => options.plot = Some(words.next()?.into()),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn table(days: &[Day]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "",
        "a day",
        "steady\nmean",
        "steady\npeak",
        "peak/\nmean",
        "start\npeak",
        "failed\nmean",
        "after\npeak",
    ]);
    for day in days {
        table.add_row([
            day.scenario.to_string(),
            day.all.to_string(),
            format!("{:.1}", day.mean()),
            day.peak().to_string(),
            day.ratio().map_or("–".into(), |ratio| format!("{ratio:.2}")),
            day.peak_at_start().to_string(),
            format!("{:.0}", day.failed_a_minute()),
            day.peak_at_recovery().to_string(),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
