//! `Current`: a token in its cell.

use crate::token::{Lifetime, Token};

/// A token in its cell.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Current {
    pub(crate) generation: u64,
    pub(crate) token: Token,
    pub(crate) lifetime: Lifetime,
    /// A store had it, or has it now.
    pub(crate) from_store: bool,
}

/// In a state word, beside the generation: the clocks must be read.
pub(super) const CHECK_CLOCK: u64 = 0b01;
/// In a state word: the server said `invalid_token` of this token, and a refresh is in flight.
pub(super) const KNOWN_INVALID: u64 = 0b10;
const GENERATION_SHIFT: u32 = 2;

impl Current {
    /// The word of a cell in which this token is current and nothing is to be done: what the hot path compares with.
    pub(crate) fn word(&self) -> u64 {
        word_of(self.generation)
    }

    /// The token with a time of its own: of one that was set, whatever a store had then is older.
    pub(crate) fn dated_token(&self) -> Token {
        let mut token = self.token.clone();
        token.asked_at.get_or_insert(self.lifetime.arrived().wall);
        token
    }

    /// The generation that such a word stands for.
    pub(crate) fn generation_of(word: u64) -> u64 {
        word >> GENERATION_SHIFT
    }
}

/// The word of a cell in which nothing is to be done.
pub(super) fn word_of(generation: u64) -> u64 {
    generation << GENERATION_SHIFT
}
