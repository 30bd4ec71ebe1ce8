//! The immutable mesh and its incremental rebuilding.

use super::MeshConfig;
use super::authn::{self, Policies};
use super::authz::{self, AuthorizationPolicy};
use super::delegate;
use super::destination_rule::{self, Rules, orders_by_nodes};
use super::gateway::{self, Gateway};
use super::rate_limit::{self, RateLimit};
use super::request_authn::{self, RequestAuthentication};
use super::secret::Secrets;
use super::service_entry;
use super::shared::Shared;
use super::sidecar::{self, Sidecar};
use super::telemetry::{self, Telemetries};
use super::virtual_service::{self, VirtualService};
use crate::registry::pod::{Workload, Workloads};
use crate::registry::service::Distribution;
use crate::registry::{self, EndpointSet, Registry, Service, ServiceKey, Settings};
use crate::source::key_sets::{KeySets, Wanted};
use crate::source::{Key, Kind, Object, Problem, Spec, Store};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A service that a workload serves, and on which of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance {
    /// The service.
    pub service: Shared<Service>,
    /// Number of the service's port.
    pub service_port: u16,
    /// Port of the workload.
    pub port: u16,
}

/// Everything that holds at one moment.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// The mesh's own settings.
    pub config: Shared<MeshConfig>,
    /// All services, oldest first.
    pub services: Arc<Vec<Shared<Service>>>,
    /// Endpoints by service.
    pub endpoints: Arc<HashMap<ServiceKey, Shared<EndpointSet>>>,
    /// Workloads by address, namespace and name.
    pub workloads: Arc<Workloads>,
    /// What is served at an address.
    pub instances: Arc<HashMap<String, Vec<Instance>>>,
    /// Rules with their delegates merged in, oldest first.
    pub virtual_services: Arc<Vec<Shared<VirtualService>>>,
    /// DestinationRules.
    pub rules: Arc<Rules>,
    /// Gateways, oldest first.
    pub gateways: Arc<Vec<Shared<Gateway>>>,
    /// Sidecars, oldest first.
    pub sidecars: Arc<Vec<Shared<Sidecar>>>,
    /// PeerAuthentications.
    pub authn: Shared<Policies>,
    /// AuthorizationPolicies, oldest first.
    pub authz: Arc<Vec<Shared<AuthorizationPolicy>>>,
    /// RequestAuthentications, oldest first.
    pub tokens: Arc<Vec<Shared<RequestAuthentication>>>,
    /// What is known of the keys of token issuers.
    pub key_sets: Arc<KeySets>,
    /// Telemetries.
    pub telemetry: Arc<Telemetries>,
    /// RateLimits, oldest first.
    pub limits: Arc<Vec<Shared<RateLimit>>>,
    /// Secrets.
    pub secrets: Arc<Secrets>,
    /// Whether some endpoints are chosen by the node of who asks.
    pub counts_nodes: bool,
}

/// What a rebuilding has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Services whose endpoints differ.
    pub endpoints: HashSet<ServiceKey>,
    /// Addresses at which other services are served than before.
    pub addresses: HashSet<String>,
    /// VirtualServices differ: of what rests on them, listeners and routes do.
    pub virtual_services: bool,
    /// Secrets differ: nothing rests on them but what proxies are told of them.
    pub secrets: bool,
    /// Anything else differs.
    pub full: bool,
}

impl Change {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && !self.virtual_services && !self.secrets && !self.full
    }

    /// Takes another one in.
    pub fn merge(&mut self, other: Self) {
        self.endpoints.extend(other.endpoints);
        self.addresses.extend(other.addresses);
        self.virtual_services |= other.virtual_services;
        self.secrets |= other.secrets;
        self.full |= other.full;
    }
}

/// Validates an object.
///
/// # Errors
/// Everything that is wrong with it.
pub fn admit(object: &Object, config: &MeshConfig) -> Result<(), Vec<Problem>> {
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::parse(object, spec, config).map(drop),
        Spec::DestinationRule(spec) => destination_rule::parse(object, spec, config).map(drop),
        Spec::Gateway(spec) => gateway::parse(object, spec).map(drop),
        Spec::Sidecar(spec) => sidecar::parse(object, spec).map(drop),
        Spec::PeerAuthentication(spec) => authn::parse(object, spec).map(drop),
        Spec::AuthorizationPolicy(spec) => authz::parse(object, spec).map(drop),
        Spec::RequestAuthentication(spec) => request_authn::parse(object, spec, &KeySets::new()).map(drop),
        Spec::Telemetry(spec) => telemetry::parse(object, spec, &config.providers).map(drop),
        Spec::RateLimit(spec) => rate_limit::parse(object, spec, config.policy_server.is_some()).map(drop),
        Spec::ServiceEntry(spec) => service_entry::check(object, spec),
        Spec::WorkloadEntry(spec) => service_entry::check_workload(object, spec),
        Spec::Namespace | Spec::Node | Spec::Service(_) | Spec::EndpointSlice(_) | Spec::Pod(..) => Ok(()),
        // What is broken of one is said by what names it; its good half stays in force.
        Spec::Secret(_) => Ok(()),
    }
}

impl Mesh {
    /// A mesh without objects.
    pub fn empty(config: MeshConfig) -> Self {
        Self {
            authn: Shared::new(Policies::new(Vec::new(), &config.root_namespace)),
            config: Shared::new(config),
            services: Arc::default(),
            endpoints: Arc::default(),
            workloads: Arc::default(),
            instances: Arc::default(),
            virtual_services: Arc::default(),
            rules: Arc::default(),
            gateways: Arc::default(),
            sidecars: Arc::default(),
            authz: Arc::default(),
            tokens: Arc::default(),
            key_sets: Arc::default(),
            telemetry: Arc::default(),
            limits: Arc::default(),
            secrets: Arc::default(),
            counts_nodes: false,
        }
    }

    /// The key sets that its RequestAuthentications rest on.
    pub fn wanted_keys(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for (source, timeout) in self.tokens.iter().flat_map(|policy| policy.sources()) {
            let longest = wanted.entry(source).or_insert(timeout);
            *longest = timeout.max(*longest);
        }
        wanted
    }

    /// What the registry must know.
    pub fn settings(&self) -> Settings {
        Settings {
            domain: self.config.domain.clone(),
            cluster: self.config.cluster.clone(),
            trust_domains: self.config.trust_domains().cloned().collect(),
            autoallocate: self.config.ip_autoallocate,
        }
    }

    /// Takes in that objects of `changed` have changed in the store; only what rests on them is made anew. A deleted
    /// object stands in `changed` as it was.
    pub fn update(&mut self, store: &Store, changed: &BTreeMap<Key, Arc<Object>>) -> Change {
        let kinds: BTreeSet<Kind> = changed.keys().map(|key| key.kind).collect();
        let mut change = Change::default();
        self.update_registry(store, changed, &kinds, &mut change);
        if kinds.contains(&Kind::Secret) {
            let secrets = self.secrets.update(store, changed);
            change.secrets = secrets != *self.secrets;
            self.secrets = Arc::new(secrets);
        }
        let rules = [
            Kind::VirtualService,
            Kind::DestinationRule,
            Kind::Gateway,
            Kind::Sidecar,
            Kind::PeerAuthentication,
            Kind::AuthorizationPolicy,
            Kind::RequestAuthentication,
            Kind::Telemetry,
            Kind::RateLimit,
        ];
        for kind in rules.into_iter().filter(|kind| kinds.contains(kind)) {
            self.update_rules(store, kind);
            if kind == Kind::VirtualService {
                change.virtual_services = true;
            } else {
                change.full = true;
            }
        }
        if change.full {
            self.counts_nodes = self.rules.order_by_nodes()
                || orders_by_nodes(&self.config.locality)
                || self.services.iter().any(|one| one.node_local || one.distribution == Distribution::SameNode);
        }
        change
    }

    fn update_registry(
        &mut self,
        store: &Store,
        changed: &BTreeMap<Key, Arc<Object>>,
        kinds: &BTreeSet<Kind>,
        change: &mut Change,
    ) {
        let settings = self.settings();
        let services_changed = kinds.contains(&Kind::Service) || kinds.contains(&Kind::ServiceEntry);
        if services_changed {
            let old: HashMap<&ServiceKey, &Shared<Service>> = self.services.iter().map(|s| (&s.key, s)).collect();
            let services = registry::services(store, &settings);
            let services: Vec<_> =
                services.into_iter().map(|service| Shared::renew(old.get(&service.key).copied(), service)).collect();
            change.full |= services != *self.services;
            self.services = Arc::new(services);
        }
        let same = self.same_workloads(store, changed, &settings);
        let moves = |key: &Key| match key.kind {
            Kind::Pod => !same.contains(key),
            kind => matches!(kind, Kind::WorkloadEntry | Kind::Node),
        };
        if changed.keys().any(moves) {
            let workloads = registry::pod::workloads(store, &settings);
            change.full |= workloads != *self.workloads;
            self.workloads = Arc::new(workloads);
        }
        let stale = self.stale_services(changed, kinds, &same);
        if stale.is_empty() && !change.full {
            return;
        }
        let endpoints = Arc::make_mut(&mut self.endpoints);
        let mut differ: Vec<(Shared<Service>, Option<Shared<EndpointSet>>)> = Vec::new();
        for service in stale {
            let set = registry::endpoints(&service, store, &settings);
            let old = endpoints.get(&service.key);
            let new = Shared::renew(old, set);
            if old != Some(&new) {
                change.full |= old.is_none_or(|old| needs_full(&service, old, &new));
                change.endpoints.insert(service.key.clone());
                differ.push((service.clone(), endpoints.insert(service.key.clone(), new)));
            }
        }
        if services_changed {
            let known: HashSet<&ServiceKey> = self.services.iter().map(|service| &service.key).collect();
            endpoints.retain(|key, _| known.contains(key));
            self.index_instances();
        } else {
            for (service, old) in differ {
                self.reindex(&service, old.as_deref(), change);
            }
        }
    }

    /// The pods of which no more has changed than whether they take traffic, as most often.
    fn same_workloads<'a>(
        &self,
        store: &Store,
        changed: &'a BTreeMap<Key, Arc<Object>>,
        settings: &Settings,
    ) -> HashSet<&'a Key> {
        let same = |key: &&Key| {
            let now = store.get(key).and_then(|object| registry::pod::workload(object, store, settings));
            let Some(now) = now else {
                let of_pod = |old: &Workload| *old.namespace == *key.namespace && *old.name == *key.name;
                return !self.workloads.values().any(|old| of_pod(old));
            };
            let address = now.addresses.first().map_or("", String::as_str);
            let at = (address.to_owned(), now.namespace.clone(), now.name.clone());
            self.workloads.get(&at).is_some_and(|old| **old == now)
        };
        changed.keys().filter(|key| key.kind == Kind::Pod).filter(same).collect()
    }

    /// The services whose endpoints may differ; those of pods in `same` may in health alone, on which services of Kubernetes
    /// do not rest: their slices say it.
    fn stale_services(
        &self,
        changed: &BTreeMap<Key, Arc<Object>>,
        kinds: &BTreeSet<Kind>,
        same: &HashSet<&Key>,
    ) -> Vec<Shared<Service>> {
        let all = kinds.contains(&Kind::Node);
        let mut namespaces: HashSet<&str> = HashSet::new();
        let mut names: HashSet<(Arc<str>, Arc<str>)> = HashSet::new();
        let mut declared: HashSet<&Key> = HashSet::new();
        // Whoever declared a host before may leave it to another one.
        let mut hosts_of: HashSet<&str> = HashSet::new();
        let mut pods: Vec<&Object> = Vec::new();
        for (key, object) in changed {
            match key.kind {
                Kind::Pod if same.contains(key) => pods.push(object),
                Kind::Pod | Kind::WorkloadEntry => {
                    namespaces.insert(&key.namespace);
                }
                Kind::EndpointSlice => {
                    names.extend(crate::source::store::service_of_slice(object));
                }
                Kind::Service | Kind::ServiceEntry => {
                    declared.insert(key);
                    hosts_of.insert(&key.namespace);
                }
                _ => {}
            }
        }
        let selects = |service: &Service, pod: &&Object| {
            !service.selector.is_empty()
                && pod.key.namespace == service.key.namespace
                && registry::entry::selects(&service.selector, &pod.meta.labels)
        };
        let stale = |service: &&Shared<Service>| {
            all || namespaces.contains(&*service.key.namespace)
                || declared.contains(&service.declared_by)
                || (service.registry == Registry::External && hosts_of.contains(&*service.key.namespace))
                || (service.registry == Registry::External && pods.iter().any(|pod| selects(service, pod)))
                || !self.endpoints.contains_key(&service.key)
                || (service.registry == Registry::Kubernetes
                    && names.contains(&(service.key.namespace.clone(), service.name.as_str().into())))
        };
        self.services.iter().filter(stale).cloned().collect()
    }

    fn index_instances(&mut self) {
        let mut instances: HashMap<String, Vec<Instance>> = HashMap::new();
        for service in self.services.iter() {
            let Some(set) = self.endpoints.get(&service.key) else { continue };
            for endpoint in set.endpoints.iter() {
                instances.entry(endpoint.address.clone()).or_default().push(Instance {
                    service: service.clone(),
                    service_port: endpoint.service_port,
                    port: endpoint.port,
                });
            }
        }
        self.instances = Arc::new(instances);
    }

    /// Puts the new endpoints of one service into the index in the place of the old ones.
    fn reindex(&mut self, service: &Shared<Service>, old: Option<&EndpointSet>, change: &mut Change) {
        let instances = Arc::make_mut(&mut self.instances);
        let entry = |endpoint: &registry::Endpoint| (endpoint.address.clone(), endpoint.service_port, endpoint.port);
        let of = |set: Option<&EndpointSet>| -> HashSet<_> {
            set.into_iter().flat_map(|set| &set.endpoints).map(entry).collect()
        };
        let (before, now) = (of(old), of(self.endpoints.get(&service.key).map(|set| &**set)));
        for (address, service_port, port) in before.difference(&now) {
            if let Some(served) = instances.get_mut(address) {
                served.retain(|own| {
                    own.service.key != service.key || own.service_port != *service_port || own.port != *port
                });
            }
            change.addresses.insert(address.clone());
        }
        for (address, service_port, port) in now.difference(&before) {
            let served = instances.entry(address.clone()).or_default();
            served.push(Instance { service: service.clone(), service_port: *service_port, port: *port });
            change.addresses.insert(address.clone());
        }
    }

    fn update_rules(&mut self, store: &Store, kind: Kind) {
        let mut objects: Vec<&Arc<Object>> = store.of_kind(kind).collect();
        objects.sort_by(|a, b| a.age().cmp(&b.age()));
        let config = self.config.clone();
        // Everything in the store has been admitted: what does not parse here cannot exist.
        macro_rules! parsed {
            ($kind:ident, |$object:ident, $spec:ident| $parse:expr) => {
                objects.iter().filter_map(|$object| match &$object.spec {
                    Spec::$kind($spec) => $parse.ok(),
                    _ => None,
                })
            };
        }
        match kind {
            Kind::VirtualService => {
                let parsed = parsed!(VirtualService, |object, spec| virtual_service::parse(object, spec, &config));
                let merged = delegate::merge(parsed.collect(), &config);
                self.virtual_services = renew(&self.virtual_services, merged, |rule| &rule.key);
            }
            Kind::DestinationRule => {
                let parsed = parsed!(DestinationRule, |object, spec| destination_rule::parse(object, spec, &config));
                self.rules = Arc::new(Rules::build(parsed, &self.rules));
            }
            Kind::Gateway => {
                let parsed = parsed!(Gateway, |object, spec| gateway::parse(object, spec));
                self.gateways = renew(&self.gateways, parsed.collect(), |gateway| &gateway.key);
            }
            Kind::Sidecar => {
                let parsed = parsed!(Sidecar, |object, spec| sidecar::parse(object, spec));
                self.sidecars = renew(&self.sidecars, parsed.collect(), |sidecar| &sidecar.key);
            }
            Kind::PeerAuthentication => {
                let parsed = parsed!(PeerAuthentication, |object, spec| authn::parse(object, spec));
                let policies = Policies::new(parsed.collect(), &config.root_namespace);
                self.authn = Shared::renew(Some(&self.authn), policies);
            }
            Kind::AuthorizationPolicy => {
                let parsed = parsed!(AuthorizationPolicy, |object, spec| authz::parse(object, spec));
                self.authz = renew(&self.authz, parsed.collect(), |policy| &policy.key);
            }
            Kind::RequestAuthentication => {
                let parsed =
                    parsed!(RequestAuthentication, |object, spec| request_authn::parse(object, spec, &self.key_sets));
                self.tokens = renew(&self.tokens, parsed.collect(), |policy| &policy.key);
            }
            Kind::Telemetry => {
                let parsed = parsed!(Telemetry, |object, spec| telemetry::parse(object, spec, &config.providers));
                self.telemetry = Arc::new(Telemetries::new(parsed.collect(), &config.root_namespace));
            }
            Kind::RateLimit => {
                let parsed =
                    parsed!(RateLimit, |object, spec| rate_limit::parse(object, spec, config.policy_server.is_some()));
                self.limits = renew(&self.limits, parsed.collect(), |limit| &limit.key);
            }
            _ => {}
        }
    }
}

/// Whether more than EDS rests on the difference: identities stand in the clusters, addresses of headless services
/// are listeners, DNS clusters hold their endpoints (PI-35, PI-17).
fn needs_full(service: &Service, old: &EndpointSet, new: &EndpointSet) -> bool {
    service.resolution != registry::Resolution::Endpoints || old.identities != new.identities
}

fn renew<T: PartialEq>(old: &[Shared<T>], new: Vec<T>, key: impl Fn(&T) -> &Key) -> Arc<Vec<Shared<T>>> {
    let known: HashMap<&Key, &Shared<T>> = old.iter().map(|shared| (key(shared), shared)).collect();
    Arc::new(new.into_iter().map(|value| Shared::renew(known.get(key(&value)).copied(), value)).collect())
}
