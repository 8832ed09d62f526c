//! Files and a process that is killed, stopped, or whose clock is set at a step of a renewal: what that costs the next one,
//! and what it costs with a client written by hand.

use std::time::{Duration, Instant};

use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock, serve};

use crate::fleet::{ALONE, expire};
use crate::server::tempdir::TempDir;
use crate::server::wait_until;
use crate::worker::{LEASE, Setup, Worker};

/// How far a renewal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Inside the HTTP client, before anything is sent.
    Before,
    /// The server has redeemed the refresh token, and its answer is on its way.
    Sent,
    /// The answer came.
    After,
    /// The new token is saved, and the lease not yet given back.
    Saved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Kill,
    /// Until the next one has its token, or for three leases.
    Stop,
    /// The machine's time of day, for both processes.
    ClockForward,
    ClockBack,
}

const STEPS: [Step; 4] = [Step::Before, Step::Sent, Step::After, Step::Saved];
const EVENTS: [Event; 4] = [Event::Kill, Event::Stop, Event::ClockForward, Event::ClockBack];

#[derive(Clone, Copy, Debug)]
struct Case {
    step: Step,
    event: Event,
    only_refresh_token: bool,
    naive: bool,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// How long the next one waited for its token; `None`: it has none.
    next: Option<Duration>,
    /// Refresh tokens that were sent a second time.
    reuses: usize,
    /// Whether the next renewal succeeds, without anybody who signs in again.
    goes_on: bool,
}

async fn play(case: Case) -> Outcome {
    let Case { step, event, only_refresh_token, naive } = case;
    let _alone = ALONE.lock().await;
    let dir = TempDir::new();
    let auth = AuthServer::new(TestClock::new()).client("id", "secret").announce_expires_in("1");
    let _ = auth.clone().issue_refresh_tokens();
    let served = serve(auth.clone()).await.unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let setup = Setup {
        store: path("tokens"),
        token_url: served.uri("/token"),
        refresh_token: if only_refresh_token { auth.sign_in("id", "") } else { String::new() },
        clock: path("clock"),
        naive,
        pause: "",
    };
    let mut next = Worker::spawn(&setup).await;
    assert_eq!(next.requests(1).await.ok, 1, "{case:?}");
    let pause = match step {
        Step::Before => "before",
        Step::Sent => "",
        Step::After => "after",
        Step::Saved => "saved",
    };
    let mut holder = Worker::spawn(&Setup { pause, ..setup.clone() }).await;
    expire().await;
    let _ = auth.clone().announce_expires_in("7200");
    if step == Step::Sent {
        match event {
            // Whoever is killed never hears the rest; the others hear it after a moment.
            Event::Kill => auth.script([Fault::HangInBody]),
            _ => drop(auth.clone().latency(LEASE / 2)),
        }
    }
    holder.say("requests 1").await;
    match step {
        Step::Sent => wait_until(async || auth.token_requests() == 2).await,
        _ => drop(holder.hear("paused").await),
    }
    match event {
        Event::Kill => holder.signal("KILL").await,
        Event::Stop => holder.signal("STOP").await,
        Event::ClockForward => std::fs::write(&setup.clock, "3600").unwrap(),
        Event::ClockBack => std::fs::write(&setup.clock, "-3600").unwrap(),
    }
    let begin = Instant::now();
    next.say("requests 10").await;
    let done = async |next: &mut Worker| {
        let done = next.done().await;
        (done.failed == 0).then(|| begin.elapsed())
    };
    let took = match event {
        Event::Kill => done(&mut next).await,
        Event::Stop => {
            let took = done(&mut next).await;
            holder.signal("CONT").await;
            holder.say("continue").await;
            holder.done().await;
            took
        }
        Event::ClockForward | Event::ClockBack => {
            // Time for the lease to be taken away, if it could be.
            tokio::time::sleep(LEASE * 3 / 2).await;
            holder.say("continue").await;
            let took = done(&mut next).await;
            holder.done().await;
            took
        }
    };
    let _ = auth.clone().latency(Duration::ZERO);
    // The first time it may find what the holder has saved; the second one is a renewal.
    let mut goes_on = true;
    for _ in 0..2 {
        next.say("renew 1").await;
        goes_on &= next.done().await.failed == 0;
    }
    Outcome { next: took, reuses: auth.refresh_token_reuses(), goes_on }
}

/// Behaviours 86, 87 and 167, with files, at each step. The rows that cost something are in docs/fleet.md.
#[tokio::test]
async fn a_refresh_token_is_sent_twice_only_where_nobody_can_know_better() {
    for (step, event) in [(Step::Before, Event::Stop), (Step::After, Event::Kill)] {
        check(Case { step, event, only_refresh_token: false, naive: false }).await;
    }
    for step in [Step::Before, Step::After] {
        for event in EVENTS {
            check(Case { step, event, only_refresh_token: true, naive: false }).await;
        }
    }
}

async fn check(case: Case) {
    let outcome = play(case).await;
    let expected = match case {
        Case { only_refresh_token: false, .. } => (true, 0, true),
        // The successor died with its holder: nobody has it, and the server revokes the family.
        Case { step: Step::Sent | Step::After, event: Event::Kill, .. } => (false, 1, false),
        // Stopped between the look at its lease and the first byte on the wire: it sends what its successor has spent.
        Case { step: Step::Before, event: Event::Stop, .. } => (true, 1, false),
        // Stopped with the answer: the next one cannot know that it comes back.
        Case { step: Step::Sent | Step::After, event: Event::Stop, .. } => (false, 1, false),
        _ => (true, 0, true),
    };
    assert_eq!((outcome.next.is_some(), outcome.reuses, outcome.goes_on), expected, "{case:?}: {outcome:?}");
    if let Some(next) = outcome.next {
        assert!(next < LEASE * 6, "{case:?}: {outcome:?}");
    }
}

/// Prints the table of docs/fleet.md.
#[tokio::test]
#[ignore = "takes some minutes: each step, each event, and the client written by hand beside it"]
async fn the_whole_table() {
    println!("| step | event | other grants | RT-only | by hand, other grants | by hand, RT-only |");
    println!("|---|---|---|---|---|---|");
    for step in STEPS {
        for event in EVENTS {
            let mut cells = Vec::new();
            for (naive, only_refresh_token) in [(false, false), (false, true), (true, false), (true, true)] {
                let Outcome { next, reuses, goes_on } = play(Case { step, event, only_refresh_token, naive }).await;
                assert_eq!(reuses == 0, goes_on, "a family is revoked when, and only when, one is sent twice");
                let next = next.map_or("none".to_owned(), |next| format!("{:.2} s", next.as_secs_f64()));
                cells.push(if goes_on { next } else { format!("{next}, **lost**") });
            }
            println!("| {step:?} | {event:?} | {} |", cells.join(" | "));
        }
    }
}
