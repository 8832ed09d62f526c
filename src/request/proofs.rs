//! `Proofs`: puts a proof on each request whose token is bound to a key (RFC 9449 §7; feature `dpop`).
//!
//! Without the feature `no_proofs.rs` stands here, so that nobody else needs to ask for it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::dpop::{About, DpopKey, PROOF, Prover};
use crate::request::{HttpRequest, Origin, OriginPolicy};
use crate::types::{Clock, Error};

/// What makes the proofs of a layer's requests; nothing where no key is configured.
#[derive(Default)]
pub(crate) struct Proofs(Option<Box<Requests>>);

struct Requests {
    prover: Prover,
    clock: Arc<dyn Clock>,
    /// Where a request goes that does not say.
    assumed: Option<Origin>,
}

/// What is remembered of a request for its proof; nothing if it needed none.
#[derive(Default)]
pub(crate) struct ProofSent(Option<Box<Bound>>);

struct Bound {
    token: HeaderValue,
    origin: String,
    /// The nonce that the answer brought.
    nonce: Option<Box<str>>,
    chance: Option<Chance>,
}

/// To send a request once more because of a nonce. A request has one, whatever else becomes of it.
struct Chance;

const NO_PLACE: &str =
    "does not say where it goes, which its proof must name: of several origins choose with `.dpop_origin(..)`";

impl Proofs {
    pub(crate) fn new(key: DpopKey, clock: Arc<dyn Clock>, assumed: Option<Origin>) -> Self {
        Self(Some(Box::new(Requests { prover: Prover::new(key), clock, assumed })))
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a proof can name where this request goes.
    #[inline]
    pub(crate) fn check<R: HttpRequest>(&self, request: &R, origins: &OriginPolicy) -> Result<(), Error> {
        match &self.0 {
            None => Ok(()),
            Some(requests) => requests.place(request, origins).map(drop),
        }
    }

    /// Puts a proof on a request for a bound token. `former`: of an earlier sending of the same request. `nonce`: to be used
    /// rather than the newest.
    #[inline]
    pub(crate) fn put<R: HttpRequest>(
        &self,
        request: &mut R,
        token: &HeaderValue,
        origins: &OriginPolicy,
        former: ProofSent,
        nonce: Option<Box<str>>,
    ) -> Result<ProofSent, Error> {
        match &self.0 {
            None => Ok(ProofSent(None)),
            Some(requests) => requests.put(request, token, origins, former, nonce),
        }
    }

    /// Remembers the nonce of an answer.
    pub(crate) fn learn(&self, proof: &mut ProofSent, headers: &HeaderMap) {
        if let (Some(bound), Some(requests)) = (&mut proof.0, &self.0) {
            bound.nonce = requests.prover.learn(&bound.origin, headers);
        }
    }
}

impl Requests {
    #[cold]
    fn place<'a, R: HttpRequest>(&'a self, request: &R, origins: &'a OriginPolicy) -> Result<&'a Origin, Error> {
        request
            .place(origins, self.assumed.as_ref())
            .ok_or_else(|| Error::Origin { origin: "the request".into(), reason: NO_PLACE })
    }

    #[cold]
    fn put<R: HttpRequest>(
        &self,
        request: &mut R,
        token: &HeaderValue,
        origins: &OriginPolicy,
        former: ProofSent,
        nonce: Option<Box<str>>,
    ) -> Result<ProofSent, Error> {
        let Some(bare) = token.to_str().ok().and_then(bound_token) else { return Ok(ProofSent(None)) };
        let origin = self.place(request, origins)?.to_string();
        let path = Some(request.path()).filter(|path| path.starts_with('/')).unwrap_or_default();
        let now = self.clock.now().wall;
        let about = About { method: request.method(), origin: &origin, path, token: Some(bare), now };
        let proof = self.prover.prove(about, nonce).map_err(|error| Error::Token(Arc::new(error)))?;
        request.headers_mut().insert(PROOF, proof);
        let chance = former.0.map_or(Some(Chance), |bound| bound.chance);
        Ok(ProofSent(Some(Box::new(Bound { token: token.clone(), origin, nonce: None, chance }))))
    }
}

/// The token of `DPoP …`.
fn bound_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("DPoP").then_some(token)
}

impl ProofSent {
    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the request may be sent once more, with the nonce that its answer brought.
    pub(crate) fn may_repeat(&self) -> bool {
        self.0.as_ref().is_some_and(|bound| bound.chance.is_some() && bound.nonce.is_some())
    }

    /// The token to send once more and the nonce for it; the chance is spent by this.
    pub(crate) fn spend(&mut self) -> Option<(HeaderValue, Box<str>)> {
        let bound = self.0.as_mut()?;
        let (Chance, nonce) = bound.chance.take().zip(bound.nonce.take())?;
        Some((bound.token.clone(), nonce))
    }
}
