//! `Limited`: a token source that is asked within the bounds of its endpoint.

use std::sync::Arc;

use super::EndpointLimits;
use crate::token::{Token, TokenRequest, TokenSource};
use crate::types::TokenError;

/// Around what asks the token endpoint, below a store.
#[derive(Clone)]
pub(crate) struct Limited<T> {
    source: T,
    limits: Arc<EndpointLimits>,
}

impl<T> Limited<T> {
    pub(crate) fn new(source: T, limits: Arc<EndpointLimits>) -> Self {
        Self { source, limits }
    }
}

impl<T: TokenSource> TokenSource for Limited<T> {
    async fn fetch(&self, request: TokenRequest) -> Result<Token, TokenError> {
        self.limits.ask(request, async |request| self.source.fetch(request).await).await
    }
}
