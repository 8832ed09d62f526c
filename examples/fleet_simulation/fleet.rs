//! The fleet and its world: processes that start, ask for tokens and are restarted; a server that counts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, service_fn};
use tower_oauth2_client::store::{MemoryStore, StoreIdentity, StoreLayer};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{AuthConfig, AuthLayer, Renew, Token, TokenError, TokenRequest};

use crate::day::{DAY, Day, HOUR, OUTAGE};

const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long a process lives: it is restarted about twice a day.
const LIFE: std::ops::Range<f64> = 0.0..24.0 * 3600.0;
/// Seconds between two requests of one process.
const PAUSE: std::ops::Range<f64> = 30.0..90.0;
/// Seconds in which the whole fleet starts.
const START: f64 = 10.0;

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    name: &'static str,
    pub(crate) jitter: bool,
    pub(crate) store: bool,
}

pub(crate) const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "alone, no jitter", jitter: false, store: false },
    Scenario { name: "alone, jitter", jitter: true, store: false },
    Scenario { name: "with a store", jitter: true, store: true },
];

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) struct Fleet {
    pub(crate) processes: usize,
    pub(crate) scenario: Scenario,
}

impl Fleet {
    /// `hour_passed` is called for each.
    pub(crate) fn live_a_day(self, hour_passed: impl Fn()) -> Day {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(async {
            let server = Server::new(self.scenario);
            let store = MemoryStore::with_clock(server.clock.clone());
            let begins = Instant::now();
            let lives: Vec<_> = (0..self.processes)
                .map(|number| {
                    let random = fastrand::Rng::with_seed(number as u64);
                    tokio::spawn(live(self.scenario, server.clone(), store.clone(), random))
                })
                .collect();
            for hour in 1..=DAY / HOUR {
                sleep_until(begins + Duration::from_secs((hour * HOUR) as u64)).await;
                hour_passed();
            }
            lives.iter().for_each(tokio::task::JoinHandle::abort);
            server.day()
        })
    }
}

/// A process and its successors.
async fn live(scenario: Scenario, server: Server, store: MemoryStore, mut random: fastrand::Rng) {
    sleep(between(&mut random, 0.0..START)).await;
    loop {
        let dies = Instant::now() + between(&mut random, LIFE);
        let process = layer(scenario, server.clone(), store.clone()).handle();
        while Instant::now() < dies {
            // Without a token a request fails, and its caller comes again later.
            let _ = process.token().await;
            sleep(between(&mut random, PAUSE)).await;
        }
    }
}

fn layer(scenario: Scenario, server: Server, store: MemoryStore) -> AuthLayer {
    let cfg = AuthConfig::external().origin("https://api.example.com").clock(server.clock.clone());
    // Renewal at the very expiry is the one that this crate does not spread.
    let cfg = if scenario.jitter { cfg } else { cfg.renew(Renew::AtExpiry) };
    let cfg = cfg.build().unwrap_or_else(|error| panic!("{error}"));
    let source = service_fn(move |_: TokenRequest| {
        let server = server.clone();
        async move { server.answer().await }
    });
    if scenario.store {
        let store = StoreLayer::new(store, StoreIdentity::named("fleet"));
        AuthLayer::with_source(cfg, store.layer(source))
    } else {
        AuthLayer::with_source(cfg, source)
    }
}

fn between(random: &mut fastrand::Rng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(range.start + random.f64() * (range.end - range.start))
}

/// The authorization server.
#[derive(Clone)]
struct Server {
    opened: Instant,
    clock: TestClock,
    day: Arc<Mutex<Day>>,
}

impl Server {
    fn new(scenario: Scenario) -> Self {
        Self { opened: Instant::now(), clock: TestClock::new(), day: Arc::new(Mutex::new(Day::new(scenario))) }
    }

    async fn answer(&self) -> Result<Token, TokenError> {
        let second = self.opened.elapsed().as_secs() as usize;
        let away = OUTAGE.contains(&second);
        let number = {
            let mut day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
            day.all += 1;
            let count = if away { &mut day.failed } else { &mut day.answered };
            if let Some(count) = count.get_mut(second) {
                *count += 1;
            }
            day.all
        };
        sleep(Duration::from_millis(50)).await;
        if away {
            return Err(TokenError::transient("away"));
        }
        let token = Token::bearer(&format!("token-{number}")).map_err(TokenError::permanent)?;
        Ok(token.with_expires_in(TOKEN_LIFE))
    }

    fn day(&self) -> Day {
        let mut day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = Day::new(day.scenario);
        std::mem::replace(&mut *day, empty)
    }
}
