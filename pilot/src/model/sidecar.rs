//! Sidecar as meant: what a workload may reach and what it serves (spec 1.7).

use super::check::Check;
use super::host;
use crate::registry::Protocol;
use crate::source::{Key, Object, Problem};
use proto::istio::sidecar as written;
use proto::istio::sidecar::{CaptureMode, OutboundMode};
use std::collections::BTreeMap;

/// A Sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// The object.
    pub key: Key,
    /// Workloads it is for; empty: all of its namespace.
    pub selector: BTreeMap<String, String>,
    /// What they may reach.
    pub egress: Vec<Egress>,
    /// What they serve; empty: inferred from services.
    pub ingress: Vec<Ingress>,
    /// What becomes of traffic to unknown hosts.
    pub outbound_mode: Option<OutboundMode>,
}

/// One egress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// A port of its own; none: the catch-all.
    pub port: Option<(u16, Protocol)>,
    /// Address to listen on.
    pub bind: String,
    /// How traffic reaches it.
    pub capture: CaptureMode,
    /// What is imported.
    pub hosts: Vec<Import>,
}

/// `namespace/host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// A namespace, `.` (that of the client, for a default of the root namespace holds in all), `*` or `~` (none).
    pub namespace: String,
    /// A host or a wildcard.
    pub host: String,
}

impl Import {
    /// Whether a client of a namespace imports something of `namespace` with a host.
    pub fn admits(&self, client: &str, namespace: &str, host: &str) -> bool {
        let from = if self.namespace == "." { client } else { &self.namespace };
        (from == "*" || from == namespace) && host::overlap(&self.host, host)
    }
}

/// One ingress listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where requests go: address and port; none: the original destination.
    pub endpoint: Option<(String, u16)>,
}

/// Parses, and so validates, a Sidecar.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(object: &Object, spec: &written::Sidecar) -> Result<Sidecar, Vec<Problem>> {
    let mut check = Check::new(object);
    let mut egress = Vec::new();
    for (i, listener) in spec.egress.iter().enumerate() {
        let at = format!("spec.egress[{i}]");
        check.require(!listener.hosts.is_empty(), format!("{at}.hosts"), "at least one host is needed");
        let earlier = spec.egress.iter().take(i).any(|other| other.port.is_none());
        let second = listener.port.is_none() && earlier;
        check.require(!second, at.clone(), "the listener without a port is the catch-all: at most one");
        let unix = listener.bind.starts_with("unix://");
        check.require(!unix, format!("{at}.bind"), format!("{}: {at}.bind unix", proto::istio::NOT_SUPPORTED_YET));
        let hosts = listener.hosts.iter().enumerate().map(|(j, text)| import(&mut check, text, &at, j)).collect();
        let port = listener.port.as_ref().map(|port| {
            check.port(port.number, format!("{at}.port.number"));
            (u16::try_from(port.number).unwrap_or(0), Protocol::parse(&port.protocol).unwrap_or(Protocol::Sniff))
        });
        egress.push(Egress { port, bind: listener.bind.clone(), capture: listener.capture_mode, hosts });
    }
    let mut ingress = Vec::new();
    for (i, listener) in spec.ingress.iter().enumerate() {
        let at = format!("spec.ingress[{i}]");
        let Some(port) = &listener.port else {
            check.semantic(format!("{at}.port"), "a port is needed");
            continue;
        };
        check.port(port.number, format!("{at}.port.number"));
        let bound = !listener.bind.is_empty() || listener.capture_mode == CaptureMode::None;
        check.require(
            !bound,
            format!("{at}.bind"),
            format!("{}: {at}.bind, {at}.captureMode", proto::istio::NOT_SUPPORTED_YET),
        );
        let endpoint = endpoint(&mut check, &listener.default_endpoint, &format!("{at}.defaultEndpoint"));
        ingress.push(Ingress {
            port: u16::try_from(port.number).unwrap_or(0),
            protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Sniff),
            endpoint,
        });
    }
    check.finish(Sidecar {
        key: object.key.clone(),
        selector: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        egress,
        ingress,
        outbound_mode: spec
            .outbound_traffic_policy
            .as_ref()
            .map(|policy| policy.mode.unwrap_or(OutboundMode::RegistryOnly)),
    })
}

fn import(check: &mut Check<'_>, text: &str, at: &str, index: usize) -> Import {
    let field = format!("{at}.hosts[{index}]");
    let Some((namespace, host)) = text.split_once('/') else {
        check.semantic(field, format!("{text:?} has no namespace: write it like ./*, */* or namespace/host"));
        return Import { namespace: "~".to_owned(), host: String::new() };
    };
    let excluded = namespace.len() > 1 && namespace.starts_with('~');
    check.require(!excluded, field.clone(), format!("{}: exclusion in {field}", proto::istio::NOT_SUPPORTED_YET));
    if namespace != "~" {
        check.host(host, field);
    }
    Import { namespace: namespace.to_owned(), host: host.to_ascii_lowercase() }
}

fn endpoint(check: &mut Check<'_>, text: &str, at: &str) -> Option<(String, u16)> {
    if text.is_empty() {
        return None;
    }
    if text.starts_with("unix://") {
        check.semantic(at, format!("{}: {at} unix", proto::istio::NOT_SUPPORTED_YET));
        return None;
    }
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host @ ("127.0.0.1" | "[::1]"), port)) => Some((host.trim_matches(['[', ']']).to_owned(), port)),
        Some(("0.0.0.0" | "[::]", port)) => Some((String::new(), port)),
        _ => {
            check.semantic(at, format!("{text:?}: use 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT or [::]:PORT"));
            None
        }
    }
}
