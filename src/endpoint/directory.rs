//! `Directory`: tenants with authorization servers and credentials of their own.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::FutureExt;

use super::client_auth::{ClientAuth, Credentials};
use super::discovery::{MetadataCache, TokenUrl};
use super::settings::{EndpointSettings, Param};
use super::{Shared, TokenEndpoint};
use crate::engine::EndpointLimits;
use crate::token::{BoxFetch, DynTokenSource, EndpointName, TokenRequest};
use crate::types::{BoxError, ConfigError, Digest, Scopes, Secret, TenantId, TokenError, TokenErrorKind, unavailable};

/// One tenant's authorization server, and who we are to it.
///
/// ```
/// use tower_oauth2_client::{Authority, ClientAuth, Discovery};
///
/// let authority = Authority::new(Discovery::of("https://login.clinic-1.example"), ClientAuth::basic("id", "secret"))
///     .scopes(["read"]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Authority {
    token_url: TokenUrl,
    client_auth: ClientAuth,
    scopes: Vec<String>,
    audiences: Vec<String>,
    params: Vec<(String, Secret<String>)>,
}

impl Authority {
    /// Its token URL, or [`Discovery`](crate::Discovery) of it.
    pub fn new(token_url: impl Into<TokenUrl>, client_auth: ClientAuth) -> Self {
        let token_url = token_url.into();
        Self { token_url, client_auth, scopes: Vec::new(), audiences: Vec::new(), params: Vec::new() }
    }

    /// The scopes to ask for, in place of those of the configuration and of those named so far.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// For whom the token is, in place of what the configuration says. Repeatable.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// A further parameter of the token request, beside those of the configuration; treated as a secret.
    pub fn token_param(mut self, name: impl Into<String>, value: impl Into<Secret<String>>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// The settings of the configuration, with what is the tenant's.
    fn settings(&self, base: &EndpointSettings, allow_http: bool) -> Result<EndpointSettings, ConfigError> {
        let mut settings = EndpointSettings { directory: None, ..base.clone() };
        settings.url = self.token_url.parse(allow_http)?;
        if !self.scopes.is_empty() {
            settings.scopes = Some(Scopes::new(&self.scopes)?);
        }
        if !self.audiences.is_empty() {
            settings.audiences.clone_from(&self.audiences);
        }
        let params = self.params.iter().map(|(name, value)| Param { name: name.clone(), value: value.clone() });
        settings.params.extend(params);
        settings.validate(&self.client_auth)?;
        self.client_auth.validate()?;
        Ok(settings)
    }
}

/// Tells how the client authenticates.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("client_auth", &self.client_auth).finish_non_exhaustive()
    }
}

/// Each tenant's [`Authority`], for [`AuthConfig::per_tenant`](crate::AuthConfig::per_tenant): a map, or an async function of
/// yours.
///
/// It is asked for each token request, so that a tenant can be added, moved to another server or given another secret while
/// the program runs. A token that was obtained before stays in use until it ends;
/// [`AuthHandle::invalidate`](crate::AuthHandle::invalidate) ends it. What is remembered of a server that fails, and the
/// bounds on token requests, are that server's: the others' tenants never notice.
///
/// Callers may invent tenants. A function is asked for those that never had a token as often as they
/// may ask a server: when so many in a minute were not found as there is room for
/// ([`max_partitions`](crate::AuthConfigBuilder::max_partitions)), further ones are `Overloaded`, without it.
///
/// A tenant that the directory does not know, an entry that is wrong, a function that fails, hangs (for longer than one
/// exchange may take) or panics are errors of that tenant's token request, with which nothing is sent.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower::{Layer, ServiceExt};
/// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, Authority, BoxError, ClientAuth, Directory, Tenant, TenantId};
///
/// /// From a database, perhaps.
/// async fn look_up(tenant: TenantId) -> Result<Option<Authority>, BoxError> {
///     let url = format!("https://{}.auth.example.com/token", tenant.as_str());
///     Ok(Some(Authority::new(url, ClientAuth::basic("id", "secret"))))
/// }
///
/// # tokio_test::block_on(async {
/// let cfg = AuthConfig::per_tenant(Directory::from_fn(look_up))
///     .tenant(Tenant::without_header().per_tenant_tokens())
///     .origin("https://api.example.com")
///     .build()?;
/// let server = AuthServer::new(TestClock::new());
/// let client = AuthLayer::builder(cfg).http_client(server.clone()).build()?.layer(Api::new(&server));
/// let clinic = client.for_tenant(&TenantId::new("clinic-1")?);
/// clinic.oneshot(http::Request::get("https://api.example.com/items").body(String::new())?).await?;
/// assert_eq!(server.requests()[0].uri.host(), Some("clinic-1.auth.example.com"));
/// # Ok::<(), BoxError>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct Directory(Kind);

#[derive(Clone)]
enum Kind {
    Map(Arc<ArcSwap<HashMap<TenantId, Authority>>>),
    Function(Arc<Look>),
}

type Look = dyn Fn(TenantId) -> Pin<Box<dyn Future<Output = Found> + Send>> + Send + Sync;
type Found = Result<Option<Authority>, BoxError>;

impl Directory {
    /// These tenants. A clone of the directory shares them, and can [`replace`](Directory::replace) them.
    pub fn from_map(tenants: impl IntoIterator<Item = (TenantId, Authority)>) -> Self {
        Self(Kind::Map(Arc::new(ArcSwap::from_pointee(tenants.into_iter().collect()))))
    }

    /// What an async function returns; `None`: there is no such tenant. It has the time of one exchange (10 s by default).
    ///
    /// An error that is a [`TokenError`] is passed on as it is; any other becomes the cause of one.
    pub fn from_fn<F, Fut, E>(look_up: F) -> Self
    where
        F: Fn(TenantId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Authority>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Kind::Function(Arc::new(move |tenant| {
            let looking = look_up(tenant);
            Box::pin(async move { looking.await.map_err(Into::into) })
        })))
    }

    /// Sets the tenants from now on. A directory that is a function stays one, and nothing changes.
    pub fn replace(&self, tenants: impl IntoIterator<Item = (TenantId, Authority)>) {
        if let Kind::Map(map) = &self.0 {
            map.store(Arc::new(tenants.into_iter().collect()));
        }
    }

    async fn look_up(&self, tenant: &TenantId) -> Result<Option<Authority>, TokenError> {
        let look = match &self.0 {
            Kind::Map(map) => return Ok(map.load().get(tenant).cloned()),
            Kind::Function(look) => look,
        };
        // The function itself may panic, too, before there is a future.
        let looking = AssertUnwindSafe(async { look(tenant.clone()).await }).catch_unwind();
        match looking.await {
            Ok(found) => found.map_err(|error| {
                TokenError::from_box_or(error, || unavailable("the directory of tenants failed; nothing was sent"))
            }),
            Err(_) => Err(unavailable("the directory of tenants panicked; nothing was sent")),
        }
    }
}

/// Tells whether it is a map.
impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Map(_) => "Directory(map)",
            Kind::Function(_) => "Directory(function)",
        })
    }
}

/// A directory in the settings of the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct DirectorySettings {
    pub(crate) directory: Directory,
    pub(crate) allow_http: bool,
}

/// Two are equal when they are the same one.
impl PartialEq for DirectorySettings {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.directory.0, &other.directory.0) {
            (Kind::Map(one), Kind::Map(other)) => Arc::ptr_eq(one, other),
            (Kind::Function(one), Kind::Function(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same && self.allow_http == other.allow_http
    }
}

/// Around everything that asks the endpoint: finds the tenant's authority first.
struct InDirectory {
    source: Arc<dyn DynTokenSource>,
    resolver: Resolver,
    limits: Arc<EndpointLimits>,
}

impl<C> TokenEndpoint<C> {
    /// The source, behind the directory if there is one.
    pub(crate) fn in_directory(
        &self,
        source: Arc<dyn DynTokenSource>,
        limits: &Arc<EndpointLimits>,
    ) -> Arc<dyn DynTokenSource> {
        let Some(directory) = self.shared.settings.directory.clone() else { return source };
        let resolver = Resolver { directory, base: self.shared.clone(), metadata: Mutex::default() };
        Arc::new(InDirectory { source, resolver, limits: limits.clone() })
    }
}

impl DynTokenSource for InDirectory {
    fn fetch_boxed(&self, mut request: Box<TokenRequest>) -> BoxFetch<'_> {
        Box::pin(async move {
            let resolving = self.resolver.resolve(request.tenant.as_ref());
            let (name, shared) = match self.resolver.directory.directory.0 {
                Kind::Map(_) => resolving.await,
                Kind::Function(_) => self.limits.look(request.asker, resolving).await,
            }?;
            // One server's refresh token is none of another's business.
            request.refresh_token = None;
            request.endpoint = Some(name);
            request.authority = Some(shared as Arc<dyn Any + Send + Sync>);
            self.source.fetch_boxed(request).await
        })
    }
}

/// Finds authorities, and keeps what is known of issuers.
struct Resolver {
    directory: DirectorySettings,
    base: Arc<Shared>,
    metadata: Mutex<HashMap<String, Arc<MetadataCache>>>,
}

/// Of so many issuers metadata are kept; beyond it they are all fetched anew.
const MOST_ISSUERS: usize = 10_000;

impl Resolver {
    /// # Errors
    /// There is no such tenant, or none that can be used now. Nothing of an entry is quoted but what is wrong with it.
    async fn resolve(&self, tenant: Option<&TenantId>) -> Result<(EndpointName, Arc<Shared>), TokenError> {
        let refused = |detail| TokenError::new(TokenErrorKind::Refused).with_detail(detail);
        let tenant =
            tenant.ok_or_else(|| refused("the request names no tenant, and each has its own authority here"))?;
        let base = &self.base;
        let timeout = base.settings.timeout;
        let looking = tokio::time::timeout(timeout, self.directory.directory.look_up(tenant)).await;
        let hung = |_| Err(unavailable(format!("the directory of tenants took {timeout:?}; nothing was sent")));
        let authority = looking.unwrap_or_else(hung)?;
        let unknown = "the directory knows no such tenant, and nothing was sent; add it, or see whom the request names";
        let authority = authority.ok_or_else(|| refused(unknown))?;
        let settings = authority.settings(&base.settings, self.directory.allow_http);
        let settings = settings.map_err(|error| unavailable(format!("the directory's entry is wrong: {error}")))?;
        let credentials = authority.client_auth.known_credentials().unwrap_or_else(|| {
            let mut digest = Digest::new("credentials that may change");
            authority.client_auth.describe(&mut digest);
            digest
        });
        let server = settings.url.uri().to_string().into();
        let name = EndpointName { server, credentials: credentials.finish() };
        let shared = Shared {
            metadata: self.metadata_of(settings.url.issuer().unwrap_or_default()),
            settings: Arc::new(settings),
            credentials: Credentials::new(authority.client_auth),
            clock: base.clock.clone(),
            assertions: std::sync::OnceLock::new(),
            warned: base.warned.clone(),
            store: Arc::default(),
            telemetry: base.telemetry.clone(),
            #[cfg(feature = "dpop")]
            prover: base.prover.clone(),
        };
        Ok((name, Arc::new(shared)))
    }

    fn metadata_of(&self, issuer: &str) -> Arc<MetadataCache> {
        let mut all = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(issuer) {
            return known.clone();
        }
        if all.len() >= MOST_ISSUERS {
            all.clear();
        }
        all.entry(issuer.to_owned()).or_default().clone()
    }
}

/// The endpoint that a request goes to: the tenant's own, where a directory found it.
pub(super) fn endpoint_of(request: &TokenRequest, configured: &Arc<Shared>) -> Arc<Shared> {
    let own = request.authority.clone().and_then(|authority| authority.downcast::<Shared>().ok());
    own.unwrap_or_else(|| configured.clone())
}
