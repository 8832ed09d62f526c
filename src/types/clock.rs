//! `Clock`: both times, monotonic and wall, injected.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks.
///
/// Both are needed: the monotonic clock stands still while a laptop sleeps, the wall clock can be set back. A token is
/// expired as soon as *either* says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time that never goes back; used for lifetimes, backoff and waits.
    pub monotonic: Instant,
    /// Calendar time; used for `exp` inside a JWT and other absolute expiries.
    pub wall: SystemTime,
}

impl Now {
    /// The moment `span` later, by both clocks. A span too large to be represented is cut to a year.
    pub(crate) fn after(&self, span: Duration) -> Now {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let span = span.min(YEAR);
        Now {
            monotonic: self.monotonic.checked_add(span).unwrap_or(self.monotonic),
            wall: self.wall.checked_add(span).unwrap_or(self.wall),
        }
    }

    /// Whether `moment` has come, by either clock.
    pub(crate) fn reached(&self, moment: &Now) -> bool {
        self.monotonic >= moment.monotonic || self.wall >= moment.wall
    }

    /// How long until `moment` comes by the clock that gets there first; zero when it has come.
    pub(crate) fn until(&self, moment: &Now) -> Duration {
        let monotonic = moment.monotonic.saturating_duration_since(self.monotonic);
        let wall = moment.wall.duration_since(self.wall).unwrap_or_default();
        monotonic.min(wall)
    }
}

/// Where the crate reads the time. Replace it in tests; leave it alone otherwise.
///
/// Timers run on tokio's clock; they only remind the crate to read this one, at least once a second while requests
/// come. So a `Clock` that jumps is noticed within a second of tokio time. `test_util::TestClock` is one for tests.
pub trait Clock: Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// A cheap reading, a few milliseconds old at most, that says whether to read [`now`](Self::now) again: a request does
    /// so if this one has moved by more than a second since.
    ///
    /// `None`, the default: the operating system's coarse clocks are asked. Only a clock whose time is not the operating
    /// system's has a reason to answer here.
    fn coarse(&self) -> Option<Now> {
        None
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Now {
        (**self).now()
    }

    fn coarse(&self) -> Option<Now> {
        (**self).coarse()
    }
}

/// The clocks of the operating system. The monotonic one is tokio's, so that it stands still with
/// `tokio::time::pause()`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { monotonic: tokio::time::Instant::now().into_std(), wall: SystemTime::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_by_whichever_clock_is_first() {
        let now = SystemClock.now();
        let later = now.after(Duration::from_secs(60));
        assert!(!now.reached(&later));
        assert_eq!(now.until(&later), Duration::from_secs(60));
        let suspended = Now { wall: later.wall, ..now };
        assert!(suspended.reached(&later));
        let set_back = Now { wall: now.wall - Duration::from_secs(3600), monotonic: later.monotonic };
        assert!(set_back.reached(&later));
        assert_eq!(now.until(&set_back), Duration::ZERO);
    }

    #[test]
    fn an_absurd_span_is_cut_not_panicked_on() {
        let now = SystemClock.now();
        assert!(!now.reached(&now.after(Duration::MAX)));
    }
}
