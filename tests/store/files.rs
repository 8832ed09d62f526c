//! The store in a directory: what survives, who may read it, what a crash leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::time::sleep;
use tower::Layer;
use tower_oauth2_client::store::{
    Fence, FileStore, Lease, Saved, StoreErrorKind, StoreKey, TokenStore, Value, Version,
};
use tower_oauth2_client::{AuthConfigBuilder, AuthLayer, Secret};

use crate::world::{HOUR, Process, SECOND, World};

/// A directory of one test, gone afterwards.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("tower-oauth2-client-store-{}-{number}", std::process::id())))
    }

    fn store(&self, world: &World) -> FileStore {
        FileStore::with_clock(&self.0, world.clock.clone())
    }

    fn process(&self, world: &World, cfg: AuthConfigBuilder) -> Process {
        let layer = AuthLayer::builder(cfg.build().unwrap())
            .http_client(world.auth.clone())
            .store(self.store(world))
            .build()
            .unwrap();
        Process { handle: layer.handle(), client: layer.layer(world.api.clone()) }
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_costs_no_token_request_and_no_refresh_token() {
    let (world, directory) = (World::new(), TestDirectory::new());
    let first = world.auth.sign_in("id", "");
    for run in 0..20 {
        // Each run of the tool has the refresh token of its configuration, spent long ago.
        let process = directory.process(&world, world.signed_in(&first));
        assert_eq!(process.get().await, 200);
        assert_eq!(world.auth.token_requests(), 1 + run / 4);
        assert_eq!(world.auth.refresh_token_reuses(), 0);
        sleep(HOUR / 4).await;
    }
    assert_eq!(
        (directory.files("token").len(), directory.files("tmp").len(), directory.files("lease").len()),
        (1, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn processes_with_a_directory_in_common_ask_once() {
    let (world, directory) = (World::new(), TestDirectory::new());
    let auth = world.auth.clone().latency(SECOND);
    let processes: Vec<_> = (0..8).map(|_| directory.process(&world, world.config())).collect();
    let statuses = join_all(processes.iter().flat_map(|process| (0..50).map(|_| process.get()))).await;
    assert!(statuses.into_iter().all(|status| status == 200));
    assert_eq!(auth.token_requests(), 1);
}

/// Behaviour 105.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn nobody_else_can_read_it_even_if_everybody_could_before() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (world, directory) = (World::new(), TestDirectory::new());
    directory.process(&world, world.config()).token().await;
    assert_eq!(mode(&directory.0), 0o700);
    // Without the file that says when the directory was swept.
    let all = || fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let files = || all().filter(|path| !path.ends_with("swept"));
    assert!(all().all(|path| mode(&path) == 0o600) && files().count() == 2);

    chmod(&directory.0, 0o777);
    files().for_each(|path| chmod(&path, 0o666));
    directory.process(&world, world.config()).token().await;
    assert_eq!(mode(&directory.0), 0o700);
    assert!(files().all(|path| mode(&path) == 0o600));
    assert_eq!(world.auth.token_requests(), 1);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_ours_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let world = World::new();
    let home = TestDirectory::new();
    fs::create_dir(&home.0).unwrap();
    fs::set_permissions(&home.0, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.0.join("letters"), "").unwrap();
    symlink("/", home.0.join("link")).unwrap();
    for (path, why) in [
        (home.0.clone(), "holds other things"),
        (home.0.join("link"), "symbolic link"),
        (home.0.join("letters"), "not a directory"),
    ] {
        let error = FileStore::new(&path).check().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(why) && cause.contains(path.to_str().unwrap()), "{cause}");
        // Whoever uses it nevertheless has tokens, though none are kept.
        let cfg = world.config().build().unwrap();
        let handle = AuthLayer::builder(cfg)
            .http_client(world.auth.clone())
            .store(FileStore::new(&path))
            .build()
            .unwrap()
            .handle();
        handle.warm_up().await.unwrap();
        assert_eq!(handle.stats().store.unwrap().without_store, 1);
    }
    assert_eq!(fs::metadata(&home.0).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&home.0).unwrap().count(), 2);
    // One that is somewhere below is made, with all above it.
    FileStore::new(home.0.join("a/b")).check().await.unwrap();
    assert_eq!(fs::metadata(home.0.join("a/b")).unwrap().permissions().mode() & 0o777, 0o700);
    let error = FileStore::new(home.0.join("letters/a")).check().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_link_in_place_of_a_file_is_not_followed() {
    let (world, directory) = (World::new(), TestDirectory::new());
    let process = directory.process(&world, world.config());
    process.token().await;
    let file = directory.files("token").remove(0);
    let elsewhere = directory.0.with_extension("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let key = world.key(&directory).await;
    assert_eq!(directory.store(&world).load(&key).await.unwrap_err().kind(), StoreErrorKind::Refused);
    assert_eq!(directory.process(&world, world.config()).get().await, 200);
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    fs::remove_file(elsewhere).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_leaves_behind_does_no_harm() {
    let (world, directory) = (World::new(), TestDirectory::new());
    directory.process(&world, world.config()).token().await;
    let token = directory.files("token").remove(0);
    let lock = directory.files("lock").remove(0);
    let leftovers = [token.with_extension("tmp"), token.with_extension("7.lease")];
    leftovers.iter().for_each(|path| fs::write(path, "half a token").unwrap());
    // The lease, too, was being written when the machine went down.
    fs::write(&lock, "00000").unwrap();
    sleep(2 * HOUR).await;
    let process = directory.process(&world, world.config());
    assert_eq!(process.get().await, 200);
    assert_eq!((world.auth.token_requests(), process.handle.stats().store.unwrap().stored), (2, 1));
    assert!(directory.files("tmp").is_empty());
    // A value that is lost altogether is a value that is not there.
    fs::remove_file(&token).unwrap();
    assert_eq!(directory.process(&world, world.config()).get().await, 200);
    assert!(token.exists());
}

#[tokio::test(start_paused = true)]
async fn damaged_and_newer_files_are_told_apart_and_left_as_they_are() {
    let damaged: [(&[u8], StoreErrorKind); 6] = [
        (b"", StoreErrorKind::Unreadable),
        (b"canary", StoreErrorKind::Unreadable),
        (b"canary\n{}", StoreErrorKind::Unreadable),
        (b"tower-oauth2-client 1 canary 1 1\n{}", StoreErrorKind::Unreadable),
        (b"tower-oauth2-client \xff 1 1 1\n{}", StoreErrorKind::Unreadable),
        (b"tower-oauth2-client 2 new ways\n{}", StoreErrorKind::Newer),
    ];
    for (content, kind) in damaged {
        let (world, directory) = (World::new(), TestDirectory::new());
        let key = world.key(&directory).await;
        let file = directory.files("token").remove(0);
        fs::write(&file, content).unwrap();
        let error = directory.store(&world).load(&key).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!format!("{error:?}").contains("canary"));
        assert_eq!(directory.process(&world, world.config()).get().await, 200);
        assert_eq!(fs::read(&file).unwrap(), content);
    }
}

/// Behaviour 87.
#[tokio::test(start_paused = true)]
async fn leases_end_by_time_and_with_their_process() {
    let (world, directory) = (World::new(), TestDirectory::new());
    let key = world.key(&directory).await;
    let (one, other) = (directory.store(&world), directory.store(&world));
    let version = one.load(&key).await.unwrap().unwrap().version;
    let value = Value::new(Secret::new(b"canary".to_vec()), HOUR);
    let first = acquired(one.lease(&key, 10 * SECOND).await.unwrap());
    assert!(!first.1);
    assert_eq!(other.lease(&key, SECOND).await.unwrap(), Lease::Held);
    assert!(one.renew(&key, first.0, 20 * SECOND).await.unwrap());
    sleep(15 * SECOND).await;
    assert_eq!(other.lease(&key, SECOND).await.unwrap(), Lease::Held);

    // A holder that sleeps: whoever has seen nothing of it for the length of its lease takes over, and is told so.
    sleep(19 * SECOND).await;
    assert_eq!(other.lease(&key, SECOND).await.unwrap(), Lease::Held);
    sleep(SECOND).await;
    let second = acquired(other.lease(&key, 10 * SECOND).await.unwrap());
    assert!(second.1 && second.0 > first.0);
    assert!(!one.renew(&key, first.0, SECOND).await.unwrap());
    assert_eq!(one.save(&key, &value, version, first.0).await.unwrap(), Saved::Fenced);
    one.release(&key, first.0).await.unwrap();
    assert_eq!(one.lease(&key, SECOND).await.unwrap(), Lease::Held);
    assert_eq!(other.save(&key, &value, Version(77), second.0).await.unwrap(), Saved::Conflict);
    let Saved::Done(saved) = other.save(&key, &value, version, second.0).await.unwrap() else { panic!("not saved") };
    assert!(saved > version);

    // A holder that dies, long before its time: its files are closed.
    drop(other);
    let third = acquired(one.lease(&key, 10 * SECOND).await.unwrap());
    assert!(third.1 && third.0 > second.0);
    // One that gives it back.
    one.release(&key, third.0).await.unwrap();
    let fourth = acquired(one.lease(&key, 10 * SECOND).await.unwrap());
    assert!(!fourth.1);
    one.release(&key, fourth.0).await.unwrap();

    // A value ends, too; its version goes on.
    sleep(HOUR).await;
    assert!(one.load(&key).await.unwrap().is_none());
    let fifth = acquired(one.lease(&key, SECOND).await.unwrap());
    let Saved::Done(anew) = one.save(&key, &value, Version(0), fifth.0).await.unwrap() else { panic!("not saved") };
    assert!(anew > saved);
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_of_a_save_and_of_a_lease_that_ends() {
    let (world, directory) = (World::new(), TestDirectory::new());
    let key = world.key(&directory).await;
    let (one, other) = (directory.store(&world), directory.store(&world));
    let version = one.load(&key).await.unwrap().unwrap().version;
    let (fence, _) = acquired(one.lease(&key, 10 * SECOND).await.unwrap());
    let waiting = tokio::spawn(async move { other.changed(&key, version).await });
    sleep(3 * SECOND).await;
    assert!(!waiting.is_finished());
    let value = Value::new(Secret::new(Vec::new()), HOUR);
    let Saved::Done(later) = one.save(&key, &value, version, fence).await.unwrap() else { panic!("not saved") };
    waiting.await.unwrap();
    let other = directory.store(&world);
    let waiting = tokio::spawn(async move { other.changed(&key, later).await });
    sleep(3 * SECOND).await;
    assert!(!waiting.is_finished());
    one.release(&key, fence).await.unwrap();
    waiting.await.unwrap();
}

/// Behaviour 103.
#[tokio::test(start_paused = true)]
async fn file_names_and_debug_tell_nothing() {
    let (world, directory) = (World::new(), TestDirectory::new());
    directory.process(&world, world.config().token_param("key", "canary").audience("canary")).token().await;
    for entry in fs::read_dir(&directory.0).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let tells_nothing = name == "swept" || name.bytes().take(64).all(|byte| byte.is_ascii_hexdigit());
        assert!(tells_nothing && !name.contains("canary"), "{name}");
    }
    assert!(!format!("{:?}", directory.store(&world)).contains("canary"));
}

fn acquired(lease: Lease) -> (Fence, bool) {
    match lease {
        Lease::Acquired { fence, abandoned } => (fence, abandoned),
        _ => panic!("somebody has it"),
    }
}

impl World {
    /// The key of the plain configuration, whose token is stored.
    async fn key(&self, directory: &TestDirectory) -> StoreKey {
        directory.process(self, self.config()).token().await;
        self.process(self.config()).token().await;
        self.store.last_key()
    }
}

/// Behaviour 167.
#[tokio::test(start_paused = true)]
async fn what_has_expired_is_deleted() {
    const TENANTS: u8 = 210;
    let (world, directory) = (World::new(), TestDirectory::new());
    let store = directory.store(&world);
    let keys: Vec<_> = (0..TENANTS).map(|number| StoreKey::from([number; 32])).collect();
    for (number, key) in keys.iter().enumerate() {
        let (fence, _) = acquired(store.lease(key, SECOND).await.unwrap());
        let lives_for = if number < 10 { 10 * HOUR } else { HOUR };
        let value = Value::new(Secret::new(b"canary".to_vec()), lives_for);
        store.save(key, &value, Version(0), fence).await.unwrap();
        store.release(key, fence).await.unwrap();
    }
    assert_eq!((directory.files("token").len(), store.sweep().await.unwrap()), (TENANTS.into(), 0));
    sleep(2 * HOUR).await;
    // One that is looked up goes at once.
    assert!(store.load(&keys[100]).await.unwrap().is_none());
    assert_eq!(directory.files("token").len(), usize::from(TENANTS) - 1);
    // The others by themselves: the next save begins it, and nobody waits for it.
    let (fence, _) = acquired(store.lease(&keys[0], SECOND).await.unwrap());
    let version = store.load(&keys[0]).await.unwrap().unwrap().version;
    let value = Value::new(Secret::new(Vec::new()), HOUR);
    store.save(&keys[0], &value, version, fence).await.unwrap();
    // Those that live stay, and the lock of the lease that goes on.
    let locks = if cfg!(unix) { 10 } else { usize::from(TENANTS) };
    let left = || (directory.files("token").len(), directory.files("lock").len(), directory.files("lease").len());
    let begin = std::time::Instant::now();
    while left() != (10, locks, 1) {
        assert!(begin.elapsed().as_secs() < 20, "{:?} are there still", left());
        std::thread::yield_now();
    }
    assert_eq!(store.sweep().await.unwrap(), 0);
}

/// Behaviour 167: a lease whose holder lives does not end because somebody sets the clock.
#[tokio::test(start_paused = true)]
async fn a_clock_step_takes_no_lease_from_a_holder_that_lives() {
    for step in [Step::Forward(HOUR), Step::Back(HOUR)] {
        let (world, directory) = (World::new(), TestDirectory::new());
        let key = world.key(&directory).await;
        let (one, other) = (directory.store(&world), directory.store(&world));
        let (fence, _) = acquired(one.lease(&key, 10 * SECOND).await.unwrap());
        match step {
            Step::Forward(by) => world.clock.suspend(by),
            Step::Back(by) => world.clock.set_wall_back(by),
        }
        assert_eq!(other.lease(&key, SECOND).await.unwrap(), Lease::Held, "{step:?}");
        for _ in 0..10 {
            sleep(3 * SECOND).await;
            assert!(one.renew(&key, fence, 10 * SECOND).await.unwrap(), "{step:?}");
            assert_eq!(other.lease(&key, SECOND).await.unwrap(), Lease::Held, "{step:?}");
        }
        // A holder that is stopped has it for as long as it lasts, not for an hour.
        sleep(10 * SECOND).await;
        assert!(acquired(other.lease(&key, SECOND).await.unwrap()).1, "{step:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Forward(std::time::Duration),
    Back(std::time::Duration),
}

/// Behaviour 128: the space is taken before anything is spent.
#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_noticed_with_the_lease() {
    let Some(disk) = SmallDisk::mount() else { return };
    let world = World::new();
    let first = world.auth.sign_in("id", "");
    let store = || FileStore::with_clock(disk.0.join("tokens"), world.clock.clone());
    let layer = AuthLayer::builder(world.signed_in(&first).build().unwrap())
        .http_client(world.auth.clone())
        .store(store())
        .build()
        .unwrap();
    layer.handle().token().await.unwrap();
    disk.fill();
    sleep(HOUR).await;
    // Nothing is sent: the refresh token is good when there is space again.
    layer.handle().token().await.unwrap_err();
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (1, 0));
    disk.free();
    sleep(HOUR).await;
    layer.handle().token().await.unwrap();
    assert_eq!((world.auth.token_requests(), world.auth.refresh_token_reuses()), (2, 0));
}

/// A tmpfs of 256 KiB, where we may mount one.
#[cfg(target_os = "linux")]
struct SmallDisk(PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let path = TestDirectory::new().0.with_extension("disk");
        fs::create_dir_all(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&path).stderr(std::process::Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        let _ = fs::remove_dir(&path);
        eprintln!("no tmpfs could be mounted: a full disk was not tried");
        None
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// Behaviour 167: nobody waits for a lock on a thread that the end of a runtime waits for.
#[cfg(unix)]
#[test]
fn a_process_that_is_stopped_inside_its_lock_keeps_nobody_from_exiting() {
    let directory = TestDirectory::new();
    let (store, key) = (FileStore::new(&directory.0), StoreKey::from([1; 32]));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime().block_on(async { store.lease(&key, SECOND).await.unwrap() });
    let lock = fs::File::open(directory.files("lock").remove(0)).unwrap();
    lock.lock().unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = runtime();
        let load = async { tokio::time::timeout(SECOND / 10, store.load(&key)).await.is_err() };
        assert!(runtime.block_on(load), "the lock is held");
        drop(runtime);
        ended.send(()).unwrap();
    });
    let waited = end.recv_timeout(10 * SECOND);
    drop(lock);
    assert!(waited.is_ok(), "the runtime does not end while the lock is held");
}

/// Cost for each tenant: `cargo test --release --test store cost_of_a_save -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a minute, and prints what it measured"]
async fn cost_of_a_save() {
    let directory = TestDirectory::new();
    let store = FileStore::new(&directory.0);
    let key = |number: u32| {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        StoreKey::from(bytes)
    };
    let renewal = async |number: u32| {
        let begin = std::time::Instant::now();
        let (fence, _) = acquired(store.lease(&key(number), SECOND).await.unwrap());
        let version = store.load(&key(number)).await.unwrap().map_or(Version(0), |stored| stored.version);
        let value = Value::new(Secret::new(vec![b'x'; 700]), HOUR);
        store.save(&key(number), &value, version, fence).await.unwrap();
        store.release(&key(number), fence).await.unwrap();
        begin.elapsed()
    };
    let mut tenants = 0;
    for goal in [100, 1_000, 3_000, 10_000, 100_000] {
        // A copy is enough to fill the directory.
        if tenants == 0 {
            renewal(0).await;
            tenants = 1;
        }
        let (token, lock) = (directory.files("token").remove(0), directory.files("lock").remove(0));
        for number in tenants..goal {
            fs::copy(&token, directory.0.join(format!("{}.token", key(number)))).unwrap();
            fs::copy(&lock, directory.0.join(format!("{}.lock", key(number)))).unwrap();
        }
        tenants = goal;
        let mut took = Vec::new();
        for number in 0..60 {
            took.push(renewal(number * goal / 60).await);
        }
        took.sort();
        println!(
            "{goal} tenants: lease, load, save and release take {:?} (median), {:?} (longest)",
            took[30], took[59]
        );
    }
}
