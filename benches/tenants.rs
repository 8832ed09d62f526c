//! A request among a thousand and a million tenants, each with a token of its own, held against the same with one tenant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::Request;
use support::baselines::{Inner, access_token};
use support::cases::{Case, send};
use support::figures::Figures;
use support::memory::memory;
use support::ours::{background, layer_per_tenant};
use support::paired::time;
use support::requests::{Body, Kind};
use tower::{Layer, Service};
use tower_oauth2_client::{AuthLayer, TenantId, Token};

const TENANTS: u64 = 1_000_000;
const THOUSAND: u64 = 1_000;

const BARE: &str = "no layer";
const ONE: &str = "one tenant";
const BUSY: &str = "one of a million tenants";
const ANY_OF_THOUSAND: &str = "any of a thousand tenants";
const ANY: &str = "any of a million tenants";

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 31 } else { 301 };
    let runtime = background();
    let _guard = runtime.enter();
    let mut figures = Figures::of("tenants");
    let (one, million) = (layer_per_tenant(TENANTS as usize), layer_per_tenant(TENANTS as usize * 2));
    sign_in(&one, 0..1);
    let thousand = layer_per_tenant(THOUSAND as usize * 2);
    sign_in(&thousand, 0..THOUSAND);
    let before = memory("VmRSS:");
    let start = Instant::now();
    sign_in(&million, 0..TENANTS);
    figures.put("a new tenant: ns", start.elapsed().as_nanos() as f64 / TENANTS as f64);
    let each = (memory("VmRSS:") - before) / TENANTS as f64;
    figures.put("resident bytes a tenant, with a token of 900", each);
    // The token's text and its number, of which most have six digits.
    figures.put("resident bytes a tenant beside its token", each - (access_token().len() + 6) as f64);
    // The first look at a token reads the clocks.
    let mut service = million.layer(Inner::new(0));
    for number in 0..TENANTS {
        send(&mut service, request(Kind::P3, number));
    }
    for kind in [Kind::P3, Kind::P8] {
        let inner = Inner::new(0);
        let mut cases = vec![
            case(BARE, kind, inner.clone(), TENANTS),
            case(ONE, kind, one.layer(inner.clone()), 1),
            case(BUSY, kind, million.layer(inner.clone()), 1),
            case(ANY_OF_THOUSAND, kind, thousand.layer(inner.clone()), THOUSAND),
            case(ANY, kind, million.layer(inner.clone()), TENANTS),
        ];
        let timings = time(&mut cases, rounds);
        for timing in &timings {
            figures.put(format!("{} {}", kind.name(), timing.name), timing.median);
        }
        let [_, one, busy, thousand, any] = &timings[..] else { unreachable!() };
        figures.put(format!("{} {BUSY}, times one tenant", kind.name()), busy.median / one.median);
        let times = thousand.median / one.median;
        figures.put(format!("{} {ANY_OF_THOUSAND}, times one tenant", kind.name()), times);
        figures.put(format!("{} {ANY}, times one tenant", kind.name()), any.median / one.median);
    }
    drop(million);
    // Every new tenant takes the place of an old one.
    let bounded = layer_per_tenant(10_000);
    sign_in(&bounded, 0..10_000);
    let start = Instant::now();
    sign_in(&bounded, 10_000..210_000);
    figures.put("a new tenant, over the bound: ns", start.elapsed().as_nanos() as f64 / 200_000.0);
    figures.put("partitions at a bound of 10000", bounded.handle().stats().partitions as f64 - 1.0);
}

fn sign_in(layer: &AuthLayer, tenants: std::ops::Range<u64>) {
    let auth = layer.handle();
    let text = access_token();
    for number in tenants {
        let token = Token::bearer(&format!("{text}{number}")).unwrap().with_expires_in(Duration::from_secs(3600));
        auth.for_tenant(&tenant(number)).set_token(token).now_or_never().unwrap().unwrap();
    }
}

/// Ids as providers give them, in no order.
fn tenant(number: u64) -> TenantId {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [a, b, c, d] = [mixed >> 32, mixed >> 48 & 0xffff, mixed >> 16 & 0xffff, mixed & 0xffff];
    TenantId::new(format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{number:012x}")).unwrap()
}

/// Requests for tenants drawn from so many. A fresh id is made for each, whichever it is.
fn case<S: Service<Request<Body>> + 'static>(name: &'static str, kind: Kind, mut service: S, tenants: u64) -> Case {
    let mut state = 1_u64;
    Case::new(name, kind, move |requests| {
        for _ in 0..requests {
            // A xorshift: the next tenant is nowhere near.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            send(&mut service, request(kind, black_box(state) % tenants));
        }
    })
}

fn request(kind: Kind, number: u64) -> Request<Body> {
    let mut request = kind.request();
    request.extensions_mut().insert(tenant(number));
    request
}
