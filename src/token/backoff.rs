//! `Backoff`: how long nobody asks after a failure, and how that grows.

use std::time::Duration;

use super::lifetime::{YEAR, share};
use crate::types::ConfigError;

/// The pauses after failures in a row: doubled each time, from the first to the longest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
    pub(crate) jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jitter {
    None,
    /// Drawn between zero and the pause, so that those who failed together do not come back together.
    Full,
}

impl Backoff {
    /// After a failure that may pass.
    pub(crate) const TRANSIENT: Self =
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(60), jitter: Jitter::Full };
    /// After a failure that will not pass by itself: secrets get rotated, so it ends all the same.
    pub(crate) const PERMANENT: Self =
        Self { first: Duration::from_secs(30), longest: Duration::from_secs(600), jitter: Jitter::None };
    /// The shortest pause, so that neither a setting nor full jitter can say "at once".
    pub(crate) const SHORTEST: Duration = Duration::from_millis(100);

    /// The pause after one failure more than `in_a_row` before it. `draw`: uniform in `[0, 1)`.
    pub(crate) fn pause(&self, in_a_row: u32, draw: f64) -> Duration {
        let pause = self.undrawn(in_a_row);
        let drawn = match self.jitter {
            Jitter::None => pause,
            Jitter::Full => share(pause, draw.clamp(0.0, 1.0)),
        };
        drawn.max(Self::SHORTEST)
    }

    /// The same before the jitter.
    pub(crate) fn undrawn(&self, in_a_row: u32) -> Duration {
        self.first.saturating_mul(1 << in_a_row.min(20)).min(self.longest).min(YEAR)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.first > self.longest {
            return Err(ConfigError::new("the first pause is longer than the longest", "pass the shorter one first"));
        }
        Ok(())
    }
}
