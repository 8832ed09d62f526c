//! Protocol: what goes over the wire to the token endpoint, and what comes back.

use std::sync::Arc;

use tower_oauth2_client::test_util::Fault;

use crate::cases;
use crate::subject::{CLIENT_ID, Offered, Setting, Settings, Subject, World, get, send, succeed};

cases! {
    /// Behaviour 107.
    107, "odd characters in secrets arrive as they are", odd_secrets;
    /// Behaviour 108.
    108, "a refused secret is not tried in another way", no_probing;
    /// Behaviour 109.
    109, "`token_type` in any letter case; an unknown one is refused", token_types;
    /// Behaviour 114.
    114, "the headers of a token request", token_request_headers;
}

async fn odd_secrets(subject: Arc<dyn Subject>) -> Offered {
    for secret in ["a+b", "a%b", "a%2Bb", "a:b", "a&b=c", "a/b", "a b", "é", "p@ss?#!", "\"'\\"] {
        for more in [vec![], vec![Setting::SecretInBody]] {
            let world = World::with(|auth| auth.client(CLIENT_ID, secret));
            let settings = Settings { secret: Some(secret.to_owned()), more, ..Settings::default() };
            succeed(&world.subject(&subject, settings)?.client, get("/")).await;
        }
    }
    Ok(())
}

async fn no_probing(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.subject(&subject, Settings { secret: Some("wrong".to_owned()), ..Settings::default() })?.client;
    assert!(send(&client, get("/")).await.is_err());
    assert_eq!(world.auth.token_requests(), 1);
    let asked = &world.auth.requests()[0];
    assert_ne!(asked.header("authorization").is_some(), asked.param("client_secret").is_some(), "one way, not two");
    Ok(())
}

async fn token_types(subject: Arc<dyn Subject>) -> Offered {
    for (token_type, is_known) in
        [("Bearer", true), ("bearer", true), ("bEARER", true), ("mac", false), ("N_A", false), ("DPoP", false)]
    {
        let world = World::new();
        let client = world.client(&subject)?;
        let token = world.token_from_elsewhere().await;
        let answer = format!(r#"{{"access_token":"{token}","token_type":"{token_type}","expires_in":60}}"#);
        world.auth.script([Fault::Body(answer.into())]);
        let response = send(&client, get("/")).await;
        assert_eq!(response.is_ok(), is_known, "{token_type}");
        assert_eq!(world.api.hits(), usize::from(is_known));
        assert_eq!(world.api.unauthorized(), 0, "{token_type}");
    }
    Ok(())
}

async fn token_request_headers(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    succeed(&client, get("/")).await;
    let asked = &world.auth.requests()[0];
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.header("accept"), Some("application/json"));
    Ok(())
}
