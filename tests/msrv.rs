//! The stated `rust-version`: no dependency of the library asks for a newer compiler.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use serde_json::Value;

/// What a user builds: the library with all features, on this machine; no dev-dependencies.
#[test]
fn no_dependency_asks_for_a_newer_compiler() {
    let metadata = metadata();
    let packages: HashMap<&str, &Value> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
    let root = text(&metadata["resolve"]["root"]);
    let stated = version(&packages[root]["rust_version"]).unwrap();
    let too_new: Vec<String> = dependencies(&metadata, root)
        .into_iter()
        .map(|id| packages[id])
        .filter(|package| version(&package["rust_version"]).is_some_and(|needed| needed > stated))
        .map(|package| format!("{} {} needs Rust {}", package["name"], package["version"], package["rust_version"]))
        .collect();
    assert!(too_new.is_empty(), "{too_new:#?}");
}

/// Behaviour 170. Older ones were seen not to compile; all of them at once are compiled by `make minimal-versions`.
#[test]
fn no_dependency_may_be_older_than_what_compiles() {
    let needed = [
        ("http", "1.4.1"),
        ("http-body", "1.1"),
        ("hyper", "1.8"),
        ("percent-encoding", "2.3.1"),
        ("rustls", "0.23.27"),
        ("serde", "1.0.228"),
        ("serde_json", "1.0.145"),
        ("sha2", "0.10.7"),
        ("tokio", "1.51"),
        ("zeroize", "1.8.2"),
    ];
    let metadata = metadata();
    let root = text(&metadata["resolve"]["root"]);
    let package = list(&metadata["packages"]).iter().find(|package| text(&package["id"]) == root).unwrap();
    for (name, least) in needed {
        let of_the_library = |dep: &&Value| text(&dep["name"]) == name && dep["kind"].is_null();
        for dep in list(&package["dependencies"]).iter().filter(of_the_library) {
            let stated = version(&Value::from(text(&dep["req"]).trim_start_matches('^'))).unwrap();
            assert!(stated >= version(&Value::from(least)).unwrap(), "{name} {}", dep["req"]);
        }
    }
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--all-features", "--filter-platform=host-tuple"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that the library is built with, itself included.
fn dependencies<'a>(metadata: &'a Value, root: &'a str) -> HashSet<&'a str> {
    let nodes: HashMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let (mut seen, mut next) = (HashSet::new(), vec![root]);
    while let Some(id) = next.pop() {
        if seen.insert(id) {
            let built_with = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            next.extend(list(&nodes[id]["deps"]).iter().filter(built_with).map(|dep| text(&dep["pkg"])));
        }
    }
    assert!(seen.len() > 20, "the dependencies were not found");
    seen
}

/// `1.88` and `1.88.0` are the same.
fn version(value: &Value) -> Option<Vec<u32>> {
    let mut parts: Vec<u32> = value.as_str()?.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    Some(parts)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
