//! What DestinationRules and VirtualServices say of a service, and of a pod behind it.

use super::{named, written};
use crate::analyze::View;
use pilot::model::gateway::Gateway;
use pilot::model::host::covers;
use pilot::model::virtual_service::{MESH, VirtualService};
use pilot::registry::Service;
use pilot::registry::entry::selects;
use proto::istio::StringMatch;
use proto::istio::virtual_service::{Destination, HttpMatchRequest, HttpRoute};
use std::collections::BTreeMap;

/// Labels of the pod that is looked at; none: the service as a whole.
pub type Labels<'a> = Option<&'a BTreeMap<String, String>>;

/// Lines about the DestinationRules of a service.
pub fn destinations(view: &View<'_>, service: &Service, pod: Labels<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let host = &*service.key.host;
    for rule in view.offline.mesh.rules.iter().filter(|rule| rule.host == host || covers(&rule.host, host)) {
        let from: Vec<String> = rule.sources.iter().map(named).collect();
        lines.push(format!("DestinationRule: {} for {:?}", from.join(", "), rule.host));
        let fits = |labels: &BTreeMap<String, String>| pod.is_none_or(|pod| selects(labels, pod));
        let (matching, others): (Vec<_>, Vec<_>) = rule.subsets.iter().partition(|subset| fits(&subset.labels));
        let names = |subsets: &[&proto::istio::destination_rule::Subset]| {
            subsets.iter().map(|subset| subset.name.clone()).collect::<Vec<_>>().join(",")
        };
        match (matching.is_empty(), others.is_empty()) {
            (true, true) => {}
            (false, true) => lines.push(format!("   Matching subsets: {}", names(&matching))),
            (true, false) => lines.push(format!("   WARNING: the pod is in none of the subsets {}", names(&others))),
            (false, false) => {
                lines.push(format!("   Matching subsets: {}", names(&matching)));
                lines.push(format!("      (Non-matching subsets {})", names(&others)));
            }
        }
        match &rule.traffic_policy {
            None => lines.push("   No Traffic Policy".to_owned()),
            Some(policy) => {
                let tls = policy.tls.as_ref().map(|tls| format!("TLS mode: {}", written(&tls.mode)));
                let parts = [
                    tls,
                    policy.load_balancer.is_some().then(|| "load balancer".to_owned()),
                    policy.connection_pool.is_some().then(|| "connection pool".to_owned()),
                    policy.outlier_detection.is_some().then(|| "outlier detection".to_owned()),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                lines.push(format!("   Traffic Policy: {}", parts.join(", ")));
            }
        }
    }
    lines
}

/// Lines about the VirtualServices that route requests to a service, from inside of the mesh and from gateways.
pub fn routes(view: &View<'_>, service: &Service, pod: Labels<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let host = &*service.key.host;
    for rule in view.offline.mesh.virtual_services.iter() {
        let inside = rule.is_bound_to(MESH) && rule.hosts.iter().any(|own| own == host || covers(own, host));
        let leads = rule.destinations().any(|destination| destination.host == host);
        if inside {
            lines.push(format!("VirtualService: {}", named(&rule.key)));
            lines.extend(of(view, rule, host, pod));
        } else if leads {
            lines.push(format!("VirtualService: {} (for {})", named(&rule.key), rule.hosts.join(", ")));
            lines.extend(of(view, rule, host, pod));
        }
        if leads {
            lines.extend(exposed(view, rule));
        }
    }
    lines
}

/// What one VirtualService does for a host.
fn of(view: &View<'_>, rule: &VirtualService, host: &str, pod: Labels<'_>) -> Vec<String> {
    let (mut good, mut others) = (Vec::new(), Vec::new());
    for (index, route) in rule.http.iter().enumerate() {
        let line = format!("   {}: {}", name(route, index), summary(route));
        let to = route.route.iter().filter_map(|to| to.destination.as_ref());
        let here = to.clone().any(|to| to.host == host && is_in(view, to, pod));
        let elsewhere = to.count() > 0 && !here;
        if elsewhere { others.push(line) } else { good.push(line) }
    }
    let tcp = rule.tcp.iter().map(|route| &route.route).chain(rule.tls.iter().map(|route| &route.route));
    for destinations in tcp {
        let names: Vec<String> =
            destinations.iter().filter_map(|to| to.destination.as_ref()).map(destination).collect();
        good.push(format!("   TCP or TLS to {}", names.join(", ")));
    }
    let mut lines = good;
    if !others.is_empty() {
        let whom = if pod.is_some() { "this pod" } else { "this service" };
        lines.push(format!("   Routes that do not lead to {whom}:"));
        lines.extend(others.into_iter().map(|line| format!("   {line}")));
    }
    lines
}

/// Whether the pod is in the subset that a destination names.
fn is_in(view: &View<'_>, to: &Destination, pod: Labels<'_>) -> bool {
    let Some(pod) = pod.filter(|_| !to.subset.is_empty()) else { return true };
    let rules = view.offline.mesh.rules.iter().filter(|rule| rule.host == to.host);
    { rules }.flat_map(|rule| &rule.subsets).any(|subset| subset.name == to.subset && selects(&subset.labels, pod))
}

fn name(route: &HttpRoute, index: usize) -> String {
    if route.name.is_empty() { format!("HTTP route {}", index + 1) } else { format!("HTTP route {:?}", route.name) }
}

/// A route in one line: when, and what then.
fn summary(route: &HttpRoute) -> String {
    let when: Vec<String> = route.matches.iter().map(condition).filter(|text| !text.is_empty()).collect();
    let when = if when.is_empty() { String::new() } else { format!("when {}, ", when.join(" or ")) };
    let to: Vec<String> = route
        .route
        .iter()
        .filter_map(|to| {
            let name = destination(to.destination.as_ref()?);
            Some(
                to.weight
                    .filter(|_| route.route.len() > 1)
                    .map_or_else(|| name.clone(), |weight| format!("{weight} % to {name}")),
            )
        })
        .collect();
    let mut then = match (&route.redirect, &route.direct_response) {
        (Some(_), _) => "redirect".to_owned(),
        (_, Some(answer)) => format!("answer {}", answer.status),
        _ if route.route.len() > 1 => to.join(", "),
        _ => format!("to {}", to.join(", ")),
    };
    for (there, text) in [
        (route.fault.is_some(), "fault injection"),
        (route.retries.is_some(), "retries"),
        (route.timeout.is_some(), "timeout"),
        (route.mirror.is_some() || !route.mirrors.is_empty(), "mirror"),
        (route.rewrite.is_some(), "rewrite"),
    ] {
        if there {
            then.push_str(", with ");
            then.push_str(text);
        }
    }
    format!("{when}{then}")
}

fn condition(block: &HttpMatchRequest) -> String {
    let of = |name: &str, given: Option<&StringMatch>| {
        let given = given?;
        let how = [("", &given.exact), ("prefix ", &given.prefix), ("regex ", &given.regex)];
        let (how, text) = how.into_iter().find_map(|(how, text)| Some((how, text.as_ref()?)))?;
        Some(format!("{name} {how}{text:?}"))
    };
    let fields = [
        of("uri", block.uri.as_ref()),
        of("method", block.method.as_ref()),
        of("authority", block.authority.as_ref()),
        of("scheme", block.scheme.as_ref()),
        block.port.map(|port| format!("port {port}")),
    ];
    let mut parts: Vec<String> = fields.into_iter().flatten().collect();
    parts.extend(
        block.headers.iter().map(|(name, given)| of(name, Some(given)).unwrap_or_else(|| format!("{name} is there"))),
    );
    parts.extend(block.without_headers.keys().map(|name| format!("{name} is otherwise")));
    parts.extend(block.query_params.keys().map(|name| format!("query parameter {name} fits")));
    parts.extend((!block.source_labels.is_empty()).then(|| "the source has certain labels".to_owned()));
    parts.join(" and ")
}

fn destination(to: &Destination) -> String {
    let subset = if to.subset.is_empty() { String::new() } else { format!(" subset {}", to.subset) };
    let port = to.port.as_ref().map(|port| format!(":{}", port.number)).unwrap_or_default();
    format!("{}{port}{subset}", to.host)
}

/// By which gateways requests from outside come to a VirtualService.
fn exposed(view: &View<'_>, rule: &VirtualService) -> Vec<String> {
    let bound = |gateway: &&Gateway| rule.is_bound_to(&gateway.full_name());
    let mut lines = Vec::new();
    for gateway in view.offline.mesh.gateways.iter().map(|gateway| &**gateway).filter(bound) {
        let ports: Vec<String> =
            gateway.servers.iter().map(|server| format!("{}/{}", server.port, server.protocol)).collect();
        lines.push(format!("   Exposed on gateway {} ({})", gateway.full_name(), ports.join(", ")));
    }
    lines
}
