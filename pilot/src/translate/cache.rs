//! Encoded resources by their input struct: what does not depend on a change is not made again.

use super::inputs::Input;
use super::{cluster, endpoint, listener, name_table, route};
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
    /// NDS.
    NameTable,
}

impl ResourceType {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route, Self::NameTable];

    /// Its type URL (XD-1).
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
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
}

/// Resources by input.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Input, (Arc<Encoded>, u64), foldhash::fast::FixedState>,
    epoch: u64,
    made: u64,
}

impl Cache {
    /// The resource of an input: the one at hand, or a new one.
    pub fn get(&mut self, input: Input) -> Arc<Encoded> {
        if let Some((encoded, used)) = self.entries.get_mut(&input) {
            *used = self.epoch;
            return encoded.clone();
        }
        let encoded = Arc::new(translate(&input));
        self.made += 1;
        self.entries.insert(input, (encoded.clone(), self.epoch));
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

    /// Begins a round in which everything that is in use is asked for.
    pub fn begin_round(&mut self) {
        self.epoch += 1;
    }

    /// Ends it: what was not asked for is forgotten.
    pub fn end_round(&mut self) {
        let epoch = self.epoch;
        self.entries.retain(|_, (_, used)| *used == epoch);
    }
}

/// Makes a resource.
pub fn translate(input: &Input) -> Encoded {
    match input {
        Input::Cluster(input) => encode_cluster(&cluster::outbound(input)),
        Input::InboundCluster(input) => encode_cluster(&cluster::inbound(input)),
        Input::FixedCluster(which, flavor, mesh) => encode_cluster(&cluster::fixed(*which, *flavor, mesh)),
        Input::Endpoints(input) => {
            let assignment = endpoint::assignment(input);
            encode(&assignment.cluster_name, &assignment)
        }
        Input::OutboundHttp(input) => encode_listener(&listener::outbound::http(input)),
        Input::OutboundTcp(input) => encode_listener(&listener::outbound::tcp(input)),
        Input::VirtualOutbound(mode, flavor, identity, mesh) => {
            encode_listener(&listener::outbound::catch_all(*mode, *flavor, identity, mesh))
        }
        Input::VirtualInbound(input) => encode_listener(&listener::inbound::listener(input)),
        Input::GatewayListener(input) => encode_listener(&listener::gateway::listener(input)),
        Input::OutboundRoute(input) => {
            let routes = route::outbound(input);
            encode(&routes.name, &routes)
        }
        Input::GatewayRoute(input) => {
            let routes = route::gateway(input);
            encode(&routes.name, &routes)
        }
        Input::NameTable(input) => encode("", &name_table::table(input)),
    }
}

fn encode_cluster(cluster: &proto::envoy::cluster::Cluster) -> Encoded {
    encode(&cluster.name, cluster)
}

fn encode_listener(listener: &proto::envoy::listener::Listener) -> Encoded {
    encode(&listener.name, listener)
}

fn encode<M: prost::Message>(name: &str, message: &M) -> Encoded {
    let bytes = Bytes::from(message.encode_to_vec());
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    hasher.write(&bytes);
    Encoded { name: name.into(), version: hasher.finish(), bytes }
}
