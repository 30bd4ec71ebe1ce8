//! Prometheus' `/metrics`: mixer's own metrics, then Istio's families merged over all proxies (MX-102).

use crate::export::prometheus::pieces;
use crate::report::hub::Hub;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use std::convert::Infallible;
use std::time::Duration;
use vitals::prometheus::{Encoder as _, Registry, TEXT_FORMAT, TextEncoder};

/// So long after mixer's start the families are left out: proxies report their running totals within a second or two,
/// and sums over some of them only would look to Prometheus like counters that fell.
pub const SETTLE: Duration = Duration::from_secs(3);

/// What is exposed.
#[derive(Clone)]
struct Sources {
    hub: Hub,
    own: Registry,
}

/// The route.
pub fn router(hub: Hub, own: Registry) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Sources { hub, own })
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let mut own = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&sources.own.gather(), &mut own) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let series = if sources.hub.age() < SETTLE {
        Vec::new()
    } else {
        sources.hub.ask(|state, _| state.series().all().to_vec()).await.unwrap_or_default()
    };
    let own = String::from_utf8(own).unwrap_or_default();
    let text = std::iter::once(own).chain(pieces(series)).map(Ok::<_, Infallible>);
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], Body::from_stream(stream::iter(text))).into_response()
}
