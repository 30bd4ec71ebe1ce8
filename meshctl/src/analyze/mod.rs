//! `meshctl analyze`: what is wrong with objects before they are applied, in Istio's codes and words (CT-1, PI-50).
//!
//! - [`code`]: the codes with their names and levels
//! - [`message`]: one finding
//! - [`view`]: the objects by kind, and who matches whom
//! - [`annotation`] with [`annotation_value`], [`association`], [`caution`], [`schema`], [`reference`], [`conflict`], [`rule`],
//!   [`workload`], [`service`], [`policy`]: the analyzers
//!
//! Analyzers are pure functions from the objects to messages. Whether an object is well-formed is not judged here: that
//! is what pilot's own validation said; what it warns of when an object is applied is said here in the same words.

pub mod annotation;
pub mod annotation_value;
pub mod association;
pub mod caution;
pub mod code;
pub mod conflict;
pub mod message;
pub mod policy;
pub mod reference;
pub mod rule;
pub mod schema;
pub mod service;
pub mod view;
pub mod workload;

pub use code::{Code, Level};
pub use message::Message;
pub use view::View;

use crate::offline::Offline;

/// An analyzer: its name, what it finds, and the function.
pub type Analyzer = (&'static str, &'static str, fn(&View<'_>) -> Vec<Message>);

/// All of them.
pub const ANALYZERS: &[Analyzer] = &[
    (
        "annotations.K8sAnalyzer",
        "annotations that are unknown, at the wrong place, invalid or deprecated (IST0107, IST0108, IST0125, IST0135)",
        annotation::annotations,
    ),
    ("schema.ValidationAnalyzer", "objects that pilot refuses (IST0106)", schema::refused),
    ("schema.ValidationAnalyzer", "policies that close TCP ports (IST0133)", caution::policies),
    (
        "virtualservice.DestinationHostAnalyzer",
        "destinations without service or port (IST0101, IST0112)",
        reference::hosts,
    ),
    ("virtualservice.DestinationRuleAnalyzer", "subsets that no DestinationRule has (IST0101)", reference::subsets),
    (
        "virtualservice.GatewayAnalyzer",
        "gateways that are absent, or lack the host (IST0101, IST0132)",
        reference::gateways,
    ),
    (
        "gateway.IngressGatewayPortAnalyzer",
        "selectors and ports without pods and Service (IST0101, IST0162)",
        service::gateways,
    ),
    ("gateway.SecretAnalyzer", "credentials that are absent or broken (IST0101, IST0161)", reference::secrets),
    ("sidecar.SelectorAnalyzer", "Sidecars that select nobody (IST0101)", workload::sidecars),
    ("destinationrule.UnknownHostAnalyzer", "hosts without service (IST0174)", reference::rules),
    ("destinationrule.PodNotSelectedAnalyzer", "subsets without pods (IST0173)", workload::subsets),
    ("destinationrule.CaCertificateAnalyzer", "TLS that verifies nobody (IST0128, IST0129)", policy::certificates),
    (
        "authz.AuthorizationPoliciesAnalyzer",
        "namespaces and workloads that are absent (IST0101, IST0127)",
        policy::authorization,
    ),
    ("virtualservice.ConflictingMeshGatewayHostsAnalyzer", "a host in two objects (IST0109)", conflict::hosts),
    ("sidecar.DefaultSelectorAnalyzer", "Sidecars that contradict each other (IST0110, IST0111)", conflict::sidecars),
    (
        "telemetry.DefaultSelectorAnalyzer",
        "Telemetries that contradict each other (IST0159, IST0160)",
        conflict::telemetries,
    ),
    (
        "gateway.ConflictingGatewayAnalyzer",
        "Gateways that contradict each other (IST0138, IST0145)",
        conflict::gateways,
    ),
    ("virtualservice.UnreachableRuleAnalyzer", "rules that no request reaches (IST0130, IST0131)", caution::routes),
    ("virtualservice.JWTClaimRouteAnalyzer", "claims of tokens that nobody verifies (IST0149)", rule::claims),
    ("service.PortNameAnalyzer", "port names that say no protocol (IST0118, IST0150)", service::port_names),
    ("serviceentry.ProtocolAddressesAnalyzer", "TCP without addresses (IST0134)", caution::entries),
    (
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        "a port of a host with two protocols (IST0177)",
        service::protocols,
    ),
    (
        "deployment.MultiServiceAnalyzer",
        "services that contradict each other about a port of a workload (IST0116, IST0137)",
        association::services,
    ),
    ("injection.Analyzer", "namespaces and pods without sidecar (IST0102, IST0103, IST0123)", workload::injection),
    ("deployment.ApplicationUIDAnalyzer", "pods that run as the proxy (IST0144)", workload::users),
    ("telemetry.ProviderAnalyzer", "logs that go nowhere (IST0157)", policy::providers),
];

/// Everything that is found, the worst first, then by file and line; without what objects suppress themselves.
pub fn analyze(offline: &Offline) -> Vec<Message> {
    analyze_with(offline, &[])
}

/// The same by these analyzers alone; by all where none is named.
pub fn analyze_with(offline: &Offline, names: &[String]) -> Vec<Message> {
    let view = View::new(offline);
    let chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    let analyzers = ANALYZERS.iter().filter(|(name, ..)| chosen(name));
    let mut found: Vec<Message> = analyzers.flat_map(|(_, _, run)| run(&view)).collect();
    found.retain(|message| !view.suppresses(message));
    found.sort_by(|a, b| {
        (b.code.level(), &a.file, a.line, a.code, &a.text).cmp(&(a.code.level(), &b.file, b.line, b.code, &b.text))
    });
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
