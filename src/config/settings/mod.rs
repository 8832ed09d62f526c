//! `AuthSettings`: a configuration as data, from a file or the environment (feature `serde`).

#[cfg_attr(not(feature = "jwt"), allow(dead_code, reason = "keys are read that nothing can sign with"))]
mod client;
mod grant;
mod keys;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Deserializer};

use super::{AuthConfig, AuthConfigBuilder, External};
#[cfg(feature = "dpop")]
use crate::dpop::DpopKey;
use crate::request::Tenant;
use crate::types::{ConfigError, SecretSource};

use client::{Algorithm, AssertionKeys, KeySettings, Method, Typ};
use grant::{AuthorityKeys, Flow, GrantChoice, IdentityProvider, Provider};
use keys::{choice, table};
use values::{Encoding, Existing, Expiry, Many, NoExpiry, On403, Pauses, RenewAt, Replayed, Span, Status, Unlisted};

table! {
    #[doc = include_str!("../../../docs/configuration.md")]
    pub struct AuthSettings {
        provider: Provider,
        host: String,
        qmatic_account: String,
        entra_tenant: String,
        service_account: String,
        token_file: String,

        grant: GrantChoice,
        token_url: String,
        issuer: String,
        openid: bool,
        refresh_token: SecretSource,
        assertion: SecretSource,
        signed_assertion: AssertionKeys,
        subject_token: SecretSource,
        subject_token_type: String,
        actor_token: SecretSource,
        actor_token_type: String,
        requested_token_type: String,
        on_behalf_of: Flow,
        identity_provider: IdentityProvider,
        authorities: BTreeMap<String, AuthorityKeys>,
        authorization_url: String,
        redirect_uri: String,
        authorization_params: BTreeMap<String, String>,
        sign_in_issuer: String,
        require_sign_in_issuer: bool,
        pkce: bool,

        client_auth: Method,
        client_id: String,
        client_secret: SecretSource,
        client_assertion: SecretSource,
        client_assertion_type: String,
        signing_key: KeySettings,
        assertion_typ: Typ,
        assertion_claims: BTreeMap<String, serde_json::Value>,

        scopes: Many,
        add_scopes: Many,
        resources: Many,
        audiences: Many,
        assertion_audience: String,
        account: String,
        refresh_url: String,
        revocation_url: String,
        device_authorization_url: String,
        send_scopes_on_refresh: bool,
        require_granted_scopes: bool,
        token_params: BTreeMap<String, SecretSource>,
        token_headers: BTreeMap<String, SecretSource>,
        encoding: Encoding,
        send_grant_type: bool,
        token_type_aliases: Many,
        require_token_type: bool,
        rename_response_fields: BTreeMap<String, String>,
        invalid_refresh_token_codes: Many,
        token_timeout: Span,
        max_token_response_bytes: usize,
        proxy: SecretSource,
        root_certificates: Many<SecretSource>,
        connect_timeout: Span,

        expiry: Many<Expiry>,
        unknown_expiry: NoExpiry,
        renew: RenewAt,
        expiry_margin: Span,
        discard_expired: bool,
        refresh_deadline: Span,
        backoff: Pauses,
        permanent_failure_pause: Pauses,
        wait_out_pause: Span,
        retry_after_cap: Span,
        max_waiters: usize,
        max_concurrent_token_requests: usize,
        max_partitions: usize,
        partition_idle: Span,

        name: String,
        origins: Many,
        on_unlisted_origin: Unlisted,
        danger_allow_http: bool,
        tenant: TenantKeys,
        no_tenant: bool,
        default_headers: BTreeMap<String, String>,
        existing_authorization: Existing,
        replay: Replayed,
        max_replay_bytes: usize,
        on_forbidden: On403,
        unauthorized_status: Many<Status>,
        ignore_grpc_status: bool,
        ignore_unauthorized: bool,

        dpop: DpopKeys,
        dpop_origin: String,
        require_dpop: bool,
    }
}

table! {
    /// How requests say which tenant they are for.
    struct TenantKeys {
        header: String,
        from: TenantSource,
        fixed: String,
        optional: bool,
        per_tenant_tokens: bool,
        token_header: String,
        token_param: String,
        normalized: bool,
    }
}

/// Where a request's tenant comes from.
#[derive(Clone, Copy)]
pub(super) enum TenantFrom {
    Request,
    RequestHeader,
}

choice! {
    TenantSource: TenantFrom {
        "request" => TenantFrom::Request,
        "request_header" => TenantFrom::RequestHeader,
    }
}

table! {
    /// The key that tokens are bound to.
    struct DpopKeys {
        generate: bool,
        algorithm: Algorithm,
        pem: SecretSource,
    }
}

/// Sets what is there, and takes it out.
macro_rules! apply {
    ($settings:ident, $builder:ident: $( $key:ident as $value:pat => $set:expr, )*) => {
        $( if let Some($value) = $settings.$key.take() { $builder = $set; } )*
    };
}

/// A setting that can only be turned on.
macro_rules! turn_on {
    ($settings:ident, $builder:ident: $( $key:ident, )*) => {
        $( if $settings.$key.take() == Some(true) { $builder = $builder.$key(); } )*
    };
}

impl AuthSettings {
    /// The configuration, checked.
    ///
    /// # Errors
    /// As [`into_builder`](Self::into_builder) and [`AuthConfigBuilder::build`].
    pub fn build(self) -> Result<AuthConfig, ConfigError> {
        self.into_builder()?.build()
    }

    /// The builder with all of these settings, for what only a program can say: a clock, a function that gives a secret.
    ///
    /// It reads the variables and files of the settings whose value is needed at once: `refresh_token`, `token_params`,
    /// `token_headers`, `proxy`, `root_certificates` and the key of `dpop`. All other secrets are read for each exchange.
    ///
    /// # Errors
    /// A key is missing, or one is there that means nothing beside the others; a feature of this crate that a key needs is off;
    /// a file or a variable that is read now is not there. No value is quoted.
    pub fn into_builder(mut self) -> Result<AuthConfigBuilder, ConfigError> {
        let builder = self.start()?;
        let builder = self.endpoint(builder)?;
        let builder = self.both(builder)?;
        self.nothing_left("this grant or preset")?;
        Ok(builder)
    }

    /// The builder of a configuration whose tokens come from your own source
    /// ([`AuthConfig::external`](AuthConfig::external)).
    ///
    /// # Errors
    /// As [`into_builder`](Self::into_builder); a key of the token endpoint is there, which nothing would obey.
    pub fn into_external_builder(mut self) -> Result<AuthConfigBuilder<External>, ConfigError> {
        let builder = self.both(AuthConfig::external())?;
        self.nothing_left("a token source of your own")?;
        Ok(builder)
    }

    fn nothing_left(&self, beside: &str) -> Result<(), ConfigError> {
        self.given().next().map_or(Ok(()), |key| Err(unneeded(key, beside)))
    }

    /// What only a configuration with a token endpoint has.
    fn endpoint(&mut self, mut builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        builder = self.edit_sign_in(builder)?;
        if let Some(url) = self.other_token_url()? {
            builder = builder.token_url(url);
        }
        apply! { self, builder:
            scopes as scopes => builder.scopes(scopes.into_words()),
            add_scopes as scopes => builder.add_scopes(scopes.into_words()),
            resources as Many(all) => all.into_iter().fold(builder, AuthConfigBuilder::resource),
            audiences as Many(all) => builder.audiences(all),
            assertion_audience as audience => builder.assertion_audience(audience),
            account as account => builder.account(account),
            refresh_url as url => builder.refresh_url(url),
            revocation_url as url => builder.revocation_url(url),
            device_authorization_url as url => builder.device_authorization_url(url),
            encoding as Encoding(encoding) => builder.encoding(encoding),
            send_grant_type as send => builder.send_grant_type(send),
            token_type_aliases as Many(all) => all.into_iter().fold(builder, AuthConfigBuilder::token_type_alias),
            invalid_refresh_token_codes as Many(all) =>
                all.into_iter().fold(builder, AuthConfigBuilder::invalid_refresh_token_code),
            rename_response_fields as fields =>
                fields.into_iter().fold(builder, |builder, (theirs, standard)| builder.rename_response_field(theirs, standard)),
            token_timeout as Span(timeout) => builder.token_timeout(timeout),
            max_token_response_bytes as bytes => builder.max_token_response_bytes(bytes),
        }
        turn_on! { self, builder: send_scopes_on_refresh, require_granted_scopes, require_token_type, }
        for (name, value) in self.token_params.take().into_iter().flatten() {
            builder = builder.token_param(name, value.read_now("parameter of the token request")?);
        }
        for (name, value) in self.token_headers.take().into_iter().flatten() {
            builder = builder.token_header(name, value.read_now("header of the token request")?);
        }
        builder = self.built_in_client(builder)?;
        self.required_dpop(builder)
    }

    #[cfg(feature = "reqwest")]
    fn built_in_client(&mut self, mut builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        if let Some(proxy) = self.proxy.take() {
            builder = builder.proxy(proxy.read_now("proxy")?.expose());
        }
        for certificate in self.root_certificates.take().into_iter().flat_map(|many| many.0) {
            builder = builder.root_certificates(certificate.read_now("root certificate")?.expose().as_bytes());
        }
        apply! { self, builder: connect_timeout as Span(timeout) => builder.connect_timeout(timeout), }
        Ok(builder)
    }

    #[cfg(not(feature = "reqwest"))]
    fn built_in_client(&mut self, builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        let given = [
            ("proxy", self.proxy.is_some()),
            ("root_certificates", self.root_certificates.is_some()),
            ("connect_timeout", self.connect_timeout.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(needs_feature(key, "reqwest")),
            None => Ok(builder),
        }
    }

    #[cfg(feature = "dpop")]
    fn required_dpop(&mut self, mut builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        turn_on! { self, builder: require_dpop, }
        Ok(builder)
    }

    #[cfg(not(feature = "dpop"))]
    fn required_dpop(&mut self, builder: AuthConfigBuilder) -> Result<AuthConfigBuilder, ConfigError> {
        if self.require_dpop.take() == Some(true) { Err(needs_feature("require_dpop", "dpop")) } else { Ok(builder) }
    }

    /// What both kinds of configuration have.
    fn both<E>(&mut self, mut builder: AuthConfigBuilder<E>) -> Result<AuthConfigBuilder<E>, ConfigError> {
        if self.tenant.is_some() && self.no_tenant == Some(true) {
            return Err(unneeded("tenant", "`no_tenant`"));
        }
        if let Some(tenant) = self.tenant.take() {
            builder = builder.tenant(tenant.into_tenant()?);
        }
        if let Some(pauses) = self.backoff.take() {
            let (Span(first), Span(longest)) = pauses.both("backoff")?;
            builder = builder.backoff(first, longest);
        }
        if let Some(pauses) = self.permanent_failure_pause.take() {
            let (Span(first), Span(longest)) = pauses.both("permanent_failure_pause")?;
            builder = builder.permanent_failure_pause(first, longest);
        }
        apply! { self, builder:
            expiry as Many(sources) => builder.expiry(sources.into_iter().map(|Expiry(source)| source)),
            unknown_expiry as NoExpiry(unknown) => builder.unknown_expiry(unknown),
            renew as RenewAt(renew) => builder.renew(renew),
            expiry_margin as Span(margin) => builder.expiry_margin(margin),
            discard_expired as discard => builder.discard_expired(discard),
            refresh_deadline as Span(deadline) => builder.refresh_deadline(deadline),
            wait_out_pause as Span(longest) => builder.wait_out_pause(longest),
            retry_after_cap as Span(cap) => builder.retry_after_cap(cap),
            max_waiters as max => builder.max_waiters(max),
            max_concurrent_token_requests as max => builder.max_concurrent_token_requests(max),
            max_partitions as max => builder.max_partitions(max),
            partition_idle as Span(idle) => builder.partition_idle(idle),
            name as name => builder.name(name),
            origins as Many(origins) => builder.origins(origins),
            on_unlisted_origin as Unlisted(unlisted) => builder.on_unlisted_origin(unlisted),
            default_headers as headers => builder.default_headers(headers),
            existing_authorization as Existing(existing) => builder.existing_authorization(existing),
            replay as Replayed(replay) => builder.replay(replay),
            max_replay_bytes as bytes => builder.max_replay_bytes(bytes),
            on_forbidden as On403(forbidden) => builder.on_forbidden(forbidden),
            unauthorized_status as Many(all) => all
                .into_iter()
                .map(|Status(status)| status)
                .fold(builder, |builder, status: StatusCode| builder.unauthorized_status(status)),
        }
        turn_on! { self, builder: danger_allow_http, no_tenant, ignore_grpc_status, ignore_unauthorized, }
        self.dpop(builder)
    }

    #[cfg(feature = "dpop")]
    fn dpop<E>(&mut self, mut builder: AuthConfigBuilder<E>) -> Result<AuthConfigBuilder<E>, ConfigError> {
        if let Some(key) = self.dpop.take() {
            builder = builder.dpop(key.into_key()?);
        }
        apply! { self, builder: dpop_origin as origin => builder.dpop_origin(origin), }
        Ok(builder)
    }

    #[cfg(not(feature = "dpop"))]
    fn dpop<E>(&mut self, builder: AuthConfigBuilder<E>) -> Result<AuthConfigBuilder<E>, ConfigError> {
        let given = [("dpop", self.dpop.is_some()), ("dpop_origin", self.dpop_origin.is_some())];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(needs_feature(key, "dpop")),
            None => Ok(builder),
        }
    }
}

impl TenantKeys {
    fn into_tenant(self) -> Result<Tenant, ConfigError> {
        let mut tenant = self.header.map_or_else(Tenant::without_header, Tenant::header);
        tenant = match (self.from, self.fixed) {
            (Some(_), Some(_)) => return Err(unneeded("from", "a `fixed` tenant")),
            (Some(TenantSource(TenantFrom::RequestHeader)), None) => tenant.from_request_header(),
            (_, Some(fixed)) => tenant.fixed(fixed),
            (_, None) => tenant.per_request(),
        };
        if self.optional == Some(true) {
            tenant = tenant.optional();
        }
        if self.normalized == Some(true) {
            tenant = tenant.normalized();
        }
        if let Some(name) = self.token_header {
            tenant = tenant.token_header(name);
        }
        if let Some(name) = self.token_param {
            tenant = tenant.token_param(name);
        }
        Ok(if self.per_tenant_tokens == Some(true) { tenant.per_tenant_tokens() } else { tenant })
    }
}

#[cfg(feature = "dpop")]
impl DpopKeys {
    fn into_key(self) -> Result<DpopKey, ConfigError> {
        match (self.generate, self.algorithm, self.pem) {
            (Some(true), None, None) => DpopKey::generate(),
            (None | Some(false), Some(algorithm), Some(pem)) => {
                DpopKey::from_pem(algorithm.into_algorithm(), pem.read_now("key of `dpop`")?)
            }
            _ => Err(ConfigError::new(
                "`dpop` is neither { generate = true } nor a key",
                "a key is { algorithm = \"ES256\", pem = { file = \"PATH\" } }",
            )),
        }
    }
}

/// Several configurations, each by its name: `[layers.vip]`, `[layers.spry]`.
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use serde::Deserialize;
/// use tower_oauth2_client::{AuthLayer, NamedSettings};
///
/// #[derive(Deserialize)]
/// struct Settings {
///     layers: NamedSettings,
/// }
///
/// let text = r#"{ "layers": {
///     "vip": { "provider": "vip", "client_id": "id", "client_secret": { "file": "/run/secrets/vip" } },
///     "vectorcare": { "provider": "vectorcare", "client_id": "id", "client_secret": { "file": "/run/secrets/vc" } }
/// } }"#;
/// let settings: Settings = serde_json::from_str(text)?;
/// let vip = AuthLayer::new(settings.layers.build("vip")?);
/// let error = settings.layers.build("vpi").unwrap_err();
/// assert!(error.to_string().starts_with("there are no settings named `vpi` (did you mean `vip`?)"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamedSettings(BTreeMap<String, AuthSettings>);

impl NamedSettings {
    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The settings of this name.
    pub fn get(&self, name: &str) -> Option<&AuthSettings> {
        self.0.get(name)
    }

    /// The configuration of this name, checked. It is the [`name`](AuthConfigBuilder::name) of the layer too, unless the settings
    /// have the key `name`.
    ///
    /// # Errors
    /// There is none of this name; or as [`AuthSettings::build`], with the name before it.
    pub fn build(&self, name: &str) -> Result<AuthConfig, ConfigError> {
        let settings = self.0.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            let named = keys::named(name, &names);
            ConfigError::new(format!("there are no settings named {named}"), "ask for others, or add them")
        })?;
        settings.clone().build().map_err(|error| error.of(format_args!("`{}`", name.escape_debug())))
    }
}

impl<'de> Deserialize<'de> for NamedSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all: BTreeMap<String, AuthSettings> = BTreeMap::deserialize(deserializer)?;
        // A layer is named as its settings are, unless they say otherwise.
        for (name, settings) in &mut all {
            settings.name.get_or_insert_with(|| name.clone());
        }
        Ok(Self(all))
    }
}

impl IntoIterator for NamedSettings {
    type Item = (String, AuthSettings);
    type IntoIter = std::collections::btree_map::IntoIter<String, AuthSettings>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A key that something else needs.
trait Taken<T> {
    /// # Errors
    /// It is not there.
    fn need(self, key: &str) -> Result<T, ConfigError>;
}

impl<T> Taken<T> for Option<T> {
    fn need(self, key: &str) -> Result<T, ConfigError> {
        self.ok_or_else(|| missing(key, "this grant or preset"))
    }
}

fn missing(key: &str, what: impl fmt::Display) -> ConfigError {
    ConfigError::new(format!("the key `{key}` is missing, which {what} needs"), "add it to the settings")
}

fn unneeded(key: &str, what: impl fmt::Display) -> ConfigError {
    ConfigError::new(format!("the key `{key}` means nothing with {what}"), "leave it out, or mend what it depends on")
}

#[cfg_attr(all(feature = "jwt", feature = "reqwest", feature = "dpop"), allow(dead_code, reason = "all are on"))]
fn needs_feature(key: &str, feature: &str) -> ConfigError {
    ConfigError::new(
        format!("the key `{key}` needs the feature `{feature}` of tower-oauth2-client"),
        "turn it on in Cargo.toml, or leave the key out",
    )
}
