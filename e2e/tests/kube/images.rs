//! Images of our programs as they are built here, on the nodes of a cluster.

use e2e::cluster::Cluster;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the programs are that go into images: what `E2E_PROGRAMS` says (`make e2e-kube`: the release), else the unoptimized
/// ones beside this test.
pub(crate) fn programs() -> PathBuf {
    let said = std::env::var_os("E2E_PROGRAMS").map(PathBuf::from);
    said.unwrap_or_else(|| e2e::program("proxy").unwrap().parent().unwrap().to_owned())
}

/// Makes images of components by `e2e/kube/images.sh`, and brings them to the nodes.
pub(crate) fn load(cluster: &Cluster, directory: &Path, components: &[&str]) {
    make(cluster, &programs(), directory, components, None);
}

/// A real Envoy as an image.
pub(crate) fn load_envoy(cluster: &Cluster, directory: &Path, envoy: &Path) {
    make(cluster, &programs(), directory, &["envoy"], Some(("ENVOY", envoy.as_os_str())));
}

/// The same of the programs of another directory, with a tag of their own instead of our version.
pub(crate) fn load_of(cluster: &Cluster, programs: &Path, directory: &Path, components: &[&str], tag: &str) {
    make(cluster, programs, directory, components, Some(("IMAGE_TAG", tag.as_ref())));
}

fn make(cluster: &Cluster, programs: &Path, directory: &Path, components: &[&str], told: Option<(&str, &OsStr)>) {
    let mut images = Command::new(e2e::root().join("e2e/kube/images.sh"));
    images.arg(programs).arg(directory).args(components).env("IMAGE_MAX_MB", "0").envs(told);
    assert!(images.stdout(Stdio::null()).status().unwrap().success());
    for name in components {
        cluster.load(&directory.join(format!("{name}.tar"))).unwrap();
    }
}
