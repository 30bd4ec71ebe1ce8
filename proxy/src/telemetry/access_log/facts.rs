//! What a log line, a header value or a metric may tell about a stream or a connection.

use crate::message::{Headers, Metadata, RequestHead, ResponseHead, Version};
use crate::net::{CertFacts, PeerFacts, TlsFacts};
use crate::outcome::{Flags, Outcome};
use crate::telemetry::istio::Workload;
use crate::telemetry::trace::Context;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Filter state by key.
pub type FilterState = BTreeMap<Box<str>, Box<str>>;

/// Facts of one stream or TCP connection; what is not known (yet) is `None` and shows as `-`.
#[derive(Debug, Default, Clone, Copy)]
pub struct LogFacts<'a> {
    /// Request head as it went upstream.
    pub request: Option<&'a RequestHead>,
    /// Response head as it went downstream.
    pub response: Option<&'a ResponseHead>,
    /// Response trailers.
    pub trailers: Option<&'a Headers>,
    /// HTTP version of the client.
    pub protocol: Option<Version>,
    /// Status that the client saw; 0 where it saw none.
    pub status: Option<u16>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: Option<&'a str>,
    /// Why this proxy answered by itself.
    pub outcome: Option<&'a Outcome>,
    /// What a proxy on the way says of why it answered by itself.
    pub told: Option<&'a str>,
    /// A try failed, or was repeated, whose endpoint may have read the request.
    pub reached: bool,
    /// The object that made the route, as its metadata says.
    pub origin: Option<&'a str>,
    /// The client's workload, by metadata exchange.
    pub downstream_workload: Option<&'a Workload>,
    /// The server's workload, by metadata exchange.
    pub upstream_workload: Option<&'a Workload>,
    /// Why the connection was ended by this proxy.
    pub connection_termination: Option<&'a str>,
    /// Byte counts.
    pub bytes: Bytes,
    /// When the stream or connection began.
    pub start: Option<SystemTime>,
    /// Points in time since then.
    pub times: Times,
    /// The downstream connection.
    pub peer: Option<&'a PeerFacts>,
    /// The upstream side.
    pub upstream: Upstream<'a>,
    /// Name of the route or filter chain that decided.
    pub route_name: Option<&'a str>,
    /// Name of the virtual cluster.
    pub virtual_cluster: Option<&'a str>,
    /// Dynamic metadata of filters.
    pub metadata: Option<&'a Metadata>,
    /// Filter state.
    pub filter_state: Option<&'a FilterState>,
    /// The span of its trace.
    pub trace: Option<Context>,
    /// Number of the stream that is unique in the mesh.
    pub unique_id: Option<u128>,
    /// Which kind of entry this is.
    pub entry: Entry,
}

/// Bytes of one stream or connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct Bytes {
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Header bytes from the client.
    pub downstream_header_received: u64,
    /// Header bytes to the client.
    pub downstream_header_sent: u64,
    /// All bytes from the client as they were on the wire.
    pub downstream_wire_received: u64,
    /// All bytes to the client as they were on the wire.
    pub downstream_wire_sent: u64,
    /// Header bytes from the upstream.
    pub upstream_header_received: u64,
    /// Header bytes to the upstream.
    pub upstream_header_sent: u64,
    /// All bytes from the upstream as they were on the wire.
    pub upstream_wire_received: u64,
    /// All bytes to the upstream as they were on the wire.
    pub upstream_wire_sent: u64,
}

/// Points in time, since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Times {
    /// Now, or the end.
    pub total: Option<Duration>,
    /// Last byte of the request received.
    pub request_end: Option<Duration>,
    /// Connecting to the upstream began.
    pub upstream_connect_start: Option<Duration>,
    /// The upstream connection was up.
    pub upstream_connect_end: Option<Duration>,
    /// The upstream TLS handshake was done.
    pub upstream_handshake_end: Option<Duration>,
    /// First byte sent to the upstream.
    pub upstream_request_start: Option<Duration>,
    /// Last byte sent to the upstream.
    pub upstream_request_end: Option<Duration>,
    /// First byte received from the upstream.
    pub upstream_response_start: Option<Duration>,
    /// Last byte received from the upstream.
    pub upstream_response_end: Option<Duration>,
    /// First byte sent to the client.
    pub response_start: Option<Duration>,
    /// Last byte sent to the client.
    pub response_end: Option<Duration>,
}

/// The upstream side of a stream or connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct Upstream<'a> {
    /// Address of the endpoint.
    pub host: Option<&'a str>,
    /// Name of the cluster.
    pub cluster: Option<&'a str>,
    /// The name that statistics of the cluster go under; absent: its name.
    pub cluster_alias: Option<&'a str>,
    /// Our address towards the endpoint.
    pub local: Option<SocketAddr>,
    /// Why its transport failed.
    pub transport_failure: Option<&'a str>,
    /// Tries.
    pub attempts: Option<u32>,
    /// Number of the connection.
    pub connection_id: Option<u64>,
    /// Its TLS session.
    pub tls: Option<&'a TlsFacts>,
    /// HTTP version.
    pub protocol: Option<Version>,
    /// Metadata of the cluster.
    pub cluster_metadata: Option<&'a Metadata>,
    /// Metadata of the endpoint.
    pub host_metadata: Option<&'a Metadata>,
}

/// Which kind of log entry this is (`%ACCESS_LOG_TYPE%`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Not said.
    #[default]
    NotSet,
    /// A TCP connection began to be proxied.
    TcpUpstreamConnected,
    /// A TCP connection goes on.
    TcpPeriodic,
    /// A TCP connection has ended.
    TcpConnectionEnd,
    /// A request has arrived.
    DownstreamStart,
    /// A stream goes on.
    DownstreamPeriodic,
    /// A stream has ended.
    DownstreamEnd,
}

impl Entry {
    /// Name and number in Envoy's API (`envoy.data.accesslog.v3.AccessLogType`).
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
        }
    }

    /// The entry of a number in Envoy's API.
    pub fn of_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::NotSet,
            1 => Self::TcpUpstreamConnected,
            2 => Self::TcpPeriodic,
            3 => Self::TcpConnectionEnd,
            4 => Self::DownstreamStart,
            5 => Self::DownstreamPeriodic,
            6 => Self::DownstreamEnd,
            _ => return None,
        })
    }
}

impl<'a> LogFacts<'a> {
    /// The client's certificate.
    pub fn peer_certificate(&self) -> Option<&'a CertFacts> {
        self.peer?.tls.as_ref()?.peer.as_ref()
    }

    /// Our certificate towards the client.
    pub fn local_certificate(&self) -> Option<&'a CertFacts> {
        self.peer?.tls.as_ref()?.local.as_ref()
    }

    /// `grpc-status` from the trailers, or from the head of a trailers-only response; `None` if the request is not gRPC.
    pub fn grpc_status(&self) -> Option<u32> {
        use crate::message::Known;
        let content_type = self.request?.headers.get(Known::ContentType)?;
        let rest = content_type.strip_prefix(b"application/grpc")?;
        if !matches!(rest.first(), None | Some(b'+' | b';')) {
            return None;
        }
        let value = self
            .trailers
            .and_then(|trailers| trailers.get(Known::GrpcStatus))
            .or_else(|| self.response.and_then(|response| response.headers.get(Known::GrpcStatus)))?;
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    }
}
