//! What is done to a request, behind [`RequestPolicy`]; knows nothing of how tokens are made.

mod body;
#[cfg(feature = "reqwest-middleware")]
mod extended;
mod head;
mod inject;
mod message;
mod origin;
mod params;
mod prepare;
mod replay;
mod tenant;

use http::header::{CONNECTION, HOST, UPGRADE};

use origin::Admission;
use replay::ReplayCopy;

pub use body::Recorded;
pub use inject::ExistingAuthorization;
pub use message::{HttpRequest, HttpResponse};
pub use origin::UnlistedOrigin;
pub use tenant::Tenant;

pub(crate) use body::{Registry, ReplayVtable, clone_vtable, is_known_by_name, record_vtable};
#[cfg(feature = "reqwest-middleware")]
pub(crate) use extended::ExtendedRequest;
use inject::is_alike;
pub(crate) use inject::{Injection, own_header_name};
#[cfg(feature = "dpop")]
pub(crate) use origin::Origin;
#[cfg(feature = "reqwest")]
pub(crate) use origin::is_loopback;
pub(crate) use origin::{OriginPolicy, parse_endpoint_url};
pub(crate) use params::SubjectPolicy;
#[cfg(feature = "dpop")]
pub(crate) use prepare::ProofOrigin;
pub(crate) use prepare::{Identity, Own, Plan, Prepared, RequestPolicy};
pub(crate) use replay::{ReplayAttempt, ReplayPolicy};
pub(crate) use tenant::TenantPolicy;

/// Which headers of those that matter here, and are rarely there, are there.
///
/// Found in one pass over the names: comparing a name with a few constants is cheaper than hashing one (100 instructions a
/// request), and one pass is cheaper than one for each (50).
#[derive(Clone, Copy, Default)]
pub(crate) struct SpecialHeaders {
    host: bool,
    connection: bool,
    upgrade: bool,
    /// The tenant's, or one that CGI reads as that.
    tenant: bool,
}

impl SpecialHeaders {
    /// `tenant`: the name of the tenant header.
    #[inline]
    pub(crate) fn find(headers: &http::HeaderMap, tenant: Option<&http::HeaderName>) -> Self {
        // No name is empty.
        let tenant_name = tenant.map_or("", |tenant| tenant.as_str());
        let is_special = |name: &http::HeaderName| {
            *name == HOST || *name == CONNECTION || *name == UPGRADE || is_alike(name.as_str(), tenant_name)
        };
        let mut found = Self::default();
        for name in headers.keys() {
            if is_special(name) {
                found = found.and(name, tenant_name);
            }
        }
        found
    }

    #[cold]
    fn and(self, name: &http::HeaderName, tenant_name: &str) -> Self {
        Self {
            host: self.host || *name == HOST,
            connection: self.connection || *name == CONNECTION,
            upgrade: self.upgrade || *name == UPGRADE,
            tenant: self.tenant || is_alike(name.as_str(), tenant_name),
        }
    }
}
