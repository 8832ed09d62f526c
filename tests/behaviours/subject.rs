//! What is put under the suite, the world it is put into, and the cases themselves.
//!
//! A case is an async function over a [`Subject`] and nothing else of this crate, so that other implementations can be
//! held against the same contract. It panics to fail, and returns [`NotOffered`] where a subject has no such thing.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_oauth2_client::test_util::{Api, AuthServer, Body, TestClock};
use tower_oauth2_client::{BoxError, Replay, Scopes, TenantId};

/// An implementation under test.
pub trait Subject: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// A client for the world's API over `inner` (the API itself, or layers around it), with these settings; `None` if it
    /// cannot express them.
    fn client_over(&self, inner: Client, world: &World, settings: &Settings) -> Option<Setup>;
}

/// An HTTP client: the API, and what a subject makes of it.
pub type Client = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// What a subject makes.
pub struct Setup {
    pub client: Client,
    pub control: Arc<dyn Control>,
}

/// What a user can do besides sending requests. A subject overrides what it offers.
pub trait Control: Send + Sync {
    fn invalidate(&self) -> Offered {
        Err(NotOffered)
    }
    fn replace_secret(&self, _secret: &str) -> Offered {
        Err(NotOffered)
    }
    fn hand_in(&self, _access_token: &str, _refresh_token: Option<&str>) -> Offered {
        Err(NotOffered)
    }
    /// How many partitions are kept.
    fn partitions(&self) -> Offered<usize> {
        Err(NotOffered)
    }
    /// What the response's outcome says, if the subject tells.
    fn outcome(&self, _response: &Response<Body>) -> Offered<Outcome> {
        Err(NotOffered)
    }
    /// A request that the subject is to leave alone.
    fn skipping(&self, _request: Request<Body>) -> Offered<Request<Body>> {
        Err(NotOffered)
    }
    /// What kind of failure an error is, if the subject tells.
    fn failure(&self, _error: &BoxError) -> Offered<Failure> {
        Err(NotOffered)
    }
    /// A further client over `inner` with the same tokens, as if it were made for one request.
    fn another_client(&self, _inner: Client) -> Offered<Client> {
        Err(NotOffered)
    }
}

/// The subject has no such thing.
#[derive(Debug)]
pub struct NotOffered;

pub type Offered<T = ()> = Result<T, NotOffered>;

/// What happened to a request.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub refreshed: bool,
    pub resent: bool,
    pub same_token: bool,
    pub suppressed: bool,
    pub not_replayable: bool,
    /// A refresh was tried and failed.
    pub failed: bool,
}

/// What an error says to a program.
#[derive(Debug, PartialEq)]
pub struct Failure {
    /// There was no token; the request was not sent.
    pub no_token: bool,
    pub is_retryable: bool,
    pub retry_after: Option<Duration>,
    /// A name for the class, the same for equal errors.
    pub class: String,
}

/// What a case asks of a subject beyond a plain client.
#[derive(Clone, Default)]
pub struct Settings {
    pub tenant: Tenancy,
    /// The grant is a refresh token instead of client credentials.
    pub refresh_token: Option<String>,
    pub replay: Replay,
    /// The token client goes through this instead of straight to the world's authorization server.
    pub token_client: Option<Client>,
    pub more: Vec<Setting>,
    /// The client's secret; [`SECRET`] if none is given.
    pub secret: Option<String>,
}

/// Settings that few subjects have.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Expiry from the `exp` inside the token only, as VIP and Graphnet need.
    JwtExpOnly,
    /// An expired token on arrival is an error.
    DiscardExpired,
    RefreshAtExpiry,
    /// 403 refreshes when the token has expired by our own clock.
    ForbiddenIfExpired,
    KeepCallersAuthorization,
    RejectCallersAuthorization,
    /// Requests to foreign origins pass without credentials.
    PassForeign,
    /// Only HTTP 401 without a body limit: how much of a streaming body is recorded, in bytes.
    MaxReplayBytes(usize),
    /// This header on each request that has none of that name.
    SetIfAbsent(&'static str, &'static str),
    /// How long a failure that will not pass by itself is remembered.
    PermanentFailurePause(Duration),
    /// Requests may ask for scopes of their own, by [`with_scopes`].
    ScopesPerRequest,
    /// How many partitions are kept.
    MaxPartitions(usize),
    /// Client id and secret are parameters of the token request.
    SecretInBody,
}

#[derive(Clone, Default)]
pub enum Tenancy {
    #[default]
    None,
    /// This header on each request, from the request's `TenantId`; one token for all.
    SharedToken(&'static str),
    /// A token per tenant; this header on the token request.
    TokenPerTenant(&'static str),
}

/// The servers of one case, and their clock.
#[derive(Clone)]
pub struct World {
    pub clock: TestClock,
    pub auth: AuthServer,
    pub api: Api,
}

pub const CLIENT_ID: &str = "client";
pub const SECRET: &str = "s3cret";
pub const TOKEN_URL: &str = "https://auth.example.com/oauth2/token";
pub const API: &str = "https://api.example.com";

impl World {
    /// An ordinary authorization server (tokens for an hour) and its API.
    pub fn new() -> Self {
        Self::with(|auth| auth)
    }

    pub fn with(shape: impl FnOnce(AuthServer) -> AuthServer) -> Self {
        let clock = TestClock::new();
        let auth = shape(AuthServer::new(clock.clone()).client(CLIENT_ID, SECRET));
        let api = Api::new(&auth);
        Self { clock, auth, api }
    }

    pub fn api(mut self, shape: impl FnOnce(Api) -> Api) -> Self {
        self.api = shape(self.api);
        self
    }

    /// The API as a bare client, to put layers around.
    pub fn inner(&self) -> Client {
        BoxCloneSyncService::new(self.api.clone())
    }

    pub fn subject(&self, subject: &Arc<dyn Subject>, settings: Settings) -> Offered<Setup> {
        subject.client_over(self.inner(), self, &settings).ok_or(NotOffered)
    }

    /// A client with default settings.
    pub fn client(&self, subject: &Arc<dyn Subject>) -> Offered<Client> {
        Ok(self.subject(subject, Settings::default())?.client)
    }

    /// An access token had by hand, as from elsewhere.
    pub async fn token_from_elsewhere(&self) -> String {
        let form = format!("grant_type=client_credentials&client_id={CLIENT_ID}&client_secret={SECRET}");
        let request = Request::post(TOKEN_URL).header("content-type", "application/x-www-form-urlencoded");
        self.auth.clone().oneshot(request.body(full(form)).unwrap()).await.unwrap();
        self.auth.last_token().unwrap()
    }

    /// The tokens that the API was shown, in order of arrival.
    pub fn shown_tokens(&self) -> Vec<String> {
        self.api.requests().iter().map(|request| request.bearer().unwrap_or_default().to_owned()).collect()
    }

    /// Both clocks and tokio's move on, and what is due happens.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(format!("{API}{path}")).body(empty()).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(format!("{API}{path}")).body(full(body)).unwrap()
}

pub fn for_tenant(mut request: Request<Body>, tenant: &str) -> Request<Body> {
    request.extensions_mut().insert(TenantId::new(tenant).unwrap());
    request
}

pub fn with_scopes<const N: usize>(mut request: Request<Body>, scopes: [&str; N]) -> Request<Body> {
    request.extensions_mut().insert(Scopes::new(scopes).unwrap());
    request
}

pub fn empty() -> Body {
    full(Bytes::new())
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Boxed, so that services inside of a subject can use it too.
pub fn send(
    client: &Client,
    request: Request<Body>,
) -> Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>> {
    Box::pin(client.clone().oneshot(request))
}

/// Sends on a task of its own.
pub fn start(client: &Client, request: Request<Body>) -> JoinHandle<Result<Response<Body>, BoxError>> {
    tokio::spawn(client.clone().oneshot(request))
}

/// Sends a request that must succeed.
pub async fn succeed(client: &Client, request: Request<Body>) {
    assert_eq!(send(client, request).await.unwrap().status(), 200);
}

/// Sends all at once, each on a task of its own, and waits for all.
pub async fn send_all(
    client: &Client,
    requests: impl IntoIterator<Item = Request<Body>>,
) -> Vec<Result<Response<Body>, BoxError>> {
    let tasks: Vec<_> = requests.into_iter().map(|request| tokio::spawn(client.clone().oneshot(request))).collect();
    let mut responses = Vec::new();
    for task in tasks {
        responses.push(task.await.unwrap());
    }
    responses
}

/// The tokens with which a path was requested, in order.
pub fn bearer_of(world: &World, path: &str) -> Vec<String> {
    let requests = world.api.requests().into_iter().filter(|request| request.uri.path() == path);
    requests.map(|request| request.bearer().unwrap_or_default().to_owned()).collect()
}

pub async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// One behaviour as a test.
pub struct Case {
    pub number: u32,
    pub title: &'static str,
    pub test: Test,
}

pub type Test = fn(Arc<dyn Subject>) -> Pin<Box<dyn Future<Output = Offered>>>;

pub enum Verdict {
    Passed,
    Failed(String),
    NotOffered,
}

impl Case {
    /// On a runtime of its own with a paused clock. A case that takes more than a day of that clock hangs.
    pub fn run(&self, subject: Arc<dyn Subject>) -> Verdict {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let case = AssertUnwindSafe(async { tokio::time::timeout(DAY, (self.test)(subject)).await }).catch_unwind();
        match runtime.block_on(case) {
            Ok(Ok(Ok(()))) => Verdict::Passed,
            Ok(Ok(Err(NotOffered))) => Verdict::NotOffered,
            Ok(Err(_)) => Verdict::Failed("it hangs".to_owned()),
            Err(panic) => Verdict::Failed(message(&*panic)),
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}

/// Declares the cases of a file: the table of them for the report, and a test of each for `cargo test`.
///
/// ```ignore
/// cases! {
///     /// Behaviour 1.
///     1, "cold herd", cold_herd;
/// }
/// ```
#[macro_export]
macro_rules! cases {
    ($($(#[$doc:meta])* $number:literal, $title:literal, $name:ident;)*) => {
        pub const CASES: &[$crate::subject::Case] = &[
            $($crate::subject::Case {
                number: $number,
                title: $title,
                test: |subject| Box::pin($name(subject)),
            },)*
        ];

        #[cfg(test)]
        mod tests {
            $(
                $(#[$doc])*
                #[test]
                fn $name() {
                    let case = super::CASES.iter().find(|case| {
                        case.number == $number && case.title == $title
                    });
                    $crate::hold(case.unwrap());
                }
            )*
        }
    };
}
