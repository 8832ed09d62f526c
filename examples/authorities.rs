//! Which servers tokens come from, offline, against servers in this program: a server of each tenant's own, two servers one
//! after the other, a sign-in that is given nothing but an issuer, and a client that is known by its certificate:
//! `cargo run --features jwt-aws-lc-rs --example authorities`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthLayer, Authority, AuthorizationCode, BoxError, Certificate, ClientAuth, Directory, Discovery,
    IdentityAssertion, SigningAlgorithm, SigningKey, Tenant, TenantId, TokenExchange, providers,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    a_server_for_each_tenant().await?;
    two_servers_one_after_the_other().await?;
    an_issuer_is_enough().await?;
    known_by_a_certificate().await?;
    Ok(())
}

/// An HTTP client that reaches the servers of this program by their hosts.
fn network<'a>(
    servers: impl IntoIterator<Item = (&'a str, AuthServer)>,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let servers = servers.into_iter().map(|(host, server)| (host.to_owned(), server));
    let servers = Arc::new(servers.collect::<HashMap<_, _>>());
    service_fn(move |request: Request<Full<Bytes>>| {
        let server = request.uri().host().and_then(|host| servers.get(host)).cloned();
        async move {
            match server {
                Some(server) => server.oneshot(request).await,
                None => Err(BoxError::from("there is no such host")),
            }
        }
    })
}

/// Tenants with authorization servers and credentials of their own, in a directory that changes while the program runs.
async fn a_server_for_each_tenant() -> Result<(), Box<dyn Error>> {
    let server = |id: &str, secret: &str| AuthServer::new(TestClock::new()).client(id, secret);
    let (north, south, west) = (server("app", "of-north"), server("application", "of-south"), server("app", "of-west"));
    west.always(Fault::Status(503));
    let token_url = |tenant: &str| format!("https://{tenant}.example/token");
    let of_north = Authority::new(token_url("north"), ClientAuth::basic("app", "of-north"));
    let of_south = Authority::new(token_url("south"), ClientAuth::body("application", "of-south")).scopes(["read"]);
    let of_west = Authority::new(token_url("west"), ClientAuth::basic("app", "of-west"));
    let id = |tenant: &str| TenantId::new(tenant);
    let directory = Directory::from_map([(id("north")?, of_north.clone()), (id("west")?, of_west.clone())]);

    let cfg = AuthConfig::per_tenant(directory.clone())
        .tenant(Tenant::without_header().per_tenant_tokens())
        .origin("https://api.example.com")
        .build()?;
    let http = network([("north.example", north.clone()), ("south.example", south.clone()), ("west.example", west)]);
    let api = service_fn(|request: Request<Full<Bytes>>| async move { Ok::<_, BoxError>(Response::new(request)) });
    let layer = AuthLayer::builder(cfg).http_client(http).build()?;
    let client = layer.layer(api);
    let call = async |tenant: &str| {
        let mut request = Request::get("https://api.example.com/items").body(Full::<Bytes>::default())?;
        request.extensions_mut().insert(TenantId::new(tenant)?);
        let said = match client.clone().oneshot(request).await {
            Ok(_) => "a token".to_owned(),
            Err(error) => error.token().map_or_else(|| error.to_string(), |error| format!("{:?}", error.kind())),
        };
        println!("tenant {tenant}: {said}");
        Ok::<_, Box<dyn Error>>(())
    };
    for tenant in ["north", "west", "north", "south"] {
        call(tenant).await?;
    }
    println!("(south is added, and what was remembered of it ends)");
    directory.replace([(id("north")?, of_north), (id("south")?, of_south), (id("west")?, of_west)]);
    layer.handle().for_tenant(&id("south")?).invalidate();
    call("south").await?;
    println!("token requests: {} to north, {} to south", north.token_requests(), south.token_requests());
    Ok(())
}

/// The identity provider issues an assertion about the person, for which the API's server issues an access token.
async fn two_servers_one_after_the_other() -> Result<(), Box<dyn Error>> {
    let (provider, server) = (AuthServer::new(TestClock::new()), AuthServer::new(TestClock::new()));
    let signed_in = TokenExchange::new(TokenExchange::ID_TOKEN, "eyJ-id-token-of-anna");
    let assertion =
        IdentityAssertion::new("https://idp.example/token", ClientAuth::basic("at-the-provider", "one"), signed_in)
            .audience("https://auth.example");
    let client_auth = ClientAuth::basic("at-the-server", "two");
    let cfg = AuthConfig::identity_assertion("https://auth.example/token", client_auth, assertion)
        .origin("https://api.example.com")
        .build()?;
    let http = network([("idp.example", provider.clone()), ("auth.example", server.clone())]);
    let auth = AuthLayer::builder(cfg).http_client(http).build()?.handle();
    auth.token().await?;
    auth.invalidate();
    auth.token().await?;
    println!("two legs: {} assertion, {} tokens for it", provider.token_requests(), server.token_requests());
    Ok(())
}

/// The endpoints, and what the server says of itself, are found by its issuer.
async fn an_issuer_is_enough() -> Result<(), Box<dyn Error>> {
    let server = AuthServer::new(TestClock::new()).client("app", "secret");
    let code = AuthorizationCode::discovered("http://127.0.0.1:8976/callback");
    let issuer = Discovery::of("https://auth.example.com");
    let cfg = AuthConfig::authorization_code(issuer, ClientAuth::basic("app", "secret"), code)
        .origin("https://api.example.com")
        .build()?;
    let auth = AuthLayer::builder(cfg).http_client(server.clone()).build()?.handle();
    let sign_in = auth.discover_sign_in().await?;
    println!("sign in at {}", sign_in.url().split('?').next().unwrap_or_default());
    // What the person's browser brings back.
    let redirect = server.browse(sign_in.url()).ok_or("nobody signs in there")?;
    sign_in.finish(&redirect).await?;
    auth.token().await?;
    println!("signed in");
    Ok(())
}

/// Assertions whose header names the certificate, as Entra wants them.
async fn known_by_a_certificate() -> Result<(), Box<dyn Error>> {
    // Those of the tests; `SecretSource::file` and `Certificate::from_file` read yours.
    let key = include_str!("../tests/support/certificates/client.key");
    let certificate = Certificate::from_pem(include_str!("../tests/support/certificates/client.pem"));
    let key = SigningKey::from_pem(SigningAlgorithm::Ps256, key).with_certificate(certificate);
    let cfg =
        providers::entra_certificate("contoso.onmicrosoft.com", "app", ["https://graph.microsoft.com/.default"], key)
            .origin("https://graph.microsoft.com")
            .build()?;
    let server = AuthServer::new(TestClock::new());
    let http = network([("login.microsoftonline.com", server.clone())]);
    AuthLayer::builder(cfg).http_client(http).build()?.handle().token().await?;
    let assertion = server.requests().remove(0).param("client_assertion").ok_or("no assertion")?;
    let header = assertion.split('.').next().unwrap_or_default();
    println!("by certificate: {}", String::from_utf8(URL_SAFE_NO_PAD.decode(header)?)?);
    Ok(())
}
