//! Layers configured by a file, with the environment on top: `APP_LAYERS__ORDERS__CLIENT_SECRET=s3cret cargo run`.

#![allow(clippy::result_large_err, reason = "figment's error, once in the life of a program")]

use std::error::Error;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;
use tower_oauth2_client::{AuthLayer, NamedSettings};

#[derive(Deserialize)]
struct Settings {
    layers: NamedSettings,
}

/// Two underscores lead into a table: a variable `APP_LAYERS__ORDERS__RENEW` is `renew` of the layer `orders`.
fn settings(file: &str) -> figment::Result<Settings> {
    Figment::new().merge(Toml::file(file)).merge(Env::prefixed("APP_").split("__")).extract()
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings(concat!(env!("CARGO_MANIFEST_DIR"), "/app.toml"))?;
    for name in settings.layers.names() {
        let layer = AuthLayer::new(settings.layers.build(name)?);
        println!("{name}: {:?}", layer.handle().stats());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use figment::Jail;

    use super::*;

    const FILE: &str = r#"
        [layers.orders]
        token_url = "https://auth.example.com/token"
        client_auth = "basic"
        client_id = "orders"
        client_secret = { env = "NOT_SET_HERE" }
        origins = ["https://api.example.com"]
        max_waiters = 10
    "#;

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's error")]
    fn the_environment_takes_the_place_of_the_file() {
        Jail::expect_with(|jail| {
            jail.create_file("app.toml", FILE)?;
            let error = settings("app.toml")?.layers.build("orders").unwrap_err().to_string();
            assert!(error.starts_with("`orders`: ") && error.contains("NOT_SET_HERE"), "{error}");

            jail.set_env("APP_LAYERS__ORDERS__CLIENT_SECRET", "s3cret");
            jail.set_env("APP_LAYERS__ORDERS__TOKEN_TIMEOUT", "7s");
            jail.set_env("APP_LAYERS__ORDERS__SCOPES", "read write");
            jail.set_env("APP_LAYERS__ORDERS__RENEW", "0.5");
            let cfg = settings("app.toml")?.layers.build("orders").unwrap();
            let shown = format!("{cfg:?}");
            for expected in ["timeout: 7s", "Fraction(0.5)", "max_waiters: Some(10)", "read write"] {
                assert!(shown.contains(expected), "{expected}: {shown}");
            }

            jail.set_env("APP_LAYERS__ORDERS__CLEINT_ID", "x");
            let error = settings("app.toml").map(drop).unwrap_err().to_string();
            assert!(error.contains("unknown key `cleint_id` (did you mean `client_id`?)"), "{error}");
            assert!(error.contains("LAYERS.ORDERS"), "{error}");
            Ok(())
        });
    }

    /// Figment reads a variable of digits as a number, which no secret is.
    #[test]
    #[expect(clippy::result_large_err, reason = "figment's error")]
    fn a_secret_of_digits_needs_quotes_and_is_not_told() {
        Jail::expect_with(|jail| {
            jail.create_file("app.toml", FILE)?;
            jail.set_env("APP_LAYERS__ORDERS__CLIENT_SECRET", "4711");
            let error = settings("app.toml").map(drop).unwrap_err().to_string();
            assert!(error.contains("a secret is a text") && !error.contains("4711"), "{error}");
            jail.set_env("APP_LAYERS__ORDERS__CLIENT_SECRET", "\"4711\"");
            settings("app.toml")?.layers.build("orders").unwrap();
            Ok(())
        });
    }
}
