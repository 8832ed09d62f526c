//! Spry on behalf of a person: sign-in, requests, and the renewal at Spry's other path. Runs offline:
//! `cargo run --example spry_authorization_code`, with `-- --manual` to open the URL in a browser of your own.

mod flow;

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let manual = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--manual") => true,
        Some(other) => return Err(format!("unknown argument {other}; there is only --manual").into()),
    };
    for request in flow::run(manual).await? {
        println!("the server saw: {request}");
    }
    Ok(())
}
