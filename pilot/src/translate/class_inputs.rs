//! Which resources a class of nodes has, and what each of them depends on.

use super::cache::{Cache, Encoded};
use super::class::Class;
use super::inputs::{
    Client, ClusterInput, EndpointsInput, FixedCluster, GatewayListenerInput, GatewayRouteInput, InboundClusterInput,
    InboundInput, Input, NameTableInput, Named, OutboundHttpInput, OutboundInput, OutboundRouteInput, OutboundTcpInput,
    Owner, Part, SecretInput, Upstream,
};
use super::node::{Flavor, Role};
use super::outbound_plan::OutboundPlan;
use super::{policy, tls};
use crate::model::destination_rule::DestinationRule;
use crate::model::gateway::{Gateway, Server, Traffic};
use crate::model::host;
use crate::model::scope::{self, Egress};
use crate::model::virtual_service::VirtualService;
use crate::model::{Mesh, Scope, Shared};
use crate::registry::{EndpointSet, Resolution, Service, ServiceKey};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// A Gateway and the index of its server on a port.
type BoundServer = (Shared<Gateway>, usize);

/// Asks for the resources of one class, each by its input.
pub struct ClassInputs<'a> {
    /// The class.
    pub class: &'a Class,
    /// The mesh.
    pub mesh: &'a Mesh,
    /// What the class sees.
    pub scope: &'a Scope,
    /// Where resources are kept.
    pub cache: &'a mut Cache,
}

impl ClassInputs<'_> {
    pub(super) fn rule(&self, service: &Service) -> Option<Shared<DestinationRule>> {
        self.mesh.rules.find((&self.class.namespace, &self.class.place.labels), &service.key, &self.mesh.config)
    }

    pub(super) fn set(&self, service: &Service) -> Option<&Shared<EndpointSet>> {
        self.mesh.endpoints.get(&service.key)
    }

    /// Who the certificate of a server may name: identities of the endpoints, and names that a ServiceEntry gives (SE-11).
    pub(super) fn identities(&self, service: &Service) -> Vec<String> {
        let own = self.set(service).map(|set| set.identities.as_slice()).unwrap_or_default();
        if service.subject_alt_names.is_empty() {
            return own.to_vec();
        }
        let all: BTreeSet<&String> = own.iter().chain(&service.subject_alt_names).collect();
        all.into_iter().cloned().collect()
    }

    /// One after the other: every service, port and subset (none first).
    pub(super) fn parts(&self, service: &Service, rule: Option<&DestinationRule>) -> Vec<(u16, Option<usize>)> {
        let subsets = rule.map_or(0, |rule| rule.subsets.len());
        let ports = service.ports.iter().map(|port| port.number);
        ports.flat_map(|port| std::iter::once((port, None)).chain((0..subsets).map(move |i| (port, Some(i))))).collect()
    }

    /// All clusters.
    pub fn clusters(&mut self) -> Vec<Arc<Encoded>> {
        let mut out = Vec::new();
        let services: Vec<Shared<Service>> = self.scope.services().cloned().collect();
        for service in services {
            let rule = self.rule(&service);
            let in_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
            let identities = self.identities(&service);
            for (port, subset) in self.parts(&service, rule.as_deref()) {
                out.push(self.cache.get(Input::Cluster(ClusterInput {
                    part: Part { service: service.clone(), port, subset, rule: rule.clone() },
                    identities: identities.clone(),
                    endpoints: self.set(&service).filter(|_| in_dns).cloned(),
                    role: self.class.role,
                    flavor: self.class.flavor,
                    families: self.class.families,
                    mesh: self.mesh.config.clone(),
                })));
            }
        }
        let fixed: &[FixedCluster] = match self.class.role {
            Role::Sidecar => &[FixedCluster::BlackHole, FixedCluster::Passthrough, FixedCluster::InboundPassthrough],
            Role::Router => &[FixedCluster::BlackHole],
        };
        for which in fixed {
            let Class { flavor, families, .. } = *self.class;
            out.push(self.cache.get(Input::FixedCluster(*which, flavor, families, self.mesh.config.clone())));
        }
        if self.class.role == Role::Sidecar {
            out.extend(self.inbound_clusters());
        }
        out
    }

    fn inbound_clusters(&mut self) -> Vec<Arc<Encoded>> {
        let mut by_port: BTreeMap<u16, InboundClusterInput> = BTreeMap::new();
        for instance in &self.class.instances {
            // Only a policy for the service as a whole says anything about its server side (DR-38).
            let rule = self.rule(&instance.service).filter(|rule| rule.traffic_policy.is_some());
            let input = by_port.entry(instance.port).or_insert_with(|| InboundClusterInput {
                port: instance.port,
                services: Vec::new(),
                service_port: instance.service_port,
                rule,
                endpoint: None,
                families: self.class.families,
                mesh: self.mesh.config.clone(),
            });
            if !input.services.contains(&instance.service) {
                input.services.push(instance.service.clone());
            }
        }
        if let Some(sidecar) = self.scope.sidecar.as_ref().filter(|sidecar| !sidecar.ingress.is_empty()) {
            let inferred = std::mem::take(&mut by_port);
            for ingress in &sidecar.ingress {
                let mut input = inferred.get(&ingress.port).cloned().unwrap_or_else(|| InboundClusterInput {
                    port: ingress.port,
                    services: Vec::new(),
                    service_port: ingress.port,
                    rule: None,
                    endpoint: None,
                    families: self.class.families,
                    mesh: self.mesh.config.clone(),
                });
                input.endpoint.clone_from(&ingress.endpoint);
                by_port.insert(ingress.port, input);
            }
        }
        by_port.into_values().map(|input| self.cache.get(Input::InboundCluster(input))).collect()
    }

    /// Endpoints of the services that EDS is asked for; of `only` these.
    pub fn endpoints(&mut self, only: Option<&HashSet<ServiceKey>>) -> Vec<Arc<Encoded>> {
        let mut out = Vec::new();
        let wanted = |service: &&Shared<Service>| {
            let by_eds =
                service.resolution == Resolution::Endpoints || (service.headless && !self.class.has_own_destination());
            by_eds && only.is_none_or(|only| only.contains(&service.key))
        };
        let services: Vec<Shared<Service>> = self.scope.services().filter(wanted).cloned().collect();
        let authn = Some(&self.mesh.authn).filter(|authn| authn.any_disables()).cloned();
        for service in services {
            let rule = self.rule(&service);
            let empty = || Shared::new(EndpointSet::default());
            let endpoints = self.set(&service).cloned().unwrap_or_else(empty);
            for (port, subset) in self.parts(&service, rule.as_deref()) {
                let policy = policy::effective(rule.as_deref(), subset, port);
                let passthrough = policy.load_balancer.as_ref().and_then(|lb| lb.simple)
                    == Some(proto::istio::destination_rule::SimpleLb::Passthrough);
                if passthrough && self.class.flavor != Flavor::Grpc {
                    continue;
                }
                let setting = policy.locality(&service, &self.mesh.config);
                let order = setting.as_ref().map_or(&[][..], |setting| &setting.failover_priority);
                out.push(
                    self.cache.get(Input::Endpoints(EndpointsInput {
                        part: Part { service: service.clone(), port, subset, rule: rule.clone() },
                        endpoints: endpoints.clone(),
                        authn: authn.clone(),
                        client: (service.node_local || setting.is_some())
                            .then(|| self.class.place.deciding(service.node_local, order)),
                        mesh: self.mesh.config.clone(),
                    })),
                );
            }
        }
        out
    }

    fn client(&self, rules: &[Shared<VirtualService>]) -> Client {
        let looked_at = rules.iter().any(|rule| {
            rule.http.iter().flat_map(|route| &route.matches).any(|block| !block.source_labels.is_empty())
                || rule.tcp.iter().flat_map(|route| &route.matches).any(|block| !block.source_labels.is_empty())
                || rule.tls.iter().flat_map(|route| &route.matches).any(|block| !block.source_labels.is_empty())
        });
        Client {
            namespace: self.class.namespace.clone(),
            labels: if looked_at { self.class.place.labels.clone() } else { Arc::default() },
        }
    }

    /// DestinationRules with a hash policy for what the rules and services lead to.
    fn hashing<'b>(&self, hosts: impl Iterator<Item = &'b str>) -> BTreeMap<String, Shared<DestinationRule>> {
        let hashes = |rule: &Shared<DestinationRule>| {
            let policies = rule.subsets.iter().map(|subset| subset.traffic_policy.as_ref());
            policies.chain([rule.traffic_policy.as_ref()]).flatten().any(|policy| {
                let ports = policy.port_level_settings.iter().map(|port| port.load_balancer.as_ref());
                ports.chain([policy.load_balancer.as_ref()]).flatten().any(|lb| lb.consistent_hash.is_some())
            })
        };
        let mut out = BTreeMap::new();
        for host in hosts {
            if let Some(service) = self.scope.service(host) {
                out.extend(self.rule(service).filter(hashes).map(|rule| (host.to_owned(), rule)));
            }
        }
        out
    }

    /// Listeners and routes.
    pub fn listeners_and_routes(&mut self) -> (Vec<Arc<Encoded>>, Vec<Arc<Encoded>>) {
        match (self.class.flavor, self.class.role) {
            (Flavor::Grpc, _) => self.grpc(),
            (_, Role::Sidecar) => self.sidecar(),
            (_, Role::Router) => self.gateway(),
        }
    }

    /// Listeners and routes of a sidecar.
    fn sidecar(&mut self) -> (Vec<Arc<Encoded>>, Vec<Arc<Encoded>>) {
        let (mut listeners, mut routes) = (Vec::new(), Vec::new());
        for egress in &self.scope.egress {
            let plan = OutboundPlan::of(egress, self.class, self.mesh);
            for (address, port, services) in &plan.http {
                let input = self.route_input(&port.to_string(), *port, services, (egress, false));
                routes.push(self.cache.get(Input::OutboundRoute(input)));
                let outbound = self.outbound((address, *port), &[], egress);
                listeners.push(self.cache.get(Input::OutboundHttp(OutboundHttpInput { outbound, sniffed: None })));
            }
            for (address, port, service) in &plan.sniffed {
                let name = format!("{}:{port}", service.key.host);
                let input = self.route_input(&name, *port, std::slice::from_ref(service), (egress, true));
                routes.push(self.cache.get(Input::OutboundRoute(input)));
                let outbound = self.outbound((address, *port), std::slice::from_ref(service), egress);
                let sniffed = Some(service.clone());
                listeners.push(self.cache.get(Input::OutboundHttp(OutboundHttpInput { outbound, sniffed })));
            }
            for (address, port, services) in &plan.tcp {
                let outbound = self.outbound((address, *port), services, egress);
                let services = services.clone();
                listeners.push(self.cache.get(Input::OutboundTcp(OutboundTcpInput { outbound, services })));
            }
        }
        let fixed = Input::VirtualOutbound(self.scope.outbound_mode, self.owner());
        listeners.push(self.cache.get(fixed));
        listeners.push(self.inbound_listener());
        (listeners, routes)
    }

    /// What the routes of a port depend on; `sniffed`: of one service alone.
    pub(super) fn route_input(
        &self,
        name: &str,
        port: u16,
        services: &[Shared<Service>],
        (egress, sniffed): (&Egress, bool),
    ) -> OutboundRouteInput {
        let hosts: host::Index<'_, ()> = services.iter().map(|service| (&*service.key.host, ())).collect();
        let touches = |rule: &&Shared<VirtualService>| {
            let matches = |host: &String| hosts.has_within(host);
            !rule.http.is_empty() && ((port == 80 && !sniffed) || rule.hosts.iter().any(matches))
        };
        let rules: Vec<_> = egress.virtual_services.iter().filter(touches).cloned().collect();
        let own = services.iter().map(|service| &*service.key.host);
        let led_to = rules.iter().flat_map(|rule| rule.destinations()).map(|destination| destination.host.as_str());
        let hashing = self.hashing(own.chain(led_to));
        OutboundRouteInput {
            name: name.to_owned(),
            port,
            services: services.to_vec(),
            sniffed,
            client: self.client(&rules),
            rules,
            hashing,
            outbound_mode: self.scope.outbound_mode,
            mesh: self.mesh.config.clone(),
        }
    }

    /// Rules for connections that may apply to one of the services.
    fn connection_rules(&self, egress: &Egress, services: &[Shared<Service>]) -> Vec<Shared<VirtualService>> {
        let touches = |rule: &&Shared<VirtualService>| {
            let matches = |host: &String| {
                services.iter().any(|service| host::covers(host, &service.key.host) || service.addresses.contains(host))
            };
            !(rule.tcp.is_empty() && rule.tls.is_empty()) && rule.hosts.iter().any(matches)
        };
        egress.virtual_services.iter().filter(touches).cloned().collect()
    }

    fn owner(&self) -> Owner {
        Owner {
            flavor: self.class.flavor,
            families: self.class.families,
            identity: self.class.identity.clone(),
            reports: Arc::clone(&self.class.reports),
            topology: self.class.topology,
            mesh: self.mesh.config.clone(),
        }
    }

    /// What a listener depends on that leads connections to these services; none where it leads requests.
    fn outbound(&self, (address, port): (&str, u16), services: &[Shared<Service>], egress: &Egress) -> OutboundInput {
        let rules = self.connection_rules(egress, services);
        OutboundInput {
            address: address.to_owned(),
            port,
            client: self.client(&rules),
            upstreams: self.upstreams(services, &rules),
            rules,
            bind: self.class.binds(egress),
            outbound_mode: self.scope.outbound_mode,
            owner: self.owner(),
        }
    }

    pub(super) fn authz(&self) -> Vec<Shared<crate::model::authz::AuthorizationPolicy>> {
        let root = &self.mesh.config.root_namespace;
        let applies = |policy: &&Shared<crate::model::authz::AuthorizationPolicy>| {
            policy.applies(&self.class.namespace, &self.class.place.labels, root)
        };
        self.mesh.authz.iter().filter(applies).cloned().collect()
    }

    fn judges(&self) -> Vec<super::custom::Judge> {
        super::custom::Judge::of(&self.authz(), self.mesh)
    }

    fn tokens(&self) -> Vec<Shared<crate::model::request_authn::RequestAuthentication>> {
        let root = &self.mesh.config.root_namespace;
        let applies = |policy: &&Shared<crate::model::request_authn::RequestAuthentication>| {
            policy.applies(&self.class.namespace, &self.class.place.labels, root)
        };
        self.mesh.tokens.iter().filter(applies).cloned().collect()
    }

    fn limits(&self) -> Vec<Shared<crate::model::rate_limit::RateLimit>> {
        let root = &self.mesh.config.root_namespace;
        let applies = |limit: &&Shared<crate::model::rate_limit::RateLimit>| {
            limit.applies(&self.class.namespace, &self.class.place.labels, root)
        };
        self.mesh.limits.iter().filter(applies).cloned().collect()
    }

    fn inbound_listener(&mut self) -> Arc<Encoded> {
        let input = InboundInput {
            instances: self.class.instances.clone(),
            authn: self.mesh.authn.effective(&self.class.namespace, &self.class.place.labels),
            judges: self.judges(),
            authz: self.authz(),
            tokens: self.tokens(),
            limits: self.limits(),
            sidecar: self.scope.sidecar.as_ref().filter(|sidecar| !sidecar.ingress.is_empty()).cloned(),
            address: self.class.address.clone(),
            namespace: self.class.namespace.clone(),
            owner: self.owner(),
        };
        self.cache.get(Input::VirtualInbound(input))
    }

    /// Listeners and routes of a gateway: one per port that its Gateways ask for (GW-2, GW-17).
    fn gateway(&mut self) -> (Vec<Arc<Encoded>>, Vec<Arc<Encoded>>) {
        let wildcard = self.class.families.wildcard();
        let mut ports: BTreeMap<(String, u16), Vec<BoundServer>> = BTreeMap::new();
        for gateway in self.mesh.gateways.iter().filter(|gateway| gateway.selects(&self.class.place.labels)) {
            for (index, server) in gateway.servers.iter().enumerate() {
                let address = server.bind.clone().unwrap_or_else(|| wildcard.to_owned());
                ports.entry((address, self.target_port(server.port))).or_default().push((gateway.clone(), index));
            }
        }
        let (mut listeners, mut routes) = (Vec::new(), Vec::new());
        for ((address, port), servers) in ports {
            let (plain, others) = agreeing(servers);
            let bind = if address == wildcard { String::new() } else { format!(".{address}") };
            let name = format!("http.{port}{bind}");
            let prefixes = plain.iter().chain(&others).filter_map(server).map(|server| &server.name);
            let stat_prefix = prefixes.filter(|name| !name.is_empty()).min().cloned();
            let grpc_web = plain.iter().filter_map(server).any(|server| server.protocol == "GRPC-WEB");
            let route = (!plain.is_empty()).then(|| name.clone());
            if !plain.is_empty() {
                routes.push(self.gateway_route(name, port, plain));
            }
            for bound in &others {
                if let Some(server) = server(bound).filter(|server| server.is_http()) {
                    let name = super::listener::gateway::route_name(&bound.0, server);
                    routes.push(self.gateway_route(name, server.port, vec![bound.clone()]));
                }
            }
            let mut rules = self.gateway_rules(&others);
            rules.retain(|rule| !rule.tcp.is_empty() || !rule.tls.is_empty());
            let input = GatewayListenerInput {
                wildcard: address == wildcard,
                address,
                port,
                route,
                grpc_web,
                stat_prefix,
                servers: others,
                client: self.client(&rules),
                upstreams: self.upstreams(&[], &rules),
                rules,
                judges: self.judges(),
                authz: self.authz(),
                tokens: self.tokens(),
                limits: self.limits(),
                owner: self.owner(),
            };
            // Without a chain there is no listener: Envoy has none that serves nothing.
            if input.route.is_some() || !super::listener::gateway::listener(&input).filter_chains.is_empty() {
                listeners.push(self.cache.get(Input::GatewayListener(input)));
            }
        }
        (listeners, routes)
    }

    /// The rules bound to the gateways of these servers.
    fn gateway_rules(&self, servers: &[BoundServer]) -> Vec<Shared<VirtualService>> {
        let mut rules: Vec<Shared<VirtualService>> = Vec::new();
        for (gateway, _) in servers {
            for rule in scope::visible_rules(self.mesh, &self.class.namespace, &gateway.full_name()) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    /// These services and those that the rules lead to, each once.
    fn upstreams(&self, services: &[Shared<Service>], rules: &[Shared<VirtualService>]) -> Vec<Upstream> {
        let mut seen = HashSet::new();
        let all = services.iter().cloned().chain(self.destinations(rules));
        let all = all.filter(|service| seen.insert(service.key.host.clone()));
        all.map(|service| Upstream { rule: self.rule(&service), service }).collect()
    }

    /// The services that the rules lead to.
    fn destinations(&self, rules: &[Shared<VirtualService>]) -> Vec<Shared<Service>> {
        let hosts = rules.iter().flat_map(|rule| rule.destinations()).map(|destination| &destination.host);
        hosts.filter_map(|host| self.scope.service(host)).cloned().collect()
    }

    /// The port of the pod behind a port of the gateway's Service (GW-2).
    fn target_port(&self, port: u16) -> u16 {
        let instance = self.class.instances.iter().find(|instance| instance.service_port == port);
        instance.map_or(port, |instance| instance.port)
    }

    fn gateway_route(&mut self, name: String, port: u16, servers: Vec<BoundServer>) -> Arc<Encoded> {
        let rules = self.gateway_rules(&servers);
        let hosts: Vec<String> =
            rules.iter().flat_map(|rule| rule.destinations()).map(|destination| destination.host.clone()).collect();
        let services = self.destinations(&rules);
        let hashing = self.hashing(hosts.iter().map(String::as_str));
        self.cache.get(Input::GatewayRoute(GatewayRouteInput {
            name,
            port,
            servers,
            client: self.client(&rules),
            rules,
            services,
            hashing,
            mesh: self.mesh.config.clone(),
        }))
    }

    /// The secrets that the class's own listeners and clusters name, as far as they are there and in its namespace
    /// (CA-26, CA-27).
    pub fn secrets(&mut self) -> Vec<Arc<Encoded>> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        if self.class.role == Role::Router {
            let gateways = self.mesh.gateways.iter().filter(|gateway| gateway.selects(&self.class.place.labels));
            names.extend(gateways.flat_map(|gateway| gateway.secrets().map(|(_, name)| name.clone())));
        }
        if self.mesh.rules.name_secrets() && self.class.flavor != Flavor::Grpc {
            let rules = self.scope.services().filter_map(|service| self.rule(service));
            let reads = |rule: &Shared<DestinationRule>| tls::gives_secrets(rule, self.class.role);
            names.extend(rules.filter(reads).flat_map(|rule| rule.secrets()));
        }
        let (secrets, namespace) = (Arc::clone(&self.mesh.secrets), self.class.namespace.clone());
        let found = names.into_iter().filter_map(|name| Some((secrets.find(&name, &namespace)?, name)));
        found.map(|(content, name)| self.cache.get(Input::Secret(SecretInput { name, content }))).collect()
    }

    /// The table of names.
    pub fn name_table(&mut self) -> Arc<Encoded> {
        let services = self.scope.services().map(|service| {
            let endpoints = self.set(service).filter(|_| service.headless).cloned();
            Named { service: service.clone(), allocated: self.class.allocated(service).collect(), endpoints }
        });
        let services = services.collect();
        self.cache.get(Input::NameTable(NameTableInput { services, mesh: self.mesh.config.clone() }))
    }
}

fn server((gateway, index): &BoundServer) -> Option<&Server> {
    gateway.servers.get(*index)
}

/// The servers of a port, oldest first, for requests without TLS and for all else: the first one decides which of the two the
/// port is for, and servers of other traffic are left out (GW-17).
fn agreeing(mut servers: Vec<BoundServer>) -> (Vec<BoundServer>, Vec<BoundServer>) {
    let traffic = |bound: &BoundServer| server(bound).map(Server::traffic);
    let first = servers.first().and_then(traffic);
    servers.retain(|bound| traffic(bound) == first);
    if first == Some(Traffic::Http) { (servers, Vec::new()) } else { (Vec::new(), servers) }
}
