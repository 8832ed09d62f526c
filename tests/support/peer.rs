//! A peer that is scripted by bytes: what each of its connections does, how many are open, what was read and written there.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::Body;

/// What a connection does next. After the last step it is closed.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads a request over HTTP/1, its body included.
    Request,
    /// Reads a client's first request over HTTP/2, to the end of its stream.
    Http2Request,
    Write(Vec<u8>),
    /// A byte a second.
    Drip(Vec<u8>),
    /// The same again and again, until it is so many bytes, then nothing more.
    Flood(Vec<u8>, u64),
    /// The same every millisecond, for ever. (A client that is flooded with what it must throw away hardly looks at a clock.)
    Pour(Vec<u8>),
    /// Nothing more will be written; the connection stays.
    ShutdownWrite,
    /// The connection is not closed but reset, now.
    Reset,
    /// Nothing, until the client goes away.
    Hang,
}

/// What was seen of it.
#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<Vec<Step>>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    written: AtomicU64,
    requests: Mutex<Vec<Vec<u8>>>,
}

/// A peer on a thread of its own. Connections without a script are served by a good service.
pub(crate) struct Peer {
    addr: SocketAddr,
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Peer {
    /// HTTP/1 and HTTP/2 without encryption, or what `tls` offers.
    pub(crate) fn new<S>(service: S, tls: Option<TlsAcceptor>) -> Self
    where
        S: Service<Request<Incoming>, Response = http::Response<Body>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let open = Open::new(shared.clone());
                let script = shared.script.lock().unwrap().pop_front();
                let (service, tls) = (service.clone(), tls.clone());
                tokio::spawn(async move {
                    let _open = open;
                    let Some(stream) = handshake(stream, &script, tls).await else { return };
                    match script {
                        Some(script) => play(stream, script, &_open.0).await,
                        None => {
                            let service = TowerToHyperService::new(service);
                            let server = auto::Builder::new(TokioExecutor::new());
                            server.serve_connection(TokioIo::new(stream), service).await.ok();
                        }
                    }
                });
            }
        });
        Self { addr, seen, runtime: Some(runtime) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the next connection does that has no script yet.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.seen.script.lock().unwrap().push_back(steps.into_iter().collect());
    }

    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Of scripted connections what was written, in bytes.
    pub(crate) fn written(&self) -> u64 {
        self.seen.written.load(Ordering::SeqCst)
    }

    /// Whole requests that scripted connections have read, as they came.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until no more connections than these are open; how many there were in the end.
    pub(crate) async fn open_at_most(&self, most: usize) -> usize {
        // A bound for a broken build.
        for _ in 0..2000 {
            if self.open() <= most {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.open()
    }

    fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Open(Arc<Seen>);

impl Open {
    fn new(seen: Arc<Seen>) -> Self {
        seen.accepted.fetch_add(1, Ordering::SeqCst);
        seen.open.fetch_add(1, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn handshake(stream: TcpStream, script: &Option<Vec<Step>>, tls: Option<TlsAcceptor>) -> Option<Box<dyn Io>> {
    if script.iter().flatten().any(|step| matches!(step, Step::Reset)) {
        stream.set_zero_linger().ok()?;
    }
    match tls {
        Some(tls) => Some(Box::new(tls.accept(stream).await.ok()?)),
        None => Some(Box::new(stream)),
    }
}

async fn play(stream: Box<dyn Io>, script: Vec<Step>, seen: &Seen) {
    let (mut read, mut write) = tokio::io::split(stream);
    for step in script {
        let going = match step {
            Step::Request => note(http1_request(&mut read).await, seen),
            Step::Http2Request => note(http2_request(&mut read).await, seen),
            Step::ShutdownWrite => write.shutdown().await.is_ok(),
            Step::Reset => false,
            Step::Hang => {
                until_gone(&mut read).await;
                false
            }
            Step::Write(bytes) => say(&mut write, &bytes, seen).await,
            Step::Drip(bytes) => {
                let all = async {
                    for byte in bytes {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        if !say(&mut write, &[byte], seen).await {
                            break;
                        }
                    }
                    false
                };
                tokio::select! {
                    going = all => going,
                    () = until_gone(&mut read) => false,
                }
            }
            Step::Pour(bytes) => {
                let all = async {
                    while say(&mut write, &bytes, seen).await {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    false
                };
                tokio::select! {
                    going = all => going,
                    () = until_gone(&mut read) => false,
                }
            }
            Step::Flood(bytes, total) => {
                let all = async {
                    let mut left = total;
                    while left > 0 && say(&mut write, &bytes, seen).await {
                        left = left.saturating_sub(bytes.len() as u64);
                    }
                    left == 0
                };
                tokio::select! {
                    going = all => going,
                    () = until_gone(&mut read) => false,
                }
            }
        };
        if !going {
            break;
        }
    }
}

/// Whether it came whole.
fn note(request: Option<Vec<u8>>, seen: &Seen) -> bool {
    let Some(request) = request else { return false };
    seen.requests.lock().unwrap().push(request);
    true
}

async fn say(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], seen: &Seen) -> bool {
    let said = to.write_all(bytes).await.is_ok() && to.flush().await.is_ok();
    if said {
        seen.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
    said
}

async fn until_gone(from: &mut (impl AsyncRead + Unpin)) {
    tokio::io::copy(from, &mut tokio::io::sink()).await.ok();
}

async fn http1_request(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(from.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    from.read_exact(&mut body).await.ok()?;
    Some([request, body].concat())
}

const PREFACE: usize = 24;
const END_STREAM: u8 = 1;

async fn http2_request(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut request = vec![0; PREFACE];
    from.read_exact(&mut request).await.ok()?;
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        from.read_exact(&mut payload).await.ok()?;
        request.extend(head);
        request.extend(payload);
        let [_, _, _, kind, flags, ..] = head;
        // DATA or HEADERS.
        if kind <= 1 && flags & END_STREAM != 0 {
            return Some(request);
        }
    }
}

/// The frames of what `http2_request` read: kind, flags, stream and payload.
pub(crate) fn frames(request: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let (mut frames, mut rest) = (Vec::new(), &request[PREFACE..]);
    while let [a, b, c, kind, flags, d, e, f, g, after @ ..] = rest {
        let (payload, next) = after.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        frames.push((*kind, *flags, u32::from_be_bytes([*d, *e, *f, *g]), payload));
        rest = next;
    }
    frames
}

/// A frame (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One step after the other.
pub(crate) fn write(bytes: impl AsRef<[u8]>) -> Step {
    Step::Write(bytes.as_ref().to_vec())
}
