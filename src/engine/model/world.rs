//! One configuration's cells, two runtimes, a clock, and a server that says what it was asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use loom::thread::{self, JoinHandle};

use super::super::cell::{Cell, Read};
use super::super::coarse_clock::CoarseClock;
use super::super::env::{EnginePolicy, Env};
use super::super::key::{Partition, PartitionHasher};
use super::super::os_clock::OsClock;
use super::super::refresh::RefreshWaiter;
use super::super::rt::{Runtime, Task};
use super::super::table::Table;
use crate::token::{RefreshToken, Token, TokenRequest, TokenSource, erase};
use crate::types::{Clock, Draw, Now, Secret, TenantId, TokenError};

/// Eight times what loom gives, in words: it hands the number on to a library that counts in them.
const STACK: usize = 0x8000;

/// Explores every interleaving of a model, with at most three preemptions or as many as `LOOM_MAX_PREEMPTIONS` says.
pub(super) fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 10_000;
    let model = Arc::new(model);
    builder.check(move || {
        let model = model.clone();
        on_large_stack(move || model()).join().unwrap();
    });
}

/// A thread of the model. Unoptimized frames with full debug information overflow the stack of 32 KiB that loom gives.
fn on_large_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap()
}

#[derive(Clone)]
pub(super) struct World {
    table: Arc<Table>,
    server: Arc<Server>,
    passed: Arc<AtomicU64>,
    /// Where refreshes start, unless the model says otherwise.
    pub(super) runtime: Runtime,
    pub(super) elsewhere: Runtime,
}

/// What the server says, if not a token.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// Not now: again in 800 ms.
    Unavailable,
    /// It is the source that panics.
    Panic,
}

/// Tells what it was asked in locks that loom does not know: they order nothing that the cell should order itself.
#[derive(Default)]
struct Server {
    requests: AtomicU64,
    sent: Mutex<Vec<String>>,
    answers: Mutex<VecDeque<Answer>>,
    refuses: Mutex<Option<String>>,
}

struct Source(Arc<Server>);

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(refresh_token) = &request.refresh_token {
            self.0.sent.lock().unwrap().push(refresh_token.expose().clone());
            if self.0.refuses.lock().unwrap().as_ref() == Some(refresh_token.expose()) {
                return Err(TokenError::sign_in_again());
            }
        }
        match self.0.answers.lock().unwrap().pop_front() {
            Some(Answer::Unavailable) => {
                return Err(TokenError::transient("not now").with_retry_after(Duration::from_millis(800)));
            }
            // Without the hook, which would print each of thousands.
            Some(Answer::Panic) => std::panic::resume_unwind(Box::new("the source")),
            None => {}
        }
        let token = token(&format!("fetched-{number}"));
        Ok(token.with_refresh_token(RefreshToken::Replace(Secret::from(format!("r{number}")))))
    }
}

fn token(text: &str) -> Token {
    Token::bearer(text).unwrap().with_expires_in(Duration::from_secs(3600))
}

/// Time passes when the model says so.
struct Stepped {
    start: Now,
    passed: Arc<AtomicU64>,
}

impl Clock for Stepped {
    fn now(&self) -> Now {
        self.start.after(Duration::from_nanos(self.passed.load(Ordering::SeqCst)))
    }
}

impl World {
    /// Whose only grant is this refresh token, if there is one.
    pub(super) fn new(refresh_token: Option<&str>) -> Self {
        Self::with(refresh_token, EnginePolicy::default())
    }

    pub(super) fn with(refresh_token: Option<&str>, policy: EnginePolicy) -> Self {
        let (server, passed) = (Arc::new(Server::default()), Arc::new(AtomicU64::new(0)));
        let start = Now { monotonic: Instant::now(), wall: SystemTime::now() };
        let clock = Stepped { start, passed: passed.clone() };
        let mut env = Env::new(erase(Source(server.clone())), Arc::new(clock), policy, None);
        env.draw = Draw::always(0.5);
        env.hasher = PartitionHasher::Seeded(0);
        env.coarse_clock = CoarseClock::new(OsClock::Set(passed.clone()));
        let table = Table::new(env, refresh_token.map(Secret::from));
        Self { table, server, passed, runtime: Runtime::default(), elsewhere: Runtime::default() }
    }

    pub(super) fn env(&self) -> &Arc<Env> {
        self.table.env()
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        self.table.default_cell()
    }

    pub(super) fn tenant(&self, tenant: &str) -> Arc<Cell> {
        self.table.cell(Partition { tenant: Some(TenantId::new(tenant).unwrap()), ..Partition::default() })
    }

    /// A thread of the model.
    pub(super) fn thread<T: Send + 'static>(&self, run: impl FnOnce(Self) -> T + Send + 'static) -> JoinHandle<T> {
        let world = self.clone();
        on_large_stack(move || run(world))
    }

    /// By all clocks.
    pub(super) fn pass(&self, seconds: u64) {
        self.passed.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// What the server says to the next requests.
    pub(super) fn will_answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.server.answers.lock().unwrap().extend(answers);
    }

    /// `invalid_grant` for this refresh token.
    pub(super) fn will_refuse(&self, refresh_token: &str) {
        *self.server.refuses.lock().unwrap() = Some(refresh_token.to_owned());
    }

    pub(super) fn set_token(&self, text: &str) {
        self.set_token_of(self.cell(), text);
    }

    pub(super) fn set_token_of(&self, cell: &Cell, text: &str) {
        cell.hand_in(self.env(), token(text)).unwrap();
    }

    pub(super) fn sign_in(&self, text: &str, refresh_token: &str) {
        let token = token(text).with_refresh_token(RefreshToken::Replace(Secret::from(refresh_token)));
        self.cell().hand_in(self.env(), token).unwrap();
    }

    /// A refresh begins here, in the model's first runtime, for which nobody else has tasks now.
    pub(super) fn start_refresh(&self) -> (RefreshWaiter, Task) {
        self.runtime.enter();
        let Read::Wait { waiter, .. } = self.cell().read(self.env()) else { panic!("there is a token") };
        (waiter, self.take_refresh())
    }

    /// The task of a refresh that was started on this thread.
    pub(super) fn take_refresh(&self) -> Task {
        self.runtime.take_new().expect("a refresh was started")
    }

    pub(super) fn token_requests(&self) -> u64 {
        self.server.requests.load(Ordering::SeqCst)
    }

    pub(super) fn held_refresh_token(&self) -> Option<String> {
        self.cell().revocable().refresh_token.map(|held| held.expose().clone())
    }

    /// The refresh tokens that were sent, in this order; none twice.
    pub(super) fn sent(&self) -> Vec<String> {
        let sent = self.server.sent.lock().unwrap().clone();
        let mut different = sent.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), sent.len(), "sent twice: {sent:?}");
        sent
    }
}

/// Drives a task that was taken out of its runtime. It is ready at once, as it waits for no timer.
pub(super) fn drive(task: Task) {
    let nobody = Runtime::default();
    nobody.block_on(task);
}
