//! A [tower](https://docs.rs/tower) middleware for HTTP clients: an OAuth2 token and a tenant header on each request,
//! one token request however many requests wait for it, and one resend after a 401.
//!
//! ```no_run
//! # #[cfg(feature = "reqwest")] {
//! use tower::ServiceBuilder;
//! use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = "https://auth.example.com/oauth2/token";
//! let cfg = AuthConfig::client_credentials(server, ClientAuth::basic("id", "secret"))
//!     .scopes(["read", "write"])
//!     .origin("https://api.example.com") // the only place that gets the token
//!     .build()?;
//!
//! // It must not follow redirects: they lead past the check of origins.
//! let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let client = ServiceBuilder::new().layer(AuthLayer::new(cfg)).service(http);
//!
//! let url = "https://api.example.com/v1/items".parse()?;
//! let response = client.execute(reqwest::Request::new(reqwest::Method::GET, url)).await?;
//! # Ok(()) }
//! # }
//! ```
//!
//! The same line stands in front of a hyper client, a tonic channel or any other `Service<http::Request<B>>`.
//!
//! # Where to look
//!
//! - [`AuthConfig`] says how tokens are obtained and where they may go; [`providers`] has five presets.
//! - [`AuthLayer`] puts it in front of a client, [`Auth`] is the client it makes, [`AuthHandle`] looks after the tokens.
//! - [`SignIn`] is a person's sign-in, from the URL that they open to the token, [`DeviceSignIn`] one on another device, and
//!   [`SignInError`] why it brought none. [`AuthHandle::revoke`] ends it.
//! - [`Discovery`] finds a server's endpoints by its issuer.
//! - [`Error`] is what a request fails with, [`TokenError`] why there was no token. A rejected token is no error: the
//!   response comes back, with [`AuthOutcome`] and, if a refresh failed, [`RefreshFailed`] in its extensions.
//! - [`TenantId`], [`Scopes`], [`Replay`] and [`SkipAuth`] go into a request's extensions; [`Tenant`] configures tenants.
//! - [`TokenSource`] is where tokens come from, if not from a token endpoint; [`TokenEndpoint`] is that endpoint by itself, a
//!   `Service` from [`TokenRequest`] to [`Token`].
//! - [`store`] keeps tokens outside the process: across restarts, and for many processes at once.
//! - `test_util` (feature `test-util`) is an authorization server and an API for your own tests.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `reqwest` | yes | the built-in token client ([`AuthLayer::new`]), and [`Auth`] as a `Service<reqwest::Request>` |
//! | `rustls` | yes | TLS of the built-in client by rustls with AWS-LC; turns on `reqwest` |
//! | `rustls-no-provider` | | the same with the cryptography that your program installs |
//! | `native-tls` | | the same by the system's library; with several of these features rustls is used |
//! | `reqwest-middleware` | | [`AuthLayer`] as a `reqwest_middleware::Middleware`, for generated clients |
//! | `retry` | | `RetryTokenErrors`, a policy for `tower::retry` |
//! | `tonic` | | resend of `tonic::body::Body`; token failures become `Status::unavailable` in generated clients |
//! | `axum` | | resend of `axum::body::Body`, for gateways |
//! | `jwt` | | clients that authenticate by signed assertions, with your own signer |
//! | `jwt-aws-lc-rs`, `jwt-rust-crypto` | | the same with keys from PEM, signed by one library or the other |
//! | `encryption` | | [`store`]: values of any token store encrypted with your keys |
//! | `redis` | | [`store`]: tokens shared by processes through Redis or Valkey, encrypted |
//! | `dpop` | | tokens bound to a key (`DpopKey`, RFC 9449); with `jwt-aws-lc-rs` or `jwt-rust-crypto` |
//! | `metrics` | | [metrics](guides::observability#metrics) through the facade of the crate `metrics` |
//! | `serde` | | `AuthSettings`: configurations from files and the environment, through any serde format |
//! | `loopback` | | `LoopbackRedirect`: takes a browser's answer to a sign-in on a port of this machine |
//! | `test-util` | | the module `test_util` |
//! | `full` | | all of these but `native-tls` |
//!
//! Without any feature you bring the HTTP service that token requests go through: [`AuthLayerBuilder::http_client`].
//!
//! # Runtime
//!
//! Token requests are tasks of the tokio runtime in which the request that needs them is polled. Outside of one a
//! request that needs a token fails with [`TokenErrorKind::NoRuntime`]; nothing panics.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod config;
#[cfg(feature = "dpop")]
mod dpop;
mod endpoint;
mod engine;
pub mod guides;
mod handle;
#[cfg(feature = "jwt")]
mod jws;
mod middleware;
mod request;
mod response;
mod setup;
mod sign_in;
pub mod store;
mod telemetry;
#[cfg(feature = "test-util")]
pub mod test_util;
mod token;
mod types;

pub use config::{AuthConfig, AuthConfigBuilder, External, presets as providers};
#[cfg(feature = "serde")]
pub use config::{AuthSettings, NamedSettings};
#[cfg(feature = "dpop")]
pub use dpop::DpopKey;
pub use endpoint::{
    Authority, AuthorizationCode, BodyEncoding, ClientAuth, Directory, Discovery, GrantAssertion, IdentityAssertion,
    OnBehalfOf, TokenEndpoint, TokenExchange, TokenUrl,
};
#[cfg(feature = "reqwest")]
pub use endpoint::{BuiltInClient, ReqwestClient};
pub use handle::{AuthHandle, Failing, Stats};
#[cfg(feature = "jwt")]
pub use jws::{AssertionTyp, Certificate, JwtAssertion, Signer, SigningAlgorithm, SigningKey};
#[cfg(feature = "retry")]
pub use middleware::RetryTokenErrors;
pub use middleware::{Auth, AuthLayer, AuthLayerBuilder, ResponseFuture};
pub use request::{ExistingAuthorization, HttpRequest, HttpResponse, Recorded, Tenant, UnlistedOrigin};
pub use response::{AuthChallenge, Forbidden};
#[cfg(feature = "loopback")]
pub use sign_in::LoopbackRedirect;
pub use sign_in::{DeviceSignIn, SignIn, SignInError, SignInErrorKind};
pub use token::{
    BoxTokenSource, ExpirySource, Extra, RefreshToken, Renew, StaticToken, Token, TokenRequest, TokenSource,
    UnknownExpiry,
};
pub use types::{
    AuthOutcome, BoxError, Clock, ConfigError, Error, ErrorCode, Now, RefreshFailed, Replay, Scopes, Secret,
    SecretSource, SkipAuth, SubjectToken, SystemClock, TenantId, TokenError, TokenErrorKind, TokenParams,
    TransportError,
};

/// The README's examples compile.
#[cfg(all(doctest, feature = "reqwest", feature = "tonic"))]
#[doc = include_str!("../README.md")]
struct Readme;
