//! Entries for Envoy's access log service (`envoy.access_loggers.{http,tcp}_grpc`) and for OTLP's logs.

use super::config::LogContext;
use super::facts::{Entry, LogFacts};
use super::reason::PARTS;
use super::tag::Tag;
use crate::message::{Headers, Known, Version};
use crate::net::{CertFacts, Service};
use crate::outcome::Flags;
use crate::refusal::{Refusal, Within};
use crate::telemetry::istio::Workload;
use crate::telemetry::outbox::{Destination, FLUSH_AFTER, FLUSH_AT, Outbox, Shape, field};
use prost::Message;
use proto::duration::{from_proto, to_proto};
use proto::envoy::core::{Address, SocketAddress, address, socket_address};
use proto::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use proto::envoy::log_entry::{
    AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties, ResponseFlags, TcpAccessLogEntry, TlsProperties, http_access_log_entry::HttpVersion,
    response_flags, tls_properties,
};
use proto::envoy::wkt::{Any, Duration as WrittenDuration, Struct, Timestamp, UInt32Value, Value, value::Kind};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A log that goes to a service.
#[derive(Debug, Clone)]
pub(super) struct GrpcLog {
    to: Arc<Destination>,
    tcp: bool,
    request_headers: Box<[Box<str>]>,
    response_headers: Box<[Box<str>]>,
    trailers: Box<[Box<str>]>,
    filter_state: Box<[Box<str>]>,
    tags: Box<[Tag]>,
}

impl GrpcLog {
    /// The log of requests.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub(super) fn http(written: &HttpGrpcAccessLogConfig, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let plain = Self::of(written.common_config.as_ref(), false, cx)?;
        Ok(Self {
            request_headers: names(&written.additional_request_headers_to_log),
            response_headers: names(&written.additional_response_headers_to_log),
            trailers: names(&written.additional_response_trailers_to_log),
            ..plain
        })
    }

    /// The log of TCP connections.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub(super) fn tcp(written: &TcpGrpcAccessLogConfig, cx: LogContext<'_>) -> Result<Self, Refusal> {
        Self::of(written.common_config.as_ref(), true, cx)
    }

    fn of(written: Option<&CommonGrpcAccessLogConfig>, tcp: bool, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let written = written.ok_or_else(|| Refusal::new("common_config", "is missing"))?;
        if written.log_name.is_empty() {
            return Err(Refusal::new("common_config.log_name", "is empty: the service tells logs apart by it"));
        }
        let shape = Shape::AccessLog { name: written.log_name.as_str().into(), tcp };
        let tags = written.custom_tags.iter().enumerate();
        Ok(Self {
            to: destination(written, shape).within("common_config")?,
            tcp,
            request_headers: Box::default(),
            response_headers: Box::default(),
            trailers: Box::default(),
            filter_state: names(&written.filter_state_objects_to_log),
            tags: tags
                .map(|(i, tag)| Tag::parse(tag, cx).within(&format!("common_config.custom_tags[{i}]")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Puts an entry on its way.
    pub(super) fn log(&self, facts: &LogFacts<'_>, outbox: &Outbox) {
        outbox.put(&self.to, |out| {
            let entry = if self.tcp {
                self.of_connection(facts).encode_to_vec()
            } else {
                self.of_request(facts).encode_to_vec()
            };
            field(1, &entry, out);
        });
    }

    fn of_connection(&self, facts: &LogFacts<'_>) -> TcpAccessLogEntry {
        TcpAccessLogEntry {
            common_properties: Some(self.common(facts)),
            connection_properties: Some(ConnectionProperties {
                received_bytes: facts.bytes.received,
                sent_bytes: facts.bytes.sent,
            }),
        }
    }

    fn of_request(&self, facts: &LogFacts<'_>) -> HttpAccessLogEntry {
        let version = match facts.protocol {
            None => HttpVersion::ProtocolUnspecified,
            Some(Version::H10) => HttpVersion::Http10,
            Some(Version::H11) => HttpVersion::Http11,
            Some(Version::H2) => HttpVersion::Http2,
        };
        HttpAccessLogEntry {
            common_properties: Some(self.common(facts)),
            protocol_version: version.into(),
            request: facts.request.map(|head| {
                let of = |known| head.headers.get(known).map(text).unwrap_or_default();
                HttpRequestProperties {
                    request_method: method(head.method()),
                    scheme: text(head.scheme()),
                    authority: text(head.authority()),
                    port: None,
                    path: text(head.path()),
                    user_agent: of(Known::UserAgent),
                    referer: of(Known::Referer),
                    forwarded_for: of(Known::XForwardedFor),
                    request_id: of(Known::XRequestId),
                    original_path: of(Known::XEnvoyOriginalPath),
                    request_headers_bytes: facts.bytes.downstream_header_received,
                    request_body_bytes: facts.bytes.received,
                    request_headers: chosen(&self.request_headers, &head.headers),
                    upstream_header_bytes_sent: facts.bytes.upstream_header_sent,
                    downstream_header_bytes_received: facts.bytes.downstream_header_received,
                }
            }),
            response: Some(HttpResponseProperties {
                response_code: facts.status.map(|status| UInt32Value { value: status.into() }),
                response_headers_bytes: facts.bytes.downstream_header_sent,
                response_body_bytes: facts.bytes.sent,
                response_headers: facts
                    .response
                    .map(|head| chosen(&self.response_headers, &head.headers))
                    .unwrap_or_default(),
                response_trailers: facts.trailers.map(|trailers| chosen(&self.trailers, trailers)).unwrap_or_default(),
                response_code_details: facts.details.unwrap_or_default().to_owned(),
                upstream_header_bytes_received: facts.bytes.upstream_header_received,
                downstream_header_bytes_sent: facts.bytes.downstream_header_sent,
            }),
        }
    }

    fn common(&self, facts: &LogFacts<'_>) -> AccessLogCommon {
        let times = &facts.times;
        let upstream = &facts.upstream;
        AccessLogCommon {
            sample_rate: 1.0,
            downstream_remote_address: facts.peer.map(|peer| socket(peer.remote)),
            downstream_local_address: facts.peer.map(|peer| socket(peer.local)),
            downstream_direct_remote_address: facts.peer.map(|peer| socket(peer.direct_remote)),
            tls_properties: tls(facts),
            start_time: facts.start.map(timestamp),
            time_to_last_rx_byte: times.request_end.map(span),
            time_to_first_upstream_tx_byte: times.upstream_request_start.map(span),
            time_to_last_upstream_tx_byte: times.upstream_request_end.map(span),
            time_to_first_upstream_rx_byte: times.upstream_response_start.map(span),
            time_to_last_upstream_rx_byte: times.upstream_response_end.map(span),
            time_to_first_downstream_tx_byte: times.response_start.map(span),
            time_to_last_downstream_tx_byte: times.response_end.map(span),
            upstream_remote_address: upstream.host.and_then(|host| host.parse().ok()).map(socket),
            upstream_local_address: upstream.local.map(socket),
            upstream_cluster: upstream.cluster.unwrap_or_default().to_owned(),
            response_flags: Some(flags(facts.flags)),
            upstream_transport_failure_reason: upstream.transport_failure.unwrap_or_default().to_owned(),
            route_name: facts.route_name.unwrap_or_default().to_owned(),
            filter_state_objects: self.filter_state(facts),
            custom_tags: self.tags(facts),
            duration: times.total.map(span),
            upstream_request_attempt_count: upstream.attempts.unwrap_or_default(),
            connection_termination_details: facts.connection_termination.unwrap_or_default().to_owned(),
            downstream_wire_bytes_sent: facts.bytes.downstream_wire_sent,
            downstream_wire_bytes_received: facts.bytes.downstream_wire_received,
            upstream_wire_bytes_sent: facts.bytes.upstream_wire_sent,
            upstream_wire_bytes_received: facts.bytes.upstream_wire_received,
            access_log_type: entry_type(facts.entry).into(),
            ..AccessLogCommon::default()
        }
    }

    /// Configured tags, and why a stream failed (D13).
    fn tags(&self, facts: &LogFacts<'_>) -> HashMap<String, String> {
        let configured = self.tags.iter().filter_map(|tag| Some((tag.name().to_owned(), tag.value(facts)?)));
        let reasons =
            PARTS.iter().filter_map(|(name, part)| Some((format!("ferromesh.{name}"), part.of(facts)?.into_owned())));
        configured.chain(reasons).collect()
    }

    /// Filter state by key; the two peers are known from metadata exchange.
    fn filter_state(&self, facts: &LogFacts<'_>) -> HashMap<String, Any> {
        let found = self.filter_state.iter().filter_map(|key| {
            let peer = match &**key {
                "downstream_peer" => facts.downstream_workload,
                "upstream_peer" => facts.upstream_workload,
                _ => None,
            };
            let packed = match peer {
                Some(workload) => proto::any::pack(&peer_struct(workload)),
                None => {
                    let text = facts.filter_state?.get(key)?;
                    proto::any::pack(&proto::envoy::wkt::StringValue { value: text.to_string() })
                }
            };
            Some((key.to_string(), packed))
        });
        found.collect()
    }
}

/// Where entries of a log with these settings go.
fn destination(written: &CommonGrpcAccessLogConfig, shape: Shape) -> Result<Arc<Destination>, Refusal> {
    Ok(Arc::new(Destination {
        service: Service::parse(written.grpc_service.as_ref())?,
        shape,
        flush_after: written.buffer_flush_interval.as_ref().map_or(FLUSH_AFTER, from_proto),
        flush_at: written.buffer_size_bytes.as_ref().map_or(FLUSH_AT, |bytes| bytes.value as usize),
    }))
}

/// A workload in the words of Istio's metadata exchange.
fn peer_struct(workload: &Workload) -> Struct {
    let pairs = [
        ("workload", &workload.name),
        ("namespace", &workload.namespace),
        ("identity", &workload.principal),
        ("app", &workload.app),
        ("version", &workload.version),
        ("service", &workload.canonical_service),
        ("revision", &workload.canonical_revision),
        ("cluster", &workload.cluster),
    ];
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Struct { fields: pairs.into_iter().map(|(key, text)| (key.to_owned(), value(text))).collect() }
}

fn names(written: &[String]) -> Box<[Box<str>]> {
    written.iter().map(|name| name.to_ascii_lowercase().into()).collect()
}

fn chosen(names: &[Box<str>], headers: &Headers) -> HashMap<String, String> {
    let found = names.iter().filter_map(|name| Some((name.to_string(), text(&headers.joined(name.as_bytes())?))));
    found.collect()
}

fn tls(facts: &LogFacts<'_>) -> Option<TlsProperties> {
    let peer = facts.peer?;
    let session = peer.tls.as_ref()?;
    let version = match session.version {
        "TLSv1.2" => tls_properties::TlsVersion::TlSv12,
        "TLSv1.3" => tls_properties::TlsVersion::TlSv13,
        _ => tls_properties::TlsVersion::VersionUnspecified,
    };
    let certificate = |cert: &CertFacts| {
        let uris = cert
            .uri_sans
            .iter()
            .map(|uri| tls_properties::certificate_properties::subject_alt_name::San::Uri(uri.to_string()));
        let names = cert
            .dns_sans
            .iter()
            .map(|name| tls_properties::certificate_properties::subject_alt_name::San::Dns(name.to_string()));
        tls_properties::CertificateProperties {
            subject_alt_name: uris
                .chain(names)
                .map(|san| tls_properties::certificate_properties::SubjectAltName { san: Some(san) })
                .collect(),
            subject: cert.subject.to_string(),
            issuer: cert.issuer.to_string(),
        }
    };
    Some(TlsProperties {
        tls_version: version.into(),
        tls_sni_hostname: peer.sni.to_string(),
        local_certificate_properties: session.local.as_ref().map(certificate),
        peer_certificate_properties: session.peer.as_ref().map(certificate),
        ..TlsProperties::default()
    })
}

fn flags(set: Flags) -> ResponseFlags {
    let has = |flag| set.intersects(flag);
    ResponseFlags {
        no_healthy_upstream: has(Flags::UH),
        upstream_request_timeout: has(Flags::UT),
        local_reset: has(Flags::LR),
        upstream_remote_reset: has(Flags::UR),
        upstream_connection_failure: has(Flags::UF),
        upstream_connection_termination: has(Flags::UC),
        upstream_overflow: has(Flags::UO),
        no_route_found: has(Flags::NR),
        delay_injected: has(Flags::DI),
        fault_injected: has(Flags::FI),
        rate_limited: has(Flags::RL),
        unauthorized_details: has(Flags::UAEX).then(|| response_flags::Unauthorized {
            reason: response_flags::unauthorized::Reason::ExternalService.into(),
        }),
        rate_limit_service_error: has(Flags::RLSE),
        downstream_connection_termination: has(Flags::DC),
        upstream_retry_limit_exceeded: has(Flags::URX),
        stream_idle_timeout: has(Flags::SI),
        downstream_protocol_error: has(Flags::DPE),
        duration_timeout: has(Flags::DT),
        upstream_protocol_error: has(Flags::UPE),
        no_cluster_found: has(Flags::NC),
        overload_manager: has(Flags::OM),
        dns_resolution_failure: has(Flags::DF),
        ..ResponseFlags::default()
    }
}

fn entry_type(entry: Entry) -> AccessLogType {
    AccessLogType::from_str_name(entry.name()).unwrap_or_default()
}

fn method(name: &[u8]) -> i32 {
    use proto::envoy::core::RequestMethod as M;
    let known = match name {
        b"GET" => M::Get,
        b"HEAD" => M::Head,
        b"POST" => M::Post,
        b"PUT" => M::Put,
        b"DELETE" => M::Delete,
        b"CONNECT" => M::Connect,
        b"OPTIONS" => M::Options,
        b"TRACE" => M::Trace,
        b"PATCH" => M::Patch,
        _ => M::MethodUnspecified,
    };
    known.into()
}

fn text(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

fn span(time: Duration) -> WrittenDuration {
    to_proto(time)
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos().cast_signed() }
}

fn socket(at: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: at.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(at.port().into())),
            ..SocketAddress::default()
        })),
    }
}
