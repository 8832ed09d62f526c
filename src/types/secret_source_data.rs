//! A `SecretSource` as data (feature `serde`): a text, `{ env = ".." }` or `{ file = ".." }`.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Secret, SecretSource};

/// A text is the secret itself; `{ env = "NAME" }` and `{ file = "PATH" }` say where it is. Errors do not quote it.
///
/// What a deserializer keeps of its input is not wiped: rather say where the secret is.
impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueOrPlace;

        const EXPECTED: &str = "a text, { env = \"NAME\" } or { file = \"PATH\" }";

        impl<'de> Visitor<'de> for ValueOrPlace {
            type Value = SecretSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, secret: &str) -> Result<SecretSource, E> {
                Ok(secret.into())
            }

            fn visit_string<E: Error>(self, secret: String) -> Result<SecretSource, E> {
                Ok(Secret::from(secret).into())
            }

            // What serde says of a number or a truth value quotes it.
            fn visit_bool<E: Error>(self, _: bool) -> Result<SecretSource, E> {
                Err(wrong())
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<SecretSource, E> {
                Err(wrong())
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<SecretSource, E> {
                Err(wrong())
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<SecretSource, E> {
                Err(wrong())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
                let source = match map.next_key::<String>()?.as_deref() {
                    Some("env") => SecretSource::env(map.next_value::<String>()?),
                    Some("file") => SecretSource::file(map.next_value::<String>()?),
                    _ => return Err(wrong()),
                };
                // Both, or something else beside one.
                if map.next_key::<String>()?.is_some() { Err(wrong()) } else { Ok(source) }
            }
        }

        fn wrong<E: Error>() -> E {
            E::custom(format!("a secret is {EXPECTED}"))
        }

        deserializer.deserialize_any(ValueOrPlace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_text_or_says_where_it_is() {
        let read = |json: &str| serde_json::from_str::<SecretSource>(json);
        for (json, expected) in [
            (r#""canary""#, "SecretSource(value)"),
            (r#"{"env":"NAME"}"#, "SecretSource($NAME)"),
            (r#"{"file":"/run/secret"}"#, "SecretSource(/run/secret)"),
        ] {
            assert_eq!(format!("{:?}", read(json).unwrap()), expected);
        }
        assert_eq!(read(r#""canary""#).unwrap().fixed().unwrap().expose(), "canary");
        for json in [
            "4711",
            "-4711",
            "47.11",
            "true",
            "{}",
            r#"{"canary":1}"#,
            r#"{"env":"A","file":"B"}"#,
            r#"{"env":"A","x":1}"#,
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with("a secret is a text, { env"), "{json}: {error}");
            assert!(!error.contains("4711") && !error.contains("canary"), "{error}");
        }
    }
}
