//! The tower layer: puts a token on each request of the service it wraps, and sends a rejected request once more.
//!
//! [`AuthLayer`] makes [`Auth<S>`](Auth), a `Service<http::Request<B>>` (and, with the feature `reqwest`, a
//! `Service<reqwest::Request>`) around any `S` of the same kind that is `Clone`. The request and response types stay as they
//! are, and so does the response body. Errors become [`Error`](crate::Error), which holds the inner service's error.
//!
//! # Rules
//!
//! 1. **Where credentials go.** A request goes out with credentials only to a configured origin. One to another host is
//!    refused before anything is sent, or passed on without them, as the configuration says. A URI without a host is taken to
//!    go where the inner service is connected.
//! 2. **Whose credentials.** The tenant is read once for each request; header and token derive from that one reading. A tenant
//!    that is missing or contradicts itself is an error, and nothing is sent.
//! 3. **A good token costs nothing.** While it is good, a request takes no lock, reads no clock and writes to nothing that
//!    threads share.
//! 4. **A missing token is waited for.** However many requests wait, one token request is made, by a task that none of them
//!    owns. A failure is everybody's, and is remembered for a while.
//! 5. **Readiness is not held while waiting.** `poll_ready` is the inner service's. A request that must wait drops the
//!    service that was polled ready, and polls a fresh clone when it goes on: at a concurrency limit of one, the token request
//!    may need that permit.
//! 6. **A rejected token is replaced, and the request sent once more.** Rejected means 401, gRPC status 16, and what the
//!    configuration adds. Only a token newer than the one rejected leads to a resend, only if head and body could be kept, and
//!    only if [`Replay`](crate::Replay) allows it. The second response is handed out whatever it is.
//! 7. **The original response beats an error.** If no new token can be obtained, the caller gets the 401 with its body, and
//!    [`RefreshFailed`](crate::RefreshFailed) in its extensions.
//! 8. **Useless refreshes are bounded.** An API that rejects every token costs at most 13 token requests a minute for each
//!    partition.
//! 9. **Dropping a response future cancels nothing but that request.**
//!
//! With tokens that are bound to a key (feature `dpop`) each sending carries a proof, and may be repeated once because the
//! server wants its nonce in it. So such a request is sent four times at worst.
//!
//! # Caveats
//!
//! - **Bodies.** Clonable and recordable bodies can be sent twice (see [`AuthLayer::can_replay`]); a body of another type goes
//!   out once, its 401 comes back, and the next request has the new token. A recorded body is held in memory, 64 KiB at most by
//!   default.
//! - **Redirects.** An inner client that follows them by itself goes where rule 1 is not checked. Turn that off, and put a
//!   layer that follows redirects outside.
//! - **Order.** From the outside in: tracing, total timeout, retries, this layer, timeout of one attempt, concurrency limit,
//!   client. A retry layer outside must not retry a 401.
//! - **Request extensions** reach the inner service; of a resend they are clones.
//! - **A panic** in the token source is an error for those who wait. A panic in the inner service is the caller's.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "test-util")] {
//! use http::{Request, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
//! use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth};
//!
//! # tokio_test::block_on(async {
//! let auth_server = AuthServer::new(TestClock::new());
//! let api = Api::new(&auth_server);
//! let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
//!     .origin("https://api.example.com")
//!     .build()?;
//! let layer = AuthLayer::builder(cfg).http_client(auth_server.clone()).build()?;
//! let client = ServiceBuilder::new().layer(layer).concurrency_limit(10).service(api.clone());
//!
//! let post = || Request::post("https://api.example.com/items").body(String::from("an item"));
//! assert_eq!(client.clone().oneshot(post()?).await?.status(), StatusCode::OK);
//!
//! auth_server.revoke_all(); // and nobody tells the client
//! let response = client.clone().oneshot(post()?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert!(response.extensions().get::<AuthOutcome>().unwrap().resent);
//! assert_eq!((auth_server.token_requests(), api.hits()), (2, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! # }
//! ```

mod builder;
mod future;
mod header_cache;
mod layer;
mod prove;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_chain;
#[cfg(feature = "retry")]
mod retry;
mod service;
mod shared;

pub use builder::AuthLayerBuilder;
pub use future::ResponseFuture;
pub use layer::AuthLayer;
#[cfg(feature = "retry")]
pub use retry::RetryTokenErrors;
pub use service::Auth;
