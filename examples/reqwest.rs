//! reqwest: the same layer over `reqwest::Client`, and a tenant for each request. Runs offline:
//! `cargo run --example reqwest`.

use std::error::Error;

use reqwest::{Method, Request, redirect};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both, serve};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth, Tenant, TenantId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // An API that wants to know the clinic in a header, besides a token.
    let auth_server = AuthServer::new(TestClock::new()).client("my-client", "my-secret");
    let api = Api::new(&auth_server).tenant_header("clinic-id");
    let server = serve(both(&auth_server, &api)).await?;

    let cfg = AuthConfig::client_credentials(server.uri("/oauth2/token"), ClientAuth::basic("my-client", "my-secret"))
        .origin(server.origin())
        .tenant(Tenant::header("Clinic-Id").per_request())
        .build()?;

    // No redirects below the layer: reqwest would follow them with the tenant header still on.
    let http = reqwest::Client::builder().redirect(redirect::Policy::none()).build()?;
    let client = ServiceBuilder::new().layer(AuthLayer::new(cfg)).service(http);

    for clinic in ["north", "south"] {
        // reqwest's requests carry no extensions, so a clone of the service carries the tenant. It is cheap,
        // and shares the token.
        let client = client.for_tenant(&TenantId::new(clinic)?);
        let mut request = Request::new(Method::POST, server.uri("/appointments").parse()?);
        *request.body_mut() = Some(format!("an appointment at the {clinic} clinic").into());

        let response = client.oneshot(request).await?;
        let resent = response.extensions().get::<AuthOutcome>().is_some_and(|outcome| outcome.resent);
        println!("{}: {} (sent twice: {resent})", response.status(), response.text().await?);

        println!("  (the authorization server revokes the token)");
        auth_server.revoke_all();
    }

    // Forgetting the tenant is an error, never somebody else's data.
    let request = Request::new(Method::GET, server.uri("/appointments").parse()?);
    if let Err(error) = client.oneshot(request).await {
        println!("error: {error}");
    }
    println!("the authorization server saw {} token requests", auth_server.token_requests());
    Ok(())
}
