//! The HTTP clients for token requests: the built-in one, and an adapter for a `reqwest::Client` of the user's.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::runtime::{self, Handle};
use tower_service::Service;

use super::tls::{self, ExtraRoots};
use crate::types::{BoxError, ConfigError, Secret, TokenError, TokenErrorKind};

/// What the built-in client can be told.
#[derive(Clone, Default)]
pub(crate) struct BuiltInClientSettings {
    /// A URL, which may hold a user and a password. `None`: as the environment says (`HTTPS_PROXY`), or none for this machine.
    pub(crate) proxy: Option<Secret<String>>,
    /// Further certificate authorities, each a PEM file's content.
    pub(crate) ca_pem: Vec<Vec<u8>>,
    /// `None`: 5 s.
    pub(crate) connect_timeout: Option<Duration>,
}

impl BuiltInClientSettings {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Whether anything was set.
    pub(crate) fn is_changed(&self) -> bool {
        self.proxy.is_some() || !self.ca_pem.is_empty() || self.connect_timeout.is_some()
    }

    /// Checks the settings, without I/O. The HTTP client itself is made by the first token request.
    ///
    /// `is_local`: an endpoint is on this machine. Plain http is allowed there because nobody listens, so that it must not
    /// go through a proxy that the environment names for all.
    ///
    /// # Errors
    /// A proxy that is no URL, a certificate that is not PEM, no time to connect in.
    pub(crate) fn build(&self, is_local: bool) -> Result<BuiltInClient, ConfigError> {
        let proxy = match &self.proxy {
            // The errors below quote what they were given; a proxy's URL may hold a password.
            Some(proxy) => Proxy::Configured(reqwest::Proxy::all(proxy.expose()).map(Box::new).map_err(|_| {
                ConfigError::new(
                    "the proxy is not a URL",
                    "write it as http://host:port or http://user:password@host:port",
                )
            })?),
            None if is_local => Proxy::Off,
            None => Proxy::FromEnvironment,
        };
        let connect_timeout = self.connect_timeout.unwrap_or(Self::CONNECT_TIMEOUT);
        if connect_timeout.is_zero() {
            return Err(ConfigError::new("there is no time to connect in", "5 s is the default"));
        }
        let roots = ExtraRoots::from_pem(&self.ca_pem)?;
        let plan = Plan { proxy, roots, connect_timeout, clients: Mutex::default() };
        Ok(BuiltInClient { plan: Arc::new(plan), ready: None })
    }
}

impl fmt::Debug for BuiltInClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltInClientSettings")
            .field("proxy", &self.proxy)
            .field("ca_pem", &self.ca_pem.len())
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// The HTTP client of [`AuthLayer::new`](crate::AuthLayer::new): no redirects, no cookies, no retries, no decompression.
///
/// **TLS** is chosen by feature, as reqwest names them: `rustls` (default: with AWS-LC, unless the program has installed
/// another provider), `rustls-no-provider` (with the provider that the program has installed; without one there is no client),
/// `native-tls` (the system's library). If several are on, rustls is used: that some crate turns on `native-tls` too changes
/// nothing here. Where the system's library must be used whatever else is compiled in, bring a client
/// (`reqwest::Client::builder().tls_backend_native()`, [`ReqwestClient`]). With none of them token URLs with https are an
/// error.
///
/// You never name this type, except in a tower layer of your own that is generic over the token endpoint's client.
///
/// The connections are opened by the first token request. Connections belong to the tokio runtime that opened them, so
/// each runtime in which this layer makes token requests has its own (the eight used last, if there are more). What TLS
/// needs is loaded once for the whole process. After an exchange that failed, or was given up since it took too long, the next
/// one has new connections.
#[derive(Clone)]
pub struct BuiltInClient {
    plan: Arc<Plan>,
    /// Of the runtime that `poll_ready` was called in.
    ready: Option<(reqwest::Client, Watch)>,
}

/// A checked configuration, and the clients made of it so far.
struct Plan {
    proxy: Proxy,
    roots: ExtraRoots,
    connect_timeout: Duration,
    clients: Mutex<Vec<Made>>,
}

/// A runtime's client.
struct Made {
    runtime: runtime::Id,
    client: reqwest::Client,
    /// Whether this is the one that an exchange has.
    id: Arc<()>,
}

enum Proxy {
    Configured(Box<reqwest::Proxy>),
    FromEnvironment,
    Off,
}

impl BuiltInClient {
    /// A program that makes a runtime for each request must not collect their clients.
    const RUNTIMES: usize = 8;

    /// Loads what TLS needs, and makes a client to see whether it can be made.
    ///
    /// # Errors
    /// The system has no certificates, or TLS cannot be set up.
    pub(crate) fn prepare(&self) -> Result<(), ConfigError> {
        let made = match Handle::try_current() {
            Ok(runtime) => Plan::client(&self.plan, &runtime).map(drop),
            Err(_) => self.plan.make().map(drop),
        };
        made.map_err(|missing| {
            let mend = "check the certificates given and those of the system (package `ca-certificates`)";
            ConfigError::new("the HTTP client for token requests cannot be made", missing.unwrap_or(mend))
        })
    }
}

impl Plan {
    /// # Errors
    /// It cannot be made; what is missing, where we know it. Not the library's error, whose text may be anything.
    fn client(plan: &Arc<Self>, runtime: &Handle) -> Result<(reqwest::Client, Watch), Option<&'static str>> {
        let runtime = runtime.id();
        let mut clients = plan.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let found = clients.iter().position(|made| made.runtime == runtime);
        let made = match found {
            Some(at) => clients.remove(at),
            None => Made { runtime, client: plan.make()?, id: Arc::default() },
        };
        let client = made.client.clone();
        let watch = Watch { plan: plan.clone(), id: made.id.clone(), is_open: false };
        // The one used last stands last.
        clients.push(made);
        let too_old = (clients.len() > BuiltInClient::RUNTIMES).then(|| clients.remove(0));
        drop(clients);
        drop(too_old);
        Ok((client, watch))
    }

    fn forget(&self, id: &Arc<()>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let found = clients.iter().position(|made| Arc::ptr_eq(&made.id, id));
        let forgotten = found.map(|at| clients.remove(at));
        drop(clients);
        drop(forgotten);
    }

    /// # Errors
    /// See [`client`](Plan::client).
    fn make(&self) -> Result<reqwest::Client, Option<&'static str>> {
        // Compression is a feature of reqwest that another crate may have turned on.
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(self.connect_timeout);
        let builder = tls::configure(builder, &self.roots)?;
        let builder = match &self.proxy {
            Proxy::Configured(proxy) => builder.proxy(reqwest::Proxy::clone(proxy)),
            Proxy::FromEnvironment => builder,
            Proxy::Off => builder.no_proxy(),
        };
        builder.build().map_err(|_| None)
    }
}

fn cannot_be_made(missing: Option<&'static str>) -> TokenError {
    let error = TokenError::new(TokenErrorKind::NoHttpClient);
    match missing {
        Some(missing) => error.with_detail(missing),
        None => error,
    }
}

const NO_TLS: &str = "it speaks no TLS; turn on this crate's feature `rustls` or `native-tls`";

impl Service<Request<Full<Bytes>>> for BuiltInClient {
    type Response = Response<reqwest::Body>;
    type Error = BoxError;
    type Future = BoxResponse<BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready.is_none() {
            let runtime = Handle::try_current().map_err(|_| TokenError::new(TokenErrorKind::NoRuntime))?;
            self.ready = Some(Plan::client(&self.plan, &runtime).map_err(cannot_be_made)?);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let is_plain = request.uri().scheme() == Some(&http::uri::Scheme::HTTP);
        match self.ready.take() {
            // Also where another crate has turned on a TLS of reqwest's: which one it is, nobody has chosen.
            Some(_) if !tls::IS_THERE && !is_plain => Box::pin(async { Err(cannot_be_made(Some(NO_TLS)).into()) }),
            Some((client, mut watch)) => Box::pin(async move {
                watch.open(true);
                let response = send(client, request).await?;
                Ok(response.map(|body| reqwest::Body::wrap(WatchedBody::new(body, watch))))
            }),
            None => Box::pin(async { Err("`poll_ready` was not called".into()) }),
        }
    }
}

/// Forgets the HTTP client of an exchange that did not come to its end. Over HTTP/2 the next exchange would have the same
/// connection, and if that hangs, so would every later one: what ends it is the kernel, if anything.
#[derive(Clone)]
struct Watch {
    plan: Arc<Plan>,
    id: Arc<()>,
    is_open: bool,
}

impl Watch {
    fn open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_open {
            self.plan.forget(&self.id);
        }
    }
}

/// The body of an answer, which may hang too, or be too long.
struct WatchedBody {
    body: reqwest::Body,
    watch: Watch,
}

impl WatchedBody {
    fn new(body: reqwest::Body, mut watch: Watch) -> Self {
        watch.open(!body.is_end_stream());
        Self { body, watch }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let is_over = matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        self.watch.open(!is_over);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for BuiltInClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltInClient").finish_non_exhaustive()
    }
}

/// Makes your own [`reqwest::Client`] usable for token requests: with a client certificate, other roots, a resolver.
///
/// Build the client without redirects (`reqwest::redirect::Policy::none()`): one that follows them would carry the
/// client's secret to another host. An example is at [`ClientAuth::mtls`](crate::ClientAuth::mtls).
///
/// An exchange that takes too long ends, but over HTTP/2 its connection does not, and the next exchange has the same one. So let
/// it ping: [`http2_keep_alive_interval`](reqwest::ClientBuilder::http2_keep_alive_interval),
/// [`http2_keep_alive_timeout`](reqwest::ClientBuilder::http2_keep_alive_timeout) and
/// [`http2_keep_alive_while_idle`](reqwest::ClientBuilder::http2_keep_alive_while_idle). The same is true of any client that
/// your requests go through.
///
/// Errors do not name the URL, since keys may be in its query.
#[derive(Clone, Debug)]
pub struct ReqwestClient(reqwest::Client);

impl ReqwestClient {
    /// Wraps this client. Cloning it shares its connections.
    pub fn new(client: reqwest::Client) -> Self {
        Self(client)
    }

    /// The client inside.
    pub fn get_ref(&self) -> &reqwest::Client {
        &self.0
    }

    /// The client inside.
    pub fn get_mut(&mut self) -> &mut reqwest::Client {
        &mut self.0
    }

    /// The client inside.
    pub fn into_inner(self) -> reqwest::Client {
        self.0
    }
}

impl From<reqwest::Client> for ReqwestClient {
    fn from(client: reqwest::Client) -> Self {
        Self(client)
    }
}

impl Service<Request<Full<Bytes>>> for ReqwestClient {
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = BoxResponse<reqwest::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(send(self.0.clone(), request))
    }
}

type BoxResponse<E> = Pin<Box<dyn Future<Output = Result<Response<reqwest::Body>, E>> + Send>>;

async fn send(client: reqwest::Client, request: Request<Full<Bytes>>) -> reqwest::Result<Response<reqwest::Body>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await;
    let request = Request::from_parts(head, body.to_bytes());
    // A URL in an error tells the query, where keys may be.
    let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
    client.execute(request).await.map(Response::from).map_err(reqwest::Error::without_url)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn built() -> BuiltInClient {
        BuiltInClientSettings::default().build(false).unwrap()
    }

    fn clients(client: &BuiltInClient) -> usize {
        client.plan.clients.lock().unwrap().len()
    }

    fn current_thread() -> runtime::Runtime {
        runtime::Builder::new_current_thread().build().unwrap()
    }

    async fn make_ready(client: &mut BuiltInClient) -> Result<(), BoxError> {
        poll_fn(|cx| client.poll_ready(cx)).await
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting_it() {
        let proxy = Some(Secret::from("http://user:canary@"));
        let bad_proxy = BuiltInClientSettings { proxy, ..Default::default() };
        let no_pem = BuiltInClientSettings { ca_pem: vec![b"canary".to_vec()], ..Default::default() };
        let pem = b"-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n";
        let no_certificate = BuiltInClientSettings { ca_pem: vec![pem.to_vec()], ..Default::default() };
        for settings in [bad_proxy, no_pem, no_certificate] {
            let error = settings.build(false).unwrap_err();
            assert!(!format!("{error} {error:?} {settings:?}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn an_error_tells_no_url() {
        let request = || Request::post("/token?key=canary").body(Full::default()).unwrap();
        let mut client = built();
        make_ready(&mut client).await.unwrap();
        let error = client.call(request()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
        let error = ReqwestClient::new(reqwest::Client::new()).call(request()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    /// Also where another crate turns on a TLS of reqwest's.
    #[tokio::test]
    #[cfg(not(any(feature = "native-tls", feature = "rustls-no-provider")))]
    async fn without_tls_nothing_is_sent_over_https() {
        let mut client = built();
        make_ready(&mut client).await.unwrap();
        let request = Request::post("https://auth.example.com/token").body(Full::default()).unwrap();
        let error = client.call(request).await.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert_eq!((error.kind(), error.detail()), (TokenErrorKind::NoHttpClient, Some(NO_TLS)));
        let settings = BuiltInClientSettings { ca_pem: vec![b"any".to_vec()], ..Default::default() };
        assert!(settings.build(false).is_err());
    }

    /// Connections die with the runtime that opened them.
    #[test]
    fn each_runtime_has_a_client_of_its_own_made_at_its_first_request() {
        let client = built();
        client.prepare().unwrap();
        assert_eq!(clients(&client), 0, "no runtime, no client");
        let (one, other) = (current_thread(), current_thread());
        for runtime in [&one, &other, &one] {
            runtime.block_on(make_ready(&mut client.clone())).unwrap();
        }
        assert_eq!(clients(&client), 2);
        for _ in 0..20 {
            current_thread().block_on(make_ready(&mut client.clone())).unwrap();
        }
        assert_eq!(clients(&client), BuiltInClient::RUNTIMES);
    }

    /// Over HTTP/2 it may hang for good.
    #[tokio::test]
    async fn the_connection_of_an_exchange_that_failed_is_not_used_again() {
        let client = built();
        let watch = || Plan::client(&client.plan, &Handle::current()).unwrap().1;
        let body = |bytes: &'static str| reqwest::Body::wrap(Full::new(Bytes::from(bytes)));
        drop(watch());
        WatchedBody::new(body("read"), watch()).collect().await.unwrap();
        drop(WatchedBody::new(body(""), watch()));
        assert_eq!(clients(&client), 1);
        let (mut first, mut second) = (watch(), watch());
        first.open(true);
        second.open(true);
        drop(first);
        assert_eq!(clients(&client), 0);
        let third = watch();
        drop(second);
        assert_eq!(clients(&client), 1, "its own has been forgotten before");
        drop(WatchedBody::new(body("not read"), third));
        assert_eq!(clients(&client), 0);
    }

    #[test]
    fn outside_a_runtime_it_is_an_error() {
        let mut client = built();
        let error = futures_util::FutureExt::now_or_never(make_ready(&mut client)).unwrap().unwrap_err();
        assert_eq!(error.downcast_ref::<TokenError>().unwrap().kind(), TokenErrorKind::NoRuntime);
    }
}
