//! The callers: 2 000 tasks that use an API at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_oauth2_client::{AuthOutcome, BoxError, TenantId};

use crate::providers::{Provider, Service, TENANT};

/// How many callers there are.
pub(crate) const CALLERS: usize = 2_000;
/// How many requests they make in a phase, all together: each caller two, one after the other.
pub(crate) const REQUESTS: usize = 2 * CALLERS;

/// All callers of one provider. Each keeps its clone of the client for the whole trial.
pub(crate) struct Callers {
    all: Vec<Caller>,
    phases: usize,
}

/// What came of one phase.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) successes: usize,
    pub(crate) resends: usize,
    pub(crate) worst: Duration,
    pub(crate) first_failure: Option<String>,
}

impl Callers {
    pub(crate) fn of(provider: &Provider) -> Self {
        let caller = |number| Caller {
            number,
            service: provider.service.clone(),
            api_url: provider.api_url.clone(),
            tenant: provider.tenants.get(number % provider.tenants.len().max(1)).cloned(),
        };
        Self { all: (0..CALLERS).map(caller).collect(), phases: 0 }
    }

    /// Lets all of them loose at once; `on_answer` hears how many requests have been answered so far.
    pub(crate) async fn go(&mut self, on_answer: impl Fn(usize) + Send + Sync + 'static) -> Answers {
        let phase = self.phases;
        self.phases += 1;
        let start = Arc::new(Barrier::new(self.all.len()));
        let answered = Arc::new((AtomicUsize::new(0), on_answer));
        let mut tasks = JoinSet::new();
        for mut caller in self.all.drain(..) {
            let (start, answered) = (start.clone(), answered.clone());
            tasks.spawn(async move {
                start.wait().await;
                let mut answers = Vec::new();
                for round in [0, 1] {
                    answers.push(caller.ask(2 * phase + round).await);
                    answered.1(answered.0.fetch_add(1, Ordering::Relaxed) + 1);
                }
                (caller, answers)
            });
        }
        // Whatever is not answered by then has failed, and its caller takes no further part.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut all = Answers::default();
        while let Ok(Some(result)) = tokio::time::timeout_at(deadline, tasks.join_next()).await {
            let Ok((caller, answers)) = result else { continue };
            self.all.push(caller);
            answers.into_iter().for_each(|answer| all.add(answer));
        }
        if !tasks.is_empty() {
            all.first_failure.get_or_insert(format!("{} callers had no answer within 30 s", tasks.len()));
        }
        all
    }
}

struct Caller {
    number: usize,
    service: Service,
    api_url: String,
    tenant: Option<TenantId>,
}

struct Answer {
    latency: Duration,
    resent: bool,
    result: Result<(), BoxError>,
}

impl Caller {
    async fn ask(&mut self, round: usize) -> Answer {
        let begun = Instant::now();
        let mut resent = false;
        let result = self.send(round, &mut resent).await;
        Answer { latency: begun.elapsed(), resent, result }
    }

    async fn send(&mut self, round: usize, resent: &mut bool) -> Result<(), BoxError> {
        let sent = format!("request {} of caller {}", round, self.number);
        let tenant = self.tenant.as_ref().map_or("", TenantId::as_str);
        let uri = format!("{}/things?request={round}-{}&{TENANT}={tenant}", self.api_url, self.number);
        let mut request = Request::builder().method(Method::POST).uri(uri).body(Full::from(sent.clone()))?;
        if let Some(tenant) = &self.tenant {
            request.extensions_mut().insert(tenant.clone());
        }
        let response = (&mut self.service).oneshot(request).await?;
        *resent = response.extensions().get::<AuthOutcome>().is_some_and(|outcome| outcome.resent);
        check(response, sent.into()).await
    }
}

/// The API answers with the request's own body: also a request that was sent twice must have arrived whole.
async fn check(response: Response<Incoming>, sent: Bytes) -> Result<(), BoxError> {
    let status = response.status();
    let echo = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("the API answered {status}: {}", String::from_utf8_lossy(&echo)).into());
    }
    if echo != sent {
        return Err("the API received another body than the one sent".into());
    }
    Ok(())
}

impl Answers {
    fn add(&mut self, answer: Answer) {
        self.resends += usize::from(answer.resent);
        self.worst = self.worst.max(answer.latency);
        match answer.result {
            Ok(()) => self.successes += 1,
            Err(error) => {
                self.first_failure.get_or_insert_with(|| in_full(&*error));
            }
        }
    }
}

/// An error with its causes, those left out that say the same again.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut told: Vec<String> = Vec::new();
    for cause in causes.map(ToString::to_string) {
        if !told.iter().any(|told| cause.contains(told)) {
            told.push(cause);
        }
    }
    told.join(": ")
}
