//! Instance metadata as a `TokenSource`: the access token of a Google instance's service account.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_oauth2_client::test_util::serve;
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, Token, TokenError, TokenRequest, TokenSource};

/// Where the metadata server is, outside of this example: its address is link-local and needs no TLS.
#[allow(dead_code, reason = "the example talks to a fake")]
pub(crate) const ORIGIN: &str = "http://metadata.google.internal";

/// Asks the metadata server (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).
pub(crate) struct MetadataServer {
    origin: String,
    http: reqwest::Client,
}

impl MetadataServer {
    pub(crate) fn new(origin: impl Into<String>) -> reqwest::Result<Self> {
        // Neither a proxy nor a redirect is on the way to an address of this machine's.
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { origin: origin.into(), http })
    }
}

impl TokenSource for MetadataServer {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let scopes = request.scopes.map(|scopes| format!("?scopes={}", scopes.as_str().replace(' ', ",")));
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let url = format!("{}{path}{}", self.origin, scopes.unwrap_or_default());
        // The header says that no link made the program ask; the answer has it, too, so that nobody else's is
        // taken for a token.
        let request = self.http.get(url).header("metadata-flavor", "Google");
        let response = request.send().await.map_err(TokenError::transient)?;
        if response.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return Err(TokenError::transient("this is no metadata server"));
        }
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(TokenError::permanent("the instance has no service account")),
            status => return Err(TokenError::transient(format!("the metadata server answered {status}"))),
        }
        let body = response.bytes().await.map_err(TokenError::transient)?;
        // What the parser says would quote the token.
        let answer: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| TokenError::transient("the metadata are no JSON"))?;
        let token = answer["access_token"].as_str().ok_or_else(|| TokenError::transient("there is no token"))?;
        let token = Token::bearer(token).map_err(TokenError::permanent)?;
        Ok(match answer["expires_in"].as_u64() {
            Some(seconds) => token.with_expires_in(Duration::from_secs(seconds)),
            None => token,
        })
    }
}

/// Two requests to an API with one token of a fake metadata server.
pub(crate) async fn run() -> Result<String, Box<dyn Error>> {
    let server = serve(service_fn(fake)).await?;
    let cfg = AuthConfig::external().origin("https://storage.googleapis.com").build()?;
    let layer = AuthLayer::with_source(cfg, MetadataServer::new(server.origin())?);
    let api = ServiceBuilder::new().layer(layer).service(service_fn(|request: Request<Full<Bytes>>| async move {
        let token = request.headers()["authorization"].to_str().unwrap_or_default().to_owned();
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(token))))
    }));
    let get = || Request::get("https://storage.googleapis.com/storage/v1/b").body(Full::default());
    let first = api.clone().oneshot(get()?).await?.into_body().collect().await?.to_bytes();
    let second = api.oneshot(get()?).await?.into_body().collect().await?.to_bytes();
    if first != second {
        return Err("two tokens were asked for".into());
    }
    Ok(format!("sent {}", String::from_utf8_lossy(&first)))
}

/// A metadata server as the documentation describes it.
pub(crate) async fn fake<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
    let response = Response::builder().header("metadata-flavor", "Google");
    if request.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return Ok(response.status(StatusCode::FORBIDDEN).body(Full::default())?);
    }
    if request.uri().path() != "/computeMetadata/v1/instance/service-accounts/default/token" {
        return Ok(response.status(StatusCode::NOT_FOUND).body(Full::default())?);
    }
    let token = json!({"access_token": "ya29.instance", "expires_in": 3599, "token_type": "Bearer"});
    Ok(response.header("content-type", "application/json").body(Full::new(Bytes::from(token.to_string())))?)
}
