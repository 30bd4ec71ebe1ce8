//! The HTTP connection manager and its filters (FC-1, FC-4).

use super::super::authz;
use super::super::custom::{self, Judge};
use super::super::fault;
use super::super::inputs::Owner;
use super::super::message::{ads, boolean, duration};
use super::super::node::Flavor;
use super::super::rate_limit;
use super::super::telemetry::{self, Direction};
use super::super::tokens;
use super::chain;
use crate::model::Shared;
use crate::model::authz::AuthorizationPolicy;
use crate::model::proxy_config::ClientCert;
use crate::model::rate_limit::RateLimit;
use crate::model::request_authn::RequestAuthentication;
use proto::any;
use proto::envoy::hcm::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
};
use proto::envoy::hcm::{HttpConnectionManager, HttpFilter, Rds, http_filter};
use proto::envoy::http_filters as filters;
use proto::envoy::listener::Filter;
use proto::envoy::route::RouteConfiguration;
use proto::envoy::wkt::Any;
use proto::istio::mesh_config::NormalizationType;
use proto::missing::{AlpnFilterConfig, AlpnOverride};
use std::time::Duration;

/// What a connection manager is made for.
pub struct Manager<'a> {
    /// Direction of its traffic.
    pub direction: Direction,
    /// Prefix of its statistics, without the delimiter.
    pub stat_prefix: String,
    /// Name of the routes to ask for; none where they are inline.
    pub routes: Result<String, RouteConfiguration>,
    /// Who may do what.
    pub authz: &'a [Shared<AuthorizationPolicy>],
    /// Who decides where CUSTOM policies say so.
    pub judges: &'a [Judge],
    /// Whose tokens of end users are believed.
    pub tokens: &'a [Shared<RequestAuthentication>],
    /// What is counted.
    pub limits: &'a [Shared<RateLimit>],
    /// Requests may be gRPC-Web.
    pub grpc_web: bool,
    /// Whose it is.
    pub owner: &'a Owner,
}

/// An HTTP filter.
pub fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

/// ALPN by protocol of the request, so that the server's proxy knows what comes (MT-1).
fn alpn() -> AlpnFilterConfig {
    let names = ["http/1.0", "http/1.1", "h2"];
    let line = |(index, name): (usize, &str)| AlpnOverride {
        upstream_protocol: i32::try_from(index).unwrap_or(0),
        alpn_override: vec![format!("istio-{name}"), "istio".to_owned(), name.to_owned()],
    };
    AlpnFilterConfig { alpn_override: names.into_iter().enumerate().map(line).collect() }
}

impl Manager<'_> {
    /// The filters in the order that users rely on (FC-1).
    fn filters(&self) -> Vec<HttpFilter> {
        let istio = self.owner.flavor == Flavor::Istio;
        let mut out = Vec::new();
        if istio {
            out.push(http_filter("istio.metadata_exchange", telemetry::http_metadata_exchange(self.direction)));
        }
        if let Some(config) = authz::check(&self.owner.mesh).filter(|_| self.direction == Direction::Inbound) {
            out.push(http_filter("envoy.filters.http.ext_authz", config));
        }
        for (name, config) in custom::filters(self.authz, self.judges, authz::Protocol::Http, &self.owner.mesh) {
            out.push(http_filter(name, config));
        }
        if let Some(config) = tokens::filter(self.tokens, self.direction) {
            out.push(http_filter("envoy.filters.http.jwt_authn", config));
        }
        for config in authz::filters(self.authz, authz::Protocol::Http, &self.owner.mesh) {
            out.push(http_filter("envoy.filters.http.rbac", config));
        }
        for (name, config) in rate_limit::filters(self.limits, &self.owner.mesh) {
            out.push(http_filter(name, config));
        }
        if self.grpc_web {
            out.push(http_filter("envoy.filters.http.grpc_web", any::pack(&filters::grpc_web::v3::GrpcWeb {})));
        }
        let grpc_stats = filters::grpc_stats::v3::FilterConfig {
            emit_filter_state: true,
            per_method_stat_specifier: Some(
                filters::grpc_stats::v3::filter_config::PerMethodStatSpecifier::StatsForAllMethods(
                    proto::envoy::wkt::BoolValue { value: false },
                ),
            ),
            ..Default::default()
        };
        out.push(http_filter("envoy.filters.http.grpc_stats", any::pack(&grpc_stats)));
        if istio && self.direction != Direction::Inbound {
            out.push(http_filter("istio.alpn", any::pack(&alpn())));
        }
        out.push(http_filter("envoy.filters.http.fault", fault::none()));
        out.push(http_filter("envoy.filters.http.cors", any::pack(&filters::cors::v3::Cors {})));
        if let Some(config) = telemetry::stats(self.owner, self.direction) {
            out.push(http_filter("istio.stats", config));
        }
        out.push(http_filter("envoy.filters.http.router", any::pack(&filters::router::v3::Router::default())));
        out
    }

    /// The network filter.
    pub fn build(self) -> Filter {
        let mut manager = HttpConnectionManager {
            stat_prefix: format!("{};", self.stat_prefix),
            http_filters: self.filters(),
            use_remote_address: boolean(self.direction == Direction::Gateway),
            proxy_100_continue: true,
            stream_idle_timeout: duration(Duration::ZERO),
            upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
            ..HttpConnectionManager::default()
        };
        normalize(&mut manager, self.owner.mesh.path_normalization);
        telemetry::instrument(&mut manager, self.owner, self.direction);
        if self.direction != Direction::Outbound {
            manager.server_name = "istio-envoy".to_owned();
            let gateway = self.direction == Direction::Gateway;
            let default =
                if gateway { ForwardClientCertDetails::SanitizeSet } else { ForwardClientCertDetails::AppendForward };
            let details = self.owner.topology.client_cert.map_or(default, client_cert);
            manager.forward_client_cert_details = details.into();
            manager.xff_num_trusted_hops = self.owner.topology.trusted_proxies;
            manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                subject: boolean(true),
                dns: true,
                uri: true,
                cert: gateway,
                ..SetCurrentClientCertDetails::default()
            });
            manager.http_protocol_options = gateway.then(Default::default);
        }
        manager.route_specifier = Some(match self.routes {
            Ok(name) => RouteSpecifier::Rds(Rds { config_source: ads(), route_config_name: name }),
            Err(inline) => RouteSpecifier::RouteConfig(inline),
        });
        chain::filter("envoy.filters.network.http_connection_manager", any::pack(&manager))
    }
}

fn client_cert(details: ClientCert) -> ForwardClientCertDetails {
    match details {
        ClientCert::Sanitize => ForwardClientCertDetails::Sanitize,
        ClientCert::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        ClientCert::AppendForward => ForwardClientCertDetails::AppendForward,
        ClientCert::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        ClientCert::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}

/// How paths are made plain (AZ-21).
fn normalize(manager: &mut HttpConnectionManager, degree: NormalizationType) {
    manager.normalize_path = boolean(degree != NormalizationType::None);
    manager.merge_slashes =
        matches!(degree, NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes);
    let action = if degree == NormalizationType::DecodeAndMergeSlashes {
        PathWithEscapedSlashesAction::UnescapeAndForward
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    manager.path_with_escaped_slashes_action = action.into();
}
