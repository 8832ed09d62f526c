//! What the tests over sockets share: an authorization server and an API behind one port of this machine.

#![allow(dead_code, reason = "each test file uses its part")]

use std::error::Error as StdError;
use std::iter::successors;

use http::Response;
use tower_oauth2_client::test_util::{Api, AuthServer, Served, TestClock, both, serve};
use tower_oauth2_client::{AuthConfig, AuthConfigBuilder, AuthOutcome, ClientAuth};

pub(crate) const SECRET: &str = "canary-s3cret";

/// Both servers on one port, over plain HTTP/1.1 and HTTP/2.
pub(crate) struct World {
    pub(crate) auth: AuthServer,
    pub(crate) api: Api,
    pub(crate) server: Served,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|api| api).await
    }

    pub(crate) async fn with(shape: impl FnOnce(Api) -> Api) -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = shape(Api::new(&auth));
        let server = serve(both(&auth, &api)).await.unwrap();
        Self { auth, api, server }
    }

    /// A configuration for both.
    pub(crate) fn config(&self) -> AuthConfigBuilder {
        config(&self.auth, self.server.uri("/oauth2/token"), self.server.origin())
    }

    /// From now on the token that the client holds is refused.
    pub(crate) fn revoke(&self) {
        self.auth.revoke_all();
    }
}

pub(crate) fn config(auth: &AuthServer, token_url: String, origin: String) -> AuthConfigBuilder {
    let client_auth = ClientAuth::basic("client", SECRET);
    AuthConfig::client_credentials(token_url, client_auth).origin(origin).clock(auth.clock().clone())
}

pub(crate) fn outcome<B>(response: &Response<B>) -> AuthOutcome {
    response.extensions().get().cloned().unwrap_or_default()
}

/// An error as a careful `main` prints it: each source after its effect.
pub(crate) fn told<'a>(error: &'a (dyn StdError + 'static)) -> String {
    let chain = successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
