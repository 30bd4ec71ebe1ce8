//! The operators without arguments, by what they are about: each is found out once, so that an entry costs one step.

use super::facts::LogFacts;
use super::operator::Precision;
use super::value::Value;
use crate::message::Known;
use crate::net::{CertFacts, TlsFacts};
use base64::Engine;
use std::borrow::Cow;
use std::net::SocketAddr;

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub(super) enum $name { $($variant,)* }

            impl $name {
                fn of(name: &str) -> Option<Self> {
                    match name {
                        $($text => Some(Self::$variant),)*
                        _ => None,
                    }
                }
            }
        )*
    };
}

operators! {
    /// The stream as a whole.
    StreamFact {
        Protocol = "PROTOCOL",
        ResponseCode = "RESPONSE_CODE",
        ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
        ResponseFlags = "RESPONSE_FLAGS",
        ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
        ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
        ConnectionId = "CONNECTION_ID",
        RequestedServerName = "REQUESTED_SERVER_NAME",
        RouteName = "ROUTE_NAME",
        VirtualClusterName = "VIRTUAL_CLUSTER_NAME",
        FilterChainName = "FILTER_CHAIN_NAME",
        AccessLogType = "ACCESS_LOG_TYPE",
        UniqueId = "UNIQUE_ID",
        StreamId = "STREAM_ID",
        TraceId = "TRACE_ID",
        GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    }
    /// How long something took, in milliseconds.
    DurationFact {
        Duration = "DURATION",
        RequestDuration = "REQUEST_DURATION",
        RequestTxDuration = "REQUEST_TX_DURATION",
        ResponseDuration = "RESPONSE_DURATION",
        ResponseTxDuration = "RESPONSE_TX_DURATION",
    }
    /// How many bytes there were.
    BytesFact {
        BytesReceived = "BYTES_RECEIVED",
        BytesSent = "BYTES_SENT",
        DownstreamWireBytesReceived = "DOWNSTREAM_WIRE_BYTES_RECEIVED",
        DownstreamWireBytesSent = "DOWNSTREAM_WIRE_BYTES_SENT",
        DownstreamHeaderBytesReceived = "DOWNSTREAM_HEADER_BYTES_RECEIVED",
        DownstreamHeaderBytesSent = "DOWNSTREAM_HEADER_BYTES_SENT",
        UpstreamWireBytesReceived = "UPSTREAM_WIRE_BYTES_RECEIVED",
        UpstreamWireBytesSent = "UPSTREAM_WIRE_BYTES_SENT",
        UpstreamHeaderBytesReceived = "UPSTREAM_HEADER_BYTES_RECEIVED",
        UpstreamHeaderBytesSent = "UPSTREAM_HEADER_BYTES_SENT",
    }
    /// An address, or a part of one.
    AddressFact {
        UpstreamHost = "UPSTREAM_HOST",
        UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
        UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
        UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
        UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
        DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
        DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
        DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
        DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
        DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    }
    /// The upstream side.
    UpstreamFact {
        UpstreamProtocol = "UPSTREAM_PROTOCOL",
        UpstreamCluster = "UPSTREAM_CLUSTER",
        UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
        UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
        UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        UpstreamConnectionId = "UPSTREAM_CONNECTION_ID",
    }
    /// A TLS session or its certificates.
    TlsFact {
        UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
        UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
        UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN",
        UpstreamPeerDnsSan = "UPSTREAM_PEER_DNS_SAN",
        UpstreamPeerSubject = "UPSTREAM_PEER_SUBJECT",
        UpstreamPeerIssuer = "UPSTREAM_PEER_ISSUER",
        UpstreamPeerCert = "UPSTREAM_PEER_CERT",
        UpstreamLocalUriSan = "UPSTREAM_LOCAL_URI_SAN",
        UpstreamLocalDnsSan = "UPSTREAM_LOCAL_DNS_SAN",
        UpstreamLocalSubject = "UPSTREAM_LOCAL_SUBJECT",
        DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
        DownstreamPeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
        DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
        DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER",
        DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL",
        DownstreamPeerFingerprint1 = "DOWNSTREAM_PEER_FINGERPRINT_1",
        DownstreamPeerFingerprint256 = "DOWNSTREAM_PEER_FINGERPRINT_256",
        DownstreamPeerCert = "DOWNSTREAM_PEER_CERT",
        DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
        DownstreamLocalDnsSan = "DOWNSTREAM_LOCAL_DNS_SAN",
        DownstreamLocalSubject = "DOWNSTREAM_LOCAL_SUBJECT",
        DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
        DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
        DownstreamTlsSessionId = "DOWNSTREAM_TLS_SESSION_ID",
    }
}

/// An operator without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Stream(StreamFact),
    Duration(DurationFact),
    Bytes(BytesFact),
    Address(AddressFact),
    Upstream(UpstreamFact),
    Tls(TlsFact),
}

impl Plain {
    /// The operator of a name.
    pub(super) fn of(name: &str) -> Option<Self> {
        StreamFact::of(name)
            .map(Self::Stream)
            .or_else(|| DurationFact::of(name).map(Self::Duration))
            .or_else(|| BytesFact::of(name).map(Self::Bytes))
            .or_else(|| AddressFact::of(name).map(Self::Address))
            .or_else(|| UpstreamFact::of(name).map(Self::Upstream))
            .or_else(|| TlsFact::of(name).map(Self::Tls))
    }

    /// Its value for one entry.
    #[inline]
    pub(super) fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        match self {
            Self::Stream(fact) => fact.value(facts),
            Self::Duration(fact) => fact.value(facts),
            Self::Bytes(fact) => Some(Value::Number(fact.value(facts))),
            Self::Address(fact) => fact.value(facts),
            Self::Upstream(fact) => fact.value(facts),
            Self::Tls(fact) => fact.value(facts),
        }
    }
}

impl StreamFact {
    fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        Some(match self {
            Self::Protocol => Value::text(facts.protocol?.as_str()),
            Self::ResponseCode => Value::Number(u64::from(facts.status.unwrap_or(0))),
            Self::ResponseCodeDetails => Value::text(facts.details?),
            Self::ResponseFlags => flags(facts, false),
            Self::ResponseFlagsLong => flags(facts, true),
            Self::ConnectionTerminationDetails => Value::text(facts.connection_termination?),
            Self::ConnectionId => Value::Number(facts.peer?.id),
            Self::RequestedServerName => Value::nonempty(&facts.peer?.sni),
            Self::RouteName => Value::nonempty(facts.route_name?),
            Self::VirtualClusterName => Value::nonempty(facts.virtual_cluster?),
            Self::FilterChainName => Value::nonempty(&facts.peer?.filter_chain),
            Self::AccessLogType => Value::text(facts.entry.name()),
            Self::UniqueId => Value::text(uuid(facts.unique_id?)),
            Self::StreamId => match facts.request.and_then(|request| request.headers.get(Known::XRequestId)) {
                Some(id) => Value::Text(Cow::Borrowed(id)),
                None => Value::text(uuid(facts.unique_id?)),
            },
            Self::TraceId => Value::nonempty(facts.trace_id?),
            Self::GrpcStatusNumber => Value::Number(u64::from(facts.grpc_status()?)),
        })
    }
}

impl DurationFact {
    fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let times = &facts.times;
        let elapsed = match self {
            Self::Duration => times.total?,
            Self::RequestDuration => times.request_end?,
            Self::RequestTxDuration => times.upstream_request_end?,
            Self::ResponseDuration => times.upstream_response_start?,
            Self::ResponseTxDuration => times.response_end?.checked_sub(times.upstream_response_start?)?,
        };
        Some(Value::Number(Precision::Millis.count(elapsed)))
    }
}

impl BytesFact {
    fn value(self, facts: &LogFacts<'_>) -> u64 {
        let bytes = &facts.bytes;
        match self {
            Self::BytesReceived => bytes.received,
            Self::BytesSent => bytes.sent,
            Self::DownstreamWireBytesReceived => bytes.downstream_wire_received,
            Self::DownstreamWireBytesSent => bytes.downstream_wire_sent,
            Self::DownstreamHeaderBytesReceived => bytes.downstream_header_received,
            Self::DownstreamHeaderBytesSent => bytes.downstream_header_sent,
            Self::UpstreamWireBytesReceived => bytes.upstream_wire_received,
            Self::UpstreamWireBytesSent => bytes.upstream_wire_sent,
            Self::UpstreamHeaderBytesReceived => bytes.upstream_header_received,
            Self::UpstreamHeaderBytesSent => bytes.upstream_header_sent,
        }
    }
}

impl AddressFact {
    fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let ip = |address: SocketAddr| Value::text(address.ip().to_string());
        let port = |address: SocketAddr| Value::Number(u64::from(address.port()));
        let remote = || facts.upstream.host.and_then(|host| host.parse::<SocketAddr>().ok());
        Some(match self {
            Self::DownstreamLocalAddress => Value::Address(facts.peer?.local),
            Self::DownstreamLocalAddressWithoutPort => ip(facts.peer?.local),
            Self::DownstreamLocalPort => port(facts.peer?.local),
            Self::DownstreamRemoteAddress => Value::Address(facts.peer?.remote),
            Self::DownstreamRemoteAddressWithoutPort => ip(facts.peer?.remote),
            Self::DownstreamRemotePort => port(facts.peer?.remote),
            Self::DownstreamDirectRemoteAddress => Value::Address(facts.peer?.direct_remote),
            Self::DownstreamDirectRemoteAddressWithoutPort => ip(facts.peer?.direct_remote),
            Self::DownstreamDirectRemotePort => port(facts.peer?.direct_remote),
            Self::UpstreamLocalAddress => Value::Address(facts.upstream.local?),
            Self::UpstreamLocalAddressWithoutPort => ip(facts.upstream.local?),
            Self::UpstreamLocalPort => port(facts.upstream.local?),
            Self::UpstreamHost | Self::UpstreamRemoteAddress => Value::nonempty(facts.upstream.host?),
            Self::UpstreamRemoteAddressWithoutPort => ip(remote()?),
            Self::UpstreamRemotePort => port(remote()?),
        })
    }
}

impl UpstreamFact {
    fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let upstream = &facts.upstream;
        Some(match self {
            Self::UpstreamProtocol => Value::text(upstream.protocol?.as_str()),
            Self::UpstreamCluster => Value::nonempty(upstream.cluster_alias.or(upstream.cluster)?),
            Self::UpstreamClusterRaw => Value::nonempty(upstream.cluster?),
            Self::UpstreamTransportFailureReason => Value::spaceless(upstream.transport_failure?),
            Self::UpstreamRequestAttemptCount => Value::Number(u64::from(upstream.attempts.unwrap_or(0))),
            Self::UpstreamConnectionId => Value::Number(upstream.connection_id?),
        })
    }
}

impl TlsFact {
    fn value<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let down = || facts.peer?.tls.as_ref();
        let (up_peer, up_local) = (|| peer(facts.upstream.tls), || local(facts.upstream.tls));
        Some(match self {
            Self::DownstreamTlsVersion => Value::nonempty(down()?.version),
            Self::DownstreamTlsCipher => Value::nonempty(&down()?.cipher),
            // TLS 1.3 has no session id (RFC 8446 section 4.1.3), and this proxy resumes by tickets only
            Self::DownstreamTlsSessionId => return None,
            Self::DownstreamPeerUriSan => list(&peer(down())?.uri_sans),
            Self::DownstreamPeerDnsSan => list(&peer(down())?.dns_sans),
            Self::DownstreamPeerSubject => Value::nonempty(&peer(down())?.subject),
            Self::DownstreamPeerIssuer => Value::nonempty(&peer(down())?.issuer),
            Self::DownstreamPeerSerial => Value::nonempty(&peer(down())?.serial),
            Self::DownstreamPeerFingerprint1 => Value::text(sha1(&peer(down())?.der)),
            Self::DownstreamPeerFingerprint256 => Value::nonempty(&peer(down())?.sha256),
            Self::DownstreamPeerCert => Value::text(url_encoded_pem(&peer(down())?.der)),
            Self::DownstreamLocalUriSan => list(&local(down())?.uri_sans),
            Self::DownstreamLocalDnsSan => list(&local(down())?.dns_sans),
            Self::DownstreamLocalSubject => Value::nonempty(&local(down())?.subject),
            Self::UpstreamTlsVersion => Value::nonempty(facts.upstream.tls?.version),
            Self::UpstreamTlsCipher => Value::nonempty(&facts.upstream.tls?.cipher),
            Self::UpstreamPeerUriSan => list(&up_peer()?.uri_sans),
            Self::UpstreamPeerDnsSan => list(&up_peer()?.dns_sans),
            Self::UpstreamPeerSubject => Value::nonempty(&up_peer()?.subject),
            Self::UpstreamPeerIssuer => Value::nonempty(&up_peer()?.issuer),
            Self::UpstreamPeerCert => Value::text(url_encoded_pem(&up_peer()?.der)),
            Self::UpstreamLocalUriSan => list(&up_local()?.uri_sans),
            Self::UpstreamLocalDnsSan => list(&up_local()?.dns_sans),
            Self::UpstreamLocalSubject => Value::nonempty(&up_local()?.subject),
        })
    }
}

fn peer(tls: Option<&TlsFacts>) -> Option<&CertFacts> {
    tls?.peer.as_ref()
}

fn local(tls: Option<&TlsFacts>) -> Option<&CertFacts> {
    tls?.local.as_ref()
}

fn flags<'a>(facts: &LogFacts<'a>, long: bool) -> Value<'a> {
    let mut out = Vec::with_capacity(8);
    if long {
        facts.flags.write_long(&mut out)
    } else {
        facts.flags.write_short(&mut out)
    }
    Value::Text(Cow::Owned(out))
}

fn list(names: &[Box<str>]) -> Value<'_> {
    match names {
        [] => Value::Absent,
        [one] => Value::text(&**one),
        many => Value::text(many.join(",")),
    }
}

fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn sha1(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn url_encoded_pem(der: &[u8]) -> String {
    let base64 = base64::prelude::BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    percent_encoding::utf8_percent_encode(&pem, percent_encoding::NON_ALPHANUMERIC).to_string()
}
