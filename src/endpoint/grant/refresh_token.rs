//! The refresh token grant (RFC 6749 §6).

use super::super::ClientAuth;
use super::super::encode::Params;
use super::super::settings::EndpointSettings;
use crate::secret::Secret;
use crate::token::TokenRequest;

pub(super) fn push<'a>(
    params: &mut Params<'a>,
    settings: &'a EndpointSettings,
    auth: &'a ClientAuth,
    request: &'a TokenRequest,
) {
    params.push("grant_type", "refresh_token");
    params.push("refresh_token", request.refresh_token.as_ref().map(Secret::expose).map_or("", String::as_str));
    auth.push_params(params);
    if settings.send_scopes_on_refresh {
        params.push("scope", super::scope(settings, request));
    }
}
