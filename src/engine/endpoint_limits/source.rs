//! `Limited`: a token source that is asked within the bounds of its endpoint.

use std::sync::{Arc, OnceLock};

use super::EndpointLimits;
use crate::token::{Token, TokenRequest, TokenSource};
use crate::types::TokenError;

/// Around what asks the token endpoint, below a store.
#[derive(Clone)]
pub(crate) struct Limited<T> {
    source: T,
    limits: LimitsSlot,
}

/// Where the bounds of a source go, once it is known whose they are; empty: there are none here.
pub(crate) type LimitsSlot = Arc<OnceLock<Arc<EndpointLimits>>>;

impl<T> Limited<T> {
    pub(crate) fn new(source: T, limits: Arc<EndpointLimits>) -> Self {
        Self { source, limits: Arc::new(OnceLock::from(limits)) }
    }

    /// Without bounds, until there are some.
    pub(crate) fn not_yet(source: T) -> Self {
        Self { source, limits: Arc::default() }
    }

    pub(crate) fn limits(&self) -> &LimitsSlot {
        &self.limits
    }
}

impl<T: TokenSource> TokenSource for Limited<T> {
    /// Many may wait for a permit at the same time, so that the future that asks the endpoint is made once there is one.
    fn fetch(&self, request: TokenRequest) -> impl Future<Output = Result<Token, TokenError>> + Send {
        let request = Box::new(request);
        async move {
            let fetch = async |request: Box<TokenRequest>| Box::pin(self.source.fetch(*request)).await;
            match self.limits.get() {
                Some(limits) => limits.ask(request, fetch).await,
                None => fetch(request).await,
            }
        }
    }
}
