//! The tables of docs/observability.md are what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Unit, with_local_recorder};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::store::StoreErrorKind;
use crate::types::{ErrorCode, TokenErrorKind};

#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole layer")]
#[path = "../../tests/support/capture.rs"]
mod capture;
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole layer")]
#[path = "../../tests/support/recorder.rs"]
mod recorder;

const GUIDE: &str = include_str!("../../docs/observability.md");
const SECOND: Duration = Duration::from_secs(1);

/// The rows of the table under a heading; of each cell what stands in backticks.
fn table(heading: &str) -> Vec<Vec<Vec<String>>> {
    let section = GUIDE.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| row.trim_matches('|').split('|').map(quoted).collect()).collect()
}

fn all_events(telemetry: &Telemetry) {
    let error = TokenError::new(TokenErrorKind::BadCredentials).with_code(ErrorCode::new("invalid_client").unwrap());
    telemetry.token_request(Trigger::First);
    telemetry.new_token(1);
    telemetry.same_token(1);
    telemetry.token_request_failed(&error);
    telemetry.described_refusal(error.code(), "why");
    telemetry.token_request_superseded();
    telemetry.refresh_suppressed(1);
    telemetry.repeated_with_nonce();
    telemetry.unusable_member("expires_in");
    telemetry.body_not_replayable("Body");
    telemetry.body_of_another_version("Body");
    telemetry.store_failed("load", "key", "unavailable");
    telemetry.not_stored("key", "StoreFailed");
    telemetry.lease_lost("key");
    telemetry.record_replaced("key");
    telemetry.token_from_store();
}

const TRIGGERS: [Trigger; 5] =
    [Trigger::First, Trigger::Renewal, Trigger::Expiry, Trigger::Rejection, Trigger::Invalidation];

/// A token request and two who wait for it, to each end that there is.
fn all_ends(telemetry: &Telemetry) {
    let error = TokenError::new(TokenErrorKind::Timeout);
    for trigger in TRIGGERS {
        for ended in [
            Ended::NewToken { generation: 1, left: Some(SECOND) },
            Ended::NewToken { generation: 1, left: None },
            Ended::SameToken { generation: 1 },
            Ended::Failed(&error),
            Ended::Superseded,
        ] {
            let now = telemetry.now().unwrap();
            let request = TokenRequestSpan::new(telemetry, trigger, None, now);
            drop(request.begin());
            request.begun();
            let (mut waits, mut gives_up) = (Wait::for_request(&request, now), Wait::for_pause(telemetry, now));
            waits.pending();
            gives_up.pending();
            request.exchange("client_credentials");
            if matches!(ended, Ended::NewToken { left: None, .. }) {
                request.found_in_store();
            }
            request.ended(&ended);
            waits.ended();
        }
    }
}

#[test]
fn the_tables_of_events_and_spans_are_what_is_written() {
    let capture = capture::Capture::default();
    // First, so that all are known when the subscriber comes: it may miss those that another thread meets first at that moment.
    all_events(&Telemetry::default());
    all_ends(&Telemetry::default());
    let telemetry = Telemetry::new("a-layer", Arc::new(SystemClock), None);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(capture.clone()), || {
        all_events(&telemetry);
        all_ends(&telemetry);
    });
    let mut told = BTreeSet::new();
    let mut written = BTreeSet::new();
    for event in capture.events() {
        assert_eq!(event.fields["layer"], "a-layer");
        // One row for both of the sentences that begin so.
        let once_only = "bodies of this type are sent once only";
        let name = if event.message.starts_with(once_only) { once_only } else { &event.message };
        let name = name.to_owned();
        told.insert((
            event.level.to_string(),
            name,
            event.declared.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ));
        written.insert(event.message);
    }
    let documented: BTreeSet<_> =
        table("Events").into_iter().map(|row| (row[0][0].clone(), row[1][0].clone(), row[2].clone())).collect();
    assert_eq!(told, documented);

    let mut told = BTreeMap::new();
    for name in ["token_request", "token_wait"] {
        let spans = capture.spans(name);
        assert!(!spans.is_empty() && spans.iter().all(|span| span.fields["layer"] == "a-layer"), "{spans:?}");
        told.insert(name.to_owned(), spans[0].declared.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    let documented: BTreeMap<_, _> =
        table("Spans").into_iter().map(|row| (row[0][0].clone(), row[1].clone())).collect();
    assert_eq!(told, documented);

    // None was left out above, and there are none elsewhere.
    let in_code = calls_of_tracing(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    assert_eq!(in_code, BTreeMap::from([("events.rs".to_owned(), written.len()), ("spans.rs".to_owned(), 2)]));
}

/// Where the macros of `tracing` are called in the product's code, and how often.
fn calls_of_tracing(folder: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(calls_of_tracing(&path));
        } else if name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let kinds = ["trace!(", "debug!(", "info!(", "warn!(", "error!(", "info_span!(", "event!("];
            let count = kinds.iter().map(|kind| text.matches(&format!("tracing::{kind}")).count()).sum();
            if count > 0 {
                found.insert(name, count);
            }
        }
    }
    found
}

#[test]
fn the_table_of_metrics_is_what_is_counted() {
    let recorder = recorder::Recorder::default();
    let telemetry = Telemetry::new("a-layer", Arc::new(SystemClock), None);
    with_local_recorder(&recorder, || {
        all_ends(&telemetry);
        telemetry.token_replaced(Some(SECOND));
        telemetry.partitions(2, 1, 1);
        telemetry.store_operation("load", None, SECOND);
        telemetry.store_operation("load", Some(StoreErrorKind::Unavailable.as_str()), SECOND);
        let rejected = AuthOutcome { rejected: true, ..AuthOutcome::default() };
        let error = TokenError::new(TokenErrorKind::Timeout);
        telemetry.request_rejected(&AuthOutcome { resent: true, ..rejected.clone() }, None);
        telemetry.request_rejected(&AuthOutcome { suppressed: true, ..rejected.clone() }, None);
        telemetry.request_rejected(&AuthOutcome { same_token: true, ..rejected.clone() }, None);
        telemetry.request_rejected(&AuthOutcome { not_replayable: true, ..rejected.clone() }, None);
        telemetry.request_rejected(&rejected, Some(&error));
        telemetry.request_rejected(&rejected, None);
    });
    let mut told: BTreeMap<String, (&str, &str, BTreeSet<String>)> = BTreeMap::new();
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((name, labels_of), recorder::Values { kind, values: recorded }) in recorder.series() {
        match kind {
            "counter" => assert!(recorded[0] > 0.0),
            "gauge" => assert_eq!(recorded[0], if name.ends_with("waiters") { 0.0 } else { 1.0 }, "{name}"),
            _ => {}
        }
        let (unit, description) = recorder.described(&name).unwrap();
        let unit = match unit {
            Some(Unit::Seconds) => "s",
            Some(Unit::Count) => "1",
            other => panic!("{name}: {other:?}"),
        };
        assert!(description.ends_with('.'), "{name}: {description}");
        let labels = &mut told.entry(name.clone()).or_insert((kind, unit, BTreeSet::new())).2;
        for (label, value) in labels_of {
            labels.insert(label.clone());
            let of = match (&*label, name.contains("rejected")) {
                ("outcome", true) => "outcome of a rejected request",
                ("outcome", false) => "outcome of a token request",
                (other, _) => other,
            };
            values.entry(of.to_owned()).or_default().insert(value);
        }
    }
    let documented: BTreeMap<_, _> = table("Metrics")
        .into_iter()
        .map(|row| (row[0][0].clone(), (row[2][0].clone(), row[3].iter().cloned().collect::<BTreeSet<_>>())))
        .collect();
    let code = told.iter().map(|(name, (_, unit, labels))| (name.clone(), ((*unit).to_owned(), labels.clone())));
    assert_eq!(code.collect::<BTreeMap<_, _>>(), documented);
    for line in GUIDE.lines().filter(|line| line.starts_with("| `oauth2.")) {
        let name = line.split('`').nth(1).unwrap();
        assert_eq!(line.split('|').nth(2).unwrap().trim(), told[name].0, "{name}");
    }
    assert_eq!(values["layer"], BTreeSet::from(["a-layer".to_owned()]));
    for (label, row) in
        GUIDE.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split_once(" | `"))
    {
        let label = label.replace('`', "");
        if ["trigger", "outcome of a token request", "outcome of a rejected request"].contains(&&*label) {
            let row: BTreeSet<_> = format!("`{row}").split('`').skip(1).step_by(2).map(str::to_owned).collect();
            assert_eq!(values[&label], row, "{label}");
        }
    }
}

#[test]
fn a_table_within_a_layer_counts_no_partitions_and_has_no_observer() {
    let recorder = recorder::Recorder::default();
    let observer: Observer = Arc::new(|_, _| panic!("twice"));
    let telemetry = Telemetry::new("a-layer", Arc::new(SystemClock), Some(observer)).of_inner_table();
    with_local_recorder(&recorder, || telemetry.partitions(1, 0, 0));
    assert!(recorder.series().is_empty());
    telemetry.observe(None, &TokenError::new(TokenErrorKind::Timeout));
    assert_eq!(telemetry.name(), "a-layer");
}
