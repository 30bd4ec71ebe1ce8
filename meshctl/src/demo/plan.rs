//! The plan of the demo: who runs where, under which name and address, and the objects that tell pilot so. Pure.

use crate::demo::netns::Namespace;
use crate::demo::process::prefix;
use crate::demo::rootless;
use identity::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Port of every service of the bookshop.
pub const SHOP_PORT: u16 = 9080;
/// Port on which the gateway's pod listens.
pub const GATEWAY_PORT: u16 = 8080;
/// Port of pilot's debug pages.
pub const PILOT_HTTP: u16 = 8080;
/// Port of mixer's gRPC services.
pub const MIXER_GRPC: u16 = 9091;
/// Port of mixer's page.
pub const MIXER_HTTP: u16 = 8081;
/// Port of mixer's own metrics and Istio's families for Prometheus.
pub const MIXER_MONITORING: u16 = 15015;
/// Last byte of the cluster address of mixer's service.
const MIXER_BYTE: u8 = 30;

/// What runs as sidecars and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DataPlane {
    /// Our own proxy.
    #[default]
    Ferromesh,
    /// Real Envoys under our pilot.
    Envoy,
    /// Both: every call goes from one kind to the other.
    Mixed,
}

/// What stands beside the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// A sidecar with captured traffic.
    Sidecar,
    /// The proxy is the workload: an ingress gateway.
    Gateway,
    /// Nothing: a workload outside the mesh.
    None,
}

/// One pod of the demo: a network namespace with an address.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Name, such as `reviews-v1`.
    pub name: &'static str,
    /// Label `app`; the role of the bookshop where there is one.
    pub app: &'static str,
    /// Label `version`.
    pub version: &'static str,
    /// Kubernetes namespace.
    pub kube_namespace: &'static str,
    /// Service account.
    pub account: &'static str,
    /// What stands beside it.
    pub proxy: Proxy,
    /// Whether a bookshop process runs in it.
    pub runs_shop: bool,
    /// Its addresses.
    pub v4: Ipv4Addr,
    /// Its addresses.
    pub v6: Ipv6Addr,
}

/// Hash of the demo's only template of each Deployment.
const TEMPLATE_HASH: &str = "5d4f8c7b9";

/// (workload, app, version, namespace, account, proxy, runs a shop)
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, Proxy, bool);

const WORKLOADS: &[Row] = &[
    ("productpage-v1", "productpage", "v1", "default", "bookinfo-productpage", Proxy::Sidecar, true),
    ("details-v1", "details", "v1", "default", "bookinfo-details", Proxy::Sidecar, true),
    ("reviews-v1", "reviews", "v1", "default", "bookinfo-reviews", Proxy::Sidecar, true),
    ("reviews-v2", "reviews", "v2", "default", "bookinfo-reviews", Proxy::Sidecar, true),
    ("reviews-v3", "reviews", "v3", "default", "bookinfo-reviews", Proxy::Sidecar, true),
    ("ratings-v1", "ratings", "v1", "default", "bookinfo-ratings", Proxy::Sidecar, true),
    ("shopper", "shopper", "v1", "default", "bookinfo-shopper", Proxy::Sidecar, false),
    ("stranger", "stranger", "v1", "legacy", "default", Proxy::None, false),
    ("gateway", "istio-ingressgateway", "v1", "istio-system", "istio-ingressgateway", Proxy::Gateway, false),
];

/// (service, namespace, label app, port, target port, last byte of its cluster address)
const SERVICES: &[(&str, &str, &str, u16, u16, u8)] = &[
    ("productpage", "default", "productpage", SHOP_PORT, SHOP_PORT, 11),
    ("details", "default", "details", SHOP_PORT, SHOP_PORT, 12),
    ("reviews", "default", "reviews", SHOP_PORT, SHOP_PORT, 13),
    ("ratings", "default", "ratings", SHOP_PORT, SHOP_PORT, 14),
    ("istio-ingressgateway", "istio-system", "istio-ingressgateway", 80, GATEWAY_PORT, 20),
];

/// The whole demo on paper.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the demo; several may run beside each other.
    pub name: String,
    /// Directory for everything it writes.
    pub directory: PathBuf,
    /// Whether everything runs as one user; a mark tells the proxies' traffic then.
    pub one_user: bool,
    /// What runs as proxies.
    pub data_plane: DataPlane,
    /// The pods.
    pub workloads: Vec<Workload>,
}

impl Plan {
    /// The demo of that name.
    pub fn new(name: &str, data_plane: DataPlane) -> Self {
        let pod = |(index, row): (usize, &Row)| {
            let byte = u8::try_from(index + 1).unwrap_or(u8::MAX);
            Workload {
                name: row.0,
                app: row.1,
                version: row.2,
                kube_namespace: row.3,
                account: row.4,
                proxy: row.5,
                runs_shop: row.6,
                v4: Ipv4Addr::new(10, 44, 1, byte),
                v6: Ipv6Addr::new(0xfd44, 0, 0, 1, 0, 0, 0, u16::from(byte)),
            }
        };
        Self {
            name: name.to_owned(),
            directory: rootless::base().join(name),
            one_user: rootless::user().is_some(),
            data_plane,
            workloads: WORKLOADS.iter().enumerate().map(pod).collect(),
        }
    }

    /// The namespace that holds the bridge and the control plane.
    pub fn fabric(&self) -> Namespace {
        Namespace::named(format!("{}fabric", prefix(&self.name)))
    }

    /// The namespace of a workload.
    pub fn namespace(&self, workload: &Workload) -> Namespace {
        Namespace::named(format!("{}{}", prefix(&self.name), workload.name))
    }

    /// A workload by name.
    ///
    /// # Errors
    /// Where there is none of that name; the text lists those that exist.
    pub fn workload(&self, name: &str) -> anyhow::Result<&Workload> {
        let names = || self.workloads.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
        let found = self.workloads.iter().find(|w| w.name == name);
        found.ok_or_else(|| anyhow::anyhow!("no workload {name:?}: there are {}", names()))
    }

    /// Where pilot and citadel are reached.
    pub fn control_address() -> Ipv4Addr {
        Ipv4Addr::new(10, 44, 0, 1)
    }

    /// Whether a real Envoy stands beside this workload. In a mixed mesh productpage, shopper and ratings have Envoys,
    /// what they call and what calls ratings has our proxy.
    pub fn has_envoy(&self, workload: &Workload) -> bool {
        match self.data_plane {
            DataPlane::Ferromesh => false,
            DataPlane::Envoy => true,
            DataPlane::Mixed => matches!(workload.app, "productpage" | "shopper" | "ratings"),
        }
    }

    /// A file or directory below the demo's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Directory of one workload's proxy.
    pub fn proxy_directory(&self, workload: &Workload) -> PathBuf {
        self.directory.join("workload").join(workload.name)
    }

    /// Log of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.directory.join("log").join(format!("{process}.log"))
    }

    /// Cluster address of a service.
    pub fn service(name: &str) -> Option<SocketAddr> {
        let row = SERVICES.iter().find(|row| row.0 == name)?;
        Some(SocketAddr::new(IpAddr::V4(cluster_v4(row.5)), row.3))
    }

    /// Lines for /etc/hosts with all services: for Envoys, beside which no DNS server answers from the name table.
    pub fn hosts() -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, namespace, .., byte) in SERVICES {
            text.push_str(&format!(
                "{} {name} {name}.{namespace} {name}.{namespace}.svc.cluster.local\n",
                cluster_v4(*byte)
            ));
        }
        text
    }

    /// Input of `ip -batch` for the fabric: a bridge with a cable to each workload.
    pub fn fabric_links(&self) -> String {
        let mut lines = "link set lo up\nlink add br0 type bridge\nlink set br0 up\naddr add 10.44.0.1/16 dev br0\n\
                         addr add fd44::1/16 dev br0 nodad\n"
            .to_owned();
        for (index, workload) in self.workloads.iter().enumerate() {
            let namespace = self.namespace(workload);
            lines.push_str(&format!(
                "link add v{index} type veth peer name eth0 netns {}\nlink set v{index} master br0\nlink set v{index} up\n",
                namespace.name()
            ));
        }
        lines
    }

    /// Objects that describe the pods and services, as `kubectl get -o yaml` would.
    pub fn objects(&self) -> Value {
        let mut items = Vec::new();
        for namespace in ["default", "legacy", "istio-system"] {
            let labels = json!({"kubernetes.io/metadata.name": namespace});
            items.push(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
            );
        }
        for row in SERVICES {
            let pods: Vec<&Workload> = self.workloads.iter().filter(|w| w.app == row.2).collect();
            items.push(service(row));
            items.push(endpoint_slice(row, &pods));
        }
        items.extend(mixer_objects());
        items.extend(self.workloads.iter().map(Workload::pod));
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }
}

impl Workload {
    /// Input of `ip -batch` for its own namespace.
    pub fn links(&self) -> String {
        let (v4, v6) = (self.v4, self.v6);
        format!(
            "link set lo up\nlink set eth0 up\naddr add {v4}/16 dev eth0\naddr add {v6}/16 dev eth0 nodad\n\
             route add default via 10.44.0.1\nroute add default via fd44::1\n"
        )
    }

    /// Who it is.
    ///
    /// # Errors
    /// Never for the names of this plan.
    pub fn identity(&self, domain: &TrustDomain) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::service_account(domain, self.kube_namespace, self.account)
    }

    /// Its labels, as injection would set them.
    pub fn labels(&self) -> Value {
        let mut labels = json!({
            "app": self.app,
            "version": self.version,
            "service.istio.io/canonical-name": self.app,
            "service.istio.io/canonical-revision": self.version,
        });
        if self.proxy != Proxy::None {
            labels["security.istio.io/tlsMode"] = json!("istio");
        }
        if self.proxy == Proxy::Gateway {
            labels["istio"] = json!("ingressgateway");
        }
        labels
    }

    /// Name of its pod.
    pub fn pod_name(&self) -> String {
        format!("{}-0", self.name)
    }

    /// As Kubernetes has it: a Deployment of the workload's name, whose ReplicaSet owns the pod.
    fn pod(&self) -> Value {
        let mut labels = self.labels();
        labels["pod-template-hash"] = json!(TEMPLATE_HASH);
        let set = format!("{}-{TEMPLATE_HASH}", self.name);
        // An API server takes no owner without a uid; any text will do.
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true});
        let port = if self.proxy == Proxy::Gateway { GATEWAY_PORT } else { SHOP_PORT };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.pod_name(), "namespace": self.kube_namespace, "labels": labels, "ownerReferences": [owner],
            },
            "spec": {
                "serviceAccountName": self.account, "nodeName": "this-machine",
                "containers": [{"name": self.app, "image": "bookshop", "ports": [{"containerPort": port, "name": "http"}]}],
            },
            "status": {
                "phase": "Running", "podIP": self.v4.to_string(),
                "podIPs": [{"ip": self.v4.to_string()}, {"ip": self.v6.to_string()}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }
}

fn cluster_v4(byte: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, byte)
}

fn service((name, namespace, app, port, target, byte): &(&str, &str, &str, u16, u16, u8)) -> Value {
    let address = cluster_v4(*byte).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": app},
            "ports": [{"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}],
        },
    })
}

fn endpoint_slice(row: &(&str, &str, &str, u16, u16, u8), pods: &[&Workload]) -> Value {
    let (name, namespace, _, _, target, _) = row;
    let endpoint = |pod: &&Workload| {
        json!({
            "addresses": [pod.v4.to_string()], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "this-machine",
            "targetRef": {"kind": "Pod", "name": pod.pod_name(), "namespace": pod.kube_namespace},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-ipv4"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": target, "protocol": "TCP"}],
    })
}

/// mixer's service account.
pub const MIXER_ACCOUNT: &str = "mixer";

/// mixer as a service of the mesh: it runs beside pilot, and has a certificate of its own.
fn mixer_objects() -> [Value; 3] {
    let address = cluster_v4(MIXER_BYTE).to_string();
    let meta = |name: &str, labels: Value| json!({"name": name, "namespace": "istio-system", "labels": labels});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta("mixer", json!({"app": "mixer"})),
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "grpc", "port": MIXER_GRPC, "targetPort": MIXER_GRPC, "protocol": "TCP"}],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": meta("mixer-ipv4", json!({"kubernetes.io/service-name": "mixer"})),
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [Plan::control_address().to_string()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "mixer-0", "namespace": "istio-system"},
        }],
        "ports": [{"name": "grpc", "port": MIXER_GRPC, "protocol": "TCP"}],
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": meta("mixer-0", json!({"app": "mixer", "security.istio.io/tlsMode": "istio"})),
        "spec": {
            "serviceAccountName": MIXER_ACCOUNT, "nodeName": "this-machine",
            "containers": [{"name": "mixer", "image": "mixer", "ports": [{"containerPort": MIXER_GRPC, "name": "grpc"}]}],
        },
        "status": {
            "phase": "Running", "podIP": Plan::control_address().to_string(),
            "podIPs": [{"ip": Plan::control_address().to_string()}],
        },
    });
    [service, slice, pod]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pod_has_addresses_and_an_identity_of_its_own_kind() {
        let plan = Plan::new("t", DataPlane::Envoy);
        let addresses: HashSet<_> = plan.workloads.iter().map(|w| w.v4).collect();
        assert_eq!(addresses.len(), plan.workloads.len());
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let reviews = plan.workload("reviews-v2").unwrap();
        assert_eq!(
            reviews.identity(&domain).unwrap().as_str(),
            "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
        );
        assert!(plan.workload("x").unwrap_err().to_string().contains("there are productpage-v1"));
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let plan = Plan::new("a-rather-long-name", DataPlane::Envoy);
        for line in plan.fabric_links().lines().filter(|line| line.starts_with("link add v")) {
            assert!(line.split(' ').nth(2).unwrap().len() <= 15);
        }
    }

    #[test]
    fn in_a_mixed_mesh_every_call_crosses() {
        let plan = Plan::new("t", DataPlane::Mixed);
        let envoy = |name: &str| plan.has_envoy(plan.workload(name).unwrap());
        for (from, to) in [
            ("gateway", "productpage-v1"),
            ("productpage-v1", "details-v1"),
            ("productpage-v1", "reviews-v2"),
            ("reviews-v3", "ratings-v1"),
            ("shopper", "reviews-v1"),
            ("shopper", "details-v1"),
        ] {
            assert_ne!(envoy(from), envoy(to), "{from} → {to}");
        }
    }

    #[test]
    fn objects_are_complete() {
        let objects = Plan::new("t", DataPlane::Envoy).objects();
        let items = objects["items"].as_array().unwrap();
        let of = |kind: &str| items.iter().filter(|item| item["kind"] == kind).count();
        assert_eq!(
            (of("Service"), of("EndpointSlice"), of("Pod"), of("Namespace")),
            (6, 6, 10, 3),
            "mixer has a pod too"
        );
        let slice = items.iter().find(|item| item["metadata"]["name"] == "reviews-ipv4").unwrap();
        assert_eq!(slice["endpoints"].as_array().unwrap().len(), 3);
        assert_eq!(slice["endpoints"][0]["addresses"][0], "10.44.1.3");
    }
}
