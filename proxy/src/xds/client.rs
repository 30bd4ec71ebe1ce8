//! All sources of configuration together, sans-IO: responses in, requests and batches out.
//!
//! One batch is out at a time. A response is acknowledged when everything in it has been applied or refused, so the
//! acknowledgement of clusters waits until they are warm (spec XM-2), and what was refused is named in the NACK while
//! the rest of the response is in use (design decision I).

use super::batch::{Batch, Cause, Part, Sender, Staged, assemble};
use super::sources::{Sources, Wanted};
use super::store::Origins;
use super::warming::{Gate, Lingering, is_leaf};
use super::{Flavour, Held, Kind, Need, Origin, Received, Rejection, Request, Resource, Store, Update, needs};
use proto::envoy::core::Node;
use proto::envoy::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Protocol of the aggregated stream; none: there is no such stream.
    pub ads: Option<Flavour>,
    /// Where clusters come from, beside the bootstrap.
    pub clusters: Option<Origin>,
    /// Where listeners come from, beside the bootstrap.
    pub listeners: Option<Origin>,
    /// Kinds of which everything is wanted on the aggregated stream, beside clusters and listeners.
    pub also: Vec<Kind>,
    /// How long clusters and listeners wait for what they need.
    pub patience: Duration,
    /// How long a cluster that is gone stays, if no route or listener follows.
    pub linger: Duration,
    /// Clusters whose secret service is this process itself.
    pub own_secret_services: BTreeSet<Arc<str>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            ads: None,
            clusters: None,
            listeners: None,
            also: Vec::new(),
            patience: Duration::from_secs(5),
            linger: Duration::from_secs(2),
            own_secret_services: BTreeSet::new(),
        }
    }
}

/// All sources together.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    sources: Sources,
    store: Store,
    needs: BTreeMap<(Kind, Arc<str>), Vec<Need>>,
    demanded: BTreeSet<(Kind, Arc<str>)>,
    absent: BTreeSet<(Kind, Arc<str>)>,
    bulk: VecDeque<(Cause, Vec<Staged>)>,
    leaves: Vec<Staged>,
    routes: Vec<Staged>,
    clusters: Gate,
    listeners: Gate,
    lingering: Lingering,
    is_batch_out: bool,
    restored: bool,
    settled: BTreeSet<Kind>,
}

impl Client {
    /// A client that introduces itself as `node`. Nothing is asked for before [`Self::handle_connected`].
    pub fn new(options: ClientOptions, node: Node) -> Self {
        let mut client = Self {
            clusters: Gate::new(options.patience),
            listeners: Gate::new(options.patience),
            sources: Sources::new(node, options.own_secret_services.clone()),
            store: Store::default(),
            needs: BTreeMap::new(),
            demanded: BTreeSet::new(),
            absent: BTreeSet::new(),
            bulk: VecDeque::new(),
            leaves: Vec::new(),
            routes: Vec::new(),
            lingering: Lingering::default(),
            is_batch_out: false,
            restored: false,
            settled: BTreeSet::new(),
            options,
        };
        if let Some(flavour) = client.options.ads {
            client.sources.open_ads(flavour, &client.options.also);
        }
        if let Some(origin) = client.options.clusters.clone() {
            client.sources.want_all(Kind::Cluster, &origin);
        } else {
            client.ask_for_listeners();
        }
        client
    }

    /// Static resources, which form the first batch.
    pub fn handle_bootstrap(&mut self, resources: Vec<(Kind, Arc<Resource>)>) {
        self.bulk(Cause::Bootstrap, Origin::Bootstrap, resources);
    }

    /// Last good resources from disk, applied before any server is heard.
    pub fn handle_restored(&mut self, resources: Vec<(Kind, Arc<Resource>)>) {
        if resources.is_empty() {
            return;
        }
        self.store.stale = true;
        self.bulk(Cause::Restored, Origin::Ads, resources);
    }

    /// A resource that this process makes itself, such as its own certificate.
    pub fn handle_local(&mut self, kind: Kind, resource: Arc<Resource>, now: Instant) {
        let update = Update { kind, added: vec![resource], removed: Vec::new() };
        self.stage(Sender { origin: Origin::Local, receipt: None }, update, Vec::new(), now);
    }

    /// A request needs a resource that was not asked for (on-demand scope): it is asked for beside the others.
    pub fn handle_demand(&mut self, kind: Kind, name: Arc<str>) {
        if self.demanded.insert((kind, name)) {
            self.retarget();
        }
    }

    /// A stream is up.
    pub fn handle_connected(&mut self, origin: &Origin) {
        if let Some(session) = self.sources.session(origin) {
            session.handle_connected();
        }
        if *origin == Origin::Ads {
            self.store.connected = true;
            self.store.stale = false;
        }
    }

    /// A stream is gone.
    pub fn handle_disconnected(&mut self, origin: &Origin) {
        if let Some(session) = self.sources.session(origin) {
            session.handle_disconnected();
        }
        if *origin == Origin::Ads {
            self.store.connected = false;
        }
    }

    /// A response of a server that speaks the delta protocol.
    pub fn handle_delta(&mut self, origin: &Origin, response: DeltaDiscoveryResponse, now: Instant) {
        let received = self.sources.session(origin).and_then(|session| session.handle_delta(response));
        self.receive(origin, received, now);
    }

    /// A response of a server that speaks the state-of-the-world protocol.
    pub fn handle_sotw(&mut self, origin: &Origin, response: DiscoveryResponse, now: Instant) {
        let mut received = self.sources.session(origin).and_then(|session| session.handle_sotw(response));
        if let Some(received) = received.as_mut().filter(|received| received.update.kind.is_whole_in_sotw()) {
            self.remove_unlisted(origin, received);
        }
        self.receive(origin, received, now);
    }

    /// The content of a file that was asked for by [`Self::poll_source`]; names that the file no longer has are gone.
    pub fn handle_file(&mut self, path: &Arc<str>, kind: Kind, response: DiscoveryResponse, now: Instant) {
        let version: Arc<str> = response.version_info.as_str().into();
        let origin = Origin::File(path.clone());
        let (mut update, refused) = super::session::read_sotw(kind, &version, response.resources);
        let is_named = |name: &Arc<str>| update.added.iter().any(|resource| resource.name == *name);
        let mine = self.store.of(kind).filter(|held| held.origin == origin).map(|held| held.resource.name.clone());
        update.removed = mine.filter(|name| !is_named(name)).collect();
        self.stage(Sender { origin, receipt: None }, update, refused, now);
    }

    /// The next message for one server.
    pub fn poll_request(&mut self, origin: &Origin) -> Option<Request> {
        self.sources.poll_request(origin, &self.store)
    }

    /// The next server to connect to or file to watch, with the kind that a file holds.
    pub fn poll_source(&mut self) -> Option<(Origin, Kind)> {
        self.sources.poll()
    }

    /// The next secret to read from files of this machine, by its name.
    pub fn poll_secret_file(&mut self) -> Option<Arc<str>> {
        self.sources.poll_secret_file()
    }

    /// Which protocol a server speaks.
    pub fn flavour(&self, origin: &Origin) -> Flavour {
        match origin {
            Origin::Ads => self.options.ads.unwrap_or(Flavour::Delta),
            _ => {
                if self.all_needs().any(|need| need.origin == *origin && need.sotw) {
                    Flavour::Sotw
                } else {
                    Flavour::Delta
                }
            }
        }
    }

    /// The next changes to apply, if any are ready and no batch is out.
    pub fn poll_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.is_batch_out {
            return None;
        }
        let batch = match self.bulk.pop_front() {
            Some((cause, staged)) => assemble(cause, staged, &mut self.lingering, now + self.options.linger),
            None => self.next_change(now)?,
        };
        self.is_batch_out = true;
        Some(batch)
    }

    /// When [`Self::poll_batch`] may have something although nothing was received.
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_batch_out {
            return None;
        }
        let gates = [self.clusters.deadline(), self.listeners.deadline().filter(|_| self.clusters.is_empty())];
        gates.into_iter().flatten().chain(self.lingering.deadline()).min()
    }

    /// What came of a batch: everything in it is in use but for what is listed.
    pub fn settle(&mut self, batch: Batch, rejections: Vec<Rejection>, at: SystemTime) {
        debug_assert!(self.is_batch_out, "a batch is settled once");
        self.is_batch_out = false;
        let mut origins = Origins::new();
        for part in &batch.parts {
            origins.extend(part.names.iter().map(|name| ((part.kind, name.clone()), part.origin.clone())));
        }
        for update in &batch.updates {
            self.store.apply(update, &origins, &rejections, at);
            self.settle_needs(update, &batch.needs, &rejections);
        }
        let referring = batch.updates.iter().any(|update| refers(update.kind)) || !batch.needs.is_empty();
        for part in batch.parts {
            self.acknowledge(part, &rejections);
        }
        self.restored |= batch.cause == Cause::Restored;
        if referring {
            self.retarget();
            self.release_secrets();
        }
        if self.settled.contains(&Kind::Cluster) || self.restored {
            self.ask_for_listeners();
        }
    }

    /// Whether clusters and listeners were taken over (or refused) at least once (spec HL-2).
    pub fn is_ready(&self) -> bool {
        let there = |kind: Kind, wanted: bool| !wanted || self.settled.contains(&kind) || self.restored;
        self.bulk.is_empty()
            && there(Kind::Cluster, self.options.clusters.is_some())
            && there(Kind::Listener, self.options.listeners.is_some())
    }

    /// Everything accepted so far.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Listeners are asked for once clusters are warm (spec XM-1).
    fn ask_for_listeners(&mut self) {
        if let Some(origin) = self.options.listeners.clone() {
            self.sources.want_all(Kind::Listener, &origin);
        }
    }

    fn bulk(&mut self, cause: Cause, origin: Origin, resources: Vec<(Kind, Arc<Resource>)>) {
        let mut staged = Vec::new();
        for kind in [Kind::Secret, Kind::Endpoint, Kind::Cluster].into_iter().chain(Kind::ALL.into_iter().skip(3)) {
            let added: Vec<_> = resources.iter().filter(|(of, _)| *of == kind).map(|(_, r)| r.clone()).collect();
            if !added.is_empty() {
                staged.push(Staged::new(
                    Sender { origin: origin.clone(), receipt: None },
                    Update { kind, added, removed: Vec::new() },
                    Vec::new(),
                ));
            }
        }
        self.bulk.push_back((cause, staged));
    }

    /// What is held but not listed any more is gone, also where it was restored from disk and this session never saw it.
    fn remove_unlisted(&self, origin: &Origin, received: &mut Received) {
        let kind = received.update.kind;
        let listed: HashSet<&Arc<str>> = received
            .update
            .added
            .iter()
            .map(|resource| &resource.name)
            .chain(received.refused.iter().map(|rejection| &rejection.name))
            .chain(&received.update.removed)
            .collect();
        let held = self.store.of(kind).filter(|held| held.origin == *origin).map(|held| &held.resource.name);
        let unlisted: Vec<Arc<str>> = held.filter(|name| !listed.contains(name)).cloned().collect();
        received.update.removed.extend(unlisted);
    }

    fn receive(&mut self, origin: &Origin, received: Option<Received>, now: Instant) {
        let Some(Received { receipt, update, refused }) = received else {
            tracing::warn!(?origin, "response of a kind that was not asked for");
            return;
        };
        self.stage(Sender { origin: origin.clone(), receipt: Some(receipt) }, update, refused, now);
    }

    /// Sorts a change into the place where it waits, and asks for what it needs.
    fn stage(&mut self, sender: Sender, mut update: Update, mut refused: Vec<Rejection>, now: Instant) {
        self.refuse_static_names(&mut update, &mut refused, &sender.origin);
        let kind = update.kind;
        for name in &update.removed {
            self.absent.insert((kind, name.clone()));
        }
        if kind == Kind::Secret {
            // As Envoy has it: the word that there is none ends the waiting, and what is in use stays in use.
            update.removed.clear();
        }
        let mut wanted = Vec::new();
        update.added.retain(|resource| {
            self.absent.remove(&(kind, resource.name.clone()));
            match needs::of(kind, resource) {
                Ok(needs) => wanted.push((resource.name.clone(), needs)),
                Err(rejection) => {
                    refused.push(rejection);
                    return false;
                }
            }
            true
        });
        let staged = Staged::new(sender, update, refused);
        match kind {
            Kind::Cluster => self.clusters.stage(staged, wanted, now),
            Kind::Listener => self.listeners.stage(staged, wanted, now),
            _ if is_leaf(kind) => self.leaves.push(staged),
            _ => self.routes.push(staged),
        }
        if refers(kind) {
            self.retarget();
        }
    }

    /// What the bootstrap says is not changed from outside.
    fn refuse_static_names(&self, update: &mut Update, refused: &mut Vec<Rejection>, origin: &Origin) {
        if *origin == Origin::Local {
            return;
        }
        let kind = update.kind;
        let is_static = |name: &str| self.store.get(kind, name).is_some_and(|held| held.origin == Origin::Bootstrap);
        update.removed.retain(|name| !is_static(name));
        update.added.retain(|resource| {
            let clash = is_static(&resource.name);
            if clash {
                let why = format!("the bootstrap has a static {} of this name", kind.noun());
                refused.push(Rejection { kind, name: resource.name.clone(), field: "name".into(), why: why.into() });
            }
            !clash
        });
    }

    fn next_change(&mut self, now: Instant) -> Option<Batch> {
        let mut staged = std::mem::take(&mut self.leaves);
        let mut needs = BTreeMap::new();
        let opened = self.clusters.take(now, is_there(&self.store, &self.absent, &staged));
        if let Some(opened) = opened {
            needs.extend(opened.needs.into_iter().map(|(name, list)| ((Kind::Cluster, name), list)));
            staged.extend(opened.staged);
        }
        let mut routes_changed = false;
        if self.clusters.is_empty() {
            staged.append(&mut self.routes);
            if let Some(opened) = self.listeners.take(now, is_there(&self.store, &self.absent, &staged)) {
                needs.extend(opened.needs.into_iter().map(|(name, list)| ((Kind::Listener, name), list)));
                staged.extend(opened.staged);
            }
            routes_changed =
                staged.iter().any(|s| matches!(s.update.kind, Kind::Route | Kind::Listener | Kind::VirtualHost));
        }
        let is_empty = staged.is_empty();
        let mut batch = assemble(Cause::Change, staged, &mut self.lingering, now + self.options.linger);
        batch.needs = needs;
        let gone = self.lingering.take(now, routes_changed);
        if !gone.is_empty() {
            batch.updates.push(Update { kind: Kind::Cluster, added: Vec::new(), removed: gone });
        } else if is_empty {
            return None;
        }
        Some(batch)
    }

    fn settle_needs(&mut self, update: &Update, needs: &BTreeMap<(Kind, Arc<str>), Vec<Need>>, refused: &[Rejection]) {
        for name in &update.removed {
            self.needs.remove(&(update.kind, name.clone()));
        }
        for resource in &update.added {
            let key = (update.kind, resource.name.clone());
            if refused.iter().any(|rejection| rejection.kind == key.0 && rejection.name == key.1) {
                continue;
            }
            // static and restored resources come without: they did not wait at a gate
            let list = needs.get(&key).cloned().or_else(|| needs::of(update.kind, resource).ok()).unwrap_or_default();
            self.needs.insert(key, list);
        }
    }

    fn acknowledge(&mut self, part: Part, rejections: &[Rejection]) {
        let Part { origin, receipt, kind, names, mut refused } = part;
        refused.extend(rejections.iter().filter(|r| r.kind == kind && names.contains(&r.name)).cloned());
        for rejection in &refused {
            tracing::warn!(kind = kind.short_name(), "rejected {rejection}");
        }
        if matches!(origin, Origin::Bootstrap) {
            return;
        }
        self.store.count(kind, refused.is_empty());
        let Some(receipt) = receipt else {
            self.settled.insert(kind);
            return;
        };
        self.settled.insert(kind);
        if let Some(session) = self.sources.session(&origin) {
            session.handle_verdict(&receipt, &refused);
        }
    }

    fn all_needs(&self) -> impl Iterator<Item = &Need> {
        self.needs.values().flatten().chain(self.clusters.needs()).chain(self.listeners.needs())
    }

    /// Secrets of the control plane that nothing names any more are forgotten, here and on disk.
    fn release_secrets(&mut self) {
        let named: BTreeSet<&Arc<str>> =
            self.all_needs().filter(|need| need.kind == Kind::Secret).map(|need| &need.name).collect();
        let unused = |held: &&Arc<Held>| held.origin == Origin::Ads && !named.contains(&held.resource.name);
        let removed: Vec<Arc<str>> =
            self.store.of(Kind::Secret).filter(unused).map(|held| held.resource.name.clone()).collect();
        if !removed.is_empty() {
            let update = Update { kind: Kind::Secret, added: Vec::new(), removed };
            self.leaves.push(Staged::new(Sender { origin: Origin::Ads, receipt: None }, update, Vec::new()));
        }
    }

    /// Asks each source for exactly what is needed of it.
    fn retarget(&mut self) {
        let mut wanted = Wanted::new();
        let mut sotw = BTreeSet::new();
        for need in self.all_needs() {
            wanted.entry((need.origin.clone(), need.kind)).or_default().insert(need.name.clone());
            if need.sotw {
                sotw.insert(need.origin.clone());
            }
        }
        for (kind, name) in &self.demanded {
            wanted.entry((Origin::Ads, *kind)).or_default().insert(name.clone());
        }
        let wants =
            |kind: Kind, name: &Arc<str>| wanted.iter().any(|((_, of), names)| *of == kind && names.contains(name));
        self.absent.retain(|(kind, name)| wants(*kind, name));
        self.sources.want(wanted, &sotw);
    }
}

/// Whether a need is met: by what is in use, by what comes in the same batch, or by the word that there is no such thing.
fn is_there<'a>(
    store: &'a Store,
    absent: &'a BTreeSet<(Kind, Arc<str>)>,
    staged: &[Staged],
) -> impl Fn(&Need) -> bool + 'a {
    let named = staged.iter().flat_map(|s| s.part.names.iter().map(|name| (s.part.kind, name.clone())));
    let coming: HashSet<(Kind, Arc<str>)> = named.collect();
    move |need| {
        let key = (need.kind, need.name.clone());
        store.get(need.kind, &need.name).is_some() || absent.contains(&key) || coming.contains(&key)
    }
}

/// Whether resources of a kind refer to others.
fn refers(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

#[cfg(test)]
mod tests;
