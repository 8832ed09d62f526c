//! The files in `examples/config`: each is read, builds, and says what it is meant to say.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tower_oauth2_client::test_util::{AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, AuthSettings, NamedSettings, TenantId};

#[derive(Deserialize)]
struct Layers {
    layers: NamedSettings,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// Name and text of each preset's file.
fn presets() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "toml") && name != "layers" {
            found.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    found
}

const VARIABLES: [&str; 3] = ["VIP_CLIENT_SECRET", "VECTORCARE_CLIENT_SECRET", "GRAPHNET_CLIENT_SECRET"];

/// The variables that the files name are set for this program run once more.
#[test]
fn every_file_builds() {
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", "with_the_variables_set", "--nocapture"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let output = run.envs(VARIABLES.map(|name| (name, "s3cret"))).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("13 files"), "{told}");
}

/// Behind [`every_file_builds`]; by itself it does nothing.
#[test]
fn with_the_variables_set() {
    if VARIABLES.iter().any(|name| std::env::var_os(name).is_none()) {
        return;
    }
    let presets = presets();
    for (name, text) in &presets {
        let settings: AuthSettings = basic_toml::from_str(text).unwrap();
        settings.build().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let layers: Layers = basic_toml::from_str(&fs::read_to_string(folder().join("layers.toml")).unwrap()).unwrap();
    assert_eq!(layers.layers.names().collect::<Vec<_>>(), ["orders", "practices"]);
    for name in layers.layers.names() {
        layers.layers.build(name).unwrap();
    }
    println!("{} files", presets.len() + 1);
}

#[test]
fn every_preset_has_a_file() {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/config/presets.rs")).unwrap();
    let functions = source.lines().filter_map(|line| line.strip_prefix("pub fn "));
    let functions: BTreeSet<_> = functions.map(|line| line.split(['(', '<']).next().unwrap().to_owned()).collect();
    assert_eq!(presets().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), functions);
}

/// A variable that is not set is named with the layer that needs it.
#[test]
fn what_is_missing_is_told_with_the_layers_name() {
    let text = "[layers.orders]\nprovider = 'vip'\nclient_id = 'id'\nclient_secret = { env = 'NO_SUCH_VARIABLE_HERE' }";
    let layers: Layers = basic_toml::from_str(text).unwrap();
    let error = layers.layers.build("orders").unwrap_err().to_string();
    assert!(error.starts_with("`orders`: ") && error.contains("NO_SUCH_VARIABLE_HERE"), "{error}");
    let error = basic_toml::from_str::<Layers>(&text.replace("client_id", "cleint_id")).map(drop).unwrap_err();
    assert!(error.to_string().contains("unknown key `cleint_id` (did you mean `client_id`?)"), "{error}");
}

/// The strict servers of the five providers take what the files make.
#[tokio::test]
async fn the_providers_take_the_token_requests() {
    let clock = TestClock::new();
    let servers = [
        ("vip", AuthServer::vip(clock.clone()), None),
        ("spry", AuthServer::spry(clock.clone()), None),
        ("vectorcare", AuthServer::vectorcare(clock.clone()), None),
        ("qmatic", AuthServer::qmatic(clock.clone()), Some("My Clinic")),
        ("graphnet", AuthServer::graphnet(clock.clone()), None),
    ];
    let files = presets();
    for (name, server, tenant) in servers {
        let (_, text) = files.iter().find(|(file, _)| file == name).unwrap();
        let text: String = text
            .lines()
            .map(|line| {
                if line.starts_with("client_secret") {
                    "client_secret = 's3cret'\n".into()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        let settings: AuthSettings = basic_toml::from_str(&text).unwrap();
        let cfg: AuthConfig = settings.into_builder().unwrap().clock(clock.clone()).build().unwrap();
        let handle = AuthLayer::builder(cfg).http_client(server.clone()).build().unwrap().handle();
        let handle = tenant.map_or(handle.clone(), |tenant| handle.for_tenant(&TenantId::new(tenant).unwrap()));
        let token = handle.token().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(server.is_live(token.access_token()), "{name}");
    }
}
