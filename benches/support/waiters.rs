//! Many tasks with one request each, on one thread: what waiting for a token costs over having one.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::{Auth, AuthConfig, AuthLayer, Tenant, Token, TokenError, TokenRequest};

use super::baselines::{Inner, TENANT, access_token};
use super::requests::Kind;

pub(crate) struct Waiters {
    runtime: Runtime,
    service: Auth<Inner>,
}

impl Waiters {
    /// With a token at hand, or with one that is fetched when the first task asks.
    pub(crate) fn new(wait: bool) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let source = tower::service_fn(|_: TokenRequest| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Token::bearer(&access_token()).map_err(TokenError::permanent)
        });
        let tenant = Tenant::header("x-tenant-id").fixed(TENANT);
        let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).build().unwrap();
        let layer = AuthLayer::with_source(cfg, source);
        if !wait {
            runtime.block_on(layer.handle().warm_up()).unwrap();
        }
        Self { service: layer.layer(Inner::new(0)), runtime }
    }

    /// The names `measured_*` are known to the instruction counter.
    #[inline(never)]
    pub(crate) fn measured_run(&self, tasks: u64) {
        self.runtime.block_on(async {
            let running: Vec<_> =
                (0..tasks).map(|_| tokio::spawn(self.service.clone().oneshot(Kind::P3.request()))).collect();
            for task in running {
                task.await.unwrap().unwrap();
            }
        });
    }
}
