//! Settings of tokens that are bound to a key.

use super::AuthConfigBuilder;
use crate::dpop::DpopKey;

/// Tokens that are bound to a key.
impl<E> AuthConfigBuilder<E> {
    /// Binds tokens to this key (DPoP, RFC 9449): the token request proves it, and so does each request with a token of
    /// the type `DPoP`. Off by default: few servers know it.
    ///
    /// A server that does not know it answers `Bearer`. Such a token is used as it is, unbound (RFC 9449 §5); see
    /// [`require_dpop`](AuthConfigBuilder::require_dpop).
    ///
    /// Servers may want a nonce of theirs in the proof (RFC 9449 §8, §9). It is remembered for each origin; a request that
    /// a server refuses because it is missing is sent once more, with the same token, provided that it can be sent twice. That
    /// spends no resend: with a rejected token in between, a request is sent four times at worst.
    ///
    /// A runnable example is at [`DpopKey`].
    pub fn dpop(mut self, key: DpopKey) -> Self {
        self.dpop = Some(key);
        self
    }

    /// Which of several origins requests go to whose URI names no host (tonic, a bare hyper connection): a proof must say
    /// (`htu`, RFC 9449 §4.2). With one [`origin`](AuthConfigBuilder::origin) it is that one; with several such a request
    /// is [`Error::Origin`](crate::Error::Origin) until this is set. It must be one of them.
    pub fn dpop_origin(mut self, origin: impl Into<String>) -> Self {
        self.dpop_origin = Some(origin.into());
        self
    }
}
