//! Clients of other crates, with the layer in them: kube's, one that OpenAPI Generator made, and a stack of tower-http's layers.
//! Each runs offline: `cargo run -p clients-example --bin kube`, `--bin generated`, `--bin stack`.

mod server;

pub mod generated;
pub mod kubernetes;
pub mod stack;

// Made by: `openapi-generator generate -g rust -i orders.yaml --additional-properties=library=reqwest,supportMiddleware=true`
#[allow(clippy::all, dead_code, missing_docs, unreachable_pub, unused_imports, reason = "generated")]
#[rustfmt::skip]
pub mod apis;
#[allow(clippy::all, dead_code, missing_docs, unreachable_pub, unused_imports, reason = "generated")]
#[rustfmt::skip]
pub mod models;
