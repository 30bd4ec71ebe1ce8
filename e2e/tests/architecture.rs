//! The arrows between crates and the floors of folders, as the design has them.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What each crate may import of ours (design, section 5).
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("identity", &["proto"]),
    ("credentials", &["proto", "identity"]),
    ("vitals", &["proto"]),
    ("outline", &[]),
    ("proxy", &["proto", "identity", "credentials"]),
    ("istio-cni", &[]),
    ("citadel", &["proto", "identity", "credentials", "vitals"]),
    ("pilot", &["proto", "identity", "credentials", "vitals", "outline"]),
    ("mixer", &["proto", "identity", "credentials", "vitals", "outline"]),
    ("meshctl", &["proto", "identity", "pilot", "citadel"]),
    ("bookshop", &[]),
    ("hairpin", &[]),
    ("e2e", &["proto", "identity", "credentials", "vitals", "proxy", "citadel", "pilot", "mixer", "meshctl"]),
];

/// Crates that only some of ours may use, in what they ship.
const RESERVED: &[(&str, &[&str])] = &[
    ("rcgen", &["citadel", "e2e"]),
    ("kube", &["pilot", "citadel", "credentials", "meshctl"]),
    ("k8s-openapi", &["pilot", "citadel", "meshctl"]),
    ("hickory-proto", &["proxy"]),
    ("tokio", &["proxy", "citadel", "credentials", "pilot", "mixer", "vitals", "meshctl", "bookshop", "e2e"]),
    ("prost-reflect", &["proto"]),
];

/// Crates that must not be in the tree at all, and crates of which there is one version.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "serde_yaml"];
const SINGLE: &[&str] =
    &["tokio", "hyper", "http", "h2", "tonic", "prost", "rustls", "rustls-webpki", "aws-lc-rs", "kube"];

/// The floors of proxy's folders: a folder imports only what stands below it.
const PROXY_FLOORS: &[(u8, &[&str])] = &[
    (12, &["server", "explain", "agent"]),
    (11, &["publish"]),
    (10, &["worker"]),
    (9, &["listener"]),
    (8, &["http", "tcp"]),
    (7, &["filter"]),
    (6, &["upstream"]),
    (5, &["cluster"]),
    (4, &["balancer", "pool", "xds", "node"]),
    (3, &["endpoint", "route", "codec", "tls", "telemetry"]),
    (2, &["message", "net", "drain"]),
    (1, &["outcome", "env", "bootstrap", "refusal", "dns", "redirect"]),
];

/// The floors of pilot's folders.
const PILOT_FLOORS: &[(u8, &[&str])] = &[
    (7, &["args", "server"]),
    (6, &["ads", "admission", "status", "trust"]),
    (5, &["delivery", "inject"]),
    (4, &["translate"]),
    (3, &["model"]),
    (2, &["registry"]),
    (1, &["source"]),
];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(e2e::root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Crates that check no tokens, and so know no API server: they take `credentials` without its feature (ADR 0008).
const WITHOUT_TOKENS: &[&str] = &["proxy", "mixer"];

/// Crate → its direct dependencies that are shipped.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let shipped = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let name = package["name"].as_str().unwrap();
        let tokens =
            |d: &&serde_json::Value| d["name"] == "credentials" && d["features"].to_string().contains("tokens");
        let checks = shipped.clone().any(|d| tokens(&d));
        assert!(!(checks && WITHOUT_TOKENS.contains(&name)), "{name} must not check tokens");
        let names = shipped.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
        found.insert(package["name"].as_str().unwrap().to_owned(), names);
    }
    found
}

#[test]
fn crates_import_only_what_they_may() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, dependencies) in dependencies() {
        let (_, allowed) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name).unwrap_or_else(|| {
            panic!("crate {name} is not in the table of arrows: add it to the design and to this test")
        });
        for dependency in dependencies.iter().filter(|d| ours.contains(d.as_str())) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
        for (reserved, users) in RESERVED {
            let uses = dependencies.contains(*reserved);
            assert!(!uses || users.contains(&name.as_str()), "{name} must not use {reserved}: it is for {users:?}");
        }
    }
}

#[test]
fn banned_crates_are_absent_and_important_ones_single() {
    let tree = cargo(&["tree", "--workspace", "-e", "normal", "--prefix", "none", "--offline"]);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    assert!(versions.contains_key("tokio"), "the tree was read");
    for banned in BANNED {
        assert!(
            !versions.contains_key(banned),
            "{banned} must not be in the tree: cargo tree -i {banned} says why it is"
        );
    }
    for single in SINGLE {
        let count = versions.get(single).map_or(0, BTreeSet::len);
        assert!(count <= 1, "{single} is there in several versions: {:?}", versions.get(single));
    }
}

/// (folder of the file, folder that it imports, file)
fn imports(component: &str) -> Vec<(String, String, String)> {
    let prefix = format!("{component}/src/");
    let mut found = Vec::new();
    for (path, text) in e2e::sources(&prefix).unwrap() {
        let Some(inner) = path.strip_prefix(&prefix) else { continue };
        let own = inner.split(['/', '.']).next().unwrap_or_default().to_owned();
        for line in e2e::without_tests(&text).lines() {
            for part in line.split("crate::").skip(1).filter(|_| !line.trim_start().starts_with("//")) {
                let target: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                found.push((own.clone(), target, path.clone()));
            }
        }
    }
    found
}

fn check_floors(component: &str, floors: &[(u8, &[&str])]) {
    let floor = |folder: &str| floors.iter().find(|(_, folders)| folders.contains(&folder)).map(|(floor, _)| *floor);
    let imports = imports(component);
    let pairs: BTreeSet<(&str, &str)> = imports.iter().map(|(from, to, _)| (from.as_str(), to.as_str())).collect();
    let mut wrong = Vec::new();
    for (from, to, file) in imports.iter().filter(|(from, to, _)| from != to) {
        let (Some(from_floor), Some(to_floor)) = (floor(from), floor(to)) else { continue };
        // Neighbours on one floor may look at each other in one direction only.
        if from_floor < to_floor || (from_floor == to_floor && pairs.contains(&(to.as_str(), from.as_str()))) {
            wrong.push(format!("{file}: {from} (floor {from_floor}) imports {to} (floor {to_floor})"));
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn folders_of_the_proxy_import_only_downwards() {
    check_floors("proxy", PROXY_FLOORS);
}

#[test]
fn folders_of_pilot_import_only_downwards() {
    check_floors("pilot", PILOT_FLOORS);
}

#[test]
fn every_folder_stands_on_a_floor() {
    for (component, floors) in [("proxy", PROXY_FLOORS), ("pilot", PILOT_FLOORS)] {
        let known: BTreeSet<&str> = floors.iter().flat_map(|(_, folders)| folders.iter().copied()).collect();
        for entry in std::fs::read_dir(e2e::root().join(component).join("src")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let placed = known.contains(name.as_str()) || ["lib", "main"].contains(&name.as_str());
            assert!(placed, "{} stands on no floor: add it to the design and to this test", path.display());
        }
    }
}

#[test]
fn pilots_translation_knows_neither_tokio_nor_kube() {
    for folder in ["translate", "model", "registry"] {
        for (path, text) in e2e::sources(&format!("pilot/src/{folder}")).unwrap() {
            for name in ["tokio::", "kube::", "k8s_openapi::"] {
                assert!(!e2e::without_tests(&text).contains(name), "{path} uses {name}");
            }
        }
    }
}
