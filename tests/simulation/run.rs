//! Runs a plan: builds the processes, does one action after the other, heals everything, and looks whether all recover.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{Auth, AuthConfig, AuthHandle, AuthLayer, ClientAuth, Replay, Tenant, TenantId, Token};

use crate::books::{self, Visits};
use crate::check;
use crate::clock::ProcessClock;
use crate::plan::{Action, ApiWeather, Plan, ServerWeather, Sickness, StoreWeather};
use crate::server::{DEADLINE, FIRST_REFRESH_TOKEN, TIMEOUT, World};
use crate::store::{Shared, SimStore};

const TOKEN_URL: &str = "https://auth.example.com/token";
const API: &str = "https://api.example.com";

/// For how long a tenant's cell stays that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) struct Report {
    pub(crate) violation: Option<String>,
    pub(crate) visits: Visits,
    pub(crate) requests: usize,
    pub(crate) trace: Vec<String>,
}

type Http = BoxCloneSyncService<Request<Full<Bytes>>, http::Response<Full<Bytes>>, std::io::Error>;

struct Process {
    handle: AuthHandle,
    client: Auth<ConcurrencyLimit<Http>>,
}

struct Simulation {
    world: World,
    stored: Arc<Shared>,
    runtimes: [Runtime; 2],
    /// How far each runtime's clock is behind.
    behind: [Duration; 2],
    processes: Vec<Process>,
    tasks: BTreeMap<usize, JoinHandle<()>>,
    /// The counters when they were looked at last, by process.
    counters: Vec<u64>,
}

pub(crate) fn run(plan: &Plan) -> Report {
    fastrand::seed(plan.seed);
    let world = World::new(plan);
    let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut simulation = Simulation {
        world,
        stored: Arc::default(),
        runtimes: [runtime(), runtime()],
        behind: [Duration::ZERO; 2],
        processes: Vec::new(),
        tasks: BTreeMap::new(),
        counters: vec![0; plan.processes],
    };
    simulation.drive(0, Duration::from_millis(1), |_| ());
    for process in 0..plan.processes {
        let made = simulation.process(process);
        simulation.processes.push(made);
    }
    for action in &plan.actions {
        simulation.act(*action);
        if simulation.world.books.lock().unwrap().violation.is_some() {
            break;
        }
    }
    simulation.recover();
    simulation.report()
}

impl Simulation {
    fn process(&self, process: usize) -> Process {
        let plan = &self.world.plan;
        let client_auth = ClientAuth::body("id", "canary-secret");
        let mut cfg = match plan.signed_in {
            true => AuthConfig::refresh_token(TOKEN_URL, client_auth, FIRST_REFRESH_TOKEN),
            false => AuthConfig::client_credentials(TOKEN_URL, client_auth),
        };
        if plan.tenants > 1 {
            cfg = cfg.tenant(Tenant::header("x-account").token_param("account"));
        }
        let cfg = cfg
            .origin(API)
            .clock(ProcessClock::of(&self.world.clock, process, plan.sickness))
            .token_timeout(TIMEOUT)
            .refresh_deadline(DEADLINE)
            .max_partitions(plan.max_partitions)
            .partition_idle(IDLE)
            .replay(Replay::AnyReplayable);
        let cfg = cfg.build().unwrap();
        let world = self.world.clone();
        let start = self.world.books.lock().unwrap().starts.get(&process).copied().unwrap_or_default();
        let server = service_fn(move |request| world.clone().token(process, start, request));
        let layer = match plan.store {
            true => {
                let store = SimStore::new(&self.world, (process, start), &self.stored);
                AuthLayer::builder(cfg).http_client(server).store(store).build().unwrap()
            }
            false => AuthLayer::builder(cfg).http_client(server).build().unwrap(),
        };
        let world = self.world.clone();
        let api = BoxCloneSyncService::new(service_fn(move |request| world.clone().api(request)));
        Process { handle: layer.handle(), client: layer.layer(ConcurrencyLimit::new(api, plan.concurrency)) }
    }

    /// One runtime runs for so long; the other stands still.
    fn drive<T>(&mut self, which: usize, span: Duration, work: impl FnOnce(&mut Self) -> T) -> T {
        let clock = self.world.clock.clone();
        let behind = std::mem::take(&mut self.behind[which]);
        let (began, result) = {
            let guard = self.runtimes[which].handle().clone();
            let began = self.runtimes[which].block_on(async {
                tokio::time::advance(behind).await;
                clock.begin();
                if !behind.is_zero() {
                    clock.jumped();
                }
                tokio::time::Instant::now()
            });
            let _entered = guard.enter();
            (began, work(self))
        };
        let passed = self.runtimes[which].block_on(async {
            tokio::time::sleep(span).await;
            clock.end();
            began.elapsed()
        });
        self.behind[1 - which] += passed;
        result
    }

    fn request(
        &self,
        runtime: usize,
        process: usize,
        tenant: usize,
        body: bool,
    ) -> (usize, impl Future<Output = ()> + use<>) {
        let now = self.world.clock.passed();
        let number = {
            let mut books = self.world.books.lock().unwrap();
            books.requests.push(books::Request { process, tenant, began: now, runtime, ..Default::default() });
            let view = books.view(process, tenant);
            view.forgotten |= now > view.used + IDLE - Duration::from_secs(5);
            view.used = now;
            books.requests.len() - 1
        };
        let mut request = match body {
            true => Request::post(format!("{API}/items")).body(Full::from("hello")).unwrap(),
            false => Request::get(format!("{API}/items")).body(Full::<Bytes>::default()).unwrap(),
        };
        request.headers_mut().insert("x-number", number.into());
        if self.world.plan.tenants > 1 {
            request.extensions_mut().insert(tenant_id(tenant));
        }
        let client = self.processes[process].client.clone();
        let (books, clock) = (self.world.books.clone(), self.world.clock.clone());
        let own = self.world.plan.tenants > 1;
        (number, async move {
            let answer = match client.oneshot(request).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    let foreign = own && status == 200 && body != format!("t{tenant}").as_bytes();
                    if foreign {
                        books
                            .lock()
                            .unwrap()
                            .broken("each request has its own tenant's data", format!("request {number}"));
                    }
                    Ok(status)
                }
                Err(error) => {
                    let told = format!("{error} {error:?}");
                    if told.contains("canary") {
                        books.lock().unwrap().broken("no secret in an error", told);
                    }
                    let kind = error.token().map(|error| error.kind());
                    Err(format!("{kind:?}"))
                }
            };
            let at = clock.passed();
            let mut books = books.lock().unwrap();
            books.trace.push(format!("{at:?} request {number}: {answer:?}"));
            let request = &mut books.requests[number];
            request.answers += 1;
            request.answer = Some(answer);
        })
    }

    fn start(&mut self, runtime: usize, process: usize, tenant: usize, body: bool) {
        let (number, work) = self.request(runtime, process, tenant, body);
        let task = self.runtimes[runtime].spawn(work);
        self.tasks.insert(number, task);
    }

    fn act(&mut self, action: Action) {
        let plan = self.world.plan.clone();
        let pause = Duration::from_millis(2);
        let now = self.world.clock.passed();
        self.world.books.lock().unwrap().trace.push(format!("{now:?} {action:?}"));
        match action {
            Action::Wait(millis) => self.drive(0, Duration::from_millis(millis), |_| ()),
            Action::Requests { process, tenant, count, body } => self.drive(0, pause, |this| {
                for n in 0..count {
                    this.start(0, process, (tenant + n * usize::from(count > 5)) % plan.tenants, body);
                }
            }),
            Action::OtherRuntime(millis) => self.drive(1, Duration::from_millis(millis), |this| {
                this.start(1, 0, 0, false);
                this.start(1, plan.processes - 1, 0, true);
            }),
            Action::Cancel(which) => {
                let numbers: Vec<_> =
                    self.tasks.iter().filter(|(_, task)| !task.is_finished()).map(|(number, _)| *number).collect();
                let Some(number) = numbers.get(which % numbers.len().max(1)).copied() else { return };
                self.tasks.remove(&number).unwrap().abort();
                let mut books = self.world.books.lock().unwrap();
                let request = &mut books.requests[number];
                request.cancelled = true;
                let (process, tenant) = (request.process, request.tenant);
                books.met("cancelled", process, tenant, now);
            }
            Action::Server(weather) => self.world.weather.lock().unwrap().server = weather,
            Action::Api(weather) => self.world.weather.lock().unwrap().api = weather,
            Action::Store(store) => self.store_weather(store),
            Action::StoreDies { away, empty } => {
                self.store_weather(StoreWeather::Fails);
                self.drive(0, Duration::from_millis(away), |_| ());
                if empty {
                    self.empty_store();
                }
                self.store_weather(StoreWeather::Fine);
            }
            Action::Revoke { tenant } => self.revoke(now, Some(tenant)),
            Action::RevokeAll => self.revoke(now, None),
            Action::Invalidate { process, tenant } => self.drive(0, pause, |this| {
                this.invalidate(process, tenant);
                this.excuse("invalidated", process, Some(tenant), now);
                this.world.books.lock().unwrap().down.remove(&process);
            }),
            Action::ReplaceCredentials { process } => self.drive(0, pause, |this| {
                let auth = ClientAuth::body("id", "canary-secret");
                this.processes[process].handle.replace_credentials(auth).unwrap();
                this.excuse("credentials replaced", process, None, now);
                this.world.books.lock().unwrap().down.remove(&process);
            }),
            Action::SetToken { process } if plan.tenants == 1 => self.drive(0, pause, |this| {
                // Another one each time: what is handed in again is sent again.
                let token = format!("canary-handed-{}", now.as_nanos());
                let token = Token::bearer(&token).unwrap().with_expires_in(Duration::from_secs(5));
                let handle = this.processes[process].handle.clone();
                this.runtimes[0].spawn(async move { handle.set_token(token).await.map(drop) });
                this.excuse_all(process, now);
            }),
            Action::SetToken { .. } => {}
            Action::Restart { process } => self.drive(0, pause, |this| {
                *this.world.books.lock().unwrap().starts.entry(process).or_default() += 1;
                let made = this.process(process);
                this.processes[process] = made;
                this.counters[process] = 0;
                let numbers: Vec<_> = this.tasks.keys().copied().collect();
                for number in numbers {
                    let mut books = this.world.books.lock().unwrap();
                    if books.requests[number].process == process && !this.tasks[&number].is_finished() {
                        books.requests[number].cancelled = true;
                        drop(books);
                        this.tasks.remove(&number).unwrap().abort();
                    }
                }
                this.forget_process(process);
            }),
            Action::Suspend(seconds) => {
                self.jump("clock suspended", now, |this| this.world.clock.suspend(Duration::from_secs(seconds)))
            }
            Action::SetBack(seconds) => {
                self.jump("clock set back", now, |this| this.world.clock.set_back(Duration::from_secs(seconds)))
            }
            Action::EmptyStore => self.empty_store(),
            Action::CutOff { process, cut_off } => {
                let mut weather = self.world.weather.lock().unwrap();
                match cut_off {
                    true => weather.cut_off.insert(process),
                    false => weather.cut_off.remove(&process),
                };
            }
            Action::OneIsSick(sickness) => self.one_is_sick(sickness),
        }
        self.look_at_counters();
    }

    fn empty_store(&self) {
        self.stored.clear();
        self.world.books.lock().unwrap().emptied = Some(self.world.clock.passed());
    }

    /// At the very beginning, so that nothing else is a reason to be without a token.
    fn one_is_sick(&mut self, sickness: Sickness) {
        let latency = self.world.plan.latency;
        let millis = Duration::from_millis;
        let server = |this: &Self, weather| this.world.weather.lock().unwrap().server = weather;
        match sickness {
            Sickness::CutOff => {
                self.world.weather.lock().unwrap().cut_off.insert(0);
                self.request_of(0, millis(50));
                // Who has the lease does not reach the server: after two seconds the other one asks beside it.
                self.must_be_served(millis(2_800) + latency);
                self.drive(0, TIMEOUT, |_| ());
                // And from then on it stands back.
                self.excuse("invalidated", 1, Some(0), self.world.clock.passed());
                self.invalidate(1, 0);
                self.request_of(0, millis(20));
                self.must_be_served(millis(500) + latency);
                self.world.weather.lock().unwrap().cut_off.clear();
            }
            Sickness::ClockAhead => {
                server(self, ServerWeather::Unavailable);
                self.request_of(0, latency + millis(200));
                server(self, ServerWeather::Fine);
                self.request_of(1, millis(5_000));
                self.must_be_served(millis(500) + latency);
            }
            Sickness::OldSecret => {
                server(self, ServerWeather::RefusesOldSecret);
                self.request_of(0, latency + millis(200));
                let auth = ClientAuth::body("id", "canary-new");
                self.drive(0, millis(2), |this| this.processes[1].handle.replace_credentials(auth).unwrap());
                self.must_be_served(millis(500) + latency);
                server(self, ServerWeather::Fine);
            }
        }
    }

    fn request_of(&mut self, process: usize, then: Duration) -> usize {
        self.drive(0, then, |this| this.start(0, process, 0, false));
        self.world.books.lock().unwrap().requests.len() - 1
    }

    /// The second process.
    fn must_be_served(&mut self, within: Duration) {
        let number = self.request_of(1, within);
        let mut books = self.world.books.lock().unwrap();
        let answer = books.requests[number].answer.clone();
        if answer != Some(Ok(200)) {
            books.broken("one sick process stops no other", format!("{answer:?} after {within:?}"));
        }
    }

    fn invalidate(&self, process: usize, tenant: usize) {
        let handle = &self.processes[process].handle;
        match self.world.plan.tenants {
            1 => handle.invalidate(),
            _ => handle.for_tenant(&tenant_id(tenant)).invalidate(),
        }
    }

    fn store_weather(&self, store: StoreWeather) {
        let now = self.world.clock.passed();
        {
            let mut weather = self.world.weather.lock().unwrap();
            if weather.store != StoreWeather::Fine {
                weather.store_healed = Some(now);
            }
            weather.store = store;
            weather.outages += u64::from(store == StoreWeather::Fails);
        }
        self.stored.weather_changed();
    }

    fn jump(&mut self, what: &str, now: Duration, jump: impl FnOnce(&Self)) {
        self.drive(0, Duration::from_millis(1), |this| jump(this));
        for token in self.world.books.lock().unwrap().refresh.values_mut() {
            token.slept |= !token.in_flight.is_empty();
        }
        let after = self.world.clock.passed();
        for process in 0..self.processes.len() {
            self.excuse(what, process, None, now);
            self.excuse_all(process, after);
        }
    }

    fn excuse_all(&self, process: usize, now: Duration) {
        let mut books = self.world.books.lock().unwrap();
        (0..self.world.plan.tenants).for_each(|tenant| books.view(process, tenant).excuses.push(now));
    }

    /// Something that is a good reason to ask for a token once more.
    fn excuse(&self, what: &str, process: usize, tenant: Option<usize>, now: Duration) {
        let mut books = self.world.books.lock().unwrap();
        books.met(what, process, tenant.unwrap_or(0), now);
        // Also of tenants whose first token request is still on its way.
        let tenants = tenant.map_or(0..self.world.plan.tenants, |tenant| tenant..tenant + 1);
        tenants.for_each(|tenant| books.view(process, tenant).excuses.push(now));
    }

    fn revoke(&self, now: Duration, tenant: Option<usize>) {
        let mut books = self.world.books.lock().unwrap();
        for token in books.access.values_mut() {
            token.revoked |= tenant.is_none_or(|tenant| tenant == token.tenant);
        }
        for process in 0..self.processes.len() {
            books.met("revoked", process, tenant.unwrap_or(0), now);
        }
        for ((_, of), view) in &mut books.views {
            if tenant.is_none_or(|tenant| tenant == *of) {
                view.excuses.push(now);
            }
        }
    }

    /// A new process knows nothing of what the old one was given.
    fn forget_process(&self, process: usize) {
        let mut books = self.world.books.lock().unwrap();
        let now = self.world.clock.passed();
        for ((own, _), view) in &mut books.views {
            if *own == process {
                view.excuses.push(now);
                view.token = None;
                view.known = false;
            }
        }
        books.first_failed.remove(&process);
        books.down.remove(&process);
        books.held.retain(|(of, _), _| *of != process);
        for token in books.refresh.values_mut() {
            token.answered.retain(|answered| answered.to != process);
        }
    }

    fn look_at_counters(&mut self) {
        for process in 0..self.processes.len() {
            let stats = self.processes[process].handle.stats();
            let before = std::mem::replace(&mut self.counters[process], stats.token_requests);
            let mut books = self.world.books.lock().unwrap();
            if stats.token_requests < before {
                books.broken("counters grow", format!("token requests fell from {before} to {}", stats.token_requests));
            }
            let told = format!("{stats:?}");
            if told.contains("canary") {
                books.broken("no secret in the figures", told);
            }
        }
    }

    /// The weather is fine again. After the longest pause everybody has a token, and nobody waits.
    fn recover(&mut self) {
        if self.world.books.lock().unwrap().violation.is_some() {
            return;
        }
        {
            let mut weather = self.world.weather.lock().unwrap();
            (weather.server, weather.api) = (ServerWeather::Fine, ApiWeather::Fine);
            weather.cut_off.clear();
        }
        self.store_weather(StoreWeather::Fine);
        self.drive(0, Duration::from_millis(10), |_| ());
        if self.world.plan.has_other_runtime() && self.world.plan.concurrency == 1_000 {
            self.drive(1, DEADLINE * 3, |_| ());
            check::nobody_waits_on(&self.world, 1);
        }
        // In turns: one may hold a permit that the other waits for, with a token that does not live long.
        for _ in 0..100 {
            self.drive(0, Duration::from_millis(50), |_| ());
            self.drive(1, Duration::from_millis(50), |_| ());
        }
        self.drive(0, DEADLINE + Duration::from_secs(1), |_| ());
        self.drive(1, DEADLINE + Duration::from_secs(1), |_| ());
        // Idle ones go after a minute only.
        self.look_at_partitions();
        for _ in 0..4 {
            self.drive(0, DEADLINE * 2, |_| ());
            self.drive(1, DEADLINE * 2, |_| ());
        }
        check::nobody_waits(&self.world);
        // The longest pause after a refusal is ten minutes.
        self.drive(0, Duration::from_secs(660), |_| ());
        let tenants = self.world.plan.tenants.min(3);
        let mut last = BTreeMap::new();
        for attempt in 0..5 {
            let ok = |books: &books::Books, number: usize| books.requests[number].answer == Some(Ok(200));
            for process in 0..self.processes.len() {
                for tenant in 0..tenants {
                    // Who fails then has found a failure that was stored when clocks showed another time, and had a token
                    // until now. That binds for half a minute from when it is seen first.
                    let is_served = last
                        .get(&(process, tenant))
                        .is_some_and(|number| ok(&self.world.books.lock().unwrap(), *number));
                    if attempt >= 3 && is_served {
                        continue;
                    }
                    self.drive(0, Duration::from_millis(1), |this| this.start(0, process, tenant, attempt == 1));
                    last.insert((process, tenant), self.world.books.lock().unwrap().requests.len() - 1);
                }
            }
            self.drive(0, DEADLINE * 4, |_| ());
        }
        check::all_recovered(&self.world, &last);
        check::nobody_waits(&self.world);
        check::token_requests_are_bounded(&self.world);
        check::first_requests_are_bounded(&self.world);
        self.look_at_partitions();
    }

    fn look_at_partitions(&self) {
        for process in &self.processes {
            let stats = process.handle.stats();
            let room = self.world.plan.max_partitions + 1;
            // With the only copy of a refresh token they stay.
            if stats.partitions > room && !self.world.plan.refresh_tokens {
                let mut books = self.world.books.lock().unwrap();
                books.broken("partitions are bounded", format!("{} where there is room for {room}", stats.partitions));
            }
        }
    }

    fn report(self) -> Report {
        let books = self.world.books.clone();
        drop(self.processes);
        drop(self.runtimes);
        let mut books = books.lock().unwrap();
        let requests = books.requests.len();
        let trace = std::mem::take(&mut books.trace);
        if std::env::var_os("SIMULATE_TRACE").is_some() {
            trace.iter().for_each(|line| eprintln!("{line}"));
        }
        Report { violation: books.violation.take(), visits: books.visits.clone(), requests, trace }
    }
}

fn tenant_id(tenant: usize) -> TenantId {
    TenantId::new(format!("t{tenant}")).unwrap()
}
