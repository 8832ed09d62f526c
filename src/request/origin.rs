//! Which origins may receive tokens, and where plain http is allowed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Method, Uri};

use super::SpecialHeaders;
use crate::types::{ConfigError, Error};

/// The allow-list: which requests may carry credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OriginPolicy {
    allowed: Vec<Origin>,
    foreign: UnlistedOrigin,
}

/// What happens to a request whose URI or `Host` header names an origin that is not on the list.
///
/// A request whose URI names no host at all (a tonic client, a bare hyper connection) is not foreign: it goes where the
/// inner service is connected. A request that contradicts itself, with user information in its URI or a `Host` header
/// that is not the URI's host, is refused by both settings.
///
/// `CONNECT` asks a proxy for a tunnel, and what it carries is the proxy's to read: it is foreign whatever it names. So is a
/// URI whose scheme is not spelled `https` or `http`, as `http::uri::Builder` takes it (`HTTPS`): clients dial such a one
/// without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnlistedOrigin {
    /// [`Error::Origin`](crate::Error::Origin) before anything is sent. The default: a URL that an attacker chose must
    /// not even be called.
    #[default]
    Refuse,
    /// It is sent on with neither token nor tenant header; an `Authorization` or tenant header that the caller set is
    /// removed. For redirects to presigned downloads, followed by a layer outside this one (RFC 9110 §15.4).
    PassWithoutCredentials,
}

/// Whether an admitted request may carry credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Credentials,
    NoCredentials,
}

const NOT_ALLOWED: &str = "is not an allowed origin (if it is the API, add it with `.origin(..)`)";
const BAD_AUTHORITY: &str = "is addressed with user information or a malformed host or port (remove it from the URI)";
const BAD_HOST_HEADER: &str = "is addressed with several `Host` headers or a malformed one (remove them)";
const OTHER_HOST_HEADER: &str = "is addressed with a `Host` header of another host (remove the header)";
const BAD_PATH: &str = "is addressed with a path that is read as part of the host (begin it with a slash)";
const TUNNEL: &str = "is to be connected to by a proxy, which would read the token (open tunnels below this layer)";
const NO_SCHEME: &str = "is addressed without a scheme, so that nobody knows whether by TLS (write the whole URL)";

impl OriginPolicy {
    pub(crate) fn build<I>(origins: I, foreign: UnlistedOrigin, allow_http: bool) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut allowed = Vec::new();
        for origin in origins {
            let origin = Origin::parse(origin.as_ref())?;
            require_secure(&origin, allow_http, "the origin")?;
            if !allowed.contains(&origin) {
                allowed.push(origin);
            }
        }
        Ok(Self { allowed, foreign })
    }

    /// Decides before every sending, the resend included.
    #[inline]
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        special: SpecialHeaders,
    ) -> Result<Admission, Error> {
        // Nearly every request: a fifth of what the strict reading costs.
        if let Some(authority) = uri.authority()
            && (!special.host || is_only_host(headers, authority))
            && *method != Method::CONNECT
            && is_path_apart(uri)
            && self.allowed.iter().any(|origin| origin.is_spelled(uri.scheme(), authority))
        {
            return Ok(Admission::Credentials);
        }
        self.check_strictly(method, uri, headers)
    }

    fn check_strictly(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Admission, Error> {
        let Some(authority) = uri.authority() else {
            return self.check_parts(method, None, None, None, false, headers);
        };
        // Read strictly, once, so that no connector can read another host out of the same text.
        match host_and_port(authority.as_str()) {
            Some((host, port)) if !is_path_apart(uri) => {
                Err(refused(Some(Target { scheme: uri.scheme_str(), host, port }), BAD_PATH))
            }
            // Only CONNECT has this form (RFC 9112 §3.2.3), and clients that take it for something else choose a scheme.
            Some((host, port)) if uri.scheme().is_none() && *method != Method::CONNECT => {
                self.foreign(Some(Target { scheme: None, host, port }), NO_SCHEME)
            }
            Some((host, port)) => self.check_parts(method, uri.scheme_str(), Some(host), port, false, headers),
            None => {
                let host_port = authority.as_str().rsplit('@').next().and_then(host_and_port);
                let target = host_port.map(|(host, port)| Target { scheme: uri.scheme_str(), host, port });
                Err(refused(target, BAD_AUTHORITY))
            }
        }
    }

    /// The same for a URL type other than `http::Uri`.
    pub(crate) fn check_parts(
        &self,
        method: &Method,
        scheme: Option<&str>,
        host: Option<&str>,
        port: Option<u16>,
        has_userinfo: bool,
        headers: &HeaderMap,
    ) -> Result<Admission, Error> {
        let target = host.map(|host| Target { scheme, host, port });
        if has_userinfo || (target.is_none() && scheme.is_some()) {
            return Err(refused(target, BAD_AUTHORITY));
        }
        let header = host_header(headers).map_err(|()| refused(target, BAD_HOST_HEADER))?;
        match (target, header) {
            (Some(uri), Some(header)) if !uri.is_host_of(&header) => Err(refused(target, OTHER_HOST_HEADER)),
            // What it carries is for the one that opens the tunnel, a proxy that is dialled without TLS.
            (target, header) if *method == Method::CONNECT => self.foreign(target.or(header), TUNNEL),
            (Some(target), _) | (None, Some(target)) => self.admit(target),
            (None, None) => Ok(Admission::Credentials),
        }
    }

    /// Where an admitted request goes: the one origin of the list that fits what it says of that. `assumed` decides where
    /// several do.
    #[cfg(feature = "dpop")]
    pub(crate) fn place<'a>(
        &'a self,
        uri: &Uri,
        headers: &HeaderMap,
        assumed: Option<&'a Origin>,
    ) -> Option<&'a Origin> {
        let Some(authority) = uri.authority() else { return self.place_parts(None, None, None, headers, assumed) };
        let (host, port) = host_and_port(authority.as_str())?;
        self.place_parts(uri.scheme_str(), Some(host), port, headers, assumed)
    }

    /// The same for a URL type other than `http::Uri`.
    #[cfg(feature = "dpop")]
    pub(crate) fn place_parts<'a>(
        &'a self,
        scheme: Option<&str>,
        host: Option<&str>,
        port: Option<u16>,
        headers: &HeaderMap,
        assumed: Option<&'a Origin>,
    ) -> Option<&'a Origin> {
        let target = match host {
            Some(host) => Some(Target { scheme, host, port }),
            None => host_header(headers).ok()?,
        };
        let fits = |origin: &&Origin| target.is_none_or(|target| origin.covers(&target));
        let mut fitting = self.allowed.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only),
            (Some(_), Some(_)) => assumed.filter(fits),
            (None, _) => None,
        }
    }

    /// # Errors
    /// Not an origin, or none that may receive tokens.
    #[cfg(feature = "dpop")]
    pub(crate) fn listed(&self, origin: &str) -> Result<Origin, ConfigError> {
        let origin = Origin::parse(origin)?;
        if self.allowed.contains(&origin) {
            return Ok(origin);
        }
        Err(ConfigError::new("the origin that proofs assume may not receive tokens", "add it with `.origin(..)` too"))
    }

    fn admit(&self, target: Target<'_>) -> Result<Admission, Error> {
        if self.allowed.iter().any(|origin| origin.covers(&target)) {
            return Ok(Admission::Credentials);
        }
        self.foreign(Some(target), NOT_ALLOWED)
    }

    fn foreign(&self, target: Option<Target<'_>>, why: &'static str) -> Result<Admission, Error> {
        match self.foreign {
            UnlistedOrigin::Refuse => Err(refused(target, why)),
            UnlistedOrigin::PassWithoutCredentials => Ok(Admission::NoCredentials),
        }
    }
}

/// Whether the URI, printed, has something between host and path. Versions of `http` build some that have not, which are
/// another host's when they are read again: `.evil.example/` behind an authority, or `*`.
#[inline]
fn is_path_apart(uri: &Uri) -> bool {
    uri.path_and_query().is_none_or(|path| begins_apart(path.as_str()))
}

/// Whether there is one `Host` header, and it says what the URI says, letter by letter.
#[inline(never)]
fn is_only_host(headers: &HeaderMap, authority: &Authority) -> bool {
    let mut values = headers.get_all(HOST).iter();
    values.next().is_some_and(|value| value.as_bytes() == authority.as_str().as_bytes()) && values.next().is_none()
}

fn begins_apart(path_and_query: &str) -> bool {
    matches!(path_and_query.as_bytes().first(), None | Some(b'/' | b'?'))
}

#[cold]
fn refused(target: Option<Target<'_>>, reason: &'static str) -> Error {
    let origin = target.map_or_else(|| "a request without a readable host".to_owned(), |target| target.to_string());
    Error::Origin { origin, reason }
}

/// Scheme, host and port, parsed once and normalised: what may receive tokens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    /// Lower case; an IPv6 address in brackets, in its canonical form.
    host: Box<str>,
    port: u16,
    /// Host and port as they are usually written: the default port is left out.
    authority: Box<str>,
}

impl Origin {
    /// `https://api.example.com`, with or without a port and a trailing slash; nothing more.
    pub(crate) fn parse(origin: &str) -> Result<Self, ConfigError> {
        let (uri, parsed) = parse_absolute(origin, "the origin")?;
        if uri.path() != "/" || origin.contains('?') {
            return Err(ConfigError::new(
                "the origin has a path or a query",
                "write scheme, host and port only, as in https://api.example.com",
            ));
        }
        Ok(parsed)
    }

    /// Whether a URI names this origin in its usual spelling. No proof of the contrary.
    #[inline]
    fn is_spelled(&self, scheme: Option<&http::uri::Scheme>, authority: &Authority) -> bool {
        let own = match self.scheme {
            Scheme::Http => &http::uri::Scheme::HTTP,
            Scheme::Https => &http::uri::Scheme::HTTPS,
        };
        scheme == Some(own) && authority.as_str() == &*self.authority
    }

    /// Its scheme must be spelled as it is here: connectors compare it so, and dial `HTTPS` without TLS. `http` reads
    /// `HTTPS://` as `https`, but takes parts as they come.
    fn covers(&self, target: &Target<'_>) -> bool {
        self.port == target.port.unwrap_or(self.scheme.default_port())
            && target.scheme.is_none_or(|scheme| self.scheme.as_str() == scheme)
            && same_host(&self.host, target.host)
    }

    fn is_loopback(&self) -> bool {
        let ipv4 = || self.host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        &*self.host == "localhost" || ipv4() || ipv6(&self.host).is_some_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = (self.port != self.scheme.default_port()).then_some(self.port);
        Target { scheme: Some(self.scheme.as_str()), host: &self.host, port }.fmt(f)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// Plain http shows the credentials to everybody on the way: only on this machine, or where the user said so.
pub(crate) fn require_secure(origin: &Origin, allow_http: bool, what: &'static str) -> Result<(), ConfigError> {
    if origin.scheme == Scheme::Https || allow_http || origin.is_loopback() {
        return Ok(());
    }
    Err(ConfigError::new(
        format!("{what} {origin} is plain http"),
        "use https, or `danger_allow_http` inside a network you trust",
    ))
}

/// The URL of a token endpoint (RFC 6749 §3.2): absolute, without user information and fragment; its query is kept.
pub(crate) fn parse_endpoint_url(url: &str, allow_http: bool) -> Result<Uri, ConfigError> {
    let (uri, origin) = parse_absolute(url, "the endpoint URL")?;
    require_secure(&origin, allow_http, "the endpoint")?;
    Ok(uri)
}

/// Whether requests to this URL stay on this machine.
#[cfg(any(feature = "reqwest", test))]
pub(crate) fn is_loopback(url: &Uri) -> bool {
    parse_absolute(&url.to_string(), "the URL").is_ok_and(|(_, origin)| origin.is_loopback())
}

fn parse_absolute(url: &str, what: &'static str) -> Result<(Uri, Origin), ConfigError> {
    let wrong = |problem: &str, mend| Err(ConfigError::new(format!("{what} {problem}"), mend));
    // `Uri` drops a fragment silently.
    if url.contains('#') {
        return wrong("has a fragment", "remove everything from the # on");
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("is not a URL", "write it as in https://api.example.com, international names in their xn-- form");
    };
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return wrong("does not begin with https:// or http://", "write it as in https://api.example.com"),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return wrong("has user information", "remove everything up to the @; credentials have their own settings");
    }
    let Some((host, port)) = host_and_port(authority) else {
        return wrong("has a malformed host or port", "name one host, without wildcards, and a port if it needs one");
    };
    let host = match ipv6(host) {
        Some(ip) => format!("[{ip}]"),
        None => host.to_ascii_lowercase(),
    };
    let port = port.unwrap_or(scheme.default_port());
    let authority = if port == scheme.default_port() { host.clone() } else { format!("{host}:{port}") };
    Ok((uri, Origin { scheme, host: host.into(), port, authority: authority.into() }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a request wants to go, as far as it says: a `Host` header names no scheme.
#[derive(Clone, Copy)]
struct Target<'a> {
    scheme: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

impl Target<'_> {
    fn is_host_of(&self, header: &Target<'_>) -> bool {
        let default = match self.scheme {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        self.port.or(default) == header.port.or(default) && same_host(self.host, header.host)
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn host_header(headers: &HeaderMap) -> Result<Option<Target<'_>>, ()> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let (host, port) = value.to_str().ok().and_then(host_and_port).ok_or(())?;
    if values.next().is_some() { Err(()) } else { Ok(Some(Target { scheme: None, host, port })) }
}

/// `host[:port]` (RFC 9110 §7.2) and nothing else: anything that could be read in two ways is `None`.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let after_address = text.find(']').map_or(0, |end| end + 1);
    let (host, port) = match text.get(after_address..)?.find(':') {
        Some(colon) => (text.get(..after_address + colon)?, text.get(after_address + colon + 1..)),
        None => (text, None),
    };
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !is_name && ipv6(host).is_none() {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(digits.parse().ok()?))),
        Some(_) => None,
    }
}

fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || ipv6(a).is_some_and(|address| ipv6(b) == Some(address))
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[cfg(feature = "dpop")]
    #[test]
    fn a_request_goes_to_the_one_origin_that_fits() {
        let place = |origins: &[&str], assumed: Option<&str>, uri: &str, host: Option<&str>| {
            let policy = policy(origins);
            let assumed = assumed.map(|assumed| policy.listed(assumed).unwrap());
            let host = host.map(|host| (HOST, host.parse().unwrap()));
            let place = policy.place(&uri.parse().unwrap(), &HeaderMap::from_iter(host), assumed.as_ref());
            place.map(ToString::to_string)
        };
        let (a, b) = ("https://a.example", "https://b.example:8443");
        let (both, same_host) = (&[a, b][..], &["https://a.example", "https://a.example:444"][..]);
        let table = [
            (&[a][..], None, "/x", None, Some(a)),
            (&[a], None, "*", None, Some(a)),
            (&[a], None, "HTTPS://A.Example:443/x", None, Some(a)),
            (both, None, "https://b.example:8443/x", None, Some(b)),
            (both, Some(a), "https://b.example:8443/x", None, Some(b)),
            (both, None, "/x", None, None),
            (both, Some(b), "/x", None, Some(b)),
            (both, Some(b), "/x", Some("a.example"), Some(a)),
            (both, None, "/x", Some("b.example:8443"), Some(b)),
            (same_host, None, "/x", Some("a.example"), Some(a)),
            (both, Some(a), "https://c.example/x", None, None),
            (both, Some(a), "/x", Some("c.example"), None),
        ];
        for (origins, assumed, uri, host, expected) in table {
            assert_eq!(
                place(origins, assumed, uri, host).as_deref(),
                expected,
                "{origins:?} {assumed:?} {uri} {host:?}"
            );
        }
        assert!(policy(&[a]).listed(b).is_err());
        assert!(policy(&[a]).listed("https://a.example/x").is_err());
    }

    fn policy(origins: &[&str]) -> OriginPolicy {
        OriginPolicy::build(origins, UnlistedOrigin::Refuse, false).unwrap()
    }

    fn host(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (HOST, HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    fn check(policy: &OriginPolicy, uri: &str, host_headers: &[&str]) -> Result<Admission, Error> {
        {
            let headers = host(host_headers);
            policy.check(&Method::GET, &uri.parse().unwrap(), &headers, SpecialHeaders::find(&headers, None))
        }
    }

    #[track_caller]
    fn assert_refused(policy: &OriginPolicy, uri: &str, host_headers: &[&str], expected: &str, why: &str) {
        let error = check(policy, uri, host_headers).expect_err(uri);
        assert!(
            matches!(&error, Error::Origin { origin, reason } if origin == expected && *reason == why),
            "{uri}: {error:?}"
        );
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, canonical) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://API.Example.com/", "https://api.example.com"),
            ("HTTPS://api.example.com:443", "https://api.example.com"),
            ("https://api.example.com:8443/", "https://api.example.com:8443"),
            ("https://api.example.com:80", "https://api.example.com:80"),
            ("http://localhost:80", "http://localhost"),
            ("https://[2001:DB8:0:0::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://10.0.0.1", "https://10.0.0.1"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn anything_more_or_less_than_an_origin_is_a_config_error_that_quotes_nothing() {
        for bad in [
            "",
            "canary",
            "canary.example.com",
            "canary.example.com:443",
            "//canary.example.com",
            "https://",
            "https:///canary",
            "https://:443",
            "https://*.canary.example.com",
            "https://*",
            "https://user@canary.example.com",
            "https://user:pass@canary.example.com",
            "https://user@evil@canary.example.com",
            "https://canary.example.com/v1",
            "https://canary.example.com//",
            "https://canary.example.com?",
            "https://canary.example.com/?tenant=1",
            "https://canary.example.com#",
            "https://canary.example.com/#fragment",
            "https://canary.example.com:",
            "https://canary.example.com:99999",
            "https://canary.example.com:+80",
            "https://canary.example.com:443:443",
            "https://canary.exämple.com",
            "https://canary%2eexample.com",
            "https://canary.example.com\\",
            " https://canary.example.com",
            "https://[::1",
            "https://[canary]",
            "https://[fe80::1%25canary]",
            "https://[::1]canary",
            "ftp://canary.example.com",
            "wss://canary.example.com",
        ] {
            let error = Origin::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("canary") && !error.contains("pass"), "{bad}: {error}");
        }
    }

    /// Behaviour 101.
    #[test]
    fn plain_http_is_for_loopback_or_for_those_who_said_so() {
        for loopback in
            ["http://localhost:8080", "http://LOCALHOST", "http://127.0.0.1", "http://127.9.9.9:1", "http://[::1]"]
        {
            assert!(OriginPolicy::build([loopback], UnlistedOrigin::Refuse, false).is_ok(), "{loopback}");
            assert!(parse_endpoint_url(&format!("{loopback}/token"), false).is_ok(), "{loopback}");
            assert!(is_loopback(&loopback.parse().unwrap()), "{loopback}");
        }
        for open in [
            "http://api.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.1",
            "http://localhost.",
            "http://[::2]",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(OriginPolicy::build([open], UnlistedOrigin::Refuse, false).is_err(), "{open}");
            assert!(OriginPolicy::build([open], UnlistedOrigin::Refuse, true).is_ok(), "{open}");
            assert!(parse_endpoint_url(&format!("{open}/token"), false).is_err(), "{open}");
            assert!(parse_endpoint_url(&format!("{open}/token"), true).is_ok(), "{open}");
            assert!(!is_loopback(&open.parse().unwrap()), "{open}");
        }
        assert_refused(
            &policy(&["https://api.example.com"]),
            "http://api.example.com/",
            &[],
            "http://api.example.com",
            NOT_ALLOWED,
        );
        assert_refused(
            &policy(&["https://api.example.com"]),
            "http://api.example.com:443/",
            &[],
            "http://api.example.com:443",
            NOT_ALLOWED,
        );
    }

    #[test]
    fn an_endpoint_url_keeps_its_query_and_has_no_credentials() {
        let uri = parse_endpoint_url("https://auth.example.com:8443/oauth2/token?realm=a%20b", false).unwrap();
        assert_eq!(uri.to_string(), "https://auth.example.com:8443/oauth2/token?realm=a%20b");
        for bad in [
            "/oauth2/token",
            "auth.example.com/token",
            "https://id:canary@auth.example.com/token",
            "https://auth.example.com/token#",
            "https://auth.example.com:x/token",
            "file:///token",
        ] {
            let error = parse_endpoint_url(bad, true).expect_err(bad).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
        // An @ behind the authority is no user information.
        assert!(parse_endpoint_url("https://auth.example.com/@team/token?for=a@b", false).is_ok());
    }

    #[test]
    fn an_allowed_origin_gets_credentials_however_it_is_written() {
        let policy = policy(&["https://other.example.com", "https://api.example.com", "https://[2001:db8::1]:8443"]);
        for uri in [
            "https://api.example.com/v1?x=1",
            "https://API.EXAMPLE.com:443/",
            "HTTPS://api.example.com",
            "https://other.example.com/a@b",
            "https://[2001:DB8:0::1]:8443/",
        ] {
            assert_eq!(check(&policy, uri, &[]).unwrap(), Admission::Credentials, "{uri}");
        }
    }

    /// Behaviour 99.
    #[test]
    fn another_origin_is_refused_and_named_without_its_path() {
        let policy = policy(&["https://api.example.com", "http://localhost:8080"]);
        for (uri, origin) in [
            ("https://evil.example/canary?q=canary", "https://evil.example"),
            ("https://api.example.com:8443/canary", "https://api.example.com:8443"),
            ("https://api.example.com.evil.example/", "https://api.example.com.evil.example"),
            ("https://api.example.com./", "https://api.example.com."),
            ("https://sub.api.example.com/", "https://sub.api.example.com"),
            ("http://localhost:8081/", "http://localhost:8081"),
            ("https://localhost:8080/", "https://localhost:8080"),
            ("ws://api.example.com/", "ws://api.example.com"),
        ] {
            assert_refused(&policy, uri, &[], origin, NOT_ALLOWED);
        }
    }

    /// Behaviour 146.
    #[test]
    fn connect_and_schemes_in_another_spelling_are_foreign() {
        let by_parts = |scheme| Uri::builder().scheme(scheme).authority("api.example.com").path_and_query("/").build();
        let cases = [
            (Method::CONNECT, Ok("api.example.com:443".parse().unwrap()), TUNNEL),
            (Method::CONNECT, Ok("https://api.example.com/".parse().unwrap()), TUNNEL),
            (Method::CONNECT, Ok("/".parse().unwrap()), TUNNEL),
            (Method::GET, Ok("api.example.com:443".parse().unwrap()), NO_SCHEME),
            (Method::GET, by_parts("HTTPS"), NOT_ALLOWED),
            (Method::GET, by_parts("Http"), NOT_ALLOWED),
        ];
        for foreign in [UnlistedOrigin::Refuse, UnlistedOrigin::PassWithoutCredentials] {
            let policy =
                OriginPolicy::build(["https://api.example.com", "http://api.example.com"], foreign, true).unwrap();
            for (method, uri, why) in &cases {
                let uri = uri.as_ref().unwrap();
                match policy.check(method, uri, &HeaderMap::new(), SpecialHeaders::default()) {
                    Ok(admission) => {
                        assert_eq!(
                            (admission, foreign),
                            (Admission::NoCredentials, UnlistedOrigin::PassWithoutCredentials)
                        );
                    }
                    Err(Error::Origin { reason, .. }) => {
                        assert_eq!((reason, foreign), (*why, UnlistedOrigin::Refuse), "{uri}")
                    }
                    Err(error) => panic!("{uri}: {error}"),
                }
            }
        }
    }

    /// Behaviour 147.
    #[test]
    fn a_path_begins_with_a_slash_or_a_question_mark_or_is_none() {
        for apart in ["", "/", "/x", "?a=b", "//evil.example"] {
            assert!(begins_apart(apart), "{apart}");
        }
        for part_of_the_host in [".evil.example/items", "@evil.example/", ":8080/", "x", "*"] {
            assert!(!begins_apart(part_of_the_host), "{part_of_the_host}");
        }
        // `http` builds this one still.
        let uri = Uri::builder().scheme("https").authority("api.example.com").path_and_query("*").build().unwrap();
        let error = policy(&["https://api.example.com"])
            .check(&Method::OPTIONS, &uri, &HeaderMap::new(), SpecialHeaders::default())
            .unwrap_err();
        assert!(matches!(error, Error::Origin { reason: BAD_PATH, .. }), "{error}");
    }

    #[test]
    fn the_usual_spelling_is_read_like_every_other() {
        for text in
            ["https://api.example.com", "http://localhost:8080/", "https://[2001:DB8:0::1]:443", "http://[::1]:1"]
        {
            let origin = Origin::parse(text).unwrap();
            let (host, port) = host_and_port(&origin.authority).unwrap();
            assert!(origin.covers(&Target { scheme: Some(origin.scheme.as_str()), host, port }), "{text}");
            let uri: Uri = format!("{}://{}/", origin.scheme.as_str(), origin.authority).parse().unwrap();
            assert!(origin.is_spelled(uri.scheme(), uri.authority().unwrap()), "{text}");
        }
        let origin = Origin::parse("https://api.example.com").unwrap();
        for other in
            ["http://api.example.com/", "https://api.example.com:8443/", "https://api.example.com./", "a.example:1"]
        {
            let uri: Uri = other.parse().unwrap();
            assert!(!origin.is_spelled(uri.scheme(), uri.authority().unwrap()), "{other}");
        }
    }

    #[test]
    fn user_information_and_unclear_authorities_are_refused_and_not_quoted() {
        let policy =
            OriginPolicy::build(["https://api.example.com"], UnlistedOrigin::PassWithoutCredentials, false).unwrap();
        for uri in
            ["https://canary@api.example.com/", "https://user:canary@api.example.com/", "https://@api.example.com/"]
        {
            assert_refused(&policy, uri, &[], "https://api.example.com", BAD_AUTHORITY);
        }
        assert_refused(&policy, "https://api.example.com@evil.example/", &[], "https://evil.example", BAD_AUTHORITY);
        for uri in ["https://api.example.com:99999/", "https://api.example.com:/", "https://api.example.com:+443/"] {
            assert_refused(&policy, uri, &[], "a request without a readable host", BAD_AUTHORITY);
        }
        let error =
            policy.check_parts(&Method::GET, Some("https"), Some("api.example.com"), None, true, &HeaderMap::new());
        assert!(matches!(error, Err(Error::Origin { reason: BAD_AUTHORITY, .. })));
        let error = policy.check_parts(&Method::GET, Some("file"), None, None, false, &HeaderMap::new());
        assert!(matches!(error, Err(Error::Origin { reason: BAD_AUTHORITY, .. })));
    }

    #[test]
    fn a_uri_without_authority_goes_where_the_service_is_connected() {
        for policy in [policy(&[]), policy(&["https://api.example.com"])] {
            for uri in ["/pkg.Service/Method", "/", "*"] {
                assert_eq!(check(&policy, uri, &[]).unwrap(), Admission::Credentials);
            }
        }
    }

    #[test]
    fn a_host_header_beside_no_authority_must_name_an_allowed_origin() {
        let policy = policy(&["https://api.example.com", "https://api.example.com:8443"]);
        for value in ["api.example.com", "API.example.com:443", "api.example.com:8443"] {
            assert_eq!(check(&policy, "/v1", &[value]).unwrap(), Admission::Credentials, "{value}");
        }
        assert_refused(&policy, "/canary", &["evil.example"], "evil.example", NOT_ALLOWED);
        assert_refused(&policy, "/", &["api.example.com:80"], "api.example.com:80", NOT_ALLOWED);
        let none = "a request without a readable host";
        for value in ["", "canary@api.example.com", "api.example.com/canary", "api.example.com, evil.example", "ä"] {
            assert_refused(&policy, "/", &[value], none, BAD_HOST_HEADER);
        }
        assert_refused(&policy, "/", &["api.example.com", "api.example.com"], none, BAD_HOST_HEADER);
    }

    #[test]
    fn a_host_header_must_be_the_host_of_the_uri() {
        let policy = OriginPolicy::build(
            ["https://api.example.com", "https://two.example.com", "https://[::1]"],
            UnlistedOrigin::PassWithoutCredentials,
            false,
        )
        .unwrap();
        let uri = "https://api.example.com/v1";
        for value in ["api.example.com", "API.EXAMPLE.COM:443"] {
            assert_eq!(check(&policy, uri, &[value]).unwrap(), Admission::Credentials, "{value}");
        }
        assert_eq!(check(&policy, "https://[::1]/", &["[0:0::1]:443"]).unwrap(), Admission::Credentials);
        for value in ["two.example.com", "evil.example", "api.example.com:80"] {
            assert_refused(&policy, uri, &[value], "https://api.example.com", OTHER_HOST_HEADER);
        }
        assert_refused(&policy, uri, &["api.example.com", "evil.example"], "https://api.example.com", BAD_HOST_HEADER);
    }

    #[test]
    fn foreign_requests_may_pass_without_credentials() {
        let policy =
            OriginPolicy::build(["https://api.example.com"], UnlistedOrigin::PassWithoutCredentials, false).unwrap();
        assert_eq!(check(&policy, "https://bucket.example/file?sig=1", &[]).unwrap(), Admission::NoCredentials);
        assert_eq!(check(&policy, "http://api.example.com/", &[]).unwrap(), Admission::NoCredentials);
        assert_eq!(check(&policy, "/", &["bucket.example"]).unwrap(), Admission::NoCredentials);
        assert_eq!(check(&policy, "https://api.example.com/", &[]).unwrap(), Admission::Credentials);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error =
            check(&policy(&["https://api.example.com"]), "https://evil.example/canary?canary", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "https://evil.example is not an allowed origin (if it is the API, add it with `.origin(..)`); \
             the request was not sent"
        );
    }
}
