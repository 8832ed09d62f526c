//! One token request through a store: look, take the lease, look again, ask the source, store, answer.
//!
//! The order is what makes it safe. Nobody asks without the lease, so that a fleet asks once. Whoever has the lease looks
//! again, since its holder before may have just finished. What the source brought is stored before it is used, so that a
//! crash cannot leave a refresh token spent that others still hold. A store that fails is gone without.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::access::{Access, Figures, LeaseGuard, StoredEntry};
use super::failure::Failure;
use super::record::Record;
use super::{Saved, StoreError, StoreKey, TokenStore, Version};
use crate::token::{
    Failed, Granted, RefreshChange, RefreshContext, RefreshFate, RefreshOwner, RefreshToken, Token, TokenRequest,
    TokenSource, fetch, useful_for,
};
use crate::types::{Clock, Secret, TokenError, TokenErrorKind, events};

/// Why a new token is not in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// The store failed.
    StoreFailed,
    /// Somebody else has stored another meanwhile.
    LostRace,
}

pub(super) struct Fetch<'a, St: TokenStore, T> {
    pub(super) access: &'a Access<St>,
    pub(super) source: &'a T,
    pub(super) request: TokenRequest,
    pub(super) context: Arc<RefreshContext>,
    pub(super) key: StoreKey,
    /// Refresh tokens that were tried.
    dead: Vec<Secret<String>>,
}

/// How a look at the store ends.
#[expect(clippy::large_enum_variant, reason = "there is one for a token request, and it is taken apart at once")]
enum Lookup<St: TokenStore> {
    Token(Token),
    /// Somebody asked a moment ago, in vain.
    Failed(TokenError),
    /// It is ours to ask.
    Ask(LeaseGuard<St>, StoredEntry),
    OutOfTime,
}

/// Why the source brought no token.
enum NoToken {
    AtLast(TokenError),
    /// This refresh token is dead, and there is another.
    Dead(Secret<String>),
}

/// A refresh token to try.
#[derive(Default)]
struct Candidate {
    refresh_token: Option<Secret<String>>,
    number: u64,
    answer_lost: bool,
}

impl<'a, St: TokenStore, T: TokenSource> Fetch<'a, St, T> {
    pub(super) fn new(access: &'a Access<St>, source: &'a T, request: TokenRequest) -> Self {
        let key = access.identity.key(request.tenant.as_ref(), request.scopes.as_ref());
        let context = request.context();
        // What is sent is decided here.
        context.report.begin();
        Self { access, source, context, request, key, dead: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Result<Token, TokenError> {
        if self.access.is_resting(self.clock()) {
            return self.without_store().await;
        }
        loop {
            let asked = match self.look().await {
                Ok(Lookup::Token(token)) => {
                    events::token_from_store();
                    Figures::count(&self.access.figures().found);
                    return Ok(token);
                }
                Ok(Lookup::Ask(lease_guard, found)) => self.ask(lease_guard, found).await,
                Ok(Lookup::Failed(error)) => return Err(error),
                Ok(Lookup::OutOfTime) => Err(NoToken::AtLast(
                    TokenError::new(TokenErrorKind::Timeout)
                        .with_detail("another process is asking for this token and has not finished"),
                )),
                Err(_) => return self.without_store().await,
            };
            match asked {
                Ok(token) => return Ok(token),
                Err(NoToken::AtLast(error)) => return Err(error),
                Err(NoToken::Dead(refresh_token)) => self.dead.push(refresh_token),
            }
        }
    }

    async fn look(&self) -> Result<Lookup<St>, StoreError> {
        let mut first = None;
        loop {
            let found = self.access.load(self.clock(), &self.key).await?;
            let first = *first.get_or_insert(found.version);
            if let Some(token) = self.usable(&found, first) {
                return Ok(Lookup::Token(token));
            }
            if let Some(error) = self.failure(&found) {
                return Ok(Lookup::Failed(error));
            }
            if let Some(mut lease_guard) = self.access.lease(self.clock(), &self.key).await? {
                let found = self.access.load(self.clock(), &self.key).await?;
                let look = match (self.usable(&found, first), self.failure(&found)) {
                    (Some(token), _) => Lookup::Token(token),
                    (None, Some(error)) => Lookup::Failed(error),
                    (None, None) => return Ok(Lookup::Ask(lease_guard, found)),
                };
                lease_guard.told();
                lease_guard.end().await;
                return Ok(look);
            }
            // A little before the engine gives up, which would count the refresh token as spent.
            let deadline = self.context.deadline.checked_sub(ENOUGH_TO_ANSWER).unwrap_or(self.context.deadline);
            if timeout_at(deadline, self.access.changed(&self.key, found.version)).await.is_err() {
                return Ok(Lookup::OutOfTime);
            }
        }
    }

    /// The token found, if it is what we want: newer than the one we have, alive for a while, and made by us.
    fn usable(&self, found: &StoredEntry, first: Version) -> Option<Token> {
        let record = found.record.as_ref()?;
        let token = record.token.clone()?;
        if self.is_signed_in_anew(record) {
            return None;
        }
        if let (Some(ours), Some(theirs)) = (self.access.identity.made_by(), &record.made_by)
            && ours != *theirs
        {
            return None;
        }
        if let Some(previous) = &self.request.previous {
            // The same once more is an answer only if somebody has just asked and got it.
            let asked_again = found.version != first;
            let older = !self.request.previous_from_store && token.asked_at < previous.asked_at;
            if older || (previous.is_same_as(&token) && !asked_again) {
                return None;
            }
        }
        let left = useful_for(&token, &self.context.lifetime, &self.clock().now());
        left.is_none_or(|left| !left.is_zero()).then(|| self.stored(token, record))
    }

    /// The failure found, if it concerns us and is not over.
    fn failure(&self, found: &StoredEntry) -> Option<TokenError> {
        let record = found.record.as_ref()?;
        let failure = record.failure.as_ref().filter(|_| !self.is_signed_in_anew(record))?;
        failure.error_at(self.access.identity.made_by().as_ref(), self.clock().now().wall)
    }

    /// Whether we bring a refresh token of a sign-in that the store does not know yet.
    fn is_signed_in_anew(&self, record: &Record) -> bool {
        let is_theirs = |ours| record.refresh_token.as_ref().is_some_and(|theirs| is_same(ours, theirs));
        let ours = self.request.refresh_token.as_ref().filter(|_| self.request.refresh_owner == RefreshOwner::Cell);
        ours.is_some_and(|ours| !self.is_dead(ours) && !is_theirs(ours))
    }

    /// Asks the source under the lease.
    async fn ask(&self, mut lease_guard: LeaseGuard<St>, found: StoredEntry) -> Result<Token, NoToken> {
        let mut candidates = self.candidates(&found, lease_guard.abandoned).into_iter();
        let Candidate { refresh_token, number, answer_lost } = candidates.next().unwrap_or_default();
        let asked_at = self.clock().now().wall;
        let made_by = self.access.identity.made_by();
        if refresh_token.is_some() {
            lease_guard.untold();
        }
        let request = TokenRequest {
            refresh_token: refresh_token.clone(),
            refresh_number: number,
            refresh_answer_lost: answer_lost,
            ..self.request.clone()
        };
        match lease_guard.during(self.fetch(request)).await {
            Ok(Granted { mut token, refresh, .. }) => {
                token.asked_at = Some(asked_at);
                let (new, refresh_number) = match &refresh {
                    RefreshChange::Replaced(new) => (Some(new.secret.clone()), new.number),
                    RefreshChange::Unchanged => (refresh_token.clone(), number),
                    RefreshChange::Removed => match candidates.next() {
                        Some(other) => (other.refresh_token, other.number),
                        None => (None, number),
                    },
                };
                let single_use = match (&new, &refresh_token) {
                    (Some(new), Some(old)) => !is_same(new, old),
                    _ => found.record.as_ref().is_none_or(|before| before.single_use),
                };
                let record = Record {
                    token: Some(token.clone()),
                    made_by,
                    refresh_token: new,
                    refresh_number,
                    answer_lost: false,
                    single_use,
                    failure: None,
                };
                let token = token.with_refresh_token(refresh.into());
                Ok(self.store(lease_guard, found.version, token, record, refresh_token).await)
            }
            Err(failed) if failed.refresh == RefreshFate::Dead => {
                Err(self.after_dead(lease_guard, found, refresh_token, failed.error).await)
            }
            Err(Failed { error, refresh, .. }) => {
                let nobody_asked = refresh_token.is_none() && error.status().is_none();
                let answer_lost = refresh == RefreshFate::MaybeSpent || answer_lost;
                self.note_failure(&mut lease_guard, found, &error, answer_lost, refresh_token).await;
                lease_guard.end().await;
                Err(NoToken::AtLast(if nobody_asked { look_again_soon(error) } else { error }))
            }
        }
    }

    /// Asks the source, and reports what becomes of the refresh token that it is given here.
    async fn fetch(&self, request: TokenRequest) -> Result<Granted, Failed> {
        let refresh_token = request.refresh_token.clone();
        if let Some(refresh_token) = &refresh_token {
            self.context.report.sending(refresh_token);
        }
        let result = fetch(self.source, request).await;
        if refresh_token.is_some() {
            let fate = result.as_ref().map_or_else(|failed| failed.refresh, |_| RefreshFate::Untouched);
            self.context.report.answered(fate);
        }
        result
    }

    /// Before anything is forgotten: somebody may have stored another one meanwhile, lease or no lease.
    async fn after_dead(
        &self,
        mut lease_guard: LeaseGuard<St>,
        found: StoredEntry,
        dead: Option<Secret<String>>,
        error: TokenError,
    ) -> NoToken {
        let found = self.access.load(self.clock(), &self.key).await.unwrap_or(found);
        let is_dead = |token: &Secret<String>| dead.as_ref().is_some_and(|dead| is_same(dead, token));
        let other = |candidate: &Candidate| candidate.refresh_token.as_ref().is_some_and(|token| !is_dead(token));
        let is_another_there = self.candidates(&found, false).iter().any(other);
        if is_another_there {
            lease_guard.told();
        } else {
            self.forget_refresh_token(&mut lease_guard, found).await;
        }
        lease_guard.end().await;
        match dead {
            // Once, and under a lease taken anew: this one may be lost, or how would there be another?
            Some(dead) if is_another_there && self.dead.is_empty() => NoToken::Dead(dead),
            // It is not there to be sent the next time.
            Some(_) => NoToken::AtLast(look_again_soon(error)),
            None => NoToken::AtLast(error),
        }
    }

    /// The refresh tokens to try, the most promising one first. One that was handed in is newer than what the store has;
    /// one that the configuration brought is older; a copy of the store's is of use only where the store has lost its own.
    fn candidates(&self, found: &StoredEntry, abandoned: bool) -> Vec<Candidate> {
        let stored = found.record.as_ref().and_then(|record| {
            let refresh_token = Some(record.refresh_token.clone()?);
            let answer_lost = record.answer_lost || abandoned;
            Some(Candidate { refresh_token, number: record.refresh_number, answer_lost })
        });
        let answer_lost = match self.request.refresh_owner {
            RefreshOwner::Cell | RefreshOwner::Configuration => self.request.refresh_answer_lost,
            RefreshOwner::Store { single_use } => single_use,
        };
        let ours = self.request.refresh_token.clone();
        let number = self.request.refresh_number;
        let ours = ours.map(|token| Candidate { refresh_token: Some(token), number, answer_lost });
        let candidates = match self.request.refresh_owner {
            RefreshOwner::Cell => [ours, stored],
            RefreshOwner::Configuration if stored.is_none() => [ours, None],
            RefreshOwner::Store { .. } if found.record.is_none() => [ours, None],
            RefreshOwner::Configuration | RefreshOwner::Store { .. } => [stored, None],
        };
        let alive = |candidate: &Candidate| candidate.refresh_token.as_ref().is_some_and(|token| !self.is_dead(token));
        candidates.into_iter().flatten().filter(alive).collect()
    }

    fn is_dead(&self, refresh_token: &Secret<String>) -> bool {
        self.dead.iter().any(|dead| is_same(dead, refresh_token))
    }

    /// Stores what the source brought, and says what to use: that, or what somebody else has stored meanwhile.
    async fn store(
        &self,
        mut lease_guard: LeaseGuard<St>,
        expected: Version,
        ours: Token,
        record: Record,
        used: Option<Secret<String>>,
    ) -> Token {
        let lives_for = self.lives_for(&record);
        let mut saved = lease_guard.save(self.clock(), &record, lives_for, expected).await;
        if saved.is_err() {
            // Once more, as so much is at stake.
            saved = lease_guard.save(self.clock(), &record, lives_for, expected).await;
        }
        let (token, problem) = match saved {
            Ok(Saved::Done(_)) => {
                Figures::count(&self.access.figures().stored);
                lease_guard.told();
                (self.stored(ours, &record), None)
            }
            Ok(Saved::Conflict | Saved::Fenced) => {
                // Never overwritten: what is there is newer, or it is ours and only the answer was lost.
                lease_guard.told();
                match self.theirs(&ours, &record, used.as_ref()).await {
                    Some(theirs) => (theirs, None),
                    None => (ours, Some(NotStored::LostRace)),
                }
            }
            Err(_) => {
                if used.is_some() {
                    // The others still have the refresh token that is spent.
                    tokio::spawn(lease_guard.save_later(self.context.clock.clone(), record, lives_for, expected));
                    self.not_stored(NotStored::StoreFailed);
                    return ours;
                }
                lease_guard.told();
                (ours, Some(NotStored::StoreFailed))
            }
        };
        lease_guard.end().await;
        if let Some(reason) = problem {
            self.not_stored(reason);
        }
        token
    }

    fn not_stored(&self, reason: NotStored) {
        Figures::count(&self.access.figures().not_stored);
        events::not_stored(reason);
    }

    /// What is stored in place of ours, if it is of use.
    async fn theirs(&self, ours: &Token, record: &Record, used: Option<&Secret<String>>) -> Option<Token> {
        let found = self.access.load(self.clock(), &self.key).await.ok()?;
        let theirs = found.record.as_ref()?;
        if theirs.token.as_ref().is_some_and(|token| token.is_same_as(ours)) {
            return Some(self.stored(ours.clone(), record));
        }
        // If they still have the refresh token that we used, only we have its successor.
        let is_spent = |token: &Secret<String>| used.is_some_and(|used| is_same(used, token) && record.single_use);
        if theirs.refresh_token.as_ref().is_some_and(is_spent) { None } else { self.usable(&found, Version::default()) }
    }

    /// The refresh token found is dead, and nobody has another.
    async fn forget_refresh_token(&self, lease_guard: &mut LeaseGuard<St>, found: StoredEntry) {
        let Some(record) = found.record.filter(|record| record.refresh_token.is_some()) else {
            return lease_guard.told();
        };
        let record = Record { refresh_token: None, answer_lost: false, ..record };
        // Kept for long, so that nobody tries a copy of it.
        if lease_guard.save(self.clock(), &record, self.access.settings.keep, found.version).await.is_ok() {
            lease_guard.told();
        }
    }

    /// Lets the others know, so that they do not ask in turn and to no avail, and that a refresh token may be spent. One
    /// that was handed in here is nobody else's to know of.
    async fn note_failure(
        &self,
        lease_guard: &mut LeaseGuard<St>,
        found: StoredEntry,
        error: &TokenError,
        answer_lost: bool,
        sent: Option<Secret<String>>,
    ) {
        let before = found.record.unwrap_or_default();
        let answer_lost = answer_lost && self.request.refresh_owner != RefreshOwner::Cell && !before.answer_lost;
        if !answer_lost {
            lease_guard.told();
        }
        let made_by = self.access.identity.made_by();
        let failure =
            Failure::of(error, before.failure.as_ref(), made_by, self.clock().now().wall, &self.context.backoff);
        if failure.is_none() && !answer_lost {
            return;
        }
        let record = Record { failure, ..before };
        let record = if answer_lost { Record { refresh_token: sent, answer_lost: true, ..record } } else { record };
        if lease_guard.save(self.clock(), &record, self.lives_for(&record), found.version).await.is_ok() {
            lease_guard.told();
        }
    }

    fn lives_for(&self, record: &Record) -> Duration {
        lives_for(record, &self.context, self.access.settings.keep)
    }

    /// A token request as if there were no store, except that it sends no refresh token that others may have spent.
    async fn without_store(&self) -> Result<Token, TokenError> {
        Figures::count(&self.access.figures().without_store);
        let may_be_spent = match self.request.refresh_owner {
            RefreshOwner::Cell => false,
            // A store that was there when we started may know of its successors.
            RefreshOwner::Configuration => true,
            RefreshOwner::Store { single_use } => single_use,
        };
        let mut request = self.request.clone();
        request.refresh_token.take_if(|_| may_be_spent);
        let has_refresh_token = request.refresh_token.is_some();
        let asked_at = self.clock().now().wall;
        match self.fetch(request).await.map_err(|failed| failed.error) {
            Ok(Granted { mut token, refresh, .. }) => {
                token.asked_at = Some(asked_at);
                Ok(token.with_refresh_token(refresh.into()))
            }
            Err(error) if error.kind() == TokenErrorKind::SignInAgain && !has_refresh_token => {
                Err(TokenError::new(TokenErrorKind::CredentialsUnavailable).with_detail(
                    "the refresh token is in the token store, which cannot be used now; an old copy must not be sent",
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// The result, where a store has it.
    fn stored(&self, token: Token, record: &Record) -> Token {
        self.context.report.stored(record.refresh_number, record.single_use);
        with_copy(token, record)
    }

    fn clock(&self) -> &dyn Clock {
        &*self.context.clock
    }
}

const ENOUGH_TO_ANSWER: Duration = Duration::from_millis(500);

/// For how long what is stored is worth something.
pub(super) fn lives_for(record: &Record, context: &RefreshContext, keep: Duration) -> Duration {
    let least = if record.failure.is_some() { Failure::LONGEST } else { Duration::ZERO };
    match &record.token {
        _ if record.refresh_token.is_some() => keep,
        Some(token) => useful_for(token, &context.lifetime, &context.clock.now()).map_or(keep, |left| left.max(least)),
        None => keep,
    }
}

/// A token as its cell takes it in: the refresh token it comes with is a copy.
pub(super) fn with_copy(token: Token, record: &Record) -> Token {
    match &record.refresh_token {
        Some(refresh_token) => token.with_refresh_token(RefreshToken::Replace(refresh_token.clone())),
        None => token,
    }
}

/// Somebody may sign in elsewhere, and the store then has it: nobody should wait long to hear of it.
fn look_again_soon(error: TokenError) -> TokenError {
    const SOON: Duration = Duration::from_secs(1);
    if error.kind() == TokenErrorKind::SignInAgain { error.with_retry_after(SOON) } else { error }
}

fn is_same(one: &Secret<String>, other: &Secret<String>) -> bool {
    one.expose() == other.expose()
}
