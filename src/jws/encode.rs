//! What every JWT that we make has in common (feature `jwt`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::types::{TokenError, unavailable};

/// A header or a set of claims.
pub(crate) fn encode(part: &impl Serialize) -> Result<String, TokenError> {
    let json = serde_json::to_vec(part).map_err(|_| unavailable("a JWT cannot be written as JSON"))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Adds the signature.
pub(crate) fn complete(mut input: String, signature: &[u8]) -> String {
    input.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut input);
    input
}
