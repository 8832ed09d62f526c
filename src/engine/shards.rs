//! `Shards`: all cells but the default one, bounded.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;

use super::cell::Cell;
use super::coarse_clock::millis;
use super::key::{Partition, PartitionHasher};
use super::sync::{AtomicBool, AtomicUsize, RwLock};
use crate::telemetry::Telemetry;
use crate::types::Now;

/// A sharded table, so that tenants do not queue behind each other's look-ups, and a cursor that goes round in each shard.
///
/// A hit takes a read lock, allocates nothing, and writes to the cell only if a cell was made or a second has passed since
/// the last one. With each new cell the cursor looks at the next few: those that have been idle for too long go, and, over
/// the bound, the one of them that has gone unused the longest. So an insertion costs the same however many cells there are.
///
/// A cell with a refresh, with a refresh token that is kept nowhere else, or in somebody's hands never goes: an eviction can
/// neither fork a refresh nor lose a grant. Where all that the cursor meets are such, the table is larger for a while.
pub(crate) struct Shards {
    shards: Box<[RwLock<Shard>]>,
    hasher: PartitionHasher,
    max: usize,
    /// In milliseconds.
    idle: u64,
    count: AtomicUsize,
    /// Which shard is trimmed next.
    trimmed: AtomicUsize,
    /// Some token was on somebody's behalf.
    has_subjects: AtomicBool,
    /// Told how many cells come and go, while no shard is locked.
    telemetry: Telemetry,
}

#[derive(Default)]
struct Shard {
    table: HashTable<Arc<Cell>>,
    /// Where the cursor is in the table.
    cursor: usize,
    /// How many cells were made here; wraps.
    insertions: u32,
    evicted_totals: EvictedTotals,
}

/// The figures of the cells that went, so that sums over all cells never fall. Each shard has its own, under its lock: who
/// looks finds a cell either there or here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EvictedTotals {
    pub(crate) token_requests: u64,
    pub(crate) failures: u64,
    pub(crate) suppressed: u64,
}

/// So many that of a million cells a table that grows, for which it must look at each, stops the others for half a
/// millisecond only.
const MOST_SHARDS: usize = 256;
/// How many cells a shard should have before there is another: enough for the cursor to choose from.
const CELLS_A_SHARD: usize = 64;
/// How many cells the cursor looks at for a new one. Of so many the least recently used is nearly the least recently used of
/// all: that it is of the more recently used half happens once in 65 536 times.
const CANDIDATES: usize = 16;
/// How many it drops at once that are not idle: two, so that a table that had to grow over its bound gets back to it.
const MOST_DROPPED: usize = 2;
/// How many buckets of a table it passes for that at most: a table is never that empty for long.
const BUCKETS: usize = 16 * CANDIDATES;
/// In how many ticks the cursor goes round where there are too many cells.
const TICKS_OVER_BOUND: usize = 4;
/// How many buckets of each shard the cursor passes in a second: a million cells in some minutes, for a thousandth of a core.
const BUCKETS_PER_TICK: usize = 16;

/// How long a cell that is of no use any more has gone unused before it goes, in milliseconds: as long as the rejection
/// limiter remembers.
const ENDED_FOR: u64 = 60_000;

impl Shards {
    #[cfg(test)]
    pub(super) fn while_locked<T>(&self, run: impl FnOnce() -> T) -> T {
        let _shards: Vec<_> = self.shards.iter().map(|shard| shard.write()).collect();
        run()
    }

    pub(crate) fn new(max: usize, idle: Duration, hasher: PartitionHasher) -> Self {
        let shards = (max / CELLS_A_SHARD).clamp(1, MOST_SHARDS).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| RwLock::new(Shard::default())).collect(),
            hasher,
            max,
            idle: millis(idle),
            count: AtomicUsize::new(0),
            trimmed: AtomicUsize::new(0),
            has_subjects: AtomicBool::new(false),
            telemetry: Telemetry::default(),
        }
    }

    pub(crate) fn with_telemetry(self, telemetry: Telemetry) -> Self {
        Self { telemetry, ..self }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The cell of a partition, made if there is none. `time` in milliseconds since the engine's first tick.
    pub(crate) fn cell(&self, partition: Partition, time: u64) -> Arc<Cell> {
        let hash = self.hasher.hash_one(&partition);
        if let Some(cell) = self.found(hash, &partition, time) {
            return cell;
        }
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = shard.get(hash, &partition) {
            return cell.clone();
        }
        let cell = Arc::new(Cell::new(&partition, None));
        if cell.partition().has_subject() {
            self.has_subjects.store(true, Ordering::Relaxed);
        }
        shard.insertions = shard.insertions.wrapping_add(1);
        cell.touch(shard.last_use(time));
        self.count.fetch_add(1, Ordering::Relaxed);
        let evicted = self.evict_some(&mut shard, Pass::NEW_CELL, time, &|_| false);
        shard.table.insert_unique(hash, cell.clone(), |cell| self.hasher.hash_one(cell.partition()));
        drop(shard);
        self.telemetry.partitions(1, evicted, evicted);
        cell
    }

    /// The cell of a partition, if there is one.
    pub(crate) fn existing(&self, partition: &Partition, time: u64) -> Option<Arc<Cell>> {
        self.found(self.hasher.hash_one(partition), partition, time)
    }

    /// All cells, and the figures of those that are gone.
    pub(crate) fn all(&self) -> (Vec<Arc<Cell>>, EvictedTotals) {
        let mut all = Vec::with_capacity(self.count.load(Ordering::Relaxed));
        let mut evicted_totals = EvictedTotals::default();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.table.iter().cloned());
            evicted_totals.add(shard.evicted_totals);
        }
        (all, evicted_totals)
    }

    /// Whether there was ever a cell whose token is on somebody's behalf.
    pub(crate) fn has_subjects(&self) -> bool {
        self.has_subjects.load(Ordering::Relaxed)
    }

    /// Whether there are more cells than there should be.
    pub(crate) fn is_over(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.max
    }

    /// A cell may have become one that can go: over the bound, lets two go. So a crowd of cells that had to stay while
    /// their tokens were asked for shrinks as fast as their requests end.
    pub(crate) fn trim(&self, time: u64) {
        if self.is_over() {
            let shard = self.shard_at(self.trimmed.fetch_add(1, Ordering::Relaxed));
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let evicted = self.evict_some(&mut shard, Pass::NEW_CELL, time, &|_| false);
            drop(shard);
            self.telemetry.partitions(0, evicted, evicted);
        }
    }

    /// Lets some of the cells go that have been idle for too long. To be called now and then.
    ///
    /// `now`: to tell which cells have ended whose tokens were on somebody's behalf. Such a one goes soon: there is
    /// another for each token that the person brings.
    pub(crate) fn sweep(&self, time: u64, now: Option<&Now>) {
        let unused_since = last_use(time.saturating_sub(ENDED_FOR), 0);
        let has_ended = |cell: &Cell| {
            cell.partition().has_subject()
                && cell.last_used() < unused_since
                && now.is_some_and(|now| cell.has_ended(now))
        };
        let mut evicted: usize = 0;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let pass = if self.is_over() { Pass::all_in_some_ticks(&shard) } else { Pass::TICK };
            evicted = evicted.saturating_add(self.evict_some(&mut shard, pass, time, &has_ended));
            shard.shrink(&self.hasher);
        }
        self.telemetry.partitions(0, evicted, evicted);
    }

    fn found(&self, hash: u64, partition: &Partition, time: u64) -> Option<Arc<Cell>> {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let cell = shard.get(hash, partition)?;
        cell.touch(shard.last_use(time));
        Some(cell.clone())
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The table uses the lowest and the highest bits.
        self.shard_at((hash >> 32) as usize)
    }

    /// As the remainder: there are a power of two, and at least one.
    fn shard_at(&self, number: usize) -> &RwLock<Shard> {
        &self.shards[number & self.shards.len().wrapping_sub(1)]
    }

    /// How many went.
    fn evict_some(&self, shard: &mut Shard, pass: Pass, time: u64, has_ended: &dyn Fn(&Cell) -> bool) -> usize {
        let over = self.count.load(Ordering::Relaxed).saturating_sub(self.max);
        let idle_since = last_use(time.saturating_sub(self.idle), 0);
        let evicted = shard.evict_some(pass, over, idle_since, has_ended);
        for cell in &evicted {
            self.count.fetch_sub(1, Ordering::Relaxed);
            shard.evicted_totals.count(cell);
        }
        evicted.len()
    }
}

/// How far the cursor goes, and what it takes.
#[derive(Clone, Copy)]
struct Pass {
    candidates: usize,
    buckets: usize,
    /// How many it drops that are not idle, if there are too many.
    most_dropped: usize,
}

impl Pass {
    const NEW_CELL: Self = Self { candidates: CANDIDATES, buckets: BUCKETS, most_dropped: MOST_DROPPED };
    const TICK: Self = Self { candidates: BUCKETS_PER_TICK, buckets: BUCKETS_PER_TICK, most_dropped: MOST_DROPPED };

    /// Over the bound.
    fn all_in_some_ticks(shard: &Shard) -> Self {
        let buckets = (shard.table.num_buckets() / TICKS_OVER_BOUND).max(BUCKETS_PER_TICK);
        Self { candidates: buckets, buckets, most_dropped: buckets }
    }
}

impl Shard {
    fn get(&self, hash: u64, partition: &Partition) -> Option<&Arc<Cell>> {
        self.table.find(hash, |cell| cell.partition().is(partition))
    }

    fn last_use(&self, time: u64) -> u64 {
        last_use(time, self.insertions)
    }

    /// `over`: how many cells there are too many. Those last used before `idle_since` have been idle for too long, as have
    /// those that `has_ended` is said of.
    fn evict_some(
        &mut self,
        pass: Pass,
        over: usize,
        idle_since: u64,
        has_ended: &dyn Fn(&Cell) -> bool,
    ) -> Vec<Arc<Cell>> {
        if self.table.is_empty() {
            return Vec::new();
        }
        let mut unused = Vec::with_capacity(CANDIDATES);
        let mut candidates = 0_usize;
        for _ in 0..self.table.num_buckets().min(pass.buckets) {
            self.cursor = self.cursor.saturating_add(1).checked_rem(self.table.num_buckets()).unwrap_or(0);
            let Some(cell) = self.table.get_bucket(self.cursor) else { continue };
            // The table's is the only reference, and nobody gets another while this shard is locked.
            if Arc::strong_count(cell) == 1 && cell.is_idle() {
                let used = if has_ended(cell) { 0 } else { cell.last_used() };
                unused.push((used, self.cursor));
            }
            candidates = candidates.saturating_add(1);
            if candidates == pass.candidates {
                break;
            }
        }
        unused.sort_unstable();
        let idle = unused.partition_point(|(used, _)| *used < idle_since.max(1));
        unused.truncate(idle.max(over.min(pass.most_dropped)));
        let buckets = unused.into_iter().map(|(_, place)| place);
        buckets.filter_map(|place| Some(self.table.get_bucket_entry(place).ok()?.remove().0)).collect()
    }

    /// Gives memory back after many have gone.
    fn shrink(&mut self, hasher: &PartitionHasher) {
        if self.table.capacity() > CELLS_A_SHARD.max(self.table.len().saturating_mul(4)) {
            self.table.shrink_to(self.table.len().saturating_mul(2), |cell| hasher.hash_one(cell.partition()));
        }
    }
}

/// When a cell was used: the second, and within it the number of cells made before.
fn last_use(time: u64, insertions: u32) -> u64 {
    (time / 1000) << 32 | u64::from(insertions)
}

impl EvictedTotals {
    fn count(&mut self, cell: &Cell) {
        let (token_requests, failures, suppressed) = cell.counts();
        self.add(Self { token_requests, failures, suppressed });
    }

    fn add(&mut self, more: Self) {
        self.token_requests = self.token_requests.saturating_add(more.token_requests);
        self.failures = self.failures.saturating_add(more.failures);
        self.suppressed = self.suppressed.saturating_add(more.suppressed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EnginePolicy;
    use crate::engine::env::Env;
    use crate::token::{RefreshToken, Token, TokenRequest, erase};
    use crate::types::{Clock, Secret, SubjectToken, SystemClock, TenantId, TokenError, TokenParams};

    const HOUR: Duration = Duration::from_secs(3600);

    fn partition(n: usize) -> Partition {
        Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), ..Partition::default() }
    }

    /// How many tenants a test goes through: a million where the build is optimised.
    fn many() -> usize {
        if cfg!(debug_assertions) { 30_000 } else { 1_000_000 }
    }

    /// Behaviour 93.
    #[test]
    fn a_million_tenants_keep_to_the_bound_and_the_busy_one_stays() {
        for max in [1, 64, 1000] {
            let cells = Shards::new(max, HOUR, PartitionHasher::default());
            let busy = Arc::downgrade(&cells.cell(partition(0), 0));
            for n in 1..many() {
                cells.cell(partition(n), 0);
                assert_eq!(cells.existing(&partition(0), 0).is_some(), max > 1);
                assert!(cells.count.load(Ordering::Relaxed) <= max.max(2));
            }
            assert_eq!(busy.upgrade().is_some(), max > 1);
            assert_eq!(cells.all().0.len(), cells.count.load(Ordering::Relaxed));
            let buckets: usize = cells.shards.iter().map(|shard| shard.read().unwrap().table.num_buckets()).sum();
            assert!(buckets <= 4 * max.max(64), "{buckets} buckets for {max} cells");
        }
    }

    /// Behaviour 93.
    #[test]
    fn those_that_come_again_outlast_those_that_come_once() {
        let cells = Shards::new(1000, HOUR, PartitionHasher::default());
        for round in 0..100 {
            for n in 0..100 {
                assert!(cells.existing(&partition(n), 0).is_some() || round == 0, "tenant {n} in round {round}");
                cells.cell(partition(n), 0);
                cells.cell(partition(1000 + round * 100 + n), 0);
            }
        }
    }

    /// Behaviour 94.
    #[test]
    fn a_cell_in_use_is_not_dropped_and_the_table_grows_meanwhile_only() {
        let cells = Shards::new(100, HOUR, PartitionHasher::default());
        let held: Vec<_> = (0..500).map(|n| cells.cell(partition(n), 0)).collect();
        assert_eq!(cells.all().0.len(), 500);
        for (n, held) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(held, &cells.cell(partition(n), 0)));
        }
        drop(held);
        for n in 500..2000 {
            cells.cell(partition(n), 0);
        }
        assert_eq!(cells.all().0.len(), 100);
    }

    /// Two threads that ask for a partition that is not there, at the same time, get one cell: there is never a second one.
    #[test]
    fn two_threads_that_make_one_cell_at_the_same_time_get_the_same() {
        const ROUNDS: usize = 20_000;

        let cells = Shards::new(ROUNDS, HOUR, PartitionHasher::default());
        let ready = AtomicUsize::new(0);
        let in_step = || -> Vec<_> {
            let cell_of = |n| {
                ready.fetch_add(1, Ordering::AcqRel);
                while ready.load(Ordering::Acquire) < 2 * (n + 1) {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                }
                cells.cell(partition(n), 0)
            };
            (0..ROUNDS).map(cell_of).collect()
        };
        let [one, other] = std::thread::scope(|threads| {
            [threads.spawn(in_step), threads.spawn(in_step)].map(|thread| thread.join().unwrap())
        });
        assert!(one.iter().zip(&other).all(|(one, other)| Arc::ptr_eq(one, other)));
        assert_eq!(cells.count(), ROUNDS);
    }

    #[test]
    fn a_cell_with_the_only_refresh_token_is_not_dropped() {
        let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
        let policy = EnginePolicy::default();
        let env = Arc::new(Env::new(erase(source), Arc::new(SystemClock), policy, None));
        let token = Token::bearer("t").unwrap().with_refresh_token(RefreshToken::Replace(Secret::from("r")));
        let cells = Shards::new(10, HOUR, PartitionHasher::default());
        cells.cell(partition(0), 0).hand_in(&env, token).unwrap();
        for n in 1..10_000 {
            cells.cell(partition(n), 1_000_000_000);
        }
        assert!(cells.existing(&partition(0), 0).is_some());
    }

    /// Behaviour 185 (what is of no use any more goes).
    #[test]
    fn a_cell_on_somebodys_behalf_goes_soon_after_its_tokens_end() {
        let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
        let env = Arc::new(Env::new(erase(source), Arc::new(SystemClock), EnginePolicy::default(), None));
        let on_behalf_of = |who: &str| Partition {
            params: Some(TokenParams::new().subject(SubjectToken::access_token(who).unwrap())),
            ..Partition::default()
        };
        let cells = Shards::new(100, HOUR, PartitionHasher::default());
        let [ended, alive, tenants] = [on_behalf_of("ended"), on_behalf_of("alive"), partition(0)];
        for (partition, seconds) in [(&ended, 30), (&alive, 300), (&tenants, 30)] {
            let token = Token::bearer("t").unwrap().with_expires_in(Duration::from_secs(seconds));
            cells.cell(partition.clone(), 0).hand_in(&env, token).unwrap();
        }
        let then = SystemClock.now();
        let after = |seconds| {
            let passed = Duration::from_secs(seconds);
            let now = Now { monotonic: then.monotonic + passed, wall: then.wall + passed };
            cells.sweep(seconds * 1000, Some(&now));
            cells.all().0.iter().map(|cell| cell.partition().whole()).collect::<Vec<_>>()
        };
        for seconds in 1..60 {
            assert_eq!(after(seconds).len(), 3, "it may be asked for again, and its failures are remembered");
        }
        let left = (60..80).map(after).last().unwrap();
        assert!(left.len() == 2 && left.contains(&alive) && left.contains(&tenants));
    }

    /// Behaviour 93.
    #[test]
    fn the_idle_go_after_their_time_and_give_their_memory_back() {
        let cells = Shards::new(100_000, HOUR, PartitionHasher::default());
        for n in 0..50_000 {
            cells.cell(partition(n), 0);
        }
        let hour = millis(HOUR);
        cells.cell(partition(7), hour / 2);
        // A tick a second: soon all have been looked at.
        for second in 0..100 {
            cells.sweep(hour - 100_000 + second * 1000, None);
        }
        assert_eq!(cells.all().0.len(), 50_000, "not yet");
        for second in 1..100 {
            cells.sweep(hour + second * 1000, None);
        }
        assert_eq!(cells.all().0.len(), 1);
        assert!(cells.existing(&partition(7), hour).is_some());
        let buckets: usize = cells.shards.iter().map(|shard| shard.read().unwrap().table.num_buckets()).sum();
        assert!(buckets <= MOST_SHARDS * 2 * CELLS_A_SHARD, "{buckets} buckets");
        for _ in 0..100 {
            cells.sweep(3 * hour, None);
        }
        assert!(cells.all().0.is_empty());
    }
}
