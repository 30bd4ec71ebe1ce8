//! The real helm, on a cluster.

use crate::cluster::Cluster;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which helm.
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.18.6";

/// Helm for one cluster; what it keeps for itself lies in `directory`, where paths of charts begin too.
#[derive(Debug)]
pub struct Helm<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Where it works.
    pub directory: &'a Path,
}

impl Helm<'_> {
    /// Runs helm and returns what it prints.
    ///
    /// # Errors
    /// What it says on its standard error; where it cannot be built.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut helm = Command::new(program()?);
        helm.args(arguments).arg("--kubeconfig").arg(self.cluster.kubeconfig()).current_dir(self.directory);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(name, self.directory);
        }
        let output = helm.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "helm {arguments:?}: {text}{error}");
        Ok(text)
    }
}

/// The program, built once from its Go module.
fn program() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory")?;
    let directory = home.join(".cache/ferromesh/helm");
    let program = directory.join("helm");
    if !program.exists() {
        let mut go = Command::new("go");
        go.args(["install", "-trimpath", "-ldflags", "-s -w", HELM]).env("GOBIN", &directory).env("CGO_ENABLED", "0");
        anyhow::ensure!(go.current_dir("/").status()?.success(), "go install {HELM}");
    }
    Ok(program)
}
