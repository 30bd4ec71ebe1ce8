//! Delegates: rules of another VirtualService take the place of the rule that names it (spec 1.3).

use super::MeshConfig;
use super::export;
use super::virtual_service::VirtualService;
use proto::istio::StringMatch;
use proto::istio::virtual_service::{HttpMatchRequest, HttpRoute};
use std::collections::{BTreeMap, HashMap};

/// Merges every root with its delegates; delegates themselves are left out.
pub fn merge(rules: Vec<VirtualService>, mesh: &MeshConfig) -> Vec<VirtualService> {
    let (delegates, mut roots): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| rule.hosts.is_empty());
    let delegates: HashMap<(String, String), VirtualService> =
        delegates.into_iter().map(|rule| ((rule.key.namespace.to_string(), rule.key.name.to_string()), rule)).collect();
    for root in &mut roots {
        if root.http.iter().any(|route| route.delegate.is_some()) {
            let namespace = root.key.namespace.to_string();
            let mut merged = Vec::new();
            for route in std::mem::take(&mut root.http) {
                let Some(name) = &route.delegate else {
                    merged.push(route);
                    continue;
                };
                let Some(delegate) = delegates.get(&(name.namespace.clone(), name.name.clone())) else {
                    tracing::warn!(root = %root.key, "delegate {}/{} does not exist", name.namespace, name.name);
                    continue;
                };
                let default = &mesh.virtual_service_export_to;
                if export::visible(&delegate.export_to, default, &delegate.key.namespace, &namespace) {
                    root.sources.push(delegate.key.clone());
                    merged.extend(delegate.http.iter().filter_map(|child| merge_route(&route, child)));
                }
            }
            root.http = merged;
        }
    }
    roots
}

/// One rule of a delegate under its root's rule; none where they contradict (DEL-1).
fn merge_route(root: &HttpRoute, child: &HttpRoute) -> Option<HttpRoute> {
    let matches = merge_matches(&root.matches, &child.matches)?;
    let names = [root.name.as_str(), child.name.as_str()];
    let name = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("-");
    let mirrored = child.mirror.is_some() || !child.mirrors.is_empty();
    let mirror_of = if mirrored { child } else { root };
    Some(HttpRoute {
        name,
        matches,
        route: child.route.clone(),
        redirect: child.redirect.clone(),
        direct_response: child.direct_response.clone().or_else(|| root.direct_response.clone()),
        delegate: None,
        rewrite: child.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: child.timeout.or(root.timeout),
        retries: child.retries.clone().or_else(|| root.retries.clone()),
        fault: child.fault.clone().or_else(|| root.fault.clone()),
        mirror: mirror_of.mirror.clone(),
        mirrors: mirror_of.mirrors.clone(),
        mirror_percent: mirror_of.mirror_percent,
        mirror_percentage: mirror_of.mirror_percentage.clone(),
        cors_policy: child.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: child.headers.clone().or_else(|| root.headers.clone()),
    })
}

/// All pairs of blocks that do not contradict; none where there is no such pair.
fn merge_matches(root: &[HttpMatchRequest], child: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    match (root.is_empty(), child.is_empty()) {
        (true, _) => Some(child.to_vec()),
        (_, true) => Some(root.to_vec()),
        _ => {
            let pairs = root.iter().flat_map(|r| child.iter().filter_map(move |c| merge_block(r, c)));
            Some(pairs.collect::<Vec<_>>()).filter(|blocks| !blocks.is_empty())
        }
    }
}

fn merge_block(root: &HttpMatchRequest, child: &HttpMatchRequest) -> Option<HttpMatchRequest> {
    let text = |a: &str, b: &str| match (a.is_empty(), b.is_empty()) {
        (true, _) => Some(b.to_owned()),
        (_, true) => Some(a.to_owned()),
        _ => (a == b).then(|| b.to_owned()),
    };
    let in_root = |gateway: &String| root.gateways.is_empty() || root.gateways.contains(gateway);
    if !child.gateways.iter().all(in_root) || root.ignore_uri_case != child.ignore_uri_case {
        return None;
    }
    let mut source_labels = root.source_labels.clone();
    for (key, value) in &child.source_labels {
        if source_labels.insert(key.clone(), value.clone()).is_some_and(|own| own != *value) {
            return None;
        }
    }
    let names = [root.name.as_str(), child.name.as_str()];
    Some(HttpMatchRequest {
        name: names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("-"),
        uri: narrower(root.uri.as_ref(), child.uri.as_ref())?,
        scheme: narrower(root.scheme.as_ref(), child.scheme.as_ref())?,
        method: narrower(root.method.as_ref(), child.method.as_ref())?,
        authority: narrower(root.authority.as_ref(), child.authority.as_ref())?,
        headers: union(&root.headers, &child.headers)?,
        without_headers: union(&root.without_headers, &child.without_headers)?,
        query_params: union(&root.query_params, &child.query_params)?,
        port: match (root.port, child.port) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => b.or(a),
        },
        source_labels,
        source_namespace: text(&root.source_namespace, &child.source_namespace)?,
        gateways: if child.gateways.is_empty() { root.gateways.clone() } else { child.gateways.clone() },
        ignore_uri_case: root.ignore_uri_case,
        stat_prefix: if child.stat_prefix.is_empty() { root.stat_prefix.clone() } else { child.stat_prefix.clone() },
    })
}

/// The child's comparison, if it is at least as specific as the root's (DEL-2). Outer `None` is a contradiction.
#[expect(clippy::option_option, reason = "absent and contradictory are two different things")]
fn narrower(root: Option<&StringMatch>, child: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    let (Some(root), Some(child)) = (root, child) else {
        return Some(child.or(root).cloned());
    };
    if root.regex.is_some() || child.regex.is_some() {
        return None;
    }
    let fits = match (&root.exact, &root.prefix, &child.exact, &child.prefix) {
        (Some(a), _, Some(b), _) => a == b,
        (_, Some(a), Some(b), _) | (_, Some(a), _, Some(b)) => b.starts_with(a.as_str()),
        _ => false,
    };
    fits.then(|| Some(child.clone()))
}

fn union(
    root: &BTreeMap<String, StringMatch>,
    child: &BTreeMap<String, StringMatch>,
) -> Option<BTreeMap<String, StringMatch>> {
    let mut out = root.clone();
    for (key, value) in child {
        let merged = narrower(root.get(key), Some(value))?;
        out.insert(key.clone(), merged.unwrap_or_default());
    }
    Some(out)
}
