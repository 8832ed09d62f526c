//! The refresh token of a cell: which one is held, and what an answer means for it.

use crate::token::{Failed, HeldRefreshToken, RefreshChange, RefreshDigest, RefreshFate, RefreshOwner};
use crate::types::Secret;

/// One owner, one order. An answer speaks of the refresh token that was sent: of two refresh tokens the one with the higher
/// number is newer, whichever answer comes last, and a refusal of one says nothing of another.
#[derive(Default)]
pub(crate) struct RefreshTokenState {
    held: Option<Box<HeldRefreshToken>>,
    /// It was sent and no usable answer came. Only a success of it or another one ends that.
    maybe_spent: bool,
    /// A sign-in, a token that was set and another client begin another one: answers of former ones are not ours.
    family: u32,
}

/// What a refresh must know to tell the family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Family(u32);

impl RefreshTokenState {
    pub(crate) fn new(configured: Option<Secret<String>>) -> Self {
        let held = |secret| Box::new(HeldRefreshToken { secret, number: 0, owner: RefreshOwner::Configuration });
        Self { held: configured.map(held), ..Self::default() }
    }

    pub(crate) fn held(&self) -> Option<&HeldRefreshToken> {
        self.held.as_deref()
    }

    pub(crate) fn is_held(&self, digest: &RefreshDigest) -> bool {
        self.held().is_some_and(|held| held.digest() == *digest)
    }

    pub(crate) fn maybe_spent(&self) -> bool {
        self.maybe_spent
    }

    pub(crate) fn family(&self) -> Family {
        Family(self.family)
    }

    /// Of a refresh token that takes the place of the one held.
    pub(crate) fn next_number(&self) -> u64 {
        self.held().map_or(0, |held| held.number.saturating_add(1))
    }

    /// Whether it would be lost with the cell.
    pub(crate) fn is_only_here(&self) -> bool {
        self.held().is_some_and(|held| !matches!(held.owner, RefreshOwner::Store { .. }))
    }

    /// An answer came. `sent`: the refresh token that was sent; `dead`: one that was sent before it in vain; `carried`: the
    /// one that the request had.
    pub(crate) fn granted(
        &mut self,
        change: RefreshChange,
        sent: Option<RefreshDigest>,
        dead: Option<RefreshDigest>,
        carried: Option<RefreshDigest>,
    ) {
        if dead.is_some_and(|dead| self.is_held(&dead)) {
            self.drop_held();
        }
        match change {
            RefreshChange::Unchanged => {
                if sent.is_some_and(|sent| self.is_held(&sent)) {
                    self.maybe_spent = false;
                }
            }
            RefreshChange::Replaced(new) => {
                // The same once more may have another owner. One that was set here has no number that a store knows: the
                // store was given it, and says what is newest.
                let was_given = carried.is_some_and(|carried| self.is_held(&carried));
                let is_newer = |held: &HeldRefreshToken| {
                    let is_the_stores = matches!(new.owner, RefreshOwner::Store { .. });
                    new.number > held.number
                        || held.secret.expose() == new.secret.expose()
                        || (was_given && is_the_stores && held.owner == RefreshOwner::Cell)
                };
                if self.held().is_none_or(is_newer) {
                    self.hold(new);
                }
            }
            RefreshChange::Removed => {
                if [sent, carried].into_iter().flatten().any(|dead| self.is_held(&dead)) {
                    self.drop_held();
                }
            }
        }
    }

    /// No token came.
    pub(crate) fn failed(&mut self, failed: &Failed) {
        if !failed.sent.is_some_and(|sent| self.is_held(&sent)) {
            return;
        }
        match failed.refresh {
            RefreshFate::Untouched => {}
            RefreshFate::MaybeSpent => self.maybe_spent = true,
            RefreshFate::Dead => self.drop_held(),
        }
    }

    /// It was sent, and nobody waits for the answer any more.
    pub(crate) fn unanswered(&mut self, sent: &RefreshDigest) {
        self.maybe_spent |= self.is_held(sent);
    }

    /// From outside: what comes with a token that was set. Another one begins another family.
    pub(crate) fn set(&mut self, change: RefreshChange) {
        match change {
            RefreshChange::Unchanged => return,
            // The same says nothing of what became of it: a refresh that has sent it is still to be waited for.
            RefreshChange::Replaced(same) if self.is_held(&same.digest()) => return,
            RefreshChange::Replaced(new) => self.hold(new),
            RefreshChange::Removed => self.drop_held(),
        }
        self.family = self.family.wrapping_add(1);
    }

    /// It is dead, with all that descends from it.
    pub(crate) fn forget(&mut self) {
        self.drop_held();
        self.family = self.family.wrapping_add(1);
    }

    /// It is dead; what a refresh under way brings is not.
    pub(crate) fn drop_held(&mut self) {
        (self.held, self.maybe_spent) = (None, false);
    }

    fn hold(&mut self, new: HeldRefreshToken) {
        (self.held, self.maybe_spent) = (Some(Box::new(new)), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: RefreshOwner = RefreshOwner::Store { single_use: true };

    fn digest(text: &str) -> Option<RefreshDigest> {
        Some(RefreshDigest::of(&Secret::from(text)))
    }

    fn replaced(text: &str, number: u64, owner: RefreshOwner) -> RefreshChange {
        RefreshChange::Replaced(HeldRefreshToken { secret: Secret::from(text), number, owner })
    }

    /// A cell's state in which "a" was set, numbered 5.
    fn holds_a(owner: RefreshOwner) -> RefreshTokenState {
        let mut state = RefreshTokenState::default();
        state.set(replaced("a", 5, owner));
        state
    }

    fn held(state: &RefreshTokenState) -> Option<&str> {
        state.held().map(|held| held.secret.expose().as_str())
    }

    /// The configured refresh token is the first of all, and the next one is newer.
    #[test]
    fn a_configured_refresh_token_is_the_oldest() {
        let state = RefreshTokenState::new(Some(Secret::from("configured")));
        assert_eq!((state.held().map(|held| held.number), state.next_number()), (Some(0), 1));
    }

    /// A refresh token that an answer says is dead goes: tried in vain before another one, sent, or carried by the request.
    #[test]
    fn what_an_answer_says_is_dead_is_not_held_any_more() {
        for (change, sent, dead, carried) in [
            (RefreshChange::Unchanged, digest("b"), digest("a"), None),
            (RefreshChange::Removed, digest("a"), None, None),
            (RefreshChange::Removed, digest("b"), None, digest("a")),
        ] {
            let mut state = holds_a(RefreshOwner::Cell);
            state.granted(change, sent, dead, carried);
            assert_eq!(held(&state), None);
        }
    }

    /// Whether a refresh token may be spent is known again when it has succeeded, and not when another one has.
    #[test]
    fn only_its_own_success_says_that_a_refresh_token_is_not_spent() {
        let mut state = holds_a(RefreshOwner::Cell);
        state.unanswered(&digest("b").unwrap());
        assert!(!state.maybe_spent());
        state.unanswered(&digest("a").unwrap());
        assert!(state.maybe_spent());
        state.granted(RefreshChange::Unchanged, digest("b"), None, digest("b"));
        assert!(state.maybe_spent());
        state.granted(RefreshChange::Unchanged, digest("a"), None, digest("a"));
        assert!(!state.maybe_spent());
    }

    /// A store has the newest refresh token, whatever its number, where the request carried the one that this cell held as its
    /// own; else the higher number is newer.
    #[test]
    fn a_store_replaces_the_cells_own_refresh_token_that_the_request_carried() {
        for (owner, carried, expected) in
            [(RefreshOwner::Cell, "a", "stored"), (RefreshOwner::Cell, "b", "a"), (STORE, "a", "a")]
        {
            let mut state = holds_a(owner);
            state.granted(replaced("stored", 1, STORE), digest(carried), None, digest(carried));
            assert_eq!(held(&state), Some(expected), "{owner:?} {carried}");
        }
    }

    /// The same refresh token with another owner is that owner's from now on.
    #[test]
    fn the_same_refresh_token_changes_its_owner() {
        let mut state = holds_a(RefreshOwner::Cell);
        state.granted(replaced("a", 3, STORE), digest("b"), None, digest("b"));
        assert_eq!(state.held().map(|held| held.owner), Some(STORE));
    }

    /// Another refresh token that is set begins a family, and the same one does not.
    #[test]
    fn the_same_refresh_token_that_is_set_begins_no_family() {
        let mut state = holds_a(RefreshOwner::Cell);
        let family = state.family();
        state.set(replaced("a", 6, RefreshOwner::Cell));
        assert_eq!(state.family(), family);
        state.set(replaced("b", 6, RefreshOwner::Cell));
        assert_ne!(state.family(), family);
    }
}
