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
    /// A copy to keep: the memory of a request's tenant would be shared with whoever made the request.
    pub(crate) fn unshared(&self) -> Self {
        Self { tenant: self.tenant.as_ref().map(TenantId::unshared), scopes: self.scopes.clone() }
    }

    /// The partition of a layer whose tokens are shared by all tenants, with the configured scopes.
    pub(crate) fn is_main(&self) -> bool {
        self.tenant.is_none() && self.scopes.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    type Inputs = (Option<String>, Option<Vec<String>>);

    /// Few letters, and those that keys are glued with: so that equal and nearly equal inputs come up.
    fn inputs() -> impl Strategy<Value = Inputs> {
        (option::of("[ab:|,]{1,3}"), option::of(vec("[ab:|,]{1,2}", 1..3)))
    }

    fn partition((tenant, scopes): &Inputs) -> Partition {
        Partition {
            tenant: tenant.as_ref().map(|id| TenantId::new(id).unwrap()),
            scopes: scopes.as_ref().map(|scopes| Scopes::new(scopes).unwrap()),
        }
    }

    fn identity((tenant, scopes): &Inputs) -> (Option<&String>, Option<BTreeSet<&String>>) {
        (tenant.as_ref(), scopes.as_ref().map(|scopes| scopes.iter().collect()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Behaviours 91 and 92.
        #[test]
        fn partitions_are_equal_exactly_when_tenant_and_set_of_scopes_are(one in inputs(), other in inputs()) {
            let hasher = RandomState::new();
            let same = identity(&one) == identity(&other);
            let (one, other) = (partition(&one), partition(&other));
            prop_assert_eq!(one == other, same);
            prop_assert!(!same || hasher.hash_one(&one) == hasher.hash_one(&other));
        }
    }
}
