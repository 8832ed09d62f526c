//! Metadata kept for a day, and fetched by one of those who need them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

use super::Metadata;
use crate::types::TokenError;

/// The metadata of one issuer.
#[derive(Default)]
pub(crate) struct MetadataCache(Mutex<State>);

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// Driven by all who wait for it, and gone with the last of them: nobody finds one that nobody drives.
    fetching: Option<WeakShared<Fetching>>,
}

struct Known {
    metadata: Arc<Metadata>,
    good_until: Instant,
}

type Fetched = Result<Arc<Metadata>, TokenError>;

type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;

impl MetadataCache {
    /// Endpoints hardly ever move; this bounds for how long a move goes unnoticed.
    const LIFETIME: Duration = Duration::from_secs(24 * 3600);
    /// How long metadata that could not be fetched anew are used on.
    const GRACE: Duration = Duration::from_secs(60);

    /// The metadata. A failure is shared by those who waited for it and not remembered; one that may pass costs nobody
    /// anything who had metadata before.
    pub(crate) async fn get<F>(&self, now: Instant, fetch: impl FnOnce() -> F) -> Fetched
    where
        F: Future<Output = Result<Metadata, TokenError>> + Send + 'static,
    {
        let fetching = match self.known_or_fetching(now, fetch) {
            Ok(metadata) => return Ok(metadata),
            Err(fetching) => fetching,
        };
        let fetched = fetching.await;
        let mut state = self.lock();
        match (fetched, &mut state.known) {
            (Ok(metadata), known) => {
                *known = Some(Known { metadata: metadata.clone(), good_until: now + Self::LIFETIME });
                Ok(metadata)
            }
            (Err(error), Some(known)) if error.is_transient() => {
                known.good_until = now + Self::GRACE;
                Ok(known.metadata.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn known_or_fetching<F>(&self, now: Instant, fetch: impl FnOnce() -> F) -> Result<Arc<Metadata>, Shared<Fetching>>
    where
        F: Future<Output = Result<Metadata, TokenError>> + Send + 'static,
    {
        let mut state = self.lock();
        if let Some(known) = state.known.as_ref().filter(|known| now < known.good_until) {
            return Ok(known.metadata.clone());
        }
        if let Some(fetching) = state.fetching.as_ref().and_then(WeakShared::upgrade) {
            return Err(fetching);
        }
        let fetch = fetch();
        let fetching: Fetching = Box::pin(async move { fetch.await.map(Arc::new) });
        let fetching = fetching.shared();
        state.fetching = fetching.downgrade();
        Err(fetching)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
