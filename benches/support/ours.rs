//! The layer under test, with everything on: origin check, tenant header, refresh, the rule of the 401.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, Replay, Tenant, TenantId, Token, TokenError, TokenRequest};

use super::baselines::{TENANT, access_token};

/// The runtime on which timers and token requests run; enter it before anything of ours is called.
pub(crate) fn background() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) fn layer(replay: Replay) -> AuthLayer {
    layer_for(replay, Tenant::header("x-tenant-id").fixed(TENANT))
}

pub(crate) fn layer_for(replay: Replay, tenant: Tenant) -> AuthLayer {
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).replay(replay).build().unwrap();
    AuthLayer::with_source(cfg, tower::service_fn(|_: TokenRequest| async { fetched() }))
}

fn fetched() -> Result<Token, TokenError> {
    let token = Token::bearer(&access_token()).map_err(TokenError::permanent)?;
    Ok(token.with_expires_in(Duration::from_secs(3600)))
}

/// Each tenant has a token of its own, for so many tenants.
pub(crate) fn layer_per_tenant(tenants: usize) -> AuthLayer {
    let tenant = Tenant::header("x-tenant-id").per_tenant_tokens();
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).replay(Replay::Never);
    let cfg = cfg.max_partitions(tenants).build().unwrap();
    AuthLayer::with_source(cfg, tower::service_fn(|_: TokenRequest| async { fetched() }))
}

/// A service that has its token already.
pub(crate) fn ours<S: Clone>(runtime: &Runtime, inner: S, replay: Replay) -> Auth<S> {
    warm(runtime, layer(replay), inner)
}

pub(crate) fn warm<S: Clone>(runtime: &Runtime, layer: AuthLayer, inner: S) -> Auth<S> {
    runtime.block_on(layer.handle().warm_up()).unwrap();
    layer.layer(inner)
}

/// A clone for one tenant, where each tenant has a token of its own; it has it already.
pub(crate) fn per_tenant<S: Clone>(runtime: &Runtime, inner: S) -> Auth<S> {
    let layer = layer_per_tenant(1);
    let tenant = TenantId::new(TENANT).unwrap();
    runtime.block_on(layer.handle().for_tenant(&tenant).token()).unwrap();
    layer.layer(inner).for_tenant(&tenant)
}
