//! Proofs claim by claim, verified by another implementation.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature as aws;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::nonces::Nonces;
use super::*;

const ORIGIN: &str = "https://api.example.com";

/// The JWK and the thumbprint of RFC 8037 A.2 and A.3; the private key is that of A.1.
const RFC_8037: (&str, &str) =
    ("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");

fn about<'a>(token: Option<&'a str>) -> About<'a> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    About { method: &Method::POST, origin: ORIGIN, path: "/v1/items", token, now }
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn rfc_8037_pem() -> String {
    let head = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pem(&[&head[..], &URL_SAFE_NO_PAD.decode(RFC_8037.0).unwrap()].concat())
}

fn ec_pem(algorithm: &'static aws::EcdsaSigningAlgorithm) -> String {
    pem(aws::EcdsaKeyPair::generate_pkcs8(algorithm, &aws_lc_rs::rand::SystemRandom::new()).unwrap().as_ref())
}

fn rsa_pem() -> String {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap().as_ref())
}

/// Header and claims of a proof that AWS-LC has verified with the key in its header.
fn verify(proof: &HeaderValue) -> (Value, Value) {
    assert!(proof.is_sensitive());
    let (input, signature) = proof.to_str().unwrap().rsplit_once('.').unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    let [header, claims] =
        [header, claims].map(|part| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap());
    let member = |name: &str| URL_SAFE_NO_PAD.decode(header["jwk"][name].as_str().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let input = input.as_bytes();
    let point = || [vec![4], member("x"), member("y")].concat();
    let verified = match header["alg"].as_str().unwrap() {
        "ES256" => aws::UnparsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point()).verify(input, &signature),
        "ES384" => aws::UnparsedPublicKey::new(&aws::ECDSA_P384_SHA384_FIXED, point()).verify(input, &signature),
        "EdDSA" => aws::UnparsedPublicKey::new(&aws::ED25519, member("x")).verify(input, &signature),
        "PS256" => aws::RsaPublicKeyComponents { n: member("n"), e: member("e") }.verify(
            &aws::RSA_PSS_2048_8192_SHA256,
            input,
            &signature,
        ),
        other => panic!("{other}"),
    };
    verified.expect("verified by AWS-LC");
    (header, claims)
}

#[test]
fn a_proof_says_what_it_is_for() {
    let prover = Prover::new(DpopKey::generate().unwrap());
    let (header, mut claims) = verify(&prover.prove(about(None), None).unwrap());
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    let id = claims["jti"].take();
    assert_eq!(URL_SAFE_NO_PAD.decode(id.as_str().unwrap()).unwrap().len() * 8, 128);
    let htu = "https://api.example.com/v1/items";
    assert_eq!(claims, json!({ "jti": null, "htm": "POST", "htu": htu, "iat": 1_700_000_000 }));

    // The token and its hash of RFC 9449 §7.1.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let (_, claims) = verify(&prover.prove(about(Some(token)), None).unwrap());
    assert_eq!(claims["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    assert!(claims.get("nonce").is_none());
}

#[test]
fn keys_of_each_kind_verify_and_show_their_public_half_only() {
    use SigningAlgorithm::*;
    let keys = [
        (Es256, ec_pem(&aws::ECDSA_P256_SHA256_FIXED_SIGNING)),
        (Es384, ec_pem(&aws::ECDSA_P384_SHA384_FIXED_SIGNING)),
        (EdDsa, rfc_8037_pem()),
        (Ps256, rsa_pem()),
    ];
    for (algorithm, pem) in keys {
        let prover = Prover::new(DpopKey::from_pem(algorithm, pem).unwrap());
        let (header, _) = verify(&prover.prove(about(None), None).unwrap());
        let jwk = header["jwk"].as_object().unwrap();
        let members: Vec<&str> = jwk.keys().map(String::as_str).collect();
        let expected = match algorithm {
            Ps256 => vec!["e", "kty", "n"],
            EdDsa => vec!["crv", "kty", "x"],
            _ => vec!["crv", "kty", "x", "y"],
        };
        assert_eq!(members, expected);
    }
    assert_eq!(DpopKey::from_pem(EdDsa, rfc_8037_pem()).unwrap().thumbprint(), RFC_8037.1);
}

#[test]
fn no_two_keys_and_no_two_proofs_are_alike() {
    let keys: Vec<DpopKey> = (0..8).map(|_| DpopKey::generate().unwrap()).collect();
    let thumbprints: HashSet<&str> = keys.iter().map(DpopKey::thumbprint).collect();
    assert_eq!(thumbprints.len(), keys.len());
    assert!(keys[0] != keys[1] && keys[0] == keys[0].clone());

    let prover = Prover::new(keys[0].clone());
    let ids: HashSet<String> =
        (0..8).map(|_| verify(&prover.prove(about(None), None).unwrap()).1["jti"].to_string()).collect();
    assert_eq!(ids.len(), 8);
}

/// Behaviour 103.
#[test]
fn nothing_tells_a_private_key() {
    let pem = rfc_8037_pem();
    let line = pem.lines().nth(1).unwrap();
    let key = DpopKey::from_pem(SigningAlgorithm::EdDsa, pem.as_str()).unwrap();
    let told = format!("{key:?} {:?}", Prover::new(key.clone()));
    assert_eq!(format!("{key:?}"), format!("DpopKey({})", RFC_8037.1));
    assert!(!told.contains(line) && !told.contains(RFC_8037.0));

    for (algorithm, pem) in [
        (SigningAlgorithm::Es256, pem.as_str()),
        (SigningAlgorithm::EdDsa, "canary"),
        (SigningAlgorithm::Es512, "canary"),
        (SigningAlgorithm::EdDsa, "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"),
    ] {
        let error = DpopKey::from_pem(algorithm, pem).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(line) && !error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn the_newest_nonce_of_the_origin_goes_into_the_next_proof() {
    let prover = Prover::new(DpopKey::generate().unwrap());
    let nonce = |origin: &str| verify(&prover.prove(About { origin, ..about(None) }, None).unwrap()).1["nonce"].clone();
    let learn = |origin: &str, value: &[u8]| {
        let headers = HeaderMap::from_iter([("dpop-nonce".parse().unwrap(), HeaderValue::from_bytes(value).unwrap())]);
        prover.learn(origin, &headers).is_some()
    };
    assert!(prover.learn(ORIGIN, &HeaderMap::new()).is_none());
    assert!(learn(ORIGIN, b"one"));
    assert!(learn("https://other.example", b"other"));
    assert_eq!((nonce(ORIGIN), nonce("https://other.example")), (json!("one"), json!("other")));
    assert_eq!(nonce("https://api.example.com:8443"), Value::Null, "an origin of its own");
    assert!(learn(ORIGIN, b"two"));
    for none in [&b""[..], b"a b", b"a\"b", b"a\\b", b"\xff", "n".repeat(1025).as_bytes()] {
        assert!(!learn(ORIGIN, none), "{}", none.escape_ascii());
    }
    assert_eq!(nonce(ORIGIN), json!("two"));
    let (_, claims) = verify(&prover.prove(about(None), Some("three".into())).unwrap());
    assert_eq!(claims["nonce"], "three", "its own, whatever is newest");
}

#[test]
fn nonces_do_not_grow_without_bound() {
    let nonces = Nonces::default();
    let origin = |at: usize| format!("https://{at}.example.com");
    for at in 0..=Nonces::MAX {
        nonces.remember(&origin(at), "n");
    }
    assert!(nonces.of(&origin(0)).is_none(), "the oldest is forgotten");
    assert!((1..=Nonces::MAX).all(|at| nonces.of(&origin(at)).is_some()));
}
