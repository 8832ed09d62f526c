//! The one time of a simulation: tokio's while a runtime is driven, and it goes on from there when another one is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tower_oauth2_client::{Clock, Now};

use crate::plan::Sickness;

#[derive(Clone)]
pub(crate) struct SimClock {
    base: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What had passed when the slice that runs now began.
    passed: Duration,
    began: Option<tokio::time::Instant>,
    suspended: Duration,
    set_back: Duration,
    last_jump: Option<Duration>,
}

impl SimClock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), state: Arc::default() }
    }

    /// A runtime is driven from now on; call it inside of it.
    pub(crate) fn begin(&self) {
        self.state.lock().unwrap().began = Some(tokio::time::Instant::now());
    }

    /// And now it is not any more.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock().unwrap();
        let slice = state.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        state.passed += slice;
    }

    /// True time since the beginning.
    pub(crate) fn passed(&self) -> Duration {
        let state = self.state.lock().unwrap();
        state.passed + state.began.map_or(Duration::ZERO, |began| began.elapsed()) + state.suspended
    }

    /// The machine sleeps: wall time goes on, and so do the servers.
    pub(crate) fn suspend(&self, span: Duration) {
        // Kept apart from `passed`, which is also what monotonic time counts.
        let mut state = self.state.lock().unwrap();
        state.suspended += span;
        drop(state);
        self.jumped();
    }

    pub(crate) fn set_back(&self, span: Duration) {
        self.state.lock().unwrap().set_back += span;
        self.jumped();
    }

    /// Also for a runtime that stood still: it is as if its clock had jumped.
    pub(crate) fn jumped(&self) {
        let now = self.passed();
        self.state.lock().unwrap().last_jump = Some(now);
    }

    pub(crate) fn was_set_back(&self) -> bool {
        !self.state.lock().unwrap().set_back.is_zero()
    }

    pub(crate) fn was_suspended(&self) -> bool {
        !self.state.lock().unwrap().suspended.is_zero()
    }

    /// How long ago the clocks jumped.
    pub(crate) fn since_jump(&self) -> Duration {
        let last = self.state.lock().unwrap().last_jump;
        last.map_or(Duration::MAX, |last| self.passed().saturating_sub(last))
    }
}

/// As one process reads it.
pub(crate) struct ProcessClock {
    clock: SimClock,
    ahead: Duration,
}

impl ProcessClock {
    pub(crate) fn of(clock: &SimClock, process: usize, sickness: Option<Sickness>) -> Self {
        let is_ahead = process == 0 && sickness == Some(Sickness::ClockAhead);
        let ahead = if is_ahead { Duration::from_secs(250) } else { Duration::ZERO };
        Self { clock: clock.clone(), ahead }
    }
}

impl Clock for ProcessClock {
    fn coarse(&self) -> Option<Now> {
        Some(self.now())
    }

    fn now(&self) -> Now {
        let Now { monotonic, wall } = self.clock.now();
        Now { monotonic, wall: wall + self.ahead }
    }
}

impl Clock for SimClock {
    fn coarse(&self) -> Option<Now> {
        Some(self.now())
    }

    fn now(&self) -> Now {
        let passed = self.passed();
        let state = self.state.lock().unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Now { monotonic: self.base + (passed - state.suspended), wall: start + passed - state.set_back }
    }
}
