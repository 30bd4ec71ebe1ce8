//! Route configurations: virtual hosts out of services and rules (spec 1.1, 1.2, NM-6 to NM-9).

use super::fault;
use super::inputs::{Client, GatewayRouteInput, OutboundRouteInput};
use super::matcher::{everything, is_catch_all, route_match};
use super::message::{boolean, config_metadata, duration, ordered};
use super::route_action::{self, Context};
use crate::model::Shared;
use crate::model::host;
use crate::model::virtual_service::{MESH, VirtualService};
use crate::registry::Service;
use crate::registry::entry::selects;
use proto::envoy::route::route_action::ClusterSpecifier;
use proto::envoy::route::route_match::PathSpecifier;
use proto::envoy::route::virtual_host::TlsRequirementType;
use proto::envoy::route::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use proto::istio::sidecar::OutboundMode;
use proto::istio::virtual_service::{HttpMatchRequest, HttpRoute};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Largest body of a fixed answer (VS-20).
const DIRECT_RESPONSE_LIMIT: u32 = 1024 * 1024;

fn configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: boolean(false),
        ignore_port_in_host_matching: true,
        max_direct_response_body_size_bytes: super::message::uint(DIRECT_RESPONSE_LIMIT),
        ..RouteConfiguration::default()
    }
}

fn virtual_host(name: String, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name, domains, routes, include_request_attempt_count: true, ..VirtualHost::default() }
}

/// The routes of an HTTP port of sidecars.
pub fn outbound(input: &OutboundRouteInput) -> RouteConfiguration {
    let rules = applicable(input);
    let gateways = [MESH.to_owned()];
    let side = Side { client: &input.client, gateways: &gateways, port: input.port, tls: false };
    let none = |_: &str| None;
    let context = Context { port: input.port, only_port: &none, hashing: &input.hashing, mesh: &input.mesh };
    let known: HashSet<&str> = input.services.iter().map(|service| &*service.key.host).collect();
    // In order of who keeps a domain that several claim: hosts of rules, services with a rule, the others.
    let (mut hosts, mut unruled) = (Vec::new(), Vec::new());
    for (rule, name) in &rules.without_service {
        let routes = side.routes(rule, &context);
        if !routes.is_empty() {
            hosts.push(virtual_host(format!("{name}:{}", input.port), vec![name.clone()], routes));
        }
    }
    for service in &input.services {
        let rule = rules.for_service.get(&service.key.host);
        let mut routes = rule.map(|rule| side.routes(rule, &context)).unwrap_or_default();
        // A rule that has nothing for this client is as if it were not there.
        let ruled = !routes.is_empty();
        if !ruled {
            routes.push(default_route(service, input, &context));
        }
        let domains = if input.sniffed {
            vec!["*".to_owned()]
        } else {
            domains(service, &input.client.namespace, &input.mesh.domain, &known)
        };
        let host = virtual_host(format!("{}:{}", service.key.host, input.port), domains, routes);
        if ruled { &mut hosts } else { &mut unruled }.push(host);
    }
    hosts.extend(unruled);
    unique_domains(&mut hosts);
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let taken = hosts.iter().any(|host| host.domains.iter().any(|domain| domain == "*"));
    if !input.sniffed && !taken {
        hosts.push(unknown_hosts(input.outbound_mode));
    }
    configuration(&input.name, hosts)
}

/// A domain belongs to the first virtual host that claims it: Envoy refuses a table where one stands twice.
fn unique_domains(hosts: &mut Vec<VirtualHost>) {
    let mut seen: HashSet<String> = HashSet::new();
    for host in hosts.iter_mut() {
        host.domains.retain(|domain| seen.insert(domain.to_ascii_lowercase()));
    }
    hosts.retain(|host| !host.domains.is_empty());
}

/// What becomes of requests to hosts that no service has (OD-2, OD-3, SC-6).
fn unknown_hosts(mode: OutboundMode) -> VirtualHost {
    let (name, action) = match mode {
        OutboundMode::AllowAny => {
            let mut action = RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(proto::wire::CLUSTER_PASSTHROUGH.to_owned())),
                timeout: duration(Duration::ZERO),
                ..RouteAction::default()
            };
            route_action::set_max_grpc_timeout(&mut action);
            ("allow_any", route::Action::Route(action))
        }
        OutboundMode::RegistryOnly => {
            let answer = DirectResponseAction { status: 502, ..DirectResponseAction::default() };
            ("block_all", route::Action::DirectResponse(answer))
        }
    };
    let route = Route { name: name.to_owned(), r#match: Some(everything()), action: Some(action), ..Route::default() };
    virtual_host(name.to_owned(), vec!["*".to_owned()], vec![route])
}

/// The route of a service that no rule is for (VSM-6).
fn default_route(service: &Service, input: &OutboundRouteInput, context: &Context<'_>) -> Route {
    let destination =
        proto::istio::virtual_service::Destination { host: service.key.host.to_string(), ..Default::default() };
    let rule = HttpRoute {
        name: "default".to_owned(),
        route: vec![proto::istio::virtual_service::HttpRouteDestination {
            destination: Some(destination),
            ..Default::default()
        }],
        ..HttpRoute::default()
    };
    let mut route = Route { name: rule.name.clone(), r#match: Some(everything()), ..Route::default() };
    route_action::forward(&mut route, &rule, context);
    route.decorator = decorator(&route, "", input.port);
    route
}

/// Which rule applies to which host.
struct Applicable<'a> {
    for_service: HashMap<std::sync::Arc<str>, &'a Shared<VirtualService>>,
    without_service: Vec<(&'a Shared<VirtualService>, String)>,
}

/// One rule per host: exact before wildcard, then the first in order (VSM-1, VSM-4). Hosts without a service take
/// effect on port 80, and where another host of their rule has one (VSM-5).
fn applicable(input: &OutboundRouteInput) -> Applicable<'_> {
    let candidates: Vec<(&str, &Shared<VirtualService>)> = input
        .rules
        .iter()
        .filter(|rule| !rule.http.is_empty())
        .flat_map(|rule| rule.hosts.iter().map(move |host| (host.as_str(), rule)))
        .collect();
    let ruled: host::Index<'_, &Shared<VirtualService>> = candidates.iter().copied().collect();
    let mut for_service = HashMap::new();
    for service in &input.services {
        if let Some(rule) = ruled.best(&service.key.host).copied() {
            for_service.insert(service.key.host.clone(), rule);
        }
    }
    let mut without_service: Vec<(&Shared<VirtualService>, String)> = Vec::new();
    if !input.sniffed {
        let with_service: HashSet<u64> = for_service.values().map(|rule| rule.revision()).collect();
        let has_service = |rule: &Shared<VirtualService>| with_service.contains(&rule.revision());
        let services: host::Index<'_, ()> = input.services.iter().map(|service| (&*service.key.host, ())).collect();
        let mut taken: HashSet<&str> = HashSet::new();
        for (name, rule) in candidates.into_iter().filter(|(_, rule)| input.port == 80 || has_service(rule)) {
            if !services.has_within(name) && taken.insert(name) {
                without_service.push((rule, name.to_owned()));
            }
        }
    }
    Applicable { for_service, without_service }
}

/// Every name under which clients of a namespace address a service (VSM-7). A short name that is the full name of
/// another service is that one's.
fn domains(service: &Service, namespace: &str, domain: &str, known: &HashSet<&str>) -> Vec<String> {
    let mut out = Vec::new();
    let aliases = service.aliases.iter().map(|alias| &alias.host);
    for host in std::iter::once(&service.key.host).chain(aliases) {
        let mut own = vec![host.to_string(), format!("{host}.")];
        own.extend(short_names(host, namespace, domain).into_iter().filter(|name| !known.contains(name.as_str())));
        if service.headless {
            own.extend(own.clone().into_iter().map(|name| format!("*.{name}")));
        }
        out.extend(own);
    }
    let plain = |address: &&String| address.parse::<std::net::IpAddr>().is_ok();
    out.extend(
        service
            .addresses
            .iter()
            .filter(plain)
            .map(|address| if address.contains(':') { format!("[{address}]") } else { address.clone() }),
    );
    out
}

/// `name`, `name.namespace.svc`, `name.namespace` as far as a client of the namespace may use them.
pub fn short_names(host: &str, namespace: &str, domain: &str) -> Vec<String> {
    let Some(rest) = host.strip_suffix(&format!(".svc.{domain}")) else { return Vec::new() };
    let mut out = Vec::new();
    if let Some(name) = rest.strip_suffix(&format!(".{namespace}")) {
        out.push(name.to_owned());
    }
    out.push(format!("{rest}.svc"));
    out.push(rest.to_owned());
    out
}

/// For whom routes are made: the conditions that are decided here and not in the proxy (VS-14).
struct Side<'a> {
    client: &'a Client,
    /// Names of the gateways (or `mesh`) that the proxy serves.
    gateways: &'a [String],
    port: u16,
    /// Clients speak TLS.
    tls: bool,
}

impl Side<'_> {
    /// The routes of a rule, up to the first catch-all (VS-6).
    fn routes(&self, rule: &VirtualService, context: &Context<'_>) -> Vec<Route> {
        let mut out = Vec::new();
        for http in &rule.http {
            let blocks: Vec<Option<&HttpMatchRequest>> = if http.matches.is_empty() {
                vec![None]
            } else {
                http.matches.iter().filter(|block| self.admits(block)).map(Some).collect()
            };
            for block in blocks {
                let route = self.route(rule, http, block, context);
                let last = route.r#match.as_ref().is_some_and(is_catch_all);
                out.push(route);
                if last {
                    return out;
                }
            }
        }
        out
    }

    fn admits(&self, block: &HttpMatchRequest) -> bool {
        if block.port.is_some_and(|port| port != 0 && port != u32::from(self.port)) {
            return false;
        }
        // A list of gateways takes the place of the conditions on the client, as in Istio.
        if !block.gateways.is_empty() {
            return block.gateways.iter().any(|gateway| self.gateways.contains(gateway));
        }
        let from = block.source_namespace.is_empty() || block.source_namespace == self.client.namespace;
        from && selects(&block.source_labels, &self.client.labels)
    }

    fn route(
        &self,
        rule: &VirtualService,
        http: &HttpRoute,
        block: Option<&HttpMatchRequest>,
        context: &Context<'_>,
    ) -> Route {
        let name = match block {
            Some(block) if !block.name.is_empty() => format!("{}.{}", http.name, block.name),
            _ => http.name.clone(),
        };
        let mut out = Route {
            name,
            r#match: Some(route_match(block)),
            metadata: config_metadata(&rule.key),
            stat_prefix: block.map(|block| block.stat_prefix.clone()).unwrap_or_default(),
            ..Route::default()
        };
        let headers = http.headers.as_ref();
        (out.request_headers_to_add, out.request_headers_to_remove) =
            route_action::header_operations(headers.and_then(|headers| headers.request.as_ref()));
        (out.response_headers_to_add, out.response_headers_to_remove) =
            route_action::header_operations(headers.and_then(|headers| headers.response.as_ref()));
        if let Some(redirect) = &http.redirect {
            out.action = Some(route_action::redirect(redirect, self.port, self.tls));
        } else if let Some(direct) = &http.direct_response {
            out.action = Some(route_action::direct_response(direct));
        } else {
            route_action::forward(&mut out, http, context);
        }
        let fault = http.fault.as_ref().map(|written| ("envoy.filters.http.fault".to_owned(), fault::fault(written)));
        let cors =
            http.cors_policy.as_ref().map(|written| ("envoy.filters.http.cors".to_owned(), fault::cors(written)));
        out.typed_per_filter_config = ordered(fault.into_iter().chain(cors));
        out.decorator = decorator(&out, &rule.key.name, self.port);
        out
    }
}

/// The name of the operation in traces: `host:port/path*` of the only destination, else the rule's name.
fn decorator(route: &Route, rule: &str, port: u16) -> Option<Decorator> {
    let path = match route.r#match.as_ref().and_then(|rule: &RouteMatch| rule.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &route.action {
        Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)), ..
        })) => name,
        _ => "",
    };
    let parts: Vec<&str> = cluster.split('|').collect();
    let operation = match parts.as_slice() {
        [_, port, _, host] => format!("{host}:{port}{path}"),
        _ => format!("{rule}:{port}{path}"),
    };
    Some(Decorator { operation, ..Decorator::default() })
}

/// The routes of a port of a gateway: rules bound to its servers, merged per host (VSM-2, VSM-8, VSM-9, GW-5, GW-17).
pub fn gateway(input: &GatewayRouteInput) -> RouteConfiguration {
    let only_port = |host: &str| {
        let service = input.services.iter().find(|service| &*service.key.host == host)?;
        match service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        }
    };
    let mut merged: Vec<VirtualHost> = Vec::new();
    for (gateway, index) in &input.servers {
        let Some(server) = gateway.servers.get(*index) else { continue };
        let bound = [gateway.full_name()];
        let tls = server.tls.is_some();
        let side = Side { client: &input.client, gateways: &bound, port: server.port, tls };
        let context = Context { port: server.port, only_port: &only_port, hashing: &input.hashing, mesh: &input.mesh };
        for rule in input.rules.iter().filter(|rule| rule.is_bound_to(&bound[0]) && !rule.http.is_empty()) {
            for host in rule.hosts.iter().flat_map(|host| server.bound_hosts(&rule.key.namespace, host)) {
                let name = format!("{host}:{}", server.port);
                let at = merged.iter().position(|known| known.domains.contains(&host));
                let slot = at.unwrap_or_else(|| {
                    merged.push(virtual_host(name, vec![host.clone()], Vec::new()));
                    merged.len() - 1
                });
                if server.https_redirect && !tls {
                    merged[slot].require_tls = TlsRequirementType::All.into();
                } else {
                    merged[slot].routes.extend(side.routes(rule, &context));
                }
            }
        }
        for (_, host) in server.hosts.iter().filter(|_| server.https_redirect && !tls) {
            if !merged.iter().any(|known| known.domains.contains(host)) {
                let mut redirected = virtual_host(format!("{host}:{}", server.port), vec![host.clone()], Vec::new());
                redirected.require_tls = TlsRequirementType::All.into();
                merged.push(redirected);
            }
        }
    }
    for host in &mut merged {
        host.routes.sort_by_key(|route| route.r#match.as_ref().is_some_and(is_catch_all));
    }
    merged.sort_by(|a, b| a.name.cmp(&b.name));
    if merged.is_empty() {
        let first = input.servers.first().and_then(|(gateway, index)| gateway.servers.get(*index));
        let port = first.map_or(input.port, |server| server.port);
        merged.push(VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..VirtualHost::default()
        });
    }
    configuration(&input.name, merged)
}
