//! Which HTTP a cluster speaks (DR-29, DR-30).

use super::super::inputs::ClusterInput;
use super::super::message::uint;
use super::super::node::Role;
use super::super::policy::Policy;
use crate::registry::Protocol;
use proto::any;
use proto::envoy::cluster::Cluster;
use proto::envoy::core::{Http1ProtocolOptions, Http2ProtocolOptions, UpstreamHttpProtocolOptions};
use proto::envoy::upstream_http::HttpProtocolOptions;
use proto::envoy::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::envoy::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use proto::istio::destination_rule::H2UpgradePolicy;

/// The key of HTTP options in a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn http1() -> Option<Http1ProtocolOptions> {
    Some(Http1ProtocolOptions::default())
}

fn http2() -> Http2ProtocolOptions {
    Http2ProtocolOptions::default()
}

pub(super) fn use_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: http1(),
        http2_protocol_options: Some(http2()),
        http3_protocol_options: None,
    })
}

pub(super) fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

/// The protocol towards the service: as declared, upgraded, or as the client speaks (DR-29, DR-30).
pub(super) fn options(policy: &Policy, input: &ClusterInput) -> HttpProtocolOptions {
    let protocol = input.part.protocol();
    let http = policy.pool.as_ref().and_then(|pool| pool.http.as_ref());
    let mut options = HttpProtocolOptions::default();
    let max_streams = http.and_then(|http| http.max_concurrent_streams).and_then(uint);
    let h2 = || Http2ProtocolOptions { max_concurrent_streams: max_streams, ..http2() };
    // Who asks for the upgrade of one destination knows what it speaks; the mesh's setting is for declared HTTP.
    let upgrade = match http.and_then(|http| http.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => input.mesh.h2_upgrade && protocol.is_http(),
    };
    let sniffed = protocol == Protocol::Sniff && input.role == Role::Sidecar;
    options.upstream_protocol_options = if http.and_then(|http| http.use_client_protocol) == Some(true) {
        Some(use_downstream())
    } else if protocol.is_http2() || upgrade {
        Some(explicit(ProtocolConfig::Http2ProtocolOptions(h2())))
    } else if sniffed {
        Some(use_downstream())
    } else {
        None
    };
    options
}

pub(super) fn set(cluster: &mut Cluster, mut http: HttpProtocolOptions) {
    if http == HttpProtocolOptions::default() {
        return;
    }
    http.upstream_protocol_options
        .get_or_insert_with(|| explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())));
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any::pack(&http));
}

pub(super) fn auto_sni(http: &mut HttpProtocolOptions, check_name: bool) {
    http.upstream_http_protocol_options = Some(UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: check_name,
        ..UpstreamHttpProtocolOptions::default()
    });
    http.upstream_protocol_options
        .get_or_insert_with(|| explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())));
}
