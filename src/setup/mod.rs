//! `Setup`: a configuration at work, shared by all clones of a layer.

use std::sync::Arc;

#[cfg(feature = "dpop")]
use crate::dpop::Prover;
use crate::endpoint::Direct;
use crate::engine::{EndpointLimits, Table};
use crate::request::RequestPolicy;
use crate::response::{HeldResponses, RejectionPolicy};
use crate::store::StoreAccess;

/// A configuration at work: the engine and the policies of both halves.
pub(crate) struct Setup {
    pub(crate) table: Arc<Table>,
    pub(crate) limits: Arc<EndpointLimits>,
    pub(crate) requests: RequestPolicy,
    pub(crate) rejection: RejectionPolicy,
    pub(crate) held: HeldResponses,
    /// Makes the proofs of requests, where tokens are bound to a key.
    #[cfg(feature = "dpop")]
    pub(crate) prover: Option<Prover>,
    /// `None`: tokens come from a source of the user's.
    pub(crate) endpoint: Option<Arc<dyn Direct>>,
    /// `None`: tokens are kept in this process only, or in a store that the layer was not made with.
    pub(crate) store: Option<Arc<dyn StoreAccess>>,
}

impl Setup {
    /// Whether there is a key that tokens can be bound to.
    pub(crate) fn can_prove(&self) -> bool {
        #[cfg(feature = "dpop")]
        return self.prover.is_some();
        #[cfg(not(feature = "dpop"))]
        false
    }
}
