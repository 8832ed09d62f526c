//! A fleet of processes that share one token through Redis: `cargo run --release -p fleet-example`.
//!
//! Eight processes of this program, one authorization server on loopback, and a Redis: the one of `REDIS_URL`, or one
//! that is started for the occasion. Whatever the processes do, the authorization server sees one token request, also
//! when the process that was making it is killed. The numbers must be exact.

mod fleet;
mod member;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../../tests/redis/server.rs"]
mod server;

use std::env;
use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use tower_oauth2_client::BoxError;

use fleet::{Fleet, Outcome, PROCESSES, REQUESTS};
use server::{Redis, program};

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match env::var(member::ENVIRONMENT) {
        Ok(told) => member::run(&told).await.map(|()| ExitCode::SUCCESS),
        Err(_) => run().await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("the fleet could not start: {error}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode, BoxError> {
    let (redis, url) = match env::var("REDIS_URL") {
        Ok(url) => (None, url),
        Err(_) => {
            let redis = if program().is_some() { Redis::start().await } else { None };
            let Some(redis) = redis else {
                println!("Install Redis or Valkey (Debian: apt install redis-server), or set REDIS_URL.");
                return Ok(ExitCode::SUCCESS);
            };
            let url = redis.url();
            (Some(redis), url)
        }
    };

    let all = PROCESSES * REQUESTS;
    let mut outcomes = Vec::new();
    let mut fleet = Fleet::start(&url, false).await?;
    outcomes.push(fleet.storm("all start at once", all, 1).await?);
    outcomes.push(fleet.storm("the token has expired", all, 1).await?);
    outcomes.push(fleet.kill_the_leader("whoever asks for the token is killed", all - REQUESTS).await?);
    fleet.stop().await;
    let mut fleet = Fleet::start(&url, true).await?;
    outcomes.push(fleet.storm("without the store", all, PROCESSES).await?);
    fleet.stop().await;
    drop(redis);

    println!("{}", table(&outcomes));
    println!(
        "\nThe killed process leaves its lease: the others wait for its end ({:?} here), then one of them asks.",
        fleet::LEASE
    );
    let exact = outcomes.iter().all(Outcome::is_as_it_must_be);
    println!("{}", if exact { "All figures are as they must be." } else { "SOME FIGURES ARE WRONG." });
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header([
        "what happens",
        "processes",
        "requests answered",
        "token requests",
        "refresh tokens reused",
        "took",
    ]);
    for outcome in outcomes {
        table.add_row([
            outcome.what.to_owned(),
            outcome.processes.to_string(),
            format!("{} of {}", outcome.answered, outcome.expected_answers),
            format!("{} of {}", outcome.token_requests, outcome.expected_token_requests),
            outcome.reuses.to_string(),
            format!("{:.2?}", outcome.took),
        ]);
    }
    table
}
