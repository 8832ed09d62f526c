//! Times as they are stored: in milliseconds, moments since 1970.

use std::time::{Duration, SystemTime};

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn since_epoch(moment: SystemTime) -> u64 {
    millis(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// `None`: so far away that the clock cannot tell.
pub(super) fn moment(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}
