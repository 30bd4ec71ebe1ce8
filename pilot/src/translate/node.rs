//! Who asks: the xDS node, read (NI-1, NI-2, PI-19, PI-32).

use crate::model::Mesh;
use crate::model::proxy_config::ProxyConfig;
use crate::registry::{Locality, pod};
use proto::envoy::core::Node as Wire;
use proto::envoy::wkt::value::Kind;
use proto::envoy::wkt::{Struct, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Role {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
}

/// Which filters a proxy has (XM-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Flavor {
    /// Istio's private ones too.
    Istio,
    /// Envoy's own only.
    Stock,
    /// No proxy: gRPC speaks xDS itself (`GENERATOR: grpc`, PI-28).
    Grpc,
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Node {
    /// The whole id.
    pub id: String,
    /// What it is for.
    pub role: Role,
    /// Its addresses, the one of the id first.
    pub addresses: Vec<String>,
    /// Name of its workload.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels of its workload.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it runs.
    pub locality: Locality,
    /// Node that it runs on; empty where none is known.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Its mesh; empty: the trust domain.
    pub mesh_id: String,
    /// Its service account.
    pub service_account: String,
    /// Which filters it has.
    pub flavor: Flavor,
    /// Whether it answers its workload's DNS (`DNS_CAPTURE`).
    pub captures_dns: bool,
    /// What it says of itself (`PROXY_CONFIG`, `INTERCEPTION_MODE`); what cannot be read says nothing.
    pub proxy: ProxyConfig,
    /// `ISTIO_VERSION`, for people.
    pub version: String,
}

/// Why a node cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No node at all (XD-4).
    #[error("missing node information")]
    Missing,
    /// The id has another form.
    #[error("node.id {0:?} must look like sidecar~ADDRESS~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN")]
    Malformed(String),
    /// A kind of proxy that is not served yet.
    #[error("not supported yet: node type {0:?}")]
    Type(String),
    /// A form of resources that is not served.
    #[error("not supported yet: node metadata GENERATOR {0:?}")]
    Generator(String),
}

impl Node {
    /// Reads the node of a first request.
    ///
    /// # Errors
    /// [`NodeError`] says what is missing.
    pub fn parse(wire: &Wire) -> Result<Self, NodeError> {
        if wire.id.is_empty() {
            return Err(NodeError::Missing);
        }
        let parts: Vec<&str> = wire.id.split('~').collect();
        let [role, address, name, domain] = parts.as_slice() else {
            return Err(NodeError::Malformed(wire.id.clone()));
        };
        let role = match *role {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            other => return Err(NodeError::Type(other.to_owned())),
        };
        let metadata = wire.metadata.clone().unwrap_or_default();
        let flavor = match string(&metadata, "GENERATOR").as_deref() {
            None => flavor(wire),
            Some("grpc") => Flavor::Grpc,
            Some(other) => return Err(NodeError::Generator(other.to_owned())),
        };
        let own_namespace = name.rsplit_once('.').map(|(_, namespace)| namespace);
        let namespace = string(&metadata, "NAMESPACE")
            .or_else(|| own_namespace.map(str::to_owned))
            .or_else(|| domain.split('.').next().map(str::to_owned))
            .unwrap_or_default();
        let mut addresses: Vec<String> = vec![(*address).to_owned()];
        let more = string(&metadata, "INSTANCE_IPS").unwrap_or_default();
        addresses.extend(more.split(',').filter(|ip| !ip.is_empty() && ip != address).map(str::to_owned));
        Ok(Self {
            id: wire.id.clone(),
            role,
            addresses,
            name: name.rsplit_once('.').map_or(*name, |(name, _)| name).to_owned(),
            namespace,
            labels: Arc::new(labels(&metadata)),
            locality: wire.locality.as_ref().map_or_else(Locality::default, |locality| Locality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: locality.sub_zone.clone(),
            }),
            node: string(&metadata, "NODE_NAME").unwrap_or_default(),
            cluster: string(&metadata, "CLUSTER_ID").unwrap_or_else(|| "Kubernetes".to_owned()),
            mesh_id: string(&metadata, "MESH_ID").unwrap_or_default(),
            service_account: string(&metadata, "SERVICE_ACCOUNT").unwrap_or_default(),
            flavor,
            captures_dns: string(&metadata, "DNS_CAPTURE").is_some_and(|value| value == "true"),
            proxy: proxy_config(&metadata),
            version: string(&metadata, "ISTIO_VERSION").unwrap_or_default(),
        })
    }

    /// The node as its workload says, where the workload is known: labels and locality are the pod's (PI-19).
    pub fn with_workload(&self, mesh: &Mesh) -> Self {
        let mut node = self.clone();
        let at = |address: &String| pod::at(&mesh.workloads, address, &self.namespace, &self.name);
        if let Some(workload) = self.addresses.iter().find_map(at) {
            node.labels = workload.labels.clone();
            if !workload.node.is_empty() {
                node.node.clone_from(&workload.node);
            }
            if workload.locality != Locality::default() {
                node.locality = workload.locality.clone();
            }
        }
        node
    }
}

/// A stock Envoy lists its extensions, and `istio.stats` is not among them. A proxy that lists none is Istio's or ours.
fn flavor(wire: &Wire) -> Flavor {
    let private = |name: &str| wire.extensions.iter().any(|extension| extension.name == name);
    if wire.extensions.is_empty() || private("istio.stats") || private("istio.metadata_exchange") {
        Flavor::Istio
    } else {
        Flavor::Stock
    }
}

fn string(metadata: &Struct, key: &str) -> Option<String> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn proxy_config(metadata: &Struct) -> ProxyConfig {
    let written = metadata.fields.get("PROXY_CONFIG").map(proto::value::to_json).unwrap_or_default();
    let read = ProxyConfig::parse(&written).unwrap_or_else(|error| {
        tracing::debug!("PROXY_CONFIG of a proxy: {error}");
        ProxyConfig::default()
    });
    // Of its pod's annotations one may name another mode.
    let mode = string(metadata, "INTERCEPTION_MODE");
    ProxyConfig { intercepts: mode.map(|mode| mode != "NONE").or(read.intercepts), ..read }
}

fn labels(metadata: &Struct) -> BTreeMap<String, String> {
    let fields = match metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => &labels.fields,
        _ => return BTreeMap::new(),
    };
    let text = |value: &Value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    fields.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::envoy::core::Extension;

    fn wire(id: &str) -> Wire {
        Wire { id: id.to_owned(), ..Wire::default() }
    }

    // spec: NI-1, XD-4
    #[test]
    fn reads_role_address_name_and_namespace() {
        let node = Node::parse(&wire("sidecar~10.0.0.1~a-1.ns~ns.svc.cluster.local")).unwrap();
        assert_eq!((node.role, node.name.as_str(), node.namespace.as_str()), (Role::Sidecar, "a-1", "ns"));
        assert_eq!(node.addresses, ["10.0.0.1"]);
        assert_eq!(Node::parse(&wire("")), Err(NodeError::Missing));
        assert_eq!(Node::parse(&wire("ztunnel~1~a.b~c")), Err(NodeError::Type("ztunnel".into())));
        assert!(matches!(Node::parse(&wire("x")), Err(NodeError::Malformed(_))));
    }

    // spec: NI-2, PI-32
    #[test]
    fn metadata_is_read() {
        let mut wire = wire("router~10.0.0.1~a.ns~ns.svc.cluster.local");
        let labels = super::super::message::nested([("app", super::super::message::text("x"))]);
        let fields = [
            ("LABELS", labels),
            ("NAMESPACE", super::super::message::text("other")),
            ("INSTANCE_IPS", super::super::message::text("10.0.0.1,fd00::1")),
        ];
        wire.metadata = Some(super::super::message::structure(fields));
        let node = Node::parse(&wire).unwrap();
        assert_eq!(node.namespace, "other");
        assert_eq!(node.addresses, ["10.0.0.1", "fd00::1"]);
        assert_eq!(node.labels.get("app").map(String::as_str), Some("x"));
    }

    // spec: PI-28
    #[test]
    fn the_generator_says_who_asks() {
        let mut wire = wire("sidecar~10.0.0.1~a.ns~ns.svc.cluster.local");
        let mut with = |generator: &str| {
            let fields = [("GENERATOR", super::super::message::text(generator))];
            wire.metadata = Some(super::super::message::structure(fields));
            Node::parse(&wire).map(|node| node.flavor)
        };
        assert_eq!(with("grpc"), Ok(Flavor::Grpc));
        assert_eq!(with("api"), Err(NodeError::Generator("api".into())));
    }

    // spec: XM-5
    #[test]
    fn a_proxy_that_lists_extensions_without_istios_is_stock() {
        let mut wire = wire("sidecar~10.0.0.1~a.ns~ns.svc.cluster.local");
        assert_eq!(Node::parse(&wire).unwrap().flavor, Flavor::Istio);
        wire.extensions = vec![Extension { name: "envoy.filters.http.router".into(), ..Extension::default() }];
        assert_eq!(Node::parse(&wire).unwrap().flavor, Flavor::Stock);
        wire.extensions.push(Extension { name: "istio.stats".into(), ..Extension::default() });
        assert_eq!(Node::parse(&wire).unwrap().flavor, Flavor::Istio);
    }
}
