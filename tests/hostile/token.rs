//! The token endpoint: through the built-in client, a `reqwest::Client` of the user's, and hyper-util's client.

use std::net::{Ipv4Addr, TcpListener};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both};
use tower_oauth2_client::{AuthConfigBuilder, AuthLayer, Error, ReqwestClient, TokenErrorKind};

use crate::bytes::{TOKEN, http1, http1_bodies, http1_no_answers, http2};
use crate::peer::{Peer, Step, write};
use crate::support::{self, SECRET};
use crate::{Case, MOST_READ, PATIENCE, case, each, tls, told};

/// At once, so that it is seen that they share a token request.
const REQUESTS: usize = 20;

/// Which client asks for tokens.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    BuiltIn,
    /// Over TLS, where HTTP/2 is agreed on.
    BuiltInHttp2,
    Reqwest,
    Hyper,
    HyperHttp2,
}

impl Asks {
    fn layer(self, config: AuthConfigBuilder) -> AuthLayer {
        match self {
            Self::BuiltIn => AuthLayer::new(config.connect_timeout(PATIENCE).build().unwrap()),
            Self::BuiltInHttp2 => {
                AuthLayer::new(config.connect_timeout(PATIENCE).root_certificates(tls::AUTHORITY).build().unwrap())
            }
            Self::Reqwest => {
                let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
                let client = ReqwestClient::new(client);
                AuthLayer::builder(config.build().unwrap()).http_client(client).build().unwrap()
            }
            Self::Hyper | Self::HyperHttp2 => {
                let http2 = self == Self::HyperHttp2;
                let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Full<Bytes>>();
                AuthLayer::builder(config.build().unwrap()).http_client(client).build().unwrap()
            }
        }
    }
}

/// The servers, of which the authorization server is reached over a socket.
struct World {
    asks: Asks,
    auth: AuthServer,
    api: Api,
    peer: Peer,
    layer: AuthLayer,
}

impl World {
    fn new(asks: Asks) -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = Api::new(&auth);
        let (tls, scheme) = match asks {
            Asks::BuiltInHttp2 => (Some(tls::acceptor(&["h2"])), "https"),
            _ => (None, "http"),
        };
        let peer = Peer::new(both(&auth, &api), tls);
        let url = format!("{scheme}://{}/oauth2/token", peer.addr());
        let config = support::config(&auth, url, "https://api.example.com".to_owned()).token_timeout(PATIENCE);
        Self { layer: asks.layer(config), asks, auth, api, peer }
    }

    /// All at once; the kinds of their errors, which tell no secret.
    async fn failing(&self, requests: usize) -> Vec<TokenErrorKind> {
        let client = self.layer.layer(self.api.clone());
        let calls = (0..requests).map(|_| client.clone().oneshot(get()));
        let answered = tokio::time::timeout(10 * PATIENCE, join_all(calls)).await.expect("all are answered");
        let errors = answered.into_iter().map(|answer| match answer {
            Err(Error::Token(error)) => {
                let told = told(&error);
                assert!(!told.contains("canary"), "{told}");
                error.kind()
            }
            other => panic!("no error of the token: {other:?}"),
        });
        errors.collect()
    }

    async fn later(&self) -> Result<u16, String> {
        self.auth.clock().advance(std::time::Duration::from_secs(3600));
        let answered = self.layer.layer(self.api.clone()).oneshot(get()).await;
        answered.map(|response| response.status().as_u16()).map_err(|error| told(&error))
    }

    /// When the peer is good again, and the pause over.
    async fn heals(&self, before: TokenErrorKind) {
        let mut answered = self.later().await;
        // A pool that is not ours may not know yet that the peer has closed a connection of which only a stream failed.
        if answered.is_err() && self.asks == Asks::HyperHttp2 {
            answered = self.later().await;
        }
        assert_eq!(answered, Ok(200), "after {before:?}");
        assert_eq!((self.auth.token_requests(), self.api.hits()), (1, 1), "one good answer, one request with it");
        assert_eq!(self.peer.open_at_most(1).await, 1, "connections stay");
        assert!(self.peer.written() < MOST_READ, "{} bytes were read", self.peer.written());
    }
}

fn get() -> Request<Full<Bytes>> {
    Request::get("https://api.example.com/").body(Full::default()).unwrap()
}

/// One hostile connection, then good ones.
async fn endures(asks: Asks, case: Case) {
    let world = World::new(asks);
    let reads = case.steps.iter().any(|step| matches!(step, Step::Request | Step::Http2Request));
    world.peer.script(case.steps);
    let kinds = world.failing(REQUESTS).await;
    assert!(kinds.iter().all(|kind| *kind == kinds[0]), "one token request for all: {kinds:?}");
    use TokenErrorKind::{Malformed, Timeout, Unreachable};
    assert!([Malformed, Timeout, Unreachable].contains(&kinds[0]), "{kinds:?}");
    assert_eq!((world.peer.accepted(), world.auth.token_requests()), (1, 0));
    assert!(world.peer.requests().len() <= usize::from(reads));
    world.heals(kinds[0]).await;
}

fn hostile(asks: Asks, cases: Vec<Case>) {
    each(cases, |case| case.name, async |case| endures(asks, case).await);
}

fn http1_cases() -> Vec<Case> {
    http1_no_answers().into_iter().chain(http1_bodies("200 OK", "")).collect()
}

#[test]
fn the_built_in_client() {
    hostile(Asks::BuiltIn, http1_cases());
}

#[test]
fn the_built_in_client_over_tls_and_http2() {
    hostile(Asks::BuiltInHttp2, http2::no_answers());
}

#[test]
fn reqwest() {
    hostile(Asks::Reqwest, http1_cases());
}

#[test]
fn hyper() {
    hostile(Asks::Hyper, http1_cases());
}

/// But where the connection hangs: a client of the user's goes on with it, unless it was told to ping.
#[test]
fn hyper_over_http2() {
    let ends = |case: &Case| !matches!(case.steps.last(), Some(Step::Hang | Step::Pour(_)));
    hostile(Asks::HyperHttp2, http2::no_answers().into_iter().filter(ends).collect());
}

/// What is no success has its status for an answer, whatever its body does.
#[test]
fn a_refusal_with_a_harmful_body() {
    each(
        http1_bodies("503 Service Unavailable", ""),
        |case| case.name,
        async |case| {
            let world = World::new(Asks::BuiltIn);
            world.peer.script(case.steps);
            let kinds = world.failing(REQUESTS).await;
            let is_refusal =
                |kind: &TokenErrorKind| [TokenErrorKind::Unavailable, TokenErrorKind::Timeout].contains(kind);
            assert!(kinds.iter().all(is_refusal), "{kinds:?}");
            assert_eq!((world.peer.accepted(), world.auth.token_requests()), (1, 0));
            world.heals(kinds[0]).await;
        },
    );
}

/// To another host, without encryption, to itself, to nowhere.
#[test]
fn redirects() {
    let elsewhere = Peer::new(AuthServer::new(TestClock::new()), None);
    let (origin, mut cases) = (format!("http://{}", elsewhere.addr()), Vec::new());
    for status in ["300 Multiple Choices", "301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
    {
        let locations = [
            format!("location: {origin}/oauth2/token\r\n"),
            format!("location: //{}/?{SECRET}\r\n", elsewhere.addr()),
            "location: /oauth2/token\r\n".to_owned(),
            format!("location: \r\nlocation: {SECRET}\r\n"),
            String::new(),
        ];
        for location in locations {
            cases.push(case("a redirect", [Step::Request, write(http1(status, &location, TOKEN)), Step::Hang]));
        }
    }
    each(
        cases,
        |case| case.name,
        async |case| {
            for asks in [Asks::BuiltIn, Asks::Reqwest] {
                let world = World::new(asks);
                world.peer.script(case.steps.clone());
                let kinds = world.failing(REQUESTS).await;
                assert_eq!(kinds, [TokenErrorKind::Redirected; REQUESTS]);
                assert_eq!((world.peer.accepted(), world.peer.requests().len()), (1, 1));
                // The connection may be used again, and this one hangs then.
            }
        },
    );
    assert_eq!(elsewhere.accepted(), 0);
}

/// What comes without having been asked for is no answer to the next request.
#[test]
fn an_answer_too_many() {
    each(
        vec![Asks::BuiltIn, Asks::Reqwest, Asks::Hyper],
        |_| "an answer too many",
        async |asks| {
            let world = World::new(asks);
            let first = http1("200 OK", "", &TOKEN.replace("planted", "first").replace("3600", "1"));
            let second = http1("200 OK", "", TOKEN);
            world.peer.script([Step::Request, write(format!("{first}{second}")), Step::Hang]);
            let handle = world.layer.handle();
            assert_eq!(handle.token().await.unwrap().access_token(), "first");
            world.auth.clock().advance(std::time::Duration::from_secs(5));
            let next = handle.token().await.unwrap();
            assert_eq!(world.auth.last_token().as_deref(), Some(next.access_token()));
            assert_eq!((world.peer.accepted(), world.auth.token_requests()), (2, 1));
        },
    );
}

/// Before anything was said in TLS, in the middle of it, and with a certificate for another name.
#[test]
fn tls_that_comes_to_nothing() {
    let cases = vec![
        case("TLS: hangs", [Step::Hang]),
        case("TLS: closed", []),
        case("TLS: reset", [Step::Reset]),
        case("TLS: an alert", [write([21, 3, 3, 0, 2, 2, 40]), Step::Hang]),
        case("TLS: half a record", [write([22, 3, 3, 64, 0, 2]), Step::Hang]),
        case(
            "TLS: records for ever",
            [Step::Flood([&[22, 3, 3, 1, 0, 11, 0, 255, 255], &[0; 252][..]].concat(), 1 << 30)],
        ),
        case("TLS: HTTP in its place", [write(http1("400 Bad Request", "", SECRET)), Step::Hang]),
    ];
    each(
        cases,
        |case| case.name,
        async |case| {
            let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
            let api = Api::new(&auth);
            let peer = Peer::new(both(&auth, &api), None);
            peer.script(case.steps);
            let url = format!("https://{}/oauth2/token", peer.addr());
            let config = support::config(&auth, url, "https://api.example.com".to_owned()).token_timeout(2 * PATIENCE);
            let world = World { layer: Asks::BuiltInHttp2.layer(config), asks: Asks::BuiltInHttp2, auth, api, peer };
            let kinds = world.failing(REQUESTS).await;
            let expected = [TokenErrorKind::Unreachable, TokenErrorKind::Timeout];
            assert!(kinds.iter().all(|kind| expected.contains(kind) && *kind == kinds[0]), "{kinds:?}");
            assert_eq!((world.peer.accepted(), world.peer.open_at_most(0).await), (1, 0));
            assert!(world.peer.written() < MOST_READ);
        },
    );
}

#[tokio::test]
async fn tls_to_another_name() {
    let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
    let api = Api::new(&auth);
    let peer = Peer::new(both(&auth, &api), Some(tls::acceptor(&["h2", "http/1.1"])));
    let url = format!("https://localhost:{}/oauth2/token", peer.addr().port());
    let config = support::config(&auth, url, "https://api.example.com".to_owned()).token_timeout(PATIENCE);
    let world = World { layer: Asks::BuiltInHttp2.layer(config), asks: Asks::BuiltInHttp2, auth, api, peer };
    assert_eq!(world.failing(1).await, [TokenErrorKind::Unreachable]);
    let error = world.layer.handle().token().await.unwrap_err();
    assert!(told(&error).contains("certificate is for another host"), "{}", told(&error));
    assert_eq!((world.auth.token_requests(), world.api.hits()), (0, 0), "no credentials left this process");
}

/// The connect timeout ends it, which is a timeout of another kind: nothing was sent.
#[tokio::test]
async fn nobody_accepts_in_time() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
    let url = format!("https://{}/token", silent.local_addr().unwrap());
    let config = support::config(&auth, url, "https://api.example.com".to_owned()).token_timeout(5 * PATIENCE);
    let layer = AuthLayer::new(config.connect_timeout(PATIENCE / 10).build().unwrap());
    let error = layer.handle().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout, "{error:?}");
    assert!(told(&error).contains("no connection was made: it took too long"), "{}", told(&error));
}

/// Nobody accepts: the kernel does, until its queue is full.
#[tokio::test]
async fn nobody_accepts() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
    let api = Api::new(&auth);
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/token", silent.local_addr().unwrap());
        let config = support::config(&auth, url, "https://api.example.com".to_owned()).token_timeout(PATIENCE / 2);
        let client = Asks::BuiltIn.layer(config).layer(api.clone());
        let answered = join_all((0..REQUESTS).map(|_| client.clone().oneshot(get()))).await;
        let kinds: Vec<_> =
            answered.iter().map(|answer| answer.as_ref().unwrap_err().token().unwrap().kind()).collect();
        let first = answered.first().and_then(|answer| answer.as_ref().err()).map(|error| told(error));
        assert_eq!(kinds, [TokenErrorKind::Timeout; REQUESTS], "{scheme}: {first:?}");
    }
}
