//! The tables for readers, each answering one question.

use std::fmt::Write as _;

use crate::read::{Figures, number};

/// The kinds of requests, as in `support/requests.rs`.
const KINDS: [(&str, &str); 3] =
    [("P3", "GET, 3 headers"), ("P8", "POST, 8 headers, a body"), ("P12", "POST, 12 headers, an extension")];
const SHAPES: [(&str, &str); 4] = [
    ("P8+tenant", "the tenant in the extensions"),
    ("P8+Host", "a matching `Host` header"),
    ("P8+answer", "an answer with six headers"),
    ("P8+pending", "the same, pending once"),
];
const STACKS: [(&str, &str); 6] = [
    ("LIMIT, no replay", "checks by hand"),
    ("ours, Replay::Never", "`Replay::Never`"),
    ("LIMIT, replay", "checks and copy by hand"),
    ("ours", "everything on"),
    ("naive, no retry", "mutex, no retry"),
    ("naive", "mutex, retry"),
];

/// The README's: instructions and allocations over two static headers.
pub(crate) fn counts(figures: &Figures) -> String {
    let mut text = head(&["", KINDS[0].1, KINDS[1].1, KINDS[2].1]);
    for (stack, name) in [STACKS[1], STACKS[3], STACKS[0], STACKS[2]] {
        let cells = KINDS.map(|(kind, _)| {
            let instructions = instructions(figures, "", kind, stack);
            let allocations = figures.get(&format!("allocations/{kind} {stack}, over FLOOR"));
            format!("{} / {}", number(instructions), number(allocations.round()))
        });
        line(&mut text, name, cells);
    }
    text
}

/// The README's: a request in the shapes that users have.
pub(crate) fn shapes(figures: &Figures) -> String {
    let mut text = head(&["POST, 8 headers, in other shapes", STACKS[1].1, STACKS[3].1]);
    let both = ["ours, Replay::Never", "ours"];
    for (kind, name) in SHAPES {
        line(&mut text, name, both.map(|stack| number(instructions(figures, "", kind, stack))));
    }
    let clones = both.map(|stack| number(of_clones(figures, stack)));
    line(&mut text, "a clone of the service for each request", clones);
    let per_tenant = instructions(figures, "", "P8", "ours, Replay::Never, a token for each tenant");
    line(&mut text, "a token for each tenant", [number(per_tenant), String::new()]);
    text
}

/// Over FLOOR cloned for each request too.
fn of_clones(figures: &Figures, stack: &str) -> f64 {
    let of = |stack: &str| instructions(figures, "", "P8", &format!("oneshot: {stack}"));
    of(stack) - of("FLOOR")
}

/// Median and lowest decile over two static headers, in nanoseconds.
pub(crate) fn times(figures: &Figures, profile: &str) -> String {
    let mut text = head_of("ns over FLOOR: median (lowest decile)", STACKS.map(|(_, name)| name));
    for (kind, name) in KINDS.into_iter().chain(SHAPES) {
        line(&mut text, name, STACKS.map(|(stack, _)| time(figures, profile, kind, stack)));
    }
    let clones = STACKS.map(|(stack, _)| time(figures, profile, "P8", &format!("oneshot: {stack}")));
    line(&mut text, "a clone for each request, 8 headers", clones);
    text
}

fn time(figures: &Figures, profile: &str, kind: &str, stack: &str) -> String {
    let of = |what: &str| number(figures.get(&format!("paired{profile}/{kind} {stack}, {what}over FLOOR")));
    match (of(""), of("lowest decile ")) {
        (median, _) if median == "–" => median,
        (median, decile) => format!("{median} ({decile})"),
    }
}

pub(crate) fn counts_with_lto(figures: &Figures) -> String {
    let mut text = head_of("instructions over FLOOR: default profile / LTO", STACKS.map(|(_, name)| name));
    for (kind, name) in KINDS.into_iter().chain(SHAPES) {
        let cells = STACKS.map(|(stack, _)| {
            let [default, lto] = ["", "_lto"].map(|profile| number(instructions(figures, profile, kind, stack)));
            format!("{default} / {lto}")
        });
        line(&mut text, name, cells);
    }
    text
}

pub(crate) fn reqwest(figures: &Figures) -> String {
    let mut text = head(&["ns over a bare `reqwest::Request` service", "median", "with LTO"]);
    for (stack, name) in
        [("two headers set by hand", "two headers set by hand"), STACKS[1], ("ours", "everything on (`try_clone`)")]
    {
        let cells =
            ["", "_lto"].map(|profile| number(figures.get(&format!("paired{profile}/reqwest: {stack}, over bare"))));
        line(&mut text, name, cells);
    }
    text
}

/// What the layer takes of a whole request: instructions, and with `cpu` also time.
pub(crate) fn end_to_end(figures: &Figures, cpu: bool) -> String {
    let all =
        ["instructions of a whole POST (over FLOOR)", "HTTP/1", "HTTP/2", "µs of CPU, HTTP/1", "µs of CPU, HTTP/2"];
    let mut text = head(if cpu { &all } else { &all[..3] });
    let mut row = |bench: &str, stack: &str, name: &str| {
        let of = |what: &str| figures.get(&format!("{bench}/{what}"));
        let counted = ["h1", "h2"].map(|version| {
            let name = format!("{version} {stack}, instructions");
            let [whole, over] = [of(&name), of(&format!("{name} over FLOOR"))];
            match stack {
                _ if whole.is_nan() => "–".to_owned(),
                "bare" | "FLOOR" => thousands(whole),
                _ => format!("{} (+{}, {:.1} %)", thousands(whole), thousands(over), 100.0 * over / whole),
            }
        });
        let taken = ["h1", "h2"].map(|version| tenths(of(&format!("{version} {stack}, ns of CPU")) / 1_000.0));
        line(&mut text, name, counted.into_iter().chain(taken.into_iter().filter(|_| cpu)));
    };
    for (stack, name) in [
        ("bare", "no layer"),
        ("FLOOR", "two static headers (FLOOR)"),
        ("ours, Replay::Never", "this crate, `Replay::Never`"),
        ("ours", "this crate, everything on"),
        ("naive", "mutex layer, retry"),
    ] {
        row("end_to_end", stack, name);
    }
    // In a program of their own, with its own FLOOR.
    for peer in ["middle", "huskarl"] {
        row("end_to_end_peers", peer, peer);
    }
    text
}

/// Whether two threads disturb each other.
pub(crate) fn threads(figures: &Figures) -> String {
    let mut text = head(&["time of a request on two threads over that on one", KINDS[0].1, KINDS[1].1]);
    for (stack, name) in [
        ("FLOOR", "two static headers, a clone a thread"),
        ("ours, Replay::Never", "`Replay::Never`, a clone a thread"),
        ("ours", "everything on, a clone a thread"),
        ("oneshot: FLOOR", "two static headers, a clone a request"),
        ("oneshot: ours", "everything on, a clone a request"),
    ] {
        line(&mut text, name, ["P3", "P8"].map(|kind| format!("{:.2}", two_threads(figures, kind, stack))));
    }
    text.replace("NaN", "–")
}

/// Of two threads with a loop each, how much longer a request takes than with one.
pub(crate) fn two_threads(figures: &Figures, kind: &str, stack: &str) -> f64 {
    let of = |threads: usize| {
        figures.get(&format!("contention/{kind} {stack}, {threads} threads: ns a request")) * threads as f64
    };
    of(2) / of(1)
}

/// A revocation every 100 ms, on two workers.
pub(crate) fn revocations(figures: &Figures) -> String {
    let mut text = head(&[
        "2 workers, a revocation every 100 ms",
        "tasks",
        "requests a second",
        "p99, ms",
        "p99, ms, shared queue every 7 tasks",
        "token requests / tokens issued",
        "401s handed out",
    ]);
    for tasks in ["64", "1000"] {
        for (name, stack) in
            [("two static headers, never revoked", "FLOOR"), ("this crate", "ours"), ("mutex layer", "naive")]
        {
            let of = |what: &str| revoked(figures, tasks, stack, what);
            let (asked, passed_on) = match stack {
                "FLOOR" => ("–".to_owned(), "–".to_owned()),
                _ => (
                    format!("{} / {}", number(of("token requests")), number(of("lives of a token"))),
                    number(of("401 passed on")),
                ),
            };
            let rate = thousands(1e9 / of("ns a request"));
            let queued = revoked(figures, tasks, &format!("shared queue every 7, {stack}"), "p99 in µs");
            let [p99, queued] = [of("p99 in µs"), queued].map(|p99| format!("{:.1}", p99 / 1_000.0));
            line(&mut text, name, [tasks.to_owned(), rate, p99, queued, asked, passed_on]);
        }
    }
    text
}

pub(crate) fn revoked(figures: &Figures, tasks: &str, stack: &str, what: &str) -> f64 {
    figures.get(&format!("contention/2 workers, {tasks} tasks, a revocation every 100 ms, {stack}: {what}"))
}

pub(crate) fn storm(figures: &Figures) -> String {
    let mut text = head(&[
        "10 000 requests wait for one token",
        "ms from its arrival to the last answer",
        "µs of CPU a waiter",
        "token requests",
    ]);
    for workers in [1, 2] {
        let name = format!("10000 waiters, {workers} workers");
        let of = |what: &str| figures.get(&format!("storm/{name}: {what}"));
        let cells = [of("ms from release to last"), of("µs of CPU a waiter over a ready token"), of("token requests")];
        line(&mut text, &format!("this crate, {}", plural(workers)), cells.map(number));
        let of = |what: &str| figures.get(&format!("storm/FLOOR behind a shared future, {name}: {what}"));
        let cells = [of("ms from release to last"), of("µs of CPU a waiter over one without waiting")];
        let cells = cells.map(number).into_iter().chain(["1".to_owned()]);
        line(&mut text, &format!("FLOOR behind a shared future, {}", plural(workers)), cells);
    }
    text
}

/// Requests for any of many tenants, many that ask at once without a token, and many tokens in one layer.
pub(crate) fn scale(figures: &Figures) -> String {
    let mut text = head(&["requests for", "GET, ns (times one tenant's)", "POST, ns (times one tenant's)"]);
    for tenants in ["one tenant", "one of a million tenants", "any of a thousand tenants", "any of a million tenants"] {
        let cells = ["P3", "P8"].map(|kind| {
            let of = |what: &str| figures.get(&format!("tenants/{kind} {what}"));
            let times = of(tenants) / of("one tenant");
            format!("{} ({times:.2})", number(of(tenants)))
        });
        line(&mut text, tenants, cells);
    }
    text.push('\n');
    text += &head(&["100 000 tenants without a token at once, each token request takes 5 ms", ""]);
    for (what, name) in [
        ("token requests", "token requests"),
        ("token requests at the same time", "most at the same time"),
        ("ms until the last has its answer", "ms until the last has its answer"),
        ("ms that 64 token requests at a time take at least", "ms that 64 at a time take at least"),
        ("p50 of a request in ms", "p50 of a request, ms"),
        ("p99 of a request in ms", "p99 of a request, ms"),
        (
            "peak resident bytes a tenant beside its task and request",
            "peak bytes a tenant, beside its task and request",
        ),
        ("peak resident bytes a tenant over tokens at hand", "of these gone again once it has its token"),
    ] {
        line(&mut text, name, [thousands(figures.get(&format!("cold/100000 cold tenants at once: {what}")))]);
    }
    text.push('\n');
    text += &head(&["many tokens in one layer", ""]);
    for (what, name) in [
        (
            "cold/164000 tokens in one layer: ms to acquire all",
            "ms to acquire 164 000, from a source that answers at once",
        ),
        ("cold/164000 tokens in one layer: ns for one more (median)", "ns for one more"),
        ("cold/the first 1000 tokens of a layer: ns for one (median)", "ns for one of the first thousand"),
        ("tenants/a new tenant: ns", "ns for a new tenant's token, put in, among a million"),
        ("tenants/a new tenant, over the bound: ns", "the same over a bound of 10 000: an old one goes"),
        ("allocations/bytes of an idle tenant beside its token", "bytes of an idle tenant beside its token"),
        ("tenants/resident bytes a tenant, with a token of 900", "resident bytes a tenant, with a token of 900"),
    ] {
        line(&mut text, name, [thousands(figures.get(what).round())]);
    }
    text
}

/// Outside of the allocator, over FLOOR of the same request.
pub(crate) fn instructions(figures: &Figures, profile: &str, kind: &str, stack: &str) -> f64 {
    figures.get(&format!("instructions{profile}/{kind} {stack}, outside of malloc, over FLOOR"))
}

fn head(columns: &[&str]) -> String {
    let rule = columns.iter().skip(1).map(|_| "---:|").collect::<String>();
    format!("| {} |\n|---|{rule}\n", columns.join(" | "))
}

fn head_of<const N: usize>(first: &str, columns: [&str; N]) -> String {
    let all: Vec<&str> = std::iter::once(first).chain(columns).collect();
    head(&all)
}

fn line(text: &mut String, name: &str, cells: impl IntoIterator<Item = String>) {
    let _ = write!(text, "| {name} |");
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
}

pub(crate) fn plural(workers: usize) -> String {
    format!("{workers} worker{}", if workers == 1 { "" } else { "s" })
}

fn tenths(value: f64) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.1}") }
}

fn thousands(value: f64) -> String {
    let text = number(value);
    if text.len() < 5 || !text.chars().all(|digit| digit.is_ascii_digit()) {
        return text;
    }
    let digits = text.as_bytes();
    let mut spaced = String::new();
    for (at, digit) in digits.iter().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            spaced.push(' ');
        }
        spaced.push(char::from(*digit));
    }
    spaced
}
