//! Access logs: where each provider wants them, and in which form (AL-1, AL-2, TL-4, TL-6).

use super::super::inputs::Owner;
use super::super::message::text;
use super::super::node::Flavor;
use super::{Direction, grpc_service};
use crate::model::MeshConfig;
use prost::Name;
use proto::any;
use proto::envoy::accesslog::access_log_filter::FilterSpecifier;
use proto::envoy::accesslog::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, access_log, extension_filter,
};
use proto::envoy::core::substitution_format_string::Format;
use proto::envoy::core::{ApiVersion, DataSource, SubstitutionFormatString, data_source};
use proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use proto::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use proto::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use proto::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use proto::envoy::otlp_common::{AnyValue, KeyValue, KeyValueList, any_value};
use proto::envoy::wkt::{Any, Value};
use proto::istio::mesh_config::AccessLogEncoding;
use proto::wire::{LOG_FAILURES, LOG_REQUESTS};
use std::collections::BTreeMap;

/// Istio's standard access log line (AL-1).
const TEXT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The same as JSON (AL-2).
const JSON_FORMAT: [(&str, &str); 23] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
];

/// Requests that failed, and those without any answer.
const FAILED: &str = "response.code >= 400 || response.code == 0";
/// State of a stream that says who both sides are.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];
/// Envoy's logger of requests to a service.
const HTTP_GRPC: &str = "envoy.access_loggers.http_grpc";

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// Requests.
    Requests,
    /// Connections.
    Connections,
}

/// The access logs at a filter chain.
pub fn access_log(owner: &Owner, direction: Direction, entries: Entries) -> Vec<AccessLog> {
    let logs = owner.reports.at(direction).logs.iter();
    let written = logs.filter_map(|log| {
        let (name, config) = sink(&owner.mesh, &log.provider, entries)?;
        Some(AccessLog {
            name: name.to_owned(),
            filter: log.filter.as_deref().map(expression),
            config_type: Some(access_log::ConfigType::TypedConfig(config)),
        })
    });
    written.chain((entries == Entries::Requests).then(|| failures(owner)).flatten()).collect()
}

/// What mixer is told beside the logs that anybody wants: failed requests with their reasons; of a proxy that does not
/// count for itself all requests, which mixer counts.
fn failures(owner: &Owner) -> Option<AccessLog> {
    let (host, port) = owner.mesh.report_server.as_ref().filter(|_| owner.reports.failures)?;
    let (name, filter) = match owner.flavor {
        Flavor::Stock => (LOG_REQUESTS, None),
        Flavor::Istio | Flavor::Grpc => (LOG_FAILURES, Some(expression(FAILED))),
    };
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(common((host, *port), name, name, &PEERS.map(str::to_owned))),
        ..HttpGrpcAccessLogConfig::default()
    };
    Some(AccessLog {
        name: HTTP_GRPC.to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(any::pack(&config))),
    })
}

/// A filter by an expression in CEL (TL-4).
fn expression(text: &str) -> AccessLogFilter {
    let filter = ExpressionFilter { expression: text.to_owned(), ..ExpressionFilter::default() };
    AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(any::pack(&filter))),
        })),
    }
}

/// Name and configuration of the logger of a provider; none where it takes no such entries (TL-6).
fn sink(mesh: &MeshConfig, provider: &str, entries: Entries) -> Option<(&'static str, Any)> {
    const FILE: &str = "envoy.access_loggers.file";
    let Some(written) = mesh.providers.iter().find(|known| known.name == provider) else {
        let json = mesh.access_log_encoding == AccessLogEncoding::Json;
        let format = &*mesh.access_log_format;
        return Some((
            FILE,
            if json {
                json_file(&mesh.access_log_file, &labels_of(format))
            } else {
                text_file(&mesh.access_log_file, format)
            },
        ));
    };
    if let Some(file) = &written.envoy_file_access_log {
        let path = if file.path.is_empty() { "/dev/stdout" } else { &file.path };
        let format = file.log_format.clone().unwrap_or_default();
        return Some((
            FILE,
            match format.labels {
                Some(labels) => json_file(path, &labels),
                None => text_file(path, format.text.as_deref().unwrap_or_default()),
            },
        ));
    }
    if let Some(als) = written.envoy_http_als.as_ref().filter(|_| entries == Entries::Requests) {
        let config = HttpGrpcAccessLogConfig {
            common_config: Some(common(
                (&als.service, als.port),
                &als.log_name,
                "http_envoy_accesslog",
                &als.filter_state_objects_to_log,
            )),
            additional_request_headers_to_log: als.additional_request_headers_to_log.clone(),
            additional_response_headers_to_log: als.additional_response_headers_to_log.clone(),
            additional_response_trailers_to_log: als.additional_response_trailers_to_log.clone(),
        };
        return Some((HTTP_GRPC, any::pack(&config)));
    }
    if let Some(als) = written.envoy_tcp_als.as_ref().filter(|_| entries == Entries::Connections) {
        let common =
            common((&als.service, als.port), &als.log_name, "tcp_envoy_accesslog", &als.filter_state_objects_to_log);
        return Some((
            "envoy.access_loggers.tcp_grpc",
            any::pack(&TcpGrpcAccessLogConfig { common_config: Some(common) }),
        ));
    }
    let als = written.envoy_otel_als.as_ref()?;
    let format = als.log_format.clone().unwrap_or_default();
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    let labels = format.labels.unwrap_or_default();
    let config = OpenTelemetryAccessLogConfig {
        #[expect(deprecated, reason = "the field that Envoy and Istio use until today")]
        common_config: Some(common((&als.service, als.port), &als.log_name, "otel_envoy_accesslog", &[])),
        body: Some(text(format.text.as_deref().unwrap_or(TEXT_FORMAT))),
        attributes: (!labels.is_empty()).then(|| KeyValueList {
            values: labels
                .iter()
                .map(|(key, value)| KeyValue { key: key.clone(), value: Some(text(value)), ..KeyValue::default() })
                .collect(),
        }),
        ..OpenTelemetryAccessLogConfig::default()
    };
    Some(("envoy.access_loggers.open_telemetry", any::pack(&config)))
}

fn common(service: (&str, u16), name: &str, default_name: &str, filter_state: &[String]) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: if name.is_empty() { default_name } else { name }.to_owned(),
        grpc_service: Some(grpc_service(service)),
        transport_api_version: ApiVersion::V3.into(),
        filter_state_objects_to_log: filter_state.to_vec(),
        ..CommonGrpcAccessLogConfig::default()
    }
}

fn text_file(path: &str, format: &str) -> Any {
    let text = if format.is_empty() { TEXT_FORMAT } else { format };
    let inline =
        DataSource { specifier: Some(data_source::Specifier::InlineString(text.to_owned())), ..DataSource::default() };
    any::pack(&FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(Format::TextFormatSource(inline)),
            ..SubstitutionFormatString::default()
        })),
    })
}

fn json_file(path: &str, labels: &BTreeMap<String, String>) -> Any {
    let all = labels.iter().map(|(key, value)| (key.clone(), text(value.clone()))).collect();
    any::pack_as(
        &FileAccessLog::full_name(),
        &JsonAccessLog { path: path.to_owned(), format: Some(JsonFormat { labels: Some(JsonLabels { all }) }) },
    )
}

/// A `FileAccessLog` whose labels are encoded in order: with the `HashMap` of the generated type, every restart of
/// pilot would be a new version of every listener.
#[derive(Clone, PartialEq, prost::Message)]
struct JsonAccessLog {
    #[prost(string, tag = "1")]
    path: String,
    /// A `SubstitutionFormatString`.
    #[prost(message, optional, tag = "5")]
    format: Option<JsonFormat>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct JsonFormat {
    /// A `Struct`.
    #[prost(message, optional, tag = "2")]
    labels: Option<JsonLabels>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct JsonLabels {
    #[prost(btree_map = "string, message", tag = "1")]
    all: BTreeMap<String, Value>,
}

/// The log of a whole listener: connections that no chain wants.
pub fn listener_access_log(owner: &Owner, direction: Direction) -> Vec<AccessLog> {
    let flags = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    let filter = AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(flags)) };
    let both = |own: Option<AccessLogFilter>| match own {
        None => filter.clone(),
        Some(own) => AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::AndFilter(AndFilter { filters: vec![filter.clone(), own] })),
        },
    };
    let logs = access_log(owner, direction, Entries::Connections);
    logs.into_iter().map(|log| AccessLog { filter: Some(both(log.filter)), ..log }).collect()
}

/// The user's labels, where the format is a JSON object; Istio's otherwise, with the route's name.
fn labels_of(written: &str) -> BTreeMap<String, String> {
    let own: Option<BTreeMap<String, String>> = serde_json::from_str(written).ok();
    own.unwrap_or_else(|| {
        let all = JSON_FORMAT.iter().copied().chain([("route_name", "%ROUTE_NAME%")]);
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    })
}
