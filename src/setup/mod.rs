//! `Setup`: a configuration at work, shared by all clones of a layer.

use std::sync::Arc;

use crate::endpoint::Direct;
use crate::engine::{EndpointLimits, Table};
use crate::request::{Injection, OriginPolicy, Proofs, ReplayPolicy, SubjectPolicy, TenantPolicy};
use crate::response::RejectionPolicy;
use crate::store::StoreAccess;

/// A configuration at work: the engine and the policies of both halves.
pub(crate) struct Setup {
    pub(crate) table: Arc<Table>,
    pub(crate) limits: Arc<EndpointLimits>,
    pub(crate) origins: OriginPolicy,
    pub(crate) tenant: Option<TenantPolicy>,
    pub(crate) subject: SubjectPolicy,
    pub(crate) injection: Injection,
    pub(crate) proofs: Proofs,
    pub(crate) replay: ReplayPolicy,
    pub(crate) rejection: RejectionPolicy,
    /// `None`: tokens come from a source of the user's.
    pub(crate) endpoint: Option<Arc<dyn Direct>>,
    /// `None`: tokens are kept in this process only, or in a store that the layer was not made with.
    pub(crate) store: Option<Arc<dyn StoreAccess>>,
}
