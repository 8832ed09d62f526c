//! One process of a fleet: this test program once more, run by the tests in `fleet.rs`, which talk to it line by line.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::env;
use std::future::{Future, ready};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_oauth2_client::store::{FileStore, RedisStore, StoreLayer};
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth};

use crate::store::keys;

/// The shortest there is, so that the tests need not wait long for the end of a dead process' lease.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

const MARK: &str = "worker: ";

/// What a process of the fleet is to do.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// Where the store is: the URL of a Redis, or a directory.
    pub(crate) store: String,
    pub(crate) token_url: String,
    /// The refresh token that everybody is configured with; empty: client credentials.
    pub(crate) refresh_token: String,
    /// Where to stand still, once: `before` the token request goes out, `after` its answer came in.
    pub(crate) pause: &'static str,
}

/// What came of the requests.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ok: usize,
    pub(crate) failed: usize,
    /// Of those that failed: worth trying again.
    pub(crate) retryable: usize,
    pub(crate) tokens: BTreeSet<String>,
}

/// A process, killed when dropped.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) async fn spawn(setup: &Setup) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["worker::process", "--exact", "--nocapture", "--ignored"]);
        command.env("WORKER_STORE", &setup.store).env("WORKER_TOKEN_URL", &setup.token_url);
        command.env("WORKER_REFRESH_TOKEN", &setup.refresh_token).env("WORKER_PAUSE", setup.pause);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut worker = Self { child, input, output: BufReader::new(output).lines() };
        worker.hear("ready").await;
        worker
    }

    pub(crate) async fn requests(&mut self, count: usize) -> Done {
        self.say(&format!("requests {count}")).await;
        self.done().await
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn done(&mut self) -> Done {
        let line = self.hear("done ").await;
        let mut parts = line.split(' ').map(str::to_owned);
        let mut number = || parts.next().unwrap().parse().unwrap();
        let (ok, failed, retryable) = (number(), number(), number());
        Done { ok, failed, retryable, tokens: parts.collect() }
    }

    /// The rest of the first line that begins so.
    pub(crate) async fn hear(&mut self, begins: &str) -> String {
        let hear = async {
            loop {
                let line = self.output.next_line().await.unwrap().expect("the worker has ended");
                if let Some(rest) = line.strip_prefix(MARK).and_then(|line| line.strip_prefix(begins)) {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), hear).await.unwrap_or_else(|_| panic!("no `{begins}`"))
    }

    /// `KILL`, `STOP`, `CONT`.
    pub(crate) async fn signal(&mut self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap().success());
        if signal == "KILL" {
            self.child.wait().await.unwrap();
        }
    }
}

/// Not a test: what the others spawn.
#[tokio::test]
#[ignore = "is run by the tests of the fleet"]
async fn process() {
    let Ok(place) = env::var("WORKER_STORE") else { return };
    let set = |name: &str| env::var(name).unwrap();
    let (token_url, refresh_token) = (set("WORKER_TOKEN_URL"), set("WORKER_REFRESH_TOKEN"));
    let auth = ClientAuth::basic("id", "secret");
    let config = match &*refresh_token {
        "" => AuthConfig::client_credentials(&token_url, auth),
        refresh_token => AuthConfig::refresh_token(&token_url, auth, refresh_token),
    };
    let config = config.origin("https://api.example.com").build().unwrap();
    let go = Arc::new(Notify::new());
    let client = PausingClient {
        client: Client::builder(TokioExecutor::new()).build_http(),
        pause: Arc::new(Mutex::new(set("WORKER_PAUSE"))),
        go: go.clone(),
    };
    let builder = AuthLayer::builder(config).http_client(client);
    let layer = if place.starts_with("redis://") {
        let store = RedisStore::new(&place, keys(1)).unwrap();
        builder.store_with(|identity| StoreLayer::new(store, identity).lease(LEASE)).build().unwrap()
    } else {
        let store = FileStore::new(place);
        builder.store_with(|identity| StoreLayer::new(store, identity).lease(LEASE)).build().unwrap()
    };
    let tokens = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = tokens.clone();
    let api = service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers()["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
        seen.lock().unwrap().insert(token);
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let service = layer.layer(api);

    println!("{MARK}ready");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "continue" {
            go.notify_one();
        }
        let Some(count) = line.strip_prefix("requests ") else { continue };
        let count: usize = count.parse().unwrap();
        let (service, tokens) = (service.clone(), tokens.clone());
        tokio::spawn(async move {
            let request = || Request::get("https://api.example.com/").body(Full::<Bytes>::default()).unwrap();
            let results: Vec<_> = stream::iter(0..count)
                .map(|_| service.clone().oneshot(request()))
                .buffer_unordered(100)
                .collect()
                .await;
            let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
            let (failed, retryable) = (errors.len(), errors.iter().filter(|error| error.is_retryable()).count());
            let tokens = std::mem::take(&mut *tokens.lock().unwrap()).into_iter().collect::<Vec<_>>().join(" ");
            println!("{MARK}done {} {failed} {retryable} {tokens}", count - failed);
        });
    }
}

/// A client that stands still where it is told to, once.
#[derive(Clone)]
struct PausingClient {
    client: Client<HttpConnector, Full<Bytes>>,
    pause: Arc<Mutex<String>>,
    go: Arc<Notify>,
}

impl PausingClient {
    async fn pause(&self, here: &str) {
        let pauses = {
            let mut pause = self.pause.lock().unwrap();
            *pause == here && !std::mem::take(&mut *pause).is_empty()
        };
        if pauses {
            println!("{MARK}paused");
            self.go.notified().await;
        }
    }
}

impl Service<Request<Full<Bytes>>> for PausingClient {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.pause("before").await;
            let (head, body) = this.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            this.pause("after").await;
            Ok(Response::from_parts(head, Full::from(body)))
        })
    }
}
