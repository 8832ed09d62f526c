//! The grants: which parameters go out, and in which order.

mod client_credentials;
mod refresh_token;

use super::ClientAuth;
use super::encode::Params;
use super::settings::EndpointSettings;
use crate::extensions::Scopes;
use crate::token::TokenRequest;

/// The grant that a configuration has without a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// None: the first refresh token was obtained elsewhere, and without one a person must sign in.
    RefreshToken,
}

impl Grant {
    /// Whether it yields tokens without a refresh token.
    pub(crate) fn is_primary(self) -> bool {
        matches!(self, Grant::ClientCredentials)
    }
}

/// The grant of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    ClientCredentials,
    RefreshToken,
}

/// All parameters of one exchange.
pub(crate) fn params<'a>(
    asking: Asking,
    settings: &'a EndpointSettings,
    auth: &'a ClientAuth,
    request: &'a TokenRequest,
) -> Params<'a> {
    let mut params = Params::default();
    match asking {
        Asking::ClientCredentials => client_credentials::push(&mut params, settings, auth, request),
        Asking::RefreshToken => refresh_token::push(&mut params, settings, auth, request),
    }
    for param in &settings.params {
        params.push(&param.name, param.value.expose());
    }
    if let (Some(name), Some(tenant)) = (&settings.tenant_param, &request.tenant) {
        params.push(name, tenant.as_str());
    }
    params
}

/// The scopes to ask for: the request's, else the configured ones.
fn scope<'a>(settings: &'a EndpointSettings, request: &'a TokenRequest) -> &'a str {
    request.scopes.as_ref().or(settings.scopes.as_ref()).map_or("", Scopes::as_str)
}
