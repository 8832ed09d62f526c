//! Allocations a request and a waiter, the size of the future and that of an idle tenant: the same on every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use allocation_counter::measure;
use support::baselines::{Inner, access_token, floor};
use support::cases::{FLOOR, ONESHOT_FLOOR, cases};
use support::figures::Figures;
use support::ours::{background, layer_per_tenant, ours};
use support::requests::{KINDS, Kind};
use support::waiters::Waiters;
use tower::{Layer, Service};
use tower_oauth2_client::{Replay, TenantId};

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
    let mut inner = Inner::new(0);
    let bare = size_of_val(&inner.call(Kind::P8.request()));
    let floor = size_of_val(&floor(inner.clone()).call(Kind::P8.request()));
    let wrapped = size_of_val(&ours(&runtime, inner, Replay::default()).call(Kind::P8.request()));
    figures.put("future: bytes over the inner one", (wrapped - bare) as f64);
    figures.put("future of FLOOR: bytes over the inner one", (floor - bare) as f64);
    figures.put("bytes of an idle tenant beside its token", of_idle_tenants(10_000));
    let waiters = 10_000;
    figures.put(
        "allocations a waiter over a ready token",
        (of_tasks(waiters, true) - of_tasks(waiters, false)) / waiters as f64,
    );
}

/// Bytes of a tenant whose request is over, but for the header value that is its token. On the thread that is measured.
fn of_idle_tenants(tenants: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut service = layer_per_tenant(tenants).layer(Inner::new(0));
    let ids: Vec<TenantId> = (0..tenants).map(|number| TenantId::new(format!("{number:036}")).unwrap()).collect();
    let taken = measure(|| {
        for id in &ids {
            let mut request = Kind::P3.request();
            request.extensions_mut().insert(id.clone());
            runtime.block_on(async { service.call(request).await }).unwrap();
        }
    });
    taken.bytes_current as f64 / tenants as f64 - format!("Bearer {}", access_token()).len() as f64
}

/// Allocations of so many tasks with a request each, while the token is fetched or after.
fn of_tasks(tasks: u64, wait: bool) -> f64 {
    let waiters = Waiters::new(wait);
    measure(|| waiters.measured_run(tasks)).count_total as f64
}
