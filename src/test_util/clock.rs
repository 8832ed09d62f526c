//! `TestClock`: a clock that follows tokio's and jumps when told to.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::record::lock;
use crate::types::{Clock, Now};

/// 2026-01-01T00:00:00Z, the wall time at which every `TestClock` starts.
const START: Duration = Duration::from_secs(1_767_225_600);

/// A clock for tests. It follows tokio's clock, so it stands still under `tokio::time::pause()` and moves with
/// `tokio::time::advance()`; besides, it jumps when told to. Clones share their time.
///
/// Jumps move only what this clock *reads*: tokio's timers do not fire because of them. The next request notices a jump of
/// more than a second. Wall time starts at
/// 2026-01-01T00:00:00Z.
///
/// ```
/// use std::time::Duration;
///
/// use tower_oauth2_client::Clock;
/// use tower_oauth2_client::test_util::TestClock;
///
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.suspend(Duration::from_secs(7200)); // the laptop's lid is closed for two hours
/// assert!(clock.now().wall >= before.wall + Duration::from_secs(7200));
/// assert!(clock.now().monotonic < before.monotonic + Duration::from_secs(7200));
/// ```
#[derive(Clone, Debug)]
pub struct TestClock {
    start: Instant,
    jumps: Arc<Mutex<Jumps>>,
}

#[derive(Debug, Default)]
struct Jumps {
    both: Duration,
    suspended: Duration,
    wall_back: Duration,
}

impl TestClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), jumps: Arc::default() }
    }

    /// Both clocks jump ahead by `span`.
    pub fn advance(&self, span: Duration) {
        let mut jumps = lock(&self.jumps);
        jumps.both = jumps.both.saturating_add(span);
    }

    /// Only wall time jumps ahead, as when a machine wakes from sleep.
    pub fn suspend(&self, span: Duration) {
        let mut jumps = lock(&self.jumps);
        jumps.suspended = jumps.suspended.saturating_add(span);
    }

    /// Wall time is set back by `span`. The servers of this module are other machines: for them time goes on.
    pub fn set_wall_back(&self, span: Duration) {
        let mut jumps = lock(&self.jumps);
        jumps.wall_back = jumps.wall_back.saturating_add(span);
    }

    /// Wall time as the servers see it: [`set_wall_back`](Self::set_wall_back) does not touch it.
    pub(super) fn server_time(&self) -> SystemTime {
        let jumps = lock(&self.jumps);
        let passed = self.start.elapsed().saturating_add(jumps.both).saturating_add(jumps.suspended);
        let start = SystemTime::UNIX_EPOCH + START;
        start.checked_add(passed).unwrap_or(start)
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let server_time = self.server_time();
        let jumps = lock(&self.jumps);
        let monotonic = Instant::now().into_std();
        Now {
            monotonic: monotonic.checked_add(jumps.both).unwrap_or(monotonic),
            wall: server_time.checked_sub(jumps.wall_back).unwrap_or(server_time),
        }
    }

    /// So that it does not matter how long a test takes.
    fn coarse(&self) -> Option<Now> {
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn it_follows_tokios_clock() {
        let clock = TestClock::new();
        let before = clock.now();
        assert_eq!(before.wall, SystemTime::UNIX_EPOCH + START);
        assert_eq!(clock.now(), before);
        tokio::time::advance(HOUR).await;
        assert_eq!(clock.now(), Now { monotonic: before.monotonic + HOUR, wall: before.wall + HOUR });
    }

    #[tokio::test(start_paused = true)]
    async fn jumps_are_shared_by_clones() {
        let clock = TestClock::new();
        let before = clock.now();
        clock.clone().advance(HOUR);
        assert_eq!(clock.now(), Now { monotonic: before.monotonic + HOUR, wall: before.wall + HOUR });
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_and_steps_move_wall_time_only() {
        let clock = TestClock::new();
        let before = clock.now();
        clock.suspend(2 * HOUR);
        assert_eq!(clock.now(), Now { wall: before.wall + 2 * HOUR, ..before });
        clock.set_wall_back(3 * HOUR);
        assert_eq!(clock.now(), Now { wall: before.wall - HOUR, ..before });
        assert_eq!(clock.server_time(), before.wall + 2 * HOUR);
    }

    #[test]
    fn absurd_jumps_do_not_panic() {
        let clock = TestClock::new();
        clock.advance(Duration::MAX);
        clock.suspend(Duration::MAX);
        clock.set_wall_back(Duration::MAX);
        clock.now();
    }
}
