//! Five providers under load, on this machine alone: `cargo run --release --example quickstart`.
//!
//! Each provider's authorization server and API run on loopback and are as strict as the real ones. 2 000 callers use
//! each API at once, through hyper, while the token expires and is revoked. The numbers must be exact: one token request
//! for each token, however many wait for it; every request answered; none sent more than twice.

mod callers;
mod providers;
mod report;
mod trial;

use std::process::ExitCode;
use std::time::Instant;

use tower_oauth2_client::BoxError;

use report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            println!("{report}");
            if report.is_as_it_must_be() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the quickstart could not start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<Report, BoxError> {
    let started = Instant::now();
    let mut trials = Vec::new();
    // One after the other, so that the latencies are each provider's own.
    for provider in providers::all().await? {
        trials.push(trial::run(provider).await);
    }
    Ok(Report::new(trials, started.elapsed()))
}
