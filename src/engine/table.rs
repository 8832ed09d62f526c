//! `Table`: one configuration's cells, that of the default partition and all others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::cell::{Cell, Read};
use super::coarse_clock::{CoarseClock, MAX_AGE, OnTimer};
use super::current::Current;
use super::env::Env;
use super::key::Partition;
use super::rt;
use super::shards::{EvictedTotals, Shards};
use super::sync::AtomicBool;
use crate::token::Token;
use crate::types::{Secret, TokenError};

/// One configuration's tokens: a cell for each partition, over one [`Env`]. It knows neither HTTP clients nor bodies.
pub(crate) struct Table {
    env: Arc<Env>,
    default_cell: Arc<Cell>,
    others: Shards,
    /// A task sees to it that there are no more cells than there should be.
    sweeping: AtomicBool,
}

impl Table {
    pub(crate) fn new(env: Env, refresh_token: Option<Secret<String>>) -> Arc<Self> {
        Arc::new_cyclic(|table: &Weak<Self>| {
            env.coarse_clock.tells(table.clone());
            let default_cell = Arc::new(Cell::new(&Partition::default(), refresh_token));
            let others = Shards::new(env.policy.max_partitions, env.policy.partition_idle, env.hasher.clone())
                .with_telemetry(env.telemetry.clone());
            env.telemetry.partitions(1, 0, 0);
            Self { env: Arc::new(env), default_cell, others, sweeping: AtomicBool::new(false) }
        })
    }

    #[inline]
    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.env
    }

    /// The cell of the partition that needs no key.
    #[inline]
    pub(crate) fn default_cell(&self) -> &Arc<Cell> {
        &self.default_cell
    }

    /// The cell of a partition, made if there is none.
    pub(crate) fn cell(&self, partition: Partition) -> Arc<Cell> {
        if partition.is_default() { self.default_cell.clone() } else { self.others.cell(partition, self.time()) }
    }

    /// The cell of a partition, if there is one.
    pub(crate) fn existing_cell(&self, partition: &Partition) -> Option<Arc<Cell>> {
        if partition.is_default() {
            Some(self.default_cell.clone())
        } else {
            self.others.existing(partition, self.time())
        }
    }

    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        let mut cells = self.others.all().0;
        cells.push(self.default_cell.clone());
        cells
    }

    /// All cells but the default one, and the figures of those that were dropped: no cell is in neither.
    pub(crate) fn others_and_evicted_totals(&self) -> (Vec<Arc<Cell>>, EvictedTotals) {
        self.others.all()
    }

    /// The token, waiting for it if need be.
    pub(crate) async fn token(&self, partition: Partition) -> Result<Token, TokenError> {
        let cell = self.cell(partition);
        loop {
            let result: Option<Result<Arc<Current>, _>> = match cell.read(&self.env) {
                Read::Ready(current) => Some(Ok(current)),
                Read::Failed(error) => Some(Err(error)),
                Read::Wait { waiter, fallback } => waiter.await.resolve(fallback, || self.env.clock.now()),
            };
            if let Some(result) = result {
                return result.map(|current| {
                    let lifetime = &current.lifetime;
                    let now = self.env.now_or(lifetime.arrived());
                    current.token.ending(lifetime.left(&now), lifetime.expires_at())
                });
            }
        }
    }

    fn sweep(&self, time: u64) {
        // Before a lock is taken: the clock is foreign.
        let now = self.others.has_subjects().then(|| self.env.clock.now());
        self.others.sweep(time, now.as_ref());
    }

    /// Runs while nobody can have any lock of the table or of the default cell.
    #[cfg(test)]
    pub(crate) fn while_locked<T>(&self, run: impl FnOnce() -> T) -> T {
        self.default_cell.while_locked(|| self.others.while_locked(run))
    }

    fn time(&self) -> u64 {
        self.env.coarse_time(|| self.env.clock.now())
    }
}

/// Its partitions go with it.
impl Drop for Table {
    fn drop(&mut self) {
        self.env.telemetry.partitions(0, self.others.count().saturating_add(1), 0);
    }
}

impl OnTimer for Table {
    fn coarse_clock(&self) -> &CoarseClock {
        &self.env.coarse_clock
    }

    /// Idle cells go where no request waits for it.
    fn fired(&self, time: u64) {
        self.sweep(time);
    }

    fn stopped(&self) {
        self.default_cell.set_check_clock();
    }

    fn refresh_ended(self: Arc<Self>) {
        if !self.others.is_over() {
            return;
        }
        self.others.trim(self.time());
        // What is in somebody's hands now goes later, though nobody asks any more.
        if self.others.is_over()
            && let Some(runtime) = rt::Runtime::current()
            && !self.sweeping.swap(true, Ordering::Relaxed)
        {
            let sweep = Sweep(Arc::downgrade(&self));
            runtime.spawn(async move { sweep.run().await });
        }
    }
}

/// Sweeps for some seconds, until there are no more cells than there should be: not for ever, since cells with the only
/// refresh token stay.
struct Sweep(Weak<Table>);

impl Sweep {
    const SECONDS: usize = 8;

    async fn run(self) {
        for _ in 0..Self::SECONDS {
            rt::sleep(MAX_AGE).await;
            let Some(table) = self.0.upgrade() else { return };
            table.sweep(table.time());
            if !table.others.is_over() {
                return;
            }
        }
    }
}

/// Also where its runtime ends.
impl Drop for Sweep {
    fn drop(&mut self) {
        if let Some(table) = self.0.upgrade() {
            table.sweeping.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
