//! Tokens bound to a key (RFC 9449): proofs, verified by another implementation, and the nonces that servers want in them.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, RecordedRequest, TestClock};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthConfigBuilder, AuthLayer, AuthOutcome, BoxError, ClientAuth, DpopKey, Error, Replay, Token,
    TokenError, TokenErrorKind, TokenRequest,
};

use crate::subject::{API, CLIENT_ID, SECRET, TOKEN_URL};

const SECOND: Duration = Duration::from_secs(1);

/// Servers that bind tokens, and a layer with a key.
struct World {
    auth: AuthServer,
    api: Api,
    key: DpopKey,
}

impl World {
    fn new() -> Self {
        Self::with(|auth| auth.require_dpop())
    }

    fn with(shape: impl FnOnce(AuthServer) -> AuthServer) -> Self {
        let auth = shape(AuthServer::new(TestClock::new()).client(CLIENT_ID, SECRET));
        Self { api: Api::new(&auth), auth, key: DpopKey::generate().unwrap() }
    }

    fn config(&self) -> AuthConfigBuilder {
        let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET));
        cfg.origin(API).clock(self.auth.clock().clone()).dpop(self.key.clone())
    }

    fn client(&self) -> Auth<Api> {
        self.layer(self.config()).layer(self.api.clone())
    }

    fn layer(&self, cfg: AuthConfigBuilder) -> AuthLayer {
        AuthLayer::builder(cfg.build().unwrap()).http_client(self.auth.clone()).build().unwrap()
    }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("{API}{path}")).body(Full::default()).unwrap()
}

/// The claims of a proof, once its signature was verified with the key in its header.
fn verify(headers: &HeaderMap) -> Value {
    let proof = headers["dpop"].to_str().unwrap();
    let (input, signature) = proof.rsplit_once('.').unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    let member = |name: &str| decode(header["jwk"][name].as_str().unwrap());
    let point = [vec![4], member("x"), member("y")].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(input.as_bytes(), &decode(signature)).expect("verified by AWS-LC");
    serde_json::from_slice(&decode(claims)).unwrap()
}

fn verified(requests: &[RecordedRequest]) -> Vec<Value> {
    requests.iter().map(|request| verify(&request.headers)).collect()
}

fn all_differ(claims: &[Value]) {
    let ids: HashSet<String> = claims.iter().map(|claims| claims["jti"].to_string()).collect();
    assert_eq!(ids.len(), claims.len(), "a proof was used twice");
}

#[tokio::test(start_paused = true)]
async fn each_sending_has_a_proof_of_its_own() {
    let world = World::new();
    let client = world.client();
    let mut post = get("/v1/items?key=value");
    *post.method_mut() = http::Method::POST;
    for request in [get("/"), post] {
        assert_eq!(client.clone().oneshot(request).await.unwrap().status(), 200);
    }
    world.auth.revoke_all();
    assert_eq!(client.clone().oneshot(get("/a%2Fb?x")).await.unwrap().status(), 200);

    let asked = verified(&world.auth.requests());
    assert_eq!((&asked[0]["htm"], &asked[0]["htu"]), (&json!("POST"), &json!(TOKEN_URL)));
    assert!(asked[0].get("ath").is_none() && asked[0].get("nonce").is_none());
    let sent = verified(&world.api.requests());
    let targets: Vec<String> = sent.iter().map(|claims| format!("{} {}", claims["htm"], claims["htu"])).collect();
    let path = |path: &str| format!("{API}{path}");
    assert_eq!(
        targets,
        [
            format!("\"GET\" \"{}\"", path("/")),
            format!("\"POST\" \"{}\"", path("/v1/items")),
            format!("\"GET\" \"{}\"", path("/a%2Fb")),
            format!("\"GET\" \"{}\"", path("/a%2Fb")),
        ]
    );
    assert_ne!(sent[2]["ath"], sent[3]["ath"], "the resend's token is another");
    all_differ(&[asked, sent].concat());
    let token = world.auth.last_token().unwrap();
    assert_eq!(world.api.requests()[3].dpop_token(), Some(token.as_str()));
    assert_eq!(world.auth.key_of(&token).as_deref(), Some(world.key.thumbprint()));
}

/// Behaviour 109.
#[tokio::test(start_paused = true)]
async fn the_type_of_the_token_says_how_it_is_sent() {
    // (what the server says, whether there is a key) -> how the token goes out
    let table = [
        ("DPoP", true, Some("DPoP t")),
        ("dpop", true, Some("DPoP t")),
        ("Bearer", true, Some("Bearer t")),
        ("bEARER", true, Some("Bearer t")),
        ("MAC", true, None),
        ("DPoP", false, None),
        ("dPOP", false, None),
        ("BEARER", false, Some("Bearer t")),
        ("something new", false, None),
    ];
    for (token_type, with_key, expected) in table {
        let world = World::with(|auth| auth);
        let cfg = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET)).origin(API);
        let cfg = if with_key { cfg.dpop(world.key.clone()) } else { cfg };
        let body = json!({ "access_token": "t", "token_type": token_type, "expires_in": 3600 }).to_string();
        world.auth.always(Fault::Body(body.into()));
        let result = world.layer(cfg).layer(world.api.clone()).oneshot(get("/")).await;
        match expected {
            Some(authorization) => {
                result.unwrap();
                let sent = &world.api.requests()[0];
                assert_eq!(sent.header("authorization"), Some(authorization), "{token_type} {with_key}");
                assert_eq!(sent.header("dpop").is_some(), authorization.starts_with("DPoP"));
            }
            None => {
                let error = result.unwrap_err();
                assert_eq!(error.token().unwrap().kind(), TokenErrorKind::Malformed, "{token_type} {with_key}");
                assert_eq!(world.api.hits(), 0);
            }
        }
    }
}

/// Behaviour 109.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_bind_is_refused_on_demand() {
    let world = World::with(|auth| auth);
    assert_eq!(world.client().oneshot(get("/")).await.unwrap().status(), 200);
    assert!(world.api.requests()[0].bearer().is_some());
    let strict = world.layer(world.config().require_dpop()).layer(world.api.clone());
    let error = strict.oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.token().unwrap().kind(), TokenErrorKind::Malformed);
    assert!(error.token().unwrap().to_string().contains("not bound"), "{error:?}");
}

/// What an API that wants nonces saw.
#[derive(Clone, Default)]
struct Scripted {
    /// `n`: another nonce is wanted, `u`: the token is refused, `o`: fine; always with a new nonce.
    answers: Arc<Mutex<VecDeque<char>>>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

type Upload = BoxBody<Bytes, io::Error>;

impl Scripted {
    fn new(answers: &str) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.chars().collect())), seen: Arc::default() }
    }

    async fn answer(self, request: Request<Upload>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (head, body) = request.into_parts();
        assert_eq!(body.collect().await?.to_bytes(), "hello", "the body is sent whole each time");
        let count = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((head.headers["authorization"].to_str()?.to_owned(), verify(&head.headers)));
            seen.len()
        };
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or('o');
        let response = Response::builder().header("dpop-nonce", format!("nonce-{count}"));
        let response = match answer {
            'n' => response.status(401).header("www-authenticate", r#"DPoP error="use_dpop_nonce""#),
            'u' => response.status(401).header("www-authenticate", r#"DPoP error="invalid_token""#),
            _ => response.status(200),
        };
        Ok(response.body(Full::default())?)
    }

    fn service(
        &self,
    ) -> impl Service<Request<Upload>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone + Send + use<>
    {
        let own = self.clone();
        service_fn(move |request| own.clone().answer(request))
    }
}

fn upload() -> Request<Upload> {
    let body = Full::new(Bytes::from("hello")).map_err(|never| match never {}).boxed();
    Request::post(format!("{API}/items")).body(body).unwrap()
}

/// Behaviour 110.
///
/// Every order of four answers: for each of the two sendings one repeat for a nonce, and no more than four sendings.
#[tokio::test(start_paused = true)]
async fn a_nonce_costs_one_more_sending_and_neither_the_resend_nor_a_refresh() {
    let kinds = ['n', 'u', 'o'];
    for number in 0..81_usize {
        let answers: String = (0..4).map(|at| kinds[number / 3_usize.pow(at) % 3]).collect();
        // What should happen: each answer up to the last sending, and the last one is handed out.
        let (mut nonce_left, mut resend_left, mut sends) = (true, true, 1);
        for answer in answers.chars() {
            match answer {
                'n' if std::mem::take(&mut nonce_left) => sends += 1,
                'u' if std::mem::take(&mut resend_left) => (sends, nonce_left) = (sends + 1, true),
                _ => break,
            }
        }
        let refreshes = usize::from(!resend_left);

        let world = World::new();
        let api = Scripted::new(&answers);
        let layer = world.layer(world.config());
        layer.handle().warm_up().await.unwrap();
        let response = layer.layer(api.service()).oneshot(upload()).await.unwrap();
        let last = answers.chars().nth(sends - 1).unwrap();
        assert_eq!(response.status(), if last == 'o' { 200 } else { 401 }, "{answers}");
        let seen = api.seen.lock().unwrap().clone();
        assert_eq!((seen.len(), world.auth.token_requests()), (sends, 1 + refreshes), "{answers}");

        all_differ(&seen.iter().map(|(_, claims)| claims.clone()).collect::<Vec<_>>());
        for (at, ((token, claims), answer)) in seen.iter().zip(answers.chars()).enumerate() {
            let nonce = if at == 0 { Value::Null } else { json!(format!("nonce-{at}")) };
            assert_eq!(claims["nonce"], nonce, "{answers}: the newest nonce");
            if let Some((next, _)) = seen.get(at + 1) {
                assert_eq!(token == next, answer == 'n', "{answers}: the same token unless it was refused");
            }
        }
        let resent = response.extensions().get::<AuthOutcome>().is_some_and(|outcome| outcome.resent);
        assert_eq!(resent, !resend_left, "{answers}");
    }
}

/// Behaviour 110.
#[tokio::test(start_paused = true)]
async fn nonces_are_kept_for_each_server_and_the_newest_is_used() {
    let world = World::with(|auth| auth.rotate_dpop_nonces());
    let api = world.api.clone().rotate_dpop_nonces();
    let client = world.client();
    for _ in 0..3 {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    }
    // The first request met a nonce that it could not know; the 200 to each brought the next one (RFC 9449 §8.2).
    assert_eq!((api.hits(), api.unauthorized(), world.auth.token_requests()), (4, 1, 2));
    api.new_dpop_nonce();
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!((api.hits(), api.unauthorized(), world.auth.token_requests()), (6, 2, 2));

    world.auth.revoke_all();
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!((api.hits(), world.auth.token_requests()), (8, 3), "the token endpoint's nonce was known");
    all_differ(&verified(&[api.requests(), world.auth.requests()].concat()));
}

/// An API whose nonces are good for one request each; it answers after `latency`, with a new nonce where one is wanted and,
/// if so configured, with each success.
#[derive(Clone)]
struct OneTimeNonces {
    unused: Arc<Mutex<HashSet<Value>>>,
    given: Arc<AtomicUsize>,
    latency: Duration,
    with_success: bool,
}

impl OneTimeNonces {
    fn new(latency: Duration, with_success: bool) -> Self {
        Self { unused: Arc::default(), given: Arc::default(), latency, with_success }
    }

    async fn answer(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
        tokio::time::sleep(self.latency).await;
        let nonce = verify(request.headers())["nonce"].clone();
        let mut unused = self.unused.lock().unwrap();
        let is_good = unused.remove(&nonce);
        let mut response = Response::new(Full::default());
        if !is_good || self.with_success {
            let next = format!("nonce-{}", self.given.fetch_add(1, Ordering::Relaxed));
            response.headers_mut().insert("dpop-nonce", next.parse()?);
            unused.insert(json!(next));
        }
        if !is_good {
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            response.headers_mut().insert("www-authenticate", r#"DPoP error="use_dpop_nonce""#.parse()?);
        }
        Ok(response)
    }
}

/// Behaviour 173.
#[tokio::test(start_paused = true)]
async fn nonces_that_are_good_once_are_enough_for_many_at_once() {
    for (with_success, requests) in [(true, 500), (false, 100)] {
        let nonces = OneTimeNonces::new(Duration::from_millis(70), with_success);
        let api = service_fn(move |request| nonces.clone().answer(request));
        // A drained answer goes on for some time, as over a connection.
        let slow_bodies = ServiceBuilder::new().map_response(|response: Response<Full<Bytes>>| {
            response.map(|body| {
                let delay = futures_util::stream::once(tokio::time::sleep(Duration::from_millis(60)));
                let frames = delay.map(|()| Ok::<_, io::Error>(Frame::data(Bytes::new())));
                drop(body);
                StreamBody::new(frames.boxed())
            })
        });
        let world = World::new();
        let layer = world.layer(world.config());
        layer.handle().warm_up().await.unwrap();
        let client = layer.layer(slow_bodies.service(api));
        let mut calls = Vec::new();
        for _ in 0..requests {
            calls.push(tokio::spawn(client.clone().oneshot(get("/"))));
            tokio::time::sleep(SECOND / 50).await;
        }
        let mut succeeded = 0;
        for call in calls {
            succeeded += usize::from(call.await.unwrap().unwrap().status() == 200);
        }
        assert_eq!(succeeded, requests, "a nonce with each success: {with_success}");
    }
}

/// Behaviour 110.
#[tokio::test(start_paused = true)]
async fn the_token_endpoint_is_asked_twice_for_a_nonce_and_not_three_times() {
    let world = World::with(|auth| auth.require_dpop_nonce());
    let never = |nonce: &str| {
        let answer = Response::builder().status(400).header("dpop-nonce", nonce);
        Fault::Respond(answer.body(Bytes::from(r#"{"error":"use_dpop_nonce"}"#)).unwrap())
    };
    world.auth.script([never("a"), never("b")]);
    let layer = world.layer(world.config());
    let error = layer.handle().token().await.unwrap_err();
    assert_eq!(error.code().map(|code| code.as_str()), Some("use_dpop_nonce"));
    assert!(error.is_transient(), "the next one has the nonce");
    let asked = verified(&world.auth.requests());
    assert_eq!((asked.len(), &asked[1]["nonce"]), (2, &json!("a")));

    tokio::time::sleep(SECOND).await;
    layer.handle().token().await.unwrap();
    let asked = verified(&world.auth.requests());
    assert_eq!((asked.len(), &asked[2]["nonce"], &asked[3]["nonce"]), (4, &json!("b"), &json!("nonce-1")));
}

/// Behaviour 110.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_twice_is_handed_out_and_the_next_request_knows_the_nonce() {
    let world = World::new();
    let api = world.api.clone().require_dpop_nonce();
    let client = world.layer(world.config().replay(Replay::Never)).layer(api.clone());
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 401);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!((api.hits(), world.auth.token_requests()), (2, 1));
}

/// Behaviour 110.
#[tokio::test(start_paused = true)]
async fn a_challenge_without_a_nonce_or_for_another_scheme_is_no_reason_to_repeat() {
    for (challenge, nonce, sends) in [
        (r#"DPoP error="use_dpop_nonce""#, "", 1),
        (r#"Bearer error="use_dpop_nonce""#, "n", 2),
        (r#"DPoP error="insufficient_scope""#, "n", 1),
        (r#"DPoP error="invalid_dpop_proof""#, "n", 1),
        (r#"Bearer error="insufficient_scope", DPoP error="use_dpop_nonce""#, "n", 2),
    ] {
        let world = World::new();
        let layer = world.layer(world.config());
        layer.handle().warm_up().await.unwrap();
        let mut answer = Response::builder().status(401).header("www-authenticate", challenge);
        if !nonce.is_empty() {
            answer = answer.header("dpop-nonce", nonce);
        }
        world.api.script([Fault::Respond(answer.body(Bytes::new()).unwrap())]);
        layer.layer(world.api.clone()).oneshot(get("/")).await.unwrap();
        assert_eq!(world.api.hits(), sends, "{challenge}");
        // Only a nonce for our scheme leaves the token alone.
        let refreshes = usize::from(sends == 2 && !challenge.contains("DPoP error=\"use_dpop_nonce\""));
        assert_eq!(world.auth.token_requests(), 1 + refreshes, "{challenge}");
    }
}

/// Behaviour 110. What nothing more is done about is not told as "not rejected".
#[tokio::test(start_paused = true)]
async fn a_rejected_proof_is_told_whether_it_was_repeated_or_not() {
    let (nonce, proof) = (r#"DPoP error="use_dpop_nonce""#, r#"DPoP error="invalid_dpop_proof""#);
    let cases = [(nonce, true, 2), (proof, true, 2), (proof, false, 1), (nonce, false, 1)];
    for (last, is_repeated, sends) in cases {
        let world = World::new();
        let replay = if sends == 1 && last == nonce { Replay::Never } else { Replay::AnyReplayable };
        let layer = world.layer(world.config().replay(replay));
        layer.handle().warm_up().await.unwrap();
        let refused = |challenge: &str| {
            let answer =
                Response::builder().status(401).header("www-authenticate", challenge).header("dpop-nonce", "n");
            Fault::Respond(answer.body(Bytes::new()).unwrap())
        };
        world.api.script(is_repeated.then(|| refused(nonce)).into_iter().chain([refused(last)]));
        let response = layer.layer(world.api.clone()).oneshot(get("/")).await.unwrap();
        assert_eq!((response.status().as_u16(), world.api.hits()), (401, sends), "{last}");
        let outcome = response.extensions().get::<AuthOutcome>().cloned().expect(last);
        assert!(outcome.rejected && !outcome.resent && !outcome.refreshed && outcome.generation == 1, "{outcome:?}");
        assert_eq!(outcome.not_replayable, replay == Replay::Never, "{last}");
        assert_eq!(world.auth.token_requests(), 1, "the token may be good");
    }
}

/// Behaviour 110.
#[tokio::test(start_paused = true)]
async fn at_a_limit_of_one_a_repeat_does_not_wait_for_itself() {
    let world = World::with(|auth| auth.require_dpop_nonce());
    let api = world.api.clone().require_dpop_nonce();
    let limited = ServiceBuilder::new().layer(GlobalConcurrencyLimitLayer::new(1)).service(api);
    let client = world.layer(world.config()).layer(limited);
    let calls = (0..8).map(|_| tokio::spawn(client.clone().oneshot(get("/"))));
    for call in calls.collect::<Vec<_>>() {
        let response = tokio::time::timeout(60 * SECOND, call).await.expect("a deadlock").unwrap().unwrap();
        assert_eq!(response.status(), 200);
    }
}

/// Behaviour 111.
#[tokio::test(start_paused = true)]
async fn a_token_is_used_with_the_key_it_is_bound_to_and_with_no_other() {
    let auth = AuthServer::new(TestClock::new()).client(CLIENT_ID, SECRET).require_dpop().same_token_until_expiry();
    let api = Api::new(&auth);
    let worlds = [(); 2].map(|()| World { auth: auth.clone(), api: api.clone(), key: DpopKey::generate().unwrap() });
    let clients = worlds.each_ref().map(World::client);
    for client in clients.iter().chain(&clients) {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    }
    assert_eq!((auth.token_requests(), api.unauthorized()), (2, 0));
    let owners: HashSet<String> =
        api.requests().iter().map(|sent| auth.key_of(sent.dpop_token().unwrap()).unwrap()).collect();
    assert_eq!(owners, worlds.iter().map(|world| world.key.thumbprint().to_owned()).collect());

    // One that somebody hands in all the same is refused like any other bad token, and replaced.
    let stolen = Token::with_scheme("DPoP", api.requests()[0].dpop_token().unwrap()).unwrap();
    let layer = worlds[1].layer(worlds[1].config());
    layer.handle().set_token(stolen).await.unwrap();
    let response = layer.layer(api.clone()).oneshot(get("/")).await.unwrap();
    assert_eq!((response.status().as_u16(), api.unauthorized()), (200, 1));
}

/// Behaviour 111.
#[tokio::test(start_paused = true)]
async fn a_bound_token_without_a_key_is_a_typed_error() {
    let source = service_fn(|_: TokenRequest| async { Token::bearer("t").map_err(TokenError::permanent) });
    let layer = AuthLayer::with_source(AuthConfig::external().origin(API).build().unwrap(), source);
    let error = layer.handle().set_token(Token::with_scheme("dpop", "canary").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Refused);
    assert!(error.to_string().contains(".dpop(") && !error.to_string().contains("canary"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn where_a_request_goes_must_be_known_before_anything_is_sent() {
    let other = "https://other.example.com:8443";
    let bare = || Request::get("/items?x").body(Full::<Bytes>::default()).unwrap();
    let target = |world: &World| verified(&world.api.requests()).pop().unwrap()["htu"].clone();

    let world = World::new();
    let client = world.layer(world.config()).layer(world.api.clone());
    client.oneshot(bare()).await.unwrap();
    assert_eq!(target(&world), json!(format!("{API}/items")), "there is one origin only");

    let world = World::new();
    let client = world.layer(world.config().origin(other)).layer(world.api.clone());
    let error = client.clone().oneshot(bare()).await.unwrap_err();
    assert!(matches!(&error, Error::Origin { .. }) && error.to_string().contains("dpop_origin"), "{error}");
    assert_eq!((world.auth.token_requests(), world.api.hits()), (0, 0));
    let mut with_host = bare();
    with_host.headers_mut().insert("host", "other.example.com:8443".parse().unwrap());
    client.oneshot(with_host).await.unwrap();
    assert_eq!(target(&world), json!(format!("{other}/items")));

    let assumed = world.layer(world.config().origin(other).dpop_origin(other)).layer(world.api.clone());
    assumed.clone().oneshot(bare()).await.unwrap();
    assert_eq!(target(&world), json!(format!("{other}/items")));
    assumed.clone().oneshot(get("/items")).await.unwrap();
    assert_eq!(target(&world), json!(format!("{API}/items")), "it says itself");
    let shouting = Request::get("HTTPS://OTHER.example.com:8443/Items").body(Full::<Bytes>::default()).unwrap();
    // Only the test server minds the spelling.
    assumed.oneshot(shouting).await.unwrap();
    assert_eq!(target(&world), json!(format!("{other}/Items")), "normalised");
}

#[test]
fn what_cannot_be_proved_is_told_when_it_is_configured() {
    let world = World::new();
    let plain = || AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic(CLIENT_ID, SECRET)).origin(API);
    for (cfg, told) in [
        (world.config().dpop_origin("https://elsewhere.example.com"), "may not receive tokens"),
        (world.config().dpop_origin("api.example.com"), "https://"),
        (plain().dpop_origin(API), "no key"),
        (plain().require_dpop(), "bound to a key"),
        (plain().default_header("DPoP", "x"), "dpop"),
        (plain().token_header("DPoP", "x"), "dpop"),
    ] {
        let error = cfg.build().expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
    }
}

/// The clock of the proofs is the configured one.
#[tokio::test(start_paused = true)]
async fn proofs_are_dated_by_the_clock() {
    let world = World::new();
    let client = world.client();
    for days in [0, 7] {
        tokio::time::sleep(days * 24 * 3600 * SECOND).await;
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    }
    assert_eq!(world.api.unauthorized(), 0);
    let dates: Vec<u64> =
        verified(&world.api.requests()).iter().map(|claims| claims["iat"].as_u64().unwrap()).collect();
    assert_eq!(dates[1] - dates[0], 7 * 24 * 3600);
}
