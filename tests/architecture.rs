//! The module order of ARCHITECTURE.md holds: imports run downwards only, and nothing lies loose beside `lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module may use those before it, never one after it.
const ORDER: [&str; 15] = [
    "types",
    "telemetry",
    "token",
    "jws",
    "engine",
    "dpop",
    "request",
    "store",
    "endpoint",
    "response",
    "setup",
    "config",
    "handle",
    "middleware",
    "sign_in",
];

/// Another program that happens to be in the same crate: it uses public types only.
const APART: &str = "test_util";
/// Text only.
const GUIDES: &str = "guides";

#[test]
fn the_tree_is_the_one_that_the_architecture_names() {
    let mut modules = BTreeSet::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(path.is_dir() || name == "lib.rs", "{name} lies loose beside lib.rs");
        if path.is_dir() {
            modules.insert(name);
        }
    }
    let expected: BTreeSet<_> = ORDER.iter().copied().chain([APART, GUIDES]).map(str::to_owned).collect();
    assert_eq!(modules, expected);
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for module in &expected {
        assert!(architecture.contains(&format!("`{module}/`")), "ARCHITECTURE.md does not name `{module}/`");
    }
}

#[test]
fn imports_run_downwards() {
    let mut upward = Vec::new();
    for (file, path) in crate_paths() {
        let (Some(from), Some(to)) = (level(&module_of(&file)), level(&path[0])) else { continue };
        if to > from {
            upward.push(format!("{file}: crate::{}", path.join("::")));
        }
    }
    assert!(upward.is_empty(), "imports that run upwards:\n{}", upward.join("\n"));
}

/// `crate::module::file::Item` names a file inside another module; its `mod.rs` says what it offers.
#[test]
fn no_module_reaches_into_another() {
    let mut inside = Vec::new();
    for (file, path) in crate_paths() {
        let [module, part, ..] = &path[..] else { continue };
        let folder = root().join("src").join(module);
        let is_private = folder.join(format!("{part}.rs")).exists() || folder.join(part).is_dir();
        let is_public = ["presets", "random", "redis"].contains(&part.as_str());
        if *module != module_of(&file) && is_private && !is_public {
            inside.push(format!("{file}: crate::{}", path.join("::")));
        }
    }
    assert!(inside.is_empty(), "paths into other modules' files:\n{}", inside.join("\n"));
}

/// The files of the engine form no circle.
#[test]
fn the_engine_has_no_circle() {
    let folder = root().join("src/engine");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in rust_files(&folder) {
        let Some(name) = part_of(&folder, &file) else { continue };
        let text = product_code(&fs::read_to_string(&file).unwrap());
        let of = uses.entry(name.clone()).or_default();
        for prefix in ["super::", "crate::engine::"] {
            for rest in text.split(prefix).skip(1) {
                let part: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let is_file = folder.join(format!("{part}.rs")).exists() || folder.join(&part).is_dir();
                if is_file && part != name {
                    of.insert(part);
                }
            }
        }
    }
    // Take away what uses nothing that is left, until nothing is left or a circle is.
    while let Some(done) = uses.iter().find(|(_, of)| of.iter().all(|part| !uses.contains_key(part))) {
        let done = done.0.clone();
        uses.remove(&done);
    }
    assert!(uses.is_empty(), "a circle among: {uses:?}");
}

/// The feature `full` is what the name says, but for the one that needs a library of the system.
#[test]
fn full_is_every_feature_but_native_tls() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let text: String = section.lines().filter(|line| !line.starts_with('#')).collect();
    let features: BTreeMap<_, BTreeSet<_>> = text
        .split_inclusive(']')
        .filter_map(|feature| feature.split_once(" = "))
        .map(|(name, on)| (name.trim(), on.split('"').skip(1).step_by(2).collect()))
        .collect();
    let mut on = BTreeSet::from(["full"]);
    loop {
        let more: BTreeSet<_> = on.iter().filter_map(|name| features.get(name)).flatten().copied().collect();
        if more.is_subset(&on) {
            break;
        }
        on.extend(more);
    }
    let off: Vec<_> = features.keys().filter(|name| !on.contains(*name)).collect();
    assert_eq!(off, [&"default", &"native-tls"]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn level(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}

/// `src/engine/cell.rs` is of `engine`; `lib.rs` of none.
fn module_of(file: &str) -> String {
    file.split('/').nth(1).filter(|part| !part.ends_with(".rs")).unwrap_or_default().to_owned()
}

/// The file or folder right below `folder` in which `file` is; `mod.rs` is none.
fn part_of(folder: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(folder).ok()?.components().next()?;
    let name = first.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    (name != "mod" && name != "tests").then_some(name)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Without comments (links in documentation may lead anywhere) and without the unit tests at the end.
fn product_code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every `crate::a::b` of the product's code, also inside of braces: the file and the path's parts.
fn crate_paths() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for file in rust_files(&root().join("src")) {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if name.contains("/tests/") || name.ends_with("/tests.rs") || module_of(&name) == APART {
            continue;
        }
        let text = product_code(&fs::read_to_string(&file).unwrap());
        for rest in text.split("crate::").skip(1) {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let path: Vec<_> = rest[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            if path.first().is_some_and(|first| first.starts_with(|c: char| c.is_lowercase())) {
                found.push((name.clone(), path));
            }
        }
    }
    assert!(found.len() > 100, "the paths are found at all");
    found
}
