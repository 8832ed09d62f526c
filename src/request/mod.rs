//! What is done to a request; knows nothing of how tokens are made.

mod body;
mod head;
mod inject;
mod origin;
mod replay;
mod tenant;

pub use body::Recorded;
pub use inject::ExistingAuthorization;
pub use origin::Foreign;
pub use tenant::Tenant;

#[cfg(feature = "reqwest")]
pub(crate) use body::KeptBody;
pub(crate) use body::{Ops, Registry, clone_ops, record_ops};
pub(crate) use inject::{Injection, own_header_name, withhold};
#[cfg(feature = "dpop")]
pub(crate) use origin::Origin;
#[cfg(feature = "reqwest")]
pub(crate) use origin::is_loopback;
pub(crate) use origin::{Admission, OriginPolicy, parse_endpoint_url};
pub(crate) use replay::{Keeping, Kept, ReplayPolicy, keep, record};
pub(crate) use tenant::TenantPolicy;

/// Whether there is a header of that name, for names that are rarely there.
///
/// Comparing a name with a few others is cheaper than hashing it: some 100 instructions a request (`make bench`).
#[inline]
fn has_header(headers: &http::HeaderMap, name: &http::HeaderName) -> bool {
    const FEW: usize = 16;
    if headers.keys_len() <= FEW { headers.keys().any(|other| other == name) } else { headers.contains_key(name) }
}
