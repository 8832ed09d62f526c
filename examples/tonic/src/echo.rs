//! A gRPC service as `tonic-build` would generate it for three methods, with bytes for messages: no `protoc` needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::StdError;
use tonic::{Request, Response, Status};
use tower::service_fn;
use tower_oauth2_client::test_util::AuthServer;

/// The client, generic over the channel below it as generated ones are.
#[derive(Clone)]
pub(crate) struct EchoClient<T>(Grpc<T>);

impl<T> EchoClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    pub(crate) fn new(inner: T) -> Self {
        Self(Grpc::new(inner))
    }

    pub(crate) fn with_origin(inner: T, origin: http::Uri) -> Self {
        Self(Grpc::with_origin(inner, origin))
    }

    /// One message there, one back.
    pub(crate) async fn unary(&mut self, message: impl Into<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0.unary(Request::new(message.into()), path("/echo.Echo/Unary"), BytesCodec).await
    }

    /// Many messages there, one back.
    pub(crate) async fn collect(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0.client_streaming(Request::new(messages), path("/echo.Echo/Collect"), BytesCodec).await
    }

    /// One message there, many back.
    pub(crate) async fn repeat(&mut self, message: impl Into<Bytes>) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.0.server_streaming(Request::new(message.into()), path("/echo.Echo/Repeat"), BytesCodec).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))
    }
}

/// The server. It gives back what it gets, if the token is alive:
///
/// - without one, `Unary` and `Collect` answer status 16 in headers alone ("trailers-only");
/// - `Repeat` gives the message back first and then status 16 in real trailers;
/// - the message `on_forbidden` gets status 7.
#[derive(Clone)]
pub(crate) struct EchoServer {
    auth: AuthServer,
    calls: Arc<AtomicUsize>,
}

impl EchoServer {
    pub(crate) fn new(auth: &AuthServer) -> Self {
        Self { auth: auth.clone(), calls: Arc::default() }
    }

    /// How many calls arrived.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) async fn answer<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let bearer =
            request.headers().get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = bearer.filter(|token| self.auth.is_live(token)).map(drop).ok_or_else(refusal);
        let mut server = tonic::server::Grpc::new(BytesCodec);
        match request.uri().path() {
            "/echo.Echo/Unary" => server.unary(service_fn(|request| echo(token.clone(), request)), request).await,
            "/echo.Echo/Collect" => {
                server.client_streaming(service_fn(|request| collect(token.clone(), request)), request).await
            }
            _ => server.server_streaming(service_fn(|request| repeat(token.clone(), request)), request).await,
        }
    }
}

type Checked = Result<(), Status>;

fn refusal() -> Status {
    Status::unauthenticated("the token is not valid")
}

async fn echo(token: Checked, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    token?;
    if request.get_ref() == "forbidden" {
        return Err(Status::permission_denied("not for you"));
    }
    Ok(Response::new(request.into_inner()))
}

async fn collect(token: Checked, request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    token?;
    let (mut messages, mut all) = (request.into_inner(), Vec::new());
    while let Some(message) = messages.message().await? {
        all.extend_from_slice(&message);
    }
    Ok(Response::new(all.into()))
}

async fn repeat(
    token: Checked,
    request: Request<Bytes>,
) -> Result<Response<BoxStream<'static, Result<Bytes, Status>>>, Status> {
    let message = request.into_inner();
    let last = token.map(|()| message.clone());
    Ok(Response::new(stream::iter([Ok(message), last]).boxed()))
}

fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

/// Messages that are just bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
