//! VirtualService as meant: hosts completed, exclusive fields checked (spec 1.1).

use super::MeshConfig;
use super::check::Check;
use super::host;
use crate::source::{Key, Object, Problem};
use proto::istio::virtual_service as written;
use proto::istio::virtual_service::{Destination, HttpRoute, RouteDestination};

/// The gateway that stands for all sidecars.
pub const MESH: &str = "mesh";

/// A VirtualService whose hosts and gateways are complete.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    /// The object.
    pub key: Key,
    /// The delegates whose rules it took in.
    pub sources: Vec<Key>,
    /// Hosts, completed. Empty for a delegate.
    pub hosts: Vec<String>,
    /// `mesh` and `namespace/name`.
    pub gateways: Vec<String>,
    /// Who sees it.
    pub export_to: Vec<String>,
    /// HTTP rules; hosts of destinations completed.
    pub http: Vec<HttpRoute>,
    /// TLS rules.
    pub tls: Vec<written::TlsRoute>,
    /// TCP rules.
    pub tcp: Vec<written::TcpRoute>,
}

impl VirtualService {
    /// Whether it is bound to a gateway (or to `mesh`).
    pub fn is_bound_to(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|bound| bound == gateway)
    }

    /// Whether it has routes for requests of sidecars: of those for one host the oldest rule's alone count (VSM-1).
    pub fn routes_requests_of_sidecars(&self) -> bool {
        self.is_bound_to(MESH) && !self.http.is_empty()
    }

    /// Every destination that its rules name, mirrors too.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let http = self.http.iter().flat_map(|route| {
            let routes = route.route.iter().filter_map(|to| to.destination.as_ref());
            routes.chain(&route.mirror).chain(route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()))
        });
        let tls = self.tls.iter().flat_map(|route| &route.route);
        let tcp = self.tcp.iter().flat_map(|route| &route.route);
        http.chain(tls.chain(tcp).filter_map(|to| to.destination.as_ref()))
    }
}

/// Completes the name of a gateway.
pub fn gateway_name(name: &str, namespace: &str) -> String {
    if name == MESH || name.contains('/') {
        return name.strip_prefix("./").map_or_else(|| name.to_owned(), |rest| format!("{namespace}/{rest}"));
    }
    format!("{namespace}/{name}")
}

/// Parses, and so validates, a VirtualService.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    object: &Object,
    spec: &written::VirtualService,
    mesh: &MeshConfig,
) -> Result<VirtualService, Vec<Problem>> {
    let namespace = &object.key.namespace;
    let mut check = Check::new(object);
    for (i, host) in spec.hosts.iter().enumerate() {
        if host.parse::<std::net::IpAddr>().is_err() {
            check.host(host, format!("spec.hosts[{i}]"));
        }
    }
    let routes = spec.http.len() + spec.tls.len() + spec.tcp.len();
    check.require(routes > 0, "spec", "at least one of http, tls and tcp is needed");
    check.require(
        !spec.hosts.is_empty() || (spec.tls.is_empty() && spec.tcp.is_empty() && spec.gateways.is_empty()),
        "spec.hosts",
        "hosts are needed; only a delegate has none, and it has http rules alone and no gateways",
    );
    let mut out = VirtualService {
        key: object.key.clone(),
        sources: Vec::new(),
        hosts: spec.hosts.iter().map(|host| host::resolve(host, namespace, &mesh.domain)).collect(),
        gateways: spec.gateways.iter().map(|name| gateway_name(name, namespace)).collect(),
        export_to: spec.export_to.clone(),
        http: spec.http.clone(),
        tls: spec.tls.clone(),
        tcp: spec.tcp.clone(),
    };
    if out.gateways.is_empty() {
        out.gateways.push(MESH.to_owned());
    }
    let is_delegate = spec.hosts.is_empty();
    for (i, route) in out.http.iter_mut().enumerate() {
        super::validate::http_route(&mut check, route, &format!("spec.http[{i}]"), is_delegate);
        complete_http(route, namespace, mesh);
    }
    if !is_delegate {
        super::validate::claims(&mut check, &out);
    }
    for (i, route) in out.tls.iter_mut().enumerate() {
        super::validate::tls_route(&mut check, route, &format!("spec.tls[{i}]"), &spec.hosts);
        route.route.iter_mut().for_each(|to| complete_tcp(to, namespace, mesh));
        route.matches.iter_mut().for_each(|m| complete_gateways(&mut m.gateways, namespace));
    }
    for (i, route) in out.tcp.iter_mut().enumerate() {
        super::validate::tcp_route(&mut check, route, &format!("spec.tcp[{i}]"));
        route.route.iter_mut().for_each(|to| complete_tcp(to, namespace, mesh));
        route.matches.iter_mut().for_each(|m| complete_gateways(&mut m.gateways, namespace));
    }
    check.finish(out)
}

fn complete(destination: &mut Destination, namespace: &str, mesh: &MeshConfig) {
    destination.host = host::resolve(&destination.host, namespace, &mesh.domain);
}

fn complete_tcp(to: &mut RouteDestination, namespace: &str, mesh: &MeshConfig) {
    if let Some(destination) = &mut to.destination {
        complete(destination, namespace, mesh);
    }
}

fn complete_gateways(gateways: &mut [String], namespace: &str) {
    for name in gateways {
        *name = gateway_name(name, namespace);
    }
}

fn complete_http(route: &mut HttpRoute, namespace: &str, mesh: &MeshConfig) {
    let mirrors = route.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut());
    let routes = route.route.iter_mut().filter_map(|to| to.destination.as_mut());
    for destination in routes.chain(mirrors).chain(&mut route.mirror) {
        complete(destination, namespace, mesh);
    }
    for block in &mut route.matches {
        complete_gateways(&mut block.gateways, namespace);
    }
    if let Some(delegate) = route.delegate.as_mut().filter(|delegate| delegate.namespace.is_empty()) {
        delegate.namespace = namespace.to_owned();
    }
}
