//! In place of the metrics, without the feature `metrics`: nothing.

use std::sync::Arc;
use std::time::Duration;

pub(super) struct Metrics;

impl Metrics {
    pub(super) fn new(_: &Arc<str>) -> Self {
        Self
    }

    pub(super) fn token_request(
        &self,
        _: &'static str,
        _: Option<&'static str>,
        _: &'static str,
        _: Option<&'static str>,
        _: Duration,
    ) {
    }

    pub(super) fn token_lifetime(&self, _: Option<Duration>) {}

    pub(super) fn token_remaining(&self, _: Option<Duration>) {}

    pub(super) fn wait_begins(&self) {}

    pub(super) fn wait_ends(&self, _: Option<Duration>) {}

    pub(super) fn rejected(&self, _: &'static str) {}

    pub(super) fn partitions(&self, _: usize, _: usize) {}

    pub(super) fn evictions(&self, _: usize) {}

    pub(super) fn store_operation(&self, _: &'static str, _: Option<&'static str>, _: Duration) {}
}
