//! `serve`: a service on loopback, over HTTP/1.1 and HTTP/2.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tower_service::Service;

use super::body::{self, Body};
use crate::types::BoxError;

/// Serves `service` on a free port of 127.0.0.1, plain HTTP/1.1 and HTTP/2 with prior knowledge, on the current tokio
/// runtime, until [`Served`] is dropped.
///
/// A service error closes the connection (HTTP/1.1) or resets the stream (HTTP/2). Leave tokio's clock running: a paused
/// one skips ahead while it waits for a socket.
///
/// # Errors
///
/// If no port can be bound.
///
/// ```
/// use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both, serve};
///
/// # tokio_test::block_on(async {
/// let auth = AuthServer::vip(TestClock::new());
/// let api = Api::vip(&auth);
/// let served = serve(both(&auth, &api)).await.unwrap();
/// assert!(served.uri("/oauth/token").starts_with("http://127.0.0.1:"));
/// # });
/// ```
pub async fn serve<S, B>(service: S) -> io::Result<Served>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    let connections = Arc::default();
    let task = tokio::spawn(accept(listener, erase(service), Arc::clone(&connections)));
    Ok(Served { addr, connections, task })
}

/// A service on loopback; dropping this stops it and breaks its connections.
#[derive(Debug)]
pub struct Served {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Served {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, without a slash at its end.
    pub fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The URI of a path, which begins with a slash.
    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service without its types.
type Respond = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Answered> + Send>> + Send + Sync>;
type Answered = Result<Response<Body>, BoxError>;

fn erase<S, B>(service: S) -> Respond
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + 'static,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(body::erase))
        })
    })
}

/// Owns the connections' tasks, so that aborting this one aborts them all.
async fn accept(listener: TcpListener, respond: Respond, accepted: Arc<AtomicUsize>) {
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        while connections.try_join_next().is_some() {}
        let respond = respond.clone();
        let respond = service_fn(move |request| respond(request));
        connections.spawn(server.serve_connection(TokioIo::new(stream), respond).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use http::Version;
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;

    use super::super::{Api, AuthServer, Fault, TestClock, both};
    use super::*;

    fn token_request(served: &Served) -> Request<Full<Bytes>> {
        let request = Request::post(served.uri("/oauth/token")).header("content-type", "application/json");
        request.body(Full::from(r#"{"client_id":"id","client_secret":"s"}"#)).unwrap()
    }

    #[tokio::test]
    async fn both_versions_of_http_reach_both_services() {
        let auth = AuthServer::vip(TestClock::new());
        let api = Api::vip(&auth);
        let served = serve(both(&auth, &api)).await.unwrap();
        assert_eq!(served.origin(), format!("http://127.0.0.1:{}", served.addr().port()));
        for (h2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
            let client = Client::builder(TokioExecutor::new()).http2_only(h2).build_http();
            assert_eq!(client.request(token_request(&served)).await.unwrap().status(), 200);
            let get = Request::get(served.uri("/items?page=1"))
                .header("tenant-id", "7c1e")
                .header("accept", "application/json");
            let get = get.header("authorization", format!("Bearer {}", auth.last_token().unwrap()));
            let response = client.request(get.body(Full::default()).unwrap()).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, version));
            response.into_body().collect().await.unwrap();
        }
        assert_eq!((auth.token_requests(), api.hits()), (2, 2));
    }

    #[tokio::test]
    async fn a_dropped_connection_is_an_error_for_the_client_only() {
        let auth = AuthServer::vip(TestClock::new());
        auth.script([Fault::Drop, Fault::DropInBody]);
        let served = serve(auth).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        client.request(token_request(&served)).await.unwrap_err();
        let cut = client.request(token_request(&served)).await.unwrap();
        cut.into_body().collect().await.unwrap_err();
        assert_eq!(client.request(token_request(&served)).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn dropping_it_breaks_what_hangs() {
        let auth = AuthServer::vip(TestClock::new());
        auth.always(Fault::HangInBody);
        let served = serve(auth).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let hanging = client.request(token_request(&served)).await.unwrap();
        let request = token_request(&served);
        drop(served);
        hanging.into_body().collect().await.unwrap_err();
        client.request(request).await.unwrap_err();
    }
}
