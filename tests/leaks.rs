//! Every error path of the whole layer with recognisable secrets, and a search for them in everything it says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "here a panic is the report")]

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, AuthOutcome, AuthorizationCode, BoxError, ClientAuth,
    Discovery, DpopKey, Error, RefreshFailed, RefreshToken, Replay, Secret, SignInError, SigningAlgorithm, Tenant,
    TenantId, Token, TokenError, TokenRequest, TransportError,
};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/recorder.rs"]
mod recorder;

use recorder::Recorder;

const ID: &str = "my-id";
const SECRET: &str = "canary-secret+1";
const ACCESS: &str = "canary-access-2";
const REFRESH: &str = "canary-refresh-3";
const TENANT: &str = "canary-tenant-4";
const PARAM: &str = "canary-param-5";
const PATH: &str = "canary-path-6";
/// The private key of RFC 8037 A.1.
const KEY: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
/// Every proof begins so.
const PROOF: &str = "eyJ0eXAiOiJkcG9w";

/// Behaviours 103 and 104.
#[tokio::test(start_paused = true)]
async fn nothing_that_the_layer_says_tells_a_secret() {
    let said = Said::default();
    let listening = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_span_events(FmtSpan::FULL);
    listening.with_writer(said.clone()).init();
    let counted = Recorder::default();
    metrics::set_global_recorder(counted.clone()).map_err(drop).unwrap();
    let panics = said.clone();
    std::panic::set_hook(Box::new(move |info| panics.add(&info.to_string())));

    said.ours_is_heard();
    misconfigured(&said);
    let clock = TestClock::new();
    for client_auth in [ClientAuth::basic(ID, SECRET), ClientAuth::basic_raw(ID, SECRET), ClientAuth::body(ID, SECRET)]
    {
        let cfg = config(client_auth, &clock).build().unwrap();
        said.show(&cfg);
        for fault in troubles() {
            let trouble = Trouble { fault, cfg: cfg.clone(), clock: clock.clone(), said: said.clone() };
            trouble.without_a_token().await;
            trouble.after_a_rejection().await;
        }
    }
    refused_before_sending(&said).await;
    own_sources(&said).await;
    let mut own = sign_ins(&said).await;
    own.extend(other_endpoints(&said).await);

    let _ = std::panic::take_hook();
    labels_are_few(&counted);
    said.show(&counted.series());
    said.must_not_tell();
    said.must_not_tell_any_of(&own);
}

/// Each label has one of a few values, none of them from outside but for the layer's name.
fn labels_are_few(counted: &Recorder) {
    let series = counted.series();
    assert!(series.len() > 10, "it was told of all that went wrong: {series:?}");
    let names = ["auth.example.com", "api.example.com", "127.0.0.1"];
    for (metric, labels) in series.keys() {
        for (label, value) in labels {
            let is_known = match label.as_str() {
                "layer" => names.contains(&value.as_str()),
                "trigger" | "outcome" | "operation" | "error.type" => {
                    value.len() < 32 && value.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                }
                "grant" => ["client_credentials", "refresh_token", "authorization_code"].contains(&value.as_str()),
                _ => false,
            };
            assert!(is_known, "{metric}: {label} = {value}");
        }
    }
}

/// Behaviour 149 (the debug data of an HTTP/2 GOAWAY, over a real connection).
#[tokio::test]
async fn what_a_server_says_while_it_hangs_up_is_not_told() {
    let said = Said::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(said.clone());
    let _heard = tracing::subscriber::set_default(subscriber.finish());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut hung_up = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(&goaway(&format!("no {SECRET} {ID} here"))).await.unwrap();
            // Until the client has read it.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            hung_up += 1;
            if hung_up == 2 {
                break;
            }
        }
    });
    let cfg = AuthConfig::client_credentials(format!("{origin}/token"), ClientAuth::body(ID, SECRET))
        .origin("https://api.example.com")
        .build()
        .unwrap();
    let http2 = Hyper::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let layer = AuthLayer::builder(cfg).http_client(http2).build().unwrap();
    let api = Api::new(&AuthServer::new(TestClock::new()));
    let error = layer.layer(api).oneshot(get("https://api.example.com/")).await.unwrap_err();
    let cause = error.token().unwrap().source().unwrap().downcast_ref::<TransportError>().unwrap().clone();
    assert_eq!(cause.http2_code(), Some(11), "{cause:?}");
    said.error(&error);
    said.show(&tonic::Status::from_error(Box::new(Error::Token(error.token().unwrap().clone()))));
    layer.handle().invalidate();
    said.error(&layer.handle().token().await.unwrap_err());
    said.show(&(&layer, layer.handle(), layer.handle().stats()));
    server.abort();
    let said = said.text();
    assert!(said.contains("ENHANCE_YOUR_CALM"), "the kind of the error is told: {said}");
    // What hyper writes at the level TRACE of its own is not ours.
    let ours = said.lines().filter(|line| !line.contains(" hyper") && !line.contains(" h2"));
    for line in ours {
        assert!(!line.contains("canary") && !line.contains(ID), "{line}");
    }
}

/// Behaviour 150 (a secret of letters alone, echoed in every disguise as an error code).
#[tokio::test]
async fn what_is_like_a_secret_is_not_told_as_a_code() {
    const SECRET: &str = "opensesamepassword";
    const KEY: &str = "keyofthequery";
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = URL_SAFE_NO_PAD.encode(SECRET);
    let reversed: String = SECRET.chars().rev().collect();
    let disguises = [
        SECRET.to_owned(),
        SECRET[1..].to_owned(),
        SECRET[..9].to_owned(),
        SECRET.to_uppercase(),
        base64.to_lowercase(),
        base64,
        hex,
        reversed,
        KEY.to_owned(),
        KEY[2..].to_owned(),
    ];
    for code in &disguises {
        let auth = AuthServer::new(TestClock::new());
        auth.always(Fault::error(code.clone()));
        let url = format!("https://auth.example.com/token?key={KEY}");
        let cfg = AuthConfig::client_credentials(url, ClientAuth::basic(ID, SECRET));
        let layer = AuthLayer::builder(cfg.origin("https://api.example.com").build().unwrap());
        let layer = layer.http_client(auth).build().unwrap();
        let said = Said::default();
        let error = layer.handle().token().await.unwrap_err();
        said.error(&error);
        said.show(&(layer.handle().stats(), error.code()));
        let said = said.text().to_lowercase();
        assert!(!said.contains(&code.to_lowercase()), "{code}: {said}");
    }
}

/// A server's first frames, which end the connection (RFC 9113 §6.5, §6.8).
fn goaway(debug_data: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ENHANCE_YOUR_CALM: u8 = 11;
    let length = u8::try_from(8 + debug_data.len()).unwrap();
    let head = [0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ENHANCE_YOUR_CALM];
    [&SETTINGS[..], &head, debug_data.as_bytes()].concat()
}

/// What an authorization server, or somebody who pretends to be one, may answer.
fn troubles() -> Vec<Fault> {
    let everything = [SECRET, ACCESS, REFRESH, TENANT, PARAM, PATH].join(" ");
    let basic = STANDARD.encode(format!("{ID}:{SECRET}"));
    let mut faults = vec![
        Fault::Drop,
        Fault::DropInBody,
        Fault::LoseAnswer,
        Fault::Hang,
        Fault::HangInBody,
        Fault::Huge,
        Fault::Html,
        Fault::Garbage,
        Fault::Status(500),
        Fault::RetryAfter(429, 30),
        Fault::error("invalid_client"),
        Fault::error("invalid_grant"),
        Fault::Redirect(format!("https://elsewhere.example.net/{ACCESS}?secret={SECRET}").into()),
    ];
    let bodies = [
        everything.clone(),
        format!("<html>{everything}</html>"),
        format!(r#"{{"error":"invalid_client","error_description":"{everything} Basic {basic}"}}"#),
        format!(r#"{{"error":"invalid_grant","error_description":"{everything}","error_uri":"https://{PATH}/"}}"#),
        format!(r#"{{"error":"{SECRET}"}}"#),
        format!(r#"{{"{everything}":{{"#),
        format!(r#""{ACCESS}""#),
        format!(r#"{{"access_token":"{everything}"}}"#),
        format!(r#"{{"access_token":["{ACCESS}"],"refresh_token":"{REFRESH}"}}"#),
        format!(r#"{{"access_token":"{ACCESS}","token_type":"{everything}"}}"#),
        format!(r#"{{"access_token":"{ACCESS}","access_token":"{REFRESH}"}}"#),
        format!(r#"{{"access_token":"{ACCESS}","expires_in":"{PARAM}","scope":7}}"#),
    ];
    for body in bodies {
        for status in [200, 400, 401, 403, 500] {
            let response = Response::builder().status(status).header("content-type", "application/json");
            let response = response.header("retry-after", ACCESS).header("www-authenticate", format!("Basic {SECRET}"));
            faults.push(Fault::Respond(response.body(Bytes::from(body.clone())).unwrap()));
        }
    }
    faults
}

type Client = Auth<Api>;

/// One way in which token requests go wrong.
struct Trouble {
    fault: Fault,
    cfg: AuthConfig,
    clock: TestClock,
    said: Said,
}

impl Trouble {
    /// The first token request meets it.
    async fn without_a_token(&self) {
        let (auth, api, layer) = self.world();
        let client = layer.layer(api);
        auth.always(self.fault.clone());
        for _ in 0..2 {
            self.send(&client).await;
        }
        self.said.state_of(&layer, &client).await;
    }

    /// A token that was handed in is rejected, and the token request for another one meets it.
    async fn after_a_rejection(&self) {
        let (auth, api, layer) = self.world();
        let client = layer.layer(api.clone());
        let token = Token::with_scheme("DPoP", ACCESS).unwrap();
        let token = token.with_refresh_token(RefreshToken::Replace(Secret::from(REFRESH)));
        self.said.show(&token);
        layer.handle().for_tenant(&TenantId::new(TENANT).unwrap()).set_token(token).await.unwrap();
        auth.always(self.fault.clone());
        api.always(Fault::error(ACCESS));
        for _ in 0..2 {
            self.send(&client).await;
        }
        self.said.state_of(&layer, &client).await;
    }

    fn world(&self) -> (AuthServer, Api, AuthLayer) {
        let auth = AuthServer::new(self.clock.clone());
        let api = Api::new(&auth);
        let layer = AuthLayer::builder(self.cfg.clone()).http_client(auth.clone()).build().unwrap();
        (auth, api, layer)
    }

    async fn send(&self, client: &Client) {
        let request = for_tenant(get(&format!("https://api.example.com/{PATH}?{PARAM}")));
        match client.clone().oneshot(request).await {
            Ok(response) => self.said.extensions(&response),
            Err(error) => self.said.error(&error),
        }
    }
}

fn config(client_auth: ClientAuth, clock: &TestClock) -> AuthConfigBuilder {
    AuthConfig::client_credentials(format!("https://auth.example.com/oauth2/token?key={PARAM}"), client_auth)
        .token_param("resource", PARAM)
        .token_header("x-key", PARAM)
        .tenant(Tenant::header("x-tenant").token_header("x-account").token_param("account"))
        .origin("https://api.example.com")
        .max_token_response_bytes(4096)
        .clock(clock.clone())
        .dpop(key())
}

fn key() -> DpopKey {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n");
    DpopKey::from_pem(SigningAlgorithm::EdDsa, pem).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

fn for_tenant(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(TenantId::new(TENANT).unwrap());
    request
}

/// Mistakes in a configuration, each with a secret in the wrong place.
fn misconfigured(said: &Said) {
    let clock = TestClock::new();
    let plain = || config(ClientAuth::basic(ID, SECRET), &clock);
    let builders = [
        config(ClientAuth::basic(ID, format!("{SECRET}\n")), &clock),
        config(ClientAuth::basic_raw(format!("{SECRET}:"), SECRET), &clock),
        config(ClientAuth::body("", SECRET), &clock),
        AuthConfig::client_credentials(format!("http://{SECRET}/token"), ClientAuth::none(ID)).origin("https://a.b"),
        AuthConfig::client_credentials(SECRET, ClientAuth::none(ID)).origin("https://a.b"),
        AuthConfig::client_credentials(format!("https://{ID}:{SECRET}@a.b/"), ClientAuth::none(ID))
            .origin("https://a.b"),
        AuthConfig::refresh_token("https://a.b/token", ClientAuth::none(ID), format!("{REFRESH}\n"))
            .origin("https://a.b"),
        plain().token_param("client_secret", SECRET),
        plain().token_header("authorization", SECRET),
        plain().token_header("x-key", format!("{SECRET}\n")),
        plain().origin(format!("https://{ID}:{SECRET}@api.example.com")),
        plain().origin(format!("https://api.example.com/{PATH}?{SECRET}")),
        plain().default_header("x-key", format!("{SECRET}\n")),
        plain().tenant(Tenant::header("x-tenant").fixed(format!("{TENANT}\n"))),
    ];
    for builder in builders {
        said.show(&builder);
        match builder.build() {
            Ok(cfg) => said.show(&cfg),
            Err(error) => said.error(&error),
        }
    }
    said.error(&Token::bearer(&format!("{ACCESS} {ACCESS}")).unwrap_err());
    said.error(&Token::bearer(&ACCESS.repeat(10_000)).unwrap_err());
    said.error(&TenantId::new(format!("{TENANT}\n")).unwrap_err());
    said.show(&(ClientAuth::body(ID, SECRET), Secret::from(SECRET), Tenant::header("x").fixed(TENANT)));
    said.show(&key());
    for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::Rs256, SigningAlgorithm::Es512] {
        said.error(&DpopKey::from_pem(algorithm, KEY).unwrap_err());
    }
    said.show(&(TenantId::new(TENANT).unwrap(), RefreshToken::Replace(Secret::from(REFRESH))));
}

/// Requests that the layer does not let out.
async fn refused_before_sending(said: &Said) {
    let auth = AuthServer::new(TestClock::new());
    let cfg = config(ClientAuth::basic(ID, SECRET), auth.clock()).build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap();
    let client = layer.layer(Api::new(&auth));
    let mut contradicts = for_tenant(get("https://api.example.com/"));
    contradicts.headers_mut().insert("x-tenant", format!("{TENANT}-other").parse().unwrap());
    let mut malformed = get("https://api.example.com/");
    malformed.headers_mut().insert("x-tenant", format!("{TENANT}\u{7f}").parse().or("x".parse()).unwrap());
    let requests = [
        get(&format!("https://api.example.com/{PATH}")),
        for_tenant(get(&format!("https://elsewhere.example.net/{PATH}?{SECRET}"))),
        for_tenant(get(&format!("https://{ID}:{SECRET}@api.example.com/{PATH}"))),
        for_tenant(get(&format!("http://api.example.com/{PATH}?{SECRET}"))),
        contradicts,
        malformed,
    ];
    for request in requests {
        said.error(&client.clone().oneshot(request).await.unwrap_err());
    }
    assert_eq!(auth.token_requests(), 0);
    let two_tenants = client.for_tenant(&TenantId::new(format!("{TENANT}-other")).unwrap());
    said.error(&two_tenants.oneshot(for_tenant(get("https://api.example.com/"))).await.unwrap_err());
    let malformed = ClientAuth::basic(ID, format!("{SECRET}\n"));
    said.error(&layer.handle().replace_credentials(malformed).unwrap_err());
}

/// Sources that fail, panic or never answer. What they are asked is shown too.
async fn own_sources(said: &Said) {
    for how in ["fail", "panic", "hang", "succeed"] {
        let heard = said.clone();
        let source = tower::service_fn(move |request: TokenRequest| {
            heard.show(&request);
            async move {
                match how {
                    "fail" => Err(TokenError::transient("out of order")),
                    "panic" => panic!("this source is broken"),
                    "hang" => std::future::pending().await,
                    _ => Token::bearer(ACCESS).map_err(TokenError::permanent),
                }
            }
        });
        let cfg = AuthConfig::external()
            .origin("https://api.example.com")
            .tenant(Tenant::header("x-tenant").per_tenant_tokens())
            .replay(Replay::Idempotent)
            .build()
            .unwrap();
        let layer = AuthLayer::with_source(cfg, source);
        let token = Token::bearer(ACCESS).unwrap().with_refresh_token(RefreshToken::Replace(Secret::from(REFRESH)));
        layer.handle().for_tenant(&TenantId::new(TENANT).unwrap()).set_token(token).await.unwrap();
        layer.handle().invalidate();
        let auth = AuthServer::new(TestClock::new());
        let client = layer.layer(Api::new(&auth).bare_401());
        match client.clone().oneshot(for_tenant(get("https://api.example.com/"))).await {
            Ok(response) => said.extensions(&response),
            Err(error) => said.error(&error),
        }
        said.state_of(&layer, &client).await;
    }
}

/// Sign-ins that fail in every way, with a code that is a canary. Gives the secrets of each, which are random.
async fn sign_ins(said: &Said) -> Vec<String> {
    const CODE: &str = "canary-code-7";
    let clock = TestClock::new();
    let code = AuthorizationCode::new(format!("https://auth.example.com/{PATH}?{PARAM}"), format!("app:/{PATH}"))
        .issuer("https://auth.example.com")
        .param("login_hint", TENANT);
    let cfg =
        AuthConfig::authorization_code("https://auth.example.com/token", ClientAuth::body(ID, SECRET), code.clone())
            .origin("https://api.example.com")
            .token_param("key", PARAM)
            .tenant(Tenant::header("x-tenant").fixed(TENANT).token_header("x-account"))
            .max_token_response_bytes(4096)
            .clock(clock.clone())
            .build()
            .unwrap();
    said.show(&(code, &cfg));
    let mut own = Vec::new();
    let begin = |own: &mut Vec<String>| {
        let auth = AuthServer::new(clock.clone());
        let sign_in =
            AuthLayer::builder(cfg.clone()).http_client(auth.clone()).build().unwrap().handle().sign_in().unwrap();
        let saved = sign_in.save();
        said.show(&(&sign_in, &saved));
        own.extend(saved.expose().split('.').map(str::to_owned));
        (auth, sign_in, own[own.len() - 2].clone(), own[own.len() - 1].clone())
    };
    let redirects: [fn(&str, &str) -> String; 6] = [
        |_, _| format!("https://app.example.com/{PATH}?code={CODE}"),
        |state, _| format!("code={CODE}&state={state}x"),
        |state, _| format!("code={CODE}&code={CODE}&state={state}"),
        |state, _| format!("code=&canary&state={state}"),
        |state, _| format!("code={CODE}&state={state}&iss=https://{ACCESS}.example"),
        |state, verifier| {
            format!("error={state}&error_description={CODE}+{state}+{verifier}&code={CODE}&state={state}")
        },
    ];
    for redirect in redirects {
        let (auth, sign_in, state, verifier) = begin(&mut own);
        said.sign_in_error(&sign_in.finish(&redirect(&state, &verifier)).await.unwrap_err(), &[&state, &verifier]);
        assert_eq!(auth.token_requests(), 0);
    }
    for fault in troubles() {
        let (auth, sign_in, state, verifier) = begin(&mut own);
        auth.script([fault]);
        if let Err(error) = sign_in.finish(&format!("code={CODE}&state={state}")).await {
            said.sign_in_error(&error, &[CODE, &state, &verifier, SECRET]);
        }
        let (auth, sign_in, state, verifier) = begin(&mut own);
        let echo = format!(r#"{{"error":"{verifier}","error_description":"{CODE} {state} {verifier} {SECRET}"}}"#);
        auth.script([Fault::Respond(Response::builder().status(400).body(Bytes::from(echo)).unwrap())]);
        let error = sign_in.finish(&format!("code={CODE}&state={state}")).await.unwrap_err();
        // The state was never sent there, so that nobody looks for it in the server's own words.
        said.sign_in_error(&error, &[CODE, &verifier, SECRET]);
    }
    let handle = AuthLayer::builder(cfg).http_client(AuthServer::new(clock.clone())).build().unwrap().handle();
    let forged = handle.resume_sign_in(&Secret::from(format!("{ACCESS}.{REFRESH}")));
    said.sign_in_error(&forged.unwrap_err(), &[]);
    own
}

/// Discovery, revocation and sign-ins on another device that fail in every way. Gives the codes of the latter.
async fn other_endpoints(said: &Said) -> Vec<String> {
    let clock = TestClock::new();
    let finish = |cfg: AuthConfigBuilder| {
        cfg.token_param("key", PARAM)
            .token_header("x-key", PARAM)
            .tenant(Tenant::header("x-tenant").fixed(TENANT).token_header("x-account").token_param("account"))
            .origin("https://api.example.com")
            .max_token_response_bytes(4096)
            .clock(clock.clone())
            .build()
            .unwrap()
    };
    let client_auth = || ClientAuth::body(ID, SECRET);
    let discovered = finish(AuthConfig::client_credentials(Discovery::of("https://auth.example.com"), client_auth()));
    let device = finish(
        AuthConfig::device("https://auth.example.com/token", client_auth())
            .device_authorization_url("https://auth.example.com/device_authorization")
            .revocation_url(format!("https://auth.example.com/revoke?key={PARAM}")),
    );
    said.show(&(&discovered, &device));
    let mut own = Vec::new();
    for fault in troubles() {
        let auth = AuthServer::new(clock.clone());
        auth.script_other([fault.clone()]);
        if let Err(error) =
            AuthLayer::builder(discovered.clone()).http_client(auth).build().unwrap().handle().token().await
        {
            said.error(&error);
        }

        let auth = AuthServer::new(clock.clone());
        let handle = AuthLayer::builder(device.clone()).http_client(auth.clone()).build().unwrap().handle();
        let token = Token::bearer(ACCESS).unwrap().with_refresh_token(RefreshToken::Replace(Secret::from(REFRESH)));
        handle.set_token(token).await.unwrap();
        auth.script_other([fault.clone(), fault.clone()]);
        for _ in 0..2 {
            if let Err(error) = handle.revoke().await {
                said.error(&error);
            }
        }

        auth.heal();
        let auth = auth.device_code_lifetime(Duration::from_secs(20));
        let sign_in = handle.sign_in_on_device().await.unwrap();
        own.push(sign_in.user_code().to_owned());
        own.push("device-code-1".to_owned());
        said.show(&sign_in);
        auth.script([fault.clone()]);
        if let Err(error) = sign_in.wait().await {
            said.sign_in_error(&error, &[SECRET, TENANT, PARAM]);
        }
        auth.script_other([fault]);
        match handle.sign_in_on_device().await {
            Ok(sign_in) => said.show(&sign_in),
            Err(error) => said.sign_in_error(&error, &[SECRET, TENANT, PARAM]),
        }
    }
    own
}

/// Everything that was said: text of errors, debug output, events and panics.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn add(&self, text: &str) {
        let mut said = self.0.lock().unwrap();
        said.push_str(text);
        said.push('\n');
    }

    /// A copy, since the panic hook writes here too.
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn show(&self, value: &impl Debug) {
        self.add(&format!("{value:?} {value:#?}"));
    }

    fn error(&self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.add(&format!("{error} {error:?} {error:#?}"));
            if let Some(token) = error.downcast_ref::<TokenError>().or(token_error(error)) {
                // The server's own words: told on request only, and without what was sent to it.
                let description = token.error_description().unwrap_or_default();
                assert!([SECRET, TENANT, PARAM].iter().all(|sent| !description.contains(sent)), "{description}");
            }
            next = error.source();
        }
    }

    fn sign_in_error(&self, error: &SignInError, sent: &[&str]) {
        self.error(error);
        let description = error.error_description().unwrap_or_default();
        assert!(sent.iter().all(|sent| !description.contains(sent)), "{description}");
    }

    fn extensions<B>(&self, response: &Response<B>) {
        self.show(&response.extensions().get::<AuthOutcome>());
        if let Some(failed) = response.extensions().get::<RefreshFailed>() {
            self.show(failed);
            self.error(&failed.0);
        }
    }

    async fn state_of(&self, layer: &AuthLayer, client: &Client) {
        let handle: AuthHandle = layer.handle();
        let tenant = TenantId::new(TENANT).unwrap();
        self.show(&(layer, client, &handle, handle.stats(), handle.for_tenant(&tenant).stats()));
        self.show(&client.clone().oneshot(for_tenant(get("https://api.example.com/"))));
        match tokio::time::timeout(Duration::from_secs(60), handle.for_tenant(&tenant).token()).await.unwrap() {
            Ok(token) => self.show(&token),
            Err(error) => self.error(&error),
        }
    }

    /// Our own words do arrive here, or the search would prove nothing.
    fn ours_is_heard(&self) {
        tracing::trace!("a word for the log");
        let error: BoxError = "a word for the errors".into();
        self.error(&*error);
        let said = self.text();
        assert!(said.contains("a word for the log") && said.contains("a word for the errors"));
    }

    fn must_not_tell_any_of(&self, secrets: &[String]) {
        let said = self.text();
        assert!(!secrets.is_empty());
        // A server may say what it was never sent; not in our words.
        let ours: String = said.lines().filter(|line| !line.contains("error_description=")).collect();
        for secret in secrets {
            assert!(!ours.contains(secret), "a secret of a sign-in was told");
        }
    }

    fn must_not_tell(&self) {
        let said = self.text();
        for expected in
            ["token request failed", "this source is broken", "the request was not sent", "RefreshFailed(Tok"]
        {
            assert!(said.contains(expected), "the paths that say {expected:?} were not taken");
        }
        let basic = STANDARD.encode(format!("{ID}:canary"));
        let byte_list = format!("{:?}", b"canary").replace(['[', ']'], "");
        for canary in ["canary", &basic[..basic.len() - 4], &byte_list, "s3cret", &KEY[24..], PROOF] {
            for line in said.lines() {
                // The server's own words, which may hold anything but what it was sent.
                if line.contains("error_description=") {
                    assert!([SECRET, TENANT, PARAM].iter().all(|sent| !line.contains(sent)), "{line}");
                    continue;
                }
                assert!(!line.to_lowercase().contains(&canary.to_lowercase()), "{canary:?} is in: {line}");
            }
        }
    }
}

fn token_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TokenError> {
    error.downcast_ref::<Error>().and_then(Error::token)
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
