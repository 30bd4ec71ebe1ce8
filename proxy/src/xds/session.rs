//! The xDS protocol with one server, sans-IO: delta (XD-2, XD-7) and state of the world.
//!
//! Order of calls: `handle_connected`, then `poll_request` until it has nothing more; `handle_delta` or `handle_sotw`
//! for each response, and `handle_verdict` with what came of it, in any order; `handle_disconnected`.
//!
//! An acknowledgement never carries a change of subscription and a change never carries a nonce: a server that ignores
//! requests with a stale nonce as a whole, as istiod does, then cannot lose a change (spec XD-11).

use super::subscription::Subscription;
use super::{Kind, Rejection, Resource, Store, Update};
use bytes::Bytes;
use proto::envoy::RpcStatus;
use proto::envoy::core::Node;
use proto::envoy::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
};
use proto::envoy::wkt::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// gRPC status code of a NACK, as Envoy sends it (spec XD-3).
const CODE_INTERNAL: i32 = 13;

/// Which of the two protocols a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// A message to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Of the delta protocol.
    Delta(Box<DeltaDiscoveryRequest>),
    /// Of the state-of-the-world protocol.
    Sotw(Box<DiscoveryRequest>),
}

/// What a verdict must name, so that the right response is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Kind of the response.
    pub kind: Kind,
    nonce: String,
    version: String,
    connection: u64,
}

/// A response, ready to be applied.
#[derive(Debug)]
pub struct Received {
    /// For the verdict.
    pub receipt: Receipt,
    /// What it changes.
    pub update: Update,
    /// What cannot even be read.
    pub refused: Vec<Rejection>,
}

/// The conversation with one server.
#[derive(Debug)]
pub struct Session {
    flavour: Flavour,
    node: Node,
    /// Counts connections, so that a verdict about a response of an earlier one is not sent on this one.
    connection: u64,
    connected: bool,
    node_sent: bool,
    topics: BTreeMap<Kind, Topic>,
    verdicts: VecDeque<Request>,
}

#[derive(Debug, Default)]
struct Topic {
    subscription: Subscription,
    /// State of the world: last nonce seen, last version accepted, names of the last response.
    nonce: String,
    version: String,
    listed: BTreeSet<Arc<str>>,
}

impl Session {
    /// A session that introduces itself as `node`.
    pub fn new(flavour: Flavour, node: Node) -> Self {
        Self {
            flavour,
            node,
            connection: 0,
            connected: false,
            node_sent: false,
            topics: BTreeMap::new(),
            verdicts: VecDeque::new(),
        }
    }

    /// Wants all resources of a kind.
    pub fn want_all(&mut self, kind: Kind) {
        self.topics.entry(kind).or_default().subscription.want_all();
    }

    /// Wants these names of a kind, beside all if all are wanted.
    pub fn want(&mut self, kind: Kind, names: BTreeSet<Arc<str>>) {
        if names.is_empty() && !self.topics.contains_key(&kind) {
            return;
        }
        self.topics.entry(kind).or_default().subscription.want(names);
    }

    /// Whether a name of a kind is asked of this server.
    pub fn wants(&self, kind: Kind, name: &str) -> bool {
        self.topics.get(&kind).is_some_and(|topic| topic.subscription.wants(name))
    }

    /// Whether the stream is up.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The stream is up: everything wanted is asked for again.
    pub fn handle_connected(&mut self) {
        self.handle_disconnected();
        self.connected = true;
        self.connection += 1;
    }

    /// The stream is gone. What was accepted stays.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        self.node_sent = false;
        self.verdicts.clear();
        for topic in self.topics.values_mut() {
            topic.subscription.forget();
            topic.nonce.clear();
        }
    }

    /// The next message to the server. `store` is what was accepted so far.
    pub fn poll_request(&mut self, store: &Store) -> Option<Request> {
        if !self.connected {
            return None;
        }
        let request = match self.verdicts.pop_front() {
            Some(verdict) => verdict,
            None => self.topics.iter_mut().find_map(|(kind, topic)| topic.request(self.flavour, *kind, store))?,
        };
        Some(self.introduce(request))
    }

    /// A response of the delta protocol; `None` for a kind that was never asked for.
    pub fn handle_delta(&mut self, response: DeltaDiscoveryResponse) -> Option<Received> {
        let kind = Kind::of(&response.type_url).filter(|kind| self.topics.contains_key(kind))?;
        let mut update = Update { kind, added: Vec::new(), removed: Vec::new() };
        let mut refused = Vec::new();
        for wrapped in response.resources {
            // a resource without a body is a heartbeat of its time to live (spec XD-8)
            let Some(body) = wrapped.resource else { continue };
            match open(kind, wrapped.name.as_str().into(), wrapped.version.as_str().into(), body) {
                Ok(resource) => update.added.push(resource),
                Err(rejection) => refused.push(rejection),
            }
        }
        update.removed.extend(response.removed_resources.into_iter().map(Arc::from));
        let receipt =
            Receipt { kind, nonce: response.nonce, version: response.system_version_info, connection: self.connection };
        Some(Received { receipt, update, refused })
    }

    /// A response of the state-of-the-world protocol; `None` for a kind that was never asked for.
    pub fn handle_sotw(&mut self, response: DiscoveryResponse) -> Option<Received> {
        let kind = Kind::of(&response.type_url)?;
        let topic = self.topics.get_mut(&kind)?;
        let version: Arc<str> = response.version_info.as_str().into();
        let mut received = read_sotw(kind, &version, response.resources);
        if kind.is_whole_in_sotw() {
            let named: BTreeSet<Arc<str>> = received.0.added.iter().map(|resource| resource.name.clone()).collect();
            let kept: BTreeSet<Arc<str>> = received.1.iter().map(|rejection| rejection.name.clone()).collect();
            received.0.removed =
                topic.listed.iter().filter(|name| !named.contains(*name) && !kept.contains(*name)).cloned().collect();
            topic.listed = named;
        }
        topic.nonce.clone_from(&response.nonce);
        let receipt =
            Receipt { kind, nonce: response.nonce, version: response.version_info, connection: self.connection };
        Some(Received { receipt, update: received.0, refused: received.1 })
    }

    /// What came of a response: nothing refused is an ACK, anything else a NACK that lists what was refused.
    pub fn handle_verdict(&mut self, receipt: &Receipt, refused: &[Rejection]) {
        let Some(topic) = self.topics.get_mut(&receipt.kind) else { return };
        if refused.is_empty() {
            topic.version.clone_from(&receipt.version);
        }
        if receipt.connection != self.connection || !self.connected {
            return;
        }
        let error_detail = (!refused.is_empty()).then(|| RpcStatus {
            code: CODE_INTERNAL,
            message: message(receipt.kind, refused),
            details: Vec::new(),
        });
        let type_url = receipt.kind.type_url().to_owned();
        self.verdicts.push_back(match self.flavour {
            Flavour::Delta => Request::Delta(Box::new(DeltaDiscoveryRequest {
                type_url,
                response_nonce: receipt.nonce.clone(),
                error_detail,
                ..Default::default()
            })),
            Flavour::Sotw => Request::Sotw(Box::new(DiscoveryRequest {
                type_url,
                version_info: topic.version.clone(),
                resource_names: topic.subscription.names().iter().map(|name| name.to_string()).collect(),
                response_nonce: receipt.nonce.clone(),
                error_detail,
                ..Default::default()
            })),
        });
    }

    /// The first request of a stream carries the node (spec XD-4, NI-4).
    fn introduce(&mut self, mut request: Request) -> Request {
        if !self.node_sent {
            self.node_sent = true;
            match &mut request {
                Request::Delta(request) => request.node = Some(self.node.clone()),
                Request::Sotw(request) => request.node = Some(self.node.clone()),
            }
        }
        request
    }
}

impl Topic {
    fn request(&mut self, flavour: Flavour, kind: Kind, store: &Store) -> Option<Request> {
        let change = self.subscription.take_change()?;
        let type_url = kind.type_url().to_owned();
        match flavour {
            Flavour::Delta => {
                let held = || {
                    store
                        .of(kind)
                        .filter(|held| held.origin.is_server() && self.subscription.wants(&held.resource.name))
                };
                let versions =
                    |held: &Arc<super::Held>| (held.resource.name.to_string(), held.resource.version.to_string());
                let initial_resource_versions =
                    if change.first { held().map(versions).collect() } else { Default::default() };
                Some(Request::Delta(Box::new(DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: change.subscribe,
                    resource_names_unsubscribe: change.unsubscribe,
                    initial_resource_versions,
                    ..Default::default()
                })))
            }
            Flavour::Sotw => Some(Request::Sotw(Box::new(DiscoveryRequest {
                type_url,
                version_info: self.version.clone(),
                resource_names: if self.subscription.wants_all() {
                    Vec::new()
                } else {
                    self.subscription.names().iter().map(|name| name.to_string()).collect()
                },
                response_nonce: self.nonce.clone(),
                ..Default::default()
            }))),
        }
    }
}

/// Reads the resources of a state-of-the-world response, from a server or a file.
pub(super) fn read_sotw(kind: Kind, version: &Arc<str>, resources: Vec<Any>) -> (Update, Vec<Rejection>) {
    let mut update = Update { kind, added: Vec::new(), removed: Vec::new() };
    let mut refused = Vec::new();
    for any in resources {
        let (name, version, body) = unwrap(any, version);
        match open(kind, name, version, body) {
            Ok(resource) => update.added.push(resource),
            Err(rejection) => refused.push(rejection),
        }
    }
    (update, refused)
}

/// Name and body of a resource of the state-of-the-world protocol, which may be wrapped.
fn unwrap(any: Any, version: &Arc<str>) -> (Arc<str>, Arc<str>, Any) {
    if let Ok(wrapped) = proto::any::unpack::<Wrapped>(&any)
        && let Some(body) = wrapped.resource
    {
        let version = if wrapped.version.is_empty() { version.clone() } else { wrapped.version.as_str().into() };
        return (wrapped.name.as_str().into(), version, body);
    }
    // every resource has its name in field 1
    let named: Named = proto::any::decode(&any).unwrap_or_default();
    (named.name.as_str().into(), version.clone(), any)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

fn open(kind: Kind, name: Arc<str>, version: Arc<str>, body: Any) -> Result<Arc<Resource>, Rejection> {
    if body.type_url != kind.type_url() {
        let why = format!("type URL {} is not {}", body.type_url, kind.type_url());
        return Err(Rejection { kind, name, field: "".into(), why: why.into() });
    }
    Ok(Arc::new(Resource { name, version, body: Bytes::from(body.value) }))
}

/// The text of a NACK: every refused resource by name and field (spec XM-4).
fn message(kind: Kind, refused: &[Rejection]) -> String {
    let list: Vec<String> = refused.iter().map(Rejection::to_string).collect();
    format!("Error adding/updating {}(s) {}", kind.noun(), list.join("; "))
}

#[cfg(test)]
mod tests;
