//! The seam between the way of a request and the way of a token: *read*, *reject*, *outcome*.
//!
//! An engine is one configuration's tokens: one source, one policy, a cell for each partition. It knows neither HTTP
//! clients nor request bodies.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cell::{Cell, Current, Read};
use super::coarse_clock::{CoarseClock, MAX_AGE};
use super::key::Partition;
use super::refresh::RefreshResult;
use super::table::{EvictedTotals, Table};
use crate::token::{DynTokenSource, LifetimePolicy, MIN_INTERVAL, RefreshContext, Token, TokenRequest};
use crate::types::{Clock, ConfigError, Now, Secret, TenantId, TokenError, TokenErrorKind};

/// When tokens are asked for, and for how long failures are remembered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnginePolicy {
    pub(crate) lifetime: LifetimePolicy,
    /// The whole of one refresh, a fallback to another grant included. Longer than two exchanges of the endpoint.
    pub(crate) refresh_deadline: Duration,
    /// First and longest pause after a transient failure; the pause itself is drawn between zero and that ("full jitter").
    pub(crate) backoff: (Duration, Duration),
    /// First and longest pause after a permanent failure: secrets get rotated, so it ends by itself.
    pub(crate) permanent_pause: (Duration, Duration),
    /// The longest `Retry-After` obeyed.
    pub(crate) retry_after_cap: Duration,
    /// How many requests may wait for a token while there is none.
    pub(crate) max_waiters: Option<usize>,
    /// How many token requests there may be at a time for each token endpoint.
    pub(crate) max_concurrent_token_requests: usize,
    /// How long one of them waits for its turn.
    pub(crate) permit_timeout: Duration,
    /// How many cells there may be beside the main one.
    pub(crate) max_partitions: usize,
    /// For how long one of them is kept that nobody uses.
    pub(crate) partition_idle: Duration,
}

impl Default for EnginePolicy {
    fn default() -> Self {
        Self {
            lifetime: LifetimePolicy::default(),
            refresh_deadline: Duration::from_secs(30),
            backoff: (Duration::from_millis(500), Duration::from_secs(60)),
            permanent_pause: (Duration::from_secs(30), Duration::from_secs(600)),
            retry_after_cap: Duration::from_secs(300),
            max_waiters: None,
            max_concurrent_token_requests: 64,
            permit_timeout: Duration::from_secs(10),
            max_partitions: 1024,
            partition_idle: Duration::from_secs(3600),
        }
    }
}

impl EnginePolicy {
    /// The shortest pause after a transient failure, so that full jitter cannot draw "at once".
    const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.lifetime.validate()?;
        if self.refresh_deadline.is_zero() {
            return Err(ConfigError::new("the refresh deadline is zero", "30 s is the default"));
        }
        if self.backoff.0 > self.backoff.1 || self.permanent_pause.0 > self.permanent_pause.1 {
            return Err(ConfigError::new("the first pause is longer than the longest", "pass the shorter one first"));
        }
        if self.max_partitions == 0 || self.max_waiters == Some(0) {
            return Err(ConfigError::new("no partition or no waiter is allowed", "1024 partitions are the default"));
        }
        if self.max_concurrent_token_requests == 0 {
            return Err(ConfigError::new("no token request is allowed", "64 at a time are the default"));
        }
        if self.partition_idle < MAX_AGE {
            return Err(ConfigError::new("partitions are idle after less than a second", "an hour is the default"));
        }
        Ok(())
    }

    /// After so long a refresh has ended, or it is on a runtime that nobody drives.
    pub(crate) fn longest_refresh(&self) -> Duration {
        self.refresh_deadline.saturating_add(MIN_INTERVAL)
    }

    /// For how long a failure is remembered; `None`: not at all, since it is no word of the authorization server.
    pub(crate) fn pause_after(&self, error: &TokenError, in_a_row: u32, draw: f64) -> Option<Duration> {
        let doubled = |(first, longest): (Duration, Duration)| first.saturating_mul(1 << in_a_row.min(20)).min(longest);
        match error.kind() {
            TokenErrorKind::Aborted | TokenErrorKind::NoRuntime | TokenErrorKind::Overloaded => None,
            _ => Some(match error.retry_after() {
                Some(pause) if !pause.is_zero() => pause.min(self.retry_after_cap),
                _ if error.is_transient() => {
                    doubled(self.backoff).mul_f64(draw.clamp(0.0, 1.0)).max(Self::SHORTEST_PAUSE)
                }
                _ => doubled(self.permanent_pause),
            }),
        }
    }
}

pub(crate) struct Engine {
    pub(crate) source: Arc<dyn DynTokenSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: EnginePolicy,
    /// Uniform in `[0, 1)`; replaced in tests.
    pub(crate) draw: fn() -> f64,
    /// The tenant of every token request, where it cannot vary and so is no part of the partition.
    pub(crate) fixed_tenant: Option<TenantId>,
    pub(crate) coarse_clock: CoarseClock,
    default_cell: Arc<Cell>,
    others: Table,
}

impl Engine {
    pub(crate) fn new(
        source: Arc<dyn DynTokenSource>,
        clock: Arc<dyn Clock>,
        policy: EnginePolicy,
        refresh_token: Option<Secret<String>>,
        fixed_tenant: Option<TenantId>,
    ) -> Self {
        let main = Arc::new(Cell::new(&Partition::default(), refresh_token));
        let others = Table::new(policy.max_partitions, policy.partition_idle);
        Self {
            source,
            clock,
            policy,
            draw: fastrand::f64,
            fixed_tenant,
            coarse_clock: CoarseClock::new(),
            default_cell: main,
            others,
        }
    }

    /// The cell of the partition that needs no key.
    #[inline]
    pub(crate) fn default_cell(&self) -> &Arc<Cell> {
        &self.default_cell
    }

    /// The cell of a partition, made if there is none.
    pub(crate) fn cell(self: &Arc<Self>, partition: Partition) -> Arc<Cell> {
        if partition.is_default() { self.default_cell.clone() } else { self.others.cell(partition, self.time()) }
    }

    /// The cell of a partition, if there is one.
    pub(crate) fn existing_cell(self: &Arc<Self>, partition: &Partition) -> Option<Arc<Cell>> {
        if partition.is_default() {
            Some(self.default_cell.clone())
        } else {
            self.others.existing(partition, self.time())
        }
    }

    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        let mut cells = self.others.all();
        cells.push(self.default_cell.clone());
        cells
    }

    /// What a source is asked for in this partition, as far as that does not change.
    pub(crate) fn request(&self, partition: &Partition) -> TokenRequest {
        TokenRequest {
            tenant: partition.tenant.as_ref().or(self.fixed_tenant.as_ref()).cloned(),
            scopes: partition.scopes.clone(),
            ..TokenRequest::default()
        }
    }

    /// What the engine judges a token by that is asked for now.
    pub(crate) fn context(&self) -> RefreshContext {
        let deadline = Instant::now() + self.policy.refresh_deadline;
        RefreshContext { clock: self.clock.clone(), lifetime: self.policy.lifetime.clone(), deadline }
    }

    /// A request outside of any refresh.
    pub(crate) fn asking_now(&self, partition: &Partition) -> TokenRequest {
        TokenRequest { context: Some(Arc::new(self.context())), ..self.request(partition) }
    }

    /// The figures of the cells that were dropped.
    pub(crate) fn evicted_totals(&self) -> &EvictedTotals {
        self.others.evicted_totals()
    }

    /// Drops some of the cells that have been idle for too long, at `time` of the coarse clock.
    pub(crate) fn sweep(&self, time: u64) {
        self.others.sweep(time);
    }

    fn time(self: &Arc<Self>) -> u64 {
        self.coarse_time(|| self.clock.now())
    }

    /// By the coarse clock, in milliseconds, at most [`MAX_AGE`] behind. The clocks are needed once in that time.
    pub(crate) fn coarse_time(self: &Arc<Self>, now: impl FnOnce() -> Now) -> u64 {
        self.coarse_clock.time().unwrap_or_else(|| self.coarse_clock.tick(self, &now(), MAX_AGE))
    }

    /// What a waiter does with a result: a token, an error, or look again (`None`).
    pub(crate) fn resolve(
        &self,
        result: RefreshResult,
        fallback: Option<Arc<Current>>,
    ) -> Option<Result<Arc<Current>, Arc<TokenError>>> {
        match result {
            RefreshResult::New(current) | RefreshResult::Same(current) => Some(Ok(current)),
            RefreshResult::Failed(error) => Some(match fallback {
                Some(current) if current.lifetime.is_alive(&self.clock.now()) => Ok(current),
                _ => Err(error),
            }),
            RefreshResult::Superseded => None,
        }
    }

    /// The token, waiting for it if need be.
    pub(crate) async fn token(self: &Arc<Self>, partition: Partition) -> Result<Token, Arc<TokenError>> {
        let cell = self.cell(partition);
        loop {
            let settled = match cell.read(self) {
                Read::Ready(current) => Some(Ok(current)),
                Read::Failed(error) => Some(Err(error)),
                Read::Wait { waiter, fallback } => self.resolve(waiter.await, fallback),
            };
            if let Some(result) = settled {
                return result.map(|current| current.token.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use tokio::time::{Instant, advance, sleep};

    use super::*;
    use crate::token::erase;
    use crate::types::SystemClock;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn partition(n: usize) -> Partition {
        Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), scopes: None }
    }

    /// How often each tenant's token was asked for.
    type Asked = Arc<Mutex<HashMap<usize, usize>>>;

    /// Tenant 0's authorization server hangs, tenant 1's fails; the others' tokens are of an hour, the first renewed
    /// after half of it or so.
    fn engine(max_partitions: usize, clock: impl Clock) -> (Arc<Engine>, Asked) {
        let asked = Asked::default();
        let source = {
            let asked = asked.clone();
            tower::service_fn(move |request: TokenRequest| {
                let tenant: usize = request.tenant.unwrap().as_str().parse().unwrap();
                let times = {
                    let mut asked = asked.lock().unwrap();
                    let times = asked.entry(tenant).or_default();
                    *times += 1;
                    *times
                };
                async move {
                    match tenant {
                        0 => std::future::pending().await,
                        1 => Err(TokenError::permanent("no such tenant")),
                        _ => Ok::<_, TokenError>(Token::bearer(&format!("{tenant}.{times}")).unwrap().expires_in(HOUR)),
                    }
                }
            })
        };
        let policy = EnginePolicy { max_partitions, ..EnginePolicy::default() };
        let mut engine = Engine::new(erase(source), Arc::new(clock), policy, None, None);
        engine.draw = || 0.5;
        (Arc::new(engine), asked)
    }

    /// Behaviours 12 and 93.
    #[tokio::test(start_paused = true)]
    async fn neither_a_hanging_nor_a_failing_tenant_delays_another() {
        let (engine, asked) = engine(1000, SystemClock);
        let start = Instant::now();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.token(partition(0)).await })
            })
            .collect();
        for n in 1..5_000 {
            let token = engine.token(partition(n)).await;
            assert_eq!(token.is_ok(), n > 1);
            assert!(token.is_err() || token.unwrap().access_token() == format!("{n}.1"));
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        // 4000 cells went meanwhile, and not that one.
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap().unwrap_err().kind(), TokenErrorKind::Timeout);
        }
        assert_eq!(start.elapsed().as_secs(), engine.policy.refresh_deadline.as_secs());
        assert!(engine.all_cells().len() <= 1 + 1000);
        assert!(asked.lock().unwrap().values().all(|times| *times == 1));
        let alive: u64 = engine.all_cells().iter().map(|cell| cell.counts().0).sum();
        assert_eq!(alive + engine.evicted_totals().token_requests.load(std::sync::atomic::Ordering::Relaxed), 5_000);
    }

    /// Behaviour 94.
    #[tokio::test(start_paused = true)]
    async fn an_eviction_forks_no_refresh() {
        let (engine, asked) = engine(1, SystemClock);
        for n in 0..200 {
            // Whoever waits gives up at once: only the refresh holds the cell.
            let Read::Wait { .. } = engine.cell(partition(0)).read(&engine) else { panic!("it hangs") };
            engine.token(partition(2 + n)).await.unwrap();
        }
        assert_eq!(asked.lock().unwrap()[&0], 1);
    }

    /// Behaviour 93.
    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_is_used_is_asked_for_once_an_hour_among_any_number() {
        let (engine, asked) = engine(100, SystemClock);
        for n in 100..10_000 {
            engine.token(partition(n)).await.unwrap();
            engine.token(partition(2)).await.unwrap();
        }
        assert_eq!(asked.lock().unwrap()[&2], 1);
        // And what nobody uses goes while there is any request.
        for _ in 0..2 * 3600 {
            sleep(SECOND).await;
            engine.token(partition(2)).await.unwrap();
        }
        assert_eq!(engine.all_cells().len(), 2);
        assert_eq!(asked.lock().unwrap()[&2], 3, "after 58 % of its life, then after 78 %");
    }

    /// A token is looked at again when its time comes, though its cell has no timer.
    #[tokio::test(start_paused = true)]
    async fn a_tenants_token_is_renewed_in_time() {
        let (engine, asked) = engine(100, SystemClock);
        engine.token(partition(2)).await.unwrap();
        let cell = engine.cell(partition(2));
        let requests = || asked.lock().unwrap()[&2];
        // The first token is due between 35 % and 80 % of its life, here in the middle.
        let due = HOUR.mul_f64(0.8 * (0.4375 + 0.5625 / 2.0));
        let start = Instant::now();
        while start.elapsed() < due - 20 * SECOND {
            engine.token(partition(2)).await.unwrap();
            assert!(cell.ready(&engine).is_some(), "no clock is read for it");
            sleep(10 * SECOND).await;
            // Somebody else's request reads the clocks.
            engine.token(partition(3)).await.unwrap();
        }
        assert_eq!(requests(), 1);
        // Coarse time stands still from here until after that moment.
        tokio::time::sleep_until(start + due - SECOND.mul_f64(0.9)).await;
        engine.token(partition(3)).await.unwrap();
        sleep(SECOND.mul_f64(0.85)).await;
        engine.token(partition(2)).await.unwrap();
        sleep(SECOND / 1000).await;
        assert_eq!(requests(), 1, "not yet");
        sleep(SECOND.mul_f64(0.1)).await;
        engine.token(partition(2)).await.unwrap();
        sleep(SECOND / 1000).await;
        assert_eq!(requests(), 2);
        // Left alone beyond its end it is not used.
        advance(2 * HOUR).await;
        assert!(cell.ready(&engine).is_none());
        assert!(matches!(cell.read(&engine), Read::Wait { fallback: None, .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn past_its_refresh_point_a_token_is_looked_at_each_time() {
        let (engine, _) = engine(100, SystemClock);
        let cell = engine.cell(partition(0));
        cell.hand_in(&engine, Token::bearer("0").unwrap().expires_in(HOUR)).unwrap();
        advance(HOUR.mul_f64(0.85)).await;
        for _ in 0..3 {
            assert!(matches!(cell.read(&engine), Read::Ready(_)));
            assert!(cell.ready(&engine).is_none(), "its refresh hangs, and somebody must notice");
        }
    }

    /// Behaviour 74.
    #[tokio::test(start_paused = true)]
    async fn a_step_of_the_wall_clock_is_noticed_for_every_tenant_within_a_second() {
        #[derive(Clone, Default)]
        struct Stepped(Arc<Mutex<Duration>>);

        impl Clock for Stepped {
            fn now(&self) -> Now {
                let now = SystemClock.now();
                Now { wall: SystemTime::UNIX_EPOCH + HOUR + *self.0.lock().unwrap(), ..now }
            }
        }

        let clock = Stepped::default();
        let (engine, asked) = engine(100, clock.clone());
        for n in (2..50).chain(2..50) {
            engine.token(partition(n)).await.unwrap();
        }
        assert!((2..50).all(|n| engine.cell(partition(n)).ready(&engine).is_some()));
        *clock.0.lock().unwrap() += 2 * HOUR;
        sleep(SECOND + SECOND / 100).await;
        for n in 2..50 {
            engine.token(partition(n)).await.unwrap();
        }
        assert!(asked.lock().unwrap().values().all(|times| *times == 2));
    }

    #[test]
    fn a_runtime_that_ends_stops_the_coarse_clock() {
        let (engine, _) = engine(100, SystemClock);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let cell = engine.cell(partition(2));
        runtime().block_on(engine.token(partition(2))).unwrap();
        assert!(cell.ready(&engine).is_none());
        runtime().block_on(async {
            engine.token(partition(2)).await.unwrap();
            assert!(cell.ready(&engine).is_some());
        });
        assert!(cell.ready(&engine).is_none());
        // Without any runtime each look reads the clocks.
        assert!(matches!(engine.cell(partition(2)).read(&engine), Read::Ready(_)));
        assert!(cell.ready(&engine).is_none());
    }

    /// Behaviours 31, 33 and 34.
    #[test]
    fn how_long_a_failure_is_remembered_depends_on_its_class() {
        let policy = EnginePolicy::default();
        let secs = Duration::from_secs;
        let pause = |kind, in_a_row, draw| policy.pause_after(&TokenError::new(kind), in_a_row, draw);
        use TokenErrorKind::*;

        // Transient: drawn between nothing, or nearly, and what doubles each time.
        for (in_a_row, longest) in [(0, 0.5), (1, 1.0), (5, 16.0), (7, 60.0), (1_000, 60.0)] {
            assert_eq!(pause(Unavailable, in_a_row, 0.0), Some(EnginePolicy::SHORTEST_PAUSE));
            assert_eq!(pause(Unavailable, in_a_row, 0.5), Some(Duration::from_secs_f64(longest / 2.0)));
            assert_eq!(pause(Unavailable, in_a_row, 1.0), Some(Duration::from_secs_f64(longest)));
        }
        for (in_a_row, expected) in [(0, 30), (1, 60), (4, 480), (5, 600), (1_000, 600)] {
            assert_eq!(pause(BadCredentials, in_a_row, 0.5), Some(secs(expected)));
        }
        // No word of the authorization server.
        for kind in [Aborted, NoRuntime, Overloaded] {
            assert_eq!(pause(kind, 3, 0.5), None);
        }
        for (told, expected) in [(secs(30), secs(30)), (Duration::MAX, secs(300))] {
            let error = TokenError::new(Unavailable).with_retry_after(told);
            assert_eq!(policy.pause_after(&error, 9, 0.0), Some(expected));
        }
    }
}
