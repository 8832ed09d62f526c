//! One token request through a store: look, take the lease, look again, ask the source, store, answer.
//!
//! The order is what makes it safe. Nobody asks without the lease, so that a fleet asks once. The holder of the lease looks
//! again, since its holder before may have just finished. What the source brought is stored before it is used, so that a
//! crash cannot leave a refresh token spent that others still hold. Of two refresh tokens the one with the higher number
//! is newer, in whichever process; a store that has lost its own gets it back. While a store fails, tokens are asked
//! for without it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::access::{Access, Figures, StoredEntry};
use super::copies::Copies;
use super::failure::{Failure, Who};
use super::lease_guard::{LeaseGuard, Settled};
use super::record::Record;
use super::{StoreError, StoreErrorKind, StoreKey, TokenStore, Version};
use crate::token::{
    Failed, Granted, RefreshChange, RefreshContext, RefreshFate, RefreshOwner, RefreshToken, Token, TokenRequest,
    TokenSource, fetch, useful_for,
};
use crate::types::{Clock, Secret, TokenError, TokenErrorKind};

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
    /// The holder of the lease takes long, and nothing can be spent twice: ask beside it.
    AskAlone,
    OutOfTime,
}

/// Why the source brought no token.
enum NoToken {
    AtLast(TokenError),
    /// This refresh token is dead, and there is another.
    Dead(Secret<String>),
    /// The lease ended before anything was sent.
    LeaseLost,
}

/// A refresh token to try.
#[derive(Clone, Default)]
struct Candidate {
    refresh_token: Option<Secret<String>>,
    number: u64,
    answer_lost: bool,
}

/// What the store had when we looked first. A failure that is saved later changes its version, not its token.
#[derive(Clone, Copy)]
struct FirstLook {
    version: Version,
    asked_at: Option<SystemTime>,
}

impl FirstLook {
    fn at(found: &StoredEntry) -> Self {
        let token = found.record.as_ref().and_then(|record| record.token.as_ref());
        Self { version: found.version, asked_at: token.and_then(|token| token.asked_at) }
    }
}

impl<'a, St: TokenStore, T: TokenSource> Fetch<'a, St, T> {
    pub(super) fn new(access: &'a Access<St>, source: &'a T, request: TokenRequest) -> Self {
        let key = access.identity.key(request.tenant.as_ref(), request.scopes.as_ref());
        access.asked_by(&request);
        let context = request.context();
        // What is sent is decided here.
        context.report.begin();
        Self { access, source, context, request, key, dead: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Result<Token, TokenError> {
        /// How often the lease may be lost: a store whose clock runs away must not keep us here.
        const MOST_LEASES_LOST: u32 = 3;
        let mut leases_lost = 0;
        if self.request.refresh_token.is_some() || self.access.copies().get(&self.key).is_some() {
            self.access.listen(&self.context);
        }
        if self.access.is_paused(self.clock()) {
            match self.without_store().await {
                // The only grant is in the store: it is asked again as soon as the caller is.
                Err(error) if error.kind() == TokenErrorKind::CredentialsUnavailable => {}
                result => return result,
            }
        }
        loop {
            let asked = match self.look().await {
                Ok(Lookup::Token(token)) => {
                    self.access.telemetry().token_from_store();
                    self.context.span.iter().for_each(|span| span.found_in_store());
                    Figures::count(&self.access.figures().found);
                    return Ok(token);
                }
                Ok(Lookup::Ask(lease_guard, found)) => self.ask(lease_guard, found).await,
                Ok(Lookup::AskAlone) => return self.ask_alone().await,
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
                Err(NoToken::LeaseLost) if leases_lost < MOST_LEASES_LOST => leases_lost += 1,
                Err(NoToken::LeaseLost) => return self.without_store().await,
            }
        }
    }

    async fn look(&self) -> Result<Lookup<St>, StoreError> {
        /// Who did not reach the authorization server lately lets others have the lease.
        const STANDS_BACK_FOR: Duration = Duration::from_secs(1);
        let mut first = None;
        // All that live were asked, for what the store has lost or for what replaced what it has.
        let (mut asked, mut yielded) = (false, false);
        let mut stands_back = self.access.stands_back(self.clock());
        // From when the holder of the lease takes too long.
        let mut alone_from = None;
        loop {
            let found = self.access.load(self.clock(), &self.key).await?;
            let first = *first.get_or_insert_with(|| FirstLook::at(&found));
            // Before anything else: from now on we know of it.
            let failure = self.failure(&found);
            if let Some(token) = self.usable(&found, first) {
                return Ok(Lookup::Token(token));
            }
            if let Some(error) = failure {
                return Ok(Lookup::Failed(error));
            }
            if !asked && self.may_have_lost(&found) {
                asked = true;
                self.recall().await?;
                continue;
            }
            if std::mem::take(&mut stands_back) {
                sleep(STANDS_BACK_FOR).await;
                continue;
            }
            if let Some(mut lease_guard) = self.access.lease(self.clock(), &self.key).await? {
                let found = self.access.load(self.clock(), &self.key).await?;
                let look = match (self.usable(&found, first), self.failure(&found)) {
                    (Some(token), _) => Lookup::Token(token),
                    (None, Some(error)) => Lookup::Failed(error),
                    // Since we looked first. It is looked at again.
                    (None, None) if !asked && self.may_have_lost(&found) => {
                        lease_guard.told();
                        lease_guard.end().await;
                        continue;
                    }
                    (None, None) if !asked && !yielded && may_be_spent(&lease_guard, &found) => {
                        yielded = true;
                        match self.yield_to_living_processes(lease_guard, found).await? {
                            None => continue,
                            Some((lease_guard, found)) => return Ok(Lookup::Ask(lease_guard, found)),
                        }
                    }
                    (None, None) => return Ok(Lookup::Ask(lease_guard, found)),
                };
                lease_guard.told();
                lease_guard.end().await;
                return Ok(look);
            }
            // The engine would count the refresh token as spent.
            let deadline = self.before_deadline();
            let alone_from = *alone_from.get_or_insert_with(|| Instant::now() + long_enough());
            let alone_from = Some(alone_from).filter(|_| self.candidates(&found, None).is_empty());
            let until = alone_from.map_or(deadline, |alone_from| alone_from.min(deadline));
            if timeout_at(until, self.access.changed(&self.key, found.version)).await.is_err() {
                return Ok(if until < deadline { Lookup::AskAlone } else { Lookup::OutOfTime });
            }
            // While somebody else was at work the store may have lost what it had, the lease included.
            asked = false;
        }
    }

    /// Whether the store may have lost a refresh token: it has none, or an older one than we have.
    fn may_have_lost(&self, found: &StoredEntry) -> bool {
        let has_copy = self.request.refresh_token.is_some() && self.request.refresh_owner != RefreshOwner::Cell;
        let known = self.access.copies().get(&self.key).map_or(0, |copy| copy.number);
        match &found.record {
            None => has_copy || known > 0,
            // What was put there since says nothing of it.
            Some(record) if record.refresh_token.is_none() && !record.refresh_dead => has_copy || known > 0,
            Some(record) => has_copy && record.refresh_number < known.max(self.request.refresh_number),
        }
    }

    /// Asks the processes for younger copies, and gives them the time to bring them: all of it, since the first one to come
    /// need not be the youngest. Our own is brought too: others may be asking at the same moment, and have an older one.
    ///
    /// # Errors
    /// The store failed meanwhile, so that nobody may have heard of it.
    async fn recall(&self) -> Result<(), StoreError> {
        const PAUSE: Duration = Duration::from_millis(100);
        let until = Instant::now() + self.access.others_need();
        while Instant::now() < until {
            if !self.access.recall(self.clock(), &self.key).await? {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// What is stored may be spent: the lease was not given back. Its holder may have died; or the store was out of reach for
    /// longer than a lease, and the holder lives and has what replaced it. That goes before ours: the lease is given back,
    /// with a note in its place, and we ask. Both come back where nobody can be asked.
    async fn yield_to_living_processes(
        &self,
        mut lease_guard: LeaseGuard<St>,
        found: StoredEntry,
    ) -> Result<Option<(LeaseGuard<St>, StoredEntry)>, StoreError> {
        if !self.access.recall(self.clock(), &self.key).await? {
            return Ok(Some((lease_guard, found)));
        }
        if let Some(record) = found.record.filter(|record| !record.answer_lost) {
            let record = Record { answer_lost: true, ..record };
            // If somebody else was faster, all the better.
            lease_guard.save(self.clock(), &record, self.lives_for(&record), found.version).await?;
        }
        lease_guard.told();
        lease_guard.end().await;
        self.recall().await?;
        Ok(None)
    }

    /// Asks the source without the lease, where that cannot spend anything twice.
    async fn ask_alone(&self) -> Result<Token, TokenError> {
        let (asked_at, made_by) = (self.clock().now().wall, self.access.identity.made_by());
        let mut request = self.request.clone();
        request.refresh_token = None;
        let result = self.fetch(request).await;
        self.note_reached(result.as_ref().err().map(|failed| &failed.error));
        let Granted { mut token, refresh, .. } = result.map_err(|failed| failed.error)?;
        token.asked_at = Some(asked_at);
        let single_use = true;
        let (refresh_token, refresh_number) = match &refresh {
            RefreshChange::Replaced(new) => (Some(new.secret.clone()), new.number),
            RefreshChange::Unchanged | RefreshChange::Removed => (None, 0),
        };
        // For the others, if the former holder is gone by now.
        if let Ok(Some(mut lease_guard)) = self.access.lease(self.clock(), &self.key).await {
            lease_guard.told();
            let found = self.access.load(self.clock(), &self.key).await;
            if let Ok(found) = found
                && self.usable(&found, FirstLook::at(&found)).is_none()
                && self.candidates(&found, None).is_empty()
            {
                let token = Some(token.clone());
                let record = Record { token, made_by, refresh_token, refresh_number, single_use, ..Record::default() };
                let _ = lease_guard.save(self.clock(), &record, self.lives_for(&record), found.version).await;
            }
            lease_guard.end().await;
        }
        Ok(token.with_refresh_token(refresh.into()))
    }

    /// The token found, if it is what we want: newer than the one we have, alive for a while, and made by us.
    fn usable(&self, found: &StoredEntry, first: FirstLook) -> Option<Token> {
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
            let is_news = token.asked_at != first.asked_at && token.asked_at != previous.asked_at;
            let asked_again = found.version != first.version && is_news;
            // Ours may not have been saved, and then it came as if from the store all the same.
            let known = self.access.copies().get(&self.key).map_or(0, |copy| copy.number);
            let older = record.refresh_number < known
                || (!self.request.previous_from_store && token.asked_at < previous.asked_at);
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
        let Some(failure) = record.failure.as_ref().filter(|_| !self.is_signed_in_anew(record)) else {
            self.access.copies().failure_over(&self.key);
            return None;
        };
        let now = self.clock().now();
        let seen = self.access.copies().failure_seen(&self.key, found.version, now.monotonic);
        failure.error_at(&self.who(), now.monotonic.saturating_duration_since(seen), now.wall)
    }

    fn who(&self) -> Who {
        Who {
            made_by: self.access.identity.made_by(),
            has_unknown_credentials: self.access.identity.has_unknown_credentials(),
            process: self.access.copies().process(),
        }
    }

    /// Whether the authorization server could be reached, where that is known.
    fn note_reached(&self, error: Option<&TokenError>) {
        match error {
            None => self.access.reached(self.clock(), true),
            Some(error) if error.status().is_some() => self.access.reached(self.clock(), true),
            Some(error) if matches!(error.kind(), TokenErrorKind::Unreachable | TokenErrorKind::Timeout) => {
                self.access.reached(self.clock(), false);
            }
            Some(_) => {}
        }
    }

    /// Whether we bring a refresh token of a sign-in that the store does not know yet.
    fn is_signed_in_anew(&self, record: &Record) -> bool {
        let is_theirs = |ours| record.refresh_token.as_ref().is_some_and(|theirs| is_same(ours, theirs));
        let ours = self.request.refresh_token.as_ref().filter(|_| self.request.refresh_owner == RefreshOwner::Cell);
        ours.is_some_and(|ours| !self.is_dead(ours) && !is_theirs(ours))
    }

    /// Asks the source under the lease.
    async fn ask(&self, mut lease_guard: LeaseGuard<St>, found: StoredEntry) -> Result<Token, NoToken> {
        let mut candidates = self.candidates(&found, Some(&lease_guard)).into_iter();
        let candidate = candidates.next().unwrap_or_default();
        let Candidate { refresh_token, number, answer_lost } = candidate.clone();
        let asked_at = self.clock().now().wall;
        let made_by = self.access.identity.made_by();
        let mut request = TokenRequest {
            refresh_token: refresh_token.clone(),
            refresh_number: number,
            refresh_answer_lost: answer_lost,
            ..self.request.clone()
        };
        let redeeming = Redeeming::new(self.access.copies(), &self.key, refresh_token.is_some());
        if refresh_token.is_some() {
            // A process that was stopped since it took the lease may have lost it, and its successor have spent this one.
            if !lease_guard.is_ours(self.clock()).await {
                return Err(NoToken::LeaseLost);
            }
            request.context = Some(Arc::new(self.context.guarded(lease_guard.may_send(&self.context.clock))));
            lease_guard.untold();
        }
        let result = lease_guard.during(self.clock(), &redeeming.told, self.fetch(request)).await;
        self.note_reached(result.as_ref().err().map(|failed| &failed.error));
        match result {
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
                    refresh_dead: false,
                    answer_lost: false,
                    single_use,
                    failure: None,
                };
                let token = token.with_refresh_token(refresh.into());
                Ok(self.store(lease_guard, found.version, token, record, refresh_token).await)
            }
            Err(failed) if failed.refresh == RefreshFate::Dead => {
                Err(self.after_dead(lease_guard, found, candidate, failed.error).await)
            }
            Err(Failed { refresh: RefreshFate::Untouched, .. })
                if refresh_token.is_some() && !lease_guard.may_be_ours(self.clock().now()) =>
            {
                lease_guard.told();
                Err(NoToken::LeaseLost)
            }
            Err(Failed { error, refresh, .. }) => {
                let nobody_asked = refresh_token.is_none() && error.status().is_none();
                let answer_lost = refresh == RefreshFate::MaybeSpent || answer_lost;
                self.note_failure(&mut lease_guard, found, &error, answer_lost, candidate).await;
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
        dead: Candidate,
        error: TokenError,
    ) -> NoToken {
        let found = self.access.load(self.clock(), &self.key).await.unwrap_or(found);
        let is_dead = |token: &Secret<String>| dead.refresh_token.as_ref().is_some_and(|dead| is_same(dead, token));
        let other = |candidate: &Candidate| candidate.refresh_token.as_ref().is_some_and(|token| !is_dead(token));
        let is_another_there = self.candidates(&found, None).iter().any(other);
        if is_another_there || dead.refresh_token.is_none() {
            lease_guard.told();
        } else {
            self.forget_refresh_token(&mut lease_guard, found, dead.number).await;
        }
        lease_guard.end().await;
        match dead.refresh_token {
            // Once, and under a lease taken anew: this one may be lost, or how would there be another?
            Some(dead) if is_another_there && self.dead.is_empty() => NoToken::Dead(dead),
            // It is not there to be sent the next time.
            Some(_) => NoToken::AtLast(look_again_soon(error)),
            None => NoToken::AtLast(error),
        }
    }

    /// The refresh tokens to try, the newest one first. One that was set is newer than what the store has; of the others the
    /// one with the highest number is, and none is older than the store's.
    fn candidates(&self, found: &StoredEntry, lease_guard: Option<&LeaseGuard<St>>) -> Vec<Candidate> {
        let abandoned = lease_guard.is_some_and(|lease_guard| lease_guard.abandoned);
        let record = found.record.as_ref();
        let stored = record.and_then(|record| {
            let refresh_token = Some(record.refresh_token.clone()?);
            let answer_lost = record.answer_lost || abandoned;
            Some(Candidate { refresh_token, number: record.refresh_number, answer_lost })
        });
        let is_newer = |candidate: &Candidate| match record {
            None => true,
            Some(record) if record.refresh_token.is_some() || record.refresh_dead => {
                candidate.number > record.refresh_number
            }
            Some(record) => candidate.number >= record.refresh_number,
        };
        let number = self.request.refresh_number;
        let ours = self.request.refresh_token.clone().map(|token| (Some(token), self.request.refresh_owner));
        let ours = ours.and_then(|(refresh_token, owner)| match owner {
            RefreshOwner::Cell => {
                // A family of its own: it begins with the number of the lease, which is higher than any before.
                let fence = lease_guard.map_or(0, |lease_guard| lease_guard.fence().0);
                let number = record.map_or(0, |record| record.refresh_number.saturating_add(1)).max(fence);
                Some(Candidate { refresh_token, number, answer_lost: self.request.refresh_answer_lost })
            }
            RefreshOwner::Configuration => {
                let answer_lost = self.request.refresh_answer_lost || abandoned;
                Some(Candidate { refresh_token, number, answer_lost }).filter(is_newer)
            }
            RefreshOwner::Store { single_use } => {
                Some(Candidate { refresh_token, number, answer_lost: single_use }).filter(is_newer)
            }
        });
        let copy = self.access.copies().get(&self.key).map(|copy| Candidate {
            refresh_token: Some(copy.refresh_token),
            number: copy.number,
            answer_lost: copy.single_use,
        });
        let copy = copy.filter(|copy| is_newer(copy) && ours.as_ref().is_none_or(|ours| copy.number > ours.number));
        let alive = |candidate: &Candidate| candidate.refresh_token.as_ref().is_some_and(|token| !self.is_dead(token));
        let mut candidates: Vec<_> = [ours, copy, stored].into_iter().flatten().filter(alive).collect();
        if self.request.refresh_owner != RefreshOwner::Cell {
            candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.number));
        }
        candidates
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
        if used.is_some() && record.refresh_token.is_some() {
            // At once: nobody may drive this task any more, and another one is not to send the former.
            self.access.copies().note(&self.key, &record);
        }
        let settling = async {
            match lease_guard.settle(self.clock(), &record, lives_for, expected).await {
                // Once more, as so much is at stake.
                Err(_) => lease_guard.settle(self.clock(), &record, lives_for, expected).await,
                settled => settled,
            }
        };
        // What was granted is told before the engine gives up, whatever the store does: its refresh token is the only one.
        let until = self.before_deadline();
        let settled = timeout_at(until, settling).await.unwrap_or(Err(StoreError::new(StoreErrorKind::Unavailable)));
        let (token, problem) = match settled {
            Ok(Settled::Stored) => {
                Figures::count(&self.access.figures().stored);
                lease_guard.told();
                (self.stored(ours, &record), None)
            }
            Ok(Settled::Newer(found)) => {
                // Never overwritten: what is there is newer, or it is ours and only the answer was lost.
                lease_guard.told();
                match self.theirs(&ours, &record, &found) {
                    Some(theirs) => (theirs, None),
                    None => (ours, Some(NotStored::LostRace)),
                }
            }
            Ok(Settled::Busy) | Err(_) if used.is_some() && record.refresh_token.is_some() => {
                // The others still have the refresh token that is spent.
                let token = self.stored(ours, &record);
                let (clock, unsaved) = (self.context.clock.clone(), self.access.copies().unsaved());
                tokio::spawn(lease_guard.settle_later(clock, record, lives_for, expected, unsaved));
                self.not_stored(NotStored::StoreFailed);
                return token;
            }
            Ok(Settled::Busy) => {
                lease_guard.told();
                (ours, Some(NotStored::LostRace))
            }
            Err(_) => {
                lease_guard.told();
                (ours, Some(NotStored::StoreFailed))
            }
        };
        let _ = timeout_at(until, lease_guard.end()).await;
        if let Some(reason) = problem {
            self.not_stored(reason);
        }
        token
    }

    /// A little before the engine gives up.
    fn before_deadline(&self) -> Instant {
        self.context.deadline.checked_sub(ENOUGH_TO_ANSWER).unwrap_or(self.context.deadline)
    }

    fn not_stored(&self, reason: NotStored) {
        Figures::count(&self.access.figures().not_stored);
        self.access.telemetry().not_stored(self.key, reason);
    }

    /// What is stored in place of ours, if it is of use.
    fn theirs(&self, ours: &Token, record: &Record, found: &StoredEntry) -> Option<Token> {
        let theirs = found.record.as_ref()?;
        if theirs.token.as_ref().is_some_and(|token| token.is_same_as(ours)) {
            return Some(self.stored(ours.clone(), record));
        }
        // Not the very token that a newer one was wanted for.
        let asked_at = self.request.previous.as_ref().and_then(|previous| previous.asked_at);
        self.usable(found, FirstLook { version: Version::default(), asked_at })
    }

    /// The newest refresh token is dead, and nobody has another.
    async fn forget_refresh_token(&self, lease_guard: &mut LeaseGuard<St>, found: StoredEntry, number: u64) {
        let before = found.record.unwrap_or_default();
        let refresh_number = number.max(before.refresh_number);
        let record = Record { refresh_token: None, refresh_number, refresh_dead: true, answer_lost: false, ..before };
        // Kept for long, so that nobody tries a copy of it.
        if lease_guard.save(self.clock(), &record, self.access.settings.refresh_token_ttl, found.version).await.is_ok()
        {
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
        sent: Candidate,
    ) {
        let before = found.record.unwrap_or_default();
        let answer_lost = answer_lost && self.request.refresh_owner != RefreshOwner::Cell && !before.answer_lost;
        if !answer_lost {
            lease_guard.told();
        }
        let now = self.clock().now().wall;
        let failure = Failure::of(error, before.failure.as_ref(), self.who(), now, &self.context.backoff);
        if failure.is_none() && !answer_lost {
            return;
        }
        let record = Record { failure, ..before };
        let record = match sent {
            Candidate { refresh_token: Some(sent), number, .. } if answer_lost => {
                Record { refresh_token: Some(sent), refresh_number: number, answer_lost: true, ..record }
            }
            _ => record,
        };
        if lease_guard.save(self.clock(), &record, self.lives_for(&record), found.version).await.is_ok() {
            lease_guard.told();
        }
    }

    fn lives_for(&self, record: &Record) -> Duration {
        lives_for(record, &self.context, self.access.settings.refresh_token_ttl)
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
                // Soon again: it is the store that must come back, and nothing else is asked.
                const SOON: Duration = Duration::from_secs(1);
                let error = TokenError::new(TokenErrorKind::CredentialsUnavailable).with_detail(
                    "the refresh token is in the token store, which cannot be used now; an old copy must not be sent",
                );
                Err(error.with_retry_after(SOON))
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

/// Whether the refresh token that is stored may be spent.
fn may_be_spent<St: TokenStore>(lease_guard: &LeaseGuard<St>, found: &StoredEntry) -> bool {
    let record = found.record.as_ref().filter(|record| record.refresh_token.is_some());
    record.is_some_and(|record| record.answer_lost || lease_guard.abandoned)
}

const ENOUGH_TO_ANSWER: Duration = Duration::from_millis(500);

/// How long a process waits for another's token request, where it can ask for itself. Not all at the same moment.
fn long_enough() -> Duration {
    Duration::from_millis(fastrand::u64(2000..2500))
}

/// The refresh token is being redeemed by this process.
struct Redeeming<'a> {
    copies: Option<(&'a Copies, &'a StoreKey)>,
    /// Somebody misses it.
    told: Arc<Notify>,
}

impl<'a> Redeeming<'a> {
    fn new(copies: &'a Copies, key: &'a StoreKey, is_one: bool) -> Self {
        let told = Arc::new(Notify::new());
        if is_one {
            copies.redeeming(key, Some(told.clone()));
        }
        Self { copies: is_one.then_some((copies, key)), told }
    }
}

impl Drop for Redeeming<'_> {
    fn drop(&mut self) {
        if let Some((copies, key)) = self.copies {
            copies.redeeming(key, None);
        }
    }
}

/// For how long what is stored is worth something.
pub(super) fn lives_for(record: &Record, context: &RefreshContext, refresh_token_ttl: Duration) -> Duration {
    // Longer than the pause: the next process finds how many failures there were in a row.
    const NEXT_COMES_WITHIN: Duration = Duration::from_secs(30);
    let least = record.failure.as_ref().map_or(Duration::ZERO, |failure| failure.pause() * 2 + NEXT_COMES_WITHIN);
    match &record.token {
        _ if record.refresh_token.is_some() || record.refresh_dead => refresh_token_ttl,
        Some(token) => {
            useful_for(token, &context.lifetime, &context.clock.now()).map_or(refresh_token_ttl, |left| left.max(least))
        }
        None => least,
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
