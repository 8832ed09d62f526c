//! Removes what has expired, of all keys, now and then: a key that nobody asks for any more would keep its secrets.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::place::{Directory, Place, expiry_of};
use crate::store::millis::{millis, since_epoch};
use crate::store::{StoreError, StoreKey};
use crate::types::Now;

/// The file that says when the directory was swept last, in milliseconds since 1970.
pub(super) const MARK: &str = "swept";

/// A directory is swept once in this time, whatever number of processes use it.
const PERIOD: Duration = Duration::from_secs(3600);

/// When this process looks at the mark again.
#[derive(Default)]
pub(super) struct Schedule {
    next: Mutex<Option<Instant>>,
    /// Of two sweeps at a time each would pass over what the other looks at just then.
    alone: Mutex<()>,
}

impl Schedule {
    /// Whether it is time to look; not again for a while.
    pub(super) fn is_due(&self, now: &Now) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = next.is_none_or(|next| now.monotonic >= next);
        if is_due {
            *next = now.monotonic.checked_add(PERIOD);
        }
        is_due
    }
}

/// Sweeps in a thread of its own, unless another process did a short time ago: no save waits for it, and no process for
/// its end.
pub(super) fn begin_unless_swept(directory: &Arc<Directory>, now: Now) {
    if was_swept(directory.path(), &now) {
        return;
    }
    // First, so that a process that ends in the middle does not leave it to each of the next ones.
    let _ = super::place::write_over(&directory.path().join(MARK), since_epoch(now.wall).to_string().as_bytes());
    let directory = directory.clone();
    let sweep = move || {
        let _ = sweep(&directory, now);
    };
    let _ = std::thread::Builder::new().name("token-store-sweep".into()).spawn(sweep);
}

/// Removes everything of the keys whose value has expired, or that have none and no lease. How many they were.
pub(super) fn sweep(directory: &Arc<Directory>, now: Now) -> Result<usize, StoreError> {
    let _alone = directory.sweep.alone.lock().unwrap_or_else(PoisonError::into_inner);
    // A directory that somebody removed meanwhile is not made again for this.
    let Ok(entries) = fs::read_dir(directory.path()) else { return Ok(0) };
    directory.prepare()?;
    let mut keys = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((key, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(key) = key.parse::<StoreKey>() else { continue };
        let path = entry.path();
        let token = path.with_file_name(format!("{key}.token"));
        let may_be_over = match extension {
            "token" => expiry_of(&path).is_some_and(|expires| expires <= since_epoch(now.wall)),
            _ => !token.exists(),
        };
        if may_be_over {
            keys.push(key);
        }
    }
    let mut removed = 0;
    let mut remove = |key: &StoreKey| match Place::enter(directory.clone(), *key, now) {
        Ok(Some(place)) => {
            removed += usize::from(place.is_over() && place.remove().is_ok());
            true
        }
        Ok(None) => false,
        Err(_) => true,
    };
    // Each task that was inside made a call, and has left again when all others are done; or is stopped there.
    keys.retain(|key| !remove(key));
    keys.retain(|key| !remove(key));
    Ok(removed)
}

fn was_swept(directory: &Path, now: &Now) -> bool {
    let read = File::open(directory.join(MARK)).and_then(|file| io::read_to_string(file.take(32)));
    let Some(last) = read.ok().and_then(|text| text.trim().parse::<u64>().ok()) else { return false };
    let now = since_epoch(now.wall);
    // A mark of the future is a wrong clock's.
    last <= now && now - last < millis(PERIOD)
}
