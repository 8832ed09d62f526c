//! Limits of one, and runtimes that end, while a peer hangs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock, both};
use tower_oauth2_client::{AuthLayer, TokenErrorKind};

use crate::PATIENCE;
use crate::peer::{Peer, Step};
use crate::support::{self, SECRET};

struct World {
    auth: AuthServer,
    api: Api,
    peer: Peer,
}

impl World {
    /// Tokens and the API at one peer.
    fn new() -> Self {
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = Api::new(&auth);
        Self { peer: Peer::new(both(&auth, &api), None), auth, api }
    }

    fn config(&self) -> tower_oauth2_client::AuthConfigBuilder {
        let origin = format!("http://{}", self.peer.addr());
        support::config(&self.auth, format!("{origin}/oauth2/token"), origin).token_timeout(PATIENCE)
    }

    fn get(&self) -> Request<Full<Bytes>> {
        Request::get(format!("http://{}/items", self.peer.addr())).body(Full::default()).unwrap()
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One connection, one request at a time, one thread, for tokens and the API; the token endpoint hangs, then the API does.
#[test]
fn a_limit_of_one_and_one_connection() {
    current_thread().block_on(async {
        let world = World::new();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build_http::<Full<Bytes>>();
        let limited = ServiceBuilder::new().concurrency_limit(1).service(client);
        let cfg = world.config().build().unwrap();
        let layer = AuthLayer::builder(cfg).http_client(limited.clone()).build().unwrap();
        let auth = ServiceBuilder::new().timeout(2 * PATIENCE).service(layer.layer(limited));

        world.peer.script([Step::Request, Step::Hang]);
        let answers = join_all((0..10).map(|_| auth.clone().oneshot(world.get()))).await;
        for answer in answers {
            let error = answer.unwrap_err();
            let error = error.downcast_ref::<tower_oauth2_client::Error>().expect("no request waits for a permit");
            assert_eq!(error.token().unwrap().kind(), TokenErrorKind::Timeout);
        }
        assert_eq!((world.peer.requests().len(), world.auth.token_requests(), world.api.hits()), (1, 0, 0));

        world.auth.clock().advance(Duration::from_secs(3600));
        for _ in 0..2 {
            let answers = join_all((0..10).map(|_| async {
                let response = auth.clone().oneshot(world.get()).await.unwrap();
                let status = response.status();
                response.into_body().collect().await.unwrap();
                status
            }));
            assert!(answers.await.iter().all(|status| *status == 200));
            world.auth.revoke_all();
        }
        assert_eq!(world.auth.token_requests(), 2);
        assert_eq!(world.peer.open_at_most(1).await, 1);
    });
}

/// Each runtime has connections of its own, so that those who wait elsewhere are answered over theirs.
#[test]
fn a_runtime_that_ends_under_a_refresh() {
    let world = Arc::new(World::new());
    let layer = AuthLayer::new(world.config().build().unwrap());
    let auth = layer.layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let ends = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let lives = current_thread();

    world.peer.script([Step::Request, Step::Hang]);
    ends.spawn(auth.clone().oneshot(world.get()));
    lives.block_on(async {
        while world.peer.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let own = layer.layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
        let joined: Vec<_> = (0..10).map(|_| tokio::spawn(own.clone().oneshot(world.get()))).collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        ends.shutdown_background();
        for joined in joined {
            assert_eq!(joined.await.unwrap().unwrap().status(), 200);
        }
    });
    assert_eq!((world.peer.requests().len(), world.auth.token_requests(), world.api.hits()), (1, 1, 10));
}
