//! What the tests of this crate share.
//!
//! - [`proxies`]: real Envoy and our proxy, started from one bootstrap
//! - [`app`]: an upstream that says what it received
//! - [`client`]: requests as raw text, answers taken apart
//! - [`cluster`]: real Kubernetes, made and removed by the scripts of `e2e/kube`
//! - [`helm`]: the real helm, on a cluster
//! - [`go_module`]: files that others publish as Go modules
//! - [`fortio`]: the load tool that ours is measured against
//! - [`python_ads`]: an ADS server by other people's code
//! - [`tokens`]: issuers of tokens for end users
//! - [`grpc_peer`]: gRPC clients and servers by other people's code that speak xDS themselves
//! - the sources of the workspace, for the tests that keep its shape (`tests/architecture.rs`, `tests/tidy.rs`)

pub mod app;
pub mod client;
pub mod cluster;
pub mod fortio;
pub mod go_module;
pub mod grpc_peer;
pub mod helm;
pub mod proxies;
pub mod python_ads;
pub mod tokens;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// A program of the workspace, beside the test binary: target/<profile>/deps/<test> → target/<profile>/<name>. All are
/// built if one is missing.
///
/// # Errors
/// Where building fails.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.ancestors().nth(2).unwrap_or_else(|| Path::new(".")).to_owned();
    let missing =
        ["meshctl", "citadel", "pilot", "mixer", "proxy", "bookshop"].iter().any(|name| !directory.join(name).exists());
    if missing {
        let arguments = ["build", "--workspace", "--bins"];
        let status = std::process::Command::new("cargo").args(arguments).current_dir(root()).status()?;
        anyhow::ensure!(status.success(), "cargo build --workspace --bins failed");
    }
    Ok(directory.join(name))
}

/// All Rust files below a directory of the workspace, by path from the root, with their text.
///
/// # Errors
/// What the system says.
pub fn sources(directory: &str) -> std::io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let children = std::fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            pending.extend(children.into_iter().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((relative(&path), std::fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).map(PathBuf::from).unwrap_or_default().display().to_string()
}

/// The text of a file without its unit tests at the foot.
pub fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]").map_or(text, |(code, _)| code)
}
