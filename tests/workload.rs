//! Clients without a secret: each preset's token request against the one in the provider's documentation, and what becomes
//! of an assertion that is not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_oauth2_client::test_util::{AuthServer, Fault, RecordedRequest, TestClock};
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, ClientAuth, Secret, SecretSource, TokenError, TokenErrorKind,
    providers,
};

/// A file of this test alone, gone afterwards.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-{name}", std::process::id()));
        let file = Self(path);
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        std::fs::write(&self.0, content).unwrap();
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn handle(auth: &AuthServer, cfg: AuthConfigBuilder) -> AuthHandle {
    let cfg = cfg.origin("https://api.example.com").clock(auth.clock().clone()).build().unwrap();
    AuthLayer::builder(cfg).http_client(auth.clone()).build().unwrap().handle()
}

/// The token request that a configuration leads to.
async fn request(cfg: AuthConfigBuilder) -> RecordedRequest {
    let auth = AuthServer::new(TestClock::new());
    // The server's own answer does not matter here.
    let _ = handle(&auth, cfg).warm_up().await;
    assert_eq!(auth.token_requests(), 1);
    auth.requests().remove(0)
}

/// Name and value of each parameter, decoded and sorted: their order means nothing (RFC 6749 §3.2).
fn params(form: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned()
    };
    let pairs = form.split('&').map(|pair| pair.trim().split_once('=').unwrap());
    let mut params: Vec<_> = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
    params.sort();
    params
}

fn assert_is(request: &RecordedRequest, url: &str, documented: &str) {
    assert_eq!((request.method.as_str(), request.uri.to_string().as_str()), ("POST", url));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("authorization"), None);
    let sent = std::str::from_utf8(&request.body).unwrap();
    assert_eq!(params(sent), params(documented));
}

/// <https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>,
/// read 2026-11-26 in the source of that page (MicrosoftDocs/entra-docs). The placeholder for the tenant is filled in.
///
/// Behaviour 176.
#[tokio::test]
async fn entra_federated_credential() {
    let assertion = "eyJhbGciOiJSUzI1NiIsIng1dCI6Imd4OHRHeXN5amNScUtqRlBuZDdSRnd2d1pJMCJ9.eyJ9.M8U3bSUKKJDEg";
    let file = TokenFile::new("entra", &format!("{assertion}\n"));
    let scopes = ["https://graph.microsoft.com/.default"];
    let cfg = providers::entra_federated("contoso", "97e0a5b7-d745-40b6-94fe-5f77d35c6e05", scopes, file.path());
    assert_is(
        &request(cfg).await,
        "https://login.microsoftonline.com/contoso/oauth2/v2.0/token",
        &format!(
            "scope=https%3A%2F%2Fgraph.microsoft.com%2F.default
            &client_id=97e0a5b7-d745-40b6-94fe-5f77d35c6e05
            &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer
            &client_assertion={assertion}
            &grant_type=client_credentials"
        ),
    );
}

/// <https://www.keycloak.org/2026/01/federated-client-authentication> (2026-01-26), read 2026-11-26; it shows the assertion
/// and no request, which is RFC 7523 §2.2's then, without a `client_id` (§3: the assertion's `sub` says it).
///
/// Behaviour 176.
#[tokio::test]
async fn kubernetes_service_account_token() {
    let file = TokenFile::new("kubernetes", "eyJ.e30.c2ln");
    let url = "https://keycloak.example.com/realms/main/protocol/openid-connect/token";
    assert_is(
        &request(providers::kubernetes(url, file.path())).await,
        url,
        "grant_type=client_credentials
        &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer
        &client_assertion=eyJ.e30.c2ln",
    );
}

/// <https://datatracker.ietf.org/doc/html/draft-ietf-oauth-spiffe-client-auth-02> §3.1, read 2026-11-26 as far as it was to
/// available: the type URN, `client_assertion`, and no other parameter that the grant does not need.
///
/// Behaviour 176.
#[tokio::test]
async fn spiffe_jwt_svid() {
    let file = TokenFile::new("spiffe", "eyJ.e30.c3ZpZA");
    let cfg = providers::spiffe("https://as.example.com/token", file.path());
    assert_is(
        &request(cfg).await,
        "https://as.example.com/token",
        "grant_type=client_credentials
        &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-spiffe
        &client_assertion=eyJ.e30.c3ZpZA",
    );
}

/// <https://docs.cloud.google.com/iam/docs/reference/sts/rest/v1beta/TopLevel/token>, read 2026-11-26: the fields and their
/// values; "do not send the Authorization HTTP header". As a form they have the names of RFC 8693 §2.1.
///
/// Behaviour 176.
#[tokio::test]
async fn google_workload_identity_federation() {
    let file = TokenFile::new("google", "eyJ.e30.c2ln");
    let audience =
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/my-pool/providers/my-provider";
    let scopes = ["https://www.googleapis.com/auth/cloud-platform"];
    assert_is(
        &request(providers::google_workload_identity(audience, scopes, file.path())).await,
        "https://sts.googleapis.com/v1/token",
        &format!(
            "audience={audience}
            &grant_type=urn:ietf:params:oauth:grant-type:token-exchange
            &requested_token_type=urn:ietf:params:oauth:token-type:access_token
            &scope=https://www.googleapis.com/auth/cloud-platform
            &subject_token=eyJ.e30.c2ln
            &subject_token_type=urn:ietf:params:oauth:token-type:jwt"
        ),
    );
}

/// Behaviour 177.
#[tokio::test(start_paused = true)]
async fn a_rotated_assertion_is_used_at_once() {
    let auth = AuthServer::new(TestClock::new());
    let file = TokenFile::new("rotated", "first");
    let handle = handle(&auth, providers::kubernetes("https://auth.example.com/token", file.path()));
    handle.token().await.unwrap();
    file.write("second\n");
    handle.invalidate();
    handle.token().await.unwrap();
    // Replaced while the exchange was under way: refused, read again, and sent again, once.
    auth.script([Fault::error("invalid_client")]);
    let reads = Arc::new(AtomicUsize::new(2));
    let rotating = SecretSource::provider(move || {
        let read = reads.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, std::io::Error>(Secret::from(format!("read {read}"))) }
    });
    let rotating = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::assertion(rotating));
    self::handle(&auth, rotating).token().await.unwrap();
    let sent: Vec<_> = auth.requests().iter().map(|request| request.param("client_assertion").unwrap()).collect();
    assert_eq!(sent, ["first", "second", "read 2", "read 3"]);
}

/// A JWT that ends so many seconds after the clock's time.
fn jwt(clock: &TestClock, ends_in: i64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tower_oauth2_client::Clock as _;
    let now = clock.now().wall.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let exp = now.checked_add_signed(ends_in).unwrap();
    format!("eyJhbGciOiJub25lIn0.{}.canary", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
}

/// Behaviour 178.
#[tokio::test(start_paused = true)]
async fn an_assertion_that_is_not_there_or_has_expired_is_not_sent() {
    let clock = TestClock::new();
    let file = TokenFile::new("bad", "");
    let cases = [
        (String::new(), "the client assertion is empty"),
        ("canary\ncanary".into(), "a line break"),
        (" canary".into(), "white space"),
        (jwt(&clock, -61), "expired 61 s ago"),
        (jwt(&clock, -86_400), "expired 86400 s ago"),
    ];
    for (content, told) in cases {
        file.write(&content);
        let auth = AuthServer::new(clock.clone());
        let handle = handle(&auth, providers::kubernetes("https://auth.example.com/token", file.path()));
        let error = handle.token().await.unwrap_err();
        assert_not_sent(&error, told);
        assert_eq!(auth.token_requests(), 0, "{told}");
    }
    let auth = AuthServer::new(clock.clone());
    let gone = handle(&auth, providers::spiffe("https://auth.example.com/token", "/does/not/exist/svid"));
    assert_not_sent(&gone.token().await.unwrap_err(), "cannot be read from /does/not/exist/svid");
    // It is there, and cannot be read.
    let directory = handle(&auth, providers::kubernetes("https://auth.example.com/token", std::env::temp_dir()));
    assert_not_sent(&directory.token().await.unwrap_err(), "cannot be read from");
    std::fs::write(file.path(), b"canary\xff").unwrap();
    let binary = handle(&auth, providers::kubernetes("https://auth.example.com/token", file.path()));
    assert_not_sent(&binary.token().await.unwrap_err(), "cannot be read from");
    file.write("");
    let sealed = SecretSource::provider(|| async { Err::<Secret, _>("the agent is away") });
    let sealed = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::assertion(sealed));
    assert_not_sent(&handle(&auth, sealed).token().await.unwrap_err(), "the provider of the client assertion failed");
    assert_eq!(auth.token_requests(), 0);

    // Clocks differ by a minute; and a file that is mended is used after the pause.
    let handle = handle(&auth, providers::kubernetes("https://auth.example.com/token", file.path()));
    assert!(handle.token().await.is_err());
    file.write(&jwt(&clock, -59));
    clock.advance(Duration::from_secs(1));
    handle.token().await.unwrap();
    assert_eq!(auth.token_requests(), 1);
}

fn assert_not_sent(error: &TokenError, told: &str) {
    assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable, "{told}");
    assert!(error.is_transient() && error.to_string().contains(told), "{error}");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
}

#[test]
fn an_assertion_type_or_text_that_cannot_be_one_is_refused() {
    for auth in [ClientAuth::assertion(""), ClientAuth::assertion("canary\n"), ClientAuth::assertion_of_type("", "x")] {
        let cfg = AuthConfig::client_credentials("https://auth.example.com/token", auth.clone());
        let error = cfg.origin("https://api.example.com").build().unwrap_err();
        assert!(!format!("{error:?} {auth:?}").contains("canary"), "{error}");
    }
}

#[path = "../examples/workload/aws.rs"]
mod aws;
#[path = "../examples/workload/metadata.rs"]
mod metadata;

/// The example of <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html> in its long-standing form.
#[test]
fn aws_signatures_are_those_of_the_documentation() {
    let credentials = aws::Credentials {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: Secret::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token: None,
    };
    let at = aws::Timestamp::of(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)).unwrap();
    assert_eq!((at.full.as_str(), at.day.as_str()), ("20150830T123600Z", "20150830"));
    let headers = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
        ("host", "iam.amazonaws.com".to_owned()),
        ("x-amz-date", at.full.clone()),
    ];
    let signing = aws::Signing { region: "us-east-1", service: "iam", credentials: &credentials, at: &at };
    let value = signing.authorization("GET", "/", "Action=ListUsers&Version=2010-05-08", &headers, b"");
    assert_eq!(
        value,
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, \
         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

/// Behaviour 176.
#[tokio::test]
async fn an_aws_workload_authenticates_with_the_jwt_of_sts() {
    assert_eq!(aws::run().await.unwrap(), "authenticated with eyJ.aws.jwt");
}

/// Behaviour 176.
#[tokio::test]
async fn an_instance_gets_its_tokens_from_the_metadata_server() {
    use tower_oauth2_client::{TokenRequest, TokenSource};

    assert!(metadata::ORIGIN.ends_with("google.internal"));
    assert_eq!(metadata::run().await.unwrap(), "sent Bearer ya29.instance");
    // Something else answers there: no token, and worth another try.
    let other = tower::service_fn(|_: http::Request<hyper::body::Incoming>| async {
        Ok::<_, tower_oauth2_client::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let server = tower_oauth2_client::test_util::serve(other).await.unwrap();
    let source = metadata::MetadataServer::new(server.origin()).unwrap();
    assert!(source.fetch(TokenRequest::default()).await.unwrap_err().is_transient());
}
