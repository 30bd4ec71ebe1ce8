//! Endpoints of a service, whatever declared them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of places, which nobody has to write: what is known of an endpoint and of a client stands for them.
pub const LABEL_NETWORK: &str = "topology.istio.io/network";
/// Region.
pub const LABEL_REGION: &str = "topology.kubernetes.io/region";
/// Zone.
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// Part of a zone.
pub const LABEL_SUB_ZONE: &str = "topology.istio.io/subzone";
/// Node.
pub const LABEL_NODE: &str = "kubernetes.io/hostname";

/// Where an endpoint runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Part of a zone.
    pub sub_zone: String,
}

impl Locality {
    /// Parses `region/zone/sub_zone`, of which the later parts may be absent; `.` may stand for `/` in labels.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }
}

/// What its registry says about the health of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Health {
    /// It takes traffic.
    Healthy,
    /// Nothing is reported.
    Unknown,
    /// It takes none; kept only so that its own proxy knows its services.
    NotReady,
}

/// One address and port of a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Endpoint {
    /// IP, or a name for services resolved by DNS.
    pub address: String,
    /// Port at that address.
    pub port: u16,
    /// Number of the service's port that it serves.
    pub service_port: u16,
    /// Labels of the workload.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload; empty if it has none.
    pub service_account: String,
    /// Where it runs.
    pub locality: Locality,
    /// Node that it runs on; empty where none is known.
    pub node: String,
    /// Share of traffic, at least 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// Whether it accepts mesh mTLS (label `security.istio.io/tlsMode=istio`, or a WorkloadEntry's account).
    pub mesh_tls: bool,
    /// `workload;namespace;canonical-name;canonical-revision;cluster` (MD-5).
    pub workload: String,
    /// Host name of its own below a headless service.
    pub hostname: String,
}

/// The endpoints of one service, in a stable order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct EndpointSet {
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// SPIFFE ids of the service accounts behind it in each trust domain, sorted (MT-6, CA-7).
    pub identities: Vec<String>,
}

impl EndpointSet {
    /// A set with its identities computed. Of endpoints at one address and port one that takes traffic stays.
    pub fn new(mut endpoints: Vec<Endpoint>, trust_domains: &[String]) -> Self {
        let place = |one: &Endpoint, other: &Endpoint| {
            (one.service_port, &one.address, one.port).cmp(&(other.service_port, &other.address, other.port))
        };
        endpoints.sort_by(|a, b| place(a, b).then(a.health.cmp(&b.health)));
        endpoints.dedup_by(|a, b| place(a, b).is_eq());
        let identities: std::collections::BTreeSet<String> = endpoints
            .iter()
            .filter(|endpoint| !endpoint.service_account.is_empty())
            .flat_map(|Endpoint { namespace, service_account, .. }| {
                let id = move |domain| format!("spiffe://{domain}/ns/{namespace}/sa/{service_account}");
                trust_domains.iter().map(id)
            })
            .collect();
        Self { endpoints, identities: identities.into_iter().collect() }
    }
}

/// `workload;namespace;canonical-name;canonical-revision;cluster`.
pub fn workload_text(name: &str, namespace: &str, labels: &BTreeMap<String, String>, cluster: &str) -> String {
    let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).map(String::as_str);
    let canonical = first(&[proto::wire::LABEL_CANONICAL_NAME, "app.kubernetes.io/name", "app"]).unwrap_or(name);
    let revision =
        first(&[proto::wire::LABEL_CANONICAL_REVISION, "app.kubernetes.io/version", "version"]).unwrap_or_default();
    format!("{name};{namespace};{canonical};{revision};{cluster}")
}
