//! Settings of what operators see of a layer.

use std::sync::Arc;

use http::Uri;

use super::AuthConfigBuilder;
use crate::telemetry::Telemetry;
use crate::types::{ConfigError, TenantId, TokenError, check_line};

/// What operators see.
impl<E> AuthConfigBuilder<E> {
    /// The layer's name on each event, span and metric and in each [`TokenError`], so that of several layers in one program it
    /// is told which one fails. Default: the host of the token URL or of the issuer; where there is none (a source of your
    /// own, a directory), that of the first [`origin`](AuthConfigBuilder::origin).
    ///
    /// At most 64 characters. It goes into logs and labels: no secret, and nothing that differs from one start to the next.
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
    ///
    /// # #[cfg(feature = "reqwest")] {
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
    ///     .name("billing")
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// assert_eq!(AuthLayer::new(cfg).handle().name(), "billing");
    /// # }
    /// # Ok::<(), tower_oauth2_client::ConfigError>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Called with each token request that failed, and with the tenant whose it was: for an alarm that names the tenant, which
    /// neither logs nor metrics do. Default: nobody is. [`AuthHandle::failing`](crate::AuthHandle::failing) tells who fails now.
    ///
    /// It is called once for each token request, however many requests wait for it, on the task of the token request after
    /// those who wait were told, and while no lock is held. It should return soon. A panic in it is contained.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use tower_oauth2_client::{AuthConfig, AuthLayer, Token, TokenError, TokenErrorKind, TokenRequest};
    ///
    /// # tokio_test::block_on(async {
    /// let (tell, told) = mpsc::channel();
    /// let cfg = AuthConfig::external()
    ///     .on_token_failure(move |tenant, error| {
    ///         let _ = tell.send((tenant.cloned(), error.kind()));
    ///     })
    ///     .origin("https://api.example.com")
    ///     .build()?;
    /// let source = tower::service_fn(|_: TokenRequest| async { Err::<Token, _>(TokenError::sign_in_again()) });
    /// AuthLayer::with_source(cfg, source).handle().token().await.unwrap_err();
    /// assert_eq!(told.recv()?, (None, TokenErrorKind::SignInAgain));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn on_token_failure(
        mut self,
        observer: impl Fn(Option<&TenantId>, &TokenError) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// `host`: of where tokens come from.
    pub(super) fn telemetry(&self, host: Option<String>) -> Result<Telemetry, ConfigError> {
        const LONGEST: usize = 64;
        let name = match (&self.name, host) {
            (Some(name), _) => {
                check_line("layer's name", name)?;
                if name.chars().count() > LONGEST {
                    return Err(ConfigError::new(
                        "the layer's name has more than 64 characters",
                        "give it a short one",
                    ));
                }
                name.clone()
            }
            (None, Some(host)) => host,
            (None, None) => self.origins.first().and_then(|origin| host_of(origin)).unwrap_or_else(|| "unnamed".into()),
        };
        Ok(Telemetry::new(&name, self.clock.clone(), self.observer.clone()))
    }
}

fn host_of(origin: &str) -> Option<String> {
    origin.parse::<Uri>().ok()?.host().map(str::to_owned)
}
