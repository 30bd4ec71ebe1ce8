//! The port of the webhooks: HTTPS with the serving certificate of the moment.

use super::metrics::Metrics;
use super::review::{Answer, Request, Review};
use super::{inject, validate};
use crate::ads::tls::Files;
use crate::delivery::{Command, HubHandle, Known};
use crate::inject::Settings;
use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use credentials::accept::{Connection, accept_tls};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Largest question: an object and the one before it, each up to the 1.5 MiB that an API server stores.
const MAX_REVIEW_BYTES: usize = 3 << 20;
/// How long a question may take, its way here included: the API server waits no longer.
const LIMIT: Duration = Duration::from_secs(10);
/// What is spoken: API servers speak HTTP/2 where they can.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Who answers.
#[derive(Clone)]
pub struct Webhooks {
    /// Knows the mesh's settings and the namespaces.
    pub hub: HubHandle,
    /// Settings of injection; none until they have been read.
    pub settings: watch::Receiver<Option<Arc<Settings>>>,
    /// Counts.
    pub metrics: Metrics,
}

impl Webhooks {
    /// `/inject`, `/inject/…`, `/validate`, `/ready`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/inject", post(inject_pod))
            .route("/inject/{*path}", post(inject_pod))
            .route("/validate", post(validate_object))
            .route("/ready", get(ready))
            .route("/httpsReady", get(ready))
            .layer(DefaultBodyLimit::max(MAX_REVIEW_BYTES))
            .layer(middleware::from_fn(limited))
            .with_state(self)
    }
}

/// Serves webhooks for ever.
///
/// # Errors
/// When the server fails.
pub async fn serve(listener: TcpListener, files: Files, router: Router) -> anyhow::Result<()> {
    let local = listener.local_addr().context("local address")?;
    let connections = accept_tls(listener, files.serving(&PROTOCOLS));
    axum::serve(Connections { connections, local }, router).await.context("serve webhooks")
}

/// Connections whose handshake is done.
struct Connections {
    connections: ReceiverStream<io::Result<Connection>>,
    local: SocketAddr,
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => return (connection, self.local),
                Some(Err(error)) => tracing::debug!("webhooks: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Ends what takes too long: who sends its question slowly holds nothing for ever.
async fn limited(request: axum::extract::Request, next: middleware::Next) -> Response {
    let late = |_| (StatusCode::REQUEST_TIMEOUT, "the question did not come within 10 s\n").into_response();
    tokio::time::timeout(LIMIT, next.run(request)).await.unwrap_or_else(late)
}

async fn ready(State(webhooks): State<Webhooks>) -> Response {
    if webhooks.settings.borrow().is_some() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "settings of injection are still being read\n").into_response()
    }
}

async fn inject_pod(State(webhooks): State<Webhooks>, uri: Uri, body: Bytes) -> Response {
    let settings = webhooks.settings.borrow().clone();
    let Some(settings) = settings else { return ready(State(webhooks)).await };
    let judge = |request: &Request, known: Known| {
        let annotations = known.namespace.map(|namespace| namespace.meta.annotations.clone()).unwrap_or_default();
        let began = Instant::now();
        let answer = inject::answer(request, &settings, &annotations, uri.path());
        webhooks.metrics.count_injection(&answer, began.elapsed());
        answer
    };
    reviewed(&webhooks, &body, judge).await
}

async fn validate_object(State(webhooks): State<Webhooks>, body: Bytes) -> Response {
    let judge = |request: &Request, known: Known| {
        let answer = validate::answer(request, &known.config);
        webhooks.metrics.count_validation(&answer);
        answer
    };
    reviewed(&webhooks, &body, judge).await
}

/// Reads a question, and writes what `judge` says.
async fn reviewed(webhooks: &Webhooks, body: &[u8], judge: impl FnOnce(&Request, Known) -> Answer) -> Response {
    let review: Review = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => {
            webhooks.metrics.count_malformed();
            return (StatusCode::BAD_REQUEST, format!("no AdmissionReview: {error}\n")).into_response();
        }
    };
    let Some(request) = &review.request else {
        webhooks.metrics.count_malformed();
        return (StatusCode::BAD_REQUEST, "no AdmissionReview: request is missing\n").into_response();
    };
    let look = webhooks.hub.ask(|answer| Command::Look(request.namespace.as_str().into(), answer)).await;
    let Some(known) = look else {
        return (StatusCode::SERVICE_UNAVAILABLE, "pilot is stopping\n").into_response();
    };
    let answer = judge(request, known);
    if let Answer::Refused(why) = &answer {
        let (kind, namespace) = (&request.kind.kind, &request.namespace);
        tracing::info!(kind, namespace, "refused: {why}");
    }
    Json(review.answered(&answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    // bar: S1
    #[tokio::test(start_paused = true)]
    async fn a_question_that_does_not_come_is_not_waited_for() {
        let router: Router = Router::new().route("/validate", post(async |_: Bytes| "answered"));
        let router = router.layer(middleware::from_fn(limited));
        let ask = |body: Body| Request::builder().method("POST").uri("/validate").body(body).unwrap();
        let never = Body::from_stream(futures_util::stream::pending::<io::Result<Bytes>>());
        assert_eq!(router.clone().oneshot(ask(never)).await.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(router.oneshot(ask(Body::empty())).await.unwrap().status(), StatusCode::OK);
    }
}
