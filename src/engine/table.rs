//! All slots of an engine but the main one, bounded.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashTable;

use super::cell::Slot;
use super::coarse_clock::millis;
use super::key::Partition;

/// A sharded table, so that tenants do not queue behind each other's look-ups, and a hand that goes round in each shard.
///
/// A hit takes a read lock, allocates nothing, and writes to the slot only if a slot was made or a second has passed since
/// the last one. With each new slot the hand looks at the next few: those that have been idle for too long go, and, over
/// the bound, the one of them that has gone unused the longest. So an insertion costs the same however many slots there are.
///
/// A slot with a flight, with a refresh token that is kept nowhere else, or in somebody's hands never goes: an eviction can
/// neither fork a flight nor lose a grant. Where all that the hand meets are such, the table is larger for a while.
pub(crate) struct Slots {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    max: usize,
    /// In milliseconds.
    idle: u64,
    count: AtomicUsize,
    departed: Departed,
}

#[derive(Default)]
struct Shard {
    table: HashTable<Arc<Slot>>,
    /// Where the hand is in the table.
    hand: usize,
    /// How many slots were made here; wraps.
    insertions: u32,
}

/// The figures of the slots that went, so that sums over all slots never fall.
#[derive(Default)]
pub(crate) struct Departed {
    pub(crate) token_requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// So many that of a million slots a table that grows, for which it must look at each, stops the others for half a
/// millisecond only.
const MOST_SHARDS: usize = 256;
/// How many slots a shard should have before there is another: enough for the hand to choose from.
const SLOTS_A_SHARD: usize = 64;
/// How many slots the hand looks at for a new one. Of so many the least recently used is nearly the least recently used of
/// all: that it is of the more recently used half happens once in 65 536 times.
const LOOKS: usize = 16;
/// How many it drops at once that are not idle: two, so that a table that had to grow over its bound gets back to it.
const MOST_DROPPED: usize = 2;
/// How many places of a table it passes for that at most: a table is never that empty for long.
const PLACES: usize = 16 * LOOKS;
/// How many places of each shard the hand passes in a second: a million slots in some minutes, for a thousandth of a core.
const PLACES_A_BEAT: usize = 16;

impl Slots {
    pub(crate) fn new(max: usize, idle: Duration) -> Self {
        let shards = (max / SLOTS_A_SHARD).clamp(1, MOST_SHARDS).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            max,
            idle: millis(idle),
            count: AtomicUsize::new(0),
            departed: Departed::default(),
        }
    }

    /// The slot of a partition, made if there is none. `time` in milliseconds since the engine's first beat.
    pub(crate) fn slot(&self, partition: Partition, time: u64) -> Arc<Slot> {
        let hash = self.hasher.hash_one(&partition);
        if let Some(slot) = self.found(hash, &partition, time) {
            return slot;
        }
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.get(hash, &partition) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(&partition, None));
        shard.insertions = shard.insertions.wrapping_add(1);
        slot.touch(shard.stamp(time));
        self.count.fetch_add(1, Ordering::Relaxed);
        self.turn(&mut shard, LOOKS, PLACES, time);
        shard.table.insert_unique(hash, slot.clone(), |slot| self.hasher.hash_one(slot.partition()));
        slot
    }

    /// The slot of a partition, if there is one.
    pub(crate) fn existing(&self, partition: &Partition, time: u64) -> Option<Arc<Slot>> {
        self.found(self.hasher.hash_one(partition), partition, time)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        let mut all = Vec::with_capacity(self.count.load(Ordering::Relaxed));
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.table.iter().cloned());
        }
        all
    }

    pub(crate) fn departed(&self) -> &Departed {
        &self.departed
    }

    /// Lets some of the slots go that have been idle for too long. To be called now and then.
    pub(crate) fn sweep(&self, time: u64) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            self.turn(&mut shard, PLACES_A_BEAT, PLACES_A_BEAT, time);
            shard.shrink(&self.hasher);
        }
    }

    fn found(&self, hash: u64, partition: &Partition, time: u64) -> Option<Arc<Slot>> {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.get(hash, partition)?;
        slot.touch(shard.stamp(time));
        Some(slot.clone())
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The table uses the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }

    fn turn(&self, shard: &mut Shard, looks: usize, places: usize, time: u64) {
        let over = self.count.load(Ordering::Relaxed).saturating_sub(self.max);
        let idle_since = stamp(time.saturating_sub(self.idle), 0);
        for slot in shard.turn(Turn { looks, places, over, idle_since }) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.departed.count(&slot);
        }
    }
}

/// How far the hand goes, and what it takes.
struct Turn {
    looks: usize,
    places: usize,
    /// How many slots there are too many.
    over: usize,
    /// Slots last used before this stamp have been idle for too long.
    idle_since: u64,
}

impl Shard {
    fn get(&self, hash: u64, partition: &Partition) -> Option<&Arc<Slot>> {
        self.table.find(hash, |slot| slot.partition().is(partition))
    }

    fn stamp(&self, time: u64) -> u64 {
        stamp(time, self.insertions)
    }

    fn turn(&mut self, turn: Turn) -> Vec<Arc<Slot>> {
        let mut unused = Vec::with_capacity(LOOKS);
        let mut looks = 0;
        for _ in 0..self.table.num_buckets().min(turn.places) {
            self.hand = (self.hand + 1) % self.table.num_buckets();
            let Some(slot) = self.table.get_bucket(self.hand) else { continue };
            // The table's is the only reference, and nobody gets another while this shard is locked.
            if Arc::strong_count(slot) == 1 && slot.is_idle() {
                unused.push((slot.last_used(), self.hand));
            }
            looks += 1;
            if looks == turn.looks {
                break;
            }
        }
        unused.sort_unstable();
        let idle = unused.partition_point(|(used, _)| *used < turn.idle_since);
        unused.truncate(idle.max(turn.over.min(MOST_DROPPED)));
        let places = unused.into_iter().map(|(_, place)| place);
        places.filter_map(|place| Some(self.table.get_bucket_entry(place).ok()?.remove().0)).collect()
    }

    /// Gives memory back after many have gone.
    fn shrink(&mut self, hasher: &RandomState) {
        if self.table.capacity() > SLOTS_A_SHARD.max(4 * self.table.len()) {
            self.table.shrink_to(2 * self.table.len(), |slot| hasher.hash_one(slot.partition()));
        }
    }
}

/// When a slot was used: the second, and within it the number of slots made before.
fn stamp(time: u64, insertions: u32) -> u64 {
    (time / 1000) << 32 | u64::from(insertions)
}

impl Departed {
    fn count(&self, slot: &Slot) {
        let (token_requests, failures, suppressed) = slot.counts();
        self.token_requests.fetch_add(token_requests, Ordering::Relaxed);
        self.failures.fetch_add(failures, Ordering::Relaxed);
        self.suppressed.fetch_add(suppressed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EnginePolicy};
    use crate::token::{RefreshToken, Token, TokenRequest, erase};
    use crate::types::{Secret, SystemClock, TenantId, TokenError};

    const HOUR: Duration = Duration::from_secs(3600);

    fn partition(n: usize) -> Partition {
        Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), scopes: None }
    }

    /// How many tenants a test goes through: a million where the build is optimised.
    fn many() -> usize {
        if cfg!(debug_assertions) { 30_000 } else { 1_000_000 }
    }

    /// Behaviour 93.
    #[test]
    fn a_million_tenants_keep_to_the_bound_and_the_busy_one_stays() {
        for max in [1, 64, 1000] {
            let slots = Slots::new(max, HOUR);
            let busy = Arc::downgrade(&slots.slot(partition(0), 0));
            for n in 1..many() {
                slots.slot(partition(n), 0);
                assert_eq!(slots.existing(&partition(0), 0).is_some(), max > 1);
                assert!(slots.count.load(Ordering::Relaxed) <= max.max(2));
            }
            assert_eq!(busy.upgrade().is_some(), max > 1);
            assert_eq!(slots.all().len(), slots.count.load(Ordering::Relaxed));
            let places: usize = slots.shards.iter().map(|shard| shard.read().unwrap().table.num_buckets()).sum();
            assert!(places <= 4 * max.max(64), "{places} places for {max} slots");
        }
    }

    /// Behaviour 93.
    #[test]
    fn those_that_come_again_outlast_those_that_come_once() {
        let slots = Slots::new(1000, HOUR);
        for round in 0..100 {
            for n in 0..100 {
                assert!(slots.existing(&partition(n), 0).is_some() || round == 0, "tenant {n} in round {round}");
                slots.slot(partition(n), 0);
                slots.slot(partition(1000 + round * 100 + n), 0);
            }
        }
    }

    /// Behaviour 94.
    #[test]
    fn a_slot_in_use_is_not_dropped_and_the_table_grows_meanwhile_only() {
        let slots = Slots::new(100, HOUR);
        let held: Vec<_> = (0..500).map(|n| slots.slot(partition(n), 0)).collect();
        assert_eq!(slots.all().len(), 500);
        for (n, held) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(held, &slots.slot(partition(n), 0)));
        }
        drop(held);
        for n in 500..2000 {
            slots.slot(partition(n), 0);
        }
        assert_eq!(slots.all().len(), 100);
    }

    #[test]
    fn a_slot_with_the_only_refresh_token_is_not_dropped() {
        let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
        let policy = EnginePolicy::default();
        let engine = Engine::new(erase(source), Arc::new(SystemClock), policy, None, None);
        let token = Token::bearer("t").unwrap().with_refresh_token(RefreshToken::Replace(Secret::from("r")));
        let slots = Slots::new(10, HOUR);
        slots.slot(partition(0), 0).hand_in(&engine, token).unwrap();
        for n in 1..10_000 {
            slots.slot(partition(n), 1_000_000_000);
        }
        assert!(slots.existing(&partition(0), 0).is_some());
    }

    /// Behaviour 93.
    #[test]
    fn the_idle_go_after_their_time_and_give_their_memory_back() {
        let slots = Slots::new(100_000, HOUR);
        for n in 0..50_000 {
            slots.slot(partition(n), 0);
        }
        let hour = millis(HOUR);
        slots.slot(partition(7), hour / 2);
        // A beat a second: soon all have been looked at.
        for second in 0..100 {
            slots.sweep(hour - 100_000 + second * 1000);
        }
        assert_eq!(slots.all().len(), 50_000, "not yet");
        for second in 1..100 {
            slots.sweep(hour + second * 1000);
        }
        assert_eq!(slots.all().len(), 1);
        assert!(slots.existing(&partition(7), hour).is_some());
        let places: usize = slots.shards.iter().map(|shard| shard.read().unwrap().table.num_buckets()).sum();
        assert!(places <= MOST_SHARDS * 2 * SLOTS_A_SHARD, "{places} places");
        for _ in 0..100 {
            slots.sweep(3 * hour);
        }
        assert!(slots.all().is_empty());
    }
}
