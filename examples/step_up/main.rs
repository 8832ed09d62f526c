//! What to do about a challenge that a new token of the same kind would not answer: ask for another kind of token, and know
//! when to stop. Runs offline: `cargo run --example step_up`.

mod step_up;

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in step_up::run().await? {
        println!("{line}");
    }
    Ok(())
}
