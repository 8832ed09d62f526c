//! The figures that the benches left, by bench and name.

use std::collections::HashMap;

use crate::support::figures::folder;

/// In the order in which they are shown.
const BENCHES: [&str; 12] = [
    "paired",
    "paired_lto",
    "instructions",
    "instructions_lto",
    "allocations",
    "end_to_end",
    "end_to_end_peers",
    "contention",
    "storm",
    "tenants",
    "cold",
    "peers",
];

pub(crate) struct Figures {
    by_name: HashMap<String, f64>,
    pub(crate) in_order: Vec<(String, Vec<(String, f64)>)>,
}

impl Figures {
    pub(crate) fn read() -> Self {
        let (mut by_name, mut in_order) = (HashMap::new(), Vec::new());
        for bench in BENCHES {
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

    /// Not a number where the bench was not run.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.by_name.get(name).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn of(&self, bench: &str) -> &[(String, f64)] {
        self.in_order.iter().find(|(name, _)| name == bench).map_or(&[], |(_, lines)| lines)
    }
}

pub(crate) fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value.abs() < 10.0 && value.fract() != 0.0 => format!("{value:.2}"),
        value => format!("{:.0}", if value.abs() < 0.5 { 0.0 } else { value }),
    }
}
