//! A person's sign-in by authorization code: on the wire byte for byte, everything that can go wrong, and what follows it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, RecordedRequest, TestClock};
use tower_oauth2_client::{
    Auth, AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, AuthorizationCode, ClientAuth, Discovery, Error,
    Secret, SecretSource, SignIn, SignInError, SignInErrorKind, StaticToken, Tenant, TenantId, TokenErrorKind,
};

const TOKEN_URL: &str = "https://auth.example.com/oauth2/token";
const AUTHORIZE_URL: &str = "https://auth.example.com/authorize";
const REDIRECT_URI: &str = "http://127.0.0.1:8976/callback";
const ISSUER: &str = "https://auth.example.com";
const HOUR: Duration = Duration::from_secs(3600);

fn code() -> AuthorizationCode {
    AuthorizationCode::new(AUTHORIZE_URL, REDIRECT_URI)
}

fn with_code(code: AuthorizationCode) -> AuthConfigBuilder {
    AuthConfig::authorization_code(TOKEN_URL, ClientAuth::basic("id", "secret"), code).origin("https://api.example.com")
}

fn layer(server: &AuthServer, cfg: AuthConfigBuilder) -> AuthLayer {
    AuthLayer::builder(cfg.clock(server.clock().clone()).build().unwrap()).http_client(server.clone()).build().unwrap()
}

fn server() -> AuthServer {
    AuthServer::new(TestClock::new()).client("id", "secret").issue_refresh_tokens()
}

fn handle(server: &AuthServer) -> AuthHandle {
    layer(server, with_code(code())).handle()
}

/// The person goes through with it.
async fn agree(server: &AuthServer, sign_in: SignIn) -> Result<(), SignInError> {
    let redirect = server.browse(sign_in.url()).unwrap();
    sign_in.finish(&redirect).await
}

async fn get(client: &Auth<Api>) -> Result<u16, Error> {
    let request = Request::get("https://api.example.com/items").body(Full::<Bytes>::default()).unwrap();
    Ok(client.clone().oneshot(request).await?.status().as_u16())
}

fn url_param<'a>(url: &'a str, name: &str) -> &'a str {
    let query = url.split_once('?').unwrap().1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

fn body(request: &RecordedRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn byte_for_byte() {
    let server = server();
    let code = AuthorizationCode::new(format!("{AUTHORIZE_URL}?realm=a"), "http://127.0.0.1:8976/callback?app=1")
        .param("prompt", "login consent")
        .param("ui", "a")
        .param("ui", "b&c");
    let cfg = with_code(code)
        .scopes(["read", "write"])
        .resource("urn:example:1")
        .resource("urn:example:2")
        .audience("payments")
        .send_scopes_on_refresh();
    let sign_in = layer(&server, cfg).handle().sign_in().unwrap();
    let url = sign_in.url().to_owned();
    let (state, challenge) = (url_param(&url, "state"), url_param(&url, "code_challenge"));
    assert_eq!(
        url,
        format!(
            "https://auth.example.com/authorize?realm=a&response_type=code&client_id=id\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A8976%2Fcallback%3Fapp%3D1&scope=read%20write&state={state}\
             &code_challenge={challenge}&code_challenge_method=S256&resource=urn%3Aexample%3A1\
             &resource=urn%3Aexample%3A2&audience=payments&prompt=login%20consent&ui=a&ui=b%26c"
        )
    );
    // 144 bits, and SHA-256 of 256 bits.
    assert_eq!((state.len(), challenge.len()), (24, 43));

    sign_in.finish(&format!("http://127.0.0.1:8976/callback?app=1&code=a%2Fb%20c&state={state}")).await.unwrap_err();
    let [request] = server.requests().try_into().unwrap();
    assert_eq!((request.method.as_str(), request.uri.to_string().as_str()), ("POST", TOKEN_URL));
    let headers =
        ["accept", "accept-encoding", "authorization", "content-type"].map(|name| request.header(name).unwrap());
    assert_eq!(headers, ["application/json", "identity", "Basic aWQ6c2VjcmV0", "application/x-www-form-urlencoded"]);
    assert_eq!(request.headers.len(), 4);
    let verifier = request.param("code_verifier").unwrap();
    assert_eq!(verifier.len(), 43);
    assert_eq!(
        body(&request),
        format!(
            "grant_type=authorization_code&code=a%2Fb%20c\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A8976%2Fcallback%3Fapp%3D1&code_verifier={verifier}\
             &resource=urn%3Aexample%3A1&resource=urn%3Aexample%3A2&audience=payments"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_secret_can_leave_pkce_out() {
    let server = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::authorization_code(TOKEN_URL, ClientAuth::body("i d", "s"), code().without_pkce())
        .origin("https://api.example.com");
    let sign_in = layer(&server, cfg).handle().sign_in().unwrap();
    let state = url_param(sign_in.url(), "state").to_owned();
    assert_eq!(
        sign_in.url(),
        format!(
            "{AUTHORIZE_URL}?response_type=code&client_id=i%20d\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A8976%2Fcallback&state={state}"
        )
    );
    agree(&server, sign_in).await.unwrap();
    let request = &server.requests()[0];
    let code = request.param("code").unwrap();
    assert_eq!(
        body(request),
        format!(
            "grant_type=authorization_code&code={code}\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A8976%2Fcallback&client_id=i%20d&client_secret=s"
        )
    );
}

/// Behaviour 79.
#[tokio::test(start_paused = true)]
async fn from_the_first_request_to_the_renewal() {
    let server = server().require_pkce();
    let layer = layer(&server, with_code(code()).scopes(["read"]));
    let client = layer.layer(Api::new(&server));

    // Nobody has signed in: told at once, and the server is not asked.
    let start = tokio::time::Instant::now();
    for _ in 0..2 {
        let error = get(&client).await.unwrap_err();
        assert_eq!(error.token().unwrap().kind(), TokenErrorKind::SignInAgain);
    }
    assert_eq!((server.token_requests(), start.elapsed()), (0, Duration::ZERO));

    // That failure does not outlast the sign-in.
    agree(&server, layer.handle().sign_in().unwrap()).await.unwrap();
    assert_eq!(get(&client).await.unwrap(), 200);
    assert!(layer.handle().token().await.unwrap().scopes().is_some_and(|scopes| scopes.as_str() == "read"));

    let mut spent = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(HOUR).await;
        assert_eq!(get(&client).await.unwrap(), 200);
        let request = server.requests().pop().unwrap();
        assert_eq!(request.param("grant_type").as_deref(), Some("refresh_token"));
        spent.push(request.param("refresh_token").unwrap());
    }
    assert_ne!(spent[0], spent[1], "each replaces the former");
    assert_eq!((server.token_requests(), server.refresh_token_reuses()), (3, 0));
}

/// Behaviour 84.
#[tokio::test(start_paused = true)]
async fn only_a_dead_refresh_token_ends_what_a_sign_in_began() {
    let server = server();
    let handle = handle(&server);
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    let troubles = [Fault::error("invalid_request"), Fault::error("unauthorized_client"), Fault::Status(403)];
    for fault in troubles {
        handle.invalidate();
        server.script([fault]);
        assert_ne!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
        handle.invalidate();
        handle.token().await.unwrap();
    }
    server.revoke_refresh_tokens();
    handle.invalidate();
    let asked = server.token_requests();
    for _ in 0..2 {
        assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    }
    assert_eq!(server.token_requests(), asked + 1);
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    handle.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_fails_leaves_the_former_one_in_place() {
    let server = server();
    let handle = handle(&server);
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    let token = handle.token().await.unwrap();
    server.script([Fault::error("invalid_grant")]);
    agree(&server, handle.sign_in().unwrap()).await.unwrap_err();
    assert_eq!(handle.token().await.unwrap().access_token(), token.access_token());
    tokio::time::sleep(HOUR).await;
    handle.token().await.unwrap();
}

/// Somebody else may have signed in: their token is not to be renewed into the former person's.
#[tokio::test(start_paused = true)]
async fn a_token_without_refresh_token_does_not_keep_that_of_the_former_sign_in() {
    let server = server();
    let handle = handle(&server);
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    server.script([Fault::Body(Bytes::from_static(
        br#"{"access_token":"somebody-elses","token_type":"Bearer","expires_in":60}"#,
    ))]);
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    assert_eq!(handle.token().await.unwrap().access_token(), "somebody-elses");
    tokio::time::sleep(HOUR).await;
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    assert_eq!(server.token_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_browser_brings_is_checked_before_anything_is_sent() {
    let kind = |server: &AuthServer, code: AuthorizationCode, change: fn(String) -> String| {
        let sign_in = layer(server, with_code(code)).handle().sign_in().unwrap();
        let redirect = change(server.browse(sign_in.url()).unwrap());
        async move { sign_in.finish(&redirect).await.unwrap_err().kind() }
    };
    let as_it_is: fn(String) -> String = |redirect| redirect;
    let plain = server();
    let another_state = |redirect: String| redirect.replace("state=", "state=x");
    assert_eq!(kind(&plain, code(), another_state).await, SignInErrorKind::WrongState);
    assert_eq!(kind(&plain, code(), |redirect| redirect.replace("code=", "kode=")).await, SignInErrorKind::Malformed);
    assert_eq!(kind(&plain, code(), |redirect| redirect + "&code=b").await, SignInErrorKind::Malformed);
    assert_eq!(kind(&plain, code(), |_| String::new()).await, SignInErrorKind::WrongState);
    assert_eq!(kind(&plain, code().require_issuer(ISSUER), as_it_is).await, SignInErrorKind::WrongIssuer);

    let elsewhere = server().issuer("https://elsewhere.example");
    assert_eq!(kind(&elsewhere, code().issuer(ISSUER), as_it_is).await, SignInErrorKind::WrongIssuer);
    let denying = server().deny_sign_ins();
    assert_eq!(kind(&denying, code(), as_it_is).await, SignInErrorKind::Denied);
    let refusing = server().refuse_sign_ins("invalid_scope");
    assert_eq!(kind(&refusing, code(), as_it_is).await, SignInErrorKind::Refused);
    let tired = server().refuse_sign_ins("temporarily_unavailable");
    assert_eq!(kind(&tired, code(), as_it_is).await, SignInErrorKind::Unavailable);
    for server in [plain, elsewhere, denying, refusing, tired] {
        assert_eq!(server.token_requests(), 0);
    }

    let right = server().issuer(ISSUER);
    let sign_in = layer(&right, with_code(code().require_issuer(ISSUER))).handle().sign_in().unwrap();
    agree(&right, sign_in).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_used_twice_is_refused_and_its_tokens_are_gone() {
    let server = server();
    let handle = handle(&server);
    let sign_in = handle.sign_in().unwrap();
    let (session, redirect) = (sign_in.save(), server.browse(sign_in.url()).unwrap());
    sign_in.finish(&redirect).await.unwrap();
    let again = handle.resume_sign_in(&session).unwrap();
    let error = again.finish(&redirect).await.unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::CodeRefused);
    assert_eq!(error.code().unwrap().as_str(), "invalid_grant");
    assert_eq!(error.token_error().unwrap().status().unwrap(), 400);
    assert!(!server.is_live(handle.token().await.unwrap().access_token()));
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_was_saved_goes_on_elsewhere() {
    let server = server().require_pkce();
    let begun = handle(&server).sign_in().unwrap();
    let (url, session) = (begun.url().to_owned(), begun.save());
    drop(begun);
    assert_eq!(session.expose().len(), 24 + 1 + 43);

    let elsewhere = handle(&server);
    let resumed = elsewhere.resume_sign_in(&session).unwrap();
    assert_eq!(resumed.url(), url);
    agree(&server, resumed).await.unwrap();
    elsewhere.token().await.unwrap();

    let long = format!("{}.{}", "a".repeat(24), "a".repeat(44));
    for forged in ["", ".", "canary", &long, &session.expose().replace('.', "&")] {
        let error = elsewhere.resume_sign_in(&Secret::from(forged)).unwrap_err();
        assert_eq!(error.kind(), SignInErrorKind::Malformed);
    }
}

#[tokio::test(start_paused = true)]
async fn each_sign_in_has_secrets_of_its_own() {
    let server = server();
    let handle = handle(&server);
    let (one, other) = (handle.sign_in().unwrap(), handle.sign_in().unwrap());
    for name in ["state", "code_challenge"] {
        assert_ne!(url_param(one.url(), name), url_param(other.url(), name));
    }
    let crossed = server.browse(other.url()).unwrap();
    assert_eq!(one.finish(&crossed).await.unwrap_err().kind(), SignInErrorKind::WrongState);
    other.finish(&crossed).await.unwrap();
}

/// A second sending of a code revokes what its first one brought.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_told_and_nothing_is_sent_twice() {
    let lost = [
        Fault::LoseAnswer,
        Fault::Drop,
        Fault::DropInBody,
        Fault::Hang,
        Fault::HangInBody,
        Fault::Status(500),
        Fault::Garbage,
        Fault::Body(Bytes::from_static(b"{}")),
    ];
    for fault in lost {
        let server = server();
        let handle = handle(&server);
        server.script([fault.clone()]);
        let error = agree(&server, handle.sign_in().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), SignInErrorKind::AnswerLost, "{fault:?}");
        assert!(error.token_error().is_some());
        assert_eq!(server.token_requests(), 1, "{fault:?}");
        assert!(handle.token().await.is_err());
        assert_eq!(server.token_requests(), 1, "no refresh sends it either");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_is_refused_says_why() {
    let refusals = [
        (Fault::error("invalid_client"), SignInErrorKind::Failed, TokenErrorKind::BadCredentials),
        (Fault::error("unauthorized_client"), SignInErrorKind::Failed, TokenErrorKind::Refused),
        (Fault::error("invalid_grant"), SignInErrorKind::CodeRefused, TokenErrorKind::Refused),
        (Fault::RetryAfter(503, 30), SignInErrorKind::Failed, TokenErrorKind::Unavailable),
        (Fault::Redirect("https://elsewhere.example/".into()), SignInErrorKind::Failed, TokenErrorKind::Redirected),
    ];
    for (fault, kind, cause) in refusals {
        let server = server();
        server.script([fault]);
        let error = agree(&server, handle(&server).sign_in().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.token_error().unwrap().kind()), (kind, cause));
        assert_eq!(server.token_requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_goes_away_does_not_lose_the_token() {
    let server = server().latency(Duration::from_secs(5));
    let handle = handle(&server);
    let ended = tokio::time::timeout(Duration::from_secs(1), agree(&server, handle.sign_in().unwrap())).await;
    assert!(ended.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    handle.token().await.unwrap();
    assert_eq!(server.token_requests(), 1);
}

/// Behaviour 85.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_replaced_meanwhile_takes_no_token_of_the_former_one() {
    let server = server().client("other", "its secret").client("id", "rotated").latency(Duration::from_secs(5));
    let handle = handle(&server);
    handle.replace_credentials(ClientAuth::basic("id", "rotated")).unwrap();
    let (early, late) = (handle.sign_in().unwrap(), handle.sign_in().unwrap());
    let under_way = tokio::spawn({
        let server = server.clone();
        async move { agree(&server, early).await }
    });
    while server.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    handle.replace_credentials(ClientAuth::basic("other", "its secret")).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap_err().kind(), SignInErrorKind::ClientReplaced);
    assert_eq!(agree(&server, late).await.unwrap_err().kind(), SignInErrorKind::ClientReplaced);
    assert_eq!(server.token_requests(), 1, "nothing was sent for the late one");
    assert_eq!(handle.token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_rotated_meanwhile_does_no_harm() {
    let server = AuthServer::new(TestClock::new());
    let handle = handle(&server);
    let sign_in = handle.sign_in().unwrap();
    handle.replace_credentials(ClientAuth::basic("id", "rotated")).unwrap();
    agree(&server, sign_in).await.unwrap();
    handle.token().await.unwrap();
    assert_eq!(server.requests()[0].header("authorization"), Some("Basic aWQ6cm90YXRlZA=="));
}

#[tokio::test(start_paused = true)]
async fn each_tenant_signs_in_for_its_own_token() {
    let server = server().tenant_header("x-account");
    let tenant = Tenant::header("x-tenant").token_header("x-account").normalized();
    let handle = layer(&server, with_code(code()).tenant(tenant)).handle();
    let error = handle.sign_in().unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::Unsupported);
    assert!(error.to_string().contains("for_tenant"), "{error}");

    let (north, south) = (TenantId::new("My North").unwrap(), TenantId::new("south").unwrap());
    agree(&server, handle.for_tenant(&north).sign_in().unwrap()).await.unwrap();
    let token = handle.for_tenant(&TenantId::new("mynorth").unwrap()).token().await.unwrap();
    assert_eq!(server.tenant_of(token.access_token()).as_deref(), Some("mynorth"));
    assert_eq!(handle.for_tenant(&south).token().await.unwrap_err().kind(), TokenErrorKind::SignInAgain);

    let fixed = Tenant::header("x-tenant").fixed("east").token_header("x-account");
    let handle = layer(&server, with_code(code()).tenant(fixed)).handle();
    agree(&server, handle.sign_in().unwrap()).await.unwrap();
    let token = handle.token().await.unwrap();
    assert_eq!(server.tenant_of(token.access_token()).as_deref(), Some("east"));
}

/// Behaviour 112.
#[tokio::test(start_paused = true)]
async fn each_exchange_of_a_code_has_an_assertion_of_its_own() {
    let server = AuthServer::new(TestClock::new());
    let client_auth = ClientAuth::client_secret_jwt("id", "a secret of at least thirty-two bytes");
    let cfg = AuthConfig::authorization_code(TOKEN_URL, client_auth, code()).origin("https://api.example.com");
    let handle = layer(&server, cfg).handle();
    for _ in 0..2 {
        agree(&server, handle.sign_in().unwrap()).await.unwrap();
    }
    let assertions: Vec<_> =
        server.requests().iter().map(|request| request.param("client_assertion").unwrap()).collect();
    assert_ne!(assertions[0], assertions[1]);
}

#[test]
fn outside_of_a_runtime_it_is_an_error() {
    let server = server();
    let sign_in = handle(&server).sign_in().unwrap();
    let redirect = server.browse(sign_in.url()).unwrap();
    let error = sign_in.finish(&redirect).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.token_error().unwrap().kind(), TokenErrorKind::NoRuntime);
    assert_eq!(server.token_requests(), 0);
}

#[test]
fn a_layer_without_sign_in_says_so() {
    let server = server();
    let client_credentials = AuthConfig::client_credentials(TOKEN_URL, ClientAuth::basic("id", "secret"));
    let external = AuthConfig::external().origin("https://api.example.com").build().unwrap();
    let layers = [
        layer(&server, client_credentials.origin("https://api.example.com")),
        AuthLayer::with_source(external, StaticToken::new("token")),
    ];
    for layer in layers {
        assert_eq!(layer.handle().sign_in().unwrap_err().kind(), SignInErrorKind::Unsupported);
    }
    let handle = handle(&server);
    handle.replace_credentials(ClientAuth::anonymous()).unwrap();
    assert_eq!(handle.sign_in().unwrap_err().kind(), SignInErrorKind::Unsupported);
}

#[test]
fn what_is_wrong_is_told_when_it_is_built() {
    let from = |url: &str| AuthorizationCode::new(url, REDIRECT_URI);
    let to = |uri: &str| AuthorizationCode::new(AUTHORIZE_URL, uri);
    let anonymous = AuthConfig::authorization_code(TOKEN_URL, ClientAuth::anonymous(), code());
    let wrong = [
        with_code(from("canary")),
        with_code(from("http://auth.example.com/canary")),
        with_code(from("https://id:canary@auth.example.com/")),
        with_code(from("https://auth.example.com/#canary")),
        with_code(to("/canary")),
        with_code(to("http://app.example.com/canary")),
        with_code(code().param("client_id", "canary")),
        with_code(code()).token_param("code", "canary"),
        anonymous.origin("https://api.example.com"),
        AuthConfig::client_credentials(TOKEN_URL, ClientAuth::none("id"))
            .origin("https://api.example.com")
            .edit_authorization_code(|code| code),
    ];
    for builder in wrong {
        let error = builder.build().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
    for good in [from("http://localhost:1/authorize"), to("com.example.app:/back"), to("http://[::1]:7/back")] {
        assert!(with_code(good).build().is_ok());
    }
}

/// Behaviours 103 and 104.
#[tokio::test(start_paused = true)]
async fn no_error_of_the_exchange_tells_a_secret() {
    let server = server();
    let sign_in = handle(&server).sign_in().unwrap();
    let redirect = server.browse(sign_in.url()).unwrap();
    let session = sign_in.save();
    let (state, verifier) = session.expose().split_once('.').unwrap();
    let code = url_param(&redirect, "code").replace("%2D", "-");
    let echo = format!(r#"{{"error":"invalid_grant","error_description":"{code} {verifier} secret"}}"#);
    server.script([Fault::Respond(Response::builder().status(400).body(Bytes::from(echo)).unwrap())]);
    let shown = format!("{sign_in:?} {session:?}");
    let error = sign_in.finish(&redirect).await.unwrap_err();
    assert_eq!(error.error_description(), Some("[redacted] [redacted] [redacted]"));
    let said = format!("{shown} {error} {error:?} {:?}", error.token_error());
    for secret in [state, verifier, &code] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// RFC 9207: with a discovered issuer `iss` is compared without further settings.
#[tokio::test(start_paused = true)]
async fn the_discovered_issuer_is_who_must_have_answered() {
    for (iss, good) in [(ISSUER, true), ("https://another.example", false)] {
        let server = server().issuer(iss);
        let client_auth = ClientAuth::basic("id", "secret");
        let cfg = AuthConfig::authorization_code(Discovery::of(ISSUER), client_auth, code());
        let handle = layer(&server, cfg.origin("https://api.example.com")).handle();
        let result = agree(&server, handle.sign_in().unwrap()).await;
        let kind = result.err().map(|error| error.kind());
        assert_eq!(kind, (!good).then_some(SignInErrorKind::WrongIssuer));
        assert_eq!(server.token_requests(), usize::from(good));
    }
}

/// Behaviour 153.
#[tokio::test(start_paused = true)]
async fn a_discovered_server_that_names_itself_must_do_so_and_is_found() {
    let with = |code| {
        AuthConfig::authorization_code(Discovery::of(ISSUER), ClientAuth::basic("id", "secret"), code)
            .origin("https://api.example.com")
    };
    let found = || AuthorizationCode::discovered(REDIRECT_URI);
    let server = server().metadata("authorization_response_iss_parameter_supported", true);
    let auth = layer(&server, with(found())).handle();
    assert_eq!(auth.sign_in().unwrap_err().kind(), SignInErrorKind::Unsupported);
    let sign_in = auth.discover_sign_in().await.unwrap();
    assert!(sign_in.url().starts_with(&format!("{ISSUER}/authorize?response_type=code&")), "{}", sign_in.url());
    let redirect = server.browse(sign_in.url()).unwrap();
    let (place, query) = redirect.split_once('?').unwrap();
    let silent: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("iss=")).collect();
    let error = sign_in.finish(&format!("{place}?{}", silent.join("&"))).await.unwrap_err();
    assert_eq!((error.kind(), server.token_requests()), (SignInErrorKind::WrongIssuer, 0));

    let with_iss = |redirect: &str| match redirect.contains("&iss=") {
        true => redirect.to_owned(),
        false => format!("{redirect}&iss=https%3A%2F%2Fauth.example.com"),
    };
    for code in [found(), code()] {
        let sign_in = layer(&server, with(code)).handle().discover_sign_in().await.unwrap();
        let redirect = with_iss(&server.browse(sign_in.url()).unwrap());
        sign_in.finish(&redirect).await.unwrap();
    }

    // A server that promises nothing may be silent.
    let silent = server.metadata("authorization_response_iss_parameter_supported", false);
    let sign_in = layer(&silent, with(found())).handle().discover_sign_in().await.unwrap();
    agree(&silent, sign_in).await.unwrap();
    let nowhere = silent.metadata("authorization_endpoint", serde_json::Value::Null);
    let error = layer(&nowhere, with(found())).handle().discover_sign_in().await.unwrap_err();
    assert_eq!(error.kind(), SignInErrorKind::Unsupported);
}

/// Behaviours 153 and 154.
#[test]
fn sign_ins_that_rfcs_forbid_or_nobody_can_find_are_not_built() {
    let plain = || code().without_pkce();
    let built = |client: ClientAuth, code| {
        AuthConfig::authorization_code(TOKEN_URL, client, code).origin("https://api.example.com").build().map(drop)
    };
    let error = built(ClientAuth::none("id"), plain()).unwrap_err();
    assert!(error.to_string().contains("PKCE"), "{error}");
    built(ClientAuth::none("id"), code()).unwrap();
    built(ClientAuth::basic("id", "secret"), plain()).unwrap();
    let error = built(ClientAuth::none("id"), AuthorizationCode::discovered(REDIRECT_URI)).unwrap_err();
    assert!(error.to_string().contains("`Discovery`"), "{error}");

    let server = server();
    let auth = layer(&server, with_code(plain())).handle();
    auth.replace_credentials(ClientAuth::none("id")).unwrap();
    assert_eq!(auth.sign_in().unwrap_err().kind(), SignInErrorKind::Unsupported);
}

/// Behaviour 188 (PKCE).
#[tokio::test(start_paused = true)]
async fn a_server_that_lists_no_s256_is_shown_nobody_and_no_code() {
    const LIST: &str = "code_challenge_methods_supported";
    let auth = |server: &AuthServer, code| {
        let client = ClientAuth::basic("id", "secret");
        let cfg = AuthConfig::authorization_code(Discovery::of(ISSUER), client, code);
        layer(server, cfg.origin("https://api.example.com")).handle()
    };
    let found = || AuthorizationCode::discovered(REDIRECT_URI);
    for methods in [json!([]), json!(["plain"]), json!(["s256"])] {
        let server = server().metadata(LIST, methods);
        let error = auth(&server, found()).discover_sign_in().await.unwrap_err();
        assert_eq!(error.kind(), SignInErrorKind::Unsupported);
        assert!(error.to_string().contains(LIST), "{error}");
        // Where the authorization endpoint need not be found, the metadata come after it.
        let error = agree(&server, auth(&server, code()).sign_in().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), server.token_requests()), (SignInErrorKind::Unsupported, 0), "{error}");
        let sign_in = auth(&server, found().without_pkce()).discover_sign_in().await.unwrap();
        agree(&server, sign_in).await.unwrap();
    }
    for methods in [json!(["plain", "S256"]), serde_json::Value::Null] {
        let server = server().metadata(LIST, methods);
        agree(&server, auth(&server, found()).discover_sign_in().await.unwrap()).await.unwrap();
    }
}

fn no_vault() -> Result<Secret<String>, std::io::Error> {
    panic!("there is no vault")
}

/// Behaviour 150 (a browser's redirect, and a secret that is read).
#[tokio::test(start_paused = true)]
async fn an_error_of_a_redirect_is_held_against_a_secret_that_is_read() {
    const SECRET: &str = "canary_of_the_client";
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-redirect-{}", std::process::id()));
    std::fs::write(&path, SECRET).unwrap();
    let provider = SecretSource::provider(|| async { Ok::<_, std::io::Error>(Secret::from(SECRET)) });
    let away = SecretSource::provider(|| async { Err::<Secret<String>, _>("the vault is away") });
    let panicking = SecretSource::provider(|| async { no_vault() });
    let hanging = SecretSource::provider(std::future::pending::<Result<Secret<String>, std::io::Error>>);
    let sources =
        [(SecretSource::file(&path), true), (provider, true), (away, false), (panicking, false), (hanging, false)];
    for (source, is_known) in sources {
        let server = server();
        let cfg = AuthConfig::authorization_code(TOKEN_URL, ClientAuth::basic("id", source), code());
        let auth = layer(&server, cfg.origin("https://api.example.com")).handle();
        let finish = async |error: &str| {
            let sign_in = auth.sign_in().unwrap();
            let state = url_param(sign_in.url(), "state").to_owned();
            let said = format!("error={error}&error_description=it+is+{SECRET}&state={state}");
            let error = sign_in.finish(&said).await.unwrap_err();
            assert!(!format!("{error} {error:?} {:?}", error.error_description()).contains("canary"), "{error:?}");
            error
        };
        for echo in [SECRET, &SECRET[1..], &SECRET[..12]] {
            let error = finish(echo).await;
            assert_eq!((error.kind(), error.code()), (SignInErrorKind::Refused, None), "{echo}");
        }
        let error = finish("invalid_scope").await;
        assert_eq!(error.code().map(|code| code.as_str()), Some("invalid_scope"));
        assert_eq!(error.error_description(), is_known.then_some("it is [redacted]"));
        assert_eq!(finish("consent_required").await.code().is_some(), is_known);
    }
    std::fs::remove_file(path).unwrap();
}
