//! `Repeat`: sends a request once more with the same token and the nonce that the server wants in its proof (RFC 9449 §9).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::{Proved, Resent, service_error, with_outcome};
use crate::middleware::shared::{BodySupport, SharedHandle};
use crate::request::{HttpRequest, HttpResponse, ProofSent};
use crate::response::Drain;
use crate::types::{AuthOutcome, BoxError, Error, events};

/// A sending that is to be made once more.
pub(super) struct Repeat<S, R, T>
where
    R: HttpRequest,
    T: HttpResponse,
{
    shared: SharedHandle<S>,
    request: Option<R>,
    sending: Sending<S, R, T>,
    step: Step<S, T::Body>,
}

/// Which sending it is, to be gone on with.
enum Sending<S, R: HttpRequest, T> {
    First(Option<Box<Proved<S, R, T>>>),
    Second(Option<Resent<S, R, T>>),
}

enum Step<S, B> {
    /// Before that nothing is asked for: at a concurrency limit of one the response may hold the only permit.
    Draining(Pin<Box<Drain<B>>>),
    Readying(S),
}

pub(super) enum Repeated<S: Service<R>, R: HttpRequest> {
    FirstAttempt(S::Future, Box<Proved<S, R, S::Response>>),
    Resent(S::Future, Resent<S, R, S::Response>),
}

impl<S, R, T> Repeat<S, R, T>
where
    S: Clone,
    R: HttpRequest,
    T: HttpResponse,
{
    /// The response comes back if the request cannot be sent again.
    pub(super) fn of_proved(mut proved: Box<Proved<S, R, T>>, response: T) -> Result<Self, T> {
        let Proved { sent, proof } = &mut *proved;
        match again(&sent.shared, sent.replay_copy.take(), sent.body_support, proof) {
            Some((request, replay_copy)) => {
                sent.replay_copy = replay_copy;
                events::repeated_with_nonce(sent.generation);
                let shared = sent.shared.clone();
                Ok(Self::new(shared, request, Sending::First(Some(proved)), response))
            }
            None => {
                let (generation, waited) = (sent.generation, sent.waited);
                let outcome = AuthOutcome { generation, waited, not_replayable: true, ..AuthOutcome::default() };
                Err(with_outcome(response, outcome, None))
            }
        }
    }

    /// The same for a second sending.
    pub(super) fn of_resent(mut resent: Resent<S, R, T>, response: T) -> Result<Self, T> {
        match again(&resent.shared, resent.replay_copy.take(), resent.body_support, &mut resent.proof) {
            Some((request, replay_copy)) => {
                resent.replay_copy = replay_copy;
                events::repeated_with_nonce(resent.outcome.generation);
                let shared = resent.shared.clone();
                Ok(Self::new(shared, request, Sending::Second(Some(resent)), response))
            }
            None => {
                resent.outcome.not_replayable = true;
                Err(resent.finish(response))
            }
        }
    }

    fn new(shared: SharedHandle<S>, request: R, sending: Sending<S, R, T>, response: T) -> Self {
        let drain = Drain::new(response.into_body());
        Self { shared, request: Some(request), sending, step: Step::Draining(Box::pin(drain)) }
    }

    #[inline(never)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Repeated<S, R>, Error>>
    where
        S: Service<R, Response = T>,
        S::Error: Into<BoxError>,
    {
        loop {
            self.step = match &mut self.step {
                Step::Draining(drain) => {
                    ready!(drain.as_mut().poll(cx));
                    Step::Readying(self.shared.fresh_clone())
                }
                Step::Readying(spare) => {
                    ready!(spare.poll_ready(cx)).map_err(service_error)?;
                    let Some(request) = self.request.take() else { return Poll::Pending };
                    let future = spare.call(request);
                    return match &mut self.sending {
                        Sending::First(proved) => proved.take().map(|proved| Repeated::FirstAttempt(future, proved)),
                        Sending::Second(resent) => resent.take().map(|resent| Repeated::Resent(future, resent)),
                    }
                    .map_or(Poll::Pending, |repeated| Poll::Ready(Ok(repeated)));
                }
            }
        }
    }
}

/// The request with the same token and another proof, copied once more: it may yet meet a 401.
fn again<S, R: HttpRequest, T>(
    shared: &SharedHandle<S>,
    replay_copy: Option<R::ReplayCopy>,
    body_support: BodySupport<R, T>,
    proof: &mut ProofSent,
) -> Option<(R, Option<R::ReplayCopy>)> {
    let setup = &shared.setup;
    let (token, nonce) = proof.spend()?;
    let (mut request, replay_copy) = body_support.copy_again(R::rebuild(replay_copy?)?, setup.replay.cap);
    let former = std::mem::take(proof);
    *proof = setup.proofs.put(&mut request, &token, &setup.origins, former, Some(nonce)).ok()?;
    setup.injection.apply(token, request.headers_mut());
    Some((request, replay_copy))
}
