//! Events: all that the crate writes.
//!
//! Each names the layer. A warning that may come with each request is written at most once a second, with a count
//! of those that were `skipped` since.

use std::fmt;

use super::{TARGET, Telemetry, Trigger};
use crate::types::{ErrorCode, TokenError};

/// How many of the same kind were not written since the last one; leaves the function if this one is not to be written either.
macro_rules! skipped {
    ($telemetry:expr, $event:literal, $class:expr) => {
        match $telemetry.skipped(($event, $class)) {
            Some(skipped) => skipped,
            None => return,
        }
    };
}

impl Telemetry {
    pub(super) fn token_request(&self, trigger: Trigger) {
        tracing::debug!(target: TARGET, layer = self.name(), trigger = trigger.as_str(), "token request");
    }

    pub(super) fn new_token(&self, generation: u64) {
        tracing::info!(target: TARGET, layer = self.name(), generation, "new token");
    }

    pub(super) fn same_token(&self, generation: u64) {
        tracing::info!(target: TARGET, layer = self.name(), generation, "same token again");
    }

    pub(super) fn token_request_failed(&self, error: &TokenError) {
        let kind = error.kind().as_str();
        let skipped = skipped!(self, "token request failed", kind);
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            "error.type" = kind,
            status = error.status().map(|status| status.as_u16()),
            code = error.code().map(|code| code.as_str()),
            skipped,
            "token request failed"
        );
    }

    /// What the server says of its refusal, such as the numbers of Entra (`AADSTS…`). The one event with a foreign text in
    /// it; `description` is masked.
    pub(crate) fn described_refusal(&self, code: Option<&ErrorCode>, description: &str) {
        let code = code.map(ErrorCode::as_str);
        tracing::debug!(
            target: TARGET,
            layer = self.name(),
            code,
            error_description = ?description,
            "the server says why"
        );
    }

    pub(super) fn token_request_superseded(&self) {
        tracing::debug!(target: TARGET, layer = self.name(), "token request superseded");
    }

    pub(crate) fn refresh_suppressed(&self, generation: u64) {
        let skipped = skipped!(self, "refresh suppressed", "");
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            generation,
            skipped,
            "token rejected, not refreshed: earlier refreshes did not help"
        );
    }

    #[cfg(feature = "dpop")]
    pub(crate) fn repeated_with_nonce(&self) {
        tracing::debug!(target: TARGET, layer = self.name(), "sent once more with the server's nonce");
    }

    /// Once for each endpoint.
    pub(crate) fn unusable_member(&self, member: &'static str) {
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            member,
            "the token endpoint sends this member with a value that cannot be used"
        );
    }

    /// Once for each service and type.
    pub(crate) fn body_not_replayable(&self, body: &'static str) {
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            body,
            "bodies of this type are sent once only; register the type with `replay_clone`, `replay_with` or `replay_recorded`"
        );
    }

    /// Once for each service and type.
    pub(crate) fn body_of_another_version(&self, body: &'static str) {
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            body,
            "bodies of this type are sent once only: it comes from another version of its crate than the one known here, or \
             this crate's feature for it is off; align them, or register the type with `replay_clone`, `replay_with` or `replay_recorded`"
        );
    }

    pub(crate) fn store_failed(&self, call: &'static str, key: impl fmt::Display, kind: &'static str) {
        let skipped = skipped!(self, "store failed", call);
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            call,
            %key,
            "error.type" = kind,
            skipped,
            "the token store failed; tokens are fetched without it"
        );
    }

    pub(crate) fn not_stored(&self, key: impl fmt::Display, reason: impl fmt::Debug) {
        let skipped = skipped!(self, "not stored", "");
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            %key,
            ?reason,
            skipped,
            "a new token could not be stored; it is used nevertheless"
        );
    }

    pub(crate) fn lease_lost(&self, key: impl fmt::Display) {
        let skipped = skipped!(self, "lease lost", "");
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            %key,
            skipped,
            "the lease was lost while a token request was in flight"
        );
    }

    /// Each is somebody's sign-in.
    pub(crate) fn record_replaced(&self, key: impl fmt::Display) {
        tracing::warn!(
            target: TARGET,
            layer = self.name(),
            %key,
            "a stored token that cannot be read was replaced by a new sign-in"
        );
    }

    pub(crate) fn token_from_store(&self) {
        tracing::debug!(target: TARGET, layer = self.name(), "token taken from the store");
    }

    /// `None`: this one is not to be written. Who listens to no warnings does not have them counted.
    fn skipped(&self, kind: super::repeats::Kind) -> Option<u64> {
        if !tracing::enabled!(target: TARGET, tracing::Level::WARN) {
            return None;
        }
        match self.now() {
            Some(now) => self.0.repeats.admit(kind, now),
            None => Some(0),
        }
    }
}
