//! The built-in token client over real connections: a redirect is an error, and nothing is sent where it leads.

use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock, both, serve};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, Error, TokenErrorKind};

/// Behaviours 100 and 102.
#[tokio::test]
async fn the_built_in_client_follows_no_redirect() {
    let elsewhere = AuthServer::new(TestClock::new());
    let served_elsewhere = serve(elsewhere.clone()).await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let auth = AuthServer::new(TestClock::new());
        let api = Api::new(&auth);
        let served = serve(both(&auth, &api)).await.unwrap();
        let redirect = Response::builder().status(status).header("location", served_elsewhere.uri("/oauth2/token"));
        auth.script([Fault::Respond(redirect.body("".into()).unwrap())]);

        let cfg = AuthConfig::client_credentials(served.uri("/oauth2/token"), ClientAuth::basic("id", "s3cret"));
        let layer = AuthLayer::new(cfg.origin(served.origin()).build().unwrap());
        let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
        let request = Request::get(served.uri("/")).body(Full::<bytes::Bytes>::default()).unwrap();
        match client.oneshot(request).await {
            Err(Error::Token(error)) => assert_eq!(error.kind(), TokenErrorKind::Redirected, "{status}"),
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!((auth.token_requests(), api.hits()), (1, 0), "{status}");
    }
    assert_eq!(elsewhere.token_requests(), 0);
}
