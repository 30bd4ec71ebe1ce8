//! Envoy's access log entries as [`Entry`] (MX-95, MX-107): the reporter comes from the stream's first message, the peer
//! from its certificate, from filter state and from the table of workloads, never from a call (MX-106).

use super::entry::{Entry, Kind, MAX_HEADERS, MAX_TEXT_BYTES, Party, Reason, host_of_cluster};
use super::point::cut;
use super::traffic::{Reporter, UNKNOWN};
use crate::workload::Table;
use identity::spiffe::SpiffeId;
use prost::Message as _;
use proto::envoy::core::{Address, Node, RequestMethod, address, socket_address};
use proto::envoy::log_entry::http_access_log_entry::HttpVersion;
use proto::envoy::log_entry::tls_properties::CertificateProperties;
use proto::envoy::log_entry::tls_properties::certificate_properties::subject_alt_name::San;
use proto::envoy::log_entry::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties, ResponseFlags,
    TcpAccessLogEntry,
};
use proto::envoy::wkt;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Who sends a stream of entries.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    id: String,
    local: Party,
    is_gateway: bool,
}

impl Origin {
    /// From the node of the first message: `NAME`, `NAMESPACE`, `WORKLOAD_NAME`, `LABELS`, `CLUSTER_ID`, `OWNER`.
    pub fn new(node: &Node) -> Self {
        let mut local = Party::default();
        if let Some(metadata) = &node.metadata {
            read_metadata(&mut local, &metadata.fields);
        }
        // sidecar~10.0.0.1~pod.namespace~namespace.svc.cluster.local
        let mut parts = node.id.split('~');
        let kind = parts.next().unwrap_or_default();
        local.address = parts.next().and_then(|address| address.parse().ok());
        if let Some((name, namespace)) = parts.next().and_then(|id| id.rsplit_once('.')) {
            if local.name.is_empty() {
                local.name = short(name);
            }
            if local.namespace.is_empty() {
                local.namespace = short(namespace);
            }
        }
        local.canonical();
        Self { id: short(&node.id), local, is_gateway: kind == "router" }
    }

    /// Takes the identity that the sender's certificate proves: it counts more than what the node says.
    ///
    /// # Errors
    /// Where the node says that it is in another namespace: it reports in the name of others.
    pub fn prove(&mut self, id: &SpiffeId) -> Result<(), String> {
        if let Some((namespace, _)) = id.namespace_and_account() {
            let says = &self.local.namespace;
            if !says.is_empty() && says != namespace {
                return Err(format!("node {} reports from namespace {says}, its certificate is of {id}", self.id));
            }
            self.local.namespace = short(namespace);
        }
        self.local.principal = short(id.as_str());
        Ok(())
    }

    /// A request.
    pub fn http(&self, logged: HttpAccessLogEntry, table: &Table) -> Entry {
        let common = logged.common_properties.unwrap_or_default();
        let mut entry = self.entry(&common, Kind::Http, table);
        entry.protocol = match HttpVersion::try_from(logged.protocol_version) {
            Ok(HttpVersion::Http10) => "HTTP/1.0",
            Ok(HttpVersion::Http11) => "HTTP/1.1",
            Ok(HttpVersion::Http2) => "HTTP/2",
            Ok(HttpVersion::Http3) => "HTTP/3",
            _ => "",
        };
        request(&mut entry, logged.request.unwrap_or_default());
        response(&mut entry, logged.response.unwrap_or_default());
        if entry.service.is_empty() {
            let asked = host_without_port(&entry.authority);
            let served = match entry.reporter {
                Reporter::Destination => self.served(&asked, table),
                Reporter::Source => None,
            };
            entry.service = served.unwrap_or(asked);
        }
        entry
    }

    /// A connection.
    pub fn tcp(&self, logged: TcpAccessLogEntry, table: &Table) -> Entry {
        let common = logged.common_properties.unwrap_or_default();
        let kind = match AccessLogType::try_from(common.access_log_type) {
            Ok(AccessLogType::TcpConnectionStart | AccessLogType::TcpUpstreamConnected) => Kind::TcpOpen,
            Ok(AccessLogType::TcpPeriodic) => Kind::TcpContinue,
            _ => Kind::TcpEnd,
        };
        let mut entry = self.entry(&common, kind, table);
        let bytes = logged.connection_properties.unwrap_or_default();
        entry.request_bytes = (bytes.received_bytes, bytes.received_bytes);
        entry.response_bytes = (bytes.sent_bytes, bytes.sent_bytes);
        entry
    }

    /// The service of this workload that was asked for: the one whose name the Host header begins with, else the first.
    fn served(&self, asked: &str, table: &Table) -> Option<String> {
        let services = &table.by_address(self.local.address?)?.services;
        let first = |host: &str| host.split('.').next().unwrap_or_default().to_owned();
        let named = services.iter().find(|service| first(service) == first(asked));
        named.or_else(|| services.first()).map(|service| short(service))
    }

    /// What requests and connections have in common.
    fn entry(&self, common: &AccessLogCommon, kind: Kind, table: &Table) -> Entry {
        let reporter = self.reporter(common);
        let mut peer = Party::default();
        let tls = common.tls_properties.as_ref();
        let certificate = |c: Option<&CertificateProperties>| c.map(uri_of).unwrap_or_default();
        let (remote, local) = (
            certificate(tls.and_then(|t| t.peer_certificate_properties.as_ref())),
            certificate(tls.and_then(|t| t.local_certificate_properties.as_ref())),
        );
        let inbound = reporter == Reporter::Destination;
        let downstream = common.downstream_remote_address.as_ref();
        let upstream = common.upstream_remote_address.as_ref();
        let (address, state) =
            if inbound { (connected(common), "downstream_peer") } else { (upstream, "upstream_peer") };
        (peer.address, peer.port) = host_port(address);
        if let Some(packed) = common.filter_state_objects.get(state) {
            read_peer(&mut peer, packed);
        }
        if inbound && !remote.is_empty() {
            peer.principal.clone_from(&remote);
        }
        if let Some(known) = peer.address.and_then(|address| table.by_address(address)) {
            peer.join(known);
        }
        peer.canonical();
        peer.join_principal();
        let mut own = self.local.clone();
        if inbound {
            if !local.is_empty() {
                own.principal.clone_from(&local);
            }
            own.port = host_port(common.downstream_local_address.as_ref()).1;
        }
        let (source, destination) = if inbound { (peer, own) } else { (own, peer) };
        let text = |address: Option<&Address>| address.map(address_text).unwrap_or_default();
        Entry {
            kind,
            reporter,
            node: self.id.clone(),
            start: common.start_time.as_ref().map(time).unwrap_or_default(),
            duration: duration(common),
            source,
            destination,
            service: host_of_cluster(&common.upstream_cluster).map(short).unwrap_or_default(),
            mutual_tls: inbound && !remote.is_empty() && !local.is_empty(),
            server_name: tls.map(|t| short(&t.tls_sni_hostname)).unwrap_or_default(),
            upstream_time: common.time_to_first_upstream_rx_byte.as_ref().map(span),
            flags: common.response_flags.as_ref().map(flags).unwrap_or_default(),
            route: short(&common.route_name),
            cluster: short(&common.upstream_cluster),
            attempts: common.upstream_request_attempt_count,
            transport_failure: short(&common.upstream_transport_failure_reason),
            termination: short(&common.connection_termination_details),
            addresses: [
                text(upstream),
                text(common.upstream_local_address.as_ref()),
                text(common.downstream_local_address.as_ref()),
                text(downstream),
            ],
            stream: short(&common.stream_id),
            reason: reason(&common.custom_tags),
            ..Entry::default()
        }
    }

    /// Whose view it is: the cluster says so; where none was chosen, the client's address does (an application calls
    /// its own sidecar from the pod's address).
    fn reporter(&self, common: &AccessLogCommon) -> Reporter {
        if self.is_gateway || common.upstream_cluster.starts_with("outbound|") {
            return Reporter::Source;
        }
        if common.upstream_cluster.starts_with("inbound|") || common.upstream_cluster == "InboundPassthroughCluster" {
            return Reporter::Destination;
        }
        let (client, _) = host_port(connected(common));
        let own = client.is_none_or(|client| client.is_loopback() || Some(client) == self.local.address);
        if own { Reporter::Source } else { Reporter::Destination }
    }
}

/// Who has opened the connection. The remote address is whom X-Forwarded-For names, which behind a gateway is another.
fn connected(common: &AccessLogCommon) -> Option<&Address> {
    common.downstream_direct_remote_address.as_ref().or(common.downstream_remote_address.as_ref())
}

fn request(entry: &mut Entry, from: HttpRequestProperties) {
    entry.method = match RequestMethod::try_from(from.request_method) {
        Ok(RequestMethod::MethodUnspecified) | Err(_) => String::new(),
        Ok(method) => method.as_str_name().to_owned(),
    };
    entry.scheme = short(&from.scheme);
    entry.authority = short(&from.authority);
    entry.path = short(if from.original_path.is_empty() { &from.path } else { &from.original_path });
    entry.user_agent = short(&from.user_agent);
    entry.referer = short(&from.referer);
    entry.forwarded_for = short(&from.forwarded_for);
    entry.request_id = short(&from.request_id);
    entry.request_headers = headers(from.request_headers);
    entry.request_bytes = (from.request_body_bytes, from.request_headers_bytes.saturating_add(from.request_body_bytes));
}

fn response(entry: &mut Entry, from: HttpResponseProperties) {
    entry.code = from.response_code.map_or(0, |code| code.value);
    entry.details = short(&from.response_code_details);
    let trailer = from.response_trailers.get("grpc-status").or_else(|| from.response_headers.get("grpc-status"));
    entry.grpc_status = trailer.map(|status| short(status)).unwrap_or_default();
    entry.response_headers = headers(from.response_headers);
    entry.response_bytes =
        (from.response_body_bytes, from.response_headers_bytes.saturating_add(from.response_body_bytes));
}

fn headers(from: HashMap<String, String>) -> BTreeMap<String, String> {
    from.into_iter().take(MAX_HEADERS).map(|(name, value)| (short(&name), short(&value))).collect()
}

/// What our proxies add (D13).
fn reason(tags: &HashMap<String, String>) -> Reason {
    let tag = |name: &str| tags.get(name).map(|text| short(text)).unwrap_or_default();
    Reason {
        side: tag("ferromesh.side"),
        peer: tag("ferromesh.peer"),
        limit: tag("ferromesh.limit"),
        policy: tag("ferromesh.policy"),
        object: tag("ferromesh.object"),
        why: tag("ferromesh.why"),
    }
}

/// Peer metadata in filter state: a struct with the names of node metadata, or `k8s.…` baggage as text.
fn read_peer(peer: &mut Party, packed: &wkt::Any) {
    if packed.type_url.ends_with("/google.protobuf.Struct") {
        if let Ok(fields) = wkt::Struct::decode(&*packed.value) {
            read_metadata(peer, &fields.fields);
        }
        return;
    }
    let text = match packed.type_url.rsplit('/').next() {
        Some("google.protobuf.StringValue") => wkt::StringValue::decode(&*packed.value).map(|v| v.value).ok(),
        Some("google.protobuf.BytesValue") => {
            wkt::BytesValue::decode(&*packed.value).ok().and_then(|v| String::from_utf8(v.value).ok())
        }
        _ => None,
    };
    for (name, value) in text.iter().flat_map(|text| text.split(',')).filter_map(|pair| pair.split_once('=')) {
        let field = match name.trim() {
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.job.name" | "k8s.pod.name" | "k8s.workload.name" => {
                &mut peer.workload
            }
            "k8s.namespace.name" => &mut peer.namespace,
            "k8s.cluster.name" => &mut peer.cluster,
            "k8s.instance.name" => &mut peer.name,
            "service.name" => &mut peer.app,
            "service.version" => &mut peer.version,
            _ => continue,
        };
        *field = short(value.trim());
    }
}

/// Node metadata (`NAME`, `WORKLOAD_NAME` …) or what metadata exchange says of a peer (`workload`, `service` …).
fn read_metadata(party: &mut Party, fields: &HashMap<String, wkt::Value>) {
    let text = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| fields.get(*name).and_then(string));
        found.filter(|text| *text != UNKNOWN).map(short).unwrap_or_default()
    };
    party.name = text(["NAME", "name"]);
    party.namespace = text(["NAMESPACE", "namespace"]);
    party.workload = text(["WORKLOAD_NAME", "workload"]);
    party.cluster = text(["CLUSTER_ID", "cluster"]);
    party.owner = text(["OWNER", "owner"]);
    party.principal = text(["IDENTITY", "identity"]);
    party.app = text(["", "service"]);
    party.version = text(["", "revision"]);
    if let Some(wkt::value::Kind::StructValue(labels)) = fields.get("LABELS").and_then(|v| v.kind.as_ref()) {
        let labels = labels.fields.iter().take(MAX_HEADERS);
        party.labels = labels.filter_map(|(name, value)| Some((short(name), short(string(value)?)))).collect();
    }
}

fn string(value: &wkt::Value) -> Option<&str> {
    match value.kind.as_ref()? {
        wkt::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn uri_of(certificate: &CertificateProperties) -> String {
    let uri = certificate.subject_alt_name.iter().find_map(|name| match name.san.as_ref()? {
        San::Uri(uri) => Some(uri),
        San::Dns(_) => None,
    });
    uri.map(|uri| short(uri)).unwrap_or_default()
}

fn host_port(address: Option<&Address>) -> (Option<std::net::IpAddr>, u16) {
    let Some(address::Address::SocketAddress(socket)) = address.and_then(|a| a.address.as_ref()) else {
        return (None, 0);
    };
    let port = match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).unwrap_or_default(),
        _ => 0,
    };
    (socket.address.parse().ok(), port)
}

fn address_text(address: &Address) -> String {
    match address.address.as_ref() {
        Some(address::Address::SocketAddress(socket)) => {
            let (_, port) = host_port(Some(address));
            let host = short(&socket.address);
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        }
        Some(address::Address::Pipe(pipe)) => short(&pipe.path),
        Some(address::Address::EnvoyInternalAddress(internal)) => short(&format!("{internal:?}")),
        None => String::new(),
    }
}

fn host_without_port(authority: &str) -> String {
    authority
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(authority, |(host, _)| host)
        .to_owned()
}

fn short(text: &str) -> String {
    cut(text, MAX_TEXT_BYTES).to_owned()
}

fn span(duration: &wkt::Duration) -> Duration {
    let seconds = u64::try_from(duration.seconds).unwrap_or_default();
    Duration::new(seconds, u32::try_from(duration.nanos).unwrap_or_default().min(999_999_999))
}

fn time(at: &wkt::Timestamp) -> Duration {
    span(&wkt::Duration { seconds: at.seconds, nanos: at.nanos })
}

fn duration(common: &AccessLogCommon) -> Duration {
    common.duration.as_ref().or(common.time_to_last_downstream_tx_byte.as_ref()).map(span).unwrap_or_default()
}

/// Short names of the flags, in the order of the message's fields (`envoy.data.accesslog.v3.ResponseFlags`).
fn flags(from: &ResponseFlags) -> String {
    let named = [
        (from.failed_local_healthcheck, "LH"),
        (from.no_healthy_upstream, "UH"),
        (from.upstream_request_timeout, "UT"),
        (from.local_reset, "LR"),
        (from.upstream_remote_reset, "UR"),
        (from.upstream_connection_failure, "UF"),
        (from.upstream_connection_termination, "UC"),
        (from.upstream_overflow, "UO"),
        (from.no_route_found, "NR"),
        (from.delay_injected, "DI"),
        (from.fault_injected, "FI"),
        (from.rate_limited, "RL"),
        (from.unauthorized_details.is_some(), "UAEX"),
        (from.rate_limit_service_error, "RLSE"),
        (from.downstream_connection_termination, "DC"),
        (from.upstream_retry_limit_exceeded, "URX"),
        (from.stream_idle_timeout, "SI"),
        (from.invalid_envoy_request_headers, "IH"),
        (from.downstream_protocol_error, "DPE"),
        (from.upstream_max_stream_duration_reached, "UMSDR"),
        (from.response_from_cache_filter, "RFCF"),
        (from.no_filter_config_found, "NFCF"),
        (from.duration_timeout, "DT"),
        (from.upstream_protocol_error, "UPE"),
        (from.no_cluster_found, "NC"),
        (from.overload_manager, "OM"),
        (from.dns_resolution_failure, "DF"),
        (from.downstream_remote_reset, "DR"),
    ];
    let set: Vec<&str> = named.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    set.join(",")
}

#[cfg(test)]
mod tests;
