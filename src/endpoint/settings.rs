//! `EndpointSettings`: everything that differs from one token endpoint to another, as data.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::discovery::TokenAt;
use super::{AnswerSettings, BodyEncoding, ClientAuth, DirectorySettings, Grant};
#[cfg(feature = "dpop")]
use crate::dpop::DpopKey;
use crate::types::{ConfigError, Scopes, Secret, check_line, is_absolute_uri};

/// How token requests are made and their answers read.
#[derive(Clone)]
pub(crate) struct EndpointSettings {
    pub(crate) url: TokenAt,
    /// Where refresh tokens go, if not to `url`.
    pub(crate) refresh_url: Option<Uri>,
    /// RFC 7009.
    pub(crate) revocation_url: Option<Uri>,
    /// RFC 8628.
    pub(crate) device_url: Option<Uri>,
    /// Where each tenant's own endpoint is found; `url` then means nothing.
    pub(crate) directory: Option<DirectorySettings>,
    pub(crate) grant: Grant,
    pub(crate) encoding: BodyEncoding,
    /// Concerns the configured grant; a refresh always says that it is one.
    pub(crate) send_grant_type: bool,
    pub(crate) scopes: Option<Scopes>,
    pub(crate) send_scopes_on_refresh: bool,
    /// A token with fewer scopes than asked for is an error.
    pub(crate) require_granted: bool,
    /// What the token is for (RFC 8707 §2): absolute URIs.
    pub(crate) resources: Vec<String>,
    /// For whom it is, by the server's names.
    pub(crate) audiences: Vec<String>,
    /// For whom assertions are that are made here, if not for the issuer or the token URL.
    pub(crate) assertion_audience: Option<String>,
    /// Whose tokens they are, where people sign in or functions make assertions.
    pub(crate) account: Option<String>,
    /// Each tenant has tokens of its own.
    pub(crate) per_tenant: bool,
    pub(crate) params: Vec<Param>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) tenant_header: Option<HeaderName>,
    pub(crate) tenant_param: Option<String>,
    /// For one exchange, from sending to the last byte.
    pub(crate) timeout: Duration,
    /// In bytes.
    pub(crate) max_body: usize,
    /// Codes besides `invalid_grant` that mean: this refresh token is dead.
    pub(crate) dead_refresh_codes: Vec<String>,
    pub(crate) answer: AnswerSettings,
    /// The key that tokens are bound to.
    #[cfg(feature = "dpop")]
    pub(crate) dpop: Option<DpopKey>,
}

impl EndpointSettings {
    const MAX_BODY_LIMIT: usize = 1024 * 1024;
    /// Of one exchange: two of them fit into the default deadline of a refresh.
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

    /// Of an endpoint whose URL is not known yet.
    pub(crate) fn unlocated(grant: Grant) -> Self {
        Self {
            url: TokenAt::Url(Uri::default()),
            refresh_url: None,
            revocation_url: None,
            device_url: None,
            directory: None,
            grant,
            encoding: BodyEncoding::Form,
            send_grant_type: true,
            scopes: None,
            send_scopes_on_refresh: false,
            require_granted: false,
            resources: Vec::new(),
            audiences: Vec::new(),
            assertion_audience: None,
            account: None,
            per_tenant: false,
            params: Vec::new(),
            headers: Vec::new(),
            tenant_header: None,
            tenant_param: None,
            timeout: Self::TIMEOUT,
            max_body: 256 * 1024,
            dead_refresh_codes: Vec::new(),
            answer: AnswerSettings::default(),
            #[cfg(feature = "dpop")]
            dpop: None,
        }
    }

    pub(crate) fn new(url: TokenAt, grant: Grant) -> Self {
        Self { url, ..Self::unlocated(grant) }
    }

    /// The URLs were checked when they were parsed.
    ///
    /// # Errors
    /// A limit out of bounds, a parameter that the crate sends itself.
    pub(crate) fn validate(&self, auth: &ClientAuth) -> Result<(), ConfigError> {
        if self.timeout.is_zero() {
            return Err(ConfigError::new("the timeout of token requests is zero", "10 s is the default"));
        }
        if !(1..=Self::MAX_BODY_LIMIT).contains(&self.max_body) {
            return Err(ConfigError::new(
                "the size limit of token answers is not between 1 byte and 1 MiB",
                "256 KiB is the default",
            ));
        }
        let own = |name: &str| match name {
            "grant_type" => self.send_grant_type,
            "client_id" => auth.sends_client_id(),
            "client_secret" | "client_assertion" | "client_assertion_type" | "refresh_token" | "scope" => true,
            _ => self.grant.sends(name),
        };
        if self.params.iter().any(|param| param.name.is_empty() || own(&param.name)) {
            return Err(ConfigError::new(
                "an extra token parameter has no name, or the name of one that is sent anyway",
                "a parameter may be sent once only (RFC 6749 §3.2); use the setting of that name",
            ));
        }
        self.check_repeated()?;
        self.answer.validate()?;
        self.dead_refresh_codes.iter().try_for_each(|code| check_line("error code of a dead refresh token", code))?;
        if !self.resources.iter().all(|resource| is_absolute_uri(resource)) {
            return Err(ConfigError::new(
                "a resource is not an absolute URI without a fragment (RFC 8707 §2)",
                "write it as in https://api.example.com/orders; for a name that is no URI use `audience`",
            ));
        }
        // A second one of the same name is answered by some servers with an error, by others with either of them.
        if let Some(name) = &self.tenant_param
            && (own(name) || name == "client_id" || name == "claims" || self.is_sent(name))
        {
            return Err(ConfigError::new(
                "the tenant's parameter of the token request has the name of one that is sent anyway",
                "a parameter may be sent once only (RFC 6749 §3.2); name the one that the provider has for tenants",
            ));
        }
        if self.account.as_deref().is_some_and(str::is_empty) {
            return Err(ConfigError::new("the account has no name", "leave `account` out where tokens are not stored"));
        }
        self.audiences.iter().try_for_each(|audience| check_line("audience", audience))?;
        self.assertion_audience.iter().try_for_each(|audience| check_line("assertions' audience", audience))?;
        if self.answer.require_dpop && !self.binds_tokens() {
            return Err(ConfigError::new(
                "tokens must be bound to a key, and there is none",
                "set it with `.dpop(..)`",
            ));
        }
        self.grant.validate()
    }

    /// How proofs are signed, where tokens are bound to a key.
    pub(crate) fn proof_algorithm(&self) -> Option<&'static str> {
        #[cfg(feature = "dpop")]
        return self.dpop.as_ref().map(|key| key.algorithm().as_str());
        #[cfg(not(feature = "dpop"))]
        return None;
    }

    /// # Errors
    /// A parameter or a header of the token request is set twice, so that nobody knows which of the two counts.
    fn check_repeated(&self) -> Result<(), ConfigError> {
        // The two that may be sent more than once (RFC 8707 §2, RFC 8693 §2.1), where there is no setting for them too.
        let set_elsewhere = |name: &str| match name {
            "resource" => !self.resources.is_empty(),
            "audience" => !self.audiences.is_empty(),
            _ => self.params.iter().filter(|other| other.name == name).count() > 1,
        };
        if self.params.iter().any(|param| set_elsewhere(&param.name)) {
            return Err(ConfigError::new(
                "a parameter of the token request is set twice",
                "a parameter may be sent once only (RFC 6749 §3.2); leave one of the two out",
            ));
        }
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name).chain(&self.tenant_header).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        match names.windows(2).find(|pair| matches!(pair, [one, other] if one == other)).and_then(<[_]>::first) {
            Some(name) => Err(ConfigError::new(
                format!("the header {name} of the token request is set twice"),
                "leave one of the two out; the tenant's header counts, too",
            )),
            None => Ok(()),
        }
    }

    fn is_sent(&self, name: &str) -> bool {
        self.params.iter().any(|param| param.name == name)
            || (name == "resource" && !self.resources.is_empty())
            || (name == "audience" && !self.audiences.is_empty())
    }

    /// Whether nothing says whose tokens they are: in a store they would be everybody's.
    pub(crate) fn is_nameless(&self, auth: &ClientAuth) -> bool {
        self.account.is_none() && !self.per_tenant && (self.grant.is_nameless() || auth.is_nameless())
    }

    /// Whether tokens of the type `DPoP` are of use.
    pub(crate) fn binds_tokens(&self) -> bool {
        #[cfg(feature = "dpop")]
        return self.dpop.is_some();
        #[cfg(not(feature = "dpop"))]
        return false;
    }
}

/// Leaves URLs, parameters and headers out: users put keys into all three.
impl fmt::Debug for EndpointSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSettings")
            .field("host", &self.url.uri().host())
            .field("grant", &self.grant)
            .field("encoding", &self.encoding)
            .field("scopes", &self.scopes)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An extra parameter of the token request, such as `audience`.
#[derive(Clone)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) value: Secret<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> EndpointSettings {
        EndpointSettings::new(url.parse().unwrap(), Grant::ClientCredentials)
    }

    #[test]
    fn a_parameter_that_is_sent_anyway_is_refused() {
        let mut settings = with_url("https://a.example/t");
        settings.params.push(Param { name: "client_secret".into(), value: Secret::from("x") });
        assert!(settings.validate(&ClientAuth::none("id")).is_err());
        settings.params = vec![Param { name: "grant_type".into(), value: Secret::from("password") }];
        assert!(settings.validate(&ClientAuth::none("id")).is_err());
        settings.send_grant_type = false;
        assert!(settings.validate(&ClientAuth::none("id")).is_ok());
        settings.params = vec![Param { name: "client_id".into(), value: Secret::from("other") }];
        for (auth, good) in [
            (ClientAuth::none("id"), false),
            (ClientAuth::body("id", "secret"), false),
            (ClientAuth::assertion("x").with_client_id("id"), false),
            (ClientAuth::basic("id", "secret"), true),
            (ClientAuth::assertion("x"), true),
        ] {
            assert_eq!(settings.validate(&auth).is_ok(), good, "{auth:?}");
        }
    }

    #[test]
    fn a_tenants_parameter_is_sent_once() {
        let mut settings = with_url("https://a.example/t");
        settings.params.push(Param { name: "account".into(), value: Secret::from("x") });
        settings.audiences.push("a".into());
        for (name, good) in
            [("scope", false), ("client_id", false), ("account", false), ("audience", false), ("tenant", true)]
        {
            settings.tenant_param = Some(name.into());
            assert_eq!(settings.validate(&ClientAuth::none("id")).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn a_resource_is_an_absolute_uri_without_a_fragment() {
        for good in ["https://api.example.com", "https://a.example/x?y=z%20", "urn:example:api", "api://1-2/scope"] {
            assert!(is_absolute_uri(good), "{good}");
        }
        for bad in ["", "api", "/orders", "https:", ":x", "1a:b", "https://a.example/#x", "https://a.example/ b", "a:é"]
        {
            assert!(!is_absolute_uri(bad), "{bad}");
            let mut settings = with_url("https://a.example/t");
            settings.resources.push(bad.into());
            assert!(settings.validate(&ClientAuth::none("id")).is_err(), "{bad}");
        }
    }
}
