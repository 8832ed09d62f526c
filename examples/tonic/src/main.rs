//! tonic: the layer between a generated client and its channel. Runs offline: `cargo run -p tonic-example`.

use std::convert::Infallible;
use std::error::Error;

use tonic::transport::Channel;
use tower::{ServiceBuilder, service_fn};
use tower_oauth2_client::test_util::{AuthServer, TestClock, serve};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth};

/// Stands for the code that `tonic-build` makes of your `.proto` files.
#[allow(dead_code, reason = "the tests use more of it")]
mod echo;

use echo::{EchoClient, EchoServer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // An authorization server, and a gRPC server that refuses dead tokens with status 16, `UNAUTHENTICATED`.
    let auth_server = AuthServer::new(TestClock::new()).client("my-client", "my-secret");
    let auth = serve(auth_server.clone()).await?;
    let echo = EchoServer::new(&auth_server);
    let serving = echo.clone();
    let grpc = serve(service_fn(move |request| {
        let answer = serving.clone().answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    }))
    .await?;

    let cfg = AuthConfig::client_credentials(auth.uri("/oauth2/token"), ClientAuth::basic("my-client", "my-secret"))
        .origin(grpc.origin())
        .build()?;

    // The layer goes around the channel; the generated client takes any such service.
    let channel = Channel::from_shared(grpc.origin())?.connect().await?;
    let layer = AuthLayer::new(cfg);
    // Tells when another minor version of tonic has come in, whose bodies are another type.
    assert!(layer.can_replay::<tonic::body::Body>(), "a rejected request could not be sent again");
    let mut client = EchoClient::new(ServiceBuilder::new().layer(layer).service(channel));

    for message in ["hello", "hello again"] {
        let response = client.unary(message).await?;
        let resent = response.extensions().get::<AuthOutcome>().is_some_and(|outcome| outcome.resent);
        println!("{:?} (sent twice: {resent})", response.get_ref());

        println!("  (the authorization server revokes the token)");
        auth_server.revoke_all();
    }

    // There is no token: the generated client's caller gets `UNAVAILABLE` and the reason, and nothing is sent.
    let cfg = AuthConfig::client_credentials(auth.uri("/oauth2/token"), ClientAuth::basic("my-client", "a wrong one"))
        .origin(grpc.origin())
        .build()?;
    let channel = Channel::from_shared(grpc.origin())?.connect().await?;
    let mut client = EchoClient::new(ServiceBuilder::new().layer(AuthLayer::new(cfg)).service(channel));
    if let Err(status) = client.unary("never sent").await {
        println!("{:?}: {}", status.code(), status.message());
    }
    println!("the gRPC server saw {} calls", echo.calls());
    Ok(())
}
