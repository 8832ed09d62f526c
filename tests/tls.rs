//! End to end over TLS with a certificate authority of our own: HTTP/1.1 and HTTP/2, and a proxy in between.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use support::{SECRET, outcome, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
use tower_oauth2_client::{AuthConfigBuilder, AuthLayer, TokenErrorKind};

/// Both servers, each with a certificate of the same authority.
struct Secure {
    auth: AuthServer,
    api: Api,
    auth_addr: SocketAddr,
    api_addr: SocketAddr,
}

impl Secure {
    async fn new(alpn: &[&str]) -> Self {
        // What a program does that has chosen the feature.
        #[cfg(not(feature = "rustls"))]
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let auth = AuthServer::new(TestClock::new()).client("client", SECRET);
        let api = Api::new(&auth);
        let (auth_addr, api_addr) = (tls::serve(alpn, auth.clone()).await, tls::serve(alpn, api.clone()).await);
        Self { auth, api, auth_addr, api_addr }
    }

    /// Does not trust the authority yet.
    fn config(&self) -> AuthConfigBuilder {
        support::config(&self.auth, format!("https://{}/token", self.auth_addr), format!("https://{}", self.api_addr))
    }

    fn client() -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::client_config()).https_only();
        Client::builder(TokioExecutor::new()).build(connector.enable_all_versions().build())
    }

    fn post(&self) -> Request<Full<Bytes>> {
        Request::post(format!("https://{}/items", self.api_addr)).body(Full::from("body")).unwrap()
    }
}

#[tokio::test]
async fn a_revoked_token_is_replaced_over_tls() {
    for (alpn, version) in [("http/1.1", Version::HTTP_11), ("h2", Version::HTTP_2)] {
        let secure = Secure::new(&[alpn]).await;
        let cfg = secure.config().root_certificates(tls::AUTHORITY).build().unwrap();
        let auth = AuthLayer::new(cfg).layer(Secure::client());
        auth.clone().oneshot(secure.post()).await.unwrap();

        secure.auth.revoke_all();
        let response = auth.oneshot(secure.post()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        assert!(outcome(&response).resent);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "body");
        assert_eq!((secure.auth.token_requests(), secure.api.hits()), (2, 3));
    }
}

/// The token requests through a client of the user's own, which offers both versions and is given the better one.
#[tokio::test]
async fn the_users_client_serves_tokens_too() {
    let secure = Secure::new(&["h2", "http/1.1"]).await;
    let auth = AuthLayer::builder(secure.config().build().unwrap())
        .http_client(Secure::client())
        .build()
        .unwrap()
        .layer(Secure::client());
    assert_eq!(auth.oneshot(secure.post()).await.unwrap().version(), Version::HTTP_2);
    assert_eq!(secure.auth.token_requests(), 1);
}

#[tokio::test]
async fn an_unknown_authority_is_refused_and_the_error_says_so() {
    let secure = Secure::new(&["http/1.1"]).await;
    let auth = AuthLayer::new(secure.config().build().unwrap()).layer(Secure::client());
    let error = auth.oneshot(secure.post()).await.unwrap_err();
    assert_eq!(error.token().unwrap().kind(), TokenErrorKind::Unreachable);
    let told = told(&error);
    assert!(told.contains("check its URL, DNS, proxy and TLS trust"), "{told}");
    assert!(told.contains("certificate"), "{told}");
    assert!(!format!("{told} {error:?}").contains("canary"), "{told} {error:?}");
    assert_eq!((secure.auth.token_requests(), secure.api.hits()), (0, 0), "no credentials left this process");
}

/// Through the tunnel of a proxy, as in most companies: it learns where we go, and nothing else.
#[tokio::test]
async fn the_built_in_token_client_uses_the_proxy() {
    let secure = Secure::new(&["http/1.1"]).await;
    let (proxy, seen) = tunnel().await;
    let config = secure.config().root_certificates(tls::AUTHORITY);
    let cfg = config.proxy(format!("http://user:canary-password@{proxy}")).build().unwrap();
    let auth = AuthLayer::new(cfg).layer(Secure::client());
    assert_eq!(auth.oneshot(secure.post()).await.unwrap().status(), 200);

    let heads = seen.lock().unwrap();
    let [head] = &heads[..] else { panic!("one tunnel, for tokens only: {heads:?}") };
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", secure.auth_addr)), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic "), "{head}");
    assert!(!head.contains("/token"), "{head}");
}

/// A proxy that makes tunnels to this machine and keeps what they were asked for with.
async fn tunnel() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                heads.lock().unwrap().push(head);
                let mut server = TcpStream::connect(target).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (addr, seen)
}
