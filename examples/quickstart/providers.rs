//! The five providers: their servers on loopback, and the client of each as a user would write it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::ServiceBuilder;
use tower::util::{BoxCloneSyncService, MapRequestLayer};
use tower_oauth2_client::test_util::{Api, AuthServer, Served, TestClock, both, serve};
use tower_oauth2_client::{AuthHandle, AuthLayer, BoxError, Error, Tenant, TenantId, providers};

use crate::callers::CALLERS;

/// An HTTP client with a provider's tokens.
pub(crate) type Service = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, Error>;

/// A provider: its servers, and a client that was given nothing but the provider's preset and the credentials.
pub(crate) struct Provider {
    pub(crate) name: &'static str,
    /// Clients, servers and tokens read this clock.
    pub(crate) clock: TestClock,
    pub(crate) auth: AuthServer,
    pub(crate) api: Api,
    pub(crate) handle: AuthHandle,
    pub(crate) service: Service,
    /// Where requests go, without a path.
    pub(crate) api_url: String,
    /// The callers are spread over these; empty: there are no tenants here.
    pub(crate) tenants: Vec<TenantId>,
    /// How many tokens the client needs at a time.
    pub(crate) tokens: usize,
    pub(crate) token_lifetime: Duration,
    _served: Served,
}

/// All five.
pub(crate) async fn all() -> Result<[Provider; 5], BoxError> {
    Ok([
        Provider::vip().await?,
        Provider::spry().await?,
        Provider::vectorcare().await?,
        Provider::qmatic().await?,
        Provider::graphnet().await?,
    ])
}

/// How the API's requests travel. Either way a few file descriptors are enough for any number of callers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/2 over one connection; what it cannot take yet waits inside hyper.
    Http2,
    /// HTTP/1.1 under a concurrency limit below the layer; what it cannot take yet waits for a permit.
    Http1,
}

impl Transport {
    fn http(self) -> Client<HttpConnector, Full<Bytes>> {
        Client::builder(TokioExecutor::new()).http2_only(self == Transport::Http2).build_http()
    }

    /// How many requests may be under way at a time.
    fn limit(self) -> usize {
        match self {
            Transport::Http2 => CALLERS,
            Transport::Http1 => 50,
        }
    }
}

const ID: &str = "quickstart";
const SECRET: &str = "not-a-secret";
const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for thousands of requests to arrive while a token request is under way.
const TOKEN_LATENCY: Duration = Duration::from_millis(50);
const API_LATENCY: Duration = Duration::from_millis(2);

impl Provider {
    /// One token a day for all practices; the practice is named on each request.
    async fn vip() -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let auth = AuthServer::vip(clock.clone());
        let site = Site::open(&auth, Api::vip(&auth)).await?;
        let cfg = providers::vip(ID, SECRET).clock(clock).build()?;
        let layer = AuthLayer::builder(cfg).http_client(site.token_client()).build()?;
        let practices = tenants(100, |n| format!("7c1e0e5a-41f0-4a6b-9d0c-{n:012}"))?;
        let provider = site.provider("VIP", "https://api.vetspace.cloud", layer, Transport::Http2);
        Ok(Provider { tenants: practices, token_lifetime: 24 * HOUR, ..provider })
    }

    /// Tokens for an hour, renewed with a refresh token that is replaced each time.
    async fn spry() -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let auth = AuthServer::spry(clock.clone()).issue_refresh_tokens();
        let site = Site::open(&auth, Api::new(&auth)).await?;
        let origin = site.origin();
        let cfg = providers::spry(&origin, ID, SECRET).clock(clock).build()?;
        Ok(site.provider("Spry", &origin, AuthLayer::new(cfg), Transport::Http1))
    }

    /// Tokens for an hour, from another host than the API's.
    async fn vectorcare() -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let auth = AuthServer::vectorcare(clock.clone());
        let site = Site::open(&auth, Api::new(&auth)).await?;
        let cfg = providers::vectorcare(ID, SECRET).clock(clock).build()?;
        let layer = AuthLayer::builder(cfg).http_client(site.token_client()).build()?;
        Ok(site.provider("VectorCare", "https://hub.vectorcare.com", layer, Transport::Http2))
    }

    /// A token per account; here one layer serves several accounts.
    async fn qmatic() -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let auth = AuthServer::qmatic(clock.clone());
        let site = Site::open(&auth, Api::new(&auth).tenant_query(TENANT)).await?;
        let origin = site.origin();
        let scope = "com.qmatic.saas.appointments/external.appointment.book";
        let account = Tenant::without_header().token_header("x-account").token_param("x-account").normalized();
        let cfg = providers::qmatic(&origin, "any", [scope], ID, SECRET).tenant(account).clock(clock).build()?;
        let accounts = tenants(4, |n| format!("clinic{n}"))?;
        let provider = site.provider("Qmatic", &origin, AuthLayer::new(cfg), Transport::Http2);
        Ok(Provider { tokens: accounts.len(), tenants: accounts, ..provider })
    }

    /// Nothing but the token itself tells when it expires, and then it must be discarded.
    async fn graphnet() -> Result<Self, BoxError> {
        let clock = TestClock::new();
        let auth = AuthServer::graphnet(clock.clone());
        let site = Site::open(&auth, Api::new(&auth)).await?;
        let origin = site.origin();
        let token_url = format!("{origin}/vlive/hpca/oauth/token");
        let cfg = providers::graphnet(token_url, &origin, ID, SECRET).clock(clock).build()?;
        Ok(site.provider("Graphnet", &origin, AuthLayer::new(cfg), Transport::Http1))
    }
}

/// The parameter of a request's query that names its tenant, so that the API can tell whose token it should carry.
pub(crate) const TENANT: &str = "tenant";

fn tenants(count: usize, id: impl Fn(usize) -> String) -> Result<Vec<TenantId>, BoxError> {
    (0..count).map(|n| TenantId::new(id(n)).map_err(BoxError::from)).collect()
}

/// A provider's servers on loopback.
struct Site {
    auth: AuthServer,
    api: Api,
    served: Served,
}

impl Site {
    async fn open(auth: &AuthServer, api: Api) -> Result<Self, BoxError> {
        let auth = auth.clone().client(ID, SECRET).latency(TOKEN_LATENCY);
        let api = api.latency(API_LATENCY);
        let served = serve(both(&auth, &api)).await?;
        Ok(Self { auth, api, served })
    }

    fn origin(&self) -> String {
        self.served.origin()
    }

    /// For presets whose token URL is fixed: what they send there arrives here.
    fn token_client(
        &self,
    ) -> impl tower::Service<
        Request<Full<Bytes>>,
        Response = Response<Incoming>,
        Error = hyper_util::client::legacy::Error,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static {
        ServiceBuilder::new().layer(redirect(self.served.addr())).service(Transport::Http1.http())
    }

    fn provider(self, name: &'static str, api_url: &str, layer: AuthLayer, transport: Transport) -> Provider {
        let handle = layer.handle();
        let service = ServiceBuilder::new()
            .layer(layer)
            .concurrency_limit(transport.limit())
            .layer(redirect(self.served.addr()))
            .service(transport.http());
        Provider {
            name,
            clock: self.auth.clock().clone(),
            handle,
            service: BoxCloneSyncService::new(service),
            api_url: api_url.to_owned(),
            tenants: Vec::new(),
            tokens: 1,
            token_lifetime: HOUR,
            auth: self.auth,
            api: self.api,
            _served: self.served,
        }
    }
}

/// Sends requests for any host to `addr`, over plain http. Below the layer, which sees the provider's real URLs.
fn redirect<B>(addr: SocketAddr) -> MapRequestLayer<impl Fn(Request<B>) -> Request<B> + Clone> {
    MapRequestLayer::new(move |mut request: Request<B>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = Uri::builder().scheme("http").authority(addr.to_string()).path_and_query(path).build() {
            *request.uri_mut() = uri;
        }
        request
    })
}
