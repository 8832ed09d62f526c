//! The refresh token grant (RFC 6749 §6).

use super::GrantParams;
use crate::token::TokenRequest;

pub(super) fn params(request: &TokenRequest) -> GrantParams {
    let params = GrantParams::new("refresh_token");
    match &request.refresh_token {
        Some(token) => params.secret("refresh_token", token.clone()),
        None => params,
    }
}
