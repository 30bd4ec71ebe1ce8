//! The real Fortio, and the reader of results made of Fortio's own code.

use anyhow::Context;
use std::path::PathBuf;
use std::process::Command;

/// The newest version that has no scripting language among its modules.
const MODULE: &str = "fortio.org/fortio@v1.68.2";

/// Fortio, built by Go below the user's cache; fetched once.
///
/// # Errors
/// Where Go or its module proxy is missing.
pub fn fetch_fortio() -> anyhow::Result<PathBuf> {
    built("fortio", |command, _| command.args(["install", MODULE]))
}

/// `e2e/conformance/fortio`: reads results with Fortio's own types and checks their numbers.
///
/// # Errors
/// As [`fetch_fortio`].
pub fn fetch_reader() -> anyhow::Result<PathBuf> {
    built("fortio-reader", |command, program| {
        command.current_dir(crate::root().join("e2e/conformance/fortio")).args(["build", "-o", program, "."])
    })
}

fn built(name: &str, arguments: for<'a> fn(&'a mut Command, &str) -> &'a mut Command) -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory")?;
    let cache = home.join(".cache/ferromesh/bin");
    std::fs::create_dir_all(&cache)?;
    // Where several ask at once, one builds and the others wait.
    let turn = std::fs::File::create(cache.join(format!("{name}.lock")))?;
    turn.lock()?;
    let program = cache.join(name);
    if program.exists() {
        return Ok(program);
    }
    let mut command = Command::new("go");
    // the binary needs no version of a repository in it
    command.env("GOBIN", &cache).env("GOFLAGS", "-buildvcs=false");
    let path = program.to_str().context("the home directory's name is no text")?;
    let status = arguments(&mut command, path).status().context("cannot run go: install Go 1.23 or newer")?;
    anyhow::ensure!(status.success(), "go cannot build {name}");
    anyhow::ensure!(program.exists(), "go built no {name}");
    Ok(program)
}
