//! `HeaderCache`: header values for clones of a service that are too new to have one of their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;

use crate::types::deep_clone;

/// A copy of the token's header value for each of so many groups of threads.
///
/// Who clones the service for each request has no copy of its own, and one value for all would be one reference count that
/// all threads write to: 43 to 57 ns for a clone of it instead of 17, with two threads. A lock that nobody else wants costs
/// less than to count a reference to the cell's token.
#[derive(Default)]
pub(crate) struct HeaderCache([Shard; SHARDS]);

const SHARDS: usize = 16;

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// The cell's word for which `header` is good; zero: none yet.
    word: u64,
    header: Option<HeaderValue>,
}

impl HeaderCache {
    /// This thread's copy, if it is good for the cell as it is now.
    #[inline]
    pub(crate) fn lookup(&self, word: u64) -> Option<HeaderValue> {
        let held = self.own();
        if held.word == word { held.header.clone() } else { None }
    }

    /// This thread's copy of `header`, which is good for `word`; made if there is none.
    pub(crate) fn get_or_copy(&self, word: u64, header: &HeaderValue) -> HeaderValue {
        self.lookup(word).unwrap_or_else(|| self.renew(word, header))
    }

    #[cold]
    fn renew(&self, word: u64, header: &HeaderValue) -> HeaderValue {
        let copy = deep_clone(header);
        let mut held = self.own();
        // A straggler must not put back an older token: harmless, but each request would then copy anew.
        if held.word < word {
            *held = Held { word, header: Some(copy.clone()) };
        }
        copy
    }

    #[inline]
    fn own(&self) -> MutexGuard<'_, Held> {
        let Shard(held) = &self.0[THREAD.with(|thread| *thread) % SHARDS];
        held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Threads are numbered as they come.
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_good_for_its_word_only_and_is_not_replaced_by_an_older_one() {
        let header_cache = HeaderCache::default();
        let [old, new] = ["Bearer old", "Bearer new"].map(HeaderValue::from_static);
        assert_eq!(header_cache.lookup(4), None);
        assert_eq!(header_cache.get_or_copy(4, &old), old);
        assert_eq!(header_cache.lookup(4), Some(old.clone()));
        assert_eq!(header_cache.lookup(5), None, "the same generation, and something is to be done");
        assert_eq!(header_cache.get_or_copy(8, &new), new);
        assert_eq!(header_cache.get_or_copy(4, &old), old);
        assert_eq!((header_cache.lookup(4), header_cache.lookup(8)), (None, Some(new)));
    }

    #[test]
    fn a_copy_stays_sensitive() {
        let header_cache = HeaderCache::default();
        let mut header = HeaderValue::from_static("Bearer t");
        header.set_sensitive(true);
        assert!(header_cache.get_or_copy(4, &header).is_sensitive());
        assert!(header_cache.lookup(4).is_some_and(|copy| copy.is_sensitive()));
    }
}
