//! A generated client: OpenAPI Generator's, which takes a `reqwest_middleware::ClientWithMiddleware`.

use std::pin::Pin;

use http::Extensions;
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, Tenant, TenantId};

use crate::apis::configuration::Configuration;
use crate::apis::orders_api;
use crate::models::Order;
use crate::server::{Accepted, Server, json};

/// For one tenant: a generated client has no place to say for whom each call is.
pub fn client(base: &str, layer: AuthLayer, tenant: TenantId) -> Result<Configuration, BoxError> {
    let http = reqwest::Client::builder().redirect(Policy::none()).build()?;
    let client = ClientBuilder::new(http).with(ForTenant(tenant)).with(layer).build();
    Ok(Configuration { base_path: base.to_owned(), client, ..Configuration::default() })
}

/// Says for whom each request is.
struct ForTenant(TenantId);

impl Middleware for ForTenant {
    fn handle<'a, 'b, 'c, 'f>(
        &'a self,
        request: reqwest::Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<reqwest::Response>> + Send + 'f>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        extensions.insert(self.0.clone());
        next.run(request, extensions)
    }
}

/// What the servers saw.
pub async fn run() -> Result<Vec<String>, BoxError> {
    let server = Server::start(orders).await?;
    let cfg: AuthConfig = server.config().tenant(Tenant::header("Tenant-Id").per_request()).build()?;
    // One layer for all of them: they share its token.
    let layer = AuthLayer::new(cfg);
    let mut lines = Vec::new();
    for practice in ["north", "south"] {
        let client = client(&server.served.origin(), layer.clone(), TenantId::new(practice)?)?;
        let order = orders_api::create_order(&client, Order::new("7".into(), format!("a lamp for {practice}"))).await?;
        lines.push(format!("created {}: {}", order.id, order.item));
        server.auth.revoke_all();
        let order = orders_api::get_order(&client, "7").await?;
        lines.push(format!("got {}: {}", order.id, order.item));
    }
    lines.extend(server.log());
    lines.push(format!("token requests: {}", server.auth.token_requests()));
    Ok(lines)
}

/// The API: what is created comes back; what is asked for says for whom it was.
fn orders(request: Accepted) -> http::Response<bytes::Bytes> {
    let tenant = request.headers.get("tenant-id").and_then(|tenant| tenant.to_str().ok()).unwrap_or("nobody");
    match request.body.is_empty() {
        true => json(format!(r#"{{"id":"7","item":"of {tenant}"}}"#)),
        false => json(request.body),
    }
}
