//! `StoreIdentity`: what makes the tokens of one configuration differ from all others in a store, as a digest.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::{StoreAccess, StoreKey};
use crate::telemetry::Telemetry;
use crate::types::{ConfigError, Digest, Scopes, TenantId};

/// Whose tokens they are: one configuration's, among all that share a store.
///
/// A store finds a token by a digest of everything that makes it differ from another: the URLs, the client (its id and its
/// way to authenticate), the grant and what it is given, scopes, audiences, resources, further parameters and headers with
/// their values, the names under which tenants are sent; then tenant and scopes of the request.
/// [`TokenEndpoint::identity`](crate::TokenEndpoint::identity) makes one of a configuration. Each input has a label and a
/// length of its own, so that no two sets of inputs run together into one.
///
/// Two things are left out. The client's *secret*, since a refresh token outlives its rotation: an access token that was made
/// with another secret is not used, though. And what a file or a function yields, such as an assertion; a file is told apart
/// by its path. Where people sign in, or a function makes the assertions, nothing says whose tokens they are: such a
/// configuration is refused with a store unless it names the [`account`](crate::AuthConfigBuilder::account), is told apart by
/// [`and`](StoreIdentity::and), or gives each tenant its own tokens.
///
/// Keys can be read by all who can list the store. What goes into them cannot be read back, but guesses can be checked: do
/// not put a short secret (a PIN) into a further parameter.
///
/// ```
/// use tower_oauth2_client::store::StoreIdentity;
///
/// // For a token source of your own.
/// let identity = StoreIdentity::named("vault/payments");
/// let of_anna = identity.and("anna");
/// ```
#[derive(Clone)]
#[must_use]
pub struct StoreIdentity {
    fixed: [u8; 32],
    client: Option<Arc<dyn Client>>,
    /// Nothing in it says whose tokens they are.
    nameless: bool,
    /// Where a store around this endpoint makes itself known.
    known_to: Weak<KnownStore>,
    /// Of the layer whose endpoint it is.
    telemetry: Option<Telemetry>,
}

/// The store around a token endpoint, wherever it was put: the handle of the layer finds it here.
#[derive(Default)]
pub(crate) struct KnownStore(OnceLock<Arc<dyn StoreAccess>>);

impl KnownStore {
    pub(crate) fn get(&self) -> Option<Arc<dyn StoreAccess>> {
        self.0.get().cloned()
    }
}

impl StoreIdentity {
    /// The identity of a token source of your own. Sources of the same name share their tokens.
    pub fn named(name: impl AsRef<str>) -> Self {
        let mut digest = Digest::new("named");
        digest.field("name", name.as_ref());
        Self { fixed: digest.finish(), client: None, nameless: false, known_to: Weak::new(), telemetry: None }
    }

    /// The same, told apart by one more name, such as the account that a person signed in to.
    pub fn and(&self, name: impl AsRef<str>) -> Self {
        let mut digest = Digest::new("and");
        digest.field("before", self.fixed);
        digest.field("name", name.as_ref());
        Self { fixed: digest.finish(), nameless: false, ..self.clone() }
    }

    pub(crate) fn of_client(
        settings: Digest,
        client: Arc<dyn Client>,
        nameless: bool,
        known_to: &Arc<KnownStore>,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            fixed: settings.finish(),
            client: Some(client),
            nameless,
            known_to: Arc::downgrade(known_to),
            telemetry: Some(telemetry),
        }
    }

    pub(super) fn telemetry(&self) -> Option<&Telemetry> {
        self.telemetry.as_ref()
    }

    /// This store keeps the endpoint's tokens; of several the innermost one counts.
    pub(super) fn announce(&self, store: impl StoreAccess + 'static) {
        if let Some(known) = self.known_to.upgrade() {
            known.0.get_or_init(|| Arc::new(store));
        }
    }

    /// # Errors
    /// Two people would have each other's tokens.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.nameless {
            return Ok(());
        }
        Err(ConfigError::new(
            "tokens are to be stored, and nothing says whose they are: of who signs in, or whose assertions a function or a file holds",
            "name the account with `.account(..)`, or give each tenant its own tokens",
        ))
    }

    /// Under which key the token of a partition is kept, as of now: the client may be replaced.
    pub(crate) fn key(&self, tenant: Option<&TenantId>, scopes: Option<&Scopes>) -> StoreKey {
        let mut digest = Digest::new("key");
        digest.field("identity", self.fixed);
        if let Some(client) = &self.client {
            client.describe(&mut digest);
        }
        if let Some(tenant) = tenant {
            digest.field("tenant", tenant.as_str());
        }
        if let Some(scopes) = scopes {
            digest.list("scopes", scopes.iter());
        }
        StoreKey::new(digest.finish())
    }

    /// Whether credentials are used of which nobody knows which they are: they come from a file or a function.
    pub(crate) fn has_unknown_credentials(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.credentials().is_none())
    }

    /// Tells tokens apart that were made with one secret and with another; `None` where the secret is not known.
    pub(crate) fn made_by(&self) -> Option<String> {
        let digest = self.client.as_ref()?.credentials()?.finish();
        Some(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreIdentity").finish_non_exhaustive()
    }
}

/// Who asks for tokens; may be replaced while the program runs.
pub(crate) trait Client: Send + Sync {
    /// Which client it is, without its secret.
    fn describe(&self, digest: &mut Digest);

    /// Which credentials it has, if they are known and cannot change by themselves.
    fn credentials(&self) -> Option<Digest>;
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Behaviours 91 and 92.
        #[test]
        fn keys_are_equal_exactly_when_tenant_and_set_of_scopes_are(
            one in (option::of("[ab:|]{1,3}"), option::of(vec("[ab:|]{1,2}", 0..3))),
            other in (option::of("[ab:|]{1,3}"), option::of(vec("[ab:|]{1,2}", 0..3))),
        ) {
            let identity = StoreIdentity::named("test");
            let key = |(tenant, scopes): &(Option<String>, Option<Vec<String>>)| {
                let tenant = tenant.as_ref().map(|id| TenantId::new(id).unwrap());
                let scopes = scopes.as_ref().map(|scopes| Scopes::new(scopes).unwrap());
                (identity.key(tenant.as_ref(), scopes.as_ref()), (tenant, scopes))
            };
            let ((one, of_one), (other, of_other)) = (key(&one), key(&other));
            prop_assert_eq!(one == other, of_one == of_other);
        }
    }
}
