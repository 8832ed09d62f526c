//! One cell, its environment, and a server that says what it was asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::super::cell::Cell;
use super::super::env::{EnginePolicy, Env};
use super::super::rt::{Runtime, Task};
use super::super::table::Table;
use crate::token::{RefreshToken, Token, TokenRequest, TokenSource, erase};
use crate::types::{Clock, Draw, Now, Secret, TokenError};

/// Explores every interleaving of a model, with at most three preemptions.
pub(super) fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[derive(Clone)]
pub(super) struct World {
    table: Arc<Table>,
    server: Arc<Server>,
    pub(super) runtime: Runtime,
}

/// Tells what it was asked in locks that loom does not know: they order nothing that the cell should order itself.
#[derive(Default)]
struct Server {
    requests: AtomicU64,
    sent: Mutex<Vec<String>>,
}

struct Source(Arc<Server>);

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let token = Token::bearer(&format!("fetched-{number}"))
            .map_err(TokenError::permanent)?
            .with_expires_in(Duration::from_secs(3600));
        Ok(match request.refresh_token {
            Some(refresh_token) => {
                self.0.sent.lock().unwrap().push(refresh_token.expose().clone());
                token.with_refresh_token(RefreshToken::Replace(Secret::from(format!("r{number}"))))
            }
            None => token,
        })
    }
}

/// Time stands still.
struct Still(Now);

impl Clock for Still {
    fn now(&self) -> Now {
        self.0
    }
}

impl World {
    pub(super) fn new(refresh_token: Option<&str>) -> Self {
        let server = Arc::new(Server::default());
        let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
        let source = erase(Source(server.clone()));
        let mut env = Env::new(source, Arc::new(Still(now)), EnginePolicy::default(), None);
        env.draw = Draw::always(0.5);
        let table = Table::new(env, refresh_token.map(Secret::from));
        Self { table, server, runtime: Runtime::default() }
    }

    pub(super) fn env(&self) -> &Arc<Env> {
        self.table.env()
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        self.table.default_cell()
    }

    pub(super) fn set_token(&self, token: &str) {
        let token = Token::bearer(token).unwrap().with_expires_in(Duration::from_secs(3600));
        self.cell().hand_in(self.env(), token).unwrap();
    }

    pub(super) fn token_requests(&self) -> u64 {
        self.server.requests.load(Ordering::SeqCst)
    }

    /// The task of a refresh that was started on this thread.
    pub(super) fn take_task(&self) -> Task {
        self.runtime.take().expect("a refresh was started")
    }

    /// Starts a refresh if there is none, and runs the first task there is.
    pub(super) fn run_one_task(&self) {
        self.runtime.enter();
        let _ = self.cell().read(self.env());
        if let Some(task) = self.runtime.take() {
            loom::future::block_on(task);
        }
    }

    pub(super) fn assert_each_refresh_token_was_sent_once(&self) {
        let sent = self.server.sent.lock().unwrap();
        let mut different = sent.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), sent.len(), "sent: {sent:?}");
    }
}
