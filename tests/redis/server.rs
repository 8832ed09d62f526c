//! A redis-server (or valkey-server) of the test's own, on loopback, that ends with the test.

use std::env;
use std::io::{Write, stderr};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

pub(crate) struct Redis {
    port: u16,
    password: Option<String>,
    arguments: Vec<String>,
    dir: tempdir::TempDir,
    /// Watches over the server: when its input ends, because it is dropped or because the test died, it kills it.
    keeper: Option<Child>,
}

impl Redis {
    /// `None`, and a line that says so, where there is no server to start. A CI that can install one must.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(None, Vec::new()).await
    }

    pub(crate) async fn with_password(password: &str) -> Option<Self> {
        Self::start_with(Some(password), Vec::new()).await
    }

    pub(crate) async fn with_arguments(arguments: Vec<String>) -> Option<Self> {
        Self::start_with(None, arguments).await
    }

    async fn start_with(password: Option<&str>, arguments: Vec<String>) -> Option<Self> {
        let Some(program) = program() else {
            missing();
            return None;
        };
        let mut redis = Self {
            port: 0,
            password: password.map(str::to_owned),
            arguments,
            dir: tempdir::TempDir::new(),
            keeper: None,
        };
        if !redis.launch(&program).await {
            // A version that somebody named may be built without TLS, or be older than an option.
            let may_lack_it = !redis.arguments.is_empty() && env::var_os("REDIS_SERVER").is_some();
            assert!(may_lack_it, "{} does not start", program.display());
            let _ = writeln!(stderr(), "\n{} does not start with {:?}\n", program.display(), redis.arguments);
            return None;
        }
        Some(redis)
    }

    pub(crate) fn url(&self) -> String {
        match &self.password {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
        }
    }

    /// What follows this one of the arguments given.
    pub(crate) fn argument(&self, name: &str) -> &str {
        let at = self.arguments.iter().position(|argument| argument == name).unwrap();
        &self.arguments[at + 1]
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.unwrap()
    }

    /// How often it was asked to do something for a store: scripts and subscriptions.
    pub(crate) async fn operations(&self) -> u64 {
        let mut connection = self.connection().await;
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let calls = |line: &str| {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let counts = ["evalsha", "subscribe", "unsubscribe"].contains(&command);
            counts.then(|| rest.split(',').next()?.parse::<u64>().ok()).flatten()
        };
        stats.lines().filter_map(calls).sum()
    }

    /// How many bytes all keys take.
    pub(crate) async fn bytes(&self) -> u64 {
        let mut connection = self.connection().await;
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let mut bytes = 0;
        for key in keys {
            bytes += redis::cmd("MEMORY").arg("USAGE").arg(key).query_async::<u64>(&mut connection).await.unwrap();
        }
        bytes
    }

    /// Stops the server; what it held is gone.
    pub(crate) async fn stop(&mut self) {
        drop(self.keeper.take().unwrap().stdin.take());
        wait_until(async || self.try_connection().await.is_err()).await;
    }

    /// Starts it again, empty, at the same address.
    pub(crate) async fn restart(&mut self) {
        self.spawn(&program().unwrap());
        assert!(self.is_up().await);
    }

    async fn try_connection(&self) -> RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// A port that was free a moment ago may be taken by now.
    async fn launch(&mut self, program: &Path) -> bool {
        for _ in 0..3 {
            self.port = free_port();
            self.spawn(program);
            if self.is_up().await {
                return true;
            }
        }
        false
    }

    fn spawn(&mut self, program: &Path) {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", r#""$@" & server=$!; cat; kill -9 $server; wait"#, "sh"]).arg(program);
        keeper.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        keeper.arg("--dir").arg(self.dir.path()).args(&self.arguments);
        if let Some(password) = &self.password {
            keeper.args(["--requirepass", password]);
        }
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.keeper = Some(keeper.spawn().unwrap());
    }

    async fn is_up(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if let Ok(mut connection) = self.try_connection().await {
                let pid: RedisResult<String> = redis::cmd("INFO").arg("server").query_async(&mut connection).await;
                return pid.is_ok();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come to pass");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A test that did not run must not look like one that passed: says so past the capture of its output, and fails where
/// there is no excuse.
fn missing() {
    static SAID: Once = Once::new();
    let can_install = is_root() && Path::new("/usr/bin/apt-get").exists();
    assert!(!(can_install && env::var("CI").is_ok()), "there is no redis-server; .ci/run installs it");
    SAID.call_once(|| {
        let _ = writeln!(stderr(), "\nTHE TESTS THAT NEED REDIS DID NOT RUN: install redis-server or valkey-server\n");
    });
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Another version than the installed one is named by `REDIS_SERVER`.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(program) = env::var_os("REDIS_SERVER") {
        return Some(program.into());
    }
    let path = env::var_os("PATH")?;
    let places = || env::split_paths(&path);
    ["redis-server", "valkey-server"]
        .iter()
        .find_map(|name| places().map(|dir| dir.join(name)).find(|file| file.is_file()))
}

pub(crate) mod tempdir {
    //! A folder that goes when it is dropped.

    use std::env::temp_dir;
    use std::fs::{create_dir, remove_dir_all};
    use std::path::{Path, PathBuf};
    use std::process::id;
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(crate) struct TempDir(PathBuf);

    impl TempDir {
        pub(crate) fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            loop {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let path = temp_dir().join(format!("tower-oauth2-client-redis-{}-{number}", id()));
                match create_dir(&path) {
                    Ok(()) => return Self(path),
                    // Of a test that was killed, whose process had this number.
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{}", path.display()),
                }
            }
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = remove_dir_all(&self.0);
        }
    }
}
