//! Step-up above the layer (RFC 6750 §3.1, RFC 9470, Entra's claims challenge): `AuthChallenge` says what the API wants,
//! `Scopes` and `TokenParams` ask for it. A test drives it, too.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_oauth2_client::{Auth, AuthChallenge, AuthConfig, AuthLayer, BoxError, ClientAuth, Scopes, TokenParams};

/// How often one request may be answered by a challenge and sent again. An API that always wants more gets no more than this.
const MOST_ROUNDS: usize = 2;

/// Sends a request, and again with a token that has what the API asks for.
///
/// `allowed`: the scopes that this program would ask for itself. The server wrote the challenge: without a list of one's
/// own it could talk a program into asking for anything.
pub(crate) async fn send<S, B>(
    client: &Auth<S>,
    make: impl Fn() -> http::Result<Request<B>>,
    allowed: &Scopes,
) -> Result<Response<S::Body>, Box<dyn Error>>
where
    S: Client<B>,
    B: http_body::Body + 'static,
    B::Error: Send,
{
    let (mut scopes, mut params) = (None, None);
    let mut rounds = 0;
    loop {
        let mut request = make()?;
        let extensions = request.extensions_mut();
        scopes.clone().map(|scopes: Scopes| extensions.insert(scopes));
        params.clone().map(|params: TokenParams| extensions.insert(params));
        let response = client.clone().oneshot(request).await?;
        let Some(challenge) = response.extensions().get::<AuthChallenge>().filter(|_| rounds < MOST_ROUNDS) else {
            return Ok(response);
        };
        match challenge.error() {
            Some("insufficient_scope") => {
                let wanted =
                    challenge.scopes().filter(|wanted| allowed.is_superset(wanted) && scopes.as_ref() != Some(wanted));
                // Nothing that we may ask for, or what we have asked for already.
                let Some(wanted) = wanted else { return Ok(response) };
                scopes = Some(wanted);
            }
            Some("insufficient_claims") => {
                let wanted = challenge.claims().and_then(|claims| TokenParams::new().claims(claims).ok());
                let Some(wanted) = wanted.filter(|wanted| params.as_ref() != Some(wanted)) else { return Ok(response) };
                params = Some(wanted);
            }
            // `insufficient_user_authentication` wants a person: sign in anew with `challenge.acr_values()` and
            // `challenge.max_age()` as parameters (`AuthorizationCode::param`).
            _ => return Ok(response),
        }
        rounds += 1;
    }
}

/// An HTTP client.
pub(crate) trait Client<B>:
    Service<Request<B>, Response = Response<Self::Body>, Error: Into<BoxError>> + Clone
{
    type Body: http_body::Body + 'static;
}

impl<S, B, RB> Client<B> for S
where
    S: Service<Request<B>, Response = Response<RB>, Error: Into<BoxError>> + Clone,
    RB: http_body::Body + 'static,
{
    type Body = RB;
}

type Answer = Result<Response<Full<Bytes>>, BoxError>;

/// An authorization server whose tokens say what they are good for.
async fn token(request: Request<Full<Bytes>>) -> Answer {
    let body = request.into_body().collect().await?.to_bytes();
    let has = |what: &[u8]| body.windows(what.len()).any(|window| window == what);
    let mut token = String::from("token");
    for (sent, good_for) in [(&b"write"[..], ".write"), (b"c1", ".c1")] {
        if has(sent) {
            token.push_str(good_for);
        }
    }
    let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

/// An API whose resources want different tokens.
async fn api(request: Request<Full<Bytes>>) -> Answer {
    let token = request.headers()["authorization"].to_str()?.to_owned();
    let claims = URL_SAFE_NO_PAD.encode(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#);
    let (status, challenge) = match request.uri().path() {
        "/write" if !token.contains(".write") => {
            (403, r#"Bearer error="insufficient_scope", scope="read write""#.into())
        }
        "/secret" if !token.contains(".c1") => {
            (401, format!(r#"Bearer error="insufficient_claims", claims="{claims}""#))
        }
        "/admin" => (403, r#"Bearer error="insufficient_scope", scope="admin""#.into()),
        // Never content, and with something else each time.
        "/greedy" if token.contains(".write") => (403, r#"Bearer error="insufficient_scope", scope="read""#.into()),
        "/greedy" => (403, r#"Bearer error="insufficient_scope", scope="write""#.into()),
        "/sign-in" => {
            (401, r#"Bearer error="insufficient_user_authentication", acr_values="mfa", max_age="60""#.into())
        }
        _ => (200, String::new()),
    };
    let mut response = Response::builder().status(status);
    if !challenge.is_empty() {
        response = response.header("www-authenticate", challenge);
    }
    Ok(response.body(Full::new(Bytes::from(token)))?)
}

/// One request to each resource. Gives how it ended, and with which token.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .scopes(["read"])
        .origin("https://api.example.com")
        .build()?;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let api = service_fn(move |request| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        api(request)
    });
    let client = AuthLayer::builder(cfg).http_client(service_fn(token)).build()?.layer(api);
    let allowed = Scopes::new(["read", "write"])?;
    let mut lines = Vec::new();
    for path in ["/read", "/write", "/secret", "/admin", "/greedy", "/sign-in"] {
        sent.store(0, std::sync::atomic::Ordering::Relaxed);
        let make = || Request::get(format!("https://api.example.com{path}")).body(Full::<Bytes>::default());
        let response = send(&client, make, &allowed).await?;
        let status: StatusCode = response.status();
        let token = response.into_body().collect().await?.to_bytes();
        let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
        lines.push(format!("{path}: {} after {sent}, {}", status.as_u16(), String::from_utf8_lossy(&token)));
    }
    Ok(lines)
}
