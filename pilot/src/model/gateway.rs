//! Gateway as meant (spec 1.5).

use super::check::Check;
use super::host;
use super::secret;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::gateway as written;
use proto::istio::gateway::ServerTlsMode;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

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
    /// What is spoken, in capitals.
    pub protocol: String,
    /// Name of the port.
    pub port_name: String,
    /// What is done about TLS, where it is spoken.
    pub tls: Option<Tls>,
}

/// What comes to a port: servers of one port take the same (GW-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Requests without TLS.
    Http,
    /// Connections without TLS.
    Tcp,
    /// TLS, whose names tell servers apart.
    Tls,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        })
    }
}

/// What a server does with the TLS of its clients.
#[derive(Debug, Clone, PartialEq)]
pub enum Tls {
    /// Nothing but to look at the name (GW-10).
    Passthrough,
    /// Ends it (GW-6 to GW-9).
    Terminate(Termination),
}

/// With which certificate TLS ends, and whom it asks for one.
#[derive(Debug, Clone, PartialEq)]
pub struct Termination {
    /// SIMPLE, MUTUAL, OPTIONAL_MUTUAL or ISTIO_MUTUAL.
    pub mode: ServerTlsMode,
    /// Names of the secrets that hold the certificates; none: files, or the workload's own.
    pub credentials: Vec<String>,
    /// Name of the secret that holds the authorities of clients, where it is one.
    pub ca_credential: Option<String>,
    /// File of the certificate.
    pub certificate: String,
    /// File of its key.
    pub private_key: String,
    /// File of the authorities of clients.
    pub authorities: String,
    /// Names that a client's certificate must have one of.
    pub names: Vec<String>,
    /// Least and greatest version: 0 for any, then TLS 1.0 to 1.3.
    pub versions: (i32, i32),
    /// Ciphers; empty for the proxy's own.
    pub ciphers: Vec<String>,
}

impl Gateway {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.key.namespace, self.key.name)
    }

    /// Names of the secrets that its servers name, each with its field.
    pub fn secrets(&self) -> impl Iterator<Item = (String, &String)> {
        let servers = self.servers.iter().enumerate().filter_map(|(i, server)| match &server.tls {
            Some(Tls::Terminate(termination)) => Some((i, termination)),
            _ => None,
        });
        servers.flat_map(|(i, tls)| {
            tls.secrets().map(move |(field, name)| (format!("spec.servers[{i}].tls.{field}"), name))
        })
    }

    /// Whether a proxy with these labels serves it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        selects(&self.selector, labels)
    }
}

impl Termination {
    /// Whether clients are asked for a certificate.
    pub fn asks(&self) -> bool {
        self.mode != ServerTlsMode::Simple
    }

    /// Names of the secrets that it needs, each with its field.
    fn secrets(&self) -> impl Iterator<Item = (String, &String)> {
        let many = self.credentials.len() > 1;
        let field = move |i| if many { format!("credentialNames[{i}]") } else { "credentialName".to_owned() };
        let own = self.credentials.iter().enumerate().map(move |(i, name)| (field(i), name));
        let authorities = self.ca_credential.iter().filter(|_| self.asks());
        let all = own.chain(authorities.map(|name| ("caCertCredentialName".to_owned(), name)));
        all.filter(|(_, name)| !name.starts_with(secret::BUILTIN))
    }
}

impl Server {
    /// Whether requests are spoken, and not just bytes.
    pub fn is_http(&self) -> bool {
        match self.protocol.as_str() {
            "HTTPS" => matches!(self.tls, Some(Tls::Terminate(_))),
            protocol => HTTP.contains(&protocol),
        }
    }

    /// What comes to it.
    pub fn traffic(&self) -> Traffic {
        match self.tls {
            Some(_) => Traffic::Tls,
            None if self.is_http() => Traffic::Http,
            None => Traffic::Tcp,
        }
    }

    /// Names by which TLS finds this server; none where it takes any.
    pub fn names(&self) -> Vec<String> {
        if self.hosts.iter().any(|(_, host)| host == "*") {
            return Vec::new();
        }
        let mut out: Vec<String> = Vec::new();
        for (_, host) in &self.hosts {
            if !out.contains(host) {
                out.push(host.clone());
            }
        }
        out
    }

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
    let (mut servers, mut names) = (Vec::new(), HashSet::new());
    for (i, server) in spec.servers.iter().enumerate() {
        let at = format!("spec.servers[{i}]");
        let Some(port) = &server.port else {
            check.semantic(format!("{at}.port"), "a port is needed");
            continue;
        };
        check.port(port.number, format!("{at}.port.number"));
        let twice = format!("{:?} is there twice: the port of each server has a name of its own", port.name);
        check.require(names.insert(&port.name), format!("{at}.port.name"), twice);
        check.require(!server.hosts.is_empty(), format!("{at}.hosts"), "at least one host is needed");
        let protocol = port.protocol.to_ascii_uppercase();
        let mut tls = None;
        match (protocol.as_str(), &server.tls) {
            ("HTTPS" | "TLS", Some(written)) => tls = parse_tls(written, &at, &mut check),
            ("HTTPS" | "TLS", None) => check.semantic(format!("{at}.tls"), "HTTPS and TLS need settings for TLS"),
            ("TCP" | "MONGO", None) => {}
            (http, settings) if HTTP.contains(&http) || settings.is_some() => {
                let mode = settings.as_ref().is_some_and(|tls| tls.mode.is_some());
                check.require(!mode, format!("{at}.tls"), "only HTTPS and TLS have settings for TLS");
            }
            (other, _) => check.semantic(format!("{at}.port.protocol"), format!("unknown protocol {other:?}")),
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
            protocol,
            port_name: port.name.clone(),
            tls,
        });
    }
    check.finish(Gateway { key: object.key.clone(), selector: spec.selector.clone(), servers })
}

/// The protocols of requests without TLS.
const HTTP: [&str; 4] = ["HTTP", "HTTP2", "GRPC", "GRPC-WEB"];
const VERSIONS: [&str; 5] = ["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"];
/// The ciphers of TLS 1.2 that proxies offer, all with forward secrecy; those of TLS 1.3 are not chosen (GW-15).
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

fn parse_tls(written: &written::ServerTlsSettings, at: &str, check: &mut Check<'_>) -> Option<Tls> {
    let mode = written.mode.unwrap_or(ServerTlsMode::Passthrough);
    match mode {
        ServerTlsMode::Passthrough => return Some(Tls::Passthrough),
        ServerTlsMode::AutoPassthrough => {
            check.semantic(format!("{at}.tls.mode"), format!("{}: {at}.tls.mode", proto::istio::NOT_SUPPORTED_YET));
            return None;
        }
        ServerTlsMode::IstioMutual => {
            let files = [&written.server_certificate, &written.private_key, &written.ca_certificates];
            let names = [&written.credential_name, &written.ca_cert_credential_name];
            let own =
                files.into_iter().chain(names).any(|text| !text.is_empty()) || !written.credential_names.is_empty();
            check.require(!own, format!("{at}.tls"), "ISTIO_MUTUAL takes the certificates of the mesh");
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            sources(written, mode, &format!("{at}.tls"), check);
        }
    }
    let at = format!("{at}.tls");
    Some(Tls::Terminate(Termination {
        mode,
        credentials: credentials(written).map(|(_, name)| secret::resource(name)).collect(),
        ca_credential: ca_credential(written),
        certificate: written.server_certificate.clone(),
        private_key: written.private_key.clone(),
        authorities: written.ca_certificates.clone(),
        names: written.subject_alt_names.clone(),
        versions: versions(written, &at, check),
        ciphers: ciphers(&written.cipher_suites, format!("{at}.cipherSuites"), check),
    }))
}

/// The least and the greatest version; proxies speak none below TLS 1.2 (GW-14).
fn versions(written: &written::ServerTlsSettings, at: &str, check: &mut Check<'_>) -> (i32, i32) {
    let mut version = |text: &String, field: &str| {
        let text = if text.is_empty() { VERSIONS[0] } else { text };
        let number = VERSIONS.iter().position(|known| *known == text);
        check.require(number.is_some(), format!("{at}.{field}"), format!("one of {}", VERSIONS.join(", ")));
        number.and_then(|number| i32::try_from(number).ok()).unwrap_or(0)
    };
    let least = version(&written.min_protocol_version, "minProtocolVersion");
    let most = version(&written.max_protocol_version, "maxProtocolVersion");
    let greatest = || format!("{at}.maxProtocolVersion");
    let spoken = !matches!(written.max_protocol_version.as_str(), "TLSV1_0" | "TLSV1_1");
    check.require(spoken, greatest(), "TLS below 1.2 is not offered: use TLSV1_2 or TLSV1_3");
    check.require(!spoken || most == 0 || least <= most, greatest(), "it is below minProtocolVersion");
    (least, most)
}

/// The ciphers that proxies offer, of those that are written: one that they do not is left out, as Istio leaves out what it
/// does not know. `[A|B]` are of equal preference.
fn ciphers(written: &[String], at: String, check: &mut Check<'_>) -> Vec<String> {
    let offered = |entry: &&String| entry.trim_matches(['[', ']']).split('|').all(|name| CIPHERS.contains(&name));
    let left: Vec<String> = written.iter().filter(offered).cloned().collect();
    let message = format!("none of {} is offered: use some of {}", written.join(", "), CIPHERS.join(", "));
    check.require(written.is_empty() || !left.is_empty(), at, message);
    left
}

/// Most certificates of one server: one per kind of key.
const MAX_CREDENTIALS: usize = 2;

/// The credentials of a server, with their fields.
fn credentials(written: &written::ServerTlsSettings) -> impl Iterator<Item = (String, &String)> {
    let one = Some(&written.credential_name).filter(|name| !name.is_empty() && written.credential_names.is_empty());
    let many = written.credential_names.iter().enumerate();
    let one = one.map(|name| ("credentialName".to_owned(), name)).into_iter();
    one.chain(many.map(|(i, name)| (format!("credentialNames[{i}]"), name)))
}

fn ca_credential(written: &written::ServerTlsSettings) -> Option<String> {
    let own = Some(&written.ca_cert_credential_name).filter(|name| !name.is_empty());
    let first = credentials(written).next().map(|(_, name)| name);
    own.or(first).map(|name| secret::authorities_of(name))
}

/// A certificate comes from secrets or from files; so do the authorities of clients.
fn sources(written: &written::ServerTlsSettings, mode: ServerTlsMode, at: &str, check: &mut Check<'_>) {
    let both = !written.credential_name.is_empty() && !written.credential_names.is_empty();
    check.require(!both, format!("{at}.credentialNames"), "only one of credentialName and credentialNames");
    let few = written.credential_names.len() <= MAX_CREDENTIALS;
    check.require(
        few,
        format!("{at}.credentialNames"),
        format!("at most {MAX_CREDENTIALS}, of different kinds of keys"),
    );
    let own = Some(("caCertCredentialName".to_owned(), &written.ca_cert_credential_name));
    for (field, name) in credentials(written).chain(own.filter(|(_, name)| !name.is_empty())) {
        if let Some(problem) = secret::check_name(name) {
            check.semantic(format!("{at}.{field}"), problem);
        }
    }
    if credentials(written).next().is_some() {
        return;
    }
    let text = "a file is needed, or credentialName";
    check.require(!written.server_certificate.is_empty(), format!("{at}.serverCertificate"), text);
    check.require(!written.private_key.is_empty(), format!("{at}.privateKey"), text);
    let named = !written.ca_certificates.is_empty() || !written.ca_cert_credential_name.is_empty();
    check.require(mode == ServerTlsMode::Simple || named, format!("{at}.caCertificates"), text);
}

fn split_host(host: &str, namespace: &str) -> (String, String) {
    match host.split_once('/') {
        Some((".", name)) => (namespace.to_owned(), name.to_ascii_lowercase()),
        Some((ns, name)) => (ns.to_owned(), name.to_ascii_lowercase()),
        None => ("*".to_owned(), host.to_ascii_lowercase()),
    }
}
