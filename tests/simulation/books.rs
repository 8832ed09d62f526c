//! What everybody did: the books from which promises are checked, and the table of what was met where.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What goes wrong, or is done to a layer.
pub(crate) const FAULTS: [&str; 22] = [
    "server slow",
    "server times out",
    "server hangs",
    "server 503",
    "server 429",
    "connection breaks",
    "answer lost",
    "answer garbled",
    "server refuses",
    "refresh token refused",
    "cut off from server",
    "API rejects",
    "API 503",
    "store fails",
    "store loses answer",
    "store hangs",
    "revoked",
    "cancelled",
    "invalidated",
    "credentials replaced",
    "clock suspended",
    "clock set back",
];

/// What the process has for that tenant just then, as far as can be told from outside.
pub(crate) const STATES: [&str; 6] = ["none", "fresh", "stale", "expired", "failed", "refreshing"];

pub(crate) fn fault(name: &str) -> usize {
    FAULTS.iter().position(|own| *own == name).unwrap_or_else(|| panic!("no fault {name}"))
}

#[derive(Clone, Default)]
pub(crate) struct Visits([[u64; STATES.len()]; FAULTS.len()]);

impl Visits {
    pub(crate) fn count(&mut self, fault: usize, state: usize) {
        self.0[fault][state] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (row, others) in self.0.iter_mut().zip(&other.0) {
            row.iter_mut().zip(others).for_each(|(own, other)| *own += other);
        }
    }

    /// How many cells were visited less than a hundred times.
    pub(crate) fn rare(&self) -> usize {
        self.0.iter().flatten().filter(|visits| **visits < 100).count()
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!("| fault × state | {} |\n|---|{}\n", STATES.join(" | "), "---:|".repeat(STATES.len()));
        for (name, row) in FAULTS.iter().zip(&self.0) {
            let row: Vec<_> = row.iter().map(ToString::to_string).collect();
            let _ = writeln!(table, "| {name} | {} |", row.join(" | "));
        }
        table
    }
}

/// One process's view of one tenant, by what went over the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// When the newest token that it was given was asked for, and until when it lives.
    pub(crate) token: Option<(Duration, Duration)>,
    pub(crate) in_flight: usize,
    /// When those began.
    pub(crate) flights: Vec<Duration>,
    pub(crate) failed: bool,
    /// It had a token once.
    pub(crate) known: bool,
    /// When token requests were made.
    pub(crate) asked: Vec<Duration>,
    /// When somebody last wanted a token.
    pub(crate) used: Duration,
    /// Nobody did for so long that its cell may be gone.
    pub(crate) forgotten: bool,
    /// When something happened that excuses another one.
    pub(crate) excuses: Vec<Duration>,
}

impl View {
    pub(crate) fn state(&self, now: Duration) -> usize {
        match self.token {
            _ if self.in_flight > 0 => 5,
            _ if self.failed => 4,
            None => 0,
            Some((_, ends)) if now >= ends => 3,
            Some((asked, ends)) if now >= asked + (ends - asked) * 4 / 5 => 2,
            Some(_) => 1,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    pub(crate) tenant: usize,
    pub(crate) ends: Duration,
    pub(crate) revoked: bool,
}

/// Who has sent a refresh token, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    pub(crate) process: usize,
    pub(crate) start: usize,
    pub(crate) since: Duration,
}

/// A process that was given what came of a refresh token that it had sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) to: usize,
    pub(crate) sent: Duration,
    pub(crate) at: Duration,
}

/// The refresh token that a process must send for a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: String,
    /// That of the one held when its token request began, plus one.
    pub(crate) number: u64,
    pub(crate) since: Duration,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshToken {
    /// Exchanges that are under way.
    pub(crate) in_flight: Vec<Carrier>,
    pub(crate) sent: bool,
    /// The server has refused it.
    pub(crate) dead: bool,
    /// Who was given what came of it, and when.
    pub(crate) answered: Vec<Answered>,
    /// The machine slept while it was with the server: leases ended meanwhile.
    pub(crate) slept: bool,
    /// Its answer may be lost.
    pub(crate) lost: bool,
    pub(crate) redeemed: bool,
}

/// One sending of a request.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) token: String,
    pub(crate) rejected: bool,
}

#[derive(Default)]
pub(crate) struct Request {
    pub(crate) process: usize,
    pub(crate) tenant: usize,
    pub(crate) began: Duration,
    pub(crate) runtime: usize,
    pub(crate) sendings: Vec<Sending>,
    /// How often it was answered, and with what at last.
    pub(crate) answers: usize,
    pub(crate) answer: Option<Result<u16, String>>,
    pub(crate) cancelled: bool,
}

/// A token endpoint as one process sees it.
#[derive(Default)]
pub(crate) struct Down {
    pub(crate) failed: Vec<usize>,
    /// Since when it must be taken to be down, and how many token requests came in the second after that.
    pub(crate) since: Option<Duration>,
    pub(crate) asked: usize,
}

/// A refresh, when it began, and the number of the refresh token that was held then.
#[derive(Clone, Debug)]
pub(crate) struct Began {
    pub(crate) at: Duration,
    pub(crate) number: u64,
    /// One that it has sent before, and that was refused. Its cell hears of that when the refresh ends.
    pub(crate) refused: Option<String>,
}

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) views: BTreeMap<(usize, usize), View>,
    pub(crate) access: BTreeMap<String, AccessToken>,
    pub(crate) refresh: BTreeMap<String, RefreshToken>,
    pub(crate) requests: Vec<Request>,
    pub(crate) issued: usize,
    /// By process: when token requests failed for tenants that never had a token.
    pub(crate) first_failed: BTreeMap<usize, Vec<Duration>>,
    /// By process: the tenants whose token requests failed since the last one that did not, and how many came after three.
    pub(crate) down: BTreeMap<usize, Down>,
    /// How often each process was started; what an earlier one still does is not done.
    pub(crate) starts: BTreeMap<usize, usize>,
    /// By process and start: how many token requests are under way.
    pub(crate) at_once: BTreeMap<(usize, usize), usize>,
    /// By process and tenant, where there is another grant besides.
    pub(crate) held: BTreeMap<(usize, usize), Held>,
    /// By process and tenant: when a refresh token was refused, and the refresh that had sent it. It asks by another grant at
    /// once.
    pub(crate) refused: BTreeMap<(usize, usize), (Duration, Began)>,
    /// When the store last lost everything, its leases included.
    pub(crate) emptied: Option<Duration>,
    pub(crate) visits: Visits,
    /// The first promise that was broken.
    pub(crate) violation: Option<String>,
    pub(crate) trace: Vec<String>,
}

impl Books {
    pub(crate) fn broken(&mut self, promise: &str, how: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{promise}: {how}"));
        }
    }

    pub(crate) fn is_alive(&self, process: usize, start: usize) -> bool {
        self.starts.get(&process).copied().unwrap_or_default() == start
    }

    /// A process was given a refresh token for a tenant: of two the one with the higher number is newer.
    pub(crate) fn given(&mut self, (process, tenant): (usize, usize), token: &str, number: u64, now: Duration) {
        let held = self.held.get(&(process, tenant));
        if held.is_none_or(|held| held.number < number) {
            let held = Held { token: token.to_owned(), number, since: now };
            self.held.insert((process, tenant), held);
        }
    }

    /// That one is dead.
    pub(crate) fn dead(&mut self, (process, tenant): (usize, usize), token: &str) {
        if self.held.get(&(process, tenant)).is_some_and(|held| held.token == token) {
            self.held.remove(&(process, tenant));
        }
    }

    pub(crate) fn view(&mut self, process: usize, tenant: usize) -> &mut View {
        self.views.entry((process, tenant)).or_default()
    }

    pub(crate) fn met(&mut self, what: &str, process: usize, tenant: usize, now: Duration) {
        let state = self.view(process, tenant).state(now);
        self.visits.count(fault(what), state);
    }
}
