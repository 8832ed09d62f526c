//! The home of one partition's token: the current token, its state, its refresh.
//!
//! Two readers, two prices. The hot path loads one atomic word (generation, *known invalid*, *due*) and compares it with what the
//! service clone remembers; equal means that its private header value is still good, and nothing else is touched. Every
//! other case locks the state for some nanoseconds, never across an `.await`.
//!
//! The word is a hint, the generation inside [`Current`] is the truth: publishing stores the token first and the word
//! after, and whoever finds the word changed takes the generation from the token it then reads. So no reader can pair a
//! new word with an old token.
//!
//! Nothing reads a clock on the hot path. Whoever takes the slow path reads both clocks and clears *due*. After that the
//! engine's [coarse clock](super::coarse_clock) tells the time: it sets *due* on the default cell, at the next boundary or after a second,
//! while the other cells, of which there may be a million, compare its coarse time with the moment until which they are
//! good. So no cell has a timer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::coarse_clock::{MAX_AGE, millis};
use super::current::{CHECK_CLOCK, Current, KNOWN_INVALID, word_of};
use super::decision::{Decision, Situation, classify};
use super::env::Env;
use super::key::{CompactKey, Partition};
use super::refresh::{self, PreparedRefresh, RefreshResult, RefreshWaiter, ResultSender};
use super::rejection_limiter::RejectionLimiter;
use super::sync::{ArcSwapOption, AtomicBool, AtomicU64, Mutex, MutexGuard};
use crate::token::{
    Asker, Failed, Freshness, Granted, HeldRefreshToken, MIN_INTERVAL, NoLifetime, RefreshChange, RefreshFate,
    RefreshOwner, RefreshToken, Token, TokenRequest, lifetime_of,
};
use crate::types::{Now, Secret, TokenError, TokenErrorKind, events};

/// What a request gets when it asks for the token.
#[derive(Debug)]
pub(crate) enum Read {
    Ready(Arc<Current>),
    /// Wait; if the refresh fails, go with `fallback` while it is alive.
    Wait {
        waiter: RefreshWaiter,
        fallback: Option<Arc<Current>>,
    },
    Failed(Arc<TokenError>),
}

/// What becomes of a rejected token.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// There is a newer one already.
    Newer(Arc<Current>),
    /// Wait for a newer one. `starter`: this rejection started the refresh, and may prove that it helped.
    Wait { waiter: RefreshWaiter, starter: bool },
    /// Refreshing did not help lately: the rejection limiter forbids it now.
    Suppressed,
    /// Refreshing failed just now.
    Failed(Arc<TokenError>),
}

/// In this order, so that what each request looks at is side by side: among a million cells none is in a cache.
#[repr(C)]
pub(crate) struct Cell {
    word: AtomicU64,
    /// By the engine's coarse clock: until when the clocks need not be read.
    good_until: AtomicU64,
    current: ArcSwapOption<Current>,
    /// When it was used last, for the eviction.
    used: AtomicU64,
    /// The rejection limiter wants to hear of acceptances.
    watching: AtomicBool,
    partition: CompactKey,
    state: Mutex<State>,
}

struct State {
    /// Of the newest token, and of every invalidation: what was handed out before is older.
    generation: u64,
    tokens_seen: bool,
    refresh: Option<Box<Refresh>>,
    lineage: u32,
    last_start: Option<Instant>,
    known_invalid: bool,
    refresh_token: Option<HeldRefreshToken>,
    /// The refresh token was sent and no usable answer came: it may be spent. Only a success or another one ends that.
    maybe_spent: bool,
    /// What a newer token is wanted for, where that is not the current one.
    invalidated: Option<Arc<Current>>,
    /// How many refreshes began.
    refreshes: u32,
    /// Of those that have ended, how many were not held back by the bounds of the token endpoint.
    token_requests: u32,
    trouble: Option<Box<Trouble>>,
}

/// What only cells have whose token was rejected or could not be had: of a million cells, most never.
#[derive(Default)]
struct Trouble {
    limiter: RejectionLimiter,
    failure: Option<Failure>,
    failures: u64,
    suppressed: u64,
    last_error: Option<Arc<TokenError>>,
}

/// Which refresh: its number, and the line of refresh tokens that it continues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshId {
    number: u32,
    lineage: u32,
}

struct Refresh {
    id: RefreshId,
    started: Instant,
    waiter: RefreshWaiter,
    sender: ResultSender,
    /// It is not held back.
    sent: Arc<std::sync::atomic::AtomicBool>,
    /// Started by a rejection: its end arms the rejection limiter.
    after_rejection: bool,
}

impl Refresh {
    /// Its own deadline has passed and it has not finished: its runtime exists but nobody drives it any more.
    fn is_overdue(&self, env: &Env, now: &Now) -> bool {
        now.monotonic.saturating_duration_since(self.started) > env.policy.refresh_deadline + MIN_INTERVAL
    }

    /// Tells everybody who waits. After the cell's lock is released: waking may run foreign code.
    fn notify(self, result: RefreshResult) {
        match &result {
            RefreshResult::New(current) => events::new_token(current.generation),
            RefreshResult::Same(current) => events::same_token(current.generation),
            RefreshResult::Failed(error) => events::token_request_failed(error),
            RefreshResult::Superseded => events::token_request_superseded(),
        }
        // Nobody waiting is fine: the cell has the token.
        let _ = self.sender.send(result);
    }
}

struct Failure {
    error: Arc<TokenError>,
    until: Instant,
    in_a_row: u32,
}

impl Failure {
    /// The error as it is told later: with the pause that is left, not the whole of it.
    fn told_at(&self, now: &Now) -> Arc<TokenError> {
        let left = self.until.saturating_duration_since(now.monotonic);
        Arc::new(TokenError::clone(&self.error).with_retry_after(left))
    }
}

/// The tokens of one cell, to be revoked.
pub(crate) struct Revocable {
    pub(crate) refresh_token: Option<Secret<String>>,
    pub(crate) current: Option<Arc<Current>>,
    /// Another sign-in begins another line.
    lineage: u32,
}

/// Figures of one cell.
pub(crate) struct CellStats {
    pub(crate) current: Option<Arc<Current>>,
    pub(crate) token_requests: u64,
    pub(crate) failures: u64,
    pub(crate) suppressed: u64,
    pub(crate) last_error: Option<Arc<TokenError>>,
    pub(crate) next_attempt: Option<Duration>,
    pub(crate) refreshing: bool,
}

impl Cell {
    pub(crate) fn new(partition: &Partition, refresh_token: Option<Secret<String>>) -> Self {
        Self {
            word: AtomicU64::new(CHECK_CLOCK),
            good_until: AtomicU64::new(0),
            current: ArcSwapOption::empty(),
            used: AtomicU64::new(0),
            watching: AtomicBool::new(false),
            partition: CompactKey::new(partition),
            state: Mutex::new(State {
                generation: 0,
                tokens_seen: false,
                refresh: None,
                lineage: 0,
                last_start: None,
                known_invalid: false,
                refresh_token: refresh_token.map(|secret| HeldRefreshToken {
                    secret,
                    number: 0,
                    owner: RefreshOwner::Configuration,
                }),
                maybe_spent: false,
                invalidated: None,
                refreshes: 0,
                token_requests: 0,
                trouble: None,
            }),
        }
    }

    #[inline]
    pub(crate) fn partition(&self) -> &CompactKey {
        &self.partition
    }

    /// The state word; equal to a [`Current::word`] while that token may simply be used.
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// The token if it may simply be used: no lock, no clock.
    #[inline]
    pub(crate) fn ready(&self, env: &Env) -> Option<Arc<Current>> {
        // The word first: a token published between the two reads is newer than the word, which is harmless.
        if self.word() & (CHECK_CLOCK | KNOWN_INVALID) != 0
            || !env.coarse_clock.is_before(self.good_until.load(Ordering::Relaxed))
        {
            return None;
        }
        self.current.load_full()
    }

    /// The token, or a wait, or the remembered failure.
    pub(crate) fn read(self: &Arc<Self>, env: &Arc<Env>) -> Read {
        if let Some(current) = self.ready(env) {
            return Read::Ready(current);
        }
        let now = env.clock.now();
        let mut after = Afterwards::default();
        let mut state = self.lock();
        let current = self.current.load_full();
        let decision = classify(state.situation(current.as_deref(), &now));
        let read = match (decision, current) {
            (Decision::Go, Some(current)) => Read::Ready(current),
            (Decision::GoAndRefresh, Some(current)) if env.is_closing() => Read::Ready(current),
            (Decision::GoAndRefresh, Some(current)) => {
                // No runtime, no refresh: the token is good still, and the next request tries again.
                let _ = self.join_or_start(&mut state, env, &now, false, &mut after);
                Read::Ready(current)
            }
            (Decision::WaitOrGo, Some(current)) => match self.join_or_start(&mut state, env, &now, false, &mut after) {
                Ok(waiter) => Read::Wait { waiter, fallback: Some(current) },
                Err(_) => Read::Ready(current),
            },
            (Decision::Fail, _) => match state.failure() {
                Some(failure) => Read::Failed(failure.told_at(&now)),
                None => Read::Failed(Arc::new(TokenError::new(TokenErrorKind::Aborted))),
            },
            (_, _) => match self.join_or_start(&mut state, env, &now, false, &mut after) {
                Ok(waiter) if env.policy.max_waiters.is_some_and(|max| waiter.count() > max) => {
                    Read::Failed(Arc::new(TokenError::new(TokenErrorKind::Overloaded)))
                }
                Ok(waiter) => Read::Wait { waiter, fallback: None },
                Err(error) => Read::Failed(Arc::new(error)),
            },
        };
        self.rearm(&mut state, env, &now, matches!(decision, Decision::Go | Decision::GoAndRefresh));
        drop(state);
        after.run();
        read
    }

    /// Generation `generation` was rejected; `says_invalid`: the server named the token as the reason.
    pub(crate) fn reject(self: &Arc<Self>, env: &Arc<Env>, generation: u64, says_invalid: bool) -> Rejection {
        let now = env.clock.now();
        let mut after = Afterwards::default();
        let mut state = self.lock();
        let current = self.current.load_full();
        let is_current = match current {
            // Unless that newer one is itself known to be dead.
            Some(current)
                if current.generation > generation && current.lifetime.is_alive(&now) && !state.known_invalid =>
            {
                return Rejection::Newer(current);
            }
            Some(current) => current.generation == generation,
            None => false,
        };
        let rejection = if let Some(refresh) = state.refresh.as_ref().filter(|refresh| !refresh.is_overdue(env, &now)) {
            let waiter = refresh.waiter.clone();
            if is_current {
                state.trouble().limiter.joined();
            }
            Rejection::Wait { waiter, starter: false }
        } else if let Some(failure) = state.failure().filter(|failure| now.monotonic < failure.until) {
            Rejection::Failed(failure.told_at(&now))
        } else if is_current && !state.trouble().limiter.may_refresh(now.monotonic) {
            state.trouble().suppressed += 1;
            Rejection::Suppressed
        } else {
            match self.join_or_start(&mut state, env, &now, is_current, &mut after) {
                Ok(waiter) => Rejection::Wait { waiter, starter: is_current },
                Err(error) => Rejection::Failed(Arc::new(error)),
            }
        };
        if says_invalid && is_current && state.refresh.is_some() && !state.known_invalid {
            // Requests that would go out with a token known to be dead wait for this one refresh instead.
            state.known_invalid = true;
            self.word.fetch_or(KNOWN_INVALID, Ordering::Release);
        }
        self.watching.store(state.is_watching(now.monotonic), Ordering::Relaxed);
        drop(state);
        after.run();
        rejection
    }

    /// Generation `generation` was accepted. One relaxed load unless a storm is being watched.
    #[inline(always)]
    pub(crate) fn accepted(&self, generation: u64) {
        if self.watching.load(Ordering::Relaxed) {
            let mut state = self.lock();
            if state.generation == generation {
                state.trouble().limiter.accepted();
            }
        }
    }

    /// The request whose rejection started a refresh was accepted with the generation that the refresh brought.
    pub(crate) fn resend_accepted(&self, env: &Env, generation: u64) {
        let now = env.clock.now();
        let mut state = self.lock();
        if state.generation == generation {
            state.trouble().limiter.cleared();
            let watching = state.is_watching(now.monotonic);
            if watching {
                state.trouble().limiter.accepted();
            }
            self.watching.store(watching, Ordering::Relaxed);
        }
    }

    /// Whether the token of this generation has passed its margin, by our own clocks.
    pub(crate) fn is_past_margin(&self, env: &Env, generation: u64) -> bool {
        match self.current.load_full() {
            Some(current) if current.generation == generation => {
                matches!(current.lifetime.freshness(&env.clock.now()), Freshness::NearExpiry | Freshness::Expired)
            }
            _ => true,
        }
    }

    /// Takes in what a refresh brought. Publishes before anybody is woken.
    fn finish(&self, env: &Env, id: RefreshId, result: Result<Granted, Failed>, asked: Now) {
        let arrived = env.clock.now();
        let mut state = self.lock();
        let Some(refresh) = state.refresh.take_if(|refresh| refresh.id == id) else {
            // The token is not ours any more, but a refresh token that was rotated meanwhile must not be lost.
            if let Ok(granted) = result
                && state.lineage == id.lineage
            {
                state.rotate(granted.refresh);
            }
            return;
        };
        state.known_invalid = false;
        if !result.as_ref().is_err_and(|failed| failed.error.is_held_back()) {
            state.token_requests = state.token_requests.saturating_add(1);
        }
        let result = match result {
            Ok(granted) => self.publish(&mut state, env, granted, asked, arrived),
            Err(failed) => RefreshResult::Failed(state.refused(env, failed, arrived)),
        };
        if refresh.after_rejection && !matches!(result, RefreshResult::Failed(_)) {
            state.trouble().limiter.ended(arrived.monotonic);
        }
        self.watching.store(state.is_watching(arrived.monotonic), Ordering::Relaxed);
        // Due: the next request reads the clock, and arms a timer for what is now the next boundary.
        self.word.store(word_of(state.generation) | CHECK_CLOCK, Ordering::Release);
        drop(state);
        refresh.notify(result);
    }

    /// A token from outside the engine, such as one from an interactive sign-in.
    #[cfg(test)]
    pub(crate) fn hand_in(&self, env: &Env, token: Token) -> Result<(), Arc<TokenError>> {
        // Only a token that a store has says when it was asked for; its refresh token is a copy.
        let owner = match token.asked_at {
            Some(_) => RefreshOwner::Store { single_use: true },
            None => RefreshOwner::Cell,
        };
        self.set(env, token, None, owner)
    }

    /// The same for a token of which a store has the refresh token, of this number.
    pub(crate) fn set(
        &self,
        env: &Env,
        mut token: Token,
        number: Option<u64>,
        owner: RefreshOwner,
    ) -> Result<(), Arc<TokenError>> {
        let now = env.clock.now();
        // A token that is of no use changes nothing.
        lifetime_of(&token, &env.policy.lifetime, now, now, false, 0.0).map_err(no_lifetime_error)?;
        let mut state = self.lock();
        let superseded = state.supersede_refresh();
        let refresh = match std::mem::take(&mut token.refresh_token) {
            RefreshToken::Keep => RefreshChange::Unchanged,
            RefreshToken::Drop => RefreshChange::Removed,
            RefreshToken::Replace(secret) => {
                let number = number.unwrap_or_else(|| state.next_refresh_number());
                RefreshChange::Replaced(HeldRefreshToken { secret, number, owner })
            }
        };
        if !matches!(refresh, RefreshChange::Unchanged) {
            state.lineage = state.lineage.wrapping_add(1);
        }
        let from_store = matches!(owner, RefreshOwner::Store { .. });
        let granted = Granted { token, refresh, sent: None, from_store };
        let result = self.publish(&mut state, env, granted, now, now);
        self.word.store(word_of(state.generation) | CHECK_CLOCK, Ordering::Release);
        drop(state);
        superseded.into_iter().for_each(|refresh| refresh.notify(RefreshResult::Superseded));
        match result {
            RefreshResult::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// No read that starts after this returns the current token. A refresh in flight goes on: its token is newer.
    pub(crate) fn invalidate(&self) {
        let mut state = self.lock();
        self.forget_token(&mut state);
    }

    /// The same for changed credentials: a refresh in flight was made with the old ones, and does not publish.
    pub(crate) fn new_epoch(&self, keep_refresh_token: bool) {
        self.reset(self.lock(), keep_refresh_token);
    }

    /// What there is to revoke.
    pub(crate) fn revocable(&self) -> Revocable {
        let state = self.lock();
        Revocable {
            refresh_token: state.refresh_token.as_ref().map(|held| held.secret.clone()),
            current: self.current.load_full(),
            lineage: state.lineage,
        }
    }

    /// The refresh token of `revocable` is dead. One of a later sign-in stays.
    pub(crate) fn forget_refresh_token(&self, revocable: &Revocable) {
        let mut state = self.lock();
        if state.lineage == revocable.lineage {
            state.refresh_token = None;
            state.maybe_spent = false;
        }
    }

    /// All of `revocable` is dead, and whatever a refresh makes of it. What a later sign-in brought stays.
    pub(crate) fn forget(&self, revocable: &Revocable) {
        let state = self.lock();
        if state.lineage == revocable.lineage {
            self.reset(state, false);
        }
    }

    pub(crate) fn waiter(&self) -> Option<RefreshWaiter> {
        self.lock().refresh.as_ref().map(|refresh| refresh.waiter.clone())
    }

    pub(crate) fn stats(&self, env: &Env) -> CellStats {
        let now = env.clock.now();
        let state = self.lock();
        CellStats {
            current: self.current.load_full(),
            token_requests: state.token_requests(),
            failures: state.trouble.as_ref().map_or(0, |trouble| trouble.failures),
            suppressed: state.trouble.as_ref().map_or(0, |trouble| trouble.suppressed),
            last_error: state.trouble.as_ref().and_then(|trouble| trouble.last_error.clone()),
            next_attempt: state
                .failure()
                .map(|failure| failure.until.saturating_duration_since(now.monotonic))
                .filter(|pause| !pause.is_zero()),
            refreshing: state.refresh.is_some(),
        }
    }

    /// Token requests, failures, suppressed refreshes.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let state = self.lock();
        let (failures, suppressed) =
            state.trouble.as_ref().map_or((0, 0), |trouble| (trouble.failures, trouble.suppressed));
        (state.token_requests(), failures, suppressed)
    }

    /// Notes for the eviction when the cell was used. Writes only when that is news.
    pub(crate) fn touch(&self, when: u64) {
        if self.used.load(Ordering::Relaxed) != when {
            self.used.store(when, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether nothing would be lost with this cell but a token that can be fetched again.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.refresh.is_none() && !state.holds_the_only_refresh_token()
    }

    /// The clocks must be read before the token is used again.
    pub(crate) fn set_check_clock(&self) {
        self.word.fetch_or(CHECK_CLOCK, Ordering::Release);
    }

    fn publish(&self, state: &mut State, env: &Env, granted: Granted, asked: Now, arrived: Now) -> RefreshResult {
        let Granted { token, refresh, from_store, .. } = granted;
        state.rotate(refresh);
        // Who waited out the same outage renewed together, as those that started together did. Processes with a store
        // renew together, and once: there is no crowd to spread.
        let crowd = !state.tokens_seen || state.failure().is_some();
        let first = crowd && !from_store;
        let asked = Now { wall: token.asked_at.unwrap_or(asked.wall), ..asked };
        let lifetime = match lifetime_of(&token, &env.policy.lifetime, asked, arrived, first, env.draw()) {
            Ok(lifetime) => lifetime,
            Err(no_lifetime) => {
                return RefreshResult::Failed(state.fail(env, no_lifetime_error(no_lifetime), arrived));
            }
        };
        state.tokens_seen = true;
        if let Some(trouble) = &mut state.trouble {
            trouble.failure = None;
        }
        state.invalidated = None;
        let same_as = self.current.load_full().filter(|current| current.token.is_same_as(&token));
        let (generation, lifetime) = match &same_as {
            // The server hands out the same token until its end: asking again before that is useless.
            Some(current) if current.lifetime.is_alive(&arrived) && current.lifetime.expires_at().is_some() => {
                (current.generation, current.lifetime.kept_until_expiry())
            }
            Some(current) => (current.generation, lifetime),
            None => {
                state.generation += 1;
                if let Some(trouble) = &mut state.trouble {
                    trouble.limiter.published();
                }
                (state.generation, lifetime)
            }
        };
        // Here, and not with the first request: the first clone of fresh bytes allocates.
        drop(token.header_value().clone());
        let current = Arc::new(Current { generation, token, lifetime, from_store });
        self.current.store(Some(current.clone()));
        if same_as.is_some() { RefreshResult::Same(current) } else { RefreshResult::New(current) }
    }

    fn reset(&self, mut state: MutexGuard<'_, State>, keep_refresh_token: bool) {
        let superseded = state.supersede_refresh();
        if !keep_refresh_token {
            state.lineage += 1;
            state.refresh_token = None;
            state.maybe_spent = false;
        }
        self.forget_token(&mut state);
        drop(state);
        superseded.into_iter().for_each(|refresh| refresh.notify(RefreshResult::Superseded));
    }

    fn forget_token(&self, state: &mut State) {
        state.generation += 1;
        state.known_invalid = false;
        if let Some(trouble) = &mut state.trouble {
            trouble.failure = None;
            trouble.limiter.reset();
        }
        self.watching.store(false, Ordering::Relaxed);
        let former = self.current.swap(None);
        state.invalidated = former.or(state.invalidated.take());
        self.word.store(word_of(state.generation) | CHECK_CLOCK, Ordering::Release);
    }

    fn join_or_start(
        self: &Arc<Self>,
        state: &mut State,
        env: &Arc<Env>,
        now: &Now,
        after_rejection: bool,
        after: &mut Afterwards,
    ) -> Result<RefreshWaiter, TokenError> {
        match &state.refresh {
            Some(refresh) if !refresh.is_overdue(env, now) => return Ok(refresh.waiter.clone()),
            Some(_) => after.superseded = state.supersede_refresh(),
            None => {}
        }
        let previous = self.current.load_full().or_else(|| state.invalidated.clone());
        let held = state.refresh_token.as_ref();
        let request = TokenRequest {
            refresh_token: held.map(|held| held.secret.clone()),
            refresh_answer_lost: state.maybe_spent,
            refresh_number: held.map_or(0, |held| held.number),
            refresh_owner: held.map_or(RefreshOwner::Cell, |held| held.owner),
            asker: Asker { first: !state.tokens_seen, slow: state.last_timed_out() },
            previous_from_store: previous.as_ref().is_some_and(|former| former.from_store),
            previous: previous.map(|former| former.token.clone()),
            ..env.request(&self.partition.whole())
        };
        let id = RefreshId { number: state.refreshes.wrapping_add(1), lineage: state.lineage };
        let sent = request.sent.clone();
        let complete = {
            let (cell, env) = (self.clone(), env.clone());
            move |result, asked| {
                cell.finish(&env, id, result, asked);
                drop(cell);
                env.coarse_clock.refresh_ended();
            }
        };
        let prepared = refresh::prepare(env, request, after_rejection, Box::new(complete))?;
        let (sender, waiter) = refresh::channel();
        after.prepared = Some(prepared);
        state.refreshes = id.number;
        state.last_start = Some(now.monotonic);
        let refresh = Refresh { id, started: now.monotonic, waiter: waiter.clone(), sender, sent, after_rejection };
        state.refresh = Some(Box::new(refresh));
        Ok(waiter)
    }

    /// Clears *due* and sees to it that it is set again in time. Without a runtime it stays set: every request then reads
    /// the clock, which is slow but right.
    fn rearm(&self, state: &mut State, env: &Arc<Env>, now: &Now, may_go: bool) {
        let Some(current) = self.current.load_full() else { return };
        self.watching.store(state.is_watching(now.monotonic), Ordering::Relaxed);
        let mut delay = current.lifetime.next_boundary(now).unwrap_or(Duration::MAX);
        if let Some(failure) = state.failure() {
            let pause = failure.until.saturating_duration_since(now.monotonic);
            if !pause.is_zero() {
                delay = delay.min(pause);
            }
        }
        let known_invalid = if may_go { 0 } else { KNOWN_INVALID };
        // The word first: a timer that goes off on the spot sets *due* again.
        self.word.store(current.word() | known_invalid, Ordering::Release);
        let good_until = if self.partition.is_default() {
            env.coarse_clock.tick(now, delay.min(MAX_AGE));
            u64::MAX
        } else {
            // Coarse time may be that far behind. What a token past its refresh point waits for has no moment of its own.
            let is_fresh = current.lifetime.freshness(now) == Freshness::Fresh;
            let ahead = if is_fresh { delay.saturating_sub(MAX_AGE) } else { Duration::ZERO };
            env.coarse_time(|| *now).saturating_add(millis(ahead))
        };
        self.good_until.store(good_until, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half way through a change that matters; a poisoned state is still a state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn situation(&self, current: Option<&Current>, now: &Now) -> Situation {
        Situation {
            token: current.map(|current| current.lifetime.freshness(now)),
            refreshing: self.refresh.is_some(),
            failed: self.failure().is_some_and(|failure| now.monotonic < failure.until),
            known_invalid: self.known_invalid,
            interval_passed: self
                .last_start
                .is_none_or(|start| now.monotonic.saturating_duration_since(start) >= MIN_INTERVAL),
        }
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    fn failure(&self) -> Option<&Failure> {
        self.trouble.as_ref()?.failure.as_ref()
    }

    /// The one under way among them once it is certain that it is sent.
    fn token_requests(&self) -> u64 {
        let sent = self.refresh.as_ref().is_some_and(|refresh| refresh.sent.load(Ordering::Relaxed));
        u64::from(self.token_requests.saturating_add(u32::from(sent)))
    }

    fn last_timed_out(&self) -> bool {
        self.failure().is_some_and(|failure| failure.error.kind() == TokenErrorKind::Timeout)
    }

    fn is_watching(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.limiter.is_watching(now))
    }

    /// The one place that says whether a refresh token would be lost with the cell.
    fn holds_the_only_refresh_token(&self) -> bool {
        self.refresh_token.as_ref().is_some_and(|held| !matches!(held.owner, RefreshOwner::Store { .. }))
    }

    /// A token request failed: what becomes of the refresh token, and for how long nobody asks.
    fn refused(&mut self, env: &Env, failed: Failed, now: Now) -> Arc<TokenError> {
        match failed.refresh {
            RefreshFate::Untouched => {}
            RefreshFate::MaybeSpent => self.maybe_spent = true,
            RefreshFate::Dead => (self.refresh_token, self.maybe_spent) = (None, false),
        }
        self.fail(env, failed.error, now)
    }

    /// Remembers a failure for as long as its class says.
    fn fail(&mut self, env: &Env, mut error: TokenError, now: Now) -> Arc<TokenError> {
        if error.is_held_back() {
            return self.hold_back(env, error, now);
        }
        let in_a_row = self.failure().map_or(0, |failure| failure.in_a_row);
        let pause = env.policy.pause_after(&error, in_a_row, env.draw());
        if let Some(pause) = pause {
            error = error.with_retry_after(pause);
        }
        let error = Arc::new(error);
        let trouble = self.trouble();
        trouble.failures += 1;
        trouble.last_error = Some(error.clone());
        trouble.failure = pause.map(|pause| Failure {
            error: error.clone(),
            until: now.monotonic + pause,
            in_a_row: in_a_row.saturating_add(1),
        });
        error
    }

    /// Nothing was sent, so that it is no failure of this partition's own: what it knows of those stays.
    fn hold_back(&mut self, env: &Env, error: TokenError, now: Now) -> Arc<TokenError> {
        let error = Arc::new(error);
        let in_a_row = self.failure().map_or(0, |failure| failure.in_a_row);
        let pause = env.policy.pause_after(&error, 0, 0.0);
        let trouble = self.trouble();
        trouble.last_error = Some(error.clone());
        if let Some(pause) = pause {
            let until = now.monotonic.checked_add(pause).unwrap_or(now.monotonic);
            trouble.failure = Some(Failure { error: error.clone(), until, in_a_row });
        }
        error
    }

    fn rotate(&mut self, change: RefreshChange) {
        match change {
            RefreshChange::Unchanged => {}
            RefreshChange::Replaced(new) => self.refresh_token = Some(new),
            RefreshChange::Removed => self.refresh_token = None,
        }
        self.maybe_spent = false;
    }

    /// Of a refresh token that takes the place of the one held.
    fn next_refresh_number(&self) -> u64 {
        self.refresh_token.as_ref().map_or(0, |held| held.number.saturating_add(1))
    }

    /// Lets a refresh in flight land in vain; whoever waits for it is told at once.
    fn supersede_refresh(&mut self) -> Option<Box<Refresh>> {
        self.known_invalid = false;
        let refresh = self.refresh.take();
        if refresh.is_some() {
            self.token_requests = self.token_requests.saturating_add(1);
        }
        // It may have redeemed the refresh token, and its answer is not in yet.
        self.maybe_spent |= refresh.is_some() && self.refresh_token.is_some();
        refresh
    }
}

fn no_lifetime_error(no_lifetime: NoLifetime) -> TokenError {
    match no_lifetime {
        NoLifetime::Expired => TokenError::new(TokenErrorKind::ClockSkew),
        NoLifetime::Unknown => {
            TokenError::new(TokenErrorKind::Malformed).with_detail("it does not say when the token expires")
        }
    }
}

/// What is left to do once the cell's lock is released.
#[derive(Default)]
struct Afterwards {
    superseded: Option<Box<Refresh>>,
    prepared: Option<PreparedRefresh>,
}

impl Afterwards {
    /// By reference, since it is large and nearly always empty.
    fn run(&mut self) {
        if let Some(refresh) = self.superseded.take() {
            refresh.notify(RefreshResult::Superseded);
        }
        if let Some(prepared) = self.prepared.take() {
            prepared.spawn();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    use futures_util::FutureExt;
    use tokio::sync::Notify;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::engine::{EnginePolicy, Table};
    use crate::token::{LifetimePolicy, TokenSource, erase};
    use crate::types::{Draw, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    /// Issues "1", "2", … with refresh tokens "r1", "r2", … of an hour, each when it is let.
    #[derive(Clone)]
    struct Gate(Arc<GateState>);

    struct GateState {
        asked: Mutex<Vec<Option<String>>>,
        open: Notify,
        rotates: bool,
    }

    impl Gate {
        fn new(rotates: bool) -> Self {
            Self(Arc::new(GateState { asked: Mutex::default(), open: Notify::new(), rotates }))
        }

        fn table(&self, policy: EnginePolicy) -> Arc<Table> {
            let refresh_token = self.0.rotates.then(|| Secret::from("r0"));
            let mut env = Env::new(erase(self.clone()), Arc::new(SystemClock), policy, None);
            env.draw = Draw::always(0.5);
            Table::new(env, refresh_token)
        }

        fn requests(&self) -> usize {
            self.0.asked.lock().unwrap().len()
        }

        /// Lets the token request that began first end, and waits for everything that follows from it.
        async fn let_one_land(&self) {
            self.0.open.notify_one();
            sleep(Duration::from_millis(1)).await;
        }
    }

    impl TokenSource for Gate {
        async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
            let number = {
                let mut asked = self.0.asked.lock().unwrap();
                asked.push(request.refresh_token.map(|token| token.expose().clone()));
                asked.len()
            };
            self.0.open.notified().await;
            let token = token(&number.to_string());
            let rotated = RefreshToken::Replace(Secret::new(format!("r{number}")));
            Ok(if self.0.rotates { token.with_refresh_token(rotated) } else { token })
        }
    }

    fn token(text: &str) -> Token {
        Token::bearer(text).unwrap().expires_in(Duration::from_secs(3600))
    }

    fn wait(read: Read) -> RefreshWaiter {
        match read {
            Read::Wait { waiter, .. } => waiter,
            other => panic!("no wait but {other:?}"),
        }
    }

    fn ready(read: Read) -> Arc<Current> {
        match read {
            Read::Ready(current) => current,
            other => panic!("not ready but {other:?}"),
        }
    }

    /// Behaviour 10.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_woken_finds_the_token_published() {
        struct Looks(Arc<Cell>, AtomicUsize);

        impl Wake for Looks {
            fn wake(self: Arc<Self>) {
                let found = self.0.current.load().is_some() && self.0.lock().refresh.is_none();
                self.1.fetch_add(if found { 1 } else { 1000 }, Ordering::Relaxed);
            }
        }

        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let looks = Arc::new(Looks(cell.clone(), AtomicUsize::new(0)));
        let mut waiters: Vec<_> = (0..10).map(|_| wait(cell.read(table.env()))).collect();
        for waiter in &mut waiters {
            let waker = Waker::from(looks.clone());
            assert!(waiter.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        sleep(SECOND).await;
        gate.let_one_land().await;
        assert_eq!(looks.1.load(Ordering::Relaxed), 10);
        for waiter in waiters {
            let RefreshResult::New(current) = waiter.await else { panic!("no new token") };
            assert_eq!(ready(cell.read(table.env())).generation, current.generation);
        }
        assert_eq!(gate.requests(), 1);
    }

    /// Behaviour 11.
    #[tokio::test(start_paused = true)]
    async fn a_late_waiter_of_an_older_refresh_leaves_the_newer_one() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let late = wait(cell.read(table.env()));
        sleep(SECOND).await;
        cell.new_epoch(true);
        let newer = wait(cell.read(table.env()));
        sleep(SECOND).await;
        gate.let_one_land().await;
        assert!(matches!(late.await, RefreshResult::Superseded));
        // It is still the newer refresh that the next reader joins.
        let joined = wait(cell.read(table.env()));
        assert_eq!(gate.requests(), 2);
        gate.let_one_land().await;
        for waiter in [newer, joined] {
            assert!(matches!(waiter.await, RefreshResult::New(current) if current.token.access_token() == "2"));
        }
        assert_eq!(gate.requests(), 2);
    }

    /// Behaviour 85.
    #[tokio::test(start_paused = true)]
    async fn a_refresh_publishes_over_an_invalidation_but_not_into_another_epoch() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        cell.hand_in(table.env(), token("old")).unwrap();
        let old = ready(cell.read(table.env()));
        let Rejection::Wait { waiter, starter: true } = cell.reject(table.env(), old.generation, true) else {
            panic!("no refresh")
        };
        cell.invalidate();
        assert!(cell.ready(table.env()).is_none());
        let joined = wait(cell.read(table.env()));
        sleep(SECOND).await;
        gate.let_one_land().await;
        for waiter in [waiter, joined] {
            assert!(matches!(waiter.await, RefreshResult::New(current) if current.token.access_token() == "1"));
        }
        let published = ready(cell.read(table.env()));
        assert!(published.generation > old.generation);
        assert_eq!(gate.requests(), 1);

        // Changed credentials: what the refresh brings is not published.
        cell.invalidate();
        let superseded = wait(cell.read(table.env()));
        sleep(SECOND).await;
        cell.new_epoch(true);
        gate.let_one_land().await;
        assert!(matches!(superseded.await, RefreshResult::Superseded));
        assert!(cell.current.load().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_superseded_refresh_keeps_its_refresh_token_unless_the_line_ended() {
        enum Meanwhile {
            SameClient,
            AnotherClient,
            HandedIn,
            HandedInWithItsOwn,
        }
        use Meanwhile::*;

        let cases = [
            (SameClient, Some("r1")),
            (AnotherClient, None),
            (HandedIn, Some("r1")),
            (HandedInWithItsOwn, Some("own")),
        ];
        for (meanwhile, expected) in cases {
            let gate = Gate::new(true);
            let table = gate.table(EnginePolicy::default());
            let cell = table.default_cell();
            let waiter = wait(cell.read(table.env()));
            sleep(SECOND).await;
            match meanwhile {
                SameClient => cell.new_epoch(true),
                AnotherClient => cell.new_epoch(false),
                HandedIn => cell.hand_in(table.env(), token("x")).unwrap(),
                HandedInWithItsOwn => {
                    let own = RefreshToken::Replace(Secret::from("own"));
                    cell.hand_in(table.env(), token("x").with_refresh_token(own)).unwrap();
                }
            }
            gate.let_one_land().await;
            assert!(matches!(waiter.await, RefreshResult::Superseded));
            cell.invalidate();
            drop(wait(cell.read(table.env())));
            sleep(SECOND).await;
            assert_eq!(gate.0.asked.lock().unwrap().last().unwrap().as_deref(), expected);
        }
    }

    /// Behaviour 23.
    #[test]
    fn a_refresh_on_a_runtime_that_nobody_drives_is_overtaken() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stuck = {
            let _inside = parked.enter();
            wait(cell.read(table.env()))
        };
        let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        driven.block_on(async {
            sleep(table.env().policy.refresh_deadline / 2).await;
            assert!(wait(cell.read(table.env())).ptr_eq(&stuck), "it may land yet");
            sleep(table.env().policy.refresh_deadline).await;
            let second = wait(cell.read(table.env()));
            assert!(matches!(stuck.await, RefreshResult::Superseded));
            gate.let_one_land().await;
            assert!(matches!(second.await, RefreshResult::New(_)));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_handed_in_is_the_very_next_one() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        for text in ["a", "b"] {
            cell.hand_in(table.env(), token(text)).unwrap();
            let current = ready(cell.read(table.env()));
            assert_eq!(current.token.access_token(), text);
            assert_eq!(cell.word(), current.word());
        }
        assert_eq!(gate.requests(), 0);
        let strict = LifetimePolicy { strict: true, ..LifetimePolicy::default() };
        let table = gate.table(EnginePolicy { lifetime: strict, ..EnginePolicy::default() });
        let expired = Token::bearer("c").unwrap().expires_at(std::time::UNIX_EPOCH);
        assert_eq!(table.default_cell().hand_in(table.env(), expired).unwrap_err().kind(), TokenErrorKind::ClockSkew);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cell_is_due_a_second_after_it_was_read_and_at_each_boundary() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        cell.hand_in(table.env(), token("t")).unwrap();
        for _ in 0..3 {
            let current = ready(cell.read(table.env()));
            assert_eq!(cell.word(), current.word());
            sleep(SECOND - Duration::from_millis(2)).await;
            assert!(cell.ready(table.env()).is_some());
            sleep(Duration::from_millis(4)).await;
            assert!(cell.ready(table.env()).is_none(), "nobody has read a clock for a second");
        }
        // Nobody asks, nothing ticks; and whoever asks next finds the token as old as it is.
        advance(Duration::from_secs(7200)).await;
        assert_eq!(gate.requests(), 0);
        drop(wait(cell.read(table.env())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_background_refresh_is_noticed_when_its_pause_ends() {
        let source = tower::service_fn(|_: TokenRequest| async {
            Err::<Token, _>(TokenError::transient("down").with_retry_after(Duration::from_millis(300)))
        });
        let env = Env::new(erase(source), Arc::new(SystemClock), EnginePolicy::default(), None);
        let table = Table::new(env, None);
        let cell = table.default_cell();
        cell.hand_in(table.env(), token("t")).unwrap();
        advance(Duration::from_secs(3000)).await;
        ready(cell.read(table.env()));
        sleep(Duration::from_millis(1)).await;
        ready(cell.read(table.env()));
        assert!(cell.ready(table.env()).is_some());
        sleep(Duration::from_millis(300)).await;
        assert!(cell.ready(table.env()).is_none(), "the pause is over and nobody was told");
        assert_eq!(cell.stats(table.env()).failures, 1);
    }

    /// Behaviour 73.
    #[tokio::test(start_paused = true)]
    async fn the_first_token_after_a_failure_is_spread_like_the_first_of_a_process() {
        let down = Arc::new(AtomicBool::new(false));
        let source = tower::service_fn({
            let (down, tokens) = (down.clone(), Arc::new(AtomicUsize::new(0)));
            move |_: TokenRequest| {
                let new = token(&tokens.fetch_add(1, Ordering::Relaxed).to_string());
                let down = down.load(Ordering::Relaxed);
                async move { if down { Err(TokenError::transient("down")) } else { Ok(new) } }
            }
        });
        let mut env = Env::new(erase(source), Arc::new(SystemClock), EnginePolicy::default(), None);
        env.draw = Draw::always(0.0);
        let table = Table::new(env, None);
        let cell = table.default_cell();
        let renewed_after = || {
            let current = cell.current.load_full().unwrap();
            current.lifetime.next_boundary(&table.env().clock.now()).unwrap().as_secs_f64().round()
        };
        let fetch = || async {
            cell.invalidate();
            let _ = wait(cell.read(table.env())).await;
        };
        fetch().await;
        assert_eq!(renewed_after(), 1260.0, "35 % of an hour");
        fetch().await;
        assert_eq!(renewed_after(), 2880.0, "80 %");
        down.store(true, Ordering::Relaxed);
        advance(Duration::from_secs(3000)).await;
        ready(cell.read(table.env()));
        sleep(SECOND).await;
        down.store(false, Ordering::Relaxed);
        ready(cell.read(table.env()));
        sleep(SECOND).await;
        assert_eq!(renewed_after(), 1259.0, "a second ago");
    }

    #[test]
    fn without_a_runtime_the_cell_stays_due_and_a_valid_token_is_used() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        assert!(matches!(cell.read(table.env()), Read::Failed(error) if error.kind() == TokenErrorKind::NoRuntime));
        cell.hand_in(table.env(), token("t")).unwrap();
        ready(cell.read(table.env()));
        assert!(cell.ready(table.env()).is_none(), "there is no timer, so each request must read the clock");
        ready(cell.read(table.env()));
    }

    #[test]
    fn a_runtime_without_timers_does_not_panic_in_the_caller() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        cell.hand_in(table.env(), token("t")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            ready(cell.read(table.env()));
            tokio::task::yield_now().await;
            assert!(cell.ready(table.env()).is_none(), "its timer is gone");
            cell.invalidate();
            let RefreshResult::Failed(error) = wait(cell.read(table.env())).await else { panic!("it finished") };
            assert_eq!(error.kind(), TokenErrorKind::Aborted);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_wait_as_may_and_no_more() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy { max_waiters: Some(2), ..EnginePolicy::default() });
        let cell = table.default_cell();
        let waiters = [wait(cell.read(table.env())), wait(cell.read(table.env()))];
        assert!(matches!(cell.read(table.env()), Read::Failed(error) if error.kind() == TokenErrorKind::Overloaded));
        let [first, second] = waiters;
        drop(first);
        let third = wait(cell.read(table.env()));
        sleep(SECOND).await;
        gate.let_one_land().await;
        assert!(matches!((second.await, third.await), (RefreshResult::New(_), RefreshResult::New(_))));
    }

    /// Behaviour 8.
    #[test]
    fn no_reader_sees_a_word_older_or_a_token_older_than_what_came_before() {
        const TOKENS: u64 = 20_000;

        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let published = AtomicU64::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    let mut newest = 0;
                    while newest < TOKENS {
                        let floor = published.load(Ordering::Acquire);
                        let word = cell.word();
                        let of_word = Current::generation_of(word);
                        assert!(of_word >= floor, "word {of_word} after {floor} was published");
                        let read = cell.current.load_full();
                        for current in read.into_iter().chain(cell.ready(table.env())) {
                            // The first token is of the first generation, and so on: each says which one it belongs to.
                            assert_eq!(current.token.access_token(), current.generation.to_string());
                            assert!(current.generation >= of_word, "a new word with an old token");
                            assert!(current.generation >= newest, "back to an older token");
                            newest = current.generation;
                        }
                    }
                });
            }
            // Slow-path readers rewrite the word all the time.
            threads.spawn(|| {
                let _timers = runtime.enter();
                while published.load(Ordering::Relaxed) < TOKENS {
                    let _ = cell.read(table.env());
                }
            });
            for number in 1..=TOKENS {
                cell.hand_in(table.env(), token(&number.to_string())).unwrap();
                published.store(number, Ordering::Release);
            }
        });
    }
}
