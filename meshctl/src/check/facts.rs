//! What is asked of pilot, citadel, mixer and the proxies.

use crate::admin;
use crate::command::config;
use crate::demo;
use crate::reach::Part;
use identity::svid::LeafFacts;
use serde_json::Value;
use std::path::PathBuf;
use std::time::SystemTime;

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct Where {
    /// The demo, for parts without an address.
    pub demo: String,
    /// pilot's debug pages.
    pub pilot: Option<String>,
    /// citadel's certificate service.
    pub citadel: Option<String>,
    /// mixer's metrics.
    pub mixer: Option<String>,
}

/// An answer, or why there is none.
pub type Told<T> = Result<T, String>;

/// What was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The demo's name; none where pilot has an address.
    pub demo: Option<String>,
    /// The demo's directory is there.
    pub directory: bool,
    /// The program `proxy` is beside meshctl.
    pub proxy_program: Option<PathBuf>,
    /// pilot's `/ready`.
    pub ready: Told<()>,
    /// pilot's `/version`.
    pub version: String,
    /// pilot's `/debug/status`.
    pub status: Value,
    /// pilot's `/debug/syncz`.
    pub proxies: Vec<Value>,
    /// pilot's `/debug/nacks`.
    pub nacks: Vec<Value>,
    /// pilot's `/debug/workloadz`.
    pub workloads: Vec<Value>,
    /// citadel takes connections.
    pub citadel: Told<()>,
    /// mixer's `/metrics`.
    pub mixer: Told<String>,
    /// The certificate of each proxy whose admin socket is known, by workload.
    pub certificates: Vec<(String, Told<Vec<LeafFacts>>)>,
    /// Now.
    pub now: SystemTime,
}

impl Facts {
    /// Asks everybody.
    pub async fn gather(at: &Where) -> Self {
        let pilot = at.pilot.as_deref();
        let page =
            |path: &'static str| async move { Part::Pilot.json(pilot, &at.demo, path).await.unwrap_or_default() };
        let list = |value: Value| match value {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let said = |error: anyhow::Error| format!("{error:#}");
        let ready = Part::Pilot.get(pilot, &at.demo, "/ready").await.map(drop).map_err(said);
        let version = Part::Pilot.get(pilot, &at.demo, "/version").await.unwrap_or_default();
        let mixer = Part::MixerMetrics.get(at.mixer.as_deref(), &at.demo, "/metrics").await;
        let proxies = list(page("/debug/syncz").await);
        Self {
            demo: pilot.is_none().then(|| at.demo.clone()),
            directory: demo::directory(&at.demo).is_dir(),
            proxy_program: beside(),
            ready,
            version: String::from_utf8_lossy(&version).trim().to_owned(),
            status: page("/debug/status").await,
            certificates: if pilot.is_none() { certificates(&at.demo, &proxies).await } else { Vec::new() },
            proxies,
            nacks: list(page("/debug/nacks").await),
            workloads: list(page("/debug/workloadz").await),
            citadel: Part::Citadel.connect(at.citadel.as_deref(), &at.demo).await.map(drop).map_err(said),
            mixer: mixer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(said),
            now: SystemTime::now(),
        }
    }
}

/// The program `proxy`, where it is beside meshctl.
fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join("proxy");
    path.is_file().then_some(path)
}

/// What the demo's proxies hold, by their admin sockets.
async fn certificates(demo: &str, proxies: &[Value]) -> Vec<(String, Told<Vec<LeafFacts>>)> {
    let mut found = Vec::new();
    for proxy in proxies.iter().filter_map(|proxy| proxy["proxy"].as_str()) {
        // The pod `reviews-v1-0.default` belongs to the workload `reviews-v1`.
        let pod = proxy.split('.').next().unwrap_or(proxy);
        let workload = pod.rsplit_once('-').map_or(pod, |(workload, _)| workload);
        found.push((proxy.to_owned(), leaves(demo, workload).await.map_err(|error| format!("{error:#}"))));
    }
    found
}

async fn leaves(demo: &str, workload: &str) -> anyhow::Result<Vec<LeafFacts>> {
    let socket = demo::proxy_directory(demo, workload)?.join(demo::ADMIN_SOCKET);
    let stream = tokio::net::UnixStream::connect(&socket).await?;
    let dump: Value = serde_json::from_slice(&admin::get(stream, "/config_dump").await?)?;
    Ok(config::leaves(&dump))
}
