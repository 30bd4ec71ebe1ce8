//! The live page: server-rendered HTML, read-only; everything from data is escaped by the templates (S8).
//!
//! - [`graph`], [`layout`]: the mesh as a graph, and where its boxes go; pure
//! - [`objects`]: which objects shape what
//! - [`mesh`], [`detail`], [`failures`], [`proxies`], [`policies`], [`traces`], [`whatif`]: the pages
//! - [`text`]: figures in words
//!
//! A page is whole without its script; the script asks for the content again every second. Pages never wait for pilot:
//! they show what it said last, and how old that is.

pub mod detail;
pub mod failures;
pub mod graph;
pub mod layout;
pub mod mesh;
pub mod objects;
pub mod policies;
pub mod proxies;
pub mod text;
pub mod traces;
pub mod whatif;

use crate::pilot::{Glance, Pilot};
use crate::policy::Engine;
use crate::ratelimit::limiter::Limiter;
use crate::report::hub::Hub;
use crate::workload::Follower;
use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use objects::Objects;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use whatif::Explainer;

/// The pages, as they stand at the top of each.
pub const NAVIGATION: &[(&str, &str)] = &[
    ("/", "Graph"),
    ("/failures", "Failed requests"),
    ("/proxies", "Proxies"),
    ("/policies", "Policies"),
    ("/traces", "Traces"),
    ("/whatif", "What if"),
];
/// Set by the script, which wants the content alone.
const PART: &str = "x-ferromesh-part";
/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Reports come every second; silence beyond this is said.
const SILENT: Duration = Duration::from_secs(5);

/// What pages read.
#[derive(Clone)]
pub struct Pages {
    hub: Hub,
    workloads: Follower,
    engine: Arc<Engine>,
    limiter: Arc<Limiter>,
    objects: Option<Glance<Objects>>,
    synced: Option<Glance<Vec<proxies::Synced>>>,
    explainer: Option<Explainer>,
}

impl Pages {
    /// Pages on these sources; without pilot there are no objects and no states of proxies. `proxy` is the program that
    /// explains what becomes of a request.
    pub fn new(
        hub: Hub,
        workloads: Follower,
        policy: (Arc<Engine>, Arc<Limiter>),
        (pilot, proxy): (Option<&Pilot>, PathBuf),
    ) -> Self {
        let (engine, limiter) = policy;
        Self {
            hub,
            workloads,
            engine,
            limiter,
            explainer: pilot.map(|pilot| Explainer::new(pilot.clone(), proxy)),
            objects: pilot.map(|pilot| Glance::new(pilot.clone(), "/debug/configz", Objects::parse)),
            synced: pilot
                .map(|pilot| Glance::new(pilot.clone(), "/debug/syncz", |bytes: &[u8]| serde_json::from_slice(bytes))),
        }
    }

    /// The routes. `only_local`: the page is bound to this machine alone and answers to its names alone, so that no
    /// web site can reach it by a name of its own (DNS rebinding).
    pub fn router(self, only_local: bool) -> Router {
        Router::new()
            .route("/", get(mesh::show))
            .route("/service/{namespace}/{name}", get(detail::service))
            .route("/edge", get(detail::edge))
            .route("/failures", get(failures::show))
            .route("/proxies", get(proxies::show))
            .route("/policies", get(policies::show))
            .route("/traces", get(traces::list))
            .route("/trace/{id}", get(traces::one))
            .route("/whatif", get(whatif::show))
            .route("/page.css", get(|| file("text/css", include_str!("assets/page.css"))))
            .route("/page.js", get(|| file("text/javascript", include_str!("assets/page.js"))))
            .route("/icon.svg", get(|| file("image/svg+xml", include_str!("assets/icon.svg"))))
            .with_state(self)
            .layer(middleware::from_fn_with_state(only_local, guard))
    }

    /// The frame of the page at `path`.
    async fn frame(&self, at: &'static str, live: bool) -> Frame {
        let last = self.hub.ask(|state, now| {
            let last = state.senders().iter().map(|(_, sender)| sender.seen().1).max();
            (state.senders().len(), last.map(|last| now.saturating_sub(last)))
        });
        let (senders, last) = last.await.unwrap_or_default();
        let warning = self.workloads.complaint();
        Frame { at, live, time: text::now(), senders, last, warning }
    }

    async fn objects(&self) -> Arc<Objects> {
        match &self.objects {
            Some(glance) => glance.look().await.content,
            None => Arc::default(),
        }
    }
}

/// What all pages show.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Path of the page in [`NAVIGATION`].
    at: &'static str,
    /// Whether the script asks again every second.
    live: bool,
    /// Now.
    time: String,
    senders: usize,
    last: Option<Duration>,
    /// What the reader should know about the sources.
    warning: Option<String>,
}

impl Frame {
    fn reports(&self) -> String {
        match self.last {
            None => "No proxy has reported yet.".to_owned(),
            Some(last) if last > SILENT => {
                format!(
                    "{} proxies have reported, the last one {} s ago: nobody reports now.",
                    self.senders,
                    last.as_secs()
                )
            }
            Some(last) => {
                format!("{} proxies have reported, the last one {:.1} s ago.", self.senders, last.as_secs_f64())
            }
        }
    }

    fn reports_age_ms(&self) -> String {
        self.last.map(|last| last.as_millis().to_string()).unwrap_or_default()
    }
}

/// A page, or its content alone where the script asks for that.
fn answer(headers: &HeaderMap, page: &impl Template, content: &impl Template) -> Response {
    let rendered = if headers.contains_key(PART) { content.render() } else { page.render() };
    match rendered {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Sends what browsers need to keep the page safe.
async fn guard(State(only_local): State<bool>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut answer = if only_local && !local_name(host) {
        let text = "this page answers to localhost alone; start mixer with --http-addr 0.0.0.0:8080 to open it\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else {
        next.run(request).await
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Whether a Host header names this machine by a name that no DNS server hands out.
fn local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether an address to bind is this machine's alone.
pub fn is_local(address: &str) -> bool {
    local_name(address) && !address.starts_with(':')
}
