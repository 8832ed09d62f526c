//! Discovery (RFC 8414, OpenID Connect Discovery): from an issuer to its endpoints.

use http::Uri;

use crate::request::parse_endpoint_url;
use crate::types::ConfigError;

mod cache;
mod fetch;
mod metadata;

pub(crate) use cache::MetadataCache;
pub(crate) use fetch::fetch;
pub(crate) use metadata::Metadata;

/// Finds the endpoints of an authorization server by its issuer identifier (RFC 8414), in the place of a token URL.
///
/// The server's metadata is fetched with the first token request, through the same HTTP client, once for all partitions,
/// and again after a day. For the issuer `https://auth.example.com/a` it is looked for at
/// `https://auth.example.com/.well-known/oauth-authorization-server/a` and, if there is nothing (404), at
/// `https://auth.example.com/a/.well-known/openid-configuration`. Redirects are not followed.
///
/// What is believed: the endpoints for tokens, authorization, revocation and device authorization, if they are secure
/// (`http` only where the issuer is); those of `mtls_endpoint_aliases` (RFC 8705 §5) for a client of
/// [`ClientAuth::mtls`](crate::ClientAuth::mtls); and how clients may authenticate: a method that the server does not list is
/// an error before a secret is sent. So is an
/// algorithm of assertions or proofs that is not on the server's list of these, and a sign-in with PKCE where the server
/// lists methods (`code_challenge_methods_supported`) and `S256` is not among them. URLs of the
/// configuration come first. Where the metadata promise that the server names itself to browsers
/// (`authorization_response_iss_parameter_supported`, RFC 9207 §3), an answer that does not is refused. Assertions of the
/// client are addressed to the issuer. Nothing that an API says
/// (`resource_metadata`, RFC 9728) is ever followed.
///
/// Endpoints may be addresses of a private network or of this machine's own (`169.254.169.254`), since the issuers of many
/// companies are there: where issuers come from your users, check them against a list, or let token requests go through an HTTP
/// client that connects to public addresses only.
///
/// An `issuer` in the metadata that is not the configured one, byte for byte (§3.3), is
/// [`WrongIssuer`](crate::TokenErrorKind::WrongIssuer).
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, Discovery};
///
/// # tokio_test::block_on(async {
/// let http_client = AuthServer::new(TestClock::new());
/// let cfg = AuthConfig::client_credentials(Discovery::of("https://auth.example.com"), ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let auth = AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle();
/// let token = auth.token().await?;
/// auth.revoke().await?; // where to is in the metadata, too
/// assert!(!http_client.is_live(token.access_token()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Discovery {
    issuer: String,
    openid: bool,
}

impl Discovery {
    /// Of this issuer, exactly as the server writes it: https (or this machine), without query and fragment.
    pub fn of(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), openid: false }
    }

    /// Looks for the OpenID configuration at once, for servers that have nothing else: saves a request.
    pub fn openid(mut self) -> Self {
        self.openid = true;
        self
    }

    pub(crate) fn directory(&self, allow_http: bool) -> Result<Directory, ConfigError> {
        let uri = parse_endpoint_url(&self.issuer, allow_http)?;
        if uri.query().is_some() {
            return Err(ConfigError::new("the issuer has a query", "remove everything from the ? on (RFC 8414 §2)"));
        }
        Ok(Directory { issuer: self.issuer.clone(), uri, openid: self.openid, allow_http })
    }
}

/// Where the token endpoint is: a URL, or [`Discovery`] finds it.
///
/// You never name this type: pass a URL string or a [`Discovery`].
#[derive(Clone, Debug)]
pub struct TokenUrl(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Url(String),
    Discovered(Discovery),
}

impl TokenUrl {
    pub(crate) fn is_discovered(&self) -> bool {
        matches!(self.0, Kind::Discovered(_))
    }

    pub(crate) fn parse(&self, allow_http: bool) -> Result<TokenAt, ConfigError> {
        match &self.0 {
            Kind::Url(url) => parse_endpoint_url(url, allow_http).map(TokenAt::Url),
            Kind::Discovered(discovery) => discovery.directory(allow_http).map(TokenAt::Discovered),
        }
    }
}

impl From<&str> for TokenUrl {
    fn from(url: &str) -> Self {
        Self(Kind::Url(url.to_owned()))
    }
}

impl From<String> for TokenUrl {
    fn from(url: String) -> Self {
        Self(Kind::Url(url))
    }
}

impl From<&String> for TokenUrl {
    fn from(url: &String) -> Self {
        Self(Kind::Url(url.clone()))
    }
}

impl From<Discovery> for TokenUrl {
    fn from(discovery: Discovery) -> Self {
        Self(Kind::Discovered(discovery))
    }
}

/// A [`TokenUrl`] that has been checked.
#[derive(Clone, PartialEq)]
pub(crate) enum TokenAt {
    Url(Uri),
    Discovered(Directory),
}

impl TokenAt {
    /// The issuer that the endpoints are found by.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match self {
            TokenAt::Url(_) => None,
            TokenAt::Discovered(directory) => Some(&directory.issuer),
        }
    }

    /// The token URL, or the issuer.
    pub(crate) fn uri(&self) -> &Uri {
        match self {
            TokenAt::Url(url) => url,
            TokenAt::Discovered(directory) => &directory.uri,
        }
    }
}

#[cfg(test)]
impl std::str::FromStr for TokenAt {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        TokenUrl::from(url).parse(false)
    }
}

/// An issuer, and where its metadata may be.
#[derive(Clone, PartialEq)]
pub(crate) struct Directory {
    /// As it is configured: what is compared is its bytes.
    issuer: String,
    uri: Uri,
    openid: bool,
    allow_http: bool,
}

impl Directory {
    /// Where to look, one place after the other.
    fn places(&self) -> Vec<String> {
        let root = format!(
            "{}://{}",
            self.uri.scheme_str().unwrap_or_default(),
            self.uri.authority().map_or("", |a| a.as_str())
        );
        let path = self.uri.path().trim_end_matches('/');
        // RFC 8414 §3.1 goes between host and path, OpenID Connect Discovery §4 behind.
        let oauth = format!("{root}/.well-known/oauth-authorization-server{path}");
        let openid = format!("{root}{path}/.well-known/openid-configuration");
        if self.openid { vec![openid] } else { vec![oauth, openid] }
    }

    /// An endpoint's URL: as secure as the issuer.
    fn parse(&self, url: &str) -> Result<Uri, ConfigError> {
        let uri = parse_endpoint_url(url, self.allow_http)?;
        if self.uri.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
            return Err(ConfigError::new(
                "an endpoint is less secure than its issuer",
                "the server must name it by https",
            ));
        }
        Ok(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_metadata_are() {
        let places = |discovery: Discovery| discovery.directory(false).unwrap().places();
        let oauth = "https://a.example/.well-known/oauth-authorization-server";
        for (issuer, path) in
            [("https://a.example", ""), ("https://a.example/", ""), ("https://a.example/b/c/", "/b/c")]
        {
            let openid = format!("https://a.example{path}/.well-known/openid-configuration");
            assert_eq!(places(Discovery::of(issuer)), [format!("{oauth}{path}"), openid.clone()]);
            assert_eq!(places(Discovery::of(issuer).openid()), [openid]);
        }
        assert_eq!(
            places(Discovery::of("http://127.0.0.1:80/x").openid())[0],
            "http://127.0.0.1:80/x/.well-known/openid-configuration"
        );
    }

    #[test]
    fn an_issuer_is_a_secure_url_without_query_and_fragment() {
        for wrong in
            ["", "a.example", "http://a.example", "https://a.example?x", "https://a.example/#x", "https://u@a.example"]
        {
            assert!(Discovery::of(wrong).directory(false).is_err(), "{wrong}");
        }
        assert!(Discovery::of("http://a.example").directory(true).is_ok());
    }
}
