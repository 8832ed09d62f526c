//! `FileStore`: a store in a directory, for command-line tools and restarts.

mod place;
mod sweep;

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
/// lease ends with its process, so that a tool that crashed does not make the next one wait, and when a process that is
/// stopped has not renewed it for as long as it lasts. The time of day is not asked: a clock that is set takes no lease
/// from a process that lives. The space of the next value is taken with the lease, so that a full disk is noticed before
/// a refresh token is spent. The directory must be on a file system with locks; network file systems often have none.
///
/// What has expired is removed when it is looked up, and once an hour for all keys, in a thread of its own
/// ([`sweep`](FileStore::sweep) does it now). No call waits for a lock where it would keep the process from exiting.
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

    /// Whether the directory can be used; makes it if it is not there. Ask at start-up: when a store fails later, the
    /// process goes on without it, and only a warning says so.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub async fn check(&self) -> Result<(), StoreError> {
        let directory = self.directory.clone();
        blocking(move || directory.prepare()).await
    }

    /// Removes what has expired, of all keys; how many keys they were. This happens by itself, once an hour.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let (directory, now) = (self.directory.clone(), self.clock.now());
        blocking(move || sweep::sweep(&directory, now)).await
    }

    /// Works on the files of a key when nobody else does. It waits for that here and not on the blocking thread, which
    /// the end of a runtime would wait for.
    async fn at<T: Send + 'static>(
        &self,
        key: &StoreKey,
        work: impl FnOnce(Place) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        const FIRST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_millis(20);
        const ATTEMPTS: u32 = 500;
        let (mut work, mut pause) = (work, FIRST);
        for _ in 0..ATTEMPTS {
            let (directory, clock, key) = (self.directory.clone(), self.clock.clone(), *key);
            let done = blocking(move || match Place::enter(directory, key, clock.now())? {
                Some(place) => work(place).map(Ok),
                None => Ok(Err(work)),
            });
            match done.await? {
                Ok(done) => return Ok(done),
                Err(again) => work = again,
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST);
        }
        Err(StoreError::new(StoreErrorKind::Unavailable)
            .caused_by("another process has locked this key and is stopped"))
    }
}

impl TokenStore for FileStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.at(key, |place| place.load()).await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let value = value.clone();
        let saved = self.at(key, move |mut place| place.save(&value, expected, fence)).await?;
        let (directory, now) = (self.directory.clone(), self.clock.now());
        if directory.sweep.is_due(&now) {
            let begin = move || {
                sweep::begin_unless_swept(&directory, now);
                Ok(())
            };
            blocking(begin).await?;
        }
        Ok(saved)
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

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.at(key, Place::remove).await
    }

    /// Looks now and then, ever more rarely: no file system tells everywhere.
    async fn changed(&self, key: &StoreKey, since: Version) {
        const FIRST: Duration = Duration::from_millis(20);
        const LONGEST: Duration = Duration::from_millis(500);
        let mut pause = FIRST;
        loop {
            sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            pause = (pause * 3 / 2).min(LONGEST);
            match self.at(key, move |place| place.is_worth_a_look(since)).await {
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
