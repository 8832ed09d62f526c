//! The files of one key, while nobody else looks at them.
//!
//! - `KEY.lock`: locked while a call is made, and holds the state of the lease. Never removed.
//! - `KEY.FENCE.lease`: locked by the holder for as long as it has the lease: so others see whether it lives.
//! - `KEY.token`: the value, after a line with its version, the fence it was saved under, and when it dies.
//! - `KEY.RANDOM.tmp`: a value that is being written. Left over by crashes, removed by the next save.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::store::millis::{millis, since_epoch};
use crate::store::{Fence, Lease, Saved, StoreError, StoreErrorKind, StoreKey, Stored, Value, Version};
use crate::types::{BoxError, Secret};

/// What the first line of a value begins with.
const FORMAT: &str = "tower-oauth2-client";
const FORMAT_VERSION: u64 = 1;
/// A token of 64 KiB with what belongs to it is far below.
const LONGEST_VALUE: u64 = 4 * 1024 * 1024;

pub(super) struct Directory {
    path: PathBuf,
    /// The leases of this process: as long as their files are open, they are locked.
    leases: Mutex<HashMap<StoreKey, (u64, File)>>,
    /// The directory was seen to be ours.
    #[cfg_attr(not(unix), allow(dead_code, reason = "who owns what is a matter of unix"))]
    is_own: AtomicBool,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, leases: Mutex::default(), is_own: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<StoreKey, (u64, File)>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directory, or sees whether it can be used.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_symlink() => Err(refused(&self.path, "is a symbolic link")),
            Ok(found) if !found.is_dir() => Err(refused(&self.path, "is not a directory")),
            Ok(found) => self.check(&found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.recursive(true);
                #[cfg(unix)]
                std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
                builder.create(&self.path).map_err(|error| failed(&self.path, error))
            }
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    #[cfg(not(unix))]
    fn check(&self, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    #[cfg(unix)]
    fn check(&self, found: &Metadata) -> Result<(), StoreError> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};

        if !self.is_own.load(Ordering::Relaxed) {
            // Whose files are made here shows who we are.
            let probe = self.path.join(temporary_name("probe"));
            let own = create(&probe).and_then(|file| file.metadata()).map_err(|error| failed(&self.path, error))?;
            let _ = fs::remove_file(&probe);
            if own.uid() != found.uid() {
                return Err(refused(&self.path, "belongs to another user"));
            }
            self.is_own.store(true, Ordering::Relaxed);
        }
        if !is_open_to_others(found) {
            return Ok(());
        }
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, error))?;
        if entries.flatten().any(|entry| !is_ours(&entry.file_name().to_string_lossy())) {
            let why = "is open to other users and holds other things; give the token store a directory of its own";
            return Err(refused(&self.path, why));
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)).map_err(|error| failed(&self.path, error))
    }
}

/// The files of one key. Nobody else is inside, in no process.
pub(super) struct Place {
    directory: Arc<Directory>,
    key: StoreKey,
    now: u64,
    lock: File,
}

/// The state of the lease, in the lock file.
#[derive(Clone, Copy)]
struct State {
    fence: u64,
    held: bool,
    until: u64,
}

type Content = (Header, Secret<Vec<u8>>);

struct Header {
    version: u64,
    fence: u64,
    dies: u64,
}

impl Place {
    pub(super) fn enter(directory: Arc<Directory>, key: StoreKey, now: SystemTime) -> Result<Self, StoreError> {
        directory.prepare()?;
        let path = directory.path.join(format!("{key}.lock"));
        let lock = open(&path, true)?;
        lock.lock().map_err(|error| failed(&path, error))?;
        Ok(Self { directory, key, now: since_epoch(now), lock })
    }

    pub(super) fn load(&self) -> Result<Option<Stored>, StoreError> {
        let Some((header, bytes)) = self.read()? else { return Ok(None) };
        let alive = self.now < header.dies;
        Ok(alive.then_some(Stored { version: Version(header.version), bytes }))
    }

    pub(super) fn save(&mut self, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        if self.state()?.fence != fence.0 {
            return Ok(Saved::Fenced);
        }
        let before = self.read()?.map(|(header, _)| header);
        let found = before.as_ref().filter(|header| self.now < header.dies).map_or(0, |header| header.version);
        if found != expected.0 {
            return Ok(Saved::Conflict);
        }
        self.remove_leftovers();
        let version = before.map_or(0, |header| header.version) + 1;
        let dies = self.now.saturating_add(millis(value.lives_for));
        let header = format!("{FORMAT} {FORMAT_VERSION} {version} {} {dies}\n", fence.0);
        let (temporary, path) = (self.path(&temporary_name("")), self.path("token"));
        let written = create(&temporary).and_then(|mut file| {
            file.write_all(header.as_bytes())?;
            file.write_all(value.bytes.expose())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&temporary, &path)).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(&path, error)
        })?;
        // The rename itself reaches the disk with its directory.
        #[cfg(unix)]
        File::open(&self.directory.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(&path, error))?;
        Ok(Saved::Done(Version(version)))
    }

    pub(super) fn lease(&mut self, duration: Duration) -> Result<Lease, StoreError> {
        let state = self.state()?;
        if state.held && self.now < state.until && self.is_alive(state.fence) {
            return Ok(Lease::Held);
        }
        // The value's own fence counts, should the lock file be lost.
        let fence = state.fence.max(self.read().ok().flatten().map_or(0, |(header, _)| header.fence)) + 1;
        let path = self.lease_path(fence);
        let file = open(&path, true)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => failed(&path, error),
            TryLockError::WouldBlock => failed(&path, io::ErrorKind::WouldBlock.into()),
        })?;
        self.write(State { fence, held: true, until: self.now.saturating_add(millis(duration)) })?;
        let _ = fs::remove_file(self.lease_path(state.fence));
        self.directory.leases().insert(self.key, (fence, file));
        Ok(Lease::Acquired { fence: Fence(fence), abandoned: state.held })
    }

    pub(super) fn renew(&mut self, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let state = self.state()?;
        let goes_on = state.fence == fence.0 && state.held && self.now < state.until;
        if goes_on {
            self.write(State { until: self.now.saturating_add(millis(duration)), ..state })?;
        }
        Ok(goes_on)
    }

    pub(super) fn release(&mut self, fence: Fence) -> Result<(), StoreError> {
        let state = self.state()?;
        if state.fence == fence.0 {
            self.write(State { held: false, ..state })?;
        }
        let mut leases = self.directory.leases();
        if leases.get(&self.key).is_some_and(|(held, _)| *held == fence.0) {
            leases.remove(&self.key);
        }
        let _ = fs::remove_file(self.lease_path(fence.0));
        Ok(())
    }

    /// Whether something was saved after this version, or nobody has the lease.
    pub(super) fn is_worth_a_look(&mut self, since: Version) -> Result<bool, StoreError> {
        let state = self.state()?;
        let is_held = state.held && self.now < state.until && self.is_alive(state.fence);
        Ok(!is_held || self.load()?.is_some_and(|stored| stored.version > since))
    }

    fn read(&self) -> Result<Option<Content>, StoreError> {
        let path = self.path("token");
        let mut file = match open(&path, false) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata().map_err(|error| failed(&path, error))?.len();
        if length > LONGEST_VALUE {
            return Err(unreadable(&path));
        }
        // Room for all of it, since growing would leave copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
        file.read_to_end(&mut bytes).map_err(|error| failed(&path, error))?;
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| unreadable(&path))?;
        let (line, value) = bytes.split_at(end);
        let header = std::str::from_utf8(line).ok().and_then(Header::parse).ok_or_else(|| unreadable(&path))??;
        Ok(Some((header, Secret::new(value.get(1..).unwrap_or_default().to_vec()))))
    }

    fn state(&mut self) -> Result<State, StoreError> {
        let mut text = String::new();
        let read = self.lock.seek(SeekFrom::Start(0)).and_then(|_| (&self.lock).take(256).read_to_string(&mut text));
        match read {
            Ok(0) => Ok(State { fence: 0, held: false, until: 0 }),
            // Half written when the machine went down: somebody had, or was taking, the lease.
            Ok(_) => Ok(State::parse(&text).unwrap_or(State { fence: 0, held: true, until: 0 })),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(State { fence: 0, held: true, until: 0 }),
            Err(error) => Err(failed(&self.path("lock"), error)),
        }
    }

    /// Always of the same length, in one call: so that it is there as a whole or not at all.
    fn write(&mut self, state: State) -> Result<(), StoreError> {
        let text = format!("{:020} {} {:020}\n", state.fence, u8::from(state.held), state.until);
        let written = self.lock.seek(SeekFrom::Start(0)).and_then(|_| self.lock.write_all(text.as_bytes()));
        written.and_then(|()| self.lock.sync_data()).map_err(|error| failed(&self.path("lock"), error))
    }

    /// Whether the holder of that lease lives: it then has its file locked.
    fn is_alive(&self, fence: u64) -> bool {
        match open(&self.lease_path(fence), false) {
            Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }

    /// Whoever was writing them is not: nobody but us is inside.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.directory.path) else { return };
        let of_this_key = format!("{}.", self.key);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&of_this_key) && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn lease_path(&self, fence: u64) -> PathBuf {
        self.path(&format!("{fence}.lease"))
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.directory.path.join(format!("{}.{extension}", self.key))
    }
}

impl State {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix('\n')?.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        Some(Self { fence: number()?, held: number()? == 1, until: number()? })
    }
}

impl Header {
    /// `None`: none of ours.
    fn parse(line: &str) -> Option<Result<Self, StoreError>> {
        let mut parts = line.strip_prefix(FORMAT)?.strip_prefix(' ')?.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        if number()? > FORMAT_VERSION {
            return Some(Err(StoreError::new(StoreErrorKind::Newer)));
        }
        Some(Ok(Self { version: number()?, fence: number()?, dies: number()? }))
    }
}

/// Opens a file of ours, tightening it.
fn open(path: &Path, create: bool) -> Result<File, StoreError> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(refused(path, "is not a plain file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(create).create(create);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| failed(path, error))?;
    #[cfg(unix)]
    if file.metadata().is_ok_and(|found| is_open_to_others(&found)) {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| failed(path, error))?;
    }
    Ok(file)
}

/// Makes a file that was not there.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn is_open_to_others(found: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0
}

/// Whether a file of this name can be one of a store's.
#[cfg(unix)]
fn is_ours(name: &str) -> bool {
    let (key, rest) = name.split_at_checked(64).unwrap_or_default();
    let is_key = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_key && rest.starts_with('.')) || (name.starts_with("probe.") && name.ends_with(".tmp"))
}

fn temporary_name(prefix: &str) -> String {
    let random = fastrand::u64(..);
    if prefix.is_empty() { format!("{random:016x}.tmp") } else { format!("{prefix}.{random:016x}.tmp") }
}

fn refused(path: &Path, why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Refused).caused_by(BoxError::from(format!("{} {why}", path.display())))
}

fn unreadable(path: &Path) -> StoreError {
    let what = format!("{} is no token file, or a damaged one; remove it if nothing else needs it", path.display());
    StoreError::new(StoreErrorKind::Unreadable).caused_by(BoxError::from(what))
}

/// What the operating system says of a file.
#[derive(Debug)]
struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Refused,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind).caused_by(FileError { path: path.to_owned(), source })
}

fn is_missing(error: &StoreError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<FileError>());
    cause.is_some_and(|cause| cause.source.kind() == io::ErrorKind::NotFound)
}
