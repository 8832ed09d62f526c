//! `SignIn` and `DeviceSignIn`: a person's sign-in, from what they are shown to the token that is set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::endpoint::{AuthorizationCode, ClientAuth, Direct, Endpoints, Grant, Issuer};
use crate::handle::AuthHandle;
use crate::token::Token;
use crate::types::{Secret, TokenError, TokenErrorKind, random};

mod device;
mod error;
#[cfg(feature = "loopback")]
mod loopback;
mod redirect;

pub use device::DeviceSignIn;
pub use error::{SignInError, SignInErrorKind};
#[cfg(feature = "loopback")]
pub use loopback::LoopbackRedirect;

use redirect::{ClientSecret, Redirect};

/// The beginning of a sign-in.
impl AuthHandle {
    /// Begins a person's sign-in (RFC 6749 §4.1): show them [`SignIn::url`], and give what their browser brings back to
    /// [`SignIn::finish`]. An example is at [`AuthConfig::authorization_code`](crate::AuthConfig::authorization_code).
    ///
    /// Nothing is sent. Any number of sign-ins may be in progress; the token of the one that finishes last is used.
    ///
    /// # Errors
    /// [`Unsupported`](SignInErrorKind::Unsupported): a configuration with another grant; one where each tenant has its own
    /// token, and the handle is not narrowed by [`for_tenant`](AuthHandle::for_tenant); a handle for scopes, since a person
    /// is asked for the configured ones.
    pub fn sign_in(&self) -> Result<SignIn, SignInError> {
        SignIn::begin(self, Secrets::draw()?)?.shown()
    }

    /// The same where [`Discovery`](crate::Discovery) finds the authorization endpoint
    /// ([`AuthorizationCode::discovered`]): fetches the server's metadata first, unless they are known.
    ///
    /// # Errors
    /// As [`sign_in`](AuthHandle::sign_in), and [`Failed`](SignInErrorKind::Failed): the metadata cannot be fetched.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, AuthorizationCode, ClientAuth, Discovery};
    ///
    /// # tokio_test::block_on(async {
    /// let server = AuthServer::new(TestClock::new()).client("id", "secret");
    /// let issuer = Discovery::of("https://auth.example.com");
    /// let code = AuthorizationCode::discovered("https://app.example.com/callback");
    /// let cfg = AuthConfig::authorization_code(issuer, ClientAuth::basic("id", "secret"), code)
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let auth = AuthLayer::builder(cfg).http_client(server.clone()).build()?.handle();
    /// let sign_in = auth.discover_sign_in().await?;
    /// let redirect = server.browse(sign_in.url()).unwrap();
    /// sign_in.finish(&redirect).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub async fn discover_sign_in(&self) -> Result<SignIn, SignInError> {
        SignIn::begin(self, Secrets::draw()?)?.located().await
    }

    /// Goes on with a sign-in that was [saved](SignIn::save), in another process perhaps. The tenant is this handle's.
    ///
    /// # Errors
    /// [`Malformed`](SignInErrorKind::Malformed): this was not made by `save`. Otherwise as
    /// [`sign_in`](AuthHandle::sign_in).
    pub fn resume_sign_in(&self, saved: &Secret<String>) -> Result<SignIn, SignInError> {
        let secrets = Secrets::read(saved).ok_or_else(|| {
            SignInError::new(SignInErrorKind::Malformed).with_detail("what was saved is no sign-in of ours")
        })?;
        SignIn::begin(self, secrets)
    }
}

/// A person's sign-in that has begun, made by [`AuthHandle::sign_in`].
///
/// It holds what proves that the browser's answer belongs to it (`state`) and that the code is ours (the code verifier).
/// One that is dropped leaves nothing behind.
#[must_use = "a sign-in brings nothing until `finish()`"]
pub struct SignIn {
    handle: AuthHandle,
    endpoint: Arc<dyn Direct>,
    grant: AuthorizationCode,
    client_id: String,
    url: Secret<String>,
    secrets: Secrets,
}

/// What only this side knows until the end: 144 and 256 random bits.
struct Secrets {
    /// It also keeps strangers from finishing this sign-in with a code of theirs (RFC 6749 §10.12).
    state: Secret<String>,
    /// RFC 7636 §4.1; made even where the server is not to see it.
    verifier: Secret<String>,
}

impl SignIn {
    /// Where the person signs in. Open it in *their* browser, never in your own page; it is good for one sign-in.
    ///
    /// It holds no secret of the client's. Parameters for this sign-in alone may be appended: `&login_hint=…`.
    pub fn url(&self) -> &str {
        self.url.expose()
    }

    /// Ends the sign-in: checks what the browser brought back, exchanges the code for a token, once, and sets that token,
    /// so that the very next request uses it. Its refresh token, if it has one, takes over from there; without one a
    /// person must sign in again when it expires.
    ///
    /// `redirect` is the URI that the browser was sent back to, or its path and query, or its query alone. Nothing in it is
    /// believed, and nothing is sent, unless its `state` is this sign-in's (compared in constant time) and its issuer the
    /// configured one.
    ///
    /// The exchange is a task of its own: dropping the future, as when a browser goes away, neither stops it nor loses the
    /// token. It has one [`token_timeout`](crate::AuthConfigBuilder::token_timeout) to read the client's secret and one to be
    /// answered. Your own layers around the endpoint
    /// ([`token_layer`](crate::AuthLayerBuilder::token_layer)) do not see it.
    ///
    /// # Errors
    /// [`SignInErrorKind`] tells them apart. None is retried here: begin another sign-in. After an error no token is used, with
    /// one exception: one that the store did not take ([`TokenErrorKind::NotStored`] in [`SignInError::token_error`]) is used
    /// for as long as this process runs.
    pub async fn finish(self, redirect: &str) -> Result<(), SignInError> {
        let redirect = Redirect::parse(redirect)?;
        redirect.check_state(&self.secrets)?;
        let telemetry = self.endpoint.telemetry().clone();
        let failed = |kind| SignInError::failed(telemetry.named(TokenError::new(kind)));
        let runtime = Handle::try_current().map_err(|_| failed(TokenErrorKind::NoRuntime))?;
        let issuer = self.expected_issuer().await?;
        let client = self.endpoint.credentials().load();
        let client_secret = match redirect.names_error() {
            true => client_secret(&runtime, client, self.endpoint.settings().timeout).await,
            false => ClientSecret::None,
        };
        let code = redirect.into_code(&self.secrets, &issuer, &client_secret)?;
        runtime.spawn(self.redeem(code)).await.unwrap_or_else(|_| Err(failed(TokenErrorKind::Aborted)))
    }

    /// What a sign-in consists of, as one secret, for when the browser comes back to another process or after a restart.
    /// [`AuthHandle::resume_sign_in`] takes it.
    ///
    /// Keep it where only this person's browser leads back to it (in a server's session or an encrypted cookie), and delete
    /// it when it has been used: a redirect proves that it belongs to a sign-in, only the session proves whose that is.
    ///
    /// ```
    /// # use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// # use tower_oauth2_client::{AuthConfig, AuthLayer, AuthorizationCode, ClientAuth};
    /// # tokio_test::block_on(async {
    /// # let server = AuthServer::new(TestClock::new());
    /// # let code = AuthorizationCode::new("https://auth.example.com/authorize", "https://app.example.com/back");
    /// # let cfg = AuthConfig::authorization_code("https://auth.example.com/token", ClientAuth::basic("id", "secret"), code)
    /// #     .origin("https://api.example.com")
    /// #     .clock(server.clock().clone())
    /// #     .build()?;
    /// # let auth = AuthLayer::builder(cfg).http_client(server.clone()).build()?.handle();
    /// let sign_in = auth.sign_in()?;
    /// let (url, session) = (sign_in.url().to_owned(), sign_in.save());
    /// drop(sign_in); // the person is on their way; this program may end here
    ///
    /// # let redirect = server.browse(&url).unwrap();
    /// auth.resume_sign_in(&session)?.finish(&redirect).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn save(&self) -> Secret<String> {
        Secret::new([self.secrets.state.expose(), ".", self.secrets.verifier.expose()].concat())
    }

    fn begin(handle: &AuthHandle, secrets: Secrets) -> Result<SignIn, SignInError> {
        can_sign_in(handle)?;
        let endpoint = endpoint_of(handle)?;
        let Grant::AuthorizationCode(grant) = endpoint.settings().grant.clone() else {
            return Err(unsupported("its grant is another; start from `AuthConfig::authorization_code`"));
        };
        let client = endpoint.credentials().load();
        let Some(client_id) = client.client_id().map(str::to_owned) else {
            return Err(unsupported("the client has no id"));
        };
        if client.is_public() && !grant.has_pkce() {
            return Err(unsupported("the client has no secret now, and signs nobody in without PKCE"));
        }
        let place = grant.authorize_url().unwrap_or_default();
        let url = grant.url(place, endpoint.settings(), &client_id, &secrets.state, &secrets.verifier);
        Ok(Self { handle: handle.clone(), endpoint, grant, client_id, url, secrets })
    }

    /// One whose URL is known.
    fn shown(self) -> Result<SignIn, SignInError> {
        match self.grant.authorize_url() {
            Some(_) => Ok(self),
            None => Err(unsupported("its authorization endpoint is to be found first; use `discover_sign_in`")),
        }
    }

    /// The same, once its URL has been found.
    async fn located(self) -> Result<SignIn, SignInError> {
        if self.grant.authorize_url().is_some() {
            return Ok(self);
        }
        let failed = |error| SignInError::failed(self.endpoint.telemetry().named(error));
        Handle::try_current().map_err(|_| failed(TokenError::new(TokenErrorKind::NoRuntime)))?;
        let endpoints = self.found().await?;
        let Some(place) = &endpoints.authorization else {
            return Err(unsupported("the server's metadata name no `authorization_endpoint`"));
        };
        let Secrets { state, verifier } = &self.secrets;
        let url = self.grant.url(&place.to_string(), self.endpoint.settings(), &self.client_id, state, verifier);
        Ok(Self { url, ..self })
    }

    /// What the server's metadata say, if they allow this sign-in.
    async fn found(&self) -> Result<Endpoints, SignInError> {
        let endpoints = self.endpoint.endpoints().await.map_err(|failed| SignInError::failed(failed.error))?;
        if self.grant.has_pkce() && !endpoints.takes_s256 {
            return Err(unsupported(
                "the server's metadata do not list `S256` among the `code_challenge_methods_supported`, so that a code \
                 would be protected by nothing of ours (RFC 9700 §2.1.1); nothing was sent",
            ));
        }
        Ok(endpoints)
    }

    async fn expected_issuer(&self) -> Result<Issuer, SignInError> {
        let Some(issuer) = self.endpoint.settings().url.issuer() else {
            return Ok(self.grant.expected_issuer(None, false));
        };
        // Known already, unless the sign-in began in another process.
        let endpoints = self.found().await?;
        Ok(self.grant.expected_issuer(Some(issuer), endpoints.names_itself))
    }

    async fn redeem(self, code: Secret<String>) -> Result<(), SignInError> {
        check_client(&*self.endpoint, Some(&self.client_id))?;
        let params = self.grant.exchange(code, &self.secrets.verifier);
        let tenant = self.handle.tenant_of_token_requests();
        let token = self.endpoint.exchange(params, tenant).await.map_err(SignInError::exchange_failed)?;
        check_client(&*self.endpoint, Some(&self.client_id))?;
        set_token(&self.handle, token).await
    }
}

/// Read only where it may have to be found in what the server says. In a task of its own, since a function of the user's
/// may panic.
async fn client_secret(runtime: &Handle, client: Arc<ClientAuth>, timeout: Duration) -> ClientSecret {
    let reading = runtime.spawn(async move { tokio::time::timeout(timeout, client.read_secret()).await });
    match reading.await {
        Ok(Ok(Ok(Some(secret)))) => ClientSecret::Known(secret),
        Ok(Ok(Ok(None))) => ClientSecret::None,
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => ClientSecret::Unknown,
    }
}

fn unsupported(detail: impl Into<Box<str>>) -> SignInError {
    SignInError::new(SignInErrorKind::Unsupported).with_detail(detail)
}

fn can_sign_in(handle: &AuthHandle) -> Result<(), SignInError> {
    if handle.scopes.is_some() {
        return Err(unsupported("a person is asked for the configured scopes; use a handle without `for_scopes`"));
    }
    handle.names_one_token().map_err(|_| unsupported("each tenant has its own token here; use `for_tenant`"))
}

fn endpoint_of(handle: &AuthHandle) -> Result<Arc<dyn Direct>, SignInError> {
    let endpoint = handle.setup.endpoint.clone();
    endpoint.ok_or_else(|| unsupported("its tokens come from your own source; hand them over with `set_token`"))
}

/// A token for another client than the present one could not be renewed, and may have other rights.
fn check_client(endpoint: &dyn Direct, began_as: Option<&str>) -> Result<(), SignInError> {
    if endpoint.credentials().load().client_id() == began_as {
        Ok(())
    } else {
        Err(SignInError::new(SignInErrorKind::ClientReplaced))
    }
}

/// The one place where a sign-in ends well.
async fn set_token(handle: &AuthHandle, token: Token) -> Result<(), SignInError> {
    handle.set_token(token).await.map_err(SignInError::failed)
}

impl Secrets {
    fn draw() -> Result<Self, SignInError> {
        let (state, verifier) = (random::text::<18>(), random::text::<32>());
        let secret = |text: Result<String, TokenError>| text.map(Secret::new).map_err(SignInError::failed);
        Ok(Self { state: secret(state)?, verifier: secret(verifier)? })
    }

    /// As [`draw`](Self::draw) made them: base64url, so that neither holds the dot between them.
    fn read(saved: &Secret<String>) -> Option<Self> {
        let (state, verifier) = saved.expose().split_once('.')?;
        let is_random = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        (is_random(state, 24) && is_random(verifier, 43))
            .then(|| Self { state: Secret::from(state), verifier: Secret::from(verifier) })
    }
}

/// Says nothing: the URL holds the `state`.
impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("grant", &self.grant).finish_non_exhaustive()
    }
}
