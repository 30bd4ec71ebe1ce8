//! OTLP log records as [`Entry`]: Envoy's OpenTelemetry access logger with Istio's attribute names (AL-2).

use super::entry::{Entry, Kind, MAX_TEXT_BYTES, Party, host_of_cluster};
use super::point::{cut, text};
use super::proof::{Caller, Forged, correct_entry};
use super::traffic::Reporter;
use crate::workload::Table;
use proto::otlp::common::KeyValue;
use proto::otlp::logs::{LogRecord, ResourceLogs};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Entries of a message; records that are no access log are left out and counted in the second value.
///
/// # Errors
/// Where the sender is not who it says it is.
pub fn take(resources: &[ResourceLogs], caller: Caller<'_>, table: &Table) -> Result<(Vec<Entry>, usize), Forged> {
    let (mut entries, mut other) = (Vec::new(), 0);
    for resource in resources {
        let attributes = resource.resource.as_ref().map(|r| &r.attributes[..]).unwrap_or_default();
        let node = value(attributes, "node_name").or_else(|| value(attributes, "service.instance.id"));
        caller.is(node.as_deref().unwrap_or_default())?;
        for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            match entry(record, node.as_deref().unwrap_or_default(), table) {
                Some(mut entry) => {
                    caller.id.iter().for_each(|id| correct_entry(&mut entry, id));
                    entries.push(entry);
                }
                None => other += 1,
            }
        }
    }
    Ok((entries, other))
}

fn entry(record: &LogRecord, node: &str, table: &Table) -> Option<Entry> {
    let of = |name: &str| value(&record.attributes, name).filter(|text| text != "-").unwrap_or_default();
    let code = of("response_code").parse().ok()?;
    let cluster = of("upstream_cluster");
    let reporter = if cluster.starts_with("inbound|") { Reporter::Destination } else { Reporter::Source };
    let (source, destination) = (party(&of("downstream_remote_address"), table), party(&of("upstream_host"), table));
    let number = |name: &str| of(name).parse::<u64>().unwrap_or_default();
    let sent = number("bytes_sent");
    let received = number("bytes_received");
    let method = of("method");
    Some(Entry {
        kind: if method.is_empty() { Kind::TcpEnd } else { Kind::Http },
        reporter,
        node: cut(node, MAX_TEXT_BYTES).to_owned(),
        start: Duration::from_nanos(record.time_unix_nano),
        duration: Duration::from_millis(number("duration")),
        source,
        destination,
        service: host_of_cluster(&cluster).unwrap_or_default().to_owned(),
        server_name: of("requested_server_name"),
        protocol: protocol(&of("protocol")),
        method,
        authority: of("authority"),
        path: of("path"),
        user_agent: of("user_agent"),
        forwarded_for: of("x_forwarded_for"),
        request_id: of("request_id"),
        request_bytes: (received, received),
        code,
        details: of("response_code_details"),
        response_bytes: (sent, sent),
        upstream_time: of("upstream_service_time").parse().ok().map(Duration::from_millis),
        flags: of("response_flags"),
        route: of("route_name"),
        cluster,
        transport_failure: of("upstream_transport_failure_reason"),
        termination: of("connection_termination_details"),
        addresses: [
            of("upstream_host"),
            of("upstream_local_address"),
            of("downstream_local_address"),
            of("downstream_remote_address"),
        ],
        ..Entry::default()
    })
}

fn party(address: &str, table: &Table) -> Party {
    let mut party = Party::default();
    let socket = address.parse::<SocketAddr>().ok();
    party.address = socket.map(|socket| socket.ip()).or_else(|| address.parse::<IpAddr>().ok());
    party.port = socket.map_or(0, |socket| socket.port());
    if let Some(known) = party.address.and_then(|address| table.by_address(address)) {
        party.join(known);
    }
    party
}

fn protocol(text: &str) -> &'static str {
    ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"].into_iter().find(|known| *known == text).unwrap_or_default()
}

fn value(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(cut(&text(found.value.as_ref())?, MAX_TEXT_BYTES).to_owned())
}
