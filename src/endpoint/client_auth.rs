//! `ClientAuth`: who we are to the authorization server, and how we say it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::encode::{Params, form_encode};
#[cfg(feature = "jwt")]
use crate::jws::SigningKey;
#[cfg(feature = "jwt")]
use crate::jws::{AssertionOptions, AssertionTyp, Statement, backend};
use crate::token::jwt_exp;
use crate::types::{ConfigError, Digest, Secret, SecretSource, TokenError, check_line, unavailable};

/// How the client authenticates at the token endpoint (RFC 6749 §2.3). One way, never two: there is no default and no
/// probing, since a wrong guess shows the secret twice and may lock the client out.
///
/// A secret may come from a file or from a function, see [`SecretSource`]. It is then read for each exchange; if the
/// server refuses the client, it is read once more, and if it has changed meanwhile the exchange is repeated with it,
/// once.
///
/// ```
/// use tower_oauth2_client::{ClientAuth, SecretSource};
///
/// let auth = ClientAuth::basic("client", "s3cret");
/// assert!(!format!("{auth:?}").contains("s3cret"));
/// let auth = ClientAuth::body("client", SecretSource::file("/run/secrets/oauth2"));
/// ```
///
/// What goes over the wire:
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth};
///
/// /// The `Authorization` header and the body of a token request.
/// async fn wire(client_auth: ClientAuth) -> Result<(Option<String>, String), BoxError> {
///     let http_client = AuthServer::new(TestClock::new());
///     let cfg = AuthConfig::client_credentials("https://auth.example.com/token", client_auth)
///         .origin("https://api.example.com")
///         .build()?;
///     AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle().warm_up().await?;
///     let request = http_client.requests().remove(0);
///     let body = String::from_utf8(request.body.to_vec())?;
///     Ok((request.header("authorization").map(str::to_owned), body.replace("grant_type=client_credentials", "…")))
/// }
///
/// # tokio_test::block_on(async {
/// let basic = |pair: &str| (Some(format!("Basic {pair}")), "…".to_owned());
/// assert_eq!(wire(ClientAuth::basic("id", "a+b")).await?, basic("aWQ6YSUyQmI=")); // id:a%2Bb
/// assert_eq!(wire(ClientAuth::basic_raw("id", "a+b")).await?, basic("aWQ6YSti")); // id:a+b
/// let body = wire(ClientAuth::body("id", "a+b")).await?;
/// assert_eq!(body, (None, "…&client_id=id&client_secret=a%2Bb".to_owned()));
/// assert_eq!(wire(ClientAuth::none("id")).await?, (None, "…&client_id=id".to_owned()));
/// assert_eq!(wire(ClientAuth::anonymous()).await?, (None, "…".to_owned()));
/// # Ok::<(), BoxError>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientAuth {
    /// `None`: no client is named at all.
    id: Option<String>,
    method: Method,
    #[cfg(feature = "jwt")]
    assertion: AssertionOptions,
}

#[derive(Clone)]
enum Method {
    Basic(SecretSource),
    BasicRaw(SecretSource),
    Body(SecretSource),
    None,
    Mtls,
    /// One that somebody else has made, and the type it is sent under.
    Assertion(Cow<'static, str>, SecretSource),
    #[cfg(feature = "jwt")]
    ClientSecretJwt(SecretSource),
    #[cfg(feature = "jwt")]
    PrivateKeyJwt(SigningKey),
}

impl ClientAuth {
    /// `Authorization: Basic`, id and secret form-encoded first, as RFC 6749 §2.3.1 asks. Right for most servers.
    pub fn basic(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self::new(id, Method::Basic(secret.into()))
    }

    /// `Authorization: Basic` without the form-encoding, for servers that do not decode it (AWS Cognito and others).
    ///
    /// It differs from [`basic`](ClientAuth::basic) only where id or secret hold characters other than
    /// `A-Z a-z 0-9 - . _ ~`.
    pub fn basic_raw(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self::new(id, Method::BasicRaw(secret.into()))
    }

    /// `client_id` and `client_secret` in the request body, form or JSON as the [`BodyEncoding`](crate::BodyEncoding)
    /// says. RFC 6749 §2.3.1 advises against it where the server takes Basic; many providers offer nothing else.
    pub fn body(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self::new(id, Method::Body(secret.into()))
    }

    /// A public client, which has no secret: `client_id` in the body.
    pub fn none(id: impl Into<String>) -> Self {
        Self::new(id, Method::None)
    }

    /// No client at all, not even an id: for grants whose assertion says everything (RFC 7523 §3.1), and for servers that
    /// know the client by other means, such as a header of [`token_header`](crate::AuthConfigBuilder::token_header).
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, ClientAuth, SecretSource};
    ///
    /// let assertion = SecretSource::file("/run/secrets/assertion.jwt");
    /// let cfg = AuthConfig::jwt_bearer("https://auth.example.com/token", ClientAuth::anonymous(), assertion)
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn anonymous() -> Self {
        Self::of(None, Method::None)
    }

    /// The type of an assertion that is any JWT (RFC 7523 §2.2).
    pub const JWT_BEARER: &'static str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    /// The type of an assertion that is a SPIFFE JWT-SVID (draft-ietf-oauth-spiffe-client-auth §3.1).
    pub const JWT_SPIFFE: &'static str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

    /// An assertion that somebody else has made (RFC 7521 §4.2, RFC 7523 §2.2): the identity that a platform gives its
    /// workloads, such as the token that Kubernetes projects into a pod. The client has no secret.
    ///
    /// It is read for each exchange, so that one that was replaced meanwhile is used at once. One that cannot be read, is
    /// empty or has expired (the `exp` of a JWT, a minute after it) is not sent:
    /// [`CredentialsUnavailable`](crate::TokenErrorKind::CredentialsUnavailable). No `client_id` is sent, since the
    /// assertion names the client; [`with_client_id`](ClientAuth::with_client_id) adds it. The
    /// [`providers`](crate::providers) have presets for Kubernetes, Entra and SPIFFE.
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use tower_oauth2_client::test_util::{AuthServer, TestClock};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, SecretSource};
    ///
    /// # tokio_test::block_on(async {
    /// # let path = std::env::temp_dir().join(format!("tower-oauth2-client-doc-{}", std::process::id()));
    /// # std::fs::write(&path, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n")?;
    /// // Such as `/var/run/secrets/tokens/auth-server`.
    /// let client_auth = ClientAuth::assertion(SecretSource::file(&path));
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", client_auth)
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let http_client = AuthServer::new(TestClock::new());
    /// AuthLayer::builder(cfg).http_client(http_client.clone()).build()?.handle().warm_up().await?;
    /// let sent = &http_client.requests()[0];
    /// assert_eq!(sent.param("client_assertion_type").as_deref(), Some(ClientAuth::JWT_BEARER));
    /// assert_eq!(sent.param("client_assertion").as_deref(), Some("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// # }
    /// ```
    pub fn assertion(assertion: impl Into<SecretSource>) -> Self {
        Self::assertion_of_type(Self::JWT_BEARER, assertion)
    }

    /// The same, sent under another `client_assertion_type`: [`JWT_SPIFFE`](ClientAuth::JWT_SPIFFE), or one that your
    /// server defines.
    pub fn assertion_of_type(assertion_type: impl Into<Cow<'static, str>>, assertion: impl Into<SecretSource>) -> Self {
        Self::of(None, Method::Assertion(assertion_type.into(), assertion.into()))
    }

    /// The client's id, where the constructor takes none: for servers that want `client_id` beside an assertion (Entra).
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A client known by its TLS certificate (RFC 8705 §2): `client_id` in the body, and nothing else.
    ///
    /// The certificate is your HTTP client's, which [`http_client`](crate::AuthLayerBuilder::http_client) takes.
    /// A token that is bound to the certificate (§3) is good on connections with the same one only, so the client of the
    /// API needs it too; when the certificate is replaced, call [`AuthHandle::invalidate`](crate::AuthHandle::invalidate).
    /// Some servers have a token URL of its own for this (§5, `mtls_endpoint_aliases`), which
    /// [`Discovery`](crate::Discovery) finds.
    ///
    /// ```no_run
    /// # #[cfg(feature = "reqwest")] fn layer() -> Result<(), Box<dyn std::error::Error>> {
    /// use reqwest::redirect::Policy;
    /// use reqwest::{Client, Identity};
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, ReqwestClient};
    ///
    /// // The private key and the certificate, in PEM.
    /// let identity = Identity::from_pem(&std::fs::read("client.pem")?)?;
    /// let http_client = Client::builder().identity(identity).redirect(Policy::none()).build()?;
    /// let cfg = AuthConfig::client_credentials("https://mtls.auth.example.com/token", ClientAuth::mtls("id"))
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let layer = AuthLayer::builder(cfg).http_client(ReqwestClient::new(http_client)).build()?;
    /// # Ok(()) }
    /// ```
    pub fn mtls(id: impl Into<String>) -> Self {
        Self::new(id, Method::Mtls)
    }

    /// An assertion signed with a private key (RFC 7523 §2.2; `private_key_jwt` of OpenID Connect): the server needs the
    /// public key only, and nothing that is sent can be used again.
    ///
    /// Each exchange has an assertion of its own: valid for 60 s from now, with an id of its own. For whom it is, says
    /// [`assertion_audience`](crate::AuthConfigBuilder::assertion_audience).
    ///
    /// An example is at [`SigningKey`].
    #[cfg(feature = "jwt")]
    pub fn private_key_jwt(id: impl Into<String>, key: SigningKey) -> Self {
        Self::new(id, Method::PrivateKeyJwt(key))
    }

    /// An assertion authenticated with the client's secret, by HMAC with SHA-256 (RFC 7523 §2.2; `client_secret_jwt` of
    /// OpenID Connect): the secret itself is not sent.
    ///
    /// As for [`private_key_jwt`](ClientAuth::private_key_jwt), it needs the feature `jwt-aws-lc-rs` or `jwt-rust-crypto`.
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, ClientAuth};
    ///
    /// let auth = ClientAuth::client_secret_jwt("id", "a secret of at least thirty-two bytes");
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", auth)
    ///     .assertion_audience("https://auth.example.com")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    #[cfg(feature = "jwt")]
    pub fn client_secret_jwt(id: impl Into<String>, secret: impl Into<SecretSource>) -> Self {
        Self::new(id, Method::ClientSecretJwt(secret.into()))
    }

    /// What the `typ` in the header of the client's own assertions is. Default:
    /// [`ClientAuthentication`](AssertionTyp::ClientAuthentication), as rfc7523bis asks; Entra documents
    /// [`Jwt`](AssertionTyp::Jwt), and older servers may take nothing else. An error where no assertion is made.
    #[cfg(feature = "jwt")]
    pub fn assertion_typ(mut self, typ: AssertionTyp) -> Self {
        self.assertion.typ = Some(typ);
        self
    }

    /// A further claim of the client's own assertions. Repeatable. One that is made anyway (`iss`, `sub`, `aud`, `jti`,
    /// `iat`, `exp`) is an error, and so is any where no assertion is made.
    ///
    /// ```
    /// # use tower_oauth2_client::{ClientAuth, SigningAlgorithm, SigningKey};
    /// # let key = SigningKey::from_pem(SigningAlgorithm::Es256, "");
    /// let auth = ClientAuth::private_key_jwt("id", key).assertion_claim("client_class", "batch");
    /// ```
    #[cfg(feature = "jwt")]
    pub fn assertion_claim(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.assertion.claims.push((name.into(), value.into()));
        self
    }

    fn new(id: impl Into<String>, method: Method) -> Self {
        Self::of(Some(id.into()), method)
    }

    fn of(id: Option<String>, method: Method) -> Self {
        Self {
            id,
            method,
            #[cfg(feature = "jwt")]
            assertion: AssertionOptions::default(),
        }
    }

    /// # Errors
    /// An id, a secret or a key that cannot be what the provider gave out. The error quotes none.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(id) = &self.id {
            check_line("client id", id)?;
        }
        match &self.method {
            Method::BasicRaw(_) if self.id().contains(':') => {
                return Err(ConfigError::new(
                    "the client id holds a colon, which ends the id in a Basic value",
                    "use `ClientAuth::basic`, which encodes it, or `ClientAuth::body`",
                ));
            }
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(key) => key.validate()?,
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(secret) => {
                backend()?;
                secret.fixed().map_or(Ok(()), check_hmac_key)?;
            }
            Method::Assertion(assertion_type, _) => check_line("type of the client assertion", assertion_type)?,
            _ => {}
        }
        #[cfg(feature = "jwt")]
        self.assertion.validate(self.makes_assertions())?;
        self.secret().map_or(Ok(()), |secret| secret.validate(self.secret_name()))
    }

    /// Whether the client makes assertions of its own, which are addressed to somebody.
    pub(crate) fn makes_assertions(&self) -> bool {
        #[cfg(feature = "jwt")]
        return matches!(self.method, Method::PrivateKeyJwt(_) | Method::ClientSecretJwt(_));
        #[cfg(not(feature = "jwt"))]
        false
    }

    /// Whether another reading of the secret or the key may find another.
    pub(crate) fn may_change(&self) -> bool {
        #[cfg(feature = "jwt")]
        if let Method::PrivateKeyJwt(key) = &self.method {
            return key.pem().is_some_and(|pem| pem.fixed().is_none());
        }
        self.secret().is_some_and(|secret| secret.fixed().is_none())
    }

    /// Whether [`present`](Self::present) may have to wait for somebody else.
    pub(crate) fn may_wait(&self) -> bool {
        #[cfg(feature = "jwt")]
        if let Method::PrivateKeyJwt(key) = &self.method {
            return key.may_wait();
        }
        self.may_change()
    }

    /// Reads the secret or the key, and makes of it what goes into one exchange.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables, reason = "only our own assertions have an audience"))]
    pub(crate) async fn present(&self, audience: &str, now: SystemTime) -> Result<WireCredentials, TokenError> {
        let secret = match self.secret() {
            Some(source) => Some(source.read_line(self.secret_name()).await?),
            None => None,
        };
        let mut presented = WireCredentials::default();
        match (&self.method, &secret) {
            (Method::Basic(_), Some(secret)) => {
                // Room for the worst case: a text that grows leaves copies of itself behind.
                let mut pair = String::with_capacity(3 * (self.id().len() + secret.expose().len()) + 1);
                pair.extend(form_encode(self.id()).chain([":"]).chain(form_encode(secret.expose())));
                presented.authorization = Some(basic_value(pair)?);
            }
            (Method::BasicRaw(_), Some(secret)) => {
                presented.authorization = Some(basic_value([self.id(), ":", secret.expose()].concat())?);
            }
            (Method::Body(_), Some(secret)) => presented.client_secret = Some(secret.clone()),
            (Method::Assertion(assertion_type, _), Some(assertion)) => {
                check_not_expired(assertion.expose(), now)?;
                presented.client_assertion = Some((assertion_type.clone(), assertion.clone()));
            }
            #[cfg(feature = "jwt")]
            (Method::ClientSecretJwt(_), Some(secret)) => {
                check_hmac_key(secret).map_err(|error| unavailable(error.to_string()))?;
                let assertion = self.statement(audience, now).authenticated(secret)?;
                presented.client_assertion = Some((Self::JWT_BEARER.into(), assertion));
            }
            #[cfg(feature = "jwt")]
            (Method::PrivateKeyJwt(key), _) => {
                let pem = match key.pem() {
                    Some(source) => Some(source.read("signing key").await?),
                    None => None,
                };
                let assertion = self.statement(audience, now).signed(key, pem.as_ref()).await?;
                presented.client_assertion = Some((Self::JWT_BEARER.into(), assertion));
                presented.made_of = pem;
            }
            _ => {}
        }
        if presented.authorization.is_none() {
            presented.client_id = self.id.clone();
        }
        presented.made_of = secret.or(presented.made_of);
        Ok(presented)
    }

    #[cfg(feature = "jwt")]
    fn statement<'a>(&'a self, audience: &'a str, now: SystemTime) -> Statement<'a> {
        Statement::of_client(self.id(), audience, now, &self.assertion)
    }

    /// Which client it is and how it authenticates, without its secret.
    pub(crate) fn describe(&self, digest: &mut Digest) {
        if let Some(id) = &self.id {
            digest.field("client id", id);
        }
        digest.field("client auth", self.method_name());
        if let (None, Method::Assertion(assertion_type, assertion)) = (&self.id, &self.method) {
            // Nothing else tells which client it is.
            digest.field("assertion type", assertion_type.as_ref());
            assertion.describe(digest);
        }
    }

    /// The client and its secret; `None` if the secret may change by itself, or is not ours to know.
    pub(crate) fn known_credentials(&self) -> Option<Digest> {
        let mut digest = Digest::new("credentials");
        self.describe(&mut digest);
        let secret = self.secret();
        #[cfg(feature = "jwt")]
        let secret = match &self.method {
            Method::PrivateKeyJwt(key) => Some(key.pem()?),
            _ => secret,
        };
        if let Some(secret) = secret {
            digest.field("secret", secret.fixed()?.expose());
        }
        Some(digest)
    }

    /// All that its assertions are made of.
    #[cfg(all(test, feature = "serde", feature = "jwt"))]
    pub(crate) fn signed_as(&self) -> String {
        match &self.method {
            Method::PrivateKeyJwt(key) => format!("{key:?} {:?}", self.assertion),
            _ => format!("{:?}", self.assertion),
        }
    }

    /// The client's secret as it is now, where it has one that the server knows.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn read_secret(&self) -> Result<Option<Secret<String>>, TokenError> {
        match self.secret() {
            Some(source) => source.read_line(self.secret_name()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether nothing says which client it is: an assertion from a function or a file, without an id.
    pub(crate) fn is_nameless(&self) -> bool {
        matches!((&self.id, &self.method), (None, Method::Assertion(_, assertion)) if assertion.is_nameless())
    }

    /// Whether it has nothing to authenticate with (RFC 6749 §2.1).
    pub(crate) fn is_public(&self) -> bool {
        matches!(self.method, Method::None)
    }

    /// The client's id, where it has one.
    pub(crate) fn client_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether `client_id` is among the parameters that it sends.
    pub(crate) fn sends_client_id(&self) -> bool {
        self.id.is_some() && !matches!(self.method, Method::Basic(_) | Method::BasicRaw(_))
    }

    /// Whether the client is known by its TLS certificate.
    pub(crate) fn is_mtls(&self) -> bool {
        matches!(self.method, Method::Mtls)
    }

    /// Its names among the registered methods (RFC 8414 §2, RFC 8705 §2); none where nothing is shown that could be shown
    /// to the wrong server.
    pub(crate) fn registered_names(&self) -> &'static [&'static str] {
        match &self.method {
            Method::Basic(_) | Method::BasicRaw(_) => &["client_secret_basic"],
            Method::Body(_) => &["client_secret_post"],
            // An assertion is good at the server that it names, and has no registered name of its own.
            Method::None | Method::Assertion(..) => &[],
            Method::Mtls => &["tls_client_auth", "self_signed_tls_client_auth"],
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => &["client_secret_jwt"],
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) => &["private_key_jwt"],
        }
    }

    /// How its assertions are signed, where it makes any.
    pub(crate) fn signing_algorithm(&self) -> Option<&'static str> {
        match &self.method {
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => Some("HS256"),
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(key) => Some(key.algorithm().as_str()),
            _ => None,
        }
    }

    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    fn secret(&self) -> Option<&SecretSource> {
        match &self.method {
            Method::Basic(secret) | Method::BasicRaw(secret) | Method::Body(secret) => Some(secret),
            Method::Assertion(_, assertion) => Some(assertion),
            Method::None | Method::Mtls => None,
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(secret) => Some(secret),
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) => None,
        }
    }

    /// What its secret is called in errors.
    fn secret_name(&self) -> &'static str {
        if matches!(self.method, Method::Assertion(..)) { "client assertion" } else { "client secret" }
    }

    fn method_name(&self) -> &'static str {
        match &self.method {
            Method::Basic(_) => "basic",
            Method::BasicRaw(_) => "basic_raw",
            Method::Body(_) => "body",
            Method::None => "none",
            Method::Mtls => "mtls",
            Method::Assertion(..) => "assertion",
            #[cfg(feature = "jwt")]
            Method::ClientSecretJwt(_) => "client_secret_jwt",
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(_) => "private_key_jwt",
        }
    }
}

/// How long after its end an assertion is still sent: clocks differ.
const EXPIRY_LEEWAY: Duration = Duration::from_secs(60);

/// # Errors
/// It has expired: what should replace it does not run.
fn check_not_expired(assertion: &str, now: SystemTime) -> Result<(), TokenError> {
    let Some(ago) = jwt_exp(assertion).and_then(|exp| now.duration_since(exp).ok()) else { return Ok(()) };
    if ago <= EXPIRY_LEEWAY {
        return Ok(());
    }
    Err(unavailable(format!(
        "the client assertion expired {} s ago and was not sent; see to whatever should replace it",
        ago.as_secs()
    )))
}

/// Tells the method only.
impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientAuth({})", self.method_name())
    }
}

/// How the client says who it is in one exchange; never used for a second one.
#[derive(Default)]
pub(crate) struct WireCredentials {
    pub(crate) authorization: Option<HeaderValue>,
    client_id: Option<String>,
    client_secret: Option<Secret<String>>,
    /// With its type.
    client_assertion: Option<(Cow<'static, str>, Secret<String>)>,
    /// The secret or the key behind it.
    made_of: Option<Secret<String>>,
}

impl WireCredentials {
    /// The body parameters.
    pub(crate) fn push_params<'a>(&'a self, params: &mut Params<'a>) {
        if let Some(id) = &self.client_id {
            params.push("client_id", id);
        }
        if let Some(secret) = &self.client_secret {
            params.push("client_secret", secret.expose());
        }
        if let Some((assertion_type, assertion)) = &self.client_assertion {
            params.push("client_assertion_type", assertion_type);
            params.push("client_assertion", assertion.expose());
        }
    }

    /// What must not be found in an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let assertion = self.client_assertion.as_ref().map(|(_, assertion)| assertion);
        self.made_of.iter().chain(assertion).map(|secret| secret.expose().as_str())
    }

    /// Whether both come from the same secret or key.
    pub(crate) fn is_made_like(&self, other: &WireCredentials) -> bool {
        match (&self.made_of, &other.made_of) {
            (Some(one), Some(other)) => one.expose() == other.expose(),
            _ => true,
        }
    }
}

/// # Errors
/// A key that can be guessed (RFC 7518 §3.2).
#[cfg(feature = "jwt")]
fn check_hmac_key(secret: &Secret<String>) -> Result<(), ConfigError> {
    if secret.expose().len() >= 32 {
        return Ok(());
    }
    Err(ConfigError::new(
        "the client secret is too short to sign with: `client_secret_jwt` needs 256 bits, 32 characters (RFC 7518 §3.2)",
        "have the provider give out a longer one, or use `ClientAuth::basic`",
    ))
}

/// # Errors
/// None: Base64 is always a header value.
fn basic_value(pair: String) -> Result<HeaderValue, TokenError> {
    let pair = Zeroizing::new(pair);
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    let value = Zeroizing::new([b"Basic ", encoded.as_bytes()].concat());
    // Takes the buffer over, which is wiped with the header's last clone.
    let header = HeaderValue::from_maybe_shared(Bytes::from_owner(value));
    let mut header = header.map_err(|_| unavailable("id and secret fit no header"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The credentials in use: shared, and replaceable while requests are under way.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<ArcSwap<ClientAuth>>);

impl Credentials {
    pub(crate) fn new(auth: ClientAuth) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(auth)))
    }

    /// Sets what the next exchange authenticates with; tells whether it is the same client.
    pub(crate) fn replace(&self, auth: ClientAuth) -> Result<bool, ConfigError> {
        auth.validate()?;
        let former = self.0.swap(Arc::new(auth));
        Ok(former.id == self.load().id)
    }

    pub(crate) fn load(&self) -> Arc<ClientAuth> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1PpG/Q 1";
    const SECRET: &str = "z/tZ9VwFZqApmIQ+ZH1I5pLk/uB4ud:X2/8bL+wfFTt1rFw=";

    async fn basic_value(auth: &ClientAuth) -> String {
        let header = auth.present("", SystemTime::UNIX_EPOCH).await.unwrap().authorization.unwrap();
        assert!(header.is_sensitive());
        header.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned()
    }

    /// Behaviour 107.
    #[tokio::test]
    async fn basic_form_encodes_both_halves() {
        assert_eq!(
            basic_value(&ClientAuth::basic(ID, SECRET)).await,
            "MVBwRyUyRlElMjAxOnolMkZ0WjlWd0ZacUFwbUlRJTJCWkgxSTVwTGslMkZ1QjR1ZCUzQVgyJTJGOGJMJTJCd2ZGVHQxckZ3JTNE"
        );
        let appendix_b = STANDARD.decode(basic_value(&ClientAuth::basic(" %&+£€", "s")).await).unwrap();
        assert_eq!(appendix_b, b"%20%25%26%2B%C2%A3%E2%82%AC:s");
    }

    #[tokio::test]
    async fn basic_raw_encodes_neither() {
        assert_eq!(
            basic_value(&ClientAuth::basic_raw(ID, SECRET)).await,
            "MVBwRy9RIDE6ei90WjlWd0ZacUFwbUlRK1pIMUk1cExrL3VCNHVkOlgyLzhiTCt3ZkZUdDFyRnc9"
        );
    }

    #[tokio::test]
    async fn a_long_basic_value_stays_on_one_line() {
        let value = basic_value(&ClientAuth::basic("i".repeat(200), "s".repeat(200).as_str())).await;
        assert_eq!(value.len(), 536);
        assert!(value.bytes().all(|b| b.is_ascii_graphic()));
    }

    #[test]
    fn what_no_provider_gave_out_is_refused_without_quoting_it() {
        let wrong = [
            ClientAuth::basic("", "canary"),
            ClientAuth::body("id", ""),
            ClientAuth::none(""),
            ClientAuth::basic_raw("id:x", "canary"),
            ClientAuth::body("id", "canary\n"),
            ClientAuth::body("id", " canary"),
            ClientAuth::body("id", "cana\nry"),
            ClientAuth::body("canary\u{7f}x", "secret"),
        ];
        for auth in wrong {
            let error = auth.validate().expect_err("refused");
            assert!(!format!("{error} {error:?} {auth:?}").contains("canary"), "{error}");
        }
        assert!(ClientAuth::body("id", "canary\n").validate().unwrap_err().to_string().contains("trim"));
        for good in [ClientAuth::basic("id:x", "a b"), ClientAuth::body("id", "+%=&é"), ClientAuth::none("id")] {
            assert!(good.validate().is_ok());
        }
    }

    /// Behaviour 154.
    #[cfg(feature = "jwt-rust-crypto")]
    #[tokio::test]
    async fn a_secret_that_can_be_guessed_signs_nothing() {
        let short = "canary-of-thirty-one-characters";
        assert_eq!(short.len(), 31);
        let error = ClientAuth::client_secret_jwt("id", short).validate().unwrap_err().to_string();
        assert!(error.contains("256 bits") && !error.contains("canary"), "{error}");
        let later = SecretSource::provider(move || async move { Ok::<_, std::io::Error>(Secret::from(short)) });
        let auth = ClientAuth::client_secret_jwt("id", later);
        auth.validate().unwrap();
        let error = auth.present("", SystemTime::UNIX_EPOCH).await.err().unwrap().to_string();
        assert!(error.contains("256 bits") && !error.contains("canary"), "{error}");
        assert!(ClientAuth::client_secret_jwt("id", format!("{short}+")).validate().is_ok());
    }

    #[test]
    fn replaced_credentials_are_seen_by_every_holder() {
        let credentials = Credentials::new(ClientAuth::body("id", "old"));
        let holder = credentials.clone();
        credentials.replace(ClientAuth::body("id", "new")).unwrap();
        assert_eq!(holder.load().secret().unwrap().fixed().unwrap().expose(), "new");
    }
}
