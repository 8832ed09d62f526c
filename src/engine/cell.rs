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
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    use futures_util::FutureExt;
    use tokio::sync::Notify;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::engine::coarse_clock::CoarseClock;
    use crate::engine::os_clock::OsClock;
    use crate::engine::{EnginePolicy, Table};
    use crate::test_util::TestClock;
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
            let mut env = Env::still(erase(self.clone()), SystemClock, policy);
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
        Token::bearer(text).unwrap().with_expires_in(Duration::from_secs(3600))
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
                let found = self.0.current.load_full().is_some() && self.0.lock().refresh.is_none();
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
        cell.new_epoch(table.env(), true);
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
        cell.new_epoch(table.env(), true);
        gate.let_one_land().await;
        assert!(matches!(superseded.await, RefreshResult::Superseded));
        assert!(cell.current.load_full().is_none());
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
                SameClient => cell.new_epoch(table.env(), true),
                AnotherClient => cell.new_epoch(table.env(), false),
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

    #[tokio::test(start_paused = true)]
    async fn a_newer_token_that_is_known_to_be_invalid_answers_no_rejection() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let [older, newer] = ["a", "b"].map(|text| {
            cell.hand_in(table.env(), token(text)).unwrap();
            ready(cell.read(table.env())).generation
        });
        let Rejection::Wait { waiter, starter: true } = cell.reject(table.env(), newer, true) else {
            panic!("no refresh")
        };
        let Rejection::Wait { waiter: joined, starter: false } = cell.reject(table.env(), older, false) else {
            panic!("not waited for the same refresh")
        };
        sleep(SECOND).await;
        gate.let_one_land().await;
        for waiter in [waiter, joined] {
            assert!(matches!(waiter.await, RefreshResult::New(current) if current.token.access_token() == "1"));
        }
        assert_eq!(gate.requests(), 1);
    }

    #[test]
    fn a_rejection_that_finds_an_overdue_refresh_starts_another() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        cell.hand_in(table.env(), token("a")).unwrap();
        let rejected = ready(cell.read(table.env())).generation;
        let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        {
            let _inside = parked.enter();
            assert!(matches!(cell.reject(table.env(), rejected, true), Rejection::Wait { starter: true, .. }));
        }
        let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        driven.block_on(async {
            sleep(table.env().policy.refresh_deadline + 2 * SECOND).await;
            let Rejection::Wait { waiter, starter: true } = cell.reject(table.env(), rejected, true) else {
                panic!("it relies on a runtime that nobody drives")
            };
            sleep(SECOND).await;
            gate.let_one_land().await;
            assert!(matches!(waiter.await, RefreshResult::New(_)));
        });
    }

    /// A table whose source answers its `n`th request, from 0, as `answer` says, after 100 ms; and the access tokens that it was
    /// told were there before.
    fn table_that_answers(
        answer: impl Fn(usize) -> Result<Token, TokenError> + Send + Sync + 'static,
    ) -> (Arc<Table>, Arc<Mutex<Vec<Option<String>>>>) {
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let source = tower::service_fn({
            let asked = asked.clone();
            move |request: TokenRequest| {
                let number = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(request.previous().map(|previous| previous.access_token().to_owned()));
                    asked.len() - 1
                };
                let answer = answer.clone();
                async move {
                    sleep(Duration::from_millis(100)).await;
                    answer(number)
                }
            }
        });
        let mut env = Env::still(erase(source), SystemClock, EnginePolicy::default());
        env.draw = Draw::always(0.5);
        (Table::new(env, None), asked)
    }

    /// A table whose first token was rejected and replaced just now, so that the limiter's first wait, of a second, runs; and
    /// the generations of both. Its source brings "0", then fails once with a pause of 300 ms, then brings "2", "3", …
    async fn in_a_wait() -> (Arc<Table>, [u64; 2]) {
        let (table, _) = table_that_answers(|number| match number {
            1 => Err(TokenError::transient("down").with_retry_after(Duration::from_millis(300))),
            number => Ok(token(&number.to_string())),
        });
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let old = ready(cell.read(env)).generation;
        let Rejection::Wait { waiter, starter: true } = cell.reject(env, old, false) else { panic!("no refresh") };
        assert!(matches!(waiter.await, RefreshResult::New(_)));
        let new = ready(cell.read(env)).generation;
        (table, [old, new])
    }

    /// Enough acceptances of a generation that a run of eight rejections is beyond chance.
    fn accept_many(cell: &Cell, generation: u64) {
        (0..20).for_each(|_| cell.accepted(generation));
    }

    /// Rejections of the current token that join a refresh are part of the run that shows a revocation: where that refresh
    /// fails, the next rejection refreshes, though the limiter's wait still runs.
    #[tokio::test(start_paused = true)]
    async fn rejections_that_join_a_refresh_count_for_the_run() {
        let (table, [_, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        accept_many(cell, current);
        // One that no rejection started.
        let refresh = wait(cell.read_newer(env, current));
        for _ in 0..7 {
            assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: false, .. }));
        }
        assert!(matches!(refresh.await, RefreshResult::Failed(_)));
        sleep(Duration::from_millis(400)).await;
        assert!(
            matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }),
            "the eighth in a row"
        );
    }

    /// Rejections of an older token say nothing of the current one: they do not count for its run.
    #[tokio::test(start_paused = true)]
    async fn rejections_of_an_older_token_do_not_count_for_the_run() {
        let (table, [old, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        accept_many(cell, current);
        let refresh = wait(cell.read_newer(env, current));
        // Known to be invalid, so that it answers none of the others.
        assert!(matches!(cell.reject(env, current, true), Rejection::Wait { starter: false, .. }));
        for _ in 0..10 {
            assert!(matches!(cell.reject(env, old, false), Rejection::Wait { starter: false, .. }));
        }
        assert!(matches!(refresh.await, RefreshResult::Failed(_)));
        sleep(Duration::from_millis(400)).await;
        assert!(
            matches!(cell.reject(env, current, false), Rejection::Suppressed),
            "the second in a row, not the twelfth"
        );
    }

    /// Acceptances of an older token do not show that the current one was ever accepted: without one, no run of rejections
    /// refreshes inside the limiter's wait.
    #[tokio::test(start_paused = true)]
    async fn acceptances_of_an_older_token_make_no_run_count() {
        let (table, [old, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        accept_many(cell, old);
        for _ in 0..20 {
            assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        }
    }

    /// A resend that is accepted with an older token than the current one proves nothing for the refresh: the limiter's wait
    /// goes on.
    #[tokio::test(start_paused = true)]
    async fn an_accepted_resend_of_an_older_token_does_not_end_the_wait() {
        let (table, [old, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        cell.resend_accepted(env, old);
        assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        cell.resend_accepted(env, current);
        assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }));
    }

    /// A new token begins a new run: rejections of the one before do not count for it.
    #[tokio::test(start_paused = true)]
    async fn a_new_token_ends_the_run_of_rejections() {
        let (table, [_, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        accept_many(cell, current);
        for _ in 0..7 {
            assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        }
        cell.hand_in(env, token("set")).unwrap();
        let current = ready(cell.read(env)).generation;
        assert!(
            matches!(cell.reject(env, current, false), Rejection::Suppressed),
            "the first in a row, not the eighth"
        );
    }

    /// An invalidation from outside forgets the limiter's wait: the next rejection refreshes.
    #[tokio::test(start_paused = true)]
    async fn an_invalidation_ends_the_wait_of_the_limiter() {
        let (table, [_, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        cell.invalidate();
        cell.hand_in(env, token("set")).unwrap();
        let current = ready(cell.read(env)).generation;
        assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }));
    }

    /// A refresh that no rejection started arms no wait: a token that is rejected after it is refreshed at once.
    #[tokio::test(start_paused = true)]
    async fn a_refresh_without_a_rejection_arms_no_wait() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        assert!(matches!(wait(cell.read(env)).await, RefreshResult::New(_)));
        let current = ready(cell.read(env)).generation;
        assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }));
    }

    /// An acceptance of the current token ends a run of rejections: what came before does not count for the next one.
    #[tokio::test(start_paused = true)]
    async fn an_acceptance_ends_the_run_of_rejections() {
        let (table, [_, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        (0..10).for_each(|_| accept_many(cell, current));
        for _ in 0..3 {
            for _ in 0..7 {
                assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
            }
            cell.accepted(current);
        }
    }

    /// A refresh after a rejection that fails arms no wait: when its pause is over, the next rejection tries again.
    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_after_a_rejection_arms_no_wait() {
        let (table, _) = table_that_answers(|number| match number {
            0 => Err(TokenError::transient("down").with_retry_after(Duration::from_millis(300))),
            number => Ok(token(&number.to_string())),
        });
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let old = ready(cell.read(env)).generation;
        let Rejection::Wait { waiter, starter: true } = cell.reject(env, old, false) else { panic!("no refresh") };
        assert!(matches!(waiter.await, RefreshResult::Failed(_)));
        sleep(Duration::from_millis(400)).await;
        assert!(matches!(cell.reject(env, old, false), Rejection::Wait { starter: true, .. }));
    }

    /// A token that is rejected where the cell has none starts a refresh, which arms no wait: the rejection said nothing of the
    /// token that the refresh brings.
    #[tokio::test(start_paused = true)]
    async fn a_refresh_for_an_older_token_arms_no_wait() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        let Rejection::Wait { waiter, starter: false } = cell.reject_token(env, &token("older")) else {
            panic!("no refresh, or one that proves something")
        };
        assert!(matches!(waiter.await, RefreshResult::New(_)));
        let current = ready(cell.read(env)).generation;
        assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }));
    }

    /// The limiter's wait holds for the current token only: a rejection of an older one, where the current one has expired,
    /// refreshes.
    #[tokio::test(start_paused = true)]
    async fn the_wait_of_the_limiter_does_not_hold_for_an_older_token() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string()).with_expires_in(SECOND)));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let old = ready(cell.read(env)).generation;
        // The first wait is of one second, the second one of two.
        for generation in [old, old + 1] {
            let Rejection::Wait { waiter, starter: true } = cell.reject(env, generation, false) else {
                panic!("no refresh")
            };
            assert!(matches!(waiter.await, RefreshResult::New(_)));
            sleep(SECOND + Duration::from_millis(1)).await;
        }
        assert!(matches!(cell.reject(env, old + 2, false), Rejection::Suppressed));
        assert!(matches!(cell.reject(env, old, false), Rejection::Wait { starter: false, .. }));
    }

    /// Where a rejection came outside of any runtime, the refresh that the next reader starts counts as one after a rejection:
    /// it arms the limiter's wait.
    #[test]
    fn a_rejection_without_a_runtime_arms_a_wait_with_the_next_refresh() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let rejected = cell.reject_token(env, &token("old"));
        assert!(matches!(rejected, Rejection::Failed(error) if error.kind() == TokenErrorKind::NoRuntime));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            assert!(matches!(wait(cell.read(env)).await, RefreshResult::New(_)));
            let current = ready(cell.read(env)).generation;
            assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        });
    }

    /// No renewal begins in the background once the program is about to end: the token is good still.
    #[tokio::test(start_paused = true)]
    async fn no_renewal_begins_while_closing() {
        let (table, asked) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        env.close();
        advance(Duration::from_secs(3000)).await;
        ready(cell.read(env));
        sleep(SECOND).await;
        assert_eq!(asked.lock().unwrap().len(), 0);
    }

    /// Renewals begin a second apart at least, though a failure's pause is shorter.
    #[tokio::test(start_paused = true)]
    async fn renewals_begin_a_second_apart() {
        let (table, asked) =
            table_that_answers(|_| Err(TokenError::transient("down").with_retry_after(Duration::from_millis(200))));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        advance(Duration::from_secs(3000)).await;
        for (after, requests) in [(400, 1), (500, 1), (200, 2)] {
            ready(cell.read(env));
            sleep(Duration::from_millis(after)).await;
            assert_eq!(asked.lock().unwrap().len(), 1);
            ready(cell.read(env));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(asked.lock().unwrap().len(), requests);
        }
    }

    /// Near its end a token has passed its margin, by our clocks; before, it has not.
    #[tokio::test(start_paused = true)]
    async fn a_token_near_its_end_is_past_its_margin() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let generation = ready(cell.read(env)).generation;
        for (seconds, is_past) in [(3500, false), (80, true), (20, true)] {
            advance(Duration::from_secs(seconds)).await;
            assert_eq!(cell.is_past_margin(env, generation), is_past);
        }
    }

    /// After an invalidation the cell's word is of another generation: a token that somebody holds still is not sent for it.
    #[tokio::test(start_paused = true)]
    async fn an_invalidation_begins_a_generation() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("old")).unwrap();
        let old = ready(cell.read(env));
        cell.invalidate();
        assert!(Current::generation_of(cell.word()) > old.generation);
    }

    /// A tenant's token is not sent once the coarse time is past the moment until which it was known to be good.
    #[tokio::test(start_paused = true)]
    async fn a_tenants_token_may_not_be_sent_after_its_moment() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let tenant = Partition { tenant: Some(crate::types::TenantId::new("t").unwrap()), ..Partition::default() };
        let (cell, env) = (table.cell(tenant), table.env());
        for cell in [&cell, table.default_cell()] {
            cell.hand_in(env, token("old")).unwrap();
        }
        ready(table.default_cell().read(env));
        let current = ready(cell.read(env));
        assert!(cell.may_send(env, &current));
        advance(Duration::from_secs(7200)).await;
        // Another cell's reader has read the clocks.
        drop(table.default_cell().read(env));
        table.env().coarse_clock.tick(&env.clock.now(), MAX_AGE);
        assert!(!cell.may_send(env, &current));
    }

    /// A cell stays that has a refresh under way, and one of which a refresh token is with the server, though a store keeps it.
    #[tokio::test(start_paused = true)]
    async fn a_cell_with_a_refresh_or_what_is_left_of_one_is_not_idle() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let (cell, env) = (table.default_cell(), table.env());
        let stored = token("stored").with_refresh_token(RefreshToken::Replace(Secret::from("r")));
        cell.set(env, stored, Some(1), RefreshOwner::Store { single_use: false }).unwrap();
        assert!(cell.is_idle());
        cell.invalidate();
        drop(wait(cell.read(env)));
        assert!(!cell.is_idle(), "a refresh");
        sleep(SECOND).await;
        cell.new_epoch(env, true);
        assert!(!cell.is_idle(), "its refresh token is with the server");
        gate.let_one_land().await;
        assert!(cell.is_idle());
        assert_eq!(cell.stats(env).token_requests, 1, "that of the superseded refresh");
    }

    /// A refresh token that is set is newer than the one before it.
    #[tokio::test(start_paused = true)]
    async fn a_refresh_token_that_is_set_has_the_next_number() {
        let table = Gate::new(true).table(EnginePolicy::default());
        let (cell, env) = (table.default_cell(), table.env());
        for number in 1..4 {
            let text = Secret::new(format!("set {number}"));
            cell.hand_in(env, token("t").with_refresh_token(RefreshToken::Replace(text))).unwrap();
            assert_eq!(cell.lock().refresh_token.held().map(|held| held.number), Some(number));
        }
    }

    /// The source is told who asks for the first time, and who timed out the last time.
    #[tokio::test(start_paused = true)]
    async fn the_source_is_told_who_is_new_and_who_is_slow() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let source = tower::service_fn({
            let asked = asked.clone();
            move |request: TokenRequest| {
                asked.lock().unwrap().push((request.asker.first, request.asker.slow));
                let number = asked.lock().unwrap().len();
                async move { if number == 1 { Err(TokenError::new(TokenErrorKind::Timeout)) } else { Ok(token("t")) } }
            }
        });
        let table = Table::new(Env::still(erase(source), SystemClock, EnginePolicy::default()), None);
        let (cell, env) = (table.default_cell(), table.env());
        for _ in 0..3 {
            let _ = wait(cell.read(env)).await;
            sleep(SECOND).await;
            // Not an invalidation, which forgets failures too.
            cell.current.store(None);
            cell.set_check_clock();
        }
        assert_eq!(*asked.lock().unwrap(), [(true, false), (true, true), (false, false)]);
    }

    /// What the bounds of the token endpoint hold back is neither a token request nor a failure in a row: the pauses grow with
    /// the failures alone, and it has been failing since the first of them.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_counts_for_nothing() {
        let (table, _) = table_that_answers(|number| match number {
            1 => Err(TokenError::transient("no turn").held_back().with_retry_after(SECOND)),
            _ => Err(TokenError::transient("down")),
        });
        let (cell, env) = (table.default_cell(), table.env());
        let mut since = Vec::new();
        for (pause, token_requests) in [(250, 1), (1000, 1), (500, 2)] {
            let RefreshResult::Failed(error) = wait(cell.read(env)).await else { panic!("it is down") };
            assert_eq!(error.retry_after(), Some(Duration::from_millis(pause)));
            assert_eq!(cell.stats(env).token_requests, token_requests);
            since.push(cell.failing(&env.clock.now()).unwrap().1);
            sleep(Duration::from_millis(pause)).await;
        }
        assert!(since.iter().all(|since_then| *since_then == since[0]));
    }

    /// Who asks for the token itself is told how much of its lifetime is left.
    #[tokio::test(start_paused = true)]
    async fn a_token_is_told_with_what_is_left_of_its_lifetime() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        table.default_cell().hand_in(table.env(), token("old")).unwrap();
        advance(Duration::from_secs(1000)).await;
        let told = table.token(Partition::default()).await.unwrap();
        assert_eq!(told.expires_in, Some(Duration::from_secs(2600)));
    }

    /// Each refresh that the limiter forbids is counted.
    #[tokio::test(start_paused = true)]
    async fn suppressed_refreshes_are_counted() {
        let (table, [_, current]) = in_a_wait().await;
        let (cell, env) = (table.default_cell(), table.env());
        for suppressed in 0..3 {
            assert_eq!((cell.stats(env).suppressed, cell.counts().2), (suppressed, suppressed));
            assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed));
        }
    }

    /// Each failure in a row makes the pause after it twice as long.
    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_each_failure_in_a_row() {
        let (table, _) = table_that_answers(|_| Err(TokenError::transient("down")));
        let (cell, env) = (table.default_cell(), table.env());
        for pause in [250, 500, 1000, 2000].map(Duration::from_millis) {
            let RefreshResult::Failed(error) = wait(cell.read(env)).await else { panic!("it is down") };
            assert_eq!(error.retry_after(), Some(pause));
            sleep(pause).await;
        }
    }

    /// The same token again, after its end, has a new end like a new one, and is renewed before it. Before its end it has that one
    /// still, and nobody asks again until then: the server would only hand it out once more.
    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_served_again_has_a_new_end_only_if_it_had_ended() {
        for (age, later, requests) in [(3601, 3000, 2), (3000, 590, 1)] {
            let (table, asked) = table_that_answers(|_| Ok(token("same")));
            let (cell, env) = (table.default_cell(), table.env());
            cell.hand_in(env, token("same")).unwrap();
            advance(Duration::from_secs(age)).await;
            drop(cell.read(env));
            sleep(SECOND).await;
            assert_eq!(asked.lock().unwrap().len(), 1);
            assert_eq!(ready(cell.read(env)).generation, 1);
            advance(Duration::from_secs(later)).await;
            ready(cell.read(env));
            sleep(SECOND).await;
            assert_eq!(asked.lock().unwrap().len(), requests);
        }
    }

    /// The source is told which token is to be replaced, though that was invalidated and is not used any more.
    #[tokio::test(start_paused = true)]
    async fn the_source_is_told_of_the_token_before_an_invalidation() {
        let (table, asked) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        let _ = wait(cell.read(env)).await;
        cell.invalidate();
        let _ = wait(cell.read(env)).await;
        assert_eq!(*asked.lock().unwrap(), [None, Some("0".to_owned())]);
    }

    /// A refresh that was superseded before it began never will, and has sent nothing: nobody waits for it.
    #[tokio::test(start_paused = true)]
    async fn a_superseded_refresh_that_has_not_begun_is_not_waited_for() {
        let gate = Gate::new(true);
        let table = gate.table(EnginePolicy::default());
        let (cell, env) = (table.default_cell(), table.env());
        let first = wait(cell.read(env));
        cell.new_epoch(env, true);
        let second = wait(cell.read(env));
        sleep(SECOND).await;
        gate.let_one_land().await;
        assert!(matches!(first.await, RefreshResult::Superseded));
        assert!(matches!(second.await, RefreshResult::New(_)));
        assert_eq!(*gate.0.asked.lock().unwrap(), [Some("r0".to_owned())]);
    }

    /// What was superseded on a runtime that nobody drives is over when its deadline is: the refresh token may be spent, and is
    /// sent once more.
    #[test]
    fn what_is_left_of_a_refresh_is_over_with_its_deadline() {
        for is_watched in [false, true] {
            let gate = Gate::new(true);
            let table = gate.table(EnginePolicy::default());
            let (cell, env) = (table.default_cell(), table.env());
            let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            parked.block_on(async {
                drop(wait(cell.read(env)));
                while gate.requests() == 0 {
                    tokio::task::yield_now().await;
                }
            });
            let driven =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            driven.block_on(async {
                cell.new_epoch(env, true);
                if is_watched {
                    // Who waits for it has a watchdog, which ends it.
                    assert!(matches!(wait(cell.read(env)).await, RefreshResult::Superseded));
                    assert!(cell.lock().refresh_token.maybe_spent());
                } else {
                    sleep(env.policy.refresh_deadline + SECOND).await;
                }
                let next = wait(cell.read(env));
                sleep(SECOND).await;
                assert_eq!(gate.requests(), 2);
                gate.let_one_land().await;
                gate.let_one_land().await;
                assert!(matches!(next.await, RefreshResult::New(_)));
            });
        }
    }

    /// Without a store's token the first one that the source brings is spread widely, since whoever had the store's renews at the
    /// same time.
    #[tokio::test(start_paused = true)]
    async fn the_first_token_after_a_stores_is_spread_like_the_first_of_a_process() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        cell.set(env, token("stored"), Some(1), RefreshOwner::Store { single_use: false }).unwrap();
        for renewed_after in [2070, 2790] {
            advance(Duration::from_secs(3601)).await;
            let RefreshResult::New(current) = wait(cell.read(env)).await else { panic!("no token") };
            assert_eq!(
                current.lifetime.next_boundary(&current.lifetime.arrived()).unwrap().as_secs(),
                renewed_after - 1
            );
        }
    }

    /// A token that a store has is as old as it says itself.
    #[tokio::test(start_paused = true)]
    async fn a_stored_token_counts_from_when_it_was_asked_for() {
        let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
        let (cell, env) = (table.default_cell(), table.env());
        let mut stored = token("stored");
        stored.asked_at = Some(env.clock.now().wall - Duration::from_secs(1000));
        cell.hand_in(env, stored).unwrap();
        let current = ready(cell.read(env));
        assert!(current.lifetime.left(&current.lifetime.arrived()).unwrap() <= Duration::from_secs(2600));
    }

    /// A refresh whose task is first driven some time after it was prepared was asked for, and began, then: its token's lifetime
    /// and its own deadline count from that moment.
    #[test]
    fn a_refresh_that_is_driven_late_began_late() {
        let (gate, clock) = (Gate::new(false), TestClock::new());
        let table = Table::new(Env::still(erase(gate.clone()), clock.clone(), EnginePolicy::default()), None);
        let (cell, env) = (table.default_cell(), table.env());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let waiter = {
            let _inside = runtime.enter();
            wait(cell.read(env))
        };
        clock.advance(Duration::from_secs(25));
        runtime.block_on(async {
            while gate.requests() == 0 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_secs(10));
            let joined = wait(cell.read(env));
            gate.let_one_land().await;
            let RefreshResult::New(current) = waiter.await else { panic!("no token") };
            let left = current.lifetime.left(&current.lifetime.arrived()).unwrap();
            assert_eq!(left.as_secs_f64().round(), 3590.0);
            assert!(matches!(joined.await, RefreshResult::New(_)));
            assert_eq!(gate.requests(), 1);
        });
    }

    /// A refresh that is found overdue has a second more, in which its answer may come, and no longer.
    #[tokio::test(start_paused = true)]
    async fn an_overdue_refresh_is_waited_for_a_second_longer() {
        let (gate, clock) = (Gate::new(true), TestClock::new());
        let env = Env::still(erase(gate.clone()), clock.clone(), EnginePolicy::default());
        let table = Table::new(env, Some(Secret::from("r0")));
        let (cell, env) = (table.default_cell(), table.env());
        drop(wait(cell.read(env)));
        for (seconds, requests) in [(0, 1), (40, 1), (2, 2)] {
            clock.advance(Duration::from_secs(seconds));
            drop(wait(cell.read(env)));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(gate.requests(), requests);
        }
    }

    /// Who waits on another runtime than the refresh's has a watchdog, one for each runtime, which ends a refresh that nobody
    /// drives when its deadline is past, not before. A refresh token that was sent may be spent then.
    #[test]
    fn a_watchdog_ends_a_refresh_that_nobody_drives() {
        for is_begun in [false, true] {
            let gate = Gate::new(true);
            let table = gate.table(EnginePolicy::default());
            let (cell, env) = (table.default_cell(), table.env());
            let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            if is_begun {
                parked.block_on(async {
                    drop(wait(cell.read(env)));
                    while gate.requests() == 0 {
                        tokio::task::yield_now().await;
                    }
                });
            } else {
                let _inside = parked.enter();
                drop(wait(cell.read(env)));
            }
            let driven =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            driven.block_on(async {
                let [mut first, second] = [(); 2].map(|()| wait(cell.read(env)));
                assert_eq!(cell.lock().refresh.as_ref().unwrap().watched.len(), 1);
                sleep(20 * SECOND).await;
                assert!((&mut first).now_or_never().is_none());
                for waiter in [first, second] {
                    assert!(matches!(waiter.await, RefreshResult::Failed(_)));
                }
                assert_eq!(cell.lock().refresh_token.maybe_spent(), is_begun);
            });
        }
    }

    /// A refresh begins on a runtime that nobody drives, and another one takes its place. Returns the first one's runtime.
    fn overtaken(gate: &Gate) -> tokio::runtime::Runtime {
        let table = gate.table(EnginePolicy::default());
        let cell = table.default_cell();
        let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stuck = {
            let _inside = parked.enter();
            wait(cell.read(table.env()))
        };
        let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        driven.block_on(async {
            sleep(table.env().policy.refresh_deadline + 2 * SECOND).await;
            let second = wait(cell.read(table.env()));
            assert!(matches!(stuck.await, RefreshResult::Superseded));
            gate.let_one_land().await;
            assert!(matches!(second.await, RefreshResult::New(_)));
        });
        parked
    }

    /// Behaviour 23.
    #[test]
    fn a_refresh_on_a_runtime_that_nobody_drives_is_overtaken() {
        drop(overtaken(&Gate::new(false)));
    }

    /// Behaviour 124.
    #[test]
    fn a_task_that_is_driven_too_late_sends_nothing() {
        let gate = Gate::new(true);
        overtaken(&gate).block_on(async { tokio::task::yield_now().await });
        assert_eq!(*gate.0.asked.lock().unwrap(), [Some("r0".to_owned())], "what another refresh has sent meanwhile");
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
        let expired = Token::bearer("c").unwrap().with_expires_at(std::time::UNIX_EPOCH);
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
        // Nobody asks, nothing ticks; and the next request finds the token as old as it is.
        advance(Duration::from_secs(7200)).await;
        assert_eq!(gate.requests(), 0);
        drop(wait(cell.read(table.env())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_background_refresh_is_noticed_when_its_pause_ends() {
        let source = tower::service_fn(|_: TokenRequest| async {
            Err::<Token, _>(TokenError::transient("down").with_retry_after(Duration::from_millis(300)))
        });
        let env = Env::still(erase(source), SystemClock, EnginePolicy::default());
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
        let mut env = Env::still(erase(source), SystemClock, EnginePolicy::default());
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

    /// Behaviour 174.
    #[tokio::test(start_paused = true)]
    async fn a_rejected_request_waits_out_a_short_rest_of_a_pause_and_no_other() {
        const MS: Duration = Duration::from_millis(1);
        let short: fn() -> TokenError = || TokenError::transient("down").with_retry_after(800 * MS);
        let long: fn() -> TokenError = || TokenError::transient("down").with_retry_after(1001 * MS);
        let lasting: fn() -> TokenError = || TokenError::permanent("no").with_retry_after(800 * MS);
        for (failure, is_waited_out) in [(short, true), (long, false), (lasting, false)] {
            let asked = AtomicUsize::new(0);
            let source = tower::service_fn({
                let asked = Arc::new(asked);
                move |_: TokenRequest| {
                    let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
                    async move { if first { Err(failure()) } else { Ok(token("new")) } }
                }
            });
            let table = Table::new(Env::still(erase(source), SystemClock, EnginePolicy::default()), None);
            let (cell, env) = (table.default_cell(), table.env());
            cell.hand_in(env, token("old")).unwrap();
            let old = ready(cell.read(env));
            let Rejection::Wait { waiter, .. } = cell.reject(env, old.generation, true) else { panic!("no refresh") };
            assert!(matches!(waiter.await, RefreshResult::Failed(_)));
            match cell.reject(env, old.generation, true) {
                Rejection::Wait { waiter, starter: false } if is_waited_out => {
                    let start = tokio::time::Instant::now();
                    assert!(matches!(waiter.await, RefreshResult::Superseded), "look again");
                    assert!(start.elapsed() >= 800 * MS);
                    // Never with the rejected one, though it is current and alive.
                    let newer = wait(cell.read_newer(env, old.generation)).await;
                    assert!(matches!(newer, RefreshResult::New(new) if new.token.access_token() == "new"));
                }
                Rejection::Failed(_) if !is_waited_out => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Behaviour 144.
    #[tokio::test(start_paused = true)]
    async fn fifty_holders_who_tell_of_one_rejected_token_make_one_request() {
        let gate = Gate::new(false);
        let table = gate.table(EnginePolicy::default());
        let (cell, env) = (table.default_cell(), table.env());
        cell.hand_in(env, token("revoked")).unwrap();
        let revoked = ready(cell.read(env)).token.clone();
        for _ in 0..25 {
            assert!(matches!(cell.reject_token(env, &revoked), Rejection::Wait { .. }));
        }
        sleep(SECOND).await;
        gate.let_one_land().await;
        for _ in 0..25 {
            let told = cell.reject_token(env, &revoked);
            assert!(matches!(told, Rejection::Newer(newer) if newer.token.access_token() == "1"));
        }
        assert_eq!(gate.requests(), 1);
    }

    /// Behaviour 129.
    #[test]
    fn a_clock_that_was_not_read_for_a_second_is_read_whoever_drives_the_timer() {
        let (os, clock) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), TestClock::new());
        let source = erase(tower::service_fn(|_: TokenRequest| async { Ok::<_, TokenError>(token("new")) }));
        let mut env = Env::new(source, Arc::new(clock.clone()), EnginePolicy::default(), None);
        env.coarse_clock = CoarseClock::new(OsClock::Set(os.clone()));
        let table = Table::new(env, None);
        let parked = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _inside = parked.enter();
        let tenant = Partition { tenant: Some(crate::types::TenantId::new("t").unwrap()), ..Partition::default() };
        for cell in [table.default_cell().clone(), table.cell(tenant)] {
            cell.hand_in(table.env(), token("old")).unwrap();
            ready(cell.read(table.env()));
            assert!(cell.ready(table.env()).is_some());
            clock.advance(Duration::from_secs(7200));
            assert!(cell.ready(table.env()).is_some(), "nobody has said that time has passed");
            os.fetch_add(1_000_000_001, Ordering::Relaxed);
            assert!(cell.ready(table.env()).is_none());
            assert!(matches!(cell.read(table.env()), Read::Wait { fallback: None, .. }), "it has expired");
        }
    }

    /// Behaviour 130.
    #[test]
    fn a_look_for_one_partition_hides_from_no_other_that_time_has_passed() {
        let (os, clock) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), TestClock::new());
        let source = erase(tower::service_fn(|_: TokenRequest| async { Ok::<_, TokenError>(token("new")) }));
        let mut env = Env::new(source, Arc::new(clock.clone()), EnginePolicy::default(), None);
        env.coarse_clock = CoarseClock::new(OsClock::Set(os.clone()));
        let table = Table::new(env, None);
        let parked = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _inside = parked.enter();
        let tenant = |id| Partition { tenant: Some(crate::types::TenantId::new(id).unwrap()), ..Partition::default() };
        let cells = [table.cell(tenant("a")), table.default_cell().clone(), table.cell(tenant("b"))];
        for cell in &cells {
            cell.hand_in(table.env(), token("old")).unwrap();
            ready(cell.read(table.env()));
        }
        clock.advance(Duration::from_secs(7200));
        os.fetch_add(2_000_000_000, Ordering::Relaxed);
        for cell in &cells {
            assert!(cell.ready(table.env()).is_none());
            assert!(matches!(cell.read(table.env()), Read::Wait { fallback: None, .. }), "it has expired");
        }
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
