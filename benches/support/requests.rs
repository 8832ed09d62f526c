//! The three requests, made afresh each time: a template would hide that the first clone of a fresh `Bytes` allocates.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use tower_oauth2_client::TenantId;

use super::baselines::TENANT;

pub(crate) type Body = Full<Bytes>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET, 3 static headers, static URI, empty body.
    P3,
    /// POST, 8 headers (4 static, 4 fresh), fresh URI, fresh body of 300 bytes.
    P8,
    /// P8, a cookie of 400 bytes, 3 more fresh headers, one extension. Two more headers make its map grow.
    P12,
    /// P8 with its tenant in the extensions.
    P8Tenant,
    /// P8 with a `Host` header that says what the URI says.
    P8Host,
    /// P8, answered with six headers.
    P8Answer,
    /// P8, answered with six headers by a service that is pending once.
    P8Pending,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::P3, Kind::P8, Kind::P12];
/// P8 in further shapes that requests have.
pub(crate) const SHAPES: [Kind; 4] = [Kind::P8Tenant, Kind::P8Host, Kind::P8Answer, Kind::P8Pending];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::P3 => "P3",
            Kind::P8 => "P8",
            Kind::P12 => "P12",
            Kind::P8Tenant => "P8+tenant",
            Kind::P8Host => "P8+Host",
            Kind::P8Answer => "P8+answer",
            Kind::P8Pending => "P8+pending",
        }
    }

    #[inline]
    pub(crate) fn request(self) -> Request<Body> {
        match self {
            Kind::P3 => p3(),
            Kind::P8 => p8(),
            Kind::P12 => p12(),
            Kind::P8Answer | Kind::P8Pending => p8(),
            Kind::P8Tenant => {
                let mut request = p8();
                static ID: LazyLock<TenantId> = LazyLock::new(|| TenantId::new(TENANT).unwrap());
                request.extensions_mut().insert(ID.clone());
                request
            }
            Kind::P8Host => {
                let mut request = p8();
                request.headers_mut().insert(header::HOST, HeaderValue::from_static("api.example.com"));
                request
            }
        }
    }
}

fn p3() -> Request<Body> {
    let mut request = Request::new(Body::default());
    *request.uri_mut() = Uri::from_static("https://api.example.com/v1/appointments");
    *request.headers_mut() = statics();
    request
}

fn statics() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1.0 (tower)"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    headers
}

fn p8() -> Request<Body> {
    let mut request = Request::new(Body::new(Bytes::from(vec![b'x'; 300])));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "https://api.example.com/v1/appointments/4711/notes?expand=patient&limit=50".parse().unwrap();
    let mut headers = statics();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, fresh("300"));
    headers.insert("traceparent", fresh("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    headers.insert("x-request-id", fresh("2f1e0a52-7d9e-4b6b-8f4e-6d7f7f0f8d11"));
    headers.insert("idempotency-key", fresh("7b0c2c0e-93c5-4f53-8a51-5f1f8f6e2d90"));
    *request.headers_mut() = headers;
    request
}

fn p12() -> Request<Body> {
    let mut request = p8();
    let headers = request.headers_mut();
    headers.insert(header::COOKIE, fresh(COOKIE));
    headers.insert("x-forwarded-for", fresh("203.0.113.7, 198.51.100.23"));
    headers.insert("x-correlation-id", fresh("a3f1c6de-0b5b-41a5-9f83-22b7a1c9d0aa"));
    headers.insert("if-none-match", fresh("\"33a64df551425fcc55e4d42a148795d9f25f89d4\""));
    request.extensions_mut().insert(Extension(7));
    request
}

#[derive(Clone, Debug)]
struct Extension(#[allow(dead_code, reason = "only carried along")] u64);

const COOKIE: &str = {
    const COOKIE: [u8; 400] = [b'c'; 400];
    match std::str::from_utf8(&COOKIE) {
        Ok(cookie) => cookie,
        Err(_) => "",
    }
};

fn fresh(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap()
}
