//! P8 over loopback, by a real client to a server on another thread: what a request takes of the client's thread.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt, service_fn};

use super::callgrind::{asked, count_asked, missing};
use super::cases::{BARE, Case, FLOOR};
use super::figures::Figures;
use super::paired::{median, time_with};
use super::requests::{Body, Kind};

/// So many are counted by callgrind.
const REQUESTS: u64 = 1000;
/// Connections are made, and their buffers have grown.
const WARM_UP: u64 = 100;
const SLICE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Version {
    H1,
    H2,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Version::H1 => "h1",
            Version::H2 => "h2",
        }
    }
}

/// Where the server is, and the runtime of the clients.
pub(crate) struct Ends {
    pub(crate) runtime: Rc<Runtime>,
    addr: SocketAddr,
    version: Version,
}

impl Ends {
    fn new(version: Version, addr: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime: Rc::new(runtime), addr, version }
    }

    /// It connects to our server wherever a request goes, so that the requests are those of the other benches.
    pub(crate) fn client(&self) -> Client<impl Connect + Clone + Send + Sync + 'static + use<>, Body> {
        let addr = self.addr;
        let connect = service_fn(move |_: Uri| {
            Box::pin(async move {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            })
        });
        Client::builder(TokioExecutor::new()).http2_only(self.version == Version::H2).build(connect)
    }

    pub(crate) fn case<S>(&self, name: &'static str, mut service: S) -> Case
    where
        S: Service<Request<Body>, Response = Response<Incoming>> + 'static,
        S::Error: Debug,
    {
        let runtime = self.runtime.clone();
        runtime.block_on(send_all(&mut service, WARM_UP));
        Case::new(name, Kind::P8, move |requests| measured_end_to_end(&runtime, &mut service, requests))
    }
}

/// The names `measured_*` are known to the instruction counter, which counts on this thread only.
#[inline(never)]
fn measured_end_to_end<S>(runtime: &Runtime, service: &mut S, requests: u64)
where
    S: Service<Request<Body>, Response = Response<Incoming>>,
    S::Error: Debug,
{
    runtime.block_on(send_all(service, requests));
}

async fn send_all<S>(service: &mut S, requests: u64)
where
    S: Service<Request<Body>, Response = Response<Incoming>>,
    S::Error: Debug,
{
    for _ in 0..requests {
        let response = service.ready().await.unwrap().call(Kind::P8.request()).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
    }
}

/// The whole of a bench: instructions and CPU time of each stack, and the part of it that a stack takes over FLOOR and over
/// the bare client.
pub(crate) fn measure(bench: &str, versions: &[Version], server: SocketAddr, stacks: impl Fn(&Ends) -> Vec<Case>) {
    if let Some(asked) = asked() {
        let (version, name) = asked.split_once(' ').unwrap();
        let version = *versions.iter().find(|v| v.name() == version).unwrap();
        let mut stacks = stacks(&Ends::new(version, server));
        stacks.iter_mut().find(|case| case.name == name).unwrap().run(REQUESTS);
        return;
    }
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 31 } else { 301 };
    let mut figures = Figures::of(bench);
    for version in versions {
        let mut stacks = stacks(&Ends::new(*version, server));
        let version = version.name();
        match missing() {
            Some(why) => println!("{version}, instructions: {why}"),
            None => {
                // The threads' order decides how often the client is woken: of three runs the one in the middle.
                let of =
                    |name| median((0..3).map(|_| count_asked(&format!("{version} {name}"), REQUESTS).all).collect());
                let counted: HashMap<_, _> = stacks.iter().map(|case| (case.name, of(case.name))).collect();
                for case in &stacks {
                    let over = |other: &str| counted[case.name] - counted[other];
                    put(&mut figures, &format!("{version} {}, instructions", case.name), counted[case.name], over);
                }
            }
        }
        if cpu().is_none() {
            println!("{version}, CPU time: not run: there is no schedstat");
            continue;
        }
        let timings = time_with(&mut stacks, rounds, SLICE, || cpu().unwrap());
        for timing in &timings {
            let over = |other: &str| timing.over(timings.iter().find(|timing| timing.name == other).unwrap());
            put(&mut figures, &format!("{version} {}, ns of CPU", timing.name), timing.median, over);
        }
    }
}

fn put(figures: &mut Figures, name: &str, all: f64, over: impl Fn(&'static str) -> f64) {
    figures.put(name, all);
    for other in [FLOOR, BARE] {
        figures.put(format!("{name} over {other}"), over(other));
        figures.put(format!("{name} over {other}, percent of a request"), 100.0 * over(other) / all);
    }
}

/// What this thread has taken, where the kernel tells.
fn cpu() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
