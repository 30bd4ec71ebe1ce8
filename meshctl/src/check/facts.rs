//! What is asked of pilot, citadel, mixer and the proxies.

use super::cluster::{Kubernetes, certificates as facts_of};
use crate::admin;
use crate::command::config;
use crate::demo;
use crate::reach::{Part, Pod, Reach};
use identity::bundle::TrustBundle;
use identity::san::SanMatch;
use identity::svid::LeafFacts;
use identity::verify::{PeerVerifier, Role};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct Where {
    /// The mesh, for parts without an address.
    pub reach: Reach,
    /// pilot's debug pages.
    pub pilot: Option<String>,
    /// citadel's certificate service.
    pub citadel: Option<String>,
    /// mixer's metrics.
    pub mixer: Option<String>,
    /// File with the roots of the mesh.
    pub ca_root: Option<PathBuf>,
}

/// An answer, or why there is none.
pub type Told<T> = Result<T, String>;

/// What was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The demo's name; none where pilot has an address, and where it is no demo.
    pub demo: Option<String>,
    /// Why nothing was found to look at.
    pub nowhere: Option<String>,
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
    /// The roots of the mesh: of the file that was named, of the demo, or of the cluster.
    pub roots: Option<Told<Vec<LeafFacts>>>,
    /// Proxies whose certificate no root of the mesh vouches for, and why.
    pub strangers: Vec<(String, String)>,
    /// The certificate of each proxy whose admin interface is known, by its pod.
    pub certificates: Vec<(String, Told<Vec<LeafFacts>>)>,
    /// What the API server says; none where the mesh is in no cluster.
    pub kubernetes: Option<Kubernetes>,
    /// Now.
    pub now: SystemTime,
}

impl Facts {
    /// Asks everybody.
    pub async fn gather(at: &Where) -> Self {
        let pilot = at.pilot.as_deref();
        let page =
            |path: &'static str| async move { Part::Pilot.json(pilot, &at.reach, path).await.unwrap_or_default() };
        let list =
            |path: &'static str| async move { Part::Pilot.list(pilot, &at.reach, path).await.unwrap_or_default() };
        let said = |error: anyhow::Error| format!("{error:#}");
        let ready = Part::Pilot.get(pilot, &at.reach, "/ready").await.map(drop).map_err(said);
        let version = Part::Pilot.get(pilot, &at.reach, "/version").await.unwrap_or_default();
        let mixer = Part::MixerMetrics.get(at.mixer.as_deref(), &at.reach, "/metrics").await;
        let proxies = list("/debug/syncz").await;
        let (demo, nowhere) = match &at.reach {
            _ if pilot.is_some() => (None, None),
            Reach::Demo(demo) => (Some(demo.clone()), None),
            Reach::Cluster(_) => (None, None),
            Reach::Nowhere(why) => (None, Some(why.clone())),
        };
        let file = at.ca_root.clone();
        let file = file.or_else(|| demo.as_ref().map(|demo| demo::directory(demo).join(demo::ROOTS)));
        let roots = file.map(|file| std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display())));
        let kubernetes = match &at.reach {
            Reach::Cluster(cluster) if pilot.is_none() => Some(Box::pin(Kubernetes::gather(cluster, false)).await),
            _ => None,
        };
        let roots = roots.or_else(|| Some(kubernetes.as_ref()?.roots.clone()));
        let shown = if pilot.is_none() { certificates(&at.reach, &proxies).await } else { Vec::new() };
        Self {
            directory: demo.as_ref().is_some_and(|demo| demo::directory(demo).is_dir()),
            demo,
            nowhere,
            proxy_program: beside(),
            ready,
            version: String::from_utf8_lossy(&version).trim().to_owned(),
            status: page("/debug/status").await,
            strangers: roots
                .as_ref()
                .and_then(|pem| pem.as_ref().ok())
                .map(|pem| strangers(pem, &shown))
                .unwrap_or_default(),
            roots: roots.map(|pem| pem.and_then(|pem| facts_of(&pem))),
            certificates: shown.into_iter().map(|(proxy, chains)| (proxy, chains.map(|all| leaves(&all)))).collect(),
            proxies,
            nacks: list("/debug/nacks").await,
            workloads: match page("/debug/workloadz").await {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            citadel: Part::Citadel.connect(at.citadel.as_deref(), &at.reach).await.map(drop).map_err(said),
            mixer: mixer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(said),
            kubernetes,
            now: SystemTime::now(),
        }
    }

    /// Those about one proxy alone.
    pub fn only(mut self, id: &str) -> Self {
        self.proxies.retain(|proxy| proxy["proxy"] == id);
        self.nacks.retain(|nack| nack["proxy"] == id);
        self.certificates.retain(|(proxy, _)| proxy == id);
        self.strangers.retain(|(proxy, _)| proxy == id);
        let is = |pod: &Value| {
            let text = |name: &str| pod[name].as_str().unwrap_or_default().to_owned();
            format!("{}.{}", text("name"), text("namespace")) == id
        };
        self.workloads.retain(is);
        self
    }
}

/// The program `proxy`, where it is beside meshctl.
fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join("proxy");
    path.is_file().then_some(path)
}

/// The chains of a proxy, each leaf first.
type Chains = Vec<Vec<CertificateDer<'static>>>;

/// Most proxies that are asked at once.
const AT_ONCE: usize = 16;

/// What the proxies hold, by their admin interfaces.
async fn certificates(reach: &Reach, proxies: &[Value]) -> Vec<(String, Told<Chains>)> {
    let mut asked = tokio::task::JoinSet::new();
    let mut found = Vec::new();
    for id in proxies.iter().filter_map(|proxy| proxy["proxy"].as_str().map(str::to_owned)) {
        if asked.len() >= AT_ONCE {
            found.extend(asked.join_next().await.and_then(Result::ok));
        }
        let reach = reach.clone();
        asked.spawn(async move {
            let told = chains(&reach, &id).await.map_err(|error| format!("{error:#}"));
            (id, told)
        });
    }
    found.extend(asked.join_all().await);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

async fn chains(reach: &Reach, id: &str) -> anyhow::Result<Chains> {
    let (name, namespace) = id.rsplit_once('.').unwrap_or((id, ""));
    let pod = Pod { name: name.to_owned(), namespace: namespace.to_owned(), ..Pod::default() };
    let dump: Value = serde_json::from_slice(&admin::get(reach.proxy(&pod).await?, "/config_dump").await?)?;
    Ok(config::chains(&dump))
}

fn leaves(chains: &Chains) -> Vec<LeafFacts> {
    chains.iter().filter_map(|chain| LeafFacts::read(chain.first()?).ok()).collect()
}

/// Proxies whose chains do not lead to one of these roots.
fn strangers(pem: &[u8], shown: &[(String, Told<Chains>)]) -> Vec<(String, String)> {
    let Ok(bundle) = TrustBundle::from_pem(pem) else { return Vec::new() };
    let verifier = PeerVerifier::new(Arc::new(bundle), SanMatch::any(), Role::Server);
    let refused = |chain: &Vec<CertificateDer<'static>>| {
        let (leaf, others) = chain.split_first()?;
        verifier.check(leaf, others, UnixTime::now()).err().map(|error| error.to_string())
    };
    let each = shown.iter().filter_map(|(proxy, chains)| Some((proxy, chains.as_ref().ok()?)));
    each.filter_map(|(proxy, chains)| Some((proxy.clone(), chains.iter().find_map(refused)?))).collect()
}
