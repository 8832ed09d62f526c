//! What a person sees: progress on stderr while it runs, a table and a verdict at the end.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};

use crate::callers::{CALLERS, REQUESTS};
use crate::trial::{PHASES, Trial};

/// A bar on a terminal, plain lines elsewhere.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn of(provider: &'static str) -> Self {
        if !stderr().is_terminal() {
            eprintln!("{provider}: {} callers at once", thousands(CALLERS));
            return Self { bar: None };
        }
        let bar = ProgressBar::new((PHASES.len() * REQUESTS) as u64).with_prefix(provider);
        if let Ok(style) = ProgressStyle::with_template("  {prefix:10} {bar:40} {pos:>6} {msg}") {
            bar.set_style(style.progress_chars("━━╌"));
        }
        Self { bar: Some(bar) }
    }

    pub(crate) fn phase(&self, phase: &'static str) {
        if let Some(bar) = &self.bar {
            bar.set_message(phase);
        }
    }

    pub(crate) fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    pub(crate) fn phase_over(&self, phase: &'static str, token_requests: usize) {
        if self.bar.is_none() {
            eprintln!("  {phase}: {} requests, {token_requests} for a token", thousands(REQUESTS));
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_with_message("done");
        }
    }
}

/// All trials and how long they took.
pub(crate) struct Report {
    trials: Vec<Trial>,
    elapsed: Duration,
}

impl Report {
    pub(crate) fn new(trials: Vec<Trial>, elapsed: Duration) -> Self {
        Self { trials, elapsed }
    }

    pub(crate) fn is_as_it_must_be(&self) -> bool {
        self.trials.iter().all(is_right)
    }

    fn sum(&self, of: impl Fn(&Trial) -> usize) -> usize {
        self.trials.iter().map(of).sum()
    }
}

fn is_right(trial: &Trial) -> bool {
    let tokens = trial.token_requests.iter().zip(must_be(trial)).all(|(is, must_be)| *is == must_be);
    tokens && trial.successes == trial.requests && trial.stray_resends == 0 && trial.faults.is_empty()
}

/// Token requests: one for each token where a token is needed, none in steady use.
fn must_be(trial: &Trial) -> [usize; 4] {
    PHASES.map(|phase| if phase == "steady" { 0 } else { trial.tokens })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.table())?;
        for trial in &self.trials {
            for fault in &trial.faults {
                writeln!(f, "✗ {}: {fault}", trial.name)?;
            }
        }
        let seconds = self.elapsed.as_secs_f64();
        let requests = thousands(self.sum(|trial| trial.requests));
        if !self.is_as_it_must_be() {
            return write!(
                f,
                "✗ Not every number is as it must be; see the marks. ({requests} requests, {seconds:.1} s)"
            );
        }
        let resends = thousands(self.sum(|trial| trial.resends));
        let tokens = self.sum(|trial| trial.token_requests.iter().sum());
        write!(
            f,
            "✓ {requests} requests by {} callers at once cost {tokens} token requests, one for\n  \
             each token needed. {resends} were sent again after a revocation, none twice.\n  \
             Every one succeeded. ({seconds:.1} s)\n\n\
             These five ask with client credentials. README.md lists the other grants and\n\
             client authentications. More to run: --example spry_authorization_code,\n\
             --example multi_tenant, -p fleet-example.",
            thousands(CALLERS),
        )
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
        table.set_header([
            "Provider",
            "Tenants",
            "Requests",
            "Served",
            "Resends",
            "Tokens: cold,\nsteady,\nexpiry,\nrevoked",
            "Worst\ncase",
        ]);
        for trial in &self.trials {
            table.add_row(row(trial));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn row(trial: &Trial) -> Vec<String> {
    let mut row = vec![
        trial.name.to_owned(),
        if trial.tenants == 0 { "–".to_owned() } else { trial.tenants.to_string() },
        thousands(trial.requests),
        marked(trial.successes, trial.requests),
        match trial.stray_resends {
            0 => thousands(trial.resends),
            stray => format!("✗ {}, {} too many", thousands(trial.resends), thousands(stray)),
        },
    ];
    let tokens = trial.token_requests.into_iter().zip(must_be(trial));
    row.push(tokens.map(|(is, must_be)| marked(is, must_be)).collect::<Vec<_>>().join(", "));
    row.push(format!("{} ms", trial.worst.as_millis()));
    row
}

/// A number, with a mark if it is not what it must be.
fn marked(is: usize, must_be: usize) -> String {
    if is == must_be { thousands(is) } else { format!("✗ {}, not {}", thousands(is), thousands(must_be)) }
}

/// `12 345`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}
