//! One provider's trial: cold start, steady use, expiry, revocation, and the books of both servers afterwards.

use std::collections::HashMap;
use std::time::Duration;

use tower_oauth2_client::test_util::RecordedRequest;

use crate::callers::{Answers, Callers, REQUESTS};
use crate::providers::{Provider, TENANT};
use crate::report::Progress;

/// What came of a provider's trial.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) tenants: usize,
    /// How many tokens the client needs at a time.
    pub(crate) tokens: usize,
    pub(crate) requests: usize,
    pub(crate) successes: usize,
    pub(crate) resends: usize,
    /// Those of phases in which nothing was revoked: a client that reads its clock sends no token that has expired.
    pub(crate) stray_resends: usize,
    /// Token requests of each phase, in the order of [`PHASES`].
    pub(crate) token_requests: [usize; 4],
    pub(crate) worst: Duration,
    /// What else was not as it must be.
    pub(crate) faults: Vec<String>,
}

pub(crate) const PHASES: [&str; 4] = ["cold start", "steady", "expiry", "revocation"];

/// Runs the four phases.
pub(crate) async fn run(provider: Provider) -> Trial {
    let progress = Progress::of(provider.name);
    let mut trial = Trial::of(&provider);
    let mut callers = Callers::of(&provider);
    for (index, phase) in PHASES.into_iter().enumerate() {
        progress.phase(phase);
        if phase == "expiry" {
            provider.clock.advance(provider.token_lifetime + Duration::from_secs(1));
            // The client reads its clock at least once a second while it is used.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
        let auth = provider.auth.clone();
        let bar = progress.clone();
        let answers = callers
            .go(move |answered| {
                bar.tick();
                // In the middle of it: about half of the requests carry the token already.
                if phase == "revocation" && answered == REQUESTS / 2 {
                    auth.revoke_all();
                }
            })
            .await;
        trial.add(index, answers, &provider);
        progress.phase_over(phase, trial.token_requests[index]);
    }
    trial.audit(&provider);
    progress.end();
    trial
}

impl Trial {
    fn of(provider: &Provider) -> Self {
        Self {
            name: provider.name,
            tenants: provider.tenants.len(),
            tokens: provider.tokens,
            requests: PHASES.len() * REQUESTS,
            successes: 0,
            resends: 0,
            stray_resends: 0,
            token_requests: [0; 4],
            worst: Duration::ZERO,
            faults: Vec::new(),
        }
    }

    fn add(&mut self, index: usize, answers: Answers, provider: &Provider) {
        let (phase, before) = (PHASES[index], self.token_requests.iter().sum::<usize>());
        self.token_requests[index] = provider.auth.token_requests() - before;
        self.successes += answers.successes;
        self.resends += answers.resends;
        self.worst = self.worst.max(answers.worst);
        if self.faults.is_empty() {
            self.faults.extend(answers.first_failure.map(|failure| format!("{phase}: {failure}")));
        }
        if phase != "revocation" {
            self.stray_resends += answers.resends;
        } else if answers.successes == REQUESTS && answers.resends == 0 {
            self.faults.push("the revocation came too late to be noticed".to_owned());
        }
    }

    /// What the client says of itself must be what the servers saw.
    fn audit(&mut self, provider: &Provider) {
        if self.successes != self.requests {
            return; // It would tell nothing new.
        }
        let (auth, api, stats) = (&provider.auth, &provider.api, provider.handle.stats());
        let requests = api.requests();
        let most_sendings = count(&requests, |request| query(request, "request")).into_values().max();
        let mixed_up = requests.iter().filter(|request| is_mixed_up(request)).count();
        let per_tenant = count(&auth.requests(), |request| request.header("x-account").map(str::to_owned));
        let is = [
            ("token requests after the last phase", auth.token_requests(), self.token_requests.iter().sum()),
            ("token requests by the client's own count", stats.token_requests as usize, auth.token_requests()),
            ("failed token requests", stats.token_failures as usize, 0),
            ("token requests at a time for one token", auth.max_in_flight().div_ceil(self.tokens), 1),
            ("most token requests for one account", per_tenant.into_values().max().unwrap_or(0), 3),
            ("requests that the API saw", api.hits(), self.requests + self.resends),
            ("requests that the API refused", api.unauthorized(), self.resends),
            ("the most sendings of one request", most_sendings.unwrap_or(0), 2),
            ("tokens of another tenant", api.tenant_mismatches(), 0),
            ("headers of another tenant", mixed_up, 0),
            ("reuses of a refresh token", auth.refresh_token_reuses(), 0),
        ];
        let wrong = is.into_iter().filter(|(_, is, must_be)| is != must_be);
        self.faults.extend(wrong.map(|(what, is, must_be)| format!("{what}: {is}, must be {must_be}")));
    }
}

/// How many requests there are for each key.
fn count(
    requests: &[RecordedRequest],
    key: impl Fn(&RecordedRequest) -> Option<String>,
) -> HashMap<Option<String>, usize> {
    let mut counts = HashMap::new();
    for request in requests {
        *counts.entry(key(request)).or_default() += 1;
    }
    counts
}

/// The caller wrote its tenant into the query, the layer wrote it into the header.
fn is_mixed_up(request: &RecordedRequest) -> bool {
    request.header("tenant-id").is_some_and(|tenant| query(request, TENANT).as_deref() != Some(tenant))
}

fn query(request: &RecordedRequest, name: &str) -> Option<String> {
    let pairs = request.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
