//! What is done to a request; knows nothing of how tokens are made.

mod inject;
mod origin;
mod tenant;

pub use inject::ExistingAuthorization;
pub use origin::Foreign;
pub use tenant::Tenant;

pub(crate) use inject::{Injection, withhold};
pub(crate) use origin::{Admission, Origin, OriginPolicy, parse_endpoint_url, require_secure};
pub(crate) use tenant::TenantPolicy;
