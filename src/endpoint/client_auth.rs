//! `ClientAuth`: who we are to the authorization server, and how we say it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::encode::{Params, form_encode};
use crate::error::ConfigError;
use crate::secret::Secret;

/// How the client authenticates at the token endpoint (RFC 6749 §2.3). One way, never two: there is no default and no
/// probing, since a wrong guess shows the secret twice and may lock the client out.
///
/// ```
/// use tower_oauth2_client::ClientAuth;
///
/// let auth = ClientAuth::basic("client", "s3cret");
/// assert!(!format!("{auth:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
pub struct ClientAuth {
    id: String,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Basic(Secret<String>),
    BasicRaw(Secret<String>),
    Body(Secret<String>),
    None,
}

impl ClientAuth {
    /// `Authorization: Basic`, id and secret form-encoded first, as RFC 6749 §2.3.1 asks. Right for most servers.
    pub fn basic(id: impl Into<String>, secret: impl Into<Secret<String>>) -> Self {
        Self { id: id.into(), method: Method::Basic(secret.into()) }
    }

    /// `Authorization: Basic` without the form-encoding, for servers that do not decode it (AWS Cognito and others).
    ///
    /// It differs from [`basic`](ClientAuth::basic) only where id or secret hold characters other than
    /// `A-Z a-z 0-9 - . _ ~`.
    pub fn basic_raw(id: impl Into<String>, secret: impl Into<Secret<String>>) -> Self {
        Self { id: id.into(), method: Method::BasicRaw(secret.into()) }
    }

    /// `client_id` and `client_secret` in the request body, form or JSON as the [`BodyEncoding`](crate::BodyEncoding)
    /// says. RFC 6749 §2.3.1 advises against it where Basic is to be had; many providers offer nothing else.
    pub fn body(id: impl Into<String>, secret: impl Into<Secret<String>>) -> Self {
        Self { id: id.into(), method: Method::Body(secret.into()) }
    }

    /// A public client, which has no secret: `client_id` in the body.
    pub fn none(id: impl Into<String>) -> Self {
        Self { id: id.into(), method: Method::None }
    }

    /// # Errors
    /// An id or a secret that cannot be what the provider gave out. The error quotes neither.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        check("client id", &self.id)?;
        if let Some(secret) = self.secret() {
            check("client secret", secret)?;
        }
        if matches!(self.method, Method::BasicRaw(_)) && self.id.contains(':') {
            return Err(ConfigError::new(
                "the client id holds a colon, which ends the id in a Basic value",
                "use `ClientAuth::basic`, which encodes it, or `ClientAuth::body`",
            ));
        }
        Ok(())
    }

    /// Whether both authenticate the same client in the same way; secrets are not compared.
    pub(crate) fn is_like(&self, other: &ClientAuth) -> bool {
        self.id == other.id && self.method_name() == other.method_name()
    }

    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.method {
            Method::Basic(secret) | Method::BasicRaw(secret) | Method::Body(secret) => Some(secret.expose()),
            Method::None => None,
        }
    }

    /// The `Authorization` header, where this is the way.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let pair = match &self.method {
            Method::Basic(secret) => Zeroizing::new(
                form_encode(&self.id).chain([":"]).chain(form_encode(secret.expose())).collect::<String>(),
            ),
            Method::BasicRaw(secret) => Zeroizing::new([self.id.as_str(), ":", secret.expose()].concat()),
            Method::Body(_) | Method::None => return None,
        };
        let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
        // Base64 is always a header value.
        let mut header = HeaderValue::from_str(&value).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// The body parameters, where this is the way.
    pub(crate) fn push_params<'a>(&'a self, params: &mut Params<'a>) {
        match &self.method {
            Method::Basic(_) | Method::BasicRaw(_) => {}
            Method::Body(secret) => {
                params.push("client_id", &self.id);
                params.push("client_secret", secret.expose());
            }
            Method::None => params.push("client_id", &self.id),
        }
    }

    fn method_name(&self) -> &'static str {
        match self.method {
            Method::Basic(_) => "basic",
            Method::BasicRaw(_) => "basic_raw",
            Method::Body(_) => "body",
            Method::None => "none",
        }
    }
}

/// Tells the method only.
impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientAuth({})", self.method_name())
    }
}

fn check(what: &'static str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(ConfigError::new(
            format!("the {what} is empty"),
            "an environment variable or a file may not have been read",
        ));
    }
    if value.trim() != value {
        return Err(ConfigError::new(
            format!("the {what} begins or ends with white space"),
            "it usually comes from a file's last line: pass `content.trim()`",
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(ConfigError::new(
            format!("the {what} holds a line break or another control character"),
            "pass it exactly as the provider gave it, one line",
        ));
    }
    Ok(())
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

    fn basic_value(auth: &ClientAuth) -> String {
        let header = auth.authorization().unwrap();
        assert!(header.is_sensitive());
        header.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned()
    }

    /// Behaviour 107.
    #[test]
    fn basic_form_encodes_both_halves() {
        assert_eq!(
            basic_value(&ClientAuth::basic(ID, SECRET)),
            "MVBwRyUyRlElMjAxOnolMkZ0WjlWd0ZacUFwbUlRJTJCWkgxSTVwTGslMkZ1QjR1ZCUzQVgyJTJGOGJMJTJCd2ZGVHQxckZ3JTNE"
        );
        let appendix_b = STANDARD.decode(basic_value(&ClientAuth::basic(" %&+£€", "s"))).unwrap();
        assert_eq!(appendix_b, b"%20%25%26%2B%C2%A3%E2%82%AC:s");
    }

    #[test]
    fn basic_raw_encodes_neither() {
        assert_eq!(
            basic_value(&ClientAuth::basic_raw(ID, SECRET)),
            "MVBwRy9RIDE6ei90WjlWd0ZacUFwbUlRK1pIMUk1cExrL3VCNHVkOlgyLzhiTCt3ZkZUdDFyRnc9"
        );
    }

    #[test]
    fn a_long_basic_value_stays_on_one_line() {
        let value = basic_value(&ClientAuth::basic("i".repeat(200), "s".repeat(200).as_str()));
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

    #[test]
    fn replaced_credentials_are_seen_by_every_holder() {
        let credentials = Credentials::new(ClientAuth::body("id", "old"));
        let holder = credentials.clone();
        credentials.replace(ClientAuth::body("id", "new")).unwrap();
        assert_eq!(holder.load().secret(), Some("new"));
        assert!(holder.load().is_like(&ClientAuth::body("id", "other")));
        assert!(!holder.load().is_like(&ClientAuth::basic("id", "other")));
    }
}
