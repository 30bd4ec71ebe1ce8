//! What is asked of the API server about the mesh.

use super::facts::Told;
use crate::install::Platform;
use crate::install::cluster as installed;
use crate::install::objects::MANAGED;
use crate::install::platform::OLM;
use crate::reach::Cluster;
use crate::reach::cluster::said;
use identity::svid::LeafFacts;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What `meshctl install` does in the whole cluster, and in its namespace: group, resource.
const NEEDED: [(&str, &str, bool); 12] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", false),
    ("apps", "deployments", true),
    ("", "services", true),
    ("", "serviceaccounts", true),
    ("", "configmaps", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("policy", "poddisruptionbudgets", true),
];

/// What the API server says.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// Namespace of the control plane.
    pub control_plane: String,
    /// Version of the API server, as `v1.34.4`.
    pub version: Told<String>,
    /// What an installation needs, and whether this user may do it; looked at before an installation alone.
    pub rights: Vec<(String, Told<bool>)>,
    /// What the cluster is, and which other meshes are in it; looked at before an installation alone.
    pub platform: Told<Platform>,
    /// The mesh's definitions.
    pub definitions: Told<Vec<Definition>>,
    /// Webhooks that are called for pods or for the mesh's objects.
    pub webhooks: Told<Vec<Hook>>,
    /// Deployments of the control plane: ready and wanted pods.
    pub deployments: Told<BTreeMap<String, (i32, i32)>>,
    /// The node agent: ready and wanted pods; none where it is not installed.
    pub agent: Option<(i32, i32)>,
    /// Namespaces with their labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Pods.
    pub pods: Told<Vec<PodFacts>>,
    /// Name of the ConfigMap with the roots.
    pub roots_map: String,
    /// The roots that pods are given, as PEM.
    pub roots: Told<Vec<u8>>,
    /// When each node that is ready last said so, by its own clock.
    pub heartbeats: Told<Vec<(String, SystemTime)>>,
}

/// A definition of one of the mesh's kinds.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// Its name, as `gateways.networking.istio.io`.
    pub name: String,
    /// Versions that are served.
    pub served: Vec<String>,
    /// Who brought it: `meshctl`, `Helm`, or nobody who says so.
    pub owner: String,
}

/// A webhook configuration.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Namespace of the Service that it calls.
    pub namespace: String,
    /// Whether it changes pods; else it looks at objects.
    pub injects: bool,
    /// Whom each of its hooks trusts; an error where one knows no root.
    pub bundle: Told<Vec<LeafFacts>>,
    /// Whether all refuse when nobody answers.
    pub closes: bool,
    /// Whether we have installed it.
    pub ours: bool,
    /// One that looks at objects: whether an invalid one is refused; none where this user may not try.
    pub refuses: Option<Told<()>>,
}

/// A pod.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// `NAME.NAMESPACE`.
    pub id: String,
    /// Whether it has a proxy.
    pub injected: bool,
    /// Whether somebody asked for it to have none.
    pub declined: bool,
    /// Whether it runs, and is not about to end.
    pub running: bool,
    /// Restarts of the mesh's own containers.
    pub restarts: i32,
    /// What a container of the mesh waits for.
    pub waits: Option<String>,
}

impl Kubernetes {
    /// Asks; with `rights` also what this user may do.
    pub async fn gather(cluster: &Cluster, rights: bool) -> Self {
        let client = &cluster.client;
        let space = cluster.control_plane.clone();
        let everything = ListParams::default();
        let version = client.apiserver_version().await.map(|info| info.git_version).map_err(text);
        let namespaces = Api::<Namespace>::all(client.clone()).list(&everything).await;
        let namespaces = { namespaces }.map(|list| list.items).unwrap_or_default();
        let deployments = Api::<Deployment>::namespaced(client.clone(), &space).list(&everything).await.map_err(text);
        let count = |one: &Deployment| {
            let ready = one.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
            (ready, one.spec.replicas.unwrap_or(1))
        };
        let pods = Api::<Pod>::all(client.clone()).list(&everything).await.map_err(text);
        let maps =
            installed::roots(Api::namespaced(client.clone(), &space), &[installed::CITADEL]).await.unwrap_or_default();
        // That of a real istiod has another writer.
        let roots_map =
            maps.into_iter().next().map_or_else(|| proto::wire::ROOTS_CONFIG_MAP.to_owned(), |map| map.name);
        Self {
            rights: if rights { may(client, &space).await } else { Vec::new() },
            platform: match rights {
                true => Platform::look(client).await.map_err(|error| format!("{error:#}")),
                false => Ok(Platform::default()),
            },
            definitions: definitions(client).await,
            webhooks: webhooks(client, &space).await,
            deployments: deployments.map(|list| list.items.iter().map(|one| (one.name_any(), count(one))).collect()),
            agent: agent(client, &space).await,
            namespaces: namespaces.iter().map(|one| (one.name_any(), one.labels().clone())).collect(),
            pods: pods.map(|list| list.items.iter().map(pod).collect()),
            roots: roots(client, &space, &roots_map).await,
            heartbeats: heartbeats(client).await,
            roots_map,
            version,
            control_plane: space,
        }
    }
}

fn text(error: kube::Error) -> String {
    format!("{:#}", said(error))
}

async fn may(client: &Client, namespace: &str) -> Vec<(String, Told<bool>)> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut found = Vec::new();
    for (group, resource, namespaced) in NEEDED {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: namespaced.then(|| namespace.to_owned()),
            verb: Some("create".to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let answer = api.create(&PostParams::default(), &review).await.map_err(text);
        let place = if namespaced { format!("{resource} in {namespace}") } else { resource.to_owned() };
        found.push((place, answer.map(|review| review.status.is_some_and(|status| status.allowed))));
    }
    found
}

async fn definitions(client: &Client) -> Told<Vec<Definition>> {
    let list = Api::<CustomResourceDefinition>::all(client.clone()).list(&ListParams::default()).await.map_err(text)?;
    let ours = |one: &&CustomResourceDefinition| {
        let group = one.spec.group.as_str();
        group.ends_with(".istio.io") || group.ends_with(".ferromesh.io")
    };
    let read = |one: &CustomResourceDefinition| Definition {
        name: one.name_any(),
        served: one.spec.versions.iter().filter(|version| version.served).map(|version| version.name.clone()).collect(),
        owner: match (one.labels().contains_key(MANAGED), one.labels().get("app.kubernetes.io/managed-by")) {
            _ if one.labels().get("olm.managed").is_some_and(|value| value == "true") => OLM.to_owned(),
            (_, Some(owner)) => owner.clone(),
            (true, None) => "meshctl".to_owned(),
            (false, None) => String::new(),
        },
    };
    Ok(list.items.iter().filter(ours).map(read).collect())
}

async fn webhooks(client: &Client, namespace: &str) -> Told<Vec<Hook>> {
    let everything = ListParams::default();
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone()).list(&everything).await.map_err(text)?;
    let validating =
        Api::<ValidatingWebhookConfiguration>::all(client.clone()).list(&everything).await.map_err(text)?;
    let mut found = Vec::new();
    for one in &mutating.items {
        let hooks = one.webhooks.as_deref().unwrap_or_default();
        let calls: Vec<_> = hooks.iter().map(|hook| (&hook.client_config, hook.failure_policy.as_deref())).collect();
        found.extend(hook(one.name_any(), one.labels(), &calls, "/inject"));
    }
    for one in &validating.items {
        let hooks = one.webhooks.as_deref().unwrap_or_default();
        let calls: Vec<_> = hooks.iter().map(|hook| (&hook.client_config, hook.failure_policy.as_deref())).collect();
        let Some(mut hook) = hook(one.name_any(), one.labels(), &calls, "/validate") else { continue };
        if hook.namespace == namespace {
            hook.refuses = refuses(client, namespace, one.labels().get("istio.io/rev")).await;
        }
        found.push(hook);
    }
    Ok(found)
}

type Call<'a> = (&'a k8s_openapi::api::admissionregistration::v1::WebhookClientConfig, Option<&'a str>);

/// A configuration of a mesh: its hooks call a path that begins as Istio's do.
fn hook(name: String, labels: &BTreeMap<String, String>, calls: &[Call<'_>], path: &str) -> Option<Hook> {
    let service = calls.iter().find_map(|(client, _)| {
        let service = client.service.as_ref()?;
        service.path.as_deref()?.starts_with(path).then(|| service.namespace.clone())
    })?;
    Some(Hook {
        name,
        namespace: service,
        injects: path == "/inject",
        bundle: bundle(calls),
        closes: calls.iter().all(|(_, policy)| *policy == Some("Fail")),
        ours: labels.contains_key(MANAGED),
        refuses: None,
    })
}

fn bundle(calls: &[Call<'_>]) -> Told<Vec<LeafFacts>> {
    let one = |(client, _): &Call<'_>| {
        let pem = client.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty());
        certificates(&pem.ok_or("it knows no root")?.0)
    };
    Ok(calls.iter().map(one).collect::<Told<Vec<_>>>()?.concat())
}

/// What certificates say, from PEM.
///
/// # Errors
/// What is wrong with which of them.
pub fn certificates(pem: &[u8]) -> Told<Vec<LeafFacts>> {
    let certificates = identity::pem::certificates(pem).map_err(|error| error.to_string())?;
    certificates.iter().map(|der| LeafFacts::read(der).map_err(|error| error.to_string())).collect()
}

/// Whether the API server refuses an invalid object; none where this user may not try.
async fn refuses(client: &Client, namespace: &str, revision: Option<&String>) -> Option<Told<()>> {
    let revision = revision.map_or("default", String::as_str);
    match pilot::admission::refuses_what_is_invalid(client, namespace, revision).await {
        Ok(true) => Some(Ok(())),
        Ok(false) => Some(Err("it takes a Gateway without servers".to_owned())),
        Err(kube::Error::Api(status)) if status.message.contains("failed calling webhook") => Some(Err(status.message)),
        Err(_) => None,
    }
}

async fn heartbeats(client: &Client) -> Told<Vec<(String, SystemTime)>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.map_err(text)?;
    let last = |node: &Node| {
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|one| one.type_ == "Ready" && one.status == "True")?;
        Some((node.name_any(), SystemTime::from(ready.last_heartbeat_time.as_ref()?.0)))
    };
    Ok(nodes.items.iter().filter_map(last).collect())
}

async fn agent(client: &Client, namespace: &str) -> Option<(i32, i32)> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let status = api.get_opt("istio-cni-node").await.ok()??.status?;
    Some((status.number_ready, status.desired_number_scheduled))
}

fn pod(pod: &Pod) -> PodFacts {
    let status = pod.status.as_ref();
    let own = status.map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
    let own: Vec<_> = own.into_iter().flatten().filter(|one| one.name.starts_with("istio-")).collect();
    let refused = |value: Option<&String>| value.is_some_and(|value| value == "false");
    let waits = own.iter().find_map(|one| {
        let state = one.state.as_ref()?;
        let why = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        Some(format!("{}: {}", one.name, why.filter(|why| why != "PodInitializing")?))
    });
    PodFacts {
        namespace: pod.namespace().unwrap_or_default(),
        id: format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default()),
        injected: pod.annotations().contains_key("sidecar.istio.io/status"),
        declined: refused(pod.labels().get("sidecar.istio.io/inject"))
            || refused(pod.annotations().get("sidecar.istio.io/inject"))
            || pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)),
        running: status.and_then(|status| status.phase.as_deref()) == Some("Running")
            && pod.metadata.deletion_timestamp.is_none(),
        restarts: own.iter().map(|one| one.restart_count).sum(),
        waits,
    }
}

async fn roots(client: &Client, namespace: &str, name: &str) -> Told<Vec<u8>> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await.map_err(text)?;
    let map = map.ok_or_else(|| format!("there is no ConfigMap {namespace}/{name}"))?;
    let pem = map.data.unwrap_or_default().remove("root-cert.pem");
    Ok(pem.ok_or_else(|| format!("ConfigMap {namespace}/{name} has no root-cert.pem"))?.into_bytes())
}
