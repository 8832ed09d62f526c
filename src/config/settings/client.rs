//! Settings of how a client authenticates, and of what it signs and with which keys.

use std::collections::BTreeMap;

use super::keys::{choice, table};
#[cfg(feature = "jwt")]
use super::missing;
use super::values::Span;
use super::{Taken, unneeded};
use crate::endpoint::ClientAuth;
#[cfg(feature = "jwt")]
use crate::jws::{AssertionTyp, Certificate, JwtAssertion, SigningAlgorithm, SigningKey};
use crate::types::{ConfigError, SecretSource};

/// The keys of a table that say who the client is.
macro_rules! take_client {
    ($table:expr) => {
        $crate::config::settings::client::ClientKeys {
            client_auth: $table.client_auth.take(),
            client_id: $table.client_id.take(),
            client_secret: $table.client_secret.take(),
            client_assertion: $table.client_assertion.take(),
            client_assertion_type: $table.client_assertion_type.take(),
            signing_key: $table.signing_key.take(),
            assertion_typ: $table.assertion_typ.take(),
            assertion_claims: $table.assertion_claims.take(),
        }
    };
}
pub(super) use take_client;

table! {
    pub(super) struct ClientKeys {
        pub(super) client_auth: Method,
        pub(super) client_id: String,
        pub(super) client_secret: SecretSource,
        pub(super) client_assertion: SecretSource,
        pub(super) client_assertion_type: String,
        pub(super) signing_key: KeySettings,
        pub(super) assertion_typ: Typ,
        pub(super) assertion_claims: BTreeMap<String, serde_json::Value>,
    }
}

table! {
    /// A private key, and what the header of an assertion says of it.
    pub(super) struct KeySettings {
        algorithm: Algorithm,
        pem: SecretSource,
        key_id: String,
        certificate: SecretSource,
        x5t: bool,
        x5t_s256: bool,
        x5c: bool,
    }
}

table! {
    /// An assertion that is signed here and exchanged for a token.
    pub(super) struct AssertionKeys {
        issuer: String,
        subject: String,
        no_subject: bool,
        audience: String,
        lifetime: Span,
        scope_claim: bool,
        typ: Typ,
        claims: BTreeMap<String, serde_json::Value>,
        signing_key: KeySettings,
    }
}

/// A way to authenticate, by the name of its constructor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum MethodName {
    Basic,
    BasicRaw,
    Body,
    None,
    Anonymous,
    Mtls,
    Assertion,
    ClientSecretJwt,
    PrivateKeyJwt,
}

choice! {
    Method: MethodName {
        "basic" => MethodName::Basic,
        "basic_raw" => MethodName::BasicRaw,
        "body" => MethodName::Body,
        "none" => MethodName::None,
        "anonymous" => MethodName::Anonymous,
        "mtls" => MethodName::Mtls,
        "assertion" => MethodName::Assertion,
        "client_secret_jwt" => MethodName::ClientSecretJwt,
        "private_key_jwt" => MethodName::PrivateKeyJwt,
    }
}

/// The `typ` of an assertion.
#[derive(Clone, Copy)]
pub(super) enum TypName {
    ClientAuthentication,
    Jwt,
    None,
}

choice! {
    Typ: TypName {
        "client_authentication" => TypName::ClientAuthentication,
        "jwt" => TypName::Jwt,
        "none" => TypName::None,
    }
}

/// An algorithm, by its name in a JWT's header.
#[derive(Clone, Copy)]
pub(super) enum AlgorithmName {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

choice! {
    Algorithm: AlgorithmName {
        "RS256" => AlgorithmName::Rs256,
        "RS384" => AlgorithmName::Rs384,
        "RS512" => AlgorithmName::Rs512,
        "PS256" => AlgorithmName::Ps256,
        "PS384" => AlgorithmName::Ps384,
        "PS512" => AlgorithmName::Ps512,
        "ES256" => AlgorithmName::Es256,
        "ES384" => AlgorithmName::Es384,
        "EdDSA" => AlgorithmName::EdDsa,
    }
}

impl ClientKeys {
    /// # Errors
    /// A key is missing, or one is there that this way to authenticate has no use for.
    pub(super) fn into_client(mut self) -> Result<ClientAuth, ConfigError> {
        let Method(method) = self.client_auth.take().ok_or_else(|| {
            ConfigError::new(
                "the key `client_auth` is missing",
                "say how the client authenticates, such as `basic` or `body`: a wrong guess would show the secret twice",
            )
        })?;
        let auth = match method {
            MethodName::Basic => ClientAuth::basic(self.id()?, self.secret()?),
            MethodName::BasicRaw => ClientAuth::basic_raw(self.id()?, self.secret()?),
            MethodName::Body => ClientAuth::body(self.id()?, self.secret()?),
            MethodName::None => ClientAuth::none(self.id()?),
            MethodName::Anonymous => ClientAuth::anonymous(),
            MethodName::Mtls => ClientAuth::mtls(self.id()?),
            MethodName::Assertion => {
                let assertion = self.client_assertion.take().need("client_assertion")?;
                let auth = match self.client_assertion_type.take() {
                    Some(assertion_type) => ClientAuth::assertion_of_type(assertion_type, assertion),
                    None => ClientAuth::assertion(assertion),
                };
                match self.client_id.take() {
                    Some(id) => auth.with_client_id(id),
                    None => auth,
                }
            }
            MethodName::ClientSecretJwt | MethodName::PrivateKeyJwt => self.signed(method)?,
        };
        match self.given().next() {
            Some(key) => Err(unneeded(key, "this `client_auth`")),
            None => Ok(auth),
        }
    }

    fn id(&mut self) -> Result<String, ConfigError> {
        self.client_id.take().need("client_id")
    }

    fn secret(&mut self) -> Result<SecretSource, ConfigError> {
        self.client_secret.take().need("client_secret")
    }

    #[cfg(feature = "jwt")]
    fn signed(&mut self, method: MethodName) -> Result<ClientAuth, ConfigError> {
        let id = self.id()?;
        let mut auth = if method == MethodName::PrivateKeyJwt {
            ClientAuth::private_key_jwt(id, self.signing_key.take().need("signing_key")?.into_key()?)
        } else {
            ClientAuth::client_secret_jwt(id, self.secret()?)
        };
        if let Some(typ) = self.assertion_typ.take() {
            auth = auth.assertion_typ(typ.into_typ());
        }
        for (name, value) in self.assertion_claims.take().unwrap_or_default() {
            auth = auth.assertion_claim(name, value);
        }
        Ok(auth)
    }

    #[cfg(not(feature = "jwt"))]
    fn signed(&mut self, _: MethodName) -> Result<ClientAuth, ConfigError> {
        Err(super::needs_feature("client_auth", "jwt"))
    }
}

impl KeySettings {
    /// # Errors
    /// There is neither an algorithm nor a key.
    #[cfg(feature = "jwt")]
    pub(super) fn into_key(self) -> Result<SigningKey, ConfigError> {
        let algorithm = self.algorithm.ok_or_else(|| missing("algorithm", "a signing key"))?.into_algorithm();
        let mut key = SigningKey::from_pem(algorithm, self.pem.ok_or_else(|| missing("pem", "a signing key"))?);
        if let Some(key_id) = self.key_id {
            key = key.with_key_id(key_id);
        }
        let Some(pem) = self.certificate else {
            let thumbprints = [("x5t", self.x5t), ("x5t_s256", self.x5t_s256), ("x5c", self.x5c)];
            return match thumbprints.into_iter().find(|(_, is_given)| is_given.is_some()) {
                Some((name, _)) => Err(unneeded(name, "a signing key without `certificate`")),
                None => Ok(key),
            };
        };
        let mut certificate = Certificate::from_pem(pem);
        if self.x5t == Some(true) {
            certificate = certificate.x5t();
        }
        if self.x5t_s256 == Some(false) {
            certificate = certificate.without_x5t_s256();
        }
        if self.x5c == Some(true) {
            certificate = certificate.x5c();
        }
        Ok(key.with_certificate(certificate))
    }
}

impl AssertionKeys {
    /// # Errors
    /// There is neither an issuer nor a key.
    #[cfg(feature = "jwt")]
    pub(super) fn into_assertion(self) -> Result<JwtAssertion, ConfigError> {
        let key = self.signing_key.ok_or_else(|| missing("signing_key", "a signed assertion"))?.into_key()?;
        let issuer = self.issuer.ok_or_else(|| missing("issuer", "a signed assertion"))?;
        let mut assertion = JwtAssertion::new(issuer, key);
        match (self.subject, self.no_subject) {
            (Some(_), Some(true)) => return Err(unneeded("subject", "`no_subject`")),
            (Some(subject), _) => assertion = assertion.subject(subject),
            (None, Some(true)) => assertion = assertion.without_subject(),
            (None, _) => {}
        }
        if let Some(audience) = self.audience {
            assertion = assertion.audience(audience);
        }
        if let Some(Span(lifetime)) = self.lifetime {
            assertion = assertion.lifetime(lifetime);
        }
        if self.scope_claim == Some(true) {
            assertion = assertion.scope_claim();
        }
        if let Some(typ) = self.typ {
            assertion = assertion.typ(typ.into_typ());
        }
        let claims = self.claims.into_iter().flatten();
        Ok(claims.fold(assertion, |assertion, (name, value)| assertion.claim(name, value)))
    }
}

#[cfg(feature = "jwt")]
impl Typ {
    fn into_typ(self) -> AssertionTyp {
        match self.0 {
            TypName::ClientAuthentication => AssertionTyp::ClientAuthentication,
            TypName::Jwt => AssertionTyp::Jwt,
            TypName::None => AssertionTyp::None,
        }
    }
}

#[cfg(feature = "jwt")]
impl Algorithm {
    pub(super) fn into_algorithm(self) -> SigningAlgorithm {
        match self.0 {
            AlgorithmName::Rs256 => SigningAlgorithm::Rs256,
            AlgorithmName::Rs384 => SigningAlgorithm::Rs384,
            AlgorithmName::Rs512 => SigningAlgorithm::Rs512,
            AlgorithmName::Ps256 => SigningAlgorithm::Ps256,
            AlgorithmName::Ps384 => SigningAlgorithm::Ps384,
            AlgorithmName::Ps512 => SigningAlgorithm::Ps512,
            AlgorithmName::Es256 => SigningAlgorithm::Es256,
            AlgorithmName::Es384 => SigningAlgorithm::Es384,
            AlgorithmName::EdDsa => SigningAlgorithm::EdDsa,
        }
    }
}
