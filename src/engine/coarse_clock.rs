//! The coarse time of an engine, so that no request reads a clock and no cell has a timer.
//!
//! A request on a slow path has read both clocks anyway and says so here: a *tick*. A tick publishes the time and arms the
//! one timer, at most [`MAX_AGE`] ahead. The timer going off or being dropped (its runtime ended) stops the
//! coarse clock, and the next request reads the clocks again. Where nobody drives the timer's runtime, the
//! [operating system's clocks](super::os_clock) say that a second has passed. So a suspended machine, a clock step or another runtime cost at most
//! a second however many cells there are, and an engine that nobody uses has no timer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::os_clock::{LastLook, OsClock};
use super::rt;
use super::sync::{AtomicU64, Mutex, MutexGuard};
use crate::token::elapsed;
use crate::types::Now;

/// The longest time for which a clock is not read while requests come.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(1);

/// Who is told of the timer: all cells.
pub(crate) trait OnTimer: Send + Sync {
    fn coarse_clock(&self) -> &CoarseClock;

    /// It has gone off, at `time` of the clock.
    fn fired(&self, time: u64);

    /// The clock has stopped: those that rely on it must look.
    fn stopped(&self);

    /// A refresh has ended, and its cell is in nobody's hands on account of it.
    fn refresh_ended(self: Arc<Self>);
}

pub(crate) struct CoarseClock {
    /// Milliseconds since the first tick, at the last one; or [`STOPPED`].
    coarse: AtomicU64,
    last_look: LastLook,
    on_timer: OnceLock<Weak<dyn OnTimer>>,
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
    pub(crate) fn new(os_clock: OsClock) -> Self {
        Self {
            coarse: AtomicU64::new(STOPPED),
            last_look: LastLook::new(os_clock),
            on_timer: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// Whose timer it is; said once.
    pub(crate) fn tells(&self, on_timer: Weak<dyn OnTimer>) {
        let _ = self.on_timer.set(on_timer);
    }

    /// Tells the subscriber of the timer that a refresh has ended.
    pub(crate) fn refresh_ended(&self) {
        if let Some(cells) = self.on_timer.get().and_then(Weak::upgrade) {
            cells.refresh_ended();
        }
    }

    /// Whether `moment` (of [`millis`]) is still ahead, as far as is known without a clock. Coarse time is at most
    /// [`MAX_AGE`] behind.
    #[inline]
    pub(crate) fn is_before(&self, moment: u64) -> bool {
        self.coarse.load(Ordering::Acquire) < moment
    }

    /// Whether the clocks were read within the last second, whichever runtime drives the timer.
    #[inline]
    pub(crate) fn is_recent(&self) -> bool {
        self.last_look.is_recent()
    }

    /// Milliseconds since the first tick; `None` if the clocks must be read.
    #[inline]
    pub(crate) fn time(&self) -> Option<u64> {
        Some(self.coarse.load(Ordering::Acquire)).filter(|time| *time != STOPPED)
    }

    /// The clocks were read. The timer goes off after `delay` or earlier. Returns the milliseconds since the first tick,
    /// never less than what either clock says has passed.
    pub(crate) fn tick(&self, now: &Now, delay: Duration) -> u64 {
        let time = self.advance(now, delay);
        // Last: a request that finds the look recent relies on the time, and on the word of its cell.
        self.last_look.note();
        time
    }

    /// The same where nobody has read the clocks for so long that the timer should have gone off, and the cell that was
    /// looked at is not the one that relies on the timer.
    pub(crate) fn tick_late(&self, now: &Now) -> u64 {
        if let Some(cells) = self.on_timer.get().and_then(Weak::upgrade) {
            cells.stopped();
        }
        self.tick(now, MAX_AGE)
    }

    fn advance(&self, now: &Now, delay: Duration) -> u64 {
        let mut state = self.lock();
        let time = state.advance(*now);
        let fires_at = now.monotonic.checked_add(delay).unwrap_or(now.monotonic);
        if state.fires_at.is_some_and(|armed| now.monotonic <= armed && armed <= fires_at) {
            self.coarse.store(time, Ordering::Release);
            return time;
        }
        state.timer = state.timer.wrapping_add(1);
        let timer = self.on_timer.get().map(|on_timer| Timer { on_timer: on_timer.clone(), number: state.timer });
        state.fires_at = Some(fires_at);
        self.coarse.store(time, Ordering::Release);
        drop(state);
        // Without a runtime the timer is dropped here: every request then reads the clocks, which is slow but right.
        if let Some(runtime) = rt::Runtime::current() {
            runtime.spawn(async move {
                // Made here, so that a runtime without timers drops the timer instead of panicking in the caller.
                rt::sleep(delay).await;
                if let Some(timer) = timer {
                    timer.fire();
                }
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
    on_timer: Weak<dyn OnTimer>,
    number: u64,
}

impl Timer {
    fn fire(self) {
        if let Some(on_timer) = self.on_timer.upgrade() {
            let time = millis(on_timer.coarse_clock().lock().since_first);
            on_timer.fired(time);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(on_timer) = self.on_timer.upgrade() else { return };
        let clock = on_timer.coarse_clock();
        let mut state = clock.lock();
        if state.timer == self.number {
            state.fires_at = None;
            clock.coarse.store(STOPPED, Ordering::Release);
            drop(state);
            on_timer.stopped();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::SystemTime;

    use tokio::time::sleep;

    use super::*;
    use crate::types::{Clock, SystemClock};

    const MS: Duration = Duration::from_millis(1);

    /// Counts how often it is told that the clock has stopped.
    struct Told {
        clock: CoarseClock,
        stopped: AtomicUsize,
    }

    impl Told {
        fn new() -> Arc<Self> {
            let clock = CoarseClock::new(OsClock::Set(Arc::default()));
            let told = Arc::new(Self { clock, stopped: AtomicUsize::new(0) });
            let on_timer: Weak<Self> = Arc::downgrade(&told);
            told.clock.tells(on_timer);
            told
        }

        /// The wall clock stands still: its own would go on beside one that is paused.
        fn tick(&self, delay: Duration) {
            self.clock.tick(&Now { wall: SystemTime::UNIX_EPOCH, ..SystemClock.now() }, delay);
        }

        fn stopped(&self) -> usize {
            self.stopped.load(Ordering::Relaxed)
        }
    }

    impl OnTimer for Told {
        fn coarse_clock(&self) -> &CoarseClock {
            &self.clock
        }

        fn fired(&self, _: u64) {}

        fn stopped(&self) {
            self.stopped.fetch_add(1, Ordering::Relaxed);
        }

        fn refresh_ended(self: Arc<Self>) {}
    }

    /// A timer that goes off stops the clock and tells so, but not where a newer timer was armed meanwhile.
    #[tokio::test(start_paused = true)]
    async fn only_the_newest_timer_stops_the_clock() {
        let told = Told::new();
        told.tick(MAX_AGE);
        told.tick(100 * MS);
        sleep(150 * MS).await;
        assert_eq!((told.clock.time(), told.stopped()), (None, 1), "the second one, which was to go off earlier");
        told.tick(MAX_AGE);
        // The first one goes off a second after the beginning, the third one 150 ms later.
        sleep(900 * MS).await;
        assert_eq!((told.clock.time(), told.stopped()), (Some(150), 1));
        sleep(200 * MS).await;
        assert_eq!((told.clock.time(), told.stopped()), (None, 2));
    }

    /// A timer that should have gone off and has not is on a runtime that nobody drives: the next look arms another one.
    #[test]
    fn a_timer_that_is_overdue_is_replaced() {
        let told = Told::new();
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (parked, driven) = (runtime(), runtime());
        {
            let _inside = parked.enter();
            told.tick(MAX_AGE);
        }
        driven.block_on(async {
            sleep(2 * MAX_AGE).await;
            told.tick(MAX_AGE);
            sleep(MAX_AGE + MS).await;
            assert_eq!((told.clock.time(), told.stopped()), (None, 1));
        });
    }
}
