//! The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636): where a person signs in, and what a code is sent with.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::GrantParams;
use crate::endpoint::encode::{BodyEncoding, Params};
use crate::endpoint::settings::EndpointSettings;
use crate::types::{ConfigError, Secret, check_line, is_absolute_uri};

/// Where a person signs in, and where the browser comes back to (RFC 6749 §4.1.1).
///
/// Scopes, resources and audiences are those of the configuration. A code is good only together with a secret that stays
/// here (PKCE, RFC 7636, always by SHA-256), so that nobody else can use one that was overheard.
///
/// [`AuthConfig::authorization_code`](crate::AuthConfig::authorization_code) has the whole of a sign-in.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, AuthorizationCode, ClientAuth};
///
/// let code = AuthorizationCode::new("https://auth.example.com/authorize", "http://127.0.0.1:8976/callback")
///     .require_issuer("https://auth.example.com")
///     .param("prompt", "login");
/// let cfg = AuthConfig::authorization_code("https://auth.example.com/token", ClientAuth::none("id"), code)
///     .scopes(["read"])
///     .origin("https://api.example.com")
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, PartialEq)]
#[must_use]
pub struct AuthorizationCode {
    /// `None`: it is to be found.
    authorize_url: Option<String>,
    redirect_uri: String,
    pkce: bool,
    issuer: Issuer,
    params: Vec<(String, String)>,
}

/// Who must have sent the browser back (RFC 9207).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Issuer {
    /// Nobody asks.
    Unknown,
    /// This one, if the answer says who it is from.
    Known(String),
    /// This one, and the answer must say so.
    Required(String),
}

impl AuthorizationCode {
    /// `authorize_url` is the authorization endpoint: https, or this machine; its query is kept. `redirect_uri` is where
    /// the browser brings the code, exactly as it is registered with the server: https, http on this machine (RFC 8252
    /// §7.3), or a scheme of your application's own (§7.1).
    pub fn new(authorize_url: impl Into<String>, redirect_uri: impl Into<String>) -> Self {
        Self {
            authorize_url: Some(authorize_url.into()),
            redirect_uri: redirect_uri.into(),
            pkce: true,
            issuer: Issuer::Unknown,
            params: Vec::new(),
        }
    }

    /// The same with the authorization endpoint that [`Discovery`](crate::Discovery) finds, in a configuration with one.
    /// [`AuthHandle::discover_sign_in`](crate::AuthHandle::discover_sign_in) begins the sign-in.
    pub fn discovered(redirect_uri: impl Into<String>) -> Self {
        Self { authorize_url: None, ..Self::new("", redirect_uri) }
    }

    /// The authorization server's issuer identifier (RFC 9207 §2): an answer that names another one (`iss`) is refused,
    /// one that names none is not. Default: the issuer of [`Discovery`](crate::Discovery); without it `iss` is not looked at.
    /// Where metadata promise that the server always names itself, an answer without `iss` is refused too.
    ///
    /// It protects people who sign in with more than one server: the code of one is not sent to another (RFC 9700 §4.4).
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Issuer::Known(issuer.into());
        self
    }

    /// The same for a server that always names itself (`authorization_response_iss_parameter_supported` in its metadata):
    /// an answer without `iss` is refused too.
    pub fn require_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Issuer::Required(issuer.into());
        self
    }

    /// A further parameter of the authorization URL, such as `prompt` or `login_hint`. Repeatable, also with the same
    /// name. Anybody who sees the browser sees it. What differs from one sign-in to the next may as well be appended to
    /// [`SignIn::url`](crate::SignIn::url).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Without PKCE, for servers that refuse its parameters; those that merely do not know them must ignore them (RFC 6749
    /// §3.1). A code that somebody overhears is then protected by the client's secret alone, and by nothing if it has none: such
    /// clients must not go without (RFC 9700 §2.1.1).
    pub fn without_pkce(mut self) -> Self {
        self.pkce = false;
        self
    }

    /// The URLs in a browser's reach that must be secure: all but a redirect URI with a scheme of its own.
    pub(crate) fn browser_urls(&self) -> impl Iterator<Item = &str> {
        let redirect_uri = Some(self.redirect_uri.as_str());
        let is_http = |uri: &&str| {
            uri.split(':').next().is_some_and(|scheme| ["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s)))
        };
        self.authorize_url.as_deref().into_iter().chain(redirect_uri.filter(is_http))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !is_absolute_uri(&self.redirect_uri) {
            return Err(ConfigError::new(
                "the redirect URI is not an absolute URI without a fragment (RFC 6749 §3.1.2)",
                "write it as it is registered, such as http://127.0.0.1:8976/callback",
            ));
        }
        if let Issuer::Known(issuer) | Issuer::Required(issuer) = &self.issuer {
            check_line("issuer", issuer)?;
        }
        if self.params.iter().any(|(name, _)| name.is_empty() || AUTHORIZE_SENDS.contains(&name.as_str())) {
            return Err(ConfigError::new(
                "an extra parameter of the authorization URL has no name, or the name of one that is sent anyway",
                "a parameter may be sent once only (RFC 6749 §3.1); use the setting of that name",
            ));
        }
        Ok(())
    }

    /// Where the browser goes afterwards.
    #[cfg(feature = "loopback")]
    pub(crate) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Where the person signs in, if it need not be found.
    pub(crate) fn authorize_url(&self) -> Option<&str> {
        self.authorize_url.as_deref()
    }

    /// Whether a code is good only together with a secret of ours.
    pub(crate) fn has_pkce(&self) -> bool {
        self.pkce
    }

    /// Who must have sent the browser back; `discovered` where nothing else is said. `promised`: its metadata say that it
    /// always names itself, and an answer that does not is another's (RFC 9207 §2.4).
    pub(crate) fn expected_issuer(&self, discovered: Option<&str>, promised: bool) -> Issuer {
        let issuer = match (&self.issuer, discovered) {
            (Issuer::Unknown, Some(issuer)) => Issuer::Known(issuer.to_owned()),
            (issuer, _) => issuer.clone(),
        };
        match issuer {
            Issuer::Known(issuer) if promised => Issuer::Required(issuer),
            issuer => issuer,
        }
    }

    /// The authorization URL (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2.1).
    pub(crate) fn url(
        &self,
        authorize_url: &str,
        settings: &EndpointSettings,
        client_id: &str,
        state: &Secret<String>,
        verifier: &Secret<String>,
    ) -> Secret<String> {
        let challenge = challenge(verifier.expose());
        let mut params = Params::default();
        params.push("response_type", "code");
        params.push("client_id", client_id);
        params.push("redirect_uri", &self.redirect_uri);
        params.push("scope", settings.scopes.as_ref().map_or("", |scopes| scopes.as_str()));
        params.push("state", state.expose());
        if self.pkce {
            params.push("code_challenge", &challenge);
            params.push("code_challenge_method", "S256");
        }
        settings.resources.iter().for_each(|resource| params.push("resource", resource));
        settings.audiences.iter().for_each(|audience| params.push("audience", audience));
        self.params.iter().for_each(|(name, value)| params.push(name, value));

        let query = BodyEncoding::Form.encode(&params);
        let separator = match authorize_url.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        Secret::new([authorize_url, separator, &String::from_utf8_lossy(&query)].concat())
    }

    /// What the code is sent with (RFC 6749 §4.1.3, RFC 7636 §4.5).
    pub(crate) fn exchange(&self, code: Secret<String>, verifier: &Secret<String>) -> GrantParams {
        let params =
            GrantParams::new("authorization_code").secret("code", code).plain("redirect_uri", &self.redirect_uri);
        if self.pkce { params.secret("code_verifier", verifier.clone()) } else { params }
    }
}

const AUTHORIZE_SENDS: [&str; 9] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "audience",
];

pub(super) const SENDS: [&str; 3] = ["code", "redirect_uri", "code_verifier"];

/// What the server is shown of the verifier beforehand: `S256`, the only method there is here (RFC 7636 §4.2).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Leaves URLs and parameters out: users put keys and people's names there.
impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCode").field("pkce", &self.pkce).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, Appendix B.
    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting_it() {
        let plain = || AuthorizationCode::new("https://auth.example.com/authorize", "https://app.example.com/back");
        let with_redirect = |uri: &str| AuthorizationCode::new("https://auth.example.com/authorize", uri);
        for good in [plain(), with_redirect("com.example.app:/back"), plain().param("ui_locales", "de").param("ui", "")]
        {
            assert!(good.validate().is_ok());
        }
        let wrong = [
            with_redirect("/canary"),
            with_redirect("https://app.example.com/#canary"),
            plain().issuer(""),
            plain().require_issuer("canary\n"),
            plain().param("", "canary"),
            plain().param("state", "canary"),
            plain().param("code_challenge_method", "plain"),
        ];
        for code in wrong {
            let error = code.validate().unwrap_err();
            assert!(!format!("{error:?} {code:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_redirect_uri_with_a_scheme_of_its_own_is_no_url_to_secure() {
        let urls = |redirect| AuthorizationCode::new("https://a.example/", redirect).browser_urls().count();
        assert_eq!([urls("com.example.app:/back"), urls("http://127.0.0.1/"), urls("HTTPS://b.example/")], [1, 2, 2]);
    }
}
