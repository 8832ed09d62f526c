//! A request through other crates that hold tokens, each with its token cached, beside ours and the floor.
//!
//! Two of them are tower layers. For the others the service around them is the one that their users have to write. None
//! of them checks the origin of a request; only the second row of cf-gears keeps a copy for a second sending.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on says so")]

mod aws_peer;
mod glue;
mod huskarl_peer;
mod middle_peer;
#[path = "../support/mod.rs"]
mod support;
mod token_endpoint;

use std::convert::Infallible;

use glue::Glue;
use google_cloud_auth::credentials::{CacheableResource, user_account};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use support::baselines::{Inner, TENANT, TENANT_HEADER};
use support::cases::{BARE, Case, cases, persistent};
use support::figures::Figures;
use support::ours::background;
use support::paired::time;
use support::requests::Kind;
use toolkit_auth::oauth2::{
    BearerAuthAutoRefreshLayer, BearerAuthLayer, OAuthClientConfig, SecretString, TokenProvider,
};
use toolkit_http::{HttpClientConfig, HttpError};
use tower::{Layer, ServiceExt};
use tower_http::set_header::SetRequestHeader;
use url::Url;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 31 } else { 301 };
    let runtime = background();
    let _guard = runtime.enter();
    let url = token_endpoint::start();
    let mut figures = Figures::of("peers");
    for kind in [Kind::P8, Kind::P3] {
        let mut all = cases(&runtime, kind);
        all.retain(|case| !case.name.starts_with("oneshot"));
        let here: Vec<&str> = all.iter().map(|case| case.name).collect();
        all.extend(runtime.block_on(peers(&url, kind)));
        let timings = time(&mut all, rounds);
        let bare = timings.iter().find(|timing| timing.name == BARE).expect("the bare service is there");
        for timing in &timings {
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

    let middle = Glue { inner: inner.clone(), value: middle_peer::value(url.clone()).await };

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
