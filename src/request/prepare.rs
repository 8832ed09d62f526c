//! `RequestPolicy`: the one entry into this module. A request is prepared once; at each sending its token is put in.

use std::borrow::Cow;

use http::{Extensions, HeaderValue};

#[cfg(feature = "dpop")]
use super::Origin;
use super::inject::withhold;
use super::replay::may_replay;
use super::{
    Admission, HttpRequest, Injection, OriginPolicy, ReplayAttempt, ReplayPolicy, SpecialHeaders, SubjectPolicy,
    TenantPolicy,
};
use crate::types::{Error, Replay, Resend, Scopes, SkipAuth, TenantId, TokenParams};

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
#[derive(Clone, Default)]
pub(crate) struct Own {
    tenant: Option<TenantId>,
    /// What that and the configuration come to, where no request can name another.
    agreed_tenant: Option<TenantId>,
    params: Option<TokenParams>,
}

impl Own {
    pub(crate) fn new(policy: &RequestPolicy, tenant: Option<TenantId>, params: Option<TokenParams>) -> Self {
        let named = |policy: &TenantPolicy| policy.named(tenant.as_ref(), None).ok().flatten();
        Self { agreed_tenant: policy.tenant.as_ref().and_then(named), tenant, params }
    }

    pub(crate) fn with_tenant(&self, policy: &RequestPolicy, tenant: TenantId) -> Self {
        Self::new(policy, Some(tenant), self.params.clone())
    }

    pub(crate) fn with_params(&self, params: TokenParams) -> Self {
        Self { params: Some(params), ..self.clone() }
    }

    /// A copy with reference counts of its own, so that two threads with one each do not write to one counter.
    pub(crate) fn deep_clone(&self) -> Self {
        Self { agreed_tenant: self.agreed_tenant.as_ref().map(TenantId::deep_clone), ..self.clone() }
    }
}

/// Which of our types a request has in its extensions.
#[derive(Clone, Copy, Default)]
struct Options {
    skip_auth: bool,
    tenant: bool,
    scopes: bool,
    params: bool,
    is_resend: bool,
    replay: Option<Replay>,
}

impl Options {
    /// Each is looked for while there is anything that was not found yet. The most frequent first.
    #[inline(never)]
    fn read(extensions: &Extensions) -> Self {
        let mut left = extensions.len();
        Self {
            tenant: next::<TenantId>(extensions, &mut left).is_some(),
            replay: next(extensions, &mut left).copied(),
            skip_auth: next::<SkipAuth>(extensions, &mut left).is_some(),
            scopes: next::<Scopes>(extensions, &mut left).is_some(),
            params: next::<TokenParams>(extensions, &mut left).is_some(),
            is_resend: next::<Resend>(extensions, &mut left).is_some(),
        }
    }
}

#[inline]
fn next<'r, T: Clone + Send + Sync + 'static>(extensions: &'r Extensions, left: &mut usize) -> Option<&'r T> {
    if *left == 0 {
        return None;
    }
    let found = extensions.get();
    *left = left.saturating_sub(usize::from(found.is_some()));
    found
}

fn extension<R: HttpRequest, T: Clone + Send + Sync + 'static>(request: &R) -> Option<&T> {
    request.extensions().and_then(Extensions::get)
}

/// Whether a request gets a token.
pub(crate) enum Prepared {
    /// It is sent as it is.
    Bare,
    WithToken(Plan),
}

/// How a request with a token is to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    tenant: TenantFrom,
    /// Its token is not that of the default partition: ask for its [`identity`](RequestPolicy::identity).
    pub(crate) has_identity: bool,
    /// It may be sent twice, if its body can be.
    pub(crate) may_replay: bool,
    /// This already is a second sending, by an outer layer of this crate.
    pub(crate) outer: bool,
}

/// Where the value of the tenant header is. The same at each sending, so nobody carries the value itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TenantFrom {
    /// In the header, if there is one.
    Header,
    /// The service has one for all its requests.
    Service,
    /// In the request's extensions.
    Extensions,
}

/// What makes a token another one than that of the default partition.
pub(crate) struct Identity {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) scopes: Option<Scopes>,
    pub(crate) params: Option<TokenParams>,
}

/// A caller that names a tenant relies on it.
const NO_TENANTS: &str = "the request names a tenant, and this layer has none configured (`.tenant(..)`)";
#[cfg(feature = "dpop")]
const NO_ORIGIN: &str =
    "does not say where it goes, which its proof must name: of several origins choose with `.dpop_origin(..)`";

impl RequestPolicy {
    /// Everything that needs no token, once for each request: whether it may have one, of which tenant it is, how often it
    /// may be sent. The error is boxed so that the result is returned in registers.
    pub(crate) fn prepare<R: HttpRequest>(&self, request: &mut R, own: &Own) -> Result<Prepared, Box<Error>> {
        let options = request.extensions().map_or_else(Options::default, Options::read);
        if options.skip_auth {
            return Ok(Prepared::Bare);
        }
        let tenant_name = self.tenant.as_ref().and_then(TenantPolicy::header);
        let special = SpecialHeaders::find(request.headers(), tenant_name);
        let admission = request.admission(&self.origins, special)?;
        if admission == Admission::NoCredentials {
            withhold(request.headers_mut(), tenant_name);
            return Ok(Prepared::Bare);
        }
        let is_ours = self.injection.admits(request.headers(), special, tenant_name)?;
        let policy = options.replay.unwrap_or(self.replay.replay);
        let may_replay = !options.is_resend && may_replay(policy, request.method(), special);
        let may_have_params = options.params || own.params.is_some() || self.subject == SubjectPolicy::Required;
        let mut plan = Plan {
            tenant: TenantFrom::Header,
            has_identity: options.scopes || may_have_params,
            may_replay,
            outer: options.is_resend,
        };
        match &self.tenant {
            // Nearly every request: the tenant is named in one place.
            Some(policy) if !special.tenant && own.agreed_tenant.is_some() && !options.tenant => {
                plan.tenant = TenantFrom::Service;
                plan.has_identity |= policy.tokens_vary();
            }
            Some(policy) if !special.tenant && own.tenant.is_none() && options.tenant && policy.takes_any() => {
                plan.tenant = TenantFrom::Extensions;
                plan.has_identity |= policy.tokens_vary();
            }
            Some(policy) => {
                let tenant = policy.tenant(own.tenant.as_ref(), extension(request), request.headers())?;
                plan.has_identity |= tenant.is_some() && policy.tokens_vary();
                if let Some(tenant) = tenant {
                    policy.set_header(&tenant, request.headers_mut());
                }
            }
            None if options.tenant || own.tenant.is_some() => {
                return Err(Error::Tenant { reason: NO_TENANTS }.into());
            }
            None => {}
        }
        if !is_ours {
            self.set_tenant(request, own, plan);
            return Ok(Prepared::Bare);
        }
        #[cfg(feature = "dpop")]
        if self.proof_origin.is_some() {
            self.origin_for_proof(request)?;
        }
        Ok(Prepared::WithToken(plan))
    }

    /// What makes a prepared request's token another one than that of the default partition.
    #[inline(never)]
    pub(crate) fn identity<R: HttpRequest>(&self, request: &R, own: &Own, plan: Plan) -> Result<Identity, Error> {
        let params = self.subject.params(own.params.as_ref(), extension(request))?;
        let tenant = match &self.tenant {
            Some(policy) if policy.tokens_vary() => match plan.tenant {
                TenantFrom::Service => own.agreed_tenant.clone(),
                TenantFrom::Extensions => extension(request).cloned(),
                TenantFrom::Header => policy.tenant(own.tenant.as_ref(), extension(request), request.headers())?,
            },
            _ => None,
        };
        Ok(Identity { tenant, scopes: extension(request).cloned(), params })
    }

    /// Keeps what a second sending of a prepared request needs. To be called before anything is put in: the copy is not
    /// wiped, and a second sending has another token.
    #[inline]
    pub(crate) fn copy_for_replay<R: HttpRequest>(
        &self,
        request: &R,
        plan: Plan,
        vtable: R::ReplayVtable,
    ) -> ReplayAttempt<R::ReplayCopy> {
        if plan.may_replay { request.copy_for_replay(vtable) } else { ReplayAttempt::Done(None) }
    }

    /// The same where the body must be recorded for it.
    #[cold]
    pub(crate) fn record<R: HttpRequest>(&self, request: R, vtable: R::ReplayVtable) -> (R, Option<R::ReplayCopy>) {
        request.record(vtable, self.replay.cap)
    }

    /// Puts token and tenant into a prepared request, at each sending.
    #[inline]
    pub(crate) fn inject<R: HttpRequest>(&self, request: &mut R, token: Cow<'_, HeaderValue>, own: &Own, plan: Plan) {
        self.set_tenant(request, own, plan);
        self.injection.apply(token.into_owned(), request.headers_mut());
    }

    #[inline]
    fn set_tenant<R: HttpRequest>(&self, request: &mut R, own: &Own, plan: Plan) {
        let Some(policy) = &self.tenant else { return };
        match plan.tenant {
            TenantFrom::Header => {}
            TenantFrom::Service => {
                if let Some(tenant) = &own.agreed_tenant {
                    policy.set_header(tenant, request.headers_mut());
                }
            }
            TenantFrom::Extensions => {
                if let Some(tenant) = extension::<R, TenantId>(request).cloned() {
                    policy.set_header(&tenant, request.headers_mut());
                }
            }
        }
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
}
