//! What a resource refers to: endpoints and secrets of a cluster, routes, secrets and extensions of a listener.

use super::{Kind, Rejection, Resource};
use prost::Message;
use proto::envoy::cluster::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType};
use proto::envoy::core::{
    ConfigSource, ExtensionConfigSource, TransportSocket, config_source::ConfigSourceSpecifier,
    grpc_service::TargetSpecifier, transport_socket,
};
use proto::envoy::hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier, http_filter};
use proto::envoy::listener::{Filter, FilterChain, Listener, filter};
use proto::envoy::tls::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
    common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType,
};
use proto::envoy::wkt::Any;
use std::sync::Arc;

/// Where resources come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The aggregated stream.
    Ads,
    /// The secret service of a named cluster.
    Sds(Arc<str>),
    /// A file.
    File(Arc<str>),
    /// The bootstrap.
    Bootstrap,
    /// This process itself (its own certificate).
    Local,
}

impl Origin {
    /// Whether a server keeps per-resource versions of it.
    pub(super) fn is_server(&self) -> bool {
        matches!(self, Self::Ads | Self::Sds(_))
    }
}

/// A resource that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// Where it is to be asked for.
    pub origin: Origin,
    /// Whether that server speaks the state-of-the-world protocol.
    pub sotw: bool,
}

/// What a resource refers to; a rejection where the source is of a form that the proxy cannot ask.
pub(super) fn of(kind: Kind, resource: &Resource) -> Result<Vec<Need>, Rejection> {
    let found = match kind {
        Kind::Cluster => Cluster::decode(resource.body.clone()).map(|cluster| of_cluster(&cluster)),
        Kind::Listener => Listener::decode(resource.body.clone()).map(|listener| of_listener(&listener)),
        _ => return Ok(Vec::new()),
    };
    let rejection = |field: String, why: String| Rejection {
        kind,
        name: resource.name.clone(),
        field: field.into(),
        why: why.into(),
    };
    match found {
        Ok(Ok(mut needs)) => {
            needs.sort();
            needs.dedup();
            Ok(needs)
        }
        Ok(Err(field)) => Err(rejection(field.clone(), format!("not supported yet: {field}"))),
        Err(error) => Err(rejection(String::new(), format!("malformed: {error}"))),
    }
}

/// The error is the path of the field that is not supported.
type Needs = Result<Vec<Need>, String>;

fn of_cluster(cluster: &Cluster) -> Needs {
    let mut needs = Vec::new();
    if cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()))
        && let Some(eds) = &cluster.eds_cluster_config
    {
        let name = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
        let source = eds.eds_config.as_ref();
        needs.extend(need(Kind::Endpoint, name, source, || "eds_cluster_config.eds_config".to_owned())?);
    }
    if let Some(socket) = &cluster.transport_socket {
        needs.extend(of_upstream_socket(socket, "transport_socket")?);
    }
    for (index, entry) in cluster.transport_socket_matches.iter().enumerate() {
        if let Some(socket) = &entry.transport_socket {
            needs.extend(of_upstream_socket(socket, &format!("transport_socket_matches[{index}].transport_socket"))?);
        }
    }
    Ok(needs)
}

fn of_listener(listener: &Listener) -> Needs {
    let mut needs = Vec::new();
    let chains = listener.filter_chains.iter().enumerate();
    for (path, chain) in chains
        .map(|(index, chain)| (format!("filter_chains[{index}]"), chain))
        .chain(listener.default_filter_chain.iter().map(|chain| ("default_filter_chain".to_owned(), chain)))
    {
        needs.extend(of_chain(chain, &path)?);
    }
    Ok(needs)
}

fn of_chain(chain: &FilterChain, path: &str) -> Needs {
    let mut needs = Vec::new();
    if let Some(any) = typed(chain.transport_socket.as_ref())
        && let Ok(context) = proto::any::unpack::<DownstreamTlsContext>(any)
    {
        let path = format!("{path}.transport_socket");
        if let Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(secret)) = &context.session_ticket_keys_type
        {
            needs.extend(of_secret(secret, &path)?);
        }
        needs.extend(of_common(context.common_tls_context.as_ref(), &path)?);
    }
    for (index, filter) in chain.filters.iter().enumerate() {
        needs.extend(of_filter(filter, &format!("{path}.filters[{index}]"))?);
    }
    Ok(needs)
}

fn of_filter(filter: &Filter, path: &str) -> Needs {
    let any = match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) => any,
        Some(filter::ConfigType::ConfigDiscovery(source)) => return of_extension(&filter.name, source, path),
        None => return Ok(Vec::new()),
    };
    let Ok(hcm) = proto::any::unpack::<HttpConnectionManager>(any) else { return Ok(Vec::new()) };
    let mut needs = Vec::new();
    if let Some(RouteSpecifier::Rds(rds)) = &hcm.route_specifier {
        let at = || format!("{path}.typed_config.rds.config_source");
        needs.extend(need(Kind::Route, &rds.route_config_name, rds.config_source.as_ref(), at)?);
    }
    for (index, http) in hcm.http_filters.iter().enumerate() {
        if let Some(http_filter::ConfigType::ConfigDiscovery(source)) = &http.config_type {
            needs.extend(of_extension(&http.name, source, &format!("{path}.typed_config.http_filters[{index}]"))?);
        }
    }
    Ok(needs)
}

fn of_extension(name: &str, source: &ExtensionConfigSource, path: &str) -> Needs {
    need(Kind::ExtensionConfig, name, source.config_source.as_ref(), || {
        format!("{path}.config_discovery.config_source")
    })
}

fn of_upstream_socket(socket: &TransportSocket, path: &str) -> Needs {
    let context = typed(Some(socket)).and_then(|any| proto::any::unpack::<UpstreamTlsContext>(any).ok());
    of_common(context.as_ref().and_then(|context| context.common_tls_context.as_ref()), path)
}

fn of_common(common: Option<&CommonTlsContext>, path: &str) -> Needs {
    let Some(common) = common else { return Ok(Vec::new()) };
    let mut needs = Vec::new();
    for secret in &common.tls_certificate_sds_secret_configs {
        needs.extend(of_secret(secret, path)?);
    }
    match &common.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => needs.extend(of_secret(secret, path)?),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            if let Some(secret) = &combined.validation_context_sds_secret_config {
                needs.extend(of_secret(secret, path)?);
            }
        }
        _ => {}
    }
    Ok(needs)
}

fn of_secret(secret: &SdsSecretConfig, path: &str) -> Needs {
    need(Kind::Secret, &secret.name, secret.sds_config.as_ref(), || format!("{path}: sds_config of {}", secret.name))
}

fn typed(socket: Option<&TransportSocket>) -> Option<&Any> {
    let transport_socket::ConfigType::TypedConfig(any) = socket?.config_type.as_ref()?;
    Some(any)
}

/// Empty for a source that is the bootstrap itself (a static secret).
fn need(kind: Kind, name: &str, source: Option<&ConfigSource>, path: impl Fn() -> String) -> Needs {
    let Some(specifier) = source.and_then(|source| source.config_source_specifier.as_ref()) else {
        return Ok(Vec::new());
    };
    let (origin, sotw) = match specifier {
        ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) => (Origin::Ads, false),
        ConfigSourceSpecifier::PathConfigSource(file) => (Origin::File(file.path.as_str().into()), true),
        #[expect(deprecated, reason = "old bootstraps still write path")]
        ConfigSourceSpecifier::Path(file) => (Origin::File(file.as_str().into()), true),
        ConfigSourceSpecifier::ApiConfigSource(api) if kind == Kind::Secret => {
            use proto::envoy::core::api_config_source::ApiType;
            let sotw = match ApiType::try_from(api.api_type) {
                Ok(ApiType::Grpc) => true,
                Ok(ApiType::DeltaGrpc) => false,
                Ok(ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc) => {
                    return Ok(vec![Need { kind, name: name.into(), origin: Origin::Ads, sotw: false }]);
                }
                _ => return Err(format!("{}.api_config_source.api_type", path())),
            };
            let service = api.grpc_services.first().and_then(|service| service.target_specifier.as_ref());
            let Some(TargetSpecifier::EnvoyGrpc(grpc)) = service else {
                return Err(format!("{}.api_config_source.grpc_services: one envoy_grpc", path()));
            };
            (Origin::Sds(grpc.cluster_name.as_str().into()), sotw)
        }
        ConfigSourceSpecifier::ApiConfigSource(_) => return Err(format!("{}.api_config_source", path())),
    };
    Ok(vec![Need { kind, name: name.into(), origin, sotw }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(type_name: &str, json: serde_json::Value) -> Resource {
        let body = proto::json::from_value(type_name, &json).unwrap();
        Resource { name: "r".into(), version: "1".into(), body: body.into() }
    }

    fn list(needs: &[Need]) -> Vec<String> {
        needs.iter().map(|need| format!("{} {} {:?}", need.kind.short_name(), need.name, need.origin)).collect()
    }

    #[test]
    fn clusters_need_endpoints_and_secrets() {
        let sds = |name: &str| {
            serde_json::json!({"name": name, "sds_config": {"api_config_source": {"api_type": "GRPC",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}})
        };
        let cluster = resource(
            "envoy.config.cluster.v3.Cluster",
            serde_json::json!({"name": "c", "type": "EDS", "eds_cluster_config": {"service_name": "s", "eds_config": {"ads": {}}},
                "transport_socket_matches": [{"name": "m", "transport_socket": {"name": "tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {"tls_certificate_sds_secret_configs": [sds("default")],
                        "combined_validation_context": {"default_validation_context": {},
                            "validation_context_sds_secret_config": sds("ROOTCA")}}}}}]}),
        );
        let needs = of(Kind::Cluster, &cluster).unwrap();
        let expected = ["EDS s Ads", "SDS ROOTCA Sds(\"sds-grpc\")", "SDS default Sds(\"sds-grpc\")"];
        assert_eq!(list(&needs), expected);
        assert!(needs[1].sotw);
    }

    #[test]
    fn listeners_need_routes_and_a_source_that_cannot_be_asked_is_named() {
        let listener = |source: serde_json::Value| {
            resource(
                "envoy.config.listener.v3.Listener",
                serde_json::json!({"name": "l", "filter_chains": [{"filters": [{
                "name": "http", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "rds": {"route_config_name": "80", "config_source": source}}}]}]}),
            )
        };
        let needs = of(Kind::Listener, &listener(serde_json::json!({"ads": {}}))).unwrap();
        assert_eq!(list(&needs), ["RDS 80 Ads"]);
        let refused =
            of(Kind::Listener, &listener(serde_json::json!({"api_config_source": {"api_type": "REST"}}))).unwrap_err();
        assert_eq!(&*refused.field, "filter_chains[0].filters[0].typed_config.rds.config_source.api_config_source");
    }
}
