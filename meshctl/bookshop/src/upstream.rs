//! Calls to the other services, with the headers that keep a trace together.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// How long a call may take before the page shows an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_BYTES: usize = 1 << 20;

/// Headers that an application must pass on for tracing, and those that routing rules look at.
const PASSED_ON: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "x-load-id",
];

/// A client for the neighbours.
#[derive(Debug)]
pub(crate) struct Upstream(Client<HttpConnector, Empty<Bytes>>);

impl Upstream {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build_http())
    }

    /// Status and JSON of an answer; the status alone where the body is no JSON. An unreachable neighbour is a 503.
    pub(crate) async fn json(&self, url: &str, incoming: &HeaderMap) -> (StatusCode, Option<serde_json::Value>) {
        match tokio::time::timeout(TIMEOUT, self.get(url, incoming)).await {
            Ok(Ok((status, body))) => (status, serde_json::from_slice(&body).ok()),
            Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, None),
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, None),
        }
    }

    async fn get(&self, url: &str, incoming: &HeaderMap) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::get(url).body(Empty::new())?;
        for name in PASSED_ON {
            let name = HeaderName::from_static(name);
            for value in incoming.get_all(&name) {
                request.headers_mut().append(&name, value.clone());
            }
        }
        let answer = self.0.request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|e| anyhow::anyhow!(e))?;
        Ok((status, body.to_bytes()))
    }
}
