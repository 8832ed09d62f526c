//! kube's client over a scripted API server. Runs offline: `cargo run -p clients-example --bin kube`.

#[tokio::main]
async fn main() -> Result<(), tower_oauth2_client::BoxError> {
    for line in clients_example::kubernetes::run().await? {
        println!("{line}");
    }
    Ok(())
}
