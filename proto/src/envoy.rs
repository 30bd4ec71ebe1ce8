//! Short names for the parts of Envoy's v3 API that the mesh uses.
//!
//! `envoy::core::Node` is `envoy.config.core.v3.Node`; extensions live under the name of the extension.

pub use envoy_types::pb::google::protobuf as wkt;
pub use envoy_types::pb::google::rpc::Status as RpcStatus;

pub use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
pub use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation_rules;
pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
pub use envoy_types::pb::envoy::config::metrics::v3 as metrics;
pub use envoy_types::pb::envoy::config::ratelimit::v3 as ratelimit_config;
pub use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub use envoy_types::pb::envoy::config::route::v3 as route;
pub use envoy_types::pb::envoy::config::trace::v3 as trace;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::envoy::r#type::metadata::v3 as type_metadata;
pub use envoy_types::pb::envoy::r#type::tracing::v3 as tracing;
pub use envoy_types::pb::envoy::r#type::v3 as types;

pub use envoy_types::pb::envoy::admin::v3 as admin;
pub use envoy_types::pb::envoy::data::accesslog::v3 as log_entry;
pub use envoy_types::pb::envoy::service::accesslog::v3 as accesslog_service;
pub use envoy_types::pb::envoy::service::auth::v3 as auth;
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use envoy_types::pb::envoy::service::rate_limit_quota::v3 as rate_limit_quota;
pub use envoy_types::pb::envoy::service::ratelimit::v3 as ratelimit;
pub use envoy_types::pb::envoy::service::secret::v3 as secret_service;
pub use envoy_types::pb::envoy::service::status::v3 as status;

pub use envoy_types::pb::envoy::extensions;
pub use envoy_types::pb::envoy::extensions::filters::http as http_filters;
pub use envoy_types::pb::envoy::extensions::filters::listener as listener_filters;
pub use envoy_types::pb::envoy::extensions::filters::network as network_filters;
pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy_types::pb::opentelemetry::proto::common::v1 as otlp_common;
pub use envoy_types::pb::xds;
