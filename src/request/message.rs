//! The sealed pair of traits through which one state machine serves `http::Request<B>` and `reqwest::Request`.

use http::{Extensions, HeaderMap, Method, StatusCode};
use http_body::Body;

#[cfg(feature = "dpop")]
use super::Origin;
#[cfg(feature = "reqwest")]
use super::body::BodyCopy;
use super::replay::{copy_for_replay, record};
use super::{Admission, OriginPolicy, ReplayAttempt, ReplayCopy, ReplayVtable, SpecialHeaders};
use crate::types::{Error, Resend};

/// A request that can carry credentials and be sent twice. Sealed: implemented for `http::Request<B>` and, with the
/// feature `reqwest`, for `reqwest::Request`.
#[allow(private_bounds, reason = "the private bound is the seal")]
pub trait HttpRequest: Sized + sealed::Request {}

/// A response that can reject them. Sealed: implemented for `http::Response<B>` and `reqwest::Response`.
#[allow(private_bounds, reason = "the private bound is the seal")]
pub trait HttpResponse: sealed::Response {}

impl<R: sealed::Request> HttpRequest for R {}
impl<R: sealed::Response> HttpResponse for R {}

pub(crate) mod sealed {
    use super::*;

    pub(crate) trait Request: Sized {
        /// What is kept of it for a second sending.
        type ReplayCopy;
        /// How its body is sent twice. Found out by type, in `Service::call`, and carried from there: these traits must not
        /// ask for `'static`, or the futures of type-erased bodies could not be spawned from within an `async` block.
        type ReplayVtable: Copy;

        fn method(&self) -> &Method;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
        /// Per-request options; `None` where the type keeps its extensions to itself.
        fn extensions(&self) -> Option<&Extensions>;
        /// Tells an inner layer of this crate that this is the second sending.
        fn mark_resend(&mut self);
        fn admission(&self, origins: &OriginPolicy, special: SpecialHeaders) -> Result<Admission, Error>;
        /// Where an admitted request goes, see [`OriginPolicy::place`].
        #[cfg(feature = "dpop")]
        fn place<'a>(&self, origins: &'a OriginPolicy, assumed: Option<&'a Origin>) -> Option<&'a Origin>;
        /// The path of its URI.
        #[cfg(feature = "dpop")]
        fn path(&self) -> &str;
        /// Keeps what a second sending needs; nothing if it cannot be sent twice.
        fn copy_for_replay(&self, vtable: Self::ReplayVtable) -> ReplayAttempt<Self::ReplayCopy>;
        /// Splits into what is sent and what is kept.
        fn record(self, vtable: Self::ReplayVtable, cap: usize) -> (Self, Option<Self::ReplayCopy>);
        fn rebuild(copy: Self::ReplayCopy) -> Option<Self>;
        /// Whether that can be done by now.
        fn can_rebuild(copy: &Self::ReplayCopy) -> bool;
        /// Both: what is sent, and what is kept if it can be sent twice.
        #[cfg(feature = "dpop")]
        fn copy(self, vtable: Self::ReplayVtable, cap: usize) -> (Self, Option<Self::ReplayCopy>) {
            match self.copy_for_replay(vtable) {
                ReplayAttempt::Done(copy) => (self, copy),
                ReplayAttempt::ByRecording => self.record(vtable, cap),
            }
        }
        /// Whether no request with such a body can be sent twice.
        fn is_body_unknown(vtable: &Self::ReplayVtable) -> bool;
        fn body_name() -> &'static str;
    }

    pub(crate) trait Response {
        type Body: Body;

        fn status(&self) -> StatusCode;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
        fn extensions(&self) -> &Extensions;
        fn extensions_mut(&mut self) -> &mut Extensions;
        fn into_body(self) -> Self::Body;
    }
}

impl<B: Body> sealed::Request for http::Request<B> {
    type ReplayCopy = ReplayCopy<B>;
    type ReplayVtable = Option<ReplayVtable<B>>;

    fn method(&self) -> &Method {
        self.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> Option<&Extensions> {
        let extensions = self.extensions();
        (!extensions.is_empty()).then_some(extensions)
    }

    fn mark_resend(&mut self) {
        self.extensions_mut().insert(Resend);
    }

    #[inline]
    fn admission(&self, origins: &OriginPolicy, special: SpecialHeaders) -> Result<Admission, Error> {
        origins.check(self.method(), self.uri(), self.headers(), special)
    }

    #[cfg(feature = "dpop")]
    fn place<'a>(&self, origins: &'a OriginPolicy, assumed: Option<&'a Origin>) -> Option<&'a Origin> {
        origins.place(self.uri(), self.headers(), assumed)
    }

    #[cfg(feature = "dpop")]
    fn path(&self) -> &str {
        self.uri().path()
    }

    #[inline]
    fn copy_for_replay(&self, vtable: Self::ReplayVtable) -> ReplayAttempt<Self::ReplayCopy> {
        copy_for_replay(self, vtable)
    }

    fn record(self, vtable: Self::ReplayVtable, cap: usize) -> (Self, Option<Self::ReplayCopy>) {
        record(self, vtable, cap)
    }

    fn rebuild(copy: Self::ReplayCopy) -> Option<Self> {
        copy.rebuild()
    }

    fn can_rebuild(copy: &Self::ReplayCopy) -> bool {
        copy.is_complete()
    }

    fn is_body_unknown(vtable: &Self::ReplayVtable) -> bool {
        vtable.is_none()
    }

    fn body_name() -> &'static str {
        std::any::type_name::<B>()
    }
}

impl<B: Body> sealed::Response for http::Response<B> {
    type Body = B;

    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> &Extensions {
        self.extensions()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn into_body(self) -> B {
        self.into_body()
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Request for reqwest::Request {
    /// The request without its body, and a second body or the way to one.
    type ReplayCopy = (reqwest::Request, Option<BodyCopy<reqwest::Body>>);
    type ReplayVtable = Option<ReplayVtable<reqwest::Body>>;

    fn method(&self) -> &Method {
        self.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> Option<&Extensions> {
        None
    }

    fn mark_resend(&mut self) {}

    fn admission(&self, origins: &OriginPolicy, _: SpecialHeaders) -> Result<Admission, Error> {
        let url = self.url();
        let has_userinfo = !url.username().is_empty() || url.password().is_some();
        origins.check_parts(self.method(), Some(url.scheme()), url.host_str(), url.port(), has_userinfo, self.headers())
    }

    #[cfg(feature = "dpop")]
    fn place<'a>(&self, origins: &'a OriginPolicy, assumed: Option<&'a Origin>) -> Option<&'a Origin> {
        let url = self.url();
        origins.place_parts(Some(url.scheme()), url.host_str(), url.port(), self.headers(), assumed)
    }

    #[cfg(feature = "dpop")]
    fn path(&self) -> &str {
        self.url().path()
    }

    fn copy_for_replay(&self, _: Self::ReplayVtable) -> ReplayAttempt<Self::ReplayCopy> {
        ReplayAttempt::ByRecording
    }

    fn record(mut self, vtable: Self::ReplayVtable, cap: usize) -> (Self, Option<Self::ReplayCopy>) {
        // `try_clone` refuses streaming bodies, and only them.
        let body = self.body_mut().take();
        let head = self.try_clone();
        let (body, copy) = match (body, vtable) {
            (None, _) => (None, Some(None)),
            (Some(body), None) => (Some(body), None),
            (Some(body), Some(vtable)) => {
                let (body, copy) = vtable.copy_for_replay(body, cap);
                (Some(body), copy.map(Some))
            }
        };
        *self.body_mut() = body;
        (self, head.zip(copy))
    }

    fn rebuild((mut request, body): Self::ReplayCopy) -> Option<Self> {
        *request.body_mut() = match body {
            Some(body) => Some(body.rebuild()?),
            None => None,
        };
        Some(request)
    }

    fn can_rebuild((_, body): &Self::ReplayCopy) -> bool {
        body.as_ref().is_none_or(BodyCopy::is_complete)
    }

    fn is_body_unknown(_: &Self::ReplayVtable) -> bool {
        false
    }

    fn body_name() -> &'static str {
        std::any::type_name::<reqwest::Body>()
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Response for reqwest::Response {
    type Body = reqwest::Body;

    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> &Extensions {
        self.extensions()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn into_body(self) -> reqwest::Body {
        self.into()
    }
}
