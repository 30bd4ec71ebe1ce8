//! `meshctl experimental injector list`: which webhook injects which namespace, and which revisions its pods have (CT-17).

use crate::injector::hook::{Hook, Labels};
use crate::injector::list::Facts;
use crate::output::{self, Format};
use crate::reach::cluster::said;
use crate::reach::{Cluster, Place};
use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use pilot::inject::Values;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The ConfigMaps with settings of injection: this name, and with `-REVISION` behind it.
const SETTINGS: &str = "istio-sidecar-injector";

/// `meshctl experimental injector`.
///
/// Examples:
///   meshctl x injector list
///   meshctl x injector list -n shop -o json
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct InjectorArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Show namespaces with their revisions, and webhooks with their images.
    List {
        #[command(flatten)]
        at: Place,
        /// Only this namespace.
        #[arg(short, long)]
        namespace: Option<String>,
        /// How to show the result.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Shows them.
///
/// # Errors
/// What the API server says.
pub async fn run(args: InjectorArgs) -> anyhow::Result<()> {
    let What::List { at, namespace, output } = args.what;
    let mut facts = facts(&at.cluster().await?).await?;
    facts.namespaces.retain(|name, _| namespace.as_ref().is_none_or(|only| only == name));
    let ((spaces, of_spaces), (hooks, of_hooks)) = (facts.by_namespace(), facts.by_hook());
    if output != Format::Table {
        return output::show(output, &spaces, &json!({"namespaces": of_spaces, "hooks": of_hooks}));
    }
    if of_spaces.is_empty() {
        output::note("no namespace is there but the system's");
    }
    spaces.lines().iter().try_for_each(|line| output::say(line))?;
    output::say("")?;
    if of_hooks.is_empty() {
        output::note("nothing injects: meshctl install brings the webhook");
        return Ok(());
    }
    hooks.lines().iter().try_for_each(|line| output::say(line))
}

/// The webhook configurations that inject, by name.
///
/// # Errors
/// What the API server says.
pub async fn hooks(cluster: &Cluster) -> anyhow::Result<Vec<Hook>> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let list = api.list(&ListParams::default()).await.map_err(said).context("webhook configurations")?;
    let read = |object| serde_json::to_value(object).ok().and_then(|object: Value| Hook::read(&object));
    let mut hooks: Vec<Hook> = list.items.iter().filter_map(read).collect();
    hooks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(hooks)
}

async fn facts(cluster: &Cluster) -> anyhow::Result<Facts> {
    let everything = ListParams::default();
    let spaces: Api<Namespace> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.control_plane);
    let spaces = spaces.list(&everything).await.map_err(said).context("namespaces")?;
    let pods = pods.list(&everything).await.map_err(said).context("pods")?;
    let maps = maps.list(&everything).await.map_err(said).context("ConfigMaps")?;
    let of_pod = |pod: Pod| {
        let (space, labels): (String, Labels) = (pod.namespace().unwrap_or_default(), pod.labels().clone());
        (space, labels, pod.annotations().clone())
    };
    Ok(Facts {
        hooks: hooks(cluster).await?,
        namespaces: spaces.items.iter().map(|one| (one.name_any(), one.labels().clone())).collect(),
        pods: pods.items.into_iter().map(of_pod).collect(),
        images: maps.items.iter().filter_map(image).collect(),
        control_plane: cluster.control_plane.clone(),
    })
}

/// The revision of settings of injection, and the image of its sidecars.
fn image(map: &ConfigMap) -> Option<(String, String)> {
    map.name_any().starts_with(SETTINGS).then_some(())?;
    let data: &BTreeMap<String, String> = map.data.as_ref()?;
    let values: Value = serde_json::from_str(data.get("values")?).ok()?;
    let revision = values["revision"].as_str().unwrap_or_default().to_owned();
    // With what is not written, as the webhook has it.
    let values = Values::new(&values);
    let name = values.text("global.proxy.image");
    let full = match name.contains('/') {
        true => name,
        false => format!("{}/{name}:{}", values.text("global.hub"), values.text("global.tag")),
    };
    Some((if revision.is_empty() { "default".to_owned() } else { revision }, full))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-17
    #[test]
    fn the_image_is_that_of_the_settings() {
        let of = |name: &str, values: Value| {
            let map = json!({"metadata": {"name": name}, "data": {"values": values.to_string()}});
            image(&serde_json::from_value(map).unwrap())
        };
        let plain = json!({"global": {"hub": "h", "tag": "1.0", "proxy": {"image": "proxy"}}});
        assert_eq!(of(SETTINGS, plain.clone()), Some(("default".into(), "h/proxy:1.0".into())));
        let own = json!({"global": {"hub": "h", "tag": "1.0", "proxy": {"image": "own/p:2"}}, "revision": "2-0"});
        assert_eq!(of("istio-sidecar-injector-2-0", own), Some(("2-0".into(), "own/p:2".into())));
        assert_eq!(of("other", plain), None);
        let usual = json!({"global": {"hub": "h", "tag": "1.0", "proxy": {}}});
        assert_eq!(of(SETTINGS, usual), Some(("default".into(), "h/proxy:1.0".into())), "what an installation writes");
    }
}
