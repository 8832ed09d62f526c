//! What every [`TokenStore`] must do, whatever it is made of: within one process, and over two.
#![allow(clippy::panic, clippy::unwrap_used, reason = "here a panic is the report")]

use std::env;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Secret;
use crate::store::{Fence, Lease, Saved, StoreKey, TokenStore, Value, Version};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);
/// Time for a store to notice something, on a busy machine.
const SLACK: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(10);

/// Holds a store to everything that [`TokenStore`] says, and panics where it does something else.
///
/// It uses the eleven keys whose 32 bytes are all the same number from 1 to 11, under which nothing may be stored, and
/// leaves values there. It takes some seconds, of real time unless the store's clock follows tokio's.
///
/// ```
/// use tower_oauth2_client::store::MemoryStore;
/// use tower_oauth2_client::test_util::store_conforms;
///
/// # tokio_test::block_on(async {
/// store_conforms(&MemoryStore::new()).await;
/// # });
/// ```
pub async fn store_conforms(store: &impl TokenStore) {
    saving(store, &key(1)).await;
    leasing(store, &key(2)).await;
    a_stale_holder(store, &key(3)).await;
    a_lease_ends(store, &key(4)).await;
    a_lease_is_renewed(store, &key(5)).await;
    a_value_expires(store, &key(6)).await;
    watching(store, &key(7)).await;
    one_of_many(store, &key(8)).await;
    removing(store, &key(9)).await;
    bytes_are_kept_as_they_are(store, &key(10)).await;
    only_the_holder_saves(store, &key(11)).await;
}

fn key(seed: u8) -> StoreKey {
    StoreKey::from([seed; 32])
}

fn value(text: &str, lives_for: Duration) -> Value {
    Value::new(Secret::new(text.as_bytes().to_vec()), lives_for)
}

async fn acquire(store: &impl TokenStore, key: &StoreKey, duration: Duration) -> (Fence, bool) {
    match store.lease(key, duration).await.unwrap() {
        Lease::Acquired { fence, abandoned } => (fence, abandoned),
        Lease::Held => panic!("`lease`: somebody has it, though nobody should"),
    }
}

async fn save(store: &impl TokenStore, key: &StoreKey, text: &str, expected: Version, fence: Fence) -> Version {
    match store.save(key, &value(text, HOUR), expected, fence).await.unwrap() {
        Saved::Done(version) => version,
        refused => panic!("`save`: {refused:?}, though the lease and the version are right"),
    }
}

async fn text(store: &impl TokenStore, key: &StoreKey) -> Option<(String, Version)> {
    let stored = store.load(key).await.unwrap()?;
    Some((String::from_utf8(stored.bytes.expose().clone()).unwrap(), stored.version))
}

async fn saving(store: &impl TokenStore, key: &StoreKey) {
    assert_eq!(text(store, key).await, None, "`load`: something is stored under a key that must be free");
    let (fence, _) = acquire(store, key, HOUR).await;
    let first = save(store, key, "one", Version::default(), fence).await;
    assert!(first > Version::default(), "`save`: the version zero is that of nothing");
    assert_eq!(text(store, key).await, Some(("one".to_owned(), first)));

    let again = store.save(key, &value("two", HOUR), Version::default(), fence).await.unwrap();
    assert_eq!(again, Saved::Conflict, "`save`: the version that was expected is not there any more");
    assert_eq!(text(store, key).await, Some(("one".to_owned(), first)));

    let second = save(store, key, "two", first, fence).await;
    assert!(second > first, "`save`: versions grow");
    assert_eq!(text(store, key).await, Some(("two".to_owned(), second)));
    store.release(key, fence).await.unwrap();
    assert_eq!(text(store, key).await, Some(("two".to_owned(), second)), "`release` removes no value");
}

async fn leasing(store: &impl TokenStore, key: &StoreKey) {
    let (first, abandoned) = acquire(store, key, HOUR).await;
    assert!(!abandoned, "`lease`: nobody had it before");
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held);
    assert_eq!(text(store, key).await, None, "a lease is no value");
    store.release(key, first).await.unwrap();
    store.release(key, first).await.unwrap();
    let (second, abandoned) = acquire(store, key, HOUR).await;
    assert!(second > first, "`lease`: fences grow");
    assert!(!abandoned, "`lease`: the one before was given back");
}

async fn a_stale_holder(store: &impl TokenStore, key: &StoreKey) {
    let (stale, _) = acquire(store, key, SHORT).await;
    ended(store, key, SHORT).await;
    let (fence, abandoned) = acquire(store, key, HOUR).await;
    assert!(fence > stale && abandoned, "`lease`: the one before ended and was not given back");

    let late = store.save(key, &value("late", HOUR), Version::default(), stale).await.unwrap();
    assert_eq!(late, Saved::Fenced, "`save` under an older lease");
    let version = save(store, key, "good", Version::default(), fence).await;
    let late = store.save(key, &value("late", HOUR), version, stale).await.unwrap();
    assert_eq!(late, Saved::Fenced, "`save` under an older lease");
    assert!(!store.renew(key, stale, HOUR).await.unwrap(), "`renew` of an older lease");
    store.release(key, stale).await.unwrap();
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held, "`release` by somebody who has not got it");
    assert_eq!(text(store, key).await, Some(("good".to_owned(), version)));
}

async fn a_lease_ends(store: &impl TokenStore, key: &StoreKey) {
    let (first, _) = acquire(store, key, SHORT).await;
    ended(store, key, SHORT).await;
    assert!(!store.renew(key, first, HOUR).await.unwrap(), "`renew`: it has ended");
    // Nobody else took it: the late holder may still save.
    save(store, key, "one", Version::default(), first).await;
}

async fn a_lease_is_renewed(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, SHORT).await;
    assert!(store.renew(key, fence, HOUR).await.unwrap(), "`renew`: it is ours");
    sleep(SHORT + SLACK).await;
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held, "`renew` counts from now");
    store.release(key, fence).await.unwrap();
    assert!(!store.renew(key, fence, HOUR).await.unwrap(), "`renew`: it was given back");
}

async fn a_value_expires(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, HOUR).await;
    let Saved::Done(version) = store.save(key, &value("one", SHORT), Version::default(), fence).await.unwrap() else {
        panic!("`save`: it was not stored");
    };
    sleep(SHORT + SLACK).await;
    assert_eq!(text(store, key).await, None, "`load`: the value has expired");
    let next = save(store, key, "two", Version::default(), fence).await;
    assert!(next > version, "`save`: a version came twice");
}

async fn watching(store: &impl TokenStore, key: &StoreKey) {
    let none = Version::default();
    let soon = async |version| {
        assert!(timeout(SOON, store.changed(key, version)).await.is_ok(), "`changed` does not resolve");
    };
    let (fence, _) = acquire(store, key, HOUR).await;

    assert!(wakes(store, key, none).await <= 2, "`changed` resolves again and again, though nothing happened");
    let mut version = none;
    let saving = async {
        // So that it waits already.
        sleep(SLACK).await;
        version = save(store, key, "one", none, fence).await;
    };
    join(soon(none), saving).await;
    soon(none).await;

    assert!(wakes(store, key, version).await <= 2, "`changed` resolves again and again, though nothing happened");
    let releasing = async {
        sleep(SLACK).await;
        store.release(key, fence).await.unwrap();
    };
    join(soon(version), releasing).await;

    acquire(store, key, SHORT).await;
    soon(version).await;
}

/// How often it is worth looking again while nothing happens. Once for no reason is allowed; all the time is not.
async fn wakes(store: &impl TokenStore, key: &StoreKey, since: Version) -> usize {
    // Counted rather than timed alone: one that never waits would leave no timer a chance.
    const MANY: usize = 100;
    let until = Instant::now() + SHORT * 2;
    for wakes in 0..MANY {
        if timeout(until.saturating_duration_since(Instant::now()), store.changed(key, since)).await.is_err() {
            return wakes;
        }
    }
    MANY
}

async fn one_of_many(store: &impl TokenStore, key: &StoreKey) {
    let leases = join_all((0..50).map(|_| store.lease(key, HOUR))).await;
    let acquired = leases.into_iter().filter(|lease| matches!(lease, Ok(Lease::Acquired { .. }))).count();
    assert_eq!(acquired, 1, "`lease`: 50 at once, and so many have it");
}

async fn removing(store: &impl TokenStore, key: &StoreKey) {
    store.remove(key).await.unwrap();
    let (before, _) = acquire(store, key, HOUR).await;
    save(store, key, "one", Version::default(), before).await;
    store.remove(key).await.unwrap();
    assert_eq!(text(store, key).await, None, "`remove` leaves no value");
    let (fence, _) = acquire(store, key, HOUR).await;
    let late = store.save(key, &value("late", HOUR), Version::default(), before).await.unwrap();
    assert_eq!(late, Saved::Fenced, "`save` under a lease that was removed");
    save(store, key, "two", Version::default(), fence).await;
}

async fn bytes_are_kept_as_they_are(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, HOUR).await;
    let mut version = Version::default();
    let long: Vec<u8> = (0..100_000_u32).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    for bytes in [vec![], vec![0, 0xff, b'\n', 0], long] {
        let value = Value::new(Secret::new(bytes.clone()), HOUR);
        let Saved::Done(saved) = store.save(key, &value, version, fence).await.unwrap() else {
            panic!("`save`: {} bytes were not stored", bytes.len())
        };
        version = saved;
        let stored = store.load(key).await.unwrap();
        let is_same = stored.is_some_and(|stored| *stored.bytes.expose() == bytes);
        assert!(is_same, "`load`: {} bytes did not come back as they were saved", bytes.len());
    }
}

async fn only_the_holder_saves(store: &impl TokenStore, key: &StoreKey) {
    let (fence, _) = acquire(store, key, HOUR).await;
    for other in [fence.0.wrapping_sub(1), fence.0.saturating_add(1), 0] {
        let saved = store.save(key, &value("none", HOUR), Version::default(), Fence(other)).await.unwrap();
        assert_eq!(saved, Saved::Fenced, "`save` under a fence that nobody was given");
    }
    assert_eq!(text(store, key).await, None);
}

/// Waits until a lease that was taken just now has ended, in time rather than in the store's words.
async fn ended(store: &impl TokenStore, key: &StoreKey, duration: Duration) {
    let end = Instant::now() + duration + SLACK;
    assert_eq!(store.lease(key, HOUR).await.unwrap(), Lease::Held, "`lease` was taken and goes on");
    sleep_until(end).await;
}

/// Holds a store that processes share to the same, over two processes: what one does, the other sees; the lease of a
/// process that was killed ends; a thousand changes by both lose none.
///
/// `test` is the name of the calling test as `cargo test` prints it: the program of the test is run a second time, with
/// that test alone, and then does what it is told instead. `address` says where the store is, for `open` in both
/// processes. It uses the keys 21 to 25, as [`store_conforms`] does others, and takes some seconds of real time.
///
/// ```no_run
/// use tower_oauth2_client::store::FileStore;
/// use tower_oauth2_client::test_util::store_conforms_across_processes;
///
/// #[tokio::test]
/// async fn two_processes() {
///     let directory = std::env::temp_dir().join("my-store");
///     store_conforms_across_processes("two_processes", directory.to_str().unwrap(), |path| FileStore::new(path)).await;
/// }
/// ```
pub async fn store_conforms_across_processes<S: TokenStore>(test: &str, address: &str, open: impl Fn(&str) -> S) {
    if let Ok(address) = env::var(ADDRESS) {
        serve(&open(&address)).await;
        std::process::exit(0);
    }
    let store = open(address);
    let mut other = Other::start(test, address);

    // What one does, the other sees.
    let (fence, _) = other.acquire(21, HOUR);
    assert_eq!(store.lease(&key(21), HOUR).await.unwrap(), Lease::Held, "another process has the lease");
    let version = other.save(21, "theirs", Version::default(), fence);
    assert_eq!(text(&store, &key(21)).await, Some(("theirs".to_owned(), version)));
    other.say(&format!("release 21 {}", fence.0));
    let (ours, abandoned) = acquire(&store, &key(21), HOUR).await;
    assert!(ours > fence && !abandoned);
    let late = other.ask(&format!("save 21 late {} {}", version.0, fence.0));
    assert_eq!(late, "fenced", "`save` of another process, under a lease that it gave back");
    let version = save(&store, &key(21), "ours", version, ours).await;
    assert_eq!(other.ask("load 21"), format!("ours {}", version.0));

    // Who waits hears of what another process does.
    let (fence, _) = other.acquire(22, HOUR);
    other.send(&format!("later 22 {}", fence.0));
    let heard = timeout(SOON, store.changed(&key(22), Version::default())).await;
    assert!(heard.is_ok(), "`changed` does not resolve when another process saves");
    assert_eq!(other.hear(), "saved");
    other.say(&format!("release 22 {}", fence.0));

    // Both count, under the lease and without: nothing is lost.
    other.send("count 23");
    count(&store, &key(23)).await;
    assert_eq!(other.hear(), "counted");
    let counted = text(&store, &key(23)).await.map(|(text, _)| text);
    assert_eq!(counted, Some((2 * COUNTS).to_string()), "two processes counted, and changes were lost");

    // The lease of a process that is killed ends, and the next holder is told.
    let (dead, _) = other.acquire(24, SHORT * 2);
    let (_, _) = other.acquire(25, HOUR);
    other.kill();
    let begin = Instant::now();
    let abandoned = loop {
        match store.lease(&key(24), HOUR).await.unwrap() {
            Lease::Acquired { fence, abandoned } => {
                assert!(fence > dead, "fences grow");
                break abandoned;
            }
            Lease::Held => assert!(begin.elapsed() < SOON, "the lease of a process that was killed does not end"),
        }
        let _ = timeout(SOON, store.changed(&key(24), Version::default())).await;
    };
    assert!(abandoned, "the process that had the lease was killed, and `lease` does not say so");
}

const ADDRESS: &str = "TOWER_OAUTH2_CLIENT_STORE_CONFORMANCE";
const COUNTS: usize = 500;

/// Adds one so many times, taking turns with others.
async fn count(store: &impl TokenStore, key: &StoreKey) {
    let mut counted = 0;
    while counted < COUNTS {
        let Lease::Acquired { fence, .. } = store.lease(key, HOUR).await.unwrap() else {
            let _ = timeout(SLACK, store.changed(key, Version(u64::MAX))).await;
            continue;
        };
        // Some at a time: it is not the lease that is tried here.
        for _ in 0..25.min(COUNTS - counted) {
            let (before, version) = text(store, key).await.unwrap_or_default();
            let next = before.parse::<usize>().unwrap_or_default() + 1;
            save(store, key, &next.to_string(), version, fence).await;
            counted += 1;
        }
        store.release(key, fence).await.unwrap();
        // So that the other has a chance.
        sleep(Duration::from_millis(1)).await;
    }
}

/// The other process, as the first one sees it. What it is told is a line, and so is what it answers.
struct Other {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// Tells its lines from what the test harness prints.
const MARK: &str = "store-conformance: ";

impl Other {
    fn start(test: &str, address: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--include-ignored"]).env(ADDRESS, address);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut other = Self { process, input, output: BufReader::new(output).lines() };
        assert_eq!(other.hear(), "ready");
        other
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        loop {
            let line = self.output.next().expect_line();
            // The harness may have printed the test's name before it, without an end of the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.to_owned();
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.hear()
    }

    fn say(&mut self, line: &str) {
        assert_eq!(self.ask(line), "done", "{line}");
    }

    fn acquire(&mut self, key: u8, duration: Duration) -> (Fence, bool) {
        let answer = self.ask(&format!("lease {key} {}", duration.as_millis()));
        let (fence, abandoned) =
            answer.split_once(' ').unwrap_or_else(|| panic!("`lease` in another process: {answer}"));
        (Fence(fence.parse().unwrap()), abandoned == "true")
    }

    fn save(&mut self, key: u8, text: &str, expected: Version, fence: Fence) -> Version {
        let answer = self.ask(&format!("save {key} {text} {} {}", expected.0, fence.0));
        Version(answer.parse().unwrap_or_else(|_| panic!("`save` in another process: {answer}")))
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

trait ExpectLine {
    fn expect_line(self) -> String;
}

impl ExpectLine for Option<io::Result<String>> {
    fn expect_line(self) -> String {
        match self {
            Some(Ok(line)) => line,
            _ => panic!("the other process has ended; is `test` the name of the calling test?"),
        }
    }
}

/// The other process: does what it is told, until its input ends.
async fn serve(store: &impl TokenStore) {
    let answer = |said: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{MARK}{said}").and_then(|()| out.flush()).unwrap();
    };
    answer("ready");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        let key = key(u8::try_from(number(1)).unwrap_or_default());
        match words.first().copied() {
            Some("lease") => match store.lease(&key, Duration::from_millis(number(2))).await.unwrap() {
                Lease::Acquired { fence, abandoned } => answer(&format!("{} {abandoned}", fence.0)),
                Lease::Held => answer("held"),
            },
            Some("save") => {
                let text = words.get(2).copied().unwrap_or_default();
                match store.save(&key, &value(text, HOUR), Version(number(3)), Fence(number(4))).await.unwrap() {
                    Saved::Done(version) => answer(&version.0.to_string()),
                    Saved::Conflict => answer("conflict"),
                    Saved::Fenced => answer("fenced"),
                }
            }
            Some("load") => match text(store, &key).await {
                Some((text, version)) => answer(&format!("{text} {}", version.0)),
                None => answer("nothing"),
            },
            Some("release") => {
                store.release(&key, Fence(number(2))).await.unwrap();
                answer("done");
            }
            Some("later") => {
                sleep(SHORT).await;
                save(store, &key, "later", Version::default(), Fence(number(2))).await;
                answer("saved");
            }
            Some("count") => {
                count(store, &key).await;
                answer("counted");
            }
            _ => panic!("not understood: {line}"),
        }
    }
}
