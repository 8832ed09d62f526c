//! What is seen of secrets below the layer: the frames of HTTP/2 on the wire, and all that the HTTP stack tells at the level
//! TRACE.

#![allow(clippy::unwrap_used, clippy::panic, reason = "here a panic is the report")]

#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/tls.rs"]
mod tls;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Body, TestClock, both, serve};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthLayer, BoxError, ClientAuth, ReqwestClient, Tenant, TenantId, Token,
};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use peer::{Peer, Step, frame, frames, write};

const SECRET: &str = "canary-secret-1";
const ACCESS: &str = "canary-access-2";
const TENANT: &str = "canary-tenant-3";
const PARAM: &str = "canary-param-4";
const QUERY: &str = "canary-query-5";

fn config(token_url: String, origin: &str) -> AuthConfigBuilder {
    AuthConfig::client_credentials(token_url, ClientAuth::basic("id", SECRET))
        .origin(origin)
        .token_header("x-key", PARAM)
        .token_param("key", PARAM)
        .tenant(Tenant::header("x-tenant").fixed(TENANT).token_header("x-account"))
        .token_timeout(Duration::from_secs(10))
}

fn hyper(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

fn reqwest(http2: bool) -> reqwest::Client {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if http2 { builder.http2_prior_knowledge() } else { builder }.build().unwrap()
}

/// How a field is written in a block of HPACK (RFC 7541 §6), and which name of the static table it has (0: its own).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Indexed(usize),
    IntoTheTable(usize),
    NotIndexed(usize),
    /// By nobody on the way either.
    NeverIndexed(usize),
}

/// `authorization` in the static table.
const AUTHORIZATION: usize = 23;

/// The fields of a block, in order. Strings are stepped over, not decoded.
fn fields(mut block: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some(first) = block.first() {
        let (bits, field): (u32, fn(usize) -> Field) = match first {
            0x80.. => (7, Field::Indexed),
            0x40.. => (6, Field::IntoTheTable),
            0x20.. => {
                number(&mut block, 5);
                continue;
            }
            0x10.. => (4, Field::NeverIndexed),
            _ => (4, Field::NotIndexed),
        };
        let index = number(&mut block, bits);
        fields.push(field(index));
        let strings = match (bits, index) {
            (7, _) => 0,
            (_, 0) => 2,
            _ => 1,
        };
        for _ in 0..strings {
            let length = number(&mut block, 7);
            block = &block[length..];
        }
    }
    fields
}

/// An integer whose first byte has so many bits for it (RFC 7541 §5.1).
fn number(block: &mut &[u8], bits: u32) -> usize {
    let mut next = || {
        let (first, rest) = block.split_first().unwrap();
        *block = rest;
        usize::from(*first)
    };
    let most = (1 << bits) - 1;
    let mut value = next() & most;
    if value == most {
        for shift in (0..).step_by(7) {
            let byte = next();
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

/// The fields of the first request that a peer has read.
async fn first_request(peer: &Peer) -> Vec<Field> {
    while peer.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let request = peer.requests().remove(0);
    let frames = frames(&request);
    let (_, flags, _, mut block) = *frames.iter().find(|(kind, ..)| *kind == 1).unwrap();
    assert_eq!(flags & (4 | 8), 4, "one whole block without padding");
    if flags & 0x20 != 0 {
        block = &block[5..];
    }
    fields(block)
}

fn hangs() -> Peer {
    let peer = Peer::new(AuthServer::new(TestClock::new()), None);
    peer.script([write(frame(4, 0, 0, &[])), Step::Http2Request, Step::Hang]);
    peer
}

/// The token, and whose data it is, are never put into a table of HPACK, where a later request shows whether it guessed them.
#[tokio::test]
async fn the_token_and_the_tenant_are_never_indexed() {
    let layer = |origin: &str| {
        let cfg = config("https://auth.example.com/token".to_owned(), origin).build().unwrap();
        AuthLayer::builder(cfg).http_client(AuthServer::new(TestClock::new())).build().unwrap()
    };
    for with_reqwest in [false, true] {
        let peer = hangs();
        let origin = format!("http://{}", peer.addr());
        let layer = layer(&origin);
        layer.handle().set_token(Token::bearer(ACCESS).unwrap()).await.unwrap();
        let request = Request::get(&origin).header("x-plain", "plain").body(Full::<Bytes>::default()).unwrap();
        let sending = if with_reqwest {
            let request = request.map(|_| reqwest::Body::default());
            let sending = layer.layer(reqwest(true)).oneshot(reqwest::Request::try_from(request).unwrap());
            tokio::spawn(async move { drop(sending.await) })
        } else {
            let sending = layer.layer(hyper(true)).oneshot(request);
            tokio::spawn(async move { drop(sending.await) })
        };
        let fields = first_request(&peer).await;
        sending.abort();
        let never: Vec<_> = fields.iter().filter(|field| matches!(field, Field::NeverIndexed(_))).collect();
        assert_eq!(never.len(), 2, "{fields:?}");
        assert!(never.contains(&&Field::NeverIndexed(AUTHORIZATION)) && never.contains(&&Field::NeverIndexed(0)));
        assert!(fields.contains(&Field::IntoTheTable(0)), "`x-plain` is not one of them: {fields:?}");
    }
}

#[tokio::test]
async fn nor_are_the_credentials_of_a_token_request() {
    for with_reqwest in [false, true] {
        let peer = hangs();
        let cfg = config(format!("http://{}/token", peer.addr()), "https://api.example.com").build().unwrap();
        let layer = if with_reqwest {
            AuthLayer::builder(cfg).http_client(ReqwestClient::new(reqwest(true))).build().unwrap()
        } else {
            AuthLayer::builder(cfg).http_client(hyper(true)).build().unwrap()
        };
        let handle = layer.handle();
        let asking = tokio::spawn(async move { drop(handle.token().await) });
        let fields = first_request(&peer).await;
        asking.abort();
        let never: Vec<_> = fields.iter().filter(|field| matches!(field, Field::NeverIndexed(_))).collect();
        assert!(never.contains(&&Field::NeverIndexed(AUTHORIZATION)), "{fields:?}");
        let own_names = never.iter().filter(|field| ***field == Field::NeverIndexed(0)).count();
        assert_eq!(own_names, 2, "`x-key` and `x-account`: {fields:?}");
    }
}

/// The walk sees a header that is not marked.
#[tokio::test]
async fn what_is_not_marked_goes_into_the_table() {
    let peer = hangs();
    let request = Request::get(format!("http://{}/", peer.addr())).header("authorization", format!("Bearer {ACCESS}"));
    let sending = hyper(true).request(request.header("x-tenant", TENANT).body(Full::default()).unwrap());
    let sending = tokio::spawn(async move { drop(sending.await) });
    let fields = first_request(&peer).await;
    sending.abort();
    assert!(fields.iter().all(|field| !matches!(field, Field::NeverIndexed(_))), "{fields:?}");
    assert!(fields.contains(&Field::NotIndexed(AUTHORIZATION)), "a next hop may do otherwise: {fields:?}");
    assert!(fields.contains(&Field::IntoTheTable(0)), "the tenant: {fields:?}");
}

/// Everything that is told anywhere in this process, through `tracing` or `log`.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl log::Log for Said {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.add(format!("log {} {} {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

type Answer = Response<Body>;

/// The API tells everybody what it was sent: in a header, in its body, and in a challenge.
fn echoing(
    inner: impl Service<Request<Incoming>, Response = Answer, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone + Send + Sync
{
    service_fn(move |request: Request<Incoming>| {
        let echo = request.headers().get("authorization").cloned().unwrap_or(HeaderValue::from_static("none"));
        let is_api = request.uri().path() == "/items";
        let answered = inner.clone().oneshot(request);
        async move {
            let (mut head, body) = answered.await?.into_parts();
            let mut body = body.collect().await?.to_bytes();
            if is_api {
                let told = String::from_utf8_lossy(echo.as_bytes()).into_owned();
                let challenge = format!(r#"Bearer error="invalid_token", error_description="{told}""#);
                head.headers.insert("www-authenticate", challenge.parse()?);
                head.headers.insert("x-echo", echo);
                body = told.into();
                head.headers.remove("content-length");
            }
            Ok(Response::from_parts(head, Full::new(body)))
        }
    })
}

/// Behaviours 103 and 104 (the HTTP stack's own words included).
///
/// Through each client, over each version of HTTP and TLS: first tokens, rejections, resends, echoes, and a server that goes
/// away with a word.
#[tokio::test]
async fn nothing_that_the_http_stack_tells_at_trace_is_a_secret() {
    let said = Said::default();
    let listening = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_span_events(FmtSpan::FULL);
    tracing::subscriber::set_global_default(listening.with_writer(said.clone()).finish()).unwrap();
    log::set_boxed_logger(Box::new(said.clone())).unwrap();
    log::set_max_level(log::LevelFilter::Trace);

    let mut secrets = [SECRET, ACCESS, TENANT, PARAM].map(str::to_owned).to_vec();
    secrets.push(STANDARD.encode(format!("id:{SECRET}")));
    secrets.push(STANDARD.encode(SECRET).trim_end_matches('=').to_owned());
    for client in ["built-in", "built-in, TLS", "reqwest", "reqwest, HTTP/2", "hyper", "hyper, HTTP/2"] {
        secrets.extend(through(client).await);
    }
    goes_away_with_a_word().await;

    let said = said.lines();
    let heard: BTreeSet<_> = said.iter().flat_map(|line| line.split([' ', ':'])).map(str::to_owned).collect();
    // hyper's own is a feature that is not stable.
    for from in ["h2", "hyper_util", "reqwest", "tower_oauth2_client"] {
        assert!(
            heard.contains(from),
            "{from} was not heard: {:?}",
            said.iter().take(300).step_by(30).collect::<Vec<_>>()
        );
    }
    let told = |line: &&String| secrets.iter().any(|secret| line.to_lowercase().contains(&secret.to_lowercase()));
    let told: Vec<_> = said.iter().filter(told).collect();
    assert!(told.is_empty(), "{} lines: {:#?}", told.len(), &told[..told.len().min(20)]);
    let of_query: Vec<_> = said.iter().filter(|line| line.contains(QUERY)).collect();
    assert!(of_query.is_empty(), "the query of the token URL: {of_query:#?}");
}

/// The tokens that there were.
async fn through(client: &str) -> Vec<String> {
    let auth = AuthServer::new(TestClock::new()).client("id", SECRET);
    let api = Api::new(&auth);
    let served = serve(echoing(both(&auth, &api))).await.unwrap();
    let tokens_over_tls = tls::serve(&["h2"], auth.clone()).await;
    let (origin, uri) = (served.origin(), served.uri("/items"));
    let url = match client {
        "built-in, TLS" => format!("https://{tokens_over_tls}/token?key={QUERY}"),
        _ => served.uri(&format!("/oauth2/token?key={QUERY}")),
    };
    let config = config(url, &origin).clock(auth.clock().clone());
    let http2 = client.ends_with("HTTP/2");
    let layer = match client {
        "built-in" => AuthLayer::new(config.build().unwrap()),
        "built-in, TLS" => AuthLayer::new(config.root_certificates(tls::AUTHORITY).build().unwrap()),
        "hyper" | "hyper, HTTP/2" => {
            AuthLayer::builder(config.build().unwrap()).http_client(hyper(http2)).build().unwrap()
        }
        _ => {
            let client = ReqwestClient::new(reqwest(http2));
            AuthLayer::builder(config.build().unwrap()).http_client(client).build().unwrap()
        }
    };
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let request = || Request::post(&uri).body(Full::<Bytes>::from("body")).unwrap();
        let response = layer.layer(hyper(http2)).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200, "{client}");
        response.into_body().collect().await.unwrap();
        let request = reqwest::Request::try_from(request().map(reqwest::Body::wrap)).unwrap();
        let response = layer.layer(reqwest(http2)).oneshot(request).await.unwrap();
        assert!(response.text().await.unwrap().starts_with("Bearer "), "it is an echo");
        tokens.extend(auth.last_token());
        auth.revoke_all();
    }
    // Nobody knows this one.
    layer.handle().set_token(Token::bearer(ACCESS).unwrap()).await.unwrap();
    let request = Request::post(&uri).body(Full::<Bytes>::from("body")).unwrap();
    layer.layer(hyper(http2)).oneshot(request).await.unwrap();
    let error = layer.layer(hyper(http2)).oneshot(Request::get("http://127.0.0.1:1/").body(Full::default()).unwrap());
    drop(error.await.unwrap_err());
    let tenant = TenantId::new(TENANT).unwrap();
    drop(layer.handle().for_tenant(&tenant).token().await);
    tokens
}

/// With what it was not told, since it is its own words that follow.
async fn goes_away_with_a_word() {
    let peer = Peer::new(AuthServer::new(TestClock::new()), None);
    let debug_data = [&[0, 0, 0, 0, 0, 0, 0, 11][..], b"enough of this"].concat();
    peer.script([write(frame(4, 0, 0, &[])), Step::Http2Request, write(frame(7, 0, 0, &debug_data))]);
    let cfg = config(format!("http://{}/token", peer.addr()), "https://api.example.com").build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(hyper(true)).build().unwrap();
    drop(layer.handle().token().await.unwrap_err());
}
