//! What is asked of the cluster, of pilot and of the proxies.

use super::{Archive, redact};
use crate::analyze::analyze;
use crate::reach::cluster::said;
use crate::reach::{Cluster, Part, Pod, Reach};
use crate::{admin, live, output};
use anyhow::Context as _;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use serde_json::{Value, json};
use std::io::Write;

/// Lines of each log, from its end.
const LOG_LINES: i64 = 5000;
/// Most bytes of each log.
const LOG_BYTES: i64 = 4 << 20;
/// Most proxies whose configuration is taken.
const MAX_PROXIES: usize = 200;
/// Pages of pilot.
const PILOT_PAGES: [&str; 8] =
    ["syncz", "nacks", "status", "registryz", "endpointz", "workloadz", "connections", "mesh"];
/// Pages of a proxy. Keys and passwords are left out by the proxy itself.
const PROXY_PAGES: [(&str, &str); 6] = [
    ("config_dump.json", "/config_dump?include_eds"),
    ("clusters.txt", "/clusters"),
    ("listeners.txt", "/listeners"),
    ("certs.json", "/certs"),
    ("server_info.json", "/server_info"),
    ("stats.txt", "/stats?usedonly"),
];
/// Kinds of the cluster that tell how the control plane stands: group, version, kind, plural, and whether of its namespace
/// alone.
const KINDS: [(&str, &str, &str, &str, bool); 8] = [
    ("", "v1", "Node", "nodes", false),
    ("", "v1", "Event", "events", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("", "v1", "Service", "services", true),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false),
];

/// Which proxies are looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Namespaces; none: all.
    pub include: Vec<String>,
    /// Namespaces that are left out.
    pub exclude: Vec<String>,
}

impl Scope {
    fn has(&self, namespace: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == namespace);
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }
}

/// Everything, into the archive.
///
/// # Errors
/// Where the archive cannot be written. What a part refuses stands in its place.
pub async fn gather<W: Write>(cluster: &Cluster, scope: &Scope, archive: &mut Archive<W>) -> anyhow::Result<()> {
    let reach = Reach::Cluster(cluster.clone());
    output::progress("  the cluster");
    archive.add("versions.txt", &versions(cluster).await)?;
    for row in &KINDS {
        archive.add(&format!("cluster/{}.json", row.3), &told(of_kind(cluster, row).await))?;
    }
    output::progress("  the mesh's objects");
    for listed in live::objects(cluster).await {
        let text = listed.objects.map(|mut objects| {
            objects.retain(|object| object["metadata"]["namespace"].as_str().is_none_or(|name| scope.has(name)));
            objects.iter_mut().for_each(redact::object);
            pretty(&Value::Array(objects))
        });
        archive.add(&format!("objects/{}.json", listed.kind), &text.unwrap_or_else(|why| why))?;
    }
    archive.add("analyze.txt", &told(findings(cluster).await))?;
    output::progress("  the control plane");
    for app in ["istiod", "citadel", "mixer", "istio-cni-node"] {
        for pod in cluster.component(app).await.unwrap_or_default() {
            Box::pin(logs(cluster, &pod, &format!("control-plane/{}", pod.name), archive)).await?;
        }
    }
    for page in PILOT_PAGES {
        match Part::Pilot.of_all(None, &reach, &format!("/debug/{page}")).await {
            Ok(pages) => {
                for (pod, bytes) in pages {
                    archive.add(&format!("pilot/{}/{page}.json", short(&pod)), &String::from_utf8_lossy(&bytes))?;
                }
            }
            Err(error) => archive.add(&format!("pilot/{page}.txt"), &format!("{error:#}\n"))?,
        }
    }
    let metrics = Part::PilotMetrics.get(None, &reach, "/metrics").await;
    archive.add("pilot/metrics.txt", &told(metrics.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())))?;
    Box::pin(proxies(&reach, cluster, scope, archive)).await
}

async fn proxies<W: Write>(
    reach: &Reach,
    cluster: &Cluster,
    scope: &Scope,
    archive: &mut Archive<W>,
) -> anyhow::Result<()> {
    let pods = match injected(cluster, scope).await {
        Ok(pods) => pods,
        Err(error) => return Ok(archive.add("proxies.txt", &format!("{error:#}\n"))?),
    };
    if pods.len() > MAX_PROXIES {
        let text = format!("{} of {} proxies are here: --include NAMESPACE chooses\n", MAX_PROXIES, pods.len());
        archive.add("proxies/README.txt", &text)?;
    }
    for (index, pod) in pods.iter().take(MAX_PROXIES).enumerate() {
        output::progress(&format!("  proxy {} of {}: {}", index + 1, pods.len().min(MAX_PROXIES), pod.id()));
        let place = format!("proxies/{}/{}", pod.namespace, short(&pod.name));
        Box::pin(logs(cluster, pod, &place, archive)).await?;
        for (name, path) in PROXY_PAGES {
            let page = async { admin::get(reach.proxy(pod).await?, path).await }.await;
            archive.add(
                &format!("{place}/{name}"),
                &told(page.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
            )?;
        }
    }
    output::progress("");
    Ok(())
}

/// Running pods with a proxy.
async fn injected(cluster: &Cluster, scope: &Scope) -> anyhow::Result<Vec<Pod>> {
    let api: Api<core::Pod> = Api::all(cluster.client.clone());
    let list = api.list_metadata(&ListParams::default()).await.map_err(said).context("pods")?;
    let pod = |pod: kube::core::PartialObjectMeta<core::Pod>| {
        let annotated = pod.metadata.annotations?.contains_key("sidecar.istio.io/status");
        let (name, namespace) = (pod.metadata.name?, pod.metadata.namespace?);
        (annotated && scope.has(&namespace)).then(|| Pod { name, namespace, ..Pod::default() })
    };
    Ok(list.items.into_iter().filter_map(pod).collect())
}

/// The logs of the containers of the mesh in a pod, of those before a restart as well.
async fn logs<W: Write>(cluster: &Cluster, pod: &Pod, place: &str, archive: &mut Archive<W>) -> anyhow::Result<()> {
    let api: Api<core::Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let Ok(found) = api.get(&pod.name).await else { return Ok(()) };
    let own = pod.namespace == cluster.control_plane;
    let status = found.status.unwrap_or_default();
    let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
    for container in all.filter(|one| own || one.name.starts_with("istio-")) {
        for previous in [false, true] {
            if previous && container.restart_count == 0 {
                continue;
            }
            let params = LogParams {
                container: Some(container.name.clone()),
                previous,
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                timestamps: true,
                ..LogParams::default()
            };
            let text = told(api.logs(&pod.name, &params).await.map_err(said));
            let before = if previous { ".previous" } else { "" };
            archive.add(&format!("{place}/{}{before}.log", container.name), &text)?;
        }
    }
    Ok(())
}

async fn of_kind(cluster: &Cluster, row: &(&str, &str, &str, &str, bool)) -> anyhow::Result<String> {
    let (group, version, kind, plural, own) = *row;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = match own {
        true => Api::namespaced_with(cluster.client.clone(), &cluster.control_plane, &resource),
        false => Api::all_with(cluster.client.clone(), &resource),
    };
    let list = api.list(&ListParams::default()).await.map_err(said)?;
    let one = |object: DynamicObject| {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        redact::object(&mut value);
        if kind == "CustomResourceDefinition" {
            // Its schema is long and known: names and versions tell what there is.
            let versions = value["spec"]["versions"].as_array().into_iter().flatten();
            let versions: Vec<Value> =
                versions.map(|one| json!([one["name"], one["served"], one["storage"]])).collect();
            value["spec"] = json!({"versions": versions});
        }
        value
    };
    Ok(pretty(&Value::Array(list.items.into_iter().map(one).collect())))
}

async fn versions(cluster: &Cluster) -> String {
    let server = told(cluster.client.apiserver_version().await.map(|info| info.git_version).map_err(said));
    format!("meshctl {}\nKubernetes {}\n", env!("CARGO_PKG_VERSION"), server.trim())
}

async fn findings(cluster: &Cluster) -> anyhow::Result<String> {
    let offline = live::offline(cluster, &[]).await?;
    Ok(analyze(&offline).iter().map(|message| format!("{message}\n")).collect())
}

fn told(text: anyhow::Result<String>) -> String {
    text.unwrap_or_else(|error| format!("not to be had: {error:#}\n"))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A name that fits into an archive.
fn short(name: &str) -> String {
    name.chars().take(40).collect()
}
