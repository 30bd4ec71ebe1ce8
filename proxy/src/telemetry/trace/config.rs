//! `HttpConnectionManager.Tracing` → which requests are followed, and who is told.

use crate::net::Service;
use crate::refusal::{Refusal, Within};
use crate::telemetry::access_log::{Format, LogContext, Tag};
use crate::telemetry::otlp::resource;
use crate::telemetry::outbox::{Destination, FLUSH_AFTER, FLUSH_AT, Shape};
use proto::duration::from_proto;
use proto::envoy::core::{HttpService, http_uri::HttpUpstreamType};
use proto::envoy::hcm::http_connection_manager::Tracing;
use proto::envoy::trace::tracing::http::ConfigType;
use proto::envoy::trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use proto::envoy::trace::{OpenTelemetryConfig, ZipkinConfig};
use proto::envoy::types::Percent;
use std::sync::Arc;
use std::time::Duration;

/// Zipkin's collectors get their spans this often (TR-4).
const ZIPKIN_FLUSH_AFTER: Duration = Duration::from_secs(5);
/// Bytes of a path that a tag shows where nothing is configured.
const MAX_PATH: usize = 256;

/// A share in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u64);

impl Share {
    fn parse(written: Option<&Percent>, default: f64) -> Self {
        let percent = written.map_or(default, |percent| percent.value).clamp(0.0, 100.0);
        Self((percent * 100.0).round() as u64)
    }

    /// Whether this number is within the share.
    pub fn takes(self, number: u64) -> bool {
        number % 10_000 < self.0
    }
}

/// How traces are made.
#[derive(Debug)]
pub struct TraceConfig {
    /// Share of the requests that ask for a trace (`x-client-trace-id`).
    pub client: Share,
    /// Share of the other requests.
    pub random: Share,
    /// Share of all that are followed, at most.
    pub overall: Share,
    /// Tags of each span.
    pub tags: Box<[Tag]>,
    /// Bytes of a path that a tag shows.
    pub max_path: usize,
    /// Each try has a span of its own.
    pub span_per_try: bool,
    /// Name of the span, before what the route says.
    pub operation: Option<Format>,
    /// Who is told; nobody where there is none: then only the request's id says that it is sampled.
    pub driver: Option<Driver>,
}

/// Who is told of spans, and how the next hop is told of the trace.
#[derive(Debug)]
pub struct Driver {
    /// The collector.
    pub to: Arc<Destination>,
    /// The headers.
    pub headers: HeaderKind,
    /// New traces have ids of 128 bits.
    pub wide: bool,
    /// The server's span is the client's (`shared_span_context`).
    pub shared: bool,
}

/// The headers that carry a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// B3 alone.
    B3,
    /// B3, else W3C; both are written.
    B3AndW3c,
    /// W3C alone.
    W3c,
}

impl TraceConfig {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &Tracing, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let tags = written.custom_tags.iter().enumerate();
        let operation = Some(written.operation.as_str()).filter(|text| !text.is_empty());
        let operation = operation.map(|text| Format::parse(text, cx.environment)).transpose();
        Ok(Self {
            client: Share::parse(written.client_sampling.as_ref(), 100.0),
            random: Share::parse(written.random_sampling.as_ref(), 100.0),
            overall: Share::parse(written.overall_sampling.as_ref(), 100.0),
            tags: tags
                .map(|(i, tag)| Tag::parse(tag, cx).within(&format!("custom_tags[{i}]")))
                .collect::<Result<_, _>>()?,
            max_path: written.max_path_tag_length.as_ref().map_or(MAX_PATH, |length| length.value as usize),
            span_per_try: written.spawn_upstream_span.is_some_and(|spawn| spawn.value),
            operation: operation.map_err(|why| Refusal::new("operation", why.to_string()))?,
            driver: match written.provider.as_ref().and_then(|provider| provider.config_type.as_ref()) {
                None => None,
                Some(ConfigType::TypedConfig(any)) => Some(driver(any).within("provider.typed_config")?),
            },
        })
    }
}

fn driver(any: &proto::envoy::wkt::Any) -> Result<Driver, Refusal> {
    let malformed = |error: proto::any::AnyError| Refusal::new("", error.to_string());
    match proto::any::type_name(&any.type_url) {
        "envoy.config.trace.v3.ZipkinConfig" => zipkin(&proto::any::unpack(any).map_err(malformed)?),
        "envoy.config.trace.v3.OpenTelemetryConfig" => otlp(&proto::any::unpack(any).map_err(malformed)?),
        other => Err(Refusal::unsupported(format!("tracer {other}"))),
    }
}

fn zipkin(written: &ZipkinConfig) -> Result<Driver, Refusal> {
    if written.collector_endpoint_version == i32::from(CollectorEndpointVersion::HttpProto) {
        return Err(Refusal::unsupported("collector_endpoint_version: HTTP_PROTO"));
    }
    let (service, path) = match &written.collector_service {
        Some(service) => http(service).within("collector_service")?,
        None if written.collector_cluster.is_empty() => {
            return Err(Refusal::new("collector_cluster", "is needed"));
        }
        None => {
            let host = [&*written.collector_hostname, &*written.collector_cluster];
            let authority = host.into_iter().find(|host| !host.is_empty()).unwrap_or_default();
            let service = Service {
                cluster: written.collector_cluster.as_str().into(),
                authority: authority.into(),
                timeout: None,
            };
            (service, written.collector_endpoint.as_str().into())
        }
    };
    let both = written.trace_context_option == i32::from(TraceContextOption::UseB3WithW3cPropagation);
    let shape = Shape::ZipkinSpans { path };
    Ok(Driver {
        to: Arc::new(Destination { service, shape, flush_after: ZIPKIN_FLUSH_AFTER, flush_at: FLUSH_AT }),
        headers: if both { HeaderKind::B3AndW3c } else { HeaderKind::B3 },
        wide: written.trace_id_128bit,
        shared: written.shared_span_context.is_none_or(|shared| shared.value),
    })
}

fn otlp(written: &OpenTelemetryConfig) -> Result<Driver, Refusal> {
    let refused = [
        ("exporter", written.exporter.is_some()),
        ("resource_detectors", !written.resource_detectors.is_empty()),
        ("sampler", written.sampler.is_some()),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, written)| *written) {
        return Err(Refusal::unsupported(*name));
    }
    let name = if written.service_name.is_empty() { "unknown_service:envoy" } else { &written.service_name };
    let resource = resource(vec![("service.name".to_owned(), name.to_owned())]);
    let (service, shape) = match &written.http_service {
        Some(service) => {
            let (service, path) = http(service).within("http_service")?;
            (service, Shape::OtlpHttpSpans { resource, path })
        }
        None => (Service::parse(written.grpc_service.as_ref())?, Shape::OtlpSpans { resource }),
    };
    Ok(Driver {
        to: Arc::new(Destination { service, shape, flush_after: FLUSH_AFTER, flush_at: FLUSH_AT }),
        headers: HeaderKind::W3c,
        wide: true,
        shared: false,
    })
}

/// Cluster, host and path of a collector over HTTP.
fn http(written: &HttpService) -> Result<(Service, Box<str>), Refusal> {
    if !written.request_headers_to_add.is_empty() {
        return Err(Refusal::unsupported("request_headers_to_add"));
    }
    let uri = written.http_uri.as_ref().ok_or_else(|| Refusal::new("http_uri", "is needed"))?;
    let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
        return Err(Refusal::new("http_uri.cluster", "is needed"));
    };
    let rest = uri.uri.split_once("://").map_or(uri.uri.as_str(), |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let timeout = uri.timeout.as_ref().map(from_proto);
    Ok((Service { cluster: cluster.as_str().into(), authority: host.into(), timeout }, format!("/{path}").into()))
}
