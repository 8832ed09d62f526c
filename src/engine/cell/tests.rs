//! One cell: its token, its refreshes and what the limiter lets through, on paused time.

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

    let cases =
        [(SameClient, Some("r1")), (AnotherClient, None), (HandedIn, Some("r1")), (HandedInWithItsOwn, Some("own"))];
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
    let Rejection::Wait { waiter, starter: true } = cell.reject(table.env(), newer, true) else { panic!("no refresh") };
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

/// The access token that was there before, as a source is told with each request.
type Previous = Arc<Mutex<Vec<Option<String>>>>;

/// A table whose source answers its `n`th request, from 0, as `answer` says, after 100 ms; and what it was told.
fn table_that_answers(
    answer: impl Fn(usize) -> Result<Token, TokenError> + Send + Sync + 'static,
) -> (Arc<Table>, Previous) {
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
    assert!(matches!(cell.reject(env, current, false), Rejection::Wait { starter: true, .. }), "the eighth in a row");
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
    assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed), "the second in a row, not the twelfth");
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
    assert!(matches!(cell.reject(env, current, false), Rejection::Suppressed), "the first in a row, not the eighth");
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
        let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
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

/// The first token after a stored one is renewed at a widely spread time: the processes that shared the stored one would
/// otherwise all renew at once.
#[tokio::test(start_paused = true)]
async fn the_first_token_after_a_stores_is_spread_like_the_first_of_a_process() {
    let (table, _) = table_that_answers(|number| Ok(token(&number.to_string())));
    let (cell, env) = (table.default_cell(), table.env());
    cell.set(env, token("stored"), Some(1), RefreshOwner::Store { single_use: false }).unwrap();
    for renewed_after in [2070, 2790] {
        advance(Duration::from_secs(3601)).await;
        let RefreshResult::New(current) = wait(cell.read(env)).await else { panic!("no token") };
        assert_eq!(current.lifetime.next_boundary(&current.lifetime.arrived()).unwrap().as_secs(), renewed_after - 1);
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
        let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
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

/// A refresh that began late may end yet when a watchdog that was armed before goes off: nobody waits for it any longer, and its
/// refresh token is not sent again before it has answered.
#[test]
#[allow(clippy::async_yields_async, reason = "made inside the runtime, awaited later")]
fn a_watchdog_leaves_the_refresh_token_to_a_refresh_that_began_late() {
    let (gate, clock) = (Gate::new(true), TestClock::new());
    let env = Env::still(erase(gate.clone()), clock.clone(), EnginePolicy::default());
    let table = Table::new(env, Some(Secret::from("r0")));
    let (cell, env) = (table.default_cell(), table.env());
    let parked = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    {
        let _inside = parked.enter();
        drop(wait(cell.read(env)));
    }
    let driven = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    clock.advance(25 * SECOND);
    let joined = driven.block_on(async { wait(cell.read(env)) });
    parked.block_on(async {
        while gate.requests() == 0 {
            tokio::task::yield_now().await;
        }
    });
    let next = driven.block_on(async {
        assert!(matches!(joined.await, RefreshResult::Failed(_)));
        sleep(10 * SECOND).await;
        let next = wait(cell.read(env));
        sleep(SECOND).await;
        assert_eq!(gate.requests(), 1, "the refresh token is with the server still");
        next
    });
    gate.0.open.notify_one();
    parked.block_on(async {
        while cell.lock().has_carrier() {
            tokio::task::yield_now().await;
        }
    });
    driven.block_on(async {
        assert!(matches!(next.await, RefreshResult::Superseded));
        let next = wait(cell.read(env));
        gate.let_one_land().await;
        assert!(matches!(next.await, RefreshResult::New(_)));
    });
    assert_eq!(*gate.0.asked.lock().unwrap(), ["r0", "r1"].map(|token| Some(token.to_owned())));
}

/// A reader whose token was rejected waits for a newer one; others go on with it without a look at the clocks.
#[tokio::test(start_paused = true)]
async fn a_reader_that_wants_a_newer_token_does_not_slow_others_down() {
    let gate = Gate::new(false);
    let table = gate.table(EnginePolicy::default());
    let (cell, env) = (table.default_cell(), table.env());
    cell.hand_in(env, token("t")).unwrap();
    let current = ready(cell.read(env));
    drop(wait(cell.read_newer(env, current.generation)));
    assert!(cell.may_send(env, &current));
}

/// A look at the clocks for one tenant, after the timer should have gone off, is a look for all: the next request of that tenant
/// needs none.
#[test]
fn a_late_look_for_a_tenant_counts_as_one() {
    let (os, clock) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), TestClock::new());
    let source = erase(tower::service_fn(|_: TokenRequest| async { Ok::<_, TokenError>(token("new")) }));
    let mut env = Env::new(source, Arc::new(clock.clone()), EnginePolicy::default(), None);
    env.coarse_clock = CoarseClock::new(OsClock::Set(os.clone()));
    let table = Table::new(env, None);
    let parked = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _inside = parked.enter();
    let cell =
        table.cell(Partition { tenant: Some(crate::types::TenantId::new("t").unwrap()), ..Partition::default() });
    cell.hand_in(table.env(), token("old")).unwrap();
    ready(cell.read(table.env()));
    clock.advance(2 * SECOND);
    os.fetch_add(2_000_000_000, Ordering::Relaxed);
    assert!(cell.ready(table.env()).is_none());
    ready(cell.read(table.env()));
    assert!(cell.ready(table.env()).is_some());
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
