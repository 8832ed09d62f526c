//! `Nonces`: the newest nonce of each server (RFC 9449 §8, §9).

use std::sync::{Mutex, PoisonError};

/// The newest nonce of each origin that gave one.
#[derive(Default)]
pub(super) struct Nonces(Mutex<Vec<Entry>>);

struct Entry {
    origin: Box<str>,
    nonce: Box<str>,
}

impl Nonces {
    /// More origins than a configuration names. One that is forgotten costs its next request a repeat.
    pub(super) const MAX: usize = 32;
    /// In bytes. A nonce may be encrypted state of the server; beyond this it is a mistake.
    const LONGEST: usize = 1024;

    pub(super) fn of(&self, origin: &str) -> Option<Box<str>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|entry| &*entry.origin == origin).map(|entry| entry.nonce.clone())
    }

    /// A nonce (RFC 9449 §8.1: `1*NQCHAR`), or nothing of use.
    pub(super) fn read(value: &[u8]) -> Option<Box<str>> {
        let is_nonce = (1..=Self::LONGEST).contains(&value.len())
            && value.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        std::str::from_utf8(value).ok().filter(|_| is_nonce).map(Box::from)
    }

    /// Replaces the origin's former one.
    pub(super) fn remember(&self, origin: &str, nonce: &str) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.iter_mut().find(|entry| &*entry.origin == origin) {
            Some(entry) if &*entry.nonce == nonce => {}
            Some(entry) => entry.nonce = nonce.into(),
            None => {
                if entries.len() >= Self::MAX {
                    entries.remove(0);
                }
                entries.push(Entry { origin: origin.into(), nonce: nonce.into() });
            }
        }
    }
}
