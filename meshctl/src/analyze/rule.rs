//! Rules of VirtualServices that no request reaches, or that look at claims which nobody proves.

use super::code::Code;
use super::message::Message;
use super::view::View;
use pilot::registry::entry::selects;
use pilot::source::{Kind, Object, Spec};
use proto::istio::virtual_service::{HttpRoute, VirtualService};
use std::collections::BTreeMap;

/// Rules behind one without a match, and matches that an earlier rule has.
pub fn unreachable(view: &View<'_>) -> Vec<Message> {
    view.virtual_services().into_iter().flat_map(|(object, spec)| of(object, &spec.http)).collect()
}

fn of(object: &Object, routes: &[HttpRoute]) -> Vec<Message> {
    let mut found = Vec::new();
    let (mut seen, mut open) = (BTreeMap::<String, String>::new(), false);
    for (i, route) in routes.iter().enumerate() {
        let (at, rule) = (format!("spec.http[{i}]"), named(&route.name, i));
        let mut unused = |reason: &str| {
            let text = format!("VirtualService rule {rule} not used ({reason}).");
            found.push(Message::at(Code::VirtualServiceUnreachableRule, object, &at, text));
        };
        if open {
            unused("only the last rule can have no matches");
            continue;
        }
        open = route.matches.is_empty();
        let mut same = Vec::new();
        for (j, block) in route.matches.iter().enumerate() {
            // The name of a match decides nothing.
            let content = serde_json::to_value(block).map(|mut value| {
                value["name"] = serde_json::Value::Null;
                value.to_string()
            });
            let Ok(content) = content else { continue };
            match seen.get(&content) {
                Some(earlier) => same.push((j, named(&block.name, j), earlier.clone())),
                None => drop(seen.insert(content, rule.clone())),
            }
        }
        if !same.is_empty() && same.len() == route.matches.len() {
            unused("all matches used by prior rules");
        }
        for (j, block, earlier) in same {
            let text = format!(
                "VirtualService rule {rule} match {block} is not used (duplicate/overlapping match in rule {earlier})."
            );
            let at = format!("{at}.match[{j}]");
            found.push(Message::at(Code::VirtualServiceIneffectiveMatch, object, &at, text));
        }
    }
    found
}

/// How a condition on a claim of a token begins.
const CLAIM: &str = "@request.auth.claims";

/// Rules by claims of a token at gateways of which nobody verifies tokens.
pub fn claims(view: &View<'_>) -> Vec<Message> {
    let root = view.offline.mesh.config.root_namespace.as_str();
    let verifies = |pod: &Object| {
        view.kind(Kind::RequestAuthentication).any(|object| {
            let Spec::RequestAuthentication(spec) = &object.spec else { return false };
            let here = *object.key.namespace == *root || object.key.namespace == pod.key.namespace;
            here && spec.selector.as_ref().is_none_or(|own| selects(&own.match_labels, &pod.meta.labels))
        })
    };
    let mut found = Vec::new();
    for (object, spec) in view.virtual_services() {
        let Some(key) = claim(spec) else { continue };
        for name in spec.gateways.iter().filter(|name| *name != "mesh") {
            let (namespace, short) = name.split_once('/').unwrap_or((&object.key.namespace, name));
            let gateways = view.gateways();
            let of_name = |gateway: &Object| *gateway.key.namespace == *namespace && *gateway.key.name == *short;
            let Some((_, gateway)) = gateways.iter().find(|(gateway, _)| of_name(gateway)) else { continue };
            for pod in view.pods(&gateway.selector, None).into_iter().filter(|pod| !verifies(pod)) {
                let text = format!(
                    "The virtual service uses the JWT claim based routing (key: {key}) but found no request authentication for \
                     the gateway ({namespace}/{short}) pod ({}). The request authentication must first be applied for the \
                     gateway pods to validate the JWT token and make the claims available for routing.",
                    pod.key.name
                );
                let code = Code::JwtClaimBasedRoutingWithoutRequestAuthN;
                found.push(Message::at(code, object, "metadata.name", text));
            }
        }
    }
    found
}

/// The first condition on a claim.
fn claim(spec: &VirtualService) -> Option<&str> {
    let blocks = spec.http.iter().flat_map(|route| &route.matches);
    let mut keys =
        blocks.flat_map(|block| block.headers.keys().chain(block.without_headers.keys())).map(String::as_str);
    keys.find(|key| {
        let begins = key.get(..CLAIM.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(CLAIM));
        let rest = key.get(CLAIM.len()..).filter(|_| begins).unwrap_or_default();
        rest.len() > 1 && rest.starts_with('.') || rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']')
    })
}

/// The name in quotes, else the number.
fn named(name: &str, index: usize) -> String {
    if name.is_empty() { format!("#{index}") } else { format!("{name:?}") }
}
