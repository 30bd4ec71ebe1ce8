//! The table of kinds: a new kind is one line here and its decoder.

use super::object::{Kind, Spec};
use super::problem::Class;
use super::yaml::{self, Fault, Node};
use serde::Deserialize;

/// How a kind is decoded from its document.
type Decode = fn(&Node) -> Result<Spec, Fault>;

/// One line of the table.
pub struct Row {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Versions with the same schema (GEN-1).
    pub versions: &'static [&'static str],
    /// Name in YAML.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    decode: Decode,
}

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// Every kind that is watched.
pub const TABLE: &[Row] = &[
    core_row("", "Namespace", Kind::Namespace, false, |_| Ok(Spec::Namespace)),
    core_row("", "Node", Kind::Node, false, |_| Ok(Spec::Node)),
    core_row("", "Service", Kind::Service, true, |node| Ok(Spec::Service(spec(node)?))),
    core_row("discovery.k8s.io", "EndpointSlice", Kind::EndpointSlice, true, |node| {
        Ok(Spec::EndpointSlice(Box::new(yaml::decode(node)?)))
    }),
    core_row("", "Pod", Kind::Pod, true, |node| Ok(Spec::Pod(spec(node)?, status(node)?))),
    core_row("", "Secret", Kind::Secret, true, |node| Ok(Spec::Secret(Box::new(super::secret::decode(node)?)))),
    istio_row(NETWORKING, "WorkloadEntry", Kind::WorkloadEntry, |node| Ok(Spec::WorkloadEntry(spec(node)?))),
    istio_row(NETWORKING, "ServiceEntry", Kind::ServiceEntry, |node| Ok(Spec::ServiceEntry(spec(node)?))),
    istio_row(NETWORKING, "VirtualService", Kind::VirtualService, |node| Ok(Spec::VirtualService(spec(node)?))),
    istio_row(NETWORKING, "DestinationRule", Kind::DestinationRule, |node| Ok(Spec::DestinationRule(spec(node)?))),
    istio_row(NETWORKING, "Gateway", Kind::Gateway, |node| Ok(Spec::Gateway(spec(node)?))),
    istio_row(NETWORKING, "Sidecar", Kind::Sidecar, |node| Ok(Spec::Sidecar(spec(node)?))),
    istio_row(SECURITY, "PeerAuthentication", Kind::PeerAuthentication, |node| {
        Ok(Spec::PeerAuthentication(spec(node)?))
    }),
    istio_row(SECURITY, "AuthorizationPolicy", Kind::AuthorizationPolicy, |node| {
        Ok(Spec::AuthorizationPolicy(spec(node)?))
    }),
    istio_row(SECURITY, "RequestAuthentication", Kind::RequestAuthentication, |node| {
        Ok(Spec::RequestAuthentication(spec(node)?))
    }),
    Row {
        group: "telemetry.istio.io",
        versions: &["v1", "v1alpha1"],
        name: "Telemetry",
        kind: Kind::Telemetry,
        namespaced: true,
        decode: |node| Ok(Spec::Telemetry(spec(node)?)),
    },
    Row {
        group: "policy.ferromesh.io",
        versions: &["v1alpha1"],
        name: "RateLimit",
        kind: Kind::RateLimit,
        namespaced: true,
        decode: |node| Ok(Spec::RateLimit(spec(node)?)),
    },
];

/// Kinds of the mesh that come later: refused, for to ignore them would change what the user asked for.
const LATER: &[(&str, &str)] = &[
    ("networking.istio.io", "EnvoyFilter"),
    ("networking.istio.io", "WorkloadGroup"),
    ("networking.istio.io", "ProxyConfig"),
    ("extensions.istio.io", "WasmPlugin"),
    ("extensions.istio.io", "TrafficExtension"),
    ("gateway.networking.k8s.io", ""),
    ("networking.k8s.io", "Ingress"),
];

const fn core_row(group: &'static str, name: &'static str, kind: Kind, namespaced: bool, decode: Decode) -> Row {
    Row { group, versions: &["v1"], name, kind, namespaced, decode }
}

const fn istio_row(versions: &'static [&'static str], name: &'static str, kind: Kind, decode: Decode) -> Row {
    let group = if versions.len() == NETWORKING.len() { "networking.istio.io" } else { "security.istio.io" };
    Row { group, versions, name, kind, namespaced: true, decode }
}

/// What the table says about a kind.
pub enum Found {
    /// It is watched.
    Watched(&'static Row),
    /// The mesh has no use for it.
    Unused,
    /// It is Istio's and comes later.
    Later,
    /// The group and kind are known, the version is not.
    WrongVersion(&'static Row),
}

/// Looks up `apiVersion` and `kind`.
pub fn find(api_version: &str, kind: &str) -> Found {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(row) = TABLE.iter().find(|row| row.group == group && row.name == kind) {
        return if row.versions.contains(&version) { Found::Watched(row) } else { Found::WrongVersion(row) };
    }
    if LATER.iter().any(|(g, k)| *g == group && (k.is_empty() || *k == kind)) { Found::Later } else { Found::Unused }
}

/// The row of a kind; every kind has one.
pub fn row(kind: Kind) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.kind == kind)
}

impl Row {
    /// The plural of the name, as it stands in paths of the API and in names of CustomResourceDefinitions.
    pub fn plural(&self) -> String {
        let name = self.name.to_ascii_lowercase();
        let stem = name.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
        stem.map_or_else(|| format!("{name}s"), |stem| format!("{stem}ies"))
    }

    /// Whether it is a CustomResourceDefinition that makes the kind known to an API server.
    pub fn is_custom(&self) -> bool {
        self.group.ends_with(".istio.io") || self.group.ends_with(".ferromesh.io")
    }

    /// Whether the metadata say all that the mesh wants to know of such an object.
    pub fn is_metadata_alone(&self) -> bool {
        matches!(self.kind, Kind::Namespace | Kind::Node)
    }

    /// Decodes the content of an object.
    ///
    /// # Errors
    /// A [`Fault`] with field and line.
    pub fn decode(&self, node: &Node) -> Result<Spec, Fault> {
        (self.decode)(node)
    }
}

#[derive(Deserialize)]
struct WithSpec<T> {
    #[serde(default = "Option::default")]
    spec: Option<T>,
}

#[derive(Deserialize)]
struct WithStatus<T> {
    #[serde(default = "Option::default")]
    status: Option<T>,
}

fn spec<T: for<'de> Deserialize<'de> + Default>(node: &Node) -> Result<Box<T>, Fault> {
    yaml::decode::<WithSpec<T>>(node).map(|with| Box::new(with.spec.unwrap_or_default()))
}

fn status<T: for<'de> Deserialize<'de> + Default>(node: &Node) -> Result<Box<T>, Fault> {
    yaml::decode::<WithStatus<T>>(node).map(|with| Box::new(with.status.unwrap_or_default()))
}

/// The fault of a kind that comes later.
pub fn later(kind: &str, line: u32) -> Fault {
    Fault::new(Class::Semantic, line, format!("{}: kind {kind}", proto::istio::NOT_SUPPORTED_YET))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: GEN-1
    #[test]
    fn every_version_of_a_group_is_the_same_kind() {
        for version in ["v1", "v1beta1", "v1alpha3"] {
            assert!(matches!(find(&format!("networking.istio.io/{version}"), "VirtualService"), Found::Watched(_)));
        }
        for version in ["v1", "v1beta1"] {
            assert!(matches!(find(&format!("security.istio.io/{version}"), "PeerAuthentication"), Found::Watched(_)));
        }
        assert!(matches!(find("security.istio.io/v1alpha3", "PeerAuthentication"), Found::WrongVersion(_)));
        assert!(matches!(find("apps/v1", "Deployment"), Found::Unused));
        assert!(matches!(find("networking.istio.io/v1alpha3", "EnvoyFilter"), Found::Later));
        assert!(matches!(find("v1", "Service"), Found::Watched(_)));
    }

    #[test]
    fn plurals_are_those_of_the_api() {
        let plural = |kind| TABLE.iter().find(|row| row.kind == kind).unwrap().plural();
        assert_eq!(plural(Kind::EndpointSlice), "endpointslices");
        assert_eq!(plural(Kind::ServiceEntry), "serviceentries");
        assert_eq!(plural(Kind::AuthorizationPolicy), "authorizationpolicies");
        assert_eq!(plural(Kind::Telemetry), "telemetries");
        assert_eq!(plural(Kind::Gateway), "gateways");
        assert_eq!(TABLE.iter().filter(|row| row.is_custom()).count(), TABLE.len() - 6);
    }
}
