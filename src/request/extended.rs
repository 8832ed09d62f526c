//! `ExtendedRequest`: a `reqwest::Request` and what the extensions of `reqwest-middleware` say of it to this crate.

use http::{Extensions, HeaderMap, Method};

#[cfg(feature = "dpop")]
use super::Origin;
use super::message::sealed::Request;
use super::{Admission, OriginPolicy, ReplayAttempt, ReplayVtable, SpecialHeaders};
use crate::types::{Error, Replay, Resend, Scopes, SkipAuth, TenantId, TokenParams};

/// reqwest keeps the extensions of its requests to itself, and `reqwest-middleware` passes its own beside the request.
pub(crate) struct ExtendedRequest {
    request: reqwest::Request,
    /// Of our types only.
    options: Extensions,
}

impl ExtendedRequest {
    pub(crate) fn new(request: reqwest::Request, extensions: &Extensions) -> Self {
        let mut options = Extensions::new();
        if !extensions.is_empty() {
            copy::<TenantId>(extensions, &mut options);
            copy::<Scopes>(extensions, &mut options);
            copy::<TokenParams>(extensions, &mut options);
            copy::<Replay>(extensions, &mut options);
            copy::<SkipAuth>(extensions, &mut options);
            copy::<Resend>(extensions, &mut options);
        }
        Self { request, options }
    }

    pub(crate) fn into_request(self) -> reqwest::Request {
        self.request
    }

    /// Whether this is the second sending.
    pub(crate) fn is_resend(&self) -> bool {
        self.options.get::<Resend>().is_some()
    }
}

fn copy<T: Clone + Send + Sync + 'static>(from: &Extensions, to: &mut Extensions) {
    if let Some(value) = from.get::<T>() {
        to.insert(value.clone());
    }
}

impl Request for ExtendedRequest {
    type ReplayCopy = (<reqwest::Request as Request>::ReplayCopy, Extensions);
    type ReplayVtable = Option<ReplayVtable<reqwest::Body>>;

    fn method(&self) -> &Method {
        self.request.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    fn extensions(&self) -> Option<&Extensions> {
        (!self.options.is_empty()).then_some(&self.options)
    }

    fn mark_resend(&mut self) {
        self.options.insert(Resend);
    }

    fn admission(&self, origins: &OriginPolicy, special: SpecialHeaders) -> Result<Admission, Error> {
        self.request.admission(origins, special)
    }

    #[cfg(feature = "dpop")]
    fn place<'a>(&self, origins: &'a OriginPolicy, assumed: Option<&'a Origin>) -> Option<&'a Origin> {
        self.request.place(origins, assumed)
    }

    #[cfg(feature = "dpop")]
    fn path(&self) -> &str {
        Request::path(&self.request)
    }

    fn copy_for_replay(&self, _: Self::ReplayVtable) -> ReplayAttempt<Self::ReplayCopy> {
        ReplayAttempt::ByRecording
    }

    fn record(self, vtable: Self::ReplayVtable, cap: usize) -> (Self, Option<Self::ReplayCopy>) {
        let Self { request, options } = self;
        let (request, copy) = request.record(vtable, cap);
        let copy = copy.map(|copy| (copy, options.clone()));
        (Self { request, options }, copy)
    }

    fn rebuild((copy, options): Self::ReplayCopy) -> Option<Self> {
        Some(Self { request: Request::rebuild(copy)?, options })
    }

    fn can_rebuild((copy, _): &Self::ReplayCopy) -> bool {
        <reqwest::Request as Request>::can_rebuild(copy)
    }

    fn is_body_unknown(_: &Self::ReplayVtable) -> bool {
        false
    }

    fn body_name() -> &'static str {
        <reqwest::Request as Request>::body_name()
    }
}
