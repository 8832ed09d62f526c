//! Texts that nobody can foresee: ids of assertions, `state`, code verifiers, owners of leases.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{TokenError, unavailable};

/// `N` random bytes of the operating system, as base64url without padding (RFC 4648 §5).
///
/// # Errors
/// The operating system gives no random numbers.
pub(crate) fn text<const N: usize>() -> Result<String, TokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| unavailable("the operating system gives no random numbers").caused_by(error.into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
