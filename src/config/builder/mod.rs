//! `AuthConfigBuilder`: collects settings, and checks them all at once.

#[cfg(feature = "dpop")]
mod dpop;
mod endpoint;
mod observe;
mod renewal;
mod requests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "dpop")]
use super::Binding;
use super::{AuthConfig, EndpointConfig, External};
#[cfg(feature = "dpop")]
use crate::dpop::DpopKey;
use crate::engine::EnginePolicy;
use crate::request::{
    ExistingAuthorization, Injection, OriginPolicy, ReplayPolicy, SubjectPolicy, Tenant, TenantPolicy, UnlistedOrigin,
};
use crate::response::RejectionPolicy;
use crate::telemetry::Observer;
use crate::types::{Clock, ConfigError, SystemClock};

use endpoint::EndpointDraft;

/// Collects settings; [`build`](AuthConfigBuilder::build) checks them all at once.
///
/// No setter fails, so that a chain reads as one sentence. Each setter tells its default and the reason for it. A setting
/// that nothing would obey is an error of `build`, or there is no such setter: a builder of
/// [`AuthConfig::external`] has none of the token endpoint's.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build()`"]
pub struct AuthConfigBuilder<E = EndpointDraft> {
    /// What only one of the two kinds of configuration has.
    endpoint: E,
    engine: EnginePolicy,
    origins: Vec<String>,
    foreign: UnlistedOrigin,
    allow_http: bool,
    tenant: Option<Tenant>,
    existing: ExistingAuthorization,
    default_headers: Vec<(String, String)>,
    replay: ReplayPolicy,
    rejection: RejectionPolicy,
    #[cfg(feature = "dpop")]
    dpop: Option<DpopKey>,
    #[cfg(feature = "dpop")]
    dpop_origin: Option<String>,
    clock: Arc<dyn Clock>,
    name: Option<String>,
    observer: Option<Observer>,
}

impl<E> AuthConfigBuilder<E> {
    pub(super) fn new(endpoint: E) -> Self {
        Self {
            endpoint,
            engine: EnginePolicy::default(),
            origins: Vec::new(),
            foreign: UnlistedOrigin::default(),
            allow_http: false,
            tenant: None,
            existing: ExistingAuthorization::default(),
            default_headers: Vec::new(),
            replay: ReplayPolicy::default(),
            rejection: RejectionPolicy::default(),
            #[cfg(feature = "dpop")]
            dpop: None,
            #[cfg(feature = "dpop")]
            dpop_origin: None,
            clock: Arc::new(SystemClock),
            name: None,
            observer: None,
        }
    }

    fn check<C>(
        self,
        endpoint: impl FnOnce(&Self, Option<&TenantPolicy>) -> Result<(C, SubjectPolicy), ConfigError>,
        host: impl FnOnce(&C) -> Option<String>,
    ) -> Result<AuthConfig<C>, ConfigError> {
        let tenant = self.tenant.clone().map(Tenant::build).transpose()?;
        if self.origins.is_empty() {
            return Err(ConfigError::new(
                "no origin may receive tokens",
                "name the API's with `.origin(\"https://api.example.com\")`",
            ));
        }
        let origins = OriginPolicy::build(&self.origins, self.foreign, self.allow_http)?;
        let mut injection = Injection::new(self.existing);
        for (name, value) in &self.default_headers {
            injection.set_if_absent(name, value)?;
        }
        if let Some(name) = tenant.as_ref().and_then(TenantPolicy::header)
            && injection.sets_if_absent(name)
        {
            return Err(ConfigError::new(
                format!("the tenant's header {name} has a default value, and there is no default tenant"),
                "leave `default_header` out, or use `Tenant::fixed`",
            ));
        }
        self.rejection.validate()?;
        self.engine.validate()?;
        let (endpoint, subject) = endpoint(&self, tenant.as_ref())?;
        let telemetry = self.telemetry(host(&endpoint))?;
        Ok(AuthConfig {
            endpoint,
            subject,
            #[cfg(feature = "dpop")]
            binding: self.binding(&origins)?,
            engine: self.engine,
            origins,
            tenant,
            injection,
            replay: self.replay,
            rejection: self.rejection,
            clock: self.clock,
            telemetry,
        })
    }

    #[cfg(feature = "dpop")]
    fn binding(&self, origins: &OriginPolicy) -> Result<Option<Binding>, ConfigError> {
        let assumed = self.dpop_origin.as_ref().map(|origin| origins.listed(origin)).transpose()?;
        match &self.dpop {
            Some(key) => Ok(Some(Binding { key: key.clone(), assumed })),
            None if assumed.is_some() => Err(ConfigError::new(
                "there is an origin for proofs, and no key to prove",
                "set it with `.dpop(..)`, or leave `dpop_origin` out",
            )),
            None => Ok(None),
        }
    }
}

impl AuthConfigBuilder {
    /// Checks everything, without I/O.
    ///
    /// The built-in HTTP client is made by the first token request;
    /// [`AuthLayerBuilder::build`](crate::AuthLayerBuilder::build) tells before whether it can be made.
    ///
    /// # Errors
    /// The first thing that is wrong, and how to mend it. No secret is quoted.
    pub fn build(self) -> Result<AuthConfig, ConfigError> {
        let mut cfg = self.check(
            |builder, tenant| {
                let endpoint = builder.endpoint(tenant)?;
                let subject = if endpoint.settings.grant.needs_subject() {
                    SubjectPolicy::Required
                } else {
                    SubjectPolicy::Unused
                };
                Ok((endpoint, subject))
            },
            EndpointConfig::host,
        )?;
        cfg.engine.permit_timeout = cfg.endpoint.settings.timeout;
        cfg.engine.has_primary_grant = cfg.endpoint.settings.grant.is_primary();
        Ok(cfg)
    }
}

impl AuthConfigBuilder<External> {
    /// Checks everything, without I/O.
    ///
    /// # Errors
    /// The first thing that is wrong, and how to mend it. No secret is quoted.
    pub fn build(self) -> Result<AuthConfig<External>, ConfigError> {
        self.check(
            |_, tenant| match tenant {
                Some(tenant) if tenant.token_header().is_some() || tenant.token_param().is_some() => {
                    Err(ConfigError::new(
                        "the tenant is to go into token requests, and there is no token endpoint",
                        "use `per_tenant_tokens`: the source finds the tenant in `TokenRequest::tenant`",
                    ))
                }
                _ => Ok((External, SubjectPolicy::Optional)),
            },
            |_| None,
        )
    }
}

impl<E> fmt::Debug for AuthConfigBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfigBuilder").finish_non_exhaustive()
    }
}
