//! Clients that authenticate by assertions, verified by two other implementations.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self as aws, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::*;
use crate::jws::{AssertionTyp, Certificate, JwtAssertion, Signer, SigningAlgorithm, SigningKey};
use crate::types::{Now, SecretSource};

/// A private key in PEM, and its public half for both verifiers.
struct TestKey {
    algorithm: SigningAlgorithm,
    pem: String,
    public: Vec<u8>,
    spki: String,
    verification: &'static dyn aws::VerificationAlgorithm,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn rsa(
    algorithm: SigningAlgorithm,
    key: &aws_lc_rs::rsa::KeyPair,
    verification: &'static dyn aws::VerificationAlgorithm,
) -> TestKey {
    TestKey {
        algorithm,
        pem: pem("PRIVATE KEY", AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(key).unwrap().as_ref()),
        public: key.public_key().as_ref().to_vec(),
        spki: pem("RSA PUBLIC KEY", key.public_key().as_ref()),
        verification,
    }
}

fn ec(
    algorithm: SigningAlgorithm,
    signing: &'static aws::EcdsaSigningAlgorithm,
    verification: &'static dyn aws::VerificationAlgorithm,
) -> TestKey {
    let key = aws::EcdsaKeyPair::generate(signing).unwrap();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
    TestKey {
        algorithm,
        pem: pem("PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref()),
        public: key.public_key().as_ref().to_vec(),
        spki: pem("PUBLIC KEY", spki.as_ref()),
        verification,
    }
}

fn p256() -> TestKey {
    ec(SigningAlgorithm::Es256, &aws::ECDSA_P256_SHA256_FIXED_SIGNING, &aws::ECDSA_P256_SHA256_FIXED)
}

fn ed25519() -> TestKey {
    let key = aws::Ed25519KeyPair::generate().unwrap();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
    TestKey {
        algorithm: SigningAlgorithm::EdDsa,
        pem: pem("PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref()),
        public: key.public_key().as_ref().to_vec(),
        spki: pem("PUBLIC KEY", spki.as_ref()),
        verification: &aws::ED25519,
    }
}

/// One key of each kind; an RSA key serves several algorithms.
fn all_keys() -> Vec<TestKey> {
    use SigningAlgorithm::*;
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    vec![
        p256(),
        ec(Es384, &aws::ECDSA_P384_SHA384_FIXED_SIGNING, &aws::ECDSA_P384_SHA384_FIXED),
        ed25519(),
        rsa(Rs256, &key, &aws::RSA_PKCS1_2048_8192_SHA256),
        rsa(Rs384, &key, &aws::RSA_PKCS1_2048_8192_SHA384),
        rsa(Rs512, &key, &aws::RSA_PKCS1_2048_8192_SHA512),
        rsa(Ps256, &key, &aws::RSA_PSS_2048_8192_SHA256),
        rsa(Ps384, &key, &aws::RSA_PSS_2048_8192_SHA384),
        rsa(Ps512, &key, &aws::RSA_PSS_2048_8192_SHA512),
    ]
}

impl TestKey {
    fn auth(&self) -> ClientAuth {
        ClientAuth::private_key_jwt("my-id", SigningKey::from_pem(self.algorithm, self.pem.as_str()))
    }

    /// The claims, after both verifiers have accepted the signature.
    fn verify(&self, assertion: &str) -> Value {
        let (input, signature) = assertion.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = aws::UnparsedPublicKey::new(self.verification, &self.public);
        public.verify(input.as_bytes(), &signature).expect("verified by AWS-LC");

        let name = self.algorithm.as_str();
        let spki = self.spki.as_bytes();
        let key = match name.as_bytes() {
            [b'E', b'S', ..] => DecodingKey::from_ec_pem(spki),
            [b'E', ..] => DecodingKey::from_ed_pem(spki),
            _ => DecodingKey::from_rsa_pem(spki),
        };
        decode(assertion, name.parse().unwrap(), &key.unwrap())
    }
}

fn decode(assertion: &str, algorithm: Algorithm, key: &DecodingKey) -> Value {
    // With both backends on, the verifier needs to be told which one to use.
    #[cfg(feature = "jwt-rust-crypto")]
    let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Value>(assertion, key, &validation).expect("verified by jsonwebtoken").claims
}

fn header(assertion: &str) -> String {
    String::from_utf8(URL_SAFE_NO_PAD.decode(assertion.split('.').next().unwrap()).unwrap()).unwrap()
}

/// The assertion of a body, and the rest of it.
fn split(seen: &Seen) -> (String, String) {
    let (rest, assertion) = seen.body.split_once("&client_assertion=").unwrap();
    (assertion.split('&').next().unwrap().to_owned(), rest.to_owned())
}

/// A clock that stands still.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Now {
        Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(self.0), ..SystemClock.now() }
    }
}

async fn assertion(auth: &ClientAuth, settings: &EndpointSettings) -> (String, String) {
    let server = Server::default().answers(200, TOKEN);
    server.ask_at(At(1_700_000_000), settings, auth, TokenRequest::default()).await.unwrap();
    split(&server.seen()[0])
}

#[tokio::test]
async fn an_assertion_of_each_algorithm_verifies() {
    let mut settings = settings("https://a.example/t?x=1");
    settings.scopes = Some(Scopes::new(["read"]).unwrap());
    for key in all_keys() {
        key.auth().validate().unwrap();
        let (assertion, rest) = assertion(&key.auth(), &settings).await;
        assert_eq!(
            rest,
            "grant_type=client_credentials&client_id=my-id\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        );
        let name = key.algorithm.as_str();
        assert_eq!(header(&assertion), format!(r#"{{"typ":"client-authentication+jwt","alg":"{name}"}}"#));
        let mut claims = key.verify(&assertion);
        let id = claims["jti"].take();
        assert_eq!(URL_SAFE_NO_PAD.decode(id.as_str().unwrap()).unwrap().len() * 8, 128);
        assert_eq!(
            claims,
            json!({
                "iss": "my-id", "sub": "my-id", "aud": "https://a.example/t?x=1", "jti": null,
                "iat": 1_700_000_000, "exp": 1_700_000_060,
            })
        );
    }
}

#[tokio::test]
async fn the_audience_and_the_key_id_can_be_said() {
    let key = p256();
    let mut settings = settings("https://a.example/t");
    settings.assertion_audience = Some("https://issuer.example".into());
    let signing = SigningKey::from_pem(key.algorithm, key.pem.as_str()).with_key_id("k\"1");
    let (assertion, _) = assertion(&ClientAuth::private_key_jwt("my-id", signing), &settings).await;
    assert_eq!(header(&assertion), r#"{"typ":"client-authentication+jwt","alg":"ES256","kid":"k\"1"}"#);
    assert_eq!(key.verify(&assertion)["aud"], json!("https://issuer.example"));
}

/// A self-signed certificate of an RSA key, and the key.
fn certificate() -> (String, TestKey) {
    let key = include_str!("../../../tests/support/certificates/client.key");
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&der(key)).unwrap();
    let certificate = include_str!("../../../tests/support/certificates/client.pem").to_owned();
    (certificate, rsa(SigningAlgorithm::Ps256, &pair, &aws::RSA_PSS_2048_8192_SHA256))
}

fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).unwrap()
}

fn thumbprint(algorithm: &'static aws_lc_rs::digest::Algorithm, pem: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(algorithm, &der(pem)))
}

/// <https://learn.microsoft.com/en-us/entra/identity-platform/certificate-credentials>, read 2026-11-26 in the source of that
/// page (MicrosoftDocs/entra-docs): `alg`, `typ` and `x5t#S256` in the header; `aud`, `exp`, `iss`, `jti`, `sub`, `iat` in
/// the claims. `nbf` is there too, and left out: a client whose clock is ahead would be refused.
///
/// Behaviour 179.
#[tokio::test]
async fn entra_by_certificate() {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256};

    let (pem, key) = certificate();
    let signing =
        |certificate: Certificate| SigningKey::from_pem(key.algorithm, key.pem.as_str()).with_certificate(certificate);
    let auth = ClientAuth::private_key_jwt("my-id", signing(Certificate::from_pem(pem.as_str())));
    let auth = auth.assertion_typ(AssertionTyp::Jwt);
    auth.validate().unwrap();
    let settings = settings("https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token");
    let (first, rest) = assertion(&auth, &settings).await;
    assert!(rest.contains(
        "client_id=my-id&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    ));
    let sha256 = thumbprint(&SHA256, &pem);
    assert_eq!(header(&first), format!(r#"{{"typ":"JWT","alg":"PS256","x5t#S256":"{sha256}"}}"#));
    let claims = key.verify(&first);
    let names: Vec<_> = claims.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "sub"]);
    assert_eq!(claims["aud"], json!("https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"));

    // The chain, the old thumbprint, no `typ`.
    let chain = format!("{pem}{}", certificate().0);
    let all = Certificate::from_pem(chain.as_str()).x5t().x5c().without_x5t_s256();
    let auth = ClientAuth::private_key_jwt("my-id", signing(all)).assertion_typ(AssertionTyp::None);
    let header: Value = serde_json::from_str(&header(&assertion(&auth, &settings).await.0)).unwrap();
    let x5c: Vec<_> =
        chain.split_inclusive("-----END CERTIFICATE-----\n").map(|pem| STANDARD.encode(der(pem))).collect();
    assert_eq!(header, json!({"alg": "PS256", "x5t": thumbprint(&SHA1_FOR_LEGACY_USE_ONLY, &pem), "x5c": x5c}));
}

#[tokio::test]
async fn claims_of_ones_own_follow_the_others() {
    let key = p256();
    let auth = key.auth().assertion_claim("nbf", 1_700_000_000).assertion_claim("roles", json!(["a", "b"]));
    auth.validate().unwrap();
    let claims = key.verify(&assertion(&auth, &settings("https://a.example/t")).await.0);
    assert_eq!((&claims["nbf"], &claims["roles"]), (&json!(1_700_000_000), &json!(["a", "b"])));
    let wrong = [
        key.auth().assertion_claim("exp", 1),
        key.auth().assertion_claim("", 1),
        key.auth().assertion_claim("a", 1).assertion_claim("a", 2),
        ClientAuth::basic("id", "secret").assertion_claim("a", 1),
        ClientAuth::assertion("a.b.c").assertion_typ(AssertionTyp::Jwt),
    ];
    for auth in wrong {
        assert!(auth.validate().is_err());
    }
}

/// Behaviour 179.
#[tokio::test]
async fn a_certificate_in_a_file_can_be_replaced_and_a_bad_one_is_not_sent() {
    let (pem, key) = certificate();
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-certificate", std::process::id()));
    let with = |certificate: Certificate| {
        let key = SigningKey::from_pem(key.algorithm, key.pem.as_str()).with_certificate(certificate);
        ClientAuth::private_key_jwt("my-id", key)
    };
    let auth = with(Certificate::from_pem(SecretSource::file(&path)));
    let settings = settings("https://a.example/t");
    for pem in [&pem, &certificate().0] {
        std::fs::write(&path, pem).unwrap();
        let sha256 = thumbprint(&aws_lc_rs::digest::SHA256, pem);
        assert!(header(&assertion(&auth, &settings).await.0).contains(&sha256));
    }
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let bad = ["", "canary", begin, &format!("{begin}Y2FuYXJ5\n-----END CERTIFICATE-----\n"), &key.pem];
    for content in bad {
        std::fs::write(&path, content).unwrap();
        let server = Server::default();
        let error = server.ask(&settings, &auth, TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
        assert!(error.to_string().contains("certificate") && server.seen().is_empty(), "{error}");
        let fixed = with(Certificate::from_pem(content)).validate().unwrap_err();
        assert!(!format!("{error:?} {fixed:?}").contains("canary"));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(with(Certificate::from_pem(pem.as_str()).without_x5t_s256()).validate().is_err());
}

#[tokio::test]
async fn client_secret_jwt() {
    let secret = "a secret of at least 32 bytes +%&";
    let auth = ClientAuth::client_secret_jwt("my-id", secret);
    auth.validate().unwrap();
    let (assertion, rest) = assertion(&auth, &settings("https://a.example/t")).await;
    assert!(!rest.contains("secret"));
    assert_eq!(header(&assertion), r#"{"typ":"client-authentication+jwt","alg":"HS256"}"#);
    let claims = decode(&assertion, Algorithm::HS256, &DecodingKey::from_secret(secret.as_bytes()));
    assert_eq!((&claims["iss"], &claims["exp"]), (&json!("my-id"), &json!(1_700_000_060)));
    let (input, signature) = assertion.rsplit_once('.').unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    aws_lc_rs::hmac::verify(&key, input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

/// Behaviour 112.
#[tokio::test]
async fn each_exchange_has_an_assertion_of_its_own() {
    let key = ed25519();
    // Two exchanges in one token request, and two token requests.
    let server = Server::default()
        .answers(400, r#"{"error":"invalid_grant"}"#)
        .answers(503, "")
        .answers(200, TOKEN)
        .answers(200, TOKEN);
    server.ask(&spry(), &key.auth(), with_refresh_token("R")).await.unwrap_err();
    server.ask(&spry(), &key.auth(), TokenRequest::default()).await.unwrap();
    server.ask(&spry(), &key.auth(), TokenRequest::default()).await.unwrap();
    let ids: HashSet<String> = server.seen().iter().map(|seen| key.verify(&split(seen).0)["jti"].to_string()).collect();
    assert_eq!(ids.len(), 4);
}

/// Stands for a KMS.
struct Remote(aws::EcdsaKeyPair);

impl Signer for Remote {
    fn algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::Es256
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, BoxError> {
        tokio::task::yield_now().await;
        let signature = self.0.sign(&aws_lc_rs::rand::SystemRandom::new(), signing_input)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[tokio::test]
async fn a_signer_of_the_users_signs() {
    let key = aws::EcdsaKeyPair::generate(&aws::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = key.public_key().as_ref().to_vec();
    let auth = ClientAuth::private_key_jwt("my-id", SigningKey::from_signer(Remote(key)).with_key_id("kms"));
    auth.validate().unwrap();
    let (assertion, _) = assertion(&auth, &settings("https://a.example/t")).await;
    let (input, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = aws::UnparsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, public);
    public.verify(input.as_bytes(), &signature).unwrap();
    assert!(header(&assertion).contains(r#""alg":"ES256","kid":"kms""#));
}

#[tokio::test]
async fn a_key_in_a_file_can_be_replaced() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-key", std::process::id()));
    let (old, new) = (p256(), p256());
    let auth = ClientAuth::private_key_jwt("my-id", SigningKey::from_pem(old.algorithm, SecretSource::file(&path)));
    auth.validate().expect("it is read when it is needed");
    for key in [&old, &new] {
        std::fs::write(&path, &key.pem).unwrap();
        key.verify(&assertion(&auth, &settings("https://a.example/t")).await.0);
    }

    // Replaced while the exchange was under way.
    let refused = {
        let (path, pem) = (path.clone(), old.pem.clone());
        move || {
            std::fs::write(&path, pem).unwrap();
            answered(401, &[], br#"{"error":"invalid_client"}"#.to_vec())
        }
    };
    let server = Server::default().then(refused).answers(200, TOKEN);
    server.ask(&settings("https://a.example/t"), &auth, TokenRequest::default()).await.unwrap();
    let [first, second] = server.seen().try_into().unwrap();
    new.verify(&split(&first).0);
    old.verify(&split(&second).0);

    for content in ["", "canary", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"] {
        std::fs::write(&path, content).unwrap();
        let error =
            Server::default().ask(&spry(), &auth, with_refresh_token("canary")).await.expect_err("this is no key");
        assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
        assert!(error.to_string().contains("ES256"), "{error}");
        assert!(!format!("{error} {error:?} {auth:?}").contains("canary"));
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_key_that_cannot_sign_is_told_when_it_is_configured() {
    use SigningAlgorithm::*;
    let rsa_key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa_key = rsa(Rs256, &rsa_key, &aws::RSA_PKCS1_2048_8192_SHA256);
    let p384 = ec(Es384, &aws::ECDSA_P384_SHA384_FIXED_SIGNING, &aws::ECDSA_P384_SHA384_FIXED);
    let garbage = pem("PRIVATE KEY", b"canary canary");
    let short_rsa = pem("PRIVATE KEY", &STANDARD.decode(SHORT_RSA).unwrap());
    let cut: String = p256().pem.chars().take(80).collect();
    let wrong = [
        (Es256, "canary".to_owned(), "private key for ES256"),
        (Es256, String::new(), "private key for ES256"),
        (Es256, garbage.clone(), "private key for ES256"),
        (Rs256, garbage.clone(), "private key for RS256"),
        (EdDsa, garbage, "private key for EdDSA"),
        (Es256, cut, "private key for ES256"),
        (Es256, p384.pem, "private key for ES256"),
        (Es256, rsa_key.pem.clone(), "private key for ES256"),
        (EdDsa, p256().pem, "private key for EdDSA"),
        (Ps512, p256().pem, "private key for PS512"),
        (Rs256, rsa_key.spki, "private key for RS256"),
        (Es256, p256().spki, "private key for ES256"),
        (Es512, p256().pem, "ES512"),
        // AWS-LC does not read it at all.
        (Rs512, short_rsa.clone(), "2048 bits"),
        (Ps256, short_rsa, "2048 bits"),
    ];
    for (algorithm, pem, told) in wrong {
        let auth = ClientAuth::private_key_jwt("my-id", SigningKey::from_pem(algorithm, pem));
        let error = auth.validate().expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
        assert!(!format!("{error} {error:?} {auth:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_signer_that_fails_is_told_and_may_recover() {
    struct Failing;

    impl Signer for Failing {
        fn algorithm(&self) -> SigningAlgorithm {
            SigningAlgorithm::Ps256
        }

        async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, BoxError> {
            Err("the HSM is away".into())
        }
    }

    let auth = ClientAuth::private_key_jwt("my-id", SigningKey::from_signer(Failing));
    let error = Server::default().ask(&spry(), &auth, TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
    assert!(error.is_transient());
    assert_eq!(error.source().unwrap().to_string(), "the HSM is away");
}

/// Behaviour 103. Behaviour 104.
#[tokio::test]
async fn no_error_tells_an_assertion_or_a_key() {
    let key = p256();
    let line = key.pem.lines().nth(1).unwrap().to_owned();
    let server = Server::default();
    let seen = server.clone();
    let echo = move || {
        let (assertion, _) = split(seen.seen().last().unwrap());
        let body = json!({"error": "invalid_client", "error_description": format!("bad assertion {assertion}")});
        answered(401, &[], body.to_string().into_bytes())
    };
    let server = server.then(echo);
    let error = server.ask(&settings("https://a.example/t"), &key.auth(), TokenRequest::default()).await.unwrap_err();
    let (assertion, _) = split(&server.seen()[0]);
    assert_eq!(error.error_description(), Some("bad assertion [redacted]"));
    let told = format!("{error} {error:?} {:?}", SigningKey::from_pem(key.algorithm, key.pem.as_str()));
    assert!(!told.contains(&assertion) && !told.contains(&line), "{told}");
}

fn exchanging(assertion: JwtAssertion) -> EndpointSettings {
    EndpointSettings::new("https://a.example/t".parse().unwrap(), Grant::JwtBearer(assertion.into()))
}

/// The assertions that are exchanged, and the first body without one.
async fn exchanged(settings: &EndpointSettings, requests: Vec<TokenRequest>) -> (Vec<String>, String) {
    let server = requests.iter().fold(Server::default(), |server, _| server.answers(200, TOKEN));
    for request in requests {
        server.ask_at(At(1_700_000_000), settings, &ClientAuth::anonymous(), request).await.unwrap();
    }
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    let cut = |body: &str| {
        let (before, rest) = body.split_once("&assertion=").unwrap();
        let (assertion, after) = rest.split_once('&').unwrap_or((rest, ""));
        (assertion.to_owned(), format!("{before}|{after}"))
    };
    (bodies.iter().map(|body| cut(body).0).collect(), cut(&bodies[0]).1)
}

const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// <https://developers.google.com/identity/protocols/oauth2/service-account>: `iss`, `scope`, `aud`, `exp`, `iat`, with `sub` for
/// whom it acts only.
#[tokio::test]
async fn a_service_account_of_google() {
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let key = rsa(SigningAlgorithm::Rs256, &key, &aws::RSA_PKCS1_2048_8192_SHA256);
    let signing = SigningKey::from_pem(key.algorithm, key.pem.as_str()).with_key_id("0a1b");
    let account = JwtAssertion::new("batch@project.example", signing).scope_claim();
    let mut settings = exchanging(account.clone().without_subject());
    settings.scopes = Some(Scopes::new(["one", "two"]).unwrap());
    settings.validate(&ClientAuth::anonymous()).unwrap();
    let narrowed = TokenRequest { scopes: Some(Scopes::new(["three"]).unwrap()), ..TokenRequest::default() };
    let (assertions, rest) = exchanged(&settings, vec![TokenRequest::default(), narrowed]).await;
    assert_eq!(rest, format!("{GRANT}|"), "the scopes are in the assertion");
    assert_eq!(header(&assertions[0]), r#"{"typ":"JWT","alg":"RS256","kid":"0a1b"}"#);
    let [mut claims, other] = [&assertions[0], &assertions[1]].map(|assertion| key.verify(assertion));
    assert_eq!(other["scope"], json!("three"), "those of the request");
    assert_ne!(claims["jti"].take(), other["jti"]);
    assert_eq!(
        claims,
        json!({ "iss": "batch@project.example", "scope": "one two", "aud": "https://a.example/t", "jti": null,
                "iat": 1_700_000_000, "exp": 1_700_000_060 })
    );
    settings.grant = Grant::JwtBearer(account.subject("anna@example.com").into());
    let (assertions, _) = exchanged(&settings, vec![TokenRequest::default()]).await;
    assert_eq!(key.verify(&assertions[0])["sub"], json!("anna@example.com"));
}

/// Each kind of key; the audience, the lifetime, the type and claims as they are named, and scopes beside the assertion.
#[tokio::test]
async fn an_assertion_to_exchange_says_what_it_is_told_to() {
    for key in all_keys() {
        let signing = SigningKey::from_pem(key.algorithm, key.pem.as_str());
        let assertion = JwtAssertion::new("app", signing)
            .audience("account.example")
            .lifetime(Duration::from_secs(180))
            .typ(AssertionTyp::None)
            .claim("class", "batch");
        let mut settings = exchanging(assertion);
        settings.scopes = Some(Scopes::new(["read"]).unwrap());
        settings.assertion_audience = Some("https://issuer.example".into());
        settings.validate(&ClientAuth::anonymous()).unwrap();
        let (assertions, rest) = exchanged(&settings, vec![TokenRequest::default()]).await;
        assert_eq!(rest, format!("{GRANT}|scope=read"));
        assert_eq!(header(&assertions[0]), format!(r#"{{"alg":"{}"}}"#, key.algorithm.as_str()));
        let mut claims = key.verify(&assertions[0]);
        claims["jti"].take();
        assert_eq!(
            claims,
            json!({ "iss": "app", "sub": "app", "aud": "account.example", "jti": null, "iat": 1_700_000_000,
                    "exp": 1_700_000_180, "class": "batch" })
        );
    }
    // Where it names no audience, it has that of all assertions.
    let key = p256();
    let mut settings = exchanging(JwtAssertion::new("app", SigningKey::from_pem(key.algorithm, key.pem.as_str())));
    settings.assertion_audience = Some("https://issuer.example".into());
    let (assertions, _) = exchanged(&settings, vec![TokenRequest::default()]).await;
    assert_eq!(key.verify(&assertions[0])["aud"], json!("https://issuer.example"));
}

/// Behaviour 112.
#[tokio::test]
async fn an_assertion_is_signed_for_each_exchange_by_whoever_has_the_key() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-grant-key", std::process::id()));
    let (old, new) = (p256(), p256());
    let settings = exchanging(JwtAssertion::new("app", SigningKey::from_pem(old.algorithm, SecretSource::file(&path))));
    assert!(settings.grant.may_wait());
    let mut ids = HashSet::new();
    for key in [&old, &old, &new] {
        std::fs::write(&path, &key.pem).unwrap();
        let (assertions, _) = exchanged(&settings, vec![TokenRequest::default()]).await;
        ids.insert(key.verify(&assertions[0])["jti"].to_string());
    }
    assert_eq!(ids.len(), 3);
    std::fs::write(&path, "canary").unwrap();
    let server = Server::default();
    let error = server.ask(&settings, &ClientAuth::anonymous(), TokenRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (TokenErrorKind::CredentialsUnavailable, 0));
    assert!(!format!("{error} {error:?} {settings:?}").contains("canary"));
    std::fs::remove_file(&path).unwrap();

    let remote = aws::EcdsaKeyPair::generate(&aws::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = remote.public_key().as_ref().to_vec();
    let settings = exchanging(JwtAssertion::new("app", SigningKey::from_signer(Remote(remote))));
    let (assertions, _) = exchanged(&settings, vec![TokenRequest::default()]).await;
    let (input, signature) = assertions[0].rsplit_once('.').unwrap();
    let public = aws::UnparsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, public);
    public.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();

    // A server that repeats it.
    let settings = exchanging(JwtAssertion::new("app", SigningKey::from_pem(old.algorithm, old.pem.as_str())));
    let server = Server::default();
    let seen = server.clone();
    let server = server.then(move || {
        let body = seen.seen().last().unwrap().body.clone();
        let assertion = body.split_once("&assertion=").unwrap().1.to_owned();
        let body = json!({"error": "invalid_grant", "error_description": format!("bad assertion {assertion}")});
        answered(400, &[], body.to_string().into_bytes())
    });
    let error = server.ask(&settings, &ClientAuth::anonymous(), TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.error_description(), Some("bad assertion [redacted]"));
}

#[test]
fn an_assertion_that_no_server_takes_is_told_when_it_is_configured() {
    let key = p256();
    let signing = || SigningKey::from_pem(key.algorithm, key.pem.as_str());
    let good = || JwtAssertion::new("app", signing());
    let wrong = [
        JwtAssertion::new("", signing()),
        JwtAssertion::new("canary\n", signing()),
        JwtAssertion::new("app", SigningKey::from_pem(key.algorithm, "canary")),
        good().subject(""),
        good().subject("canary\u{7f}"),
        good().audience(" canary"),
        good().lifetime(Duration::ZERO),
        good().lifetime(Duration::from_millis(999)),
        good().lifetime(Duration::MAX),
        good().claim("exp", 1),
        good().claim("", 1),
        good().claim("a", 1).claim("a", 2),
        good().scope_claim().claim("scope", "read"),
    ];
    for assertion in wrong {
        let settings = exchanging(assertion);
        let error = settings.validate(&ClientAuth::anonymous()).expect_err("refused");
        assert!(!format!("{error} {error:?} {settings:?}").contains("canary"), "{error}");
    }
    for assertion in [good().lifetime(Duration::from_secs(3600)), good().claim("scope", "read")] {
        exchanging(assertion).validate(&ClientAuth::anonymous()).unwrap();
    }
}

/// A key of 1024 bits, made for this test; nothing trusts it.
const SHORT_RSA: &str = "\
    MIICeQIBADANBgkqhkiG9w0BAQEFAASCAmMwggJfAgEAAoGBANgWdKf5hbpXYzGgeHtJTNvdBGtxYXJL2a2/o2N7Ls4UiC+xaSMDmErF76PLyC\
    BTVcKOxe6qlTTlrtvPWh2Z06S3fJMxGbkLQXzMWj2v0++BGp+M8X5AHqmvIPxWVQZPmyErKp3l/CQERc6Pb16Zj48fdwcdR4nmqg8v7RUjVdWz\
    AgMBAAECgYEA1qqoRV8bPJ0ny9tRFZkiI6GTjHFcj0FPBM7GsENlohC/ojGq8r/VgSLWCHCfZY2kOt2/QHRyOdSbO37oVVPF7Z+DPsGegkz5cK\
    GCks4ysOgPnSqeqvD22zRo+ovu8U/maTSp/X+mVvydh86EFI8K3kViuo6wPU/w/nY/bg36n+ECQQDvD2/VfvKlP8HrPoH+7zr3i6fT7+qDRZkT\
    m/tnK5jZ8QCaeE/Be13tF7rZi6ZoZOj9nD92wlToWh+y1qKLOFdZAkEA52ZLmFOAw48gx1E1MjZssiKaeiYpoPx358Lh6iWDpBRd6KjcHVTjvg\
    fRBdQa49NQHyEz/xcuLrDj8HJSnPz/6wJBAKXwLi2g3+cKuZ2EFxIRlvnLq+Q2La+POPFenYSAw6nMWyHeD2Z7Lrhrd1yYThs6qGuZ8IeL3wol\
    vMkTqWI/6okCQQCDiYzTTDRX9haF9s2se2+SW0VAxkzHrHxkjE1rkmOgc8tmJAbrzYOgVEUncQjQFSDocTFjgkPIWtlXp0T65H59AkEAppwiFj\
    xxgON+/u6S/JL+Jk57mJtpwCctqC4wOM8T2mULCa+74w5fWhTLect08eHUDUfsEsE0fVlX6FCA5w3hpg==";
