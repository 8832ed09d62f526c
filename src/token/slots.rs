//! All slots of an engine, bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::partition::Partition;
use super::slot::Slot;

/// A sharded map, so that tenants do not queue behind each other's look-ups.
///
/// Over its bound it drops the idle slot that has gone unused for the most insertions: an order that costs a hit no more
/// than a comparison, since a hit writes only if something was inserted since the last one. A slot with a flight, with a
/// refresh token, or in somebody's hands is never dropped: so an eviction cannot fork a flight or lose a grant, and in the
/// worst case the map is larger than its bound for a while.
pub(crate) struct Slots {
    shards: [RwLock<Shard>; SHARDS],
    hasher: RandomState,
    max_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<Partition, Arc<Slot>>,
    insertions: u64,
}

const SHARDS: usize = 16;

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), max_per_shard: max.div_ceil(SHARDS).max(1) }
    }

    /// The slot of a partition, made if there is none.
    pub(crate) fn slot(&self, partition: Partition) -> Arc<Slot> {
        if let Some(slot) = self.existing(&partition) {
            return slot;
        }
        let mut shard = self.write(&partition);
        if let Some(slot) = shard.slots.get(&partition) {
            return slot.clone();
        }
        if shard.slots.len() >= self.max_per_shard {
            shard.evict();
        }
        let slot = Arc::new(Slot::new(partition.clone(), None));
        shard.insertions += 1;
        slot.touch(shard.insertions);
        shard.slots.insert(partition, slot.clone());
        slot
    }

    pub(crate) fn existing(&self, partition: &Partition) -> Option<Arc<Slot>> {
        let shard = self.read(partition);
        let slot = shard.slots.get(partition)?;
        slot.touch(shard.insertions);
        Some(slot.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().unwrap_or_else(PoisonError::into_inner).slots.values().cloned());
        }
        all
    }

    fn read(&self, partition: &Partition) -> RwLockReadGuard<'_, Shard> {
        self.shard(partition).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, partition: &Partition) -> RwLockWriteGuard<'_, Shard> {
        self.shard(partition).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, partition: &Partition) -> &RwLock<Shard> {
        &self.shards[self.hasher.hash_one(partition) as usize % SHARDS]
    }
}

impl Shard {
    fn evict(&mut self) {
        let idle = self.slots.iter().filter(|(_, slot)| Arc::strong_count(slot) == 1 && slot.is_idle());
        let oldest = idle.min_by_key(|(_, slot)| slot.last_used()).map(|(partition, _)| partition.clone());
        if let Some(partition) = oldest {
            self.slots.remove(&partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::TenantId;

    fn partition(n: usize) -> Partition {
        Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), scopes: None }
    }

    /// Behaviour 93.
    #[test]
    fn a_hundred_thousand_tenants_keep_to_the_bound_and_the_busy_one_stays() {
        let slots = Slots::new(64);
        let busy = Arc::downgrade(&slots.slot(partition(0)));
        for n in 1..100_000 {
            slots.slot(partition(n));
            slots.slot(partition(0));
        }
        assert!(slots.all().len() <= 64);
        assert!(busy.upgrade().is_some());
    }

    /// Behaviour 94.
    #[test]
    fn a_slot_in_use_is_not_dropped() {
        let slots = Slots::new(1);
        let held = slots.slot(partition(0));
        for n in 1..1_000 {
            slots.slot(partition(n));
        }
        assert!(Arc::ptr_eq(&held, &slots.slot(partition(0))));
    }
}
