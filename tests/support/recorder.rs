//! A recorder of metrics that keeps whatever it is told.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

/// A metric with its labels, in order of their names.
pub(crate) type Series = (String, BTreeMap<String, String>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    pub(crate) kind: &'static str,
    /// Each of a histogram; of a counter or a gauge the last.
    pub(crate) values: Vec<f64>,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    series: BTreeMap<Series, Values>,
    described: BTreeMap<String, (Option<Unit>, String)>,
}

impl Recorder {
    pub(crate) fn series(&self) -> BTreeMap<Series, Values> {
        self.0.lock().unwrap().series.clone()
    }

    pub(crate) fn described(&self, name: &str) -> Option<(Option<Unit>, String)> {
        self.0.lock().unwrap().described.get(name).cloned()
    }

    /// All values of a metric whose labels have these values among them.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has =
            |of: &Series| labels.iter().all(|(label, value)| of.1.get(*label).is_some_and(|found| found == value));
        let series = self.series();
        let found = series.iter().filter(|(of, _)| of.0 == name && has(of));
        found.flat_map(|(_, values)| values.values.clone()).collect()
    }

    /// How many series there are, and how many values in all.
    pub(crate) fn total(&self) -> (usize, usize) {
        let series = self.series();
        (series.len(), series.values().map(|of| of.values.len()).sum())
    }

    fn one(&self, key: &Key, kind: &'static str) -> Arc<One> {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        Arc::new(One { kept: self.0.clone(), series: (key.name().to_owned(), labels), kind })
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        self.0.lock().unwrap().described.insert(name.as_str().to_owned(), (unit, text.to_string()));
    }
}

struct One {
    kept: Arc<Mutex<Kept>>,
    series: Series,
    kind: &'static str,
}

impl One {
    fn change(&self, change: impl FnOnce(&mut Vec<f64>)) {
        let mut kept = self.kept.lock().unwrap();
        let of = kept.series.entry(self.series.clone()).or_default();
        of.kind = self.kind;
        change(&mut of.values);
    }

    fn add(&self, value: f64) {
        self.change(|values| *values = vec![values.first().unwrap_or(&0.0) + value]);
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|values| *values = vec![value as f64]);
    }
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.change(|values| *values = vec![value]);
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.change(|values| values.push(value));
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key, "counter"))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key, "gauge"))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key, "histogram"))
    }
}
