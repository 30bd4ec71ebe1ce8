//! The command operators of Envoy's access logs (`%NAME(arguments):length%`), parsed once.

use super::facts::{LogFacts, Times};
use super::header_choice::HeaderChoice;
use super::plain::Plain;
use super::reason::Part;
use super::time::TimeFormat;
use super::value::Show;
use crate::bootstrap::Environment;
use crate::message::Metadata;
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
    /// Why this proxy answered by itself (D13).
    Reason(Part),
    Plain(Plain),
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
            "FERROMESH_REASON" => Ok(Self::Reason(Part::parse(needed()?)?)),
            "ENVIRONMENT" => Ok(Self::Fixed(environment.get(needed()?).unwrap_or("-").as_bytes().into())),
            "HOSTNAME" => Ok(Self::Fixed(rustix::system::uname().nodename().to_bytes().into())),
            "UPSTREAM_FILTER_STATE"
            | "CEL"
            | "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256"
            | "TLS_JA3_FINGERPRINT"
            | "TLS_JA4_FINGERPRINT" => Err(format!("not supported yet: %{name}%")),
            _ => match Plain::of(name) {
                Some(plain) if arguments.is_none() => Ok(Self::Plain(plain)),
                Some(_) => Err(format!("%{name}% takes no argument")),
                None => Err(format!("unknown operator %{name}%: a percent sign that is text is written %%")),
            },
        }
    }

    /// Shows its value for one entry.
    #[inline]
    pub(super) fn show(&self, facts: &LogFacts<'_>, to: &mut impl Show) {
        if self.try_show(facts, to).is_none() {
            to.absent();
        }
    }

    fn try_show(&self, facts: &LogFacts<'_>, to: &mut impl Show) -> Option<()> {
        match self {
            Self::Fixed(text) => to.text(text),
            Self::StartTime(format) => to.time(facts.start?, format),
            Self::EmitTime(format) => to.time(facts.start? + facts.times.total?, format),
            Self::Request(choice) => to.text(choice.of_request(facts.request?)?),
            Self::RequestWithoutQuery(choice) => to.text(without_query(choice.of_request(facts.request?)?)),
            Self::Response(choice) => {
                let response = facts.response?;
                match choice.is_status() {
                    true => to.number(u64::from(response.status)),
                    false => to.text(choice.of_headers(&response.headers)?),
                }
            }
            Self::Trailer(choice) => to.text(choice.of_headers(facts.trailers?)?),
            Self::Between(from, until, precision) => {
                to.number(precision.count(until.of(&facts.times)?.checked_sub(from.of(&facts.times)?)?));
            }
            Self::GrpcStatus(form) => form.show(facts.grpc_status()?, to),
            Self::Certificate(side, when, format) => {
                let certificate = match side {
                    Side::DownstreamPeer => facts.peer_certificate()?,
                    Side::UpstreamPeer => facts.upstream.tls?.peer.as_ref()?,
                };
                let seconds = match when {
                    CertificateTime::Start => certificate.not_before,
                    CertificateTime::End => certificate.not_after,
                };
                to.time(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?), format);
            }
            Self::Metadata(source, namespace, path) => {
                let metadata: &Metadata = match source {
                    MetadataSource::Dynamic => facts.metadata?,
                    MetadataSource::Cluster => facts.upstream.cluster_metadata?,
                    MetadataSource::Endpoint => facts.upstream.host_metadata?,
                };
                let root = metadata.get(namespace)?;
                to.json(path.iter().try_fold(root, |value, key| value.get(&**key))?);
            }
            Self::FilterState(key) => to.text(facts.filter_state?.get(key)?.as_bytes()),
            Self::Reason(part) => to.text(part.of(facts)?.as_bytes()),
            Self::Plain(plain) => return plain.show(facts, to),
        }
        Some(())
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or(path)
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
    /// An elapsed time in this unit.
    pub(super) fn count(self, elapsed: Duration) -> u64 {
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
    fn show(self, code: u32, to: &mut impl Show) {
        let names = usize::try_from(code).ok().and_then(|code| GRPC_NAMES.get(code));
        match (self, names) {
            (Self::Camel, Some((camel, _))) => to.text(camel.as_bytes()),
            (Self::Snake, Some((_, snake))) => to.text(snake.as_bytes()),
            _ => to.number(u64::from(code)),
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
