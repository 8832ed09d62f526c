//! The client credentials grant (RFC 6749 §4.4.2).

use super::super::ClientAuth;
use super::super::encode::Params;
use super::super::settings::EndpointSettings;
use crate::token::TokenRequest;

pub(super) fn push<'a>(
    params: &mut Params<'a>,
    settings: &'a EndpointSettings,
    auth: &'a ClientAuth,
    request: &'a TokenRequest,
) {
    if settings.send_grant_type {
        params.push("grant_type", "client_credentials");
    }
    auth.push_params(params);
    params.push("scope", super::scope(settings, request));
}
