//! Encoded resources by their input struct: what does not depend on a change is not made again.

use super::inputs::Input;
use super::{cluster, endpoint, grpc, listener, name_table, route, secret};
use prost::bytes::Bytes;
use proto::type_url;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

/// The types of resources that are made here, in the order in which they are sent (PI-29, XD-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// SDS.
    Secret,
    /// NDS.
    NameTable,
}

impl ResourceType {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route, Self::Secret, Self::NameTable];

    /// Its type URL (XD-1).
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
            Self::Secret => type_url::SECRET,
            Self::NameTable => type_url::NAME_TABLE,
        }
    }

    /// The type of a URL.
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Whether a first request without names asks for all of them (XD-6).
    pub fn wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable)
    }
}

/// One resource as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its name.
    pub name: Arc<str>,
    /// Its version: a hash of its content.
    pub version: u64,
    /// The encoded message; shared by all who are sent it.
    pub bytes: Bytes,
    /// The whole field `resources` of a delta response that holds it: shared as well, `bytes` is its tail.
    pub delta: Bytes,
}

impl Encoded {
    /// A resource with the bytes around it that every delta response needs.
    pub fn new(name: &str, type_url: &str, message: &[u8]) -> Self {
        let version = version_of(message);
        // Any: type_url = 1, value = 2. Resource: version = 1, resource = 2, name = 3. Response: resources = 2.
        let mut any = field_head(1, type_url.len());
        any.extend_from_slice(type_url.as_bytes());
        any.extend(field_head(2, message.len()));
        let any_length = any.len() + message.len();
        let version_text = version_text(version);
        let mut resource = field_head(3, name.len());
        resource.extend_from_slice(name.as_bytes());
        resource.extend(field_head(1, version_text.len()));
        resource.extend_from_slice(version_text.as_bytes());
        resource.extend(field_head(2, any_length));
        let mut delta = field_head(2, resource.len() + any_length);
        delta.extend(resource);
        delta.extend(any);
        delta.extend_from_slice(message);
        let delta = Bytes::from(delta);
        Self { name: name.into(), version, bytes: delta.slice(delta.len() - message.len()..), delta }
    }
}

/// The version of a content: its hash.
pub fn version_of(content: &[u8]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    hasher.write(content);
    hasher.finish()
}

/// The text of a version.
pub fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

/// Tag and length of a length-delimited protobuf field.
pub fn field_head(number: u32, length: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(6);
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut head);
    prost::encoding::encode_varint(length as u64, &mut head);
    head
}

/// Resources by input.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Input, Arc<Encoded>, foldhash::fast::FixedState>,
    /// How many were left when it was last swept.
    left: usize,
    made: u64,
}

impl Cache {
    /// The resource of an input: the one at hand, or a new one.
    pub fn get(&mut self, input: Input) -> Arc<Encoded> {
        if let Some(encoded) = self.entries.get(&input) {
            return encoded.clone();
        }
        let encoded = Arc::new(translate(&input));
        self.made += 1;
        self.entries.insert(input, encoded.clone());
        encoded
    }

    /// How many resources have been made so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// How many resources are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what no snapshot holds any more, once that can be much.
    pub fn sweep(&mut self) {
        if self.entries.len() > 2 * self.left {
            self.entries.retain(|_, encoded| Arc::strong_count(encoded) > 1);
            self.left = self.entries.len();
        }
    }
}

/// Makes a resource.
pub fn translate(input: &Input) -> Encoded {
    match input {
        Input::Cluster(input) => encode_cluster(&cluster::outbound(input)),
        Input::InboundCluster(input) => encode_cluster(&cluster::inbound(input)),
        Input::FixedCluster(which, flavor, families, mesh) => {
            encode_cluster(&cluster::fixed(*which, *flavor, *families, mesh))
        }
        Input::Endpoints(input) => {
            let assignment = endpoint::assignment(input);
            encode(&assignment.cluster_name, ResourceType::Endpoints, &assignment)
        }
        Input::OutboundHttp(input) => encode_listener(&listener::outbound::http(input)),
        Input::OutboundTcp(input) => encode_listener(&listener::outbound::tcp(input)),
        Input::VirtualOutbound(mode, owner) => encode_listener(&listener::outbound::catch_all(*mode, owner)),
        Input::VirtualInbound(input) => encode_listener(&listener::inbound::listener(input)),
        Input::GatewayListener(input) => encode_listener(&listener::gateway::listener(input)),
        Input::OutboundRoute(input) => {
            let routes = route::outbound(input);
            encode(&routes.name, ResourceType::Route, &routes)
        }
        Input::GrpcListener(input) => encode_listener(&grpc::client(input)),
        Input::GrpcServer(input) => encode_listener(&grpc::server(input)),
        Input::GrpcCluster(input) => encode_cluster(&grpc::cluster(input)),
        Input::GrpcRoute(input) => {
            let routes = grpc::routes(input);
            encode(&routes.name, ResourceType::Route, &routes)
        }
        Input::GatewayRoute(input) => {
            let routes = route::gateway(input);
            encode(&routes.name, ResourceType::Route, &routes)
        }
        Input::Secret(input) => encode(&input.name, ResourceType::Secret, &secret::secret(input)),
        Input::NameTable(input) => encode("", ResourceType::NameTable, &name_table::table(input)),
    }
}

fn encode_cluster(cluster: &proto::envoy::cluster::Cluster) -> Encoded {
    encode(&cluster.name, ResourceType::Cluster, cluster)
}

fn encode_listener(listener: &proto::envoy::listener::Listener) -> Encoded {
    encode(&listener.name, ResourceType::Listener, listener)
}

fn encode<M: prost::Message>(name: &str, kind: ResourceType, message: &M) -> Encoded {
    Encoded::new(name, kind.type_url(), &message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::inputs::FixedCluster;
    use prost::Message as _;
    use proto::envoy::discovery::DeltaDiscoveryResponse;

    // spec: PI-37
    #[test]
    fn what_no_snapshot_holds_is_forgotten() {
        let mesh = crate::model::Shared::new(crate::model::MeshConfig::default());
        let input = |which| {
            let (flavor, families) = (super::super::node::Flavor::Istio, super::super::family::Families::V4);
            Input::FixedCluster(which, flavor, families, mesh.clone())
        };
        let mut cache = Cache::default();
        let held = cache.get(input(FixedCluster::BlackHole));
        cache.get(input(FixedCluster::Passthrough));
        cache.sweep();
        assert_eq!((cache.len(), cache.made()), (1, 2));
        assert!(Arc::ptr_eq(&held, &cache.get(input(FixedCluster::BlackHole))), "what is held is not made again");
        cache.get(input(FixedCluster::Passthrough));
        cache.sweep();
        assert_eq!((cache.len(), cache.made()), (2, 3), "a little is not worth a look");
    }

    #[test]
    fn the_shared_bytes_are_a_resource_of_a_delta_response() {
        let encoded = Encoded::new("name", type_url::CLUSTER, b"content");
        let response = DeltaDiscoveryResponse::decode(encoded.delta.clone()).unwrap();
        let resource = &response.resources[0];
        assert_eq!((resource.name.as_str(), resource.version.as_str()), ("name", &*version_text(encoded.version)));
        let any = resource.resource.as_ref().unwrap();
        assert_eq!((any.type_url.as_str(), any.value.as_slice()), (type_url::CLUSTER, &b"content"[..]));
        assert_eq!(&*encoded.bytes, b"content");
    }
}
