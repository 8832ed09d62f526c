//! Peers that mean harm, or are ill, on real sockets: each request is answered, no more is asked than must be, nothing is told,
//! memory and connections stay bounded, and all is well once the peer is.
//!
//! Time is real here: what hangs is ended by timeouts of the configuration. Order and counts are asserted, never durations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod api;
mod bytes;
#[path = "../support/peer.rs"]
mod peer;
mod runtimes;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../support/tls.rs"]
mod tls;
mod token;
mod windows;

use std::error::Error as StdError;
use std::iter::successors;
use std::time::Duration;

use allocation_counter::measure;

use peer::Step;

/// For what hangs. A good peer on this machine answers long before, also while it compiles something.
const PATIENCE: Duration = Duration::from_secs(3);
/// No more memory than this is needed at a time, whatever a peer sends: what HTTP/2 lets be in flight, and twenty requests.
const MOST_MEMORY: u64 = 12 * 1024 * 1024;
/// Nor is more read: that, and what the kernel has room for on both sides.
const MOST_READ: u64 = 32 * 1024 * 1024;
const GIGABYTE: u64 = 1 << 30;

/// One way to misbehave.
struct Case {
    name: &'static str,
    steps: Vec<Step>,
}

fn case(name: &'static str, steps: impl IntoIterator<Item = Step>) -> Case {
    Case { name, steps: steps.into_iter().collect() }
}

/// Each case on a thread and a runtime of its own, whose memory is counted.
fn each<T: Send>(cases: Vec<T>, name: fn(&T) -> &'static str, run: impl AsyncFn(T) + Copy + Send) {
    let failed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .into_iter()
            .map(|case| {
                let name = name(&case);
                let thread = scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let memory = measure(|| runtime.block_on(run(case)));
                    assert!(memory.bytes_max < MOST_MEMORY, "{} bytes of memory at a time", memory.bytes_max);
                });
                (name, thread)
            })
            .collect();
        threads.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "what failed (the panics are above): {failed:?}");
}

/// All that an error says, its causes included; nothing of it is a secret.
fn told(error: &(dyn StdError + 'static)) -> String {
    let chain = successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source());
    chain.map(|error| format!("{error} {error:?} {error:#?}\n")).collect()
}
