//! `DeviceSignIn`: a person's sign-in on another device, from the code that they enter to the token that is set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{SignInError, SignInErrorKind, can_sign_in, check_client, endpoint_of, set_token, unsupported};
use crate::endpoint::{DeviceAuthorization, DeviceError, Direct};
use crate::handle::AuthHandle;
use crate::types::TokenErrorKind;

/// The beginning of a sign-in on another device.
impl AuthHandle {
    /// Begins a sign-in for a program without a browser (RFC 8628): asks the server for a code, which a person enters on a
    /// device that has one. An example is at [`AuthConfig::device`](crate::AuthConfig::device).
    ///
    /// Show what the [`DeviceSignIn`] tells, and wait. Any number of sign-ins may be in progress; the token of the one that
    /// finishes last is used.
    ///
    /// # Errors
    /// [`Unsupported`](SignInErrorKind::Unsupported) without a device authorization URL, where each tenant has its own
    /// token and the handle is not narrowed by [`for_tenant`](AuthHandle::for_tenant), or on a handle for scopes;
    /// [`Failed`](SignInErrorKind::Failed) with the [`token_error`](SignInError::token_error) of the request for the
    /// code. It is not tried again here.
    pub async fn sign_in_on_device(&self) -> Result<DeviceSignIn, SignInError> {
        DeviceSignIn::begin(self).await
    }
}

/// A person's sign-in on another device that has begun, made by [`AuthHandle::sign_in_on_device`].
///
/// Dropping it, or the future of [`wait`](DeviceSignIn::wait), ends it here; the server forgets it when it expires.
#[must_use = "a sign-in brings nothing until `wait()`"]
pub struct DeviceSignIn {
    handle: AuthHandle,
    endpoint: Arc<dyn Direct>,
    client_id: Option<String>,
    authorization: DeviceAuthorization,
}

impl DeviceSignIn {
    /// What the person enters (RFC 8628 §3.2). Anybody who enters it signs this program in: show it to this person alone.
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

    /// Waits until the person has signed in, and sets the token, so that the very next request uses it. Its refresh
    /// token, if it has one, takes over from there; without one a person must sign in again when it expires.
    ///
    /// The server is asked as often as it allows: every 5 s unless it says otherwise, 5 s more whenever it says
    /// `slow_down`, and half as often with each attempt that it does not answer (§3.5). Dropping the future ends the
    /// asking; a token that is on its way at that moment is lost. Your own layers around the endpoint
    /// ([`token_layer`](crate::AuthLayerBuilder::token_layer)) do not see these requests.
    ///
    /// # Errors
    /// [`Denied`](SignInErrorKind::Denied): the person said no. [`Expired`](SignInErrorKind::Expired): they did not answer in
    /// time; if the server could not be reached in the end, [`token_error`](SignInError::token_error) says so. Any other kind:
    /// asking on would change nothing. Begin another sign-in.
    pub async fn wait(self) -> Result<(), SignInError> {
        let Self { handle, endpoint, client_id, authorization } = self;
        let asked_for = handle.tenant_of_token_requests();
        let token = authorization.wait(&*endpoint, asked_for).await.map_err(no_token)?;
        check_client(&*endpoint, client_id.as_deref())?;
        set_token(&handle, token).await
    }

    async fn begin(handle: &AuthHandle) -> Result<Self, SignInError> {
        can_sign_in(handle)?;
        let endpoint = endpoint_of(handle)?;
        let client_id = endpoint.credentials().load().client_id().map(str::to_owned);
        let asked_for = handle.tenant_of_token_requests();
        let authorization = DeviceAuthorization::begin(&*endpoint, asked_for).await.map_err(|error| {
            match (error.kind(), error.detail()) {
                (TokenErrorKind::Unsupported, Some(detail)) => unsupported(detail),
                _ => SignInError::failed(error),
            }
        })?;
        Ok(Self { handle: handle.clone(), endpoint, client_id, authorization })
    }
}

fn no_token(error: DeviceError) -> SignInError {
    match error {
        DeviceError::Denied(error) => {
            let description = error.error_description().map(str::to_owned);
            SignInError::new(SignInErrorKind::Denied).with_code(error.code().cloned(), description)
        }
        DeviceError::Expired { trouble: None } => SignInError::new(SignInErrorKind::Expired),
        DeviceError::Expired { trouble: Some(error) } => SignInError::new(SignInErrorKind::Expired).caused_by(error),
        DeviceError::Failed(failed) => SignInError::exchange_failed(failed),
    }
}

/// Shows no code.
impl fmt::Debug for DeviceSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSignIn").field("expires_in", &self.expires_in()).finish_non_exhaustive()
    }
}
