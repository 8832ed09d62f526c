//! A gateway that calls two APIs on behalf of its caller: the caller's token is exchanged for one of each API's
//! audience. Runs offline: `cargo run -p gateway-example`.

mod gateway;

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in gateway::run().await? {
        println!("{line}");
    }
    Ok(())
}
