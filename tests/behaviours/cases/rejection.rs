//! 401 and what looks like it: when a refresh is worth it, and what the caller gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::Instant;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer, service_fn};
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::{Api, AuthServer, Body, Fault, both};

use crate::cases;
use crate::subject::{
    CLIENT_ID, Client, NotOffered, Offered, Outcome, SECRET, Setting, Settings, Setup, Subject, Tenancy, World,
    for_tenant, get, post, send, send_all, text,
};

cases! {
    /// Behaviour 43.
    43, "a second 401 is handed out with its body, after one refresh and two sendings", second_rejection;
    /// Behaviour 44.
    44, "the response handed out is the second one", second_response;
    /// Behaviour 45.
    45, "a refresh that fails hands out the original 401, whole, with the failure attached", failed_refresh;
    /// Behaviour 46.
    46, "the same token again: no resend, the original 401, and no further token request", same_token;
    /// Behaviour 47.
    47, "an API that always says 401 costs a bounded number of token requests", always_rejected;
    /// Behaviour 48.
    48, "a token endpoint that answers 401 is not asked recursively", token_endpoint_401;
    /// Behaviour 49.
    49, "token requests through the same client carry a skip marker and pass", token_endpoint_behind_itself;
    /// Behaviour 50.
    50, "token requests under the API's own concurrency limit of one do not deadlock", shared_limit;
    /// Behaviour 51.
    51, "what another token would not change is not refreshed", not_the_token;
    /// Behaviour 52.
    52, "a bare 401 refreshes", bare_401;
    /// Behaviour 52.
    52, "a 401 with foreign challenges refreshes, bounded", foreign_challenges;
    /// Behaviour 53.
    53, "challenges are read as the grammar has them", challenge_grammar;
    /// Behaviour 54.
    54, "407 is not 401", proxy_rejection;
    /// Behaviour 55.
    55, "two layers send a request at most twice", stacked;
    /// Behaviour 55.
    55, "a second sending is passed through by an inner layer", stacked_resend;
    /// Behaviour 56.
    56, "a 401's body is read to its end before the second sending", drained;
    /// Behaviour 57.
    57, "extra headers are on every sending, once each", extra_headers;
    /// Behaviour 58.
    58, "the second sending has one Authorization, the new one", one_authorization;
    /// Behaviour 59.
    59, "the caller's Authorization is replaced", callers_replaced;
    /// Behaviour 59.
    59, "the caller's Authorization is kept where configured, and its 401 is the caller's", callers_kept;
    /// Behaviour 59.
    59, "the caller's Authorization is refused where configured", callers_refused;
    /// Behaviour 60.
    60, "layers outside see one request, layers inside each sending", side_effects;
}

/// Another 401: its text, and its challenges.
fn rejection(text: &'static str, challenges: &[&'static str]) -> Fault {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    for challenge in challenges {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge.parse().unwrap());
    }
    Fault::Respond(response)
}

/// The client has a token and has used it.
async fn warm(client: &Client, world: &World) {
    assert_eq!(send(client, get("/warm")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 1));
}

async fn second_rejection(subject: Arc<dyn Subject>) -> Offered {
    for challenges in [&[][..], &["Bearer error=\"invalid_token\""]] {
        let world = World::new();
        let client = world.client(&subject)?;
        warm(&client, &world).await;
        world.api.always(rejection("nothing for you", challenges));
        let response = send(&client, get("/")).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers().get_all(WWW_AUTHENTICATE).iter().count(), challenges.len());
        assert_eq!(text(response).await, "nothing for you");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1 + 2));
    }
    Ok(())
}

async fn second_response(subject: Arc<dyn Subject>) -> Offered {
    for status in [200, 401, 403, 404, 500] {
        let world = World::new();
        let client = world.client(&subject)?;
        warm(&client, &world).await;
        let second = Response::builder().status(status).header("x-sending", "2").body(Bytes::from("second")).unwrap();
        world.api.script([rejection("first", &[]), Fault::Respond(second)]);
        let response = send(&client, get("/")).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().contains_key("x-sending")), (status, true));
        assert_eq!(text(response).await, "second");
        assert_eq!(world.api.hits(), 1 + 2);
    }
    Ok(())
}

async fn failed_refresh(subject: Arc<dyn Subject>) -> Offered {
    for failure in [Fault::Status(503), Fault::error("invalid_client"), Fault::Drop, Fault::Html, Fault::Hang] {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        warm(&setup.client, &world).await;
        world.auth.always(failure.clone());
        world.api.script([rejection("original", &["Bearer error=\"invalid_token\""])]);
        let response = send(&setup.client, get("/")).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 2));
        let outcome = setup.control.outcome(&response)?;
        assert!(outcome.failed && !outcome.resent, "{failure:?}: {outcome:?}");
        assert_eq!(text(response).await, "original");
    }
    Ok(())
}

async fn same_token(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    warm(&setup.client, &world).await;
    world.auth.always(Fault::SameToken);
    world.api.script([rejection("original", &[]), rejection("another", &[])]);
    let response = send(&setup.client, get("/")).await.unwrap();
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 2));
    let expected = Outcome { refreshed: true, same_token: true, ..Outcome::default() };
    assert_eq!(setup.control.outcome(&response)?, expected);
    assert_eq!((response.status().as_u16(), text(response).await), (401, "original".to_owned()));

    let response = send(&setup.client, get("/")).await.unwrap();
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    assert!(setup.control.outcome(&response)?.suppressed);
    assert_eq!((response.status().as_u16(), text(response).await), (401, "another".to_owned()));
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200, "the token is used still");
    Ok(())
}

async fn always_rejected(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(|api| api.deny_path("/"));
    let setup = world.subject(&subject, Settings::default())?;
    let mut suppressed = 0;
    for _ in 0..1000 {
        let response = send(&setup.client, get("/")).await.unwrap();
        assert_eq!(response.status(), 401);
        let outcome = setup.control.outcome(&response)?;
        assert_ne!(outcome.suppressed, outcome.refreshed, "{outcome:?}");
        suppressed += usize::from(outcome.suppressed);
        world.pass(Duration::from_millis(30)).await;
    }
    let token_requests = world.auth.token_requests();
    assert!(token_requests <= 13, "{token_requests} token requests");
    // All but the first token request were refreshes, and the request of each was sent twice.
    assert_eq!(suppressed, 1000 - (token_requests - 1));
    assert_eq!(world.api.hits(), 1000 + (token_requests - 1));
    Ok(())
}

async fn token_endpoint_401(subject: Arc<dyn Subject>) -> Offered {
    for refusal in [rejection("no", &["Basic realm=\"x\""]), rejection("no", &["Bearer error=\"invalid_token\""])] {
        let world = World::new();
        let setup = world.subject(&subject, Settings::default())?;
        world.auth.always(refusal);
        let error = send(&setup.client, get("/")).await.unwrap_err();
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 0));
        assert!(setup.control.failure(&error)?.no_token);
    }
    Ok(())
}

/// What a token client needs to go through the client that asks it.
#[derive(Clone, Default)]
struct Loop(Arc<OnceLock<Setup>>);

impl Loop {
    fn client(&self) -> Client {
        let this = self.clone();
        BoxCloneSyncService::new(service_fn(move |request| {
            let this = this.clone();
            async move {
                let setup = this.0.get().ok_or("not yet")?;
                let request = setup.control.skipping(request).map_err(|_| "not offered")?;
                send(&setup.client, request).await
            }
        }))
    }
}

async fn token_endpoint_behind_itself(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let inner = BoxCloneSyncService::new(both(&world.auth, &world.api));
    let token_client = Loop::default();
    let settings = Settings { token_client: Some(token_client.client()), ..Settings::default() };
    let setup = subject.client_over(inner, &world, &settings).ok_or(NotOffered)?;
    setup.control.skipping(get("/"))?;
    let _ = token_client.0.set(setup);
    let setup = token_client.0.get().unwrap();

    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    world.auth.revoke_all();
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    for request in world.auth.requests() {
        assert!(!request.header("authorization").unwrap_or_default().starts_with("Bearer"));
    }
    Ok(())
}

async fn shared_limit(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(Duration::from_secs(1)));
    let limited: Client =
        BoxCloneSyncService::new(GlobalConcurrencyLimitLayer::new(1).layer(both(&world.auth, &world.api)));
    let settings = Settings { token_client: Some(limited.clone()), ..Settings::default() };
    let setup = subject.client_over(limited, &world, &settings).ok_or(NotOffered)?;
    let everybody_gets_through = async |token_requests| {
        for response in send_all(&setup.client, (0..20).map(|_| get("/"))).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(world.auth.token_requests(), token_requests);
    };
    let start = Instant::now();
    everybody_gets_through(1).await;
    world.auth.revoke_all();
    everybody_gets_through(2).await;
    assert!(start.elapsed() < Duration::from_secs(3), "somebody waited for something to time out");
    world.pass(Duration::from_secs(3601)).await;
    everybody_gets_through(3).await;
    assert_eq!(world.api.max_in_flight(), 1);
    Ok(())
}

async fn not_the_token(subject: Arc<dyn Subject>) -> Offered {
    let forbidden = Response::builder().status(403).header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
    for refusal in [
        Fault::error("insufficient_scope"),
        Fault::error("invalid_request"),
        Fault::error("insufficient_user_authentication"),
        Fault::Status(403),
        Fault::Respond(forbidden.body(Bytes::new()).unwrap()),
    ] {
        let world = World::new();
        let client = world.client(&subject)?;
        warm(&client, &world).await;
        world.api.script([refusal.clone()]);
        let status = send(&client, get("/")).await.unwrap().status();
        assert!(status == 401 || status == 403);
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2), "{refusal:?}");
    }
    Ok(())
}

async fn bare_401(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(Api::bare_401);
    let client = world.client(&subject)?;
    warm(&client, &world).await;
    world.auth.revoke_all();
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3));
    Ok(())
}

async fn foreign_challenges(subject: Arc<dyn Subject>) -> Offered {
    for challenge in ["Basic realm=\"x\"", "Digest realm=\"x\", nonce=\"y\"", "Negotiate"] {
        let world = World::new();
        let client = world.client(&subject)?;
        warm(&client, &world).await;
        world.api.script([rejection("", &[challenge])]);
        assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
        assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 3), "{challenge}");

        world.api.always(rejection("", &[challenge]));
        for _ in 0..600 {
            assert_eq!(send(&client, get("/")).await.unwrap().status(), 401);
            world.pass(Duration::from_millis(100)).await;
        }
        let token_requests = world.auth.token_requests();
        assert!(token_requests <= 2 + 13, "{challenge}: {token_requests} token requests in a minute");
    }
    Ok(())
}

async fn challenge_grammar(subject: Arc<dyn Subject>) -> Offered {
    let table: &[(&[&'static str], bool)] = &[
        // Only the scheme that was sent counts.
        (&["Basic realm=\"a\", Bearer error=\"insufficient_scope\""], false),
        (&["Basic error=\"insufficient_scope\", Bearer"], true),
        (&["DPoP error=\"insufficient_scope\""], true),
        // In several lines; `invalid_token` wins.
        (&["Basic realm=\"a\"", "Bearer error=\"insufficient_scope\""], false),
        (&["Bearer error=\"insufficient_scope\"", "Bearer error=\"invalid_token\""], true),
        (&["Bearer error=\"insufficient_scope\", Bearer error=\"invalid_token\""], true),
        // Commas, quotes and escapes inside of quotes.
        (&["Bearer realm=\"a, Bearer error=\\\"invalid_token\\\"\", error=\"insufficient_scope\""], false),
        (&["Bearer realm=\"a, Bearer error=\\\"insufficient_scope\\\"\""], true),
        // Leading and doubled commas, odd spaces, no realm, any case, no quotes.
        (&[", ,, Bearer error=\"insufficient_scope\""], false),
        (&["bEaReR  ERROR = insufficient_scope"], false),
        (&["Bearer,, scope=\"x\" ,error=\"insufficient_scope\","], false),
        // Of a parameter that is repeated the first counts.
        (&["Bearer error=\"insufficient_scope\", error=\"invalid_token\""], false),
        // token68 of another scheme before ours.
        (&["Negotiate dG9rZW42OA==, Bearer error=\"insufficient_scope\""], false),
        // A mistake of the server is no reason to keep the token.
        (&["Bearer error=\"insufficient_scope"], true),
        (&["Bearer error=insufficient_scope\"\"\""], true),
        (&["Bearer error=\"something_new\""], true),
        (&["", "Bearer"], true),
    ];
    for (challenges, refreshes) in table {
        let world = World::new();
        let client = world.client(&subject)?;
        warm(&client, &world).await;
        world.api.script([rejection("", challenges)]);
        let status = send(&client, get("/")).await.unwrap().status();
        assert_eq!(status, if *refreshes { 200 } else { 401 }, "{challenges:?}");
        assert_eq!(world.auth.token_requests(), if *refreshes { 2 } else { 1 }, "{challenges:?}");
    }
    Ok(())
}

async fn proxy_rejection(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    warm(&client, &world).await;
    for challenge in ["proxy-authenticate", "www-authenticate"] {
        let refusal = Response::builder().status(407).header(challenge, "Bearer error=\"invalid_token\"");
        world.api.script([Fault::Respond(refusal.body(Bytes::from("proxy")).unwrap())]);
        let response = send(&client, get("/")).await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await), (407, "proxy".to_owned()));
    }
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 3));
    Ok(())
}

async fn stacked(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let inner = world.client(&subject)?;
    let outer = subject.client_over(inner, &world, &Settings::default()).ok_or(NotOffered)?.client;
    assert_eq!(send(&outer, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (2, 1));

    world.auth.revoke_all();
    assert_eq!(send(&outer, get("/")).await.unwrap().status(), 200);
    assert_eq!((world.auth.token_requests(), world.api.hits()), (3, 3));

    world.api.always(rejection("no", &["Bearer error=\"invalid_token\""]));
    let response = send(&outer, get("/")).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await), (401, "no".to_owned()));
    assert_eq!(world.api.hits(), 3 + 2);
    Ok(())
}

/// The inner layer could not refresh when it saw the first 401. When the outer layer sends again it could, but that
/// sending is the second one already.
async fn stacked_resend(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.latency(Duration::from_secs(5)));
    let inner_auth = AuthServer::new(world.clock.clone()).client(CLIENT_ID, SECRET);
    let world = World { api: Api::new(&inner_auth), ..world };
    let settings = Settings { token_client: Some(BoxCloneSyncService::new(inner_auth.clone())), ..Settings::default() };
    let inner = world.subject(&subject, settings)?.client;
    let outer = subject.client_over(inner, &world, &Settings::default()).ok_or(NotOffered)?.client;
    assert_eq!(send(&outer, get("/")).await.unwrap().status(), 200);

    inner_auth.script([Fault::RetryAfter(503, 1)]);
    world.api.always(rejection("no", &["Bearer error=\"invalid_token\""]));
    assert_eq!(send(&outer, get("/")).await.unwrap().status(), 401);
    assert_eq!(world.api.hits(), 1 + 2);
    assert_eq!((world.auth.token_requests(), inner_auth.token_requests()), (2, 2));
    Ok(())
}

async fn drained(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (left, at_second) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (api, body, seen) = (world.inner(), left.clone(), at_second.clone());
    let inner = service_fn(move |request: Request<Body>| {
        let (api, left) = (api.clone(), body.clone());
        seen.store(left.load(Ordering::SeqCst), Ordering::SeqCst);
        async move {
            let response = send(&api, request).await?;
            if response.status() != 401 {
                return Ok(response);
            }
            left.store(10, Ordering::SeqCst);
            Ok::<_, BoxError>(response.map(|_| ten_frames(left)))
        }
    });
    let setup = subject.client_over(BoxCloneSyncService::new(inner), &world, &Settings::default()).ok_or(NotOffered)?;
    warm(&setup.client, &world).await;
    world.auth.revoke_all();
    assert_eq!(send(&setup.client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.api.hits(), 3);
    assert_eq!(at_second.load(Ordering::SeqCst), 0, "frames of the 401 unread when the request was sent again");
    Ok(())
}

/// A frame a millisecond; `left` counts down with the last one being the end.
fn ten_frames(left: Arc<AtomicUsize>) -> Body {
    let frames = stream::unfold(left, |left| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let unread = left.fetch_sub(1, Ordering::SeqCst) - 1;
        (unread > 0).then(|| (Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"no"))), left))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn extra_headers(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(|api| api.tenant_header("tenant-id"));
    let settings = Settings {
        tenant: Tenancy::SharedToken("tenant-id"),
        more: vec![Setting::SetIfAbsent("x-quota-project", "project")],
        ..Settings::default()
    };
    let client = world.subject(&subject, settings)?.client;
    let request = || for_tenant(get("/"), "practice");
    // Cold, from the cache, and twice for a 401.
    assert_eq!(send(&client, request()).await.unwrap().status(), 200);
    assert_eq!(send(&client, request()).await.unwrap().status(), 200);
    world.auth.revoke_all();
    assert_eq!(send(&client, request()).await.unwrap().status(), 200);
    assert_eq!(world.api.hits(), 4);
    for request in world.api.requests() {
        for (name, expected) in [("tenant-id", "practice"), ("x-quota-project", "project")] {
            let values: Vec<_> = request.headers.get_all(name).iter().collect();
            assert_eq!(values, [expected], "{name}");
        }
    }
    Ok(())
}

async fn one_authorization(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    warm(&client, &world).await;
    world.auth.revoke_all();
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    let requests = world.api.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.headers.get_all(AUTHORIZATION).iter().count(), 1);
    }
    assert_eq!(requests[1].bearer(), requests[0].bearer());
    assert_ne!(requests[2].bearer(), requests[1].bearer());
    assert_eq!(requests[2].bearer(), world.auth.last_token().as_deref());
    Ok(())
}

fn with_authorization(values: &[&'static str]) -> Request<Body> {
    let mut request = get("/");
    for value in values {
        request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
    }
    request
}

async fn callers_replaced(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    for values in [&["Bearer smuggled"][..], &["Basic abc", "Bearer smuggled"]] {
        world.auth.revoke_all();
        assert_eq!(send(&client, with_authorization(values)).await.unwrap().status(), 200);
    }
    for request in world.api.requests() {
        let values: Vec<_> = request.headers.get_all(AUTHORIZATION).iter().collect();
        assert!(values.len() == 1 && values[0].as_bytes().starts_with(b"Bearer access-"), "{}", values.len());
    }
    Ok(())
}

async fn callers_kept(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings = Settings { more: vec![Setting::KeepCallersAuthorization], ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    warm(&client, &world).await;
    let response = send(&client, with_authorization(&["Bearer mine"])).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await), (401, "unauthorized".to_owned()));
    assert_eq!(world.api.requests()[1].bearer(), Some("mine"));
    assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 2));
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    assert_eq!(world.auth.token_requests(), 1, "the 401 said nothing of our token");
    Ok(())
}

async fn callers_refused(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings = Settings { more: vec![Setting::RejectCallersAuthorization], ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    let error = send(&client, with_authorization(&["Bearer mine"])).await.unwrap_err();
    assert!(!error.to_string().contains("mine"));
    assert_eq!((world.auth.token_requests(), world.api.hits()), (0, 0));
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 200);
    Ok(())
}

/// Counts the requests that pass, and how each ended.
#[derive(Clone, Default)]
struct Observer(Arc<Mutex<Vec<u16>>>);

impl Observer {
    fn around(&self, inner: Client) -> Client {
        let seen = self.0.clone();
        BoxCloneSyncService::new(service_fn(move |request| {
            let (inner, seen) = (inner.clone(), seen.clone());
            async move {
                let response = send(&inner, request).await?;
                seen.lock().unwrap().push(response.status().as_u16());
                Ok::<_, BoxError>(response)
            }
        }))
    }

    fn seen(&self) -> Vec<u16> {
        self.0.lock().unwrap().clone()
    }
}

async fn side_effects(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (outside, inside) = (Observer::default(), Observer::default());
    let inner = inside.around(world.inner());
    let setup = subject.client_over(inner, &world, &Settings::default()).ok_or(NotOffered)?;
    let client = outside.around(setup.client);
    warm(&client, &world).await;
    world.auth.revoke_all();
    assert_eq!(send(&client, post("/", "state-changing")).await.unwrap().status(), 200);
    assert_eq!(outside.seen(), [200, 200]);
    assert_eq!(inside.seen(), [200, 401, 200]);
    Ok(())
}
