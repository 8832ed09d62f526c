//! Metrics, through the facade of the crate `metrics`: nothing is kept here, and without a recorder nothing happens.
//!
//! Names and units follow OpenTelemetry's semantic conventions. A label is one of a few values that the code knows, or the
//! layer's name. A request that is accepted at its first sending comes to none of this.

use std::sync::{Arc, Once};
use std::time::Duration;

use metrics::{
    Key, Label, Level, Metadata, SharedString, Unit, describe_counter, describe_gauge, describe_histogram,
    with_recorder,
};

use super::TARGET;

static METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

const TOKEN_REQUEST: &str = "oauth2.client.token.request.duration";
const TOKEN_WAIT: &str = "oauth2.client.token.wait.duration";
const TOKEN_WAITERS: &str = "oauth2.client.token.waiters";
const TOKEN_LIFETIME: &str = "oauth2.client.token.lifetime";
const TOKEN_REMAINING: &str = "oauth2.client.token.remaining_lifetime";
const REJECTED: &str = "oauth2.client.rejected_requests";
const PARTITIONS: &str = "oauth2.client.partitions";
const EVICTIONS: &str = "oauth2.client.partition.evictions";
const STORE_OPERATION: &str = "oauth2.client.store.operation.duration";

pub(super) struct Metrics {
    layer: SharedString,
    /// Made once: there may be many who wait.
    waiters: Key,
    wait: Key,
    described: Once,
}

impl Metrics {
    pub(super) fn new(name: &Arc<str>) -> Self {
        let layer = SharedString::from_shared(name.clone());
        let key = |name: &'static str| Key::from_parts(name, vec![Label::new("layer", layer.clone())]);
        let (waiters, wait) = (key(TOKEN_WAITERS), key(TOKEN_WAIT));
        Self { layer, waiters, wait, described: Once::new() }
    }

    /// A token request ended.
    pub(super) fn token_request(
        &self,
        trigger: &'static str,
        grant: Option<&'static str>,
        outcome: &'static str,
        error: Option<&'static str>,
        took: Duration,
    ) {
        let labels = [("trigger", Some(trigger)), ("grant", grant), ("outcome", Some(outcome)), ("error.type", error)];
        self.record(TOKEN_REQUEST, &labels, took);
    }

    /// A new token has so long to live. One whose end nobody knows says nothing.
    pub(super) fn token_lifetime(&self, left: Option<Duration>) {
        left.iter().for_each(|left| self.record(TOKEN_LIFETIME, &[], *left));
    }

    /// A token had so long to live still when it was replaced.
    pub(super) fn token_remaining(&self, left: Option<Duration>) {
        left.iter().for_each(|left| self.record(TOKEN_REMAINING, &[], *left));
    }

    /// One more request waits.
    pub(super) fn wait_begins(&self) {
        self.describe();
        with_recorder(|recorder| recorder.register_gauge(&self.waiters, &METADATA).increment(1.0));
    }

    /// It waits no longer; `None`: since it was given up.
    pub(super) fn wait_ends(&self, took: Option<Duration>) {
        with_recorder(|recorder| {
            recorder.register_gauge(&self.waiters, &METADATA).decrement(1.0);
            if let Some(took) = took {
                recorder.register_histogram(&self.wait, &METADATA).record(took.as_secs_f64());
            }
        });
    }

    /// A request whose token was rejected.
    pub(super) fn rejected(&self, outcome: &'static str) {
        let key = self.key(REJECTED, &[("outcome", Some(outcome))]);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(1));
    }

    pub(super) fn partitions(&self, made: usize, gone: usize) {
        let key = self.key(PARTITIONS, &[]);
        with_recorder(|recorder| {
            let partitions = recorder.register_gauge(&key, &METADATA);
            if made > gone {
                partitions.increment((made - gone) as f64);
            } else {
                partitions.decrement((gone - made) as f64);
            }
        });
    }

    pub(super) fn evictions(&self, count: usize) {
        let key = self.key(EVICTIONS, &[]);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(count));
    }

    /// `took`: as far as it is known.
    pub(super) fn store_operation(&self, operation: &'static str, error: Option<&'static str>, took: Duration) {
        self.record(STORE_OPERATION, &[("operation", Some(operation)), ("error.type", error)], took);
    }

    fn record(&self, name: &'static str, labels: &[(&'static str, Option<&'static str>)], value: Duration) {
        let key = self.key(name, labels);
        with_recorder(|recorder| recorder.register_histogram(&key, &METADATA).record(value.as_secs_f64()));
    }

    fn key(&self, name: &'static str, labels: &[(&'static str, Option<&'static str>)]) -> Key {
        self.describe();
        let layer = Label::new("layer", self.layer.clone());
        let labels = labels.iter().filter_map(|(name, value)| Some(Label::new(*name, (*value)?)));
        Key::from_parts(name, [layer].into_iter().chain(labels).collect::<Vec<_>>())
    }

    /// Not before there is something to tell, when the recorder most likely is there.
    fn describe(&self) {
        self.described.call_once(|| {
            for (name, unit, text) in [
                (TOKEN_REQUEST, Unit::Seconds, "Duration of token requests, from the decision to ask to the end."),
                (TOKEN_WAIT, Unit::Seconds, "Time that requests waited for a token."),
                (TOKEN_LIFETIME, Unit::Seconds, "Lifetime of new tokens, as they arrive."),
                (TOKEN_REMAINING, Unit::Seconds, "Lifetime that tokens had left when they were replaced."),
                (STORE_OPERATION, Unit::Seconds, "Duration of calls of the token store."),
            ] {
                describe_histogram!(name, unit, text);
            }
            describe_gauge!(TOKEN_WAITERS, Unit::Count, "Requests that wait for a token now.");
            describe_gauge!(PARTITIONS, Unit::Count, "Partitions that are held in memory.");
            describe_counter!(REJECTED, Unit::Count, "Requests whose token was rejected, by what came of it.");
            describe_counter!(EVICTIONS, Unit::Count, "Partitions that were dropped, idle or over the bound.");
        });
    }
}
