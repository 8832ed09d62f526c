//! The files of one key, while nobody else looks at them.
//!
//! - `KEY.lock`: locked while a call is made, and holds the state of the lease.
//! - `KEY.FENCE.lease`: locked by the holder for as long as it has the lease: so others see whether it lives.
//! - `KEY.token`: the value, after a line with its version, the fence it was saved under, and when it expires.
//! - `KEY.tmp`: the next value: space reserved for it while somebody has the lease, then the value while it is written.
//!
//! Nothing here waits for a lock: a process that was stopped while it holds one must not keep others from exiting.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use zeroize::Zeroizing;

use crate::store::millis::{millis, since_epoch};
use crate::store::{Fence, Lease, Saved, StoreError, StoreErrorKind, StoreKey, Stored, Value, Version};
use crate::types::{BoxError, Now, Secret};

/// What the first line of a value begins with.
const FORMAT: &str = "tower-oauth2-client";
const FORMAT_VERSION: u64 = 1;
/// A token of 64 KiB with what belongs to it is far below.
const LONGEST_VALUE: u64 = 4 * 1024 * 1024;
/// Reserved for the next value beyond the length of the present one.
const RESERVE: u64 = 16 * 1024;
/// A lock file may claim anything: no lease is longer.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// How many leases of others are watched.
const MOST_SEEN: usize = 1024;

pub(super) struct Directory {
    path: PathBuf,
    /// The leases of this process: as long as their files are open, they are locked.
    leases: Mutex<HashMap<StoreKey, OwnLease>>,
    /// Leases of others, as they were when they were seen to change last.
    seen: Mutex<HashMap<StoreKey, (State, Instant)>>,
    /// The directory was seen to be ours.
    #[cfg_attr(not(unix), allow(dead_code, reason = "who owns what is a matter of unix"))]
    is_own: AtomicBool,
    pub(super) sweep: super::sweep::Schedule,
}

struct OwnLease {
    fence: u64,
    ends: Instant,
    /// Locked.
    _file: File,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            leases: Mutex::default(),
            seen: Mutex::default(),
            is_own: AtomicBool::new(false),
            sweep: super::sweep::Schedule::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<StoreKey, OwnLease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<StoreKey, (State, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
            let probe = self.path.join(probe_name());
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
    now: Now,
    lock: File,
}

/// The state of the lease, in the lock file. It names no time of day: machines set their clocks, and a lease must neither
/// end nor go on for that.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    fence: u64,
    held: bool,
    /// In milliseconds, from when it was taken or renewed last.
    length: u64,
    renewals: u64,
}

/// Half written when the machine went down: somebody had, or was taking, the lease.
const UNKNOWN: State = State { fence: 0, held: true, length: 0, renewals: 0 };

type Content = (Header, Secret<Vec<u8>>);

struct Header {
    version: u64,
    fence: u64,
    expires: u64,
}

impl Place {
    /// `None`: somebody else is inside.
    pub(super) fn enter(directory: Arc<Directory>, key: StoreKey, now: Now) -> Result<Option<Self>, StoreError> {
        directory.prepare()?;
        let path = directory.path.join(format!("{key}.lock"));
        loop {
            let lock = open(&path, true)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed(&path, error)),
            }
            if is_still_there(&lock, &path) {
                return Ok(Some(Self { directory, key, now, lock }));
            }
            // It was removed between the two calls.
        }
    }

    /// What has expired is removed: it holds secrets.
    pub(super) fn load(&self) -> Result<Option<Stored>, StoreError> {
        let Some((header, bytes)) = self.read()? else { return Ok(None) };
        if self.has_expired(&header) {
            let _ = fs::remove_file(self.path("token"));
            return Ok(None);
        }
        Ok(Some(Stored { version: Version(header.version), bytes }))
    }

    pub(super) fn save(&mut self, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        if self.state()?.fence != fence.0 {
            return Ok(Saved::Fenced);
        }
        let before = self.read()?.map(|(header, _)| header);
        let found = before.as_ref().filter(|header| !self.has_expired(header)).map_or(0, |header| header.version);
        if found != expected.0 {
            return Ok(Saved::Conflict);
        }
        let version = self.after(before.map_or(0, |header| header.version));
        let expires = since_epoch(self.now.wall).saturating_add(millis(value.lives_for));
        let header = format!("{FORMAT} {FORMAT_VERSION} {version} {} {expires}\n", fence.0);
        let (temporary, path) = (self.path("tmp"), self.path("token"));
        // Over what was reserved, and no longer than it is: so that a disk that has become full takes it.
        let length = header.len().saturating_add(value.bytes.expose().len());
        let written = create_or_open(&temporary).and_then(|mut file| {
            file.write_all(header.as_bytes())?;
            file.write_all(value.bytes.expose())?;
            file.set_len(u64::try_from(length).unwrap_or(u64::MAX))?;
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
        if self.is_held(state) {
            return Ok(Lease::Held);
        }
        let present = self.read().ok().flatten();
        self.reserve(present.as_ref().map_or(0, |(_, bytes)| bytes.expose().len()))?;
        // The value's own fence counts, should the lock file be lost.
        let fence = self.after(state.fence.max(present.map_or(0, |(header, _)| header.fence)));
        let path = self.lease_path(fence);
        let file = open(&path, true)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => failed(&path, error),
            TryLockError::WouldBlock => failed(&path, io::ErrorKind::WouldBlock.into()),
        })?;
        self.write(State { fence, held: true, length: millis(duration), renewals: 0 })?;
        let _ = fs::remove_file(self.lease_path(state.fence));
        self.directory.seen().remove(&self.key);
        self.directory.leases().insert(self.key, OwnLease { fence, ends: self.ends(duration), _file: file });
        Ok(Lease::Acquired { fence: Fence(fence), abandoned: state.held })
    }

    pub(super) fn renew(&mut self, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        let state = self.state()?;
        let is_ours = |lease: &&mut OwnLease| lease.fence == fence.0 && self.now.monotonic < lease.ends;
        let ends = self.ends(duration);
        {
            let mut leases = self.directory.leases();
            let Some(lease) = leases.get_mut(&self.key).filter(is_ours) else { return Ok(false) };
            if !state.held || state.fence != fence.0 {
                return Ok(false);
            }
            lease.ends = ends;
        }
        self.write(State { length: millis(duration), renewals: state.renewals.wrapping_add(1), ..state })?;
        Ok(true)
    }

    pub(super) fn release(&mut self, fence: Fence) -> Result<(), StoreError> {
        let state = self.state()?;
        if state.fence == fence.0 {
            self.write(State { held: false, ..state })?;
            let _ = fs::remove_file(self.path("tmp"));
        }
        let mut leases = self.directory.leases();
        if leases.get(&self.key).is_some_and(|lease| lease.fence == fence.0) {
            leases.remove(&self.key);
        }
        let _ = fs::remove_file(self.lease_path(fence.0));
        Ok(())
    }

    /// Everything there is of the key. A holder's save is then refused, as the next lease has another fence.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        let state = self.state().unwrap_or(UNKNOWN);
        self.directory.leases().remove(&self.key);
        for path in [self.path("tmp"), self.lease_path(state.fence)] {
            let _ = fs::remove_file(path);
        }
        let path = self.path("token");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, error)),
            _ => {}
        }
        // Last, while it is locked: a task that opened it meanwhile sees that it is not there any more.
        #[cfg(unix)]
        let _ = fs::remove_file(self.path("lock"));
        Ok(())
    }

    /// Whether nothing here is of use to anybody: a value that has expired or none, and no lease that goes on.
    pub(super) fn is_over(&self) -> bool {
        let Ok(state) = self.state() else { return false };
        let is_over = match self.read() {
            Ok(Some((header, _))) => self.has_expired(&header),
            Ok(None) => !state.held || self.is_old(),
            Err(_) => false,
        };
        is_over && !self.is_held(state)
    }

    /// Whether something was saved after this version, or nobody has the lease.
    pub(super) fn is_worth_a_look(&self, since: Version) -> Result<bool, StoreError> {
        let state = self.state()?;
        Ok(!self.is_held(state) || self.load()?.is_some_and(|stored| stored.version > since))
    }

    /// Whether somebody has the lease. Who has died has not: its file is not locked any more. Who is stopped has it until
    /// it has not renewed it for the lease's own length, by the clock of the process that looks.
    fn is_held(&self, state: State) -> bool {
        if !state.held || !self.is_alive(state.fence) {
            self.directory.seen().remove(&self.key);
            return false;
        }
        if let Some(own) = self.directory.leases().get(&self.key).filter(|own| own.fence == state.fence) {
            return self.now.monotonic < own.ends;
        }
        let mut seen = self.directory.seen();
        if seen.len() >= MOST_SEEN && !seen.contains_key(&self.key) {
            seen.clear();
        }
        let (known, since) = seen.entry(self.key).or_insert((state, self.now.monotonic));
        if *known != state {
            (*known, *since) = (state, self.now.monotonic);
        }
        let length = Duration::from_millis(state.length).min(LONGEST_LEASE);
        self.now.monotonic.saturating_duration_since(*since) < length
    }

    fn has_expired(&self, header: &Header) -> bool {
        header.expires <= since_epoch(self.now.wall)
    }

    /// Untouched for a day: a process that died with the lease and without a value is forgotten, as in other stores.
    fn is_old(&self) -> bool {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let changed = self.lock.metadata().and_then(|found| found.modified());
        changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > DAY))
    }

    /// Numbers follow the clock as well, so that they do not start again with a directory that was removed.
    fn after(&self, number: u64) -> u64 {
        number.saturating_add(1).max(since_epoch(self.now.wall).saturating_mul(1000))
    }

    fn ends(&self, duration: Duration) -> Instant {
        self.now.monotonic.checked_add(duration.min(LONGEST_LEASE)).unwrap_or(self.now.monotonic)
    }

    /// Takes the space of the next value now, before a refresh token is spent for it: a disk that is full says so here.
    fn reserve(&self, present: usize) -> Result<(), StoreError> {
        let path = self.path("tmp");
        let length = RESERVE.saturating_add(u64::try_from(present).unwrap_or(LONGEST_VALUE)).min(LONGEST_VALUE);
        let written =
            create_or_open(&path).and_then(|mut file| io::copy(&mut io::repeat(0).take(length), &mut file).map(drop));
        written.map_err(|error| {
            let _ = fs::remove_file(&path);
            failed(&path, error)
        })
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

    fn state(&self) -> Result<State, StoreError> {
        let mut text = String::new();
        let mut lock = &self.lock;
        match lock.seek(SeekFrom::Start(0)).and_then(|_| lock.take(256).read_to_string(&mut text)) {
            Ok(0) => Ok(State { fence: 0, held: false, length: 0, renewals: 0 }),
            Ok(_) => Ok(State::parse(&text).unwrap_or(UNKNOWN)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(UNKNOWN),
            Err(error) => Err(failed(&self.path("lock"), error)),
        }
    }

    /// Always of the same length, in one call: so that it is there as a whole or not at all.
    fn write(&self, state: State) -> Result<(), StoreError> {
        let State { fence, held, length, renewals } = state;
        let text = format!("{fence:020} {} {length:020} {renewals:020}\n", u8::from(held));
        let mut lock = &self.lock;
        let written = lock.seek(SeekFrom::Start(0)).and_then(|_| lock.write_all(text.as_bytes()));
        written.and_then(|()| lock.sync_data()).map_err(|error| failed(&self.path("lock"), error))
    }

    /// Whether the holder of that lease lives: it then has its file locked.
    fn is_alive(&self, fence: u64) -> bool {
        match open(&self.lease_path(fence), false) {
            Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
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
        Some(Self { fence: number()?, held: number()? == 1, length: number()?, renewals: number()? })
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
        Some(Ok(Self { version: number()?, fence: number()?, expires: number()? }))
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

/// Whether the file that was opened is the one of that name still.
#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |one: &Metadata, other: &Metadata| one.ino() == other.ino() && one.dev() == other.dev();
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(one), Ok(other)) if same(&one, &other))
}

/// Lock files are not removed elsewhere.
#[cfg(not(unix))]
fn is_still_there(_: &File, _: &Path) -> bool {
    true
}

/// Opens a file to be written over, or makes it. Only one task at a time is inside.
fn create_or_open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        let _ = fs::remove_file(path);
        return create(path);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    #[cfg(unix)]
    if file.metadata().is_ok_and(|found| is_open_to_others(&found)) {
        // Somebody else may have it open.
        fs::remove_file(path)?;
        return create(path);
    }
    Ok(file)
}

/// Writes a small file that holds no secret.
pub(super) fn write_over(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = create_or_open(path)?;
    file.write_all(text)?;
    file.set_len(u64::try_from(text.len()).unwrap_or_default())
}

/// When the value in this file expires; `None` where that cannot be told.
pub(super) fn expiry_of(path: &Path) -> Option<u64> {
    let file = open(path, false).ok()?;
    // The value behind the first line may be cut anywhere, and need not be text.
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    file.take(128).read_to_end(&mut bytes).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(bytes.get(..end)?).ok()?;
    Some(Header::parse(line)?.ok()?.expires)
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
    (is_key && rest.starts_with('.'))
        || (name.starts_with("probe.") && name.ends_with(".tmp"))
        || name == super::sweep::MARK
}

#[cfg(unix)]
fn probe_name() -> String {
    format!("probe.{:016x}.tmp", fastrand::u64(..))
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
