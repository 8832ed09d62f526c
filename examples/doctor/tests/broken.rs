//! Broken configurations, each with what the doctor says of it: the program itself, against scripted servers.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::process::Command;
use tower::service_fn;
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, Served, TestClock, serve};

#[path = "../../../tests/support/tls.rs"]
#[allow(dead_code, reason = "a client of that kind is the doctor's")]
mod tls;

const SECRET: &str = "canary-secret";

struct Said {
    code: i32,
    text: String,
}

/// Runs the doctor on this file. What it says fits a terminal and holds no secret.
async fn doctor(config: &str, args: &[&str]) -> Said {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = std::env::temp_dir().join(format!("auth-doctor-{}-{number}.toml", std::process::id()));
    std::fs::write(&path, config).unwrap();
    let said = run(path.to_str().unwrap(), args).await;
    std::fs::remove_file(&path).unwrap();
    said
}

async fn run(path: &str, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auth-doctor"));
    for proxy in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(proxy);
    }
    let output = command.arg(path).args(args).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "80 columns: {text}");
    for secret in [SECRET, "canary", "Bearer ey", "access_token"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    println!("{text}");
    Said { code: output.status.code().unwrap(), text }
}

impl Said {
    /// The exit code, and words that stand there, however the lines are broken.
    fn expect(&self, code: i32, words: &[&str]) {
        let flat = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(flat.contains(word), "no `{word}` in: {}", self.text);
        }
    }
}

fn settings(token_url: &str) -> String {
    format!(
        "token_url = \"{token_url}\"\nclient_auth = \"basic\"\nclient_id = \"id\"\nclient_secret = \"{SECRET}\"\n\
         origins = [\"https://api.example.com\"]\n"
    )
}

async fn server() -> (AuthServer, Served) {
    let auth = AuthServer::new(TestClock::new()).client("id", SECRET);
    let served = serve(auth.clone()).await.unwrap();
    (auth, served)
}

/// A server that answers everything with this status, head and body.
async fn answering(status: u16, headers: &'static [(&'static str, &'static str)], body: impl Into<String>) -> Served {
    let body = Arc::new(body.into());
    let answer = service_fn(move |_: Request<Incoming>| {
        let body = body.clone();
        async move {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            Ok::<_, BoxError>(response.body(Full::new(Bytes::from(body.as_str().to_owned()))).unwrap())
        }
    });
    serve(answer).await.unwrap()
}

fn token_answer(rest: &str) -> String {
    format!(r#"{{"access_token":"canary","token_type":"Bearer"{rest}}}"#)
}

#[tokio::test]
async fn all_is_well() {
    let (auth, served) = server().await;
    let said = doctor(&(settings(&served.uri("/token")) + "scopes = \"read write\"\n"), &[]).await;
    said.expect(
        0,
        &["accepts connections", "type Bearer", "opaque", "3600 s by `expires_in`", "another token", "All is well"],
    );
    assert_eq!(auth.token_requests(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_the_file() {
    run("/does/not/exist.toml", &[]).await.expect(2, &["cannot be read"]);
    run("a", &["--what"]).await.expect(2, &["usage: auth-doctor"]);
    doctor("client_secret = canary", &[]).await.expect(2, &["is no TOML"]);
    let good = settings("https://auth.example.com/token");
    let misspelt = good.replace("client_id", "cleint_id");
    doctor(&misspelt, &[]).await.expect(2, &["`cleint_id` (did you mean `client_id`?)"]);
    doctor(&good.replace("\"id\"", "[\"canary\"]"), &[]).await.expect(2, &["wrong kind; expected a string"]);
    doctor(&good.replace("client_auth = \"basic\"\n", ""), &[]).await.expect(2, &["`client_auth` is missing"]);
    let unset = good.replace(&format!("\"{SECRET}\""), "{ env = \"NO_SUCH_VARIABLE_HERE\" }");
    doctor(&unset, &[]).await.expect(2, &["NO_SUCH_VARIABLE_HERE, which is not set"]);
    let no_file = good.replace(&format!("\"{SECRET}\""), "{ file = \"/does/not/exist\" }");
    let (_, served) = server().await;
    let no_file = no_file.replace("https://auth.example.com/token", &served.uri("/token"));
    doctor(&no_file, &[]).await.expect(2, &["cannot be read from /does/not/exist"]);
    doctor(&good.replace("https://auth", "http://auth"), &[]).await.expect(2, &["https"]);
    let two = format!("[layers.one]\n{good}\n[layers.two]\n{good}");
    doctor(&two, &[]).await.expect(2, &["several layers", "one of one, two"]);
    doctor(&two, &["--layer", "three"]).await.expect(2, &["no layer `three`"]);
    doctor(&good, &["--layer", "three"]).await.expect(2, &["no table `layers`"]);
    let tenants = good + "[tenant]\nheader = \"x-tenant\"\nper_tenant_tokens = true\n";
    doctor(&tenants, &[]).await.expect(2, &["--tenant"]);
}

#[tokio::test]
async fn a_name_that_nobody_knows() {
    let said = doctor(&settings("https://no-such-host.invalid/token"), &[]).await;
    said.expect(3, &["the name no-such-host.invalid cannot be resolved", "typing error"]);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    doctor(&settings(&url), &[]).await.expect(3, &["accepts no connection", "is the server started"]);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_and_one_that_is_known() {
    let auth = AuthServer::new(TestClock::new()).client("id", SECRET);
    let address = tls::serve(&["h2", "http/1.1"], auth).await;
    let config = settings(&format!("https://{address}/token"));
    doctor(&config, &[]).await.expect(3, &["unknown authority", "root_certificates"]);
    let authority = std::env::temp_dir().join(format!("auth-doctor-{}-authority.pem", std::process::id()));
    std::fs::write(&authority, tls::AUTHORITY).unwrap();
    let trusting = format!("{config}root_certificates = {{ file = \"{}\" }}\n", authority.display());
    doctor(&trusting, &[]).await.expect(0, &["certificate is trusted", "All is well"]);
    std::fs::remove_file(authority).unwrap();
}

#[tokio::test]
async fn https_where_http_is_spoken() {
    let (_, served) = server().await;
    let url = served.uri("/token").replace("http:", "https:");
    doctor(&settings(&url), &[]).await.expect(3, &["speaks no TLS"]);
}

#[tokio::test]
async fn what_the_token_endpoint_refuses() {
    let rows: Vec<(Fault, &[&str])> = vec![
        (Fault::error("invalid_client"), &["refuses the client credentials", "client_auth = \"body\""]),
        (Fault::error("invalid_scope"), &["scopes: read"]),
        (Fault::error("unauthorized_client"), &["allow this grant"]),
        (Fault::error("unsupported_grant_type"), &["has not got this grant"]),
        (Fault::Redirect("https://elsewhere.example/token?key=canary".into()), &["https://elsewhere.example/token"]),
        (Fault::Status(404), &["check the path of token_url"]),
        (Fault::Html, &["a page in HTML came"]),
        (Fault::Garbage, &["holds no usable token"]),
        (Fault::Status(503), &["status 503"]),
    ];
    for (fault, words) in rows {
        let (auth, served) = server().await;
        auth.always(fault);
        doctor(&(settings(&served.uri("/token")) + "scopes = \"read\"\n"), &[]).await.expect(4, words);
    }
    let (_, served) = server().await;
    let wrong = settings(&served.uri("/token")).replace(SECRET, "canary-other");
    doctor(&wrong, &[]).await.expect(4, &["refuses the client credentials"]);
}

#[tokio::test]
async fn metadata_that_are_missing_or_somebody_elses() {
    let found =
        |served: &Served| settings("").replace("token_url = \"\"", &format!("issuer = \"{}\"", served.origin()));
    let nothing = answering(404, &[], "").await;
    doctor(&found(&nothing), &[]).await.expect(4, &[".well-known/openid-configuration"]);
    let other = r#"{"issuer":"https://other.example","token_endpoint":"https://other.example/token"}"#;
    let other = answering(200, &[("content-type", "application/json")], other).await;
    doctor(&found(&other), &[]).await.expect(4, &["issuer = \"https://other.example\""]);
}

#[tokio::test]
async fn what_works_and_may_surprise() {
    let json = [("content-type", "application/json")];
    let json: &'static [(&str, &str)] = Box::leak(Box::new(json));
    let notes: Vec<(String, &[&str])> = vec![
        (token_answer(""), &["no lifetime is announced", "the same token"]),
        (token_answer(r#","expires_in":3600,"scope":"read""#), &["not granted: write", "the same token"]),
    ];
    for (answer, words) in notes {
        let served = answering(200, json, answer).await;
        let said = doctor(&(settings(&served.uri("/token")) + "scopes = [\"read\", \"write\"]\n"), &[]).await;
        said.expect(0, words);
        said.expect(0, &["It works; see the notes above."]);
    }

    // `exp` counts, and is another one; the server's clock is ahead.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{},"sub":"canary"}}"#, now + 600));
    let answer = format!(r#"{{"access_token":"eyJh.{claims}.c2ln","token_type":"Bearer","expires_in":86400}}"#);
    let ahead = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(120));
    let headers =
        Box::leak(Box::new([("content-type", "application/json"), ("date", &*Box::leak(ahead.into_boxed_str()))]));
    let served = answering(200, headers, answer).await;
    let said = doctor(&settings(&served.uri("/token")), &[]).await;
    said.expect(0, &["a JWT", "expiry = \"jwt_exp\"", "s ahead of this machine's", "NTP"]);
}

#[tokio::test]
async fn nothing_is_used_up_and_nobody_is_asked() {
    let (auth, served) = server().await;
    let base = settings(&served.uri("/token"));
    let person = "grant = \"authorization_code\"\nredirect_uri = \"http://127.0.0.1/callback\"\n";
    let person = format!("{base}{person}authorization_url = \"{}\"\n", served.uri("/authorize"));
    doctor(&person, &[]).await.expect(0, &["accepts connections", "a person must sign in"]);
    let refreshing = format!("{base}grant = \"refresh_token\"\nrefresh_token = \"canary\"\n");
    let said = doctor(&refreshing, &["--probe", "https://api.example.com/"]).await;
    said.expect(0, &["use up the refresh token", "there is no token to send"]);
    assert_eq!(auth.token_requests(), 0);
}

#[tokio::test]
async fn what_a_probe_is_answered() {
    let auth = AuthServer::new(TestClock::new()).client("id", SECRET);
    let served = serve(auth.clone()).await.unwrap();
    let api = serve(Api::new(&auth)).await.unwrap();
    let config = |api: &Served| settings(&served.uri("/token")).replace("https://api.example.com", &api.origin());
    doctor(&config(&api), &["--probe", &api.uri("/items")]).await.expect(0, &["200 OK: the API takes the token"]);
    let elsewhere = doctor(&settings(&served.uri("/token")), &["--probe", &api.uri("/items")]).await;
    elsewhere.expect(5, &[&format!("origins = [\"{}\"]", api.origin())]);

    type Row = (u16, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let rows: [Row; 7] = [
        (401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], &["does not take this token", "audiences"]),
        (401, &[], &["gives no reason"]),
        (401, &[("www-authenticate", "Basic realm=\"x\"")], &["another scheme than Bearer"]),
        (
            403,
            &[("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"admin\"")],
            &["add_scopes = \"admin\""],
        ),
        (403, &[], &["rights of the client"]),
        (302, &[("location", "/login")], &["a page for people"]),
        (500, &[], &["a problem"]),
    ];
    for (status, headers, words) in rows {
        let api = answering(status, headers, "canary").await;
        doctor(&config(&api), &["--probe", &api.uri("/")]).await.expect(5, words);
    }
}
