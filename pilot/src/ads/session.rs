//! One client's xDS session, without I/O: requests and snapshots in, responses out (spec 5.1, PI-26, PI-29, PI-30).

use super::frame::Frame;
use crate::delivery::progress::{Nack, Progress};
use crate::model::secret;
use crate::translate::cache::{ResourceType, version_text};
use crate::translate::{Encoded, Snapshot};
use foldhash::fast::RandomState;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The two forms of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Differences.
    Delta,
    /// Everything of a type each time.
    StateOfTheWorld,
}

#[derive(Debug, Default)]
struct Subscription {
    /// All resources of the type.
    wildcard: bool,
    /// Resources by name.
    names: HashSet<Arc<str>, RandomState>,
    /// What the client holds, by version; a version of 0 is of a life before, and matches nothing.
    held: HashMap<Arc<str>, u64, RandomState>,
    progress: Progress,
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

/// Which secrets a client may have (CA-27).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grant {
    /// None.
    #[default]
    Nothing,
    /// Authorities, which are no secret.
    Authorities,
    /// All that its configuration names.
    All,
}

impl Grant {
    fn admits(self, kind: ResourceType, name: &str) -> bool {
        match self {
            _ if kind != ResourceType::Secret => true,
            Self::Nothing => false,
            Self::Authorities => secret::is_public(name),
            Self::All => true,
        }
    }
}

/// The session of one stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    /// Part of every nonce, so that nonces of two streams differ.
    salt: u64,
    counter: u64,
    snapshot: Arc<Snapshot>,
    grant: Grant,
    subscriptions: HashMap<ResourceType, Subscription>,
}

impl Session {
    /// A session that has not been asked anything yet.
    pub fn new(protocol: Protocol, salt: u64, snapshot: Arc<Snapshot>) -> Self {
        Self { protocol, salt, counter: 0, snapshot, grant: Grant::default(), subscriptions: HashMap::new() }
    }

    /// How far the client is with a type; none while it has not asked for it.
    pub fn progress(&self, kind: ResourceType) -> Option<Progress> {
        let subscription = self.subscriptions.get(&kind)?;
        Some(Progress { resources: subscription.held.len(), ..subscription.progress.clone() })
    }

    /// What the client may have of the snapshot.
    fn resources(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Encoded>> {
        self.snapshot.of(kind).iter().filter(move |resource| self.grant.admits(kind, &resource.name))
    }

    /// The resource of a name, where the client may have it.
    fn resource(&self, kind: ResourceType, name: &str) -> Option<&Arc<Encoded>> {
        self.snapshot.of(kind).get(name).filter(|_| self.grant.admits(kind, name))
    }

    /// The client may have other secrets than before: what it asked for of them is sent or taken back.
    pub fn regrant(&mut self, grant: Grant) -> Vec<Frame> {
        if std::mem::replace(&mut self.grant, grant) == grant {
            return Vec::new();
        }
        let kind = ResourceType::Secret;
        if self.protocol == Protocol::StateOfTheWorld {
            return if self.subscriptions.contains_key(&kind) {
                self.everything(kind).into_iter().collect()
            } else {
                Vec::new()
            };
        }
        let Some(subscription) = self.subscriptions.get(&kind) else { return Vec::new() };
        let mut names: Vec<Arc<str>> = subscription.names.iter().cloned().collect();
        names.sort();
        let (fresh, gone) = self.difference(kind, names.iter());
        self.respond(kind, fresh, gone, false).into_iter().collect()
    }

    fn nonce(&mut self) -> String {
        self.counter += 1;
        format!("{:016x}-{}", self.salt, self.counter)
    }

    /// A delta request: acknowledgement, refusal, change of subscription (XD-3, XD-5, XD-7, XD-8, XD-11).
    pub fn handle_delta(&mut self, kind: ResourceType, request: &DeltaDiscoveryRequest) -> Vec<Frame> {
        let first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        if !first && !request.response_nonce.is_empty() && request.response_nonce == subscription.progress.sent {
            acknowledge(&mut subscription.progress, request.error_detail.as_ref());
        }
        if first {
            for (name, version) in &request.initial_resource_versions {
                subscription.held.insert(name.as_str().into(), u64::from_str_radix(version, 16).unwrap_or(0));
            }
            subscription.wildcard = kind.wildcard() && request.resource_names_subscribe.is_empty();
        }
        let mut asked: Vec<Arc<str>> = Vec::new();
        for name in &request.resource_names_subscribe {
            if name == "*" {
                subscription.wildcard = true;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            subscription.names.insert(name.clone());
            // Who asks again wants an answer; who comes back names the version that it holds instead.
            if !first {
                subscription.held.remove(&name);
            }
            asked.push(name);
        }
        let mut answer_to_unsubscribe: Vec<Arc<str>> = Vec::new();
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                subscription.wildcard = false;
                let names = &subscription.names;
                subscription.held.retain(|held, _| names.contains(held));
            } else if subscription.names.remove(name.as_str()) || !subscription.wildcard {
                subscription.held.remove(name.as_str());
            }
            if subscription.wildcard {
                subscription.held.remove(name.as_str());
                answer_to_unsubscribe.push(name.as_str().into());
            }
        }
        let held: Vec<Arc<str>> = if first { subscription.held.keys().cloned().collect() } else { Vec::new() };
        let candidates: Vec<Arc<str>> = if first {
            let all = self.resources(kind).map(|resource| resource.name.clone());
            all.chain(asked.iter().cloned()).chain(held).collect()
        } else if request.resource_names_subscribe.iter().any(|name| name == "*") {
            self.resources(kind).map(|resource| resource.name.clone()).chain(asked.iter().cloned()).collect()
        } else {
            asked.iter().cloned().chain(answer_to_unsubscribe).collect()
        };
        let came_back = first && !request.initial_resource_versions.is_empty();
        let (fresh, mut gone) = self.difference(kind, candidates.iter());
        // A name that does not exist is answered, so that nobody waits for it (XD-8).
        gone.extend(asked.into_iter().filter(|name| self.resource(kind, name).is_none()));
        gone.sort();
        gone.dedup();
        let must_answer = first && !came_back && self.subscriptions.get(&kind).is_some_and(|s| s.wildcard);
        let mut frames: Vec<Frame> = self.respond(kind, fresh, gone, must_answer).into_iter().collect();
        frames.extend(self.endpoints_again(&frames));
        frames
    }

    /// What of `names` the client lacks or holds in another version, and what it holds that is gone.
    fn difference<'a>(
        &self,
        kind: ResourceType,
        names: impl Iterator<Item = &'a Arc<str>>,
    ) -> (Vec<Arc<Encoded>>, Vec<Arc<str>>) {
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        let Some(subscription) = self.subscriptions.get(&kind) else { return (fresh, gone) };
        let mut seen: HashSet<&str, RandomState> = HashSet::default();
        for name in names.filter(|name| subscription.wants(name)) {
            if !seen.insert(name) {
                continue;
            }
            match self.resource(kind, name) {
                Some(resource) if subscription.held.get(name) != Some(&resource.version) => {
                    fresh.push(resource.clone())
                }
                Some(_same) => {}
                None if subscription.held.contains_key(name) => gone.push(name.clone()),
                None => {}
            }
        }
        (fresh, gone)
    }

    /// Builds a delta response and notes what the client will hold; none where there is nothing to say.
    fn respond(
        &mut self,
        kind: ResourceType,
        fresh: Vec<Arc<Encoded>>,
        gone: Vec<Arc<str>>,
        always: bool,
    ) -> Option<Frame> {
        if fresh.is_empty() && gone.is_empty() && !always {
            return None;
        }
        let nonce = self.nonce();
        let subscription = self.subscriptions.get_mut(&kind)?;
        subscription.progress.sent.clone_from(&nonce);
        for resource in &fresh {
            subscription.held.insert(resource.name.clone(), resource.version);
        }
        for name in &gone {
            subscription.held.remove(name);
        }
        Some(Frame::delta(kind, nonce, &fresh, gone))
    }

    /// A cluster that is sent anew is warmed anew: without its endpoints it would wait for ever (XM-2).
    fn endpoints_again(&mut self, frames: &[Frame]) -> Option<Frame> {
        let clusters: Vec<Arc<str>> = frames
            .iter()
            .filter(|frame| frame.kind == ResourceType::Cluster)
            .flat_map(|frame| frame.sent.clone())
            .collect();
        let subscription = self.subscriptions.get(&ResourceType::Endpoints)?;
        let already: HashSet<&Arc<str>> =
            frames.iter().filter(|frame| frame.kind == ResourceType::Endpoints).flat_map(|frame| &frame.sent).collect();
        let again = |name: &&Arc<str>| subscription.held.contains_key(*name) && !already.contains(*name);
        let endpoints = self.snapshot.of(ResourceType::Endpoints);
        let fresh: Vec<Arc<Encoded>> =
            clusters.iter().filter(again).filter_map(|name| endpoints.get(name)).cloned().collect();
        self.respond(ResourceType::Endpoints, fresh, Vec::new(), false)
    }

    /// A new snapshot: what differs is sent, make before break: clusters and endpoints before the listeners and routes
    /// that use them; what is gone, last and in the reverse order (XD-10, PI-29, D10).
    pub fn offer(&mut self, snapshot: &Arc<Snapshot>) -> Vec<Frame> {
        let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        if self.protocol == Protocol::StateOfTheWorld {
            return self.offer_everything(&before);
        }
        let known = snapshot.difference.as_ref().filter(|difference| difference.from == before.number);
        let mut frames = Vec::new();
        let mut removals: Vec<(ResourceType, Vec<Arc<str>>)> = Vec::new();
        for kind in ResourceType::ALL {
            let names: Arc<[Arc<str>]> = match known {
                Some(difference) => difference.names[kind as usize].clone(),
                None => before.of(kind).differences(snapshot.of(kind)).into(),
            };
            let (fresh, gone) = self.difference(kind, names.iter());
            frames.extend(self.respond(kind, fresh, Vec::new(), false));
            if kind == ResourceType::Endpoints {
                frames.extend(self.endpoints_again(&frames));
            }
            if !gone.is_empty() {
                removals.push((kind, gone));
            }
        }
        let order = [
            ResourceType::Listener,
            ResourceType::Route,
            ResourceType::Cluster,
            ResourceType::Endpoints,
            ResourceType::Secret,
            ResourceType::NameTable,
        ];
        removals.sort_by_key(|(kind, _)| order.iter().position(|own| own == kind));
        for (kind, gone) in removals {
            frames.extend(self.respond(kind, Vec::new(), gone, false));
        }
        frames
    }

    /// A request of the older form: acknowledgement, refusal, another set of names (XD-3, XD-5, XD-9, XD-11, PI-30).
    pub fn handle_state_of_the_world(&mut self, kind: ResourceType, request: &DiscoveryRequest) -> Vec<Frame> {
        let first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        let names: HashSet<Arc<str>, RandomState> =
            request.resource_names.iter().filter(|name| *name != "*").map(|name| name.as_str().into()).collect();
        let star = request.resource_names.iter().any(|name| name == "*");
        if first {
            // A nonce of another stream: a client that comes back; it is served as a new one.
            subscription.wildcard = star || (kind.wildcard() && request.resource_names.is_empty());
            subscription.names = names;
            return self.everything(kind).into_iter().collect();
        }
        if request.response_nonce != subscription.progress.sent {
            return Vec::new();
        }
        acknowledge(&mut subscription.progress, request.error_detail.as_ref());
        let only_names = star == subscription.wildcard || (request.resource_names.is_empty() && subscription.wildcard);
        if only_names && names == subscription.names {
            return Vec::new();
        }
        let added = names.iter().any(|name| !subscription.names.contains(name)) || (star && !subscription.wildcard);
        subscription.wildcard = star || (subscription.wildcard && request.resource_names.is_empty());
        subscription.names = names;
        let keep = &subscription.names;
        if !subscription.wildcard {
            subscription.held.retain(|name, _| keep.contains(name));
        }
        if added { self.everything(kind).into_iter().collect() } else { Vec::new() }
    }

    /// All that is subscribed of a type.
    fn everything(&mut self, kind: ResourceType) -> Option<Frame> {
        let subscription = self.subscriptions.get(&kind)?;
        let wanted = |resource: &&Arc<Encoded>| subscription.wants(&resource.name);
        let resources: Vec<Arc<Encoded>> = self.resources(kind).filter(wanted).cloned().collect();
        let version = resources.iter().fold(0_u64, |sum, resource| sum.rotate_left(7) ^ resource.version);
        let nonce = self.nonce();
        let subscription = self.subscriptions.get_mut(&kind)?;
        subscription.progress.sent.clone_from(&nonce);
        subscription.held = resources.iter().map(|resource| (resource.name.clone(), resource.version)).collect();
        Some(Frame::state_of_the_world(kind, nonce, &version_text(version), &resources))
    }

    fn offer_everything(&mut self, before: &Snapshot) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut clusters_sent = false;
        for kind in ResourceType::ALL {
            let Some(subscription) = self.subscriptions.get(&kind) else { continue };
            let names = before.of(kind).differences(self.snapshot.of(kind));
            let differs = names.iter().any(|name| subscription.wants(name));
            // Sent clusters are warmed anew, and wait for their endpoints (XM-2).
            if differs || (kind == ResourceType::Endpoints && clusters_sent) {
                frames.extend(self.everything(kind));
                clusters_sent |= kind == ResourceType::Cluster;
            }
        }
        frames
    }
}

fn acknowledge(progress: &mut Progress, error: Option<&proto::envoy::RpcStatus>) {
    match error {
        Some(error) => {
            progress.nack =
                Some(Nack { nonce: progress.sent.clone(), code: error.code, message: error.message.clone() });
        }
        None => {
            progress.acked.clone_from(&progress.sent);
            progress.nack = None;
        }
    }
}
