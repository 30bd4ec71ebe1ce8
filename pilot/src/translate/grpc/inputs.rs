//! The input structs, and which of them one class of gRPC nodes has.

use super::super::cache::Encoded;
use super::super::class_inputs::ClassInputs;
use super::super::inputs::{Input, Part};
use super::super::names;
use super::super::route::short_names;
use crate::model::authn::Mode;
use crate::model::authz::AuthorizationPolicy;
use crate::model::scope::Egress;
use crate::model::{MeshConfig, Shared};
use crate::registry::{Resolution, Service};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The listener under whose name a client asks for a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcListenerInput {
    /// `host:port`.
    pub name: String,
    /// Name of the routes.
    pub routes: String,
}

/// The listener under whose name a server asks how to serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcServerInput {
    /// Address that it listens on.
    pub address: String,
    /// Port that it listens on.
    pub port: u16,
    /// Which connections it accepts.
    pub mode: Mode,
    /// Who may do what.
    pub authz: Vec<Shared<AuthorizationPolicy>>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A cluster of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcClusterInput {
    /// What it leads to.
    pub part: Part,
    /// Identities behind the service.
    pub identities: Vec<String>,
}

impl ClassInputs<'_> {
    /// Whether a gRPC client can be told the endpoints of a service: it asks no DNS for several, and has no
    /// destination of its own.
    fn has_endpoints(service: &Service) -> bool {
        service.resolution == Resolution::Endpoints || service.headless
    }

    /// Clusters for a gRPC client.
    pub fn grpc_clusters(&mut self) -> Vec<Arc<Encoded>> {
        let mut out = Vec::new();
        let services: Vec<Shared<Service>> =
            self.scope.services().filter(|service| Self::has_endpoints(service)).cloned().collect();
        for service in services {
            let rule = self.rule(&service);
            let identities = self.identities(&service);
            for (port, subset) in self.parts(&service, rule.as_deref()) {
                let part = Part { service: service.clone(), port, subset, rule: rule.clone() };
                let identities = identities.clone();
                out.push(self.cache.get(Input::GrpcCluster(GrpcClusterInput { part, identities })));
            }
        }
        out
    }

    /// Listeners and routes for a gRPC client, and listeners for its servers.
    pub fn grpc(&mut self) -> (Vec<Arc<Encoded>>, Vec<Arc<Encoded>>) {
        let (mut listeners, mut routes) = (self.grpc_servers(), Vec::new());
        let hosts: HashSet<Arc<str>> = self.scope.services().map(|service| service.key.host.clone()).collect();
        for egress in &self.scope.egress {
            for service in egress.services.iter().filter(|service| Self::has_endpoints(service)) {
                let names = self.client_names(service, &hosts);
                for port in ports(egress, service) {
                    let name = names::outbound(port, "", &service.key.host);
                    let input = self.route_input(&name, port, std::slice::from_ref(service), (egress, true));
                    routes.push(self.cache.get(Input::GrpcRoute(input)));
                    for host in &names {
                        let listener = GrpcListenerInput { name: format!("{host}:{port}"), routes: name.clone() };
                        listeners.push(self.cache.get(Input::GrpcListener(listener)));
                    }
                }
            }
        }
        (listeners, routes)
    }

    /// Every name under which a client of the class may dial a service; the full name of another is that one's.
    fn client_names(&self, service: &Service, hosts: &HashSet<Arc<str>>) -> Vec<String> {
        let short = short_names(&service.key.host, &self.class.namespace, &self.mesh.config.domain);
        let free = short.into_iter().filter(|name| !hosts.contains(name.as_str()));
        std::iter::once(service.key.host.to_string()).chain(free).collect()
    }

    /// A server asks by the address that it listens on: every one, or its own.
    fn grpc_servers(&mut self) -> Vec<Arc<Encoded>> {
        let ports: BTreeSet<u16> = self.class.instances.iter().map(|instance| instance.port).collect();
        let authn = self.mesh.authn.effective(&self.class.namespace, &self.class.place.labels);
        let meshed = self.class.place.labels.get(proto::wire::LABEL_TLS_MODE).is_some_and(|mode| mode == "istio");
        let addresses = ["0.0.0.0", "::"].into_iter().map(str::to_owned).chain(self.class.address.clone());
        let addresses: Vec<String> = addresses.collect();
        let mut out = Vec::new();
        for port in ports {
            // gRPC takes one kind of connection at a port: clients of a meshed server try mTLS first.
            let mode = match authn.of_port(port) {
                Mode::Permissive if meshed => Mode::Strict,
                Mode::Permissive => Mode::Disable,
                own => own,
            };
            for address in &addresses {
                let input = GrpcServerInput {
                    address: address.clone(),
                    port,
                    mode,
                    authz: self.authz(),
                    mesh: self.mesh.config.clone(),
                };
                out.push(self.cache.get(Input::GrpcServer(input)));
            }
        }
        out
    }
}

/// The ports of a service that an egress listener shows.
fn ports(egress: &Egress, service: &Service) -> Vec<u16> {
    let shown = |number: &u16| egress.port.is_none_or(|(only, _)| only == *number);
    service.ports.iter().map(|port| port.number).filter(shown).collect()
}
