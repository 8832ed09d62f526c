//! hyper: a token on each request, and one revoked in the middle of the work. Runs offline: `cargo run --example hyper`.

use std::error::Error;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both, serve};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Somebody else's servers, here on loopback: one hands out tokens, the other wants them.
    let auth_server = AuthServer::new(TestClock::new()).client("my-client", "my-secret");
    let api = Api::new(&auth_server);
    let server = serve(both(&auth_server, &api)).await?;

    // Three lines of configuration. Tokens go to the named origin and nowhere else.
    let cfg = AuthConfig::client_credentials(server.uri("/oauth2/token"), ClientAuth::basic("my-client", "my-secret"))
        .scopes(["read", "write"])
        .origin(server.origin())
        .build()?;

    // One more layer in front of the client you have.
    let mut client = ServiceBuilder::new()
        .layer(AuthLayer::new(cfg))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for number in 1..=3 {
        if number == 3 {
            println!("  (the authorization server revokes the token)");
            auth_server.revoke_all();
        }
        let request = Request::post(server.uri("/orders")).body(Full::from(format!("order {number}")))?;
        let response = client.ready().await?.call(request).await?;

        // Only there if something happened. Nobody needs it; logs and tests like it.
        let outcome = response.extensions().get::<AuthOutcome>().cloned().unwrap_or_default();
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status}: {} (sent twice: {})", String::from_utf8_lossy(&body), outcome.resent);
    }
    println!("the API saw {} requests and refused {}", api.hits(), api.unauthorized());
    println!("the authorization server saw {} token requests", auth_server.token_requests());
    Ok(())
}
