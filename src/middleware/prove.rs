//! `Prove<S>`: the inner service, with a proof on each request whose token is bound to a key (RFC 9449 §7; feature `dpop`).
//!
//! Where the server wants its nonce in the proof (§9), the sending is made once more with it: neither a refresh nor a
//! resend, and nobody outside learns of it. Without the feature all this is `S`; without a key, one comparison.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::request::{HttpRequest, HttpResponse};
#[cfg(feature = "dpop")]
use crate::response::rejects_proof;
use crate::setup::Setup;
use crate::types::{BoxError, Error};

/// The inner service.
#[derive(Clone)]
pub(crate) struct Prove<S> {
    inner: S,
    /// There where tokens are bound to a key.
    #[cfg(feature = "dpop")]
    bound: Option<Arc<Setup>>,
}

impl<S> Prove<S> {
    #[cfg_attr(not(feature = "dpop"), expect(unused_variables, reason = "nothing is proved"))]
    pub(crate) fn new(inner: S, setup: &Arc<Setup>) -> Self {
        Self {
            inner,
            #[cfg(feature = "dpop")]
            bound: setup.can_prove().then(|| setup.clone()),
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    pub(crate) fn poll_ready<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: Service<R>,
        S::Error: Into<BoxError>,
    {
        self.inner.poll_ready(cx).map_err(service_error)
    }

    /// The inner service, where no request needs a proof.
    #[inline]
    pub(crate) fn without_proof(&mut self) -> Option<&mut S> {
        #[cfg(feature = "dpop")]
        if self.bound.is_some() {
            return None;
        }
        Some(&mut self.inner)
    }

    /// `vtable` and `may_repeat`: how the request is sent twice, and whether it may be.
    #[cfg_attr(not(feature = "dpop"), expect(unused_variables, reason = "nothing is repeated"))]
    pub(crate) fn call<R>(
        &mut self,
        request: R,
        vtable: R::ReplayVtable,
        may_repeat: bool,
    ) -> ProveFuture<S, R, S::Future, S::Response>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        #[cfg(feature = "dpop")]
        if let Some(setup) = &self.bound {
            let setup = setup.clone();
            return proved::call(&mut self.inner, setup, request, vtable, may_repeat);
        }
        ProveFuture::of(self.inner.call(request))
    }
}

pub(crate) fn service_error<E: Into<BoxError>>(error: E) -> Error {
    Error::Service(error.into())
}

/// What challenges that concern the token begin with: the scheme that it was sent with.
const BEARER: &[u8] = b"Bearer";

#[cfg(not(feature = "dpop"))]
pin_project! {
    /// A sending.
    pub(crate) struct ProveFuture<S, R, F, T> {
        #[pin]
        future: F,
        service: std::marker::PhantomData<fn() -> (S, R, T)>,
    }
}

#[cfg(not(feature = "dpop"))]
impl<S, R, F, T> ProveFuture<S, R, F, T> {
    pub(crate) fn of(future: F) -> Self {
        Self { future, service: std::marker::PhantomData }
    }

    pub(crate) fn scheme(&self) -> &'static [u8] {
        BEARER
    }

    pub(crate) fn is_proof_rejected(&self, _: &T) -> bool {
        false
    }
}

#[cfg(not(feature = "dpop"))]
impl<S, R, F, T> Future for ProveFuture<S, R, F, T>
where
    S: Service<R, Response = T, Future = F>,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<T, S::Error>>,
{
    type Output = Result<T, Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_err(service_error)
    }
}

#[cfg(feature = "dpop")]
pin_project! {
    /// A sending.
    #[project = ProveProj]
    pub(crate) enum ProveFuture<S, R, F, T>
    where
        R: HttpRequest,
        T: HttpResponse,
    {
        Plain { #[pin] future: F },
        Proved { proved: Pin<Box<proved::Proved<S, R, F, T>>> },
    }
}

#[cfg(feature = "dpop")]
impl<S, R, F, T> ProveFuture<S, R, F, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    pub(crate) fn of(future: F) -> Self {
        Self::Plain { future }
    }

    pub(crate) fn scheme(&self) -> &'static [u8] {
        match self {
            Self::Plain { .. } => BEARER,
            Self::Proved { .. } => b"DPoP",
        }
    }

    /// Whether the last answer refuses the proof, which neither another token nor another repeat would change.
    pub(crate) fn is_proof_rejected(&self, response: &T) -> bool {
        matches!(self, Self::Proved { .. }) && rejects_proof(response.status(), response.headers())
    }
}

#[cfg(feature = "dpop")]
impl<S, R, F, T> Future for ProveFuture<S, R, F, T>
where
    S: Service<R, Response = T, Future = F>,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<T, S::Error>>,
    R: HttpRequest,
    T: HttpResponse,
{
    type Output = Result<T, Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ProveProj::Plain { future } => future.poll(cx).map_err(service_error),
            ProveProj::Proved { proved } => proved.as_mut().poll(cx),
        }
    }
}

#[cfg(feature = "dpop")]
mod proved {
    use std::task::ready;

    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::dpop::{About, PROOF, nonce_of};
    use crate::response::{Drain, wants_nonce};

    pin_project! {
        /// A sending with a proof.
        pub(crate) struct Proved<S, R, F, T>
        where
            R: HttpRequest,
            T: HttpResponse,
        {
            setup: Arc<Setup>,
            token: HeaderValue,
            origin: String,
            // What it takes to send it once more. Gone after that: a nonce is good for one repeat.
            repeat: Option<(S, R::ReplayCopy)>,
            // Of an answer that is being repeated: for this repeat only, since it may be good for one request.
            nonce: Option<Box<str>>,
            #[pin]
            step: Step<S, R, F, T::Body>,
        }
    }

    pin_project! {
        #[project = StepProj]
        #[project_replace = StepOwned]
        enum Step<S, R, F, B> {
            Sending { #[pin] future: F },
            // Nothing is asked for before that: at a concurrency limit of one the response may hold the only permit.
            Draining { #[pin] drain: Drain<B>, fresh: S, request: R },
            Readying { fresh: S, request: R },
            Failed { error: Error },
            Done,
        }
    }

    /// Boxed, so that nobody else's future is larger for it. Most tokens of a layer with a key are bound; the others go out
    /// as they are.
    #[cold]
    pub(super) fn call<S, R>(
        service: &mut S,
        setup: Arc<Setup>,
        mut request: R,
        vtable: R::ReplayVtable,
        may_repeat: bool,
    ) -> ProveFuture<S, R, S::Future, S::Response>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        S::Response: HttpResponse,
    {
        let Some(token) = request.headers_mut().remove(AUTHORIZATION) else {
            return ProveFuture::of(service.call(request));
        };
        if bound_token(&token).is_none() {
            request.headers_mut().insert(AUTHORIZATION, token);
            return ProveFuture::of(service.call(request));
        }
        // Without the token, since copies are not wiped.
        let mut copy = None;
        if may_repeat {
            (request, copy) = request.copy(vtable, setup.requests.replay.cap);
        }
        let proved = setup.requests.origin_for_proof(&request).map(ToString::to_string).and_then(|origin| {
            prove(&setup, &mut request, &token, &origin, None)?;
            Ok(origin)
        });
        let (origin, step, repeat) = match proved {
            Ok(origin) => {
                let repeat = copy.map(|copy| (service.clone(), copy));
                (origin, Step::Sending { future: service.call(request) }, repeat)
            }
            Err(error) => {
                // Not sent: the readiness that was acquired for it is given back.
                *service = service.clone();
                (String::new(), Step::Failed { error }, None)
            }
        };
        let proved = Proved { setup, token, origin, repeat, nonce: None, step };
        ProveFuture::Proved { proved: Box::pin(proved) }
    }

    impl<S, R, F, T> Future for Proved<S, R, F, T>
    where
        S: Service<R, Response = T, Future = F>,
        S::Error: Into<BoxError>,
        F: Future<Output = Result<T, S::Error>>,
        R: HttpRequest,
        T: HttpResponse,
    {
        type Output = Result<T, Error>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut this = self.project();
            loop {
                match this.step.as_mut().project() {
                    StepProj::Sending { future } => {
                        let response = ready!(future.poll(cx)).map_err(service_error)?;
                        let nonce = nonce_of(response.headers());
                        let again = match &nonce {
                            Some(_) if wants_nonce(response.status(), response.headers()) => {
                                this.repeat.take().and_then(|(fresh, copy)| Some((fresh, R::rebuild(copy)?)))
                            }
                            _ => None,
                        };
                        let Some((fresh, request)) = again else {
                            // The newest one. That of a repeat is everybody's only now.
                            if let (Some(nonce), Some(prover)) = (nonce.or(this.nonce.take()), &this.setup.prover) {
                                prover.remember(this.origin, &nonce);
                            }
                            this.step.set(Step::Done);
                            return Poll::Ready(Ok(response));
                        };
                        *this.nonce = nonce;
                        this.setup.table.env().telemetry.repeated_with_nonce();
                        this.step.set(Step::Draining { drain: Drain::new(response.into_body()), fresh, request });
                    }
                    StepProj::Draining { drain, .. } => {
                        ready!(drain.poll(cx));
                        if let StepOwned::Draining { fresh, request, .. } =
                            this.step.as_mut().project_replace(Step::Done)
                        {
                            this.step.set(Step::Readying { fresh, request });
                        }
                    }
                    StepProj::Readying { fresh, .. } => {
                        ready!(fresh.poll_ready(cx)).map_err(service_error)?;
                        if let StepOwned::Readying { mut fresh, mut request } =
                            this.step.as_mut().project_replace(Step::Done)
                        {
                            prove(this.setup, &mut request, this.token, this.origin, this.nonce.clone())?;
                            this.step.set(Step::Sending { future: fresh.call(request) });
                        }
                    }
                    StepProj::Failed { .. } => {
                        if let StepOwned::Failed { error } = this.step.as_mut().project_replace(Step::Done) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    StepProj::Done => return Poll::Pending,
                }
            }
        }
    }

    /// Puts the token in, and a proof for it. `nonce`: to be used rather than the newest of the server.
    fn prove<R: HttpRequest>(
        setup: &Setup,
        request: &mut R,
        token: &HeaderValue,
        origin: &str,
        nonce: Option<Box<str>>,
    ) -> Result<(), Error> {
        let path = Some(request.path()).filter(|path| path.starts_with('/')).unwrap_or_default();
        let now = setup.table.env().clock.now().wall;
        let about = About { method: request.method(), origin, path, token: bound_token(token), now };
        let Some(prover) = &setup.prover else { return Ok(()) };
        let proof = prover.prove(about, nonce).map_err(Error::Token)?;
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert(AUTHORIZATION, token.clone());
        headers.insert(PROOF, proof);
        Ok(())
    }

    /// The token of `DPoP …`.
    fn bound_token(authorization: &HeaderValue) -> Option<&str> {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("DPoP").then_some(token)
    }
}
