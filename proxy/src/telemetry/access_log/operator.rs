//! The command operators of Envoy's access logs (`%NAME(arguments):length%`), parsed once.

use super::facts::{LogFacts, Metadata, Times};
use super::time::TimeFormat;
use super::value::Value;
use crate::bootstrap::Environment;
use crate::message::{Headers, Known, RequestHead};
use crate::net::{CertFacts, TlsFacts};
use base64::Engine;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

/// An operator with its arguments.
#[derive(Debug, Clone)]
pub(super) enum Operator {
    /// Text that is the same for every entry.
    Fixed(Box<[u8]>),
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    Request(HeaderChoice),
    RequestWithoutQuery(HeaderChoice),
    Response(HeaderChoice),
    Trailer(HeaderChoice),
    Between(Point, Point, Precision),
    GrpcStatus(GrpcForm),
    Certificate(Side, CertificateTime, TimeFormat),
    Metadata(MetadataSource, Box<str>, Vec<Box<str>>),
    FilterState(Box<str>),
    Plain(Plain),
}

/// A header, and another one for when that is missing.
#[derive(Debug, Clone)]
pub(super) struct HeaderChoice {
    main: HeaderName,
    other: Option<HeaderName>,
}

/// What a name stands for, found out once.
#[derive(Debug, Clone)]
enum HeaderName {
    Method,
    Path,
    Authority,
    Scheme,
    Protocol,
    Known(Known),
    Other(Box<[u8]>),
}

/// A point in the life of a stream (`%COMMON_DURATION%`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Point {
    DownstreamReceiveStart,
    DownstreamReceiveEnd,
    UpstreamConnectStart,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    UpstreamSendStart,
    UpstreamSendEnd,
    UpstreamReceiveStart,
    UpstreamReceiveEnd,
    DownstreamSendStart,
    DownstreamSendEnd,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Precision {
    Millis,
    Micros,
    Nanos,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// Whose certificate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    DownstreamPeer,
    UpstreamPeer,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum CertificateTime {
    Start,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum MetadataSource {
    Dynamic,
    Cluster,
    Endpoint,
}

macro_rules! plain {
    ($($variant:ident = $name:literal,)*) => {
        /// Operators without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Plain { $($variant,)* }

        impl Plain {
            const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

plain! {
    Protocol = "PROTOCOL",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    ResponseCode = "RESPONSE_CODE",
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    ResponseFlags = "RESPONSE_FLAGS",
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
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
    Duration = "DURATION",
    RequestDuration = "REQUEST_DURATION",
    RequestTxDuration = "REQUEST_TX_DURATION",
    ResponseDuration = "RESPONSE_DURATION",
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    UpstreamConnectionId = "UPSTREAM_CONNECTION_ID",
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
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
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

impl Operator {
    /// Reads what stands between the percent signs, without the length.
    pub(super) fn parse(name: &str, arguments: Option<&str>, environment: &Environment) -> Result<Self, String> {
        let needed = || {
            arguments
                .filter(|text| !text.is_empty())
                .ok_or_else(|| format!("%{name}% needs an argument, as %{name}(X)%"))
        };
        let time = |default: &str| {
            let text = arguments.unwrap_or(default);
            TimeFormat::parse(if text.is_empty() { default } else { text }, false)
        };
        let certificate = |side, when| Ok(Self::Certificate(side, when, time("%b %e %H:%M:%S %Y GMT")?));
        match name {
            "START_TIME" => Ok(Self::StartTime(time("")?)),
            "START_TIME_LOCAL" => Ok(Self::StartTime(TimeFormat::parse(needed()?, true)?)),
            "EMIT_TIME" => Ok(Self::EmitTime(time("")?)),
            "REQ" => Ok(Self::Request(HeaderChoice::parse(needed()?))),
            "REQ_WITHOUT_QUERY" => Ok(Self::RequestWithoutQuery(HeaderChoice::parse(needed()?))),
            "RESP" => Ok(Self::Response(HeaderChoice::parse(needed()?))),
            "TRAILER" => Ok(Self::Trailer(HeaderChoice::parse(needed()?))),
            "COMMON_DURATION" => between(needed()?),
            "GRPC_STATUS" => Ok(Self::GrpcStatus(grpc_form(arguments)?)),
            "DOWNSTREAM_PEER_CERT_V_START" => certificate(Side::DownstreamPeer, CertificateTime::Start),
            "DOWNSTREAM_PEER_CERT_V_END" => certificate(Side::DownstreamPeer, CertificateTime::End),
            "UPSTREAM_PEER_CERT_V_START" => certificate(Side::UpstreamPeer, CertificateTime::Start),
            "UPSTREAM_PEER_CERT_V_END" => certificate(Side::UpstreamPeer, CertificateTime::End),
            "DYNAMIC_METADATA" => Ok(metadata(MetadataSource::Dynamic, needed()?)),
            "CLUSTER_METADATA" => Ok(metadata(MetadataSource::Cluster, needed()?)),
            "UPSTREAM_METADATA" => Ok(metadata(MetadataSource::Endpoint, needed()?)),
            "METADATA" => metadata_of_kind(needed()?),
            "FILTER_STATE" => filter_state(needed()?),
            "ENVIRONMENT" => Ok(Self::Fixed(environment.get(needed()?).unwrap_or("-").as_bytes().into())),
            "HOSTNAME" => Ok(Self::Fixed(rustix::system::uname().nodename().to_bytes().into())),
            "UPSTREAM_FILTER_STATE"
            | "CEL"
            | "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256"
            | "TLS_JA3_FINGERPRINT"
            | "TLS_JA4_FINGERPRINT" => Err(format!("not supported yet: %{name}%")),
            _ => match Plain::ALL.iter().find(|(known, _)| *known == name) {
                Some((_, plain)) if arguments.is_none() => Ok(Self::Plain(*plain)),
                Some(_) => Err(format!("%{name}% takes no argument")),
                None => Err(format!("unknown operator %{name}%: a percent sign that is text is written %%")),
            },
        }
    }

    /// Its value for one entry.
    pub(super) fn value<'a>(&'a self, facts: &LogFacts<'a>) -> Value<'a> {
        self.try_value(facts).unwrap_or(Value::Absent)
    }

    fn try_value<'a>(&'a self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        Some(match self {
            Self::Fixed(text) => Value::Text(Cow::Borrowed(text)),
            Self::StartTime(format) => Value::Time(facts.start?, format),
            Self::EmitTime(format) => Value::Time(facts.start? + facts.times.total?, format),
            Self::Request(choice) => Value::Text(choice.of_request(facts.request?)?),
            Self::RequestWithoutQuery(choice) => Value::Text(without_query(choice.of_request(facts.request?)?)),
            Self::Response(choice) => {
                let response = facts.response?;
                if matches!(&choice.main, HeaderName::Other(name) if **name == *b":status") {
                    return Some(Value::Number(u64::from(response.status)));
                }
                Value::Text(choice.of_headers(&response.headers)?)
            }
            Self::Trailer(choice) => Value::Text(choice.of_headers(facts.trailers?)?),
            Self::Between(from, to, precision) => {
                let elapsed = to.of(&facts.times)?.checked_sub(from.of(&facts.times)?)?;
                Value::Number(precision.count(elapsed))
            }
            Self::GrpcStatus(form) => form.show(facts.grpc_status()?),
            Self::Certificate(side, when, format) => {
                let certificate = match side {
                    Side::DownstreamPeer => facts.peer_certificate()?,
                    Side::UpstreamPeer => facts.upstream.tls?.peer.as_ref()?,
                };
                let seconds = match when {
                    CertificateTime::Start => certificate.not_before,
                    CertificateTime::End => certificate.not_after,
                };
                Value::Time(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?), format)
            }
            Self::Metadata(source, namespace, path) => {
                let metadata: &Metadata = match source {
                    MetadataSource::Dynamic => facts.metadata?,
                    MetadataSource::Cluster => facts.upstream.cluster_metadata?,
                    MetadataSource::Endpoint => facts.upstream.host_metadata?,
                };
                let root = metadata.get(namespace)?;
                Value::Json(Cow::Borrowed(path.iter().try_fold(root, |value, key| value.get(&**key))?))
            }
            Self::FilterState(key) => Value::text(&**facts.filter_state?.get(key)?),
            Self::Plain(plain) => return plain.value(facts),
        })
    }
}

impl Plain {
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
            _ => {
                return self
                    .duration(facts)
                    .or_else(|| self.bytes(facts))
                    .or_else(|| self.address(facts))
                    .or_else(|| self.upstream(facts))
                    .or_else(|| self.certificate(facts));
            }
        })
    }

    fn duration<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let times = &facts.times;
        let elapsed = match self {
            Self::Duration => times.total?,
            Self::RequestDuration => times.request_end?,
            Self::RequestTxDuration => times.upstream_request_end?,
            Self::ResponseDuration => times.upstream_response_start?,
            Self::ResponseTxDuration => times.response_end?.checked_sub(times.upstream_response_start?)?,
            _ => return None,
        };
        Some(Value::Number(Precision::Millis.count(elapsed)))
    }

    fn bytes<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let bytes = &facts.bytes;
        Some(Value::Number(match self {
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
            _ => return None,
        }))
    }

    fn address<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let whole = |address: SocketAddr| Value::Address(address);
        let ip = |address: SocketAddr| Value::text(address.ip().to_string());
        let port = |address: SocketAddr| Value::Number(u64::from(address.port()));
        let remote = || facts.upstream.host.and_then(|host| host.parse::<SocketAddr>().ok());
        Some(match self {
            Self::DownstreamLocalAddress => whole(facts.peer?.local),
            Self::DownstreamLocalAddressWithoutPort => ip(facts.peer?.local),
            Self::DownstreamLocalPort => port(facts.peer?.local),
            Self::DownstreamRemoteAddress => whole(facts.peer?.remote),
            Self::DownstreamRemoteAddressWithoutPort => ip(facts.peer?.remote),
            Self::DownstreamRemotePort => port(facts.peer?.remote),
            Self::DownstreamDirectRemoteAddress => whole(facts.peer?.direct_remote),
            Self::DownstreamDirectRemoteAddressWithoutPort => ip(facts.peer?.direct_remote),
            Self::DownstreamDirectRemotePort => port(facts.peer?.direct_remote),
            Self::UpstreamLocalAddress => whole(facts.upstream.local?),
            Self::UpstreamLocalAddressWithoutPort => ip(facts.upstream.local?),
            Self::UpstreamLocalPort => port(facts.upstream.local?),
            Self::UpstreamHost | Self::UpstreamRemoteAddress => Value::nonempty(facts.upstream.host?),
            Self::UpstreamRemoteAddressWithoutPort => ip(remote()?),
            Self::UpstreamRemotePort => port(remote()?),
            _ => return None,
        })
    }

    fn upstream<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let upstream = &facts.upstream;
        Some(match self {
            Self::UpstreamCluster => Value::nonempty(upstream.cluster_alias.or(upstream.cluster)?),
            Self::UpstreamClusterRaw => Value::nonempty(upstream.cluster?),
            Self::UpstreamTransportFailureReason => Value::spaceless(upstream.transport_failure?),
            Self::UpstreamRequestAttemptCount => Value::Number(u64::from(upstream.attempts.unwrap_or(0))),
            Self::UpstreamConnectionId => Value::Number(upstream.connection_id?),
            Self::UpstreamProtocol => Value::text(upstream.protocol?.as_str()),
            Self::UpstreamTlsVersion => Value::nonempty(upstream.tls?.version),
            Self::UpstreamTlsCipher => Value::nonempty(&upstream.tls?.cipher),
            Self::DownstreamTlsVersion => Value::nonempty(facts.peer?.tls.as_ref()?.version),
            Self::DownstreamTlsCipher => Value::nonempty(&facts.peer?.tls.as_ref()?.cipher),
            _ => return None,
        })
    }

    fn certificate<'a>(self, facts: &LogFacts<'a>) -> Option<Value<'a>> {
        let of = |tls: Option<&'a TlsFacts>, local: bool| -> Option<&'a CertFacts> {
            let tls = tls?;
            if local { tls.local.as_ref() } else { tls.peer.as_ref() }
        };
        let (down_peer, down_local) = (facts.peer_certificate(), facts.local_certificate());
        let (up_peer, up_local) = (of(facts.upstream.tls, false), of(facts.upstream.tls, true));
        Some(match self {
            Self::DownstreamPeerUriSan => list(&down_peer?.uri_sans),
            Self::DownstreamPeerDnsSan => list(&down_peer?.dns_sans),
            Self::DownstreamPeerSubject => Value::nonempty(&down_peer?.subject),
            Self::DownstreamPeerIssuer => Value::nonempty(&down_peer?.issuer),
            Self::DownstreamPeerSerial => Value::nonempty(&down_peer?.serial),
            Self::DownstreamPeerFingerprint1 => Value::text(sha1(&down_peer?.der)),
            Self::DownstreamPeerFingerprint256 => Value::nonempty(&down_peer?.sha256),
            Self::DownstreamPeerCert => Value::text(url_encoded_pem(&down_peer?.der)),
            Self::DownstreamLocalUriSan => list(&down_local?.uri_sans),
            Self::DownstreamLocalDnsSan => list(&down_local?.dns_sans),
            Self::DownstreamLocalSubject => Value::nonempty(&down_local?.subject),
            Self::UpstreamPeerUriSan => list(&up_peer?.uri_sans),
            Self::UpstreamPeerDnsSan => list(&up_peer?.dns_sans),
            Self::UpstreamPeerSubject => Value::nonempty(&up_peer?.subject),
            Self::UpstreamPeerIssuer => Value::nonempty(&up_peer?.issuer),
            Self::UpstreamPeerCert => Value::text(url_encoded_pem(&up_peer?.der)),
            Self::UpstreamLocalUriSan => list(&up_local?.uri_sans),
            Self::UpstreamLocalDnsSan => list(&up_local?.dns_sans),
            Self::UpstreamLocalSubject => Value::nonempty(&up_local?.subject),
            // TLS 1.3 has no session id (RFC 8446 section 4.1.3), and this proxy resumes by tickets only
            Self::DownstreamTlsSessionId => return None,
            _ => return None,
        })
    }
}

impl HeaderChoice {
    fn parse(text: &str) -> Self {
        let (main, other) = match text.split_once('?') {
            Some((main, other)) => (main, Some(other)),
            None => (text, None),
        };
        Self { main: HeaderName::parse(main), other: other.map(HeaderName::parse) }
    }

    fn of_request<'a>(&self, head: &'a RequestHead) -> Option<Cow<'a, [u8]>> {
        self.main.of_request(head).or_else(|| self.other.as_ref()?.of_request(head)).map(Cow::Borrowed)
    }

    fn of_headers<'a>(&self, headers: &'a Headers) -> Option<Cow<'a, [u8]>> {
        self.main.of_headers(headers).or_else(|| self.other.as_ref()?.of_headers(headers)).map(Cow::Borrowed)
    }
}

impl HeaderName {
    fn parse(name: &str) -> Self {
        let name = name.trim().to_ascii_lowercase();
        match (name.as_str(), Known::of(name.as_bytes())) {
            (":method", _) => Self::Method,
            (":path", _) => Self::Path,
            (":authority" | "host", _) => Self::Authority,
            (":scheme", _) => Self::Scheme,
            (":protocol", _) => Self::Protocol,
            (_, Known::Other) => Self::Other(name.into_bytes().into()),
            (_, known) => Self::Known(known),
        }
    }

    fn of_request<'a>(&self, head: &'a RequestHead) -> Option<&'a [u8]> {
        let text = match self {
            Self::Method => head.method(),
            Self::Path => head.path(),
            Self::Authority => head.authority(),
            Self::Scheme => head.scheme(),
            Self::Protocol => head.protocol(),
            Self::Known(_) | Self::Other(_) => return self.of_headers(&head.headers),
        };
        (!text.is_empty()).then_some(text)
    }

    fn of_headers<'a>(&self, headers: &'a Headers) -> Option<&'a [u8]> {
        match self {
            Self::Known(known) => headers.get(*known),
            Self::Other(name) => headers.get_name(name),
            _ => None,
        }
    }
}

fn without_query(path: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    match path {
        Cow::Borrowed(path) => Cow::Borrowed(path.get(..end).unwrap_or(path)),
        Cow::Owned(mut path) => {
            path.truncate(end);
            Cow::Owned(path)
        }
    }
}

fn flags<'a>(facts: &LogFacts<'a>, long: bool) -> Value<'a> {
    if facts.flags.is_empty() {
        return Value::Absent;
    }
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

impl Point {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "DS_RX_BEG" => Self::DownstreamReceiveStart,
            "DS_RX_END" => Self::DownstreamReceiveEnd,
            "US_CX_BEG" => Self::UpstreamConnectStart,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_HS_END" => Self::UpstreamHandshakeEnd,
            "US_TX_BEG" => Self::UpstreamSendStart,
            "US_TX_END" => Self::UpstreamSendEnd,
            "US_RX_BEG" => Self::UpstreamReceiveStart,
            "US_RX_END" => Self::UpstreamReceiveEnd,
            "DS_TX_BEG" => Self::DownstreamSendStart,
            "DS_TX_END" => Self::DownstreamSendEnd,
            _ => return None,
        })
    }

    fn of(self, times: &Times) -> Option<Duration> {
        match self {
            Self::DownstreamReceiveStart => Some(Duration::ZERO),
            Self::DownstreamReceiveEnd => times.request_end,
            Self::UpstreamConnectStart => times.upstream_connect_start,
            Self::UpstreamConnectEnd => times.upstream_connect_end,
            Self::UpstreamHandshakeEnd => times.upstream_handshake_end,
            Self::UpstreamSendStart => times.upstream_request_start,
            Self::UpstreamSendEnd => times.upstream_request_end,
            Self::UpstreamReceiveStart => times.upstream_response_start,
            Self::UpstreamReceiveEnd => times.upstream_response_end,
            Self::DownstreamSendStart => times.response_start,
            Self::DownstreamSendEnd => times.response_end,
        }
    }
}

impl Precision {
    fn count(self, elapsed: Duration) -> u64 {
        let count = match self {
            Self::Millis => elapsed.as_millis(),
            Self::Micros => elapsed.as_micros(),
            Self::Nanos => elapsed.as_nanos(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

fn between(arguments: &str) -> Result<Operator, String> {
    let mut parts = arguments.split(':');
    let mut point = || {
        let name = parts.next().unwrap_or_default();
        Point::parse(name)
            .ok_or_else(|| format!("%COMMON_DURATION({arguments})%: {name:?} is no point in time, such as DS_RX_BEG"))
    };
    let (from, to) = (point()?, point()?);
    let precision = match parts.next() {
        None | Some("ms") => Precision::Millis,
        Some("us") => Precision::Micros,
        Some("ns") => Precision::Nanos,
        Some(other) => {
            return Err(format!("%COMMON_DURATION({arguments})%: precision {other:?} is none of ms, us, ns"));
        }
    };
    Ok(Operator::Between(from, to, precision))
}

fn grpc_form(arguments: Option<&str>) -> Result<GrpcForm, String> {
    match arguments {
        None | Some("" | "CAMEL_STRING") => Ok(GrpcForm::Camel),
        Some("SNAKE_STRING") => Ok(GrpcForm::Snake),
        Some("NUMBER") => Ok(GrpcForm::Number),
        Some(other) => Err(format!("%GRPC_STATUS({other})%: one of CAMEL_STRING, SNAKE_STRING, NUMBER")),
    }
}

/// Names of gRPC status codes, by number.
pub(super) const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcForm {
    fn show<'a>(self, code: u32) -> Value<'a> {
        let names = usize::try_from(code).ok().and_then(|code| GRPC_NAMES.get(code));
        match (self, names) {
            (Self::Camel, Some((camel, _))) => Value::text(*camel),
            (Self::Snake, Some((_, snake))) => Value::text(*snake),
            _ => Value::Number(u64::from(code)),
        }
    }
}

/// `namespace:key:key`.
fn metadata(source: MetadataSource, arguments: &str) -> Operator {
    let mut parts = arguments.split(':').map(Box::from);
    let namespace = parts.next().unwrap_or_default();
    Operator::Metadata(source, namespace, parts.collect())
}

/// `KIND:namespace:key`, the form of Envoy's metadata formatter.
fn metadata_of_kind(arguments: &str) -> Result<Operator, String> {
    let (kind, rest) = arguments.split_once(':').unwrap_or((arguments, ""));
    let source = match kind {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "UPSTREAM_HOST" => MetadataSource::Endpoint,
        _ => return Err(format!("not supported yet: %METADATA({arguments})%: one of DYNAMIC, CLUSTER, UPSTREAM_HOST")),
    };
    Ok(metadata(source, rest))
}

/// `key` or `key:PLAIN`.
fn filter_state(arguments: &str) -> Result<Operator, String> {
    match arguments.rsplit_once(':') {
        Some((key, "PLAIN")) => Ok(Operator::FilterState(key.into())),
        Some((_, form)) if form == "TYPED" || form == "FIELD" => {
            Err(format!("not supported yet: %FILTER_STATE({arguments})%: use the form PLAIN"))
        }
        _ => Ok(Operator::FilterState(arguments.into())),
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
