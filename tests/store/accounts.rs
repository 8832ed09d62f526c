//! Whose token it is: people with one client registration and one store do not get each other's.

use tower::{Layer, Service};
use tower_oauth2_client::store::{MemoryStore, StoreLayer};
use tower_oauth2_client::test_util::{AuthServer, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, AuthorizationCode, ClientAuth, ConfigError, Secret,
    SecretSource, Tenant, TenantId, TokenEndpoint, TokenErrorKind, TokenRequest,
};

use crate::world::{API, TOKEN_URL};

fn client() -> ClientAuth {
    ClientAuth::basic("id", "secret")
}

fn by_code() -> AuthConfigBuilder {
    let code = AuthorizationCode::new("https://auth.example.com/authorize", "https://app.example.com/back");
    AuthConfig::authorization_code(TOKEN_URL, client(), code).origin(API)
}

fn by_device() -> AuthConfigBuilder {
    AuthConfig::device(TOKEN_URL, client())
        .device_authorization_url("https://auth.example.com/device_authorization")
        .origin(API)
}

fn by_assertion(of: &'static str) -> AuthConfigBuilder {
    let assertion = SecretSource::provider(move || async move { Ok::<_, std::io::Error>(Secret::from(of)) });
    AuthConfig::jwt_bearer(TOKEN_URL, client(), assertion).origin(API)
}

struct Shared {
    server: AuthServer,
    store: MemoryStore,
}

impl Shared {
    fn new() -> Self {
        let clock = TestClock::new();
        let server = AuthServer::new(clock.clone()).client("id", "secret").issue_refresh_tokens();
        Self { server, store: MemoryStore::with_clock(clock) }
    }

    fn handle(&self, cfg: AuthConfigBuilder) -> AuthHandle {
        self.build(cfg).unwrap().handle()
    }

    fn build(&self, cfg: AuthConfigBuilder) -> Result<AuthLayer, ConfigError> {
        let cfg = cfg.clock(self.server.clock().clone()).build().unwrap();
        AuthLayer::builder(cfg).http_client(self.server.clone()).store(self.store.clone()).build()
    }

    async fn sign_in(&self, handle: &AuthHandle) {
        let sign_in = handle.sign_in().unwrap();
        let redirect = self.server.browse(sign_in.url()).unwrap();
        sign_in.finish(&redirect).await.unwrap();
    }
}

/// Behaviour 148 (two people who sign in).
#[tokio::test(start_paused = true)]
async fn the_second_person_does_not_get_the_firsts_token() {
    let shared = Shared::new();
    let anna = shared.handle(by_code().account("anna"));
    let berta = shared.handle(by_code().account("berta"));
    shared.sign_in(&anna).await;
    assert_eq!(berta.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    shared.sign_in(&berta).await;
    let (annas, bertas) = (anna.token().await.unwrap(), berta.token().await.unwrap());
    assert_ne!(annas.access_token(), bertas.access_token());
    // After a restart each finds their own.
    let again = shared.handle(by_code().account("anna"));
    assert_eq!(again.token().await.unwrap().access_token(), annas.access_token());
}

/// Behaviour 148 (assertions that a function makes).
#[tokio::test(start_paused = true)]
async fn assertions_of_two_people_bring_two_tokens() {
    let shared = Shared::new();
    let anna = shared.handle(by_assertion("eyJ.anna.x").account("anna")).token().await.unwrap();
    let berta = shared.handle(by_assertion("eyJ.berta.x").account("berta")).token().await.unwrap();
    assert_ne!(anna.access_token(), berta.access_token());
    assert_eq!(shared.server.token_requests(), 2);
}

/// Behaviour 148 (two workloads, whose platform mounts each one's token at the same path).
#[tokio::test(start_paused = true)]
async fn a_path_does_not_say_whose_token_it_is() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-workload-{}", std::process::id()));
    let clock = TestClock::new();
    let shared = Shared { server: AuthServer::new(clock.clone()), store: MemoryStore::with_clock(clock) };
    let of = |workload: &str| {
        std::fs::write(&path, format!("eyJ.{workload}.x")).unwrap();
        let client = ClientAuth::assertion(SecretSource::file(&path));
        AuthConfig::client_credentials(TOKEN_URL, client).origin(API)
    };
    let told = shared.build(of("orders")).map(drop).unwrap_err().to_string();
    assert!(told.contains("`.account(..)`"), "{told}");
    let orders = shared.handle(of("orders").account("orders")).token().await.unwrap();
    let stock = shared.handle(of("stock").account("stock")).token().await.unwrap();
    assert_ne!(orders.access_token(), stock.access_token());
    std::fs::remove_file(path).unwrap();
}

/// Behaviour 148 (who does not say whose tokens are to be stored).
#[tokio::test(start_paused = true)]
async fn without_a_name_nothing_is_stored_or_found() {
    for cfg in [by_code(), by_device(), by_assertion("eyJ.anna.x")] {
        let shared = Shared::new();
        let told = shared.build(cfg.clone()).unwrap_err().to_string();
        assert!(told.contains("`.account(..)`"), "{told}");
        // In a layer of one's own around the endpoint too.
        let by_hand = cfg.clone().build().unwrap();
        let endpoint = TokenEndpoint::new(&by_hand, shared.server.clone()).unwrap();
        let mut stored = StoreLayer::new(shared.store.clone(), endpoint.identity()).layer(endpoint);
        let error = stored.call(TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::SourcePermanent);
        assert_eq!(shared.server.token_requests(), 0);
        // Where each tenant has its own, the tenant says whose.
        let handle = shared.handle(cfg.tenant(Tenant::header("x-tenant").per_tenant_tokens()));
        let tenant = TenantId::new("anna").unwrap();
        let kind = handle.for_tenant(&tenant).token().await.err().map(|error| error.kind());
        assert!(matches!(kind, None | Some(TokenErrorKind::SignInAgain)), "{kind:?}");
    }
}
