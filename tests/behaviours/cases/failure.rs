//! Failure of the token request: told to all, remembered for a while, never a reason to send without a token.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::{Body, Fault};

use crate::cases;
use crate::subject::{
    CLIENT_ID, Client, NotOffered, Offered, SECRET, Setting, Settings, Subject, World, bearer_of, get, send, send_all,
    start, text,
};

cases! {
    /// Behaviour 25.
    25, "100 waiters and a failing server: one token request, 100 equal errors", error_fan_out;
    /// Behaviour 26.
    26, "a straggler's 401 after the failed refresh fails at once", staggered_failure;
    /// Behaviour 27.
    27, "a remembered failure is outlived without a restart", memo_ends;
    /// Behaviour 28.
    28, "the failure for one token is not told to who was rejected with a later one", failure_of_an_older_token;
    /// Behaviour 28.
    28, "the failure for a token is not told to who was rejected with an older one", failure_of_a_newer_token;
    /// Behaviour 29.
    29, "a background failure keeps the valid token", background_failure_keeps_the_token;
    /// Behaviour 30.
    30, "a permanent background failure is told after expiry only, and attempts go on", permanent_background_failure;
    /// Behaviour 31.
    31, "a background failure is not repeated on each request", background_failure_is_not_repeated;
    /// Behaviour 32.
    32, "`invalid_client` is remembered for a short time, which can be set", negative_cache;
    /// Behaviour 32.
    32, "what is remembered can be cleared, and ends with the process", negative_cache_cleared;
    /// Behaviour 33.
    33, "429 with Retry-After: no token request until then, and the error tells the time", retry_after;
    /// Behaviour 33.
    33, "429 with Retry-After: requests go on with a valid token", retry_after_with_a_valid_token;
    /// Behaviour 34.
    34, "Retry-After huge, past, a date or garbage", odd_retry_after;
    /// Behaviour 35.
    35, "a clock set back does not lengthen the pause after a failure", clock_set_back;
    /// Behaviour 36.
    36, "a refusal that is no OAuth answer is not taken for wrong credentials", refusal_by_a_proxy;
    /// Behaviour 37.
    37, "200 with an error, or without a usable token, is a failure", success_without_a_token;
    /// Behaviour 38.
    38, "a huge token answer is not read to its end", huge_answer;
    /// Behaviour 38.
    38, "a slow token answer is not waited for", slow_answer;
    /// Behaviour 39.
    39, "no token, no request", never_unauthenticated;
    /// Behaviour 40.
    40, "a server out of reach is told apart from refused credentials", unreachable;
    /// Behaviour 41.
    41, "callers that retry at once do not multiply token requests", retries_outside;
    /// Behaviour 42.
    42, "no failure is remembered for ever", no_failure_is_for_ever;
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Past every point of background renewal of a token that lives an hour, and before its margin.
const STALE: Duration = Duration::from_secs(3100);
/// Longer than any failure is remembered by default.
const LONGEST_PAUSE: Duration = Duration::from_secs(601);

async fn error_fan_out(subject: Arc<dyn Subject>) -> Offered {
    for fault in [Fault::Status(500), Fault::error("invalid_client"), Fault::Drop, Fault::Html] {
        let world = World::with(|auth| auth.latency(SECOND));
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.always(fault.clone());
        let began = Instant::now();
        let results = send_all(&setup.client, (0..100).map(|_| get("/"))).await;
        assert_eq!(began.elapsed(), SECOND);
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 0), "{fault:?}");
        let errors: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
        let first = setup.control.failure(&errors[0])?;
        assert!(first.no_token);
        for error in &errors {
            assert_eq!(setup.control.failure(error)?, first);
            assert_eq!(error.to_string(), errors[0].to_string());
        }
    }
    Ok(())
}

async fn staggered_failure(subject: Arc<dyn Subject>) -> Offered {
    // Neither pause is nearly over.
    for fault in [Fault::RetryAfter(503, 60), Fault::error("invalid_client")] {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        send(&setup.client, get("/")).await.unwrap();
        world.auth.revoke_all();
        world.auth.always(fault);
        world.api.script([Fault::Slow(50 * MILLISECOND)]);
        let b = start(&setup.client, get("/b"));
        let a = start(&setup.client, get("/a"));
        let a = a.await.unwrap().unwrap();
        assert_eq!(a.status(), 401);
        assert_eq!(world.auth.token_requests(), 2);

        let began = Instant::now();
        let b = b.await.unwrap().unwrap();
        assert_eq!(began.elapsed(), 50 * MILLISECOND);
        assert_eq!(b.status(), 401);
        if let Ok(outcome) = setup.control.outcome(&b) {
            assert!(outcome.failed && !outcome.resent, "{outcome:?}");
        }
        assert_eq!(text(b).await, "unauthorized");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    }
    Ok(())
}

async fn memo_ends(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    for _ in 0..3 {
        let requests = world.auth.token_requests();
        world.auth.script([Fault::Status(500)]);
        assert!(send(&client, get("/")).await.is_err());
        assert!(send(&client, get("/")).await.is_err());
        assert_eq!(world.auth.token_requests(), requests + 1, "the failure was not remembered");
        world.pass(61 * SECOND).await;
    }
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 4);
    Ok(())
}

async fn failure_of_an_older_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    send(&setup.client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.auth.script([Fault::RetryAfter(503, 100)]);
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 401);
    // Another token comes some other way, within the memory of that failure; then it dies too.
    let other = world.token_from_elsewhere().await;
    setup.control.hand_in(&other, None)?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    world.auth.revoke(&other);
    world.pass(SECOND).await;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 4, "one of them is the test's own");
    Ok(())
}

async fn failure_of_a_newer_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(|api| api.deny_path("/denied"));
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.auth.revoke_all();
    world.api.script([Fault::Slow(60 * SECOND)]);
    let straggler = start(&client, get("/straggler"));
    world.pass(SECOND).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    // The refresh of the second token fails, and is remembered beyond the straggler's 401.
    world.pass(30 * SECOND).await;
    world.auth.always(Fault::RetryAfter(503, 100));
    assert_eq!(send(&client, get("/denied")).await.unwrap().status(), 401);
    assert_eq!(world.auth.token_requests(), 3);
    assert_eq!(straggler.await.unwrap().unwrap().status(), 200);
    assert_eq!(bearer_of(&world, "/straggler").last(), world.auth.last_token().as_ref());
    assert_eq!(world.auth.token_requests(), 3);
    Ok(())
}

async fn background_failure_keeps_the_token(subject: Arc<dyn Subject>) -> Offered {
    for fault in [Fault::Status(500), Fault::Drop, Fault::Garbage, Fault::error("invalid_client")] {
        let world = World::new();
        let client = world.client(&subject)?;
        send(&client, get("/")).await.unwrap();
        world.auth.always(fault);
        world.pass(STALE).await;
        // To the last second of its life, the margin included.
        for _ in 0..49 {
            assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
            world.pass(10 * SECOND).await;
        }
        world.pass(9 * SECOND).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        assert_eq!((world.api.hits(), world.api.unauthorized()), (51, 0));
        if world.auth.token_requests() == 1 {
            return Err(NotOffered);
        }
        world.auth.heal();
        world.pass(LONGEST_PAUSE).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    }
    Ok(())
}

async fn permanent_background_failure(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    send(&setup.client, get("/")).await.unwrap();
    world.auth.always(Fault::error("invalid_client"));
    world.pass(STALE).await;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    world.pass(SECOND).await;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    let attempts = world.auth.token_requests();
    if attempts == 1 {
        return Err(NotOffered);
    }
    world.pass(HOUR - STALE).await;
    let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
    assert!(failure.no_token && !failure.is_retryable, "{failure:?}");

    world.pass(LONGEST_PAUSE).await;
    assert!(send(&setup.client, get("/")).await.is_err());
    assert!(world.auth.token_requests() > attempts, "no further attempt");
    world.auth.heal();
    world.pass(LONGEST_PAUSE).await;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    Ok(())
}

async fn background_failure_is_not_repeated(subject: Arc<dyn Subject>) -> Offered {
    // In the ten seconds: not more than one a second, however the pauses are drawn; and one if it is no use to ask again.
    for (fault, most) in [(Fault::Status(500), 11), (Fault::error("invalid_client"), 1)] {
        let world = World::new();
        let client = world.client(&subject)?;
        send(&client, get("/")).await.unwrap();
        world.auth.always(fault);
        world.pass(STALE).await;
        for _ in 0..1000 {
            assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
            world.pass(10 * MILLISECOND).await;
        }
        let attempts = world.auth.token_requests() - 1;
        if attempts == 0 {
            return Err(NotOffered);
        }
        assert!(attempts <= most, "{attempts} token requests");
    }
    Ok(())
}

async fn negative_cache(subject: Arc<dyn Subject>) -> Offered {
    let short = Setting::PermanentFailurePause(5 * SECOND);
    for (more, pause) in [(vec![], 30 * SECOND), (vec![short], 5 * SECOND)] {
        let world = World::new();
        let setup = world.subject(&subject, Settings { more, ..Settings::default() })?;
        world.auth.script([Fault::error("invalid_client")]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert!(!failure.is_retryable, "{failure:?}");
        world.pass(pause - SECOND).await;
        assert!(send(&setup.client, get("/")).await.is_err());
        assert_eq!(world.auth.token_requests(), 1);
        world.pass(2 * SECOND).await;
        assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
        assert_eq!(world.auth.token_requests(), 2);
    }
    Ok(())
}

async fn negative_cache_cleared(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    world.auth.script([Fault::error("invalid_client"), Fault::error("invalid_client")]);
    assert!(send(&setup.client, get("/")).await.is_err());
    setup.control.invalidate()?;
    assert!(send(&setup.client, get("/")).await.is_err());
    assert_eq!(world.auth.token_requests(), 2);
    setup.control.replace_secret(SECRET)?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 3);

    let world = World::new();
    world.auth.script([Fault::error("invalid_client")]);
    assert!(send(&world.client(&subject)?, get("/")).await.is_err());
    let restarted = world.client(&subject)?;
    assert_eq!(send(&restarted, get("/")).await.unwrap().status(), 200);
    Ok(())
}

async fn retry_after(subject: Arc<dyn Subject>) -> Offered {
    for status in [429, 503] {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.script([Fault::RetryAfter(status, 30)]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert!(failure.no_token && failure.is_retryable, "{failure:?}");
        assert_eq!(failure.retry_after, Some(30 * SECOND));
        world.pass(29 * SECOND).await;
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert_eq!(failure.retry_after, Some(SECOND), "it tells how long is left");
        assert_eq!(world.auth.token_requests(), 1);
        world.pass(SECOND).await;
        assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1));
    }
    Ok(())
}

async fn retry_after_with_a_valid_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    send(&client, get("/")).await.unwrap();
    world.pass(STALE).await;
    world.auth.script([Fault::RetryAfter(429, 30)]);
    for _ in 0..29 {
        let began = Instant::now();
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        assert_eq!(began.elapsed(), Duration::ZERO);
        world.pass(SECOND).await;
    }
    if world.auth.token_requests() == 1 {
        return Err(NotOffered);
    }
    assert_eq!(world.auth.token_requests(), 2);
    world.pass(3 * SECOND).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    world.pass(SECOND).await;
    assert_eq!((world.auth.token_requests(), world.api.unauthorized()), (3, 0));
    Ok(())
}

async fn odd_retry_after(subject: Arc<dyn Subject>) -> Offered {
    // The date is two minutes after the time at which a world begins.
    let exact = [("Thu, 01 Jan 2026 00:02:00 GMT", 120), ("7", 7), ("0000000010", 10)];
    for (value, seconds) in exact {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.script([too_many(value)]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert_eq!(failure.retry_after, Some(Duration::from_secs(seconds)), "{value}");
        world.pass(Duration::from_secs(seconds - 1)).await;
        assert!(send(&setup.client, get("/")).await.is_err());
        assert_eq!(world.auth.token_requests(), 1, "{value}");
        world.pass(SECOND).await;
        assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200, "{value}");
    }

    let huge = ["4000000000", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"];
    let past = ["Wed, 21 Oct 2015 07:28:00 GMT", "0"];
    let garbage = ["", "-5", "soon", "1e9", "12 parsecs", "NaN", "Thu, 32 Jan 2026 25:00:00 GMT"];
    for value in huge.into_iter().chain(past).chain(garbage) {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.script([too_many(value)]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        let pause = failure.retry_after.unwrap_or_default();
        if huge.contains(&value) {
            assert_eq!(pause, 300 * SECOND, "{value}: a long pause, but capped");
        } else {
            assert!(pause <= SECOND, "{value}: {pause:?}");
        }
        world.pass(pause + MILLISECOND).await;
        assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200, "{value}");
        assert_eq!(world.auth.token_requests(), 2, "{value}");
    }
    Ok(())
}

async fn clock_set_back(subject: Arc<dyn Subject>) -> Offered {
    for fault in [Fault::RetryAfter(429, 30), Fault::error("invalid_client")] {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.script([fault]);
        assert!(send(&client, get("/")).await.is_err());
        world.pass(10 * SECOND).await;
        world.clock.set_wall_back(HOUR);
        assert!(send(&client, get("/")).await.is_err());
        world.pass(21 * SECOND).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        assert_eq!(world.auth.token_requests(), 2);
    }
    Ok(())
}

async fn refusal_by_a_proxy(subject: Arc<dyn Subject>) -> Offered {
    const PAGE: &str = "<!doctype html><title>Blocked</title>";
    let pages = [(400, "text/html"), (401, "text/html"), (403, "text/html"), (404, "text/plain"), (502, "text/html")];
    for (status, content_type) in pages {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.script([respond(status, content_type, PAGE)]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert!(failure.no_token && failure.is_retryable, "{status}: {failure:?}");
        world.pass(SECOND).await;
        assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200, "{status}");
    }
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    world.auth.script([respond(400, "application/json", r#"{"error":"invalid_client"}"#)]);
    let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
    assert!(!failure.is_retryable, "{failure:?}");
    Ok(())
}

async fn success_without_a_token(subject: Arc<dyn Subject>) -> Offered {
    let answers = [
        r#"{"error":"invalid_scope"}"#,
        r#"{"error":"invalid_client","access_token":"leftover","token_type":"Bearer","expires_in":3600}"#,
        r#"{}"#,
        r#"{"token_type":"Bearer","expires_in":3600}"#,
        r#"{"access_token":"","token_type":"Bearer","expires_in":3600}"#,
        r#"{"access_token":null,"token_type":"Bearer","expires_in":3600}"#,
        r#"{"access_token":42,"token_type":"Bearer","expires_in":3600}"#,
        r#"{"access_token":["a"],"token_type":"Bearer","expires_in":3600}"#,
        r#"{"access_token":"two\nlines","token_type":"Bearer","expires_in":3600}"#,
        r#"["access_token"]"#,
        "null",
        "",
    ];
    for answer in answers {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.script([Fault::Body(Bytes::from_static(answer.as_bytes()))]);
        assert!(send(&client, get("/")).await.is_err(), "{answer}");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 0), "{answer}");
        world.pass(LONGEST_PAUSE).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200, "{answer}");
    }
    Ok(())
}

async fn huge_answer(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let read = Arc::new(AtomicUsize::new(0));
    let counted = read.clone();
    let auth: Client = BoxCloneSyncService::new(world.auth.clone());
    let token_client = auth.map_response(move |response: Response<Body>| {
        response.map(|inner| Counted { inner, read: counted.clone() }.boxed_unsync())
    });
    let token_client = Some(BoxCloneSyncService::new(token_client));
    let client = world.subject(&subject, Settings { token_client, ..Settings::default() })?.client;
    world.auth.script([Fault::Huge]);
    assert!(send(&client, get("/")).await.is_err());
    let read = read.load(Ordering::Relaxed);
    assert!(read <= 2 * 1024 * 1024, "{read} bytes were read");
    world.pass(LONGEST_PAUSE).await;
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    Ok(())
}

async fn slow_answer(subject: Arc<dyn Subject>) -> Offered {
    for fault in [Fault::Drip(SECOND), Fault::Slow(HOUR), Fault::HangInBody] {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.script([fault.clone()]);
        let began = Instant::now();
        assert!(send(&client, get("/")).await.is_err(), "{fault:?}");
        assert!(began.elapsed() <= 30 * SECOND, "{fault:?}: {:?}", began.elapsed());
        world.pass(SECOND).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200, "{fault:?}");
    }
    Ok(())
}

async fn never_unauthenticated(subject: Arc<dyn Subject>) -> Offered {
    let faults = [
        Fault::Status(500),
        Fault::RetryAfter(429, 1),
        Fault::error("invalid_client"),
        Fault::error("invalid_scope"),
        Fault::Garbage,
        Fault::Html,
        Fault::Huge,
        Fault::Redirect("https://elsewhere.example/token".into()),
        Fault::Drip(SECOND),
        Fault::Hang,
        Fault::HangInBody,
        Fault::Drop,
        Fault::DropInBody,
        Fault::LoseAnswer,
    ];
    for fault in faults {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.always(fault.clone());
        for pause in [Duration::ZERO, SECOND, LONGEST_PAUSE] {
            world.pass(pause).await;
            assert!(send(&client, get("/")).await.is_err(), "{fault:?}");
        }
        assert_eq!(world.api.hits(), 0, "{fault:?}");
    }
    Ok(())
}

async fn unreachable(subject: Arc<dyn Subject>) -> Offered {
    let mut failures = Vec::new();
    for fault in [Fault::Drop, Fault::error("invalid_client")] {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.script([fault]);
        let failure = setup.control.failure(&send(&setup.client, get("/")).await.unwrap_err())?;
        assert!(failure.no_token);
        failures.push(failure);
    }
    assert!(failures[0].is_retryable && !failures[1].is_retryable, "{failures:?}");
    assert_ne!(failures[0].class, failures[1].class);
    Ok(())
}

async fn retries_outside(subject: Arc<dyn Subject>) -> Offered {
    for fault in [Fault::error("invalid_client"), Fault::error("invalid_scope"), Fault::RetryAfter(503, 30)] {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.always(fault.clone());
        for _ in 0..100 {
            assert!(send(&client, get("/")).await.is_err());
            world.pass(100 * MILLISECOND).await;
        }
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 0), "{fault:?}");
    }
    Ok(())
}

async fn no_failure_is_for_ever(subject: Arc<dyn Subject>) -> Offered {
    let faults = [
        Fault::Status(500),
        Fault::RetryAfter(503, 1_000_000),
        Fault::error("invalid_client"),
        Fault::error("invalid_scope"),
        Fault::error("invalid_grant"),
        Fault::Html,
        Fault::Drop,
        Fault::Redirect("https://elsewhere.example/token".into()),
    ];
    for fault in faults {
        let world = World::new();
        let client = world.client(&subject)?;
        world.auth.always(fault.clone());
        for _ in 0..360 {
            assert!(send(&client, get("/")).await.is_err());
            world.pass(10 * SECOND).await;
        }
        let attempts = world.auth.token_requests();
        assert!((6..=360).contains(&attempts), "{fault:?}: {attempts} attempts in an hour");
        world.auth.heal();
        world.pass(LONGEST_PAUSE).await;
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200, "{fault:?}");
    }

    // A grant that has ended is for ever, until another one is handed in.
    let world = World::new();
    let refresh_token = Some(world.auth.sign_in(CLIENT_ID, ""));
    let setup = world.subject(&subject, Settings { refresh_token, ..Settings::default() })?;
    world.auth.revoke_refresh_tokens();
    assert!(send(&setup.client, get("/")).await.is_err());
    let again = world.auth.sign_in(CLIENT_ID, "");
    setup.control.hand_in(&world.token_from_elsewhere().await, Some(&again))?;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    world.pass(2 * HOUR).await;
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    Ok(())
}

fn too_many(retry_after: &'static str) -> Fault {
    let response = Response::builder().status(429).header("retry-after", retry_after).body(Bytes::new());
    Fault::Respond(response.unwrap())
}

fn respond(status: u16, content_type: &'static str, body: &'static str) -> Fault {
    let response = Response::builder().status(status).header("content-type", content_type);
    Fault::Respond(response.body(Bytes::from_static(body.as_bytes())).unwrap())
}

/// Counts the bytes that are taken out of it.
struct Counted {
    inner: Body,
    read: Arc<AtomicUsize>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(Some(data))) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            self.read.fetch_add(data.len(), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }
}
