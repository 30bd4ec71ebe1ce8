//! What proxies report: which metrics, the exchange of metadata, and for each side of a request who is told (spec 6, FC-1,
//! FC-2, 1.10).
//!
//! - `access_log.rs`: access logs by provider
//! - `tracing.rs`: traces by provider
//!
//! Knows what holds for a workload. Must never know how it came to hold.

mod access_log;
mod tracing;

pub use access_log::{Entries, access_log, listener_access_log};

use super::inputs::Owner;
use super::message::{list, nested, text};
use super::names;
use super::node::Flavor;
use crate::model::Mesh;
use crate::model::proxy_config::ProxyConfig;
use crate::model::telemetry::{Defaults, Effective, Side};
use proto::any;
use proto::duration::to_proto;
use proto::envoy::core::{GrpcService, grpc_service};
use proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::envoy::hcm::{HttpConnectionManager, RequestIdExtension};
use proto::envoy::wkt::{Any, BoolValue, Struct, Value};
use proto::missing::{MetricConfig, PluginConfig, TypedStruct};
use std::collections::BTreeMap;

/// Number of Istio's metrics.
const METRICS: usize = 10;

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

/// What a workload reports of both sides of a request (spec 1.10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reports {
    /// Where it asks.
    pub client: Effective,
    /// Where it is asked.
    pub server: Effective,
    /// Whether mixer is told of failed requests, whatever the logs are.
    pub failures: bool,
}

impl Reports {
    /// What holds for a workload. A provider whose service is not in the mesh is passed over: an Envoy refuses a
    /// listener that names a cluster that is not there.
    pub fn of(namespace: &str, labels: &BTreeMap<String, String>, proxy: &ProxyConfig, mesh: &Mesh) -> Self {
        let config = &mesh.config;
        let defaults = Defaults {
            logs: &config.log_providers,
            tracing: config.trace_provider.as_ref(),
            enable_tracing: config.enable_tracing,
            sampling: proxy.sampling.unwrap_or(config.sampling),
            metrics: &config.metrics_providers,
        };
        let usable = |name: &String| match config.providers.iter().find(|provider| provider.name == *name) {
            None => true,
            Some(provider) => provider.service().is_none_or(|service| is_served(service, mesh)),
        };
        let side = |side| {
            let mut effective = mesh.telemetry.effective((namespace, labels), side, &defaults);
            effective.logs.retain(|log| usable(&log.provider));
            if let Some(tracing) = &mut effective.tracing {
                tracing.provider.take_if(|name| !usable(name));
            }
            effective
        };
        let mixer = config.report_server.as_ref();
        let failures = mixer.is_some_and(|(host, port)| is_served((host, *port), mesh));
        Self { client: side(Side::Client), server: side(Side::Server), failures }
    }

    /// What is reported at a filter chain.
    pub fn at(&self, direction: Direction) -> &Effective {
        match direction {
            Direction::Inbound => &self.server,
            Direction::Outbound | Direction::Gateway => &self.client,
        }
    }
}

/// Whether a service of the mesh serves this port.
pub fn is_served((host, port): (&str, u16), mesh: &Mesh) -> bool {
    let host = host_of(host);
    mesh.services
        .iter()
        .any(|service| *service.key.host == *host && service.ports.iter().any(|declared| declared.number == port))
}

/// The host of `NAMESPACE/HOST`.
pub fn host_of(service: &str) -> &str {
    service.rsplit('/').next().unwrap_or(service)
}

/// Configuration of `istio.stats`, where metrics are on (XT-5).
pub fn stats(owner: &Owner, direction: Direction) -> Option<Any> {
    let effective = owner.reports.at(direction);
    if owner.flavor == Flavor::Stock || !effective.metrics.iter().any(|name| name == "prometheus") {
        return None;
    }
    // istiod has no filter where all is disabled
    if effective.changes.len() == METRICS && effective.changes.values().all(|change| change.disabled) {
        return None;
    }
    let metrics = effective.changes.iter().map(|(name, change)| MetricConfig {
        name: (*name).to_owned(),
        drop: change.disabled,
        dimensions: change.tags.iter().filter_map(|(tag, text)| Some((tag.clone(), text.clone()?))).collect(),
        tags_to_remove: change.tags.iter().filter(|(_, text)| text.is_none()).map(|(tag, _)| tag.clone()).collect(),
        ..MetricConfig::default()
    });
    let reporter = i32::from(direction == Direction::Gateway);
    Some(any::pack(&PluginConfig {
        disable_host_header_fallback: direction != Direction::Outbound,
        reporter,
        metrics: metrics.collect(),
        tcp_reporting_duration: effective.reporting_interval.map(to_proto),
    }))
}

/// A service of the mesh as Envoy calls it.
pub fn grpc_service((host, port): (&str, u16)) -> GrpcService {
    let host = host_of(host);
    GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: names::outbound(port, "", host),
            authority: host.to_owned(),
            ..grpc_service::EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    }
}

/// Puts traces and access log into a connection manager.
pub fn instrument(manager: &mut HttpConnectionManager, owner: &Owner, direction: Direction) {
    manager.tracing = tracing::tracing(owner, direction);
    manager.access_log = access_log(owner, direction, Entries::Requests);
    let by_id = owner.reports.at(direction).tracing.as_ref().is_none_or(|tracing| tracing.by_request_id);
    manager.request_id_extension = Some(RequestIdExtension {
        typed_config: Some(any::pack(&UuidRequestIdConfig {
            use_request_id_for_trace_sampling: Some(BoolValue { value: by_id }),
            ..UuidRequestIdConfig::default()
        })),
    });
}
