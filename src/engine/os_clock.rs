//! Whether a second has passed by the operating system's coarse clocks: for some nanoseconds, and on any runtime.
//!
//! A timer goes off only where somebody drives its runtime, and a process may be suspended. What the time is says the
//! injected clock alone; this says no more than that it is time to read it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::rt::Runtime;
use super::sync::AtomicU64;
use crate::types::{Clock, Now};

/// When the injected clock was read last, by these clocks. In nanoseconds.
pub(super) struct LastLook {
    monotonic: AtomicU64,
    /// It goes on while the machine sleeps.
    real: AtomicU64,
    source: OsClock,
}

const SECOND: u64 = 1_000_000_000;

impl LastLook {
    pub(super) fn new(source: OsClock) -> Self {
        Self { monotonic: AtomicU64::new(0), real: AtomicU64::new(0), source }
    }

    /// The injected clock was read, and everybody who must look because of it has been told: a request that finds the look
    /// recent finds that too.
    pub(super) fn note(&self) {
        let (monotonic, real) = self.source.now();
        self.monotonic.store(monotonic, Ordering::Release);
        self.real.store(real, Ordering::Release);
    }

    /// Whether that is at most a second ago.
    #[inline]
    pub(super) fn is_recent(&self) -> bool {
        if self.source.must_look() {
            return false;
        }
        let (monotonic, real) = self.source.now();
        // Either way: the real clock may be set back.
        monotonic.saturating_sub(self.monotonic.load(Ordering::Acquire)) <= SECOND
            && real.abs_diff(self.real.load(Ordering::Acquire)) <= SECOND
    }
}

/// The coarse clocks.
#[derive(Clone)]
pub(crate) enum OsClock {
    System,
    /// Those of a clock whose time is not the operating system's, since `started`.
    Injected {
        clock: Arc<dyn Clock>,
        started: Now,
    },
    /// Nanoseconds of both.
    #[cfg(test)]
    Set(Arc<std::sync::atomic::AtomicU64>),
}

impl OsClock {
    pub(crate) fn of(clock: &Arc<dyn Clock>) -> Self {
        match clock.coarse() {
            Some(started) => Self::Injected { clock: clock.clone(), started },
            None => Self::System,
        }
    }

    #[inline]
    fn now(&self) -> (u64, u64) {
        match self {
            Self::System => system(),
            Self::Injected { clock, started } => injected(&**clock, started),
            #[cfg(test)]
            Self::Set(nanos) => (nanos.load(Ordering::Relaxed), nanos.load(Ordering::Relaxed)),
        }
    }

    /// There are no such clocks, and nobody may be driving the timer.
    #[inline]
    fn must_look(&self) -> bool {
        match self {
            Self::System => !HAS_COARSE_CLOCKS && is_current_thread(),
            Self::Injected { .. } => false,
            #[cfg(test)]
            Self::Set(_) => false,
        }
    }
}

#[cold]
fn injected(clock: &dyn Clock, started: &Now) -> (u64, u64) {
    let now = clock.coarse().unwrap_or(*started);
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let monotonic = now.monotonic.saturating_duration_since(started.monotonic);
    (nanos(monotonic), nanos(now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

const HAS_COARSE_CLOCKS: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn system() -> (u64, u64) {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    let nanos = |time: Timespec| (time.tv_sec as u64).wrapping_mul(SECOND).wrapping_add(time.tv_nsec as u64);
    (nanos(clock_gettime(ClockId::MonotonicCoarse)), nanos(clock_gettime(ClockId::RealtimeCoarse)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn system() -> (u64, u64) {
    (0, 0)
}

/// As with `block_on` for each request, which polls before it turns the timer wheel.
fn is_current_thread() -> bool {
    Runtime::current().is_some_and(|here| here.is_current_thread())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::test_util::TestClock;

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn the_operating_systems_coarse_clocks_tell_its_time() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (monotonic, real) = system();
        assert!(monotonic > 0);
        assert!(
            real.abs_diff(u64::try_from(before.as_nanos()).unwrap()) < 60 * SECOND,
            "it is a clock of the same day"
        );
    }

    /// A look is not recent when either clock has moved by more than a second since: the machine slept, the wall clock was set
    /// back, or only the monotonic one went on.
    #[test]
    fn either_clock_says_that_a_look_is_long_ago() {
        let moves: [fn(&TestClock); 3] = [
            |clock| clock.suspend(Duration::from_secs(2)),
            |clock| clock.set_wall_back(Duration::from_secs(2)),
            |clock| {
                clock.advance(Duration::from_secs(2));
                clock.set_wall_back(Duration::from_secs(2));
            },
        ];
        for moved in moves {
            let clock = TestClock::new();
            let injected: Arc<dyn Clock> = Arc::new(clock.clone());
            let look = LastLook::new(OsClock::Injected { started: clock.now(), clock: injected });
            look.note();
            assert!(look.is_recent());
            moved(&clock);
            assert!(!look.is_recent());
        }
    }
}
