//! Resources → parts: only what changed, and rejections by name and field.

use super::deliver::Workers;
use super::resolve::{Resolved, follow};
use super::sockets::listen;
use crate::bootstrap::{Bootstrap, Environment};
use crate::cluster::ClusterConfig;
use crate::cluster::config::{self as cluster, Members};
use crate::drain::Terms;
use crate::endpoint::HostSet;
use crate::endpoint::config::{self as endpoint, Known};
use crate::filter::registry::parse_override;
use crate::listener::ListenerConfig;
use crate::listener::config as listener;
use crate::refusal::Refusal;
use crate::route::{RouteContext, RouteTable};
use crate::tls::{ClientContext, Secrets, ServerContext, Spec};
use crate::worker::{Message, Which};
use crate::xds::{Batch, Kind, Rejection, Resource, Update};
use bytes::Bytes;
use proto::envoy::cluster::Cluster;
use proto::envoy::core::BindConfig;
use proto::envoy::endpoint::ClusterLoadAssignment;
use proto::envoy::listener::Listener;
use proto::envoy::route::RouteConfiguration;
use proto::envoy::tls::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A listener as it is published.
struct ListenerPart {
    config: Arc<ListenerConfig>,
    /// Its message.
    body: Bytes,
    /// Where it listens, with the port that the system chose for port 0.
    bound: Arc<[SocketAddr]>,
}

struct ClusterPart {
    /// Its message.
    body: Bytes,
    config: Arc<ClusterConfig>,
    members: Members,
    hosts: Arc<HostSet>,
    tls: Vec<(Arc<ClientContext>, Spec)>,
    resolving: Option<JoinHandle<()>>,
}

impl Drop for ClusterPart {
    fn drop(&mut self) {
        if let Some(task) = &self.resolving {
            task.abort();
        }
    }
}

impl ClusterPart {
    fn known(&self) -> Known {
        self.hosts.iter().map(|e| (e.address.clone(), Arc::clone(&e.shared))).collect()
    }
}

/// Builds parts and tells the workers.
pub struct Publisher {
    workers: Workers,
    clusters: BTreeMap<Arc<str>, ClusterPart>,
    assignments: BTreeMap<Arc<str>, ClusterLoadAssignment>,
    listeners: BTreeMap<Arc<str>, ListenerPart>,
    secrets: Secrets,
    resolved: mpsc::Receiver<Resolved>,
    resolver: mpsc::Sender<Resolved>,
    environment: Environment,
    runtime: BTreeMap<String, f64>,
    bind: Option<BindConfig>,
}

/// Answers of DNS that may wait to be taken over.
const RESOLVED: usize = 64;

impl Publisher {
    /// A publisher for `workers`, with nothing published; environment, runtime values and how clusters bind that do not
    /// say it themselves are the bootstrap's.
    pub fn new(workers: Workers, bootstrap: &Bootstrap) -> Self {
        let (resolver, resolved) = mpsc::channel(RESOLVED);
        Self {
            workers,
            clusters: BTreeMap::new(),
            assignments: BTreeMap::new(),
            listeners: BTreeMap::new(),
            secrets: Secrets::default(),
            resolved,
            resolver,
            environment: bootstrap.environment.clone(),
            runtime: bootstrap.runtime.clone(),
            bind: bootstrap.bind().cloned(),
        }
    }

    fn route_context(&self) -> RouteContext<'_> {
        RouteContext { environment: &self.environment, runtime: &self.runtime, parse_override: &parse_override }
    }

    /// What is published and where it listens, for the admin interface.
    pub fn listeners(&self) -> impl Iterator<Item = (&Arc<ListenerConfig>, &Arc<[SocketAddr]>)> {
        self.listeners.values().map(|part| (&part.config, &part.bound))
    }

    /// What is published, for the admin interface.
    pub fn clusters(&self) -> impl Iterator<Item = (&Arc<ClusterConfig>, &Arc<HostSet>)> {
        self.clusters.values().map(|part| (&part.config, &part.hosts))
    }

    /// Secrets that have arrived, for the admin interface.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Has connections leave.
    pub async fn drain(&self, which: Which, terms: Terms) {
        self.workers.tell(|_| Message::Drain(which, terms)).await;
    }

    /// The workers' inboxes.
    pub fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// Takes a batch over. Everything in it is in use when this returns, but for the rejections.
    pub async fn apply(&mut self, batch: &Batch) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for update in &batch.updates {
            Box::pin(self.update(update, &mut rejections)).await;
        }
        // Workers have adopted all of it once they answer: what comes next may rest on it (make before break).
        self.workers.reports().await;
        rejections
    }

    /// Takes over what DNS has answered. Cancel-safe.
    pub async fn next_resolved(&mut self) {
        let Some(Resolved { cluster, hosts }) = self.resolved.recv().await else { return };
        if let Some(part) = self.clusters.get_mut(&cluster) {
            part.hosts = Arc::new(hosts);
            let hosts = Arc::clone(&part.hosts);
            self.workers.tell(|_| Message::Hosts(Arc::clone(&cluster), Arc::clone(&hosts))).await;
        }
    }

    async fn update(&mut self, update: &Update, rejections: &mut Vec<Rejection>) {
        for resource in &update.added {
            let taken = match update.kind {
                Kind::Cluster => Box::pin(self.add_cluster(resource)).await,
                Kind::Endpoint => self.add_assignment(resource).await,
                Kind::Listener => self.add_listener(resource).await,
                Kind::Route => self.add_routes(resource).await,
                Kind::Secret => self.add_secret(resource),
                Kind::VirtualHost | Kind::ExtensionConfig => Err(Refusal::unsupported("this kind of resource")),
                Kind::NameTable | Kind::ProxyConfig => Ok(()),
            };
            if let Err(refusal) = taken {
                tracing::warn!(kind = ?update.kind, name = &*resource.name, %refusal, "resource refused, the last good one stays");
                rejections.push(Rejection {
                    kind: update.kind,
                    name: Arc::clone(&resource.name),
                    field: refusal.field.into(),
                    why: refusal.why.into(),
                });
            }
        }
        for name in &update.removed {
            self.remove(update.kind, name).await;
        }
    }

    async fn remove(&mut self, kind: Kind, name: &Arc<str>) {
        match kind {
            Kind::Cluster => {
                self.clusters.remove(name);
                self.workers.tell(|_| Message::RemoveCluster(Arc::clone(name))).await;
            }
            Kind::Endpoint => {
                self.assignments.remove(name);
            }
            Kind::Listener => {
                self.listeners.remove(name);
                self.workers.tell(|_| Message::RemoveListener(Arc::clone(name))).await;
            }
            Kind::Route => self.workers.tell(|_| Message::RemoveRoutes(Arc::clone(name))).await,
            Kind::Secret => self.secrets.remove(name),
            _ => {}
        }
    }

    async fn add_cluster(&mut self, resource: &Resource) -> Result<(), Refusal> {
        let same = |part: &ClusterPart| part.body == resource.body;
        if self.clusters.get(&resource.name).is_some_and(same) {
            return Ok(()); // pools and their connections are kept (LC-2)
        }
        let mut written: Cluster = decode(&resource.body)?;
        written.upstream_bind_config = written.upstream_bind_config.or_else(|| self.bind.clone());
        let parsed = cluster::parse(&written)?;
        let name = Arc::clone(&parsed.config.name);
        let known = self.clusters.get(&name).map(ClusterPart::known).unwrap_or_default();
        let hosts = match &parsed.members {
            Members::Static(assignment) => endpoint::parse_addresses(assignment, &known)?,
            Members::Eds(service) => match self.assignments.get(service) {
                Some(assignment) => endpoint::parse_addresses(assignment, &known)?,
                None => HostSet::default(),
            },
            // Until DNS answers, the endpoints of an earlier version serve on.
            Members::Dns { .. } => match self.clusters.get(&name) {
                Some(part) => HostSet { priorities: clone_priorities(&part.hosts), overprovisioning_percent: 140 },
                None => HostSet::default(),
            },
            Members::OriginalDst => HostSet::default(),
        };
        for (context, spec) in &parsed.tls {
            context.config.store(self.secrets.client(spec)?);
        }
        let part = ClusterPart {
            body: resource.body.clone(),
            config: Arc::new(parsed.config),
            resolving: follow(&name, &parsed.members, self.resolver.clone()),
            members: parsed.members,
            hosts: Arc::new(hosts),
            tls: parsed.tls,
        };
        let (config, hosts) = (Arc::clone(&part.config), Arc::clone(&part.hosts));
        self.clusters.insert(name, part);
        self.workers.tell(|_| Message::Cluster(Arc::clone(&config), Arc::clone(&hosts))).await;
        Ok(())
    }

    async fn add_assignment(&mut self, resource: &Resource) -> Result<(), Refusal> {
        let written: ClusterLoadAssignment = decode(&resource.body)?;
        endpoint::parse_addresses(&written, &Known::default())?;
        let service: Arc<str> = Arc::clone(&resource.name);
        let fed = |part: &ClusterPart| matches!(&part.members, Members::Eds(name) if *name == service);
        for (name, part) in self.clusters.iter_mut().filter(|(_, part)| fed(part)) {
            part.hosts = Arc::new(endpoint::parse_addresses(&written, &part.known())?);
            let hosts = Arc::clone(&part.hosts);
            self.workers.tell(|_| Message::Hosts(Arc::clone(name), Arc::clone(&hosts))).await;
        }
        self.assignments.insert(service, written);
        Ok(())
    }

    async fn add_routes(&self, resource: &Resource) -> Result<(), Refusal> {
        let written: RouteConfiguration = decode(&resource.body)?;
        let table = Arc::new(RouteTable::parse(&written, self.route_context())?);
        let name = Arc::clone(&resource.name);
        self.workers.tell(|_| Message::Routes(Arc::clone(&name), Arc::clone(&table))).await;
        Ok(())
    }

    async fn add_listener(&mut self, resource: &Resource) -> Result<(), Refusal> {
        let written: Listener = decode(&resource.body)?;
        let mut config = listener::parse(&written, self.route_context())?;
        let old = self.listeners.get(&config.name);
        if let Some(old) = old {
            config.keep(&written, (&decode(&old.body)?, &old.config));
        }
        let config = Arc::new(config);
        for (context, spec) in server_contexts(&config) {
            context.ready.store(self.secrets.server(spec)?);
        }
        let at = |part: &ListenerPart| (part.config.address, part.config.more_addresses.clone());
        let stays = old.filter(|old| at(old) == (config.address, config.more_addresses.clone()));
        let (bound, sockets) = match stays {
            Some(old) => (Arc::clone(&old.bound), Vec::new()),
            None => listen(&config, self.workers.count())?,
        };
        let part = ListenerPart { config: Arc::clone(&config), body: resource.body.clone(), bound };
        self.listeners.insert(Arc::clone(&config.name), part);
        let mut sockets = sockets.into_iter();
        self.workers.tell(|_| Message::Listener(Arc::clone(&config), sockets.next().unwrap_or_default())).await;
        Ok(())
    }

    /// Takes a secret and renews every context that uses it; open connections keep theirs (D6). A context that cannot use
    /// it keeps what it has, and the others do not suffer by it.
    fn add_secret(&mut self, resource: &Resource) -> Result<(), Refusal> {
        let written: Secret = decode(&resource.body)?;
        self.secrets.insert(&written)?;
        let mut refused = None;
        let clusters = self.clusters.values().flat_map(|part| &part.tls);
        for (context, spec) in clusters.filter(|(_, spec)| spec.uses(&written.name)) {
            match self.secrets.client(spec) {
                Ok(Some(config)) => context.config.store(Some(config)),
                Ok(None) => {}
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        let listeners = self.listeners.values().flat_map(|listener| server_contexts(&listener.config));
        for (context, spec) in listeners.filter(|(_, spec)| spec.uses(&written.name)) {
            match self.secrets.server(spec) {
                Ok(Some(ready)) => context.ready.store(Some(ready)),
                Ok(None) => {}
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

fn server_contexts(listener: &ListenerConfig) -> impl Iterator<Item = (&Arc<ServerContext>, &Arc<Spec>)> {
    let chains = listener.chains.iter().chain(&listener.default_chain);
    chains.filter_map(|chain| chain.tls.as_ref()).map(|(context, spec)| (context, spec))
}

fn clone_priorities(hosts: &HostSet) -> Vec<crate::endpoint::Priority> {
    let copy = |p: &crate::endpoint::Priority| crate::endpoint::Priority {
        all: p.all.clone(),
        locality_weights: p.locality_weights.clone(),
    };
    hosts.priorities.iter().map(copy).collect()
}

fn decode<M: prost::Message + Default>(body: &Bytes) -> Result<M, Refusal> {
    M::decode(body.clone()).map_err(|error| Refusal::new("", format!("malformed message: {error}")))
}
