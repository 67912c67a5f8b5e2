//! Who may use whom. ARCHITECTURE.md says why.

use std::collections::BTreeMap;

use crate::support::program::{repository, tool};

/// Every crate of the house, and the others of the house that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("content", &[]),
    ("oci", &["content"]),
    ("spec", &[]),
    ("debian", &["content"]),
    ("layer", &["content"]),
    ("sandbox", &["layer"]),
    ("store", &["content", "oci"]),
    ("registry-server", &["content", "oci", "store"]),
    ("registry-client", &["content", "oci"]),
    ("fixtures", &["content"]),
    (
        "drystone",
        // `fixtures` for the stand-ins, which a family may use like any other archive.
        &[
            "content",
            "debian",
            "fixtures",
            "layer",
            "oci",
            "registry-client",
            "registry-server",
            "sandbox",
            "spec",
            "store",
        ],
    ),
];

#[test]
fn crates_use_only_those_below_them() {
    let house = crates();
    for (name, uses) in &house {
        let rule = ALLOWED.iter().find(|(known, _)| known == name);
        let (_, allowed) =
            rule.unwrap_or_else(|| panic!("`{name}` is new: say in tests/architecture.rs whom it may use"));
        for used in uses {
            assert!(allowed.contains(&used.as_str()), "`{name}` must not use `{used}`: see ARCHITECTURE.md");
        }
    }
    for (name, _) in ALLOWED {
        assert!(house.contains_key(*name), "`{name}` is gone: take it out of tests/architecture.rs");
    }
}

#[test]
fn libraries_that_read_text_open_no_sockets() {
    let metadata = metadata();
    for name in ["debian", "spec", "layer", "content", "oci"] {
        for used in dependencies(&metadata, name) {
            let forbidden = ["reqwest", "hyper", "tokio", "axum"].contains(&used.as_str());
            assert!(!forbidden, "`{name}` must not use `{used}`: it opens no sockets");
        }
    }
}

/// The crates of the house, and which of the house each uses outside of tests.
fn crates() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let names: Vec<String> = packages(&metadata).iter().map(|package| text(&package["name"])).collect();
    let of_house = |name: &String| {
        let uses = dependencies(&metadata, name).into_iter().filter(|used| names.contains(used)).collect();
        (name.clone(), uses)
    };
    names.iter().map(of_house).collect()
}

fn metadata() -> serde_json::Value {
    let manifest = repository().join("Cargo.toml");
    let manifest = manifest.to_str().expect("the repository's path is UTF-8");
    let printed = tool(env!("CARGO"), ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
    serde_json::from_str(&printed).expect("cargo metadata prints JSON")
}

fn packages(metadata: &serde_json::Value) -> &[serde_json::Value] {
    metadata["packages"].as_array().expect("cargo metadata lists packages")
}

fn dependencies(metadata: &serde_json::Value, name: &str) -> Vec<String> {
    let package = packages(metadata).iter().find(|package| package["name"] == name).expect("the crate exists");
    let all = package["dependencies"].as_array().expect("a package has dependencies");
    all.iter().filter(|used| used["kind"].is_null()).map(|used| text(&used["name"])).collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a name is a string").to_owned()
}
