//! A token store of your own, over SQLite: several processes of one machine share their tokens in one file.
//!
//! `cargo run --manifest-path examples/sqlite_store/Cargo.toml` shows it; `cargo test --manifest-path ..` holds it to what
//! every store must do, within one process and over two.

mod sqlite;

use std::error::Error;

use sqlite::SqliteStore;
use tower_oauth2_client::store::{Encrypted, EncryptionKeys};
use tower_oauth2_client::test_util::{AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("sqlite-store-{}.db", std::process::id()));
    // Of your secret manager. Without `Encrypted` the tokens can be read by anyone who can read the file.
    let keys = EncryptionKeys::from_base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")?;
    let server = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .build()?;
    // Three runs of a program, one after the other.
    for _ in 0..3 {
        let store = Encrypted::new(SqliteStore::open(&file)?, keys.clone());
        let layer = AuthLayer::builder(cfg.clone()).http_client(server.clone()).store(store).build()?;
        layer.handle().warm_up().await?;
        layer.handle().shutdown().await;
    }
    println!("3 runs, {} token request", server.token_requests());
    std::fs::remove_file(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tower_oauth2_client::test_util::{store_conforms, store_conforms_across_processes};

    use super::*;

    fn new_file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sqlite-store-{name}-{}.db", std::process::id()))
    }

    #[tokio::test]
    async fn it_conforms() {
        let file = new_file("one");
        store_conforms(&SqliteStore::open(&file).unwrap()).await;
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn it_conforms_over_two_processes() {
        let file = new_file("two");
        let open = |path: &str| SqliteStore::open(path).unwrap();
        store_conforms_across_processes("tests::it_conforms_over_two_processes", file.to_str().unwrap(), open).await;
        std::fs::remove_file(file).unwrap();
    }
}
