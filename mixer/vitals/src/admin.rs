//! The server of a process's own metrics, readiness and log level.

use crate::log::Level;
use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder as _, Registry, TextEncoder};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the server reports.
#[derive(Clone)]
pub struct Admin {
    /// The metrics.
    pub metrics: Registry,
    /// Whether the process is ready.
    pub ready: watch::Receiver<bool>,
    /// The log's level, where it can be changed.
    pub level: Option<Level>,
    /// Name and version of the process.
    pub version: &'static str,
}

impl Admin {
    /// `/metrics`, `/ready`, `/logging`, `/version`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/ready", get(ready))
            .route("/logging", get(logging).post(logging))
            .route("/version", get(version))
            .with_state(self)
    }
}

/// Serves a router for ever.
///
/// # Errors
/// When the address cannot be bound or the server fails.
pub async fn serve(listener: TcpListener, router: Router) -> anyhow::Result<()> {
    axum::serve(listener, router).await.context("serve HTTP")
}

/// Binds an address.
///
/// # Errors
/// When it is taken or malformed.
pub async fn bind(address: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    // Istio writes `:15014` for every address of the machine.
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let listener = TcpListener::bind(&full).await.with_context(|| format!("bind {full}"))?;
    let local = listener.local_addr().context("local address")?;
    Ok((listener, local))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut buffer = Vec::new();
    match TextEncoder::new().encode(&admin.metrics.gather(), &mut buffer) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], buffer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if *admin.ready.borrow() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}

async fn logging(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> impl IntoResponse {
    let Some(level) = &admin.level else { return (StatusCode::NOT_FOUND, "no log to change".to_owned()) };
    match query.get("level").map(|wanted| level.set(wanted)) {
        None | Some(Ok(())) => (StatusCode::OK, format!("level: {}\n", level.current())),
        Some(Err(error)) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}

async fn version(State(admin): State<Admin>) -> &'static str {
    admin.version
}
