//! Writes the tables of RESULTS.md and the plots from the figures that the other benches left: `make report`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on says so")]

mod support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use support::figures::folder;

fn main() {
    let figures = Figures::read();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let results = here.join("RESULTS.md");
    let text = std::fs::read_to_string(&results).expect("benches/RESULTS.md");
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the tables begin");
    let (_, after) = rest.split_once(END).expect("the mark where the tables end");
    let tables = format!("{}\n{}\n{}", machine(), revoked(&figures), targets(&figures));
    std::fs::write(&results, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}")).expect("RESULTS.md can be written");
    let all = format!(
        "# All figures of the last run\n\nWritten by `make report`.\n\n{}\n{}",
        machine(),
        everything(&figures)
    );
    std::fs::write(here.join("FIGURES.md"), all).expect("FIGURES.md can be written");
    let plots = here.join("plots");
    std::fs::create_dir_all(&plots).expect("benches/plots can be made");
    for (name, plot) in
        [("overhead", overhead(&figures)), ("throughput", throughput(&figures)), ("storm", storm(&figures))]
    {
        std::fs::write(plots.join(name).with_extension("svg"), plot).expect("the plot can be written");
    }
    println!("benches/RESULTS.md and benches/plots/ are up to date");
}

const BEGIN: &str = "<!-- tables: written by `make report` -->";
const END: &str = "<!-- end of the tables -->";

struct Figures {
    by_name: HashMap<String, f64>,
    in_order: Vec<(String, Vec<(String, f64)>)>,
}

impl Figures {
    fn read() -> Self {
        let (mut by_name, mut in_order) = (HashMap::new(), Vec::new());
        for bench in [
            "paired",
            "paired_lto",
            "instructions",
            "instructions_lto",
            "allocations",
            "contention",
            "storm",
            "tenants",
            "cold",
            "peers",
            "end_to_end",
            "end_to_end_peers",
        ] {
            let Ok(text) = std::fs::read_to_string(folder().join(bench).with_extension("tsv")) else { continue };
            let lines: Vec<(String, f64)> = text
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect();
            by_name.extend(lines.iter().map(|(name, value)| (format!("{bench}/{name}"), *value)));
            in_order.push((bench.to_owned(), lines));
        }
        Self { by_name, in_order }
    }

    fn get(&self, name: &str) -> f64 {
        self.by_name.get(name).copied().unwrap_or(f64::NAN)
    }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Machine: {}, {cores} logical CPUs, {}.\n",
        model.trim_start_matches([' ', '\t', ':']),
        std::env::consts::OS
    )
}

/// A revocation every 100 ms, on two workers.
fn revoked(figures: &Figures) -> String {
    let mut text = "| a revocation every 100 ms, 2 workers | tasks | requests a second | p99, µs | token requests / lives | 401s handed out |\n\
        |---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for tasks in ["64", "1000"] {
        for (who, stack) in [("two static headers, never revoked", "FLOOR"), ("ours", "ours"), ("mutex layer", "naive")]
        {
            let of = |what: &str| {
                let name = format!("contention/2 workers, {tasks} tasks, a revocation every 100 ms, {stack}: {what}");
                figures.get(&name)
            };
            let asked = match stack {
                "FLOOR" => "–".to_owned(),
                _ => format!("{} / {}", number(of("token requests")), number(of("lives of a token"))),
            };
            let passed_on = if stack == "FLOOR" { "–".to_owned() } else { number(of("401 passed on")) };
            let rate = number(1e9 / of("ns a request"));
            let _ =
                writeln!(text, "| {who} | {tasks} | {rate} | {} | {asked} | {passed_on} |", number(of("p99 in µs")));
        }
    }
    text
}

/// The rows of the target table, each with its figure and whether it is reached.
fn targets(figures: &Figures) -> String {
    let mut rows = Rows("| what | target | measured | reached |\n|---|---|---|---|\n".to_owned());
    for (stack, name, [ns, allocations, instructions]) in [
        ("ours, Replay::Never", "`Never`", [[15.0, 15.0, 60.0], [0.0, 0.0, 0.0], [350.0, 350.0, 550.0]]),
        ("ours", "all on", [[55.0, 105.0, 310.0], [1.0, 2.0, 4.0], [950.0, 1550.0, 2400.0]]),
    ] {
        for (at, kind) in ["P3", "P8", "P12"].into_iter().enumerate() {
            let of = |bench: &str, what: &str| figures.get(&format!("{bench}/{kind} {stack}{what}, over FLOOR"));
            rows.at_most(&format!("{name}, {kind}: ns over FLOOR"), of("paired", ""), ns[at]);
            rows.at_most(&format!("{name}, {kind}: allocations over FLOOR"), of("allocations", ""), allocations[at]);
            let outside = of("instructions", ", outside of malloc");
            rows.at_most(&format!("{name}, {kind}: instructions over FLOOR"), outside, instructions[at]);
        }
    }
    for kind in ["P3", "P8", "P12"] {
        let of = |bench: &str, what: &str| figures.get(&format!("{bench}/{kind} LIMIT, no replay{what}, over FLOOR"));
        rows.beside(&format!("the same checks by hand (LIMIT), {kind}: ns over FLOOR"), of("paired", ""));
        let outside = of("instructions", ", outside of malloc");
        rows.beside(&format!("the same checks by hand (LIMIT), {kind}: instructions over FLOOR"), outside);
    }
    for (kind, what, [ns_never, ns_all], [never, all]) in [
        ("P8+tenant", "tenant in the extensions", [50.0, 140.0], [550.0, 1800.0]),
        ("P8+Host", "matching `Host`", [f64::NAN, f64::NAN], [400.0, f64::NAN]),
        ("P8+answer", "answer with six headers", [30.0, f64::NAN], [400.0, f64::NAN]),
    ] {
        for (stack, name, ns, instructions) in
            [("ours, Replay::Never", "`Never`", ns_never, never), ("ours", "all on", ns_all, all)]
        {
            let of = |bench: &str, what: &str| figures.get(&format!("{bench}/{kind} {stack}{what}, over FLOOR"));
            rows.perhaps(&format!("{what}, {name}: ns over FLOOR"), of("paired", ""), ns);
            let outside = of("instructions", ", outside of malloc");
            rows.perhaps(&format!("{what}, {name}: instructions over FLOOR"), outside, instructions);
        }
    }
    for (stack, name, ns) in [("ours, Replay::Never", "`Never`", 0.0), ("ours", "all on", 60.0)] {
        let over = figures.get(&format!("paired/P8 oneshot: {stack}, over FLOOR"));
        rows.at_most(&format!("a clone for each request, P8, {name}: ns over FLOOR"), over, ns);
    }
    let by_hand = figures.get("paired/reqwest: two headers set by hand, over bare");
    for (stack, name, ns) in [("ours, Replay::Never", "`Never`", 100.0), ("ours", "all on", 430.0)] {
        let over = figures.get(&format!("paired/reqwest: {stack}, over bare")) - by_hand;
        rows.at_most(&format!("reqwest, {name}: ns over two headers by hand"), over, ns);
    }
    for kind in ["P3", "P8"] {
        let of = |stack: &str, threads: usize| {
            figures.get(&format!("contention/{kind} {stack}, {threads} threads: ns a request")) * threads as f64
        };
        let ratio = of("ours", 2) / of("ours", 1);
        let floor = of("FLOOR", 2) / of("FLOOR", 1);
        rows.at_most(
            &format!("1 → 2 threads, {kind}: ratio of ns a request and thread (target: FLOOR's)"),
            ratio,
            floor,
        );
    }
    let of = |stack: &str| figures.get(&format!("contention/P8 {stack}, 2 workers, 64 tasks: ns a request"));
    rows.at_least("2 workers, 64 tasks, P8: throughput over naive", of("naive") / of("ours"), 4.0);
    for workers in [1, 2] {
        let of = |what: &str| figures.get(&format!("storm/10000 waiters, {workers} workers: {what}"));
        rows.at_most(&format!("storm, {workers} workers: token requests"), of("token requests"), 1.0);
        rows.beside(&format!("storm, {workers} workers: ms from release to last"), of("ms from release to last"));
        let cpu = of("µs of CPU a waiter over a ready token");
        rows.beside(&format!("storm, {workers} workers: µs of CPU a waiter"), cpu);
        let bare = |what: &str| {
            figures.get(&format!("storm/FLOOR behind a shared future, 10000 waiters, {workers} workers: {what}"))
        };
        let name = format!("the same tasks through FLOOR behind a shared future, {workers} workers");
        rows.beside(&format!("{name}: ms from release to last"), bare("ms from release to last"));
        rows.beside(&format!("{name}: µs of CPU"), bare("µs of CPU a waiter over one without waiting"));
    }
    for kind in ["P3", "P8"] {
        let times = figures.get(&format!("tenants/{kind} any of a million tenants, times one tenant"));
        rows.at_most(&format!("any of a million tenants, {kind}: times one tenant"), times, 3.0);
    }
    rows.at_most(
        "storm: allocations a waiter",
        figures.get("allocations/allocations a waiter over a ready token"),
        1.0,
    );
    rows.beside(
        "storm: instructions a waiter over a ready token",
        figures.get("instructions/a waiter over a ready token"),
    );
    rows.at_most(
        "failing refresh: token requests",
        figures.get("storm/failing refresh, 64 waiters: token requests"),
        1.0,
    );
    rows.at_most("failing refresh: ms", figures.get("storm/failing refresh, 64 waiters: ms until all are told"), 55.0);
    let dropped = |what: &str| figures.get(&format!("storm/leader dropped at 30 of 50 ms: {what}"));
    rows.at_most("leader dropped: token requests", dropped("token requests"), 1.0);
    rows.at_most("leader dropped at 30 ms: followers done at, ms", dropped("ms until the followers are done"), 55.0);
    rows.at_most(
        "future: bytes over the inner one",
        figures.get("allocations/future: bytes over the inner one"),
        168.0,
    );
    rows.0
}

struct Rows(String);

impl Rows {
    fn at_most(&mut self, what: &str, value: f64, target: f64) {
        // A timer now and then allocates.
        let slack = if target < 2.0 { 0.05 } else { 0.0 };
        let reached =
            if value <= target + slack { "yes".to_owned() } else { format!("no, by {}", number(value - target)) };
        self.row(what, &format!("≤ {}", number(target)), value, &reached);
    }

    /// `NaN`: without a target.
    fn perhaps(&mut self, what: &str, value: f64, target: f64) {
        if target.is_nan() { self.beside(what, value) } else { self.at_most(what, value, target) }
    }

    /// A figure without a target, that others are held against.
    fn beside(&mut self, what: &str, value: f64) {
        self.row(what, "–", value, "–");
    }

    fn at_least(&mut self, what: &str, value: f64, target: f64) {
        let reached = if value >= target { "yes".to_owned() } else { format!("no, by {}", number(target - value)) };
        self.row(what, &format!("≥ {}", number(target)), value, &reached);
    }

    fn row(&mut self, what: &str, target: &str, value: f64, reached: &str) {
        let (value, reached) = if value.is_nan() { ("not run".to_owned(), "–") } else { (number(value), reached) };
        let _ = writeln!(self.0, "| {what} | {target} | {value} | {reached} |");
    }
}

fn number(value: f64) -> String {
    if value.abs() < 10.0 && value.fract() != 0.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn everything(figures: &Figures) -> String {
    let mut text = String::new();
    for (bench, lines) in &figures.in_order {
        let _ = write!(text, "<details><summary>All figures of <code>{bench}</code></summary>\n\n| | |\n|---|---:|\n");
        for (name, value) in lines {
            let _ = writeln!(text, "| {name} | {} |", number(*value));
        }
        let _ = write!(text, "\n</details>\n\n");
    }
    text
}

fn overhead(figures: &Figures) -> String {
    let mut bars = Vec::new();
    for (name, stack) in [
        ("two static headers (FLOOR)", "FLOOR"),
        ("ours, Replay::Never", "ours, Replay::Never"),
        ("ours, everything on", "ours"),
        ("mutex layer, no retry", "naive, no retry"),
        ("mutex layer with retry", "naive"),
    ] {
        let own = figures.get(&format!("paired/P8 {stack}, over FLOOR"));
        let bare = figures.get("paired/P8 bare, over FLOOR");
        bars.push((name.to_owned(), own - bare, stack.starts_with("ours")));
    }
    if let Some((_, peers)) = figures.in_order.iter().find(|(bench, _)| bench == "peers") {
        let peers =
            peers.iter().filter_map(|(name, value)| Some((name.strip_suffix(", over bare")?.to_owned(), *value)));
        bars.extend(peers.filter(|(name, _)| !name.starts_with("here: ")).map(|(name, value)| (name, value, false)));
    }
    bars.retain(|(_, value, _)| value.is_finite());
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    plot::bars("Overhead of a request with 8 headers and a body, ns over the bare service", &bars)
}

fn throughput(figures: &Figures) -> String {
    let series =
        [("two static headers (FLOOR)", "FLOOR"), ("ours", "ours"), ("mutex layer", "naive")].map(|(name, stack)| {
            let points =
                [(1, 64), (2, 64), (4, 64), (1, 1000), (2, 1000), (4, 1000), (1, 10_000), (2, 10_000), (4, 10_000)];
            let points = points.map(|(workers, tasks)| {
                let each =
                    figures.get(&format!("contention/P8 {stack}, {workers} workers, {tasks} tasks: ns a request"));
                (format!("{workers} × {tasks}"), 1e3 / each)
            });
            (name.to_owned(), points.to_vec())
        });
    plot::groups("Million requests a second, by worker threads × tasks (higher is better)", &series)
}

fn storm(figures: &Figures) -> String {
    let bars = [1, 2].map(|workers| {
        let value = figures.get(&format!("storm/10000 waiters, {workers} workers: ms from release to last"));
        (format!("10 000 waiters, {workers} workers: release to last"), value, true)
    });
    let each = figures.get("storm/failing refresh, 64 waiters: ms until all are told");
    let dropped = figures.get("storm/leader dropped at 30 of 50 ms: ms until the followers are done");
    let [one, two] = bars;
    let bars = [
        one,
        two,
        ("64 waiters, refresh fails after 50 ms: all told".to_owned(), each, false),
        ("64 waiters, leader dropped at 30 of 50 ms: done".to_owned(), dropped, false),
    ];
    plot::bars("Everybody waits for one token request, ms", &bars)
}

mod plot {
    //! Two kinds of charts as SVG that read on light and on dark pages.

    use std::fmt::Write as _;

    const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#444}.title{font-weight:600}.a{fill:#2a7ab8}\
                         .b{fill:#9aa4ae}.c{fill:#c2703d}@media(prefers-color-scheme:dark){text{fill:#ccc}.a{fill:#58a6e6}\
                         .b{fill:#6e7781}.c{fill:#e0935c}}</style>";

    pub(crate) fn bars(title: &str, bars: &[(String, f64, bool)]) -> String {
        let height = 40 + 26 * bars.len();
        let most = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
        let mut svg = begin(title, height);
        for (at, (name, value, own)) in bars.iter().enumerate() {
            let (y, width) = (34 + 26 * at, (value / most * 320.0).max(1.0));
            let class = if *own { "a" } else { "b" };
            let _ = writeln!(svg, "<text x=\"340\" y=\"{}\" text-anchor=\"end\">{name}</text>", y + 14);
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"350\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>"
            );
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{value:.0}</text>", 356.0 + width, y + 14);
        }
        svg + "</svg>\n"
    }

    pub(crate) fn groups(title: &str, series: &[(String, Vec<(String, f64)>)]) -> String {
        let mut svg = begin(title, 300);
        let all = series.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
        let most = all.filter(|value| value.is_finite()).fold(0.1, f64::max);
        for (which, ((name, points), class)) in series.iter().zip(["b", "a", "c"]).enumerate() {
            let x = 20 + 230 * which;
            let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" rx=\"2\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"45\">{name}</text>", x + 18);
            for (at, (label, value)) in points.iter().enumerate() {
                let (x, height) =
                    (20 + 78 * at + 20 * which, if value.is_finite() { value / most * 180.0 } else { 0.0 });
                let y = 255.0 - height;
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" width=\"18\" height=\"{height:.1}\" rx=\"2\"/>"
                );
                if which == 1 {
                    let _ = writeln!(svg, "<text x=\"{}\" y=\"274\" text-anchor=\"middle\">{label}</text>", x + 9);
                    let _ = writeln!(
                        svg,
                        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.1}</text>",
                        x + 9,
                        y - 4.0
                    );
                }
            }
        }
        svg + "</svg>\n"
    }

    fn begin(title: &str, height: usize) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 {height}\" role=\"img\" aria-label=\"{title}\">{STYLE}\n\
             <text class=\"title\" x=\"20\" y=\"20\">{title}</text>\n"
        )
    }
}
