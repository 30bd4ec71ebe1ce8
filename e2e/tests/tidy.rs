//! What clippy cannot see: where protobuf, clocks, locks and the environment may be used, and what folders are called.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

/// Components whose sources are looked at.
const COMPONENTS: &[&str] = &["proto", "citadel", "pilot", "mixer", "proxy", "meshctl", "e2e"];
/// Names of folders that say nothing.
const NAMELESS: &[&str] = &["common", "core", "util", "utils", "helpers", "misc", "base", "types", "manager", "impl"];
/// Folders of the proxy that run on workers.
const ON_WORKERS: &[&str] = &[
    "worker", "listener", "http", "tcp", "filter", "upstream", "cluster", "balancer", "pool", "endpoint", "route",
    "codec", "message", "net",
];

/// Lines of code that hold `needle`, by file and number; comments and unit tests aside.
fn uses(directory: &str, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in e2e::sources(directory).unwrap() {
        if path.contains("/tests") || path.ends_with("_tests.rs") {
            continue;
        }
        for (number, line) in e2e::without_tests(&text).lines().enumerate() {
            if line.contains(needle) && !line.trim_start().starts_with("//") {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    found
}

#[test]
fn no_folder_has_a_name_that_says_nothing() {
    for component in COMPONENTS.iter().filter(|component| e2e::root().join(component).exists()) {
        for (path, _) in e2e::sources(component).unwrap() {
            for part in path.split('/').filter(|part| !part.ends_with(".rs")) {
                assert!(!NAMELESS.contains(&part), "{path}: {part} is no noun with an owner");
            }
        }
    }
}

#[test]
fn protobuf_enters_the_proxy_by_its_doors() {
    // config.rs of each folder, each filter's own file (it parses its own configuration), xds, bootstrap and DNS (main thread), the registry of filters, gRPC clients.
    let doors = [
        "/config",
        "proxy/src/xds/",
        "proxy/src/bootstrap/",
        "proxy/src/dns/",
        "proxy/src/publish/",
        "proxy/src/filter/",
        "proxy/src/explain/dump.rs",
    ];
    let clients = ["registry.rs", "tls/enrol.rs", "tls/secrets.rs", "proxy/src/server/", "grpc.rs", "/ext_authz"];
    for place in uses("proxy/src", "use proto::") {
        let open = doors.iter().chain(&clients).any(|door| place.contains(door));
        let names_only = place.contains("proxy/src/redirect/") || place.contains("telemetry/");
        assert!(open || names_only, "{place}: only config.rs and xds/ read protobuf");
    }
}

#[test]
fn workers_neither_lock_nor_block_nor_look_at_the_clock() {
    for folder in ON_WORKERS {
        let directory = format!("proxy/src/{folder}");
        for needle in ["Mutex", "RwLock", "SystemTime::now()", "std::env::", "thread::sleep"] {
            let found = uses(&directory, needle);
            assert!(found.is_empty(), "{needle} on a worker: {found:?}; see proxy/src/env.rs");
        }
        // tokio's clock is virtual in tests and may be asked; the system's may not.
        for (path, text) in e2e::sources(&directory).unwrap() {
            let code = e2e::without_tests(&text);
            let system = code.contains("std::time::Instant")
                || code.lines().any(|l| l.contains("std::time::{") && l.contains("Instant"));
            assert!(
                !(system && code.replace("env::Instant::now()", "").contains("Instant::now()")),
                "{path} asks the system's clock; see proxy/src/env.rs"
            );
        }
    }
}

#[test]
fn the_environment_is_read_in_one_place() {
    let allowed = ["proxy/src/bootstrap/", "pilot/src/args.rs"];
    for component in ["proxy/src", "pilot/src", "citadel/src", "citadel/identity/src", "proto/src"] {
        for needle in ["env::var(", "env::vars(", "env::var_os(", "env::vars_os("] {
            for place in uses(component, needle) {
                assert!(allowed.iter().any(|a| place.contains(a)), "{place} reads the environment");
            }
        }
    }
}

#[test]
fn unsafe_islands_are_explained() {
    for component in COMPONENTS.iter().filter(|component| e2e::root().join(component).exists()) {
        for (path, text) in e2e::sources(component).unwrap().into_iter().filter(|(path, _)| !path.ends_with("tidy.rs"))
        {
            let islands = text.matches("unsafe {").count() + text.matches("unsafe fn").count();
            let reasons = text.matches("SAFETY:").count() + text.matches("# Safety").count();
            assert!(reasons >= islands, "{path}: {islands} unsafe islands, {reasons} explained by SAFETY:");
        }
    }
}

#[test]
fn every_mod_says_what_it_knows() {
    for component in COMPONENTS.iter().filter(|component| e2e::root().join(component).exists()) {
        for (path, text) in e2e::sources(component).unwrap() {
            if path.ends_with("/mod.rs") && path.contains("/src/") {
                assert!(text.starts_with("//!"), "{path} does not say what it knows and must never know");
            }
        }
    }
}
