//! Workloads of two clouds whose identity is not in a file: an AWS workload that authenticates at an authorization server
//! with the JWT of `sts:GetWebIdentityToken`, and a Google instance that asks its metadata server for access tokens. Both
//! run offline, against fakes on this machine: `cargo run --example workload`.

mod aws;
mod metadata;

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("aws: {}", aws::run().await?);
    println!("metadata server: {}", metadata::run().await?);
    Ok(())
}
