//! Puts the token and the fixed headers into a request.

use http::header::{AUTHORIZATION, CONNECTION, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::SpecialHeaders;
use crate::types::{ConfigError, Error};

/// What happens to an `Authorization` header that is on a request already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExistingAuthorization {
    /// It is replaced by the token, also where there are several. The default: a header smuggled through a gateway never
    /// reaches the API.
    #[default]
    Replace,
    /// It stays, and the request is the caller's own: its 401 neither refreshes the token nor causes a resend. A request
    /// with several values is [`Error::Request`](crate::Error::Request), since servers disagree about which one counts.
    Keep,
    /// The request is refused with [`Error::Request`](crate::Error::Request) before anything is sent.
    Reject,
}

/// Which headers go onto a request besides the tenant's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Injection {
    existing: ExistingAuthorization,
    set_if_absent: Vec<(HeaderName, HeaderValue)>,
}

impl Injection {
    /// Far below the size at which inserting into a `HeaderMap` panics.
    const MAX_HEADERS: usize = 16_384;

    pub(crate) fn new(existing: ExistingAuthorization) -> Self {
        Self { existing, set_if_absent: Vec::new() }
    }

    /// Adds a header that requests get unless they have one of that name.
    pub(crate) fn set_if_absent(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let name = own_header_name(name, "the header to set if absent")?;
        // `HeaderValue` alone would let tabs and bytes above 0x7f through.
        let visible = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        let Some(value) = HeaderValue::from_str(value).ok().filter(|_| visible) else {
            return Err(ConfigError::new(
                format!("the value of the header {name} has a character that is not visible ASCII"),
                "remove that character",
            ));
        };
        self.set_if_absent.retain(|(existing, _)| *existing != name);
        self.set_if_absent.push((name, value));
        Ok(())
    }

    pub(crate) fn sets_if_absent(&self, name: &HeaderName) -> bool {
        self.set_if_absent.iter().any(|(own, _)| own == name)
    }

    /// Whether the token goes onto this request (`true`), or the caller's own `Authorization` stays.
    #[inline]
    pub(crate) fn admits(
        &self,
        headers: &HeaderMap,
        special: SpecialHeaders,
        tenant_header: Option<&HeaderName>,
    ) -> Result<bool, Error> {
        if headers.keys_len() > Self::MAX_HEADERS {
            return Err(Error::Request("the request has too many headers".into()));
        }
        if special.connection && self.is_hop_by_hop(tenant_header, headers) {
            return Err(Error::Request(
                "the Connection header names a header that is set here (Authorization, DPoP, the tenant's, …), so that the \
                 next hop would remove it (RFC 9110 §7.6.1); remove it there"
                    .into(),
            ));
        }
        if self.existing == ExistingAuthorization::Replace {
            return Ok(true);
        }
        let mut existing = headers.get_all(AUTHORIZATION).iter();
        match (self.existing, existing.next(), existing.next()) {
            (_, None, _) => Ok(true),
            (ExistingAuthorization::Keep, Some(_), None) => Ok(false),
            (ExistingAuthorization::Keep, Some(_), Some(_)) => {
                Err(Error::Request("the request has several Authorization headers; send one".into()))
            }
            (_, Some(_), _) => Err(Error::Request(
                "the request has an Authorization header already; remove it, or allow it with \
                 `ExistingAuthorization::Replace` or `Keep`"
                    .into(),
            )),
        }
    }

    /// Whether a `Connection` header makes a header that we set hop-by-hop (RFC 9110 §7.6.1).
    #[cold]
    fn is_hop_by_hop(&self, tenant_header: Option<&HeaderName>, headers: &HeaderMap) -> bool {
        static PROOF: HeaderName = HeaderName::from_static("dpop");
        let fixed = self.set_if_absent.iter().map(|(name, _)| name);
        let own: Vec<&HeaderName> = [&AUTHORIZATION, &PROOF].into_iter().chain(tenant_header).chain(fixed).collect();
        let is_own =
            |option: &[u8]| own.iter().any(|name| is_same_field(option.trim_ascii(), name.as_str().as_bytes()));
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(is_own)
    }

    /// For a request that [`admits`](Injection::admits) said `true` of, before each sending.
    pub(crate) fn apply(&self, token: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, token);
        for (name, value) in &self.set_if_absent {
            if let Entry::Vacant(entry) = headers.entry(name) {
                entry.insert(value.clone());
            }
        }
    }
}

/// For a request that goes to a foreign origin: whatever the caller meant for the API stays here (RFC 9110 §15.4).
pub(crate) fn withhold(headers: &mut HeaderMap, tenant_header: Option<&HeaderName>) {
    headers.remove(AUTHORIZATION);
    if let Some(name) = tenant_header {
        headers.remove(name);
        while let Some(alike) = alike(headers, name) {
            headers.remove(alike);
        }
    }
}

/// Another name in the request that CGI and its like read as this one: `x_tenant` and `x-tenant` are both `HTTP_X_TENANT`
/// (RFC 3875 §4.1.18).
pub(crate) fn alike(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderName> {
    headers.keys().find(|other| *other != name && is_alike(other.as_str(), name.as_str())).cloned()
}

/// Whether CGI reads these names as one. Length and first letter decide for nearly all.
#[inline]
pub(crate) fn is_alike(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len() && one.first().map(folded) == other.first().map(folded) && is_same_field(one, other)
}

#[inline(never)]
fn is_same_field(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().map(folded).eq(other.iter().map(folded))
}

#[inline]
fn folded(byte: &u8) -> u8 {
    if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// A header name from a configuration, unless HTTP or this crate gives that header its value.
pub(crate) fn own_header_name(name: &str, what: &'static str) -> Result<HeaderName, ConfigError> {
    const TAKEN: [&str; 12] = [
        "authorization",
        "connection",
        "dpop",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(ConfigError::new(format!("{what} has no valid name"), "use letters, digits and hyphens"));
    };
    if TAKEN.contains(&name.as_str()) || name.as_str().starts_with("content-") {
        return Err(ConfigError::new(
            format!("{what} cannot be {name}"),
            "use a header that has no meaning in HTTP itself",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, PROXY_AUTHORIZATION};

    use super::*;

    fn admits(injection: &Injection, headers: &HeaderMap, tenant: Option<&HeaderName>) -> Result<bool, Error> {
        injection.admits(headers, SpecialHeaders::find(headers, tenant), tenant)
    }

    fn token(text: &'static str) -> HeaderValue {
        let mut value = HeaderValue::from_static(text);
        value.set_sensitive(true);
        value
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    /// Behaviour 57.
    #[test]
    fn fixed_headers_are_there_once_on_every_sending() {
        let mut injection = Injection::default();
        injection.set_if_absent("Accept", "text/plain").unwrap();
        injection.set_if_absent("accept", "application/json").unwrap();
        injection.set_if_absent("X-Goog-User-Project", "p1").unwrap();
        let mut sent = HeaderMap::new();
        for attempt in ["Bearer a", "Bearer b"] {
            injection.apply(token(attempt), &mut sent);
            assert_eq!(values(&sent, "accept"), [b"application/json"]);
            assert_eq!(values(&sent, "x-goog-user-project"), [b"p1"]);
        }
        let mut own = headers(&[("accept", "text/csv"), ("accept", "text/html")]);
        injection.apply(token("Bearer a"), &mut own);
        assert_eq!(values(&own, ACCEPT.as_str()), [&b"text/csv"[..], b"text/html"], "the caller's own stays");
    }

    /// Behaviour 58.
    #[test]
    fn a_resend_replaces_the_token() {
        let mut sent = HeaderMap::new();
        Injection::default().apply(token("Bearer a"), &mut sent);
        Injection::default().apply(token("Bearer b"), &mut sent);
        assert_eq!(values(&sent, "authorization"), [b"Bearer b"]);
        assert!(sent[AUTHORIZATION].is_sensitive());
    }

    /// Behaviour 59.
    #[test]
    fn an_authorization_of_the_caller_is_replaced_kept_or_refused() {
        let pairs = [("authorization", "Basic x"), ("authorization", "Bearer y"), ("proxy-authorization", "Basic z")];
        let (one, mut two) = (headers(&pairs[..1]), headers(&pairs));

        assert!(admits(&Injection::new(ExistingAuthorization::Replace), &two, None).unwrap());
        Injection::new(ExistingAuthorization::Replace).apply(token("Bearer a"), &mut two);
        assert_eq!(values(&two, "authorization"), [b"Bearer a"]);
        assert_eq!(two[PROXY_AUTHORIZATION], "Basic z");

        assert!(!admits(&Injection::new(ExistingAuthorization::Keep), &one, None).unwrap());
        assert!(matches!(
            admits(&Injection::new(ExistingAuthorization::Keep), &headers(&pairs), None),
            Err(Error::Request(_))
        ));
        assert!(matches!(admits(&Injection::new(ExistingAuthorization::Reject), &one, None), Err(Error::Request(_))));

        for mode in [ExistingAuthorization::Replace, ExistingAuthorization::Keep, ExistingAuthorization::Reject] {
            assert!(admits(&Injection::new(mode), &HeaderMap::new(), None).unwrap(), "{mode:?}");
        }
    }

    /// Behaviour 151 (`Connection`).
    #[test]
    fn a_connection_header_cannot_strip_what_is_injected() {
        let tenant = HeaderName::from_static("tenant-id");
        for value in ["authorization", "close, Authorization", "x,\tTENANT-ID ,y", "tenant-id", "tenant_id", "DPoP"] {
            for mode in [ExistingAuthorization::Replace, ExistingAuthorization::Keep] {
                let error =
                    admits(&Injection::new(mode), &headers(&[("connection", value)]), Some(&tenant)).expect_err(value);
                assert!(matches!(error, Error::Request(_)));
            }
        }
        let mut fixed = Injection::default();
        fixed.set_if_absent("x-goog-user-project", "p1").unwrap();
        assert!(admits(&fixed, &headers(&[("connection", "X-Goog-User-Project")]), None).is_err());
        let second_line = headers(&[("connection", "close"), ("connection", "authorization")]);
        assert!(admits(&Injection::default(), &second_line, None).is_err());
        for value in ["keep-alive", "", ",", "x-authorization", "authorization-x", "proxy-authorization"] {
            assert!(
                admits(&Injection::default(), &headers(&[("connection", value)]), Some(&tenant)).unwrap(),
                "{value}"
            );
        }
        assert!(admits(&Injection::default(), &headers(&[("connection", "tenant-id")]), None).unwrap());
    }

    /// Behaviour 99.
    #[test]
    fn a_foreign_origin_gets_neither_authorization_nor_tenant() {
        let mut sent = headers(&[("authorization", "a"), ("authorization", "b"), ("tenant-id", "t"), ("accept", "x")]);
        sent.insert(HeaderName::from_static("tenant_id"), HeaderValue::from_static("t"));
        withhold(&mut sent, Some(&HeaderName::from_static("tenant-id")));
        assert_eq!(sent, headers(&[("accept", "x")]));
    }

    #[test]
    fn a_header_map_that_cannot_grow_is_an_error_not_a_panic() {
        let mut full = HeaderMap::new();
        for n in 0.. {
            let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            if full.try_insert(name, HeaderValue::from_static("")).is_err() {
                break;
            }
        }
        assert!(matches!(admits(&Injection::default(), &full, None), Err(Error::Request(_))));

        let mut large: HeaderMap =
            full.into_iter().filter_map(|(k, v)| Some((k?, v))).take(Injection::MAX_HEADERS).collect();
        assert!(admits(&Injection::default(), &large, None).unwrap());
        Injection::default().apply(token("Bearer a"), &mut large);
        assert_eq!(large[AUTHORIZATION], "Bearer a");
    }

    #[test]
    fn header_settings_are_checked() {
        let mut injection = Injection::default();
        for name in [
            "",
            "a b",
            "a\r\nb",
            "a\0",
            "a:",
            "ä",
            "Authorization",
            "HOST",
            "TE",
            "Content-Type",
            "Proxy-Authorization",
        ] {
            assert!(injection.set_if_absent(name, "x").is_err(), "{name:?}");
        }
        for value in ["canary\r", "canary\n", "canary\0", "canary\x7f", "canary\u{80}", "canary\t"] {
            let error = injection.set_if_absent("accept", value).expect_err(value);
            assert!(!error.to_string().contains("canary"));
        }
        assert_eq!(injection, Injection::default());
    }
}
