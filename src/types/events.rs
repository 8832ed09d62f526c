//! Names of events; the only file that knows them all. What could be a secret is masked before it comes here.

use std::fmt;

use super::{ErrorCode, TokenError};

const TARGET: &str = "tower_oauth2_client";

pub(crate) fn token_request(forced: bool) {
    tracing::debug!(target: TARGET, forced, "token request");
}

pub(crate) fn new_token(generation: u64) {
    tracing::info!(target: TARGET, generation, "new token");
}

pub(crate) fn same_token(generation: u64) {
    tracing::info!(target: TARGET, generation, "same token again");
}

pub(crate) fn token_request_failed(error: &TokenError) {
    tracing::warn!(
        target: TARGET,
        kind = ?error.kind(),
        status = error.status().map(|status| status.as_u16()),
        code = error.code().map(|code| code.as_str()),
        "token request failed"
    );
}

/// What the server says of its refusal, such as the numbers of Entra (`AADSTS…`). The one event with a foreign text in it;
/// `description` is masked.
pub(crate) fn described_refusal(code: Option<&ErrorCode>, description: &str) {
    let code = code.map(ErrorCode::as_str);
    tracing::debug!(target: TARGET, code, error_description = ?description, "the server says why");
}

pub(crate) fn token_request_superseded() {
    tracing::debug!(target: TARGET, "token request superseded");
}

pub(crate) fn refresh_suppressed(generation: u64) {
    tracing::warn!(target: TARGET, generation, "token rejected, not refreshed: earlier refreshes did not help");
}

#[cfg(feature = "dpop")]
pub(crate) fn repeated_with_nonce() {
    tracing::debug!(target: TARGET, "sent once more with the server's nonce");
}

pub(crate) fn unusable_member(member: &'static str) {
    tracing::warn!(target: TARGET, member, "the token endpoint sends this member with a value that cannot be used");
}

pub(crate) fn body_not_replayable(body: &'static str) {
    tracing::warn!(
        target: TARGET,
        body,
        "bodies of this type are sent once only; register the type with `replay_clone` or `replay_recorded`"
    );
}

pub(crate) fn body_of_another_version(body: &'static str) {
    tracing::warn!(
        target: TARGET,
        body,
        "bodies of this type are sent once only: it comes from another version of its crate than the one known here, or this \
         crate's feature for it is off; align them, or register the type with `replay_clone` or `replay_recorded`"
    );
}

pub(crate) fn store_failed(call: &'static str, key: impl fmt::Display, kind: impl fmt::Debug) {
    tracing::warn!(target: TARGET, call, %key, ?kind, "the token store failed; tokens are fetched without it");
}

pub(crate) fn not_stored(key: impl fmt::Display, reason: impl fmt::Debug) {
    tracing::warn!(target: TARGET, %key, ?reason, "a new token could not be stored; it is used nevertheless");
}

pub(crate) fn lease_lost(key: impl fmt::Display) {
    tracing::warn!(target: TARGET, %key, "the lease was lost while a token request was in flight");
}

pub(crate) fn record_replaced(key: impl fmt::Display) {
    tracing::warn!(target: TARGET, %key, "a stored token that cannot be read was replaced by a new sign-in");
}

pub(crate) fn token_from_store() {
    tracing::debug!(target: TARGET, "token taken from the store");
}
