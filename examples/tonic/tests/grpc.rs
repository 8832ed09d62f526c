//! A tonic `Channel` under a generated-like client, against a gRPC server on loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../src/echo.rs"]
mod echo;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;

use bytes::Bytes;
use echo::{EchoClient, EchoServer};
use futures_util::stream;
use tonic::Code;
use tonic::transport::Channel;
use tower::{Layer, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, Served, TestClock, serve};
use tower_oauth2_client::{Auth, AuthConfig, AuthConfigBuilder, AuthLayer, AuthOutcome, ClientAuth, DpopKey};

struct Grpc {
    auth: AuthServer,
    echo: EchoServer,
    auth_server: Served,
    echo_server: Served,
}

impl Grpc {
    async fn new() -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", support::SECRET);
        let echo = EchoServer::new(&auth);
        let serving = echo.clone();
        let answer = service_fn(move |request| {
            let answer = serving.clone().answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let (auth_server, echo_server) = (serve(auth.clone()).await.unwrap(), serve(answer).await.unwrap());
        Self { auth, echo, auth_server, echo_server }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.echo_server.origin()).unwrap().connect().await.unwrap()
    }

    fn config(&self) -> AuthConfigBuilder {
        support::config(&self.auth, self.auth_server.uri("/token"), self.echo_server.origin())
    }

    async fn client(&self) -> EchoClient<Auth<Channel>> {
        self.client_with(self.config()).await
    }

    async fn client_with(&self, config: AuthConfigBuilder) -> EchoClient<Auth<Channel>> {
        EchoClient::new(AuthLayer::new(config.build().unwrap()).layer(self.channel().await))
    }
}

fn outcome<T>(response: &tonic::Response<T>) -> AuthOutcome {
    response.extensions().get().cloned().unwrap_or_default()
}

/// tonic's requests name no authority: they go where the channel is connected.
///
/// Behaviour 118.
#[tokio::test]
async fn status_16_in_the_headers_is_healed() {
    let grpc = Grpc::new().await;
    let mut client = grpc.client().await;
    assert_eq!(client.unary("one").await.unwrap().get_ref(), "one");

    grpc.auth.revoke_all();
    let response = client.unary("two").await.unwrap();
    assert!(outcome(&response).resent);
    assert_eq!(response.get_ref(), "two");
    assert_eq!((grpc.auth.token_requests(), grpc.echo.calls()), (2, 3));
}

/// What has begun to answer is not sent again; the next call has another token.
///
/// Behaviour 118.
#[tokio::test]
async fn status_16_in_trailers_after_data_is_handed_out() {
    let grpc = Grpc::new().await;
    let layer = AuthLayer::new(grpc.config().build().unwrap());
    let mut client = EchoClient::new(layer.layer(grpc.channel().await));
    client.unary("warm").await.unwrap();

    grpc.auth.revoke_all();
    let mut messages = client.repeat("data").await.unwrap().into_inner();
    assert_eq!(messages.message().await.unwrap().unwrap(), "data");
    assert_eq!(messages.message().await.unwrap_err().code(), Code::Unauthenticated);
    layer.handle().shutdown().await;
    assert_eq!((grpc.auth.token_requests(), grpc.echo.calls()), (2, 2));

    assert_eq!(client.unary("next").await.unwrap().get_ref(), "next");
    assert_eq!((grpc.auth.token_requests(), grpc.echo.calls()), (2, 3));
}

/// Tokens rejected in trailers one after the other are a run that is beyond chance, though each call's head would have
/// accepted: so a revocation is healed while the rejection limiter forbids a refresh for each.
///
/// Behaviour 145 (status 16 in trailers).
#[tokio::test]
async fn a_run_of_status_16_in_trailers_is_healed_inside_of_the_limiters_wait() {
    let grpc = Grpc::new().await;
    let layer = AuthLayer::new(grpc.config().build().unwrap());
    let mut client = EchoClient::new(layer.layer(grpc.channel().await));
    client.unary("warm").await.unwrap();

    // A rejection in trailers arms the wait, and no resend can clear it. The clock stands still: it does not end.
    grpc.auth.revoke_all();
    ends(client.repeat("data").await.unwrap().into_inner()).await.unwrap_err();
    for _ in 0..4 {
        client.unary("accepted").await.unwrap();
    }
    assert_eq!(grpc.auth.token_requests(), 2);

    grpc.auth.revoke_all();
    let mut rejected = 0;
    while ends(client.repeat("data").await.unwrap().into_inner()).await.is_err() {
        rejected += 1;
        assert!(rejected < 200, "not healed");
    }
    assert!(rejected >= 8, "{rejected} are no run");
    assert!(layer.handle().stats().suppressed_refreshes >= 7);
    assert_eq!(grpc.auth.token_requests(), 3);
}

async fn ends(mut messages: tonic::Streaming<Bytes>) -> Result<(), tonic::Status> {
    while messages.message().await?.is_some() {}
    Ok(())
}

/// Behaviour 119.
#[tokio::test]
async fn status_7_is_not_about_the_token() {
    let grpc = Grpc::new().await;
    let mut client = grpc.client().await;
    assert_eq!(client.unary("forbidden").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!((grpc.auth.token_requests(), grpc.echo.calls()), (1, 1));
}

#[tokio::test]
async fn without_a_token_the_status_is_unavailable_and_says_why() {
    let grpc = Grpc::new().await;
    let client_auth = ClientAuth::basic("client", "canary-wrong");
    let config = AuthConfig::client_credentials(grpc.auth_server.uri("/token"), client_auth);
    let mut client = grpc.client_with(config.origin(grpc.echo_server.origin())).await;

    let status = client.unary("never").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "127.0.0.1: the authorization server refuses the client credentials; check client id and secret, and how they are \
         sent (status 401, error invalid_client)"
    );
    assert!(!format!("{status} {status:?}").contains("canary"), "{status:?}");
    assert_eq!(grpc.echo.calls(), 0);
}

/// A refusal that no token request can heal stays what it was.
#[tokio::test]
async fn a_refusal_stays_unauthenticated_when_no_new_token_can_be_had() {
    let grpc = Grpc::new().await;
    let mut client = grpc.client().await;
    client.unary("warm").await.unwrap();

    grpc.auth.revoke_all();
    grpc.auth.always(Fault::Status(503));
    assert_eq!(client.unary("refused").await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(grpc.echo.calls(), 2);
}

/// A stream that is ready as a whole is recorded before it is sent.
#[tokio::test]
async fn a_client_stream_that_is_ready_is_sent_again() {
    let grpc = Grpc::new().await;
    let mut client = grpc.client().await;
    client.unary("warm").await.unwrap();

    grpc.auth.revoke_all();
    let response = client.collect(stream::iter(["a", "b", "c"].map(Bytes::from))).await.unwrap();
    assert!(outcome(&response).resent);
    assert_eq!(response.get_ref(), "abc");
}

/// A stream that still goes on when the refusal comes does not hang: the channel gives its rest back, and what was sent
/// and the rest go out together.
///
/// Behaviour 64.
#[tokio::test]
async fn a_client_stream_that_is_still_open_is_resumed() {
    let grpc = Grpc::new().await;
    let mut client = grpc.client().await;
    client.unary("warm").await.unwrap();

    grpc.auth.revoke_all();
    let (more, rest) = tokio::sync::mpsc::unbounded_channel();
    more.send(Bytes::from("sent before, ")).unwrap();
    let open = stream::unfold(rest, |mut rest| async { rest.recv().await.map(|message| (message, rest)) });
    let call = tokio::spawn(async move { client.collect(open).await });
    while grpc.echo.calls() < 3 {
        tokio::task::yield_now().await;
    }
    more.send(Bytes::from("sent after")).unwrap();
    drop(more);
    let response = call.await.unwrap().unwrap();
    assert!(outcome(&response).resent);
    assert_eq!(response.get_ref(), "sent before, sent after");
}

#[tokio::test]
async fn a_large_message_is_sent_again_within_the_cap() {
    let grpc = Grpc::new().await;
    let large = Bytes::from(vec![b'x'; 2 * 1024 * 1024]);

    let mut roomy = grpc.client_with(grpc.config().max_replay_bytes(4 * 1024 * 1024)).await;
    roomy.unary("warm").await.unwrap();
    grpc.auth.revoke_all();
    let response = roomy.unary(large.clone()).await.unwrap();
    assert!(outcome(&response).resent);
    assert!(response.get_ref() == &large);

    let layer = AuthLayer::new(grpc.config().build().unwrap());
    let mut tight = EchoClient::new(layer.layer(grpc.channel().await));
    tight.unary("warm").await.unwrap();
    grpc.auth.revoke_all();
    assert_eq!(tight.unary(large.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    layer.handle().shutdown().await;
    assert!(tight.unary(large.clone()).await.unwrap().get_ref() == &large, "the token was renewed for the next call");
}

/// A client that is told an origin is held to it.
///
/// Behaviour 99.
#[tokio::test]
async fn a_foreign_origin_is_refused_by_name() {
    let grpc = Grpc::new().await;
    let auth = AuthLayer::new(grpc.config().build().unwrap()).layer(grpc.channel().await);
    let mut named = EchoClient::with_origin(auth.clone(), grpc.echo_server.origin().parse().unwrap());
    assert_eq!(named.unary("here").await.unwrap().get_ref(), "here");

    let mut foreign = EchoClient::with_origin(auth, "https://evil.example".parse().unwrap());
    let status = foreign.unary("there").await.unwrap_err();
    assert_eq!(
        status.message(),
        "https://evil.example is not an allowed origin (if it is the API, add it with `.origin(..)`); the request was \
         not sent"
    );
    assert_eq!(grpc.echo.calls(), 1);
}

/// tonic's requests name no host: the one origin is what their proofs name.
///
/// Behaviour 110.
#[tokio::test]
async fn a_bound_token_has_its_proof_and_the_nonce_that_the_server_wants() {
    let auth = AuthServer::new(TestClock::new()).client("client", support::SECRET).require_dpop();
    let api = Api::new(&auth).grpc_unauthenticated_in_headers().require_dpop_nonce();
    let (auth_server, api_server) = (serve(auth.clone()).await.unwrap(), serve(api.clone()).await.unwrap());
    let config = support::config(&auth, auth_server.uri("/token"), api_server.origin());
    let layer = AuthLayer::new(config.dpop(DpopKey::generate().unwrap()).build().unwrap());
    let channel = Channel::from_shared(api_server.origin()).unwrap().connect().await.unwrap();
    let mut client = EchoClient::new(layer.layer(channel));
    for message in ["one", "two"] {
        assert_eq!(client.unary(message).await.unwrap().get_ref(), message);
    }
    assert_eq!((auth.token_requests(), api.hits(), api.unauthorized()), (1, 3, 1));
    auth.revoke_all();
    assert_eq!(client.unary("three").await.unwrap().get_ref(), "three");
    assert_eq!((auth.token_requests(), api.hits()), (2, 5));
}

/// Inside an `async` block the compiler knows no lifetimes: a future whose type leads through an impl that asks for
/// `'static` is not found to be `Send` there, although it is everywhere else. It compiles, or does not.
#[allow(dead_code, reason = "the type checker is the test")]
fn the_future_over_a_channel_is_send(mut client: Auth<Channel>, request: http::Request<tonic::body::Body>) {
    fn is_send(_: impl Send) {}
    is_send(async move { tower::Service::call(&mut client, request).await });
}
