//! What a Redis in trouble costs requests: time at most once, and never a token that is alive.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tower_oauth2_client::store::{RedisStore, StoreErrorKind, StoreLayer, StoreStats};
use tower_oauth2_client::test_util::{AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthHandle, AuthLayer, ClientAuth};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::fleet::expire;
use crate::server::Redis;
use crate::store::keys;

const TIMEOUT: Duration = Duration::from_millis(700);

/// A process of a fleet, without a process of its own.
struct Process {
    handle: AuthHandle,
    store: StoreLayer<RedisStore>,
}

impl Process {
    fn new(auth: &AuthServer, store: RedisStore) -> Self {
        let config =
            AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
                .origin("https://api.example.com")
                .build()
                .unwrap();
        let mut kept = None;
        let layer = AuthLayer::builder(config)
            .http_client(auth.clone())
            .store_with(|identity| kept.insert(StoreLayer::new(store, identity).timeout(TIMEOUT)).clone())
            .build()
            .unwrap();
        Self { handle: layer.handle(), store: kept.unwrap() }
    }

    /// The token that 50 requests at the same time get, and after how long.
    async fn token(&self) -> (String, Duration) {
        let start = Instant::now();
        let tokens = join_all((0..50).map(|_| self.handle.token())).await;
        let mut tokens: Vec<_> = tokens.into_iter().map(|token| token.unwrap().access_token().to_owned()).collect();
        tokens.dedup();
        assert_eq!(tokens.len(), 1);
        (tokens.remove(0), start.elapsed())
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

fn store(redis: &Redis) -> RedisStore {
    RedisStore::new(&redis.url(), keys(1)).unwrap()
}

fn auth_server(expires_in: &str) -> AuthServer {
    AuthServer::new(TestClock::new()).announce_expires_in(expires_in)
}

/// Behaviour 88.
#[tokio::test]
async fn without_redis_each_process_asks_once() {
    let Some(mut redis) = Redis::start().await else { return };
    let auth = auth_server("3600");
    let fleet = [store(&redis), store(&redis), store(&redis)].map(|store| Process::new(&auth, store));
    redis.stop().await;
    for (_, took) in join_all(fleet.iter().map(Process::token)).await {
        assert!(took < TIMEOUT * 2, "{took:?}");
    }
    assert_eq!(auth.token_requests(), fleet.len());
    assert!(fleet.iter().all(|process| process.stats().without_store == 1));
}

/// Behaviour 88.
#[tokio::test]
async fn a_token_that_is_alive_outlives_redis_and_is_shared_again_when_it_is_back() {
    let Some(mut redis) = Redis::start().await else { return };
    let auth = auth_server("2");
    let fleet = [store(&redis), store(&redis)].map(|store| Process::new(&auth, store));
    let first = fleet[0].token().await.0;
    assert_eq!(fleet[1].token().await.0, first);
    redis.stop().await;
    assert_eq!(fleet[1].token().await.0, first);
    redis.restart().await;
    assert_eq!((fleet[0].token().await.0, auth.token_requests()), (first, 1));

    expire().await;
    expire().await;
    let _ = auth.clone().announce_expires_in("3600");
    let second = fleet[0].token().await.0;
    assert_eq!((fleet[1].token().await.0, auth.token_requests()), (second, 2), "it is stored again");
}

/// Behaviour 88.
#[tokio::test]
async fn a_silent_redis_costs_one_timeout() {
    let Some(redis) = Redis::start().await else { return };
    let auth = auth_server("1");
    let process = Process::new(&auth, store(&redis));
    process.token().await;
    expire().await;
    let mut connection = redis.connection().await;
    let _: () = redis::cmd("CLIENT").arg(&["PAUSE", "10000", "ALL"]).query_async(&mut connection).await.unwrap();
    let (_, took) = process.token().await;
    println!("a request that met a silent Redis had its token after {took:?}; the timeout is {TIMEOUT:?}");
    assert!((TIMEOUT..TIMEOUT * 2).contains(&took), "{took:?}");

    // Redis is let alone for a while: who needs a token now does not wait for it again.
    process.handle.invalidate();
    let (_, took) = process.token().await;
    assert!(took < TIMEOUT / 2, "{took:?}");
    assert_eq!(auth.token_requests(), 3);
}

/// Wrong address, wrong password, a key that is not ours, a value of a newer version.
#[tokio::test]
async fn what_is_wrong_is_reported_and_costs_no_token() {
    let Some(redis) = Redis::with_password("right").await else { return };
    let auth = auth_server("3600");
    let healthy = Process::new(&auth, store(&redis));
    let shared = healthy.token().await.0;
    let wrong_port = redis.url().rsplit_once(':').unwrap().0.to_owned() + ":1";

    let newer = async {
        let mut connection = redis.connection().await;
        let name: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let read = redis::cmd("HGET").arg(&name[0]).arg("value").query_async::<Vec<u8>>(&mut connection).await.unwrap();
        let mut altered = read.clone();
        altered[3] += 1;
        (name[0].clone(), read, altered, connection)
    };
    let cases = [
        (RedisStore::new(&wrong_port, keys(1)), StoreErrorKind::Unavailable),
        (RedisStore::new(&redis.url().replace("right", "wrong"), keys(1)), StoreErrorKind::Refused),
        (RedisStore::new(&redis.url(), keys(2)), StoreErrorKind::Unreadable),
        (RedisStore::new(&redis.url(), keys(1)), StoreErrorKind::Newer),
    ];
    let (name, readable, altered, mut connection) = newer.await;
    for (store, kind) in cases {
        let put = async |value: &[u8], connection: &mut _| {
            let _: () = redis::cmd("HSET").arg(&name).arg("value").arg(value).query_async(connection).await.unwrap();
        };
        if kind == StoreErrorKind::Newer {
            put(&altered, &mut connection).await;
        }
        let before = auth.token_requests();
        let (events, _guard) = Events::record();
        let process = Process::new(&auth, store.unwrap());
        let own = process.token().await.0;
        assert_ne!(own, shared, "{kind:?}");
        assert_eq!(auth.token_requests() - before, 1);
        let told = events.all();
        let expected = format!("error.type={:?}", kind.as_str());
        assert!(told.iter().any(|event| event.contains("store failed") && event.contains(&expected)), "{told:?}");
        assert!(!told.iter().any(|event| event.contains("right") || event.contains("wrong")), "{told:?}");

        put(&readable, &mut connection).await;
        let (found, _) = Process::new(&auth, RedisStore::new(&redis.url(), keys(1)).unwrap()).token().await;
        assert_eq!(found, shared, "{kind:?}: what others can read was lost");
    }
}

/// All events, as text.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn record() -> (Self, tracing::subscriber::DefaultGuard) {
        let events = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
        (events, guard)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}
