//! The mesh of the scenarios: one cluster by kind of two nodes, installed once by `meshctl install`; and a fresh namespace
//! for each scenario.

use crate::images;
use e2e::cluster::Cluster;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Instant;

/// Tag of the images of this checkout, which is installed first.
pub(crate) const CURRENT: &str = env!("CARGO_PKG_VERSION");
/// Tag of the images of the programs in `E2E_PREVIOUS` (`make e2e-kube`: the commit before), or else of the same ones again.
pub(crate) const PREVIOUS: &str = "previous";

/// Where the programs of a tag are.
fn programs(tag: &str) -> std::path::PathBuf {
    let previous = std::env::var_os("E2E_PREVIOUS").filter(|_| tag == PREVIOUS);
    previous.map_or_else(images::programs, Into::into)
}

static MESH: LazyLock<Mesh> = LazyLock::new(Mesh::start);

/// A cluster with a mesh. It ends with this process.
pub(crate) struct Mesh {
    pub(crate) cluster: Cluster,
    /// Addresses of the nodes.
    pub(crate) nodes: Vec<String>,
}

impl Mesh {
    /// The one mesh; who asks first starts it.
    pub(crate) fn get() -> &'static Self {
        &MESH
    }

    #[expect(clippy::disallowed_methods, reason = "who writes tests says so to all of them at once")]
    fn start() -> Self {
        // Who writes scenarios keeps a cluster: `e2e/kube/cluster.sh up NAME 2`.
        let cluster = match std::env::var("E2E_CLUSTER") {
            Ok(name) => Cluster::existing(&name).unwrap(),
            Err(_) => Cluster::start("mesh", 2).unwrap(),
        };
        let directory = tempfile::tempdir().unwrap();
        let began = Instant::now();
        // Pods are on both nodes.
        let taint = "node-role.kubernetes.io/control-plane:NoSchedule-";
        cluster.kubectl(&["taint", "nodes", "-l", "node-role.kubernetes.io/control-plane", taint]).ok();
        images::load(&cluster, directory.path(), &["bookshop", "tools"]);
        for tag in [CURRENT, PREVIOUS] {
            let components = ["proxy", "pilot", "citadel", "mixer"];
            images::load_of(&cluster, &programs(tag), directory.path(), &components, tag);
        }
        println!("mesh: images made and loaded in {:.1} s", began.elapsed().as_secs_f64());
        let addresses = "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}";
        let nodes = cluster.kubectl(&["get", "nodes", "-o", addresses]).unwrap();
        let nodes = nodes.split(' ').map(str::to_owned).collect();
        let mesh = Self { cluster, nodes };
        print!("{}", mesh.install(CURRENT));
        mesh
    }

    /// `meshctl install` of the profile demo with images of that tag, by their own meshctl, until it is ready; what it
    /// printed.
    pub(crate) fn install(&self, tag: &str) -> String {
        self.install_with(tag, &["--set", "profile=demo"])
    }

    /// The same with other flags.
    pub(crate) fn install_with(&self, tag: &str, more: &[&str]) -> String {
        let image = format!("values.global.tag={tag}");
        let flags = ["--set", "values.global.imagePullPolicy=IfNotPresent", "--set", &image];
        self.meshctl(tag, &[&["install", "-y", "--readiness-timeout", "3m"], &flags[..], more].concat())
    }

    /// Runs the meshctl of a tag, which must be content; what it printed.
    pub(crate) fn meshctl(&self, tag: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(programs(tag).join("meshctl"));
        command.args(arguments).arg("--kubeconfig").arg(self.cluster.kubeconfig()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "meshctl {arguments:?}: {text}");
        text
    }

    /// The port of every node that leads to a port of the ingress gateway.
    pub(crate) fn gateway(&self, port: u16) -> std::net::SocketAddr {
        let of = format!("jsonpath={{.spec.ports[?(@.port=={port})].nodePort}}");
        let number = self.cluster.kubectl(&["get", "service", "istio-ingressgateway", "-n", "istio-system", "-o", &of]);
        std::net::SocketAddr::new(self.nodes[0].parse().unwrap(), number.unwrap().parse().unwrap())
    }

    /// Kills a program of a pod, as a fault does it: by signal 9, from outside.
    pub(crate) fn kill(&self, program: &str, host: &str) {
        let wanted = format!("HOSTNAME={host}");
        let mut killed = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let words = |file: &str| {
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                bytes
                    .split(|byte| *byte == 0)
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect::<Vec<_>>()
            };
            let is = words("cmdline").first().is_some_and(|path| path.rsplit('/').next() == Some(program));
            if is && words("environ").contains(&wanted) {
                let pid = entry.file_name().into_string().unwrap();
                killed += usize::from(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            }
        }
        assert_eq!(killed, 1, "{program} of {host}");
    }

    /// Name of the newest pod with a label: one that goes may be there for a while.
    pub(crate) fn pod(&self, namespace: &str, label: &str) -> String {
        let running = "--field-selector=status.phase=Running";
        let newest = ["--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[-1:].metadata.name}"];
        let of = ["get", "pods", "-n", namespace, "-l", label, running];
        self.cluster.kubectl(&[&of[..], &newest].concat()).unwrap()
    }
}
