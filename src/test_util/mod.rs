//! A scriptable authorization server and API, for tests of your own client (feature `test-util`).
//!
//! [`AuthServer`] hands out tokens, [`Api`] accepts requests that carry a live one. Both are tower services over
//! `http::Request`, so a test needs no socket; [`serve`] puts the same service on loopback where a real connection is
//! the point. Both can be told to misbehave ([`Fault`]), and both remember every request they saw.
//!
//! All times are virtual: latencies and hangs use tokio's timers, tokens expire by a [`TestClock`] that follows them.
//! So a test with `#[tokio::test(start_paused = true)]` is over at once, however long its hours are.
//!
//! ```
//! use tower::ServiceExt;
//! use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
//!
//! # tokio_test::block_on(async {
//! let auth = AuthServer::new(TestClock::new()).client("id", "secret");
//! let api = Api::new(&auth);
//! auth.script([Fault::RetryAfter(503, 30)]); // the first token request fails, the second one does not
//!
//! let ask = || {
//!     http::Request::post("https://auth.example.com/oauth2/token")
//!         .header("content-type", "application/x-www-form-urlencoded")
//!         .body(String::from("grant_type=client_credentials&client_id=id&client_secret=secret"))
//!         .unwrap()
//! };
//! assert_eq!(auth.clone().oneshot(ask()).await.unwrap().status(), 503);
//! assert_eq!(auth.clone().oneshot(ask()).await.unwrap().status(), 200);
//! assert_eq!(auth.token_requests(), 2);
//!
//! let token = auth.last_token().unwrap();
//! let get = http::Request::get("/items").header("authorization", format!("Bearer {token}"));
//! assert_eq!(api.clone().oneshot(get.body(String::new()).unwrap()).await.unwrap().status(), 200);
//! # });
//! ```
//!
//! [`World`] has both with a client in between: a test of your own client is ten lines.
//!
//! Five providers are ready-made, each as strict and as odd as the original: [`AuthServer::vip`], [`AuthServer::spry`],
//! [`AuthServer::vectorcare`], [`AuthServer::qmatic`], [`AuthServer::graphnet`].

mod api;
mod auth_server;
mod body;
mod both;
mod clock;
mod codes;
mod devices;
mod dpop;
mod fault;
mod jwt;
mod metadata;
mod record;
mod serve;
mod shapes;
mod store_conformance;
mod tokens;
mod world;

pub use api::Api;
pub use auth_server::AuthServer;
pub use body::Body;
pub use both::{Both, both};
pub use clock::TestClock;
pub use fault::Fault;
pub use record::RecordedRequest;
pub use serve::{Served, serve};
pub use store_conformance::{store_conforms, store_conforms_across_processes};
pub use world::World;
