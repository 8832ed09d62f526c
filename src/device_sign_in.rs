//! `DeviceSignIn`: a person's sign-in on another device, from the code that they enter to the token that is handed in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::DeviceAuthorization;
use crate::extensions::TenantId;
use crate::layer::AuthHandle;
use crate::token::TokenError;

/// The beginning of a sign-in on another device.
impl AuthHandle {
    /// Begins a sign-in for a program without a browser (RFC 8628): asks the server for a code, which a person enters on a
    /// device that has one. An example is at [`AuthConfig::device`](crate::AuthConfig::device).
    ///
    /// Show what the [`DeviceSignIn`] tells, and wait. Any number of sign-ins may be under way; the one that ends last has
    /// its token used.
    ///
    /// # Errors
    /// [`Unsupported`](crate::TokenErrorKind::Unsupported) without a device authorization URL; otherwise as for a token
    /// request. It is not tried again here.
    pub async fn sign_in_on_device(&self) -> Result<DeviceSignIn, Arc<TokenError>> {
        self.without_tenant()?;
        DeviceSignIn::begin(self, None).await
    }

    /// The same for one tenant's own token; where tokens are shared, for the one token.
    ///
    /// # Errors
    /// As [`sign_in_on_device`](AuthHandle::sign_in_on_device).
    pub async fn sign_in_tenant_on_device(&self, tenant: &TenantId) -> Result<DeviceSignIn, Arc<TokenError>> {
        DeviceSignIn::begin(self, Some(tenant.clone())).await
    }
}

/// A person's sign-in on another device that has begun, made by [`AuthHandle::sign_in_on_device`].
///
/// Dropping it, or the future of [`wait`](DeviceSignIn::wait), ends it here; the server forgets it when it expires.
#[must_use = "a sign-in brings nothing until `wait()`"]
pub struct DeviceSignIn {
    handle: AuthHandle,
    tenant: Option<TenantId>,
    authorization: DeviceAuthorization,
}

impl DeviceSignIn {
    /// What the person enters (RFC 8628 §3.2). Whoever enters it signs this program in: show it to this person alone.
    pub fn user_code(&self) -> &str {
        self.authorization.codes.user_code.expose()
    }

    /// Where they enter it: a web page, short enough to be typed.
    pub fn verification_uri(&self) -> &str {
        &self.authorization.codes.verification_uri
    }

    /// The same page with the code in it, for a QR code or a link (§3.3.1). Not every server has it. Show the code beside
    /// it all the same, so that the person can see that both are one.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.authorization.codes.verification_uri_complete.as_ref().map(|uri| uri.expose().as_str())
    }

    /// How long the code is good, counted from when it was asked for.
    pub fn expires_in(&self) -> Duration {
        self.authorization.codes.expires_in
    }

    /// Waits until the person has signed in, and hands the token in, so that the very next request uses it. Its refresh
    /// token, if it has one, takes over from there; without one a person must sign in again when it expires.
    ///
    /// The server is asked as often as it allows: every 5 s unless it says otherwise, 5 s more whenever it says
    /// `slow_down`, and half as often with each attempt that it does not answer (§3.5). Dropping the future ends the
    /// asking; a token that is on its way at that moment is lost. Layers that you put around the endpoint
    /// ([`AuthLayer::with_endpoint`](crate::AuthLayer::with_endpoint)) do not see these requests.
    ///
    /// # Errors
    /// [`Denied`](crate::TokenErrorKind::Denied): the person said no. [`SignInExpired`](crate::TokenErrorKind::SignInExpired):
    /// they did not answer in time. Any other kind: the server refuses, which asking on would not change. Begin another
    /// sign-in.
    pub async fn wait(self) -> Result<(), Arc<TokenError>> {
        let Self { handle, tenant, authorization } = self;
        let asked_for = handle.tenant_of_token_requests(tenant.as_ref());
        let token = authorization.wait(handle.endpoint()?, asked_for).await?;
        match &tenant {
            Some(tenant) => handle.hand_in_tenant(tenant, token),
            None => handle.hand_in(token),
        }
    }

    async fn begin(handle: &AuthHandle, tenant: Option<TenantId>) -> Result<Self, Arc<TokenError>> {
        let authorization = DeviceAuthorization::begin(handle.endpoint()?).await?;
        Ok(Self { handle: handle.clone(), tenant, authorization })
    }
}

/// Shows no code.
impl fmt::Debug for DeviceSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSignIn").field("expires_in", &self.expires_in()).finish_non_exhaustive()
    }
}
