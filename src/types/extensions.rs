//! The types that users put into requests and find in responses.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;

use super::{ConfigError, TokenError};

/// Which tenant (practice, account, organisation) a request is for.
///
/// Put it into the request's extensions where [`Tenant::per_request`](crate::Tenant::per_request) is configured. It is
/// read once per request; the tenant header and, where tokens are per tenant, the token both derive from that reading.
///
/// A tenant id is visible ASCII, inner spaces allowed, 1 to 256 characters: it must be able to be a header value as it
/// is, since a mended id would be another tenant's. `Debug` does not print it: ids are not secrets, but providers ask
/// to keep them as if they were.
///
/// ```
/// use tower_oauth2_client::TenantId;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(TenantId::new("7c1e0e5a-41f0-4a6b-9d0c-2f4b1c8c7a11")?);
/// assert!(TenantId::new("practice\r\nX-Admin: 1").is_err());
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct TenantId(HeaderValue);

impl TenantId {
    const MAX: usize = 256;

    /// Checks and takes over an id.
    ///
    /// # Errors
    /// An id that is empty, too long, not visible ASCII, or begins or ends with a space. The error does not quote it.
    pub fn new(id: impl AsRef<str>) -> Result<Self, ConfigError> {
        let bytes = id.as_ref().as_bytes();
        let problem = if bytes.is_empty() {
            "is empty"
        } else if bytes.len() > Self::MAX {
            "is longer than 256 characters"
        } else if bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ') {
            "begins or ends with a space"
        } else if !bytes.iter().all(|b| (0x20..=0x7e).contains(b)) {
            "contains a character that is not visible ASCII"
        } else {
            let mut value = HeaderValue::from_bytes(bytes).map_err(|_| {
                ConfigError::new("the tenant id cannot be a header value", "pass the id the provider gave you")
            })?;
            value.set_sensitive(true);
            return Ok(Self(value));
        };
        Err(ConfigError::new(format!("the tenant id {problem}"), "pass the id exactly as the provider gave it"))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        // Visible ASCII was checked in `new`.
        std::str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The id as a header value, marked sensitive.
    pub(crate) fn header_value(&self) -> &HeaderValue {
        &self.0
    }

    pub(crate) fn deep_clone(&self) -> Self {
        Self(deep_clone(&self.0))
    }
}

/// A copy with a reference count of its own, so that two threads that clone it do not write to one counter.
pub(crate) fn deep_clone(value: &HeaderValue) -> HeaderValue {
    match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(mut copy) => {
            copy.set_sensitive(value.is_sensitive());
            copy
        }
        Err(_) => value.clone(),
    }
}

impl FromStr for TenantId {
    type Err = ConfigError;

    fn from_str(id: &str) -> Result<Self, ConfigError> {
        Self::new(id)
    }
}

impl TryFrom<&str> for TenantId {
    type Error = ConfigError;

    fn try_from(id: &str) -> Result<Self, ConfigError> {
        Self::new(id)
    }
}

impl TryFrom<String> for TenantId {
    type Error = ConfigError;

    fn try_from(id: String) -> Result<Self, ConfigError> {
        Self::new(id)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for TenantId {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl Eq for TenantId {}

impl Hash for TenantId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantId([redacted])")
    }
}

/// A set of scopes (RFC 6749 §3.3): compared without regard to order, sent in the order given.
///
/// In a request's extensions it asks for a token with these scopes instead of the configured ones; such a token lives
/// in a partition of its own, with its own token request.
///
/// ```
/// use tower_oauth2_client::Scopes;
///
/// assert_eq!(Scopes::new(["read", "write"])?, Scopes::new(["write", "read", "read"])?);
/// assert!(Scopes::new(["read write"]).is_err(), "one scope a string");
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Scopes(Arc<ScopeSet>);

/// Behind one pointer: each token and each partition has room for it.
struct ScopeSet {
    wire: String,
    set: BTreeSet<Box<str>>,
}

impl Scopes {
    /// Checks each scope's characters (`%x21 / %x23-5B / %x5D-7E`).
    ///
    /// # Errors
    /// A scope that is empty or has a space, a quote, a backslash or a control character in it.
    pub fn new<I>(scopes: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let (mut wire, mut set) = (String::new(), BTreeSet::new());
        for scope in scopes {
            let scope = scope.as_ref();
            if scope.is_empty() || !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(ConfigError::new(
                    "a scope is empty or holds a space, a quote, a backslash or a control character",
                    "pass each scope as a string of its own",
                ));
            }
            if set.insert(Box::from(scope)) {
                if !wire.is_empty() {
                    wire.push(' ');
                }
                wire.push_str(scope);
            }
        }
        Ok(Self(Arc::new(ScopeSet { wire, set })))
    }

    /// The scopes as the `scope` parameter carries them, one space between two.
    pub fn as_str(&self) -> &str {
        &self.0.wire
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.set.is_empty()
    }

    /// Each scope, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.set.iter().map(AsRef::as_ref)
    }

    /// Whether this scope is among them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.set.contains(scope)
    }

    /// Whether every scope of `other` is here too.
    pub fn is_superset(&self, other: &Scopes) -> bool {
        self.0.set.is_superset(&other.0.set)
    }
}

/// Scopes as the `scope` parameter carries them, with spaces between.
///
/// ```
/// use tower_oauth2_client::Scopes;
///
/// assert_eq!("read write".parse::<Scopes>()?, Scopes::new(["write", "read"])?);
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
impl FromStr for Scopes {
    type Err = ConfigError;

    fn from_str(scopes: &str) -> Result<Self, ConfigError> {
        Self::new(scopes.split(' ').filter(|scope| !scope.is_empty()))
    }
}

impl TryFrom<&str> for Scopes {
    type Error = ConfigError;

    fn try_from(scopes: &str) -> Result<Self, ConfigError> {
        scopes.parse()
    }
}

impl TryFrom<String> for Scopes {
    type Error = ConfigError;

    fn try_from(scopes: String) -> Result<Self, ConfigError> {
        scopes.parse()
    }
}

/// As the `scope` parameter carries them.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        self.0.set == other.0.set
    }
}

impl Eq for Scopes {}

impl Hash for Scopes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.set.hash(state);
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scopes").field(&self.as_str()).finish()
    }
}

/// In a request's extensions: send this request as it is, without token, tenant header, origin check or resend.
///
/// For the token endpoint itself where it is called through the same client, and for public resources.
///
/// ```
/// use tower_oauth2_client::SkipAuth;
///
/// let mut request = http::Request::get("https://status.example.com/").body(String::new())?;
/// request.extensions_mut().insert(SkipAuth);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkipAuth;

/// Which requests may be sent a second time after their token was rejected.
///
/// A 401 says that the request "has not been applied" (RFC 9110 §15.5.2), so that even a POST may be repeated with
/// another token (§9.2.2). Gateways, which must not rely on that for requests of others, choose
/// [`Idempotent`](Replay::Idempotent). Set it for the layer with [`replay`](crate::AuthConfigBuilder::replay), or for
/// one request in its extensions, where it wins.
///
/// ```
/// use tower_oauth2_client::Replay;
///
/// let mut payment = http::Request::post("https://api.example.com/payments").body(String::from("{}"))?;
/// payment.extensions_mut().insert(Replay::Never); // its 401 comes back, and renews the token for the next request
/// # Ok::<(), http::Error>(())
/// ```
///
/// Requests that hand over a connection (`CONNECT`, `Upgrade`) are never sent twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replay {
    /// Every request whose body can be sent twice. The default: with most APIs a state-changing POST is the main call.
    #[default]
    AnyReplayable,
    /// Only idempotent methods: GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 §9.2.2).
    Idempotent,
    /// Only safe methods: GET, HEAD, OPTIONS, TRACE (RFC 9110 §9.2.1).
    Safe,
    /// None; nothing is kept of a request, which is the cheapest.
    Never,
}

impl Replay {
    /// Whether a request of this method may be sent twice.
    pub(crate) fn allows(self, method: &http::Method) -> bool {
        match self {
            Replay::AnyReplayable => true,
            Replay::Idempotent => method.is_idempotent(),
            Replay::Safe => method.is_safe(),
            Replay::Never => false,
        }
    }
}

/// In a response's extensions: what the layer did for this request, when it did something.
///
/// Absent means: sent once, with the current token, and not rejected. A wait for that token alone leaves no trace: it would
/// cost everybody who waits three allocations. Nor does a sending that was repeated with the server's nonce (RFC 9449 §9) and
/// then accepted.
///
/// ```
/// use tower_oauth2_client::{AuthOutcome, RefreshFailed};
///
/// fn explain<B>(response: &http::Response<B>) -> &'static str {
///     let outcome = response.extensions().get::<AuthOutcome>().cloned().unwrap_or_default();
///     match response.extensions().get::<RefreshFailed>() {
///         _ if !outcome.rejected => "the token was fine",
///         Some(_) => "rejected, and no new token was obtained: see the error inside",
///         None if outcome.resent => "sent again with a new token",
///         None if outcome.suppressed => "rejected, and refreshing did not help lately: often a missing scope",
///         None => "rejected",
///     }
/// }
/// # assert_eq!(explain(&http::Response::new(())), "the token was fine");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthOutcome {
    /// The generation of the token that the request was last sent with; grows by one per different token of a cell.
    pub generation: u64,
    /// The request waited for a token before it was first sent, besides what else happened.
    pub waited: bool,
    /// The response rejected the token, or the proof that went with it.
    pub rejected: bool,
    /// A token request was made, or joined, because of the rejection.
    pub refreshed: bool,
    /// The request was sent a second time; this is the second response.
    pub resent: bool,
    /// The authorization server handed out the same token again, so that a resend had no point.
    pub same_token: bool,
    /// A refresh was not made, since earlier ones did not help (the rejection limiter).
    pub suppressed: bool,
    /// The request could not be sent twice: its method, its body or the policy forbids it.
    pub not_replayable: bool,
    /// The body of this response was read and dropped while the request waited for a token that did not come: it is empty,
    /// and `Content-Length` and `Content-Encoding` are removed. So many were held that they would have filled their
    /// connection.
    pub body_discarded: bool,
}

/// In a response's extensions: the token was rejected and no new one could be obtained. The response is the original one,
/// with its body; an [`AuthOutcome`] stands beside this.
#[derive(Clone, Debug)]
pub struct RefreshFailed(pub TokenError);

/// In a request's extensions, put there by this crate: this is the second sending, an inner layer must not make a
/// third.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resend;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_is_a_header_value_or_nothing() {
        for bad in ["", " a", "a ", "a\nb", "a\rb", "a\0b", "a\x7fb", "Klinik Ö"] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TenantId::new("x".repeat(257)).is_err());
        assert_eq!(TenantId::new("My Clinic").unwrap().as_str(), "My Clinic");
        assert!(TenantId::new("a").unwrap().header_value().is_sensitive());
    }

    #[test]
    fn scopes_keep_their_order_on_the_wire_only() {
        let scopes = Scopes::new(["write", "read", "write"]).unwrap();
        assert_eq!(scopes.as_str(), "write read");
        assert_eq!(scopes, Scopes::new(["read", "write"]).unwrap());
        assert!(scopes.is_superset(&Scopes::new(["read"]).unwrap()));
        assert!(!scopes.is_superset(&Scopes::new(["read", "admin"]).unwrap()));
        assert!(scopes.contains("read") && !scopes.contains("rea"));
        assert_eq!(Scopes::try_from(" read  write").unwrap(), scopes);
        assert_eq!(scopes.to_string(), "write read");
        assert!("".parse::<Scopes>().unwrap().is_empty());
        assert!("read\nwrite".parse::<Scopes>().is_err());
        assert!(Scopes::new(["a\"b"]).is_err());
        assert!(Scopes::new([""]).is_err());
    }
}
