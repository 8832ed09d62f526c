//! What the partitions of one token endpoint share: how many token requests there are at a time, and whether it is down.
//!
//! The decisions are made in [`permits`], [`breaker`] and [`first_requests`], which know neither time nor tasks. Here they
//! are put under one lock for each endpoint, and waited for. All belongs to an *endpoint*, not to the layer, so that the
//! failing authority of one tenant touches no tenant of another.
//!
//! It lies directly around what asks the endpoint: a token that a store has needs no permit, and a token request that
//! is held back here was not sent.

mod breaker;
mod first_requests;
mod permits;
mod source;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::breaker::{Breaker, Probe};
use self::first_requests::FirstRequests;
use self::permits::{PermitNumber, Permits, Place};
pub(crate) use self::source::{Limited, LimitsSlot};
use super::env::EnginePolicy;
use super::rt;
use crate::token::{Asker, TokenRequest};
use crate::types::{Clock, Draw, TokenError, TokenErrorKind};

/// The bounds of all token endpoints of a layer.
pub(crate) struct EndpointLimits {
    env: Arc<Env>,
    /// The one that the configuration names.
    configured: Arc<Endpoint>,
    /// Those of tenants that have their own, while there is something to know of them.
    others: Mutex<HashMap<Arc<str>, Arc<Endpoint>>>,
    origins: RandomState,
}

struct Env {
    policy: EnginePolicy,
    clock: Arc<dyn Clock>,
    /// What it said last.
    last: Mutex<Option<Instant>>,
    draw: Draw,
    /// One for the layer: invented tenants could name any endpoint.
    first_requests: Mutex<FirstRequests>,
}

/// One token endpoint.
struct Endpoint {
    env: Arc<Env>,
    state: Mutex<State>,
}

struct State {
    permits: Permits<Waiter>,
    outage: Breaker,
    credentials: Credentials,
    /// Those that tenants of a directory have of their own, while they are refused.
    refused: HashMap<[u8; 32], Breaker>,
}

/// What is known of the credentials that all partitions of an endpoint have today.
struct Credentials {
    refused: Breaker,
    /// They brought a token before.
    worked: bool,
    /// Grows when they are replaced: what is said of older ones is of no interest.
    epoch: u64,
}

struct Waiter {
    attempt: Attempt,
    deadline: Option<rt::Instant>,
    sender: oneshot::Sender<Granted>,
}

type Granted = Result<Permit, Refused>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    /// As failures are counted: the tenant, with whatever scopes; without one, scopes and parameters. A digest.
    origin: u64,
    /// The partition never had a token.
    first: bool,
    /// Its last request timed out.
    slow: bool,
    /// What it authenticates with, where that is not what the configuration says.
    credentials: Option<[u8; 32]>,
}

/// Why a token request is not sent.
#[derive(Clone)]
enum Refused {
    /// The endpoint is down, or the credentials are refused: the error that others were told, and for how long.
    Shared(TokenError, Duration),
    /// Too many partitions that never had a token ask for one: when there may be room.
    TooManyFirst(Duration),
}

/// The right to one token request. Dropping it gives it back, whatever became of the request.
#[must_use]
struct Permit {
    endpoint: Arc<Endpoint>,
    admitted: Admitted,
    /// When the engine gives the request up, which looks like any drop from here.
    deadline: Option<rt::Instant>,
    done: bool,
}

#[derive(Clone, Copy)]
struct Admitted {
    attempt: Attempt,
    number: PermitNumber,
    outage_probe: Option<Probe>,
    credentials_probe: Option<Probe>,
    epoch: u64,
}

/// What the end of a token request says.
enum Outcome {
    Token,
    /// Nobody was there, or could not serve.
    Unavailable(TokenError),
    /// The credentials were refused, by a server that is there.
    BadCredentials(TokenError),
    /// Another refusal, by a server that is there.
    Refused,
    /// It was sent, and what came back says nothing of the server.
    Unclear,
    /// It was not sent, or nobody knows.
    Unknown,
}

/// Of so many credentials of one endpoint it is remembered that they were refused; beyond it each finds out anew.
const MOST_REFUSED: usize = 10_000;

impl EndpointLimits {
    pub(crate) fn new(policy: EnginePolicy, clock: Arc<dyn Clock>) -> Self {
        // What is under way has drawn too.
        let room = policy.max_partitions.max(policy.max_concurrent_token_requests);
        let first_requests = Mutex::new(FirstRequests::new(room));
        let env = Arc::new(Env { policy, clock, last: Mutex::default(), draw: Draw::default(), first_requests });
        let configured = Endpoint::new(env.clone());
        Self { env, configured, others: Mutex::default(), origins: RandomState::new() }
    }

    /// The client's credentials were replaced: what was said of the old ones is forgotten.
    pub(crate) fn credentials_replaced(&self) {
        self.all().iter().for_each(|endpoint| {
            let mut state = endpoint.lock();
            let refused = Breaker::new(endpoint.env.policy.longest_refresh());
            let epoch = state.credentials.epoch.wrapping_add(1);
            state.credentials = Credentials { refused, worked: false, epoch };
        });
    }

    /// Ends every pause: the next request finds out.
    pub(crate) fn probe_now(&self) {
        let now = self.env.now();
        self.all().iter().for_each(|endpoint| {
            let mut state = endpoint.lock();
            state.outage.probe_now(now);
            state.credentials.refused.probe_now(now);
            state.refused.values_mut().for_each(|refused| refused.probe_now(now));
        });
    }

    /// Makes a token request when it may be made.
    ///
    /// # Errors
    /// Those of the request; the one that others were told, while the endpoint is taken to be down; `Overloaded` if there
    /// was no permit in time. What was not sent says so ([`TokenError::held_back`]).
    pub(crate) async fn ask<T>(
        &self,
        request: Box<TokenRequest>,
        fetch: impl AsyncFnOnce(Box<TokenRequest>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let name = request.endpoint.as_ref().map(|endpoint| endpoint.server.clone());
        let endpoint = self.endpoint(name.as_ref());
        let deadline = request.context.as_ref().map(|context| context.deadline);
        if let Some(context) = &request.context {
            // Nothing so far.
            context.report.begin();
        }
        let granted = endpoint.clone().permit(self.attempt(&request), deadline).await;
        let result = match granted {
            Ok(permit) => {
                request.sent.store(true, Ordering::Relaxed);
                if let Some(context) = &request.context {
                    context.report.passed_on();
                }
                let result = fetch(request).await;
                permit.end(Outcome::of(result.as_ref().err()));
                result
            }
            Err(error) => Err(error),
        };
        drop(endpoint);
        if let Some(name) = name {
            self.forget(&name);
        }
        result
    }

    /// Looks up what a token request needs. Who asks may be invented, and then draws from the bucket of first requests as the
    /// token request will, which has not begun: what is found gives back what was drawn.
    pub(crate) async fn look<T>(
        &self,
        asker: Asker,
        look: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        if !asker.first {
            return look.await;
        }
        let now = self.env.now();
        let drawn = self.env.first_requests().draw(now);
        drawn.map_err(|pause| Refused::TooManyFirst(pause).told())?;
        let found = look.await;
        if found.is_ok() {
            self.env.first_requests().give_back();
        }
        found
    }

    fn attempt(&self, request: &TokenRequest) -> Attempt {
        let origin = match &request.tenant {
            Some(tenant) => self.origins.hash_one(tenant.as_str()),
            None => self.origins.hash_one((&request.scopes, &request.params)),
        };
        let Asker { first, slow } = request.asker;
        let credentials = request.endpoint.as_ref().map(|endpoint| endpoint.credentials);
        Attempt { origin, first, slow, credentials }
    }

    fn endpoint(&self, name: Option<&Arc<str>>) -> Arc<Endpoint> {
        let Some(name) = name else { return self.configured.clone() };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.entry(name.clone()).or_insert_with(|| Endpoint::new(self.env.clone())).clone()
    }

    /// An endpoint of which nothing is known any more takes no memory.
    fn forget(&self, name: &Arc<str>) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's is the only reference, and nobody gets another while the map is locked.
        if others.get(name).is_some_and(|endpoint| Arc::strong_count(endpoint) == 1 && endpoint.lock().is_idle()) {
            others.remove(name);
        }
    }

    fn all(&self) -> Vec<Arc<Endpoint>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.values().chain([&self.configured]).cloned().collect()
    }
}

impl Env {
    /// The time, or what it was last if the clock panics: those who wait for a token must not be left without for it.
    fn now(&self) -> Instant {
        let read = catch_unwind(AssertUnwindSafe(|| self.clock.now().monotonic)).ok();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = read.or(*last);
        last.unwrap_or_else(Instant::now)
    }

    /// How long nobody asks after such a failure.
    fn pause(&self, error: &TokenError, in_a_row: u32) -> Duration {
        self.policy.pause_after(error, in_a_row, self.draw.uniform()).unwrap_or_default()
    }

    fn first_requests(&self) -> MutexGuard<'_, FirstRequests> {
        self.first_requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    /// How many of those who wait are told at once that they wait in vain, so that the lock is held briefly.
    const BATCH: usize = 64;

    fn new(env: Arc<Env>) -> Arc<Self> {
        let longest = env.policy.longest_refresh();
        let state = State {
            permits: Permits::new(env.policy.max_concurrent_token_requests, longest),
            outage: Breaker::new(longest),
            credentials: Credentials { refused: Breaker::new(longest), worked: false, epoch: 0 },
            refused: HashMap::new(),
        };
        Arc::new(Self { env, state: Mutex::new(state) })
    }

    async fn permit(self: Arc<Self>, attempt: Attempt, deadline: Option<rt::Instant>) -> Result<Permit, TokenError> {
        let waiting = match self.permit_or_place(attempt, deadline) {
            Ok(granted) => return granted.map_err(Refused::told),
            Err(waiting) => waiting,
        };
        // What is left of the deadline is for the request itself.
        let longest =
            self.env.policy.permit_timeout.min(self.env.policy.refresh_deadline.checked_div(2).unwrap_or_default());
        waiting.granted(longest).await
    }

    /// A permit or a refusal if there is one now, a place in the queue otherwise.
    fn permit_or_place(self: &Arc<Self>, attempt: Attempt, deadline: Option<rt::Instant>) -> Result<Granted, Waiting> {
        let now = self.env.now();
        let mut state = self.lock();
        if let Some(refused) = state.refusal(attempt, now) {
            return Ok(Err(refused));
        }
        match state.permits.take(attempt.slow, now) {
            Some(number) => Ok(self.grant(&mut state, number, attempt, deadline, now)),
            None => {
                let (sender, receiver) = oneshot::channel();
                let place = state.permits.wait(attempt.slow, Waiter { attempt, deadline, sender });
                drop(state);
                Err(Waiting { endpoint: self.clone(), attempt, place, receiver })
            }
        }
    }

    /// What becomes of a permit that is free for this attempt.
    fn grant(
        self: &Arc<Self>,
        state: &mut State,
        number: PermitNumber,
        attempt: Attempt,
        deadline: Option<rt::Instant>,
        now: Instant,
    ) -> Granted {
        let refused = state.refusal(attempt, now).or_else(|| {
            let drawn = if attempt.first { self.env.first_requests().draw(now) } else { Ok(()) };
            drawn.err().map(Refused::TooManyFirst)
        });
        if let Some(refused) = refused {
            state.permits.give_back(number);
            return Err(refused);
        }
        let admitted = Admitted {
            attempt,
            number,
            outage_probe: state.outage.sent(attempt, now),
            credentials_probe: state.refused_mut(attempt).and_then(|refused| refused.sent(attempt, now)),
            epoch: state.credentials.epoch,
        };
        Ok(Permit { endpoint: self.clone(), admitted, deadline, done: false })
    }

    /// Gives permits that are free to those who wait, in order.
    fn serve(self: &Arc<Self>) {
        loop {
            let now = self.env.now();
            let mut served = Vec::new();
            let mut state = self.lock();
            while served.len() < Self::BATCH
                && let Some((number, Waiter { attempt, deadline, sender })) = state.permits.next(now)
            {
                served.push((sender, self.grant(&mut state, number, attempt, deadline, now)));
            }
            drop(state);
            let all = served.len() < Self::BATCH;
            // Waking may run foreign code, so the lock is not held. A task that has left meanwhile gives the permit back.
            let mut returned = 0_usize;
            for (sender, granted) in served {
                if let Err(Ok(permit)) = sender.send(granted) {
                    returned = returned.saturating_add(1);
                    permit.give_back(Outcome::Unknown);
                }
            }
            if all && returned == 0 {
                return;
            }
        }
    }

    fn ended(&self, admitted: Admitted, outcome: Outcome) {
        let now = self.env.now();
        let Admitted { attempt, number, outage_probe, credentials_probe, epoch } = admitted;
        if attempt.first && matches!(outcome, Outcome::Token | Outcome::Unknown) {
            self.env.first_requests().give_back();
        }
        let mut state = self.lock();
        state.permits.give_back(number);
        let pause = |error: &TokenError| {
            let error = error.clone();
            move |in_a_row| self.env.pause(&error, in_a_row)
        };
        match &outcome {
            Outcome::Token | Outcome::Refused | Outcome::BadCredentials(_) => state.outage.succeeded(),
            Outcome::Unavailable(error) => {
                state.outage.failed(attempt, outage_probe, error.clone(), now, pause(error));
            }
            Outcome::Unclear => {
                let error = TokenError::new(TokenErrorKind::Malformed);
                state.outage.nothing_learned(outage_probe, now, pause(&error));
            }
            Outcome::Unknown => state.outage.nothing_learned(outage_probe, now, |_| Duration::ZERO),
        }
        if let Some(key) = attempt.credentials {
            match (&outcome, state.refused.get_mut(&key)) {
                (Outcome::Token, _) => drop(state.refused.remove(&key)),
                (Outcome::BadCredentials(error), _) => {
                    if state.refused.len() >= MOST_REFUSED {
                        state.refused.clear();
                    }
                    let new = || Breaker::new(self.env.policy.longest_refresh());
                    let refused = state.refused.entry(key).or_insert_with(new);
                    refused.failed(attempt, credentials_probe, error.clone(), now, pause(error));
                }
                (_, Some(refused)) => refused.nothing_learned(credentials_probe, now, |_| Duration::ZERO),
                (_, None) => {}
            }
            return;
        }
        let credentials = &mut state.credentials;
        if credentials.epoch != epoch {
            return;
        }
        match &outcome {
            Outcome::Token => {
                credentials.worked = true;
                credentials.refused.succeeded();
            }
            // Of credentials that have worked it says less than of a tenant that may be invented.
            Outcome::BadCredentials(_) if credentials.worked && attempt.first => {}
            Outcome::BadCredentials(error) => {
                credentials.refused.failed(attempt, credentials_probe, error.clone(), now, pause(error));
            }
            _ => credentials.refused.nothing_learned(credentials_probe, now, |_| Duration::ZERO),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refusal(&self, attempt: Attempt, now: Instant) -> Option<Refused> {
        let refused = || {
            let refused = match attempt.credentials {
                Some(key) => self.refused.get(&key)?,
                None => &self.credentials.refused,
            };
            refused.refusal(attempt, now)
        };
        let (error, pause) = self.outage.refusal(attempt, now).or_else(refused)?;
        Some(Refused::Shared(error.clone(), pause))
    }

    /// What is known to be refused of what it authenticates with.
    fn refused_mut(&mut self, attempt: Attempt) -> Option<&mut Breaker> {
        match attempt.credentials {
            Some(key) => self.refused.get_mut(&key),
            None => Some(&mut self.credentials.refused),
        }
    }

    fn is_idle(&self) -> bool {
        self.permits.is_idle() && self.outage.is_idle() && self.credentials.refused.is_idle() && self.refused.is_empty()
    }
}

/// A place in the queue; dropping it leaves.
struct Waiting {
    endpoint: Arc<Endpoint>,
    attempt: Attempt,
    place: Place,
    receiver: oneshot::Receiver<Granted>,
}

impl Waiting {
    async fn granted(mut self, longest: Duration) -> Result<Permit, TokenError> {
        if let Ok(Ok(granted)) = rt::timeout(longest, &mut self.receiver).await {
            return granted.map_err(Refused::told);
        }
        // A task that waits behind one that does not come back sees to it.
        self.endpoint.serve();
        if let Ok(granted) = self.receiver.try_recv() {
            return granted.map_err(Refused::told);
        }
        let now = self.endpoint.env.now();
        let refused = self.endpoint.lock().refusal(self.attempt, now);
        Err(refused.map_or_else(
            || {
                let error = TokenError::new(TokenErrorKind::Overloaded).held_back();
                error.with_detail("its turn among the token requests did not come in time")
            },
            Refused::told,
        ))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.endpoint.lock().permits.give_up(self.place);
    }
}

impl Permit {
    fn end(self, outcome: Outcome) {
        let endpoint = self.endpoint.clone();
        self.give_back(outcome);
        endpoint.serve();
    }

    /// Without serving those who wait.
    fn give_back(mut self, outcome: Outcome) {
        self.done = true;
        self.endpoint.ended(self.admitted, outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.done {
            let in_vain = self.deadline.is_some_and(|deadline| rt::Instant::now() >= deadline);
            let timeout = || Outcome::Unavailable(TokenError::new(TokenErrorKind::Timeout));
            self.endpoint.ended(self.admitted, if in_vain { timeout() } else { Outcome::Unknown });
            self.endpoint.serve();
        }
    }
}

impl Refused {
    fn told(self) -> TokenError {
        match self {
            // A probe is out: its end may be near.
            Self::Shared(error, pause) => error.for_others(pause.max(Duration::from_millis(100))),
            Self::TooManyFirst(pause) => TokenError::new(TokenErrorKind::Overloaded)
                .with_retry_after(pause)
                .held_back()
                .with_detail("too many tenants that never had a token were refused one just now"),
        }
    }
}

impl Outcome {
    fn of(error: Option<&TokenError>) -> Self {
        use TokenErrorKind::*;
        let Some(error) = error else { return Self::Token };
        match error.kind() {
            Unreachable | Timeout | Unavailable | SourceTransient => Self::Unavailable(error.clone()),
            BadCredentials => Self::BadCredentials(error.clone()),
            Refused | SignInAgain | Unsupported | Redirected if error.status().is_some() => Self::Refused,
            SourcePermanent => Self::Refused,
            Malformed | BadMetadata | WrongIssuer | ClockSkew => Self::Unclear,
            _ => Self::Unknown,
        }
    }
}
