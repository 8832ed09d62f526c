//! `Repeats`: a warning is written at most once a second, with a count of those that were not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is counted together: an event, and what else tells two of it apart. As many as the code has names for.
pub(super) type Kind = (&'static str, &'static str);

#[derive(Default)]
pub(super) struct Repeats(Mutex<Vec<Written>>);

struct Written {
    kind: Kind,
    last: Instant,
    skipped: u64,
}

impl Repeats {
    const PAUSE: Duration = Duration::from_secs(1);

    /// `None`: not now. Otherwise how many were skipped since the last one that was written.
    pub(super) fn admit(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written) = all.iter_mut().find(|written| written.kind == kind) else {
            all.push(Written { kind, last: now, skipped: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(written.last) < Self::PAUSE {
            written.skipped = written.skipped.saturating_add(1);
            return None;
        }
        written.last = now;
        Some(std::mem::take(&mut written.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour 172.
    #[test]
    fn one_of_each_kind_in_a_second_and_none_is_lost_from_the_count() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let mut told = 0;
        for millis in (0..10_000).step_by(100) {
            told += repeats.admit(("a", ""), at(millis)).map_or(0, |skipped| skipped + 1);
            assert_eq!(repeats.admit(("b", ""), at(millis)).is_some(), millis % 1000 == 0, "kinds do not share");
        }
        assert_eq!(told, 91, "all but those since the last second began");
        assert_eq!(repeats.admit(("a", ""), at(60_000)), Some(9));
        assert_eq!(repeats.admit(("a", "x"), at(60_000)), Some(0));
    }
}
