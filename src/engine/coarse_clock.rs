//! The coarse time of an engine, so that no request reads a clock and no cell has a timer.
//!
//! Whoever takes a slow path has read both clocks anyway and says so here: a *tick*. A tick publishes the time and arms the
//! engine's one timer, at most [`MAX_AGE`] ahead. The timer going off or being dropped (its runtime ended) stops the
//! coarse clock, and the next request reads the clocks again. So a suspended machine, a clock step or another runtime cost at most
//! a second however many cells there are, and an engine that nobody uses has no timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::env::Engine;
use crate::token::elapsed;
use crate::types::Now;

/// The longest time for which a clock is not read while requests come.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(1);

pub(crate) struct CoarseClock {
    /// Milliseconds since the first tick, at the last one; or [`STOPPED`].
    coarse: AtomicU64,
    state: Mutex<State>,
}

/// Later than every moment, so that nothing is good until then.
const STOPPED: u64 = u64::MAX;

#[derive(Default)]
struct State {
    last: Option<Now>,
    since_first: Duration,
    /// Which timer may stop the coarse_clock: the newest.
    timer: u64,
    fires_at: Option<Instant>,
}

impl CoarseClock {
    pub(crate) fn new() -> Self {
        Self { coarse: AtomicU64::new(STOPPED), state: Mutex::default() }
    }

    /// Whether `moment` (of [`millis`]) is still ahead, as far as is known without a clock. Coarse time is at most
    /// [`MAX_AGE`] behind.
    #[inline]
    pub(crate) fn is_before(&self, moment: u64) -> bool {
        self.coarse.load(Ordering::Acquire) < moment
    }

    /// Milliseconds since the first tick; `None` if the clocks must be read.
    #[inline]
    pub(crate) fn time(&self) -> Option<u64> {
        Some(self.coarse.load(Ordering::Acquire)).filter(|time| *time != STOPPED)
    }

    /// The clocks were read. The timer goes off after `delay` or earlier. Returns the milliseconds since the first tick,
    /// never less than what either clock says has passed.
    pub(crate) fn tick(&self, engine: &Arc<Engine>, now: &Now, delay: Duration) -> u64 {
        let mut state = self.lock();
        let time = state.advance(*now);
        let fires_at = now.monotonic + delay;
        if state.fires_at.is_some_and(|armed| now.monotonic <= armed && armed <= fires_at) {
            self.coarse.store(time, Ordering::Release);
            return time;
        }
        state.timer += 1;
        let timer = Timer { engine: Arc::downgrade(engine), number: state.timer };
        state.fires_at = Some(fires_at);
        self.coarse.store(time, Ordering::Release);
        drop(state);
        // Without a runtime the timer is dropped here: every request then reads the clocks, which is slow but right.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // Made here, so that a runtime without timers drops the timer instead of panicking in the caller.
                tokio::time::sleep(delay).await;
                timer.sweep();
            });
        }
        time
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Each step by the clock that went further: a moment is never taken to be ahead that one of them has passed.
    fn advance(&mut self, now: Now) -> u64 {
        if let Some(last) = self.last.replace(now) {
            self.since_first = self.since_first.saturating_add(elapsed(last, now));
        }
        millis(self.since_first)
    }
}

/// Whole milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Stops the coarse clock when it is dropped, unless a newer one has been armed.
struct Timer {
    engine: Weak<Engine>,
    number: u64,
}

impl Timer {
    /// Idle cells go where no request waits for it.
    fn sweep(self) {
        if let Some(engine) = self.engine.upgrade() {
            let time = millis(engine.coarse_clock.lock().since_first);
            engine.sweep(time);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let mut state = engine.coarse_clock.lock();
        if state.timer == self.number {
            state.fires_at = None;
            engine.coarse_clock.coarse.store(STOPPED, Ordering::Release);
            drop(state);
            engine.default_cell().set_check_clock();
        }
    }
}
