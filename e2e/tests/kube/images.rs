//! Images of our programs as they are built here, on the nodes of a cluster.

use e2e::cluster::Cluster;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes images of components by `e2e/kube/images.sh`, and brings them to the nodes. `tags` are separated by commas; without
/// them it is our version.
pub(crate) fn load(cluster: &Cluster, directory: &Path, components: &[&str], tags: Option<&str>) {
    let programs = e2e::program("proxy").unwrap();
    let mut images = Command::new(e2e::root().join("e2e/kube/images.sh"));
    images.arg(programs.parent().unwrap()).arg(directory).args(components).env("IMAGE_MAX_MB", "0");
    if let Some(tags) = tags {
        images.env("IMAGE_TAG", tags);
    }
    assert!(images.stdout(Stdio::null()).status().unwrap().success());
    for name in components {
        cluster.load(&directory.join(format!("{name}.tar"))).unwrap();
    }
}
