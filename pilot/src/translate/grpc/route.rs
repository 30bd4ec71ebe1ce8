//! Routes of a gRPC client: those of a sidecar for one service, less what gRPC refuses.

use super::super::inputs::OutboundRouteInput;
use super::super::message::ordered;
use super::super::route;
use proto::envoy::route::route::Action;
use proto::envoy::route::route_action::MaxStreamDuration;
use proto::envoy::route::{Route, RouteConfiguration};

/// The filter that may be configured by route: gRPC refuses a route that configures one that it lacks.
const FAULT: &str = "envoy.filters.http.fault";

/// The routes of a port of a service.
pub fn routes(input: &OutboundRouteInput) -> RouteConfiguration {
    let mut routes = route::outbound(input);
    for route in routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        adapt(route);
    }
    routes
}

fn adapt(route: &mut Route) {
    let known = std::mem::take(&mut route.typed_per_filter_config).into_iter().filter(|(name, _)| name == FAULT);
    route.typed_per_filter_config = ordered(known);
    if let Some(Action::Route(action)) = &mut route.action {
        // The timeout of a proxy is one of gRPC's own, which ends streams too (VS-25).
        action.max_stream_duration =
            Some(MaxStreamDuration { max_stream_duration: action.timeout, ..MaxStreamDuration::default() });
    }
}
