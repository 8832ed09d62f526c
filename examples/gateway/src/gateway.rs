//! The gateway: an axum service around two clients of one layer. A test drives it, too.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, serve};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthLayer, ClientAuth, OnBehalfOf, SubjectToken, TokenErrorKind, TokenParams,
};

/// What the handlers share. Cloning it is cheap, and all clones share their tokens.
#[derive(Clone)]
struct Gateway {
    client: Auth<reqwest::Client>,
    orders: String,
    stock: String,
}

/// `GET /summary`: something of both APIs, with what the caller may see.
async fn summary(State(gateway): State<Gateway>, headers: HeaderMap) -> Result<String, StatusCode> {
    // In production the token is validated first (signature, issuer, audience, expiry): what is put in here is sent to the
    // authorization server, and takes the place of a partition.
    let caller = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let subject = SubjectToken::access_token(caller.ok_or(StatusCode::UNAUTHORIZED)?);
    let caller = TokenParams::new().subject(subject.map_err(|_| StatusCode::UNAUTHORIZED)?);
    let (orders, stock) = tokio::try_join!(
        gateway.get(&gateway.orders, "orders", caller.clone()),
        gateway.get(&gateway.stock, "stock", caller),
    )?;
    Ok(format!("orders: {orders}, stock: {stock}"))
}

impl Gateway {
    /// `reqwest::Request` has no extensions, so that the parameters go with a clone of the client.
    async fn get(&self, url: &str, audience: &str, caller: TokenParams) -> Result<u16, StatusCode> {
        let params = caller.audience(audience).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let url = url.parse().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let request = reqwest::Request::new(reqwest::Method::GET, url);
        match self.client.for_params(&params).oneshot(request).await {
            Ok(response) => Ok(response.status().as_u16()),
            // The caller's own token is not accepted any more: theirs to renew.
            Err(error) if error.token().is_some_and(|error| error.kind() == TokenErrorKind::SignInAgain) => {
                Err(StatusCode::UNAUTHORIZED)
            }
            Err(error) => {
                eprintln!("{audience}: {error}");
                Err(StatusCode::BAD_GATEWAY)
            }
        }
    }
}

/// Two callers, three calls. Gives the answers, and the token exchanges that the authorization server saw.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    // The authorization server and both APIs, on this machine.
    let auth = AuthServer::new(TestClock::new()).client("gateway", "secret");
    let (auth_served, api) = (serve(auth.clone()).await?, serve(Api::new(&auth)).await?);

    let client_auth = ClientAuth::basic("gateway", "secret");
    let cfg = AuthConfig::on_behalf_of(auth_served.uri("/token"), client_auth, OnBehalfOf::token_exchange())
        .origin(api.origin())
        .max_partitions(10_000) // callers at a time, times two APIs
        .build()?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let layer = AuthLayer::new(cfg);
    // Better found out when the program starts than when a token is revoked.
    assert!(layer.can_replay::<reqwest::Body>(), "a rejected request could not be sent again");
    let gateway = Gateway { client: layer.layer(http), orders: api.uri("/orders"), stock: api.uri("/stock") };
    let app = Router::new().route("/summary", get(summary)).with_state(gateway);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}/summary", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let browser = reqwest::Client::builder().no_proxy().build()?;
    let mut lines = Vec::new();
    for caller in [Some("anna"), Some("berta"), Some("anna"), None] {
        let request = browser.get(&url);
        let request = match caller {
            Some(caller) => request.bearer_auth(format!("token-of-{caller}")),
            None => request,
        };
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        lines.push(format!("{}: {} {text}", caller.unwrap_or("nobody"), status.as_u16()).trim_end().to_owned());
    }
    server.abort();
    let mut exchanges: Vec<String> = auth
        .requests()
        .iter()
        .map(|request| {
            let param = |name| request.param(name).unwrap_or_default();
            format!("exchanged {} for {}", param("subject_token"), param("audience"))
        })
        .collect();
    exchanges.sort();
    lines.extend(exchanges);
    Ok(lines)
}
