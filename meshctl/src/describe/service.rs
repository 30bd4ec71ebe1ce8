//! A service: its ports, its pods, rules.

use super::{RULER, has_proxy, rule, written};
use crate::analyze::View;
use pilot::registry::{Protocol, Service};
use pilot::source::{Kind, Object};

/// The service of that name and namespace.
pub fn find<'a>(view: &View<'a>, namespace: &str, name: &str) -> Option<&'a Service> {
    let same = |service: &&Service| service.name == name && &*service.key.namespace == namespace;
    view.offline.mesh.services.iter().map(|service| &**service).find(same)
}

/// Name and ports.
pub fn head(service: &Service) -> Vec<String> {
    let mut lines = vec![format!("Service: {}.{}", service.name, service.key.namespace)];
    for port in &service.ports {
        let target = port.target.map_or_else(String::new, |target| format!(" targets pod port {target}"));
        lines.push(format!(
            "   Port: {} {}/{}{target}",
            port.name,
            port.number,
            written(&port.protocol).to_uppercase()
        ));
        if port.name.is_empty() && port.protocol == Protocol::of_port(port.number, "", "TCP", None) {
            lines.push(format!(
                "   WARNING: port {} says no protocol: name it http, grpc or tcp, or set appProtocol",
                port.number
            ));
        }
    }
    lines
}

/// Everything about a service.
pub fn lines(view: &View<'_>, service: &Service) -> Vec<String> {
    let mut lines = head(service);
    let pods: Vec<&Object> = match service.selector.is_empty() {
        true => Vec::new(),
        false => view.pods(&service.selector, Some(&service.key.namespace)),
    };
    let meshed = pods.iter().filter(|pod| has_proxy(pod)).count();
    lines.push(format!("   Pods: {}, {meshed} of them with a proxy", pods.len()));
    if pods.is_empty() && !service.selector.is_empty() {
        lines.push("   WARNING: no pod has the labels that it selects: requests get 503".to_owned());
    }
    lines.push(RULER.to_owned());
    lines.extend(rule::destinations(view, service, None));
    lines.extend(rule::routes(view, service, None));
    let modes: std::collections::BTreeSet<String> = pods
        .iter()
        .map(|pod| {
            format!("{:?}", view.offline.mesh.authn.effective(&pod.key.namespace, &pod.meta.labels).mode).to_uppercase()
        })
        .collect();
    if !modes.is_empty() && view.kind(Kind::Pod).next().is_some() {
        lines.push(format!("mTLS mode of its pods: {}", modes.into_iter().collect::<Vec<_>>().join(", ")));
    }
    lines
}
