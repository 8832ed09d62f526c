//! Where a request's tenant comes from, the header it travels in, and whether it has tokens of its own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::inject::{alike, own_header_name};
use crate::types::{ConfigError, Error, TenantId};

/// How requests say which tenant (practice, account, organisation) they are for.
///
/// The tenant is read once per request. Its header and, where tokens are per tenant, its token both derive from that one
/// reading, also when the request is sent a second time. By default a tenant is required and comes with each request, and
/// all tenants share one token; there is no default tenant.
///
/// A request must not contradict itself: two different tenants (in its extensions, of the service it goes through, the
/// fixed one) are [`Error::Tenant`](crate::Error::Tenant), and so is a tenant header set by the caller that names another
/// tenant than the request's. Nobody picks a tenant by sending a header, unless
/// [`from_request_header`](Tenant::from_request_header) says so.
///
/// ```
/// use tower_oauth2_client::{Tenant, TenantId};
///
/// // One token for all practices, the practice in a header of each request.
/// let shared = Tenant::header("Tenant-Id").per_request();
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(TenantId::new("7c1e0e5a-41f0-4a6b-9d0c-2f4b1c8c7a11")?);
///
/// // A token for each account, asked for with the account in a header; none on the API's requests.
/// let per_account = Tenant::without_header().fixed("My Clinic").normalized().token_header("X-ACCOUNT");
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Tenant {
    header: Option<Cow<'static, str>>,
    source: Source<String>,
    optional: bool,
    per_tenant_tokens: bool,
    token_header: Option<Cow<'static, str>>,
    token_param: Option<Cow<'static, str>>,
    normalized: bool,
}

impl Tenant {
    /// The tenant travels in this header of each request, replacing what is there. It is marked sensitive.
    pub fn header(name: impl Into<Cow<'static, str>>) -> Self {
        Self { header: Some(name.into()), ..Self::without_header() }
    }

    /// The tenant is in no header of the API's requests; it only decides which token they carry.
    pub fn without_header() -> Self {
        Self {
            header: None,
            source: Source::PerRequest,
            optional: false,
            per_tenant_tokens: false,
            token_header: None,
            token_param: None,
            normalized: false,
        }
    }

    /// Every request is for this tenant.
    ///
    /// Of `fixed`, [`per_request`](Tenant::per_request) and [`from_request_header`](Tenant::from_request_header) the last
    /// one called counts.
    pub fn fixed(mut self, id: impl Into<String>) -> Self {
        self.source = Source::Fixed(id.into());
        self
    }

    /// Each request names its tenant: a [`TenantId`] in its extensions, or the service it goes through. The default.
    pub fn per_request(mut self) -> Self {
        self.source = Source::PerRequest;
        self
    }

    /// As [`per_request`](Tenant::per_request), and the tenant header that the caller set counts too.
    ///
    /// For HTTP types without extensions, and only where the callers are trusted: in a gateway that hands headers through,
    /// anybody could pick any tenant.
    pub fn from_request_header(mut self) -> Self {
        self.source = Source::RequestHeader;
        self
    }

    /// A request without a tenant is sent without the header. Default: it is
    /// [`Error::Tenant`](crate::Error::Tenant), before anything is sent.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Each tenant has a token of its own. Default: all tenants share one.
    pub fn per_tenant_tokens(mut self) -> Self {
        self.per_tenant_tokens = true;
        self
    }

    /// The tenant also travels in this header of the token request. Implies
    /// [`per_tenant_tokens`](Tenant::per_tenant_tokens).
    pub fn token_header(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.token_header = Some(name.into());
        self.per_tenant_tokens()
    }

    /// The tenant also travels in this parameter of the token request. Implies
    /// [`per_tenant_tokens`](Tenant::per_tenant_tokens).
    pub fn token_param(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.token_param = Some(name.into());
        self.per_tenant_tokens()
    }

    /// Ids are lower-cased and freed of spaces before anything is done with them: `My Clinic` is `myclinic`.
    /// Default: they are used as they are.
    pub fn normalized(mut self) -> Self {
        self.normalized = true;
        self
    }

    pub(crate) fn build(self) -> Result<TenantPolicy, ConfigError> {
        if self.header.is_none() && self.source == Source::RequestHeader {
            return Err(ConfigError::new(
                "`from_request_header` needs a header, and `without_header` says that there is none",
                "name it with `Tenant::header(..)`",
            ));
        }
        if self.header.is_none() && !self.per_tenant_tokens {
            return Err(ConfigError::new(
                "the tenant has neither a header nor tokens of its own, so that it would change nothing",
                "use `Tenant::header(..)`, `token_header(..)`, `token_param(..)` or `per_tenant_tokens()`",
            ));
        }
        if self.token_param.as_deref() == Some("") {
            return Err(ConfigError::new(
                "the tenant's parameter of the token request has no name",
                "pass it to `token_param(..)`, or leave that call out",
            ));
        }
        let name = |name: Option<Cow<'static, str>>, what| name.map(|name| own_header_name(&name, what)).transpose();
        Ok(TenantPolicy {
            header: name(self.header, "the tenant header")?.map(interned),
            source: match self.source {
                Source::PerRequest => Source::PerRequest,
                Source::RequestHeader => Source::RequestHeader,
                Source::Fixed(id) if self.normalized => Source::Fixed(TenantId::new(normalize(&id))?),
                Source::Fixed(id) => Source::Fixed(TenantId::new(id)?),
            },
            required: !self.optional,
            per_tenant_tokens: self.per_tenant_tokens,
            token_header: name(self.token_header, "the tenant's header of the token request")?,
            token_param: self.token_param,
            normalized: self.normalized,
        })
    }
}

/// The same name without a reference count, which all threads would write to. Each name is kept once in the process; there are as
/// many as configurations name.
fn interned(name: HeaderName) -> HeaderName {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = match names.get(name.as_str()) {
        Some(text) => *text,
        None => {
            let text: &'static str = name.as_str().to_owned().leak();
            names.insert(text);
            text
        }
    };
    HeaderName::from_static(text)
}

/// [`Tenant`], checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantPolicy {
    header: Option<HeaderName>,
    source: Source<TenantId>,
    required: bool,
    per_tenant_tokens: bool,
    token_header: Option<HeaderName>,
    token_param: Option<Cow<'static, str>>,
    normalized: bool,
}

const MISSING: &str = "the request has no tenant (put a `TenantId` into its extensions, or use `Auth::for_tenant`)";
const MISSING_IN_HEADER: &str =
    "the request has no tenant (set its tenant header, or put a `TenantId` into its extensions)";
const TWO_TENANTS: &str = "the request names two different tenants (its extensions, `for_tenant`, its header and the \
                           fixed tenant must agree)";
const OTHER_HEADER: &str = "the request carries a tenant header that is not its tenant (remove the header, or read it \
                            with `Tenant::from_request_header`)";
const SEVERAL_HEADERS: &str = "the request carries several tenant headers (send one)";
const ALIKE: &str =
    "the request carries a header that some servers read as the tenant header, with `_` for `-` (remove it)";
const MALFORMED: &str = "the request's tenant is malformed (pass the id exactly as the provider gave it)";

impl TenantPolicy {
    /// The request's tenant, read once, before anything is sent: every later use derives from the result.
    ///
    /// `explicit` is the tenant of the service that the request goes through.
    pub(crate) fn named(
        &self,
        explicit: Option<&TenantId>,
        in_request: Option<&TenantId>,
    ) -> Result<Option<TenantId>, Error> {
        let mut tenant: Option<TenantId> = None;
        for named in [self.fixed(), explicit, in_request].into_iter().flatten() {
            let named = self.normalized(named)?;
            match &tenant {
                None => tenant = Some(named.into_owned()),
                Some(tenant) if tenant == named.as_ref() => {}
                Some(_) => return Err(Error::Tenant { reason: TWO_TENANTS }),
            }
        }
        Ok(tenant)
    }

    /// The same, given what the caller's header says, if there is one.
    #[cold]
    pub(crate) fn tenant(
        &self,
        explicit: Option<&TenantId>,
        in_request: Option<&TenantId>,
        headers: &HeaderMap,
    ) -> Result<Option<TenantId>, Error> {
        if let Some(name) = &self.header
            && alike(headers, name).is_some()
        {
            return Err(Error::Tenant { reason: ALIKE });
        }
        self.agreed(self.named(explicit, in_request)?, headers)
    }

    /// Whether the tenant that a request names in its extensions is its tenant as it stands, where nothing else names one.
    #[inline]
    pub(crate) fn takes_any(&self) -> bool {
        self.source == Source::PerRequest && !self.normalized
    }

    #[inline]
    pub(crate) fn set_header(&self, tenant: &TenantId, headers: &mut HeaderMap) {
        if let Some(name) = &self.header {
            headers.insert(name, tenant.header_value().clone());
        }
    }

    /// The tenant, given what the caller's header says, if there is one.
    fn agreed(&self, mut tenant: Option<TenantId>, headers: &HeaderMap) -> Result<Option<TenantId>, Error> {
        if let Some(value) = self.callers_header(headers)? {
            tenant = self.reconciled(tenant, value)?;
        }
        match (&tenant, &self.source) {
            (None, Source::RequestHeader) if self.required => Err(Error::Tenant { reason: MISSING_IN_HEADER }),
            (None, _) if self.required => Err(Error::Tenant { reason: MISSING }),
            _ => Ok(tenant),
        }
    }

    /// The tenant of every request, where that is one and the same.
    pub(crate) fn fixed(&self) -> Option<&TenantId> {
        match &self.source {
            Source::Fixed(id) => Some(id),
            Source::PerRequest | Source::RequestHeader => None,
        }
    }

    /// The tenant of every token request, where that is one and the same.
    pub(crate) fn fixed_token_tenant(&self) -> Option<&TenantId> {
        self.fixed().filter(|_| self.per_tenant_tokens)
    }

    /// Whether each tenant has tokens of its own.
    pub(crate) fn has_own_tokens(&self) -> bool {
        self.per_tenant_tokens
    }

    /// Whether a token is of no use without knowing for which tenant.
    pub(crate) fn tokens_need_tenant(&self) -> bool {
        self.tokens_vary() && self.required
    }

    /// Whether the tenant of a request belongs to the identity of its token.
    #[inline]
    pub(crate) fn tokens_vary(&self) -> bool {
        self.per_tenant_tokens && !matches!(self.source, Source::Fixed(_))
    }

    /// The same for a tenant that is named outside of a request.
    pub(crate) fn partition_of(&self, tenant: &TenantId) -> Option<TenantId> {
        self.tokens_vary().then(|| self.normalized(tenant).map_or_else(|_| tenant.clone(), Cow::into_owned))
    }

    /// The header of the API's requests.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        self.header.as_ref()
    }

    /// The header of the token request.
    pub(crate) fn token_header(&self) -> Option<&HeaderName> {
        self.token_header.as_ref()
    }

    /// The parameter of the token request.
    pub(crate) fn token_param(&self) -> Option<&str> {
        self.token_param.as_deref()
    }

    fn callers_header<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h HeaderValue>, Error> {
        let Some(name) = &self.header else { return Ok(None) };
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        if values.next().is_some() { Err(Error::Tenant { reason: SEVERAL_HEADERS }) } else { Ok(first) }
    }

    /// The tenant, given that the caller's header says `value`.
    fn reconciled(&self, tenant: Option<TenantId>, value: &HeaderValue) -> Result<Option<TenantId>, Error> {
        if tenant.as_ref().is_some_and(|tenant| tenant.header_value() == value) {
            return Ok(tenant);
        }
        let malformed = |_| Error::Tenant { reason: MALFORMED };
        let text = value.to_str().map_err(|_| Error::Tenant { reason: MALFORMED })?;
        let in_header = self.normalized(&TenantId::new(text).map_err(malformed)?)?.into_owned();
        match tenant {
            Some(tenant) if tenant == in_header => Ok(Some(tenant)),
            None if self.source == Source::RequestHeader => Ok(Some(in_header)),
            Some(_) if self.source == Source::RequestHeader => Err(Error::Tenant { reason: TWO_TENANTS }),
            _ => Err(Error::Tenant { reason: OTHER_HEADER }),
        }
    }

    fn normalized<'t>(&self, id: &'t TenantId) -> Result<Cow<'t, TenantId>, Error> {
        if !self.normalized || !id.as_str().bytes().any(|byte| byte == b' ' || byte.is_ascii_uppercase()) {
            return Ok(Cow::Borrowed(id));
        }
        TenantId::new(normalize(id.as_str())).map(Cow::Owned).map_err(|_| Error::Tenant { reason: MALFORMED })
    }
}

fn normalize(id: &str) -> String {
    id.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_lowercase()).collect()
}

/// Where the tenant comes from; `Id` is checked or not yet.
#[derive(Clone, PartialEq, Eq)]
enum Source<Id> {
    PerRequest,
    Fixed(Id),
    RequestHeader,
}

impl<Id> fmt::Debug for Source<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerRequest => "PerRequest",
            Self::Fixed(_) => "Fixed([redacted])",
            Self::RequestHeader => "RequestHeader",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Extensions;

    use super::*;

    impl TenantPolicy {
        fn capture(
            &self,
            explicit: Option<&TenantId>,
            extensions: &Extensions,
            headers: &HeaderMap,
        ) -> Result<Option<TenantId>, Error> {
            self.tenant(explicit, extensions.get(), headers)
        }

        fn apply(&self, tenant: Option<&TenantId>, headers: &mut HeaderMap) {
            if let Some(tenant) = tenant {
                self.set_header(tenant, headers);
            }
        }

        fn partition<'t>(&self, tenant: Option<&'t TenantId>) -> Option<&'t TenantId> {
            tenant.filter(|_| self.tokens_vary())
        }
    }

    fn id(text: &str) -> TenantId {
        TenantId::new(text).unwrap()
    }

    /// Behaviour 151.
    #[test]
    fn a_header_that_cgi_reads_as_the_tenants_is_refused() {
        for policy in [
            Tenant::header("x-tenant"),
            Tenant::header("x-tenant").from_request_header(),
            Tenant::header("x-tenant").optional(),
        ] {
            let policy = policy.build().unwrap();
            for (name, is_alike) in
                [("x_tenant", true), ("x-tenants", false), ("x-tenant-", false), ("y_tenant", false)]
            {
                for value in ["anna", "berta"] {
                    let mut headers = HeaderMap::new();
                    headers.insert(HeaderName::from_static(name), value.parse().unwrap());
                    let is_special = super::super::SpecialHeaders::find(&headers, policy.header()).tenant;
                    assert_eq!(is_special, is_alike, "{name}");
                    let tenant = policy.tenant(None, Some(&id("anna")), &headers);
                    assert_eq!(tenant.is_err(), is_alike, "{name}");
                }
            }
        }
    }

    fn extensions(tenant: &str) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(id(tenant));
        extensions
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let name = HeaderName::from_static("tenant-id");
        values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value).unwrap())).collect()
    }

    fn per_request() -> TenantPolicy {
        Tenant::header("Tenant-Id").build().unwrap()
    }

    fn from_header() -> TenantPolicy {
        Tenant::header("Tenant-Id").from_request_header().build().unwrap()
    }

    #[track_caller]
    fn assert_reason(result: Result<Option<TenantId>, Error>, expected: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Tenant { reason } if reason == expected), "{error}");
    }

    /// Behaviour 96.
    #[test]
    fn a_missing_tenant_is_an_error_and_never_a_default() {
        let (nowhere, nothing) = (Extensions::new(), HeaderMap::new());
        assert_reason(per_request().capture(None, &nowhere, &nothing), MISSING);
        assert_reason(from_header().capture(None, &nowhere, &nothing), MISSING_IN_HEADER);
        let per_account = Tenant::without_header().token_header("x-account").build().unwrap();
        assert_reason(per_account.capture(None, &nowhere, &nothing), MISSING);

        let optional = Tenant::header("Tenant-Id").optional().build().unwrap();
        assert_eq!(optional.capture(None, &nowhere, &nothing).unwrap(), None);
        let mut sent = HeaderMap::new();
        optional.apply(None, &mut sent);
        assert!(sent.is_empty());
    }

    /// Behaviour 95.
    #[test]
    fn each_request_has_its_own_tenant_and_nothing_is_remembered() {
        let policy = per_request();
        for tenant in ["a", "b", "a"] {
            assert_eq!(policy.capture(None, &extensions(tenant), &HeaderMap::new()).unwrap(), Some(id(tenant)));
        }
        assert_reason(policy.capture(None, &Extensions::new(), &HeaderMap::new()), MISSING);
    }

    /// Behaviour 90.
    #[test]
    fn header_and_partition_derive_from_one_reading() {
        let policy = Tenant::header("Tenant-Id").per_tenant_tokens().normalized().build().unwrap();
        for (named, expected) in [("My Clinic", "myclinic"), ("Other  Clinic 2", "otherclinic2"), ("plain", "plain")] {
            let tenant = policy.capture(None, &extensions(named), &HeaderMap::new()).unwrap();
            let mut sent = HeaderMap::new();
            policy.apply(tenant.as_ref(), &mut sent);
            assert_eq!(policy.partition(tenant.as_ref()).unwrap().as_str(), expected);
            assert_eq!(sent["tenant-id"], expected);
        }
    }

    #[test]
    fn one_token_serves_all_tenants_unless_said_otherwise() {
        let tenant = id("a");
        assert_eq!(per_request().partition(Some(&tenant)), None);
        for own in [
            Tenant::header("T").per_tenant_tokens(),
            Tenant::without_header().token_header("X-ACCOUNT"),
            Tenant::without_header().token_param("x-account"),
        ] {
            let policy = own.build().unwrap();
            assert_eq!(policy.partition(Some(&tenant)), Some(&tenant));
            assert_eq!(policy.partition(None), None);
        }
    }

    /// Behaviour 57.
    #[test]
    fn the_header_is_there_once_and_sensitive_on_every_sending() {
        let policy = from_header();
        let mut sent = headers(&[b"a"]);
        let tenant = policy.capture(None, &Extensions::new(), &sent).unwrap();
        for _ in 0..2 {
            policy.apply(tenant.as_ref(), &mut sent);
            let values: Vec<_> = sent.get_all("tenant-id").iter().collect();
            assert_eq!(values, ["a"]);
            assert!(values[0].is_sensitive());
        }
    }

    #[test]
    fn without_a_header_nothing_is_set_or_read() {
        let policy = Tenant::without_header().token_header("X-ACCOUNT").token_param("x-account").build().unwrap();
        let mut sent = headers(&[b"anything"]);
        let tenant = policy.capture(Some(&id("a")), &Extensions::new(), &sent).unwrap();
        policy.apply(tenant.as_ref(), &mut sent);
        assert_eq!(sent, headers(&[b"anything"]));
        assert_eq!(policy.header(), None);
        assert_eq!(policy.token_header().unwrap(), "x-account");
        assert_eq!(policy.token_param(), Some("x-account"));
    }

    #[test]
    fn whatever_names_the_tenant_must_agree() {
        let nothing = HeaderMap::new();
        let policy = per_request();
        assert_eq!(policy.capture(Some(&id("a")), &extensions("a"), &nothing).unwrap(), Some(id("a")));
        assert_eq!(policy.capture(Some(&id("a")), &Extensions::new(), &nothing).unwrap(), Some(id("a")));
        assert_reason(policy.capture(Some(&id("a")), &extensions("b"), &nothing), TWO_TENANTS);

        let fixed = Tenant::header("Tenant-Id").fixed("My Clinic").normalized().build().unwrap();
        assert_eq!(fixed.capture(None, &Extensions::new(), &nothing).unwrap(), Some(id("myclinic")));
        assert_eq!(
            fixed.capture(Some(&id("MyClinic")), &extensions("my clinic"), &nothing).unwrap(),
            Some(id("myclinic"))
        );
        assert_reason(fixed.capture(None, &extensions("other"), &nothing), TWO_TENANTS);
        assert_reason(fixed.capture(Some(&id("other")), &Extensions::new(), &nothing), TWO_TENANTS);

        assert_reason(from_header().capture(None, &extensions("b"), &headers(&[b"a"])), TWO_TENANTS);
        assert_eq!(from_header().capture(None, &extensions("a"), &headers(&[b"a"])).unwrap(), Some(id("a")));
        assert_eq!(from_header().capture(None, &extensions("a"), &nothing).unwrap(), Some(id("a")));
    }

    #[test]
    fn nobody_picks_a_tenant_by_sending_a_header() {
        let optional = Tenant::header("Tenant-Id").optional().build().unwrap();
        assert_reason(optional.capture(None, &Extensions::new(), &headers(&[b"a"])), OTHER_HEADER);
        for policy in [per_request(), optional, Tenant::header("TENANT-ID").fixed("b").build().unwrap()] {
            assert_reason(policy.capture(None, &extensions("b"), &headers(&[b"a"])), OTHER_HEADER);
            assert_reason(policy.capture(None, &extensions("b"), &headers(&[b"b", b"b"])), SEVERAL_HEADERS);
            assert_eq!(policy.capture(None, &extensions("b"), &headers(&[b"b"])).unwrap(), Some(id("b")));
        }
        let normalized = Tenant::header("Tenant-Id").normalized().build().unwrap();
        let same = normalized.capture(None, &extensions("My Clinic"), &headers(&[b"my CLINIC"])).unwrap();
        assert_eq!(same, Some(id("myclinic")));
    }

    #[test]
    fn a_tenant_header_is_read_where_that_is_configured() {
        let policy = from_header();
        let read = |values: &[&[u8]]| policy.capture(None, &Extensions::new(), &headers(values));
        assert_eq!(read(&[b"My Clinic"]).unwrap(), Some(id("My Clinic")));
        assert_reason(read(&[b"a", b"b"]), SEVERAL_HEADERS);
        for malformed in [&b""[..], b" ", b" a", b"a ", b"a\tb", b"a\x80", b"\xc3\xb6"] {
            assert_reason(read(&[malformed]), MALFORMED);
        }
        let long = [b'a'; 257];
        assert_reason(read(&[&long]), MALFORMED);

        let normalized = Tenant::header("Tenant-Id").from_request_header().normalized().build().unwrap();
        let tenant = normalized.capture(None, &Extensions::new(), &headers(&[b"My Clinic"])).unwrap();
        assert_eq!(tenant, Some(id("myclinic")));
    }

    #[test]
    fn settings_are_checked_and_the_id_is_not_quoted() {
        for bad in ["", "canary\r", "canary\n", "canary\0", "canary\x7f", "canary\u{80}", " canary", "canary\tx"] {
            let error = Tenant::header("Tenant-Id").fixed(bad).build().expect_err(bad);
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        assert!(Tenant::header("Tenant-Id").fixed("  ").normalized().build().is_err(), "empty once normalised");
        assert!(Tenant::header("Tenant-Id").fixed(" My Clinic ").normalized().build().is_ok());

        for name in ["", "a b", "a\r\nb", "Authorization", "host", "Connection", "TE", "Content-Length"] {
            assert!(Tenant::header(name).build().is_err(), "{name:?}");
            assert!(Tenant::without_header().token_header(name).build().is_err(), "{name:?}");
        }
        assert!(Tenant::without_header().token_param("").build().is_err());
        assert!(Tenant::without_header().token_param("x").from_request_header().build().is_err());
        assert!(Tenant::without_header().build().is_err(), "it would change nothing");
        assert!(Tenant::header("T").from_request_header().fixed("a").build().is_ok(), "the last source counts");
    }

    /// Behaviour 103.
    #[test]
    fn debug_does_not_tell_the_tenant() {
        let tenant = Tenant::header("Tenant-Id").fixed("canary");
        assert!(!format!("{tenant:?}").contains("canary"));
        assert!(!format!("{:?}", tenant.build().unwrap()).contains("canary"));
    }
}
