//! What proxies report: tags of traces, the stats filter, the access log (spec 6, FC-1, FC-2).

use super::message::{list, nested, text};
use super::node::Flavor;
use crate::model::MeshConfig;
use prost::Name;
use proto::any;
use proto::envoy::accesslog::access_log_filter::FilterSpecifier;
use proto::envoy::accesslog::{AccessLog, AccessLogFilter, ResponseFlagFilter, access_log};
use proto::envoy::core::substitution_format_string::Format;
use proto::envoy::core::{DataSource, SubstitutionFormatString, data_source};
use proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use proto::envoy::hcm::HttpConnectionManager;
use proto::envoy::hcm::http_connection_manager::Tracing;
use proto::envoy::type_metadata::metadata_key::{PathSegment, path_segment};
use proto::envoy::type_metadata::{MetadataKey, MetadataKind, metadata_kind};
use proto::envoy::types::Percent;
use proto::envoy::wkt::{Any, Struct, Value};
use proto::istio::mesh_config::AccessLogEncoding;
use proto::missing::{PluginConfig, TypedStruct};
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

/// Who a proxy is in its own reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Canonical name.
    pub service: String,
    /// Canonical revision.
    pub revision: String,
    /// Cluster.
    pub cluster: String,
    /// Mesh.
    pub mesh_id: String,
    /// Namespace.
    pub namespace: String,
}

/// The direction of traffic at a filter chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
    /// Into the mesh.
    Gateway,
}

/// `udpa.type.v1.TypedStruct` of one of Istio's private messages (XT-6).
pub fn typed_struct(type_name: &str, value: Struct) -> Any {
    any::pack(&TypedStruct { type_url: format!("{}{type_name}", proto::type_url::PREFIX), value: Some(value) })
}

/// Configuration of `istio.metadata_exchange` for HTTP (MD-1).
pub fn http_metadata_exchange(direction: Direction) -> Any {
    let empty = || nested([]);
    let discovery = list(vec![nested([("istio_headers", empty())]), nested([("workload_discovery", empty())])]);
    let propagation = list(vec![nested([("istio_headers", empty())])]);
    let fields = match direction {
        Direction::Inbound => [("downstream_discovery", discovery), ("downstream_propagation", propagation)],
        Direction::Outbound | Direction::Gateway => {
            [("upstream_discovery", discovery), ("upstream_propagation", propagation)]
        }
    };
    typed_struct("io.istio.http.peer_metadata.Config", super::message::structure(fields))
}

/// Configuration of `istio.metadata_exchange` for TCP, in listeners and in clusters (MD-3).
pub fn tcp_metadata_exchange() -> Any {
    let on = Value { kind: Some(proto::envoy::wkt::value::Kind::BoolValue(true)) };
    let fields = [("enable_discovery", on), ("protocol", text("istio-peer-exchange"))];
    typed_struct("envoy.tcp.metadataexchange.config.MetadataExchange", super::message::structure(fields))
}

/// Configuration of `istio.stats`, where metrics are on (XT-5).
pub fn stats(mesh: &MeshConfig, flavor: Flavor, direction: Direction) -> Option<Any> {
    if flavor == Flavor::Stock || !mesh.metrics_providers.iter().any(|name| name == "prometheus") {
        return None;
    }
    let reporter = i32::from(direction == Direction::Gateway);
    Some(any::pack(&PluginConfig {
        disable_host_header_fallback: direction != Direction::Outbound,
        reporter,
        ..PluginConfig::default()
    }))
}

/// The access log, where one is on.
pub fn access_log(mesh: &MeshConfig) -> Vec<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    let inline = |text: &str| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
        ..DataSource::default()
    };
    let of_text = |format: &str| {
        any::pack(&FileAccessLog {
            path: mesh.access_log_file.clone(),
            access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
                format: Some(Format::TextFormatSource(inline(format))),
                ..SubstitutionFormatString::default()
            })),
        })
    };
    let file = match mesh.access_log_encoding {
        AccessLogEncoding::Text if mesh.access_log_format.is_empty() => of_text(TEXT_FORMAT),
        AccessLogEncoding::Text => of_text(&mesh.access_log_format),
        AccessLogEncoding::Json => any::pack_as(
            &FileAccessLog::full_name(),
            &JsonAccessLog {
                path: mesh.access_log_file.clone(),
                format: Some(JsonFormat { labels: Some(JsonLabels { all: json_labels(&mesh.access_log_format) }) }),
            },
        ),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(file)),
    }]
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
pub fn listener_access_log(mesh: &MeshConfig) -> Vec<AccessLog> {
    let flags = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    let filter = AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(flags)) };
    access_log(mesh).into_iter().map(|log| AccessLog { filter: Some(filter.clone()), ..log }).collect()
}

/// The user's labels, where the format is a JSON object; Istio's otherwise, with the route's name.
fn json_labels(written: &str) -> BTreeMap<String, Value> {
    let own: Option<BTreeMap<String, String>> = serde_json::from_str(written).ok();
    own.map(|labels| labels.into_iter().map(|(key, value)| (key, text(value))).collect()).unwrap_or_else(|| {
        let all = JSON_FORMAT.iter().copied().chain([("route_name", "%ROUTE_NAME%")]);
        all.map(|(key, value)| (key.to_owned(), text(value))).collect()
    })
}

/// Tags and sampling of traces.
pub fn tracing(mesh: &MeshConfig, identity: &Identity) -> Option<Tracing> {
    use proto::envoy::tracing::{CustomTag, custom_tag};
    if !mesh.enable_tracing {
        return None;
    }
    let policy = |tag: &str, key: &str| CustomTag {
        tag: format!("istio.authorization.dry_run.{tag}"),
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})) }),
            metadata_key: Some(MetadataKey {
                key: "envoy.filters.http.rbac".to_owned(),
                path: vec![PathSegment { segment: Some(path_segment::Segment::Key(format!("istio_dry_run_{key}"))) }],
            }),
            default_value: String::new(),
        })),
    };
    let literal = |tag: &str, value: &str| CustomTag {
        tag: format!("istio.{tag}"),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.to_owned() })),
    };
    let percent = |value: f64| Some(Percent { value });
    Some(Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(1.0),
        overall_sampling: percent(100.0),
        custom_tags: vec![
            policy("allow_policy.name", "allow_shadow_effective_policy_id"),
            policy("allow_policy.result", "allow_shadow_engine_result"),
            policy("deny_policy.name", "deny_shadow_effective_policy_id"),
            policy("deny_policy.result", "deny_shadow_engine_result"),
            literal("canonical_revision", &identity.revision),
            literal("canonical_service", &identity.service),
            literal("cluster_id", &identity.cluster),
            literal("mesh_id", &identity.mesh_id),
            literal("namespace", &identity.namespace),
        ],
        ..Tracing::default()
    })
}

/// Puts traces and access log into a connection manager.
pub fn instrument(manager: &mut HttpConnectionManager, mesh: &MeshConfig, identity: &Identity) {
    manager.tracing = tracing(mesh, identity);
    manager.access_log = access_log(mesh);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logs_have_equal_bytes() {
        let mesh = MeshConfig {
            access_log_file: "/dev/stdout".to_owned(),
            access_log_encoding: AccessLogEncoding::Json,
            ..MeshConfig::default()
        };
        assert_eq!(access_log(&mesh), access_log(&mesh));
    }
}
