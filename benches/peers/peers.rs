//! A request through other crates that hold tokens, each with its token cached, beside ours and the floor.
//!
//! Two of them are tower layers. For the others the service around them is the one that their users have to write. None
//! of them checks the origin of a request; only the second row of cf-gears keeps a copy for a second sending.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on says so")]

mod aws_peer;
mod huskarl_peer;
#[path = "../support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use google_cloud_auth::credentials::{CacheableResource, user_account};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use middle::{Authorizer, BasicClientCredentialAuthorizer};
use support::baselines::{Inner, TENANT, TENANT_HEADER, access_token};
use support::cases::{self, BARE, Case, cases, persistent};
use support::figures::Figures;
use support::ours::background;
use support::paired::time;
use support::requests::{Body, Kind};
use toolkit_auth::oauth2::{
    BearerAuthAutoRefreshLayer, BearerAuthLayer, OAuthClientConfig, SecretString, TokenProvider,
};
use toolkit_http::{HttpClientConfig, HttpError};
use tower::{Layer, Service, ServiceExt};
use tower_http::set_header::SetRequestHeader;
use url::Url;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 31 } else { 301 };
    let runtime = background();
    let _guard = runtime.enter();
    let url = token_endpoint();
    let mut figures = Figures::of("peers");
    for kind in [Kind::P8, Kind::P3] {
        let mut all = cases(&runtime, kind);
        all.retain(|case| !case.name.starts_with("oneshot"));
        all.extend(runtime.block_on(peers(&url, kind)));
        let timings = time(&mut all, rounds);
        let bare = timings.iter().find(|timing| timing.name == BARE).expect("the bare service is there");
        for timing in &timings {
            let here = [cases::BARE, cases::FLOOR, cases::NEVER, cases::REPLAY, cases::NAIVE, cases::NAIVE_RETRY];
            let here = if here.contains(&timing.name) || kind != Kind::P8 {
                format!("here: {} ", kind.name())
            } else {
                String::new()
            };
            figures.put(format!("{here}{}, over bare", timing.name), timing.over(bare));
        }
    }
}

async fn peers(url: &Url, kind: Kind) -> Vec<Case> {
    let inner = Inner::new(0);
    let config = || OAuthClientConfig {
        token_endpoint: Some(url.clone()),
        client_id: "id".into(),
        client_secret: SecretString::new("secret"),
        http_config: Some(HttpClientConfig::for_testing()),
        ..OAuthClientConfig::default()
    };
    let provider = TokenProvider::new(config()).unwrap();
    provider.get().await.unwrap();
    let fallible = inner.clone().map_err((|never: Infallible| match never {}) as fn(Infallible) -> HttpError);
    let tenant = HeaderValue::from_static(TENANT);
    let tenanted = SetRequestHeader::overriding(fallible, TENANT_HEADER.clone(), tenant.clone());
    let plain = BearerAuthLayer::new(provider.clone()).layer(tenanted.clone());
    let refreshing = BearerAuthAutoRefreshLayer::new(provider).layer(tenanted);

    let authorizer =
        Arc::new(BasicClientCredentialAuthorizer::basic_builder("id", "secret", url.clone()).build().await.unwrap());
    let middle = Glue {
        inner: inner.clone(),
        value: move || {
            let value = authorizer.authorization_header().unwrap();
            std::future::ready(HeaderValue::clone(&value))
        },
    };

    let account = serde_json::json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "r"
    });
    let credentials = user_account::Builder::new(account).with_token_uri(url.as_str()).build().unwrap();
    credentials.headers(http::Extensions::new()).await.unwrap();
    let husky = huskarl_peer::Authorized { inner: inner.clone(), authorizer: huskarl_peer::authorizer().await };
    let cached = aws_peer::cached().await;
    let aws = Glue {
        inner: inner.clone(),
        value: move || {
            let cached = cached.clone();
            async move { cached.header().await }
        },
    };
    let google = Glue {
        inner,
        value: move || {
            let credentials = credentials.clone();
            async move {
                match credentials.headers(http::Extensions::new()).await.unwrap() {
                    CacheableResource::New { data, .. } => data[AUTHORIZATION].clone(),
                    CacheableResource::NotModified => unreachable!(),
                }
            }
        },
    };
    vec![
        persistent("cf-gears-toolkit-auth", kind, plain),
        persistent("cf-gears-toolkit-auth, resends", kind, refreshing),
        persistent("middle", kind, middle),
        persistent("huskarl", kind, husky),
        persistent("aws-smithy-runtime, lazy identity cache", kind, aws),
        persistent("google-cloud-auth", kind, google),
    ]
}

/// The service that one has to write around a crate that only has tokens.
#[derive(Clone)]
struct Glue<S, F> {
    inner: S,
    value: F,
}

impl<S, F, V> Service<Request<Body>> for Glue<S, F>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    F: Fn() -> V,
    V: Future<Output = HeaderValue> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let value = (self.value)();
        Box::pin(async move {
            request.headers_mut().insert(AUTHORIZATION, value.await);
            request.headers_mut().insert(&TENANT_HEADER, HeaderValue::from_static(TENANT));
            inner.call(request).await
        })
    }
}

/// Answers every request with a token, as long as the process runs.
fn token_endpoint() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body =
                format!("{{\"access_token\":\"{}\",\"token_type\":\"Bearer\",\"expires_in\":36000}}", access_token());
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    format!("http://127.0.0.1:{port}/token").parse().unwrap()
}
