//! The one token request under way for a slot, shared by everybody who needs its result.
//!
//! A flight is a task of its own under a deadline of its own, so that it belongs to nobody who waits: a rotated refresh
//! token would be lost with a leader that is dropped. Waiters hold a ticket, a shared future. Whatever ends the
//! task, a result, the deadline, a panic or the end of its runtime, lands the flight exactly once, through [`Pilot`]'s `Drop` if need be;
//! the slot is settled first and the tickets resolve after, so that whoever wakes sees the slot as it now is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::cell::{Current, FlightId, Slot};
use super::env::Engine;
use crate::token::{Token, TokenRequest};
use crate::types::{Now, TokenError, TokenErrorKind, events};

/// A place among those who wait for a flight. Cheap to clone; dropping it cancels nothing.
pub(crate) type Ticket = Shared<Arrival>;

/// How a flight ended.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    /// With a token other than the one before.
    New(Arc<Current>),
    /// With the same token again.
    Same(Arc<Current>),
    Failed(Arc<TokenError>),
    /// Its credentials were replaced meanwhile: its token is not used. Look at the slot again.
    Superseded,
}

/// The other end of a flight's tickets; the slot holds it.
pub(crate) type Report = oneshot::Sender<Landing>;

/// Resolves when the flight has landed.
pub(crate) struct Arrival(oneshot::Receiver<Landing>);

impl Future for Arrival {
    type Output = Landing;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landing> {
        // The slot itself is gone, and nobody is left who could say more.
        Pin::new(&mut self.0).poll(cx).map(|landing| {
            landing.unwrap_or_else(|_| Landing::Failed(Arc::new(TokenError::new(TokenErrorKind::Aborted))))
        })
    }
}

/// A flight that is not in the air yet: made under the slot's lock, launched after it is released, since a runtime that
/// has shut down drops the task, and so lands the flight, on the spot.
#[must_use]
pub(crate) struct Launch {
    pilot: Pilot,
    runtime: Handle,
    request: TokenRequest,
    forced: bool,
}

/// Prepares a flight on the current runtime: the launch, the end for the slot, the ticket for those who wait.
///
/// # Errors
/// `NoRuntime` outside a tokio runtime.
pub(crate) fn prepare(
    engine: &Arc<Engine>,
    slot: &Arc<Slot>,
    id: FlightId,
    request: TokenRequest,
    forced: bool,
) -> Result<(Launch, Report, Ticket), TokenError> {
    let runtime = Handle::try_current().map_err(|_| TokenError::new(TokenErrorKind::NoRuntime))?;
    let (report, arrival) = oneshot::channel();
    let carries_refresh_token = request.refresh_token.is_some();
    let pilot = Pilot { engine: engine.clone(), slot: slot.clone(), id, carries_refresh_token, landed: false };
    Ok((Launch { pilot, runtime, request, forced }, report, Arrival(arrival).shared()))
}

impl Launch {
    pub(crate) fn go(self) {
        events::token_request(self.forced);
        self.runtime.spawn(fly(self.pilot, self.request));
    }
}

async fn fly(pilot: Pilot, mut request: TokenRequest) {
    let asked = pilot.engine.clock.now();
    request.terms = Some(Arc::new(pilot.engine.terms()));
    let fetch = async { pilot.engine.source.fetch_boxed(request).await };
    let result = match tokio::time::timeout(pilot.engine.policy.flight_deadline, fetch).await {
        Ok(result) => result,
        Err(_) => {
            let error = TokenError::new(TokenErrorKind::Timeout);
            Err(pilot.without_answer(error.with_detail("the deadline of the whole token request passed")))
        }
    };
    pilot.land(result, asked);
}

/// Sees to it that a flight lands, and lands once.
struct Pilot {
    engine: Arc<Engine>,
    slot: Arc<Slot>,
    id: FlightId,
    carries_refresh_token: bool,
    landed: bool,
}

impl Pilot {
    fn land(mut self, result: Result<Token, TokenError>, asked: Now) {
        self.landed = true;
        self.slot.land(&self.engine, self.id, result, asked);
    }

    /// The refresh token that was sent may be spent.
    fn without_answer(&self, mut error: TokenError) -> TokenError {
        error.refresh_answer_lost = self.carries_refresh_token;
        error
    }
}

/// A panic or a runtime that shuts down drops the task without a result.
impl Drop for Pilot {
    fn drop(&mut self) {
        if !self.landed {
            let error = self.without_answer(TokenError::new(TokenErrorKind::Aborted));
            self.slot.land(&self.engine, self.id, Err(error), self.engine.clock.now());
        }
    }
}
