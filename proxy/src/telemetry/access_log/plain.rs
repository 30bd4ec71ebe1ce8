//! The operators without arguments, by what they are about: each is found out once, so that an entry costs one step.

use super::facts::LogFacts;
use super::operator::Precision;
use super::value::Show;
use crate::message::Known;
use crate::net::{CertFacts, TlsFacts};
use crate::outcome::Flags;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

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
        Protocol = "UPSTREAM_PROTOCOL",
        Cluster = "UPSTREAM_CLUSTER",
        ClusterRaw = "UPSTREAM_CLUSTER_RAW",
        TransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
        RequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        ConnectionId = "UPSTREAM_CONNECTION_ID",
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

    /// Shows its value for one entry, where it is known.
    #[inline]
    pub(super) fn show(self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        match self {
            Self::Stream(fact) => fact.show(facts, to),
            Self::Duration(fact) => {
                to.number(Precision::Millis.count(fact.elapsed(facts)?));
                Some(())
            }
            Self::Bytes(fact) => {
                to.number(fact.count(facts));
                Some(())
            }
            Self::Address(fact) => fact.show(facts, to),
            Self::Upstream(fact) => fact.show(facts, to),
            Self::Tls(fact) => fact.show(facts, to),
        }
    }
}

impl StreamFact {
    fn show(self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        match self {
            Self::Protocol => to.text(facts.protocol?.as_str().as_bytes()),
            Self::ResponseCode => to.number(u64::from(facts.status.unwrap_or(0))),
            Self::ResponseCodeDetails => to.text(facts.details?.as_bytes()),
            Self::ResponseFlags => to.text(&flags(facts, false)),
            Self::ResponseFlagsLong => to.text(&flags(facts, true)),
            Self::ConnectionTerminationDetails => to.text(facts.connection_termination?.as_bytes()),
            Self::ConnectionId => to.number(facts.peer?.id),
            Self::RequestedServerName => to.text(some(&facts.peer?.sni)?),
            Self::RouteName => to.text(some(facts.route_name?)?),
            Self::VirtualClusterName => to.text(some(facts.virtual_cluster?)?),
            Self::FilterChainName => to.text(some(&facts.peer?.filter_chain)?),
            Self::AccessLogType => to.text(facts.entry.name().as_bytes()),
            Self::UniqueId => to.text(uuid(facts.unique_id?).as_bytes()),
            Self::StreamId => match facts.request.and_then(|request| request.headers.get(Known::XRequestId)) {
                Some(id) => to.text(id),
                None => to.text(uuid(facts.unique_id?).as_bytes()),
            },
            Self::TraceId => to.text(&facts.trace?.trace_hex()),
            Self::GrpcStatusNumber => to.number(u64::from(facts.grpc_status()?)),
        }
        Some(())
    }
}

impl DurationFact {
    fn elapsed(self, facts: &LogFacts<'_>) -> Option<Duration> {
        let times = &facts.times;
        match self {
            Self::Duration => times.total,
            Self::RequestDuration => times.request_end,
            Self::RequestTxDuration => times.upstream_request_end,
            Self::ResponseDuration => times.upstream_response_start,
            Self::ResponseTxDuration => times.response_end?.checked_sub(times.upstream_response_start?),
        }
    }
}

impl BytesFact {
    fn count(self, facts: &LogFacts<'_>) -> u64 {
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
    fn show(self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        let ip = |address: SocketAddr| address.ip().to_string();
        let port = |address: SocketAddr| u64::from(address.port());
        let remote = || facts.upstream.host.and_then(|host| host.parse::<SocketAddr>().ok());
        match self {
            Self::DownstreamLocalAddress => to.address(facts.peer?.local),
            Self::DownstreamLocalAddressWithoutPort => to.text(ip(facts.peer?.local).as_bytes()),
            Self::DownstreamLocalPort => to.number(port(facts.peer?.local)),
            Self::DownstreamRemoteAddress => to.address(facts.peer?.remote),
            Self::DownstreamRemoteAddressWithoutPort => to.text(ip(facts.peer?.remote).as_bytes()),
            Self::DownstreamRemotePort => to.number(port(facts.peer?.remote)),
            Self::DownstreamDirectRemoteAddress => to.address(facts.peer?.direct_remote),
            Self::DownstreamDirectRemoteAddressWithoutPort => to.text(ip(facts.peer?.direct_remote).as_bytes()),
            Self::DownstreamDirectRemotePort => to.number(port(facts.peer?.direct_remote)),
            Self::UpstreamLocalAddress => to.address(facts.upstream.local?),
            Self::UpstreamLocalAddressWithoutPort => to.text(ip(facts.upstream.local?).as_bytes()),
            Self::UpstreamLocalPort => to.number(port(facts.upstream.local?)),
            Self::UpstreamHost | Self::UpstreamRemoteAddress => to.text(some(facts.upstream.host?)?),
            Self::UpstreamRemoteAddressWithoutPort => to.text(ip(remote()?).as_bytes()),
            Self::UpstreamRemotePort => to.number(port(remote()?)),
        }
        Some(())
    }
}

impl UpstreamFact {
    fn show(self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        let upstream = &facts.upstream;
        match self {
            Self::Protocol => to.text(upstream.protocol?.as_str().as_bytes()),
            Self::Cluster => to.text(some(upstream.cluster_alias.or(upstream.cluster)?)?),
            Self::ClusterRaw => to.text(some(upstream.cluster?)?),
            Self::TransportFailureReason => to.text(&spaceless(upstream.transport_failure?)?),
            Self::RequestAttemptCount => to.number(u64::from(upstream.attempts.unwrap_or(0))),
            Self::ConnectionId => to.number(upstream.connection_id?),
        }
        Some(())
    }
}

impl TlsFact {
    fn show(self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        let down = || facts.peer?.tls.as_ref();
        let (up_peer, up_local) = (|| peer(facts.upstream.tls), || local(facts.upstream.tls));
        match self {
            Self::DownstreamTlsVersion => to.text(some(down()?.version)?),
            Self::DownstreamTlsCipher => to.text(some(&down()?.cipher)?),
            // TLS 1.3 has no session id (RFC 8446 section 4.1.3), and this proxy resumes by tickets only
            Self::DownstreamTlsSessionId => return None,
            Self::DownstreamPeerUriSan => to.text(&list(&peer(down())?.uri_sans)?),
            Self::DownstreamPeerDnsSan => to.text(&list(&peer(down())?.dns_sans)?),
            Self::DownstreamPeerSubject => to.text(some(&peer(down())?.subject)?),
            Self::DownstreamPeerIssuer => to.text(some(&peer(down())?.issuer)?),
            Self::DownstreamPeerSerial => to.text(some(&peer(down())?.serial)?),
            Self::DownstreamPeerFingerprint1 => to.text(sha1(&peer(down())?.der).as_bytes()),
            Self::DownstreamPeerFingerprint256 => to.text(some(&peer(down())?.sha256)?),
            Self::DownstreamPeerCert => to.text(peer(down())?.url_encoded_pem().as_bytes()),
            Self::DownstreamLocalUriSan => to.text(&list(&local(down())?.uri_sans)?),
            Self::DownstreamLocalDnsSan => to.text(&list(&local(down())?.dns_sans)?),
            Self::DownstreamLocalSubject => to.text(some(&local(down())?.subject)?),
            Self::UpstreamTlsVersion => to.text(some(facts.upstream.tls?.version)?),
            Self::UpstreamTlsCipher => to.text(some(&facts.upstream.tls?.cipher)?),
            Self::UpstreamPeerUriSan => to.text(&list(&up_peer()?.uri_sans)?),
            Self::UpstreamPeerDnsSan => to.text(&list(&up_peer()?.dns_sans)?),
            Self::UpstreamPeerSubject => to.text(some(&up_peer()?.subject)?),
            Self::UpstreamPeerIssuer => to.text(some(&up_peer()?.issuer)?),
            Self::UpstreamPeerCert => to.text(up_peer()?.url_encoded_pem().as_bytes()),
            Self::UpstreamLocalUriSan => to.text(&list(&up_local()?.uri_sans)?),
            Self::UpstreamLocalDnsSan => to.text(&list(&up_local()?.dns_sans)?),
            Self::UpstreamLocalSubject => to.text(some(&up_local()?.subject)?),
        }
        Some(())
    }
}

/// Text that counts as unknown when it is empty.
fn some(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

/// Text in which Envoy writes `_` for white space, so that a log line still splits at spaces.
fn spaceless(text: &str) -> Option<Cow<'_, [u8]>> {
    match text.contains(char::is_whitespace) {
        true => Some(Cow::Owned(text.replace(char::is_whitespace, "_").into_bytes())),
        false => some(text).map(Cow::Borrowed),
    }
}

fn peer(tls: Option<&TlsFacts>) -> Option<&CertFacts> {
    tls?.peer.as_ref()
}

fn local(tls: Option<&TlsFacts>) -> Option<&CertFacts> {
    tls?.local.as_ref()
}

fn flags<'a>(facts: &LogFacts<'_>, long: bool) -> Cow<'a, [u8]> {
    if facts.flags == Flags::NONE {
        return Cow::Borrowed(b"-");
    }
    let mut out = Vec::with_capacity(8);
    if long {
        facts.flags.write_long(&mut out)
    } else {
        facts.flags.write_short(&mut out)
    }
    Cow::Owned(out)
}

fn list(names: &[Box<str>]) -> Option<Cow<'_, [u8]>> {
    match names {
        [] => None,
        [one] => Some(Cow::Borrowed(one.as_bytes())),
        many => Some(Cow::Owned(many.join(",").into_bytes())),
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
