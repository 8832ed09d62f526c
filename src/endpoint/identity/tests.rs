//! What makes the tokens of two configurations differ in a store, and what does not.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue, Uri};

use super::*;
use crate::endpoint::{ClientAuth, Discovery, Grant, OnBehalfOf, Param, TokenExchange, TokenUrl};
use crate::telemetry::Telemetry;
use crate::types::{Scopes, Secret, SecretSource, SystemClock};

fn key(settings: EndpointSettings, auth: ClientAuth) -> crate::store::StoreKey {
    let endpoint = TokenEndpoint::from_parts(
        (),
        Arc::new(settings),
        Credentials::new(auth),
        Arc::new(SystemClock),
        Telemetry::default(),
    );
    endpoint.identity().key(None, None)
}

fn plain() -> EndpointSettings {
    EndpointSettings::new("https://a.example/t".parse().unwrap(), Grant::ClientCredentials)
}

fn auth() -> ClientAuth {
    ClientAuth::basic("id", "secret")
}

#[cfg(feature = "jwt")]
fn signed(issuer: &str) -> crate::jws::JwtAssertion {
    use crate::jws::{JwtAssertion, SigningAlgorithm, SigningKey};
    JwtAssertion::new(issuer, SigningKey::from_pem(SigningAlgorithm::Es256, SecretSource::file("/key")))
}

/// Behaviour 91.
#[test]
fn every_input_makes_another_key() {
    let param = |name: &str, value: &str| Param { name: name.into(), value: Secret::from(value) };
    let exchange = |kind: &str, token: &str| Grant::TokenExchange(TokenExchange::new(kind, token));
    type Edit = Box<dyn Fn(&mut EndpointSettings)>;
    let edits: Vec<Edit> = vec![
        Box::new(|_| {}),
        Box::new(|settings| settings.url = "https://b.example/t".parse().unwrap()),
        Box::new(|settings| settings.url = TokenUrl::from(Discovery::of("https://c.example")).parse(false).unwrap()),
        Box::new(|settings| settings.refresh_url = Some(Uri::from_static("https://a.example/r"))),
        Box::new(|settings| settings.grant = Grant::RefreshToken),
        Box::new(|settings| settings.grant = Grant::Device),
        Box::new(|settings| settings.grant = Grant::JwtBearer(SecretSource::from("anna").into())),
        Box::new(|settings| settings.grant = Grant::JwtBearer(SecretSource::from("berta").into())),
        Box::new(|settings| settings.grant = Grant::JwtBearer(SecretSource::file("anna").into())),
        #[cfg(feature = "jwt")]
        Box::new(|settings| settings.grant = Grant::JwtBearer(signed("app").into())),
        #[cfg(feature = "jwt")]
        Box::new(|settings| settings.grant = Grant::JwtBearer(signed("app").subject("anna").into())),
        #[cfg(feature = "jwt")]
        Box::new(|settings| settings.grant = Grant::JwtBearer(signed("app").without_subject().into())),
        #[cfg(feature = "jwt")]
        Box::new(|settings| settings.grant = Grant::JwtBearer(signed("app").audience("a").into())),
        #[cfg(feature = "jwt")]
        Box::new(|settings| settings.grant = Grant::JwtBearer(signed("app").claim("a", 1).into())),
        Box::new(move |settings| settings.grant = exchange(TokenExchange::JWT, "anna")),
        Box::new(move |settings| settings.grant = exchange(TokenExchange::JWT, "berta")),
        Box::new(move |settings| settings.grant = exchange(TokenExchange::ID_TOKEN, "berta")),
        Box::new(|settings| {
            let exchange = TokenExchange::new(TokenExchange::JWT, "anna");
            settings.grant = Grant::TokenExchange(exchange.actor(TokenExchange::JWT, "berta"));
        }),
        Box::new(|settings| settings.grant = Grant::OnBehalfOf(OnBehalfOf::token_exchange())),
        Box::new(|settings| settings.grant = Grant::OnBehalfOf(OnBehalfOf::entra())),
        Box::new(|settings| {
            let actor = OnBehalfOf::token_exchange().actor(TokenExchange::JWT, "berta");
            settings.grant = Grant::OnBehalfOf(actor.requested_token_type("urn:x"));
        }),
        Box::new(|settings| settings.scopes = Some(Scopes::new(["a", "b"]).unwrap())),
        Box::new(|settings| settings.resources = vec!["a".into(), "b".into()]),
        Box::new(|settings| settings.audiences = vec!["a".into(), "b".into()]),
        Box::new(|settings| settings.audiences = vec!["ab".into()]),
        Box::new(move |settings| settings.params = vec![param("a", "b")]),
        Box::new(move |settings| settings.params = vec![param("a", "c")]),
        Box::new(move |settings| settings.params = vec![param("a", ""), param("b", "")]),
        Box::new(|settings| {
            settings.headers = vec![(HeaderName::from_static("a"), HeaderValue::from_static("b"))];
        }),
        Box::new(|settings| settings.tenant_header = Some(HeaderName::from_static("a"))),
        Box::new(|settings| settings.tenant_param = Some("a".into())),
        Box::new(|settings| settings.account = Some("anna".into())),
        Box::new(|settings| settings.account = Some("berta".into())),
        #[cfg(feature = "dpop")]
        Box::new(|settings| settings.dpop = Some(crate::dpop::DpopKey::generate().unwrap())),
        #[cfg(feature = "dpop")]
        Box::new(|settings| settings.dpop = Some(crate::dpop::DpopKey::generate().unwrap())),
    ];
    let mut keys = HashSet::new();
    for (at, edit) in edits.iter().enumerate() {
        let mut settings = plain();
        edit(&mut settings);
        assert!(keys.insert(key(settings, auth())), "{at}");
    }
    let assertions = [
        ClientAuth::assertion(SecretSource::file("one")),
        ClientAuth::assertion(SecretSource::file("other")),
        ClientAuth::assertion_of_type(ClientAuth::JWT_SPIFFE, SecretSource::file("one")),
        ClientAuth::assertion(SecretSource::file("one")).with_client_id("id"),
    ];
    for other in assertions {
        assert!(keys.insert(key(plain(), other)));
    }
    for other in [ClientAuth::basic("di", "secret"), ClientAuth::body("id", "secret"), ClientAuth::none("id")] {
        assert!(keys.insert(key(plain(), other)));
    }
    let with_token = |token: &str| {
        let credentials = Credentials::new(auth());
        let endpoint =
            TokenEndpoint::from_parts((), Arc::new(plain()), credentials, Arc::new(SystemClock), Telemetry::default());
        endpoint.starting_with(Some(Secret::from(token))).identity().key(None, None)
    };
    assert!(keys.insert(with_token("anna's")) && keys.insert(with_token("berta's")));
}

/// Behaviour 148.
#[test]
fn whose_tokens_they_are_must_be_said_where_nothing_else_says_it() {
    use crate::endpoint::AuthorizationCode;
    let provider = || SecretSource::provider(|| async { Ok::<_, std::io::Error>(Secret::from("assertion")) });
    let code = || Grant::AuthorizationCode(AuthorizationCode::new("https://a.example/a", "https://b.example/b"));
    let exchange = |token| Grant::TokenExchange(TokenExchange::new(TokenExchange::JWT, token));
    let acting = TokenExchange::new(TokenExchange::JWT, "anna").actor(TokenExchange::JWT, provider());
    let table = [
        (Grant::ClientCredentials, auth(), false),
        (Grant::RefreshToken, auth(), false),
        (Grant::JwtBearer(SecretSource::from("anna").into()), auth(), false),
        (Grant::JwtBearer(SecretSource::file("/run/secrets/assertion").into()), auth(), true),
        (exchange(SecretSource::from("anna")), auth(), false),
        (Grant::ClientCredentials, ClientAuth::basic("id", provider()), false),
        (Grant::ClientCredentials, ClientAuth::assertion(provider()).with_client_id("id"), false),
        (Grant::ClientCredentials, ClientAuth::assertion(provider()), true),
        (Grant::ClientCredentials, ClientAuth::assertion(SecretSource::file("/run/secrets/token")), true),
        (Grant::ClientCredentials, ClientAuth::assertion("one that is fixed"), false),
        (exchange(SecretSource::file("/run/secrets/token")), auth(), true),
        (code(), auth(), true),
        (Grant::Device, auth(), true),
        (Grant::JwtBearer(provider().into()), auth(), true),
        #[cfg(feature = "jwt")]
        (Grant::JwtBearer(signed("app").into()), auth(), false),
        (exchange(provider()), auth(), true),
        (Grant::TokenExchange(acting), auth(), true),
    ];
    for (grant, auth, nameless) in table {
        let check = |edit: fn(&mut EndpointSettings)| {
            let mut settings = plain();
            settings.grant = grant.clone();
            edit(&mut settings);
            let credentials = Credentials::new(auth.clone());
            let endpoint = TokenEndpoint::from_parts(
                (),
                Arc::new(settings),
                credentials,
                Arc::new(SystemClock),
                Telemetry::default(),
            );
            (endpoint.identity().check().is_err(), endpoint.identity().and("anna").check().is_err())
        };
        assert_eq!(check(|_| {}), (nameless, false), "{grant:?} {auth:?}");
        assert_eq!(check(|settings| settings.account = Some("anna".into())), (false, false));
        assert_eq!(check(|settings| settings.per_tenant = true), (false, false));
    }
}

#[test]
fn neither_order_nor_the_client_secret_makes_another_key() {
    let both_ways = |names: [&str; 2]| {
        let mut settings = plain();
        settings.scopes = Some(Scopes::new(names).unwrap());
        settings.audiences = names.map(str::to_owned).to_vec();
        settings.params = names.map(|name| Param { name: name.into(), value: Secret::from("x") }).to_vec();
        key(settings, auth())
    };
    assert_eq!(both_ways(["a", "b"]), both_ways(["b", "a"]));
    assert_eq!(key(plain(), auth()), key(plain(), ClientAuth::basic("id", "another")));
}

/// Behaviour 97.
#[test]
fn credentials_differ_by_their_secret_and_are_unknown_where_it_may_change() {
    let made_by = |auth: ClientAuth| {
        let credentials = Credentials::new(auth);
        TokenEndpoint::from_parts((), Arc::new(plain()), credentials, Arc::new(SystemClock), Telemetry::default())
            .identity()
            .made_by()
    };
    assert_eq!(made_by(auth()), made_by(auth()));
    assert_ne!(made_by(auth()), made_by(ClientAuth::basic("id", "another")));
    assert!(made_by(ClientAuth::none("id")).is_some());
    assert_eq!(made_by(ClientAuth::basic("id", SecretSource::file("secret"))), None);
}

#[test]
fn a_replaced_client_is_another_identity_at_once() {
    let credentials = Credentials::new(auth());
    let endpoint = TokenEndpoint::from_parts(
        (),
        Arc::new(plain()),
        credentials.clone(),
        Arc::new(SystemClock),
        Telemetry::default(),
    );
    let identity = endpoint.identity();
    let (key, made_by) = (identity.key(None, None), identity.made_by());
    credentials.replace(ClientAuth::basic("id", "rotated")).unwrap();
    assert_eq!(identity.key(None, None), key);
    assert_ne!(identity.made_by(), made_by);
    credentials.replace(ClientAuth::basic("another", "rotated")).unwrap();
    assert_ne!(identity.key(None, None), key);
}
