//! The lazy identity cache of aws-smithy-runtime, and the header as its bearer signer makes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::identity::http::Token;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use http::HeaderValue;

use crate::support::baselines::access_token;

#[derive(Debug)]
struct Resolver;

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(&'a self, _: &'a RuntimeComponents, _: &'a ConfigBag) -> IdentityFuture<'a> {
        let expires = SystemTime::now() + Duration::from_secs(36_000);
        IdentityFuture::ready(Ok(Identity::new(Token::new(access_token(), Some(expires)), Some(expires))))
    }
}

/// What an SDK client holds of it.
pub(crate) struct Cached {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

pub(crate) async fn cached() -> Arc<Cached> {
    let components = RuntimeComponentsBuilder::for_tests()
        .with_time_source(Some(SystemTimeSource::new()))
        .with_sleep_impl(Some(TokioSleep::new()));
    let cached = Cached {
        cache: IdentityCache::lazy().build(),
        resolver: SharedIdentityResolver::new(Resolver),
        components: components.build().unwrap(),
        config: ConfigBag::base(),
    };
    cached.header().await;
    Arc::new(cached)
}

impl Cached {
    pub(crate) async fn header(&self) -> HeaderValue {
        let cached = self.cache.resolve_cached_identity(self.resolver.clone(), &self.components, &self.config);
        let identity = cached.await.unwrap();
        let token = identity.data::<Token>().unwrap();
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.token())).unwrap();
        value.set_sensitive(true);
        value
    }
}
