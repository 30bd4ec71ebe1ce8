//! Listeners of gRPC clients and servers: a connection manager with the filters that gRPC has.

use super::super::fault;
use super::super::listener::manager::http_filter;
use super::super::matcher::everything;
use super::super::message::{address, ads, boolean};
use super::super::tls;
use super::super::{authz, custom};
use super::inputs::{GrpcListenerInput, GrpcServerInput};
use crate::model::authn::Mode;
use proto::any;
use proto::envoy::core::TrafficDirection;
use proto::envoy::hcm::http_connection_manager::RouteSpecifier;
use proto::envoy::hcm::{HttpConnectionManager, HttpFilter, Rds};
use proto::envoy::http_filters as filters;
use proto::envoy::listener::{ApiListener, Filter, FilterChain, Listener, filter};
use proto::envoy::route::{NonForwardingAction, Route, RouteConfiguration, VirtualHost, route};

/// What stands before the address in the name of a server's listener; clients' bootstraps have it from Istio's agent.
const SERVER_PREFIX: &str = "xds.istio.io/grpc/lds/inbound/";

fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", any::pack(&filters::router::v3::Router::default()))
}

/// The listener of a client: where its routes are.
pub fn client(input: &GrpcListenerInput) -> Listener {
    let manager = HttpConnectionManager {
        http_filters: vec![http_filter("envoy.filters.http.fault", fault::none()), router()],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: ads(),
            route_config_name: input.routes.clone(),
        })),
        ..HttpConnectionManager::default()
    };
    Listener {
        name: input.name.clone(),
        api_listener: Some(ApiListener { api_listener: Some(any::pack(&manager)) }),
        ..Listener::default()
    }
}

/// The listener of a server: which connections it takes, and who may call what.
pub fn server(input: &GrpcServerInput) -> Listener {
    let at = match input.address.contains(':') {
        true => format!("[{}]:{}", input.address, input.port),
        false => format!("{}:{}", input.address, input.port),
    };
    // A server without a proxy has nobody who could ask.
    let judges = custom::Judge::unusable(&input.authz);
    let custom = custom::filters(&input.authz, &judges, authz::Protocol::Http, &input.mesh);
    let own = authz::filters(&input.authz, authz::Protocol::Http, &input.mesh);
    let rbac = custom.into_iter().map(|(_, config)| config).chain(own).enumerate();
    // gRPC refuses two filters of one name.
    let mut http_filters: Vec<HttpFilter> =
        rbac.map(|(at, config)| http_filter(&format!("envoy.filters.http.rbac.{at}"), config)).collect();
    http_filters.push(router());
    let manager = HttpConnectionManager {
        http_filters,
        route_specifier: Some(RouteSpecifier::RouteConfig(all_here())),
        ..HttpConnectionManager::default()
    };
    let (name, socket) = match input.mode {
        Mode::Strict => ("inbound-mtls", Some(tls::grpc_server())),
        Mode::Permissive | Mode::Disable => ("inbound-plaintext", None),
    };
    Listener {
        name: format!("{SERVER_PREFIX}{at}"),
        address: address(&input.address, input.port),
        traffic_direction: TrafficDirection::Inbound.into(),
        filter_chains: vec![FilterChain {
            name: name.to_owned(),
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(any::pack(&manager))),
            }],
            transport_socket: socket,
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// Everything is answered by the server itself.
fn all_here() -> RouteConfiguration {
    let route = Route {
        r#match: Some(everything()),
        action: Some(route::Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    RouteConfiguration {
        name: "inbound".to_owned(),
        validate_clusters: boolean(false),
        virtual_hosts: vec![VirtualHost {
            name: "inbound".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
