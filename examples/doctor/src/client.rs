//! An HTTP client that watches: name, connection, and what was answered.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use reqwest::redirect::Policy;
use serde_json::Value;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tower::{Service, ServiceExt};
use tower_oauth2_client::{BoxError, ReqwestClient};

use crate::Stop;
use crate::file::Loaded;
use crate::report::Report;

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: usize = 1024 * 1024;

/// A client as the built-in one would be.
pub(crate) fn plain(loaded: &Loaded, report: &Report) -> Result<reqwest::Client, Stop> {
    let wrong = |text: &str| report.wrong(Stop::Configuration, text, "");
    let mut builder = reqwest::Client::builder().redirect(Policy::none()).connect_timeout(PATIENCE);
    if let Some(proxy) = &loaded.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|_| wrong("the `proxy` is not a URL"))?);
    }
    for pem in &loaded.roots {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        let certificates = certificates.map_err(|_| wrong("`root_certificates` are no certificates in PEM"))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|_| wrong("no HTTP client can be made; is the package `ca-certificates` installed?"))
}

/// One request and its answer.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) status: u16,
    /// Where a redirect points: scheme, host and path. Keys may be in a query.
    pub(crate) location: Option<String>,
    /// How many seconds the server's clock is ahead of this machine's.
    pub(crate) skew: Option<i64>,
    pub(crate) is_html: bool,
    pub(crate) json: Option<Value>,
}

#[derive(Clone)]
pub(crate) struct Watched {
    http: reqwest::Client,
    has_proxy: bool,
    report: Report,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was connected to already.
    known: Vec<String>,
    unreachable: bool,
    seen: Vec<Exchange>,
}

impl Watched {
    pub(crate) fn new(http: reqwest::Client, has_proxy: bool, report: Report) -> Self {
        Self { http, has_proxy, report, state: Arc::default() }
    }

    /// Whether a failure to connect was told.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.state().unreachable
    }

    pub(crate) fn last(&self) -> Option<Exchange> {
        self.state().seen.last().cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name and connection, once for each host.
    pub(crate) async fn reach(&self, url: &str) -> Result<(), ()> {
        let Ok(uri) = url.parse::<Uri>() else { return Ok(()) };
        let (Some(host), Some(scheme)) = (uri.host(), uri.scheme_str()) else { return Ok(()) };
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let place = format!("{host}:{port}");
        {
            let mut state = self.state();
            if state.known.contains(&place) {
                return Ok(());
            }
            state.known.push(place);
        }
        let host = host.trim_matches(['[', ']']);
        let is_local = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || host == "localhost";
        let by_environment = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        if self.has_proxy || (!is_local && by_environment.iter().any(|name| std::env::var_os(name).is_some())) {
            self.report.note("there is a proxy: it looks the name up and connects, so that neither is tried here", "");
            return Ok(());
        }
        let reached = self.connect(host, port).await;
        if reached.is_err() {
            self.state().unreachable = true;
        }
        reached
    }

    async fn connect(&self, host: &str, port: u16) -> Result<(), ()> {
        let found =
            timeout(PATIENCE, lookup_host((host, port))).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let addresses: Vec<SocketAddr> = match found {
            Ok(addresses) => addresses.collect(),
            Err(_) => Vec::new(),
        };
        if addresses.is_empty() {
            let change = "check it for a typing error, then this machine's resolver (`getent hosts NAME`)";
            self.report.wrong(Stop::Unreachable, &format!("the name {host} cannot be resolved"), change);
            return Err(());
        }
        if host.parse::<IpAddr>().is_err() {
            self.report.ok(&format!("the name {host} has {} address(es)", addresses.len()));
        }
        let mut last = io::ErrorKind::Other;
        for address in &addresses {
            let began = Instant::now();
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => {
                    self.report.ok(&format!("{address} accepts connections ({} ms)", began.elapsed().as_millis()));
                    return Ok(());
                }
                Ok(Err(error)) => last = error.kind(),
                Err(_) => last = io::ErrorKind::TimedOut,
            }
        }
        let change = match last {
            io::ErrorKind::ConnectionRefused => "is the server started, and the port right?",
            _ => "a firewall may be between; does the network need a proxy (`proxy`)?",
        };
        self.report.wrong(Stop::Unreachable, &format!("{host} port {port} accepts no connection: {last}"), change);
        Err(())
    }

    async fn send(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
        if self.reach(&request.uri().to_string()).await.is_err() {
            return Err("told already".into());
        }
        let is_https = request.uri().scheme_str() == Some("https");
        let response = ReqwestClient::new(self.http.clone()).oneshot(request).await?;
        let received = SystemTime::now();
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST).collect().await?.to_bytes();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let date = text("date").and_then(|date| httpdate::parse_http_date(date).ok());
        let exchange = Exchange {
            status: head.status.as_u16(),
            location: text("location").map(|location| location.split(['?', '#']).next().unwrap_or_default().to_owned()),
            skew: date.map(|date| seconds_after(date, received)),
            is_html: text("content-type").is_some_and(|content| content.contains("html")),
            json: serde_json::from_slice(&body).ok(),
        };
        if is_https && self.state().seen.is_empty() {
            self.report.ok("its certificate is trusted");
        }
        self.state().seen.push(exchange);
        Ok(Response::from_parts(head, Full::new(body)))
    }
}

/// How many seconds the one is after the other; negative if it is before.
fn seconds_after(one: SystemTime, other: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match one.duration_since(other) {
        Ok(after) => seconds(after),
        // A date has no fractions.
        Err(before) => -seconds(before.duration()),
    }
}

impl Service<Request<Full<Bytes>>> for Watched {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
