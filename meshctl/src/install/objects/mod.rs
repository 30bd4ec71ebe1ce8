//! The specification as objects, by component, in the order in which a cluster needs them. Pure.
//!
//! It knows ports, flags and rights of our programs. It must never know a cluster.

mod agent;
mod base;
mod citadel;
mod gateway;
mod mixer;
mod pilot;
mod rights;
pub mod webhook;
mod workload;

#[cfg(test)]
mod tests;

use super::Spec;
use serde_json::{Value, json};

/// Label of all that is installed, whose value says that it is ours to change and to delete.
pub const MANAGED: &str = "operator.istio.io/managed";
/// Value of [`MANAGED`].
pub const RECONCILE: &str = "Reconcile";
/// The ConfigMap with what was asked for.
pub const WRITTEN: &str = "istio-install";
/// Label by which it is known of which revision an object is.
pub const REVISION: &str = "istio.io/rev";
/// Label that names the component.
const COMPONENT: &str = "operator.istio.io/component";
/// Label that names the version of the installer.
pub const VERSION: &str = "operator.istio.io/version";
/// Label: the namespace of the control plane, as several meshes may be in a cluster.
pub const OWNER: &str = "install.operator.istio.io/namespace";

/// A component, in the order of installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Namespace, definitions, rights, settings.
    Base,
    /// The node agent.
    Cni,
    /// The certificate authority.
    Citadel,
    /// Discovery and injection.
    Pilot,
    /// Policy and telemetry.
    Mixer,
    /// Gateways, in and out.
    Gateways,
}

impl Component {
    /// All, in the order of installation.
    pub const ALL: [Self; 6] = [Self::Base, Self::Cni, Self::Citadel, Self::Pilot, Self::Mixer, Self::Gateways];

    /// Its name as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "Base",
            Self::Cni => "CNI",
            Self::Citadel => "Citadel",
            Self::Pilot => "Pilot",
            Self::Mixer => "Mixer",
            Self::Gateways => "Gateways",
        }
    }
}

/// The objects of one component.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Which.
    pub component: Component,
    /// Its objects, in the order in which they are applied.
    pub objects: Vec<Value>,
}

/// All objects of the components that are wanted.
///
/// # Errors
/// Where a value cannot be written down.
pub fn render(spec: &Spec) -> anyhow::Result<Vec<Rendered>> {
    let on = |name: &str| spec.is_on(&format!("components.{name}.enabled"));
    let mut all = Vec::new();
    if on("base") {
        all.push((Component::Base, base::objects(spec)));
    }
    if on("cni") {
        all.push((Component::Cni, agent::objects(spec)));
    }
    if on("citadel") {
        all.push((Component::Citadel, citadel::objects(spec)));
    }
    if on("pilot") {
        let mut objects = pilot::objects(spec)?;
        objects.extend(webhook::objects(spec));
        all.push((Component::Pilot, objects));
    }
    if on("mixer") {
        all.push((Component::Mixer, mixer::objects(spec)));
    }
    let gateways: Vec<Value> =
        spec.gateways().into_iter().flat_map(|gateway| gateway::objects(spec, gateway)).collect();
    if !gateways.is_empty() {
        all.push((Component::Gateways, gateways));
    }
    let labelled = |(component, objects): (Component, Vec<Value>)| {
        let objects = objects.into_iter().map(|object| labelled(spec, object, component)).collect();
        Rendered { component, objects }
    };
    Ok(all.into_iter().map(labelled).collect())
}

fn labelled(spec: &Spec, mut object: Value, component: Component) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let of_revision = is_of_revision(spec, component, &text(&object["metadata"]["name"]));
    let labels = &mut object["metadata"]["labels"];
    labels[MANAGED] = json!(RECONCILE);
    labels[COMPONENT] = json!(component.name());
    labels[VERSION] = json!(env!("CARGO_PKG_VERSION"));
    if kind != "CustomResourceDefinition" {
        labels[OWNER] = json!(spec.namespace());
    }
    if kind != "Namespace" {
        // of a namespace it would ask for sidecars
        labels[REVISION] = json!(if of_revision { spec.revision_label() } else { "default".to_owned() });
    }
    object
}

/// Whether an object is a revision's own. What all share is the default one's, whoever brings it.
fn is_of_revision(spec: &Spec, component: Component, name: &str) -> bool {
    let own = ["istiod", "istio", "istio-sidecar-injector", "istiod-settings", pilot::ISSUER_ROOTS.0, WRITTEN];
    !spec.revision().is_empty()
        && component == Component::Pilot
        && (webhook::names(spec).iter().any(|own| own == name) || own.iter().any(|own| name == spec.of_revision(own)))
}

/// An object in the namespace of the control plane.
fn own(spec: &Spec, version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": spec.namespace(), "labels": {}}})
}

/// A Service of the control plane: name, labels of its pods, and (name, port, port of the pod).
fn service(spec: &Spec, name: &str, app: &str, ports: &[(&str, u16, u16)]) -> Value {
    let port = |(name, port, target): &(&str, u16, u16)| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    let mut service = own(spec, "v1", "Service", name);
    service["metadata"]["labels"] = json!({"app": app});
    service["spec"] = json!({"selector": {"app": app}, "ports": ports.iter().map(port).collect::<Vec<_>>()});
    service
}

/// A service account of the control plane.
fn account(spec: &Spec, name: &str) -> Value {
    let mut account = own(spec, "v1", "ServiceAccount", name);
    if let Some(secrets) = spec.at("values.global.imagePullSecrets").as_array() {
        account["imagePullSecrets"] = secrets.iter().map(|name| json!({"name": name})).collect();
    }
    account
}
