//! `Partition`: the identity of a token within one engine.

use crate::extensions::{Scopes, TenantId};

/// Everything that can differ between two token requests of one engine.
///
/// The inputs that cannot differ (endpoint, client, grant, audience, further parameters) are the engine itself: two
/// configurations are two engines and share nothing. A struct compared member by member cannot collide the way joined
/// strings can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Partition {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) scopes: Option<Scopes>,
}

impl Partition {
    /// The partition of a layer whose tokens are shared by all tenants, with the configured scopes.
    pub(crate) fn is_main(&self) -> bool {
        self.tenant.is_none() && self.scopes.is_none()
    }
}
