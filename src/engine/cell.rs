//! The home of one partition's token: the current token, its state, its refresh.
//!
//! Two readers, two prices. The hot path loads one atomic word (generation, `KNOWN_INVALID`, `CHECK_CLOCK`) and compares it
//! with what the service clone remembers; equal means that its private header value is still good, and nothing else is
//! touched. Every other case locks the state for some nanoseconds, never across an `.await`.
//!
//! The word is a hint, the generation inside [`Current`] is the truth: publishing stores the token first and the word
//! after, and a reader that finds the word changed takes the generation from the token it then reads. So no reader can pair a
//! new word with an old token.
//!
//! The hot path reads no clock. The slow path reads both clocks and clears `CHECK_CLOCK`. After that
//! the engine's [coarse clock](super::coarse_clock) tells the time: it sets `CHECK_CLOCK` on the default cell, at the next
//! boundary or after a second. The other cells, of which there may be a million, compare its coarse time with the moment
//! until which they are good. So no cell has a timer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::coarse_clock::{MAX_AGE, millis};
use super::current::{CHECK_CLOCK, Current, KNOWN_INVALID, word_of};
use super::decision::{Decision, Situation, classify};
use super::env::Env;
use super::key::{CompactKey, Partition};
use super::refresh::{self, PreparedRefresh, RefreshResult, RefreshWaiter, ResultSender, TaskEnd, Waiters};
use super::refresh_token::{Family, RefreshTokenState};
use super::rejection_limiter::RejectionLimiter;
use super::rt::{self, Runtime, RuntimeId};
use super::sync::{ArcSwapOption, AtomicBool, AtomicU64, Mutex, MutexGuard};
use crate::telemetry::{Ended, TokenRequestSpan, Trigger};
use crate::token::{
    Asker, Failed, Freshness, Granted, HeldRefreshToken, MIN_INTERVAL, NoLifetime, RefreshChange, RefreshDigest,
    RefreshFate, RefreshOwner, RefreshToken, Spread, Token, TokenRequest, YEAR, lifetime_of,
};
use crate::types::{Now, Secret, TokenError, TokenErrorKind};

/// What a request gets when it asks for the token.
#[derive(Debug)]
pub(crate) enum Read {
    Ready(Arc<Current>),
    /// Wait; if the refresh fails, go with `fallback` while it is alive.
    Wait {
        waiter: RefreshWaiter,
        fallback: Option<Arc<Current>>,
    },
    Failed(TokenError),
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
    Failed(TokenError),
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
    last_start: Option<Instant>,
    known_invalid: bool,
    refresh_token: RefreshTokenState,
    /// How many refreshes began.
    refreshes: u32,
    /// Of those that have ended, how many were not held back by the bounds of the token endpoint.
    token_requests: u32,
    trouble: Option<Box<Trouble>>,
}

/// What only cells have whose token was rejected, invalidated or could not be obtained: of a million cells, most never.
#[derive(Default)]
struct Trouble {
    /// A refresh that was superseded while the refresh token held was with the server.
    carrier: Option<Box<Carrier>>,
    /// What a newer token is wanted for, where that is not the current one.
    invalidated: Option<Arc<Current>>,
    /// The next refresh is for a rejection that came where there is no runtime.
    rejected: bool,
    limiter: RejectionLimiter,
    failure: Option<Failure>,
    failures: u64,
    suppressed: u64,
    last_error: Option<TokenError>,
}

/// Which refresh: its number, and the family of refresh tokens that it continues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshId {
    number: u32,
    family: Family,
}

struct Refresh {
    id: RefreshId,
    /// Its task was driven: its refresh token is with the server.
    begun: bool,
    /// From when its deadline counts: that of its task once that has begun.
    started: Instant,
    waiters: Waiters,
    sender: ResultSender,
    /// It is not held back.
    sent: Arc<std::sync::atomic::AtomicBool>,
    /// Started by a rejection: its end arms the rejection limiter.
    after_rejection: bool,
    /// The refresh token that it went out with.
    carries: Option<RefreshDigest>,
    /// It was found overdue then. Its answer may be there, and its runtime be driven again by the request that found it.
    grace: Option<Instant>,
    /// Where a watchdog is armed, beside its own runtime.
    watched: Vec<RuntimeId>,
}

/// What is left of a superseded refresh: its refresh token is not sent again before it has answered.
struct Carrier {
    id: RefreshId,
    started: Instant,
    carries: RefreshDigest,
    waiters: Waiters,
    sender: ResultSender,
    watched: Vec<RuntimeId>,
}

impl Refresh {
    /// Its own deadline has passed and it has not finished: its runtime exists but nobody drives it any more.
    fn is_overdue(&self, env: &Env, now: &Now) -> bool {
        now.monotonic.saturating_duration_since(self.started) > env.overdue_after()
    }

    /// Tells everybody who waits. After the cell's lock is released: waking may run foreign code. A subscriber comes last,
    /// which may panic.
    fn notify(self, result: RefreshResult) {
        let span = self.waiters.span().clone();
        self.sender.send(result.clone());
        span.ended(&match &result {
            RefreshResult::New(current) => Ended::NewToken {
                generation: current.generation,
                left: current.lifetime.left(&current.lifetime.arrived()),
            },
            RefreshResult::Same(current) => Ended::SameToken { generation: current.generation },
            RefreshResult::Failed(error) => Ended::Failed(error),
            RefreshResult::Superseded => Ended::Superseded,
        });
    }

    fn notify_runtime_ended(self, error: TokenError) {
        let span = self.waiters.span().clone();
        self.sender.send_runtime_ended(error.clone());
        span.ended(&Ended::Failed(&error));
    }
}

impl Carrier {
    /// Its answer comes no more.
    fn is_over(&self, env: &Env, now: &Now) -> bool {
        now.monotonic.saturating_duration_since(self.started) >= env.policy.refresh_deadline
    }
}

struct Failure {
    error: TokenError,
    /// When the first of those in a row came.
    since: Instant,
    until: Instant,
    in_a_row: u32,
}

impl Failure {
    /// The error as it is told later: with the pause that is left, not the whole of it.
    fn told_at(&self, now: &Now) -> TokenError {
        let left = self.until.saturating_duration_since(now.monotonic);
        self.error.clone().with_retry_after(left)
    }

    /// A short rest of a pause is waited for, rather than handing out a rejected response.
    fn wait_out(&self, env: &Env, now: &Now) -> Option<RefreshWaiter> {
        let left = self.until.saturating_duration_since(now.monotonic);
        let is_short = left <= env.policy.wait_out_pause && self.error.is_transient();
        if is_short { RefreshWaiter::pause(left, &env.telemetry, now).ok() } else { None }
    }
}

/// The tokens of one cell, to be revoked.
pub(crate) struct Revocable {
    pub(crate) refresh_token: Option<Secret<String>>,
    pub(crate) current: Option<Arc<Current>>,
    /// Another sign-in begins another one.
    family: Family,
}

/// Figures of one cell.
pub(crate) struct CellStats {
    pub(crate) current: Option<Arc<Current>>,
    pub(crate) token_requests: u64,
    pub(crate) failures: u64,
    pub(crate) suppressed: u64,
    pub(crate) last_error: Option<TokenError>,
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
                last_start: None,
                known_invalid: false,
                refresh_token: RefreshTokenState::new(refresh_token),
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

    /// The same, with the demand to read the clocks where that was long ago: a timer may be one that nobody drives.
    #[inline]
    pub(crate) fn word_now(&self, env: &Env) -> u64 {
        if env.coarse_clock.is_recent() { self.word() } else { self.word() | CHECK_CLOCK }
    }

    /// The token if it may simply be used: no lock, no clock.
    #[inline]
    pub(crate) fn ready(&self, env: &Env) -> Option<Arc<Current>> {
        // The word first: a token published between the two reads is newer than the word, which is harmless.
        if self.word_now(env) & (CHECK_CLOCK | KNOWN_INVALID) != 0
            || !env.coarse_clock.is_before(self.good_until.load(Ordering::Relaxed))
        {
            return None;
        }
        self.current.load_full()
    }

    /// Whether `current` may be sent still: no lock, and nothing that others share is touched.
    #[inline]
    pub(crate) fn may_send(&self, env: &Env, current: &Current) -> bool {
        self.word_now(env) == current.word() && env.coarse_clock.is_before(self.good_until.load(Ordering::Relaxed))
    }

    /// The token, or a wait, or the remembered failure.
    pub(crate) fn read(self: &Arc<Self>, env: &Arc<Env>) -> Read {
        match self.ready(env) {
            Some(current) => Read::Ready(current),
            None => self.look(env, None),
        }
    }

    /// The same for a request whose token of generation `rejected` was rejected: that one is never the answer.
    pub(crate) fn read_newer(self: &Arc<Self>, env: &Arc<Env>, rejected: u64) -> Read {
        match self.ready(env).filter(|current| current.generation > rejected) {
            Some(current) => Read::Ready(current),
            None => self.look(env, Some(rejected)),
        }
    }

    /// Looks at the clocks.
    fn look(self: &Arc<Self>, env: &Arc<Env>, rejected: Option<u64>) -> Read {
        let now = env.clock.now();
        let mut after = Afterwards::default();
        let mut state = self.lock();
        let current = self.current.load_full();
        let is_rejected = |current: &Arc<Current>| rejected.is_some_and(|rejected| current.generation <= rejected);
        let had_rejected = current.as_ref().is_some_and(is_rejected);
        let current = current.filter(|current| !is_rejected(current));
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
                None => Read::Failed(TokenError::new(TokenErrorKind::Aborted)),
            },
            (_, _) => match self.join_or_start(&mut state, env, &now, false, &mut after) {
                Ok(_) if env.policy.max_waiters.is_some_and(|max| state.waiter_count() > max) => {
                    Read::Failed(TokenError::new(TokenErrorKind::Overloaded))
                }
                Ok(waiter) => Read::Wait { waiter, fallback: None },
                Err(error) => Read::Failed(error),
            },
        };
        if !had_rejected {
            self.rearm(&mut state, env, &now, matches!(decision, Decision::Go | Decision::GoAndRefresh));
        }
        drop(state);
        after.run();
        match read {
            Read::Failed(error) => Read::Failed(env.telemetry.named(error)),
            read => read,
        }
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
        let is_refreshing = state.refresh.as_ref().is_some_and(|refresh| !refresh.is_overdue(env, &now));
        let rejection = if is_refreshing {
            if is_current {
                state.trouble().limiter.joined();
            }
            match self.join_or_start(&mut state, env, &now, false, &mut after) {
                Ok(waiter) => Rejection::Wait { waiter, starter: false },
                Err(error) => Rejection::Failed(error),
            }
        } else if let Some(failure) = state.failure().filter(|failure| now.monotonic < failure.until) {
            match failure.wait_out(env, &now) {
                Some(waiter) => Rejection::Wait { waiter, starter: false },
                None => Rejection::Failed(failure.told_at(&now)),
            }
        } else if is_current && !state.trouble().limiter.may_refresh(now.monotonic) {
            state.trouble().suppressed = state.trouble().suppressed.saturating_add(1);
            Rejection::Suppressed
        } else {
            match self.join_or_start(&mut state, env, &now, is_current, &mut after) {
                Ok(waiter) => Rejection::Wait { waiter, starter: is_current },
                Err(error) => Rejection::Failed(error),
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
        match rejection {
            Rejection::Failed(error) => Rejection::Failed(env.telemetry.named(error)),
            rejection => rejection,
        }
    }

    /// Generation `generation` was accepted. One relaxed load unless the rejection limiter watches.
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

    /// As [`reject`](Self::reject), by the token itself, for callers that used it without a request of ours.
    pub(crate) fn reject_token(self: &Arc<Self>, env: &Arc<Env>, token: &Token) -> Rejection {
        let current = self.current.load_full().filter(|current| current.token.is_same_as(token));
        // Of a token that is not the current one only that much is known: it is older.
        let rejection = self.reject(env, current.as_ref().map_or(0, |current| current.generation), true);
        if let (Rejection::Failed(error), Some(rejected)) = (&rejection, current)
            && error.kind() == TokenErrorKind::NoRuntime
        {
            self.refresh_later(rejected.generation);
        }
        rejection
    }

    /// A rejection may refresh, and there is no runtime to do it on: the next reader of the token refreshes instead.
    fn refresh_later(&self, rejected: u64) {
        let mut state = self.lock();
        let former = self.current.load_full().filter(|current| current.generation == rejected);
        if former.is_some() {
            self.current.store(None);
            let trouble = state.trouble();
            (trouble.invalidated, trouble.rejected) = (former, true);
            self.word.fetch_or(CHECK_CLOCK, Ordering::Release);
        }
    }

    /// The task of a refresh is driven for the first time: whether it may ask, and from now on it has.
    fn begin(&self, id: RefreshId, now: &Now) -> bool {
        let mut state = self.lock();
        let Some(refresh) = state.refresh.as_mut().filter(|refresh| refresh.id == id) else { return false };
        (refresh.begun, refresh.started) = (true, now.monotonic);
        true
    }

    /// Takes in how a refresh ended. Publishes before anybody is woken.
    fn finish(&self, env: &Env, id: RefreshId, end: TaskEnd, asked: Now) {
        let (arrived, end) = (env.now_or(asked), end.named(&env.telemetry));
        let mut state = self.lock();
        let Some(refresh) = state.refresh.take_if(|refresh| refresh.id == id) else {
            return self.finish_superseded(state, id, end);
        };
        state.known_invalid = false;
        if !matches!(&end, TaskEnd::Finished(Err(failed)) if failed.error.is_held_back()) {
            state.token_requests = state.token_requests.saturating_add(1);
        }
        let mut runtime_ended = false;
        let former = self.current.load_full();
        let result = match end {
            TaskEnd::Finished(Ok(granted)) => {
                let Granted { refresh: change, sent, dead, .. } = granted;
                state.refresh_token.granted(change, sent, dead, refresh.carries);
                self.publish(&mut state, env, granted.token, granted.from_store, asked, arrived)
            }
            TaskEnd::Finished(Err(failed)) => RefreshResult::Failed(state.refused(env, failed, arrived)),
            TaskEnd::Panicked(failed) => {
                // Not remembered by its kind; but a source that panics would be asked once for each request.
                let pause = state.next_backoff(env);
                RefreshResult::Failed(state.refused_for(failed, Some(pause), arrived))
            }
            TaskEnd::RuntimeEnded(failed) => {
                runtime_ended = true;
                RefreshResult::Failed(state.refused(env, failed, arrived))
            }
        };
        if refresh.after_rejection && !matches!(result, RefreshResult::Failed(_)) {
            state.trouble().limiter.ended(arrived.monotonic);
        }
        self.watching.store(state.is_watching(arrived.monotonic), Ordering::Relaxed);
        // Due: the next request reads the clock, and arms a timer for what is now the next boundary.
        self.word.store(word_of(state.generation) | CHECK_CLOCK, Ordering::Release);
        drop(state);
        let replaced = former.filter(|_| matches!(result, RefreshResult::New(_)));
        match result {
            RefreshResult::Failed(error) if runtime_ended => refresh.notify_runtime_ended(error),
            result => refresh.notify(result),
        }
        if let Some(former) = replaced {
            env.telemetry.token_replaced(former.lifetime.left(&arrived));
        }
    }

    /// The token is not ours any more, but what became of the refresh token is.
    fn finish_superseded(&self, mut state: MutexGuard<'_, State>, id: RefreshId, end: TaskEnd) {
        let carrier = state.take_carrier_if(|carrier, _| carrier.id == id);
        if state.refresh_token.family() == id.family {
            match end {
                TaskEnd::Finished(Ok(granted)) => {
                    let carried = carrier.as_ref().map(|carrier| carrier.carries);
                    state.refresh_token.granted(granted.refresh, granted.sent, granted.dead, carried);
                }
                TaskEnd::Finished(Err(failed)) | TaskEnd::Panicked(failed) | TaskEnd::RuntimeEnded(failed) => {
                    state.refresh_token.failed(&failed);
                }
            }
        }
        drop(state);
        if let Some(carrier) = carrier {
            carrier.sender.send(RefreshResult::Superseded);
        }
    }

    /// Somebody has waited for so long on another runtime that the refresh cannot end any more where it runs.
    fn watchdog(&self, env: &Env, id: RefreshId, last: Now) {
        let mut state = self.lock();
        if let Some(carrier) = state.take_carrier_if(|carrier, _| carrier.id == id) {
            state.refresh_token.unanswered(&carrier.carries);
            drop(state);
            return carrier.sender.send(RefreshResult::Superseded);
        }
        let Some(refresh) = state.refresh.as_ref().filter(|refresh| refresh.id == id) else { return };
        if refresh.grace.is_some() {
            // They came when it was overdue already, and have waited a second.
            let superseded = state.supersede_refresh(env, None);
            drop(state);
            superseded.into_iter().for_each(|refresh| refresh.notify(RefreshResult::Superseded));
            return;
        }
        let sent = refresh.carries.filter(|_| refresh.begun);
        if sent.is_some() && !refresh.is_overdue(env, &env.now_or(last)) {
            // It began late, and its own deadline is still ahead: nobody waits so long, and its refresh token is not sent
            // before.
            let superseded = state.supersede_refresh(env, Some(&last));
            drop(state);
            let error = env.telemetry.named(refresh::deadline_passed());
            superseded.into_iter().for_each(|refresh| refresh.notify(RefreshResult::Failed(error.clone())));
            return;
        }
        let fate = if sent.is_some() { RefreshFate::MaybeSpent } else { RefreshFate::Untouched };
        drop(state);
        let failed = Failed { error: refresh::deadline_passed(), refresh: fate, sent };
        self.finish(env, id, TaskEnd::Finished(Err(failed)), last);
    }

    /// A token from outside the engine, such as one from an interactive sign-in.
    #[cfg(test)]
    pub(crate) fn hand_in(&self, env: &Env, token: Token) -> Result<(), TokenError> {
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
    ) -> Result<(), TokenError> {
        let now = env.clock.now();
        // A token that is of no use changes nothing.
        let unusable = |no_lifetime| env.telemetry.named(no_lifetime_error(no_lifetime));
        lifetime_of(&token, &env.policy.lifetime, now, now, Spread::Narrow, 0.0).map_err(unusable)?;
        let mut state = self.lock();
        let superseded = state.supersede_refresh(env, Some(&now));
        let refresh = match std::mem::take(&mut token.refresh_token) {
            RefreshToken::Keep => RefreshChange::Unchanged,
            RefreshToken::Drop => RefreshChange::Removed,
            RefreshToken::Replace(secret) => {
                let number = number.unwrap_or_else(|| state.refresh_token.next_number());
                RefreshChange::Replaced(HeldRefreshToken { secret, number, owner })
            }
        };
        state.refresh_token.set(refresh);
        let from_store = matches!(owner, RefreshOwner::Store { .. });
        let result = self.publish(&mut state, env, token, from_store, now, now);
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
    pub(crate) fn new_epoch(&self, env: &Env, keep_refresh_token: bool) {
        let now = env.clock.now();
        self.reset(self.lock(), env, &now, keep_refresh_token);
    }

    /// What there is to revoke.
    pub(crate) fn revocable(&self) -> Revocable {
        let state = self.lock();
        Revocable {
            refresh_token: state.refresh_token.held().map(|held| held.secret.clone()),
            current: self.current.load_full(),
            family: state.refresh_token.family(),
        }
    }

    /// The refresh token of `revocable` is dead. One of a later sign-in stays.
    pub(crate) fn forget_refresh_token(&self, revocable: &Revocable) {
        let mut state = self.lock();
        if state.refresh_token.family() == revocable.family {
            state.refresh_token.drop_held();
        }
    }

    /// All of `revocable` is dead, and whatever a refresh makes of it. What a later sign-in brought stays.
    pub(crate) fn forget(&self, env: &Env, revocable: &Revocable) {
        let now = env.clock.now();
        let state = self.lock();
        if state.refresh_token.family() == revocable.family {
            self.reset(state, env, &now, false);
        }
    }

    /// Waits for the refresh in flight, if there is one, and for what became of one that was superseded.
    pub(crate) async fn refresh_ended(self: &Arc<Self>, env: &Arc<Env>) {
        let waiters = {
            let now = env.clock.now();
            let mut after = Afterwards::default();
            let mut state = self.lock();
            let state = &mut *state;
            let current = state.refresh.as_mut().map(|refresh| {
                after.watch(self, env, refresh.id, refresh.started, &refresh.waiters, &mut refresh.watched, &now);
                refresh.waiters.join(&now)
            });
            let mut carrier_after = Afterwards::default();
            let carrier = state.carrier_mut().map(|carrier| {
                let Carrier { id, started, waiters, watched, .. } = &mut **carrier;
                carrier_after.watch(self, env, *id, *started, waiters, watched, &now);
                waiters.join(&now)
            });
            [(current, after), (carrier, carrier_after)]
        };
        for (waiter, mut after) in waiters {
            after.run();
            if let Some(waiter) = waiter {
                waiter.await;
            }
        }
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

    /// The failure that is remembered, since when, and for how long nobody asks: of a cell that has had no token since.
    pub(crate) fn failing(&self, now: &Now) -> Option<(TokenError, Instant, Duration)> {
        let state = self.lock();
        let Failure { error, since, until, .. } = state.failure()?;
        Some((error.clone(), *since, until.saturating_duration_since(now.monotonic)))
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
        state.refresh.is_none() && !state.has_carrier() && !state.refresh_token.is_only_here()
    }

    /// Whether its token is past its end, if there is one, and no failure is to be remembered.
    pub(crate) fn has_ended(&self, now: &Now) -> bool {
        let is_failing = self.lock().failure().is_some_and(|failure| now.monotonic < failure.until);
        !is_failing && self.current.load().as_ref().is_none_or(|current| !current.lifetime.is_alive(now))
    }

    /// The clocks must be read before the token is used again.
    pub(crate) fn set_check_clock(&self) {
        self.word.fetch_or(CHECK_CLOCK, Ordering::Release);
    }

    fn publish(
        &self,
        state: &mut State,
        env: &Env,
        token: Token,
        from_store: bool,
        asked: Now,
        arrived: Now,
    ) -> RefreshResult {
        let former = self.current.load_full();
        // Who waited out the same outage renewed together, as those that started together did, and those whose store
        // failed.
        let had_the_stores = former.as_ref().is_some_and(|former| former.from_store);
        let spread = match () {
            () if from_store => Spread::Shared,
            () if !state.tokens_seen || state.failure().is_some() || had_the_stores => Spread::Wide,
            () => Spread::Narrow,
        };
        let asked = Now { wall: token.asked_at.unwrap_or(asked.wall), ..asked };
        let lifetime = match lifetime_of(&token, &env.policy.lifetime, asked, arrived, spread, env.draw()) {
            Ok(lifetime) => lifetime,
            Err(no_lifetime) => {
                let error = env.telemetry.named(no_lifetime_error(no_lifetime));
                return RefreshResult::Failed(state.fail(env, error, arrived));
            }
        };
        state.tokens_seen = true;
        if let Some(trouble) = &mut state.trouble {
            (trouble.failure, trouble.invalidated) = (None, None);
        }
        let same_as = former.filter(|current| current.token.is_same_as(&token));
        let (generation, lifetime) = match &same_as {
            // The server hands out the same token until its end: asking again before that is useless.
            Some(current) if current.lifetime.is_alive(&arrived) && current.lifetime.expires_at().is_some() => {
                (current.generation, current.lifetime.kept_until_expiry())
            }
            Some(current) => (current.generation, lifetime),
            None => {
                state.generation = state.generation.saturating_add(1);
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

    fn reset(&self, mut state: MutexGuard<'_, State>, env: &Env, now: &Now, keep_refresh_token: bool) {
        let superseded = state.supersede_refresh(env, Some(now));
        if !keep_refresh_token {
            state.refresh_token.forget();
        }
        self.forget_token(&mut state);
        drop(state);
        superseded.into_iter().for_each(|refresh| refresh.notify(RefreshResult::Superseded));
    }

    fn forget_token(&self, state: &mut State) {
        state.generation = state.generation.saturating_add(1);
        state.known_invalid = false;
        if let Some(trouble) = &mut state.trouble {
            (trouble.failure, trouble.rejected) = (None, false);
            trouble.limiter.reset();
        }
        self.watching.store(false, Ordering::Relaxed);
        let former = self.current.swap(None);
        if former.is_some() {
            state.trouble().invalidated = former;
        }
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
        if let Some(refresh) = &mut state.refresh {
            let is_overdue = refresh.is_overdue(env, now);
            let answer_may_be_there = refresh.begun && refresh.carries.is_some() && !env.policy.has_primary_grant;
            let may_come = !is_overdue || answer_may_be_there;
            let grace = if is_overdue { refresh.grace.get_or_insert(now.monotonic) } else { &now.monotonic };
            if may_come && now.monotonic.saturating_duration_since(*grace) < MIN_INTERVAL {
                after.watch(self, env, refresh.id, refresh.started, &refresh.waiters, &mut refresh.watched, now);
                return Ok(refresh.waiters.join(now));
            }
            after.superseded = state.supersede_refresh(env, Some(now));
        }
        let mut withheld = false;
        if let Some(carrier) =
            state.take_carrier_if(|carrier, held| carrier.is_over(env, now) || !held.is_held(&carrier.carries))
        {
            state.refresh_token.unanswered(&carrier.carries);
            after.over = Some(carrier);
        } else if let Some(carrier) = state.carrier_mut() {
            if !env.policy.has_primary_grant {
                let Carrier { id, started, waiters, watched, .. } = &mut **carrier;
                after.watch(self, env, *id, *started, waiters, watched, now);
                return Ok(waiters.join(now));
            }
            withheld = true;
        }
        let runtime = Runtime::current().ok_or_else(|| TokenError::new(TokenErrorKind::NoRuntime))?;
        let rejected = state.trouble.as_mut().is_some_and(|trouble| std::mem::take(&mut trouble.rejected));
        let after_rejection = after_rejection || rejected;
        let previous = self.current.load_full().or_else(|| state.trouble.as_ref()?.invalidated.clone());
        let held = state.refresh_token.held();
        let carried = held.filter(|_| !withheld);
        let request = TokenRequest {
            refresh_token: carried.map(|held| held.secret.clone()),
            refresh_answer_lost: state.refresh_token.maybe_spent(),
            refresh_number: held.map_or(0, |held| held.number),
            refresh_owner: held.map_or(RefreshOwner::Cell, |held| held.owner),
            asker: Asker { first: !state.tokens_seen, slow: state.last_timed_out() },
            previous_from_store: previous.as_ref().is_some_and(|former| former.from_store),
            previous: previous.map(|former| former.dated_token()),
            ..env.request(&self.partition.whole())
        };
        let id = RefreshId { number: state.refreshes.wrapping_add(1), family: state.refresh_token.family() };
        let owner = Box::new(RefreshOf { cell: self.clone(), env: env.clone(), id });
        let trigger = self.trigger(state, now, after_rejection);
        let span = TokenRequestSpan::new(&env.telemetry, trigger, request.tenant.as_ref(), now.monotonic);
        let (sender, waiters) = refresh::channel(runtime.id(), span.clone());
        let waiter = waiters.join(now);
        let refresh = Refresh {
            id,
            begun: false,
            started: now.monotonic,
            waiters,
            sender,
            sent: request.sent.clone(),
            after_rejection,
            carries: carried.map(HeldRefreshToken::digest),
            grace: None,
            watched: Vec::new(),
        };
        after.prepared = Some(refresh::prepare(runtime, env, request, *now, span, owner));
        state.refreshes = id.number;
        state.last_start = Some(now.monotonic);
        state.refresh = Some(Box::new(refresh));
        Ok(waiter)
    }

    /// Why a refresh begins now.
    fn trigger(&self, state: &State, now: &Now, after_rejection: bool) -> Trigger {
        match self.current.load().as_deref().map(|current| current.lifetime.freshness(now)) {
            _ if after_rejection => Trigger::Rejection,
            Some(Freshness::NearExpiry | Freshness::Expired) => Trigger::Expiry,
            Some(_) => Trigger::Renewal,
            None if state.tokens_seen => Trigger::Invalidation,
            None => Trigger::First,
        }
    }

    /// Clears `CHECK_CLOCK` and sees to it that it is set again in time. Without a runtime it stays set: every request then reads
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
        // The word first: a timer that goes off on the spot sets `CHECK_CLOCK` again.
        self.word.store(current.word() | known_invalid, Ordering::Release);
        let good_until = if self.partition.is_default() {
            env.coarse_clock.tick(now, delay.min(MAX_AGE));
            u64::MAX
        } else {
            // Coarse time may be that far behind. What a token past its refresh point waits for has no moment of its own.
            let is_fresh = current.lifetime.freshness(now) == Freshness::Fresh;
            let ahead = if is_fresh { delay.saturating_sub(MAX_AGE) } else { Duration::ZERO };
            let clock = &env.coarse_clock;
            let time = if clock.is_recent() { env.coarse_time(|| *now) } else { clock.tick_late(now) };
            time.saturating_add(millis(ahead))
        };
        self.good_until.store(good_until, Ordering::Relaxed);
    }

    /// Runs while nobody can have this cell's lock.
    #[cfg(test)]
    pub(super) fn while_locked<T>(&self, run: impl FnOnce() -> T) -> T {
        let _state = self.lock();
        run()
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

    fn carrier_mut(&mut self) -> Option<&mut Box<Carrier>> {
        self.trouble.as_mut()?.carrier.as_mut()
    }

    fn has_carrier(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.carrier.is_some())
    }

    fn take_carrier_if(&mut self, is: impl FnOnce(&Carrier, &RefreshTokenState) -> bool) -> Option<Box<Carrier>> {
        let refresh_token = &self.refresh_token;
        self.trouble.as_mut()?.carrier.take_if(|carrier| is(carrier, refresh_token))
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

    /// How many wait for the refresh in flight, the one that just joined included.
    fn waiter_count(&self) -> usize {
        self.refresh.as_ref().map_or(0, |refresh| refresh.waiters.count())
    }

    /// A token request failed: what becomes of the refresh token, and for how long nobody asks.
    fn refused(&mut self, env: &Env, failed: Failed, now: Now) -> TokenError {
        if failed.error.is_held_back() {
            return self.hold_back(env, failed.error, now);
        }
        let in_a_row = self.failures_in_a_row();
        let pause = env.policy.pause_after(&failed.error, in_a_row, env.draw());
        self.refused_for(failed, pause, now)
    }

    fn refused_for(&mut self, failed: Failed, pause: Option<Duration>, now: Now) -> TokenError {
        self.refresh_token.failed(&failed);
        self.fail_for(failed.error, pause, now)
    }

    /// Remembers a failure for as long as its class says.
    fn fail(&mut self, env: &Env, error: TokenError, now: Now) -> TokenError {
        let pause = env.policy.pause_after(&error, self.failures_in_a_row(), env.draw());
        self.fail_for(error, pause, now)
    }

    fn fail_for(&mut self, mut error: TokenError, pause: Option<Duration>, now: Now) -> TokenError {
        let in_a_row = self.failures_in_a_row();
        if let Some(pause) = pause {
            error = error.with_retry_after(pause);
        }
        let since = self.failure().map_or(now.monotonic, |failure| failure.since);
        let trouble = self.trouble();
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.last_error = Some(error.clone());
        trouble.failure = pause.map(|pause| Failure {
            error: error.clone(),
            since,
            until: later(now.monotonic, pause),
            in_a_row: in_a_row.saturating_add(1),
        });
        error
    }

    /// Nothing was sent, so that it is no failure of this partition's own: what it knows of those stays.
    fn hold_back(&mut self, env: &Env, error: TokenError, now: Now) -> TokenError {
        let in_a_row = self.failure().map_or(0, |failure| failure.in_a_row);
        let since = self.failure().map_or(now.monotonic, |failure| failure.since);
        let pause = env.policy.pause_after(&error, 0, 0.0);
        let trouble = self.trouble();
        trouble.last_error = Some(error.clone());
        if let Some(pause) = pause {
            let until = later(now.monotonic, pause);
            trouble.failure = Some(Failure { error: error.clone(), since, until, in_a_row });
        }
        error
    }

    fn failures_in_a_row(&self) -> u32 {
        self.failure().map_or(0, |failure| failure.in_a_row)
    }

    /// The pause after a failure that may pass.
    fn next_backoff(&self, env: &Env) -> Duration {
        env.policy.backoff.pause(self.failures_in_a_row(), env.draw())
    }

    /// Lets a refresh in flight end in vain; those who wait for it are to be told. While its answer may come (`None`: no more),
    /// it is remembered that the refresh token is with the server.
    fn supersede_refresh(&mut self, env: &Env, now: Option<&Now>) -> Option<Box<Refresh>> {
        self.known_invalid = false;
        let mut refresh = self.refresh.take()?;
        self.token_requests = self.token_requests.saturating_add(1);
        // One that has not begun never will.
        let carries = refresh.carries.filter(|carries| refresh.begun && self.refresh_token.is_held(carries));
        let Some(carries) = carries else { return Some(refresh) };
        let (sender, waiters) = refresh::channel(refresh.waiters.runtime(), refresh.waiters.span().clone());
        let (id, started) = (refresh.id, refresh.started);
        let carrier = Carrier { id, started, carries, waiters, sender, watched: std::mem::take(&mut refresh.watched) };
        if now.is_some_and(|now| !carrier.is_over(env, now)) {
            self.trouble().carrier = Some(Box::new(carrier));
        } else {
            self.refresh_token.unanswered(&carries);
        }
        Some(refresh)
    }
}

/// A refresh of a cell, as its task knows it.
struct RefreshOf {
    cell: Arc<Cell>,
    env: Arc<Env>,
    id: RefreshId,
}

impl refresh::Owner for RefreshOf {
    fn begin(&self, now: &Now) -> bool {
        self.cell.begin(self.id, now)
    }

    fn complete(self: Box<Self>, end: TaskEnd, asked: Now) {
        let Self { cell, env, id } = *self;
        cell.finish(&env, id, end, asked);
        drop(cell);
        env.coarse_clock.refresh_ended();
    }
}

/// A span that no clock can hold is cut to a year.
fn later(moment: Instant, span: Duration) -> Instant {
    moment.checked_add(span.min(YEAR)).unwrap_or(moment)
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
    over: Option<Box<Carrier>>,
    prepared: Option<PreparedRefresh>,
    watchdog: Option<Watchdog>,
}

/// A request that joins a refresh on another runtime than its own relies on that one being driven, and has a watchdog instead.
struct Watchdog {
    runtime: Runtime,
    cell: Weak<Cell>,
    env: Weak<Env>,
    id: RefreshId,
    delay: Duration,
    now: Now,
}

impl Afterwards {
    #[expect(clippy::too_many_arguments, reason = "the parts of a refresh or of what is left of one")]
    fn watch(
        &mut self,
        cell: &Arc<Cell>,
        env: &Arc<Env>,
        id: RefreshId,
        started: Instant,
        waiters: &Waiters,
        watched: &mut Vec<RuntimeId>,
        now: &Now,
    ) {
        let Some(runtime) = Runtime::current() else { return };
        if runtime.id() == waiters.runtime() || watched.contains(&runtime.id()) {
            return;
        }
        watched.push(runtime.id());
        let passed = now.monotonic.saturating_duration_since(started);
        // Found overdue: it has a second.
        let delay = env.overdue_after().checked_sub(passed).filter(|left| !left.is_zero()).unwrap_or(MIN_INTERVAL);
        let (cell, env) = (Arc::downgrade(cell), Arc::downgrade(env));
        self.watchdog = Some(Watchdog { runtime, cell, env, id, delay, now: *now });
    }

    /// By reference, since it is large and nearly always empty.
    fn run(&mut self) {
        if let Some(refresh) = self.superseded.take() {
            refresh.notify(RefreshResult::Superseded);
        }
        if let Some(carrier) = self.over.take() {
            carrier.sender.send(RefreshResult::Superseded);
        }
        if let Some(prepared) = self.prepared.take() {
            prepared.spawn();
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.spawn();
        }
    }
}

impl Watchdog {
    fn spawn(self) {
        let Self { runtime, cell, env, id, delay, now } = self;
        runtime.spawn(async move {
            rt::sleep(delay).await;
            if let (Some(cell), Some(env)) = (cell.upgrade(), env.upgrade()) {
                cell.watchdog(&env, id, now);
            }
        });
    }
}

#[cfg(test)]
mod tests;
