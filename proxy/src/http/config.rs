//! `HttpConnectionManager` → what serves a connection.

use super::headers::ServerHeader;
use crate::codec::h1::HeadLimits;
use crate::filter::{Filter, registry};
use crate::refusal::{Refusal, Within};
use crate::route::{RouteContext, RouteTable};
use crate::telemetry::access_log::{AccessLog, LogContext};
use crate::telemetry::trace::TraceConfig;
use proto::duration::from_proto;
use proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::envoy::hcm::{
    HttpConnectionManager, http_connection_manager as hcm, http_connection_manager::RouteSpecifier, http_filter,
};
use proto::envoy::wkt;
use std::sync::Arc;
use std::time::Duration;

/// Where the route table comes from.
#[derive(Debug, Clone)]
pub enum Routes {
    /// In the listener itself.
    Inline(Arc<RouteTable>),
    /// RDS under this name.
    Rds(Arc<str>),
}

/// Which protocol is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    Auto,
    /// HTTP/1.
    H1,
    /// HTTP/2.
    H2,
}

/// What happens to `x-forwarded-client-cert` (HD-4, MT-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Removed.
    Sanitize,
    /// Kept where the connection is mTLS.
    ForwardOnly,
    /// Kept, and ours appended, where the connection is mTLS.
    AppendForward,
    /// Replaced by ours where the connection is mTLS, else removed.
    SanitizeSet,
    /// Always kept.
    AlwaysForwardOnly,
}

/// Parts of the client's certificate that go into `x-forwarded-client-cert`, beside hash and our own URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CertDetails {
    /// `Subject`
    pub subject: bool,
    /// `Cert`
    pub cert: bool,
    /// `Chain`
    pub chain: bool,
    /// `DNS`
    pub dns: bool,
    /// `URI`
    pub uri: bool,
}

/// How a path is made canonical (HD-17, AZ-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// RFC 3986 dot segments and unreserved escapes.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to escaped slashes in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Stay as they are.
    Keep,
    /// The request is refused.
    Reject,
    /// Unescaped, and the client is redirected there.
    UnescapeAndRedirect,
    /// Unescaped.
    UnescapeAndForward,
}

/// A parsed connection manager.
#[derive(Debug)]
pub struct HcmConfig {
    /// Prefix of its statistics.
    pub stat_prefix: Box<str>,
    /// Protocol.
    pub codec: Codec,
    /// Route table.
    pub routes: Routes,
    /// Filters before the router.
    pub filters: Arc<[Filter]>,
    /// Head limits.
    pub head_limits: HeadLimits,
    /// `server` header.
    pub server: ServerHeader,
    /// Connection idle timeout.
    pub idle_timeout: Option<Duration>,
    /// Time for a head to arrive.
    pub request_headers_timeout: Option<Duration>,
    /// Stream idle timeout.
    pub stream_idle_timeout: Option<Duration>,
    /// Time for a request to arrive.
    pub request_timeout: Option<Duration>,
    /// Life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Requests per connection; 0: no limit.
    pub max_requests_per_connection: u32,
    /// Time between the warning that an HTTP/2 connection ends and its end.
    pub drain_timeout: Duration,
    /// Concurrent streams of an HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 stream window.
    pub stream_window: u32,
    /// HTTP/2 connection window.
    pub connection_window: u32,
    /// Pass `100-continue` through.
    pub proxy_100_continue: bool,
    /// Upgrade types, lower case.
    pub upgrades: Box<[Box<str>]>,
    /// The peer's address is the client's.
    pub use_remote_address: bool,
    /// Hops of `x-forwarded-for` that are trusted.
    pub xff_trusted_hops: u32,
    /// `x-forwarded-for` is not appended.
    pub skip_xff_append: bool,
    /// `x-request-id` is made where absent.
    pub generate_request_id: bool,
    /// `x-request-id` of the client is kept also at the edge.
    pub preserve_external_request_id: bool,
    /// `x-request-id` goes into the response.
    pub request_id_in_response: bool,
    /// `x-forwarded-client-cert`.
    pub client_cert: (ForwardClientCert, CertDetails),
    /// Path rules.
    pub path: PathRules,
    /// The port of the host is removed before routing: any port, or the listener's own.
    pub strip_host_port: (bool, bool),
    /// A trailing dot of the host is removed before routing.
    pub strip_trailing_dot: bool,
    /// Text of `via`.
    pub via: Box<str>,
    /// HTTP/1.0 is refused with 426.
    pub refuse_http10: bool,
    /// Names with underscores are refused.
    pub refuse_underscores: bool,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
    /// Which requests are followed, and who is told.
    pub tracing: Option<Arc<TraceConfig>>,
    /// Whether the request's id says that it is followed, and whether it decides so.
    pub request_id_reason: (bool, bool),
}

impl HcmConfig {
    /// A connection manager in which nothing but filters and routes is configured.
    ///
    /// # Errors
    /// None: the defaults are valid.
    pub fn plain(filters: Arc<[Filter]>, routes: Arc<RouteTable>) -> Result<Self, Refusal> {
        let (environment, runtime) = Default::default();
        let cx =
            RouteContext { environment: &environment, runtime: &runtime, parse_override: &registry::parse_override };
        let router = proto::any::pack_as("envoy.extensions.filters.http.router.v3.Router", &());
        let written = HttpConnectionManager {
            http_filters: vec![proto::envoy::hcm::HttpFilter {
                config_type: Some(http_filter::ConfigType::TypedConfig(router)),
                ..Default::default()
            }],
            route_specifier: Some(RouteSpecifier::Rds(proto::envoy::hcm::Rds::default())),
            ..Default::default()
        };
        Ok(Self { filters, routes: Routes::Inline(routes), ..parse(&written, cx)? })
    }
}

/// Parses a connection manager.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(written: &HttpConnectionManager, cx: RouteContext<'_>) -> Result<HcmConfig, Refusal> {
    let common = written.common_http_protocol_options.unwrap_or_default();
    let h2 = written.http2_protocol_options.clone().unwrap_or_default();
    let idle = common.idle_timeout.as_ref().map_or(Some(Duration::from_secs(3600)), timer);
    let kib = written.max_request_headers_kb.as_ref().map_or(60, |n| n.value);
    Ok(HcmConfig {
        stat_prefix: written.stat_prefix.as_str().into(),
        codec: match hcm::CodecType::try_from(written.codec_type) {
            Ok(hcm::CodecType::Http1) => Codec::H1,
            Ok(hcm::CodecType::Http2) => Codec::H2,
            Ok(hcm::CodecType::Http3) => return Err(Refusal::unsupported("codec_type: HTTP3")),
            _ => Codec::Auto,
        },
        routes: routes(written, cx)?,
        filters: filters(written)?,
        head_limits: HeadLimits {
            max_bytes: kib as usize * 1024,
            max_fields: common.max_headers_count.as_ref().map_or(100, |n| n.value as usize),
        },
        server: server(written),
        idle_timeout: idle,
        request_headers_timeout: written.request_headers_timeout.as_ref().map_or(Some(HEAD_TIME), timer),
        stream_idle_timeout: written.stream_idle_timeout.as_ref().map_or(Some(Duration::from_secs(300)), timer),
        request_timeout: written.request_timeout.as_ref().and_then(timer),
        max_stream_duration: common.max_stream_duration.as_ref().and_then(timer),
        max_connection_duration: common.max_connection_duration.as_ref().and_then(timer),
        max_requests_per_connection: number(common.max_requests_per_connection.as_ref(), 0),
        drain_timeout: written.drain_timeout.as_ref().map_or(Duration::from_secs(5), from_proto),
        max_concurrent_streams: number(h2.max_concurrent_streams.as_ref(), 1024),
        stream_window: number(h2.initial_stream_window_size.as_ref(), STREAM_WINDOW),
        connection_window: number(h2.initial_connection_window_size.as_ref(), CONNECTION_WINDOW),
        proxy_100_continue: written.proxy_100_continue,
        upgrades: written
            .upgrade_configs
            .iter()
            .filter(|u| u.enabled.as_ref().is_none_or(|e| e.value))
            .map(|u| u.upgrade_type.to_ascii_lowercase().into())
            .collect(),
        use_remote_address: flag(written.use_remote_address.as_ref(), false),
        xff_trusted_hops: written.xff_num_trusted_hops,
        skip_xff_append: written.skip_xff_append,
        generate_request_id: flag(written.generate_request_id.as_ref(), true),
        preserve_external_request_id: written.preserve_external_request_id,
        request_id_in_response: written.always_set_request_id_in_response,
        client_cert: client_cert(written),
        path: path_rules(written),
        strip_host_port: strip_port(written),
        strip_trailing_dot: true,
        via: written.via.as_str().into(),
        refuse_http10: false,
        refuse_underscores: common.headers_with_underscores_action == 1,
        access_log: access_logs(&written.access_log, cx)?,
        tracing: tracing(written, cx)?,
        request_id_reason: request_id_reason(written)?,
    })
}

fn tracing(written: &HttpConnectionManager, cx: RouteContext<'_>) -> Result<Option<Arc<TraceConfig>>, Refusal> {
    let context = LogContext { environment: cx.environment, runtime: cx.runtime };
    let parsed = written.tracing.as_ref().map(|tracing| TraceConfig::parse(tracing, context).within("tracing"));
    Ok(parsed.transpose()?.map(Arc::new))
}

/// `pack_trace_reason` and `use_request_id_for_trace_sampling` (HD-1).
fn request_id_reason(written: &HttpConnectionManager) -> Result<(bool, bool), Refusal> {
    let typed = written.request_id_extension.as_ref().and_then(|extension| extension.typed_config.as_ref());
    let Some(any) = typed else { return Ok((true, true)) };
    let config: UuidRequestIdConfig = proto::any::unpack(any)
        .map_err(|_| Refusal::unsupported(format!("request_id_extension {}", proto::any::type_name(&any.type_url))))?;
    Ok((flag(config.pack_trace_reason.as_ref(), true), flag(config.use_request_id_for_trace_sampling.as_ref(), true)))
}

/// Parses access logs.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn access_logs(
    written: &[proto::envoy::accesslog::AccessLog],
    cx: RouteContext<'_>,
) -> Result<Vec<AccessLog>, Refusal> {
    let context = LogContext { environment: cx.environment, runtime: cx.runtime };
    let parse = |(i, log)| AccessLog::parse(log, context).within(&format!("access_log[{i}]"));
    written.iter().enumerate().map(parse).collect()
}

/// Time for a request's head to arrive where nothing is configured: slow headers end after it (safe default).
const HEAD_TIME: Duration = Duration::from_secs(10);
/// HTTP/2 stream window where nothing is configured (D18: 64 KiB).
const STREAM_WINDOW: u32 = 64 << 10;
/// HTTP/2 connection window where nothing is configured (D18: 1 MiB).
const CONNECTION_WINDOW: u32 = 1 << 20;

/// A duration; zero switches the timer off.
fn timer(written: &wkt::Duration) -> Option<Duration> {
    Some(from_proto(written)).filter(|d| !d.is_zero())
}

fn number(written: Option<&wkt::UInt32Value>, default: u32) -> u32 {
    written.map_or(default, |n| n.value)
}

fn flag(written: Option<&wkt::BoolValue>, default: bool) -> bool {
    written.map_or(default, |b| b.value)
}

fn routes(written: &HttpConnectionManager, cx: RouteContext<'_>) -> Result<Routes, Refusal> {
    match &written.route_specifier {
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = RouteTable::parse(config, cx).within("route_config")?;
            Ok(Routes::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::Rds(rds)) => Ok(Routes::Rds(rds.route_config_name.as_str().into())),
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(Refusal::unsupported("scoped_routes")),
        None => Err(Refusal::new("route_specifier", "route_config or rds is needed")),
    }
}

fn filters(written: &HttpConnectionManager) -> Result<Arc<[Filter]>, Refusal> {
    let mut filters = Vec::new();
    let mut has_router = false;
    for (i, filter) in written.http_filters.iter().enumerate() {
        let field = format!("http_filters[{i}]");
        if filter.disabled {
            continue;
        }
        let typed = match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(any)) => any,
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(Refusal::unsupported(format!("{field}.config_discovery")));
            }
            None => return Err(Refusal::new(format!("{field}.typed_config"), "is needed")),
        };
        match registry::parse(&filter.name, typed) {
            Ok(registry::Parsed::Router) => has_router = true,
            Ok(registry::Parsed::Filter(parsed)) => filters.push(*parsed),
            Err(_) if filter.is_optional => tracing::info!(filter = filter.name, "optional filter left out"),
            Err(refusal) => return Err(refusal.within(&field)),
        }
    }
    if has_router {
        Ok(filters.into())
    } else {
        Err(Refusal::new("http_filters", "the chain must end with envoy.filters.http.router"))
    }
}

fn server(written: &HttpConnectionManager) -> ServerHeader {
    let name = if written.server_name.is_empty() { "envoy" } else { &written.server_name };
    match hcm::ServerHeaderTransformation::try_from(written.server_header_transformation) {
        Ok(hcm::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent(name.into()),
        Ok(hcm::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
        _ => ServerHeader::Overwrite(name.into()),
    }
}

fn client_cert(written: &HttpConnectionManager) -> (ForwardClientCert, CertDetails) {
    let mode = match hcm::ForwardClientCertDetails::try_from(written.forward_client_cert_details) {
        Ok(hcm::ForwardClientCertDetails::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(hcm::ForwardClientCertDetails::AppendForward) => ForwardClientCert::AppendForward,
        Ok(hcm::ForwardClientCertDetails::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(hcm::ForwardClientCertDetails::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        _ => ForwardClientCert::Sanitize,
    };
    let details = written.set_current_client_cert_details.as_ref().map_or_else(CertDetails::default, |d| CertDetails {
        subject: flag(d.subject.as_ref(), false),
        cert: d.cert,
        chain: d.chain,
        dns: d.dns,
        uri: d.uri,
    });
    (mode, details)
}

fn path_rules(written: &HttpConnectionManager) -> PathRules {
    use hcm::PathWithEscapedSlashesAction as Action;
    PathRules {
        normalize: flag(written.normalize_path.as_ref(), false),
        merge_slashes: written.merge_slashes,
        escaped_slashes: match Action::try_from(written.path_with_escaped_slashes_action) {
            Ok(Action::RejectRequest) => EscapedSlashes::Reject,
            Ok(Action::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
            Ok(Action::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
            _ => EscapedSlashes::Keep,
        },
    }
}

fn strip_port(written: &HttpConnectionManager) -> (bool, bool) {
    let any = matches!(written.strip_port_mode, Some(hcm::StripPortMode::StripAnyHostPort(true)));
    (any, written.strip_matching_host_port)
}

#[cfg(test)]
mod tests;
