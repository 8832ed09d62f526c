//! The stacks of the hot path, each a loop over one kind of request.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::Request;
use http::header::HeaderValue;
use tokio::runtime::Runtime;
use tower::Service;
use tower_oauth2_client::{Replay, Tenant};

use super::baselines::{Inner, TENANT, floor, naive};
use super::limit::{limit, limit_replay};
use super::ours::{layer_for, per_tenant, warm};
use super::requests::{Body, Kind};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    run: Box<dyn FnMut(u64)>,
}

impl Case {
    pub(crate) fn new(name: &'static str, kind: Kind, run: impl FnMut(u64) + 'static) -> Self {
        Self { name, kind, run: Box::new(run) }
    }

    pub(crate) fn run(&mut self, requests: u64) {
        (self.run)(requests);
    }
}

pub(crate) const BARE: &str = "bare";
pub(crate) const FLOOR: &str = "FLOOR";
/// Without replay: with the tenant of the service only.
pub(crate) const LIMIT: &str = "LIMIT, no replay";
pub(crate) const LIMIT_REPLAY: &str = "LIMIT, replay";
pub(crate) const NEVER: &str = "ours, Replay::Never";
pub(crate) const REPLAY: &str = "ours";
pub(crate) const NAIVE: &str = "naive, no retry";
pub(crate) const NAIVE_RETRY: &str = "naive";
pub(crate) const PER_TENANT: &str = "ours, Replay::Never, a token for each tenant";
pub(crate) const ONESHOT_BARE: &str = "oneshot: bare";
pub(crate) const ONESHOT_FLOOR: &str = "oneshot: FLOOR";
pub(crate) const ONESHOT_NEVER: &str = "oneshot: ours, Replay::Never";
pub(crate) const ONESHOT_REPLAY: &str = "oneshot: ours";
pub(crate) const ONESHOT_NAIVE: &str = "oneshot: naive";

/// All stacks for one kind of request. Call the cases inside `runtime.enter()`.
pub(crate) fn cases(runtime: &Runtime, kind: Kind) -> Vec<Case> {
    let inner = match kind {
        Kind::P8Answer => Inner::new(0).with_headers(),
        Kind::P8Pending => Inner::new(1).with_headers(),
        _ => Inner::new(0),
    };
    let [never, replay] = [Replay::Never, Replay::AnyReplayable].map(|replay| {
        let tenant = Tenant::header("x-tenant-id");
        let tenant = if kind == Kind::P8Tenant { tenant } else { tenant.fixed(TENANT) };
        warm(runtime, layer_for(replay, tenant), inner.clone())
    });
    let retry = naive(inner.clone(), true);
    vec![
        persistent(BARE, kind, inner.clone()),
        persistent(FLOOR, kind, floor(inner.clone())),
        persistent(LIMIT, kind, limit(inner.clone())),
        persistent(LIMIT_REPLAY, kind, limit_replay(inner.clone())),
        persistent(NEVER, kind, never.clone()),
        persistent(REPLAY, kind, replay.clone()),
        persistent(PER_TENANT, kind, per_tenant(runtime, inner.clone())),
        persistent(NAIVE, kind, naive(inner.clone(), false)),
        persistent(NAIVE_RETRY, kind, retry.clone()),
        oneshot(ONESHOT_BARE, kind, inner.clone()),
        oneshot(ONESHOT_FLOOR, kind, floor(inner)),
        oneshot(ONESHOT_NEVER, kind, never),
        oneshot(ONESHOT_REPLAY, kind, replay),
        oneshot(ONESHOT_NAIVE, kind, retry),
    ]
}

/// One clone of the service for all requests.
pub(crate) fn persistent<S: Service<Request<Body>> + 'static>(name: &'static str, kind: Kind, mut service: S) -> Case {
    Case::new(name, kind, move |requests| measured_persistent(&mut service, kind, requests))
}

/// One clone of the service for each request, as `oneshot` makes it.
fn oneshot<S: Service<Request<Body>> + Clone + 'static>(name: &'static str, kind: Kind, service: S) -> Case {
    Case::new(name, kind, move |requests| measured_oneshot(&service, kind, requests))
}

/// The names `measured_*` are known to the instruction counter.
#[inline(never)]
pub(crate) fn measured_persistent<S: Service<Request<Body>>>(service: &mut S, kind: Kind, requests: u64) {
    for _ in 0..requests {
        send(service, kind.request());
    }
}

#[inline(never)]
fn measured_oneshot<S: Service<Request<Body>> + Clone>(service: &S, kind: Kind, requests: u64) {
    for _ in 0..requests {
        send(&mut service.clone(), kind.request());
    }
}

/// One request, which is answered at once, or is pending once. Inlined, or it would cost the larger stacks one more copy of
/// the request than the smaller ones; with one place where the future is made and one where it is polled, or neither would be
/// inlined.
#[inline(always)]
pub(crate) fn send<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    let mut was_pending = false;
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(Ok(response)) => break drop(black_box(response)),
            Poll::Ready(Err(_)) => panic!("a request failed"),
            Poll::Pending => assert!(!std::mem::replace(&mut was_pending, true), "a request waits"),
        }
    }
}
