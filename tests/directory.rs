//! Tenants with authorization servers and credentials of their own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthHandle, AuthLayer, Authority, BoxError, ClientAuth, Directory, Error, Tenant, TenantId,
    TokenErrorKind,
};

/// Authorization servers, one for each host, which know one client each; and an API that tells whose token it got.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Token requests by host.
    asked: HashMap<String, usize>,
    down: HashSet<String>,
}

type Answer = Result<Response<Full<Bytes>>, BoxError>;

impl World {
    async fn token(self, request: Request<Full<Bytes>>) -> Answer {
        let host = request.uri().host().unwrap().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let is_down = {
            let mut state = self.0.lock().unwrap();
            *state.asked.entry(host.clone()).or_default() += 1;
            state.down.contains(&host)
        };
        let (status, answer) = if is_down {
            (503, json!({}))
        } else if !body.ends_with(format!("client_id={host}&client_secret=secret-of-{host}").as_bytes()) {
            (401, json!({"error": "invalid_client"}))
        } else {
            (200, json!({"access_token": format!("of-{host}"), "token_type": "Bearer", "expires_in": 3600}))
        };
        Ok(Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string())))?)
    }

    fn asked(&self, host: &str) -> usize {
        self.0.lock().unwrap().asked.get(host).copied().unwrap_or_default()
    }

    fn all_asked(&self) -> usize {
        self.0.lock().unwrap().asked.values().sum()
    }

    fn client(&self, directory: Directory) -> (Auth<impl Api>, AuthHandle) {
        self.client_with_room(directory, 10_000)
    }

    fn client_with_room(&self, directory: Directory, partitions: usize) -> (Auth<impl Api>, AuthHandle) {
        let cfg = AuthConfig::per_tenant(directory)
            .tenant(Tenant::without_header().per_tenant_tokens())
            .origin("https://api.example.com")
            .max_partitions(partitions)
            .build()
            .unwrap();
        let world = self.clone();
        let http_client = service_fn(move |request| world.clone().token(request));
        let layer = AuthLayer::builder(cfg).http_client(http_client).build().unwrap();
        let api = service_fn(|request: Request<Full<Bytes>>| async move {
            let token = request.headers()["authorization"].clone();
            Ok::<_, BoxError>(Response::builder().header("seen", token).body(Full::default()).unwrap())
        });
        (layer.layer(api), layer.handle())
    }
}

trait Api:
    tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Api for S where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

fn id(tenant: &str) -> TenantId {
    TenantId::new(tenant).unwrap()
}

fn authority(host: &str) -> Authority {
    Authority::new(format!("https://{host}/token"), ClientAuth::body(host, format!("secret-of-{host}")))
}

/// Whose token the API saw.
async fn call(client: &Auth<impl Api>, tenant: &str) -> Result<String, Error> {
    let mut request = Request::get("https://api.example.com/").body(Full::default()).unwrap();
    request.extensions_mut().insert(id(tenant));
    let response = client.clone().oneshot(request).await?;
    Ok(response.headers()["seen"].to_str().unwrap().trim_start_matches("Bearer of-").to_owned())
}

fn kind(result: Result<String, Error>) -> (TokenErrorKind, String) {
    let error = result.unwrap_err();
    let error = error.token().unwrap_or_else(|| panic!("{error:?}"));
    (error.kind(), error.to_string())
}

/// Behaviour 189.
#[tokio::test(start_paused = true)]
async fn a_thousand_tenants_with_a_server_each_and_ten_of_them_down() {
    let host = |n: usize| format!("auth-{n}.example");
    let world = World::default();
    let directory = Directory::from_map((0..1000).map(|n| (id(&n.to_string()), authority(&host(n)))));
    let (client, _) = world.client(directory);
    world.0.lock().unwrap().down.extend((0..1000).step_by(100).map(host));
    for _ in 0..3 {
        for n in 0..1000 {
            let result = call(&client, &n.to_string()).await;
            if n % 100 == 0 {
                assert_eq!(kind(result).0, TokenErrorKind::Unavailable);
            } else {
                assert_eq!(result.unwrap(), host(n));
            }
        }
    }
    let of_the_others = (0..1000).filter(|n| n % 100 != 0).map(|n| world.asked(&host(n)));
    assert!(of_the_others.into_iter().all(|asked| asked == 1), "one token request each, and no error");
    // Those that are down: one each, remembered.
    let of_those_down: usize = (0..1000).step_by(100).map(|n| world.asked(&host(n))).sum();
    assert!((10..=30).contains(&of_those_down), "{of_those_down}");
    println!(
        "1000 tenants, 10 down: {} token requests, {of_those_down} of them to those that are down",
        world.all_asked()
    );
}

/// Behaviours 138, 139 and 189. The bounds of a token endpoint hold for all who are its clients, whoever they are there.
#[tokio::test(start_paused = true)]
async fn tenants_with_clients_of_their_own_at_one_server_share_its_bounds() {
    let (in_flight, most, asked) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let counts = Arc::new((in_flight, most, asked));
    let is_down = Arc::new(AtomicBool::new(false));
    let server = {
        let (counts, is_down) = (counts.clone(), is_down.clone());
        service_fn(move |request: Request<Full<Bytes>>| {
            let (counts, is_down) = (counts.clone(), is_down.clone());
            async move {
                let (in_flight, most, asked) = &*counts;
                asked.fetch_add(1, Ordering::Relaxed);
                most.fetch_max(in_flight.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
                let body = request.into_body().collect().await?.to_bytes();
                let (status, answer) = if is_down.load(Ordering::Relaxed) {
                    (503, json!({}))
                } else if body.ends_with(b"client_secret=wrong") {
                    (401, json!({"error": "invalid_client"}))
                } else {
                    (200, json!({"access_token": "T", "token_type": "Bearer", "expires_in": 3600}))
                };
                let answer = Full::new(Bytes::from(answer.to_string()));
                Ok::<_, BoxError>(Response::builder().status(status).body(answer)?)
            }
        })
    };
    let client = |tenants: usize| {
        let authority = |n: usize| {
            let secret = if n < 10 { "wrong" } else { "right" };
            Authority::new("https://auth.example/token", ClientAuth::body(format!("client-{n}"), secret))
        };
        let directory = Directory::from_map((0..tenants).map(|n| (id(&n.to_string()), authority(n))));
        let cfg = AuthConfig::per_tenant(directory)
            .tenant(Tenant::without_header().per_tenant_tokens())
            .origin("https://api.example.com")
            .max_partitions(10_000);
        let layer = AuthLayer::builder(cfg.build().unwrap()).http_client(server.clone()).build().unwrap();
        layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, BoxError>(Response::builder().header("seen", "").body(Full::<Bytes>::default())?)
        }))
    };
    let all = async |client: &Auth<_>, tenants: usize| {
        let names: Vec<_> = (0..tenants).map(|n| n.to_string()).collect();
        futures_util::future::join_all(names.iter().map(|name| call(client, name))).await
    };

    let healthy = client(500);
    for (n, result) in all(&healthy, 500).await.into_iter().enumerate() {
        // Ten have a wrong secret, which is nobody's trouble but theirs.
        assert_eq!(
            result.err().map(|error| error.token().unwrap().kind()),
            (n < 10).then_some(TokenErrorKind::BadCredentials)
        );
    }
    assert_eq!(counts.1.load(Ordering::Relaxed), 64, "token requests at a time");
    assert_eq!(counts.2.load(Ordering::Relaxed), 500);

    is_down.store(true, Ordering::Relaxed);
    counts.2.store(0, Ordering::Relaxed);
    let waiting = client(500);
    for _ in 0..60 {
        assert!(all(&waiting, 500).await.iter().all(Result::is_err));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let asked = counts.2.load(Ordering::Relaxed);
    println!("500 tenants at a server that is down: {asked} token requests in a minute");
    assert!(asked <= 64 + 20, "those that were on their way, and the probes: {asked}");
}

/// Behaviour 190.
#[tokio::test(start_paused = true)]
async fn the_directory_changes_without_a_restart() {
    let world = World::default();
    let directory = Directory::from_map([(id("a"), authority("old.example"))]);
    let (client, handle) = world.client(directory.clone());
    assert_eq!(call(&client, "a").await.unwrap(), "old.example");
    assert_eq!(kind(call(&client, "b").await).0, TokenErrorKind::Refused);

    directory.replace([(id("a"), authority("new.example")), (id("b"), authority("b.example"))]);
    assert_eq!(call(&client, "a").await.unwrap(), "old.example", "a token that is alive stays in use");
    handle.for_tenant(&id("a")).invalidate();
    assert_eq!(call(&client, "a").await.unwrap(), "new.example");
    // A failure is remembered, also that there was no such tenant.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(call(&client, "b").await.unwrap(), "b.example");
    assert_eq!((world.asked("old.example"), world.all_asked()), (1, 3));
}

/// Behaviour 191.
#[tokio::test(start_paused = true)]
async fn what_a_directory_cannot_tell_is_one_tenants_error_and_nothing_is_sent() {
    let world = World::default();
    let directory = Directory::from_fn(|tenant: TenantId| {
        assert_ne!(tenant.as_str(), "panicking at once", "canary");
        answer_of(tenant)
    });
    async fn answer_of(tenant: TenantId) -> Result<Option<Authority>, &'static str> {
        match tenant.as_str() {
            "unknown" => Ok(None),
            "failing" => Err("the database is away"),
            "hanging" => std::future::pending().await,
            "panicking" => panic!("canary"),
            "wrong" => Ok(Some(Authority::new("http://auth.example/canary", ClientAuth::anonymous()))),
            "empty" => Ok(Some(Authority::new("https://auth.example", ClientAuth::basic("id", "")))),
            good => Ok(Some(authority(&format!("{}.example", good.replace(' ', "-"))))),
        }
    }
    let (client, handle) = world.client(directory);
    use TokenErrorKind::*;
    let cases = [
        ("unknown", Refused, "knows no such tenant"),
        ("failing", CredentialsUnavailable, "the directory of tenants failed"),
        ("hanging", CredentialsUnavailable, "the directory of tenants took 10s"),
        ("panicking", CredentialsUnavailable, "the directory of tenants panicked"),
        ("panicking at once", CredentialsUnavailable, "the directory of tenants panicked"),
        ("wrong", CredentialsUnavailable, "the directory's entry is wrong"),
        ("empty", CredentialsUnavailable, "the client secret is empty"),
    ];
    for (tenant, expected, told) in cases {
        let (kind, text) = kind(call(&client, tenant).await);
        assert!(kind == expected && text.contains(told) && !text.contains("canary"), "{tenant}: {text}");
        let host = format!("good-{}.example", tenant.replace(' ', "-"));
        assert_eq!(call(&client, &format!("good-{tenant}")).await.unwrap(), host);
    }
    assert_eq!(world.all_asked(), cases.len(), "those of the good ones");
    call(&client, "good").await.unwrap();
    let error = handle.for_tenant(&id("good")).revoke().await.unwrap_err();
    assert_eq!(error.kind(), Unsupported);
}

/// Behaviour 140 (the function that knows the tenants).
#[tokio::test(start_paused = true)]
async fn a_directory_is_not_asked_for_each_tenant_that_somebody_invents() {
    const ROOM: usize = 1_000;
    let looks = Arc::new(AtomicUsize::new(0));
    let directory = Directory::from_fn({
        let looks = looks.clone();
        move |tenant: TenantId| {
            looks.fetch_add(1, Ordering::Relaxed);
            let known = tenant.as_str().starts_with("known").then(|| authority("auth.example"));
            async move { Ok::<_, BoxError>(known) }
        }
    });
    let world = World::default();
    let (client, handle) = world.client_with_room(directory, ROOM);
    let look_and_count = async |tenant: String| {
        let before = looks.load(Ordering::Relaxed);
        let found = call(&client, &tenant).await;
        (found, looks.load(Ordering::Relaxed) - before)
    };
    // Those that there are cost nothing, be they more than there is room for.
    for number in 0..ROOM + 100 {
        let (found, looks) = look_and_count(format!("known-{number}")).await;
        assert_eq!((found.unwrap().as_str(), looks), ("auth.example", 1));
    }
    let in_use = || format!("known-{}", ROOM + 99);
    let mut asked = 0;
    for number in 0..2 * ROOM {
        asked += look_and_count(format!("invented-{number}")).await.1;
        if number % 100 == 0 {
            assert_eq!(look_and_count(in_use()).await.1, 0);
        }
    }
    assert!(asked <= ROOM + 10, "{asked} looks into the directory at once, with room for {ROOM} partitions");
    let (found, looks) = look_and_count("invented-last".to_owned()).await;
    assert_eq!((kind(found).0, looks), (TokenErrorKind::Overloaded, 0));
    // Whoever has had a token is not among them.
    handle.for_tenant(&id(&in_use())).invalidate();
    assert_eq!(look_and_count(in_use()).await.0.unwrap(), "auth.example");
}

#[test]
fn a_directory_without_tenants_is_refused() {
    let directory = Directory::from_map([(id("a"), authority("a.example"))]);
    assert!(!format!("{directory:?} {:?}", authority("canary.example")).contains("canary"));
    for tenant in [
        None,
        Some(Tenant::header("x")),
        Some(Tenant::without_header().per_tenant_tokens().optional()),
        Some(Tenant::without_header().per_tenant_tokens().fixed("a")),
    ] {
        let cfg = AuthConfig::per_tenant(directory.clone()).origin("https://api.example.com");
        let cfg = match tenant {
            Some(tenant) => cfg.tenant(tenant),
            None => cfg,
        };
        assert!(cfg.build().is_err());
    }
}
