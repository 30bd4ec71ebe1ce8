//! One object: its key, its metadata, its typed content.

use super::problem::{Class, Problem};
use super::yaml::Node;
use proto::istio::authorization_policy::AuthorizationPolicy;
use proto::istio::core::{EndpointSlice, PodSpec, PodStatus, ServiceSpec};
use proto::istio::destination_rule::DestinationRule;
use proto::istio::gateway::Gateway;
use proto::istio::meta::ObjectMeta;
use proto::istio::peer_authentication::PeerAuthentication;
use proto::istio::rate_limit::RateLimit;
use proto::istio::request_authentication::RequestAuthentication;
use proto::istio::secret::Secret;
use proto::istio::service_entry::{ServiceEntry, WorkloadEntry};
use proto::istio::sidecar::Sidecar;
use proto::istio::telemetry::Telemetry;
use proto::istio::virtual_service::VirtualService;
use std::fmt;
use std::sync::Arc;

/// The kinds that pilot watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[expect(missing_docs, reason = "the names are Istio's and Kubernetes' own")]
pub enum Kind {
    Namespace,
    Node,
    Service,
    EndpointSlice,
    Pod,
    WorkloadEntry,
    ServiceEntry,
    VirtualService,
    DestinationRule,
    Gateway,
    Sidecar,
    PeerAuthentication,
    AuthorizationPolicy,
    RequestAuthentication,
    Telemetry,
    RateLimit,
    Secret,
}

/// The name of an object in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without one.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{:?} {}", self.kind, self.name)
        } else {
            write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The content of an object.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "one variant per kind")]
pub enum Spec {
    Namespace,
    Node,
    Service(Box<ServiceSpec>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<PodSpec>, Box<PodStatus>),
    WorkloadEntry(Box<WorkloadEntry>),
    ServiceEntry(Box<ServiceEntry>),
    VirtualService(Box<VirtualService>),
    DestinationRule(Box<DestinationRule>),
    Gateway(Box<Gateway>),
    Sidecar(Box<Sidecar>),
    PeerAuthentication(Box<PeerAuthentication>),
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    RequestAuthentication(Box<RequestAuthentication>),
    Telemetry(Box<Telemetry>),
    RateLimit(Box<RateLimit>),
    Secret(Box<Secret>),
}

/// Where an object is written.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the file, relative to the directory.
    pub file: Arc<str>,
    /// The object's document with its lines.
    pub document: Arc<Node>,
}

/// One entry of `status.addresses` of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostAddress {
    /// Name of the host.
    pub host: String,
    /// Its address.
    pub value: String,
}

/// One object as its source holds it.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// Labels, annotations and so on.
    pub meta: ObjectMeta,
    /// Its typed content.
    pub spec: Spec,
    /// Of a ServiceEntry: the addresses that its status records for its hosts.
    pub recorded: Vec<HostAddress>,
    /// Where it is written, if in a file.
    pub origin: Option<Origin>,
}

impl Object {
    /// The order of objects of one kind: oldest first, then by name, then by namespace (GEN-2).
    pub fn age(&self) -> (&str, &str, &str) {
        (self.meta.creation_timestamp.as_deref().unwrap_or(""), &self.key.name, &self.key.namespace)
    }

    /// Whether both say the same, wherever they are written.
    pub fn same_content(&self, other: &Self) -> bool {
        (&self.key, &self.meta, &self.spec, &self.recorded) == (&other.key, &other.meta, &other.spec, &other.recorded)
    }

    /// A problem of this object with file and line of the field.
    pub fn problem(&self, class: Class, field: impl Into<String>, message: impl Into<String>) -> Problem {
        let field = field.into();
        Problem {
            class,
            object: Some(self.key.clone()),
            file: self.origin.as_ref().map(|origin| origin.file.clone()),
            line: self.origin.as_ref().map(|origin| origin.document.line_of(&field)),
            field,
            message: message.into(),
        }
    }
}
