//! Settings as data are what the builder makes of the same settings.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::presets;
use crate::endpoint::{
    Authority, AuthorizationCode, BodyEncoding, ClientAuth, Directory, Discovery, IdentityAssertion, OnBehalfOf,
    TokenExchange,
};
use crate::request::{ExistingAuthorization, UnlistedOrigin};
use crate::response::Forbidden;
use crate::token::{ExpirySource, Renew, UnknownExpiry};
use crate::types::{Digest, Replay, SecretSource};

const URL: &str = "https://auth.example.com/token";
const API: &str = "https://api.example.com";

/// Everything that a configuration holds and that can be compared.
fn contents<E>(cfg: &AuthConfig<E>, endpoint: impl FnOnce(&E) -> String) -> String {
    let AuthConfig { engine, origins, subject, tenant, injection, replay, rejection, telemetry, .. } = cfg;
    #[cfg(feature = "dpop")]
    let binding = cfg
        .binding
        .as_ref()
        .map(|binding| (binding.key.thumbprint().to_owned(), binding.assumed.as_ref().map(ToString::to_string)));
    #[cfg(not(feature = "dpop"))]
    let binding = ();
    format!(
        "{telemetry:#?}{engine:#?}{origins:#?}{subject:#?}{tenant:#?}{injection:#?}{replay:#?}{rejection:#?}{binding:#?}{}",
        endpoint(&cfg.endpoint)
    )
}

fn of_endpoint(cfg: &AuthConfig) -> String {
    contents(cfg, |endpoint| {
        let settings = &endpoint.settings;
        let digest = |describe: &dyn Fn(&mut Digest)| {
            let mut digest = Digest::new("test");
            describe(&mut digest);
            format!("{:?}", digest.finish())
        };
        let params: Vec<_> = settings.params.iter().map(|param| (&param.name, param.value.expose())).collect();
        let headers: Vec<_> = settings.headers.iter().map(|(name, value)| (name, value.to_str())).collect();
        #[cfg(feature = "reqwest")]
        let client = endpoint.client_is_changed;
        #[cfg(not(feature = "reqwest"))]
        let client = ();
        format!(
            "{:#?}",
            [
                format!("{} {:?}", settings.url.uri(), settings.url.issuer()),
                format!("{:?} {:?} {:?}", settings.refresh_url, settings.revocation_url, settings.device_url),
                digest(&|digest| settings.grant.describe(digest)),
                digest(&|digest| endpoint.client_auth.describe(digest)),
                format!("{:?}", endpoint.client_auth.known_credentials().map(Digest::finish)),
                format!("{:?} {:?} {:?}", endpoint.client_auth, settings.directory.is_some(), settings.grant),
                format!("{:?} {:?} {:?}", settings.encoding, settings.send_grant_type, settings.scopes),
                format!("{:?} {:?}", settings.send_scopes_on_refresh, settings.require_granted),
                format!("{:?} {:?}", settings.resources, settings.audiences),
                format!("{:?} {:?}", settings.assertion_audience, settings.account),
                format!("{params:?} {headers:?}"),
                format!("{:?} {:?} {:?}", settings.timeout, settings.max_body, settings.dead_refresh_codes),
                format!("{:?} {:?}", settings.answer, endpoint.refresh_token.as_ref().map(|token| token.expose())),
                format!("{client:?}"),
            ]
        )
    })
}

fn read(json: Value) -> AuthSettings {
    serde_json::from_value(json).unwrap()
}

fn merged(mut base: Value, more: Value) -> Value {
    let all = base.as_object_mut().unwrap();
    all.extend(more.as_object().unwrap().clone());
    base
}

fn base() -> Value {
    json!({ "token_url": URL, "client_auth": "basic", "client_id": "id", "client_secret": "secret", "origins": [API] })
}

fn base_builder() -> AuthConfigBuilder {
    AuthConfig::client_credentials(URL, ClientAuth::basic("id", "secret")).origin(API)
}

type Set = fn(AuthConfigBuilder) -> AuthConfigBuilder;

/// Each setting beside the base, as data and as a call.
fn rows() -> Vec<(Value, Set)> {
    const SECOND: Duration = Duration::from_secs(1);
    vec![
        (json!({ "scopes": "read write" }), |cfg| cfg.scopes(["read", "write"])),
        (json!({ "add_scopes": ["more"] }), |cfg| cfg.add_scopes(["more"])),
        (json!({ "resources": ["https://a.example", "https://b.example"] }), |cfg| {
            cfg.resource("https://a.example").resource("https://b.example")
        }),
        (json!({ "audiences": "one" }), |cfg| cfg.audience("one")),
        (json!({ "account": "anna" }), |cfg| cfg.account("anna")),
        (json!({ "refresh_url": "https://auth.example.com/r" }), |cfg| cfg.refresh_url("https://auth.example.com/r")),
        (json!({ "revocation_url": "https://auth.example.com/r" }), |cfg| {
            cfg.revocation_url("https://auth.example.com/r")
        }),
        (json!({ "device_authorization_url": "https://auth.example.com/d" }), |cfg| {
            cfg.device_authorization_url("https://auth.example.com/d")
        }),
        (json!({ "send_scopes_on_refresh": true }), AuthConfigBuilder::send_scopes_on_refresh),
        (json!({ "require_granted_scopes": true }), AuthConfigBuilder::require_granted_scopes),
        (json!({ "token_params": { "mode": { "env": "CARGO_PKG_NAME" } } }), |cfg| {
            cfg.token_param("mode", "tower-oauth2-client")
        }),
        (json!({ "token_headers": { "x-key": "key" } }), |cfg| cfg.token_header("x-key", "key")),
        (json!({ "encoding": "json" }), |cfg| cfg.encoding(BodyEncoding::Json)),
        (json!({ "send_grant_type": false }), |cfg| cfg.send_grant_type(false)),
        (json!({ "token_type_aliases": ["token"] }), |cfg| cfg.token_type_alias("token")),
        (json!({ "require_token_type": true }), AuthConfigBuilder::require_token_type),
        (json!({ "rename_response_fields": { "accessToken": "access_token" } }), |cfg| {
            cfg.rename_response_field("accessToken", "access_token")
        }),
        (json!({ "invalid_refresh_token_codes": ["dead"] }), |cfg| cfg.invalid_refresh_token_code("dead")),
        (json!({ "token_timeout": "7s" }), |cfg| cfg.token_timeout(7 * SECOND)),
        (json!({ "max_token_response_bytes": 1000 }), |cfg| cfg.max_token_response_bytes(1000)),
        #[cfg(feature = "reqwest")]
        (json!({ "proxy": "http://proxy.example:3128" }), |cfg| cfg.proxy("http://proxy.example:3128")),
        #[cfg(feature = "reqwest")]
        (json!({ "connect_timeout": "1s" }), |cfg| cfg.connect_timeout(SECOND)),
        (json!({ "expiry": ["jwt_exp", "expires_in", "expires_at", { "fixed": "1h" }] }), |cfg| {
            let fixed = ExpirySource::Fixed(3600 * SECOND);
            cfg.expiry([ExpirySource::JwtExp, ExpirySource::ExpiresIn, ExpirySource::ExpiresAt, fixed])
        }),
        (json!({ "unknown_expiry": "until_rejected" }), |cfg| cfg.unknown_expiry(UnknownExpiry::UntilRejected)),
        (json!({ "unknown_expiry": "error" }), |cfg| cfg.unknown_expiry(UnknownExpiry::Error)),
        (json!({ "unknown_expiry": { "assume": "5m" } }), |cfg| {
            cfg.unknown_expiry(UnknownExpiry::Assume(300 * SECOND))
        }),
        (json!({ "renew": 0.5 }), |cfg| cfg.renew(Renew::Fraction(0.5))),
        (json!({ "renew": 1 }), |cfg| cfg.renew(Renew::Fraction(1.0))),
        (json!({ "renew": "at_expiry" }), |cfg| cfg.renew(Renew::AtExpiry)),
        (json!({ "expiry_margin": "5s" }), |cfg| cfg.expiry_margin(5 * SECOND)),
        (json!({ "discard_expired": true }), |cfg| cfg.discard_expired(true)),
        (json!({ "refresh_deadline": "40s" }), |cfg| cfg.refresh_deadline(40 * SECOND)),
        (json!({ "backoff": { "first": "2s", "longest": "20s" } }), |cfg| cfg.backoff(2 * SECOND, 20 * SECOND)),
        (json!({ "permanent_failure_pause": { "first": "3s", "longest": "20s" } }), |cfg| {
            cfg.permanent_failure_pause(3 * SECOND, 20 * SECOND)
        }),
        (json!({ "wait_out_pause": "0s" }), |cfg| cfg.wait_out_pause(Duration::ZERO)),
        (json!({ "retry_after_cap": "1h" }), |cfg| cfg.retry_after_cap(3600 * SECOND)),
        (json!({ "name": "billing" }), |cfg| cfg.name("billing")),
        (json!({ "max_waiters": 7 }), |cfg| cfg.max_waiters(7)),
        (json!({ "max_concurrent_token_requests": 7 }), |cfg| cfg.max_concurrent_token_requests(7)),
        (json!({ "max_partitions": 7 }), |cfg| cfg.max_partitions(7)),
        (json!({ "partition_idle": "7m" }), |cfg| cfg.partition_idle(420 * SECOND)),
        (json!({ "origins": ["https://a.example", "https://b.example"] }), |cfg| {
            cfg.origins(["https://a.example", "https://b.example"])
        }),
        (json!({ "on_unlisted_origin": "pass_without_credentials" }), |cfg| {
            cfg.on_unlisted_origin(UnlistedOrigin::PassWithoutCredentials)
        }),
        (json!({ "danger_allow_http": true, "origins": "http://api.example.com" }), |cfg| {
            cfg.danger_allow_http().origins(["http://api.example.com"])
        }),
        (
            json!({ "tenant": { "header": "x-tenant", "from": "request_header", "optional": true, "normalized": true } }),
            |cfg| cfg.tenant(Tenant::header("x-tenant").from_request_header().optional().normalized()),
        ),
        (json!({ "tenant": { "fixed": "a", "token_header": "x-a", "token_param": "a" } }), |cfg| {
            cfg.tenant(Tenant::without_header().fixed("a").token_header("x-a").token_param("a"))
        }),
        (json!({ "tenant": { "from": "request", "per_tenant_tokens": true } }), |cfg| {
            cfg.tenant(Tenant::without_header().per_request().per_tenant_tokens())
        }),
        (json!({ "default_headers": { "accept": "text/plain" } }), |cfg| cfg.default_header("accept", "text/plain")),
        (json!({ "existing_authorization": "keep" }), |cfg| cfg.existing_authorization(ExistingAuthorization::Keep)),
        (json!({ "replay": "idempotent" }), |cfg| cfg.replay(Replay::Idempotent)),
        (json!({ "max_replay_bytes": 7 }), |cfg| cfg.max_replay_bytes(7)),
        (json!({ "on_forbidden": "if_expired" }), |cfg| cfg.on_forbidden(Forbidden::IfExpired)),
        (json!({ "unauthorized_status": [419, 440] }), |cfg| {
            [419, 440].into_iter().fold(cfg, |cfg, code| cfg.unauthorized_status(StatusCode::from_u16(code).unwrap()))
        }),
        (json!({ "ignore_grpc_status": true }), AuthConfigBuilder::ignore_grpc_status),
        (json!({ "ignore_unauthorized": true }), AuthConfigBuilder::ignore_unauthorized),
        (json!({ "issuer": "https://auth.example.com", "openid": true, "token_url": null }), |cfg| {
            cfg.token_url(Discovery::of("https://auth.example.com").openid())
        }),
        (json!({ "client_auth": "basic_raw" }), |cfg| cfg.client_auth(ClientAuth::basic_raw("id", "secret"))),
        (json!({ "client_auth": "body" }), |cfg| cfg.client_auth(ClientAuth::body("id", "secret"))),
        (json!({ "client_auth": "none", "client_secret": null }), |cfg| cfg.client_auth(ClientAuth::none("id"))),
        (json!({ "client_auth": "mtls", "client_secret": null }), |cfg| cfg.client_auth(ClientAuth::mtls("id"))),
        (json!({ "client_auth": "anonymous", "client_id": null, "client_secret": null }), |cfg| {
            cfg.client_auth(ClientAuth::anonymous())
        }),
        (json!({ "client_auth": "assertion", "client_assertion": { "file": "/a" }, "client_secret": null }), |cfg| {
            cfg.client_auth(ClientAuth::assertion(SecretSource::file("/a")).with_client_id("id"))
        }),
        (
            json!({ "client_auth": "assertion", "client_assertion": "a", "client_assertion_type": "urn:x",
                    "client_id": null, "client_secret": null }),
            |cfg| cfg.client_auth(ClientAuth::assertion_of_type("urn:x", "a")),
        ),
    ]
}

#[test]
fn each_setting_is_what_the_builder_makes_of_it() {
    let plain = of_endpoint(&base_builder().build().unwrap());
    assert_eq!(of_endpoint(&read(base()).build().unwrap()), plain);
    for (data, set) in rows() {
        let built = of_endpoint(&set(base_builder()).build().unwrap());
        assert_ne!(built, plain, "{data} changes nothing that is compared");
        assert_eq!(of_endpoint(&read(merged(base(), data.clone())).build().unwrap()), built, "{data}");
    }
}

/// A grant with what it needs, and a preset.
fn grants() -> Vec<(Value, AuthConfigBuilder)> {
    let auth = || ClientAuth::basic("id", "secret");
    let exchange = || {
        TokenExchange::new(TokenExchange::JWT, SecretSource::file("/s"))
            .actor(TokenExchange::ACCESS_TOKEN, "actor")
            .requested_token_type("urn:other")
    };
    let exchange_data = json!({ "subject_token": { "file": "/s" }, "subject_token_type": "jwt", "actor_token": "actor",
        "actor_token_type": "access_token", "requested_token_type": "urn:other" });
    let code = AuthorizationCode::new("https://auth.example.com/authorize", "https://app.example.com/back")
        .param("prompt", "login")
        .require_issuer("https://auth.example.com")
        .without_pkce();
    let assertion = IdentityAssertion::new("https://idp.example/t", ClientAuth::none("idp"), exchange())
        .audience("https://auth.example.com")
        .resource("https://a.example")
        .scopes(["one", "two"]);
    let idp = merged(
        exchange_data.clone(),
        json!({ "token_url": "https://idp.example/t", "client_auth": "none", "client_id": "idp",
                "audiences": "https://auth.example.com", "resources": "https://a.example", "scopes": "one two" }),
    );
    let each_user = IdentityAssertion::on_behalf_of(Discovery::of("https://idp.example"), ClientAuth::none("idp"));
    let each_idp =
        json!({ "issuer": "https://idp.example", "client_auth": "none", "client_id": "idp", "on_behalf_of": true });
    vec![
        (json!({ "grant": "client_credentials" }), AuthConfig::client_credentials(URL, auth())),
        (
            json!({ "grant": "refresh_token", "refresh_token": { "env": "CARGO_PKG_NAME" } }),
            AuthConfig::refresh_token(URL, auth(), "tower-oauth2-client".to_owned()),
        ),
        (
            json!({ "grant": "authorization_code", "authorization_url": "https://auth.example.com/authorize",
                    "redirect_uri": "https://app.example.com/back", "authorization_params": { "prompt": "login" },
                    "sign_in_issuer": "https://auth.example.com", "require_sign_in_issuer": true, "pkce": false }),
            AuthConfig::authorization_code(URL, auth(), code),
        ),
        (
            json!({ "grant": "authorization_code", "redirect_uri": "https://app.example.com/back", "token_url": null,
                    "issuer": "https://auth.example.com" }),
            AuthConfig::authorization_code(
                Discovery::of("https://auth.example.com"),
                auth(),
                AuthorizationCode::discovered("https://app.example.com/back"),
            ),
        ),
        (
            json!({ "grant": "device", "device_authorization_url": "https://auth.example.com/d" }),
            AuthConfig::device(URL, auth()).device_authorization_url("https://auth.example.com/d"),
        ),
        (json!({ "grant": "jwt_bearer", "assertion": "jwt" }), AuthConfig::jwt_bearer(URL, auth(), "jwt")),
        (
            merged(json!({ "grant": "token_exchange" }), exchange_data),
            AuthConfig::token_exchange(URL, auth(), exchange()),
        ),
        (
            json!({ "grant": "on_behalf_of", "on_behalf_of": "token_exchange", "actor_token": "actor",
                    "actor_token_type": "access_token", "requested_token_type": "access_token" }),
            AuthConfig::on_behalf_of(
                URL,
                auth(),
                OnBehalfOf::token_exchange()
                    .actor(TokenExchange::ACCESS_TOKEN, "actor")
                    .requested_token_type(TokenExchange::ACCESS_TOKEN),
            ),
        ),
        (
            json!({ "grant": "on_behalf_of", "on_behalf_of": "entra" }),
            AuthConfig::on_behalf_of(URL, auth(), OnBehalfOf::entra()),
        ),
        (
            json!({ "grant": "identity_assertion", "identity_provider": idp }),
            AuthConfig::identity_assertion(URL, auth(), assertion),
        ),
        (
            json!({ "grant": "identity_assertion", "identity_provider": each_idp }),
            AuthConfig::identity_assertion(URL, auth(), each_user),
        ),
    ]
}

#[test]
fn each_grant_is_what_its_constructor_makes() {
    let mut seen = BTreeSet::new();
    for (data, builder) in grants() {
        let built = of_endpoint(&builder.origin(API).build().unwrap());
        assert_eq!(of_endpoint(&read(merged(base(), data.clone())).build().unwrap()), built, "{data}");
        assert!(seen.insert(built), "{data}");
    }
}

#[tokio::test]
async fn tenants_may_have_authorities_of_their_own() {
    let settings = read(json!({ "grant": "per_tenant", "origins": API, "tenant": { "per_tenant_tokens": true },
        "authorities": { "clinic-1": { "token_url": "https://one.example/t", "client_auth": "body", "client_id": "id",
            "client_secret": "secret", "scopes": ["read"], "audiences": ["one"], "token_params": { "mode": "x" } } } }));
    let by_hand = Authority::new("https://one.example/t", ClientAuth::body("id", "secret"))
        .scopes(["read"])
        .audience("one")
        .token_param("mode", "x");
    let tenant = crate::types::TenantId::new("clinic-1").unwrap();
    let directory = Directory::from_map([(tenant, by_hand)]);
    let by_hand =
        AuthConfig::per_tenant(directory).tenant(Tenant::without_header().per_tenant_tokens()).origin(API).build();
    assert_eq!(of_endpoint(&settings.build().unwrap()), of_endpoint(&by_hand.unwrap()));

    let error = read(json!({ "grant": "per_tenant", "authorities": { "clinic-1": { "token_url": URL } } }));
    assert!(error.build().unwrap_err().to_string().contains("`client_auth` is missing"));
}

#[cfg(feature = "jwt")]
#[test]
fn keys_sign_as_they_are_told() {
    use crate::jws::{AssertionTyp, Certificate, SigningAlgorithm, SigningKey};
    let file = SecretSource::file;
    let key = SigningKey::from_pem(SigningAlgorithm::Ps256, file("/k")).with_key_id("1");
    let certificate = Certificate::from_pem(file("/c")).x5t().without_x5t_s256().x5c();
    let auth = ClientAuth::private_key_jwt("id", key.with_certificate(certificate))
        .assertion_typ(AssertionTyp::Jwt)
        .assertion_claim("class", "batch");
    let data = json!({ "client_auth": "private_key_jwt", "client_secret": null, "assertion_typ": "jwt",
        "assertion_claims": { "class": "batch" }, "assertion_audience": "https://auth.example.com",
        "signing_key": { "algorithm": "PS256", "pem": { "file": "/k" }, "key_id": "1", "certificate": { "file": "/c" },
            "x5t": true, "x5t_s256": false, "x5c": true } });
    let by_hand = base_builder().client_auth(auth).assertion_audience("https://auth.example.com").build().unwrap();
    let read_cfg = read(merged(base(), data)).build().unwrap();
    assert_eq!(of_endpoint(&read_cfg), of_endpoint(&by_hand));
    let shown = |cfg: &AuthConfig| cfg.endpoint.client_auth.signed_as();
    assert_eq!(shown(&read_cfg), shown(&by_hand));

    let no_certificate = json!({ "client_auth": "private_key_jwt", "client_secret": null,
        "signing_key": { "algorithm": "ES256", "pem": { "file": "/k" }, "x5t": true } });
    assert!(read(merged(base(), no_certificate)).build().unwrap_err().to_string().contains("`x5t` means nothing"));
}

#[cfg(feature = "jwt")]
#[test]
fn an_assertion_can_be_signed_here() {
    use crate::jws::{AssertionTyp, JwtAssertion, SigningAlgorithm, SigningKey};
    let key = || SigningKey::from_pem(SigningAlgorithm::Rs256, SecretSource::file("/k")).with_key_id("1");
    let data = json!({ "grant": "jwt_bearer", "signed_assertion": { "issuer": "app", "subject": "anna", "audience": "a",
        "lifetime": "3m", "scope_claim": true, "typ": "none", "claims": { "class": "batch" },
        "signing_key": { "algorithm": "RS256", "pem": { "file": "/k" }, "key_id": "1" } } });
    let signed = JwtAssertion::new("app", key()).subject("anna").audience("a").lifetime(Duration::from_secs(180));
    let signed = signed.scope_claim().typ(AssertionTyp::None).claim("class", "batch");
    let by_hand = AuthConfig::jwt_bearer(URL, ClientAuth::basic("id", "secret"), signed.clone()).origin(API).build();
    let by_hand = of_endpoint(&by_hand.unwrap());
    assert_eq!(of_endpoint(&read(merged(base(), data.clone())).build().unwrap()), by_hand);
    // Nothing of it is left out of the comparison.
    for other in [
        signed.clone().subject("berta"),
        signed.clone().without_subject(),
        signed.clone().audience("b"),
        signed.clone().lifetime(Duration::from_secs(60)),
        signed.clone().typ(AssertionTyp::Jwt),
        signed.clone().claim("x", 1),
        JwtAssertion::new("app", key()).subject("anna"),
    ] {
        let other = AuthConfig::jwt_bearer(URL, ClientAuth::basic("id", "secret"), other).origin(API).build();
        assert_ne!(of_endpoint(&other.unwrap()), by_hand);
    }

    let google = json!({ "provider": "google_service_account", "service_account": "a@b.example", "scopes": "one two",
        "signing_key": { "algorithm": "RS256", "pem": { "file": "/k" }, "key_id": "1" }, "origins": API });
    let by_hand = presets::google_service_account("a@b.example", ["one", "two"], key()).origin(API).build();
    assert_eq!(of_endpoint(&read(google).build().unwrap()), of_endpoint(&by_hand.unwrap()));

    for (change, expected) in [
        (json!({ "assertion": "given" }), "`signed_assertion` means nothing with an `assertion` that is given"),
        (
            json!({ "signed_assertion": { "issuer": "app" } }),
            "`signing_key` is missing, which a signed assertion needs",
        ),
        (json!({ "signed_assertion": null }), "`assertion` or `signed_assertion` is missing"),
    ] {
        let error = read(merged(merged(base(), data.clone()), change)).build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[cfg(feature = "dpop")]
#[test]
fn tokens_can_be_bound_to_a_key() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
               -----END PRIVATE KEY-----\n";
    let data = json!({ "dpop": { "algorithm": "EdDSA", "pem": pem }, "require_dpop": true, "dpop_origin": API });
    let key = crate::dpop::DpopKey::from_pem(crate::jws::SigningAlgorithm::EdDsa, pem).unwrap();
    let by_hand = base_builder().dpop(key).require_dpop().dpop_origin(API).build().unwrap();
    assert_eq!(of_endpoint(&read(merged(base(), data)).build().unwrap()), of_endpoint(&by_hand));
    read(merged(base(), json!({ "dpop": { "generate": true } }))).build().unwrap();
    for bad in [json!({}), json!({ "generate": false }), json!({ "generate": true, "pem": pem })] {
        assert!(read(merged(base(), json!({ "dpop": bad }))).build().is_err());
    }
}

#[test]
fn a_preset_is_its_function_and_everything_can_be_changed() {
    let file = || SecretSource::file("/s");
    let data = json!({ "provider": "vip", "client_id": "id", "client_secret": { "file": "/s" } });
    let same = |data: Value, builder: AuthConfigBuilder| {
        let built = of_endpoint(&builder.build().unwrap());
        assert_eq!(of_endpoint(&read(data.clone()).build().unwrap()), built, "{data}");
    };
    same(data.clone(), presets::vip("id", file()));
    same(
        merged(data.clone(), json!({ "token_url": URL, "no_tenant": true, "default_headers": {} })),
        presets::vip("id", file()).token_url(URL).no_tenant().default_headers([("", ""); 0]),
    );
    same(
        merged(data, json!({ "client_auth": "basic", "expiry": "expires_in" })),
        presets::vip("id", "x").client_auth(ClientAuth::basic("id", file())).expiry([ExpirySource::ExpiresIn]),
    );
}

#[test]
fn an_external_configuration_has_no_token_endpoint() {
    let data = json!({ "origins": API, "renew": 0.5 });
    let by_hand = AuthConfig::external().origin(API).renew(Renew::Fraction(0.5)).build().unwrap();
    let built = read(data.clone()).into_external_builder().unwrap().build().unwrap();
    assert_eq!(contents(&built, |_| String::new()), contents(&by_hand, |_| String::new()));
    for key in ["token_url", "client_id", "account"] {
        let error = read(merged(data.clone(), json!({ key: "x" }))).into_external_builder().unwrap_err().to_string();
        assert!(error.starts_with(&format!("the key `{key}` means nothing with a token source")), "{error}");
    }
}

#[test]
fn what_is_missing_wrong_or_means_nothing_is_named() {
    let rows = [
        (json!({ "client_auth": null }), "`client_auth` is missing"),
        (json!({ "client_secret": null }), "`client_secret` is missing"),
        (json!({ "token_url": null }), "`token_url` or `issuer` is missing"),
        (json!({ "issuer": "https://a.example" }), "both `token_url` and `issuer`"),
        (json!({ "openid": true }), "`openid` means nothing with no `issuer`"),
        (json!({ "provider": "vip", "grant": "device" }), "both `provider` and `grant`"),
        (json!({ "provider": "qmatic" }), "`host` is missing"),
        (json!({ "host": "x" }), "`host` means nothing with this grant"),
        (json!({ "assertion": "canary" }), "`assertion` means nothing with this grant"),
        (json!({ "client_assertion": "canary" }), "`client_assertion` means nothing with this `client_auth`"),
        (json!({ "pkce": false }), "there is no sign-in to change"),
        (json!({ "backoff": { "first": "1s" } }), "`longest` is missing, which `backoff` needs"),
        (json!({ "client_secret": { "env": "NO_SUCH_VARIABLE_HERE" } }), "NO_SUCH_VARIABLE_HERE, which is not set"),
        (json!({ "token_headers": { "x": { "file": "/does/not/exist" } } }), "/does/not/exist"),
        (json!({ "no_tenant": true, "tenant": { "header": "x" } }), "`tenant` means nothing with `no_tenant`"),
        (json!({ "tenant": { "header": "x", "fixed": "a", "from": "request" } }), "`from` means nothing"),
        (json!({ "renew": 2 }), "not in (0, 1]"),
    ];
    for (data, expected) in rows {
        let error = read(merged(base(), data.clone())).build().unwrap_err();
        assert!(error.to_string().contains(expected), "{data}: {error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_one_in_every_table() {
    let error = |data: Value| serde_json::from_value::<AuthSettings>(data).unwrap_err().to_string();
    assert_eq!(error(json!({ "scops": "x" })), "unknown key `scops` (did you mean `scopes`?)");
    assert_eq!(error(json!({ "backoff": { "frist": "1s" } })), "unknown key `frist` (did you mean `first`?)");
    assert_eq!(error(json!({ "tenant": { "haeder": "x" } })), "unknown key `haeder` (did you mean `header`?)");
    assert_eq!(error(json!({ "expiry": [{ "fixd": "1s" }] })), "unknown key `fixd` (did you mean `fixed`?)");
    assert_eq!(
        error(json!({ "signing_key": { "algoritm": "ES256" } })),
        "unknown key `algoritm` (did you mean `algorithm`?)"
    );
    let twice = serde_json::from_str::<AuthSettings>(r#"{ "account": "a", "account": "b" }"#).unwrap_err();
    assert!(twice.to_string().contains("duplicate field `account`"), "{twice}");
    assert!(!format!("{:?}", read(base())).contains("\"secret\""), "{:?}", read(base()));
}

#[test]
fn every_key_is_documented_and_every_setting_has_one() {
    let documented = include_str!("../../../docs/configuration.md");
    for key in AuthSettings::KEYS {
        let said = [format!("`{key}`"), format!("`{key} = "), format!("\n{key} = ")];
        assert!(said.iter().any(|said| documented.contains(said)), "docs/configuration.md does not name `{key}`");
    }
    let only_for_programs = ["build", "clock", "edit_authorization_code", "on_token_failure"];
    let builder = [
        include_str!("../builder/mod.rs"),
        include_str!("../builder/endpoint.rs"),
        include_str!("../builder/observe.rs"),
        include_str!("../builder/renewal.rs"),
        include_str!("../builder/requests.rs"),
        include_str!("../builder/dpop.rs"),
    ];
    let mut methods = 0;
    for line in builder.into_iter().flat_map(str::lines) {
        let Some(method) = line.strip_prefix("    pub fn ") else { continue };
        let method = method.split(['(', '<']).next().unwrap_or_default();
        if only_for_programs.contains(&method) {
            continue;
        }
        methods += 1;
        // A setting that adds one is a list here.
        let names = [method.to_owned(), format!("{method}s"), format!("{method}es")];
        assert!(names.iter().any(|name| AuthSettings::KEYS.contains(&name.as_str())), "no key for `{method}`");
    }
    assert!(methods > 50, "{methods} methods were found");
}
