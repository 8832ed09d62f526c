//! `World`: a clock, an authorization server and an API that belong together.

use super::{Api, AuthServer, TestClock};
use crate::{Auth, AuthConfig, AuthConfigBuilder, AuthLayer, ClientAuth, ConfigError};

/// What most tests of a client begin with: a clock, an authorization server that knows one client, and an API that takes the
/// server's tokens.
///
/// ```
/// use tower::ServiceExt;
/// use tower_oauth2_client::AuthOutcome;
/// use tower_oauth2_client::test_util::World;
///
/// # tokio_test::block_on(async {
/// let world = World::new();
/// let client = world.client(world.config())?;
///
/// let get = || http::Request::get("https://api.example.com/items").body(String::new()).unwrap();
/// assert_eq!(client.clone().oneshot(get()).await?.status(), 200);
/// world.auth.revoke_all();
/// let response = client.clone().oneshot(get()).await?;
/// assert!(response.extensions().get::<AuthOutcome>().is_some_and(|outcome| outcome.resent));
/// assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct World {
    /// The time of both servers, and of layers made by [`layer`](World::layer).
    pub clock: TestClock,
    /// The authorization server, at [`TOKEN_URL`](World::TOKEN_URL).
    pub auth: AuthServer,
    /// The API, at [`ORIGIN`](World::ORIGIN).
    pub api: Api,
}

impl World {
    /// Where tokens come from.
    pub const TOKEN_URL: &'static str = "https://auth.example.com/token";
    /// The origin of the API.
    pub const ORIGIN: &'static str = "https://api.example.com";
    /// The client that the server knows.
    pub const CLIENT: &'static str = "client";
    /// That client's secret.
    pub const SECRET: &'static str = "s3cret";

    /// A server that knows [`CLIENT`](World::CLIENT), and an API.
    pub fn new() -> Self {
        Self::of(AuthServer::new(TestClock::new()).client(Self::CLIENT, Self::SECRET))
    }

    /// Your own authorization server, such as [`AuthServer::vip`], and an API that takes its tokens.
    pub fn of(auth: AuthServer) -> Self {
        Self { clock: auth.clock().clone(), api: Api::new(&auth), auth }
    }

    /// A configuration for client credentials, for both servers and by this clock.
    pub fn config(&self) -> AuthConfigBuilder {
        AuthConfig::client_credentials(Self::TOKEN_URL, ClientAuth::basic(Self::CLIENT, Self::SECRET))
            .origin(Self::ORIGIN)
            .clock(self.clock.clone())
    }

    /// A layer whose token requests go to the server.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn layer(&self, cfg: AuthConfigBuilder) -> Result<AuthLayer, ConfigError> {
        AuthLayer::builder(cfg.build()?).http_client(self.auth.clone()).build()
    }

    /// A client of the API, through a layer of its own.
    ///
    /// # Errors
    /// As [`layer`](World::layer).
    pub fn client(&self, cfg: AuthConfigBuilder) -> Result<Auth<Api>, ConfigError> {
        Ok(tower_layer::Layer::layer(&self.layer(cfg)?, self.api.clone()))
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
