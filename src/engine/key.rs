//! `Partition`: the identity of a token within one engine.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

use crate::types::{Clock, Scopes, TenantId, TokenParams};

/// Everything that can differ between two token requests of one engine.
///
/// The inputs that cannot differ (endpoint, client, grant, audience, further parameters) are the engine itself: two
/// configurations are two engines and share nothing. A struct compared member by member cannot collide the way joined
/// strings can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) scopes: Option<Scopes>,
    /// Compared by their digest: a subject token is no part of a key.
    pub(crate) params: Option<TokenParams>,
}

impl Partition {
    /// The partition of a layer whose tokens are shared by all tenants, with the configured scopes.
    pub(crate) fn is_default(&self) -> bool {
        self.tenant.is_none() && self.scopes.is_none() && self.params.is_none()
    }
}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.tenant.as_ref().map(TenantId::as_bytes), &self.scopes, self.params.as_ref(), state);
    }
}

fn hash(tenant: Option<&[u8]>, scopes: &Option<Scopes>, params: Option<&TokenParams>, state: &mut impl Hasher) {
    (tenant, scopes).hash(state);
    // Few partitions have any; the others do not pay for a discriminant.
    if let Some(params) = params {
        params.hash(state);
    }
}

/// How partitions are hashed. Nobody who chooses tenants can foresee it; simulations can.
#[derive(Clone)]
pub(crate) enum PartitionHasher {
    Random(RandomState),
    Seeded(u64),
}

impl PartitionHasher {
    /// A clock whose time is not the operating system's is that of a simulation, and what happens there can be repeated:
    /// the seed is drawn from the thread's generator, which it can seed.
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        if clock.coarse().is_some() { Self::Seeded(fastrand::u64(..)) } else { Self::default() }
    }
}

impl Default for PartitionHasher {
    fn default() -> Self {
        Self::Random(RandomState::new())
    }
}

impl BuildHasher for PartitionHasher {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Random(state) => state.build_hasher(),
            Self::Seeded(seed) => {
                let mut hasher = DefaultHasher::new();
                hasher.write_u64(*seed);
                hasher
            }
        }
    }
}

/// A partition as its cell keeps it: the id inside the cell where it is short, as nearly all are. A million ids elsewhere
/// would be a million allocations, and one way to memory more for each look-up.
pub(crate) struct CompactKey {
    tenant: CompactId,
    scopes: Option<Scopes>,
    params: Option<TokenParams>,
}

enum CompactId {
    None,
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

/// A UUID has 36 characters.
const SHORT: usize = 38;

impl CompactKey {
    pub(crate) fn new(partition: &Partition) -> Self {
        Self {
            tenant: partition.tenant.as_ref().map_or(CompactId::None, CompactId::new),
            scopes: partition.scopes.clone(),
            params: partition.params.clone(),
        }
    }

    #[inline]
    pub(crate) fn is(&self, partition: &Partition) -> bool {
        self.tenant.as_bytes() == partition.tenant.as_ref().map(TenantId::as_bytes)
            && self.scopes == partition.scopes
            && self.params == partition.params
    }

    pub(crate) fn is_default(&self) -> bool {
        matches!(self.tenant, CompactId::None) && self.scopes.is_none() && self.params.is_none()
    }

    /// Whether its token is on somebody's behalf.
    #[inline]
    pub(crate) fn has_subject(&self) -> bool {
        self.params.as_ref().is_some_and(|params| params.subject_token().is_some())
    }

    /// The partition again.
    pub(crate) fn whole(&self) -> Partition {
        // It was an id before.
        let id = |bytes| TenantId::new(std::str::from_utf8(bytes).ok()?).ok();
        Partition {
            tenant: self.tenant.as_bytes().and_then(id),
            scopes: self.scopes.clone(),
            params: self.params.clone(),
        }
    }
}

/// The same as the partition's.
impl Hash for CompactKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.tenant.as_bytes(), &self.scopes, self.params.as_ref(), state);
    }
}

impl CompactId {
    fn new(id: &TenantId) -> Self {
        let (id, mut bytes) = (id.as_str(), [0; SHORT]);
        match (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(id.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(id.into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)),
            Self::Long(id) => Some(id.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    type Inputs = (Option<String>, Option<Vec<String>>, Option<String>);

    /// Few letters, and those that keys are glued with: so that equal and nearly equal inputs come up.
    fn inputs() -> impl Strategy<Value = Inputs> {
        (option::of("[ab:|,]{1,3}"), option::of(vec("[ab:|,]{1,2}", 1..3)), option::of("[ab]{1,2}"))
    }

    fn partition((tenant, scopes, audience): &Inputs) -> Partition {
        Partition {
            tenant: tenant.as_ref().map(|id| TenantId::new(id).unwrap()),
            scopes: scopes.as_ref().map(|scopes| Scopes::new(scopes).unwrap()),
            params: audience.as_ref().map(|audience| TokenParams::new().audience(audience).unwrap()),
        }
    }

    fn identity((tenant, scopes, audience): &Inputs) -> (Option<&String>, Option<BTreeSet<&String>>, &Option<String>) {
        (tenant.as_ref(), scopes.as_ref().map(|scopes| scopes.iter().collect()), audience)
    }

    #[test]
    fn ids_of_all_lengths_are_kept() {
        let mut former = None;
        for len in 1..=256 {
            let tenant = TenantId::new("x".repeat(len)).unwrap();
            let partition = Partition { tenant: Some(tenant.clone()), ..Partition::default() };
            let kept = CompactKey::new(&partition);
            assert!(kept.is(&partition) && !kept.is_default() && !kept.is(&Partition::default()));
            assert_eq!(kept.whole().tenant, Some(tenant));
            assert!(former.replace(kept).is_none_or(|former| !former.is(&partition)));
        }
        assert!(CompactKey::new(&Partition::default()).is(&Partition::default()));
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
            let kept = CompactKey::new(&one);
            prop_assert_eq!(kept.is(&other), same);
            prop_assert_eq!(hasher.hash_one(&kept), hasher.hash_one(&one));
            prop_assert!(!same || hasher.hash_one(&one) == hasher.hash_one(&other));
        }
    }
}
