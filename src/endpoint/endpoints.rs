//! `Endpoints`: where one exchange goes, and for whom a client's assertions are there.

use http::Uri;

use super::ClientAuth;
use super::discovery::Metadata;
use super::grant::GrantKind;
use super::settings::EndpointSettings;
use crate::types::{TokenError, TokenErrorKind};

/// The endpoints of the server, configured or found.
pub(crate) struct Endpoints {
    token: Uri,
    /// Where refresh tokens go.
    refresh: Uri,
    revocation: Option<Uri>,
    device: Option<Uri>,
    /// Where people sign in, where that was found.
    pub(crate) authorization: Option<Uri>,
    /// Each answer to a person's browser says who it is from (RFC 9207 §3).
    pub(crate) names_itself: bool,
    /// Nothing says that a code cannot be protected by PKCE.
    pub(crate) takes_s256: bool,
    /// The one name that assertions which are made here are addressed to.
    pub(crate) audience_of_assertions: String,
}

/// An endpoint besides the token endpoint.
#[derive(Clone, Copy)]
pub(crate) enum AuxiliaryEndpoint {
    /// RFC 7009.
    Revocation,
    /// RFC 8628.
    DeviceAuthorization,
}

impl Endpoints {
    /// As they are configured.
    pub(super) fn configured(settings: &EndpointSettings, token: &Uri) -> Self {
        Self {
            refresh: settings.refresh_url.as_ref().unwrap_or(token).clone(),
            revocation: settings.revocation_url.clone(),
            device: settings.device_url.clone(),
            authorization: None,
            names_itself: false,
            takes_s256: true,
            audience_of_assertions: settings.assertion_audience.clone().unwrap_or_else(|| token.to_string()),
            token: token.clone(),
        }
    }

    /// As they were found, where the configuration does not say otherwise.
    ///
    /// # Errors
    /// The server does not know this way to authenticate, or has no token endpoint.
    pub(super) fn found(
        settings: &EndpointSettings,
        metadata: &Metadata,
        auth: &ClientAuth,
    ) -> Result<Self, TokenError> {
        metadata.check(settings, auth)?;
        let urls = metadata.urls(auth);
        let token = urls
            .token
            .ok_or_else(|| TokenError::new(TokenErrorKind::BadMetadata).with_detail("they name no `token_endpoint`"))?;
        let issuer = || metadata.issuer.clone();
        Ok(Self {
            revocation: settings.revocation_url.clone().or(urls.revocation),
            device: settings.device_url.clone().or(urls.device),
            authorization: metadata.authorization.clone(),
            names_itself: metadata.names_itself,
            takes_s256: metadata.takes_s256,
            audience_of_assertions: settings.assertion_audience.clone().unwrap_or_else(issuer),
            ..Self::configured(settings, &token)
        })
    }

    /// Where an exchange for a token goes.
    pub(super) fn token_url(&self, asking: GrantKind) -> &Uri {
        match asking {
            GrantKind::RefreshToken => &self.refresh,
            GrantKind::Primary | GrantKind::Once => &self.token,
        }
    }

    /// # Errors
    /// `Unsupported`: there is none.
    pub(super) fn other(&self, other: AuxiliaryEndpoint) -> Result<&Uri, TokenError> {
        let (url, missing) = match other {
            AuxiliaryEndpoint::Revocation => (&self.revocation, "there is no revocation URL"),
            AuxiliaryEndpoint::DeviceAuthorization => (&self.device, "there is no device authorization URL"),
        };
        url.as_ref().ok_or_else(|| TokenError::new(TokenErrorKind::Unsupported).with_detail(missing))
    }
}
