//! What tells the tokens of one token endpoint and client from all others in a store.

use std::sync::Arc;

use super::{Credentials, EndpointSettings, TokenEndpoint};
use crate::store::{Client, StoreIdentity};
use crate::types::Digest;

impl<C> TokenEndpoint<C> {
    /// Whose tokens this endpoint makes: for [`StoreLayer::new`](crate::store::StoreLayer::new).
    ///
    /// The refresh token that a configuration starts with is part of it: two people's configurations differ in nothing
    /// else.
    pub fn identity(&self) -> StoreIdentity {
        let settings = &self.shared.settings;
        let mut digest = Digest::new("endpoint");
        digest.field("url", settings.url.uri().to_string());
        settings.describe(&mut digest);
        if let Some(first) = &self.first_refresh_token {
            digest.field("first refresh token", first.expose());
        }
        let credentials = self.shared.credentials.clone();
        let nameless = settings.is_nameless(&credentials.load());
        StoreIdentity::of_client(
            digest,
            Arc::new(credentials),
            nameless,
            &self.shared.store,
            self.shared.telemetry.clone(),
        )
    }
}

impl EndpointSettings {
    /// What tells its tokens from others, but for the URL.
    pub(super) fn describe(&self, digest: &mut Digest) {
        if let Some(url) = &self.refresh_url {
            digest.field("refresh url", url.to_string());
        }
        self.grant.describe(digest);
        if let Some(scopes) = &self.scopes {
            digest.list("scopes", scopes.iter());
        }
        for (label, names) in [("resources", &self.resources), ("audiences", &self.audiences)] {
            let mut names = names.clone();
            names.sort_unstable();
            digest.list(label, names);
        }
        let mut params: Vec<_> = self.params.iter().collect();
        params.sort_by(|one, other| (&one.name, one.value.expose()).cmp(&(&other.name, other.value.expose())));
        digest.list("params", params.iter().flat_map(|param| [param.name.as_str(), param.value.expose()]));
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]).collect();
        headers.sort_unstable();
        digest.list("headers", headers.into_iter().flatten());
        if let Some(name) = &self.tenant_header {
            digest.field("tenant header", name.as_str());
        }
        if let Some(name) = &self.tenant_param {
            digest.field("tenant param", name);
        }
        if let Some(account) = &self.account {
            digest.field("account", account);
        }
        #[cfg(feature = "dpop")]
        if let Some(key) = &self.dpop {
            digest.field("key", key.thumbprint());
        }
    }
}

impl Client for Credentials {
    fn describe(&self, digest: &mut Digest) {
        self.load().describe(digest);
    }

    fn credentials(&self) -> Option<Digest> {
        self.load().known_credentials()
    }
}

#[cfg(test)]
mod tests;
