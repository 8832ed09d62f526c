//! What comes out of a store: it is ours and whole, or it costs nobody a token.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value as Json;
use tower::service_fn;
use tower_oauth2_client::store::{
    Encrypted, EncryptionKeys, Fence, Lease, MemoryStore, Saved, StoreError, StoreKey, Stored, TokenStore, Value,
    Version,
};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{AuthConfig, AuthHandle, AuthLayer, ClientAuth, Secret};

use super::choices::Choices;
use super::{json, run};

/// What is loaded instead of what was saved.
type Damage = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// As it was saved and as it was loaded, last.
type Seen = Arc<Mutex<Option<(Vec<u8>, Vec<u8>)>>>;

/// A store in which one value is another than was saved.
#[derive(Clone)]
struct Damaged {
    inner: MemoryStore,
    damage: Arc<Damage>,
    seen: Seen,
}

impl TokenStore for Damaged {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        let Some(stored) = self.inner.load(key).await? else { return Ok(None) };
        let bytes = (self.damage)(stored.bytes.expose());
        *self.seen.lock().unwrap() = Some((stored.bytes.expose().clone(), bytes.clone()));
        Ok(Some(Stored::new(stored.version, Secret::new(bytes))))
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        self.inner.save(key, value, expected, fence).await
    }

    async fn lease(&self, key: &StoreKey, duration: std::time::Duration) -> Result<Lease, StoreError> {
        self.inner.lease(key, duration).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: std::time::Duration) -> Result<bool, StoreError> {
        self.inner.renew(key, fence, duration).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.inner.release(key, fence).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.inner.remove(key).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        self.inner.changed(key, since).await;
    }
}

/// Two processes' worth of handles: the first saves into the store as it is, the second loads what became of it.
fn handle(clock: &TestClock, asked: &Arc<AtomicUsize>, store: impl TokenStore) -> AuthHandle {
    let asked = asked.clone();
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!(
            "{{\"access_token\":\"asked-{number}\",\"token_type\":\"Bearer\",\"expires_in\":3600,\"scope\":\"a b\",\"x\":[1]}}"
        );
        async move { Ok::<_, std::io::Error>(json(body)) }
    });
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"));
    let cfg = cfg.origin("https://api.example.com").clock(clock.clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(client).store(store).build().unwrap().handle()
}

/// A record with one or more places changed, or none of ours at all: the token is the one that it names, or a new one.
pub fn stored_record(data: &[u8]) {
    let choices = Mutex::new(Choices::new(data).rest().to_vec());
    let damage = move |bytes: &[u8]| -> Vec<u8> {
        let data = choices.lock().unwrap().clone();
        let mut choices = Choices::new(&data);
        if choices.one_in(4) {
            return choices.rest().to_vec();
        }
        let Ok(mut record) = serde_json::from_slice::<Json>(bytes) else { return bytes.to_vec() };
        for _ in 0..choices.below(4) {
            let value = match choices.below(8) {
                0 => Json::Null,
                1 => Json::from(choices.number()),
                2 => Json::from(choices.text("abc -._~\"\\", 10)),
                3 => Json::from(-1),
                4 => Json::Bool(choices.one_in(2)),
                5 => Json::from(vec![1]),
                6 => Json::from(1e300),
                _ => serde_json::json!({"a": {}}),
            };
            let depth = choices.below(3);
            change(&mut choices, &mut record, depth, value);
        }
        record.to_string().into_bytes()
    };
    run(async move {
        let clock = TestClock::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let inner = MemoryStore::with_clock(clock.clone());
        handle(&clock, &asked, inner.clone()).token().await.expect("the store is healthy and so is the server");
        let store = Damaged { inner, damage: Arc::new(damage), seen: Arc::default() };
        let token = handle(&clock, &asked, store.clone()).token().await;
        let seen = store.seen.lock().unwrap().clone();
        let (_, loaded) = seen.expect("it was looked up");
        let record = serde_json::from_slice::<Json>(&loaded);
        match token {
            Ok(token) if token.access_token() == "asked-2" => {}
            Ok(token) => {
                let record = record.expect("a token out of no record");
                assert_eq!(record["token"]["access_token"].as_str(), Some(token.access_token()));
                assert_eq!(asked.load(Ordering::Relaxed), 1);
            }
            // A remembered failure is an answer, if the record has one.
            Err(error) => {
                let told = record.is_ok_and(|record| record.get("failure").is_some_and(|failure| !failure.is_null()));
                assert!(told, "a damaged record cost a token: {error}");
            }
        }
    });
}

fn change(choices: &mut Choices<'_>, record: &mut Json, depth: usize, value: Json) {
    let Json::Object(members) = record else { return };
    if members.is_empty() {
        return;
    }
    let names: Vec<String> = members.keys().cloned().collect();
    let name = names[choices.below(names.len())].clone();
    match (depth, choices.below(4)) {
        (0, 0) => drop(members.remove(&name)),
        (0, 1) => drop(members.insert("news".into(), value)),
        (0, 2) => drop(
            members.insert(choices.pick(&["refresh_token", "failure", "answer_lost", "made_by", "v"]).into(), value),
        ),
        (0, _) => drop(members.insert(name, value)),
        (_, _) => match members.get_mut(&name) {
            Some(inner @ Json::Object(_)) => change(choices, inner, depth - 1, value),
            _ => drop(members.insert(name, value)),
        },
    }
}

/// A ciphertext that was altered is not a token, one that was not is.
pub fn encrypted_record(data: &[u8]) {
    let data = data.to_vec();
    let damage = move |bytes: &[u8]| -> Vec<u8> {
        let mut choices = Choices::new(&data);
        let mut bytes = bytes.to_vec();
        match choices.below(5) {
            0 => return choices.rest().to_vec(),
            1 => bytes.truncate(choices.number() as usize % (bytes.len() + 1)),
            2 => bytes.extend_from_slice(choices.bytes(30)),
            _ => {
                for _ in 0..choices.below(4) {
                    let at = choices.number() as usize % bytes.len();
                    bytes[at] ^= choices.byte();
                }
            }
        }
        bytes
    };
    run(async move {
        let clock = TestClock::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let keys = EncryptionKeys::from_base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
        let inner = MemoryStore::with_clock(clock.clone());
        let store = Damaged { inner: inner.clone(), damage: Arc::new(damage), seen: Arc::default() };
        handle(&clock, &asked, Encrypted::new(inner, keys.clone())).token().await.unwrap();
        let token = handle(&clock, &asked, Encrypted::new(store.clone(), keys)).token().await;
        let token = token.expect("a damaged record cost a token");
        let seen = store.seen.lock().unwrap().clone();
        let (saved, loaded) = seen.expect("it was looked up");
        assert!(!saved.windows(5).any(|window| window == b"asked"), "in the clear");
        let expected = if saved == loaded { "asked-1" } else { "asked-2" };
        assert_eq!(token.access_token(), expected);
    });
}
