//! Where a request with a token really goes: what the layer admits, held against what HTTP clients make of the same URI.

#![allow(clippy::unwrap_used, clippy::panic, reason = "here a panic is the report")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use fastrand::Rng;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Scheme;
use http::{Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connected;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::{Layer, Service, ServiceExt};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, Error, StaticToken, UnlistedOrigin};

const TOKEN: &str = "canary-token";
/// Host and port that may receive the token, over TLS.
const ALLOWED: [(&str, u16); 3] = [("api.example.com", 443), ("api.example.com", 8443), ("[2001:db8::1]", 443)];

type Body = Empty<bytes::Bytes>;

/// Behaviour 146 (a scheme that no client dials by TLS).
#[tokio::test]
async fn a_scheme_that_is_not_exactly_https_gets_no_token() {
    let by_parts =
        |scheme: &str| Uri::builder().scheme(scheme).authority("api.example.com").path_and_query("/").build();
    for scheme in ["HTTPS", "Https", "hTTPS", "HTTP", "wss"] {
        let request = Request::get(by_parts(scheme).unwrap()).body(Body::new()).unwrap();
        let refused = layered(UnlistedOrigin::Refuse).oneshot(request.clone()).await;
        assert!(matches!(refused, Err(Error::Origin { .. })), "{scheme}: {refused:?}");
        let passed = layered(UnlistedOrigin::PassWithoutCredentials).oneshot(request).await.unwrap().into_body();
        assert!(!passed.headers().contains_key(AUTHORIZATION), "{scheme}");
    }
    let read = Request::get("HTTPS://api.example.com/").body(Body::new()).unwrap();
    let sent = layered(UnlistedOrigin::Refuse).oneshot(read).await.unwrap().into_body();
    assert_eq!(sent.headers()[AUTHORIZATION], format!("Bearer {TOKEN}"), "http reads that as https");
}

/// Behaviour 146 (CONNECT).
#[tokio::test]
async fn connect_gets_no_token() {
    for uri in ["api.example.com:443", "api.example.com:8443", "https://api.example.com/", "https://api.example.com"] {
        let request = Request::connect(uri).body(Body::new()).unwrap();
        let refused = layered(UnlistedOrigin::Refuse).oneshot(request.clone()).await;
        assert!(matches!(refused, Err(Error::Origin { .. })), "{uri}: {refused:?}");
        let passed = layered(UnlistedOrigin::PassWithoutCredentials).oneshot(request).await.unwrap().into_body();
        assert!(!passed.headers().contains_key(AUTHORIZATION), "{uri}");
    }
    let authority_form = Request::get("api.example.com:443").body(Body::new()).unwrap();
    let refused = layered(UnlistedOrigin::Refuse).oneshot(authority_form).await;
    assert!(matches!(refused, Err(Error::Origin { .. })), "only CONNECT has that form: {refused:?}");
}

/// Behaviour 147.
#[tokio::test]
async fn a_path_that_reads_as_part_of_the_host_gets_no_token() {
    for path in [".evil.example/items", "@evil.example/", ":8080/items", "x", "*"] {
        let uri = Uri::builder().scheme("https").authority("api.example.com").path_and_query(path).build();
        // Versions of `http` differ in whether that can be built.
        let Ok(uri) = uri else { continue };
        let request = Request::get(uri.clone()).body(Body::new()).unwrap();
        let refused = layered(UnlistedOrigin::Refuse).oneshot(request).await;
        assert!(matches!(refused, Err(Error::Origin { .. })), "{uri}: {refused:?}");
    }
    for uri in ["https://api.example.com", "https://api.example.com/", "https://api.example.com?a=b"] {
        let request = Request::get(uri).body(Body::new()).unwrap();
        assert!(layered(UnlistedOrigin::Refuse).oneshot(request).await.is_ok(), "{uri}");
    }
}

/// Behaviours 99, 146 and 147. No URI, however it was made, has its token dialled to another host, or without TLS: by
/// hyper-util's client over hyper-rustls (the real ones, with connections that remember what was written), over hyper-tls
/// (by its rule: TLS if the scheme is spelled `https`), and by whoever prints the URI and reads it with `url`, as reqwest does.
#[tokio::test]
async fn whatever_is_admitted_is_dialled_where_it_may_go() {
    let mut rng = Rng::with_seed(20_260_729);
    let layered = layered(UnlistedOrigin::Refuse);
    let (mut admitted, mut handshakes, mut cases) = (0, 0, 0);
    while cases < 60_000 {
        let Some(request) = any_request(&mut rng) else { continue };
        cases += 1;
        let shown = format!("{request:?}");
        let Ok(sent) = layered.clone().oneshot(request).await else { continue };
        let sent = sent.into_body();
        assert!(sent.headers().contains_key(AUTHORIZATION), "{shown}");
        if sent.uri().authority().is_none() {
            // It goes where the service is connected, which no client decides by the request.
            assert!(sent.uri().scheme().is_none(), "{shown}");
            continue;
        }
        admitted += 1;
        assert!(is_allowed_by_url(sent.uri()), "{shown}: printed and read again it is another");
        // A handshake costs a thousand times what the rest does: the unusual ones always, of the others a few.
        let is_usual = sent.method() != Method::CONNECT && sent.uri().scheme() == Some(&Scheme::HTTPS);
        if !is_usual || admitted % 16 == 0 {
            let dialled = Dialled::default();
            let _ = dialled.rustls().request(sent.clone()).await;
            assert!(dialled.is_allowed(), "{shown}: over hyper-rustls {dialled:?}");
            handshakes += dialled.handshakes();
        }
        let by_rule = Dialled::default();
        let _ = by_rule.hyper_tls().request(sent).await;
        assert!(by_rule.is_allowed(), "{shown}: over hyper-tls {by_rule:?}");
    }
    assert!(admitted > 800 && handshakes > 30, "too few that prove anything: {admitted}, {handshakes}");
}

/// The layer in front of a service that gives back what it was sent.
fn layered(foreign: UnlistedOrigin) -> Auth<Echo> {
    let cfg = AuthConfig::external().on_unlisted_origin(foreign);
    let cfg = ALLOWED.iter().fold(cfg, |cfg, (host, port)| cfg.origin(format!("https://{host}:{port}")));
    AuthLayer::with_source(cfg.build().unwrap(), StaticToken::new(TOKEN)).layer(Echo)
}

#[derive(Clone)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Request<Body>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

/// As gateways and careless programs make them: by text, and by parts.
fn any_request(rng: &mut Rng) -> Option<Request<Body>> {
    let scheme =
        one(rng, &["https", "https", "https", "HTTPS", "Https", "http", "HTTP", "ws", "wss", "h2c", "https+unix"]);
    let authority = any_authority(rng);
    let path = any_path(rng);
    let uri = match rng.u8(..6) {
        0 => format!("{scheme}://{authority}{path}").parse().ok()?,
        1 => authority.parse().ok()?,
        2 => path.parse().ok()?,
        3 => Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()?,
        4 => Uri::builder().authority(authority).path_and_query(path).build().ok()?,
        _ => Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()?,
    };
    let method = one(rng, &["GET", "GET", "GET", "POST", "CONNECT", "OPTIONS", "connect"]);
    let mut request = Request::builder().method(method).uri(uri);
    if rng.u8(..4) == 0 {
        request = request.header(HOST, any_authority(rng));
    }
    request.body(Body::new()).ok()
}

fn any_authority(rng: &mut Rng) -> String {
    let host = one(
        rng,
        &[
            "api.example.com",
            "api.example.com",
            "API.Example.COM",
            "[2001:db8::1]",
            "[2001:DB8:0:0::1]",
            "[::ffff:10.0.0.1]",
            "evil.example",
            "api.example.com.",
            "api.example.com.evil.example",
            "api.example.com@evil.example",
            "evil.example@api.example.com",
            "api%2eexample.com",
            "api_example.com",
            "127.1",
            "0x7f000001",
        ],
    );
    let port = one(rng, &["", "", "", ":443", ":8443", ":80", ":0443", ":", ":+443", ":99999", ":443:443"]);
    let mut authority = format!("{host}{port}");
    if rng.u8(..8) == 0 {
        authority.insert_str(0, one(rng, &["@", "user@", "user:pw@", "[::1]@", "a@b@"]));
    }
    mutated(rng, authority)
}

fn any_path(rng: &mut Rng) -> String {
    let path = one(
        rng,
        &[
            "",
            "/",
            "/items",
            "/items?a=b",
            "?a=b",
            "/@evil.example/",
            "//evil.example/",
            "/\\evil.example",
            "*",
            ".evil.example/items",
            "@evil.example/",
            ":8080/",
            "x/y",
            "/%2e%2e/",
            "/a#b",
            "/a b",
        ],
    );
    mutated(rng, path.to_owned())
}

/// Sometimes one character is another, is gone, or is there twice.
fn mutated(rng: &mut Rng, mut text: String) -> String {
    const ODD: &[char] =
        &['@', ':', '/', '\\', '?', '#', '.', '%', '[', ']', '*', 'a', 'Z', '0', '-', '_', '~', ';', '!', ','];
    if rng.u8(..5) == 0 {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let Some(at) = rng.choice(places) else { return text };
        match rng.u8(..3) {
            0 => drop(text.remove(at)),
            1 => text.insert(at, ODD[rng.usize(..ODD.len())]),
            _ => {
                text.remove(at);
                text.insert(at, ODD[rng.usize(..ODD.len())]);
            }
        }
    }
    text
}

fn one<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

fn is_allowed(host: &str, port: u16) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    ALLOWED.iter().any(|(allowed, allowed_port)| {
        let same = host.eq_ignore_ascii_case(allowed) || bare(host).is_ok_and(|ip| bare(allowed) == Ok(ip));
        same && port == *allowed_port
    })
}

/// What is no URL there is not dialled there.
fn is_allowed_by_url(uri: &Uri) -> bool {
    let Ok(url) = Url::parse(&uri.to_string()) else { return true };
    let port = url.port_or_known_default().unwrap_or_default();
    url.scheme() == "https" && url.host_str().is_some_and(|host| is_allowed(host, port))
}

/// What a client dialled, and what it wrote there.
#[derive(Clone, Debug, Default)]
struct Dialled(Arc<Mutex<Vec<Connection>>>);

#[derive(Debug)]
struct Connection {
    host: String,
    port: u16,
    /// Known beforehand; if not, by what is written.
    tls: Option<bool>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Dialled {
    fn rustls(&self) -> Client<HttpsConnector<Connector>, Body> {
        let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Client::builder(TokioExecutor::new())
            .build(https.wrap_connector(Connector { to: self.clone(), by_rule: false }))
    }

    fn hyper_tls(&self) -> Client<Connector, Body> {
        Client::builder(TokioExecutor::new()).build(Connector { to: self.clone(), by_rule: true })
    }

    fn handshakes(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|connection| !connection.written.lock().unwrap().is_empty()).count()
    }

    /// Wherever bytes went, they went to an allowed place, and none in the clear.
    fn is_allowed(&self) -> bool {
        self.0.lock().unwrap().iter().all(|connection| {
            // The first byte of a handshake (RFC 8446 §5.1).
            let begins_with = |bytes: &[u8]| bytes.first().is_none_or(|first| *first == 0x16);
            let encrypted = connection.tls.unwrap_or_else(|| begins_with(&connection.written.lock().unwrap()));
            encrypted && is_allowed(&connection.host, connection.port)
        })
    }
}

/// Notes where it is sent, as hyper-util's `HttpConnector` reads the URI.
#[derive(Clone)]
struct Connector {
    to: Dialled,
    /// TLS by the rule of hyper-tls; nothing is written then.
    by_rule: bool,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Pipe>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let pipe = Pipe::default();
        self.to.0.lock().unwrap().push(Connection {
            host: uri.host().unwrap_or_default().to_owned(),
            port: uri.port_u16().unwrap_or(default),
            tls: self.by_rule.then(|| uri.scheme_str() == Some("https")),
            written: pipe.written.clone(),
        });
        ready(if self.by_rule { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(TokioIo::new(pipe)) })
    }
}

/// A connection that remembers what is written, and ends then.
#[derive(Default)]
struct Pipe {
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<Waker>,
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.written.lock().unwrap().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap().extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl hyper_util::client::legacy::connect::Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
