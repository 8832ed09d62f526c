//! `FileStore`: a store in a directory, for command-line tools and restarts.

mod place;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::place::{Directory, Place};
use super::{Fence, Lease, Saved, StoreError, StoreErrorKind, StoreKey, Stored, TokenStore, Value, Version};
use crate::types::{Clock, SystemClock};

/// A [`TokenStore`] in a directory of this machine: tokens survive a restart, and processes of one user share them.
///
/// The directory is made with mode 0700, its files with 0600; where they are there already and are ours, they are
/// tightened. A directory that belongs to another user, a symbolic link, or one that holds other things and would have to
/// be tightened is refused: give the store a directory of its own. On systems without such modes the directory's
/// own protection is all there is. Values are not encrypted.
///
/// Values are replaced as a whole (written beside, synced, renamed), so that a crash leaves the old one or the new one. A
/// lease ends at its time, and with its process: a crashed tool does not make the next one wait. The directory must be on
/// a file system with locks; network file systems often have none.
///
/// File names are digests. They tell neither a secret nor whose tokens they are.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use tower_oauth2_client::store::FileStore;
/// use tower_oauth2_client::test_util::{AuthServer, TestClock};
/// use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
///
/// # tokio_test::block_on(async {
/// # let directory = std::env::temp_dir().join(format!("tower-oauth2-client-doc-{}", std::process::id()));
/// let http_client = AuthServer::new(TestClock::new());
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .build()?;
/// let store = FileStore::new(&directory); // such as ~/.cache/my-tool/tokens
/// store.check().await?;
/// for _run_of_the_tool in 0..3 {
///     let layer = AuthLayer::builder(cfg.clone()).http_client(http_client.clone()).store(FileStore::new(&directory)).build()?;
///     layer.handle().warm_up().await?;
/// }
/// assert_eq!(http_client.token_requests(), 1);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct FileStore {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
}

impl FileStore {
    /// A store in this directory, which is made when it is needed. Nothing is read or written yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::with_clock(directory, SystemClock)
    }

    /// A store whose leases and values end by another clock, for tests.
    pub fn with_clock(directory: impl Into<PathBuf>, clock: impl Clock) -> Self {
        Self { directory: Arc::new(Directory::new(directory.into())), clock: Arc::new(clock) }
    }

    /// Whether the directory can be used; makes it if it is not there. A good thing to ask at start-up, since a store that
    /// fails later is gone without, with a warning only.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub async fn check(&self) -> Result<(), StoreError> {
        let directory = self.directory.clone();
        blocking(move || directory.prepare()).await
    }

    async fn at<T: Send + 'static>(
        &self,
        key: &StoreKey,
        work: impl FnOnce(Place) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (directory, clock, key) = (self.directory.clone(), self.clock.clone(), *key);
        blocking(move || work(Place::enter(directory, key, clock.now().wall)?)).await
    }
}

impl TokenStore for FileStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.at(key, |place| place.load()).await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let value = value.clone();
        self.at(key, move |mut place| place.save(&value, expected, fence)).await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        self.at(key, move |mut place| place.lease(duration)).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        self.at(key, move |mut place| place.renew(fence, duration)).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.at(key, move |mut place| place.release(fence)).await
    }

    /// Looks now and then, ever more rarely: no file system tells everywhere.
    async fn changed(&self, key: &StoreKey, since: Version) {
        const FIRST: Duration = Duration::from_millis(20);
        const LONGEST: Duration = Duration::from_millis(500);
        let mut pause = FIRST;
        loop {
            sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            pause = (pause * 3 / 2).min(LONGEST);
            match self.at(key, move |mut place| place.is_worth_a_look(since)).await {
                Ok(false) => {}
                Ok(true) | Err(_) => return,
            }
        }
    }
}

/// Runs what touches files where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::new(StoreErrorKind::Unavailable).caused_by(error)))
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("directory", &self.directory.path()).finish_non_exhaustive()
    }
}
