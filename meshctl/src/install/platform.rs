//! What a cluster is and who else is in it, as far as an installation must know (IN-24): OpenShift, its Routes, who keeps
//! Gateway API, and control planes of OpenShift Service Mesh, the second of Maistra's operator and the third of Sail's.
//!
//! It asks the API server alone, and decides nothing about objects: [`Platform::conflicts`] says what cannot be beside a
//! specification, and what to do then.

use super::Spec;
use crate::reach::cluster::said;
use anyhow::Context as _;
use kube::Client;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use std::collections::BTreeMap;

/// Controller of the GatewayClasses that OpenShift's Ingress Operator serves, from 4.19 on, by an istiod of its own.
const INGRESS_OPERATOR: &str = "openshift.io/gateway-controller/v1";
/// The ConfigMap with roots that a control plane of Istio writes where nothing else is said.
const ROOTS: &str = proto::wire::ROOTS_CONFIG_MAP;

/// Who brings operators to OpenShift, and their definitions with them.
pub const OLM: &str = "Operator Lifecycle Manager";

/// Which OpenShift Service Mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Product {
    /// Of Maistra's operator: ServiceMeshControlPlane.
    Two,
    /// Of Sail's operator: Istio.
    Three,
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Two => "OpenShift Service Mesh 2",
            Self::Three => "OpenShift Service Mesh 3",
        })
    }
}

/// A control plane of another mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Of which product.
    pub product: Product,
    /// Kind and name of the object that asks for it.
    pub object: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of the ConfigMap that it writes its roots into.
    pub roots: String,
    /// Whether its webhook answers `istio-injection=enabled` everywhere.
    pub is_default: bool,
}

/// What cannot be, or should be known, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is the case.
    pub what: String,
    /// The way out.
    pub hint: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; what to do: {}", self.what, self.hint)
    }
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Version of OpenShift, as `4.19.3`; none where it is not OpenShift.
    pub openshift: Option<String>,
    /// Whether Routes are served.
    pub routes: bool,
    /// GatewayClasses of OpenShift's Ingress Operator.
    pub gateway_classes: Vec<String>,
    /// Operators whose kinds are defined.
    pub operators: Vec<Product>,
    /// Control planes of other meshes.
    pub neighbours: Vec<Neighbour>,
}

impl Platform {
    /// Asks the API server.
    ///
    /// # Errors
    /// What it says, with the kind.
    pub async fn look(client: &Client) -> anyhow::Result<Self> {
        let list = client.list_api_groups().await.map_err(said).context("API groups")?;
        let groups: BTreeMap<String, Vec<String>> = { list.groups.into_iter() }
            .map(|group| (group.name, group.versions.into_iter().map(|version| version.version).collect()))
            .collect();
        let all = async |group: &str, kind: &str, plural: &str| match groups.get(group).and_then(|all| all.first()) {
            Some(version) => objects(client, (group, version, kind, plural)).await,
            None => Ok(Vec::new()),
        };
        let versions = all("config.openshift.io", "ClusterVersion", "clusterversions").await?;
        let classes = all("gateway.networking.k8s.io", "GatewayClass", "gatewayclasses").await?;
        let second = all("maistra.io", "ServiceMeshControlPlane", "servicemeshcontrolplanes").await?;
        let third = all("sailoperator.io", "Istio", "istios").await?;
        let operators = [("maistra.io", Product::Two), ("sailoperator.io", Product::Three)];
        Ok(Self {
            openshift: versions.iter().find(|one| one.name_any() == "version").map(version),
            routes: groups.contains_key("route.openshift.io"),
            gateway_classes: {
                let own = classes.iter().filter(|class| class.data["spec"]["controllerName"] == INGRESS_OPERATOR);
                own.map(ResourceExt::name_any).collect()
            },
            operators: operators
                .into_iter()
                .filter(|(group, _)| groups.contains_key(*group))
                .map(|one| one.1)
                .collect(),
            neighbours: second.iter().map(of_second).chain(third.iter().map(of_third)).collect(),
        })
    }

    /// What cannot be beside what is wanted.
    pub fn conflicts(&self, spec: &Spec) -> Vec<Finding> {
        let own = spec.namespace();
        let mut found = Vec::new();
        let runs =
            ["pilot", "citadel", "mixer", "cni"].iter().any(|name| spec.is_on(&format!("components.{name}.enabled")));
        if let Some(version) =
            self.openshift.as_ref().filter(|_| runs && spec.text("values.global.platform") != "openshift")
        {
            found.push(Finding {
                what: format!("this is OpenShift {version}, which refuses the users that the profile gives to pods"),
                hint: "--set profile=openshift, or --set values.global.platform=openshift beside a profile of your own"
                    .into(),
            });
        }
        let chosen = spec.at("meshConfig.discoverySelectors").as_array().is_some_and(|list| !list.is_empty());
        for other in self.neighbours.iter().filter(|_| runs) {
            let who = format!("{} ({})", other.object, other.product);
            if other.namespace == own {
                let what = format!("{who} has its control plane in the namespace {own}");
                found.push(Finding { what, hint: "give this mesh another one: --set namespace=NAME".into() });
            }
            if other.roots == spec.roots() && !chosen {
                found.push(Finding {
                    what: format!("{who} writes {} into its namespaces, and this mesh would into all: proxies of one of them would trust nobody", other.roots),
                    hint: "give this mesh's roots a name of their own, --set values.global.trustBundleName=ferromesh-ca-root-cert, or say which namespaces are this mesh's: --set 'meshConfig.discoverySelectors[0].matchLabels.mesh=ferromesh', and label them mesh=ferromesh".into(),
                });
            }
            if other.is_default && spec.revision().is_empty() {
                found.push(Finding {
                    what: format!("{who} answers the label istio-injection=enabled, and so would this mesh: pods would get two proxies"),
                    hint: "give this mesh a revision, which namespaces ask for: --set revision=NAME, and label them istio.io/rev=NAME".into(),
                });
            }
        }
        found
    }

    /// What works, and whoever installs should know.
    pub fn warnings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let third = !self.gateway_classes.is_empty() || self.operators.contains(&Product::Three);
        if self.operators.contains(&Product::Two) && third {
            let other = match self.gateway_classes.first() {
                Some(class) => {
                    format!("the GatewayClass {class} has OpenShift's Ingress Operator install {}", Product::Three)
                }
                None => format!("{} is here", Product::Three),
            };
            found.push(Finding {
                what: format!("{} is here, and {other}: OpenShift runs them in one cluster only where neither takes the other's definitions (4.19 fails silently, 4.20 says Degraded)", Product::Two),
                hint: "move the ServiceMeshControlPlanes away, or delete the GatewayClass, before a third mesh comes".into(),
            });
        }
        for product in &self.operators {
            if !self.neighbours.iter().any(|other| other.product == *product) {
                found.push(Finding {
                    what: format!("the operator of {product} is here, without a control plane"),
                    hint: "delete its Subscription if nobody needs it; a control plane that it makes later wants its own namespaces by discoverySelectors".into(),
                });
            }
        }
        found
    }
}

/// All objects of a kind; none where it is not served after all.
async fn objects(
    client: &Client,
    (group, version, kind, plural): (&str, &str, &str, &str),
) -> anyhow::Result<Vec<DynamicObject>> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(said(error)).with_context(|| format!("{plural}.{group}")),
    }
}

/// The newest version that a ClusterVersion has reached, or else the one that it is to reach.
fn version(one: &DynamicObject) -> String {
    let status = &one.data["status"];
    let done = status["history"].as_array().into_iter().flatten().find(|one| one["state"] == "Completed");
    let version = done.map_or(&status["desired"]["version"], |one| &one["version"]);
    version.as_str().unwrap_or("of an unknown version").to_owned()
}

fn of_second(one: &DynamicObject) -> Neighbour {
    let namespace = one.namespace().unwrap_or_default();
    let object = format!("ServiceMeshControlPlane {namespace}/{}", one.name_any());
    // Its webhooks look at the members of its roll alone.
    Neighbour { product: Product::Two, object, namespace, roots: ROOTS.to_owned(), is_default: false }
}

fn of_third(one: &DynamicObject) -> Neighbour {
    let spec = &one.data["spec"];
    let bundle = spec["values"]["global"]["trustBundleName"].as_str().filter(|name| !name.is_empty());
    let revision = spec["values"]["revision"].as_str().filter(|name| !name.is_empty());
    let revision_based = spec["updateStrategy"]["type"] == "RevisionBased";
    Neighbour {
        product: Product::Three,
        object: format!("Istio {}", one.name_any()),
        namespace: spec["namespace"].as_str().unwrap_or("istio-system").to_owned(),
        roots: bundle.unwrap_or(ROOTS).to_owned(),
        is_default: !revision_based && revision.map_or_else(|| one.name_any() == "default", |name| name == "default"),
    }
}

/// Who keeps an object that we would apply: an operator by its reference or label, OLM the definitions that it brought.
pub fn keeper(object: &DynamicObject) -> Option<String> {
    let owner =
        object.metadata.owner_references.iter().flatten().next().map(|owner| format!("{} {}", owner.kind, owner.name));
    let labels = object.labels();
    let label = |name: &str| labels.get(name).map(String::as_str);
    let by_label = || match (label("olm.managed"), label("managed-by"), label("maistra.io/owner")) {
        (Some("true"), _, _) => Some(OLM.to_owned()),
        (_, Some("sail-operator"), _) => Some(Product::Three.to_string()),
        (_, _, Some(owner)) => Some(format!("{} of {owner}", Product::Two)),
        _ => None,
    };
    owner.or_else(by_label)
}

/// Whether an object is one that a cluster of this kind has no use for.
pub fn is_foreign(platform: &Platform, object: &Value) -> bool {
    object["kind"] == "Route" && !platform.routes
}

#[cfg(test)]
mod tests;
