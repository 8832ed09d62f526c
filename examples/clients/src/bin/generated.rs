//! A generated client over the layer. Runs offline: `cargo run -p clients-example --bin generated`.

#[tokio::main]
async fn main() -> Result<(), tower_oauth2_client::BoxError> {
    for line in clients_example::generated::run().await? {
        println!("{line}");
    }
    Ok(())
}
