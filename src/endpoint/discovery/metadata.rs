//! What an authorization server says of itself (RFC 8414 §2): read, checked, and no more of it kept than is used.

use http::Uri;
use serde::Deserialize;

use super::Directory;
use crate::endpoint::ClientAuth;
use crate::endpoint::settings::EndpointSettings;
use crate::types::{TokenError, TokenErrorKind};

/// Metadata that have been checked.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    urls: Urls,
    /// For clients known by their certificate; they come first (RFC 8705 §5).
    mtls: Urls,
    auth_methods: Option<Vec<String>>,
    /// Of the assertions that clients authenticate by.
    auth_algorithms: Option<Vec<String>>,
    /// Of proofs (RFC 9449 §5.1).
    dpop_algorithms: Option<Vec<String>>,
    /// Where people sign in (RFC 6749 §3.1).
    pub(crate) authorization: Option<Uri>,
    /// Each answer to a person's browser says who it is from (RFC 9207 §3).
    pub(crate) names_itself: bool,
    /// `S256` is a code challenge method there, as far as it says (RFC 7636 §6.2).
    pub(crate) takes_s256: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Urls {
    pub(crate) token: Option<Uri>,
    pub(crate) revocation: Option<Uri>,
    pub(crate) device: Option<Uri>,
}

impl Metadata {
    /// # Errors
    /// `BadMetadata`: no JSON, a URL that is none or not secure. `WrongIssuer`. Neither quotes anything.
    pub(super) fn read(body: &[u8], directory: &Directory) -> Result<Self, TokenError> {
        let bad = |detail: String| TokenError::new(TokenErrorKind::BadMetadata).with_detail(detail);
        let document: Document = serde_json::from_slice(body).map_err(|error| {
            // The error itself quotes the text.
            bad(format!("they cannot be read at line {} column {}", error.line(), error.column()))
        })?;
        if document.issuer != directory.issuer {
            let detail = "its metadata name another issuer than the configured one (RFC 8414 §3.3)";
            return Err(TokenError::new(TokenErrorKind::WrongIssuer).with_detail(detail));
        }
        let read = |endpoints: Endpoints| {
            Urls::read(&endpoints, directory).map_err(|name| bad(format!("`{name}` is no secure URL")))
        };
        Ok(Self {
            urls: read(Endpoints {
                token_endpoint: document.token_endpoint,
                revocation_endpoint: document.revocation_endpoint,
                device_authorization_endpoint: document.device_authorization_endpoint,
            })?,
            mtls: read(document.mtls_endpoint_aliases.unwrap_or_default())?,
            issuer: document.issuer,
            auth_methods: document.token_endpoint_auth_methods_supported,
            auth_algorithms: document.token_endpoint_auth_signing_alg_values_supported,
            dpop_algorithms: document.dpop_signing_alg_values_supported,
            authorization: document
                .authorization_endpoint
                .map(|url| directory.parse(&url))
                .transpose()
                .map_err(|_| bad("`authorization_endpoint` is no secure URL".to_owned()))?,
            names_itself: document.authorization_response_iss_parameter_supported.unwrap_or_default(),
            // A server that lists none is not believed to know none (RFC 8414 §2): too many say nothing.
            takes_s256: document
                .code_challenge_methods_supported
                .is_none_or(|methods| methods.iter().any(|method| method == "S256")),
        })
    }

    /// The endpoints for a client that authenticates so.
    pub(crate) fn urls(&self, auth: &ClientAuth) -> Urls {
        let Urls { token, revocation, device } = self.urls.clone();
        if !auth.is_mtls() {
            return Urls { token, revocation, device };
        }
        let own = self.mtls.clone();
        Urls { token: own.token.or(token), revocation: own.revocation.or(revocation), device: own.device.or(device) }
    }

    /// # Errors
    /// `Unsupported`: the server says that clients cannot authenticate so, or does not know an algorithm that is used. A
    /// server that says nothing is not believed to know Basic only (§2): too many say nothing.
    pub(crate) fn check(&self, settings: &EndpointSettings, auth: &ClientAuth) -> Result<(), TokenError> {
        const METHODS: &str = "token_endpoint_auth_methods_supported";
        listed(self.auth_methods.as_deref(), METHODS, auth.registered_names())?;
        const ALGORITHMS: &str = "token_endpoint_auth_signing_alg_values_supported";
        listed(self.auth_algorithms.as_deref(), ALGORITHMS, auth.signing_algorithm().as_slice())?;
        const PROOFS: &str = "dpop_signing_alg_values_supported";
        listed(self.dpop_algorithms.as_deref(), PROOFS, settings.proof_algorithm().as_slice())
    }
}

/// # Errors
/// There is a list, and none of these is on it.
fn listed(offered: Option<&[String]>, list: &str, used: &[&str]) -> Result<(), TokenError> {
    match offered {
        Some(offered) if !used.is_empty() && !used.iter().any(|used| offered.iter().any(|offer| offer == used)) => {
            let detail = format!("its metadata do not list {} among the `{list}`; nothing was sent", used.join(" or "));
            Err(TokenError::new(TokenErrorKind::Unsupported).with_detail(detail))
        }
        _ => Ok(()),
    }
}

impl Urls {
    /// Or the name of what is no secure URL.
    fn read(endpoints: &Endpoints, directory: &Directory) -> Result<Self, &'static str> {
        let parse =
            |name, url: &Option<String>| url.as_ref().map(|url| directory.parse(url)).transpose().map_err(|_| name);
        Ok(Self {
            token: parse("token_endpoint", &endpoints.token_endpoint)?,
            revocation: parse("revocation_endpoint", &endpoints.revocation_endpoint)?,
            device: parse("device_authorization_endpoint", &endpoints.device_authorization_endpoint)?,
        })
    }
}

/// As it is written. A member that occurs twice is an error.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    mtls_endpoint_aliases: Option<Endpoints>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    authorization_endpoint: Option<String>,
    authorization_response_iss_parameter_supported: Option<bool>,
    code_challenge_methods_supported: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
}
