//! Rules of VirtualServices that look at claims which nobody proves.

use super::code::Code;
use super::message::Message;
use super::view::View;
use pilot::model::claim;
use pilot::registry::entry::selects;
use pilot::source::{Kind, Object, Spec};
use proto::istio::virtual_service::VirtualService;

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
        let Some(key) = first(spec) else { continue };
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
fn first(spec: &VirtualService) -> Option<&str> {
    let blocks = spec.http.iter().flat_map(|route| &route.matches);
    let mut keys =
        blocks.flat_map(|block| block.headers.keys().chain(block.without_headers.keys())).map(String::as_str);
    keys.find(|key| claim::path(key).is_some())
}
