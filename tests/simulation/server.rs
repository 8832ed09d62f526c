//! The authorization server and the API: what they do in each weather, and what they notice.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;

use crate::books::{AccessToken, Answered, Began, Books, Carrier, Sending};
use crate::clock::SimClock;
use crate::plan::{ApiWeather, Plan, ServerWeather, Sickness, StoreWeather};

pub(crate) type Answer = Result<Response<Full<Bytes>>, std::io::Error>;

pub(crate) const FIRST_REFRESH_TOKEN: &str = "canary-r0";

/// Longer than the client waits.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(4);
pub(crate) const DEADLINE: Duration = Duration::from_secs(9);

/// How many token requests of one process there may be at a time.
const MOST_AT_ONCE: usize = 64;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: SimClock,
    pub(crate) books: Arc<Mutex<Books>>,
    pub(crate) weather: Arc<Mutex<Weather>>,
    pub(crate) plan: Arc<Plan>,
}

pub(crate) struct Weather {
    pub(crate) server: ServerWeather,
    pub(crate) api: ApiWeather,
    pub(crate) store: StoreWeather,
    pub(crate) store_healed: Option<Duration>,
    /// Processes whose way to the authorization server is a black hole.
    pub(crate) cut_off: BTreeSet<usize>,
    /// How often the store broke all connections.
    pub(crate) outages: u64,
    pub(crate) random: fastrand::Rng,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let weather = Weather {
            server: ServerWeather::Fine,
            api: ApiWeather::Fine,
            store: StoreWeather::Fine,
            store_healed: None,
            cut_off: BTreeSet::new(),
            outages: 0,
            random: fastrand::Rng::with_seed(plan.seed ^ 0x5eed),
        };
        let mut books = Books::default();
        books.refresh.insert(FIRST_REFRESH_TOKEN.into(), Default::default());
        Self {
            clock: SimClock::new(),
            books: Arc::new(Mutex::new(books)),
            weather: Arc::new(Mutex::new(weather)),
            plan: Arc::new(plan.clone()),
        }
    }

    fn now(&self) -> Duration {
        self.clock.passed()
    }

    /// Now, or so lately that a process may go without it still.
    fn store_was_away(&self, now: Duration) -> bool {
        const LONGEST_PAUSE: Duration = Duration::from_secs(30);
        let weather = self.weather.lock().unwrap();
        let away = weather.store != StoreWeather::Fine;
        away || weather.store_healed.is_some_and(|healed| now < healed + LONGEST_PAUSE)
    }

    /// Over a store that works, or is out of reach for all.
    fn processes_can_talk(&self) -> bool {
        let weather = self.weather.lock().unwrap();
        self.plan.tells
            && !self.plan.has_other_runtime()
            && matches!(weather.store, StoreWeather::Fine | StoreWeather::Fails)
    }

    /// Over a store that tells nobody, but has worked from shortly after that moment on: whoever could not save then has saved
    /// since, and before its lease ended.
    fn was_told(&self, answered: &Answered, now: Duration) -> bool {
        const SOON: Duration = Duration::from_secs(3);
        let Answered { sent, at, .. } = *answered;
        let weather = self.weather.lock().unwrap();
        self.plan.store
            && !self.plan.tells
            && !self.plan.has_other_runtime()
            && self.clock.since_jump() > now.saturating_sub(at)
            && weather.store == StoreWeather::Fine
            && weather.store_healed.is_none_or(|healed| healed <= sent + SOON)
            && now > at + SOON
    }

    fn server_weather(&self) -> ServerWeather {
        use ServerWeather::*;
        let mut guard = self.weather.lock().unwrap();
        let weather = &mut *guard;
        match weather.server {
            Mixed if weather.random.u8(..3) == 0 => {
                let kinds = [Slow, TooSlow, Unavailable, Busy, Drops, LosesAnswers, Garbage];
                kinds[weather.random.usize(..kinds.len())]
            }
            Mixed => Fine,
            weather => weather,
        }
    }

    /// The token endpoint, as one process reaches it.
    pub(crate) async fn token(self, process: usize, start: usize, request: Request<Full<Bytes>>) -> Answer {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let param =
            |name: &str| body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        let tenant = param("account").map_or(0, |tenant| tenant.trim_start_matches('t').parse().unwrap());
        let refresh_token = param("refresh_token").map(|token| token.replace("%2D", "-"));
        if !self.books.lock().unwrap().is_alive(process, start) {
            return pending().await;
        }
        let arrived = self.now();
        let weather = self.server_weather();
        let sent = refresh_token.as_deref().unwrap_or("credentials");
        if self.weather.lock().unwrap().cut_off.contains(&process) {
            return self.black_hole(process, tenant, refresh_token.as_deref(), arrived).await;
        }
        let line = format!("{arrived:?} process {process}, tenant {tenant}: a token request with {sent}");
        self.books.lock().unwrap().trace.push(line);
        let visit = Visit::begin(&self, (process, start), tenant, refresh_token.clone(), arrived);
        if let Some(met) = name_of(weather) {
            self.books.lock().unwrap().met_before(met, process, tenant, arrived);
        }
        sleep(self.plan.latency).await;
        use ServerWeather::*;
        let answer = match weather {
            Slow => {
                sleep(Duration::from_millis(1_500)).await;
                self.grant(process, tenant, refresh_token.as_deref())
            }
            TooSlow => {
                sleep(TIMEOUT - Duration::from_millis(100)).await;
                let answer = self.grant(process, tenant, refresh_token.as_deref());
                sleep(Duration::from_secs(3)).await;
                answer
            }
            Hangs => pending().await,
            Unavailable => Ok(plain(503)),
            Busy => {
                let mut answer = plain(429);
                answer.headers_mut().insert("retry-after", "2".parse().unwrap());
                Ok(answer)
            }
            Drops => Err(std::io::Error::other("the connection broke")),
            LosesAnswers => {
                let _ = self.grant(process, tenant, refresh_token.as_deref());
                Err(std::io::Error::other("the connection broke after the answer"))
            }
            Garbage => {
                let _ = self.grant(process, tenant, refresh_token.as_deref());
                Ok(json(200, "{\"access_token\":".into()))
            }
            Refuses => Ok(json(400, "{\"error\":\"unauthorized_client\"}".into())),
            RefusesTokens => {
                sleep(Duration::from_millis(1_500)).await;
                self.refuse(refresh_token.as_deref());
                self.grant(process, tenant, refresh_token.as_deref())
            }
            RefusesOldSecret if param("client_secret").is_some_and(|secret| !secret.ends_with("new")) => {
                Ok(json(401, "{\"error\":\"invalid_client\"}".into()))
            }
            RefusesOldSecret => self.grant(process, tenant, refresh_token.as_deref()),
            Fine | Mixed => self.grant(process, tenant, refresh_token.as_deref()),
        };
        if !self.books.lock().unwrap().is_alive(process, start) {
            drop(visit);
            return pending().await;
        }
        let (now, status) = (self.now(), answer.as_ref().map(|answer| answer.status()).ok());
        let line = format!("{now:?} process {process}, tenant {tenant}: answered {status:?}");
        self.books.lock().unwrap().trace.push(line);
        visit.end(&answer);
        answer
    }

    fn grant(&self, process: usize, tenant: usize, refresh_token: Option<&str>) -> Answer {
        let now = self.now();
        let mut books = self.books.lock().unwrap();
        let mut rotated = None;
        if let Some(sent) = refresh_token {
            let Some(known) = books.refresh.get_mut(sent).filter(|known| !known.dead) else {
                return Ok(invalid_grant());
            };
            known.redeemed = true;
            let number = books.refresh.len();
            let next = format!("canary-r{number}");
            books.refresh.insert(next.clone(), Default::default());
            rotated = Some(next);
        }
        if self.plan.refresh_tokens && rotated.is_none() {
            let next = format!("canary-r{}", books.refresh.len());
            books.refresh.insert(next.clone(), Default::default());
            rotated = Some(next);
        }
        books.issued += 1;
        let token = format!("canary-a{}", books.issued);
        books.access.insert(token.clone(), AccessToken { tenant, ends: now + self.plan.lifetime, revoked: false });
        let _ = process;
        let member = rotated.as_ref().map(|token| format!(",\"refresh_token\":\"{token}\"")).unwrap_or_default();
        let seconds = self.plan.lifetime.as_secs();
        let mut answer = json(
            200,
            format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds}{member}}}"),
        );
        if let Some(rotated) = rotated {
            answer.extensions_mut().insert(Rotated(rotated));
        }
        Ok(answer)
    }

    /// Nothing arrives, and nothing comes back. The process cannot know.
    async fn black_hole(self, process: usize, tenant: usize, refresh_token: Option<&str>, now: Duration) -> Answer {
        {
            let mut books = self.books.lock().unwrap();
            books.met("cut off from server", process, tenant, now);
            if let Some(known) = refresh_token.and_then(|sent| books.refresh.get_mut(sent)) {
                (known.sent, known.lost) = (true, true);
            }
            books.trace.push(format!("{now:?} process {process}, tenant {tenant}: it does not arrive"));
        }
        pending().await
    }

    /// From now on it is dead.
    fn refuse(&self, refresh_token: Option<&str>) {
        let mut books = self.books.lock().unwrap();
        if let Some(known) = refresh_token.and_then(|sent| books.refresh.get_mut(sent)) {
            known.dead = true;
        }
    }

    /// The API. It knows a request by its number.
    pub(crate) async fn api(self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = request.into_parts();
        let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let number: usize = text("x-number").unwrap().parse().unwrap();
        let tenant = text("x-account").map_or(0, |tenant| tenant.trim_start_matches('t').parse().unwrap());
        let token = text("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let weather = self.weather.lock().unwrap().api;
        let now = self.now();
        self.books.lock().unwrap().trace.push(format!("{now:?} request {number} is sent with {token}"));
        let rejected = self.judge(number, tenant, &token, weather, now);
        let body = body.collect().await.unwrap().to_bytes();
        if body.len() != if head.method == http::Method::POST { 5 } else { 0 } {
            self.books.lock().unwrap().broken("what is resent is what was sent", format!("{} bytes", body.len()));
        }
        match weather {
            ApiWeather::Slow => sleep(Duration::from_millis(2_500)).await,
            _ => sleep(Duration::from_millis(3)).await,
        }
        if weather == ApiWeather::Unavailable {
            return Ok(plain(503));
        }
        if rejected {
            let mut answer = plain(401);
            if weather != ApiWeather::RejectsAll {
                answer.headers_mut().insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
            }
            return Ok(answer);
        }
        Ok(json(200, format!("t{tenant}")))
    }

    /// Whether the token is refused, and whether it should have come at all.
    fn judge(&self, number: usize, tenant: usize, token: &str, weather: ApiWeather, now: Duration) -> bool {
        let mut books = self.books.lock().unwrap();
        let own = books.access.get(token).cloned();
        let (ends, revoked, owner) = own.map_or((now, false, usize::MAX), |own| (own.ends, own.revoked, own.tenant));
        let process = books.requests[number].process;
        let handed_in = token.starts_with("canary-handed");
        if owner != tenant && !handed_in {
            books.broken(
                "each request has its own tenant's token",
                format!("tenant {tenant} was sent with {token} of {owner}"),
            );
        }
        let rejected = weather == ApiWeather::RejectsAll || (!handed_in && (revoked || now >= ends));
        // Whoever looks late at a clock that jumped has a second.
        // With a store that hangs, a token may also come late to where it is used; it has a second from then on.
        let late = Duration::from_millis(if self.plan.store { 6_000 } else { 1_100 });
        // A clock that was set back cannot tell the age of a token from a store, for which wall time is all there is, nor
        // that the machine slept.
        let has_wrong_clock = self.plan.sickness == Some(Sickness::ClockAhead) || self.clock.was_set_back();
        let blind = has_wrong_clock && (self.plan.store || self.clock.was_suspended());
        if !handed_in && !blind && now > ends + Duration::from_millis(1_100) && self.clock.since_jump() > late {
            let after = now - ends;
            books.broken("no token after its end", format!("request {number} with {token}, {after:?} after its end"));
        }
        let request = &mut books.requests[number];
        let again = request.sendings.last().is_some_and(|first| first.rejected && first.token == token);
        request
            .sendings
            .push(Sending { token: token.to_owned(), rejected: rejected && weather != ApiWeather::Unavailable });
        let sendings = request.sendings.len();
        // Which of two tokens is newer tells a store by wall time.
        if again && !(self.plan.store && has_wrong_clock) {
            books.broken("no rejected token again", format!("request {number} with {token}"));
        }
        if sendings > 2 {
            books.broken("at most two sendings", format!("request {number}: {sendings}"));
        }
        match weather {
            ApiWeather::RejectsAll => books.met("API rejects", process, tenant, now),
            ApiWeather::Unavailable => books.met("API 503", process, tenant, now),
            _ => {}
        }
        rejected
    }
}

impl Books {
    /// The state is that from before this very request was in flight.
    fn met_before(&mut self, what: &str, process: usize, tenant: usize, now: Duration) {
        self.view(process, tenant).in_flight -= 1;
        self.met(what, process, tenant, now);
        self.view(process, tenant).in_flight += 1;
    }
}

fn name_of(weather: ServerWeather) -> Option<&'static str> {
    use ServerWeather::*;
    Some(match weather {
        Slow => "server slow",
        TooSlow => "server times out",
        Hangs => "server hangs",
        Unavailable => "server 503",
        Busy => "server 429",
        Drops => "connection breaks",
        LosesAnswers => "answer lost",
        Garbage => "answer garbled",
        Refuses => "server refuses",
        RefusesTokens => "refresh token refused",
        Fine | Mixed | RefusesOldSecret => return None,
    })
}

/// A token request that is under way; dropped, its client has given it up.
struct Visit {
    world: World,
    process: usize,
    start: usize,
    tenant: usize,
    refresh_token: Option<String>,
    /// The refresh that it belongs to.
    began: Began,
    arrived: Duration,
    ended: bool,
}

impl Visit {
    fn begin(
        world: &World,
        (process, start): (usize, usize),
        tenant: usize,
        refresh_token: Option<String>,
        now: Duration,
    ) -> Self {
        let mut books = world.books.lock().unwrap();
        let at_once = books.at_once.entry((process, start)).or_default();
        *at_once += 1;
        if *at_once > MOST_AT_ONCE && !world.plan.has_other_runtime() {
            books.broken("token requests at a time are bounded", format!("process {process}"));
        }
        let refused = books.refused.remove(&(process, tenant)).filter(|(at, _)| *at == now && refresh_token.is_none());
        let number = books.held.get(&(process, tenant)).map_or(0, |held| held.number);
        let began = refused.map_or(Began { at: now, number, refused: None }, |(_, began)| began);
        let view = books.view(process, tenant);
        view.in_flight += 1;
        view.asked.push(now);
        // One that was superseded, or that nobody drives any more, is no reason to wait.
        let first = view.flights.iter().copied().min().unwrap_or(now).min(began.at);
        // It began before it arrived, where it had to look into a store first, or others were to come first: by its
        // deadline at most.
        let is_held_back = world.plan.store || world.plan.tenants > 1;
        let on_its_way = if is_held_back { DEADLINE } else { Duration::from_millis(2) };
        let excused = view.excuses.iter().any(|excuse| *excuse + on_its_way >= first) || now > first + DEADLINE;
        view.flights.push(began.at);
        let both = view.in_flight;
        // On a runtime that stands still it may have begun that much earlier, and be given up.
        let may_be_over = is_held_back && world.plan.has_other_runtime();
        if both > 1 && !excused && !may_be_over {
            books.broken("one token request at a time", format!("process {process}, tenant {tenant}: {both}"));
        }
        // What is on its way still, or a stranger for whom the server may be up, is not to be told from it otherwise.
        let is_roomy = world.plan.max_partitions > world.plan.tenants;
        let tells_apart = !world.plan.store && world.plan.latency < Duration::from_millis(10) && is_roomy;
        let view = books.view(process, tenant);
        let is_known = tells_apart && view.known && !view.forgotten;
        let down = books.down.entry(process).or_default();
        if is_known && down.since.is_some_and(|since| now > since && now < since + Duration::from_secs(1)) {
            down.asked += 1;
            if down.asked > 12 {
                books.broken("a server that is down is not asked for each tenant", format!("process {process}"));
            }
        }
        // Of many tenants one may have waited for a permit, and when its refresh began cannot be told.
        if world.plan.refresh_tokens && world.plan.tenants <= 3 && !world.plan.has_other_runtime() {
            Self::check_order(world, &mut books, (process, tenant), refresh_token.as_deref(), now);
        }
        if let Some(token) = &refresh_token {
            let emptied = books.emptied;
            let starts = books.starts.clone();
            let known = books.refresh.entry(token.clone()).or_default();
            known.sent = true;
            known.in_flight.push(Carrier { process, start, since: now });
            // One that nobody drives any more is given up at its deadline.
            let carriers = known.in_flight.iter().filter(|carrier| now <= carrier.since + DEADLINE);
            // Of one that has died nobody knows but the store, by its lease. If that is lost too, nobody does.
            let is_known_of = |carrier: &&Carrier| {
                let is_alive = starts.get(&carrier.process).copied().unwrap_or_default() == carrier.start;
                is_alive || emptied.is_none_or(|emptied| emptied < carrier.since)
            };
            // Who asks the others does so every 100 ms: what the store loses after the last time nobody hears of.
            let is_heard_of = |carrier: &&Carrier| {
                carrier.since > emptied.unwrap_or_default()
                    || emptied.is_none_or(|emptied| now > emptied + Duration::from_millis(150))
                    || carrier.process == process
            };
            let carriers = carriers.filter(is_known_of).filter(is_heard_of);
            // While a store that tells nobody is away processes do not know of each other, nor does a holder hear that its
            // lease is gone on a runtime that stands still.
            let alone = match world.plan.tells {
                true => world.plan.has_other_runtime(),
                false => world.store_was_away(now),
            };
            let carriers: Vec<_> =
                carriers.map(|carrier| carrier.process).filter(|of| !alone || *of == process).collect();
            let (answered, lost, slept) = (known.answered.clone(), known.lost, known.slept);
            // Where clocks were set back by more than the machine slept, who has a lease cannot tell that it slept.
            let cannot_tell = world.clock.was_set_back() && world.clock.was_suspended();
            let cannot_tell = cannot_tell && world.plan.store && world.clock.since_jump() <= DEADLINE * 2;
            if carriers.len() > 1 && !slept && !cannot_tell {
                books.broken("a refresh token is with the server once", format!("{token} by processes {carriers:?}"));
            }
            let others = || answered.iter().filter(|answered| answered.to != process && !lost && !slept);
            let newer = others().find(|_| world.processes_can_talk());
            if let Some(Answered { to: owner, at, .. }) = newer {
                books.broken(
                    "the newest refresh token of all that live",
                    format!("process {process} sent {token}, whose successor process {owner} was given at {at:?}"),
                );
            }
            let unsaved = others().find(|answered| world.was_told(answered, now));
            if let Some(Answered { to: owner, at, .. }) = unsaved {
                books.broken(
                    "what could not be saved is saved before others ask",
                    format!("process {process} sent {token}, whose successor process {owner} was given at {at:?}"),
                );
            }
            if lost && world.plan.refresh_tokens {
                books.broken("what may be spent is not sent where there is another grant", token.clone());
            }
            if !lost && answered.iter().any(|answered| answered.to == process) {
                books.broken(
                    "no spent refresh token",
                    format!("process {process} sent {token}, whose successor it was given"),
                );
            }
        }
        drop(books);
        Self { world: world.clone(), process, start, tenant, refresh_token, began, arrived: now, ended: false }
    }

    /// Where there is another grant besides: whether it is the newest refresh token that is sent.
    fn check_order(
        world: &World,
        books: &mut Books,
        (process, tenant): (usize, usize),
        sent: Option<&str>,
        now: Duration,
    ) {
        // One that was decided on before may be on its way still.
        let settled = DEADLINE + Duration::from_secs(1);
        let Some(held) = books.held.get(&(process, tenant)).cloned() else { return };
        let is_settled = now > held.since + settled && world.clock.since_jump() > settled;
        match sent {
            Some(sent) if sent != held.token && is_settled => {
                let how = format!("process {process}, tenant {tenant} has {} and sent {sent}", held.token);
                books.broken("a late answer replaces no refresh token", how);
            }
            None if is_settled && !books.refresh.get(&held.token).is_none_or(|held| held.sent) => {
                let how = format!("process {process}, tenant {tenant} has {} and sent none", held.token);
                books.broken("no refresh token is lost", how);
            }
            _ => {}
        }
    }

    fn end(mut self, answer: &Answer) {
        self.ended = true;
        let now = self.world.now();
        let granted = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        let mut books = self.world.books.lock().unwrap();
        let garbled = answer.as_ref().is_ok_and(|answer| answer.headers().contains_key("x-garbled"));
        let lifetime = self.world.plan.lifetime;
        if !granted && self.refresh_token.is_some() {
            let refused =
                self.refresh_token.clone().filter(|sent| books.refresh.get(sent).is_some_and(|sent| sent.dead));
            let began = Began { refused, ..self.began.clone() };
            books.refused.insert((self.process, self.tenant), (now, began));
        }
        let view = books.view(self.process, self.tenant);
        view.failed = !granted || garbled;
        let is_first = !view.known;
        let may_be_first = is_first || view.forgotten;
        view.forgotten &= !granted || garbled;
        view.known |= granted && !garbled;
        if is_first && view.failed {
            books.first_failed.entry(self.process).or_default().push(now);
        }
        let is_down = answer.as_ref().map_or(true, |answer| [429, 503].contains(&answer.status().as_u16()));
        // Those that never had a token stop only their like.
        let down = books.down.entry(self.process).or_default();
        if !is_down {
            *down = Default::default();
        } else if !may_be_first && !down.failed.contains(&self.tenant) {
            down.failed.push(self.tenant);
            if down.failed.len() == 3 {
                down.since = Some(now);
            }
        }
        let view = books.view(self.process, self.tenant);
        if granted && !garbled {
            view.token = Some((self.arrived, now + lifetime));
        }
        if let Some(refused) = &self.began.refused {
            books.dead((self.process, self.tenant), refused);
        }
        let rotated = answer.as_ref().ok().and_then(|answer| answer.extensions().get::<Rotated>());
        if let Some(Rotated(rotated)) = rotated.filter(|_| !garbled)
            && self.world.plan.refresh_tokens
        {
            books.given((self.process, self.tenant), rotated, self.began.number.saturating_add(1), now);
        }
        if let Some(token) = &self.refresh_token {
            let process = self.process;
            if let Some(known) = books.refresh.get_mut(token) {
                match granted && !garbled {
                    true => known.answered.push(Answered { to: process, sent: self.arrived, at: now }),
                    false => known.lost |= known.redeemed,
                }
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Ok(mut books) = self.world.books.lock() else { return };
        if let Some(at_once) = books.at_once.get_mut(&(self.process, self.start)) {
            *at_once -= 1;
        }
        let view = books.view(self.process, self.tenant);
        view.in_flight -= 1;
        if let Some(at) = view.flights.iter().position(|began| *began == self.began.at) {
            view.flights.remove(at);
        }
        let given_up = !self.ended;
        if given_up {
            if let Some(refused) = &self.began.refused {
                books.dead((self.process, self.tenant), refused);
            }
            books.view(self.process, self.tenant).failed = true;
        }
        if let Some(known) = self.refresh_token.as_ref().and_then(|token| books.refresh.get_mut(token)) {
            let own = Carrier { process: self.process, start: self.start, since: self.arrived };
            if let Some(at) = known.in_flight.iter().position(|other| *other == own) {
                known.in_flight.swap_remove(at);
            }
            known.lost |= given_up;
        }
    }
}

/// A refresh token that an answer brings.
#[derive(Clone)]
struct Rotated(String);

fn plain(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

fn json(status: u16, body: String) -> Response<Full<Bytes>> {
    let garbled = status == 200 && body.starts_with('{') && !body.ends_with('}');
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    if garbled {
        response = response.header("x-garbled", "1");
    }
    response.body(Full::from(body)).unwrap()
}

fn invalid_grant() -> Response<Full<Bytes>> {
    json(400, "{\"error\":\"invalid_grant\"}".into())
}
