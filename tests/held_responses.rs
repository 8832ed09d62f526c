//! Rejected responses that wait for a token, and what else comes over their HTTP/2 connection meanwhile: maybe that token.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth, Token, TokenError, TokenRequest};

/// How the server answers, and what it has seen.
struct Server {
    /// So many requests are rejected before the token comes.
    awaited: usize,
    /// Or another one has its response first.
    other_has_its_response: Notify,
    other_comes_first: bool,
    rejected: AtomicUsize,
    all_rejected: Notify,
}

impl Server {
    fn new(awaited: usize, other_comes_first: bool) -> Arc<Self> {
        let (rejected, all_rejected) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { awaited, other_has_its_response: Notify::new(), other_comes_first, rejected, all_rejected })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.uri().path() == "/token" {
            while self.rejected.load(Ordering::SeqCst) < self.awaited {
                self.all_rejected.notified().await;
            }
            if self.other_comes_first {
                self.other_has_its_response.notified().await;
            }
            let token = r#"{"access_token":"new","token_type":"Bearer","expires_in":3600}"#;
            return Ok(Response::new(Full::new(Bytes::from(token))));
        }
        if request.uri().path() == "/other" {
            return Ok(Response::new(Full::new(Bytes::from(vec![b'o'; 1024]))));
        }
        if request.headers()["authorization"] == "Bearer new" {
            return Ok(Response::new(Full::new(Bytes::from("welcome"))));
        }
        self.rejected.fetch_add(1, Ordering::SeqCst);
        self.all_rejected.notify_one();
        let body = Full::new(Bytes::from(vec![b'x'; 4096]));
        Ok(Response::builder().status(401).header("content-length", "4096").body(body).unwrap())
    }

    /// Over HTTP/2 without encryption, with any number of streams.
    async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| server.clone().answer(request));
                    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(4000)
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = connection.await;
                });
            }
        });
        origin
    }
}

/// Status, body and outcome of so many requests whose token is rejected all at once.
async fn rejected_at_once(requests: usize) -> Vec<(u16, Bytes, AuthOutcome)> {
    let server = Server::new(requests, false);
    let origin = server.serve().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let cfg = AuthConfig::client_credentials(format!("{origin}/token"), ClientAuth::basic("id", "secret"))
        .origin(&origin)
        .token_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let layer = AuthLayer::builder(cfg).http_client(client.clone()).build().unwrap();
    layer.handle().set_token(Token::bearer("old").unwrap()).await.unwrap();
    let service = layer.layer(client);
    let calls: Vec<_> = (0..requests)
        .map(|_| {
            let request = Request::get(format!("{origin}/")).body(Full::default()).unwrap();
            let call = service.clone().oneshot(request);
            tokio::spawn(async move {
                let response = call.await.unwrap();
                let outcome = response.extensions().get::<AuthOutcome>().cloned().unwrap_or_default();
                let status = response.status().as_u16();
                (status, response.into_body().collect().await.unwrap().to_bytes(), outcome)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

/// Behaviour 134 (HTTP/2 windows).
#[tokio::test]
async fn rejected_responses_leave_room_for_the_token() {
    let answers = rejected_at_once(1500).await;
    let welcomed = answers.iter().filter(|(status, body, _)| *status == 200 && body == "welcome").count();
    assert_eq!(welcomed, 1500);
}

/// So many that their bodies of 4 KiB are more than the window of their connection.
const MORE_THAN_A_WINDOW: usize = 40;
const WINDOW: u32 = 65_535;
/// More than is read ahead of one response.
const TOO_LONG: usize = 70 * 1024;

/// What the token of the rejected ones is waited with: another one's response over their connection.
async fn other_comes_first(server: Arc<Server>, other: impl Future<Output = usize>) {
    while server.rejected.load(Ordering::SeqCst) < server.awaited {
        tokio::task::yield_now().await;
    }
    // A bound for a broken build, which would wait for ever.
    let other = tokio::time::timeout(Duration::from_secs(15), other).await;
    assert_eq!(other, Ok(1024), "the window is full of responses that nobody reads");
    server.other_has_its_response.notify_one();
}

fn slow_token_layer(origin: &str) -> AuthLayer {
    // Another connection than that of the API.
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let cfg = AuthConfig::client_credentials(format!("{origin}/token"), ClientAuth::basic("id", "secret"))
        .origin(origin)
        .token_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    AuthLayer::builder(cfg).http_client(client).build().unwrap()
}

/// Behaviour 134 (HTTP/2 windows): bodies that can be made again.
#[tokio::test]
async fn anothers_response_comes_before_the_token_that_many_wait_for() {
    let server = Server::new(MORE_THAN_A_WINDOW, true);
    let origin = server.serve().await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_initial_connection_window_size(WINDOW)
        .http2_initial_stream_window_size(WINDOW)
        .build_http::<Full<Bytes>>();
    let layer = slow_token_layer(&origin);
    layer.handle().set_token(Token::bearer("old").unwrap()).await.unwrap();
    let boxed = {
        let client = client.clone();
        service_fn(move |request| {
            let response = client.request(request);
            async move { response.await.map(|response| response.map(BoxBody::new)) }
        })
    };
    let service = layer.layer(boxed);
    let request = |path| Request::get(format!("{origin}{path}")).body(Full::default()).unwrap();
    let calls: Vec<_> = (0..MORE_THAN_A_WINDOW).map(|_| tokio::spawn(service.clone().oneshot(request("/")))).collect();
    let other = async { client.request(request("/other")).await.unwrap().into_body().collect().await.unwrap() };
    other_comes_first(server, async { other.await.to_bytes().len() }).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "welcome");
    }
}

/// Behaviour 134 (HTTP/2 windows): reqwest's responses.
#[tokio::test]
async fn so_it_does_with_reqwest() {
    let server = Server::new(MORE_THAN_A_WINDOW, true);
    let origin = server.serve().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_initial_connection_window_size(WINDOW)
        .http2_initial_stream_window_size(WINDOW)
        .build()
        .unwrap();
    let layer = slow_token_layer(&origin);
    layer.handle().set_token(Token::bearer("old").unwrap()).await.unwrap();
    let service = layer.layer(client.clone());
    let request = || client.get(format!("{origin}/")).build().unwrap();
    let calls: Vec<_> = (0..MORE_THAN_A_WINDOW).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    let other = client.get(format!("{origin}/other")).send();
    other_comes_first(server, async { other.await.unwrap().bytes().await.unwrap().len() }).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "welcome");
    }
}

/// Behaviour 134 (HTTP/2 windows).
#[tokio::test(start_paused = true)]
async fn a_body_that_had_to_be_read_is_empty_and_the_outcome_says_so() {
    let rejected = |_: Request<Full<Bytes>>| async {
        let body = Full::new(Bytes::from(vec![b'x'; TOO_LONG])).map_err(std::io::Error::other).boxed();
        Ok::<_, Infallible>(Response::builder().status(401).header("content-length", TOO_LONG).body(body).unwrap())
    };
    let source = service_fn(|_: TokenRequest| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err::<Token, _>(TokenError::permanent("none today"))
    });
    let layer =
        AuthLayer::with_source(AuthConfig::external().origin("https://api.example.com").build().unwrap(), source);
    layer.handle().set_token(Token::bearer("old").unwrap()).await.unwrap();
    let service = layer.layer(service_fn(rejected));
    for round in 0..2 {
        let request = || Request::get("https://api.example.com/").body(Full::default()).unwrap();
        let calls: Vec<_> = (0..100).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
        let mut whole = 0;
        for call in calls {
            let response = call.await.unwrap().unwrap();
            assert_eq!(response.status(), 401);
            let discarded = response.extensions().get::<AuthOutcome>().unwrap().body_discarded;
            assert_eq!(response.headers().contains_key("content-length"), !discarded);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), if discarded { 0 } else { TOO_LONG });
            whole += usize::from(!discarded);
        }
        assert_eq!(whole, 64, "round {round}: the places are given back");
        layer.handle().set_token(Token::bearer(&format!("old-{round}")).unwrap()).await.unwrap();
    }
}
