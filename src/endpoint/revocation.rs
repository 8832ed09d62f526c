//! Revocation (RFC 7009): telling the server that a token has done its work.

use super::Direct;
use super::endpoints::AuxiliaryEndpoint;
use super::grant::GrantParams;
use crate::types::{Secret, TenantId, TokenError};

/// What kind of token it is (`token_type_hint`).
#[derive(Clone, Copy)]
pub(crate) enum Revoked {
    RefreshToken,
    AccessToken,
}

/// Revokes one token. The server calls it a success too if it knows no such token (§2.2).
///
/// # Errors
/// The token may be good still; the error says so.
pub(crate) async fn revoke(
    endpoint: &dyn Direct,
    token: Secret<String>,
    kind: Revoked,
    tenant: Option<TenantId>,
) -> Result<(), TokenError> {
    let (hint, still_good) = match kind {
        Revoked::RefreshToken => ("refresh_token", "the refresh token may still be good"),
        Revoked::AccessToken => ("access_token", "the access token may still be good"),
    };
    let params = GrantParams::new("").secret("token", token).plain("token_type_hint", hint);
    endpoint.post(AuxiliaryEndpoint::Revocation, params, tenant).await.map(drop).map_err(|failed| {
        let error = failed.error;
        let detail = error.detail().map_or(still_good.to_owned(), |detail| format!("{detail}; {still_good}"));
        error.with_detail(detail)
    })
}
