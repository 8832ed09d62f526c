//! What panics in code that is not the crate's: a source, a clock, a tracing subscriber. And what might in the crate's own:
//! spans of time that no clock can hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthLayer, Clock, External, Now, Token, TokenError, TokenErrorKind, TokenRequest,
};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> AuthConfigBuilder<External> {
    AuthConfig::external().origin("https://api.example.com")
}

/// Behaviours 20 and 137.
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_not_asked_once_for_each_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let source = tower::service_fn({
        let asked = asked.clone();
        move |_: TokenRequest| {
            asked.fetch_add(1, Ordering::SeqCst);
            async {
                if true { panic!("a source's mistake") } else { Ok::<Token, TokenError>(Token::bearer("t").unwrap()) }
            }
        }
    });
    let handle = AuthLayer::with_source(config().clock(TestClock::new()).build().unwrap(), source).handle();
    for _ in 0..1_000 {
        assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::Aborted);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    sleep(SECOND).await;
    handle.token().await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "after a pause");
}

/// Panics when it is read for the nth time.
struct Panics(TestClock, AtomicUsize, usize);

impl Clock for Panics {
    fn now(&self) -> Now {
        assert_ne!(self.1.fetch_add(1, Ordering::SeqCst), self.2, "a clock's mistake");
        self.0.now()
    }
}

/// Behaviour 137.
#[tokio::test(start_paused = true)]
async fn a_clock_that_panics_while_a_refresh_runs_leaves_nobody_waiting() {
    // The first reading is the caller's own.
    for nth in 1..8 {
        let source = tower::service_fn(|_: TokenRequest| async {
            sleep(SECOND).await;
            Ok::<_, TokenError>(Token::bearer("t").unwrap())
        });
        let clock = Panics(TestClock::new(), AtomicUsize::new(0), nth);
        let handle = AuthLayer::with_source(config().clock(clock).build().unwrap(), source).handle();
        let token = timeout(60 * SECOND, handle.token()).await.expect("it hangs").unwrap();
        assert_eq!(token.access_token(), "t");
    }
}

thread_local! {
    /// How many events were told on this thread, where they are counted.
    static EVENTS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Panics at each event but the first, on a thread that counts them. For the whole process: what one thread's subscriber
/// wants is remembered for each event, and others that look first would have it forgotten.
struct Told;

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_oauth2_client")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        let Some(events) = EVENTS.get() else { return };
        EVENTS.set(Some(events + 1));
        // The first is told in the caller, when its refresh has begun.
        assert_eq!(events, 0, "a subscriber's mistake");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Behaviour 137.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_at_the_end_of_a_refresh_takes_nobodys_token() {
    tracing::subscriber::set_global_default(Told).unwrap();
    EVENTS.set(Some(0));
    let source = tower::service_fn(|_: TokenRequest| async { Ok::<_, TokenError>(Token::bearer("t").unwrap()) });
    let handle = AuthLayer::with_source(config().clock(TestClock::new()).build().unwrap(), source).handle();
    assert_eq!(handle.token().await.unwrap().access_token(), "t");
    assert!(EVENTS.get() > Some(1), "it was told, and panicked");
}

/// Behaviour 136.
#[tokio::test(start_paused = true)]
async fn any_duration_is_refused_or_works() {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    type Set = fn(AuthConfigBuilder<External>, Duration) -> AuthConfigBuilder<External>;
    let settings: [(&str, Set); 8] = [
        ("refresh_deadline", |cfg, span| cfg.refresh_deadline(span)),
        ("permanent_failure_pause", |cfg, span| cfg.permanent_failure_pause(span, span)),
        ("permanent_failure_pause, the longest", |cfg, span| cfg.permanent_failure_pause(Duration::ZERO, span)),
        ("backoff", |cfg, span| cfg.backoff(span, span)),
        ("retry_after_cap", |cfg, span| cfg.retry_after_cap(span)),
        ("partition_idle", |cfg, span| cfg.partition_idle(span)),
        ("expiry_margin", |cfg, span| cfg.expiry_margin(span)),
        ("wait_out_pause", |cfg, span| cfg.wait_out_pause(span)),
    ];
    for (name, set) in settings {
        for span in [Duration::ZERO, Duration::from_nanos(1), CENTURY, Duration::MAX] {
            let Ok(cfg) = set(config(), span).clock(TestClock::new()).build() else { continue };
            for fails in [false, true] {
                let asked = Arc::new(AtomicUsize::new(0));
                let source = tower::service_fn({
                    let asked = asked.clone();
                    move |_: TokenRequest| {
                        asked.fetch_add(1, Ordering::SeqCst);
                        async move {
                            if fails {
                                return Err(TokenError::permanent("no").with_retry_after(Duration::MAX));
                            }
                            Ok(Token::bearer("t").unwrap().with_expires_in(Duration::MAX))
                        }
                    }
                });
                let handle = AuthLayer::with_source(cfg.clone(), source).handle();
                for _ in 0..100 {
                    let result = timeout(60 * SECOND, handle.token()).await.expect("it hangs");
                    // A deadline of a nanosecond is over before any answer.
                    assert!(result.is_err() == fails || name == "refresh_deadline", "{name} {span:?}: {result:?}");
                }
                let asked = asked.load(Ordering::SeqCst);
                let no_pause = name == "retry_after_cap" && span < SECOND;
                assert!(asked == 1 || no_pause || name == "refresh_deadline", "{name} {span:?}: asked {asked} times");
            }
        }
    }
}
