//! `meshctl completion` and `meshctl man`: what a shell and `man` need, made of the tree of commands.

use crate::output;
use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use std::path::PathBuf;

/// `meshctl completion`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionArgs {
    /// Shell to write it for.
    #[arg(value_enum)]
    shell: Shell,
}

/// `meshctl man`.
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// Where the pages are written, such as /usr/local/share/man/man1.
    directory: PathBuf,
}

/// Writes the completion of a shell to standard output.
///
/// # Errors
/// Where that is closed.
pub fn complete(args: &CompletionArgs, mut tree: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree, "meshctl", &mut script);
    output::say_bytes(&script)
}

/// Writes a page for each command that is not hidden.
///
/// # Errors
/// Where the directory cannot be made or written to.
pub fn write(args: &ManArgs, tree: Command) -> anyhow::Result<()> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(tree, directory).with_context(|| format!("cannot write to {}", directory.display()))
}
