//! All slots of an engine, bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::partition::Partition;
use super::slot::Slot;

/// A sharded map, so that tenants do not queue behind each other's look-ups.
///
/// Over its bound it drops a slot that is idle and was not used since the last look ("second chance", which needs no list
/// to maintain on a hit). A slot with a flight, with a refresh token, or in somebody's hands is never dropped: so an
/// eviction cannot fork a flight or lose a grant, and in the worst case the map is larger than its bound for a while.
pub(crate) struct Slots {
    shards: [RwLock<HashMap<Partition, Arc<Slot>>>; SHARDS],
    hasher: RandomState,
    max_per_shard: usize,
}

const SHARDS: usize = 16;

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), max_per_shard: max.div_ceil(SHARDS).max(1) }
    }

    pub(crate) fn slot(&self, partition: Partition) -> Arc<Slot> {
        if let Some(slot) = self.existing(&partition) {
            return slot;
        }
        let mut shard = self.write(&partition);
        if let Some(slot) = shard.get(&partition) {
            return slot.clone();
        }
        if shard.len() >= self.max_per_shard {
            evict(&mut shard);
        }
        let slot = Arc::new(Slot::new(partition.clone(), None));
        shard.insert(partition, slot.clone());
        slot
    }

    pub(crate) fn existing(&self, partition: &Partition) -> Option<Arc<Slot>> {
        let slot = self.read(partition).get(partition).cloned();
        if let Some(slot) = &slot {
            slot.touch();
        }
        slot
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        let read = |shard: &RwLock<HashMap<_, _>>| {
            shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(read).collect()
    }

    fn read(&self, partition: &Partition) -> RwLockReadGuard<'_, HashMap<Partition, Arc<Slot>>> {
        self.shard(partition).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, partition: &Partition) -> RwLockWriteGuard<'_, HashMap<Partition, Arc<Slot>>> {
        self.shard(partition).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, partition: &Partition) -> &RwLock<HashMap<Partition, Arc<Slot>>> {
        &self.shards[self.hasher.hash_one(partition) as usize % SHARDS]
    }
}

fn evict(shard: &mut HashMap<Partition, Arc<Slot>>) {
    let mut second_choice = None;
    let mut choice = None;
    for (partition, slot) in shard.iter() {
        if Arc::strong_count(slot) > 1 || !slot.is_idle() {
            continue;
        }
        if slot.take_used() {
            second_choice.get_or_insert(partition);
        } else {
            choice = Some(partition);
            break;
        }
    }
    if let Some(partition) = choice.or(second_choice).cloned() {
        shard.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::TenantId;

    fn partition(n: usize) -> Partition {
        Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), scopes: None }
    }

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
