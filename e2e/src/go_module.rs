//! Files of Go modules, which the module proxy keeps: definitions that others bring to a cluster.

use anyhow::Context;
use std::path::PathBuf;
use std::process::Command;

/// Where the files of a module are, as `example.org/module@v1.2.3`; it is fetched the first time.
///
/// # Errors
/// Where there is no Go, or the module cannot be fetched.
pub fn directory(module: &str) -> anyhow::Result<PathBuf> {
    let output =
        Command::new("go").args(["mod", "download", "-json", module]).current_dir("/").output().context("go")?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| module.to_owned())?;
    let directory = said["Dir"].as_str().with_context(|| format!("{module}: {}", said["Error"]))?;
    Ok(directory.into())
}
