//! Gateway as meant (spec 1.5, the plain HTTP part).

use super::check::Check;
use super::host;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::gateway as written;
use std::collections::BTreeMap;

/// A Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// The object.
    pub key: Key,
    /// Labels of the proxies that serve it, in any namespace (GW-1).
    pub selector: BTreeMap<String, String>,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// A port with the hosts that it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Port as clients of the gateway's Service see it.
    pub port: u16,
    /// Address to listen on, instead of all.
    pub bind: Option<String>,
    /// `(namespace, host)`; the namespace is `*`, or a name (`.` is completed).
    pub hosts: Vec<(String, String)>,
    /// Prefix of its statistics, where one is given (GW-4).
    pub name: String,
    /// Answer 301 to https.
    pub https_redirect: bool,
    /// HTTP/2 without TLS is spoken too.
    pub protocol: String,
}

impl Gateway {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.key.namespace, self.key.name)
    }

    /// Whether a proxy with these labels serves it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        selects(&self.selector, labels)
    }
}

impl Server {
    /// The hosts that a rule of `namespace` for `rule_host` gets here: the narrower of the two (GW-3, VSM-8).
    pub fn bound_hosts(&self, namespace: &str, rule_host: &str) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for (_, own) in self.hosts.iter().filter(|(ns, _)| ns == "*" || ns == namespace) {
            let narrower = if host::covers(own, rule_host) {
                rule_host
            } else if host::covers(rule_host, own) {
                own
            } else {
                continue;
            };
            if !out.iter().any(|known| known == narrower) {
                out.push(narrower.to_owned());
            }
        }
        out
    }
}

/// Parses, and so validates, a Gateway.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(object: &Object, spec: &written::Gateway) -> Result<Gateway, Vec<Problem>> {
    let mut check = Check::new(object);
    check.require(!spec.servers.is_empty(), "spec.servers", "at least one server is needed");
    let mut servers = Vec::new();
    for (i, server) in spec.servers.iter().enumerate() {
        let at = format!("spec.servers[{i}]");
        let later = |field: &str| format!("{}: {at}.{field}", proto::istio::NOT_SUPPORTED_YET);
        let Some(port) = &server.port else {
            check.semantic(format!("{at}.port"), "a port is needed");
            continue;
        };
        check.port(port.number, format!("{at}.port.number"));
        check.require(!server.hosts.is_empty(), format!("{at}.hosts"), "at least one host is needed");
        match port.protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => {}
            "HTTPS" | "TLS" | "TCP" | "MONGO" => {
                check.semantic(format!("{at}.port.protocol"), later("port.protocol"));
            }
            other => check.semantic(format!("{at}.port.protocol"), format!("unknown protocol {other:?}")),
        }
        if server.tls.as_ref().is_some_and(|tls| tls.mode.is_some()) {
            check.semantic(format!("{at}.tls.mode"), later("tls.mode"));
        }
        for (j, host) in server.hosts.iter().enumerate() {
            let name = host.rsplit_once('/').map_or(host.as_str(), |(_, name)| name);
            check.host(name, format!("{at}.hosts[{j}]"));
        }
        servers.push(Server {
            port: u16::try_from(port.number).unwrap_or(0),
            bind: server.bind.clone().filter(|bind| !bind.is_empty()),
            hosts: server.hosts.iter().map(|host| split_host(host, &object.key.namespace)).collect(),
            name: server.name.clone(),
            https_redirect: server.tls.as_ref().is_some_and(|tls| tls.https_redirect),
            protocol: port.protocol.clone(),
        });
    }
    check.finish(Gateway { key: object.key.clone(), selector: spec.selector.clone(), servers })
}

fn split_host(host: &str, namespace: &str) -> (String, String) {
    match host.split_once('/') {
        Some((".", name)) => (namespace.to_owned(), name.to_ascii_lowercase()),
        Some((ns, name)) => (ns.to_owned(), name.to_ascii_lowercase()),
        None => ("*".to_owned(), host.to_ascii_lowercase()),
    }
}
