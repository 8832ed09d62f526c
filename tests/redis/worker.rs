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
use tower_oauth2_client::store::{
    Fence, FileStore, Lease, RedisStore, Saved, StoreError, StoreKey, StoreLayer, Stored, TokenStore, Value, Version,
};
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth, Clock, Now, SystemClock};

use crate::naive::Naive;
use crate::server::wait_until;
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
    /// Where to stand still, once: `before` the token request goes out, `after` its answer came in, or once it is `saved`.
    pub(crate) pause: &'static str,
    /// A file with what is added to the time of day, in seconds.
    pub(crate) clock: String,
    /// The client written by hand instead of this crate.
    pub(crate) naive: bool,
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
        command.env("WORKER_CLOCK", &setup.clock).env("WORKER_NAIVE", if setup.naive { "yes" } else { "" });
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
        match signal {
            "KILL" => drop(self.child.wait().await.unwrap()),
            // Its threads stop one by one, and one that runs may go on for a moment.
            "STOP" => wait_until(async || is_stopped(&pid)).await,
            _ => {}
        }
    }
}

/// Whether all threads of a process stand still, where the system says so.
fn is_stopped(pid: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let state = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
    threads.flatten().all(|thread| state(thread).rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T')))
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
    let clock = FileClock(set("WORKER_CLOCK"));
    let config = config.origin("https://api.example.com").clock(clock.clone()).build().unwrap();
    let pauses = Pauses { pause: Arc::new(Mutex::new(set("WORKER_PAUSE"))), go: Arc::new(Notify::new()) };
    let client = PausingClient { client: Client::builder(TokioExecutor::new()).build_http(), pauses: pauses.clone() };
    if !set("WORKER_NAIVE").is_empty() {
        let (file, renewing) = (place.into(), Default::default());
        let naive = Naive { file, token_url, refresh_token, client, pauses: pauses.clone(), clock, renewing };
        let naive = Arc::new(naive);
        let ask = move |renew| {
            let naive = naive.clone();
            async move { naive.token(renew).await.map_err(|error| (error, false)) }
        };
        return obey(ask, &pauses).await;
    }
    let builder = AuthLayer::builder(config).http_client(client);
    let layer = if place.starts_with("redis://") {
        let store = RedisStore::new(&place, keys(1)).unwrap();
        builder.store_with(|identity| StoreLayer::new(store, identity).lease(LEASE)).build().unwrap()
    } else {
        let store = PausingStore { store: FileStore::with_clock(place, clock), pauses: pauses.clone() };
        builder.store_with(|identity| StoreLayer::new(store, identity).lease(LEASE)).build().unwrap()
    };
    let handle = layer.handle();
    // The token that a request goes out with.
    let api = service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers()["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
        ready(Ok::<_, Infallible>(Response::new(token)))
    });
    let service = layer.layer(api);
    let ask = move |renew| {
        if renew {
            handle.invalidate();
        }
        let request = Request::get("https://api.example.com/").body(Full::<Bytes>::default()).unwrap();
        let response = service.clone().oneshot(request);
        async move {
            let response = response.await.map_err(|error| (error.to_string(), error.is_retryable()))?;
            Ok(response.into_body())
        }
    };
    obey(ask, &pauses).await;
}

/// Does what it is told, line by line. `ask` makes one request, with a token that is new if need be; it answers with that
/// token, or why there is none and whether that may pass.
async fn obey<F>(ask: impl Fn(bool) -> F + Clone + Send + Sync + 'static, pauses: &Pauses)
where
    F: Future<Output = Result<String, (String, bool)>> + Send,
{
    println!("{MARK}ready");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "continue" {
            pauses.go.notify_one();
        }
        let (count, renew) = match line.split_once(' ') {
            Some(("requests", count)) => (count.parse::<usize>().unwrap(), false),
            Some(("renew", count)) => (count.parse::<usize>().unwrap(), true),
            _ => continue,
        };
        let ask = ask.clone();
        tokio::spawn(async move {
            let asking = stream::iter(0..count).map(|at| ask(renew && at == 0));
            let results: Vec<_> = asking.buffer_unordered(100).collect().await;
            let retryable = results.iter().filter(|result| matches!(result, Err((_, true)))).count();
            let tokens: BTreeSet<_> = results.iter().flatten().cloned().collect();
            let ok = results.iter().flatten().count();
            let tokens = tokens.into_iter().collect::<Vec<_>>().join(" ");
            println!("{MARK}done {ok} {} {retryable} {tokens}", results.len() - ok);
        });
    }
}

/// Stands still where it is told to, once.
#[derive(Clone)]
pub(crate) struct Pauses {
    pause: Arc<Mutex<String>>,
    go: Arc<Notify>,
}

impl Pauses {
    pub(crate) async fn pause(&self, here: &str) {
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

/// The operating system's clocks, and what a file adds to the time of day.
#[derive(Clone)]
pub(crate) struct FileClock(String);

impl Clock for FileClock {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let step: i64 = std::fs::read_to_string(&self.0).ok().and_then(|step| step.trim().parse().ok()).unwrap_or(0);
        let by = Duration::from_secs(step.unsigned_abs());
        Now { wall: if step < 0 { now.wall - by } else { now.wall + by }, ..now }
    }
}

/// A store that stands still once it has saved.
struct PausingStore<S> {
    store: S,
    pauses: Pauses,
}

impl<S: TokenStore> TokenStore for PausingStore<S> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.store.load(key).await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        self.store.save(key, value, expected, fence).await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        self.store.lease(key, duration).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        self.store.renew(key, fence, duration).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.pauses.pause("saved").await;
        self.store.release(key, fence).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.store.remove(key).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        self.store.changed(key, since).await;
    }
}

/// A client that stands still where it is told to.
#[derive(Clone)]
pub(crate) struct PausingClient {
    client: Client<HttpConnector, Full<Bytes>>,
    pauses: Pauses,
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
            this.pauses.pause("before").await;
            let (head, body) = this.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            this.pauses.pause("after").await;
            Ok(Response::from_parts(head, Full::from(body)))
        })
    }
}
