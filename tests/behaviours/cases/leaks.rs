//! Leaks: where tokens, secrets and tenants must not turn up.

use std::error::Error as StdError;
use std::sync::Arc;

use http::{Request, Response};
use tower_oauth2_client::BoxError;
use tower_oauth2_client::test_util::Fault;

use crate::cases;
use crate::subject::{
    API, CLIENT_ID, Offered, Setting, Settings, Subject, Tenancy, World, empty, for_tenant, get, send, succeed,
};

cases! {
    /// Behaviour 99.
    99, "a request to a foreign host is refused", foreign_host_refused;
    /// Behaviour 99.
    99, "a request to a foreign host carries no credentials where it may pass", foreign_host_without_credentials;
    /// Behaviour 100.
    100, "a redirect from the API is handed out, not followed", redirect_of_the_api;
    /// Behaviour 101.
    101, "a request over http is refused where https is configured", no_tls;
    /// Behaviour 102.
    102, "credentials are not posted where the token endpoint redirects to", redirect_of_the_token_endpoint;
    /// Behaviour 103.
    103, "no error tells a secret or a token", errors_tell_no_secret;
    /// Behaviour 103.
    103, "tokens and tenants go out as sensitive header values", headers_are_sensitive;
    /// Behaviour 104.
    104, "a server that quotes the secret is not quoted", quoted_secret;
}

const ELSEWHERE: &str = "https://elsewhere.example.net/items";

async fn foreign_host_refused(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    for uri in [
        ELSEWHERE,
        "https://api.example.com.elsewhere.example.net/",
        "https://api.example.com:8443/",
        "https://xapi.example.com/",
        "https://example.com/",
    ] {
        assert!(send(&client, Request::get(uri).body(empty()).unwrap()).await.is_err(), "{uri}");
    }
    assert_eq!(world.api.hits(), 1);
    Ok(())
}

async fn foreign_host_without_credentials(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings =
        Settings { more: vec![Setting::PassForeign], tenant: Tenancy::SharedToken("x-tenant"), ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    let request = Request::get(ELSEWHERE).header("authorization", "Bearer left-over").header("x-tenant", "blue");
    send(&client, for_tenant(request.body(empty()).unwrap(), "blue")).await.unwrap();
    let seen = &world.api.requests()[0];
    assert_eq!((seen.header("authorization"), seen.header("x-tenant")), (None, None));
    Ok(())
}

async fn redirect_of_the_api(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    world.api.script([Fault::Redirect(ELSEWHERE.into())]);
    assert_eq!(send(&client, get("/")).await.unwrap().status(), 307);
    assert_eq!(world.api.hits(), 1);
    Ok(())
}

async fn no_tls(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    let request = Request::get(API.replace("https", "http")).body(empty()).unwrap();
    assert!(send(&client, request).await.is_err());
    assert_eq!(world.api.hits(), 0);
    Ok(())
}

async fn redirect_of_the_token_endpoint(subject: Arc<dyn Subject>) -> Offered {
    for status in [301, 302, 303, 307, 308] {
        let world = World::new();
        let client = world.client(&subject)?;
        let redirect = Response::builder().status(status).header("location", ELSEWHERE);
        world.auth.script([Fault::Respond(redirect.body("".into()).unwrap())]);
        assert!(send(&client, get("/")).await.is_err(), "{status}");
        assert_eq!((world.auth.token_requests(), world.api.hits()), (1, 0), "{status}");
    }
    Ok(())
}

const SECRET: &str = "canary+s3cret/7c1e";
const TOKEN: &str = "canary-token-7c1e";

/// What an error says, in all ways it can be asked.
fn all_of(error: &BoxError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = source {
        text += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    text
}

/// The error of a request whose token request met this fault.
async fn error_after(subject: &Arc<dyn Subject>, fault: Fault) -> Offered<String> {
    let world = World::with(|auth| auth.client(CLIENT_ID, SECRET));
    let settings = Settings { secret: Some(SECRET.to_owned()), ..Settings::default() };
    let client = world.subject(subject, settings)?.client;
    world.auth.script([fault]);
    Ok(all_of(&send(&client, get("/")).await.unwrap_err()))
}

async fn errors_tell_no_secret(subject: Arc<dyn Subject>) -> Offered {
    let body = |text: &str| Fault::Body(text.replace("TOKEN", TOKEN).into());
    for fault in [
        Fault::Drop,
        Fault::Html,
        Fault::Garbage,
        Fault::Status(503),
        Fault::error("invalid_client"),
        Fault::Redirect(format!("{ELSEWHERE}?secret={SECRET}").into()),
        body(r#""TOKEN""#),
        body(r#"["TOKEN"]"#),
        body(r#"{"access_token":["TOKEN"]}"#),
        body(r#"{"access_token":"TOKEN","expires_in":3600"#),
        body(r#"{"access_token":"TOKEN TOKEN","token_type":"Bearer"}"#),
        body("access_token"),
        body("TOKEN"),
    ] {
        let name = format!("{fault:?}");
        let said = error_after(&subject, fault).await?;
        for canary in [SECRET, "canary", "s3cret"] {
            assert!(!said.contains(canary), "{name} made it tell {canary}");
        }
    }
    Ok(())
}

async fn headers_are_sensitive(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings = Settings { tenant: Tenancy::SharedToken("x-tenant"), ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    for _ in 0..3 {
        succeed(&client, for_tenant(get("/"), "blue")).await;
    }
    world.auth.revoke_all();
    succeed(&client, for_tenant(get("/"), "blue")).await;
    for request in world.api.requests() {
        assert!(request.headers["authorization"].is_sensitive() && request.headers["x-tenant"].is_sensitive());
    }
    for request in world.auth.requests() {
        assert!(request.headers.get("authorization").is_none_or(|value| value.is_sensitive()));
    }
    Ok(())
}

async fn quoted_secret(subject: Arc<dyn Subject>) -> Offered {
    for (status, body) in [
        (401, r#"{"error":"invalid_client","error_description":"the secret SECRET is wrong"}"#),
        (400, r#"{"error":"SECRET"}"#),
        (400, r#"{"error":"invalid_request","error_uri":"https://auth.example.com/?SECRET"}"#),
        (500, "no such client secret: SECRET"),
        (403, "<html>SECRET</html>"),
        (200, r#"{"error":"SECRET","access_token":""}"#),
        (200, r#"{"token_type":"SECRET","access_token":"x"}"#),
    ] {
        let response = Response::builder().status(status).header("content-type", "application/json");
        let response = response.body(body.replace("SECRET", SECRET).into()).unwrap();
        let said = error_after(&subject, Fault::Respond(response)).await?;
        assert!(!said.contains("canary") && !said.contains("s3cret"), "{status} {body}");
    }
    Ok(())
}
