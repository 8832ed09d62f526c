//! One process of the fleet. All there is to sharing a token is in `client`.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth2_client::store::{EncryptionKeys, RedisStore, StoreLayer};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};

use crate::fleet::{LEASE, REQUESTS};

/// What a process is told: address of Redis (empty: none), token URL, prefix.
pub(crate) const ENVIRONMENT: &str = "FLEET_MEMBER";

/// Says which process a token request came from.
pub(crate) const PROCESS_HEADER: &str = "x-process";

/// In production: from a secret manager, made by `openssl rand -base64 32`.
const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";

pub(crate) async fn run(told: &str) -> Result<(), BoxError> {
    let [redis, token_url, prefix] = *told.split(' ').collect::<Vec<_>>() else { return Err("told nonsense".into()) };
    let client = client(redis, token_url, prefix)?;
    // An API that takes any token; the authorization server is what is watched here.
    let api = client.layer(service_fn(|_: Request<Full<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    }));

    println!("ready");
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        let request = || Request::get("https://api.example.com/").body(Full::default());
        let responses = stream::iter(0..REQUESTS)
            .map(|_| async { api.clone().oneshot(request()?).await.map_err(BoxError::from) })
            .buffer_unordered(100);
        let answered = responses.filter(|response| ready(response.is_ok())).count().await;
        println!("{answered}");
    }
    Ok(())
}

fn client(redis: &str, token_url: &str, prefix: &str) -> Result<AuthLayer, BoxError> {
    let config = AuthConfig::client_credentials(token_url, ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .build()?;
    let process = HeaderValue::from(std::process::id());
    let http = ServiceBuilder::new()
        .map_request(move |mut request: Request<Full<Bytes>>| {
            request.headers_mut().insert(PROCESS_HEADER, process.clone());
            request
        })
        .service(Client::builder(TokioExecutor::new()).build_http());
    if redis.is_empty() {
        return Ok(AuthLayer::builder(config).http_client(http).build()?);
    }

    let store = RedisStore::builder(redis).prefix(prefix).build(EncryptionKeys::from_base64(KEY)?)?;
    // `.store(store)` does it, where the defaults are good enough: here nobody wants to wait ten seconds for the end of a
    // dead process' lease.
    Ok(AuthLayer::builder(config)
        .http_client(http)
        .store_with(|identity| StoreLayer::new(store, identity).lease(LEASE))
        .build()?)
}
