//! Why a connection or stream ended: the guilty side, the response flag, the status, and whether a retry may help.
//!
//! This is the one map from an error to what peers, logs and metrics see (Envoy's "local replies", spec 4.1).

use std::fmt;

/// Who caused the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client of this proxy.
    Downstream,
    /// The server that this proxy talks to.
    Upstream,
    /// This proxy: a rule, a limit or a fault of its own.
    Local,
}

/// Response flags of a stream, as Envoy prints them (`%RESPONSE_FLAGS%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

/// Short and long name of each flag, in Envoy's order; the position is the bit.
const FLAG_NAMES: &[(&str, &str)] = &[
    ("LH", "FailedLocalHealthCheck"),
    ("UH", "NoHealthyUpstream"),
    ("UT", "UpstreamRequestTimeout"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("UO", "UpstreamOverflow"),
    ("NR", "NoRouteFound"),
    ("DI", "DelayInjected"),
    ("FI", "FaultInjected"),
    ("RL", "RateLimited"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RLSE", "RateLimitServiceError"),
    ("DC", "DownstreamConnectionTermination"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("SI", "StreamIdleTimeout"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("DPE", "DownstreamProtocolError"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("NFCF", "NoFilterConfigFound"),
    ("DT", "DurationTimeout"),
    ("UPE", "UpstreamProtocolError"),
    ("NC", "NoClusterFound"),
    ("OM", "OverloadManagerTerminated"),
    ("DF", "DnsResolutionFailed"),
];

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// No healthy upstream host.
    pub const UH: Self = Self(1 << 1);
    /// The upstream did not answer in time.
    pub const UT: Self = Self(1 << 2);
    /// Reset made here.
    pub const LR: Self = Self(1 << 3);
    /// Reset made by the upstream.
    pub const UR: Self = Self(1 << 4);
    /// The upstream could not be connected.
    pub const UF: Self = Self(1 << 5);
    /// The upstream closed the connection.
    pub const UC: Self = Self(1 << 6);
    /// A circuit breaker refused.
    pub const UO: Self = Self(1 << 7);
    /// No route, or no filter chain.
    pub const NR: Self = Self(1 << 8);
    /// A delay was injected.
    pub const DI: Self = Self(1 << 9);
    /// An abort was injected.
    pub const FI: Self = Self(1 << 10);
    /// Rate limited.
    pub const RL: Self = Self(1 << 11);
    /// Denied by, or failed at, the external authorization service.
    pub const UAEX: Self = Self(1 << 12);
    /// The rate limit service failed.
    pub const RLSE: Self = Self(1 << 13);
    /// The client went away.
    pub const DC: Self = Self(1 << 14);
    /// Retries or connect attempts were used up.
    pub const URX: Self = Self(1 << 15);
    /// The stream was idle for too long.
    pub const SI: Self = Self(1 << 16);
    /// The client broke the protocol.
    pub const DPE: Self = Self(1 << 18);
    /// The stream reached its maximum duration.
    pub const DT: Self = Self(1 << 21);
    /// The upstream broke the protocol.
    pub const UPE: Self = Self(1 << 22);
    /// The route names a cluster that does not exist.
    pub const NC: Self = Self(1 << 23);
    /// Shed under overload.
    pub const OM: Self = Self(1 << 24);
    /// The upstream's name could not be resolved.
    pub const DF: Self = Self(1 << 25);

    /// Adds the flags of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether any flag of `other` is set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flag of a short name (`UH`), for access-log filters.
    pub fn from_short(name: &str) -> Option<Self> {
        FLAG_NAMES.iter().position(|(short, _)| *short == name).map(|bit| Self(1 << bit))
    }

    /// Appends the short names, comma separated; `-` when there is none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |names| names.0);
    }

    /// Appends the long names, comma separated; `-` when there is none.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |names| names.1);
    }

    fn write(self, out: &mut Vec<u8>, pick: impl Fn(&(&'static str, &'static str)) -> &'static str) {
        if self.is_empty() {
            return out.push(b'-');
        }
        let mut first = true;
        for (bit, names) in FLAG_NAMES.iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                if !first {
                    out.push(b',');
                }
                first = false;
                out.extend_from_slice(pick(names).as_bytes());
            }
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(8);
        self.write_short(&mut out);
        f.write_str(std::str::from_utf8(&out).unwrap_or("-"))
    }
}

/// What happened. One variant per line of spec 4.1; the texts are Envoy's, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing went wrong: the message ended as its sender meant it to.
    Complete,
    /// No endpoint that may be used (LR-1).
    NoHealthyUpstream,
    /// The upstream connection was refused or failed (LR-2).
    ConnectFailure,
    /// The upstream connection took too long (LR-4).
    ConnectTimeout,
    /// The route names an unknown cluster (LR-5).
    UnknownCluster,
    /// No virtual host or route matched (LR-6).
    NoRoute,
    /// The route's timeout passed (LR-7).
    RouteTimeout,
    /// The last try's own timeout passed (LR-8).
    PerTryTimeout,
    /// The upstream closed before or within its answer (LR-9).
    UpstreamClosed,
    /// The upstream reset the stream (HTTP/2).
    UpstreamReset,
    /// The upstream refused the stream unprocessed (HTTP/2 REFUSED_STREAM, GOAWAY).
    UpstreamRefused,
    /// The upstream sent what is no HTTP (LR-10).
    UpstreamProtocol,
    /// A circuit breaker refused (LR-12).
    Overflow,
    /// A rule of the fault filter (LR-14).
    FaultAbort,
    /// RBAC denied (LR-15).
    RbacDenied,
    /// A token was missing or bad (LR-16).
    JwtDenied,
    /// The external authorization service denied (LR-17).
    ExtAuthzDenied,
    /// The external authorization service failed (LR-17).
    ExtAuthzError,
    /// The local rate limit refused (LR-18).
    LocalRateLimited,
    /// The rate limit service refused (LR-18).
    RateLimited,
    /// The share of a quota is used up, or there is none (LR-18).
    QuotaUsedUp,
    /// The rate limit service failed, and that denies.
    RateLimitError,
    /// The request's header block is over the limit (LR-21).
    HeadersTooLarge,
    /// The request breaks the protocol; the detail names how (LR-22).
    Malformed,
    /// HTTP/1.0 where it is not accepted (LR-23).
    LowVersion,
    /// No Host (LR-24).
    MissingHost,
    /// An upgrade that is not enabled (LR-25).
    UpgradeFailed,
    /// The client went away (LR-27).
    DownstreamGone,
    /// No byte moved for the stream's idle timeout, request complete (LR-28).
    IdleTimeout,
    /// The same while the request was still arriving (LR-28).
    RequestIdleTimeout,
    /// The request did not arrive in time (LR-28b).
    RequestTimeout,
    /// The headers did not arrive in time.
    RequestHeaderTimeout,
    /// The stream was open for longer than allowed (LR-28b).
    MaxDuration,
    /// The body is over the buffer limit (LR-28b).
    PayloadTooLarge,
    /// Shed under overload (LR-33).
    Overloaded,
    /// The upstream's name has no address.
    DnsFailure,
    /// The proxy is draining or its worker went away.
    Shutdown,
    /// A fault of this proxy: a panic in one stream, an invariant that did not hold.
    Internal,
}

/// Why a connection or stream ended, small enough to travel in every `Result` of the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub reason: Reason,
    /// What only this occurrence knows: an errno text, a policy name, the rule that was broken.
    pub detail: Option<Box<str>>,
    /// The limit that was reached.
    pub limit: Option<Box<Exceeded>>,
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, limit: None }
    }
}

/// A limit that was reached (D13): its name in Envoy's configuration, with its unit, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// `max_requests`, `timeout_ms`.
    pub name: &'static str,
    /// In the unit that the name says.
    pub value: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// What a local reply looks like to an HTTP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    /// HTTP status; 0 where no answer is sent.
    pub status: u16,
    /// Response flags.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%` without the braces' content.
    pub details: &'static str,
    /// Response body.
    pub body: &'static str,
}

const BEFORE_HEADERS: &str = "upstream connect error or disconnect/reset before headers. ";

impl Reason {
    /// What the client, the log and the metrics see of it.
    pub fn face(self) -> Face {
        let face = |status, flags, details, body| Face { status, flags, details, body };
        match self {
            Self::Complete => face(200, Flags::NONE, "via_upstream", ""),
            Self::NoHealthyUpstream => face(503, Flags::UH, "no_healthy_upstream", "no healthy upstream"),
            Self::ConnectFailure | Self::ConnectTimeout => face(503, Flags::UF, BEFORE_RESPONSE, ""),
            Self::UnknownCluster => face(503, Flags::NC, "cluster_not_found", ""),
            Self::NoRoute => face(404, Flags::NR, "route_not_found", ""),
            Self::RouteTimeout => face(504, Flags::UT, "response_timeout", "upstream request timeout"),
            Self::PerTryTimeout => face(504, Flags::UT, "upstream_per_try_timeout", "upstream request timeout"),
            Self::UpstreamClosed => face(503, Flags::UC, BEFORE_RESPONSE, ""),
            Self::UpstreamReset | Self::UpstreamRefused => face(503, Flags::UR, BEFORE_RESPONSE, ""),
            Self::UpstreamProtocol => face(502, Flags::UPE, BEFORE_RESPONSE, ""),
            Self::Overflow => face(503, Flags::UO, BEFORE_RESPONSE, ""),
            Self::FaultAbort => face(503, Flags::FI, "fault_filter_abort", "fault filter abort"),
            Self::RbacDenied => face(403, Flags::NONE, "rbac_access_denied_matched_policy", "RBAC: access denied"),
            Self::JwtDenied => face(401, Flags::NONE, "jwt_authn_access_denied", ""),
            Self::ExtAuthzDenied => face(403, Flags::UAEX, "ext_authz_denied", ""),
            Self::ExtAuthzError => face(403, Flags::UAEX, "ext_authz_error", ""),
            Self::LocalRateLimited => face(429, Flags::RL, "local_rate_limited", "local_rate_limited"),
            Self::RateLimited => face(429, Flags::RL, "request_rate_limited", ""),
            Self::QuotaUsedUp => face(429, Flags::RL, "rate_limited_by_quota", ""),
            Self::RateLimitError => face(500, Flags::RLSE, "rate_limiter_error", ""),
            Self::HeadersTooLarge => face(431, Flags::DPE, "http1.headers_too_large", ""),
            Self::Malformed => face(400, Flags::DPE, "http1.codec_error", ""),
            Self::LowVersion => face(426, Flags::DPE, "low_version", ""),
            Self::MissingHost => face(400, Flags::NONE, "missing_host_header", ""),
            Self::UpgradeFailed => face(403, Flags::NONE, "upgrade_failed", ""),
            Self::DownstreamGone => face(0, Flags::DC, "downstream_remote_disconnect", ""),
            Self::IdleTimeout => face(504, Flags::SI, "stream_idle_timeout", "stream timeout"),
            Self::RequestIdleTimeout => face(408, Flags::SI, "stream_idle_timeout", "stream timeout"),
            Self::RequestTimeout => face(408, Flags::NONE, "request_overall_timeout", "request timeout"),
            Self::RequestHeaderTimeout => face(408, Flags::NONE, "request_header_timeout", "request header timeout"),
            Self::MaxDuration => face(504, Flags::NONE, "max_duration_timeout", "downstream duration timeout"),
            Self::PayloadTooLarge => face(413, Flags::NONE, "request_payload_too_large", "Payload Too Large"),
            Self::Overloaded => face(503, Flags::OM, "overload", "envoy overloaded"),
            Self::DnsFailure => face(503, Flags::DF, "dns_resolution_failure", ""),
            Self::Shutdown => face(503, Flags::LR, "draining", "draining"),
            Self::Internal => face(500, Flags::LR, "internal_error", "internal error"),
        }
    }

    /// Envoy's text for a reset before the response headers; `None` where the reason is no reset.
    pub fn reset_text(self) -> Option<&'static str> {
        Some(match self {
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::UpstreamClosed => "connection termination",
            Self::UpstreamReset => "remote reset",
            Self::UpstreamRefused => "remote refused stream reset",
            Self::UpstreamProtocol => "protocol error",
            Self::Overflow => "overflow",
            _ => return None,
        })
    }

    /// What it means, in one sentence for people (D13); the table of the reference is made of these.
    pub fn why(self) -> &'static str {
        match self {
            Self::Complete => "the message ended as its sender meant it to",
            Self::NoHealthyUpstream => "no endpoint may be used: all are unhealthy, ejected, or outside the subset",
            Self::ConnectFailure => "the endpoint refused the connection or cannot be reached",
            Self::ConnectTimeout => "the endpoint did not accept the connection in time",
            Self::UnknownCluster => "the route names a cluster that does not exist: a subset or a service is missing",
            Self::NoRoute => "no virtual host or no route matches the request",
            Self::RouteTimeout => "the server did not answer within the route's time limit",
            Self::PerTryTimeout => "the server did not answer within the time limit of the last try",
            Self::UpstreamClosed => "the server closed the connection before it had answered",
            Self::UpstreamReset => "the server reset the stream before it had answered",
            Self::UpstreamRefused => "the server refused the stream without looking at it",
            Self::UpstreamProtocol => "the server sent what is no HTTP",
            Self::Overflow => "a circuit breaker of the DestinationRule is full",
            Self::FaultAbort => "a fault that the VirtualService injects",
            Self::RbacDenied => "an AuthorizationPolicy denies the request, or none allows it",
            Self::JwtDenied => "a token is missing or not valid",
            Self::ExtAuthzDenied => "the authorization service denies the request",
            Self::ExtAuthzError => "the authorization service did not answer, and requests must not pass without it",
            Self::LocalRateLimited => "the local rate limit is used up",
            Self::RateLimited => "the rate limit service says that the limit is used up",
            Self::QuotaUsedUp => "this proxy's share of the quota is used up, or the service gave it none",
            Self::RateLimitError => "the rate limit service did not answer, and requests must not pass without it",
            Self::HeadersTooLarge => "the request's headers are larger than allowed",
            Self::Malformed => "the request breaks the protocol",
            Self::LowVersion => "the client speaks HTTP/1.0, which is not accepted here",
            Self::MissingHost => "the request names no host",
            Self::UpgradeFailed => "the upgrade is not allowed on this route",
            Self::DownstreamGone => "the client went away before it had the answer",
            Self::IdleTimeout => "no byte moved for the stream's idle timeout while the server worked",
            Self::RequestIdleTimeout => "no byte came from the client for the stream's idle timeout",
            Self::RequestTimeout => "the request did not arrive in time",
            Self::RequestHeaderTimeout => "the request's headers did not arrive in time",
            Self::MaxDuration => "the stream was open for as long as it may be",
            Self::PayloadTooLarge => "the request's body is larger than the buffer for it",
            Self::Overloaded => "this proxy sheds load",
            Self::DnsFailure => "the server's name has no address",
            Self::Shutdown => "this proxy is stopping",
            Self::Internal => "a fault of this proxy",
        }
    }

    /// Who caused it.
    pub fn side(self) -> Side {
        match self {
            Self::DownstreamGone
            | Self::HeadersTooLarge
            | Self::Malformed
            | Self::LowVersion
            | Self::MissingHost
            | Self::UpgradeFailed
            | Self::RequestTimeout
            | Self::RequestHeaderTimeout
            | Self::RequestIdleTimeout
            | Self::PayloadTooLarge => Side::Downstream,
            Self::ConnectFailure
            | Self::ConnectTimeout
            | Self::RouteTimeout
            | Self::PerTryTimeout
            | Self::UpstreamClosed
            | Self::UpstreamReset
            | Self::UpstreamRefused
            | Self::UpstreamProtocol
            | Self::DnsFailure => Side::Upstream,
            _ => Side::Local,
        }
    }
}

const BEFORE_RESPONSE: &str = "upstream_reset_before_response_started";

impl Outcome {
    /// An outcome with what only this occurrence knows.
    pub fn with_detail(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        Self { reason, detail: Some(detail.into()), limit: None }
    }

    /// The same with the limit that was reached, unless it says one already.
    #[must_use]
    pub fn over(mut self, name: &'static str, value: u64) -> Self {
        self.limit = self.limit.or_else(|| Some(Box::new(Exceeded { name, value })));
        self
    }

    /// A request that breaks the protocol; `how` is the detail after Envoy's `http1.`/`http2.` prefix.
    pub fn malformed(how: &'static str) -> Self {
        Self::with_detail(Reason::Malformed, how)
    }

    /// `%RESPONSE_CODE_DETAILS%`, spaces replaced by underscores as Envoy does.
    pub fn details(&self) -> String {
        let text = match (self.reason, self.reason.reset_text(), &self.detail) {
            (Reason::Malformed | Reason::HeadersTooLarge, _, Some(detail)) => detail.to_string(),
            (_, Some(reset), Some(detail)) => format!("{BEFORE_RESPONSE}{{{reset}|{detail}}}"),
            (_, Some(reset), None) => format!("{BEFORE_RESPONSE}{{{reset}}}"),
            (Reason::RbacDenied, _, detail) => {
                format!("rbac_access_denied_matched_policy[{}]", detail.as_deref().unwrap_or("none"))
            }
            (Reason::JwtDenied, _, Some(detail)) => format!("jwt_authn_access_denied{{{detail}}}"),
            _ => self.reason.face().details.to_owned(),
        };
        text.replace(' ', "_")
    }

    /// The body of the local reply; `retried` when more than one try was made.
    pub fn body(&self, retried: bool) -> String {
        match (self.reason.reset_text(), retried) {
            (Some(reset), false) => format!("{BEFORE_HEADERS}reset reason: {reset}"),
            (Some(reset), true) => format!("{BEFORE_HEADERS}retried and the latest reset reason: {reset}"),
            (None, _) => self.reason.face().body.to_owned(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.details())
    }
}

impl std::error::Error for Outcome {}

#[cfg(test)]
mod tests;
