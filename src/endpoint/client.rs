//! The built-in token client: reqwest, without anything that could carry credentials elsewhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use crate::types::{ConfigError, Secret};

/// What the built-in client can be told.
#[derive(Clone)]
pub(crate) struct BuiltInClientSettings {
    /// A URL, which may hold a user and a password. `None`: as the environment says (`HTTPS_PROXY`), or none for this machine.
    pub(crate) proxy: Option<Secret<String>>,
    /// Further certificate authorities, each a PEM file's content.
    pub(crate) ca_pem: Vec<Vec<u8>>,
    pub(crate) connect_timeout: Duration,
}

impl BuiltInClientSettings {
    /// Whether anything was set.
    pub(crate) fn is_changed(&self) -> bool {
        self.proxy.is_some() || !self.ca_pem.is_empty() || self.connect_timeout != Self::default().connect_timeout
    }

    /// `is_local`: an endpoint is on this machine. Plain http is allowed there because nobody listens, so that it must not
    /// go through a proxy that the environment names for all.
    ///
    /// # Errors
    /// A proxy that is no URL, a certificate that is not PEM, a TLS library that cannot start.
    pub(crate) fn build(&self, is_local: bool) -> Result<BuiltInClient, ConfigError> {
        // Compression is a feature of reqwest that another crate may have turned on.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(self.connect_timeout)
            .tls_certs_merge(self.certificates()?);
        if let Some(proxy) = &self.proxy {
            // The errors below quote what they were given; a proxy's URL may hold a password.
            let proxy = reqwest::Proxy::all(proxy.expose()).map_err(|_| {
                ConfigError::new(
                    "the proxy is not a URL",
                    "write it as http://host:port or http://user:password@host:port",
                )
            })?;
            builder = builder.proxy(proxy);
        } else if is_local {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|_| {
            ConfigError::new(
                "the HTTP client for token requests cannot be built",
                "check the certificates given and those of the system (package `ca-certificates`)",
            )
        })?;
        Ok(BuiltInClient(client))
    }

    fn certificates(&self) -> Result<Vec<reqwest::Certificate>, ConfigError> {
        let mut all = Vec::new();
        for pem in &self.ca_pem {
            match reqwest::Certificate::from_pem_bundle(pem) {
                Ok(certificates) if !certificates.is_empty() => all.extend(certificates),
                _ => {
                    return Err(ConfigError::new(
                        "a certificate authority is not PEM",
                        "it begins with `-----BEGIN CERTIFICATE-----`",
                    ));
                }
            }
        }
        Ok(all)
    }
}

impl Default for BuiltInClientSettings {
    fn default() -> Self {
        Self { proxy: None, ca_pem: Vec::new(), connect_timeout: Duration::from_secs(5) }
    }
}

impl fmt::Debug for BuiltInClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltInClientSettings")
            .field("proxy", &self.proxy)
            .field("ca_pem", &self.ca_pem.len())
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// An HTTP service for token requests: no redirects, no cookies, no retries, no decompression.
#[derive(Clone, Debug)]
pub(crate) struct BuiltInClient(reqwest::Client);

impl Service<Request<Full<Bytes>>> for BuiltInClient {
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, reqwest::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(head, body.to_bytes());
            // A URL in an error tells the query, where keys may be.
            let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
            client.execute(request).await.map(Response::from).map_err(reqwest::Error::without_url)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_built_outside_a_runtime() {
        assert!(BuiltInClientSettings::default().build(false).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting_it() {
        let proxy = Some(Secret::from("http://user:canary@"));
        let bad_proxy = BuiltInClientSettings { proxy, ..Default::default() };
        let bad_ca = BuiltInClientSettings { ca_pem: vec![b"canary".to_vec()], ..Default::default() };
        for settings in [bad_proxy, bad_ca] {
            let error = settings.build(false).unwrap_err();
            assert!(!format!("{error} {error:?} {settings:?}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn an_error_tells_no_url() {
        let mut client = BuiltInClientSettings::default().build(false).unwrap();
        let request = Request::post("/token?key=canary").body(Full::default()).unwrap();
        let error = client.call(request).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
