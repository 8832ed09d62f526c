//! `TokenParams`: what a request's token is for, besides its scopes; `SubjectToken`: on whose behalf it is asked for.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::{ConfigError, Digest, Secret, check_line};

/// In a request's extensions: further parameters of its token request.
///
/// Each set of parameters has a token of its own, and lives in a partition of its own, as each set of
/// [`Scopes`](crate::Scopes) does: single flight, remembered failures and all limits hold for each. They replace what is
/// configured under the same name. Partitions are bounded by
/// [`max_partitions`](crate::AuthConfigBuilder::max_partitions); let no stranger choose the values all the same. No
/// [store](crate::store) keeps such tokens.
///
/// ```
/// use tower_oauth2_client::TokenParams;
///
/// let mut request = http::Request::get("https://api.example.com/orders").body(String::new())?;
/// request.extensions_mut().insert(TokenParams::new().audience("orders")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `reqwest::Request` has no extensions: there, and wherever many requests have the same ones,
/// [`Auth::for_params`](crate::Auth::for_params) makes a service for them.
#[derive(Clone, Default)]
#[must_use]
pub struct TokenParams(Arc<Params>);

#[derive(Clone, Default)]
struct Params {
    subject: Option<SubjectToken>,
    audiences: Vec<String>,
    resources: Vec<String>,
    claims: Option<String>,
    /// Made when it is first asked for.
    digest: OnceLock<[u8; 32]>,
}

impl TokenParams {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// On behalf of whom the token is asked for, with [`AuthConfig::on_behalf_of`](crate::AuthConfig::on_behalf_of).
    pub fn subject(self, subject: SubjectToken) -> Self {
        self.with(|params| params.subject = Some(subject))
    }

    /// For whom the token is, by a name that the server knows (RFC 8693 §2.1). Repeatable.
    ///
    /// # Errors
    /// A name that is empty, begins or ends with white space, or holds a control character.
    pub fn audience(self, audience: impl Into<String>) -> Result<Self, ConfigError> {
        let audience = audience.into();
        check_line("audience", &audience)?;
        Ok(self.with(|params| params.audiences.push(audience)))
    }

    /// What the token is for (RFC 8707 §2): an absolute URI without a fragment. Repeatable.
    ///
    /// # Errors
    /// Anything else.
    pub fn resource(self, resource: impl Into<String>) -> Result<Self, ConfigError> {
        let resource = resource.into();
        if !is_absolute_uri(&resource) {
            return Err(ConfigError::new(
                "a resource is not an absolute URI without a fragment (RFC 8707 §2)",
                "write it as in https://api.example.com/orders; for a name that is no URI use `audience`",
            ));
        }
        Ok(self.with(|params| params.resources.push(resource)))
    }

    /// The claims that the token must have, as JSON (`claims`, OpenID Connect Core §5.5): what
    /// [`AuthChallenge::claims`](crate::AuthChallenge::claims) gives.
    ///
    /// # Errors
    /// A text that is no JSON object.
    pub fn claims(self, json: impl Into<String>) -> Result<Self, ConfigError> {
        let json = json.into();
        if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&json).is_err() {
            return Err(ConfigError::new("the claims are no JSON object", "pass them as the API's challenge has them"));
        }
        Ok(self.with(|params| params.claims = Some(json)))
    }

    fn with(mut self, change: impl FnOnce(&mut Params)) -> Self {
        let params = Arc::make_mut(&mut self.0);
        params.digest = OnceLock::new();
        change(params);
        self
    }

    /// On behalf of whom.
    pub fn subject_token(&self) -> Option<&SubjectToken> {
        self.0.subject.as_ref()
    }

    /// For whom, in the order given.
    pub fn audiences(&self) -> &[String] {
        &self.0.audiences
    }

    /// What for, in the order given.
    pub fn resources(&self) -> &[String] {
        &self.0.resources
    }

    /// The claims, as JSON.
    pub fn claims_json(&self) -> Option<&str> {
        self.0.claims.as_deref()
    }

    /// What tells them from others. The subject token goes in, and cannot be read back.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| {
            let Params { subject, audiences, resources, claims, digest: _ } = &*self.0;
            let mut digest = Digest::new("token params");
            if let Some(subject) = subject {
                digest.field("subject type", subject.token_type());
                digest.field("subject", subject.token().expose());
            }
            for (label, names) in [("audiences", audiences), ("resources", resources)] {
                let mut names: Vec<&String> = names.iter().collect();
                names.sort_unstable();
                digest.list(label, names);
            }
            if let Some(claims) = claims {
                digest.field("claims", claims);
            }
            digest.finish()
        })
    }
}

impl PartialEq for TokenParams {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.digest() == other.digest()
    }
}

impl Eq for TokenParams {}

impl Hash for TokenParams {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

/// Leaves the subject token and the claims out.
impl fmt::Debug for TokenParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Params { subject, audiences, resources, claims, digest: _ } = &*self.0;
        f.debug_struct("TokenParams")
            .field("subject", subject)
            .field("audiences", audiences)
            .field("resources", resources)
            .field("claims", &claims.is_some())
            .finish()
    }
}

/// The token of the person on whose behalf a token is asked for (RFC 8693 §1.1): usually the one that a gateway's caller has
/// sent.
///
/// It tells tokens apart by a digest alone, and is printed nowhere. The token that it is exchanged for lives no longer than
/// it: its expiry is read from it where it is a JWT, or given. Validate it before: whatever is put in here is sent to the
/// authorization server, and takes the place of a partition.
///
/// ```
/// use tower_oauth2_client::{SubjectToken, TokenParams};
///
/// /// What the caller of a gateway has sent, for the requests that the gateway makes on their behalf.
/// fn on_behalf_of_the_caller(headers: &http::HeaderMap) -> Option<TokenParams> {
///     let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
///     Some(TokenParams::new().subject(SubjectToken::access_token(token).ok()?))
/// }
/// # let mut headers = http::HeaderMap::new();
/// # headers.insert("authorization", http::HeaderValue::from_static("Bearer canary"));
/// # assert!(!format!("{:?}", on_behalf_of_the_caller(&headers).unwrap()).contains("canary"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct SubjectToken {
    token: Secret<String>,
    token_type: Cow<'static, str>,
    expires_at: Option<SystemTime>,
}

impl SubjectToken {
    /// An access token (`urn:ietf:params:oauth:token-type:access_token`).
    ///
    /// # Errors
    /// A text that is empty, begins or ends with white space, or holds a control character. The error does not quote it.
    pub fn access_token(token: impl Into<Secret<String>>) -> Result<Self, ConfigError> {
        Self::of_type("urn:ietf:params:oauth:token-type:access_token", token)
    }

    /// A token of another type: [`TokenExchange`](crate::TokenExchange) has the names of some.
    ///
    /// # Errors
    /// As [`access_token`](SubjectToken::access_token); also for the type.
    pub fn of_type(
        token_type: impl Into<Cow<'static, str>>,
        token: impl Into<Secret<String>>,
    ) -> Result<Self, ConfigError> {
        let (token_type, token) = (token_type.into(), token.into());
        check_line("subject token", token.expose())?;
        check_line("type of the subject token", &token_type)?;
        Ok(Self { token, token_type, expires_at: None })
    }

    /// Until when it is good, where it does not say so itself.
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// The token.
    pub fn token(&self) -> &Secret<String> {
        &self.token
    }

    /// Its type, a URI.
    pub fn token_type(&self) -> &str {
        &self.token_type
    }

    /// Until when it is good, as it was given.
    pub(crate) fn given_expiry(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

/// Tells the type.
impl fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectToken").field("token_type", &self.token_type).finish_non_exhaustive()
    }
}

/// A scheme, a colon and more, in the characters of RFC 3986. What the scheme makes of the rest is the server's business:
/// `urn:` and `api:` are common.
pub(crate) fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&b);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn subject(token: &str) -> TokenParams {
        TokenParams::new().subject(SubjectToken::access_token(token).unwrap())
    }

    /// Behaviour 91.
    #[test]
    fn parameters_are_equal_exactly_when_they_ask_for_the_same_token() {
        let audience = |names: [&str; 2]| {
            names.into_iter().fold(TokenParams::new(), |params, name| params.audience(name).unwrap())
        };
        let all = [
            TokenParams::new(),
            subject("a"),
            subject("b"),
            TokenParams::new().subject(SubjectToken::of_type("urn:x", "a").unwrap()),
            TokenParams::new().audience("a").unwrap(),
            TokenParams::new().resource("urn:a").unwrap(),
            audience(["a", "b"]),
            TokenParams::new().audience("ab").unwrap(),
            TokenParams::new().claims("{}").unwrap(),
            subject("a").audience("a").unwrap(),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(audience(["a", "b"]), audience(["b", "a"]));
        let until =
            SubjectToken::access_token("a").unwrap().with_expires_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(subject("a"), TokenParams::new().subject(until));
        // A digest that was asked for before a change is not kept.
        let changed = subject("a");
        let _ = changed.digest();
        assert_ne!(changed.clone().audience("a").unwrap(), changed);
    }

    /// Behaviour 103.
    #[test]
    fn what_cannot_be_one_is_refused_and_nothing_is_quoted() {
        for token in ["", " canary", "canary\n", "cana\rry"] {
            let error = SubjectToken::access_token(token).unwrap_err();
            assert!(!format!("{error:?}").contains("canary"));
        }
        assert!(SubjectToken::of_type("", "a").is_err());
        assert!(TokenParams::new().audience("").is_err());
        assert!(TokenParams::new().resource("orders").is_err());
        for claims in ["", "[]", "canary", "{"] {
            assert!(!format!("{:?}", TokenParams::new().claims(claims).unwrap_err()).contains("canary"));
        }
        let params = subject("canary").claims(r#"{"canary":1}"#).unwrap();
        assert!(!format!("{params:?}").contains("canary"));
    }
}
