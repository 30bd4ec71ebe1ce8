//! Traces: tags, sampling, and the collector of each provider (TL-5, TL-6, TR-2, TR-4).

use super::super::inputs::Owner;
use super::super::message::duration;
use super::super::names;
use super::{Direction, Identity, grpc_service, host_of};
use proto::any;
use proto::envoy::core::http_uri::HttpUpstreamType;
use proto::envoy::core::{HttpService, HttpUri};
use proto::envoy::hcm::http_connection_manager::Tracing;
use proto::envoy::trace::zipkin_config::CollectorEndpointVersion;
use proto::envoy::trace::{OpenTelemetryConfig, ZipkinConfig, tracing};
use proto::envoy::tracing::{CustomTag, custom_tag};
use proto::envoy::type_metadata::metadata_key::{PathSegment, path_segment};
use proto::envoy::type_metadata::{MetadataKey, MetadataKind, metadata_kind};
use proto::envoy::types::Percent;
use proto::envoy::wkt::{BoolValue, UInt32Value};
use proto::istio::provider::{ExtensionProvider, TraceContext};
use proto::istio::telemetry::CustomTag as WrittenTag;

/// Tags and sampling of traces, and who is told of them (TL-5).
pub(super) fn tracing(owner: &Owner, direction: Direction) -> Option<Tracing> {
    let effective = owner.reports.at(direction).tracing.as_ref()?;
    let identity = &owner.identity;
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
    let mut custom_tags = vec![
        policy("allow_policy.name", "allow_shadow_effective_policy_id"),
        policy("allow_policy.result", "allow_shadow_engine_result"),
        policy("deny_policy.name", "deny_shadow_effective_policy_id"),
        policy("deny_policy.result", "deny_shadow_engine_result"),
    ];
    if effective.istio_tags {
        custom_tags.extend([
            literal("canonical_revision", &identity.revision),
            literal("canonical_service", &identity.service),
            literal("cluster_id", &identity.cluster),
            literal("mesh_id", &identity.mesh_id),
            literal("namespace", &identity.namespace),
        ]);
    }
    custom_tags.extend(effective.tags.iter().map(|(name, tag)| custom_tag_of(name, tag)));
    let percent = |value: f64| Some(Percent { value });
    let provider = effective.provider.as_deref().filter(|_| !effective.no_reports);
    let provider = provider.and_then(|name| owner.mesh.providers.iter().find(|known| known.name == name));
    Some(Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(f64::from(effective.sampling) / 100.0),
        overall_sampling: percent(100.0),
        max_path_tag_length: provider.and_then(max_tag_length).map(|value| UInt32Value { value }),
        provider: provider.and_then(|provider| tracer(provider, identity)),
        spawn_upstream_span: (provider.is_some() && direction == Direction::Gateway)
            .then_some(BoolValue { value: true }),
        custom_tags,
        ..Tracing::default()
    })
}

fn custom_tag_of(name: &str, written: &WrittenTag) -> CustomTag {
    let value = match (&written.literal, &written.environment, &written.header, &written.formatter) {
        (Some(literal), ..) => custom_tag::Type::Literal(custom_tag::Literal { value: literal.value.clone() }),
        (_, Some(variable), ..) => custom_tag::Type::Environment(custom_tag::Environment {
            name: variable.name.clone(),
            default_value: variable.default_value.clone(),
        }),
        (_, _, Some(header), _) => custom_tag::Type::RequestHeader(custom_tag::Header {
            name: header.name.clone(),
            default_value: header.default_value.clone(),
        }),
        (_, _, _, formatter) => {
            custom_tag::Type::Value(formatter.as_ref().map(|made| made.value.clone()).unwrap_or_default())
        }
    };
    CustomTag { tag: name.to_owned(), r#type: Some(value) }
}

fn max_tag_length(provider: &ExtensionProvider) -> Option<u32> {
    let zipkin = provider.zipkin.as_ref().and_then(|zipkin| zipkin.max_tag_length);
    zipkin.or_else(|| provider.opentelemetry.as_ref()?.max_tag_length)
}

/// The collector of a provider.
fn tracer(provider: &ExtensionProvider, identity: &Identity) -> Option<tracing::Http> {
    let (name, config) = if let Some(zipkin) = &provider.zipkin {
        let both = zipkin.trace_context_option == TraceContext::UseB3WithW3cPropagation;
        let host = host_of(&zipkin.service);
        let config = ZipkinConfig {
            collector_cluster: names::outbound(zipkin.port, "", host),
            collector_endpoint: if zipkin.path.is_empty() { "/api/v2/spans".to_owned() } else { zipkin.path.clone() },
            trace_id_128bit: !zipkin.enable_64bit_trace_id,
            shared_span_context: Some(BoolValue { value: false }),
            collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
            collector_hostname: host.to_owned(),
            trace_context_option: i32::from(both),
            ..ZipkinConfig::default()
        };
        ("envoy.tracers.zipkin", any::pack(&config))
    } else {
        let otlp = provider.opentelemetry.as_ref()?;
        let service = (otlp.service.as_str(), otlp.port);
        let http = otlp.http.as_ref().map(|http| HttpService {
            http_uri: Some(HttpUri {
                uri: format!("http://{}{}", host_of(&otlp.service), http.path),
                timeout: duration(http.timeout.map_or(std::time::Duration::from_secs(10), |limit| limit.0)),
                http_upstream_type: Some(HttpUpstreamType::Cluster(names::outbound(
                    otlp.port,
                    "",
                    host_of(&otlp.service),
                ))),
            }),
            ..HttpService::default()
        });
        let config = OpenTelemetryConfig {
            grpc_service: http.is_none().then(|| grpc_service(service)),
            http_service: http,
            service_name: format!("{}.{}", identity.service, identity.namespace),
            ..OpenTelemetryConfig::default()
        };
        ("envoy.tracers.opentelemetry", any::pack(&config))
    };
    Some(tracing::Http { name: name.to_owned(), config_type: Some(tracing::http::ConfigType::TypedConfig(config)) })
}
