//! Allocations a request and a waiter, and the size of the future: the same on every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::time::Duration;

use allocation_counter::measure;
use support::baselines::{Inner, TENANT, access_token, floor};
use support::cases::{FLOOR, ONESHOT_FLOOR, cases};
use support::figures::Figures;
use support::ours::{background, ours};
use support::requests::{KINDS, Kind};
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt};
use tower_oauth2_client::{AuthConfig, AuthLayer, Replay, Tenant, Token, TokenError, TokenRequest};

fn main() {
    let runtime = background();
    let _guard = runtime.enter();
    let mut figures = Figures::of("allocations");
    for kind in KINDS {
        let counted: Vec<(&str, f64)> = cases(&runtime, kind)
            .iter_mut()
            .map(|case| {
                case.run(10);
                (case.name, measure(|| case.run(1000)).count_total as f64 / 1000.0)
            })
            .collect();
        for (name, count) in &counted {
            let reference = if name.starts_with("oneshot") { ONESHOT_FLOOR } else { FLOOR };
            let floor = counted.iter().find(|(name, _)| *name == reference).map_or(f64::NAN, |(_, count)| *count);
            figures.put(format!("{} {name}, over FLOOR", kind.name()), count - floor);
        }
    }
    let mut inner = Inner { yields: 0 };
    let bare = size_of_val(&inner.call(Kind::P8.request()));
    let floor = size_of_val(&floor(inner.clone()).call(Kind::P8.request()));
    let wrapped = size_of_val(&ours(&runtime, inner, Replay::default()).call(Kind::P8.request()));
    figures.put("future: bytes over the inner one", (wrapped - bare) as f64);
    figures.put("future of FLOOR: bytes over the inner one", (floor - bare) as f64);
    let waiters = 10_000;
    figures.put(
        "allocations a waiter over a ready token",
        (of_tasks(waiters, true) - of_tasks(waiters, false)) / waiters as f64,
    );
}

/// Allocations of so many tasks with a request each, while the token is fetched or after.
fn of_tasks(tasks: usize, wait: bool) -> f64 {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let source = tower::service_fn(|_: TokenRequest| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Token::bearer(&access_token()).map_err(TokenError::permanent)
    });
    let tenant = Tenant::header("x-tenant-id").fixed(TENANT);
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant).build().unwrap();
    let layer = AuthLayer::with_source(cfg, source);
    let service = layer.layer(Inner { yields: 0 });
    runtime.block_on(async {
        if !wait {
            layer.handle().warm_up().await.unwrap();
        }
    });
    let counted = measure(|| {
        runtime.block_on(async {
            let running: Vec<_> =
                (0..tasks).map(|_| tokio::spawn(service.clone().oneshot(Kind::P3.request()))).collect();
            for task in running {
                task.await.unwrap().unwrap();
            }
        });
    });
    counted.count_total as f64
}
