//! Tables with a few or a million cells: eviction, idle cells, the clock that all of them share.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::engine::EnginePolicy;
use crate::token::{TokenRequest, erase};
use crate::types::{Clock, Draw, Now, SystemClock, TenantId, TokenErrorKind};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn partition(n: usize) -> Partition {
    Partition { tenant: Some(TenantId::new(n.to_string()).unwrap()), ..Partition::default() }
}

/// How often each tenant's token was asked for.
type Asked = Arc<Mutex<HashMap<usize, usize>>>;

/// Tenant 0's authorization server hangs, tenant 1's fails; the others' tokens are of an hour, the first renewed
/// after half of it or so.
fn table(max_partitions: usize, clock: impl Clock) -> (Arc<Table>, Asked) {
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
                    _ => {
                        Ok::<_, TokenError>(Token::bearer(&format!("{tenant}.{times}")).unwrap().with_expires_in(HOUR))
                    }
                }
            }
        })
    };
    let policy = EnginePolicy { max_partitions, ..EnginePolicy::default() };
    let mut env = Env::still(erase(source), clock, policy);
    env.draw = Draw::always(0.5);
    (Table::new(env, None), asked)
}

/// Behaviours 12 and 93.
#[tokio::test(start_paused = true)]
async fn neither_a_hanging_nor_a_failing_tenant_delays_another() {
    let (table, asked) = table(1000, SystemClock);
    let start = Instant::now();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let table = table.clone();
            tokio::spawn(async move { table.token(partition(0)).await })
        })
        .collect();
    for n in 1..5_000 {
        let token = table.token(partition(n)).await;
        assert_eq!(token.is_ok(), n > 1);
        assert!(token.is_err() || token.unwrap().access_token() == format!("{n}.1"));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    // 4000 cells went meanwhile, and not that one.
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().unwrap_err().kind(), TokenErrorKind::Timeout);
    }
    assert_eq!(start.elapsed().as_secs(), table.env().policy.refresh_deadline.as_secs());
    assert!(table.all_cells().len() <= 1 + 1000);
    assert!(asked.lock().unwrap().values().all(|times| *times == 1));
    let (cells, evicted_totals) = table.others_and_evicted_totals();
    let alive: u64 = cells.iter().map(|cell| cell.counts().0).sum();
    assert_eq!(alive + evicted_totals.token_requests, 5_000);
}

/// Behaviour 94.
#[tokio::test(start_paused = true)]
async fn an_eviction_forks_no_refresh() {
    let (table, asked) = table(1, SystemClock);
    for n in 0..200 {
        // All who wait give up at once: only the refresh holds the cell.
        let Read::Wait { .. } = table.cell(partition(0)).read(table.env()) else { panic!("it hangs") };
        table.token(partition(2 + n)).await.unwrap();
    }
    assert_eq!(asked.lock().unwrap()[&0], 1);
}

/// Behaviour 141 (what was in use when its refresh ended).
#[tokio::test(start_paused = true)]
async fn cells_that_had_to_stay_go_within_seconds_after_they_are_let_go() {
    let (table, _) = table(10, SystemClock);
    let mut held = Vec::new();
    for n in 2..102 {
        held.push(table.cell(partition(n)));
        table.token(partition(n)).await.unwrap();
    }
    // The coarse clock's timer has gone off, and nobody reads a clock any more.
    sleep(3 * SECOND).await;
    assert_eq!(table.all_cells().len(), 1 + 100);
    drop(held);
    sleep(5 * SECOND).await;
    let cells = table.all_cells().len();
    assert!(cells <= 1 + 10, "{cells} cells at a bound of 10");
}

/// Behaviour 93.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_used_is_asked_for_once_an_hour_among_any_number() {
    let (table, asked) = table(100, SystemClock);
    for n in 100..10_000 {
        table.token(partition(n)).await.unwrap();
        table.token(partition(2)).await.unwrap();
    }
    assert_eq!(asked.lock().unwrap()[&2], 1);
    // And what nobody uses goes while there is any request.
    for _ in 0..2 * 3600 {
        sleep(SECOND).await;
        table.token(partition(2)).await.unwrap();
    }
    assert_eq!(table.all_cells().len(), 2);
    assert_eq!(asked.lock().unwrap()[&2], 3, "after 58 % of its life, then after 78 %");
}

/// A token is looked at again when its time comes, though its cell has no timer.
#[tokio::test(start_paused = true)]
async fn a_tenants_token_is_renewed_in_time() {
    let (table, asked) = table(100, SystemClock);
    table.token(partition(2)).await.unwrap();
    let cell = table.cell(partition(2));
    let requests = || asked.lock().unwrap()[&2];
    // The first token is due between 35 % and 80 % of its life, here in the middle.
    let due = HOUR.mul_f64(0.8 * (0.4375 + 0.5625 / 2.0));
    let start = Instant::now();
    while start.elapsed() < due - 20 * SECOND {
        table.token(partition(2)).await.unwrap();
        assert!(cell.ready(table.env()).is_some(), "no clock is read for it");
        sleep(10 * SECOND).await;
        // Somebody else's request reads the clocks.
        table.token(partition(3)).await.unwrap();
    }
    assert_eq!(requests(), 1);
    // Coarse time stands still from here until after that moment.
    tokio::time::sleep_until(start + due - SECOND.mul_f64(0.9)).await;
    table.token(partition(3)).await.unwrap();
    sleep(SECOND.mul_f64(0.85)).await;
    table.token(partition(2)).await.unwrap();
    sleep(SECOND / 1000).await;
    assert_eq!(requests(), 1, "not yet");
    sleep(SECOND.mul_f64(0.1)).await;
    table.token(partition(2)).await.unwrap();
    sleep(SECOND / 1000).await;
    assert_eq!(requests(), 2);
    // Left alone beyond its end it is not used.
    advance(2 * HOUR).await;
    assert!(cell.ready(table.env()).is_none());
    assert!(matches!(cell.read(table.env()), Read::Wait { fallback: None, .. }));
}

#[tokio::test(start_paused = true)]
async fn past_its_refresh_point_a_token_is_looked_at_each_time() {
    let (table, _) = table(100, SystemClock);
    let cell = table.cell(partition(0));
    cell.hand_in(table.env(), Token::bearer("0").unwrap().with_expires_in(HOUR)).unwrap();
    advance(HOUR.mul_f64(0.85)).await;
    for _ in 0..3 {
        assert!(matches!(cell.read(table.env()), Read::Ready(_)));
        assert!(cell.ready(table.env()).is_none(), "its refresh hangs, and somebody must notice");
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
    let (table, asked) = table(100, clock.clone());
    for n in (2..50).chain(2..50) {
        table.token(partition(n)).await.unwrap();
    }
    assert!((2..50).all(|n| table.cell(partition(n)).ready(table.env()).is_some()));
    *clock.0.lock().unwrap() += 2 * HOUR;
    sleep(SECOND + SECOND / 100).await;
    for n in 2..50 {
        table.token(partition(n)).await.unwrap();
    }
    assert!(asked.lock().unwrap().values().all(|times| *times == 2));
}

#[test]
fn a_runtime_that_ends_stops_the_coarse_clock() {
    let (table, _) = table(100, SystemClock);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let cell = table.cell(partition(2));
    runtime().block_on(table.token(partition(2))).unwrap();
    assert!(cell.ready(table.env()).is_none());
    runtime().block_on(async {
        table.token(partition(2)).await.unwrap();
        assert!(cell.ready(table.env()).is_some());
    });
    assert!(cell.ready(table.env()).is_none());
    // Without any runtime each look reads the clocks.
    assert!(matches!(table.cell(partition(2)).read(table.env()), Read::Ready(_)));
    assert!(cell.ready(table.env()).is_none());
}
