//! `RequestPolicy`: the one entry into this module. `prepare` makes a request ready to be sent, `send` sends it.

use http::{Extensions, HeaderValue};

#[cfg(feature = "dpop")]
use super::Origin;
use super::inject::withhold;
use super::replay::may_replay;
use super::{
    Admission, HttpRequest, Injection, OriginPolicy, ReplayAttempt, ReplayPolicy, SpecialHeaders, SubjectPolicy,
    TenantPolicy,
};
use crate::types::{Error, Resend, Scopes, SkipAuth, TenantId, TokenParams};

/// What a configuration says about single requests.
pub(crate) struct RequestPolicy {
    pub(crate) origins: OriginPolicy,
    pub(crate) tenant: Option<TenantPolicy>,
    pub(crate) subject: SubjectPolicy,
    pub(crate) injection: Injection,
    pub(crate) replay: ReplayPolicy,
    /// There where tokens are bound to a key.
    #[cfg(feature = "dpop")]
    pub(crate) proof_origin: Option<ProofOrigin>,
}

/// Proofs name the origin of a request (RFC 9449 §4.2).
#[cfg(feature = "dpop")]
pub(crate) struct ProofOrigin {
    /// Of a request that does not say where it goes, where several origins are allowed.
    pub(crate) assumed: Option<Origin>,
}

/// What the service says that a request goes through, for all its requests.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) tenant: Option<&'a TenantId>,
    /// What that and the configuration come to, once it is known.
    pub(crate) agreed_tenant: Option<&'a TenantId>,
    pub(crate) params: Option<&'a TokenParams>,
}

/// How a request is to be sent.
pub(crate) enum Prepared {
    /// As it is, without a token.
    Bare,
    /// With the token of this partition.
    WithToken { tenant: Option<TenantId>, scopes: Option<Scopes>, params: Option<TokenParams>, resending: Resending },
}

/// How often a request may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Resending {
    /// It may be sent twice, if its body can be.
    pub(crate) may_replay: bool,
    /// This already is a second sending, by an outer layer of this crate.
    pub(crate) outer: bool,
}

/// Whoever names a tenant relies on its being heard.
const NO_TENANTS: &str = "the request names a tenant, and this layer has none configured (`.tenant(..)`)";
#[cfg(feature = "dpop")]
const NO_ORIGIN: &str =
    "does not say where it goes, which its proof must name: of several origins choose with `.dpop_origin(..)`";

impl RequestPolicy {
    /// Everything that needs no token: checks, the tenant, the headers that are the same on each sending.
    #[inline]
    pub(crate) fn prepare<R: HttpRequest>(&self, request: &mut R, own: Own<'_>) -> Result<Prepared, Error> {
        let extensions = request.extensions();
        if extensions.is_some_and(|extensions| extensions.get::<SkipAuth>().is_some()) {
            return Ok(Prepared::Bare);
        }
        let tenant_header = self.tenant.as_ref().and_then(TenantPolicy::header);
        let special = SpecialHeaders::find(request.headers(), tenant_header);
        if matches!(request.admission(&self.origins, special)?, Admission::NoCredentials) {
            withhold(request.headers_mut(), tenant_header);
            return Ok(Prepared::Bare);
        }
        let policy = extensions.and_then(|extensions| extensions.get()).copied().unwrap_or(self.replay.replay);
        let outer = extensions.is_some_and(|extensions| extensions.get::<Resend>().is_some());
        let resending = Resending { may_replay: !outer && may_replay(policy, request.method(), special), outer };
        let named = extensions.and_then(Extensions::get::<TenantId>);
        let named = match &self.tenant {
            Some(policy) => match (named, own.agreed_tenant) {
                (None, Some(tenant)) => Some(tenant.clone()),
                (named, _) => policy.named(own.tenant, named)?,
            },
            None if named.is_some() || own.tenant.is_some() => return Err(Error::Tenant { reason: NO_TENANTS }),
            None => None,
        };
        let is_ours = self.injection.admits(request.headers(), special, tenant_header)?;
        let tenant = match &self.tenant {
            Some(policy) => policy.stamp(named, special.tenant, request.headers_mut())?,
            None => None,
        };
        if !is_ours {
            return Ok(Prepared::Bare);
        }
        #[cfg(feature = "dpop")]
        if self.proof_origin.is_some() {
            self.origin_for_proof(request)?;
        }
        let scopes = request.extensions().and_then(|extensions| extensions.get::<Scopes>()).cloned();
        let params = self.subject.params(own.params, request)?;
        Ok(Prepared::WithToken { tenant, scopes, params, resending })
    }

    /// Sends a prepared request with this token: `call` gets it, and what is kept of it where it may be sent again.
    ///
    /// Out of line and with a closure, so that the request is not copied on its way from the caller to the inner service.
    #[inline(never)]
    pub(crate) fn send<R: HttpRequest, O>(
        &self,
        mut request: R,
        token: HeaderValue,
        vtable: R::ReplayVtable,
        may_replay: bool,
        call: impl FnOnce(R, Option<R::ReplayCopy>) -> O,
    ) -> O {
        // Before the token is put in: the copy is not wiped.
        let copy = match if may_replay { request.copy_for_replay(vtable) } else { ReplayAttempt::Done(None) } {
            ReplayAttempt::Done(copy) => copy,
            ReplayAttempt::ByRecording => {
                let copy;
                (request, copy) = request.record(vtable, self.replay.cap);
                copy
            }
        };
        self.injection.apply(token, request.headers_mut());
        call(request, copy)
    }

    /// The origin that the proof of an admitted request names.
    #[cfg(feature = "dpop")]
    #[cold]
    pub(crate) fn origin_for_proof<R: HttpRequest>(&self, request: &R) -> Result<&Origin, Error> {
        let assumed = self.proof_origin.as_ref().and_then(|origin| origin.assumed.as_ref());
        request
            .place(&self.origins, assumed)
            .ok_or_else(|| Error::Origin { origin: "the request".into(), reason: NO_ORIGIN })
    }

    /// The tenant of a service, where all its requests have one and the same.
    pub(crate) fn own_tenant(&self, named: Option<&TenantId>) -> Option<TenantId> {
        self.tenant.as_ref().and_then(|policy| policy.named(named, None).ok().flatten())
    }
}
