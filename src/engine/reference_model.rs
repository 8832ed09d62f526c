//! One cell held against a reference model of it: random histories of requests, answers and calls from outside.
//!
//! The model knows what a refresh token is and who has sent it, and nothing of words, waiters or limits. Seven rules hold
//! whatever happens: one refresh at a time; one that carries a refresh token; the newest refresh token wins; each request that waits
//! has an end within the refresh deadline and a second; no token is handed out a second after its end; no rejected
//! generation is resent; counters never fall. `PROPTEST_CASES=100000 cargo test --lib reference_model` asks for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::cell::{Read, Rejection};
use super::env::{EnginePolicy, Env};
use super::key::PartitionHasher;
use super::table::Table;
use crate::token::{RefreshToken, Token, TokenRequest, TokenSource, erase};
use crate::types::{Draw, Secret, SystemClock, TokenError};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LIFE: Duration = Duration::from_secs(60);
const CASES: u32 = 200;

#[derive(Clone, Copy, Debug)]
enum Step {
    Request,
    /// A request was rejected with the newest token that was handed out, or with the one before.
    Reject {
        newest: bool,
    },
    Invalidate,
    ReplaceCredentials {
        keep_refresh_token: bool,
    },
    SetToken(Comes),
    /// The server answers one of those that wait.
    Answer {
        which: prop::sample::Index,
        answer: Answer,
    },
    Pass(Duration),
}

/// What comes with a token that is set.
#[derive(Clone, Copy, Debug)]
enum Comes {
    Alone,
    WithRefreshToken,
    WithoutAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Token { rotates: bool },
    Unavailable,
    Refused,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![
        4 => any::<bool>().prop_map(|rotates| Answer::Token { rotates }),
        1 => Just(Answer::Unavailable),
        1 => Just(Answer::Refused),
    ];
    let comes = prop_oneof![Just(Comes::Alone), Just(Comes::WithRefreshToken), Just(Comes::WithoutAny)];
    let span = prop_oneof![
        4 => 10..1200_u64,
        2 => 1200..29_000_u64,
        1 => 29_000..90_000_u64,
    ];
    let step = prop_oneof![
        6 => Just(Step::Request),
        3 => any::<bool>().prop_map(|newest| Step::Reject { newest }),
        1 => Just(Step::Invalidate),
        2 => any::<bool>().prop_map(|keep_refresh_token| Step::ReplaceCredentials { keep_refresh_token }),
        1 => comes.prop_map(Step::SetToken),
        5 => (any::<prop::sample::Index>(), answer).prop_map(|(which, answer)| Step::Answer { which, answer }),
        4 => span.prop_map(|span| Step::Pass(Duration::from_millis(span))),
    ];
    prop::collection::vec(step, 1..60)
}

/// A token request as the server saw it.
struct Arrival {
    at: Instant,
    refresh_token: Option<String>,
    /// The client says that it may be spent.
    lost: bool,
    reply: Option<oneshot::Sender<Answer>>,
    answered: Option<(Instant, Answer)>,
    /// By the model: which sign-in it belongs to, and the number of the refresh token that was held then.
    family: u32,
    number: u64,
}

#[derive(Default)]
struct Server {
    arrivals: Mutex<Vec<Arrival>>,
    /// When each token ends.
    ends: Mutex<HashMap<String, Instant>>,
}

struct Source(Arc<Server>);

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        let (reply, answer) = oneshot::channel();
        let (at, number) = (Instant::now(), {
            let mut arrivals = self.0.arrivals.lock().unwrap();
            arrivals.push(Arrival {
                at: Instant::now(),
                lost: request.refresh_answer_lost,
                refresh_token: request.refresh_token.map(|sent| sent.expose().clone()),
                reply: Some(reply),
                answered: None,
                family: 0,
                number: 0,
            });
            arrivals.len()
        });
        match answer.await {
            Ok(Answer::Token { rotates }) => {
                let name = format!("fetched-{number}");
                self.0.ends.lock().unwrap().insert(name.clone(), at + LIFE);
                let token = Token::bearer(&name).unwrap().with_expires_in(LIFE);
                let rotated = RefreshToken::Replace(Secret::from(format!("r{number}")));
                Ok(if rotates { token.with_refresh_token(rotated) } else { token })
            }
            Ok(Answer::Unavailable) => Err(TokenError::transient("not now")),
            Ok(Answer::Refused) => Err(TokenError::sign_in_again()),
            Err(_) => std::future::pending().await,
        }
    }
}

struct World {
    table: Arc<Table>,
    server: Arc<Server>,
    deadline: Duration,
    has_primary_grant: bool,
    /// The newest refresh token, and its number.
    held: Option<(String, u64)>,
    family: u32,
    /// The refresh that is not superseded: its arrival.
    live: Option<usize>,
    seen: usize,
    newest_handed_out: Arc<Mutex<u64>>,
    callers: Vec<JoinHandle<()>>,
    counts: (u64, u64, u64),
    set: usize,
}

impl World {
    fn new(has_primary_grant: bool, seed: u64) -> Self {
        let server = Arc::new(Server::default());
        let policy = EnginePolicy { has_primary_grant, ..EnginePolicy::default() };
        let deadline = policy.refresh_deadline;
        let mut env = Env::still(erase(Source(server.clone())), SystemClock, policy);
        (env.draw, env.hasher) = (Draw::seeded(seed), PartitionHasher::Seeded(seed));
        Self {
            table: Table::new(env, Some(Secret::from("r"))),
            server,
            deadline,
            has_primary_grant,
            held: Some(("r".to_owned(), 0)),
            family: 0,
            live: None,
            seen: 0,
            newest_handed_out: Arc::default(),
            callers: Vec::new(),
            counts: (0, 0, 0),
            set: 0,
        }
    }

    async fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
            sleep(if let Step::Pass(span) = step { *span } else { MS }).await;
            self.check();
        }
        // Nobody answers any more: each request that waits has its end.
        for _ in 0..3 {
            sleep(self.deadline + SECOND).await;
            self.check();
        }
        for caller in &mut self.callers {
            assert!(caller.is_finished(), "somebody waits still");
            caller.await.unwrap();
        }
    }

    fn step(&mut self, step: &Step) {
        let (cell, env) = (self.table.default_cell(), self.table.env());
        match *step {
            Step::Pass(_) => {}
            Step::Request => self.callers.push(self.caller(None)),
            Step::Reject { newest } => {
                let rejected = *self.newest_handed_out.lock().unwrap();
                let rejected = rejected.saturating_sub(u64::from(!newest));
                if rejected > 0 {
                    self.callers.push(self.caller(Some(rejected)));
                }
            }
            Step::Invalidate => cell.invalidate(),
            Step::ReplaceCredentials { keep_refresh_token } => {
                cell.new_epoch(env, keep_refresh_token);
                self.live = None;
                if !keep_refresh_token {
                    (self.held, self.family) = (None, self.family + 1);
                }
            }
            Step::SetToken(comes) => {
                self.set += 1;
                let name = format!("set-{}", self.set);
                self.server.ends.lock().unwrap().insert(name.clone(), Instant::now() + LIFE);
                let token = Token::bearer(&name).unwrap().with_expires_in(LIFE);
                let refresh_token = format!("r-{name}");
                let token = token.with_refresh_token(match comes {
                    Comes::Alone => RefreshToken::Keep,
                    Comes::WithRefreshToken => RefreshToken::Replace(Secret::from(refresh_token.clone())),
                    Comes::WithoutAny => RefreshToken::Drop,
                });
                cell.hand_in(env, token).unwrap();
                self.live = None;
                let number = self.held.as_ref().map_or(0, |(_, number)| number + 1);
                match comes {
                    Comes::Alone => {}
                    Comes::WithRefreshToken => self.held = Some((refresh_token, number)),
                    Comes::WithoutAny => self.held = None,
                }
                self.family += u32::from(!matches!(comes, Comes::Alone));
            }
            Step::Answer { which, answer } => self.answer(which, answer),
        }
    }

    /// To one of those that have not been answered and whose deadline is ahead.
    fn answer(&mut self, which: prop::sample::Index, answer: Answer) {
        let mut arrivals = self.server.arrivals.lock().unwrap();
        let waiting: Vec<usize> = (0..arrivals.len())
            .filter(|at| arrivals[*at].reply.as_ref().is_some_and(|reply| !reply.is_closed()))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = *which.get(&waiting);
        let arrival = &mut arrivals[at];
        arrival.answered = Some((Instant::now(), answer));
        let _ = arrival.reply.take().unwrap().send(answer);
        if self.live == Some(at) {
            self.live = None;
        }
        if arrival.family != self.family {
            return;
        }
        match answer {
            Answer::Token { rotates: true } => {
                let number = arrival.number + 1;
                if self.held.as_ref().is_none_or(|(_, held)| number > *held) {
                    self.held = Some((format!("r{}", at + 1), number));
                }
            }
            Answer::Refused if arrival.refresh_token.is_some() => {
                self.held.take_if(|(held, _)| Some(&*held) == arrival.refresh_token.as_ref());
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let mut arrivals = self.server.arrivals.lock().unwrap();
        for new in self.seen..arrivals.len() {
            let (earlier, rest) = arrivals.split_at_mut(new);
            let arrival = &mut rest[0];
            let age = |former: &Arrival| arrival.at - former.at;
            let is_out = |former: &Arrival| former.answered.is_none() && age(former) < self.deadline;
            if let Some(live) = self.live.take() {
                assert!(!is_out(&earlier[live]), "two refreshes at a time");
            }
            let held = self.held.as_ref().map(|(held, _)| held);
            let is_carried =
                held.is_some() && earlier.iter().any(|former| former.refresh_token.as_ref() == held && is_out(former));
            if is_carried {
                assert!(self.has_primary_grant && arrival.refresh_token.is_none(), "{held:?} is with the server");
            } else {
                assert_eq!(arrival.refresh_token.as_ref(), held, "not the newest refresh token");
            }
            if let Some(sent) = &arrival.refresh_token {
                let same = || earlier.iter().filter(|former| former.refresh_token.as_ref() == Some(sent));
                let lost = same().filter(|former| former.answered.is_none()).map(|former| former.at).max();
                let is_mended = same().any(|former| {
                    matches!(former.answered, Some((when, Answer::Token { .. })) if lost.is_some_and(|lost| when >= lost))
                });
                assert!(arrival.lost || lost.is_none() || is_mended, "{sent} is sent as if it were good");
            }
            arrival.family = self.family;
            arrival.number = self.held.as_ref().map_or(0, |(_, number)| *number);
            self.live = Some(new);
        }
        self.seen = arrivals.len();
        drop(arrivals);

        let cell = self.table.default_cell();
        let held = cell.revocable().refresh_token.map(|held| held.expose().clone());
        assert_eq!(held.as_ref(), self.held.as_ref().map(|(held, _)| held), "not the newest refresh token is held");
        let counts = cell.counts();
        assert!(counts.0 >= self.counts.0 && counts.1 >= self.counts.1 && counts.2 >= self.counts.2, "{counts:?}");
        assert!(counts.0 <= self.seen as u64, "more token requests than there were");
        self.counts = counts;
    }

    /// A request that needs a token, or one whose token was rejected.
    fn caller(&self, rejected: Option<u64>) -> JoinHandle<()> {
        let (table, server) = (self.table.clone(), self.server.clone());
        let (deadline, newest) = (self.deadline, self.newest_handed_out.clone());
        tokio::spawn(async move {
            let (cell, env) = (table.default_cell(), table.env());
            let mut read = match rejected {
                None => cell.read(env),
                Some(rejected) => match cell.reject(env, rejected, true) {
                    Rejection::Newer(current) => Read::Ready(current),
                    Rejection::Wait { waiter, .. } => Read::Wait { waiter, fallback: None },
                    Rejection::Suppressed | Rejection::Failed(_) => return,
                },
            };
            let current = loop {
                let (waiter, fallback) = match read {
                    Read::Ready(current) => break current,
                    Read::Failed(_) => return,
                    Read::Wait { waiter, fallback } => (waiter, fallback),
                };
                let began = Instant::now();
                let result = waiter.await;
                assert!(began.elapsed() <= deadline + SECOND, "a waiter had no end");
                match result.resolve(fallback, || env.clock.now()) {
                    Some(Ok(current)) => break current,
                    Some(Err(_)) => return,
                    None => read = rejected.map_or_else(|| cell.read(env), |rejected| cell.read_newer(env, rejected)),
                }
            };
            assert!(rejected.is_none_or(|rejected| current.generation > rejected), "resent with a rejected token");
            let end = server.ends.lock().unwrap()[current.token.access_token()];
            assert!(Instant::now() <= end + SECOND, "handed out after its end");
            let mut newest = newest.lock().unwrap();
            *newest = current.generation.max(*newest);
        })
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_a_rule(has_primary_grant: bool, seed: u64, steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(World::new(has_primary_grant, seed).run(&steps));
    }
}
