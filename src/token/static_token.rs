//! `StaticToken`: a token that somebody gave you, as a source.

use super::{Token, TokenRequest, TokenSource};
use crate::types::{SecretSource, TokenError};

/// A token that was handed out once and for all: an API key, a personal access token, a token that something else keeps
/// fresh in a file.
///
/// The token is read again when it is due (an `exp` inside a JWT counts; otherwise once an hour) and after a 401. So one
/// from a file or a function can be replaced while the program runs; where it is the same as before, the 401 is handed
/// out and nothing is sent twice.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, AuthLayer, SecretSource, StaticToken};
///
/// # tokio_test::block_on(async {
/// let cfg = AuthConfig::external().origin("https://api.example.com").build()?;
/// let layer = AuthLayer::with_source(cfg.clone(), StaticToken::new("glpat-1234"));
/// assert_eq!(layer.handle().token().await?.header_value(), "Bearer glpat-1234");
///
/// // As Kubernetes writes it for a pod.
/// let source = SecretSource::file("/var/run/secrets/kubernetes.io/serviceaccount/token");
/// let layer = AuthLayer::with_source(cfg, StaticToken::new(source));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StaticToken {
    token: SecretSource,
    scheme: String,
}

impl StaticToken {
    /// A token that goes out as `Authorization: Bearer …`.
    pub fn new(token: impl Into<SecretSource>) -> Self {
        Self { token: token.into(), scheme: "Bearer".into() }
    }

    /// Another scheme in place of `Bearer`, such as `token`.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }
}

impl TokenSource for StaticToken {
    async fn fetch(&self, _: TokenRequest) -> Result<Token, TokenError> {
        let token = self.token.read_line("token").await?;
        Token::with_scheme(&self.scheme, token.expose()).map_err(TokenError::permanent)
    }
}
