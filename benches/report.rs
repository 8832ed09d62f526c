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
    let tables = format!("{}\n{}\n{}", machine(), targets(&figures), everything(&figures));
    std::fs::write(&results, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}")).expect("RESULTS.md can be written");
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
        for bench in ["paired", "instructions", "allocations", "contention", "storm", "tenants", "peers"] {
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

/// The rows of the target table, each with its figure and whether it is reached.
fn targets(figures: &Figures) -> String {
    let mut rows = Rows("| what | target | measured | reached |\n|---|---|---|---|\n".to_owned());
    for kind in ["P3", "P8", "P12"] {
        let name = |what: &str, bench: &str| figures.get(&format!("{bench}/{kind} ours, Replay::Never{what}"));
        rows.at_most(&format!("`Never`, {kind}: ns over FLOOR"), name(", over FLOOR", "paired"), 0.0);
        rows.at_most(&format!("`Never`, {kind}: allocations over FLOOR"), name(", over FLOOR", "allocations"), 0.0);
        let floor = figures.get(&format!("instructions/{kind} FLOOR"));
        rows.at_most(&format!("`Never`, {kind}: instructions over FLOOR"), name("", "instructions") - floor, 0.0);
        let outside = name(", outside of malloc, over FLOOR", "instructions");
        rows.beside(&format!("`Never`, {kind}: of these outside of malloc"), outside);
    }
    for (kind, ns, allocations, instructions) in
        [("P3", 10.0, 1.0, 550.0), ("P8", 50.0, 2.0, 1200.0), ("P12", 175.0, 5.0, 2700.0)]
    {
        let name = |what: &str, bench: &str| figures.get(&format!("{bench}/{kind} ours{what}"));
        rows.at_most(&format!("replay, {kind}: ns over FLOOR"), name(", over FLOOR", "paired"), ns);
        rows.at_most(
            &format!("replay, {kind}: allocations over FLOOR"),
            name(", over FLOOR", "allocations"),
            allocations,
        );
        let floor = figures.get(&format!("instructions/{kind} FLOOR"));
        rows.at_most(
            &format!("replay, {kind}: instructions over FLOOR"),
            name("", "instructions") - floor,
            instructions,
        );
        let outside = name(", outside of malloc, over FLOOR", "instructions");
        rows.beside(&format!("replay, {kind}: of these outside of malloc"), outside);
    }
    for (kind, ns) in [("P3", 15.0), ("P8", 65.0)] {
        let over = figures.get(&format!("paired/{kind} oneshot: ours, over FLOOR"));
        rows.at_most(&format!("a clone for each request, {kind}: ns over FLOOR"), over, ns);
    }
    for (kind, ns) in [("P3", 40.0), ("P8", 85.0)] {
        for tasks in [64, 1000] {
            let of = |stack| figures.get(&format!("contention/{kind} {stack}, 1 workers, {tasks} tasks: ns a request"));
            rows.at_most(
                &format!("across an await, {kind}, {tasks} tasks: ns over FLOOR"),
                of("ours") - of("FLOOR"),
                ns,
            );
        }
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
        rows.at_most(&format!("storm, {workers} workers: ms from release to last"), of("ms from release to last"), 2.5);
        let cpu = of("µs of CPU a waiter over a ready token");
        rows.at_most(&format!("storm, {workers} workers: µs of CPU a waiter"), cpu, 0.3);
        let bare = |what: &str| {
            figures.get(&format!("storm/FLOOR behind a shared future, 10000 waiters, {workers} workers: {what}"))
        };
        let name = format!("the same tasks through FLOOR behind a shared future, {workers} workers");
        rows.beside(&format!("{name}: ms from release to last"), bare("ms from release to last"));
        rows.beside(&format!("{name}: µs of CPU"), bare("µs of CPU a waiter over one without waiting"));
    }
    for kind in ["P3", "P8"] {
        let times = figures.get(&format!("tenants/{kind} any of a million tenants, times one tenant"));
        rows.at_most(&format!("any of a million tenants, {kind}: times one tenant"), times, 2.0);
    }
    rows.at_most(
        "storm: allocations a waiter",
        figures.get("allocations/allocations a waiter over a ready token"),
        0.0,
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
        400.0,
    );
    rows.0
}

struct Rows(String);

impl Rows {
    fn at_most(&mut self, what: &str, value: f64, target: f64) {
        let slack = if target == 0.0 { 0.05 } else { 0.0 };
        let reached =
            if value <= target + slack { "yes".to_owned() } else { format!("no, by {}", number(value - target)) };
        self.row(what, &format!("≤ {}", number(target)), value, &reached);
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
            let (y, width) = (34 + 26 * at, (value / most * 340.0).max(1.0));
            let class = if *own { "a" } else { "b" };
            let _ = writeln!(svg, "<text x=\"310\" y=\"{}\" text-anchor=\"end\">{name}</text>", y + 14);
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"320\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>"
            );
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{value:.0}</text>", 326.0 + width, y + 14);
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
