//! The fleet as seen from outside: starts it, lets it loose, kills one of it, counts.

use std::env::{self, current_exe};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::{AuthServer, Fault, Served, TestClock, serve};

use crate::member::{self, PROCESS_HEADER};

pub(crate) const PROCESSES: usize = 8;
pub(crate) const REQUESTS: usize = 1000;
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// How long tokens live, as far as the processes are told.
const LIFETIME: Duration = Duration::from_secs(2);

pub(crate) struct Fleet {
    auth: AuthServer,
    _served: Served,
    members: Vec<Member>,
}

struct Member {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What one act came to.
pub(crate) struct Outcome {
    pub(crate) what: &'static str,
    pub(crate) processes: usize,
    pub(crate) answered: usize,
    pub(crate) expected_answers: usize,
    pub(crate) token_requests: usize,
    pub(crate) expected_token_requests: usize,
    pub(crate) reuses: usize,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn is_as_it_must_be(&self) -> bool {
        self.answered == self.expected_answers
            && self.token_requests == self.expected_token_requests
            && self.reuses == 0
    }
}

impl Fleet {
    pub(crate) async fn start(redis: &str, alone: bool) -> Result<Self, BoxError> {
        // Refresh tokens can be used once: a fleet that used one twice would lose all that came of it.
        let auth = AuthServer::new(TestClock::new()).client("id", "secret").issue_refresh_tokens();
        let auth = auth.announce_expires_in(LIFETIME.as_secs().to_string());
        let served = serve(auth.clone()).await?;
        let store = if alone { "" } else { redis };
        let told = format!("{store} {} fleet-example-{}:", served.uri("/token"), std::process::id());
        let members = (0..PROCESSES).map(|_| Member::spawn(&told)).collect::<Result<_, _>>()?;
        let mut fleet = Self { auth, _served: served, members };
        for member in &mut fleet.members {
            member.hears().await?;
        }
        Ok(fleet)
    }

    /// All make all their requests at once, with a token that has expired, if they ever had one.
    pub(crate) async fn storm(
        &mut self,
        what: &'static str,
        expected_answers: usize,
        expected_token_requests: usize,
    ) -> Result<Outcome, BoxError> {
        self.expire().await;
        let before = self.auth.token_requests();
        let start = Instant::now();
        for member in &mut self.members {
            member.says("go").await?;
        }
        let answered = self.answers().await;
        Ok(Outcome {
            what,
            processes: self.members.len(),
            answered,
            expected_answers,
            token_requests: self.auth.token_requests() - before,
            expected_token_requests,
            reuses: self.auth.refresh_token_reuses(),
            took: start.elapsed(),
        })
    }

    /// The same, and the authorization server leaves the first token request without an answer until the process that
    /// made it is dead.
    pub(crate) async fn kill_the_leader(
        &mut self,
        what: &'static str,
        expected_answers: usize,
    ) -> Result<Outcome, BoxError> {
        self.expire().await;
        self.auth.script([Fault::HangInBody]);
        let before = self.auth.token_requests();
        let start = Instant::now();
        for member in &mut self.members {
            member.says("go").await?;
        }
        while self.auth.token_requests() == before {
            sleep(Duration::from_millis(5)).await;
        }
        let requests = self.auth.requests();
        let leader = requests.last().and_then(|request| request.header(PROCESS_HEADER)?.parse().ok());
        for at in 0..self.members.len() {
            if self.members[at].process.id() == leader {
                self.members.remove(at).process.kill().await?;
                break;
            }
        }
        let answered = self.answers().await;
        Ok(Outcome {
            what,
            processes: self.members.len() + 1,
            answered,
            expected_answers,
            token_requests: self.auth.token_requests() - before,
            // That of the dead, and that of its successor.
            expected_token_requests: 2,
            reuses: self.auth.refresh_token_reuses(),
            took: start.elapsed(),
        })
    }

    pub(crate) async fn stop(self) {
        for mut member in self.members {
            let _ = member.process.kill().await;
        }
    }

    async fn answers(&mut self) -> usize {
        let answers = join_all(self.members.iter_mut().map(Member::hears)).await;
        answers.into_iter().filter_map(|answer| answer.ok()?.parse::<usize>().ok()).sum()
    }

    async fn expire(&self) {
        if self.auth.token_requests() > 0 {
            sleep(LIFETIME + Duration::from_millis(50)).await;
        }
    }
}

impl Member {
    fn spawn(told: &str) -> Result<Self, BoxError> {
        let mut command = Command::new(current_exe()?);
        command.env(member::ENVIRONMENT, told).env("PATH", env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        Ok(Self { process, input, output: BufReader::new(output).lines() })
    }

    async fn says(&mut self, line: &str) -> Result<(), BoxError> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn hears(&mut self) -> Result<String, BoxError> {
        let line = timeout(Duration::from_secs(30), self.output.next_line()).await??;
        line.ok_or_else(|| "a process has ended".into())
    }
}
