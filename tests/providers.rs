//! The five presets on the wire: every byte of the token request, and of the API request that follows.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use jsonwebtoken::{EncodingKey, Header};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::test_util::TestClock;
use tower_oauth2_client::{
    AuthConfig, AuthConfigBuilder, AuthHandle, AuthLayer, Clock, RefreshToken, Secret, Tenant, TenantId, Token,
    providers,
};

const ID: &str = "client/1";
const SECRET: &str = "p+ss w%rd=é";
/// `client_id` and `client_secret` as a form carries them.
const FORM: &str = "client_id=client%2F1&client_secret=p%2Bss%20w%25rd%3D%C3%A9";

/// One request, as lines: request line, headers in alphabetical order, a blank one, the body.
type Wire = Arc<Mutex<Vec<String>>>;

type Recorder = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// A server that writes down every request and always answers the same.
fn recorder(wire: &Wire, answer: impl Into<Bytes>) -> Recorder {
    let (wire, answer) = (wire.clone(), answer.into());
    BoxCloneSyncService::new(service_fn(move |request: Request<Full<Bytes>>| {
        let (wire, answer) = (wire.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let mut headers: Vec<String> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            headers.sort();
            let body = body.collect().await.unwrap().to_bytes();
            let text =
                format!("{} {}\n{}\n{}", head.method, head.uri, headers.concat(), String::from_utf8_lossy(&body));
            wire.lock().unwrap().push(text);
            Ok::<_, Infallible>(Response::new(Full::new(answer)))
        }
    }))
}

struct Provider {
    clock: TestClock,
    handle: AuthHandle,
    client: tower_oauth2_client::Auth<Recorder>,
    token_wire: Wire,
    api_wire: Wire,
}

fn provider(preset: AuthConfigBuilder, answer: impl Into<Bytes>) -> Provider {
    let (clock, token_wire, api_wire) = (TestClock::new(), Wire::default(), Wire::default());
    let cfg: AuthConfig = preset.clock(clock.clone()).build().unwrap();
    let layer = AuthLayer::builder(cfg).http_client(recorder(&token_wire, answer)).build().unwrap();
    let client = layer.layer(recorder(&api_wire, "ok"));
    Provider { clock, handle: layer.handle(), client, token_wire, api_wire }
}

impl Provider {
    async fn send(&self, request: Request<Full<Bytes>>) {
        assert_eq!(self.client.clone().oneshot(request).await.unwrap().status(), 200);
    }

    fn token_request(&self) -> String {
        self.token_wire.lock().unwrap().last().unwrap().clone()
    }

    fn api_request(&self) -> String {
        self.api_wire.lock().unwrap().last().unwrap().clone()
    }

    /// How long the current token lives still, in seconds.
    fn left(&self) -> u64 {
        let expires_at = self.handle.stats().expires_at.unwrap();
        expires_at.duration_since(self.clock.now().wall).unwrap().as_secs()
    }
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// A JWT with that much life left, signed by a key that nobody here asks for.
fn jwt(clock: &TestClock, left: Duration) -> String {
    let exp = (clock.now().wall + left).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = serde_json::json!({ "exp": exp, "scope": "x" });
    // With both backends on, the library needs to be told which one to use.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(b"the server's")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn vip() {
    // The preset's clock and this one start at the same moment.
    let token = jwt(&TestClock::new(), Duration::from_secs(7200));
    let answer = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":86400}}"#);
    let vip = provider(providers::vip(ID, SECRET), answer);
    let mut request = get("https://api.vetspace.cloud/contact-management/v1/api/contacts?page=1&size=2000");
    request.extensions_mut().insert(TenantId::new("7c1e0e5a-41f0-4a6b-9d0c-2f4b1c8c7a11").unwrap());
    vip.send(request).await;
    assert_eq!(
        vip.token_request(),
        "POST https://api.vetspace.cloud/oauth/token\n\
         accept-encoding: identity\naccept: application/json\ncontent-type: application/json\n\n\
         {\"client_id\":\"client/1\",\"client_secret\":\"p+ss w%rd=é\"}"
    );
    assert_eq!(
        vip.api_request(),
        format!(
            "GET https://api.vetspace.cloud/contact-management/v1/api/contacts?page=1&size=2000\n\
             accept: application/json\nauthorization: Bearer {token}\n\
             tenant-id: 7c1e0e5a-41f0-4a6b-9d0c-2f4b1c8c7a11\n\n"
        )
    );
    assert_eq!(vip.left(), 7200, "by `exp`, not by `expires_in`");
}

#[tokio::test(start_paused = true)]
async fn spry() {
    let answer = r#"{"access_token":"T1","token_type":"Bearer","expires_in":3600,"scope":"read write",
        "organisation_id":74,"user_id":276,"roles":["ADMIN"],"clinic_id_list":[44,58],"name":"Sam Matthew"}"#;
    let spry = provider(providers::spry("clinic.example.com", ID, SECRET), answer);
    spry.send(get("https://clinic.example.com/apis/v2/patients")).await;
    assert_eq!(
        spry.token_request(),
        format!(
            "POST https://clinic.example.com/apis/v2/oauth/token\n\
             accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded\n\n\
             grant_type=client_credentials&{FORM}&scope=read%20write"
        )
    );
    assert_eq!(spry.api_request(), "GET https://clinic.example.com/apis/v2/patients\nauthorization: Bearer T1\n\n");
    assert_eq!(spry.left(), 3600);
    let token = spry.handle.token().await.unwrap();
    assert_eq!(token.extra().get("clinic_id_list"), Some(&serde_json::json!([44, 58])));
}

/// Behaviour 79.
#[tokio::test(start_paused = true)]
async fn spry_refreshes_at_its_other_path() {
    let spry = provider(
        providers::spry("clinic.example.com", ID, SECRET),
        r#"{"access_token":"T2","token_type":"Bearer","expires_in":3600}"#,
    );
    let signed_in = Token::bearer("T1").unwrap().with_refresh_token(RefreshToken::Replace(Secret::from("R1/x")));
    spry.handle.set_token(signed_in.with_expires_in(Duration::from_secs(60))).await.unwrap();
    spry.clock.advance(Duration::from_secs(60));
    spry.send(get("https://clinic.example.com/apis/v2/patients")).await;
    assert_eq!(
        spry.token_request(),
        format!(
            "POST https://clinic.example.com/apis/v1/oauth/token\n\
             accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded\n\n\
             grant_type=refresh_token&refresh_token=R1%2Fx&{FORM}"
        )
    );
    assert!(spry.api_request().contains("authorization: Bearer T2\n"));
}

#[tokio::test(start_paused = true)]
async fn spry_by_authorization_code() {
    let answer = r#"{"access_token":"T1","token_type":"Bearer","expires_in":3600,"refresh_token":"R1/x"}"#;
    let redirect_uri = "https://app.example.com/callback";
    let preset = || providers::spry_authorization_code("clinic.example.com", redirect_uri, ID, SECRET);
    let spry = provider(preset(), answer);
    let sign_in = spry.handle.sign_in().unwrap();
    let url = sign_in.url().to_owned();
    let param = |name: &str| url.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let (state, challenge) = (param("state"), param("code_challenge"));
    let asked = "https://clinic.example.com/apis/v2/oauth/authorize?response_type=code&client_id=client%2F1\
                 &redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&scope=read%20write";
    assert_eq!(url, format!("{asked}&state={state}&code_challenge={challenge}&code_challenge_method=S256"));

    let verifier = sign_in.save().expose().split_once('.').unwrap().1.to_owned();
    sign_in.finish(&format!("{redirect_uri}?code=C1%2Fx&state={state}")).await.unwrap();
    let head =
        "accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded\n\n";
    let exchange = "grant_type=authorization_code&code=C1%2Fx&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback";
    let token_url = "POST https://clinic.example.com/apis/v2/oauth/token\n";
    assert_eq!(spry.token_request(), format!("{token_url}{head}{exchange}&code_verifier={verifier}&{FORM}"));
    spry.send(get("https://clinic.example.com/apis/v2/patients")).await;
    assert_eq!(spry.api_request(), "GET https://clinic.example.com/apis/v2/patients\nauthorization: Bearer T1\n\n");

    spry.clock.advance(Duration::from_secs(3600));
    spry.handle.invalidate();
    spry.handle.token().await.unwrap();
    assert_eq!(
        spry.token_request(),
        format!(
            "POST https://clinic.example.com/apis/v1/oauth/token\n{head}\
             grant_type=refresh_token&refresh_token=R1%2Fx&{FORM}"
        )
    );

    // As Spry documents it.
    let spry = provider(preset().edit_authorization_code(|code| code.without_pkce()), answer);
    let sign_in = spry.handle.sign_in().unwrap();
    let state = sign_in.save().expose().split_once('.').unwrap().0.to_owned();
    assert_eq!(sign_in.url(), format!("{asked}&state={state}"));
    sign_in.finish(&format!("code=C1%2Fx&state={state}")).await.unwrap();
    assert_eq!(spry.token_request(), format!("{token_url}{head}{exchange}&{FORM}"));
}

#[tokio::test(start_paused = true)]
async fn vectorcare() {
    let answer = r#"{"access_token":"T1","token_type":"bearer","expires_in":3600}"#;
    let vectorcare = provider(providers::vectorcare(ID, SECRET), answer);
    let request = Request::post("https://hub.vectorcare.com/openapi/v2.0/requests/KP-ABCD1234/state/")
        .header("content-type", "application/json")
        .body(Full::from(r#"{"name": "en_route"}"#))
        .unwrap();
    vectorcare.send(request).await;
    assert_eq!(
        vectorcare.token_request(),
        format!(
            "POST https://auth.vectorcare.com/v2.0/oauth2/token\n\
             accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded\n\n\
             grant_type=client_credentials&{FORM}"
        )
    );
    assert_eq!(
        vectorcare.api_request(),
        "POST https://hub.vectorcare.com/openapi/v2.0/requests/KP-ABCD1234/state/\n\
         authorization: Bearer T1\ncontent-type: application/json\n\n{\"name\": \"en_route\"}"
    );
    assert_eq!(vectorcare.left(), 3600);
}

#[tokio::test(start_paused = true)]
async fn qmatic() {
    let answer = r#"{"access_token":"T1","expires_in":3600,"token_type":"Bearer"}"#;
    let scopes = ["com.qmatic.saas.appointments/external.appointment.book"];
    let qmatic = provider(providers::qmatic("api.eu-west-1.qmatic.io", "My Clinic", scopes, ID, SECRET), answer);
    qmatic.send(get("https://api.eu-west-1.qmatic.io/appointments")).await;
    assert_eq!(
        qmatic.token_request(),
        "POST https://api.eu-west-1.qmatic.io/oauth2/token\n\
         accept-encoding: identity\naccept: application/json\n\
         authorization: Basic Y2xpZW50LzE6cCtzcyB3JXJkPcOp\n\
         content-type: application/x-www-form-urlencoded\nx-account: myclinic\n\n\
         grant_type=client_credentials\
         &scope=com.qmatic.saas.appointments%2Fexternal.appointment.book&x-account=myclinic"
    );
    assert_eq!(qmatic.api_request(), "GET https://api.eu-west-1.qmatic.io/appointments\nauthorization: Bearer T1\n\n");
    assert_eq!(qmatic.left(), 3600);
}

/// Behaviour 90.
#[tokio::test(start_paused = true)]
async fn qmatic_with_an_account_per_request_has_a_token_per_account() {
    let answer = r#"{"access_token":"T1","expires_in":3600,"token_type":"Bearer"}"#;
    let preset = providers::qmatic("api.eu-west-1.qmatic.io", "unused", ["book"], ID, SECRET)
        .tenant(Tenant::without_header().token_header("x-account").token_param("x-account").normalized());
    let qmatic = provider(preset, answer);
    for account in ["My Clinic", "myclinic", "Other"] {
        let mut request = get("https://api.eu-west-1.qmatic.io/appointments");
        request.extensions_mut().insert(TenantId::new(account).unwrap());
        qmatic.send(request).await;
    }
    let requests = qmatic.token_wire.lock().unwrap().clone();
    assert_eq!(requests.len(), 2, "both spellings are one account");
    assert!(requests[0].contains("x-account: myclinic\n") && requests[0].ends_with("&x-account=myclinic"));
    assert!(requests[1].contains("x-account: other\n") && requests[1].ends_with("&x-account=other"));
    assert!(qmatic.handle.token().await.is_err(), "no account, no token");
}

#[tokio::test(start_paused = true)]
async fn graphnet() {
    let token = jwt(&TestClock::new(), Duration::from_secs(900));
    let answer = format!(r#"{{"token_type":"Bearer","access_token":"{token}","refresh_token":null}}"#);
    let url = "https://coret1.syhapp.com/vlive/hpca/oauth/token";
    let graphnet = provider(providers::graphnet(url, "https://api.example.com", ID, SECRET), answer);
    graphnet.send(get("https://api.example.com/records/1")).await;
    assert_eq!(
        graphnet.token_request(),
        format!(
            "POST {url}\n\
             accept-encoding: identity\naccept: application/json\ncontent-type: application/x-www-form-urlencoded\n\n\
             grant_type=client_credentials&{FORM}"
        )
    );
    assert_eq!(
        graphnet.api_request(),
        format!("GET https://api.example.com/records/1\nauthorization: Bearer {token}\n\n")
    );
    assert_eq!(graphnet.left(), 900, "by `exp`");
}
