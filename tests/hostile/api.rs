//! The API: through hyper-util's client and `reqwest::Client`, over HTTP/1 and HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{AuthLayer, BoxError};

use crate::bytes::{TOKEN, http1, http1_bodies, http1_no_answers, http2};
use crate::peer::{Peer, Step, frame, write};
use crate::support::{self, SECRET};
use crate::{Case, MOST_READ, PATIENCE, case, each, told};

/// Which client sends.
#[derive(Clone, Copy)]
enum Sends {
    Hyper,
    HyperHttp2,
    Reqwest,
    ReqwestHttp2,
}

/// Over HTTP/2 a client of the user's must ping, or it never learns that a connection hangs.
const PING: Duration = Duration::from_millis(300);

struct World {
    auth: AuthServer,
    api: Api,
    peer: Peer,
    layer: AuthLayer,
    origin: String,
}

/// What comes of a request: its status, with as much of its body as comes in time.
type Answer = Result<u16, BoxError>;

impl World {
    fn new() -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = Api::new(&auth);
        let peer = Peer::new(api.clone(), None);
        let origin = format!("http://{}", peer.addr());
        let cfg = support::config(&auth, "https://auth.example.com/token".to_owned(), origin.clone()).build().unwrap();
        let layer = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap();
        Self { auth, api, peer, layer, origin }
    }

    /// So many at once, with the patience of a careful caller.
    async fn send(&self, client: &Sender, requests: usize) -> Vec<Answer> {
        let calls = (0..requests).map(|_| client.send(&self.origin));
        timeout(10 * PATIENCE, join_all(calls)).await.expect("all are answered")
    }

    /// When the peer is good again; at the second attempt if the first is the one that learns that a connection hangs.
    async fn heals(&self, client: &Sender, token_requests: usize) {
        let mut answer = self.send(client, 1).await.remove(0);
        if answer.is_err() {
            answer = self.send(client, 1).await.remove(0);
        }
        assert!(matches!(answer, Ok(200)), "{answer:?}");
        assert_eq!(self.auth.token_requests(), token_requests);
        assert!(self.peer.open_at_most(1).await <= 1, "connections stay");
        assert!(self.peer.written() < MOST_READ, "{} bytes were read", self.peer.written());
    }
}

type Layered<C> = tower::timeout::Timeout<tower_oauth2_client::Auth<C>>;

enum Sender {
    Hyper(Box<Layered<Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>>>),
    Reqwest(Layered<reqwest::Client>),
}

impl Sends {
    fn under(self, layer: &AuthLayer) -> Sender {
        let outside = ServiceBuilder::new().timeout(PATIENCE);
        match self {
            Self::Hyper => {
                let client = Client::builder(TokioExecutor::new()).build_http();
                Sender::Hyper(Box::new(outside.service(layer.layer(client))))
            }
            Self::HyperHttp2 => {
                let mut client = Client::builder(TokioExecutor::new());
                client.http2_only(true).timer(TokioTimer::new());
                client.http2_keep_alive_interval(PING).http2_keep_alive_timeout(PING);
                client.http2_keep_alive_while_idle(true);
                Sender::Hyper(Box::new(outside.service(layer.layer(client.build_http()))))
            }
            Self::Reqwest => Sender::Reqwest(outside.service(layer.layer(reqwest::Client::new()))),
            Self::ReqwestHttp2 => {
                let client = reqwest::Client::builder().http2_prior_knowledge();
                let client = client.http2_keep_alive_interval(PING).http2_keep_alive_timeout(PING);
                let client = client.http2_keep_alive_while_idle(true);
                Sender::Reqwest(outside.service(layer.layer(client.build().unwrap())))
            }
        }
    }
}

impl Sender {
    async fn send(&self, origin: &str) -> Answer {
        let uri = format!("{origin}/items");
        match self {
            Self::Hyper(client) => {
                let request = Request::post(uri).body(Full::from("body")).unwrap();
                let response = client.clone().oneshot(request).await?;
                let status = response.status().as_u16();
                timeout(PATIENCE, response.into_body().collect()).await.ok();
                Ok(status)
            }
            Self::Reqwest(client) => {
                let mut request = reqwest::Request::new(reqwest::Method::POST, uri.parse().unwrap());
                *request.body_mut() = Some("body".into());
                let mut response = client.clone().oneshot(request).await?;
                // Not more of it than a careful caller takes.
                let mut left = 1_000_000_usize;
                let body = async {
                    while let Ok(Some(chunk)) = response.chunk().await
                        && left > 0
                    {
                        left = left.saturating_sub(chunk.len());
                    }
                };
                timeout(PATIENCE, body).await.ok();
                Ok(response.status().as_u16())
            }
        }
    }
}

/// What the API does is its caller's matter: nothing of it costs a token request.
async fn endures(sends: Sends, case: Case) {
    let world = World::new();
    let client = sends.under(&world.layer);
    let token = world.layer.handle().token().await.unwrap();
    world.peer.script(case.steps);
    let answer = world.send(&client, 1).await.remove(0);
    if let Err(error) = answer {
        let told = told(&*error);
        assert!(!told.contains(token.access_token()), "{told}");
        assert!(!told.contains(SECRET) || told.contains("b\"go away"), "in a server's own words only: {told}");
    }
    world.heals(&client, 1).await;
}

/// Some bodies are endless, and read to no end: a caller who reads without a bound is not this crate's matter.
fn but_endless(case: &Case) -> bool {
    !case.steps.iter().any(|step| matches!(step, Step::Flood(..)))
}

#[test]
fn hyper() {
    let bodies = http1_bodies("200 OK", "").into_iter().filter(but_endless);
    let cases = http1_no_answers().into_iter().chain(bodies).collect();
    each(cases, |case: &Case| case.name, async |case| endures(Sends::Hyper, case).await);
}

#[test]
fn hyper_over_http2() {
    each(http2::no_answers(), |case| case.name, async |case| endures(Sends::HyperHttp2, case).await);
}

#[test]
fn reqwest() {
    let cases = http1_no_answers().into_iter().chain(http1_bodies("200 OK", "")).collect();
    each(cases, |case: &Case| case.name, async |case| endures(Sends::Reqwest, case).await);
}

#[test]
fn reqwest_over_http2() {
    each(http2::no_answers(), |case| case.name, async |case| endures(Sends::ReqwestHttp2, case).await);
}

/// The rejection is known by its head: what comes after it delays the second sending, and no more.
async fn is_resent(sends: Sends, case: Case) {
    let world = World::new();
    let client = sends.under(&world.layer);
    world.layer.handle().token().await.unwrap();
    world.peer.script(case.steps);
    let answer = world.send(&client, 1).await.remove(0);
    assert!(matches!(answer, Ok(200)), "{answer:?}");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1));
    world.heals(&client, 2).await;
}

const CHALLENGE: &str = "www-authenticate: Bearer error=\"invalid_token\"\r\n";

/// The peer ends the connection behind the rejection. It says so, or the second sending may begin on it.
const CLOSE: &str = "connection: close\r\n";

#[test]
fn a_rejection_with_a_harmful_body() {
    for challenge in [CHALLENGE, ""] {
        let cases = http1_bodies("401 Unauthorized", &format!("{CLOSE}{challenge}"));
        each(
            cases,
            |case| case.name,
            async |case| {
                let steps = case.steps.clone();
                is_resent(Sends::Hyper, case).await;
                is_resent(Sends::Reqwest, Case { name: "", steps }).await;
            },
        );
    }
}

#[test]
fn a_rejection_with_harmful_challenges() {
    let refused =
        |headers: String| [Step::Request, write(http1("401 Unauthorized", &format!("{CLOSE}{headers}"), "no"))];
    let many = "www-authenticate: Bearer realm=\"x\", error=\"invalid_token\"\r\n".repeat(90);
    let cases = vec![
        case("many challenges", refused(many)),
        case("a long challenge", refused(format!("www-authenticate: Bearer realm=\"{}\"\r\n", "a".repeat(200_000)))),
        case("a challenge without an end", refused("www-authenticate: Bearer realm=\"\\\"\\\r\n".to_owned())),
        case("only commas", refused(format!("www-authenticate: {}\r\n", ",".repeat(200_000)))),
        case("many schemes", refused(format!("www-authenticate: {}\r\n", "A a=b, ".repeat(30_000)))),
        case("a challenge in bytes", refused("www-authenticate: \u{e9}\u{ff} \"\r\n".to_owned())),
    ];
    each(cases, |case| case.name, async |case| is_resent(Sends::Hyper, case).await);
}

/// The second sending goes where the first went. If that hangs, the caller hears of it, and the connection is not used again.
#[test]
fn a_rejection_with_a_harmful_body_over_http2() {
    use http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, WINDOW, settings};

    // `:status: 401`: the name from the table, the value as it is.
    let refused = frame(HEADERS, END_HEADERS, 1, &[0x08, 3, b'4', b'0', b'1']);
    let start = || [write(settings()), Step::Http2Request, write(&refused)];
    let part = frame(DATA, 0, 1, &TOKEN.as_bytes()[..20]);
    let trailers = frame(HEADERS, END_STREAM, 1, &[0, 1, b'x', 1, b'y']);
    let cases = vec![
        case("hangs after the headers", start().into_iter().chain([Step::Hang])),
        case("hangs in the body", start().into_iter().chain([write(&part), Step::Hang])),
        case("closed in the body", start().into_iter().chain([write(&part)])),
        case("reset in the body", start().into_iter().chain([write(&part), Step::Reset])),
        case("stream reset", start().into_iter().chain([write(frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]))])),
        case("GOAWAY", start().into_iter().chain([write(http2::goaway(11, 1, SECRET)), Step::Hang])),
        case("more than a window", start().into_iter().chain([Step::Flood(frame(DATA, 0, 1, &[b' '; 4096]), WINDOW)])),
        case("empty frames for ever", start().into_iter().chain([Step::Flood(frame(DATA, 0, 1, &[]), 1 << 30)])),
        case(
            "trailers for ever",
            start().into_iter().chain([write(trailers), Step::Flood(frame(CONTINUATION, 0, 1, &[0; 0]), 1 << 30)]),
        ),
    ];
    each(
        cases,
        |case| case.name,
        async |case| {
            for sends in [Sends::HyperHttp2, Sends::ReqwestHttp2] {
                let world = World::new();
                let client = sends.under(&world.layer);
                world.layer.handle().token().await.unwrap();
                world.peer.script(case.steps.clone());
                let answer = world.send(&client, 1).await.remove(0);
                assert!(!matches!(answer, Ok(401)), "it was sent again");
                assert!(world.auth.token_requests() <= 2);
                world.heals(&client, world.auth.token_requests()).await;
            }
        },
    );
}

/// For ever to itself: the client's own bound ends it, and no token request was made for it.
#[tokio::test]
async fn redirects_in_a_circle() {
    let world = World::new();
    world.api.always(Fault::Redirect("/items".into()));
    let client = Sends::Reqwest.under(&world.layer);
    let error = world.send(&client, 1).await.remove(0).unwrap_err();
    let told = told(&*error);
    assert!(told.contains("too many redirects") && !told.contains("canary"), "{told}");
    assert_eq!(world.auth.token_requests(), 1);
    world.api.heal();
    world.heals(&client, 1).await;
}
