//! A browser's answer to a sign-in, taken on a port of this machine: real sockets, order and counts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_oauth2_client::test_util::{AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthHandle, AuthLayer, AuthorizationCode, ClientAuth, LoopbackRedirect, SignIn, SignInErrorKind,
};

fn server() -> AuthServer {
    AuthServer::new(TestClock::new()).issue_refresh_tokens()
}

fn config(server: &AuthServer, redirect_uri: String) -> AuthConfig {
    let code = AuthorizationCode::new("https://auth.example.com/authorize", redirect_uri);
    let cfg = AuthConfig::authorization_code("https://auth.example.com/token", ClientAuth::none("tool"), code);
    cfg.origin("https://api.example.com").clock(server.clock().clone()).build().unwrap()
}

fn handle(server: &AuthServer, redirect_uri: String) -> AuthHandle {
    AuthLayer::builder(config(server, redirect_uri)).http_client(server.clone()).build().unwrap().handle()
}

/// A port with a sign-in for it, and where the person's browser goes after they agreed.
struct Begun {
    redirect: LoopbackRedirect,
    auth: AuthHandle,
    sign_in: SignIn,
    answer: String,
}

async fn begin(server: &AuthServer) -> Begun {
    let redirect = LoopbackRedirect::bind().await.unwrap();
    let auth = handle(server, redirect.uri());
    let sign_in = auth.sign_in().unwrap();
    let answer = server.browse(sign_in.url()).unwrap();
    Begun { redirect, auth, sign_in, answer }
}

/// `http://HOST/TARGET`, apart.
fn apart(uri: &str) -> (&str, String) {
    let (host, target) = uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
    (host, format!("/{target}"))
}

/// The whole answer to these bytes.
async fn send(host: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(uri: &str) -> String {
    let (host, target) = apart(uri);
    send(host, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

#[tokio::test]
async fn one_answer_and_it_closes() {
    let server = server();
    let Begun { redirect, auth, sign_in, answer } = begin(&server).await;
    let (host, _) = apart(&answer);
    let wait = tokio::spawn(redirect.pages("Done & <over>.", "Failed.").wait(sign_in));
    let page = get(&answer).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<p>Done &amp; &lt;over&gt;.</p>"), "{page}");
    assert!(page.contains("\r\ncache-control: no-store\r\n") && page.contains("\r\nconnection: close\r\n"), "{page}");
    assert_eq!(wait.await.unwrap().unwrap(), 0);
    assert!(auth.token().await.is_ok());
    assert!(TcpStream::connect(host).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn other_requests_are_answered_and_do_not_end_it() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let (host, target) = apart(&answer);
    let wait = tokio::spawn(redirect.wait(sign_in));
    // What browsers open and say nothing on.
    let silent = TcpStream::connect(host).await.unwrap();
    let here = format!("Host: {host}\r\n\r\n");
    for (request, expected) in [
        (format!("GET /favicon.ico HTTP/1.1\r\n{here}"), "404"),
        (format!("HEAD {target} HTTP/1.1\r\n{here}"), "405"),
        (format!("POST {target} HTTP/1.1\r\nContent-Length: 9\r\n{here}code=evil"), "405"),
        (format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421"),
        (format!("GET /callback HTTP/1.1\r\n{here}"), "400"),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), "400"),
        (format!("GET /callback?code=a HTTP/1.1\r\nA: {}", "a".repeat(100_000)), "431"),
    ] {
        let got = send_at_will(host, &request).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {expected} ")), "{request:.80}: {got}");
        assert!(!got.contains("code") && !got.contains("evil") && !got.contains("state"), "no echo: {got}");
    }
    assert!(!wait.is_finished());
    assert!(get(&answer).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(wait.await.unwrap().unwrap(), 0);
    drop(silent);
    assert_eq!(server.token_requests(), 1);
}

/// As [`send`], of which the other side need not take all.
async fn send_at_will(host: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

/// RFC 6749 §10.12.
#[tokio::test]
async fn an_answer_with_another_state_is_refused_counted_and_does_not_end_it() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let wait = tokio::spawn(redirect.wait(sign_in));
    let place = answer.split_once('?').unwrap().0;
    for query in ["code=canary&state=canary", "code=canary", "error=access_denied", "state=a&state=b&code=canary"] {
        let page = get(&format!("{place}?{query}")).await;
        assert!(page.starts_with("HTTP/1.1 400 ") && !page.contains("canary"), "{page}");
    }
    assert_eq!(server.token_requests(), 0);
    assert!(get(&answer).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(wait.await.unwrap().unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_what_came() {
    let server = server();
    let Begun { redirect, sign_in, .. } = begin(&server).await;
    let error = redirect.timeout(Duration::from_secs(60)).wait(sign_in).await.unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::Expired);
    assert!(error.to_string().contains("60s"), "{error}");
}

/// The clock stands still until the answer to the forged one is there.
#[tokio::test]
async fn who_waits_in_vain_is_told_of_answers_to_others() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let forged = format!("{}?code=canary&state=canary", answer.split_once('?').unwrap().0);
    let wait = tokio::spawn(redirect.wait(sign_in));
    get(&forged).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(300)).await;
    let error = wait.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::WrongState);
    assert!(error.to_string().contains("1 such answers") && !format!("{error:?}").contains("canary"), "{error}");
}

/// However slow it is, a connection ends; the count of bytes stands for the time.
#[tokio::test(start_paused = true)]
async fn a_byte_a_second_is_not_taken_for_long() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let (host, target) = apart(&answer);
    let (host, target) = (host.to_owned(), target);
    let wait = tokio::spawn(redirect.timeout(Duration::from_secs(3600)).wait(sign_in));
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let mut sent = 0;
    for byte in format!("GET {target} HTTP/1.1\r\n").into_bytes() {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        let mut end = [0];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut end)).await;
        if read.is_ok() {
            break;
        }
    }
    assert!((1..=12).contains(&sent), "{sent} bytes");
    wait.abort();
}

#[tokio::test]
async fn connections_without_a_request_do_not_keep_the_answer_out_for_good() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let (host, _) = apart(&answer);
    let wait = tokio::spawn(redirect.wait(sign_in));
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(host).await.unwrap());
    }
    let browser = tokio::spawn({
        let answer = answer.clone();
        async move { get(&answer).await }
    });
    // The silent ones have had their time.
    tokio::task::yield_now().await;
    tokio::time::pause();
    assert!(browser.await.unwrap().starts_with("HTTP/1.1 200 OK"));
    assert_eq!(wait.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn what_fails_is_told_to_both() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let state = answer.split_once("state=").unwrap().1.split('&').next().unwrap();
    let wait = tokio::spawn(redirect.wait(sign_in));
    let denied = format!("{}?error=access_denied&state={state}", answer.split_once('?').unwrap().0);
    let page = get(&denied).await;
    assert!(page.starts_with("HTTP/1.1 400 ") && page.contains("did not work") && !page.contains("denied"), "{page}");
    assert_eq!(wait.await.unwrap().unwrap_err().kind(), SignInErrorKind::Denied);
    assert_eq!(server.token_requests(), 0);

    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    server.script([Fault::error("invalid_grant")]);
    let code = answer.split_once("code=").unwrap().1.split('&').next().unwrap().to_owned();
    let wait = tokio::spawn(redirect.wait(sign_in));
    assert!(get(&answer).await.contains("did not work"));
    let error = wait.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::CodeRefused);
    assert!(!format!("{error} {error:?}").contains(&code));
}

/// Dropped while it waits: the port is closed. Dropped while the code is exchanged: the token is not lost.
#[tokio::test]
async fn it_can_be_dropped_at_any_time() {
    let server = server();
    let Begun { redirect, sign_in, answer, .. } = begin(&server).await;
    let (host, _) = apart(&answer);
    let wait = tokio::spawn(redirect.wait(sign_in));
    tokio::task::yield_now().await;
    wait.abort();
    assert!(wait.await.unwrap_err().is_cancelled());
    assert!(TcpStream::connect(host).await.is_err());

    // An HTTP client that waits to be let through.
    let gate = Arc::new(Semaphore::new(0));
    let client = tower::service_fn({
        let (gate, server) = (gate.clone(), server.clone());
        move |request| {
            let (gate, server) = (gate.clone(), server.clone());
            async move {
                let _permit = gate.acquire().await;
                server.oneshot(request).await
            }
        }
    });
    let redirect = LoopbackRedirect::bind().await.unwrap();
    let auth = AuthLayer::builder(config(&server, redirect.uri())).http_client(client).build().unwrap().handle();
    let sign_in = auth.sign_in().unwrap();
    let answer = server.browse(sign_in.url()).unwrap();
    let wait = tokio::spawn(redirect.wait(sign_in));
    let host = apart(&answer).0.to_owned();
    let browser = tokio::spawn(async move { send_get_at_will(&answer).await });
    // The port closes before the code is sent.
    while TcpStream::connect(&host).await.is_ok() {}
    wait.abort();
    let _ = wait.await;
    gate.add_permits(1);
    assert_eq!(browser.await.unwrap(), "", "its connection is closed");
    while auth.token().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.token_requests(), 1);
}

async fn send_get_at_will(uri: &str) -> String {
    let (host, target) = apart(uri);
    send_at_will(host, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

#[tokio::test]
async fn only_loopback_addresses_and_the_uri_of_the_sign_in() {
    assert!(LoopbackRedirect::bind_to((Ipv4Addr::UNSPECIFIED, 0)).await.is_err());
    assert!(LoopbackRedirect::bind_to(([192, 0, 2, 1], 0)).await.is_err());
    let server = server();
    let redirect = LoopbackRedirect::bind().await.unwrap();
    assert!(redirect.uri().starts_with("http://127.0.0.1:") && redirect.uri().ends_with("/callback"));
    assert!(format!("{redirect:?}").contains("127.0.0.1"));
    let sign_in = handle(&server, "http://127.0.0.1:1/callback".into()).sign_in().unwrap();
    assert_eq!(redirect.wait(sign_in).await.unwrap_err().kind(), SignInErrorKind::Unsupported);
    let redirect = LoopbackRedirect::bind().await.unwrap().path("/back?x=y");
    let sign_in = handle(&server, redirect.uri()).sign_in().unwrap();
    assert_eq!(redirect.wait(sign_in).await.unwrap_err().kind(), SignInErrorKind::Unsupported);
}

/// Not every machine has IPv6.
#[tokio::test]
async fn the_address_may_be_that_of_ipv6() {
    let Ok(redirect) = LoopbackRedirect::bind_to((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let redirect = redirect.path("/oauth/back");
    let server = server();
    let sign_in = handle(&server, redirect.uri()).sign_in().unwrap();
    let answer = server.browse(sign_in.url()).unwrap();
    assert!(answer.starts_with("http://[::1]:") && answer.contains("/oauth/back?"), "{answer}");
    let wait = tokio::spawn(redirect.wait(sign_in));
    assert!(get(&answer).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(wait.await.unwrap().unwrap(), 0);
}
