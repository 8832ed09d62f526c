//! What is done to a request; knows nothing of how tokens are made.

mod body;
mod head;
mod inject;
mod message;
mod origin;
mod params;
#[cfg_attr(not(feature = "dpop"), path = "no_proofs.rs")]
mod proofs;
mod replay;
mod tenant;

use http::header::{CONNECTION, HOST, UPGRADE};

pub use body::Recorded;
pub use inject::ExistingAuthorization;
pub use message::{HttpRequest, HttpResponse};
pub use origin::Foreign;
pub use tenant::Tenant;

#[cfg(feature = "reqwest")]
pub(crate) use body::BodyCopy;
pub(crate) use body::{Registry, ReplayVtable, clone_vtable, record_vtable};
pub(crate) use inject::{Injection, own_header_name, withhold};
#[cfg(feature = "dpop")]
pub(crate) use origin::Origin;
#[cfg(feature = "reqwest")]
pub(crate) use origin::is_loopback;
pub(crate) use origin::{Admission, OriginPolicy, parse_endpoint_url};
pub(crate) use params::SubjectPolicy;
pub(crate) use proofs::{ProofSent, Proofs};
pub(crate) use replay::{ReplayAttempt, ReplayCopy, ReplayPolicy, copy_for_replay, may_replay, record};
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
}

impl SpecialHeaders {
    #[inline]
    pub(crate) fn find(headers: &http::HeaderMap) -> Self {
        if headers.keys().any(|name| *name == HOST || *name == CONNECTION || *name == UPGRADE) {
            Self::find_which(headers)
        } else {
            Self::default()
        }
    }

    #[cold]
    fn find_which(headers: &http::HeaderMap) -> Self {
        let [host, connection, upgrade] = [HOST, CONNECTION, UPGRADE].map(|name| headers.contains_key(name));
        Self { host, connection, upgrade }
    }
}
