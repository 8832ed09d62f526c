//! An authorization server, an API, and a store that fails as told.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::store::{
    Fence, Lease, MemoryStore, Recall, Saved, StoreError, StoreErrorKind, StoreKey, StoreLayer, Stored, TokenStore,
    Value, Version,
};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
use tower_oauth2_client::{Auth, AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, Secret};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const TOKEN_URL: &str = "https://auth.example.com/token";
pub(crate) const API: &str = "https://api.example.com";

pub(crate) struct World {
    pub(crate) clock: TestClock,
    pub(crate) auth: AuthServer,
    pub(crate) api: Api,
    pub(crate) store: Flaky,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = TestClock::new();
        let auth = AuthServer::new(clock.clone());
        let api = Api::new(&auth);
        let store = Flaky::over(MemoryStore::with_clock(clock.clone()));
        Self { clock, auth, api, store }
    }

    pub(crate) fn config(&self) -> AuthConfigBuilder {
        let client_auth = ClientAuth::basic("id", "secret");
        AuthConfig::client_credentials(TOKEN_URL, client_auth).origin(API).clock(self.clock.clone())
    }

    /// For somebody who has signed in; the refresh token is good once.
    pub(crate) fn signed_in(&self, refresh_token: &str) -> AuthConfigBuilder {
        let client_auth = ClientAuth::basic("id", "secret");
        AuthConfig::refresh_token(TOKEN_URL, client_auth, refresh_token).origin(API).clock(self.clock.clone())
    }

    pub(crate) fn process(&self, cfg: AuthConfigBuilder) -> Process {
        self.process_over(self.store.clone(), cfg)
    }

    /// A process that reaches the store in a way of its own.
    pub(crate) fn process_over(&self, store: Flaky, cfg: AuthConfigBuilder) -> Process {
        let layer =
            AuthLayer::builder(cfg.build().unwrap()).http_client(self.auth.clone()).store(store).build().unwrap();
        Process { handle: layer.handle(), client: layer.layer(self.api.clone()) }
    }

    /// With leases that last so long.
    pub(crate) fn process_with_lease(&self, cfg: AuthConfigBuilder, lease: Duration) -> Process {
        let store = self.store.clone();
        let layer = AuthLayer::builder(cfg.build().unwrap())
            .http_client(self.auth.clone())
            .store_with(move |identity| StoreLayer::new(store, identity).lease(lease))
            .build()
            .unwrap();
        Process { handle: layer.handle(), client: layer.layer(self.api.clone()) }
    }

    /// Processes that share the refresh token of one sign-in and have no other grant.
    pub(crate) fn signed_in_processes(&self, count: usize) -> Vec<Process> {
        let first = self.auth.sign_in("id", "");
        self.processes(count, || self.signed_in(&first))
    }

    pub(crate) fn processes(&self, count: usize, cfg: impl Fn() -> AuthConfigBuilder) -> Vec<Process> {
        (0..count).map(|_| self.process(cfg())).collect()
    }
}

#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) handle: AuthHandle,
    pub(crate) client: Auth<Api>,
}

impl Process {
    /// The status of a request's response.
    pub(crate) async fn get(&self) -> u16 {
        let request = Request::get(format!("{API}/items")).body(Full::<Bytes>::default()).unwrap();
        self.client.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    pub(crate) async fn token(&self) -> String {
        self.handle.token().await.unwrap().access_token().to_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Load,
    Save,
    Lease,
    Renew,
    Release,
    Remove,
    Changed,
    Recall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing happens but an error.
    Fail,
    /// It is done, and the answer is lost.
    LoseAnswer,
    Hang,
}

/// A store in memory that fails as told, and remembers what it was asked.
#[derive(Clone)]
pub(crate) struct Flaky {
    pub(crate) inner: MemoryStore,
    state: Arc<Mutex<State>>,
    /// How late this process hears that a copy is missed.
    hears_after: Duration,
}

#[derive(Default)]
struct State {
    troubles: Vec<(Call, Trouble)>,
    calls: Vec<Call>,
    last_key: Option<StoreKey>,
    save_takes: Duration,
    lease_takes: Duration,
}

impl Flaky {
    pub(crate) fn over(inner: MemoryStore) -> Self {
        Self { inner, state: Arc::default(), hears_after: Duration::ZERO }
    }

    /// The same store for a process that hears so late that a copy is missed.
    pub(crate) fn heard_after(&self, hears_after: Duration) -> Self {
        Self { hears_after, ..self.clone() }
    }

    /// From now on this call fails so, until [`heal`](Self::heal).
    pub(crate) fn trouble(&self, call: Call, trouble: Trouble) {
        self.state.lock().unwrap().troubles.push((call, trouble));
    }

    /// Another store in its place, for those who have this one.
    pub(crate) fn forget_everything(&self) {
        self.inner.clear();
    }

    pub(crate) fn down(&self, trouble: Trouble) {
        for call in [Call::Load, Call::Save, Call::Lease, Call::Renew, Call::Release, Call::Changed, Call::Recall] {
            self.trouble(call, trouble);
        }
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().troubles.clear();
    }

    pub(crate) fn calls(&self, call: Call) -> usize {
        self.state.lock().unwrap().calls.iter().filter(|made| **made == call).count()
    }

    /// Each save takes so long.
    pub(crate) fn slow_save(&self, takes: Duration) {
        self.state.lock().unwrap().save_takes = takes;
    }

    /// Each lease takes so long to get.
    pub(crate) fn slow_lease(&self, takes: Duration) {
        self.state.lock().unwrap().lease_takes = takes;
    }

    /// The key that was loaded last.
    pub(crate) fn last_key(&self) -> StoreKey {
        self.state.lock().unwrap().last_key.unwrap()
    }

    /// Stores these bytes, as somebody else.
    pub(crate) async fn overwrite(&self, key: &StoreKey, bytes: &[u8]) {
        let Lease::Acquired { fence, .. } = self.inner.lease(key, SECOND).await.unwrap() else { panic!("held") };
        let version = self.inner.load(key).await.unwrap().map_or(Version(0), |stored| stored.version);
        let value = Value::new(Secret::new(bytes.to_vec()), 1000 * HOUR);
        self.inner.save(key, &value, version, fence).await.unwrap();
        self.inner.release(key, fence).await.unwrap();
    }

    async fn play<T>(&self, call: Call, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let trouble = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(call);
            state.troubles.iter().find(|(at, _)| *at == call).map(|(_, trouble)| *trouble)
        };
        let failed = StoreError::new(StoreErrorKind::Unavailable);
        match trouble {
            None => work.await,
            Some(Trouble::Fail) => Err(failed),
            Some(Trouble::LoseAnswer) => work.await.and(Err(failed)),
            Some(Trouble::Hang) => pending().await,
        }
    }
}

impl TokenStore for Flaky {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.state.lock().unwrap().last_key = Some(*key);
        self.play(Call::Load, self.inner.load(key)).await
    }

    async fn save(&self, key: &StoreKey, value: &Value, expected: Version, fence: Fence) -> Result<Saved, StoreError> {
        let takes = self.state.lock().unwrap().save_takes;
        let work = async {
            tokio::time::sleep(takes).await;
            self.inner.save(key, value, expected, fence).await
        };
        self.play(Call::Save, work).await
    }

    async fn lease(&self, key: &StoreKey, duration: Duration) -> Result<Lease, StoreError> {
        let takes = self.state.lock().unwrap().lease_takes;
        let work = async {
            tokio::time::sleep(takes).await;
            self.inner.lease(key, duration).await
        };
        self.play(Call::Lease, work).await
    }

    async fn renew(&self, key: &StoreKey, fence: Fence, duration: Duration) -> Result<bool, StoreError> {
        self.play(Call::Renew, self.inner.renew(key, fence, duration)).await
    }

    async fn release(&self, key: &StoreKey, fence: Fence) -> Result<(), StoreError> {
        self.play(Call::Release, self.inner.release(key, fence)).await
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.play(Call::Remove, self.inner.remove(key)).await
    }

    async fn changed(&self, key: &StoreKey, since: Version) {
        let work = async {
            self.inner.changed(key, since).await;
            Ok(())
        };
        let _ = self.play(Call::Changed, work).await;
    }

    async fn recall(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.play(Call::Recall, self.inner.recall(key)).await
    }

    async fn recalled(&self) -> Recall {
        let recall = self.inner.recalled().await;
        tokio::time::sleep(self.hears_after).await;
        recall
    }
}
