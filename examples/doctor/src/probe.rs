//! A `GET` to a URL of the API, and what its answer means.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::{AuthChallenge, AuthHandle, AuthLayer, Error, ReqwestClient, TenantId};

use crate::Stop;
use crate::client::Watched;
use crate::report::Report;
use crate::token::claims;

pub(crate) async fn send(
    url: &str,
    layer: &AuthLayer,
    http: reqwest::Client,
    handle: &AuthHandle,
    tenant: Option<&str>,
    report: &Report,
) -> Result<(), Stop> {
    let wrong = |text: &str, change: &str| report.wrong(Stop::Probe, text, change);
    let mut request = Request::get(url)
        .body(Full::<Bytes>::default())
        .map_err(|_| report.wrong(Stop::Configuration, "the probe is no URL", "write it with https://"))?;
    if let Some(tenant) = tenant.and_then(|tenant| TenantId::new(tenant).ok()) {
        request.extensions_mut().insert(tenant);
    }
    Watched::new(http.clone(), false, report.clone()).reach(url).await.map_err(|()| Stop::Unreachable)?;
    let response = match layer.layer(ReqwestClient::new(http)).oneshot(request).await {
        Ok(response) => response,
        Err(error @ Error::Origin { .. }) => {
            let change = match &error {
                Error::Origin { origin, .. } => format!("if it is your API: origins = [\"{origin}\"]"),
                _ => String::new(),
            };
            return Err(wrong(&error.to_string(), &change));
        }
        Err(error @ Error::Tenant { .. }) => return Err(wrong(&error.to_string(), "name one: --tenant TENANT")),
        Err(Error::Service(_)) => {
            report.wrong(
                Stop::Unreachable,
                "the API gave no answer",
                "check its TLS and that it speaks HTTP at this URL",
            );
            return Err(Stop::Unreachable);
        }
        Err(error) => return Err(wrong(&error.to_string(), "")),
    };
    let status = response.status();
    if status.is_success() {
        report.ok(&format!("{status}: the API takes the token"));
        return Ok(());
    }
    let challenge =
        response.extensions().get::<AuthChallenge>().cloned().or_else(|| AuthChallenge::of(response.headers()));
    let other = response.headers().get("www-authenticate").is_some();
    let change = match (status.as_u16(), challenge.as_ref().map(|challenge| (challenge, challenge.error()))) {
        (_, Some((challenge, Some("insufficient_scope")))) => match challenge.scopes() {
            Some(scopes) => format!("the token lacks a scope: add_scopes = \"{}\"", scopes.as_str()),
            None => "the token lacks a scope; the API does not say which".into(),
        },
        (_, Some((_, Some("insufficient_user_authentication")))) => {
            "the person must sign in again, or more strongly (RFC 9470)".into()
        }
        (_, Some((challenge, _))) if challenge.scheme() == "DPoP" => {
            "the API wants tokens that are bound to a key: `dpop`".into()
        }
        (401, Some((_, Some("invalid_token")))) => {
            format!("the API does not take this token. {}", meant_for(handle).await)
        }
        (401, Some(_)) => format!("the API gives no reason. {}", meant_for(handle).await),
        (401, None) if other => "the API wants another scheme than Bearer: is this URL meant for tokens?".into(),
        (401, None) => format!("the API gives no reason. {}", meant_for(handle).await),
        (403, _) => "the token is known and not enough: rights of the client, a scope, or a missing tenant".into(),
        (404, _) => "there is nothing at this path; some APIs say so where rights are missing".into(),
        (300..=399, _) => "it redirects, perhaps to a page for people: probe the URL it points to".into(),
        (500..=599, _) => "the API itself has a problem".into(),
        _ => "the API does not take a plain GET here: probe another URL".into(),
    };
    Err(wrong(&format!("the API answers {status}"), &change))
}

/// Who a token is from and for, if it says so: nothing else in it is shown.
async fn meant_for(handle: &AuthHandle) -> String {
    let Ok(token) = handle.token().await else { return "Does it trust this authorization server?".into() };
    let Some(claims) = claims(token.access_token()) else {
        return "Does it trust this authorization server, and is the token for it (`audiences`, `resources`, `scopes`)?".into();
    };
    let of = |name: &str| claims.get(name).map_or("nobody".to_owned(), ToString::to_string);
    format!(
        "It is from {} for {}: does the API expect both? `audiences`, `resources` or `scopes` change the latter.",
        of("iss"),
        of("aud")
    )
}
