//! Settings of what happens to requests and responses.

use http::StatusCode;

use super::AuthConfigBuilder;
use crate::request::{ExistingAuthorization, Tenant, UnlistedOrigin};
use crate::response::Forbidden;
use crate::types::Replay;

/// Requests and responses.
impl<E> AuthConfigBuilder<E> {
    /// Allows tokens to go to this origin (`https://host[:port]`, RFC 6454); each call adds one, and at least one is
    /// needed. There is no default: deriving it from the token URL would either block everything or leak. Compared are
    /// scheme, host and port, in full: subdomains are origins of their own.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// The origins that tokens may go to, in place of those named so far, a preset's among them.
    pub fn origins<I>(mut self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// What happens to a request to any other origin. Default: it is refused ([`UnlistedOrigin::Refuse`]), since an attacker may
    /// have chosen its URL.
    pub fn on_unlisted_origin(mut self, foreign: UnlistedOrigin) -> Self {
        self.foreign = foreign;
        self
    }

    /// Allows http without TLS to hosts other than this machine, for the token URL and the origins. Everybody on the
    /// way can read tokens and secrets then; for private networks only.
    pub fn danger_allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Where a request's tenant comes from and where it goes, in place of what was said before. None by default: a request
    /// with a [`TenantId`](crate::TenantId) is then refused ([`Error::Tenant`](crate::Error::Tenant)), since it was meant for
    /// one tenant and would go out for all.
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// No tenants, where a preset has some.
    pub fn no_tenant(mut self) -> Self {
        self.tenant = None;
        self
    }

    /// A header that each request gets unless it has it already, such as `Accept`. Repeatable; the last value for a
    /// name counts.
    pub fn default_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.default_headers.push((name.into(), value.into()));
        self
    }

    /// The headers that each request gets unless it has them already, in place of those named so far, a preset's among them.
    pub fn default_headers<I, N, V>(mut self, headers: I) -> Self
    where
        I: IntoIterator<Item = (N, V)>,
        N: Into<String>,
        V: Into<String>,
    {
        self.default_headers = headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// What happens to an `Authorization` header that a request brings. Default: it is replaced.
    pub fn existing_authorization(mut self, existing: ExistingAuthorization) -> Self {
        self.existing = existing;
        self
    }

    /// Which requests are sent again after a rejection. Default: every one whose body can be sent twice.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay.replay = replay;
        self
    }

    /// How much of a streaming body is recorded for a second sending, in bytes. Default: 64 KiB. Bodies that can be
    /// cloned share their bytes and are not limited.
    pub fn max_replay_bytes(mut self, bytes: usize) -> Self {
        self.replay.cap = bytes;
        self
    }

    /// What a 403 means (RFC 9110 §15.5.4). Default: nothing that a new token could mend.
    pub fn on_forbidden(mut self, forbidden: Forbidden) -> Self {
        self.rejection.forbidden = forbidden;
        self
    }

    /// A further status that is treated like a 401, such as 419 or 440 of some APIs. Repeatable. A success, a status below 200
    /// and 407 (a proxy's) are errors.
    pub fn unauthorized_status(mut self, status: StatusCode) -> Self {
        self.rejection.also.push(status);
        self
    }

    /// Does not look at `grpc-status` in response headers. It is looked at by default, which costs one look-up.
    pub fn ignore_grpc_status(mut self) -> Self {
        self.rejection.grpc = false;
        self
    }

    /// Ignores 401 and gRPC's `UNAUTHENTICATED`: tokens are renewed by time only.
    pub fn ignore_unauthorized(mut self) -> Self {
        self.rejection.on_unauthorized = false;
        self
    }
}
