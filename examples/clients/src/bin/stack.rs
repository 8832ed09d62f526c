//! A stack of tower-http's layers around and inside of the layer. Runs offline: `cargo run -p clients-example --bin stack`.

#[tokio::main]
async fn main() -> Result<(), tower_oauth2_client::BoxError> {
    for line in clients_example::stack::run().await? {
        println!("{line}");
    }
    Ok(())
}
