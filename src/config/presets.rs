//! Presets for five providers, and for workloads that have an identity and no secret: builder calls and nothing else.
//! Whatever a preset can say, you can say.
//!
//! ```
//! use tower_oauth2_client::providers;
//!
//! let cfg = providers::vip("client-id", "client-secret").build()?;
//! # Ok::<(), tower_oauth2_client::ConfigError>(())
//! ```

use std::path::PathBuf;
use std::time::Duration;

use super::{AuthConfig, AuthConfigBuilder};
use crate::endpoint::{AuthorizationCode, BodyEncoding, ClientAuth, TokenExchange, TokenUrl};
#[cfg(feature = "jwt")]
use crate::jws::{AssertionTyp, JwtAssertion, SigningKey};
use crate::request::Tenant;
use crate::response::Forbidden;
use crate::token::{ExpirySource, Renew, UnknownExpiry};
use crate::types::SecretSource;

/// The Veterinary Integration Platform: one token a day for all practices, `Tenant-Id` on each request.
///
/// The server hands out the same token until it expires and its `expires_in` is a constant, so that only `exp` inside
/// the token counts and the token is renewed when it expires. A 401 or 403 may mean "expired" or "scope missing" and
/// does not say which.
///
/// Put a [`TenantId`](crate::TenantId) into each request's extensions.
pub fn vip(client_id: impl Into<String>, client_secret: impl Into<SecretSource>) -> AuthConfigBuilder {
    let client_auth = ClientAuth::body(client_id, client_secret);
    AuthConfig::client_credentials("https://api.vetspace.cloud/oauth/token", client_auth)
        .encoding(BodyEncoding::Json)
        .send_grant_type(false)
        .expiry([ExpirySource::JwtExp])
        .unknown_expiry(UnknownExpiry::Assume(Duration::from_secs(300)))
        .renew(Renew::AtExpiry)
        .tenant(Tenant::header("tenant-id").per_request())
        .default_header("accept", "application/json")
        .on_forbidden(Forbidden::IfExpired)
        .origin("https://api.vetspace.cloud")
}

/// Spry: tokens for an hour, refreshed at another path where a refresh token is given. `host` is the base, such as
/// `clinic.example.com`.
///
/// The token is an identity (a user, its clinics): two sets of credentials are two layers.
/// [`Token::extra`](crate::Token::extra) has `organisation_id`, `clinic_id_list` and so on.
pub fn spry(
    host: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretSource>,
) -> AuthConfigBuilder {
    let base = base_url(host.as_ref());
    let client_auth = ClientAuth::body(client_id, client_secret);
    AuthConfig::client_credentials(format!("{base}/apis/v2/oauth/token"), client_auth)
        .refresh_url(format!("{base}/apis/v1/oauth/token"))
        .scopes(["read", "write"])
        .origin(base)
}

/// Spry on behalf of a person who signs in: as [`spry`], with the authorization code grant. `redirect_uri` is where their
/// browser brings the code, as registered with Spry.
///
/// PKCE is on, though Spry does not document it: a server that does not know it ignores it. For one that refuses it, there is
/// `.edit_authorization_code(|code| code.without_pkce())`.
pub fn spry_authorization_code(
    host: impl AsRef<str>,
    redirect_uri: impl Into<String>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretSource>,
) -> AuthConfigBuilder {
    let base = base_url(host.as_ref());
    let client_auth = ClientAuth::body(client_id, client_secret);
    let code = AuthorizationCode::new(format!("{base}/apis/v2/oauth/authorize"), redirect_uri);
    AuthConfig::authorization_code(format!("{base}/apis/v2/oauth/token"), client_auth, code)
        .refresh_url(format!("{base}/apis/v1/oauth/token"))
        .scopes(["read", "write"])
        .origin(base)
}

/// VectorCare: tokens for an hour, renewed at 80 % of their life, used at another host than they come from.
pub fn vectorcare(client_id: impl Into<String>, client_secret: impl Into<SecretSource>) -> AuthConfigBuilder {
    let client_auth = ClientAuth::body(client_id, client_secret);
    AuthConfig::client_credentials("https://auth.vectorcare.com/v2.0/oauth2/token", client_auth)
        .origin("https://hub.vectorcare.com")
}

/// Qmatic Cloud Appointments: a token per account, named in header and body of the token request. `host` is the
/// region's or your own, such as `api.eu-west-1.qmatic.io`.
///
/// The account is normalised as Qmatic asks: lower case, no spaces. For several accounts in one layer replace the
/// tenant, and name the account in each request's [`TenantId`](crate::TenantId):
///
/// ```
/// use tower_oauth2_client::{Tenant, providers};
///
/// let cfg = providers::qmatic("api.eu-west-1.qmatic.io", "My Clinic", ["com.qmatic.saas.appointments/external.appointment.book"], "id", "secret")
///     .tenant(Tenant::without_header().token_header("x-account").token_param("x-account").normalized())
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
pub fn qmatic<I>(
    host: impl AsRef<str>,
    account: impl Into<String>,
    scopes: I,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretSource>,
) -> AuthConfigBuilder
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let base = base_url(host.as_ref());
    let client_auth = ClientAuth::basic_raw(client_id, client_secret);
    AuthConfig::client_credentials(format!("{base}/oauth2/token"), client_auth)
        .scopes(scopes)
        .tenant(Tenant::without_header().fixed(account).normalized().token_header("x-account").token_param("x-account"))
        .origin(base)
}

/// Graphnet: no `expires_in`; the token must be discarded at the `exp` inside it, and a new one fetched before going on.
pub fn graphnet(
    token_url: impl Into<TokenUrl>,
    api_origin: impl Into<String>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretSource>,
) -> AuthConfigBuilder {
    AuthConfig::client_credentials(token_url, ClientAuth::body(client_id, client_secret))
        .expiry([ExpirySource::JwtExp])
        .unknown_expiry(UnknownExpiry::Assume(Duration::from_secs(300)))
        .discard_expired(true)
        .origin(api_origin)
}

/// A pod that authenticates with the token which Kubernetes projects into it (a volume `serviceAccountToken`), at a server
/// that trusts the cluster, such as Keycloak from 26.4.
///
/// `audience` of the volume must be the server's issuer. The kubelet replaces the file in time; it is read for each token
/// request. Add the API's [`origin`](AuthConfigBuilder::origin); with a store also the workload's name
/// ([`account`](AuthConfigBuilder::account)), since the file has the same path in every pod.
///
/// ```
/// use tower_oauth2_client::{Discovery, providers};
///
/// let keycloak = Discovery::of("https://keycloak.example.com/realms/main").openid();
/// let cfg = providers::kubernetes(keycloak, "/var/run/secrets/tokens/keycloak")
///     .origin("https://api.example.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
pub fn kubernetes(token_url: impl Into<TokenUrl>, token_file: impl Into<PathBuf>) -> AuthConfigBuilder {
    AuthConfig::client_credentials(token_url, ClientAuth::assertion(SecretSource::file(token_file)))
}

/// An application of Microsoft Entra that authenticates with a federated credential: a JWT of another identity provider, such
/// as the file that Azure's workload identity webhook names in `AZURE_FEDERATED_TOKEN_FILE`.
///
/// `tenant` is the directory's id or domain name. The scope is the API with `/.default`. Add the API's
/// [`origin`](AuthConfigBuilder::origin).
///
/// ```
/// use tower_oauth2_client::providers;
///
/// let scopes = ["https://graph.microsoft.com/.default"];
/// let token_file = "/var/run/secrets/azure/tokens/azure-identity-token";
/// let cfg = providers::entra_federated("contoso.onmicrosoft.com", "application-id", scopes, token_file)
///     .origin("https://graph.microsoft.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
pub fn entra_federated<I>(
    tenant: impl AsRef<str>,
    client_id: impl Into<String>,
    scopes: I,
    token_file: impl Into<PathBuf>,
) -> AuthConfigBuilder
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let client_auth = ClientAuth::assertion(SecretSource::file(token_file)).with_client_id(client_id);
    AuthConfig::client_credentials(entra_token_url(tenant.as_ref()), client_auth).scopes(scopes)
}

/// An application of Microsoft Entra that authenticates with a certificate: a key with
/// [`SigningAlgorithm::Ps256`](crate::SigningAlgorithm::Ps256) and its [`Certificate`](crate::Certificate).
///
/// As [`entra_federated`] otherwise; an example is at [`Certificate`](crate::Certificate).
#[cfg(feature = "jwt")]
pub fn entra_certificate<I>(
    tenant: impl AsRef<str>,
    client_id: impl Into<String>,
    scopes: I,
    key: SigningKey,
) -> AuthConfigBuilder
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let client_auth = ClientAuth::private_key_jwt(client_id, key).assertion_typ(AssertionTyp::Jwt);
    AuthConfig::client_credentials(entra_token_url(tenant.as_ref()), client_auth).scopes(scopes)
}

/// A workload that authenticates with its SPIFFE JWT-SVID, from a file that something like `spiffe-helper` keeps fresh
/// (draft-ietf-oauth-spiffe-client-auth).
///
/// The SVID's audience must be the server's issuer. Add the API's [`origin`](AuthConfigBuilder::origin), and
/// where the server has ids for its clients, use [`ClientAuth::assertion_of_type`] with
/// [`with_client_id`](ClientAuth::with_client_id); with a store, [`account`](AuthConfigBuilder::account) names the workload.
///
/// ```
/// use tower_oauth2_client::providers;
///
/// let cfg = providers::spiffe("https://auth.example.com/token", "/run/spiffe/jwt_svid.token")
///     .origin("https://api.example.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
pub fn spiffe(token_url: impl Into<TokenUrl>, svid_file: impl Into<PathBuf>) -> AuthConfigBuilder {
    let client_auth = ClientAuth::assertion_of_type(ClientAuth::JWT_SPIFFE, SecretSource::file(svid_file));
    AuthConfig::client_credentials(token_url, client_auth)
}

/// Google's workload identity federation: a JWT of another identity provider, from a file, for an access token of Google's.
///
/// `audience` is the full name of the provider in its pool: `//iam.googleapis.com/projects/<number>/locations/global/`
/// `workloadIdentityPools/<pool>/providers/<provider>`. Add the API's [`origin`](AuthConfigBuilder::origin); with a store,
/// [`account`](AuthConfigBuilder::account) names the workload.
///
/// ```
/// use tower_oauth2_client::providers;
///
/// let audience = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/cluster";
/// let scopes = ["https://www.googleapis.com/auth/cloud-platform"];
/// let cfg = providers::google_workload_identity(audience, scopes, "/var/run/secrets/tokens/google")
///     .origin("https://storage.googleapis.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
pub fn google_workload_identity<I>(
    audience: impl Into<String>,
    scopes: I,
    token_file: impl Into<PathBuf>,
) -> AuthConfigBuilder
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let exchange = TokenExchange::new(TokenExchange::JWT, SecretSource::file(token_file))
        .requested_token_type(TokenExchange::ACCESS_TOKEN);
    AuthConfig::token_exchange("https://sts.googleapis.com/v1/token", ClientAuth::anonymous(), exchange)
        .audience(audience)
        .scopes(scopes)
}

/// A service account of Google's, which signs an assertion with its key (RFC 7523 §2.1; the key's id goes into the header:
/// [`SigningKey::with_key_id`]).
///
/// The file that Google gives out has the account as `client_email`, the key as `private_key` and its id as `private_key_id`.
/// Add the API's [`origin`](AuthConfigBuilder::origin). For a token of a person of your domain (domain-wide delegation), give
/// [`AuthConfig::jwt_bearer`](AuthConfig::jwt_bearer) the same assertion with a [`subject`](JwtAssertion::subject).
///
/// ```
/// use tower_oauth2_client::{SecretSource, SigningAlgorithm, SigningKey, providers};
///
/// let key = SigningKey::from_pem(SigningAlgorithm::Rs256, SecretSource::file("/run/secrets/google.pem"));
/// let scopes = ["https://www.googleapis.com/auth/devstorage.read_only"];
/// let cfg = providers::google_service_account("batch@project.iam.gserviceaccount.com", scopes, key.with_key_id("0a1b2c"))
///     .origin("https://storage.googleapis.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[cfg(feature = "jwt")]
pub fn google_service_account<I>(account: impl Into<String>, scopes: I, key: SigningKey) -> AuthConfigBuilder
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let assertion = JwtAssertion::new(account, key).without_subject().scope_claim();
    AuthConfig::jwt_bearer("https://oauth2.googleapis.com/token", ClientAuth::anonymous(), assertion).scopes(scopes)
}

fn entra_token_url(tenant: &str) -> String {
    format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
}

/// `host` as an https origin, unless it names its scheme (for tests against this machine).
fn base_url(host: &str) -> String {
    let host = host.trim_end_matches('/');
    if host.contains("://") { host.to_owned() } else { format!("https://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_empty_after_normalising_is_refused() {
        let error = qmatic("api.example", "   ", ["a"], "id", "secret").build().unwrap_err();
        assert!(error.to_string().contains("empty"), "{error}");
        assert!(qmatic("api.example", "x", ["a"], "a:b", "secret").build().is_err(), "a colon in a raw Basic id");
        assert!(vip("id", "secret\n").build().is_err(), "a trailing line break");
    }
}
