//! What a preset says can be said otherwise, setting by setting.

use std::collections::BTreeMap;
use std::time::Duration;

use super::AuthConfigBuilder;
use crate::config::{AuthConfig, presets};
use crate::endpoint::{BodyEncoding, ClientAuth};
use crate::request::Tenant;
use crate::response::Forbidden;
use crate::token::{ExpirySource, Renew, UnknownExpiry};
use crate::types::Digest;

/// Everything that a preset may set, by the name of its setting.
fn settings(cfg: &AuthConfig) -> BTreeMap<&'static str, String> {
    let (endpoint, lifetime) = (&cfg.endpoint.settings, &cfg.engine.lifetime);
    let digest = |describe: &dyn Fn(&mut Digest)| {
        let mut digest = Digest::new("test");
        describe(&mut digest);
        format!("{:?}", digest.finish())
    };
    BTreeMap::from([
        ("token_url", endpoint.url.uri().to_string()),
        ("client_auth", digest(&|digest| cfg.endpoint.client_auth.describe(digest))),
        ("grant", digest(&|digest| endpoint.grant.describe(digest))),
        ("refresh_url", format!("{:?}", endpoint.refresh_url)),
        ("scopes", format!("{:?}", endpoint.scopes)),
        ("encoding", format!("{:?}", endpoint.encoding)),
        ("send_grant_type", format!("{:?}", endpoint.send_grant_type)),
        ("expiry", format!("{:?}", lifetime.sources)),
        ("unknown_expiry", format!("{:?}", lifetime.unknown)),
        ("renew", format!("{:?}", lifetime.renew)),
        ("discard_expired", format!("{:?}", lifetime.strict)),
        ("audiences", format!("{:?}", endpoint.audiences)),
        ("default_headers", format!("{:?}", cfg.injection)),
        ("origins", format!("{:?}", cfg.origins)),
        ("tenant", format!("{:?} {:?} {:?}", cfg.tenant, endpoint.tenant_header, endpoint.tenant_param)),
        ("on_forbidden", format!("{:?}", cfg.rejection.forbidden)),
    ])
}

type Change = fn(AuthConfigBuilder) -> AuthConfigBuilder;

const CHANGES: [(&str, Change); 16] = [
    ("token_url", |cfg| cfg.token_url("https://other.example/token")),
    ("client_auth", |cfg| cfg.client_auth(ClientAuth::none("other"))),
    ("refresh_url", |cfg| cfg.refresh_url("https://other.example/refresh")),
    ("scopes", |cfg| cfg.scopes(["other"])),
    ("encoding", |cfg| cfg.encoding(BodyEncoding::Json)),
    ("encoding", |cfg| cfg.encoding(BodyEncoding::Form)),
    ("send_grant_type", |cfg| cfg.send_grant_type(true)),
    ("expiry", |cfg| cfg.expiry([ExpirySource::ExpiresAt])),
    ("unknown_expiry", |cfg| cfg.unknown_expiry(UnknownExpiry::Assume(Duration::from_secs(7)))),
    ("renew", |cfg| cfg.renew(Renew::Fraction(0.5))),
    ("discard_expired", |cfg| cfg.discard_expired(false)),
    ("audiences", |cfg| cfg.audiences(["other"])),
    ("default_headers", |cfg| cfg.default_headers([("x-other", "other")])),
    ("origins", |cfg| cfg.origins(["https://other.example"])),
    ("tenant", |cfg| cfg.tenant(Tenant::header("x-other").fixed("other"))),
    ("on_forbidden", |cfg| cfg.on_forbidden(Forbidden::IfInvalidToken)),
];

const API: &str = "https://api.example.com";

#[cfg(feature = "jwt")]
fn key() -> crate::jws::SigningKey {
    crate::jws::SigningKey::from_pem(crate::jws::SigningAlgorithm::Ps256, crate::types::SecretSource::file("/key"))
}

fn presets() -> Vec<AuthConfigBuilder> {
    vec![
        presets::vip("id", "secret"),
        presets::spry("clinic.example.com", "id", "secret"),
        presets::spry_authorization_code("clinic.example.com", "https://app.example.com/back", "id", "secret"),
        presets::vectorcare("id", "secret"),
        presets::qmatic("api.example.com", "My Clinic", ["a/b.c"], "id", "secret"),
        presets::graphnet("https://auth.example/token", "https://api.example", "id", "secret"),
        presets::kubernetes("https://auth.example/token", "/token").origin(API),
        presets::spiffe("https://auth.example/token", "/svid").origin(API),
        presets::entra_federated("contoso.example", "id", ["a/.default"], "/token").origin(API),
        #[cfg(feature = "jwt")]
        presets::entra_certificate("contoso.example", "id", ["a/.default"], key()).origin(API),
        #[cfg(feature = "jwt")]
        presets::google_service_account("batch@project.example", ["all"], key()).origin(API),
        presets::google_workload_identity("//iam.example/pool", ["all"], "/token").origin(API),
    ]
}

#[test]
fn every_setting_of_every_preset_can_be_changed() {
    for preset in presets() {
        let before = settings(&preset.clone().build().unwrap());
        let no_tenant = settings(&preset.clone().no_tenant().build().unwrap());
        assert!(no_tenant["tenant"].starts_with("None"));
        for (name, change) in CHANGES {
            let bare = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::none("id"));
            let wanted = settings(&change(bare.origin("https://api.example.com")).build().unwrap());
            let mut expected = before.clone();
            expected.insert(name, wanted[name].clone());
            assert_eq!(settings(&change(preset.clone()).build().unwrap()), expected, "{name}");
        }
    }
}

#[test]
fn scopes_replace_and_add_scopes_adds() {
    let scopes = |cfg: AuthConfigBuilder| cfg.build().unwrap().endpoint.settings.scopes.map(|s| s.as_str().to_owned());
    let spry = || presets::spry("clinic.example.com", "id", "secret");
    assert_eq!(scopes(spry().scopes(["read"])).as_deref(), Some("read"));
    assert_eq!(scopes(spry().add_scopes(["admin"])).as_deref(), Some("read write admin"));
}

#[test]
fn a_margin_before_expiry_is_refused_where_there_is_none() {
    let vip = || presets::vip("id", "secret").expiry_margin(Duration::from_secs(5));
    assert!(vip().build().unwrap_err().to_string().contains("expiry_margin"));
    assert!(vip().renew(Renew::Fraction(0.8)).build().is_ok());
}

#[test]
fn what_a_source_would_not_see_is_refused() {
    let tenant = Tenant::header("x-tenant").token_header("x-account");
    let cfg = AuthConfig::external().origin("https://api.example.com").tenant(tenant);
    assert!(cfg.build().unwrap_err().to_string().contains("per_tenant_tokens"));
}
