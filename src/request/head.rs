//! `Head`: method, URI, version, headers and extensions of a request, copied flat so that the copy is cheap.

use std::fmt;

use bytes::{Buf, Bytes};
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

use crate::types::TenantId;

/// Everything of a request but its body, in one allocation (two if most names are long).
///
/// Cloning a request's parts costs an allocation for most of its headers and counts a reference for each; copying their
/// bytes one behind the other costs a third to a fifth of that. Parsing them back costs more, and is paid for only when
/// a request is sent again.
///
/// The buffer is not wiped when dropped: it is taken before a token is put in, so that it holds nothing but what the
/// caller's own header map holds, which nobody wipes either; wiping would cost nearly as much as the copy.
pub(crate) struct Head {
    method: Method,
    version: Version,
    scheme: u8,
    authority: u16,
    path_and_query: u16,
    /// Where a [`TenantId`] is all there is in the extensions, it is copied as text: cloning extensions allocates three
    /// times. Zero: it is not.
    tenant: u16,
    /// Scheme, authority, path and query and the tenant without separators; then for each header the lengths of its name and its value
    /// (in one `u32`, with [`SENSITIVE`]), its name, its value.
    flat: Vec<u8>,
    extensions: Extensions,
}

/// In both lengths of a header: a value's has the lowest 19 bits (512 KiB), a name's the 12 above it.
const SENSITIVE: u32 = 1 << 31;
const VALUE_BITS: u32 = 19;
const MAX_VALUE: usize = (1 << VALUE_BITS) - 1;
const MAX_NAME: usize = (1 << (31 - VALUE_BITS)) - 1;
/// The room for each header and for the rest is guessed, since adding up all lengths first costs a tenth of the copy.
/// Common requests fit; where a long cookie does not, the buffer grows once.
const ROOM_FOR_HEADER: usize = 60;
const ROOM_FOR_LONGER_ONES: usize = 220;

impl Head {
    /// Copies the head of a request; `None` if a length does not fit, which no server would accept either.
    #[inline]
    pub(crate) fn copy_for_replay<B>(request: &Request<B>) -> Option<Self> {
        let uri = request.uri();
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", Authority::as_str);
        // A URI without a path (authority form) says "" and `path_and_query()` would not, hence the question to both.
        let path_and_query = match uri.path_and_query() {
            Some(path_and_query) if !uri.path().is_empty() => path_and_query.as_str(),
            _ => "",
        };

        let extensions = request.extensions();
        let tenant = if extensions.len() == 1 { extensions.get().map_or("", TenantId::as_str) } else { "" };
        let is_rest = !extensions.is_empty() && tenant.is_empty();

        Some(Self {
            method: request.method().clone(),
            version: request.version(),
            scheme: u8::try_from(scheme.len()).ok()?,
            authority: u16::try_from(authority.len()).ok()?,
            path_and_query: u16::try_from(path_and_query.len()).ok()?,
            tenant: u16::try_from(tenant.len()).ok()?,
            flat: flatten([scheme, authority, path_and_query, tenant], request.headers())?,
            // An emptied map would allocate.
            extensions: if is_rest { extensions.clone() } else { Extensions::new() },
        })
    }

    /// The request again, equal to the one that was copied. `None` instead of a request that differs.
    pub(crate) fn rebuild<B>(mut self, body: B) -> Option<Request<B>> {
        // Names and values share the buffer.
        let mut flat = Bytes::from(self.flat);
        let uri = pop_uri(&mut flat, self.scheme.into(), self.authority.into(), self.path_and_query.into())?;
        if self.tenant > 0 {
            let tenant = split(&mut flat, self.tenant.into())?;
            self.extensions.insert(TenantId::new(std::str::from_utf8(&tenant).ok()?).ok()?);
        }
        let mut headers = HeaderMap::new();
        while flat.has_remaining() {
            let (name, value) = pop(&mut flat)?;
            headers.try_append(name, value).ok()?;
        }

        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.extensions;
        Some(request)
    }
}

/// Tells nothing: URI and headers may hold keys and cookies.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Head([redacted])")
    }
}

/// Out of line, since it is the same for every body, and its loops are the fastest where nothing else is around them.
#[inline(never)]
fn flatten(parts: [&str; 4], headers: &HeaderMap) -> Option<Vec<u8>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut flat = Vec::with_capacity(len + headers.len() * ROOM_FOR_HEADER + ROOM_FOR_LONGER_ONES);
    for part in parts {
        flat.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        push(&mut flat, name, value)?;
    }
    Some(flat)
}

#[inline]
fn push(flat: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) -> Option<()> {
    let (name, bytes) = (name.as_str().as_bytes(), value.as_bytes());
    if name.len() > MAX_NAME || bytes.len() > MAX_VALUE {
        return None;
    }
    let lengths = (name.len() as u32) << VALUE_BITS | bytes.len() as u32;
    let lengths = if value.is_sensitive() { lengths | SENSITIVE } else { lengths };
    flat.extend_from_slice(&lengths.to_ne_bytes());
    flat.extend_from_slice(name);
    flat.extend_from_slice(bytes);
    Some(())
}

fn pop(flat: &mut Bytes) -> Option<(HeaderName, HeaderValue)> {
    let lengths = flat.try_get_u32_ne().ok()?;
    let both = (lengths & !SENSITIVE) as usize;
    let name = HeaderName::from_bytes(&split(flat, both >> VALUE_BITS)?).ok()?;
    let value = split(flat, both & MAX_VALUE)?;
    let mut value = HeaderValue::from_maybe_shared(value).ok()?;
    value.set_sensitive(lengths & SENSITIVE != 0);
    Some((name, value))
}

fn pop_uri(flat: &mut Bytes, scheme: usize, authority: usize, path_and_query: usize) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    if scheme > 0 {
        parts.scheme = Some(Scheme::try_from(&*split(flat, scheme)?).ok()?);
    }
    if authority > 0 {
        parts.authority = Some(Authority::from_maybe_shared(split(flat, authority)?).ok()?);
    }
    if path_and_query > 0 {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(split(flat, path_and_query)?).ok()?);
    }
    Uri::from_parts(parts).ok()
}

fn split(flat: &mut Bytes, at: usize) -> Option<Bytes> {
    (at <= flat.len()).then(|| flat.split_to(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<B: Clone>(request: &Request<B>) -> Request<B> {
        let head = Head::copy_for_replay(request).unwrap();
        head.rebuild(request.body().clone()).unwrap()
    }

    fn headers<B>(request: &Request<B>) -> Vec<(&str, &[u8], bool)> {
        request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes(), value.is_sensitive())).collect()
    }

    #[test]
    fn every_form_of_uri_comes_back_equal() {
        let parsed = [
            "/",
            "*",
            "/a/b?c=d&e",
            "/?",
            "https://api.example.com/v1?x=1",
            "https://api.example.com",
            "https://api.example.com?x=1",
            "http://user@[::1]:8080/%20",
            "HTTPS://API.Example.com/",
            "grpc+unix://socket/pkg.Service/Method",
            "api.example.com:443",
            "localhost",
        ]
        .map(|text| Request::get(text).body(()).unwrap().into_parts().0.uri);
        let no_parts = Uri::from_parts(http::uri::Parts::default()).unwrap();
        let only_query = Uri::from(PathAndQuery::from_static("?a=b"));
        for uri in parsed.into_iter().chain([Uri::default(), no_parts, only_query]) {
            let mut request = Request::new(());
            *request.uri_mut() = uri.clone();
            let rebuilt = round_trip(&request).into_parts().0.uri;
            assert_eq!(rebuilt, uri);
            assert_eq!(rebuilt.to_string(), uri.to_string(), "its spelling too");
        }
    }

    #[test]
    fn method_version_and_extensions_come_back() {
        for method in [Method::POST, Method::from_bytes(b"PURGE").unwrap(), Method::from_bytes(&[b'X'; 40]).unwrap()] {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
                let mut request = Request::builder().method(method.clone()).version(version).body(()).unwrap();
                request.extensions_mut().insert(7_u8);
                let rebuilt = round_trip(&request);
                assert_eq!((rebuilt.method(), rebuilt.version()), (&method, version));
                assert_eq!(rebuilt.extensions().get::<u8>(), Some(&7));
            }
        }
    }

    #[test]
    fn duplicates_order_and_sensitive_marks_come_back() {
        let mut request =
            Request::get("/").header("b", "1").header("a", "2").header("b", "3").header("empty", "").body(()).unwrap();
        request.headers_mut().append("b", HeaderValue::from_bytes(b"\xff\t\x80").unwrap());
        let mut key = HeaderValue::from_static("canary");
        key.set_sensitive(true);
        request.headers_mut().append("x-api-key", key);
        let rebuilt = round_trip(&request);
        assert_eq!(headers(&rebuilt), headers(&request));
        assert!(rebuilt.headers()["x-api-key"].is_sensitive());
        assert!(!rebuilt.headers()["a"].is_sensitive());
    }

    #[test]
    fn a_damaged_buffer_gives_none() {
        let request = Request::post("https://api.example.com/v1").header("a", "b").header("c", "d").body(()).unwrap();
        let whole = Head::copy_for_replay(&request).unwrap().flat.len();
        // A cut between two headers leaves a well-formed head, which nothing can tell from a whole one.
        for cut in (0..whole).filter(|cut| ![whole - 6, whole - 12].contains(cut)) {
            let mut head = Head::copy_for_replay(&request).unwrap();
            head.flat.truncate(cut);
            assert!(head.rebuild(()).is_none(), "{cut}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_not_kept() {
        for (name, value, copy) in [(MAX_NAME, MAX_VALUE, true), (MAX_NAME + 1, 1, false), (1, MAX_VALUE + 1, false)] {
            let request =
                Request::get("/").header("a".repeat(name), "b".repeat(value)).header("c", "d").body(()).unwrap();
            assert_eq!(Head::copy_for_replay(&request).is_some(), copy, "{name} and {value}");
            if copy {
                assert_eq!(headers(&round_trip(&request)), headers(&request));
            }
        }
    }

    #[test]
    fn extensions_come_back_whatever_they_are() {
        #[derive(Clone, Debug, PartialEq)]
        struct Foreign(u8);
        for (has_tenant, has_foreign) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut request = Request::get("/").body(()).unwrap();
            if has_tenant {
                request.extensions_mut().insert(TenantId::new("My Clinic").unwrap());
            }
            if has_foreign {
                request.extensions_mut().insert(Foreign(7));
            }
            let extensions = round_trip(&request).extensions().clone();
            assert_eq!(extensions.len(), request.extensions().len());
            assert_eq!(extensions.get::<TenantId>(), request.extensions().get::<TenantId>());
            assert_eq!(extensions.get::<Foreign>(), request.extensions().get::<Foreign>());
        }
    }

    #[test]
    fn debug_tells_nothing() {
        let request = Request::get("/?key=canary").header("cookie", "canary").body(()).unwrap();
        assert_eq!(format!("{:?}", Head::copy_for_replay(&request).unwrap()), "Head([redacted])");
    }

    proptest! {
        #[test]
        fn any_request_comes_back(
            path in "/[a-zA-Z0-9/%._~-]{0,40}(\\?[a-z0-9=&]{0,20})?",
            absolute in any::<bool>(),
            fields in prop::collection::vec(("[a-z][a-z0-9-]{0,30}", prop::collection::vec(0x20_u8..0x7f, 0..300), any::<bool>()), 0..40),
        ) {
            let uri = if absolute { format!("https://api.example.com:8443{path}") } else { path };
            let mut request = Request::post(uri).body(()).unwrap();
            for (name, value, sensitive) in fields {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let rebuilt = round_trip(&request);
            prop_assert_eq!(rebuilt.uri(), request.uri());
            prop_assert_eq!(headers(&rebuilt), headers(&request));
        }
    }
}
