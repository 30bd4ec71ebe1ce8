//! Policies: who may, how TLS verifies, where logs go.

use super::code::Code;
use super::message::Message;
use super::view::{View, shown};
use pilot::source::{Kind, Object, Spec};
use proto::istio::destination_rule::{ClientTlsMode, ClientTlsSettings};

/// AuthorizationPolicies that select nobody, and namespaces that are absent.
pub fn authorization(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for object in view.kind(Kind::AuthorizationPolicy) {
        let Spec::AuthorizationPolicy(spec) = &object.spec else { continue };
        let everywhere = *object.key.namespace == *view.offline.mesh.config.root_namespace;
        let namespace = (!everywhere).then_some(&*object.key.namespace);
        let selector = spec.selector.as_ref().filter(|own| !own.match_labels.is_empty());
        if let Some(selector) = selector.filter(|own| view.pods(&own.match_labels, namespace).is_empty()) {
            let text = format!(
                "No matching workloads for this resource with the following labels: {}",
                shown(&selector.match_labels)
            );
            found.push(Message::at(Code::NoMatchingWorkloadsFound, object, "spec.selector", text));
        }
        for (i, rule) in spec.rules.iter().enumerate() {
            for (j, source) in rule.from.iter().enumerate().filter_map(|(j, from)| Some((j, from.source.as_ref()?))) {
                for (k, name) in source.namespaces.iter().enumerate().filter(|(_, name)| !exists(view, name)) {
                    let text = format!("Referenced namespace not found: {name:?}");
                    let at = format!("spec.rules[{i}].from[{j}].source.namespaces[{k}]");
                    found.push(Message::at(Code::ReferencedResourceNotFound, object, &at, text));
                }
            }
        }
    }
    found
}

/// Whether a namespace exists that a policy's pattern (`*`, `a*`, `*a`) fits.
fn exists(view: &View<'_>, pattern: &str) -> bool {
    let fits = |object: &Object| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => object.key.name.ends_with(end),
        (None, Some(start)) => object.key.name.starts_with(start),
        (None, None) => *object.key.name == *pattern,
    };
    view.kind(Kind::Namespace).any(fits)
}

/// TLS to a server that nobody verifies.
pub fn certificates(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for (object, rule) in view.rules() {
        let subsets =
            rule.subsets.iter().enumerate().map(|(i, subset)| (format!("spec.subsets[{i}]"), &subset.traffic_policy));
        let all = std::iter::once(("spec".to_owned(), &rule.traffic_policy)).chain(subsets);
        for (at, policy) in all.filter_map(|(at, policy)| Some((format!("{at}.trafficPolicy"), policy.as_ref()?))) {
            if let Some(mode) = policy.tls.as_ref().and_then(unverified) {
                let text = format!("{}: {}", unverified_text(object, mode), rule.host);
                let code = Code::NoServerCertificateVerificationDestinationLevel;
                found.push(Message::at(code, object, &format!("{at}.tls"), text));
            }
            for (i, level) in policy.port_level_settings.iter().enumerate() {
                let Some(mode) = level.tls.as_ref().and_then(unverified) else { continue };
                let port = level.port.as_ref().map_or(0, |port| port.number);
                let text = format!("{}: {} at port {port}", unverified_text(object, mode), rule.host);
                let at = format!("{at}.portLevelSettings[{i}].tls");
                found.push(Message::at(Code::NoServerCertificateVerificationPortLevel, object, &at, text));
            }
        }
    }
    found
}

fn unverified_text(object: &Object, mode: &str) -> String {
    format!(
        "DestinationRule {} in namespace {} has TLS mode set to {mode} but no caCertificates are set to validate server \
         identity for host",
        object.key.name, object.key.namespace
    )
}

/// The mode, where it verifies nobody.
fn unverified(tls: &ClientTlsSettings) -> Option<&'static str> {
    let mode = match tls.mode {
        ClientTlsMode::Simple => "SIMPLE",
        ClientTlsMode::Mutual => "MUTUAL",
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return None,
    };
    (tls.ca_certificates.is_empty() && tls.credential_name.is_empty()).then_some(mode)
}

/// Telemetries whose logs have no provider.
pub fn providers(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    let defaults = &view.offline.mesh.config.log_providers;
    for object in view.kind(Kind::Telemetry).filter(|_| defaults.is_empty()) {
        let Spec::Telemetry(spec) = &object.spec else { continue };
        for (i, _) in spec.access_logging.iter().enumerate().filter(|(_, log)| log.providers.is_empty()) {
            let text = format!(
                "The Telemetry {} in namespace {:?} with empty providers will be ignored.",
                object.key.name, object.key.namespace
            );
            let at = format!("spec.accessLogging[{i}]");
            found.push(Message::at(Code::InvalidTelemetryProvider, object, &at, text));
        }
    }
    found
}
