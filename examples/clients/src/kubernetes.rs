//! kube: a `kube::Client` over the layer, for a cluster behind an OAuth2 proxy.

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::{Body, ConfigExt};
use kube::{Api, Client, Config};
use tower::ServiceBuilder;
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError};

use crate::server::{Accepted, Server, json};

/// kube's bodies are buffers, but for those of a few calls that stream: `replay_with` says which can be sent twice.
pub fn client(cluster: &str, cfg: AuthConfig) -> Result<Client, BoxError> {
    let cluster = Config::new(cluster.parse()?);
    let http = HyperClient::builder(TokioExecutor::new()).build_http::<Body>();
    let service = ServiceBuilder::new()
        // kube names paths only. Outside, so that the check of origins sees where a request goes.
        .layer(cluster.base_uri_layer())
        .layer(AuthLayer::new(cfg).replay_with(Body::try_clone))
        .service(http);
    Ok(Client::new(service, "default"))
}

/// What the servers saw.
pub async fn run() -> Result<Vec<String>, BoxError> {
    let server = Server::start(cluster).await?;
    let config_maps: Api<ConfigMap> =
        Api::default_namespaced(client(&server.served.origin(), server.config().build()?)?);
    let mut settings = config_maps.get("settings").await?;

    server.auth.revoke_all();
    settings.data.get_or_insert_default().insert("colour".into(), "blue".into());
    let stored = config_maps.replace("settings", &Default::default(), &settings).await?;

    let mut lines = server.log();
    lines.push(format!("stored: {:?}", stored.data.unwrap_or_default()));
    lines.push(format!("token requests: {}", server.auth.token_requests()));
    Ok(lines)
}

/// The API server, which has one object.
fn cluster(request: Accepted) -> http::Response<bytes::Bytes> {
    match request.body.is_empty() {
        true => json(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","resourceVersion":"1"}}"#),
        false => json(request.body),
    }
}
