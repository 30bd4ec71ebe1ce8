//! Listeners of gateways: the plain HTTP part (GW-2, GW-19).

use super::super::inputs::GatewayListenerInput;
use super::super::message::{address, uint};
use super::super::names;
use super::super::telemetry::Direction;
use super::chain;
use super::manager::Manager;
use proto::envoy::core::TrafficDirection;
use proto::envoy::listener::Listener;

/// A listener for HTTP.
pub fn listener(input: &GatewayListenerInput) -> Listener {
    let manager = Manager {
        direction: Direction::Gateway,
        stat_prefix: input.stat_prefix.clone().unwrap_or_else(|| format!("outbound_{}_{}", input.address, input.port)),
        routes: Ok(input.route.clone()),
        authz: &input.authz,
        grpc_web: false,
        flavor: input.flavor,
        identity: &input.identity,
        mesh: &input.mesh,
    };
    Listener {
        name: names::listener(&input.address, input.port),
        address: address(&input.address, input.port),
        traffic_direction: TrafficDirection::Outbound.into(),
        max_connections_to_accept_per_socket_event: uint(1),
        filter_chains: vec![chain::outbound(vec![manager.build()])],
        ..Listener::default()
    }
}
