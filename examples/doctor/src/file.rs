//! The configuration file: read, and taken apart into what the library is told and what the HTTP client is told.

use serde_json::{Map, Value};
use tower_oauth2_client::{AuthConfig, AuthSettings};

use crate::Stop;
use crate::report::Report;

/// A layer's settings.
pub(crate) struct Loaded {
    pub(crate) config: AuthConfig,
    table: Map<String, Value>,
    pub(crate) proxy: Option<String>,
    pub(crate) roots: Vec<String>,
}

/// Settings of the built-in HTTP client, whose place is taken by one that watches.
const OF_THE_CLIENT: [&str; 3] = ["proxy", "root_certificates", "connect_timeout"];

pub(crate) fn load(path: &str, layer: Option<&str>, report: &Report) -> Result<Loaded, Stop> {
    let wrong = |text: &str, change: &str| report.wrong(Stop::Configuration, text, change);
    let text = std::fs::read_to_string(path).map_err(|error| {
        wrong(&format!("{path} cannot be read: {}", error.kind()), "check the path and the permissions")
    })?;
    let value: Value = basic_toml::from_str(&text).map_err(|error| {
        wrong(&format!("{path} is no TOML: {}", without_values(&error.to_string())), "mend that line; texts are quoted")
    })?;
    let (name, mut table) = choose(value, layer).map_err(|(text, change)| wrong(&text, &change))?;
    let mut of_client: Vec<Option<Value>> = OF_THE_CLIENT.iter().map(|key| table.remove(*key)).collect();
    let settings: AuthSettings = serde_json::from_value(Value::Object(table.clone()))
        .map_err(|error| wrong(&without_values(&error.to_string()), "docs/configuration.md lists all keys"))?;
    let config = settings
        .into_builder()
        .and_then(|builder| match name {
            Some(name) if !table.contains_key("name") => builder.name(name).build(),
            _ => builder.build(),
        })
        .map_err(|error| wrong(&error.to_string(), ""))?;
    report.ok(&format!("{path} is read{}", layer.map_or(String::new(), |layer| format!(", layer {layer}"))));

    let mut secret = |at: usize| -> Result<Vec<String>, Stop> {
        let values = match of_client.get_mut(at).and_then(Option::take) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(value) => vec![value],
        };
        let read = |value: &Value| {
            resolved(value).ok_or_else(|| wrong("a variable or a file is not there", OF_THE_CLIENT[at]))
        };
        values.iter().map(read).collect()
    };
    Ok(Loaded { config, proxy: secret(0)?.pop(), roots: secret(1)?, table })
}

/// A name, where the file has names, and the table.
type Chosen = (Option<String>, Map<String, Value>);

/// The table of the layer, and its name where there are several.
fn choose(value: Value, layer: Option<&str>) -> Result<Chosen, (String, String)> {
    let Value::Object(mut whole) = value else { return Err(("the file is no table".into(), String::new())) };
    let Some(Value::Object(mut layers)) = whole.remove("layers") else {
        return match layer {
            Some(_) => Err(("the file has no table `layers`".into(), "leave --layer out".into())),
            None => Ok((None, whole)),
        };
    };
    let names = layers.keys().cloned().collect::<Vec<_>>();
    let name = match (layer, names.as_slice()) {
        (Some(layer), _) => layer.to_owned(),
        (None, [only]) => only.clone(),
        (None, _) => {
            return Err(("the file has several layers".into(), format!("--layer, one of {}", names.join(", "))));
        }
    };
    match layers.remove(&name) {
        Some(Value::Object(table)) => Ok((Some(name), table)),
        _ => Err((format!("there is no layer `{name}`"), format!("--layer, one of {}", names.join(", ")))),
    }
}

/// A text, `{ env = ".." }` or `{ file = ".." }`.
fn resolved(value: &Value) -> Option<String> {
    let place = |key: &str| value.get(key).and_then(Value::as_str);
    if let Some(name) = place("env") {
        return std::env::var(name).ok();
    }
    if let Some(path) = place("file") {
        return std::fs::read_to_string(path).ok();
    }
    value.as_str().map(str::to_owned)
}

/// A parser's message may quote what stands in the file: a secret, perhaps.
fn without_values(message: &str) -> String {
    match message.split_once("invalid type: ").or_else(|| message.split_once("invalid value: ")) {
        Some((before, rest)) => {
            let expected = rest.split_once("expected ").map_or("", |(_, expected)| expected);
            format!("{before}a value is of the wrong kind; expected {expected}")
        }
        None => message.to_owned(),
    }
}

impl Loaded {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(Value::as_str)
    }

    pub(crate) fn has_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    /// Why there can be no token here.
    pub(crate) fn needs_somebody(&self) -> Option<&'static str> {
        match (self.text("grant"), self.text("provider")) {
            (Some("authorization_code" | "device"), _) | (_, Some("spry_authorization_code")) => {
                Some("a person must sign in for that")
            }
            (Some("refresh_token"), _) => Some("that would use up the refresh token of this file"),
            (Some("on_behalf_of"), _) => Some("each request brings the token that it is exchanged for"),
            (Some("identity_assertion"), _)
                if self.table.get("identity_provider").and_then(|table| table.get("on_behalf_of"))
                    == Some(&Value::Bool(true)) =>
            {
                Some("each request brings the token that it is exchanged for")
            }
            _ => None,
        }
    }

    pub(crate) fn signs_in_by_code(&self) -> bool {
        self.text("grant") == Some("authorization_code")
    }

    /// Whether each tenant has a token of its own.
    pub(crate) fn needs_tenant(&self) -> bool {
        let tenant = self.table.get("tenant");
        let own = tenant.and_then(|tenant| tenant.get("per_tenant_tokens")) == Some(&Value::Bool(true));
        let fixed = tenant.is_some_and(|tenant| tenant.get("fixed").is_some());
        own && !fixed
    }

    /// The scopes that are asked for, as far as the file says it.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let words = |value: &Value| match value {
            Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        ["scopes", "add_scopes"].iter().filter_map(|key| self.table.get(*key)).flat_map(words).collect()
    }
}
