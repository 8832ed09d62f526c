//! smoke
use bytes::Bytes;
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthOutcome, ClientAuth, TenantId, providers};

#[tokio::test(start_paused = true)]
async fn smoke() {
    let clock = TestClock::new();
    let auth = AuthServer::new(clock.clone()).client("id", "secret");
    let api = Api::new(&auth);
    let cfg = AuthConfig::client_credentials("https://auth.example.com/oauth2/token", ClientAuth::basic("id", "secret"))
        .origin("https://api.example.com")
        .clock(clock.clone())
        .build()
        .unwrap();
    let layer = AuthLayer::with_client(cfg, auth.clone());
    let client = layer.layer(api.clone());
    let mut tasks = Vec::new();
    for _ in 0..1000 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let request = http::Request::get("https://api.example.com/x").body(Full::new(Bytes::from("hi"))).unwrap();
            client.oneshot(request).await.unwrap().status()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(auth.token_requests(), 1);
    auth.revoke_all();
    let mut client = client;
    for i in 0..5 {
        let request = http::Request::get("https://api.example.com/x").body(Full::new(Bytes::from("hi"))).unwrap();
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        println!("{i} {:?}", response.extensions().get::<AuthOutcome>());
    }
    assert_eq!(auth.token_requests(), 2);
    clock.advance(std::time::Duration::from_secs(3500));
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let request = http::Request::get("https://api.example.com/x").body(Full::new(Bytes::from("hi"))).unwrap();
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    println!("{:?}", response.extensions().get::<AuthOutcome>());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(auth.token_requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn vip() {
    let clock = TestClock::new();
    let auth = AuthServer::vip(clock.clone()).client("id", "secret");
    let api = Api::vip(&auth);
    let cfg = providers::vip("id", "secret").clock(clock.clone()).build().unwrap();
    let client = AuthLayer::with_client(cfg, auth.clone()).layer(api.clone());
    let mut request = http::Request::get("https://api.vetspace.cloud/x").body(Full::new(Bytes::from("hi"))).unwrap();
    request.extensions_mut().insert(TenantId::new("abc").unwrap());
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
}
